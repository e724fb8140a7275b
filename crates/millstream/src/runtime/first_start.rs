//! A position that is missing is never guessed: either nothing was ever written for the task, or an operator has to look.

use std::time::Duration;

use super::context::Parts;
use super::plan::Kept;
use super::positions::missing_position;
use crate::broker::{Broker, BrokerError, ErrorKind, FetchedBatch, Isolation, LogReader};
use crate::record::{Offset, TopicPartition};
use crate::task::TaskError;

/// A task without a position is new only where nothing was ever written for it.
pub(super) fn check_first_start<B: Broker>(
    parts: &Parts<B>,
    input: &TopicPartition,
    kept: &Kept,
    shuffled: bool,
    max_wait: Duration,
) -> Result<(), TaskError> {
    let changelog = TopicPartition::new(kept.changelog.clone(), input.partition);
    let output = kept.output.as_ref().filter(|(_, partitions)| *partitions == kept.partitions);
    let output = output.map(|(topic, _)| TopicPartition::new(topic.clone(), input.partition));
    for log in [Some(changelog), shuffled.then(|| input.clone()), output].into_iter().flatten() {
        if was_written(parts, &log, max_wait)? {
            return Err(missing_position(parts, input, &format!("{log} holds records")));
        }
    }
    Ok(())
}

/// Whether a log holds or has held a committed record. Offsets alone say nothing: transactions that were given up use them too.
fn was_written<B: Broker>(parts: &Parts<B>, log: &TopicPartition, max_wait: Duration) -> Result<bool, TaskError> {
    let range = parts.broker.log_range(log, Isolation::ReadUncommitted)?;
    if range.start > Offset::ZERO {
        return Ok(true);
    }
    let mut reader = parts.broker.reader(log, range.start)?;
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
