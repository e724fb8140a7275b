//! A position that was set from outside: counted is what comes from there on, or nothing where counts are there already.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millstream::broker::local::{MemoryBroker, Unit};
use millstream::broker::{
    Broker, CommittedOffset, Consumer, FetchedBatch, LogReader, Polled, TopicSettings, TransactionalProducer,
};
use millstream::clock::ManualClock;
use millstream::record::{Offset, Partition, Record, Timestamp, TopicPartition};
use millstream::runtime::{Parts, Registry, StreamThread, StreamsConfig};
use millstream::serdes::{Bytes, Utf8, WindowedKey};
use millstream::store::memory::MemoryStores;
use millstream::task::metadata::OffsetMetadata;
use millstream::time::TimeWindows;
use millstream::topology::{Materialized, StreamsBuilder, Topology};

const WORDS: &str = "words";
const PARTITIONS: u32 = 3;

fn topology() -> Topology {
    let builder = StreamsBuilder::with_serdes(Bytes, Utf8);
    let windows = TimeWindows::of_size_with_no_grace(Duration::from_millis(10));
    let counts = Materialized::as_("counts").with_retention(Duration::from_secs(1));
    builder.stream(WORDS).group_by(|_, word| *word).windowed_by(windows).count(counts);
    builder.build().expect("it can work")
}

fn run(broker: &Arc<MemoryBroker>, clock: &Arc<ManualClock>) -> Result<(), String> {
    let parts = Parts {
        broker: broker.clone(),
        topology: topology(),
        config: StreamsConfig { commit_interval: Duration::ZERO, ..StreamsConfig::new("app") },
        provider: Arc::new(MemoryStores::new()),
        clock: clock.clone(),
        registry: Registry::new(),
        observer: Arc::new(()),
    };
    let mut thread = StreamThread::new(0, parts);
    for _ in 0..200 {
        thread.step(Duration::ZERO).map_err(|error| error.to_string())?;
    }
    thread.close().map_err(|error| error.to_string())
}

fn broker() -> (Arc<MemoryBroker>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    let broker = Arc::new(MemoryBroker::in_memory(clock.clone()));
    broker.create_topic(WORDS, &TopicSettings::kept_for_ever(PARTITIONS)).expect("it is new");
    (broker, clock)
}

/// Ten words a partition, all of one window.
fn write_words(broker: &MemoryBroker) {
    for partition in 0..PARTITIONS {
        for number in 0..10 {
            let word = format!("word-{}", number % 2);
            let mut unit = Unit::new();
            let to = TopicPartition::new(WORDS, Partition(partition));
            unit.add(&to, &Record::new(None, Some(word.as_bytes()), Timestamp(number)));
            broker.append(unit).expect("there is room");
        }
    }
}

/// Commits a position for every partition of a topic, as a member of the group that then leaves.
fn set_positions(broker: &MemoryBroker, topic: &str, offset: i64, metadata: &str) {
    let mut member = broker.subscribe("app", "member", &[topic.into()]).expect("joined");
    let Polled::Assigned { partitions, group } = member.poll(Duration::ZERO).expect("told") else { panic!("assigned") };
    let position = |partition| (partition, CommittedOffset { offset: Offset(offset), metadata: metadata.to_owned() });
    let positions: Vec<_> = partitions.into_iter().map(position).collect();
    let mut producer = broker.producer("outside").expect("it is given");
    producer.begin().expect("begun");
    producer.send_offsets(&group, &positions).expect("sent");
    producer.commit().expect("committed");
    member.leave().expect("left");
}

/// The last count of every word.
fn counts(broker: &MemoryBroker) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let changelog = TopicPartition::new("app-counts-changelog", Partition(partition));
        let mut reader = broker.reader(&changelog, Offset::ZERO).expect("it is there");
        while let Some(batch) = reader.read(Duration::ZERO).expect("it is read") {
            let mut records = Vec::new();
            batch.records(&mut records).expect("it is whole");
            for record in records {
                let key = WindowedKey::decode_from_changelog(record.key.expect("a key")).expect("a windowed key");
                let word = String::from_utf8(key.key.to_vec()).expect("a word");
                counts.insert(word, i64::from_be_bytes(record.value.expect("a count").try_into().expect("eight bytes")));
            }
        }
    }
    counts
}

fn each(count: i64) -> BTreeMap<String, i64> {
    [("word-0".to_owned(), count), ("word-1".to_owned(), count)].into()
}

#[test]
fn counting_begins_where_the_position_is() {
    let (broker, clock) = broker();
    write_words(&broker);
    set_positions(&broker, WORDS, 6, "");
    run(&broker, &clock).expect("it starts");
    assert_eq!(counts(&broker), each(2 * i64::from(PARTITIONS)));
    run(&broker, &clock).expect("it goes on");
    assert_eq!(counts(&broker), each(2 * i64::from(PARTITIONS)), "nothing is counted twice");
}

/// Kafka Streams' positions on both topics: a window may not be closed before all sources have said so.
#[test]
fn every_source_is_waited_for_where_others_have_counted() {
    let (broker, clock) = broker();
    broker.create_topic("app-counts-repartition", &TopicSettings::purged(PARTITIONS)).expect("it is new");
    let theirs = |stream_time| OffsetMetadata { stream_time, ..OffsetMetadata::default() }.encode();
    set_positions(&broker, WORDS, 0, &theirs(Some(Timestamp(0))));
    set_positions(&broker, "app-counts-repartition", 0, &theirs(None));
    // One partition is far ahead of the others.
    let mut unit = Unit::new();
    unit.add(&TopicPartition::new(WORDS, Partition(0)), &Record::new(None, Some(b"word-0"), Timestamp(5_000)));
    broker.append(unit).expect("there is room");
    run(&broker, &clock).expect("it starts");
    let behind = TopicPartition::new(WORDS, Partition(1));
    let mut unit = Unit::new();
    unit.add(&behind, &Record::new(None, Some(b"word-1"), Timestamp(5)));
    broker.append(unit).expect("there is room");
    run(&broker, &clock).expect("the window is still open");
    assert_eq!(counts(&broker), each(1));
}

#[test]
fn a_position_set_beside_counts_is_refused() {
    let (broker, clock) = broker();
    write_words(&broker);
    run(&broker, &clock).expect("it starts");
    assert_eq!(counts(&broker), each(5 * i64::from(PARTITIONS)));
    set_positions(&broker, WORDS, 3, "");
    let refused = run(&broker, &clock).expect_err("it would count twice");
    assert!(refused.contains("set from outside") && refused.contains("clickmill reset"), "{refused}");
    assert_eq!(counts(&broker), each(5 * i64::from(PARTITIONS)));
}
