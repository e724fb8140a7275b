//! A position that is missing is never guessed: either nothing was ever written for the task, or an operator has to look.

use std::time::Duration;

use super::plan::Kept;
use super::thread::StreamThread;
use crate::broker::{Broker, BrokerError, ErrorKind, FetchedBatch, Isolation, LogReader};
use crate::record::{Offset, TopicPartition};
use crate::task::TaskError;

impl<B: Broker> StreamThread<B> {
    /// A task without a position is new only where nothing was ever written for it.
    pub(super) fn check_first_start(
        &self,
        input: &TopicPartition,
        kept: &Kept,
        shuffled: bool,
        max_wait: Duration,
    ) -> Result<(), TaskError> {
        let changelog = TopicPartition::new(kept.changelog.clone(), input.partition);
        let output = kept.output.as_ref().filter(|(_, partitions)| *partitions == kept.partitions);
        let output = output.map(|(topic, _)| TopicPartition::new(topic.clone(), input.partition));
        for log in [Some(changelog), shuffled.then(|| input.clone()), output].into_iter().flatten() {
            if self.was_written(&log, max_wait)? {
                return self.missing_position(input, &format!("{log} holds records"));
            }
        }
        Ok(())
    }

    /// Whether a log holds or has held a committed record. Offsets alone say nothing: transactions that were given up use them too.
    fn was_written(&self, log: &TopicPartition, max_wait: Duration) -> Result<bool, TaskError> {
        let range = self.broker.log_range(log, Isolation::ReadUncommitted)?;
        if range.start > Offset::ZERO {
            return Ok(true);
        }
        let mut reader = self.broker.reader(log, range.start)?;
        while reader.position() < range.end {
            let batch = reader.read(max_wait)?;
            let mut records = Vec::new();
            match &batch {
                Some(batch) => batch.records(&mut records)?,
                None if reader.position() < range.end => {
                    return Err(BrokerError::new(ErrorKind::Retry, format!("a transaction is still open in {log}")).into());
                }
                None => {}
            }
            if !records.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Refuses to start a task that should have a position and has none, unless it has one by now: then its partition is somebody
    /// else's, and the next poll will say so.
    pub(super) fn missing_position(&self, input: &TopicPartition, evidence: &str) -> Result<(), TaskError> {
        let group = &self.config.application_id;
        if self.broker.committed(group, std::slice::from_ref(input))?.pop().flatten().is_some() {
            let message = format!("{input} has been started by somebody else");
            return Err(BrokerError::new(ErrorKind::Retry, message).into());
        }
        Err(TaskError::Stop(format!(
            "group {group} has no committed offset for {input}, though {evidence}: going on would count records twice or leave some \
             out; give the group its offsets back, reset the application (clickmill reset), or count under another application id"
        )))
    }
}
