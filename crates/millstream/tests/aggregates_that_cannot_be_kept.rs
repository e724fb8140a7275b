//! An aggregate that its own serde cannot keep: refused before anything rests on it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use millstream::broker::local::{MemoryBroker, Unit};
use millstream::broker::{Broker, Isolation, TopicSettings};
use millstream::clock::ManualClock;
use millstream::partitioner::partition_for_key;
use millstream::record::{Partition, Record, Timestamp, TopicPartition};
use millstream::runtime::{Instance, Parts, Registry, StreamsConfig};
use millstream::serdes::{Deserializer, Json, Long, Rejection, Serializer, Utf8};
use millstream::store::memory::MemoryStores;
use millstream::task::TaskState;
use millstream::testing::{DriverError, TopologyTestDriver};
use millstream::time::TimeWindows;
use millstream::topology::{Materialized, StreamsBuilder, Topology};

/// Writes nothing for a value of 13.
#[derive(Clone, Copy)]
struct NotThirteen;

impl Serializer<i64> for NotThirteen {
    fn serialize(&self, value: &i64, into: &mut Vec<u8>) -> bool {
        *value != 13 && Long.serialize(value, into)
    }
}

impl Deserializer for NotThirteen {
    type Output<'r> = i64;

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<i64, Rejection> {
        Long.deserialize(bytes)
    }
}

/// The sum of the prices by key, in windows of a minute.
fn sums<S>(serde: S, is_keyed: bool) -> TopologyTestDriver
where
    S: Serializer<i64> + for<'r> Deserializer<Output<'r> = i64>,
{
    TopologyTestDriver::new(topology(serde, is_keyed), Timestamp(0)).unwrap()
}

fn topology<S>(serde: S, is_keyed: bool) -> Topology
where
    S: Serializer<i64> + for<'r> Deserializer<Output<'r> = i64>,
{
    let builder = StreamsBuilder::with_serdes(Utf8, Long);
    let grouped = builder.stream("prices").group_by(|key, _| *key);
    let grouped = if is_keyed { grouped.already_partitioned() } else { grouped };
    let windowed = grouped.windowed_by(TimeWindows::of_size_and_grace(Duration::from_secs(60), Duration::ZERO));
    let materialized = Materialized::as_("sums").with_value_serde(serde);
    windowed.aggregate(|| 0, |sum, price| *sum += price, |sum, other| *sum += other, materialized).to("out");
    builder.build().unwrap()
}

fn pipe(driver: &mut TopologyTestDriver, price: i64, timestamp: i64) -> Result<(), DriverError> {
    driver.pipe_input("prices", Some(b"p"), Some(&price.to_be_bytes()), Timestamp(timestamp))
}

fn assert_refused(driver: &mut TopologyTestDriver, outcome: Result<(), DriverError>, reason: &str) {
    let error = outcome.expect_err("it cannot be kept").to_string();
    for part in ["\"p\"", "the window from 60000", "store sums", reason] {
        assert!(error.contains(part), "{part} is missing in: {error}");
    }
    assert_eq!(driver.read_output("out").unwrap().len(), 1, "what had been sent before");
    assert_eq!(driver.read_output("test-sums-changelog").unwrap().len(), 1, "what had been kept before");
}

#[test]
fn an_aggregate_that_its_serializer_makes_null_of_is_refused() {
    for is_keyed in [true, false] {
        let mut driver = sums(NotThirteen, is_keyed);
        pipe(&mut driver, 6, 60_000).unwrap();
        // The part that comes over the repartition topic can be written, the whole cannot.
        let outcome = pipe(&mut driver, 7, 60_001);
        assert_refused(&mut driver, outcome, "makes null of it");
    }
}

#[test]
fn a_part_of_an_aggregate_that_cannot_be_written_is_not_sent() {
    let mut driver = sums(NotThirteen, false);
    pipe(&mut driver, 6, 60_000).unwrap();
    driver.read_output("test-sums-repartition").unwrap();
    let outcome = pipe(&mut driver, 13, 60_001);
    assert_refused(&mut driver, outcome, "makes null of it");
    assert_eq!(driver.read_output("test-sums-repartition").unwrap().len(), 0);
}

