//! Positions that cannot be gone on from: what lay behind them was deleted before it was counted, with their topic or from its head.

use millstream::broker::{Broker, CommittedOffset, Isolation};
use millstream::record::{Offset, Partition, TopicPartition};
use millstream::task::TopicIdentity;
use millstream::task::metadata::OffsetMetadata;
use millstream_kafka::KafkaBroker;

use crate::admin::refuse_members;
use crate::admin::topics::{Role, topics_of};
use crate::config::Config;

/// Offsets that are not there any more and were not counted: from the position to the log's start, or whatever the topic held that was there
/// before this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The partition.
    pub partition: TopicPartition,
    /// What is committed.
    pub committed: CommittedOffset,
    /// Where the log starts.
    pub start: Offset,
    /// The topic that the log is of, where the position is one in the topic that was there before.
    pub made_again: Option<TopicIdentity>,
}

/// The gaps in front of the application, in the clicks topic and the repartition topic.
///
/// # Errors
/// Where the group has members, or the cluster cannot be asked.
pub fn gaps(broker: &KafkaBroker, config: &Config) -> anyhow::Result<Vec<Gap>> {
    let group = &config.engine.application_id;
    refuse_members(broker, group)?;
    let read = topics_of(config).into_iter().filter(|topic| matches!(topic.role, Role::Clicks | Role::Repartition));
    let mut gaps = Vec::new();
    for topic in read {
        let Some(described) = broker.describe_topic(&topic.name)? else { continue };
        let partitions = (0..described.partitions).map(|p| TopicPartition::new(topic.name.clone(), Partition(p)));
        gaps.extend(gaps_in(broker, group, TopicIdentity::of(&described), partitions.collect())?);
    }
    Ok(gaps)
}

fn gaps_in(broker: &KafkaBroker, group: &str, topic: TopicIdentity, partitions: Vec<TopicPartition>) -> anyhow::Result<Vec<Gap>> {
    let committed = broker.committed(group, &partitions)?;
    let ranges = broker.log_ranges(&partitions, Isolation::ReadCommitted)?;
    let mut gaps = Vec::new();
    for ((partition, committed), range) in partitions.into_iter().zip(committed).zip(ranges) {
        let Some(committed) = committed else { continue };
        let of_before = TopicIdentity::from_entries(&OffsetMetadata::decode(&committed.metadata)?.entries);
        let made_again = of_before.is_some_and(|before| before != topic).then_some(topic);
        if made_again.is_some() || committed.offset < range.start {
            gaps.push(Gap { partition, committed, start: range.start, made_again });
        }
    }
    Ok(gaps)
}

/// Moves the positions to the starts of their logs. Stream time and all else that lies beside them stays.
///
/// # Errors
/// Where the positions cannot be set.
pub fn accept(broker: &KafkaBroker, config: &Config, gaps: &[Gap]) -> anyhow::Result<()> {
    let moved = gaps.iter().map(moved).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(broker.set_committed(&config.engine.application_id, &moved)?)
}

fn moved(gap: &Gap) -> anyhow::Result<(TopicPartition, CommittedOffset)> {
    let mut metadata = OffsetMetadata::decode(&gap.committed.metadata)?;
    if let Some(topic) = gap.made_again {
        topic.put_entries(&mut metadata.entries);
    }
    Ok((gap.partition.clone(), CommittedOffset { offset: gap.start, metadata: metadata.encode() }))
}
