//! An instance of one thread on a broker and stores, driven until nothing is left to do.

// Each benchmark uses its own part of it.
#![allow(dead_code, reason = "compiled into several benchmarks")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use clickmill::config::Config;
use millstream::broker::local::{LocalBroker, LogStorage, MemoryBroker, Unit};
use millstream::broker::{Broker, TopicSettings};
use millstream::clock::Clock;
use millstream::query::Counts;
use millstream::record::Timestamp;
use millstream::runtime::{Instance, Parts, Registry, Stepped, StreamsConfig};
use millstream::store::StoreProvider;
use millstream::store::memory::MemoryStores;
use millstream::topology::Topology;
use millstream_rocksdb::broker::{self, EmbeddedBroker};
use millstream_rocksdb::memory::MemoryBudget;
use millstream_rocksdb::state::RocksStores;
use tempfile::TempDir;

/// The moment at which every benchmark begins.
pub(crate) const START: Timestamp = Timestamp(1_767_225_600_000);

/// The time that has passed, and what was skipped of it: a thread that only waits for its next commit need not be waited for.
pub(crate) struct SkippingClock {
    began: Instant,
    skipped_ms: AtomicI64,
}

impl SkippingClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), skipped_ms: AtomicI64::new(0) })
    }

    fn skip(&self, duration: Duration) {
        self.skipped_ms.fetch_add(duration.as_millis() as i64, Ordering::Relaxed);
    }
}

impl Clock for SkippingClock {
    fn now(&self) -> Timestamp {
        Timestamp(START.0 + self.began.elapsed().as_millis() as i64 + self.skipped_ms.load(Ordering::Relaxed))
    }
}

/// So many steps an instance may wait, all but the first a millisecond each.
const MOST_TROUBLE: u32 = 60_000;
const START_STEPS: u32 = 100;

/// The instance with all it works on. Where that is a directory, it goes with it.
pub(crate) struct Rig<S: LogStorage> {
    pub(crate) broker: Arc<LocalBroker<S>>,
    pub(crate) clock: Arc<SkippingClock>,
    pub(crate) counts: Counts<LocalBroker<S>>,
    instance: Instance<LocalBroker<S>>,
    commit_interval: Duration,
    _dir: Option<TempDir>,
}

impl<S: LogStorage> Rig<S> {
    /// Topics, store and thread of `topology`, as the service would have them with that configuration and one thread.
    pub(crate) fn new(
        config: &Config,
        topology: Topology,
        store: &str,
        broker: LocalBroker<S>,
        provider: Arc<dyn StoreProvider>,
        clock: Arc<SkippingClock>,
        dir: Option<TempDir>,
    ) -> Self {
        let (broker, registry) = (Arc::new(broker), Registry::new());
        let clicks = TopicSettings::kept_for_ever(config.clicks.partitions);
        broker.create_topic(&config.clicks.topic, &clicks).expect("the clicks topic is new");
        let streams = StreamsConfig {
            commit_interval: config.engine.commit_interval,
            commit_interval_backlog: config.engine.commit_interval_backlog,
            uncommitted_bytes: config.engine.memory as usize / 16,
            idle_timeout: config.engine.idle_timeout,
            ..StreamsConfig::new("bench")
        };
        let (b, r, c) = (broker.clone(), registry.clone(), clock.clone());
        let counts = Counts::new(store, Duration::MAX, &topology, &streams, b, r, c).expect("the topology has the store");
        let commit_interval = streams.commit_interval;
        let parts = Parts {
            broker: broker.clone(),
            topology,
            config: streams,
            provider,
            clock: clock.clone(),
            registry,
            observer: Arc::new(()),
        };
        Self { broker, clock, counts, instance: Instance::new(1, parts), commit_interval, _dir: dir }
    }

    /// Appends a unit of source records.
    pub(crate) fn append(&self, unit: Unit) {
        self.broker.append(unit).expect("the broker takes the records");
    }

    /// Steps until everything is read, committed, and sent on where it is final.
    pub(crate) fn run(&mut self) {
        let (mut idle, mut troubled) = (0, 0);
        while idle < 3 {
            match self.instance.step(Duration::ZERO).expect("the thread goes on") {
                Stepped::Idle => {
                    idle += 1;
                    self.clock.skip(self.commit_interval);
                }
                Stepped::Worked => idle = 0,
                // At the start tasks wait for the commits of others; later a store may have to be waited for.
                Stepped::Troubled => {
                    (idle, troubled) = (0, troubled + 1);
                    assert!(troubled < MOST_TROUBLE, "the instance does not get on");
                    self.clock.skip(self.commit_interval);
                    if troubled > START_STEPS {
                        std::thread::park_timeout(Duration::from_millis(1));
                    }
                }
            }
        }
    }
}

/// A broker in memory.
pub(crate) fn memory_broker(clock: &Arc<SkippingClock>) -> MemoryBroker {
    MemoryBroker::in_memory(clock.clone())
}

/// Stores in memory.
pub(crate) fn memory_stores() -> Arc<dyn StoreProvider> {
    Arc::new(MemoryStores::new())
}

/// The part of the memory that RocksDB gets in the service.
pub(crate) fn budget(config: &Config) -> MemoryBudget {
    MemoryBudget::new(config.engine.memory as usize / 2)
}

/// The broker that the service has, in a directory.
pub(crate) fn embedded_broker(dir: &Path, clock: &Arc<SkippingClock>, budget: &MemoryBudget) -> EmbeddedBroker {
    broker::open(&dir.join("log"), clock.clone(), budget).expect("a new log opens")
}

/// The stores that the service has, in a directory.
pub(crate) fn rocks_stores(dir: &Path, config: &Config, budget: MemoryBudget) -> Arc<dyn StoreProvider> {
    Arc::new(RocksStores::new(dir.join("state"), budget, config.rocksdb.clone()).expect("the default options are valid"))
}
