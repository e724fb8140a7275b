//! Kill -9 at random points, over many rounds: what was acknowledged is there, and nothing is torn.
//!
//! The test runs itself again as a child process that takes units in and counts them in transactions, and says so line by line once
//! each is acknowledged. It is killed, and its log opened and checked, again and again on the same directory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use millstream::broker::group::Candidate;
use millstream::broker::local::Unit;
use millstream::broker::{
    Broker, CommittedOffset, Fence, Fetched, FetchedBatch, Fetcher, Isolation, LogReader, MemberEvent, Membership, TopicSettings,
    TransactionalProducer,
};
use millstream::clock::ManualClock;
use millstream::record::{Offset, Partition, Record, Timestamp, TopicPartition};
use millstream_rocksdb::broker::EmbeddedBroker;
use millstream_rocksdb::memory::MemoryBudget;

const DIR: &str = "MILLSTREAM_TEST_CRASH_DIR";
const ROUNDS: u64 = 25;
const PARTITIONS: u32 = 2;
const GROUP: &str = "count";

#[test]
fn what_was_acknowledged_survives_kill_9() {
    if let Some(dir) = std::env::var_os(DIR) {
        return until_killed(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    for round in 0..ROUNDS {
        // Between 1 and some hundred lines, so that rounds end at all stages: opening, taking in, counting, flushing.
        let lines = 1 + (round * 7919) % 400;
        run_and_kill(dir.path(), lines, &mut acknowledged);
        check(dir.path(), &acknowledged);
    }
    assert!(acknowledged.units.len() > 500 && acknowledged.positions.values().any(|offset| *offset > 500), "little was tried");
}

/// What the child processes have said.
#[derive(Default)]
struct Acknowledged {
    units: BTreeSet<u64>,
    positions: BTreeMap<u32, i64>,
}

fn run_and_kill(dir: &Path, lines: u64, acknowledged: &mut Acknowledged) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "what_was_acknowledged_survives_kill_9", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut left = lines;
    let mut line = String::new();
    while output.read_line(&mut line).unwrap() > 0 {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["unit", number] => {
                acknowledged.units.insert(number.parse().unwrap());
            }
            ["position", partition, offset] => {
                acknowledged.positions.insert(partition.parse().unwrap(), offset.parse().unwrap());
            }
            _ => left += 1,
        }
        left -= 1;
        if left == 0 {
            child.kill().unwrap();
            // What it said before it died counts too.
            left = u64::MAX;
        }
        line.clear();
    }
    assert!(!child.wait().unwrap().success(), "it was killed");
}

fn check(dir: &Path, acknowledged: &Acknowledged) {
    let broker = open(dir);
    let mut parts: BTreeMap<u64, u32> = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let clicks = read(&broker, "clicks", partition);
        let mut seen = BTreeSet::new();
        for (_, number) in &clicks {
            assert!(seen.insert(number), "unit {number} twice in partition {partition}");
            *parts.entry(*number).or_default() += 1;
        }
        let committed = broker.committed(GROUP, &[tp("clicks", partition)]).unwrap().remove(0).map_or(0, |c| c.offset.0);
        assert!(committed >= acknowledged.positions.get(&partition).copied().unwrap_or(0), "an acknowledged position fell");
        let counted: u64 = read(&broker, "counts", partition).iter().map(|(_, count)| count).sum();
        let consumed = clicks.iter().filter(|(offset, _)| *offset < committed).count() as u64;
        assert_eq!(counted, consumed, "counts and position of partition {partition} moved together");
    }
    assert!(parts.values().all(|parts| *parts == PARTITIONS), "no unit is torn");
    assert!(acknowledged.units.iter().all(|number| parts.contains_key(number)), "every acknowledged unit is there");
}

