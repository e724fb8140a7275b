//! Retention and compaction of the broker in one process, against what they promise.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millstream::broker::group::Candidate;
use millstream::broker::local::{LocalBroker, MemoryBroker, MemoryLog, Unit};
use millstream::broker::{
    Broker, CommittedOffset, Fence, FetchedBatch, Isolation, LogReader, MemberEvent, Membership, TopicSettings,
    TransactionalProducer,
};
use millstream::clock::ManualClock;
use millstream::record::{Offset, Partition, Record, Timestamp, TopicPartition};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// A hundred and twenty-eight of these fill a segment.
const VALUE_BYTES: usize = 64 << 10;

fn log() -> TopicPartition {
    TopicPartition::new("log", Partition(0))
}

fn broker(settings: &TopicSettings) -> (MemoryBroker, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    let broker = MemoryBroker::in_memory(clock.clone());
    broker.create_topic("log", settings).unwrap();
    (broker, clock)
}

/// Appends records of one unit; a value is a number, made long.
fn append(broker: &MemoryBroker, records: &[(&[u8], Option<u64>, i64)]) {
    let mut unit = Unit::new();
    for (key, value, timestamp) in records {
        let value = value.map(|number| {
            let mut value = number.to_be_bytes().to_vec();
            value.resize(VALUE_BYTES, 0);
            value
        });
        unit.add(&log(), &Record::new(Some(key), value.as_deref(), Timestamp(*timestamp)));
    }
    broker.append(unit).unwrap();
}

type Stored = BTreeMap<i64, (Vec<u8>, Option<u64>)>;

fn stored(broker: &MemoryBroker) -> Stored {
    let range = broker.log_range(&log(), Isolation::ReadCommitted).unwrap();
    let mut reader = broker.reader(&log(), range.start).unwrap();
    let mut stored = BTreeMap::new();
    while let Some(batch) = reader.read(Duration::ZERO).unwrap() {
        let mut records = Vec::new();
        batch.records(&mut records).unwrap();
        for record in records {
            let value = record.value.map(|value| u64::from_be_bytes(value[..8].try_into().unwrap()));
            assert!(stored.insert(record.offset.0, (record.key.unwrap().to_vec(), value)).is_none());
        }
    }
    assert_eq!(reader.position(), range.end);
    stored
}

fn maintain_to_the_end(broker: &MemoryBroker) {
    for _ in 0..1000 {
        if !broker.maintain().unwrap() {
            return;
        }
    }
    panic!("maintenance never ends");
}

/// The last record of each key.
fn latest(stored: &Stored) -> BTreeMap<Vec<u8>, (i64, Option<u64>)> {
    stored.iter().map(|(offset, (key, value))| (key.clone(), (*offset, *value))).collect()
}

#[test]
fn compaction_keeps_the_last_record_of_each_key() {
    for seed in 1..4_u64 {
        let storage = MemoryLog::new();
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let broker = LocalBroker::open(storage.clone(), clock.clone(), "cluster").unwrap();
        broker.create_topic("log", &TopicSettings::compacted(1)).unwrap();
        let mut random = seed;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let mut written = Stored::new();
        let mut start = 0;
        for number in 0..700 {
            let (key, value) = (draw(20).to_be_bytes(), (draw(10) > 0).then_some(number));
            append(&broker, &[(&key, value, 0)]);
            written.insert(number as i64, (key.to_vec(), value));
            if draw(4) == 0 {
                broker.maintain().unwrap();
            }
            if draw(100) == 0 {
                start += draw(50) as i64;
                broker.delete_records(&log(), Offset(start)).unwrap();
                start = start.min(written.len() as i64);
            }
        }
        maintain_to_the_end(&broker);
        let expected: Stored = written.range(start..).map(|(offset, record)| (*offset, record.clone())).collect();
        let kept = stored(&broker);
        assert!(kept.iter().all(|(offset, record)| expected.get(offset) == Some(record)), "nothing is made up");
        let latest_kept = latest(&kept);
        for (key, last) in latest(&expected) {
            assert_eq!(latest_kept.get(&key), Some(&last), "seed {seed}: the last record of a key, tombstones too");
        }
        // Of 700 records all but the latest two segments or so are cleaned.
        assert!(kept.len() < 20 + 3 * 128, "seed {seed}: {} records are left", kept.len());

        drop(broker);
        let again = LocalBroker::open(storage, clock, "cluster").unwrap();
        assert_eq!(stored(&again), kept, "after a restart");
    }
}

#[test]
fn a_tombstone_goes_a_day_after_it_was_first_cleaned() {
    let (broker, clock) = broker(&TopicSettings::compacted(1));
    let fill = |key: &[u8]| (0..200).for_each(|number| append(&broker, &[(key, Some(number), 0)]));
    append(&broker, &[(b"gone", Some(1), 0)]);
    append(&broker, &[(b"gone", None, 0)]);
    let is_there = || stored(&broker).values().any(|(key, _)| key == b"gone");
    fill(b"a");
    maintain_to_the_end(&broker);
    assert_eq!(stored(&broker).values().filter(|(key, _)| key == b"gone").collect::<Vec<_>>(), [&(b"gone".to_vec(), None)]);
    clock.set(Timestamp(DAY_MS - 1));
    fill(b"b");
    maintain_to_the_end(&broker);
    assert!(is_there(), "not before a day has passed");
    clock.set(Timestamp(DAY_MS));
    fill(b"c");
    maintain_to_the_end(&broker);
    assert!(!is_there());
}

