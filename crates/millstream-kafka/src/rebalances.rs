//! Rebalances, as they are told to a consumer by its polls.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use millstream::record::TopicPartition;
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;

use crate::connection::Connection;
use crate::context::{Diary, lock};
use crate::ffi::{Membership, membership};
use crate::partitions::partitions_of;

/// What the group asks of this member. Until it is done, librdkafka takes part in no other rebalance.
#[derive(Debug)]
pub(crate) enum Rebalance {
    /// These partitions come; perhaps none, in a new generation. The membership is none where it is gone already again.
    Assign(Vec<TopicPartition>, Option<Membership>),
    /// These partitions go. The generation in which that was decided has begun already: until they are given up, they too are
    /// committed under it.
    Revoke(Vec<TopicPartition>, Option<Membership>),
    /// These partitions are gone.
    Lose(Vec<TopicPartition>),
}

/// The context of a consumer in a group: writes down what the group asks for. The consumer does it, in its own time.
#[derive(Debug)]
pub(crate) struct Rebalances {
    pub(crate) diary: Diary,
    asked: Mutex<VecDeque<Rebalance>>,
    closing: AtomicBool,
}

impl Rebalances {
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        Self { diary: Diary::new(connection), asked: Mutex::default(), closing: AtomicBool::new(false) }
    }

    /// What was asked for first and has not been taken.
    pub(crate) fn take(&self) -> Option<Rebalance> {
        lock(&self.asked).pop_front()
    }

    /// From now on nobody takes anything: whatever is asked is done at once, so that the consumer can close.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.diary.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.diary.error(error, reason);
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, operation: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assigns = operation == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::SeqCst) {
            let done = if assigns { consumer.incremental_assign(list) } else { consumer.incremental_unassign(list) };
            if let Err(error) = done {
                tracing::warn!(%error, "the consumer could not follow a rebalance while it closes");
            }
            return;
        }
        let partitions = partitions_of(list);
        let rebalance = if assigns {
            // Captured here: later the client may hold another one, under which a stale batch would be committed.
            Rebalance::Assign(partitions, membership(consumer.client()))
        } else if consumer.assignment_lost() {
            Rebalance::Lose(partitions)
        } else {
            Rebalance::Revoke(partitions, membership(consumer.client()))
        };
        lock(&self.asked).push_back(rebalance);
    }
}
