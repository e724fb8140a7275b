//! Retention by time and by size, by whole segments. It takes nothing that a group consuming the topic has not committed yet: a
//! backlog is kept, whatever the settings say.
//!
//! A group consumes a topic while it has members that do: one that nobody runs any more would keep everything for ever. While
//! no group has any, as between two runs, all that have committed a position in the partition count, for any may come back.

use super::super::super::TopicSettings;
use super::super::group::Group;
use super::super::log::Log;
use super::super::state::State;
use super::super::storage::LogStorage;
use super::super::{Shared, lock};
use crate::record::{Offset, Timestamp, TopicPartition};

impl<S: LogStorage> Shared<S> {
    /// Moves the starts of logs to where retention wants them.
    pub(super) fn apply_retention(&self) {
        let now = self.clock.now();
        let mut writer = lock(&self.writer);
        let mut state = lock(&self.state);
        for (partition, start) in due(&state, now) {
            if let Some(log) = state.logs.get_mut(&partition) {
                writer.move_start(log, start);
            }
        }
        self.changed.notify_all();
    }
}

fn due(state: &State, now: Timestamp) -> Vec<(TopicPartition, Offset)> {
    let limited = |settings: &TopicSettings| settings.retention.is_some() || settings.retention_bytes.is_some();
    let starts = state.logs.iter().filter_map(|(partition, log)| {
        let settings = &state.topics.get(&partition.topic)?.settings;
        let start = limited(settings).then(|| wanted_start(log, settings, now))?.min(consumed(state, partition, log));
        (start > log.start).then(|| (partition.clone(), start))
    });
    starts.collect()
}

/// The first offset that time and size let stay.
fn wanted_start(log: &Log, settings: &TopicSettings, now: Timestamp) -> Offset {
    let kept_ms = settings.retention.map(|retention| i64::try_from(retention.as_millis()).unwrap_or(i64::MAX));
    let oldest = kept_ms.map_or(Timestamp(i64::MIN), |kept_ms| Timestamp(now.0.saturating_sub(kept_ms)));
    let mut bytes: u64 = log.segments.iter().map(|segment| segment.bytes).sum();
    let mut start = log.start;
    for segment in &log.segments {
        let too_many = settings.retention_bytes.is_some_and(|limit| bytes > limit) && Some(segment) != log.segments.back();
        if segment.max_timestamp >= oldest && !too_many {
            break;
        }
        bytes -= segment.bytes;
        start = segment.next;
    }
    start
}

/// The offset before which every group that counts has committed. A member's group without a position has it all to read.
fn consumed(state: &State, partition: &TopicPartition, log: &Log) -> Offset {
    let committed = |group: &Group| group.offsets.get(partition).map(|committed| committed.offset);
    let run = state.groups.values().filter(|group| group.consumes(&partition.topic));
    let run = run.map(|group| committed(group).unwrap_or(log.start)).min();
    run.or_else(|| state.groups.values().filter_map(committed).min()).unwrap_or(log.end)
}
