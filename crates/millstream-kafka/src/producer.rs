//! The transactional producer.

use std::time::{Duration, Instant};

use millstream::broker::{BrokerError, CommittedOffset, Delivered, ErrorKind, Fence, TransactionalProducer};
use millstream::record::{Headers, Record, TopicPartition};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _};

use crate::config::{KafkaConfig, Role};
use crate::deliveries::Deliveries;
use crate::error::broker_error;
use crate::ffi::{self, Failure, Membership, Producer};
use crate::partitions::{list_of_positions, number};

/// How long a step of a transaction is tried again before it counts as failed. Longer than the coordinator lets a transaction stay
/// open by default, so that what is still undecided then is decided by it.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Within which time it is told which record was refused, once nothing more is taken.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// A producer of one transactional id. Dropping it leaves an open transaction to its successor, or to the coordinator's timeout.
pub struct KafkaProducer {
    native: Producer<Deliveries>,
    id: String,
    in_transaction: bool,
}

impl KafkaProducer {
    pub(crate) fn init(config: &KafkaConfig, id: &str) -> Result<Self, BrokerError> {
        let subject = format!("transactional id {id}");
        let native = Producer::new(&config.client(Role::Transactional { id }), Deliveries::new(config.connection()));
        let native = native.map_err(|failure| broker_error("creating a producer of", &subject, &failure))?;
        let producer = Self { native, id: id.to_owned(), in_transaction: false };
        let init = producer.retry(|left| ffi::init_transactions(producer.native.client(), left));
        init.map_err(|failure| producer.failed("initialising", &failure))?;
        producer.native.context().diary.answered();
        Ok(producer)
    }

    /// Tries until it succeeds, fails for good, or the time is up.
    fn retry(&self, mut attempt: impl FnMut(Duration) -> Result<(), Failure>) -> Result<(), Failure> {
        let began = Instant::now();
        loop {
            match attempt(TIMEOUT.saturating_sub(began.elapsed())) {
                Err(failure) if failure.retriable && began.elapsed() < TIMEOUT => {
                    std::thread::park_timeout(Duration::from_millis(10));
                }
                outcome => return outcome,
            }
        }
    }

    /// The failure of something that is not a commit.
    fn failed(&self, operation: &str, failure: &Failure) -> BrokerError {
        let failure = self.fatal().unwrap_or_else(|| self.native.context().diary.explain(failure.clone()));
        broker_error(operation, &format!("transactional id {}", self.id), &failure)
    }

    /// Why this producer is of no use any more, if so. It comes before what followed from it.
    fn fatal(&self) -> Option<Failure> {
        Failure::fatal(self.native.client())
    }