fn read(broker: &EmbeddedBroker, topic: &str, partition: u32) -> Vec<(i64, u64)> {
    let mut reader = broker.reader(&tp(topic, partition), Offset(0)).unwrap();
    let mut numbers = Vec::new();
    while let Some(batch) = reader.read(Duration::ZERO).unwrap() {
        let mut records = Vec::new();
        batch.records(&mut records).unwrap();
        let number = |record: &Record<'_>| u64::from_be_bytes(record.value.unwrap()[..8].try_into().unwrap());
        numbers.extend(records.iter().map(|record| (record.offset.0, number(record))));
    }
    let end = broker.log_range(&tp(topic, partition), Isolation::ReadCommitted).unwrap().end.0;
    assert!(
        numbers.iter().enumerate().all(|(i, (offset, _))| *offset == i as i64) && numbers.len() as i64 == end,
        "without a gap"
    );
    numbers
}

fn tp(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition::new(topic, Partition(partition))
}

fn open(dir: &Path) -> EmbeddedBroker {
    // Little memory, so that memtables are flushed now and then.
    let broker =
        millstream_rocksdb::broker::open(dir, Arc::new(ManualClock::new(Timestamp(0))), &MemoryBudget::new(4 << 20)).unwrap();
    broker.create_topic("clicks", &TopicSettings::kept_for_ever(PARTITIONS)).unwrap();
    broker.create_topic("counts", &TopicSettings::kept_for_ever(PARTITIONS)).unwrap();
    broker
}

/// The child: two threads take units in, this one counts them.
fn until_killed(dir: &Path) {
    let broker = open(dir);
    let next = broker.log_range(&tp("clicks", 0), Isolation::ReadCommitted).unwrap().end.0 as u64 * 2;
    for thread in 0..2 {
        let broker = broker.clone();
        std::thread::spawn(move || take_in(&broker, (next + thread..).step_by(2)));
    }
    count(&broker);
}

fn say(line: &str) {
    // One write, so that a kill leaves whole lines.
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn take_in(broker: &EmbeddedBroker, numbers: impl Iterator<Item = u64>) {
    for number in numbers {
        let mut value = number.to_be_bytes().to_vec();
        value.resize(8 + (number as usize * 977) % 20_000, number as u8);
        let mut unit = Unit::new();
        for partition in 0..PARTITIONS {
            unit.add(&tp("clicks", partition), &Record::new(None, Some(&value), Timestamp(0)));
        }
        unit.set_idempotency_key(&number.to_be_bytes(), b"");
        broker.append(unit).unwrap();
        say(&format!("unit {number}"));
    }
}

fn count(broker: &EmbeddedBroker) {
    let mut member = broker.join(&Candidate::new(GROUP, "member", &["clicks".into()])).unwrap();
    let mut fetcher = broker.fetcher().unwrap();
    let mut producer = broker.producer("count").unwrap();
    let mut proof: Option<Fence> = None;
    loop {
        if let MemberEvent::Assigned { partitions, fence } = member.poll(Duration::ZERO).unwrap() {
            let committed = broker.committed(GROUP, &partitions).unwrap();
            for (partition, committed) in partitions.iter().zip(committed) {
                fetcher.start(partition, committed.map_or(Offset(0), |committed| committed.offset)).unwrap();
            }
            proof = Some(fence);
        }
        match fetcher.poll(Duration::from_secs(1)).unwrap() {
            Fetched::Batch(batch) => count_batch(&batch, &mut producer, proof.as_ref().unwrap()),
            Fetched::Failed(partition, error) => panic!("{partition} failed: {error}"),
            Fetched::Nothing => {}
        }
    }
}

fn count_batch(batch: &impl FetchedBatch, producer: &mut impl TransactionalProducer, proof: &Fence) {
    let mut records = Vec::new();
    batch.records(&mut records).unwrap();
    let to = tp("counts", batch.partition().partition.0);
    producer.begin().unwrap();
    producer.send(&to, &Record::new(None, Some(&(records.len() as u64).to_be_bytes()), Timestamp(0))).unwrap();
    let position = CommittedOffset { offset: batch.next_offset(), metadata: String::new() };
    producer.send_offsets(proof, &[(batch.partition().clone(), position)]).unwrap();
    producer.commit().unwrap();
    say(&format!("position {} {}", batch.partition().partition, batch.next_offset()));
}
