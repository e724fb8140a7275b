//! Events of a client's own queue: its log, its errors, and what its kind of client brings. The wrapper's poll reads error codes as
//! its enum (see `codes`).

use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka_sys as sys;

use super::{Failure, codes, millis, text};

/// A queue that a client has by itself, for as long as the client lives.
pub(super) struct EventQueue(NonNull<sys::rd_kafka_queue_t>);

/// An event, ours.
pub(super) struct Event(NonNull<sys::rd_kafka_event_t>);

// SAFETY: librdkafka's queues may be used from any thread, also at the same time.
unsafe impl Send for EventQueue {}

impl EventQueue {
    /// Where the client's events come; those of a member of a group come to its queue of messages.
    pub(super) fn of<C: ClientContext>(client: &Client<C>) -> Self {
        // SAFETY: the client lives for the calls; the queue that they return is ours until it is destroyed.
        let queue = unsafe {
            let consumer = sys::rd_kafka_queue_get_consumer(client.native_ptr());
            if consumer.is_null() { sys::rd_kafka_queue_get_main(client.native_ptr()) } else { consumer }
        };
        Self(NonNull::new(queue).expect("every client has a queue of its own"))
    }

    /// The next event; none where none comes so long.
    pub(super) fn next(&self, max_wait: Duration) -> Option<Event> {
        // SAFETY: the queue lives, and the event it gives is ours.
        NonNull::new(unsafe { sys::rd_kafka_queue_poll(self.0.as_ptr(), millis(max_wait)) }).map(Event)
    }

    pub(super) fn native(&self) -> *mut sys::rd_kafka_queue_t {
        self.0.as_ptr()
    }

    /// How many events lie there.
    pub(super) fn length(&self) -> usize {
        // SAFETY: the queue lives.
        unsafe { sys::rd_kafka_queue_length(self.0.as_ptr()) }
    }

    /// Ends the wait for the next event: one that is under way, or else the one that comes.
    pub(super) fn wake(&self) {
        // SAFETY: the queue lives.
        unsafe { sys::rd_kafka_queue_yield(self.0.as_ptr()) };
    }
}

impl Drop for EventQueue {
    fn drop(&mut self) {
        // SAFETY: the reference is ours, and dropped once.
        unsafe { sys::rd_kafka_queue_destroy(self.0.as_ptr()) };
    }
}

impl Event {
    pub(super) fn native(&self) -> *mut sys::rd_kafka_event_t {
        self.0.as_ptr()
    }

    /// Which kind it is, as the constants `RD_KAFKA_EVENT_…` say.
    pub(super) fn kind(&self) -> i32 {
        // SAFETY: the event lives.
        unsafe { sys::rd_kafka_event_type(self.native()) }
    }

    /// The code of an error, or of a rebalance.
    pub(super) fn number(&self) -> i32 {
        // SAFETY: as above.
        unsafe { codes::rd_kafka_event_error(self.native()) }
    }

    /// Hands a line of the log to the client's context.
    pub(super) fn log(&self, context: &impl ClientContext) {
        let (mut facility, mut line, mut level) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the event lives, and what it lends as long; the call writes all three where it succeeds.
        let (facility, line) = unsafe {
            if sys::rd_kafka_event_log(self.native(), &mut facility, &mut line, &mut level) != 0 {
                return;
            }
            (text(facility), text(line))
        };
        context.log(log_level(level), facility.trim(), line.trim());
    }

    /// Hands an error to the client's context, and says what it was.
    pub(super) fn error(&self, context: &impl ClientContext) -> Result<(), Failure> {
        // SAFETY: the event lives, and its text as long.
        let (said, fatal) = unsafe {
            let said = text(sys::rd_kafka_event_error_string(self.native()));
            (said.trim().to_owned(), sys::rd_kafka_event_error_is_fatal(self.native()) != 0)
        };
        let failure = Failure::check_with(self.number(), || said);
        if let Err(failure) = &failure {
            context.error(KafkaError::Global(failure.code), &failure.reason);
        }
        failure.map_err(|failure| Failure { fatal, ..failure })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: it is ours, and dropped once.
        unsafe { sys::rd_kafka_event_destroy(self.native()) };
    }
}

/// The level of syslog by its number.
fn log_level(level: i32) -> RDKafkaLogLevel {
    match level {
        0 => RDKafkaLogLevel::Emerg,
        1 => RDKafkaLogLevel::Alert,
        2 => RDKafkaLogLevel::Critical,
        3 => RDKafkaLogLevel::Error,
        4 => RDKafkaLogLevel::Warning,
        5 => RDKafkaLogLevel::Notice,
        6 => RDKafkaLogLevel::Info,
        _ => RDKafkaLogLevel::Debug,
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::producer::{BaseProducer, Producer as _};

    use super::*;

    #[test]
    fn a_wait_ends_when_it_is_woken_before_it_began_too() {
        let client: BaseProducer = rdkafka::ClientConfig::new().create().expect("a client");
        let queue = EventQueue::of(client.client());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                queue.wake();
                while queue.next(Duration::MAX).is_some() {}
                let waits = scope.spawn(|| while EventQueue::of(client.client()).next(Duration::MAX).is_some() {});
                queue.wake();
                waits.join().expect("it ends");
            }
        });
    }
}