/// The mean of nothing is no number: JSON writes null for it, and reads no number from null.
#[test]
fn an_aggregate_that_its_deserializer_refuses_is_refused() {
    let builder = StreamsBuilder::with_serdes(Utf8, Long);
    builder
        .stream("prices")
        .group_by_key()
        .windowed_by(TimeWindows::of_size_and_grace(Duration::from_secs(60), Duration::ZERO))
        .aggregate(
            || 1.0,
            |ratio: &mut f64, price: &i64| *ratio *= *price as f64 / *price as f64,
            |ratio, other| *ratio *= other,
            Materialized::as_("sums").with_value_serde(Json::<f64>::new()),
        )
        .to("out");
    let mut driver = TopologyTestDriver::new(builder.build().unwrap(), Timestamp(0)).unwrap();
    pipe(&mut driver, 5, 60_000).unwrap();
    let outcome = pipe(&mut driver, 0, 60_001);
    assert_refused(&mut driver, outcome, "deserializer refuses");
}

/// Three tasks in one thread, which commits once the clock has moved.
#[test]
fn the_other_tasks_of_its_transaction_go_on() {
    const PARTITIONS: u32 = 3;
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    let broker = Arc::new(MemoryBroker::in_memory(clock.clone()));
    broker.create_topic("prices", &TopicSettings::kept_for_ever(PARTITIONS)).unwrap();
    let registry = Registry::new();
    let parts = Parts {
        broker: broker.clone(),
        topology: topology(NotThirteen, true),
        config: StreamsConfig::new("app"),
        provider: Arc::new(MemoryStores::new()),
        clock: clock.clone(),
        registry: registry.clone(),
        observer: Arc::new(()),
    };
    let mut instance = Instance::new(1, parts);
    let mut run = || {
        for _ in 0..40 {
            instance.step(Duration::ZERO).unwrap();
        }
    };
    run();
    let commit_prices = |run: &mut dyn FnMut(), prices: [i64; 3]| {
        for (partition, price) in (0..PARTITIONS).zip(prices) {
            let key = (0..).map(|n| format!("k{n}")).find(|key| partition_for_key(key.as_bytes(), PARTITIONS).0 == partition);
            let (mut unit, price) = (Unit::new(), price.to_be_bytes());
            let record = Record::new(key.as_deref().map(str::as_bytes), Some(&price), Timestamp(60_000));
            unit.add(&TopicPartition::new("prices", Partition(partition)), &record);
            broker.append(unit).unwrap();
        }
        run();
        clock.advance_ms(1_000);
        run();
        // After the one that was given up.
        clock.advance_ms(1_000);
        run();
    };
    let states = || registry.tasks().iter().map(|task| (task.state, task.committed.map_or(0, |at| at.0))).collect::<Vec<_>>();

    commit_prices(&mut run, [6, 6, 6]);
    assert_eq!(states(), [(TaskState::Running, 1); 3]);
    commit_prices(&mut run, [1, 7, 1]);
    assert_eq!(states(), [(TaskState::Running, 2), (TaskState::Quarantined, 1), (TaskState::Running, 2)]);
    assert!(registry.tasks()[1].trouble.as_ref().unwrap().contains("makes null of it"));
    commit_prices(&mut run, [1, 1, 1]);
    assert_eq!(states(), [(TaskState::Running, 3), (TaskState::Quarantined, 1), (TaskState::Running, 3)]);
    let kept = |partition| {
        let changelog = TopicPartition::new("app-sums-changelog", Partition(partition));
        broker.log_range(&changelog, Isolation::ReadCommitted).unwrap().end.0
    };
    assert_eq!([kept(0), kept(1), kept(2)], [3, 1, 3], "nothing of it was kept");
}
