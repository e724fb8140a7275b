//! Queues of fetched messages, read in batches.

use std::any::Any;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as sys;

use super::{Message, millis};

/// A client that is kept alive by what was made from it: librdkafka waits for ever for what outlives its client.
pub(crate) type KeepAlive = Arc<dyn Any + Send + Sync>;

/// A queue of a client's.
pub(crate) struct Queue {
    native: NonNull<sys::rd_kafka_queue_t>,
    // Dropped after the queue was destroyed.
    _client: KeepAlive,
}

// SAFETY: librdkafka's queues may be used from any thread, also at the same time.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Queue {
    /// A new queue of the client that `keep_alive` keeps alive.
    pub(crate) fn new<C: ClientContext>(client: &Client<C>, keep_alive: KeepAlive) -> Self {
        // SAFETY: the client lives for the call, and as long as the queue by `keep_alive`.
        let native = unsafe { sys::rd_kafka_queue_new(client.native_ptr()) };
        // It is allocated by a function of librdkafka's that ends the process where there is no memory.
        let native = NonNull::new(native).expect("librdkafka never returns a null queue");
        Self { native, _client: keep_alive }
    }

    /// Takes up to `most` messages; waits, where there is none, until one comes, or so long.
    pub(crate) fn fetch(&self, most: usize, max_wait: Duration) -> Vec<Message> {
        let mut messages = self.take(most, Duration::ZERO);
        // The call waits until it has all that it was asked for: so for the first one alone.
        if messages.is_empty() && !max_wait.is_zero() {
            messages = self.take(1, max_wait);
            if !messages.is_empty() {
                messages.append(&mut self.take(most.saturating_sub(1), Duration::ZERO));
            }
        }
        messages
    }

    fn take(&self, most: usize, max_wait: Duration) -> Vec<Message> {
        let mut native: Vec<*mut sys::rd_kafka_message_t> = vec![ptr::null_mut(); most];
        // SAFETY: the queue lives, and the array has room for `most` pointers.
        let taken = unsafe {
            sys::rd_kafka_consume_batch_queue(self.native.as_ptr(), millis(max_wait), native.as_mut_ptr(), native.len())
        };
        native.truncate(taken.try_into().unwrap_or(0));
        // SAFETY: the call has written that many messages and given them to us.
        native.into_iter().filter_map(|message| unsafe { Message::from_native(message) }).collect()
    }

    /// How many messages lie there.
    #[cfg(test)]
    pub(crate) fn length(&self) -> usize {
        // SAFETY: the queue lives.
        unsafe { sys::rd_kafka_queue_length(self.native.as_ptr()) }
    }

    pub(super) fn native(&self) -> *mut sys::rd_kafka_queue_t {
        self.native.as_ptr()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: it is ours, and dropped once; its client still lives.
        unsafe { sys::rd_kafka_queue_destroy(self.native.as_ptr()) };
    }
}
