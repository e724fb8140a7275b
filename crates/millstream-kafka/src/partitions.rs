//! Partitions as librdkafka takes them.

use millstream::broker::{BrokerError, CommittedOffset};
use millstream::record::TopicPartition;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset as NativeOffset, TopicPartitionList};

use crate::error::broker_error;
use crate::ffi::Failure;

/// A partition's number in the protocol.
pub(crate) fn number(partition: &TopicPartition) -> i32 {
    partition.partition.0.try_into().unwrap_or(i32::MAX)
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
