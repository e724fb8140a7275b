//! Consumers and readers whose calls may fail.

use std::sync::Arc;
use std::time::Duration;

use super::super::{LocalBatch, LocalConsumer, LocalReader, MemoryLog, lock};
use super::{Call, Fault, FaultyBroker};
use crate::broker::{BrokerError, Consumer, LogReader, Polled};
use crate::record::{Offset, TopicPartition};

/// A consumer of a [`FaultyBroker`]. Dropped while its instance lives, it leaves the group; after a crash it stays a member until
/// [`FaultyBroker::expire_members`].
#[derive(Debug)]
pub struct FaultyConsumer {
    broker: FaultyBroker,
    group: Arc<str>,
    consumer: LocalConsumer<MemoryLog>,
}

impl FaultyConsumer {
    pub(super) fn new(broker: FaultyBroker, group: &str, consumer: LocalConsumer<MemoryLog>) -> Self {
        let consumer = Self { broker, group: group.into(), consumer };
        consumer.note_member();
        consumer
    }

    /// A poll after a loss joins again, under a new name.
    fn note_member(&self) {
        if let Some(member) = self.consumer.member() {
            lock(&self.broker.instance.members).insert((self.group.clone(), member));
        }
    }
}

impl Consumer for FaultyConsumer {
    type Batch = LocalBatch;

    fn poll(&mut self, max_wait: Duration) -> Result<Polled<LocalBatch>, BrokerError> {
        let fault = self.broker.before(Call::Poll)?;
        let polled = match fault {
            Some(Fault::Nothing) => Ok(Polled::Nothing),
            _ => self.consumer.poll(max_wait),
        };
        self.note_member();
        self.broker.after(fault)?;
        polled
    }

    fn start(&mut self, partition: &TopicPartition, from: Offset) -> Result<(), BrokerError> {
        let fault = self.broker.before(Call::Other)?;
        let outcome = self.consumer.start(partition, from);
        self.broker.after(fault)?;
        outcome
    }

    fn pause(&mut self, partition: &TopicPartition) -> Result<(), BrokerError> {
        let fault = self.broker.before(Call::Other)?;
        let outcome = self.consumer.pause(partition);
        self.broker.after(fault)?;
        outcome
    }

    fn leave(&mut self) -> Result<(), BrokerError> {
        let fault = self.broker.before(Call::Other)?;
        let outcome = self.consumer.leave();
        self.broker.after(fault)?;
        outcome
    }
}

impl Drop for FaultyConsumer {
    fn drop(&mut self) {
        if self.broker.is_crashed() {
            self.consumer.abandon();
        }
    }
}

/// A reader of a [`FaultyBroker`].
#[derive(Debug)]
pub struct FaultyReader {
    broker: FaultyBroker,
    reader: LocalReader<MemoryLog>,
}

impl FaultyReader {
    pub(super) fn new(broker: FaultyBroker, reader: LocalReader<MemoryLog>) -> Self {
        Self { broker, reader }
    }
}

impl LogReader for FaultyReader {
    type Batch = LocalBatch;

    fn read(&mut self, max_wait: Duration) -> Result<Option<LocalBatch>, BrokerError> {
        let fault = self.broker.before(Call::Read)?;
        let batch = match fault {
            Some(Fault::Nothing) => Ok(None),
            _ => self.reader.read(max_wait),
        };
        self.broker.after(fault)?;
        batch
    }

    fn position(&self) -> Offset {
        self.reader.position()
    }
}
