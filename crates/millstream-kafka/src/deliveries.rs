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
    failure: Option<(TopicPartition, Failure)>,
}

impl Deliveries {
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        Self { diary: Diary::new(connection), answers: Mutex::default() }
    }

    /// Forgets everything: another transaction begins.
    pub(crate) fn begin(&self) {
        *lock(&self.answers) = Answers::default();
    }

    /// The first record that was refused, if one was. What was purged because of another comes after it.
    pub(crate) fn failure(&self) -> Option<(TopicPartition, Failure)> {
        lock(&self.answers).failure.clone()
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
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
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
            Err(failure) => {
                if answers.failure.as_ref().is_none_or(|(_, before)| is_purged(before) && !is_purged(&failure)) {
                    answers.failure = Some((TopicPartition::new(topic, Partition(partition)), failure));
                }
            }
        }
    }
}

/// Whether a record was given up because of another: that says nothing of why.
pub(crate) fn is_purged(failure: &Failure) -> bool {
    matches!(failure.code, Code::PurgeQueue | Code::PurgeInflight)
}

#[cfg(test)]
mod tests {
    use super::*;

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
