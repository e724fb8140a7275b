//! What one task cannot go on from keeps no other from counting.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use millstream::broker::local::faults::{Call, Fault, FaultyBroker};
use millstream::broker::local::{MemoryBroker, Unit};
use millstream::broker::{Broker, ErrorKind, TopicSettings};
use millstream::clock::ManualClock;
use millstream::query::{CountQueries, Counts, Period, ReadOptions};
use millstream::record::{Partition, Record, Timestamp, TopicPartition};
use millstream::runtime::{Instance, Parts, Registry, StreamsConfig, TaskStatus};
use millstream::serdes::{Bytes, Utf8};
use millstream::store::memory::MemoryStores;
use millstream::store::{StateStore, StoreBatch, StoreError, StoreErrorKind, StoreProvider, StoreSnapshot};
use millstream::task::TaskState;
use millstream::time::TimeWindows;
use millstream::topology::{Materialized, StreamsBuilder, Topology};

const EVER: Period = Period { from: Timestamp(0), to: Timestamp(1_000_000) };

/// Counts words, and panics at one of them.
fn topology() -> Topology {
    let builder = StreamsBuilder::with_serdes(Bytes, Utf8);
    let windows = TimeWindows::of_size_with_no_grace(Duration::from_millis(10));
    let not_poison = |_: &Option<&[u8]>, word: &&str| {
        assert_ne!(*word, "poison", "this word is not to be thought of");
        true
    };
    let words = builder.stream("words").filter(not_poison);
    words.group_by(|_, word| *word).windowed_by(windows).count(Materialized::as_("counts"));
    builder.build().unwrap()
}

fn config() -> StreamsConfig {
    StreamsConfig { commit_interval: Duration::ZERO, ..StreamsConfig::new("app") }
}

struct Application {
    memory: Arc<MemoryBroker>,
    broker: Arc<FaultyBroker>,
    clock: Arc<ManualClock>,
    registry: Registry,
    instance: Instance<FaultyBroker>,
}

impl Application {
    fn start(faults: impl Fn(Call) -> Option<Fault> + Send + Sync + 'static, provider: Arc<dyn StoreProvider>) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let memory = Arc::new(MemoryBroker::in_memory(clock.clone()));
        memory.create_topic("words", &TopicSettings::kept_for_ever(2)).unwrap();
        let broker = Arc::new(FaultyBroker::new((*memory).clone(), Arc::new(faults)));
        let registry = Registry::new();
        let parts = Parts {
            broker: broker.clone(),
            topology: topology(),
            config: config(),
            provider,
            clock: clock.clone(),
            registry: registry.clone(),
            observer: Arc::new(()),
        };
        let mut application = Self { memory, broker, clock, registry, instance: Instance::new(1, parts) };
        application.run();
        application
    }

    fn run(&mut self) {
        for _ in 0..100 {
            self.instance.step(Duration::ZERO).unwrap();
            self.clock.advance_ms(5);
        }
    }

    fn write(&mut self, partition: u32, word: &str) {
        let mut unit = Unit::new();
        let record = Record::new(None, Some(word.as_bytes()), Timestamp(1));
        unit.add(&TopicPartition::new("words", Partition(partition)), &record);
        self.memory.append(unit).unwrap();
        self.run();
    }

    fn quarantined(&self) -> Vec<TaskStatus> {
        self.registry.tasks().into_iter().filter(|task| task.state == TaskState::Quarantined).collect()
    }

    fn counts(&self) -> Counts<FaultyBroker> {
        let (broker, registry, clock) = (self.broker.clone(), self.registry.clone(), self.clock.clone());
        let counts = Counts::new("counts", Duration::from_secs(1), &topology(), &config(), broker, registry, clock).unwrap();
        counts.refresh_lag().unwrap();
        counts
    }

    fn count(&self, word: &str) -> u64 {
        let answer = self.counts().fetch(word.as_bytes(), EVER, ReadOptions::default()).unwrap();
        answer.value.iter().map(|window| window.count as u64).sum()
    }
}

