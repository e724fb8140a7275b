//! Fetching partitions outside any group, each into a queue of the caller's choice.

use std::ptr::{self, NonNull};
use std::sync::Arc;

use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as sys;

use super::{Failure, Queue, c_string, codes};

/// One partition that is being fetched. Dropping it ends that.
pub(crate) struct Consumption {
    topic: NonNull<sys::rd_kafka_topic_t>,
    partition: i32,
    // Dropped after the partition was stopped, and with it perhaps the last reference to the client.
    queue: Arc<Queue>,
}

// SAFETY: librdkafka's topics may be used from any thread.
unsafe impl Send for Consumption {}

impl Consumption {
    /// Starts to fetch a partition that this client does not fetch yet, into a queue of the same client.
    pub(crate) fn start<C: ClientContext>(
        client: &Client<C>,
        queue: Arc<Queue>,
        topic: &str,
        partition: i32,
        from: i64,
    ) -> Result<Self, Failure> {
        let name = c_string(topic);
        // SAFETY: the client lives for the call, and as long as the topic by the queue. A topic that exists is shared and counted.
        let native = unsafe { sys::rd_kafka_topic_new(client.native_ptr(), name.as_ptr(), ptr::null_mut()) };
        let topic = NonNull::new(native).ok_or_else(last_failure)?;
        let consumption = Self { topic, partition, queue };
        consumption.fetch_from(from)?;
        Ok(consumption)
    }

    /// Goes on from another position. What was fetched before and not taken from the queue is dropped: librdkafka marks it with
    /// the start that it belongs to.
    pub(crate) fn restart(&mut self, from: i64) -> Result<(), Failure> {
        self.stop();
        self.fetch_from(from)
    }

    fn fetch_from(&self, from: i64) -> Result<(), Failure> {
        // SAFETY: topic and queue live until the partition is stopped, in `drop`.
        let started =
            unsafe { sys::rd_kafka_consume_start_queue(self.topic.as_ptr(), self.partition, from, self.queue.native()) };
        if started == 0 { Ok(()) } else { Err(last_failure()) }
    }

    /// Waits for a thread of the client, not for a broker. Where nothing was started it does nothing.
    fn stop(&self) {
        // SAFETY: the topic is ours until `drop` has ended; the client lives as long as the queue.
        unsafe { sys::rd_kafka_consume_stop(self.topic.as_ptr(), self.partition) };
    }
}

impl Drop for Consumption {
    fn drop(&mut self) {
        self.stop();
        // SAFETY: the topic is ours and dropped once; the client still lives.
        unsafe { sys::rd_kafka_topic_destroy(self.topic.as_ptr()) };
    }
}

fn last_failure() -> Failure {
    // SAFETY: the last error is the thread's own and only read.
    Failure::of_number(unsafe { codes::rd_kafka_last_error() })
}
