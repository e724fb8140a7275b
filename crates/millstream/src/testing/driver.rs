use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::broker::local::{LocalReader, MemoryBroker, MemoryLog, Unit};
use crate::broker::{Broker, BrokerError, FetchedBatch, LogReader, TopicSettings};
use crate::clock::ManualClock;
use crate::query::Counts;
use crate::record::{Offset, Partition, Record, Timestamp, Topic, TopicPartition};
use crate::runtime::{Instance, Parts, Registry, Stepped, StreamsConfig, StreamsError};
use crate::store::memory::MemoryStores;
use crate::task::RecordCounters;
use crate::task::TaskState;
use crate::topology::Topology;

/// Runs a topology on input that a test pipes in, one partition a topic, and shows what came out. Kafka Streams'
/// `TopologyTestDriver`; what runs inside is what runs in production, on the broker in memory.
pub struct TopologyTestDriver {
    broker: Arc<MemoryBroker>,
    clock: Arc<ManualClock>,
    registry: Registry,
    topology: Topology,
    config: StreamsConfig,
    instance: Instance<MemoryBroker>,
    outputs: HashMap<Topic, LocalReader<MemoryLog>>,
}

/// A record that came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputRecord {
    /// The key, if it has one.
    pub key: Option<Vec<u8>>,
    /// The value, if it has one.
    pub value: Option<Vec<u8>>,
    /// The timestamp.
    pub timestamp: Timestamp,
}

/// Why the driver stopped.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The broker in memory refused something.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The topology stopped.
    #[error(transparent)]
    Streams(#[from] StreamsError),
    /// A task found what must not be.
    #[error("{0}")]
    Quarantined(String),
}

impl TopologyTestDriver {
    /// A driver whose clock shows `now`.
    ///
    /// # Errors
    /// Where the topology cannot start.
    pub fn new(topology: Topology, now: Timestamp) -> Result<Self, DriverError> {
        let clock = Arc::new(ManualClock::new(now));
        let broker = Arc::new(MemoryBroker::in_memory(clock.clone()));
        for pipeline in &topology.pipelines {
            broker.create_topic(&pipeline.source, &TopicSettings::kept_for_ever(1))?;
        }
        let registry = Registry::new();
        let config = StreamsConfig { commit_interval: Duration::ZERO, ..StreamsConfig::new("test") };
        let parts = Parts {
            broker: broker.clone(),
            topology: topology.clone(),
            config: config.clone(),
            provider: Arc::new(MemoryStores::new()),
            clock: clock.clone(),
            registry: registry.clone(),
            observer: Arc::new(()),
        };
        let instance = Instance::new(1, parts);
        let mut driver = Self { broker, clock, registry, topology, config, instance, outputs: HashMap::new() };
        driver.run()?;
        Ok(driver)
    }

    /// Pipes a record into a source topic and lets the topology process it.
    ///
    /// # Errors
    /// Where there is no such topic, or the topology stops.
    pub fn pipe_input(
        &mut self,
        topic: &str,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp: Timestamp,
    ) -> Result<(), DriverError> {
        let mut unit = Unit::new();
        unit.add(&TopicPartition::new(topic, Partition(0)), &Record::new(key, value, timestamp));
        self.broker.append(unit)?;
        self.run()
    }

    /// Moves the clock on and lets the topology do what is due.
    ///
    /// # Errors
    /// Where the topology stops.
    pub fn advance_time(&mut self, by: Duration) -> Result<(), DriverError> {
        self.clock.advance_ms(by.as_millis() as i64);
        self.run()
    }

    /// The records that came out on a topic since it was last read.
    ///
    /// # Errors
    /// Where there is no such topic.
    pub fn read_output(&mut self, topic: &str) -> Result<Vec<OutputRecord>, DriverError> {
        let topic: Topic = topic.into();
        let mut reader = match self.outputs.remove(&topic) {
            Some(reader) => reader,
            None => self.broker.reader(&TopicPartition::new(topic.clone(), Partition(0)), Offset::ZERO)?,
        };
        let mut read = Vec::new();
        while let Some(batch) = reader.read(Duration::ZERO)? {
            let mut records = Vec::new();
            batch.records(&mut records)?;
            let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
            read.extend(records.iter().map(|record| OutputRecord {
                key: owned(record.key),
                value: owned(record.value),
                timestamp: record.timestamp,
            }));
        }
        self.outputs.insert(topic, reader);
        Ok(read)
    }

    /// What became of the records that were piped in.
    pub fn records(&self) -> RecordCounters {
        self.registry.records()
    }

    /// Queries on a store of counts.
    ///
    /// # Errors
    /// Where the topology has no such store.
    pub fn counts(&self, store: &str) -> Result<Counts<MemoryBroker>, DriverError> {
        let (broker, registry, clock) = (self.broker.clone(), self.registry.clone(), self.clock.clone());
        Ok(Counts::new(store, Duration::MAX, &self.topology, &self.config, broker, registry, clock)?)
    }

    /// Steps until there is nothing left to do.
    fn run(&mut self) -> Result<(), DriverError> {
        let mut idle = 0;
        while idle < 3 {
            idle = if self.instance.step(Duration::ZERO)? == Stepped::Idle { idle + 1 } else { 0 };
        }
        let mut tasks = self.registry.tasks().into_iter();
        let quarantined = tasks.find(|task| task.state == TaskState::Quarantined);
        quarantined.map_or(Ok(()), |task| Err(DriverError::Quarantined(task.trouble.unwrap_or_default())))
    }
}
