//! Consumers that are members of a group, or might be: the wrapper's own drop serves what is told while one closes by its own poll, which
//! reads error codes as its enum.

use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr;
use std::time::Duration;

use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka_sys as sys;

use super::event::EventQueue;
use super::{Failure, poll};

/// How long it is waited for the next event while a consumer closes.
const WAIT: Duration = Duration::from_millis(100);

/// A consumer with a group. Dropping it closes it, and leaves the group; the context is told of what comes meanwhile.
pub(crate) struct Consumer<C: ConsumerContext>(ManuallyDrop<BaseConsumer<C>>);

impl<C: ConsumerContext> Consumer<C> {
    pub(crate) fn new(config: &ClientConfig, context: C) -> Result<Self, Failure> {
        Ok(Self(ManuallyDrop::new(BaseConsumer::from_config_and_context(config, context)?)))
    }

    /// Serves everything that lies there and that comes until the group is left.
    fn close(&self) {
        let queue = EventQueue::of(self.client());
        // SAFETY: client and queue live for the call; the error it returns is ours.
        let begun = unsafe { Failure::take(sys::rd_kafka_consumer_close_queue(self.client().native_ptr(), queue.native())) };
        if let Err(failure) = begun {
            // It has failed for good: there is nothing to leave.
            tracing::debug!(%failure, "a consumer was not closed in its order");
            return;
        }
        // SAFETY: the client lives for the call.
        let is_closed = || unsafe { sys::rd_kafka_consumer_closed(self.client().native_ptr()) } != 0;
        // What is told is told to the context.
        while !is_closed() {
            let _ = poll(self, WAIT);
        }
        while queue.length() > 0 {
            let _ = poll(self, Duration::ZERO);
        }
    }
}

impl<C: ConsumerContext> Deref for Consumer<C> {
    type Target = BaseConsumer<C>;

    fn deref(&self) -> &BaseConsumer<C> {
        &self.0
    }
}

impl<C: ConsumerContext> Drop for Consumer<C> {
    fn drop(&mut self) {
        self.close();
        // In place of the wrapper's drop, which would close it again. It alone could free its handle of the queue and the name of the
        // group: they are left, some hundred bytes for each consumer.
        // SAFETY: the wrapper is never used again, nor dropped, so that its context is ours; the client is destroyed once, while the
        // context lives.
        unsafe {
            let context = ptr::read(self.0.client().context());
            sys::rd_kafka_destroy(self.0.client().native_ptr());
            drop(context);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    use rdkafka::client::ClientContext;
    use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
    use rdkafka::types::RDKafkaApiKey as Api;

    use super::super::Mock;
    use super::*;
    use crate::context::lock;

    const FROM_THE_FUTURE: i32 = 30_000;

    /// What a context was told.
    type Told = Arc<Mutex<Vec<(Option<Code>, String)>>>;

    struct Context(Told);

    impl ClientContext for Context {
        fn error(&self, error: KafkaError, reason: &str) {
            lock(&self.0).push((error.rdkafka_error_code(), reason.to_owned()));
        }
    }

    impl ConsumerContext for Context {}

    #[test]
    fn what_lies_in_the_queue_of_a_consumer_that_closes_is_read_as_a_number() {
        let (mock, told) = (Mock::start(), Told::default());
        mock.create_topic("clicks");
        mock.fail(Api::JoinGroup, &[FROM_THE_FUTURE]);
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", mock.servers()).set("group.id", "group");
        let consumer = Consumer::new(&config, Context(told.clone())).expect("a consumer");
        consumer.subscribe(&["clicks"]).expect("subscribed");
        let (queue, began) = (EventQueue::of(consumer.client()), Instant::now());
        while queue.length() == 0 {
            assert!(began.elapsed() < Duration::from_secs(30), "the refusal does not come");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        drop(queue);
        drop(consumer);
        let told = lock(&told);
        let is_it = |(code, reason): &(Option<Code>, String)| *code == Some(Code::Unknown) && reason.contains("30000");
        assert!(told.iter().any(is_it), "{told:?}");
    }
}
