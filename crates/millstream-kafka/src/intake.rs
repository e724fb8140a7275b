//! Writing records outside transactions, each with an answer of its own: the intake over HTTP.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use millstream::broker::{BrokerError, ErrorKind};
use millstream::record::{Offset, Record, TopicPartition};
use rdkafka::Message;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use crate::config::{KafkaConfig, Role};
use crate::context::{Diary, lock};
use crate::error::{broker_error, kind};
use crate::ffi::Failure;
use crate::partitions::number;
use crate::producer::{native_headers, native_timestamp};

/// How large a batch grows unless less is taken: librdkafka's default, which a topic takes by default.
const BATCH_BYTES: usize = 1_000_000;

/// What becomes of a record: its offset, once all in-sync replicas have it.
///
/// The kinds of error: [`ErrorKind::Retry`], it was not written; [`ErrorKind::OutcomeUnknown`], it may have been; [`ErrorKind::Stop`],
/// it will never be as things are.
pub type Outcome = Result<Offset, BrokerError>;

/// Is called once, from a thread that must not be held up.
type Answer = Mutex<Box<dyn FnOnce(Outcome) + Send>>;

/// Writes records, each answered for once all in-sync replicas have it. A record that is tried again is not written twice.
#[derive(Clone)]
pub struct KafkaIntake {
    shared: Arc<Shared>,
}

struct Shared {
    config: KafkaConfig,
    batch_bytes: AtomicUsize,
    /// Replaced when it has failed for good.
    native: Mutex<Arc<ThreadedProducer<Answers>>>,
}

#[derive(Debug, Default)]
struct Answers(Diary);

impl ClientContext for Answers {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ProducerContext for Answers {
    type DeliveryOpaque = Box<Answer>;

    fn delivery(&self, result: &DeliveryResult<'_>, answer: Box<Answer>) {
        let outcome = match result {
            Ok(message) => Ok(Offset(message.offset())),
            Err((error, message)) => {
                let failure: Failure = error.clone().into();
                let subject = format!("{}-{}", message.topic(), message.partition());
                Err(delivery_error(&subject, &failure, &self.0.explain(failure.clone())))
            }
        };
        answer.into_inner().unwrap_or_else(PoisonError::into_inner)(outcome);
    }
}

/// A record that was given to librdkafka and failed may be on the broker all the same, unless the broker refused it. The `reason` may
/// be another failure than that of the record: what keeps the client from its broker now says nothing about what it has sent before.
fn delivery_error(subject: &str, failure: &Failure, reason: &Failure) -> BrokerError {
    let kind = match kind(failure) {
        ErrorKind::Stop => ErrorKind::Stop,
        // It was still waiting here.
        _ if failure.code == Code::PurgeQueue => ErrorKind::Retry,
        _ => ErrorKind::OutcomeUnknown,
    };
    BrokerError::new(kind, broker_error("writing to", subject, reason).to_string())
}

fn create(config: &KafkaConfig, batch_bytes: usize) -> Result<Arc<ThreadedProducer<Answers>>, BrokerError> {
    let native = config.client(Role::Idempotent { batch_bytes }).create_with_context(Answers::default());
    native.map(Arc::new).map_err(|error| broker_error("creating", "the producer of the intake", &error.into()))
}

impl KafkaIntake {
    pub(crate) fn new(config: &KafkaConfig) -> Result<Self, BrokerError> {
        let native = Mutex::new(create(config, BATCH_BYTES)?);
        let batch_bytes = AtomicUsize::new(BATCH_BYTES);
        Ok(Self { shared: Arc::new(Shared { config: config.clone(), batch_bytes, native }) })
    }

    /// Makes batches that a topic takes whose `max.message.bytes` is that: one that is too large would be refused with all its records.
    /// To be called before anything is sent.
    ///
    /// # Errors
    /// Where the properties contradict each other.
    pub fn limit_batches(&self, bytes: usize) -> Result<(), BrokerError> {
        let bytes = bytes.min(BATCH_BYTES);
        self.shared.batch_bytes.store(bytes, Ordering::Relaxed);
        *lock(&self.shared.native) = create(&self.shared.config, bytes)?;
        Ok(())
    }

    /// The producer, another one where it has failed for good: what waited in that one is answered for as failed.
    fn native(&self) -> Result<Arc<ThreadedProducer<Answers>>, BrokerError> {
        let mut native = lock(&self.shared.native);
        if let Some((code, reason)) = native.client().fatal_error() {
            tracing::warn!(?code, reason, "the producer of the intake has failed for good: another one takes its place");
            *native = create(&self.shared.config, self.shared.batch_bytes.load(Ordering::Relaxed))?;
        }
        Ok(native.clone())
    }

    /// Writes a record. `answer` is called once, with the record's offset or what became of it, from a thread that must not be held
    /// up.
    ///
    /// # Errors
    /// Where the record was not taken, and `answer` is not called: [`ErrorKind::Retry`] while too much waits to be written.
    pub fn send(
        &self,
        to: &TopicPartition,
        record: &Record<'_>,
        answer: impl FnOnce(Outcome) + Send + 'static,
    ) -> Result<(), BrokerError> {
        let answer: Box<Answer> = Box::new(Mutex::new(Box::new(answer)));
        let mut native: BaseRecord<'_, [u8], [u8], Box<Answer>> =
            BaseRecord::with_opaque_to(&to.topic, answer).partition(number(to)).timestamp(native_timestamp(record));
        (native.key, native.payload, native.headers) = (record.key, record.value, native_headers(&record.headers));
        let producer = self.native()?;
        producer
            .send(native)
            .map_err(|(error, _)| broker_error("writing to", &to.to_string(), &producer.context().0.explain(error.into())))
    }

    /// How many records wait for their answer.
    pub fn in_flight(&self) -> usize {
        lock(&self.shared.native).in_flight_count().try_into().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use millstream::record::{Partition, Timestamp};
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;

    /// A producer that was refused its id is of no use ever after, though the right may be granted a moment later.
    #[test]
    fn a_producer_that_has_failed_for_good_is_replaced() {
        let mock = MockCluster::new(1).expect("a mock");
        mock.create_topic("clicks", 1, 1).expect("a topic");
        let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
        mock.request_errors(RDKafkaApiKey::InitProducerId, &[refusal]);
        let intake =
            KafkaIntake::new(&KafkaConfig::new(mock.bootstrap_servers(), []).expect("a configuration")).expect("an intake");
        let (began, mut failures) = (Instant::now(), 0);
        while let Err(error) = write(&intake) {
            failures += 1;
            assert!(began.elapsed() < Duration::from_secs(30), "it never recovers: {error}");
        }
        assert!(failures > 0, "the first producer has failed");
    }

    fn write(intake: &KafkaIntake) -> Outcome {
        let (answer, answers) = mpsc::channel();
        let record = Record::new(None, Some(b"click"), Timestamp(1));
        let to = TopicPartition::new("clicks", Partition(0));
        intake.send(&to, &record, move |outcome| answer.send(outcome).expect("waited for"))?;
        answers.recv_timeout(Duration::from_secs(30)).expect("answered")
    }

    #[test]
    fn a_record_that_timed_out_may_have_been_written_whatever_keeps_the_client_away_now() {
        let (timed_out, refused) = (Failure::of_code(Code::MessageTimedOut), Failure::of_code(Code::Authentication));
        let error = delivery_error("clicks-0", &timed_out, &refused);
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
        assert!(error.to_string().contains("sasl.*"), "{error}");
    }
}
