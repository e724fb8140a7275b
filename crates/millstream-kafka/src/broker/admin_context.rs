//! The context of the client for requests.

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, ProducerContext};

use crate::context::Diary;
use crate::ffi::{Deliver, Failure};

/// A client for requests is one that could produce, and never does.
#[derive(Debug)]
pub(super) struct AdminContext(pub(super) Diary);

impl ClientContext for AdminContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ProducerContext for AdminContext {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

impl Deliver for AdminContext {
    fn delivered(&self, _: &str, _: i32, _: Result<i64, Failure>, (): ()) {}
}
