//! Writing records outside transactions, each with an answer of its own: the intake over HTTP.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millstream::broker::{BrokerError, ErrorKind};
use millstream::record::{Offset, Record, TopicPartition};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext};

use crate::config::{KafkaConfig, Role};
use crate::context::{Diary, lock};
use crate::error::{broker_error, kind};
use crate::ffi::{self, Deliver, Failure, Producer};
use crate::partitions::number;
use crate::producer::{native_headers, native_timestamp};

/// How large a batch grows unless less is taken: librdkafka's default, which a topic takes by default.
const BATCH_BYTES: usize = 1_000_000;

/// How long it may take to ask for a topic's partitions.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Within which time each record is answered for unless less is asked for.
const DELIVERY: Duration = Duration::from_secs(30);

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
    limits: Mutex<Limits>,
    /// Replaced when it has failed for good.
    native: Mutex<Arc<Producer<Answers>>>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    batch_bytes: usize,
    delivery: Duration,
}

#[derive(Debug)]
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
        ffi::pass_on(self, result, answer);
    }
}

impl Deliver for Answers {
    fn delivered(&self, topic: &str, partition: i32, outcome: Result<i64, Failure>, answer: Box<Answer>) {
        let outcome = outcome.inspect(|_| self.0.answered()).map(Offset).map_err(|failure| {
            let reason = self.0.explain(failure.clone());
            delivery_error(&format!("{topic}-{partition}"), &failure, &reason)
        });
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

fn create(config: &KafkaConfig, Limits { batch_bytes, delivery }: Limits) -> Result<Arc<Producer<Answers>>, BrokerError> {
    let native =
        Producer::new(&config.client(Role::Idempotent { batch_bytes, delivery }), Answers(Diary::new(config.connection())));
    native.map(Arc::new).map_err(|failure| broker_error("creating", "the producer of the intake", &failure))
}

impl KafkaIntake {
    pub(crate) fn new(config: &KafkaConfig) -> Result<Self, BrokerError> {
        let limits = Limits { batch_bytes: BATCH_BYTES, delivery: DELIVERY };
        let native = Mutex::new(create(config, limits)?);
        Ok(Self { shared: Arc::new(Shared { config: config.clone(), limits: Mutex::new(limits), native }) })
    }

    /// Makes batches that a topic takes whose `max.message.bytes` is that: one that is too large would be refused with all its records.
    /// To be called before anything is sent.
    ///
    /// # Errors
    /// Where the properties contradict each other.
    pub fn limit_batches(&self, bytes: usize) -> Result<(), BrokerError> {
        self.limit(|limits| limits.batch_bytes = bytes.min(BATCH_BYTES))
    }

    /// Answers for each record within that time: what is not on all in-sync replicas by then is given up. A shorter `message.timeout.ms`
    /// of the configuration holds. To be called before anything is sent.
    ///
    /// # Errors
    /// Where the properties contradict each other.
    pub fn limit_delivery(&self, delivery: Duration) -> Result<(), BrokerError> {
        self.limit(|limits| limits.delivery = delivery)
    }

    fn limit(&self, change: impl FnOnce(&mut Limits)) -> Result<(), BrokerError> {
        let mut limits = lock(&self.shared.limits);
        change(&mut limits);
        let other = create(&self.shared.config, *limits)?;
        // The one before ends when the lock is given back: what waited in it is answered for then, perhaps by another look at this.
        let before = std::mem::replace(&mut *lock(&self.shared.native), other);
        drop(limits);
        drop(before);
        Ok(())
    }

    /// The producer, another one where it has failed for good: what waited in that one is answered for as failed.
    fn native(&self) -> Result<Arc<Producer<Answers>>, BrokerError> {
        let limits = *lock(&self.shared.limits);
        let mut native = lock(&self.shared.native);
        if let Some(Failure { code, reason, .. }) = Failure::fatal(native.client()) {
            tracing::warn!(?code, reason, "the producer of the intake has failed for good: another one takes its place");
            let other = create(&self.shared.config, limits)?;
            let failed = std::mem::replace(&mut *native, other.clone());
            // As in `limit`.
            drop(native);
            drop(failed);
            return Ok(other);
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

    /// How many partitions of a topic can be written to, none where there is no such topic. The cluster is asked: without that librdkafka
    /// hears of new ones after minutes, and refuses a record for one that it has not heard of.
    ///
    /// # Errors
    /// Where no broker answers.
    pub fn partitions(&self, topic: &str) -> Result<u32, BrokerError> {
        let producer = self.native()?;
        let diary = &producer.context().0;
        let found = ffi::known_partitions(producer.client(), topic, LOOKUP_TIMEOUT);
        found
            .inspect(|_| diary.answered())
            .map_err(|failure| broker_error("looking up the partitions of topic", topic, &diary.explain(failure)))
    }

    /// How many records wait for their answer.
    pub fn in_flight(&self) -> usize {
        lock(&self.shared.native).in_flight_count().try_into().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

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

    /// And by then nobody else may hold it: its thread ends itself.
    #[test]
    fn an_answer_may_let_go_of_the_intake() {
        let mock = MockCluster::new(1).expect("a mock");
        mock.create_topic("clicks", 1, 1).expect("a topic");
        let config = KafkaConfig::new(mock.bootstrap_servers(), []).expect("a configuration");
        let intake = KafkaIntake::new(&config).expect("an intake");
        let (alone, is_alone) = mpsc::channel();
        let (ended, has_ended) = mpsc::channel();
        let last = intake.clone();
        let to = TopicPartition::new("clicks", Partition(0));
        let answer = move |outcome| {
            is_alone.recv().expect("it is told");
            drop(last);
            ended.send(outcome).expect("waited for");
        };
        intake.send(&to, &Record::new(None, Some(b"click"), Timestamp(1)), answer).expect("taken");
        drop(intake);
        alone.send(()).expect("it is waited for");
        has_ended.recv_timeout(Duration::from_secs(30)).expect("answered").expect("written");
    }

    #[test]
    fn the_partitions_of_a_topic_are_those_that_the_cluster_has_now() {
        let mock = MockCluster::new(1).expect("a mock");
        mock.create_topic("clicks", 3, 1).expect("a topic");
        let config = KafkaConfig::new(mock.bootstrap_servers(), []).expect("a configuration");
        let intake = KafkaIntake::new(&config).expect("an intake");
        assert_eq!(intake.partitions("clicks").expect("it is told"), 3);
    }

    #[test]
    fn a_record_that_timed_out_may_have_been_written_whatever_keeps_the_client_away_now() {
        let (timed_out, refused) = (Failure::of_code(Code::MessageTimedOut), Failure::of_code(Code::Authentication));
        let error = delivery_error("clicks-0", &timed_out, &refused);
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
        assert!(error.to_string().contains("sasl.*"), "{error}");
    }
}
