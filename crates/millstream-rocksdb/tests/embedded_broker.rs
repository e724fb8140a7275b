//! The embedded broker on a real disk.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../millstream/tests/broker_contract/mod.rs"]
mod broker_contract;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use millstream::broker::local::Unit;
use millstream::broker::{Broker, ErrorKind, FetchedBatch, Isolation, LogReader, TopicSettings};
use millstream::clock::ManualClock;
use millstream::record::{Offset, Partition, Record, Timestamp, TopicPartition};
use millstream_rocksdb::broker::{EmbeddedBroker, is_new};
use millstream_rocksdb::memory::MemoryBudget;

fn open(dir: &Path) -> EmbeddedBroker {
    millstream_rocksdb::broker::open(dir, Arc::new(ManualClock::new(Timestamp(0))), &MemoryBudget::new(64 << 20)).unwrap()
}

#[test]
fn keeps_the_contract_of_every_broker() {
    let dir = tempfile::tempdir().unwrap();
    broker_contract::contract(&open(dir.path()), broker_contract::Place::InProcess);
}

const SECOND: &str = "MILLSTREAM_TEST_SECOND_PROCESS_DIR";

#[test]
fn a_second_process_on_the_same_directory_is_refused_by_name() {
    if let Some(dir) = std::env::var_os(SECOND) {
        return refused(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    refused(dir.path());
    let second = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_second_process_on_the_same_directory_is_refused_by_name"])
        .env(SECOND, dir.path())
        .status()
        .unwrap();
    assert!(second.success(), "the second process was refused as it should be");
    let id = first.cluster_id().unwrap();
    drop(first);
    assert_eq!(open(dir.path()).cluster_id().unwrap(), id, "the identity stays");
}

fn refused(dir: &Path) {
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    let error = millstream_rocksdb::broker::open(dir, clock, &MemoryBudget::new(64 << 20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stop);
    let message = error.to_string();
    assert!(message.contains(&dir.display().to_string()) && message.contains("another process"), "{message}");
}

fn tp(partition: u32) -> TopicPartition {
    TopicPartition::new("clicks", Partition(partition))
}

/// A unit of one record of random bytes for each of four partitions.
fn unit(number: u64, length: usize) -> Unit {
    let mut state = number | 1 << 60;
    let mut unit = Unit::new();
    for partition in 0..4 {
        let mut value = number.to_be_bytes().to_vec();
        while value.len() < length {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            value.extend_from_slice(&state.to_be_bytes());
        }
        unit.add(&tp(partition), &Record::new(None, Some(&value), Timestamp(0)));
    }
    unit
}

fn numbers(broker: &EmbeddedBroker, partition: u32) -> Vec<u64> {
    let start = broker.log_range(&tp(partition), Isolation::ReadCommitted).unwrap().start;
    let mut reader = broker.reader(&tp(partition), start).unwrap();
    let mut numbers = Vec::new();
    while let Some(batch) = reader.read(Duration::ZERO).unwrap() {
        let mut records = Vec::new();
        batch.records(&mut records).unwrap();
        numbers.extend(records.iter().map(|record| u64::from_be_bytes(record.value.unwrap()[..8].try_into().unwrap())));
    }
    numbers
}

/// A file may go while they are counted.
fn bytes_in(dir: &Path) -> u64 {
    std::fs::read_dir(dir).unwrap().filter_map(|entry| Some(entry.unwrap().metadata().ok()?.len())).sum()
}

#[test]
fn the_room_of_deleted_records_is_given_back() {
    const UNIT_BYTES: usize = 256 << 10;
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    broker.create_topic("clicks", &TopicSettings::kept_for_ever(4)).unwrap();
    let mut largest = 0;
    for number in 0..300 {
        broker.append(unit(number, UNIT_BYTES)).unwrap();
        for partition in 0..4 {
            broker.delete_records(&tp(partition), Offset(number as i64 - 10)).unwrap();
        }
        broker.maintain().unwrap();
        largest = largest.max(broker.storage().file_bytes());
    }
    println!("300 MiB written, {} MiB at most on the disk, {} MiB left", largest >> 20, bytes_in(dir.path()) >> 20);
    assert!((1 << 20..250 << 20).contains(&largest), "{} MiB", largest >> 20);
    assert_eq!(numbers(&broker, 3), (289..300).collect::<Vec<_>>());
}

/// A power loss may cut off what was being written: the log ends before it, and everything before that is there.
#[test]
fn a_torn_tail_ends_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    broker.create_topic("clicks", &TopicSettings::kept_for_ever(4)).unwrap();
    for number in 0..20 {
        broker.append(unit(number, 1000)).unwrap();
    }
    drop(broker);
    let is_wal = |path: &Path| path.extension().is_some_and(|extension| extension == "log");
    let paths = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let wal = paths.filter(|path| is_wal(path)).max().unwrap();
    let whole = std::fs::read(&wal).unwrap();
    // The cut-off end is missing, or there as zeros: file systems leave either.
    for (cut, zeros) in [1, 100, 3000, 5000, 30_000].into_iter().flat_map(|cut| [(cut, false), (cut, true)]) {
        let copy = tempfile::tempdir().unwrap();
        for path in std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()) {
            std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
        let mut torn = whole[..whole.len() - cut].to_vec();
        if zeros {
            torn.resize(whole.len(), 0);
        }
        std::fs::write(copy.path().join(wal.file_name().unwrap()), torn).unwrap();
        let broker = open(copy.path());
        let left = numbers(&broker, 0);
        assert_eq!(left, (0..left.len() as u64).collect::<Vec<_>>());
        assert!((0..4).all(|partition| numbers(&broker, partition) == left), "no unit is torn");
        let lost = 20 - left.len();
        // The last bytes may have been zeros anyway.
        let least = if zeros && cut < 100 { 0 } else { 1 };
        assert!((least..=1 + cut / 4000).contains(&lost), "{lost} units lost with the last {cut} bytes");
    }
}

#[test]
fn a_log_that_has_lost_files_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    assert!(is_new(dir.path()) && is_new(&dir.path().join("none")));
    let broker = open(dir.path());
    broker.create_topic("clicks", &TopicSettings::kept_for_ever(4)).unwrap();
    broker.append(unit(7, 100)).unwrap();
    drop(broker);
    let (current, away) = (dir.path().join("CURRENT"), dir.path().join("away"));
    std::fs::rename(&current, &away).unwrap();
    assert!(!is_new(dir.path()));
    for _ in 0..2 {
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let error = millstream_rocksdb::broker::open(dir.path(), clock, &MemoryBudget::new(64 << 20)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stop);
        let message = error.to_string();
        assert!(message.contains(&dir.path().display().to_string()), "{message}");
        assert!(message.contains("CURRENT is missing") && message.contains("from a backup"), "{message}");
    }
    std::fs::rename(&away, &current).unwrap();
    assert_eq!(numbers(&open(dir.path()), 3), [7]);
}

/// A first start that was killed before the log was whole.
#[test]
fn a_log_that_was_never_finished_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    for entry in std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if name == "CURRENT" || name.ends_with(".log") || name.ends_with(".sst") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    assert!(is_new(dir.path()));
    open(dir.path()).create_topic("clicks", &TopicSettings::kept_for_ever(4)).unwrap();
}
