//! A transactional producer: a unit being built, and the right to append it.

use std::sync::Arc;

use super::super::{BrokerError, CommittedOffset, Delivered, ErrorKind, GroupMetadata, TransactionalProducer};
use super::commit::check_offsets;
use super::storage::LogStorage;
use super::unit::{GroupOffsets, Unit};
use super::{Shared, lock};
use crate::record::{Record, TopicPartition};

/// A producer of a [`super::LocalBroker`]. What it sends stays with it until it commits.
#[derive(Debug)]
pub struct LocalProducer<S: LogStorage> {
    pub(super) shared: Arc<Shared<S>>,
    id: Arc<str>,
    epoch: u64,
    open: Option<Unit>,
}

impl<S: LogStorage> LocalProducer<S> {
    /// Takes the transactional id over. A commit of the predecessor that is under way is waited for; one whose outcome is open
    /// is dropped.
    pub(super) fn new(shared: Arc<Shared<S>>, transactional_id: &str) -> Result<Self, BrokerError> {
        let id: Arc<str> = transactional_id.into();
        shared.drop_open(&id)?;
        let epoch = {
            let _settled = lock(&shared.writer);
            let mut state = lock(&shared.state);
            let epoch = state.producers.entry(id.clone()).or_default();
            *epoch += 1;
            *epoch
        };
        Ok(Self { shared, id, epoch, open: None })
    }

    fn check(&self) -> Result<(), BrokerError> {
        lock(&self.shared.state).check_producer(&self.id, self.epoch)
    }

    /// The open transaction as a unit, and none open from here on.
    pub(super) fn take_unit(&mut self) -> Result<Unit, BrokerError> {
        let mut unit = self.open.take().ok_or_else(|| no_transaction(&self.id))?;
        unit.producer = Some((self.id.clone(), self.epoch));
        Ok(unit)
    }
}

impl<S: LogStorage> TransactionalProducer for LocalProducer<S> {
    fn begin(&mut self) -> Result<(), BrokerError> {
        self.check()?;
        if self.open.is_some() {
            let message = format!("producer {} has begun a transaction already", self.id);
            return Err(BrokerError::new(ErrorKind::Stop, message));
        }
        self.open = Some(Unit::new());
        Ok(())
    }

    fn send(&mut self, to: &TopicPartition, record: &Record<'_>) -> Result<(), BrokerError> {
        self.open.as_mut().ok_or_else(|| no_transaction(&self.id))?.add(to, record);
        Ok(())
    }

    fn send_offsets(&mut self, group: &GroupMetadata, offsets: &[(TopicPartition, CommittedOffset)]) -> Result<(), BrokerError> {
        let offsets = GroupOffsets { group: group.clone(), offsets: offsets.to_vec() };
        {
            let state = lock(&self.shared.state);
            state.check_producer(&self.id, self.epoch)?;
            check_offsets(&state, &offsets)?;
        }
        self.open.as_mut().ok_or_else(|| no_transaction(&self.id))?.offsets.push(offsets);
        Ok(())
    }

    /// After an error the transaction is gone, as after [`TransactionalProducer::abort`].
    fn commit(&mut self) -> Result<Delivered, BrokerError> {
        let unit = self.take_unit()?;
        self.shared.submit(unit).map(super::Appended::delivered)
    }

    /// Does nothing where no transaction is open.
    fn abort(&mut self) -> Result<(), BrokerError> {
        self.open = None;
        self.check()
    }
}

fn no_transaction(id: &str) -> BrokerError {
    BrokerError::new(ErrorKind::Stop, format!("producer {id} has no open transaction"))
}
