//! Positions that lie before the start of their log: what was between was deleted before it was counted.

use millstream::broker::{Broker, CommittedOffset, Isolation};
use millstream::record::{Offset, Partition, TopicPartition};
use millstream_kafka::KafkaBroker;

use crate::admin::refuse_members;
use crate::admin::topics::{Role, topics_of};
use crate::config::Config;

/// Offsets that are not there any more and were not counted: from the position to the log's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The partition.
    pub partition: TopicPartition,
    /// What is committed.
    pub committed: CommittedOffset,
    /// Where the log starts.
    pub start: Offset,
}

/// The gaps in front of the application, in the clicks topic and the repartition topic.
///
/// # Errors
/// Where the group has members, or the cluster cannot be asked.
pub fn gaps(broker: &KafkaBroker, config: &Config) -> anyhow::Result<Vec<Gap>> {
    let group = &config.engine.application_id;
    refuse_members(broker, group)?;
    let read = topics_of(config).into_iter().filter(|topic| matches!(topic.role, Role::Clicks | Role::Repartition));
    let mut partitions = Vec::new();
    for topic in read {
        let count = broker.describe_topic(&topic.name)?.map_or(0, |described| described.partitions);
        partitions.extend((0..count).map(|p| TopicPartition::new(topic.name.clone(), Partition(p))));
    }
    let committed = broker.committed(group, &partitions)?;
    let ranges = broker.log_ranges(&partitions, Isolation::ReadCommitted)?;
    let each = partitions.into_iter().zip(committed).zip(ranges);
    let gap = |((partition, committed), range): ((TopicPartition, Option<CommittedOffset>), millstream::broker::LogRange)| {
        let committed = committed.filter(|committed| committed.offset < range.start)?;
        Some(Gap { partition, committed, start: range.start })
    };
    Ok(each.filter_map(gap).collect())
}

/// Moves the positions to the starts of their logs. Stream time and all else that lies beside them stays.
///
/// # Errors
/// Where the positions cannot be set.
pub fn accept(broker: &KafkaBroker, config: &Config, gaps: &[Gap]) -> anyhow::Result<()> {
    let moved = |gap: &Gap| (gap.partition.clone(), CommittedOffset { offset: gap.start, ..gap.committed.clone() });
    Ok(broker.set_committed(&config.engine.application_id, &gaps.iter().map(moved).collect::<Vec<_>>())?)
}
