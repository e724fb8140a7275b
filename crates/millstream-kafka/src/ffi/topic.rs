//! Reading a partition outside any group, each into a queue of its own, so that one client serves many readers.

use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as sys;

use super::queue::KeepAlive;
use super::{Failure, Message, Queue, c_string};

/// One partition that is being fetched. Dropping it ends that.
pub(crate) struct Consumption {
    topic: NonNull<sys::rd_kafka_topic_t>,
    partition: i32,
    // Dropped after the partition was stopped, and with it the last reference to the client.
    queue: Queue,
}

// SAFETY: librdkafka's topics may be used from any thread.
unsafe impl Send for Consumption {}

impl Consumption {
    /// Starts to fetch a partition that this client does not fetch yet.
    pub(crate) fn start<C: ClientContext>(
        client: &Client<C>,
        keep_alive: KeepAlive,
        topic: &str,
        partition: i32,
        from: i64,
    ) -> Result<Self, Failure> {
        let queue = Queue::new(client, keep_alive);
        let name = c_string(topic);
        // SAFETY: the client lives for the call, and as long as the topic by the queue.
        let native = unsafe { sys::rd_kafka_topic_new(client.native_ptr(), name.as_ptr(), ptr::null_mut()) };
        let topic = NonNull::new(native).ok_or_else(last_failure)?;
        // SAFETY: topic and queue live until the partition is stopped, in `drop`.
        if unsafe { sys::rd_kafka_consume_start_queue(native, partition, from, queue.native()) } != 0 {
            let failure = last_failure();
            // SAFETY: it is ours, and nothing uses it.
            unsafe { sys::rd_kafka_topic_destroy(native) };
            return Err(failure);
        }
        Ok(Self { topic, partition, queue })
    }

    /// As [`Queue::fetch`].
    pub(crate) fn fetch(&self, most: usize, max_wait: Duration) -> Vec<Message> {
        self.queue.fetch(most, max_wait)
    }
}

impl Drop for Consumption {
    fn drop(&mut self) {
        // SAFETY: the partition was started with this topic, which is ours and dropped once; the client still lives.
        unsafe {
            sys::rd_kafka_consume_stop(self.topic.as_ptr(), self.partition);
            sys::rd_kafka_topic_destroy(self.topic.as_ptr());
        }
    }
}

fn last_failure() -> Failure {
    // SAFETY: the last error is the thread's own and only read.
    let code = unsafe { sys::rd_kafka_last_error() };
    Failure::of_code(code.into())
}