    /// Why the transaction was lost that this failure comes of, and whose fault that is where it is one partition's; none where the
    /// failure comes of nothing else. librdkafka takes nothing more once it has heard that a transaction is lost, and tells why from
    /// another thread.
    fn cause(&self, failure: &Failure) -> Option<Cause> {
        if let Some(fatal) = self.fatal() {
            return Some(Cause { partition: None, failure: fatal });
        }
        let (began, context) = (Instant::now(), self.native.context());
        loop {
            if let Some((partition, failure)) = context.refused() {
                return Some(Cause { partition: Some(partition), failure });
            }
            if !is_consequence(failure) {
                return None;
            }
            let lost = ffi::transaction_failure(self.native.client());
            if let Some(failure) = &lost
                && let Some(partition) = context.not_added(failure.code)
            {
                return Some(Cause { partition: Some(partition), failure: failure.clone() });
            }
            if began.elapsed() > TOLD_WITHIN {
                return lost.map(|failure| Cause { partition: None, failure });
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    fn check_in_transaction(&self, operation: &str) -> Result<(), BrokerError> {
        if self.in_transaction {
            return Ok(());
        }
        let message = format!("{operation} transactional id {}: no transaction has begun", self.id);
        Err(BrokerError::new(ErrorKind::Stop, message))
    }

    /// What failed before a commit was asked for, if anything did: then it surely does not commit.
    fn check_delivered(&self) -> Result<(), BrokerError> {
        let flushed = ffi::flush(self.native.client(), TIMEOUT);
        if let Some(fatal) = self.fatal() {
            return Err(self.failed("committing", &fatal));
        }
        let context = self.native.context();
        let refused = context.refused().map(|(_, failure)| failure).or_else(|| context.purged());
        let Some(failure) = refused.or_else(|| flushed.err()) else { return Ok(()) };
        let cause = self.cause(&failure).unwrap_or(Cause { partition: None, failure });
        let error = self.writing_failed(Cause { failure: context.diary.explain(cause.failure), ..cause });
        Err(match error.kind() {
            ErrorKind::Stop | ErrorKind::Fenced => error,
            _ => of_kind(ErrorKind::AbortTransaction, error),
        })
    }

    /// The error of the records that were sent.
    fn writing_failed(&self, Cause { partition, failure }: Cause) -> BrokerError {
        let Some(partition) = partition else {
            return broker_error("writing to", &format!("the topics of transactional id {}", self.id), &failure);
        };
        let error = broker_error("writing to", &partition.to_string(), &failure);
        // The whole producer has it.
        if error.kind() == ErrorKind::Fenced { error } else { error.of_partition(partition) }
    }
}

/// Why a transaction was lost.
struct Cause {
    /// The partition whose fault it is, where it is that of one.
    partition: Option<TopicPartition>,
    failure: Failure,
}

/// Whether a failure may come of another that is told by another thread: a record was given up, or librdkafka takes nothing more.
fn is_consequence(failure: &Failure) -> bool {
    let is_of_member = matches!(
        failure.code,
        Code::IllegalGeneration | Code::UnknownMemberId | Code::FencedInstanceId | Code::RebalanceInProgress
    );
    matches!(failure.code, Code::State | Code::PurgeQueue | Code::PurgeInflight) || (failure.requires_abort && !is_of_member)
}

/// The same error, of that kind.
fn of_kind(kind: ErrorKind, error: BrokerError) -> BrokerError {
    let same = BrokerError::new(kind, error.to_string());
    match error.partition() {
        Some(partition) => same.of_partition(partition.clone()),
        None => same,
    }
}

/// What is known of a commit that was asked for and failed. Unless it surely did not commit, its outcome is unknown: the request may
/// have been carried out though its answer was lost.
fn commit_kind(failure: &Failure) -> ErrorKind {
    match failure.code {
        // Whoever is fenced begins again from what is committed, so that it does no harm if a lost first request had committed.
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch | Code::FencedInstanceId => ErrorKind::Fenced,
        // These are found before the request is sent: a record or the offsets were refused.
        Code::Inconsistent | Code::IllegalGeneration | Code::UnknownMemberId if failure.requires_abort => {
            ErrorKind::AbortTransaction
        }
        _ => ErrorKind::OutcomeUnknown,
    }
}

impl TransactionalProducer for KafkaProducer {
    fn begin(&mut self) -> Result<(), BrokerError> {
        self.native.context().begin();
        let begun = ffi::begin_transaction(self.native.client());
        begun.map_err(|failure| self.failed("beginning a transaction of", &failure))?;
        self.in_transaction = true;
        Ok(())
    }

    /// A timestamp of 0 is written as 1: librdkafka takes 0 for "now".
    fn send(&mut self, to: &TopicPartition, record: &Record<'_>) -> Result<(), BrokerError> {
        self.check_in_transaction("writing with")?;
        let mut native: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(&to.topic).partition(number(to)).timestamp(native_timestamp(record));
        (native.key, native.payload, native.headers) = (record.key, record.value, native_headers(&record.headers));
        let began = Instant::now();
        loop {
            let Err((error, back)) = self.native.send(native) else { return Ok(()) };
            let failure = Failure::from(error);
            // The queue drains as the broker answers.
            if failure.code == Code::QueueFull && began.elapsed() < TIMEOUT {
                native = back;
                std::thread::park_timeout(Duration::from_millis(1));
                continue;
            }
            let error = self.writing_failed(
                self.cause(&failure)
                    .unwrap_or_else(|| Cause { partition: (failure.code != Code::State).then(|| to.clone()), failure }),
            );
            return Err(match error.kind() {
                // What was sent before is in the transaction, so it cannot be said that nothing happened.
                ErrorKind::Retry => of_kind(ErrorKind::AbortTransaction, error),
                _ => error,
            });
        }
    }

    fn send_offsets(&mut self, fence: &Fence, offsets: &[(TopicPartition, CommittedOffset)]) -> Result<(), BrokerError> {
        self.check_in_transaction("committing positions with")?;
        if !Membership::proves_something(fence.generation(), fence.member()) || offsets.is_empty() {
            // The broker would check nothing.
            let message = format!("a transaction of {} would not be fenced by a membership of group {}", self.id, fence.group());
            return Err(BrokerError::new(ErrorKind::Fenced, message));
        }
        let list = list_of_positions(offsets)?;
        let sent = self.retry(|left| ffi::send_offsets(self.native.client(), fence, &list, left));
        sent.map_err(|failure| {
            let error = match self.cause(&failure) {
                // The transaction was lost before.
                Some(cause) if cause.partition.is_some() => self.writing_failed(cause),
                cause => {
                    let failure = cause.map_or(failure, |cause| cause.failure);
                    broker_error("committing positions of", &format!("group {}", fence.group()), &failure)
                }
            };
            match error.kind() {
                ErrorKind::Retry => of_kind(ErrorKind::AbortTransaction, error),
                _ => error,
            }
        })
    }

    fn commit(&mut self) -> Result<Delivered, BrokerError> {
        self.check_in_transaction("committing")?;
        self.check_delivered()?;
        let committed = self.retry(|left| ffi::commit_transaction(self.native.client(), left));
        committed.map_err(|failure| {
            let failure = self.fatal().unwrap_or(failure);
            let error = broker_error("committing", &format!("a transaction of {}", self.id), &failure);
            BrokerError::new(commit_kind(&failure), error.to_string())
        })?;
        self.in_transaction = false;
        Ok(self.native.context().take())
    }

    fn abort(&mut self) -> Result<(), BrokerError> {
        if !self.in_transaction {
            return Ok(());
        }
        let aborted = self.retry(|left| ffi::abort_transaction(self.native.client(), left));
        aborted.map_err(|failure| self.failed("aborting a transaction of", &failure))?;
        self.in_transaction = false;
        Ok(())
    }
}

/// 0 would be written as the time of writing, which may be years later.
pub(crate) fn native_timestamp(record: &Record<'_>) -> i64 {
    if record.timestamp.0 == 0 { 1 } else { record.timestamp.0 }
}

pub(crate) fn native_headers(headers: &Headers<'_>) -> Option<OwnedHeaders> {
    if headers.as_bytes().is_empty() {
        return None;
    }
    let add = |all: OwnedHeaders, (name, value): (&[u8], &[u8])| {
        all.insert(Header { key: &String::from_utf8_lossy(name), value: Some(value) })
    };
    Some(headers.iter().fold(OwnedHeaders::new(), add))
}

#[cfg(test)]
mod tests {
    use millstream::record::{Offset, Partition, Timestamp};
    use rdkafka::types::RDKafkaApiKey as Api;

    use super::*;
    use crate::ffi::Mock;

    const CLICK: &[u8] = b"click";

    /// A transaction with one record, on a broker that refuses the next request of that kind.
    fn in_transaction(api: Api, refusal: Code) -> (KafkaProducer, TopicPartition, Mock) {
        let mock = Mock::start();
        mock.create_topic("counts");
        let config = KafkaConfig::new(mock.servers(), []).expect("a configuration");
        let mut producer = KafkaProducer::init(&config, "application-0").expect("a producer");
        producer.begin().expect("begun");
        mock.fail(api, &[refusal as i32]);
        let counts = TopicPartition::new("counts", Partition(0));
        producer.send(&counts, &Record::new(None, Some(CLICK), Timestamp(1))).expect("taken");
        (producer, counts, mock)
    }

    /// Where the right to write is withdrawn, brokers refuse to take the partition into the transaction: no record is sent at all.
    #[test]
    fn a_partition_that_may_not_be_written_to_stops_its_task() {
        let (mut producer, counts, _mock) = in_transaction(Api::AddPartitionsToTxn, Code::TopicAuthorizationFailed);
        let error = producer.commit().expect_err("it is refused");
        assert_eq!((error.kind(), error.partition()), (ErrorKind::Stop, Some(&counts)), "{error}");
        assert!(error.to_string().contains("writing to counts-0") && error.to_string().contains("kafka-acls"), "{error}");
        producer.abort().expect("aborted");
        producer.begin().expect("begun again");
        producer.send(&counts, &Record::new(None, Some(CLICK), Timestamp(1))).expect("taken");
        producer.commit().expect("the right is back");
    }

    #[test]
    fn records_that_are_given_up_with_a_transaction_are_not_blamed_for_it() {
        let (mut producer, counts, _mock) = in_transaction(Api::AddOffsetsToTxn, Code::GroupAuthorizationFailed);
        let fence = Fence::new("group", 1, "member");
        let position = CommittedOffset { offset: Offset(1), metadata: String::new() };
        let error = producer.send_offsets(&fence, &[(counts, position)]).expect_err("it is refused");
        assert_eq!((error.kind(), error.partition()), (ErrorKind::Stop, None), "{error}");
        assert!(error.to_string().contains("committing positions of group group"), "{error}");
    }

    #[test]
    fn a_commit_that_may_have_happened_has_an_unknown_outcome() {
        let failure = |code| Failure::of_code(code);
        let abort = |code| Failure { requires_abort: true, ..failure(code) };
        // The transaction failed here because of a timeout; the coordinator may have committed it.
        assert_eq!(commit_kind(&abort(Code::OperationTimedOut)), ErrorKind::OutcomeUnknown);
        assert_eq!(commit_kind(&failure(Code::BrokerTransportFailure)), ErrorKind::OutcomeUnknown);
        assert_eq!(commit_kind(&abort(Code::UnknownProducerId)), ErrorKind::OutcomeUnknown);
        assert_eq!(commit_kind(&Failure { fatal: true, ..failure(Code::InvalidTransactionalState) }), ErrorKind::OutcomeUnknown);
        assert_eq!(commit_kind(&failure(Code::State)), ErrorKind::OutcomeUnknown);
    }

    #[test]
    fn a_commit_that_surely_did_not_happen_says_so() {
        let abort = |code| Failure { requires_abort: true, ..Failure::of_code(code) };
        assert_eq!(commit_kind(&abort(Code::Inconsistent)), ErrorKind::AbortTransaction);
        assert_eq!(commit_kind(&abort(Code::IllegalGeneration)), ErrorKind::AbortTransaction);
        assert_eq!(commit_kind(&Failure::of_code(Code::ProducerFenced)), ErrorKind::Fenced);
    }
}