#[test]
fn keys_that_do_not_repeat_are_all_kept() {
    let (broker, _) = broker(&TopicSettings::compacted(1));
    for number in 0..300_u64 {
        append(&broker, &[(&number.to_be_bytes(), Some(number), 0)]);
    }
    maintain_to_the_end(&broker);
    assert_eq!(stored(&broker).len(), 300);
}

#[test]
fn retention_by_time_drops_what_is_old_and_consumed() {
    let retention = Some(Duration::from_millis(1000));
    let (broker, clock) = broker(&TopicSettings { retention, ..TopicSettings::kept_for_ever(1) });
    let (_member, fence) = member(&broker, "group");
    for number in 0..300_u64 {
        append(&broker, &[(b"k", Some(number), number as i64)]);
    }
    clock.set(Timestamp(1_000_000));
    maintain_to_the_end(&broker);
    assert_eq!(stored(&broker).len(), 300, "nothing that the group has still to read");

    commit(&broker, &fence, 200);
    clock.set(Timestamp(1100));
    maintain_to_the_end(&broker);
    assert_eq!(stored(&broker).len(), 300, "the first segment holds records that are not old yet");
    clock.set(Timestamp(1200));
    maintain_to_the_end(&broker);
    let first = *stored(&broker).keys().next().unwrap();
    assert!((100..=140).contains(&first), "a segment went: {first}");
    clock.set(Timestamp(1_000_000));
    maintain_to_the_end(&broker);
    assert_eq!(stored(&broker).keys().next(), Some(&200), "up to what is consumed");
}

#[test]
fn retention_by_size_drops_whole_segments() {
    let limit = 10 << 20;
    let (broker, _) = broker(&TopicSettings { retention_bytes: Some(limit), ..TopicSettings::kept_for_ever(1) });
    for number in 0..600_u64 {
        append(&broker, &[(b"k", Some(number), 0)]);
    }
    maintain_to_the_end(&broker);
    let left = stored(&broker);
    assert!(left.contains_key(&599));
    let bytes = left.len() * VALUE_BYTES;
    assert!(bytes <= limit as usize + (1 << 20) && bytes > 1 << 20, "{bytes}");
}

/// The only member of a group.
fn member(broker: &MemoryBroker, group: &str) -> (<MemoryBroker as Broker>::Membership, Fence) {
    let mut member = broker.join(&Candidate::new(group, "member", &["log".into()])).unwrap();
    let MemberEvent::Assigned { fence, .. } = member.poll(Duration::ZERO).unwrap() else { panic!("assigned") };
    (member, fence)
}

fn commit(broker: &MemoryBroker, fence: &Fence, offset: i64) {
    let mut producer = broker.producer("p").unwrap();
    producer.begin().unwrap();
    let offset = CommittedOffset { offset: Offset(offset), metadata: String::new() };
    producer.send_offsets(fence, &[(log(), offset)]).unwrap();
    producer.commit().unwrap();
}

#[test]
fn a_group_that_nobody_runs_holds_nothing_back_while_another_runs() {
    let retention = Some(Duration::from_millis(1));
    let (broker, clock) = broker(&TopicSettings { retention, ..TopicSettings::kept_for_ever(1) });
    (0..300).for_each(|number| append(&broker, &[(b"k", Some(number), 0)]));
    let first = |broker: &MemoryBroker| {
        maintain_to_the_end(broker);
        stored(broker).keys().next().copied()
    };
    let (mut slow, fence) = member(&broker, "slow");
    clock.set(Timestamp(1_000));
    assert_eq!(first(&broker), Some(0), "it has committed nothing");
    commit(&broker, &fence, 100);
    slow.leave().unwrap();
    assert_eq!(first(&broker), Some(100), "nobody runs, and it may come back");

    let (_fast, fence) = member(&broker, "fast");
    assert_eq!(first(&broker), Some(100), "it has committed nothing");
    commit(&broker, &fence, 250);
    assert_eq!(first(&broker), Some(250), "only the group that runs counts");
}

#[test]
fn retention_that_is_changed_is_stored() {
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    let storage = MemoryLog::default();
    let open = || LocalBroker::open(storage.clone(), clock.clone(), "id").unwrap();
    let before = open();
    before.create_topic("log", &TopicSettings::kept_for_ever(1)).unwrap();
    (0..300).for_each(|number| append(&before, &[(b"k", Some(number), 0)]));
    clock.set(Timestamp(1_000));
    maintain_to_the_end(&before);
    assert_eq!(stored(&before).len(), 300);
    before.set_retention("log", Some(Duration::from_millis(1)), None).unwrap();
    assert!(before.set_retention("no such topic", None, None).is_err());

    let after = open();
    maintain_to_the_end(&after);
    assert!(stored(&after).is_empty(), "{}", stored(&after).len());
}
