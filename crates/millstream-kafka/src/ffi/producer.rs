//! A producer whose events are served by a thread of its own, which sleeps until there are any. The wrapper's own producer of that kind
//! looks for them all the time (it asks without waiting for the rest of its tenth of a second), and reads error codes as its enum.

use std::ffi::CStr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer as _, ProducerContext, PurgeConfig};
use rdkafka::util::IntoOpaque;
use rdkafka_sys as sys;

use super::event::{Event, EventQueue};
use super::{Failure, codes, text};

/// How long the thread sleeps at most, though it is woken by every event and when it is to end.
const SLEEP: Duration = Duration::from_secs(1);

/// How long the end waits for the answers of what was given up.
const FAREWELL: Duration = Duration::from_millis(500);

/// Is told what became of each record.
pub(crate) trait Deliver: ProducerContext {
    /// The broker has answered for a record, with its offset or not, or it was given up.
    fn delivered(&self, topic: &str, partition: i32, outcome: Result<i64, Failure>, opaque: Self::DeliveryOpaque);
}

/// A producer whose context is told, from a thread of its own, of every record that was sent. Dropping it gives up what is not
/// answered for.
pub(crate) struct Producer<C: Deliver + 'static> {
    base: Arc<BaseProducer<C>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<C: Deliver + 'static> Producer<C> {
    pub(crate) fn new(config: &ClientConfig, context: C) -> Result<Self, Failure> {
        let base: Result<_, KafkaError> = BaseProducer::from_config_and_context(config, context);
        let (base, ends) = (Arc::new(base?), Arc::new(AtomicBool::new(false)));
        let served = (base.clone(), ends.clone());
        let thread = thread::Builder::new().name("producer-events".to_owned()).spawn(move || serve(&served.0, &served.1));
        let thread = thread.map_err(|error| {
            Failure::new(rdkafka::error::RDKafkaErrorCode::CriticalSystemResource, format!("no thread for its events: {error}"))
        })?;
        Ok(Self { base, ends, thread: Some(thread) })
    }
}

impl<C: Deliver + 'static> Deref for Producer<C> {
    type Target = BaseProducer<C>;

    fn deref(&self) -> &BaseProducer<C> {
        &self.base
    }
}

impl<C: Deliver + 'static> Drop for Producer<C> {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        EventQueue::of(self.base.client()).wake();
        let Some(thread) = self.thread.take() else { return };
        // An answer may drop the last handle, on that thread itself.
        if thread.thread().id() != thread::current().id() && thread.join().is_err() {
            tracing::error!("the thread that serves a producer's events has panicked");
        }
    }
}

fn serve<C: Deliver>(producer: &BaseProducer<C>, ends: &AtomicBool) {
    let queue = EventQueue::of(producer.client());
    while !ends.load(Ordering::Relaxed) {
        serve_next(producer, &queue, SLEEP);
    }
    // Here, and not where the wrapper's producer is dropped, which would read the answers as its enum.
    producer.purge(PurgeConfig::default().queue().inflight());
    let began = Instant::now();
    while producer.in_flight_count() > 0 && began.elapsed() < FAREWELL {
        serve_next(producer, &queue, Duration::from_millis(10));
    }
}

fn serve_next<C: Deliver>(producer: &BaseProducer<C>, queue: &EventQueue, max_wait: Duration) {
    let Some(event) = queue.next(max_wait) else { return };
    let context = producer.context();
    match event.kind() {
        sys::RD_KAFKA_EVENT_LOG => event.log(&**context),
        // The context was told, and each record has an answer of its own.
        sys::RD_KAFKA_EVENT_ERROR => drop(event.error(&**context)),
        sys::RD_KAFKA_EVENT_DR => deliver(&**context, &event),
        _ => {}
    }
}

fn deliver<C: Deliver>(context: &C, event: &Event) {
    loop {
        // SAFETY: the event lives, and what it lends as long.
        let message = unsafe { sys::rd_kafka_event_message_next(event.native()) };
        if message.is_null() {
            return;
        }
        // SAFETY: as above. Single fields are read, never the whole message, whose code may be none that the wrapper knows. The opaque
        // value was made so by the wrapper's `send`, and each record is answered for once. A topic keeps its name.
        let (number, partition, offset, topic, said, opaque) = unsafe {
            let topic = CStr::from_ptr(sys::rd_kafka_topic_name((*message).rkt)).to_string_lossy();
            let opaque = C::DeliveryOpaque::from_ptr((*message)._private);
            // What the broker says of this record, where it says something.
            let said = if codes::of_message(message) == codes::NO_ERROR {
                String::new()
            } else {
                text(sys::rd_kafka_message_produce_errstr(message))
            };
            (codes::of_message(message), (*message).partition, (*message).offset, topic, said, opaque)
        };
        context.delivered(&topic, partition, Failure::check_with(number, || said).map(|()| offset), opaque);
    }
}

/// What the wrapper's own poll tells of a record, told as ours does. It is asked for nothing unless the end took too long.
pub(crate) fn pass_on<C: Deliver>(context: &C, result: &DeliveryResult<'_>, opaque: C::DeliveryOpaque) {
    let (message, outcome) = match result {
        Ok(message) => (message, Ok(message.offset())),
        Err((error, message)) => (message, Err(error.clone().into())),
    };
    context.delivered(message.topic(), message.partition(), outcome, opaque);
}
