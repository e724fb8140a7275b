//! Partitions as librdkafka takes them.

use millstream::broker::{BrokerError, CommittedOffset};
use millstream::record::{Partition, Topic, TopicPartition};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset as NativeOffset, TopicPartitionList};

use crate::error::broker_error;
use crate::ffi::Failure;

/// A partition's number in the protocol.
pub(crate) fn number(partition: &TopicPartition) -> i32 {
    partition.partition.0.try_into().unwrap_or(i32::MAX)
}

/// A list of partitions, each with the same offset.
pub(crate) fn list_at<'a>(
    partitions: impl IntoIterator<Item = &'a TopicPartition>,
    offset: NativeOffset,
) -> Result<TopicPartitionList, BrokerError> {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        let added = list.add_partition_offset(&partition.topic, number(partition), offset);
        added.map_err(|error| broker_error("naming", &partition.to_string(), &error.into()))?;
    }
    Ok(list)
}

/// A list of positions to commit.
pub(crate) fn list_of_positions(positions: &[(TopicPartition, CommittedOffset)]) -> Result<TopicPartitionList, BrokerError> {
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for (partition, position) in positions {
        let invalid = |failure: Failure| broker_error("committing a position of", &partition.to_string(), &failure);
        let mut element = list.add_partition(&partition.topic, number(partition));
        element.set_offset(NativeOffset::Offset(position.offset.0)).map_err(|error| invalid(error.into()))?;
        // A zero byte would end it early, and another string would be committed than was asked for.
        if position.metadata.contains('\0') {
            return Err(invalid(Failure::new(RDKafkaErrorCode::OffsetMetadataTooLarge, "its metadata holds a zero byte")));
        }
        if !position.metadata.is_empty() {
            element.set_metadata(&position.metadata);
        }
    }
    Ok(list)
}

/// The partitions of a list, in order.
pub(crate) fn partitions_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let mut partitions: Vec<_> = list
        .elements()
        .iter()
        .map(|element| TopicPartition::new(Topic::from(element.topic()), Partition(element.partition().max(0) as u32)))
        .collect();
    partitions.sort();
    partitions
}
