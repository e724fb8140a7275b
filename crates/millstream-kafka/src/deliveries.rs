//! What the broker has answered for the records sent.

use std::sync::{Arc, Mutex};

use millstream::broker::Delivered;
use millstream::record::{Offset, Partition, TopicPartition};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{DeliveryResult, ProducerContext};

use crate::connection::Connection;
use crate::context::{Diary, lock};
use crate::ffi::{self, Deliver, Failure};

/// The context of a transactional producer: collects the offsets of a transaction's records.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    pub(crate) diary: Diary,
    answers: Mutex<Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    delivered: Delivered,
    /// The partition answered for last: the next answer is most likely for it too.
    latest: Option<(TopicPartition, Offset, Offset)>,
    /// The first record that the brokers refused.
    refused: Option<(TopicPartition, Failure)>,
    /// The first record that was given up because the transaction had failed before.
    purged: Option<Failure>,
    /// Partitions that the coordinator did not take into the transaction, each with its reason in librdkafka's words.
    not_added: Vec<(TopicPartition, String)>,
}

impl Deliveries {
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        Self { diary: Diary::new(connection), answers: Mutex::default() }
    }

    /// Forgets everything: another transaction begins.
    pub(crate) fn begin(&self) {
        *lock(&self.answers) = Answers::default();
    }

    /// The first record that was refused, if one was.
    pub(crate) fn refused(&self) -> Option<(TopicPartition, Failure)> {
        lock(&self.answers).refused.clone()
    }

    /// The first record that was given up because of something else, if one was: that says nothing of why.
    pub(crate) fn purged(&self) -> Option<Failure> {
        lock(&self.answers).purged.clone()
    }

    /// The first partition that the coordinator did not take into the transaction for that reason, if there is one.
    pub(crate) fn not_added(&self, code: Code) -> Option<TopicPartition> {
        let (answers, reason) = (lock(&self.answers), ffi::words(code));
        answers.not_added.iter().find(|(_, said)| *said == reason).map(|(partition, _)| partition.clone())
    }

    /// The offsets of all records.
    pub(crate) fn take(&self) -> Delivered {
        let mut answers = std::mem::take(&mut *lock(&self.answers));
        answers.settle_latest();
        answers.delivered
    }
}

impl Answers {
    fn delivered(&mut self, topic: &str, partition: u32, offset: Offset) {
        match &mut self.latest {
            Some((latest, first, last)) if latest.partition.0 == partition && &*latest.topic == topic => {
                *first = (*first).min(offset);
                *last = (*last).max(offset);
            }
            _ => {
                self.settle_latest();
                self.latest = Some((TopicPartition::new(topic, Partition(partition)), offset, offset));
            }
        }
    }

    fn settle_latest(&mut self) {
        if let Some((partition, first, last)) = self.latest.take() {
            let range = self.delivered.entry(partition).or_insert((first, last));
            *range = (range.0.min(first), range.1.max(last));
        }
    }
}

impl ClientContext for Deliveries {
    /// Which partitions the coordinator did not take into the transaction librdkafka tells by its log alone.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "ADDPARTS"
            && let Some(not_added) = not_added(message)
        {
            lock(&self.answers).not_added.push(not_added);
        }
        self.diary.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.diary.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        ffi::pass_on(self, result, ());
    }
}

impl Deliver for Deliveries {
    fn delivered(&self, topic: &str, partition: i32, outcome: Result<i64, Failure>, (): ()) {
        let (mut answers, partition) = (lock(&self.answers), partition.max(0) as u32);
        match outcome {
            Ok(offset) => {
                self.diary.answered();
                answers.delivered(topic, partition, Offset(offset));
            }
            Err(failure) if matches!(failure.code, Code::PurgeQueue | Code::PurgeInflight) => {
                answers.purged.get_or_insert(failure);
            }
            Err(failure) => {
                answers.refused.get_or_insert_with(|| (TopicPartition::new(topic, Partition(partition)), failure));
            }
        }
    }
}

/// The partition and the reason in librdkafka's words for a partition that was not taken into a transaction:
/// `[thrd:…]: …: Failed to add partition "TOPIC" [NUMBER] to transaction: REASON`.
fn not_added(message: &str) -> Option<(TopicPartition, String)> {
    let (_, rest) = message.split_once("Failed to add partition \"")?;
    let (topic, rest) = rest.split_once("\" [")?;
    let (number, reason) = rest.split_once("] to transaction: ")?;
    Some((TopicPartition::new(topic, Partition(number.parse().ok()?)), reason.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_that_was_not_taken_into_a_transaction_is_known_by_its_reason() {
        let deliveries = Deliveries::default();
        let line = |partition, reason| {
            let head = "[thrd:TxnCoordinator]: TxnCoordinator/1: Failed to add partition";
            deliveries.log(
                RDKafkaLogLevel::Error,
                "ADDPARTS",
                &format!("{head} \"a.b-c\" [{partition}] to transaction: {reason}"),
            );
        };
        line(1, "Broker: Operation not attempted");
        line(2, "Broker: Topic authorization failed");
        line(3, "Broker: Topic authorization failed");
        let second = TopicPartition::new("a.b-c", Partition(2));
        assert_eq!(deliveries.not_added(Code::TopicAuthorizationFailed), Some(second));
        assert_eq!(deliveries.not_added(Code::UnknownProducerId), None);
        deliveries.begin();
        assert_eq!(deliveries.not_added(Code::TopicAuthorizationFailed), None);
    }

    #[test]
    fn offsets_are_collected_by_partition_whatever_their_order() {
        let deliveries = Deliveries::default();
        for (topic, partition, offset) in [("a", 0, 5), ("a", 0, 6), ("b", 0, 1), ("a", 1, 9), ("a", 0, 4), ("b", 0, 2)] {
            lock(&deliveries.answers).delivered(topic, partition, Offset(offset));
        }
        let tp = |topic: &str, partition| TopicPartition::new(topic, Partition(partition));
        let expected = [(tp("a", 0), (4, 6)), (tp("a", 1), (9, 9)), (tp("b", 0), (1, 2))];
        let expected: Delivered = expected.into_iter().map(|(p, (first, last))| (p, (Offset(first), Offset(last)))).collect();
        assert_eq!(deliveries.take(), expected);
        assert!(deliveries.take().is_empty());
    }
}
