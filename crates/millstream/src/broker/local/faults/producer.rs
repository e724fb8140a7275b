//! A producer whose calls may fail.

use super::super::{LocalProducer, MemoryLog};
use super::{Call, CommitOutcome, Fault, FaultyBroker, asked_for};
use crate::broker::{BrokerError, CommittedOffset, Delivered, ErrorKind, Fence, TransactionalProducer};
use crate::record::{Record, TopicPartition};

/// A producer of a [`FaultyBroker`].
#[derive(Debug)]
pub struct FaultyProducer {
    broker: FaultyBroker,
    producer: LocalProducer<MemoryLog>,
    /// The partition that the open transaction has sent to last.
    sent_to: Option<TopicPartition>,
}

impl FaultyProducer {
    pub(super) fn new(broker: FaultyBroker, producer: LocalProducer<MemoryLog>) -> Self {
        Self { broker, producer, sent_to: None }
    }

    fn call<T>(
        &mut self,
        call: Call,
        make: impl FnOnce(&mut LocalProducer<MemoryLog>) -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        let fault = self.broker.before(call)?;
        let outcome = make(&mut self.producer);
        self.broker.after(fault)?;
        outcome
    }

    /// A commit that is refused for its own reasons is refused, whatever was to happen to it.
    fn commit_unknown(&mut self, outcome: CommitOutcome) -> Result<Delivered, BrokerError> {
        match outcome {
            CommitOutcome::Applied => drop(self.producer.commit()?),
            CommitOutcome::NotApplied => self.producer.abort()?,
            CommitOutcome::InFlight => drop(self.producer.commit_unsettled()?),
        }
        Err(BrokerError::new(ErrorKind::OutcomeUnknown, "the outcome of this commit is unknown, as it was told to be"))
    }
}

impl TransactionalProducer for FaultyProducer {
    fn begin(&mut self) -> Result<(), BrokerError> {
        self.sent_to = None;
        self.call(Call::Begin, |producer| producer.begin())
    }

    fn send(&mut self, to: &TopicPartition, record: &Record<'_>) -> Result<(), BrokerError> {
        let fault = self.broker.before(Call::Send)?;
        let outcome = match fault {
            Some(Fault::FailPartition(kind)) => Err(asked_for(Call::Send, kind).of_partition(to.clone())),
            _ => self.producer.send(to, record),
        };
        self.sent_to = Some(to.clone());
        self.broker.after(fault)?;
        outcome
    }

    fn send_offsets(&mut self, fence: &Fence, offsets: &[(TopicPartition, CommittedOffset)]) -> Result<(), BrokerError> {
        self.call(Call::SendOffsets, |producer| producer.send_offsets(fence, offsets))
    }

    fn commit(&mut self) -> Result<Delivered, BrokerError> {
        let fault = self.broker.before(Call::Commit)?;
        let outcome = match (fault, &self.sent_to) {
            (Some(Fault::OutcomeUnknown(outcome)), _) => self.commit_unknown(outcome),
            (Some(Fault::FailPartition(kind)), Some(sent_to)) => Err(asked_for(Call::Commit, kind).of_partition(sent_to.clone())),
            _ => self.producer.commit(),
        };
        if let (Some(Fault::BurnOffsets(count)), Ok(delivered)) = (fault, &outcome) {
            delivered.keys().try_for_each(|partition| self.broker.broker.burn_offsets(partition, count))?;
        }
        self.broker.after(fault)?;
        outcome
    }

    fn abort(&mut self) -> Result<(), BrokerError> {
        self.call(Call::Abort, |producer| producer.abort())
    }
}
