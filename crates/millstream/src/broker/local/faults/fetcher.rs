//! Fetchers and readers whose calls may fail.

use std::time::Duration;

use super::super::{LocalBatch, LocalFetcher, LocalReader, MemoryLog};
use super::{Call, Fault, FaultyBroker, asked_for};
use crate::broker::{BrokerError, ErrorKind, Fetched, FetchedBatch, Fetcher, LogReader};
use crate::record::{Offset, TopicPartition};

/// A fetcher of a [`FaultyBroker`].
#[derive(Debug)]
pub struct FaultyFetcher {
    broker: FaultyBroker,
    fetcher: LocalFetcher<MemoryLog>,
}

impl FaultyFetcher {
    pub(super) fn new(broker: FaultyBroker, fetcher: LocalFetcher<MemoryLog>) -> Self {
        Self { broker, fetcher }
    }

    /// The partition whose turn it is fails, if any has one.
    fn fail_next(&mut self, kind: ErrorKind, max_wait: Duration) -> Result<Fetched<LocalBatch>, BrokerError> {
        let fetched = self.fetcher.poll(max_wait)?;
        let Fetched::Batch(batch) = fetched else { return Ok(fetched) };
        let partition = batch.partition().clone();
        self.fetcher.stop(&partition);
        Ok(Fetched::Failed(partition.clone(), asked_for(Call::Fetch, kind).of_partition(partition)))
    }
}

impl Fetcher for FaultyFetcher {
    type Batch = LocalBatch;

    fn start(&mut self, partition: &TopicPartition, from: Offset) -> Result<(), BrokerError> {
        let fault = self.broker.before(Call::Other)?;
        let outcome = self.fetcher.start(partition, from);
        self.broker.after(fault)?;
        outcome
    }

    /// Never goes wrong: nothing is asked of the broker.
    fn stop(&mut self, partition: &TopicPartition) {
        self.fetcher.stop(partition);
    }

    fn poll(&mut self, max_wait: Duration) -> Result<Fetched<LocalBatch>, BrokerError> {
        let fault = self.broker.before(Call::Fetch)?;
        let fetched = match fault {
            Some(Fault::Nothing) => Ok(Fetched::Nothing),
            Some(Fault::FailPartition(kind)) => self.fail_next(kind, max_wait),
            _ => self.fetcher.poll(max_wait),
        };
        self.broker.after(fault)?;
        fetched
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
