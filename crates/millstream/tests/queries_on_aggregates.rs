//! Count queries on a store that holds no counts: refused, and never taken for damage.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use millstream::broker::local::{MemoryBroker, Unit};
use millstream::broker::{Broker, TopicSettings};
use millstream::clock::ManualClock;
use millstream::query::{Cancellation, CountQueries, Counts, Period, ReadOptions};
use millstream::record::{Partition, Record, Timestamp, TopicPartition};
use millstream::runtime::{Instance, Parts, Registry, StreamsConfig};
use millstream::serdes::{Json, Utf8};
use millstream::store::memory::MemoryStores;
use millstream::store::{StateStore, StoreError, StoreProvider};
use millstream::testing::TopologyTestDriver;
use millstream::time::TimeWindows;
use millstream::topology::{Materialized, StreamsBuilder, Topology};

const STORE: &str = "kept";
const EVER: Period = Period { from: Timestamp(0), to: Timestamp(1_000_000) };

fn windows() -> TimeWindows {
    TimeWindows::of_size_with_no_grace(Duration::from_secs(1))
}

/// All words of a key and window, in a row.
fn texts() -> Topology {
    let builder = StreamsBuilder::with_serdes(Utf8, Utf8);
    builder.stream("words").group_by(|key, _| *key).windowed_by(windows()).aggregate(
        String::new,
        |text, word| text.push_str(word),
        |text, other| text.push_str(&other),
        Materialized::as_(STORE).with_value_serde(Json::<String>::new()),
    );
    builder.build().unwrap()
}

fn counts() -> Topology {
    let builder = StreamsBuilder::with_serdes(Utf8, Utf8);
    builder.stream("words").group_by(|key, _| *key).windowed_by(windows()).count(Materialized::as_(STORE));
    builder.build().unwrap()
}

#[test]
fn count_queries_on_a_store_of_an_aggregate_are_refused() {
    let driver = TopologyTestDriver::new(texts(), Timestamp(0)).unwrap();
    let Err(error) = driver.counts(STORE) else { panic!("the store holds no counts") };
    assert!(error.to_string().contains("store kept holds no counts"), "{error}");
}

/// Counts how many stores are destroyed.
#[derive(Default)]
struct Watched {
    stores: MemoryStores,
    destroyed: AtomicUsize,
}

impl StoreProvider for Watched {
    fn open(&self, store: &str, partition: Partition) -> Result<Arc<dyn StateStore>, StoreError> {
        self.stores.open(store, partition)
    }

    fn partitions(&self, store: &str) -> Result<Vec<Partition>, StoreError> {
        self.stores.partitions(store)
    }

    fn destroy(&self, store: &str, partition: Partition) -> Result<(), StoreError> {
        self.destroyed.fetch_add(1, Ordering::Relaxed);
        self.stores.destroy(store, partition)
    }
}

#[test]
fn a_reader_that_takes_aggregates_for_counts_destroys_nothing() {
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    let broker = Arc::new(MemoryBroker::in_memory(clock.clone()));
    broker.create_topic("words", &TopicSettings::kept_for_ever(1)).unwrap();
    let (registry, provider) = (Registry::new(), Arc::new(Watched::default()));
    let config = StreamsConfig { commit_interval: Duration::ZERO, ..StreamsConfig::new("app") };
    let parts = Parts {
        broker: broker.clone(),
        topology: texts(),
        config: config.clone(),
        provider: provider.clone(),
        clock: clock.clone(),
        registry: registry.clone(),
        observer: Arc::new(()),
    };
    let mut instance = Instance::new(1, parts);
    let mut write_and_run = || {
        let mut unit = Unit::new();
        unit.add(&TopicPartition::new("words", Partition(0)), &Record::new(Some(b"k"), Some(b"word"), Timestamp(5)));
        broker.append(unit).unwrap();
        for _ in 0..40 {
            instance.step(Duration::ZERO).unwrap();
        }
    };
    write_and_run();
    let mistaken = Counts::new(STORE, Duration::MAX, &counts(), &config, broker.clone(), registry.clone(), clock).unwrap();
    mistaken.refresh_lag().unwrap();
    mistaken.fetch(b"k", EVER, ReadOptions::default()).expect_err("it is no count");
    write_and_run();
    mistaken.top(EVER, 3, ReadOptions::default(), &Cancellation::default()).expect_err("it is no count");
    write_and_run();
    assert_eq!((provider.destroyed.load(Ordering::Relaxed), registry.restored_records()), (0, 0));
    assert!(registry.is_running(2));
}
