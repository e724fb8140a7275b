//! What a group has committed.

use std::time::Duration;

use millstream::broker::CommittedOffset;
use millstream::record::{Offset, TopicPartition};
use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as sys;

use super::admin::{native_elements, native_partitions};
use super::{Failure, codes, millis};

/// What the group of this client has committed, in the order asked.
pub(crate) fn committed<C: ClientContext>(
    client: &Client<C>,
    partitions: &[TopicPartition],
    max_wait: Duration,
) -> Result<Vec<Option<CommittedOffset>>, Failure> {
    let list = native_partitions(partitions.iter().map(|partition| (partition, i64::from(sys::RD_KAFKA_OFFSET_INVALID))));
    // SAFETY: client and list live for the call, which changes the list's elements alone, and never their order.
    Failure::check(unsafe { codes::rd_kafka_committed(client.native_ptr(), list.ptr(), millis(max_wait)) })?;
    // SAFETY: the list lives, and nothing changes it any more.
    unsafe { native_elements(list.ptr()).map(|element| position(element)).collect() }
}

/// # Safety
/// The element lives.
unsafe fn position(element: *const sys::rd_kafka_topic_partition_t) -> Result<Option<CommittedOffset>, Failure> {
    // SAFETY: the caller vouches for it; the metadata is as long as its size says, or there is none.
    let (number, offset, metadata) = unsafe {
        let (first, size) = ((*element).metadata.cast::<u8>().cast_const(), (*element).metadata_size);
        (codes::of_partition(element), (*element).offset, super::array(first, size))
    };
    Failure::check(number)?;
    let metadata = || String::from_utf8_lossy(metadata).into_owned();
    Ok((offset >= 0).then(|| CommittedOffset { offset: Offset(offset), metadata: metadata() }))
}
