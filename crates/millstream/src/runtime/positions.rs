//! Reading what is committed, and the errors of a position that cannot be gone on from.

use super::context::Parts;
use crate::broker::{Broker, BrokerError, CommittedOffset, ErrorKind};
use crate::record::{Offset, TopicPartition};
use crate::task::counted_with::CountedWith;
use crate::task::input::SourcePosition;
use crate::task::metadata::OffsetMetadata;
use crate::task::{TaskError, TopicIdentity};

/// What every position of a task has beside it for life: what is counted with, which topic it is a position of, and which changelog holds
/// what was counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    pub(super) topic: TopicIdentity,
    pub(super) changelog: Option<TopicIdentity>,
    pub(super) counted_with: Option<CountedWith>,
}

impl Marks {
    /// The metadata with them, which every later commit keeps.
    pub(super) fn put(self, mut metadata: OffsetMetadata) -> OffsetMetadata {
        self.topic.put_entries(&mut metadata.entries);
        if let Some(changelog) = self.changelog {
            changelog.put_changelog_entries(&mut metadata.entries);
        }
        if let Some(counted_with) = self.counted_with {
            counted_with.put_entries(&mut metadata.entries);
        }
        metadata
    }

    /// A position that was committed, with them.
    pub(super) fn source_position(self, committed: &CommittedOffset) -> Result<SourcePosition, TaskError> {
        Ok(SourcePosition { offset: committed.offset, metadata: self.put(decode_metadata(committed)?) })
    }
}

/// Refuses a position in a topic that was there before the one of that name.
pub(super) fn check_topic(input: &TopicPartition, committed: &CommittedOffset, topic: TopicIdentity) -> Result<(), TaskError> {
    let known = TopicIdentity::from_entries(&decode_metadata(committed)?.entries);
    if known.is_none_or(|known| known == topic) {
        return Ok(());
    }
    let (name, offset) = (&input.topic, committed.offset);
    Err(TaskError::Stop(format!(
        "topic {name} was deleted and made again: the group's position {offset} in {input} is one of the topic before, and nothing is read of this \
         one; keep what was counted and count this one from its start (clickmill reset --accept-gap), or count everything anew (clickmill reset)"
    )))
}

/// Refuses a position up to which was counted on a changelog that was there before the one of that name.
pub(super) fn check_changelog(
    log: &TopicPartition,
    committed: &CommittedOffset,
    changelog: TopicIdentity,
) -> Result<(), TaskError> {
    let known = TopicIdentity::changelog_from_entries(&decode_metadata(committed)?.entries);
    if known.is_none_or(|known| known == changelog) {
        return Ok(());
    }
    Err(TaskError::Stop(format!(
        "topic {} was deleted and made again: what had been counted is not on {log} any more, and nothing is counted on top of that; the state \
         on this disk stays as it is until everything is counted anew (clickmill reset)",
        log.topic
    )))
}

/// The error for a topic that was made again, and the group's positions in it are gone.
pub(super) fn made_again(input: &TopicPartition) -> TaskError {
    TaskError::Stop(format!(
        "topic {} was deleted and made again, and the group's position in {input} went with the one before: nothing is read of this one, for \
         nobody knows what is counted of it; count everything anew (clickmill reset), or count it under another application id",
        input.topic
    ))
}

pub(super) fn decode_metadata(committed: &CommittedOffset) -> Result<OffsetMetadata, TaskError> {
    OffsetMetadata::decode(&committed.metadata).map_err(|invalid| TaskError::Stop(invalid.to_string()))
}

/// The error for a position that the log no longer has.
pub(super) fn gap(partition: &TopicPartition, position: Offset, start: Offset) -> TaskError {
    TaskError::Stop(format!(
        "{partition} begins at offset {start}, but the group has read only up to {position}: {} records were deleted before they were \
         counted; accept the loss and go on at {start} (clickmill reset --accept-gap), count what is left anew (clickmill reset), or \
         count it under another application id",
        start.0 - position.0
    ))
}

/// Refuses to start a task that should have a position and has none, unless it has one by now: then its partition is somebody
/// else's, and the group will say so.
pub(super) fn missing_position<B: Broker>(parts: &Parts<B>, input: &TopicPartition, evidence: &str) -> TaskError {
    match parts.committed_position(input) {
        Err(error) => return error.into(),
        Ok(Some(_)) => return BrokerError::new(ErrorKind::Retry, format!("{input} has been started by somebody else")).into(),
        Ok(None) => {}
    }
    let group = &parts.config.application_id;
    TaskError::Stop(format!(
        "group {group} has no committed offset for {input}, though {evidence}: going on would count records twice or leave some \
         out; give the group its offsets back, reset the application (clickmill reset), or count under another application id"
    ))
}
