//! What was committed stays committed: where brokers break that, nothing more is counted.
//!
//! A broker can take back a transaction that it has answered for: Apache Kafka 4.3 and 4.4 forget to mark one as ended that they finish
//! while its partitions have no leader, and when the producer's next transaction is aborted, both are. Going on would count
//! twice what was committed, or leave it out.

use super::open::Phase;
use super::thread::StreamThread;
use crate::broker::{Broker, CommittedOffset};
use crate::record::TopicPartition;
use crate::task::TaskError;

impl<B: Broker> StreamThread<B> {
    /// After a transaction that failed, and before the next, makes sure that what the tasks went back to is what is committed.
    ///
    /// # Errors
    /// [`TaskError::Stop`] where it is not. Where it cannot be found out, the next call asks again.
    pub(super) fn check_commits_last(&mut self) -> Result<(), TaskError> {
        if !self.is_in_doubt {
            return Ok(());
        }
        let running = self.slots.iter().filter(|(_, slot)| matches!(slot.phase, Phase::Running(_)));
        let inputs: Vec<_> = running.map(|(input, _)| input.clone()).collect();
        let committed = self.broker.committed(&self.config.application_id, &inputs)?;
        for (input, committed) in inputs.iter().zip(&committed) {
            self.check_commit_lasts(input, committed.as_ref())?;
        }
        self.is_in_doubt = false;
        Ok(())
    }

    /// Makes sure that the position of the group is not before one that this instance has committed.
    ///
    /// # Errors
    /// [`TaskError::Stop`] where it is.
    pub(super) fn check_commit_lasts(&self, input: &TopicPartition, found: Option<&CommittedOffset>) -> Result<(), TaskError> {
        let Some(ours) = self.registry.committed(input) else { return Ok(()) };
        let found = found.map(|committed| committed.offset);
        if found >= Some(ours) {
            return Ok(());
        }
        let found = found.map_or("gone".to_owned(), |offset| offset.to_string());
        Err(TaskError::Stop(format!(
            "the group's position in {input} is {found}, though {ours} was committed from here: the brokers have lost a transaction that they \
             had committed, and going on would make wrong counts: reset the application and count anew (clickmill reset)"
        )))
    }
}
