//! Transactions whose outcome is open: the records have their offsets, and nobody may read them yet.
//!
//! A broker in one process decides a transaction when it is committed, so this happens only where the simulation asks for it: it
//! stands for a commit request that is still under way to a remote broker.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::{BrokerError, TransactionalProducer};
use super::commit::check;
use super::storage::LogStorage;
use super::unit::{StagedRecords, Unit};
use super::{LocalBroker, LocalProducer, Shared, lock};
use crate::record::{Offset, TopicPartition};

/// The open transactions, by number.
#[derive(Debug, Default)]
pub(super) struct OpenTransactions {
    next: u64,
    pub(super) by_number: BTreeMap<u64, OpenTransaction>,
}

#[derive(Debug)]
pub(super) struct OpenTransaction {
    pub(super) unit: Arc<Unit>,
    /// The first offset kept free for it in each partition.
    pub(super) places: BTreeMap<TopicPartition, Offset>,
}

impl OpenTransactions {
    pub(super) fn add(&mut self, transaction: OpenTransaction) -> u64 {
        let number = self.next;
        self.next += 1;
        self.by_number.insert(number, transaction);
        number
    }

    /// The numbers of those that a transactional id's producers have left open.
    pub(super) fn of_producer(&self, transactional_id: &str) -> Vec<u64> {
        let of_it = |open: &OpenTransaction| open.unit.producer.as_ref().is_some_and(|(id, _)| &**id == transactional_id);
        self.by_number.iter().filter(|(_, open)| of_it(open)).map(|(number, _)| *number).collect()
    }

    /// Whether one of them would commit a position of the group for that partition.
    pub(super) fn touches(&self, group: &str, partition: &TopicPartition) -> bool {
        self.by_number
            .values()
            .flat_map(|open| &open.unit.offsets)
            .any(|offsets| &**offsets.fence.group() == group && offsets.offsets.iter().any(|(touched, _)| touched == partition))
    }
}

impl<S: LogStorage> Shared<S> {
    /// Keeps places for a unit in its logs without writing it: its outcome is open. Gives its number.
    pub(super) fn leave_open(&self, unit: Arc<Unit>) -> Result<u64, BrokerError> {
        let mut writer = lock(&self.writer);
        let places = self.carry_out(&mut writer, |state, plan| {
            check(state, &unit)?;
            let place =
                |staged: &StagedRecords| Ok((staged.partition.clone(), plan.reserve(state, &staged.partition, staged.count())?));
            unit.records.iter().map(place).collect::<Result<BTreeMap<_, _>, BrokerError>>()
        })?;
        let mut state = lock(&self.state);
        let number = state.open.add(OpenTransaction { unit, places: places.clone() });
        for (partition, first) in places {
            state.log_mut(&partition)?.open.insert(first, number);
        }
        Ok(number)
    }

    /// Decides an open transaction: it commits in its places, or leaves holes there (also where the write
    /// fails). Whether it was still open.
    pub(super) fn settle(&self, number: u64, commit: bool) -> Result<bool, BrokerError> {
        let mut writer = lock(&self.writer);
        let Some(open) = lock(&self.state).open.by_number.remove(&number) else {
            return Ok(false);
        };
        let places = &open.places;
        let written = match commit {
            false => Ok(()),
            true => self.carry_out(&mut writer, |state, plan| {
                for staged in &open.unit.records {
                    plan.append(state, staged, places[&staged.partition])?;
                }
                plan.add_offsets(state, &open.unit.offsets)
            }),
        };
        let mut state = lock(&self.state);
        for (partition, first) in places {
            state.log_mut(partition)?.open.remove(first);
        }
        self.changed.notify_all();
        written.map(|()| true)
    }

    /// Drops what the producers of that transactional id have left open.
    pub(super) fn drop_open(&self, transactional_id: &str) -> Result<(), BrokerError> {
        let left = lock(&self.state).open.of_producer(transactional_id);
        left.into_iter().try_for_each(|number| self.settle(number, false).map(drop))
    }
}

impl<S: LogStorage> LocalProducer<S> {
    /// Commits, and leaves the outcome open: the records have offsets, and the last stable offset stays before them until
    /// [`LocalBroker::settle`] decides, or a new producer of this transactional id drops them. Gives the number to settle by.
    pub fn commit_unsettled(&mut self) -> Result<u64, BrokerError> {
        let unit = self.finished_unit()?;
        let number = self.shared.leave_open(unit)?;
        self.abort()?;
        Ok(number)
    }
}

impl<S: LogStorage> LocalBroker<S> {
    /// The transactions that [`LocalProducer::commit_unsettled`] left open, oldest first.
    pub fn open_transactions(&self) -> Vec<u64> {
        lock(&self.shared.state).open.by_number.keys().copied().collect()
    }

    /// Decides an open transaction. Whether it was still open.
    pub fn settle(&self, number: u64, commit: bool) -> Result<bool, BrokerError> {
        self.shared.settle(number, commit)
    }

    /// Uses up offsets of a partition without a record, as the markers of transactions and aborted records do on Kafka.
    pub fn burn_offsets(&self, partition: &TopicPartition, count: u32) -> Result<(), BrokerError> {
        let mut writer = lock(&self.shared.writer);
        self.shared.carry_out(&mut writer, |state, plan| plan.reserve(state, partition, i64::from(count)).map(drop))
    }
}
