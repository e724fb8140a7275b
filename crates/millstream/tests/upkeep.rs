//! What an instance does now and then, and what threads that count do not wait for.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream::broker::local::faults::{Call, FaultyBroker};
use millstream::broker::local::{MemoryBroker, Unit};
use millstream::broker::{Broker, FetchedBatch, Isolation, LogReader, TopicSettings};
use millstream::clock::ManualClock;
use millstream::record::{Offset, Partition, Record, Timestamp, TopicPartition};
use millstream::runtime::{Instance, Parts, Registry, StreamsConfig, Workers};
use millstream::serdes::{Bytes, Utf8};
use millstream::store::memory::MemoryStores;
use millstream::store::{StateStore, StoreBatch, StoreError, StoreProvider, StoreSnapshot};
use millstream::task::WindowEnd;
use millstream::time::TimeWindows;
use millstream::topology::{EmitStrategy, Materialized, StreamsBuilder, Topology};

const IDLE_TIMEOUT_MS: i64 = 60_000;

/// Stores that count how often they are flushed.
#[derive(Default)]
struct Watched {
    stores: MemoryStores,
    flushes: Arc<AtomicUsize>,
}

struct WatchedStore {
    store: Arc<dyn StateStore>,
    flushes: Arc<AtomicUsize>,
}

impl StoreProvider for Watched {
    fn open(&self, store: &str, partition: Partition) -> Result<Arc<dyn StateStore>, StoreError> {
        Ok(Arc::new(WatchedStore { store: self.stores.open(store, partition)?, flushes: self.flushes.clone() }))
    }

    fn partitions(&self, store: &str) -> Result<Vec<Partition>, StoreError> {
        self.stores.partitions(store)
    }

    fn destroy(&self, store: &str, partition: Partition) -> Result<(), StoreError> {
        self.stores.destroy(store, partition)
    }
}

impl StateStore for WatchedStore {
    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.store.multi_get(keys)
    }

    fn write(&self, batch: &StoreBatch) -> Result<(), StoreError> {
        self.store.write(batch)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.store.flush()
    }

    fn snapshot(&self) -> Box<dyn StoreSnapshot + '_> {
        self.store.snapshot()
    }
}

/// Counts words in windows of 10 ms that are kept for a second, and sends final windows on.
fn topology() -> Topology {
    let builder = StreamsBuilder::with_serdes(Bytes, Utf8);
    let windows = TimeWindows::of_size_with_no_grace(Duration::from_millis(10));
    let counts = Materialized::as_("counts").with_retention(Duration::from_secs(1));
    let windowed = builder.stream("words").group_by(|_, word| *word).windowed_by(windows);
    windowed.emit_strategy(EmitStrategy::OnWindowClose).count(counts).to("closed");
    builder.build().unwrap()
}

/// An instance whose parts are driven by themselves.
struct Application {
    broker: MemoryBroker,
    clock: Arc<ManualClock>,
    workers: Workers<FaultyBroker>,
    flushes: Arc<AtomicUsize>,
    calls: Arc<Mutex<BTreeMap<Call, usize>>>,
}

