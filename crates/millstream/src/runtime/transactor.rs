//! Transactions of one transactional id: the only place where one is begun, committed or given up.

use std::sync::Arc;

use crate::broker::{Broker, BrokerError, CommittedOffset, Delivered, ErrorKind, Fence, TransactionalProducer};
use crate::record::TopicPartition;
use crate::task::TaskError;

/// The positions that a transaction commits.
pub(super) type Offsets = Vec<(TopicPartition, CommittedOffset)>;

/// A transactional id with its producer, which is replaced where it is of no use any more.
pub(super) struct Transactor<B: Broker> {
    broker: Arc<B>,
    transactional_id: String,
    producer: Option<B::Producer>,
    /// Something was begun that may still be open, or may have committed.
    is_unsettled: bool,
}

impl<B: Broker> Transactor<B> {
    pub(super) fn new(broker: Arc<B>, transactional_id: String) -> Self {
        Self { broker, transactional_id, producer: None, is_unsettled: false }
    }

    /// Makes sure that there is a producer. A new one settles what its predecessor, of this process or of one before, has begun:
    /// until then nobody is told the positions that are part of it.
    pub(super) fn connect(&mut self) -> Result<(), BrokerError> {
        if self.producer.is_none() {
            self.producer = Some(self.broker.producer(&self.transactional_id)?);
            self.is_unsettled = false;
        }
        Ok(())
    }

    /// Whether something that this process has begun may still be open, or may have committed: until [`Transactor::connect`] has
    /// succeeded, no task that it was about may be given up.
    pub(super) fn is_unsettled(&self) -> bool {
        self.is_unsettled
    }

    /// The producer is of no use any more: the next one settles what it has begun.
    pub(super) fn discard_producer(&mut self) {
        self.producer = None;
        self.is_unsettled = true;
    }

    /// Runs one transaction: what `stage` sends, and the positions that it gives.
    ///
    /// # Errors
    /// The transaction did not commit, but where [`ErrorKind::OutcomeUnknown`] or [`ErrorKind::Fenced`] says that it may have: nothing
    /// may be read of what it was about before [`Transactor::connect`] has succeeded.
    pub(super) fn transact(
        &mut self,
        fence: &Fence,
        stage: impl FnOnce(&mut dyn TransactionalProducer) -> Result<Offsets, TaskError>,
    ) -> Result<Delivered, TaskError> {
        let none =
            || BrokerError::new(ErrorKind::Retry, format!("transactional id {} has no producer for now", self.transactional_id));
        let producer = self.producer.as_mut().ok_or_else(none)?;
        let outcome = producer.begin().map_err(TaskError::from).and_then(|()| {
            let outcome = stage(producer).and_then(|offsets| {
                producer.send_offsets(fence, &offsets)?;
                Ok(producer.commit()?)
            });
            match outcome {
                // Where the abort fails too, the next producer ends what this one has begun.
                Err(error) if !is_undecided(&error) && producer.abort().is_err() => {
                    self.is_unsettled = true;
                    Err(error)
                }
                outcome => outcome,
            }
        });
        if self.is_unsettled || outcome.as_ref().is_err_and(is_undecided) {
            self.discard_producer();
        }
        outcome
    }
}

/// Whether a transaction that failed so may have committed all the same.
pub(super) fn is_undecided(error: &TaskError) -> bool {
    matches!(error, TaskError::Broker(error) if matches!(error.kind(), ErrorKind::OutcomeUnknown | ErrorKind::Fenced))
}
