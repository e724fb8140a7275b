//! What was committed stays committed: where brokers break that, nothing more is counted.
//!
//! A broker can take back a transaction that it has answered for: Apache Kafka 4.3 and 4.4 forget to mark one as ended that they finish
//! while its partitions have no leader, and when the producer's next transaction is aborted, both are. Going on would count
//! twice what was committed, or leave it out.

use super::open::Phase;
use super::thread::StreamThread;
use crate::broker::{Broker, CommittedOffset, ErrorKind};
use crate::record::{Offset, TopicPartition};
use crate::task::TaskError;

impl<B: Broker> StreamThread<B> {
    /// After a transaction that failed, and before the next, makes sure that what the tasks went back to is what is committed.
    ///
    /// # Errors
    /// [`TaskError::Stop`] where it is not. Where it cannot be told now, the next commit asks again: positions that a transaction still
    /// holds are not lost, and that commit may be what lets them go.
    pub(super) fn check_commits_last(&mut self) -> Result<(), TaskError> {
        if !self.is_in_doubt {
            return Ok(());
        }
        let running = self.slots.iter().filter(|(_, slot)| matches!(slot.phase, Phase::Running(_)));
        // Before the broker is asked: who has taken a task over meanwhile may commit in between.
        let ours = |input: &TopicPartition| Some((input.clone(), self.registry.committed(input)?));
        let (inputs, ours): (Vec<_>, Vec<_>) = running.filter_map(|(input, _)| ours(input)).unzip();
        let committed = match self.broker.committed(&self.config.application_id, &inputs) {
            Err(error) if error.kind() == ErrorKind::Retry => {
                tracing::debug!(%error, "whether the last commit has lasted cannot be told yet");
                return Ok(());
            }
            answered => answered?,
        };
        for ((input, ours), committed) in inputs.iter().zip(ours).zip(&committed) {
            check_commit_lasts(input, ours, committed.as_ref())?;
        }
        self.is_in_doubt = false;
        Ok(())
    }
}

/// Makes sure that the position of the group is not before one that was committed.
///
/// # Errors
/// [`TaskError::Stop`] where it is.
pub(super) fn check_commit_lasts(input: &TopicPartition, ours: Offset, found: Option<&CommittedOffset>) -> Result<(), TaskError> {
    let found = found.map(|committed| committed.offset);
    if found >= Some(ours) {
        return Ok(());
    }
    let found = found.map_or("gone".to_owned(), |offset| offset.to_string());
    Err(TaskError::Stop(format!(
        "the group's position in {input} is {found}, though {ours} was committed from here: unless it was reset or its topic deleted, the brokers have \
         lost a transaction that they had committed, and going on would make wrong counts: stop every instance and count anew \
         (clickmill reset)"
    )))
}
