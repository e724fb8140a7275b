//! How far a consumer has been read.

use rdkafka::TopicPartitionList;
use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as sys;

use super::Failure;

/// Sets the offset of each partition of the list to the one after what was taken from the consumer's queues, markers of transactions
/// included; to an invalid one where nothing was taken since the partition was last sought.
pub(crate) fn position<C: ClientContext>(client: &Client<C>, list: &TopicPartitionList) -> Result<(), Failure> {
    // SAFETY: the client and the list live for the call, which changes offsets and errors of the list's elements alone.
    Failure::check(unsafe { sys::rd_kafka_position(client.native_ptr(), list.ptr()) })
}
