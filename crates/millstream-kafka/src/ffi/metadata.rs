//! What a client knows of its cluster, asked for anew. The client goes by the answer itself, too: by the leaders and partitions in it.

use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as sys;

use super::{Failure, c_string, codes, millis};

/// What a cluster has answered, ours.
struct Metadata(NonNull<sys::rd_kafka_metadata_t>);

impl Metadata {
    /// Of one topic, or of all where it is null.
    ///
    /// # Safety
    /// `topic` is null or a living topic of that client.
    unsafe fn ask<C: ClientContext>(
        client: &Client<C>,
        topic: *mut sys::rd_kafka_topic_t,
        max_wait: Duration,
    ) -> Result<Self, Failure> {
        let mut metadata = ptr::null();
        let all = i32::from(topic.is_null());
        // SAFETY: the client lives for the call, and so does the topic, as the caller vouches; the answer is ours.
        let number = unsafe { codes::rd_kafka_metadata(client.native_ptr(), all, topic, &mut metadata, millis(max_wait)) };
        Failure::check(number)?;
        NonNull::new(metadata.cast_mut()).map(Self).ok_or_else(Failure::timed_out)
    }

    /// How many partitions the first topic has.
    fn partitions_of_first(&self) -> u32 {
        // SAFETY: the answer lives. Single fields are read, never a whole topic, whose code may be none that the wrapper knows.
        let count = unsafe {
            let (first, topics) = ((*self.0.as_ptr()).topics, (*self.0.as_ptr()).topic_cnt);
            if topics < 1 || first.is_null() { 0 } else { (*first).partition_cnt }
        };
        count.try_into().unwrap_or(0)
    }
}

impl Drop for Metadata {
    fn drop(&mut self) {
        // SAFETY: it is ours, and dropped once.
        unsafe { sys::rd_kafka_metadata_destroy(self.0.as_ptr()) };
    }
}

/// Lets the client look for the leaders and partitions of its topics again.
pub(crate) fn look_again<C: ClientContext>(client: &Client<C>, max_wait: Duration) -> Result<(), Failure> {
    // SAFETY: no topic is named.
    unsafe { Metadata::ask(client, ptr::null_mut(), max_wait) }.map(drop)
}

/// How many partitions a topic has, none where there is no such topic. The client can write to each of them from then on.
pub(crate) fn known_partitions<C: ClientContext>(client: &Client<C>, topic: &str, max_wait: Duration) -> Result<u32, Failure> {
    let name = c_string(topic);
    // SAFETY: the client lives for the calls; the topic is ours until it is destroyed, after it was asked for.
    unsafe {
        let topic = sys::rd_kafka_topic_new(client.native_ptr(), name.as_ptr(), ptr::null_mut());
        if topic.is_null() {
            return Err(Failure::of_number(codes::rd_kafka_last_error()));
        }
        let metadata = Metadata::ask(client, topic, max_wait);
        sys::rd_kafka_topic_destroy(topic);
        metadata.map(|metadata| metadata.partitions_of_first())
    }
}
