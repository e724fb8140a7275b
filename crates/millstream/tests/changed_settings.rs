//! What was counted with cannot change: not even where the local state is gone.

use std::sync::Arc;
use std::time::Duration;

use millstream::broker::local::{MemoryBroker, Unit};
use millstream::broker::{Broker, TopicSettings};
use millstream::clock::ManualClock;
use millstream::record::{Partition, Record, Timestamp, TopicPartition};
use millstream::runtime::{Instance, Parts, Registry, StreamsConfig};
use millstream::serdes::{Bytes, Utf8};
use millstream::store::memory::MemoryStores;
use millstream::time::TimeWindows;
use millstream::topology::{Materialized, StreamsBuilder, Topology};

fn topology(size: u64, keyed: bool) -> Topology {
    let builder = StreamsBuilder::with_serdes(Bytes, Utf8);
    let grouped = builder.stream("words").group_by(|_, word| *word);
    let grouped = if keyed { grouped.already_partitioned() } else { grouped };
    let windows = TimeWindows::of_size_with_no_grace(Duration::from_millis(size));
    grouped.windowed_by(windows).count(Materialized::as_("counts").with_retention(Duration::from_secs(1)));
    builder.build().expect("it can work")
}

/// Runs a thread on stores of its own: what it knows of earlier runs is what the broker knows.
fn run(broker: &Arc<MemoryBroker>, clock: &Arc<ManualClock>, topology: Topology) -> Result<(), String> {
    let parts = Parts {
        broker: broker.clone(),
        topology,
        config: StreamsConfig { commit_interval: Duration::ZERO, ..StreamsConfig::new("app") },
        provider: Arc::new(MemoryStores::new()),
        clock: clock.clone(),
        registry: Registry::new(),
        observer: Arc::new(()),
    };
    let mut instance = Instance::new(1, parts);
    for _ in 0..20 {
        instance.step(Duration::ZERO).map_err(|error| error.to_string())?;
    }
    instance.close().map_err(|error| error.to_string())
}

#[test]
fn another_window_size_or_keying_is_refused_with_both_values() {
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    let broker = Arc::new(MemoryBroker::in_memory(clock.clone()));
    broker.create_topic("words", &TopicSettings::kept_for_ever(1)).expect("it is new");
    let mut unit = Unit::new();
    unit.add(&TopicPartition::new("words", Partition(0)), &Record::new(Some(b"w"), Some(b"w"), Timestamp(5)));
    broker.append(unit).expect("there is room");

    run(&broker, &clock, topology(10, false)).expect("it is the first");
    let size = run(&broker, &clock, topology(20, false)).expect_err("the size is another");
    assert!(size.contains("10 ms") && size.contains("20 ms") && size.contains("counts"), "{size}");
    let keyed = run(&broker, &clock, topology(10, true)).expect_err("the keying is another");
    assert!(keyed.contains("keyed"), "{keyed}");
    run(&broker, &clock, topology(10, false)).expect("it is as it was");
}
