//! Transactions. The wrapper's own flush, which its commit begins with, always waits for a tenth of a second.

use std::ptr;
use std::time::Duration;

use millstream::broker::Fence;
use rdkafka::TopicPartitionList;
use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as sys;

use super::{Failure, c_string, codes, millis};

/// Makes the producer the only one of its transactional id.
pub(crate) fn init_transactions<C: ClientContext>(client: &Client<C>, max_wait: Duration) -> Result<(), Failure> {
    // SAFETY: the client lives for the call; the error it returns is ours.
    unsafe { Failure::take(sys::rd_kafka_init_transactions(client.native_ptr(), millis(max_wait))) }
}

/// Begins a transaction.
pub(crate) fn begin_transaction<C: ClientContext>(client: &Client<C>) -> Result<(), Failure> {
    // SAFETY: as above.
    unsafe { Failure::take(sys::rd_kafka_begin_transaction(client.native_ptr())) }
}

/// Aborts the transaction.
pub(crate) fn abort_transaction<C: ClientContext>(client: &Client<C>, max_wait: Duration) -> Result<(), Failure> {
    // SAFETY: as above.
    unsafe { Failure::take(sys::rd_kafka_abort_transaction(client.native_ptr(), millis(max_wait))) }
}

/// Waits until the broker has answered for everything sent. Another thread has to poll the client meanwhile.
pub(crate) fn flush<C: ClientContext>(client: &Client<C>, max_wait: Duration) -> Result<(), Failure> {
    // SAFETY: the client lives for the call.
    Failure::check(unsafe { codes::rd_kafka_flush(client.native_ptr(), millis(max_wait)) })
}

/// Makes offsets part of the transaction under a membership that was captured before.
pub(crate) fn send_offsets<C: ClientContext>(
    client: &Client<C>,
    fence: &Fence,
    offsets: &TopicPartitionList,
    max_wait: Duration,
) -> Result<(), Failure> {
    let (id, member) = (c_string(fence.group()), c_string(fence.member()));
    // SAFETY: both names live for the call, which copies them; no instance id is allowed.
    let metadata = unsafe {
        sys::rd_kafka_consumer_group_metadata_new_with_genid(id.as_ptr(), fence.generation(), member.as_ptr(), ptr::null())
    };
    // SAFETY: client, offsets and metadata live for the call; the error it returns is ours, and so is the metadata.
    unsafe {
        let error = sys::rd_kafka_send_offsets_to_transaction(client.native_ptr(), offsets.ptr(), metadata, millis(max_wait));
        sys::rd_kafka_consumer_group_metadata_destroy(metadata);
        Failure::take(error)
    }
}

/// Commits the transaction.
pub(crate) fn commit_transaction<C: ClientContext>(client: &Client<C>, max_wait: Duration) -> Result<(), Failure> {
    // SAFETY: the client lives for the call; the error it returns is ours.
    unsafe { Failure::take(sys::rd_kafka_commit_transaction(client.native_ptr(), millis(max_wait))) }
}

/// Why the transaction that is open can only be aborted, if that is so: the first thing that went wrong with it.
pub(crate) fn transaction_failure<C: ClientContext>(client: &Client<C>) -> Option<Failure> {
    // Nothing asks for it but what may not be done then. Another transaction is not begun while one is open, and that is all that a begin
    // does.
    begin_transaction(client).err().filter(|failure| failure.requires_abort)
}
