//! Draining counts what lies on the repartition topic, reads nothing new, and empties it.

use std::sync::Arc;
use std::time::Duration;

use millstream::broker::local::{MemoryBroker, Unit};
use millstream::broker::{Broker, FetchedBatch, Isolation, LogReader, TopicSettings};
use millstream::clock::ManualClock;
use millstream::record::{Offset, Partition, Record, Timestamp, TopicPartition};
use millstream::runtime::{Instance, Parts, Registry, StreamsConfig};
use millstream::serdes::{Bytes, Utf8, WindowedKey};
use millstream::store::memory::MemoryStores;
use millstream::time::TimeWindows;
use millstream::topology::{Materialized, StreamsBuilder, Topology};

const WORDS: &str = "words";
const REPARTITION: &str = "app-counts-repartition";

fn topology() -> Topology {
    let builder = StreamsBuilder::with_serdes(Bytes, Utf8);
    let windows = TimeWindows::of_size_with_no_grace(Duration::from_millis(10));
    let counts = Materialized::as_("counts").with_retention(Duration::from_secs(1));
    builder.stream(WORDS).group_by(|_, word| *word).windowed_by(windows).count(counts);
    builder.build().expect("it can work")
}

fn instance(broker: &Arc<MemoryBroker>, clock: &Arc<ManualClock>, id: &str, drain: bool) -> Instance<MemoryBroker> {
    let parts = Parts {
        broker: broker.clone(),
        topology: topology(),
        config: StreamsConfig { commit_interval: Duration::ZERO, drain, instance_id: id.to_owned(), ..StreamsConfig::new("app") },
        provider: Arc::new(MemoryStores::new()),
        clock: clock.clone(),
        registry: Registry::new(),
        observer: Arc::new(()),
    };
    Instance::new(1, parts)
}

fn partition(topic: &str) -> TopicPartition {
    TopicPartition::new(topic, Partition(0))
}

fn write(broker: &MemoryBroker, word: &str, time: i64) {
    let mut unit = Unit::new();
    unit.add(&partition(WORDS), &Record::new(None, Some(word.as_bytes()), Timestamp(time)));
    broker.append(unit).expect("there is room");
}

/// The sum of the last counts of every word and window.
fn counted(broker: &MemoryBroker) -> i64 {
    let mut reader = broker.reader(&partition("app-counts-changelog"), Offset::ZERO).expect("it is there");
    let mut counts = std::collections::BTreeMap::new();
    while let Some(batch) = reader.read(Duration::ZERO).expect("it is read") {
        let mut records = Vec::new();
        batch.records(&mut records).expect("it is whole");
        for record in records {
            let key = WindowedKey::decode_from_changelog(record.key.expect("a key")).expect("a windowed key");
            let count = i64::from_be_bytes(record.value.expect("a count").try_into().expect("eight bytes"));
            counts.insert((key.key.to_vec(), key.start), count);
        }
    }
    counts.values().sum()
}

fn committed(broker: &MemoryBroker, topic: &str) -> Option<Offset> {
    let committed = broker.committed("app", &[partition(topic)]).expect("it is told");
    committed[0].as_ref().map(|committed| committed.offset)
}

/// Stops as a crash does once the repartition topic holds what is not counted.
fn leave_uncounted_behind(broker: &Arc<MemoryBroker>, clock: &Arc<ManualClock>) {
    let mut instance = instance(broker, clock, "0", false);
    for _ in 0..20 {
        instance.step(Duration::ZERO).expect("it runs");
    }
    for (word, time) in [("a", 1), ("b", 2), ("a", 3)] {
        write(broker, word, time);
    }
    let uncounted = || {
        let end = broker.log_range(&partition(REPARTITION), Isolation::ReadCommitted).expect("it is there").end;
        committed(broker, WORDS) == Some(Offset(3)) && committed(broker, REPARTITION) < Some(end)
    };
    for _ in 0..20 {
        if uncounted() {
            return;
        }
        instance.step(Duration::ZERO).expect("it runs");
    }
    panic!("the shuffle never held anything");
}

#[test]
fn what_was_shuffled_is_counted_and_the_topic_emptied_while_nothing_new_is_read() {
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    let broker = Arc::new(MemoryBroker::in_memory(clock.clone()));
    broker.create_topic(WORDS, &TopicSettings::kept_for_ever(1)).expect("it is new");
    leave_uncounted_behind(&broker, &clock);
    write(&broker, "c", 4);

    let mut instance = instance(&broker, &clock, "1", true);
    assert_eq!(instance.draining().expect("it is told").running, 0, "nothing runs before the first step");
    let mut steps = 0;
    while !instance.draining().expect("it is told").is_complete() {
        instance.step(Duration::ZERO).expect("it runs");
        steps += 1;
        assert!(steps < 100, "{:?}", instance.draining());
    }
    let emptied = instance.finish_draining().expect("it is complete");
    let range = broker.log_range(&partition(REPARTITION), Isolation::ReadUncommitted).expect("it is there");
    assert_eq!(emptied, [(partition(REPARTITION), range.end)]);
    assert_eq!(range.start, range.end, "it is empty");
    assert_eq!(counted(&broker), 3);
    assert_eq!(committed(&broker, WORDS), Some(Offset(3)), "the word that came since was not read");
    assert_eq!(committed(&broker, REPARTITION), Some(range.end));
}

#[test]
fn what_is_not_counted_is_not_deleted() {
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    let broker = Arc::new(MemoryBroker::in_memory(clock.clone()));
    broker.create_topic(WORDS, &TopicSettings::kept_for_ever(1)).expect("it is new");
    leave_uncounted_behind(&broker, &clock);
    let instance = instance(&broker, &clock, "1", true);
    let refused = instance.finish_draining().expect_err("it has not begun").to_string();
    assert!(refused.contains("not counted to their end"), "{refused}");
}