#[test]
fn a_function_that_panics_quarantines_its_task_and_no_other() {
    let mut application = Application::start(|_| None, Arc::new(MemoryStores::new()));
    application.write(0, "good");
    application.write(0, "poison");
    application.write(0, "behind");
    application.write(1, "good");
    let quarantined = application.quarantined();
    assert_eq!(quarantined.len(), 1, "{quarantined:?}");
    let reason = quarantined[0].trouble.as_deref().unwrap();
    assert!(reason.contains("panicked") && reason.contains("is not to be thought of"), "{reason}");
    assert_eq!((application.count("good"), application.count("behind")), (2, 0));
    // It is tried again, and comes to the same.
    assert!(application.registry.retry(quarantined[0].id));
    application.run();
    assert_eq!(application.quarantined().len(), 1);
    application.write(1, "good");
    assert_eq!(application.count("good"), 3);
}

#[test]
fn a_task_that_is_refused_for_good_is_quarantined_also_where_it_commits_alone() {
    let refusals = Arc::new(AtomicU32::new(0));
    let left = refusals.clone();
    let takes_one =
        move |left: &AtomicU32| left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
    let faults = move |call| (call == Call::SendOffsets && takes_one(&left)).then_some(Fault::Fail(ErrorKind::Stop));
    let mut application = Application::start(faults, Arc::new(MemoryStores::new()));
    application.write(0, "good");
    refusals.store(1, Ordering::SeqCst);
    application.write(0, "good");
    let quarantined = application.quarantined();
    assert_eq!(quarantined.iter().map(|task| task.input().to_string()).collect::<Vec<_>>(), ["words-0"]);
    application.write(1, "good");
    assert_eq!(application.count("good"), 2, "what is read by others is counted");
    assert!(application.registry.retry(quarantined[0].id));
    application.run();
    assert_eq!((application.count("good"), application.quarantined().len()), (3, 0));
}

/// Stores whose writes can be told to fail.
#[derive(Default)]
struct Failing {
    stores: MemoryStores,
    fails: Arc<AtomicU32>,
}

struct FailingStore {
    store: Arc<dyn StateStore>,
    fails: Arc<AtomicU32>,
}

impl StoreProvider for Failing {
    fn open(&self, store: &str, partition: Partition) -> Result<Arc<dyn StateStore>, StoreError> {
        let store = self.stores.open(store, partition)?;
        Ok(Arc::new(FailingStore { store, fails: self.fails.clone() }))
    }

    fn partitions(&self, store: &str) -> Result<Vec<Partition>, StoreError> {
        self.stores.partitions(store)
    }

    fn destroy(&self, store: &str, partition: Partition) -> Result<(), StoreError> {
        self.stores.destroy(store, partition)
    }
}

impl StateStore for FailingStore {
    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.store.multi_get(keys)
    }

    fn write(&self, batch: &StoreBatch) -> Result<(), StoreError> {
        match self.fails.load(Ordering::SeqCst) {
            0 => self.store.write(batch),
            _ => Err(StoreError::new(StoreErrorKind::Stop, "the disk is gone")),
        }
    }

    fn snapshot(&self) -> Box<dyn StoreSnapshot + '_> {
        self.store.snapshot()
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.store.flush()
    }
}

#[test]
fn an_answer_from_a_store_that_lacks_what_has_committed_is_not_complete() {
    let stores = Failing::default();
    let fails = stores.fails.clone();
    let mut application = Application::start(|_| None, Arc::new(stores));
    application.write(0, "good");
    assert_eq!(application.count("good"), 1);
    fails.store(1, Ordering::SeqCst);
    application.write(0, "good");
    assert_eq!(application.quarantined().len(), 1);
    let counts = application.counts();
    counts.fetch(b"good", EVER, ReadOptions::default()).expect_err("one is committed and not here");
    let stale = ReadOptions { allow_stale: true, ..ReadOptions::default() };
    let answer = counts.fetch(b"good", EVER, stale).unwrap();
    assert!(!answer.completeness.is_complete() && answer.completeness.stale.len() == 1, "{:?}", answer.completeness);
    fails.store(0, Ordering::SeqCst);
    assert!(application.registry.retry(application.quarantined()[0].id));
    application.run();
    assert_eq!(application.count("good"), 2);
}
