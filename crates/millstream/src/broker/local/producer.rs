//! A transactional producer: a unit being built, and the right to append it.

use std::sync::Arc;

use super::super::{BrokerError, CommittedOffset, Delivered, ErrorKind, Fence, TransactionalProducer};
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
    /// Shared with the write that it is part of, and with nobody between two calls.
    open: Option<Arc<Unit>>,
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

    /// The open transaction as a unit. It stays open, so that a commit may be tried again.
    pub(super) fn finished_unit(&mut self) -> Result<Arc<Unit>, BrokerError> {
        let (id, epoch) = (self.id.clone(), self.epoch);
        let unit = self.unit()?;
        unit.producer = Some((id, epoch));
        self.open.clone().ok_or_else(|| no_transaction(&self.id))
    }

    fn unit(&mut self) -> Result<&mut Unit, BrokerError> {
        let unit = self.open.as_mut().ok_or_else(|| no_transaction(&self.id))?;
        Ok(Arc::make_mut(unit))
    }
}

impl<S: LogStorage> TransactionalProducer for LocalProducer<S> {
    fn begin(&mut self) -> Result<(), BrokerError> {
        self.check()?;
        if self.open.is_some() {
            let message = format!("producer {} has begun a transaction already", self.id);
            return Err(BrokerError::new(ErrorKind::Stop, message));
        }
        self.open = Some(Arc::default());
        Ok(())
    }

    fn send(&mut self, to: &TopicPartition, record: &Record<'_>) -> Result<(), BrokerError> {
        self.unit()?.add(to, record);
        Ok(())
    }

    fn send_offsets(&mut self, fence: &Fence, offsets: &[(TopicPartition, CommittedOffset)]) -> Result<(), BrokerError> {
        let offsets = GroupOffsets { fence: fence.clone(), offsets: offsets.to_vec() };
        {
            let state = lock(&self.shared.state);
            state.check_producer(&self.id, self.epoch)?;
            check_offsets(&state, &offsets)?;
        }
        self.unit()?.offsets.push(offsets);
        Ok(())
    }

    /// After an error the transaction is still open: commit it again where the error says retry, or abort it.
    fn commit(&mut self) -> Result<Delivered, BrokerError> {
        let unit = self.finished_unit()?;
        let appended = self.shared.submit(unit)?;
        self.open = None;
        Ok(appended.delivered())
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