impl Application {
    fn start(partitions: u32, purge_interval: Duration) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let broker = MemoryBroker::in_memory(clock.clone());
        broker.create_topic("words", &TopicSettings::kept_for_ever(partitions)).unwrap();
        let calls = Arc::new(Mutex::new(BTreeMap::new()));
        let counted = calls.clone();
        let count = move |call| {
            *counted.lock().unwrap().entry(call).or_default() += 1;
            None
        };
        let provider = Watched::default();
        let flushes = provider.flushes.clone();
        let parts = Parts {
            broker: Arc::new(FaultyBroker::new(broker.clone(), Arc::new(count))),
            topology: topology(),
            config: StreamsConfig {
                commit_interval: Duration::ZERO,
                idle_timeout: Some(Duration::from_millis(IDLE_TIMEOUT_MS as u64)),
                purge_interval,
                ..StreamsConfig::new("app")
            },
            provider: Arc::new(provider),
            clock: clock.clone(),
            registry: Registry::new(),
            observer: Arc::new(()),
        };
        let workers = Instance::new(1, parts).into_workers();
        let mut application = Self { broker, clock, workers, flushes, calls };
        application.count();
        application
    }

    /// Steps all parts but upkeep.
    fn count(&mut self) {
        let Workers { member, updaters, threads, .. } = &mut self.workers;
        for _ in 0..30 {
            member.step(Duration::ZERO).unwrap();
            updaters[0].step(Duration::ZERO).unwrap();
            threads[0].step(Duration::ZERO).unwrap();
        }
    }

    fn upkeep(&mut self) {
        self.workers.upkeep.step(Duration::ZERO);
    }

    /// Lets so many seconds go by, and all parts do what is due.
    fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.clock.advance_ms(1_000);
            self.count();
            self.upkeep();
            self.count();
        }
    }

    fn write(&mut self, partition: u32, time: i64) {
        let mut unit = Unit::new();
        let record = Record::new(None, Some(b"word"), Timestamp(time));
        unit.add(&TopicPartition::new("words", Partition(partition)), &record);
        self.broker.append(unit).unwrap();
        self.count();
    }

    /// The starts of the windows that were sent on.
    fn sent_windows(&self, partitions: u32) -> Vec<i64> {
        let mut starts = Vec::new();
        for partition in 0..partitions {
            let closed = TopicPartition::new("closed", Partition(partition));
            let mut reader = self.broker.reader(&closed, Offset::ZERO).unwrap();
            while let Some(batch) = reader.read(Duration::ZERO).unwrap() {
                let mut records = Vec::new();
                batch.records(&mut records).unwrap();
                starts.extend(records.iter().filter_map(WindowEnd::decode).map(|end| end.start.0));
            }
        }
        starts
    }
}

#[test]
fn a_thread_that_counts_never_waits_for_a_flush() {
    let mut application = Application::start(1, Duration::ZERO);
    let changelog = TopicPartition::new("app-counts-changelog", Partition(0));
    let start = |application: &Application| application.broker.log_range(&changelog, Isolation::ReadCommitted).unwrap().start;
    let before = start(&application);
    for time in [1, 5_000, 5_020] {
        application.write(0, time);
    }
    assert_eq!(application.sent_windows(1), [0, 5_000]);
    assert_eq!(application.flushes.load(Ordering::Relaxed), 0, "the first window has expired, and nobody has flushed");
    application.clock.advance_ms(1);
    application.upkeep();
    assert_eq!(application.flushes.load(Ordering::Relaxed), 1);
    assert!(start(&application) > before, "what stood for the expired window is deleted");
}

#[test]
fn a_partition_that_is_idle_is_idle_after_a_rebalance() {
    let mut application = Application::start(2, Duration::ZERO);
    application.write(0, 1);
    application.write(1, 1);
    application.wait(IDLE_TIMEOUT_MS as u64 / 1_000);
    application.write(0, 1_000);
    application.wait(20);
    assert_eq!(application.sent_windows(2), [0], "the second partition has fallen idle and holds nothing up");

    application.broker.force_rebalance("app");
    application.count();
    application.write(0, 2_000);
    application.wait(20);
    assert_eq!(application.sent_windows(2), [0, 1_000], "it did not have to be silent for as long again");
}

#[test]
fn the_broker_is_asked_once_for_all_partitions_that_are_silent() {
    for partitions in [3, 24] {
        let mut application = Application::start(partitions, Duration::from_secs(1 << 30));
        (0..partitions).for_each(|partition| application.write(partition, 1));
        application.clock.advance_ms(IDLE_TIMEOUT_MS);
        application.count();
        application.calls.lock().unwrap().clear();
        application.upkeep();
        // Where a log ends this broker is asked for one by one.
        let expected = [(Call::Committed, 1), (Call::LogRange, partitions as usize), (Call::Other, 1)];
        assert_eq!(*application.calls.lock().unwrap(), BTreeMap::from(expected));
    }
}
