//! The transactional producer.

use std::time::{Duration, Instant};

use millstream::broker::{BrokerError, CommittedOffset, Delivered, ErrorKind, Fence, TransactionalProducer};
use millstream::record::{Headers, Record, TopicPartition};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _};

use crate::config::{KafkaConfig, Role};
use crate::deliveries::{Deliveries, is_purged};
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

    /// What is behind a record that could not be sent: once the broker has refused one, librdkafka takes no other, and says of that one
    /// nothing.
    fn cause(&self, to: &TopicPartition, failure: Failure) -> (TopicPartition, Failure) {
        match (self.fatal(), self.refusal(&failure)) {
            (Some(fatal), _) => (to.clone(), fatal),
            (None, Some((partition, refused))) => (partition, refused),
            (None, None) => (to.clone(), failure),
        }
    }

    /// The record that was refused, where one was. librdkafka takes nothing more before it tells of it, from another thread.
    fn refusal(&self, failure: &Failure) -> Option<(TopicPartition, Failure)> {
        let began = Instant::now();
        loop {
            let refused = self.native.context().failure();
            let is_told = match &refused {
                Some((_, refused)) => !is_purged(refused),
                None => failure.code != Code::State,
            };
            if is_told || began.elapsed() > TOLD_WITHIN {
                return refused;
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
        let (subject, partition, failure) = match (self.native.context().failure(), flushed) {
            (None, Ok(())) => return Ok(()),
            (Some((partition, failure)), _) => (partition.to_string(), Some(partition), failure),
            (None, Err(failure)) => (format!("the topics of transactional id {}", self.id), None, failure),
        };
        let error = broker_error("writing to", &subject, &self.native.context().diary.explain(failure));
        let error = match error.kind() {
            ErrorKind::Stop | ErrorKind::Fenced => error,
            _ => BrokerError::new(ErrorKind::AbortTransaction, error.to_string()),
        };
        Err(match partition {
            Some(partition) => of_partition(error, partition),
            None => error,
        })
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
            let (refused, failure) = self.cause(to, failure);
            let error = broker_error("writing to", &refused.to_string(), &failure);
            let error = match error.kind() {
                // What was sent before is in the transaction, so it cannot be said that nothing happened.
                ErrorKind::Retry => BrokerError::new(ErrorKind::AbortTransaction, error.to_string()),
                _ => error,
            };
            return Err(of_partition(error, refused));
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
            let (error, partition) = match (self.fatal(), self.refusal(&failure)) {
                // The transaction was lost before.
                (None, Some((partition, refused))) => {
                    (broker_error("writing to", &partition.to_string(), &refused), Some(partition))
                }
                (fatal, _) => {
                    let failure = fatal.unwrap_or(failure);
                    (broker_error("committing positions of", &format!("group {}", fence.group()), &failure), None)
                }
            };
            let error = match error.kind() {
                ErrorKind::Retry => BrokerError::new(ErrorKind::AbortTransaction, error.to_string()),
                _ => error,
            };
            match partition {
                Some(partition) => of_partition(error, partition),
                None => error,
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

/// The error of one partition's records, unless the whole producer has it.
fn of_partition(error: BrokerError, partition: TopicPartition) -> BrokerError {
    if error.kind() == ErrorKind::Fenced { error } else { error.of_partition(partition) }
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
    use super::*;

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
