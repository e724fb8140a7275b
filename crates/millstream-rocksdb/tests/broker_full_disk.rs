//! A full disk stops intake, loses nothing, and when there is room again it goes on by itself.
//!
//! The disk is a small tmpfs in a mount namespace of its own: the test runs itself again inside `unshare`, so that nothing stays
//! mounted whatever happens. It needs root, or user namespaces.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use millstream::broker::local::{Appended, Unit};
use millstream::broker::{Broker, ErrorKind, FetchedBatch, LogReader, TopicSettings};
use millstream::clock::ManualClock;
use millstream::record::{Offset, Partition, Record, Timestamp, TopicPartition};
use millstream_rocksdb::broker::EmbeddedBroker;
use millstream_rocksdb::memory::MemoryBudget;

const DISK: &str = "MILLSTREAM_TEST_SMALL_DISK";
const DISK_MIB: usize = 96;

#[test]
fn a_full_disk_stops_intake_and_loses_nothing() {
    if let Some(dir) = std::env::var_os(DISK) {
        let dir = Path::new(&dir);
        // Small memtables: a flush finds no room. Large ones: the write-ahead log finds none.
        on_the_small_disk(&dir.join("flush"), 40, 64 << 20);
        std::fs::remove_dir_all(dir.join("flush")).unwrap();
        on_the_small_disk(&dir.join("wal"), 70, 1 << 30);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let test = std::env::current_exe().unwrap();
    let script = format!("mount -t tmpfs -o size={DISK_MIB}m tmpfs \"${DISK}\" && exec \"$0\" --exact \"$1\" --nocapture");
    let status = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", &script])
        .arg(test)
        .arg("a_full_disk_stops_intake_and_loses_nothing")
        .env(DISK, dir.path())
        .status()
        .expect("unshare (util-linux) runs");
    assert!(status.success(), "in a mount namespace of its own: {status}");
}

fn open(dir: &Path, memory: usize) -> EmbeddedBroker {
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    millstream_rocksdb::broker::open(&dir.join("broker"), clock, &MemoryBudget::new(memory)).unwrap()
}

fn partition() -> TopicPartition {
    TopicPartition::new("clicks", Partition(0))
}

/// A mebibyte that does not compress, told from others by its number.
fn unit(number: u64) -> Unit {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut value = number.to_be_bytes().to_vec();
    while value.len() < 1 << 20 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        value.extend_from_slice(&state.to_be_bytes());
    }
    let mut unit = Unit::new();
    unit.add(&partition(), &Record::new(None, Some(&value), Timestamp(0)));
    unit.set_idempotency_key(&number.to_be_bytes(), b"");
    unit
}

fn numbers(broker: &EmbeddedBroker) -> Vec<u64> {
    let mut reader = broker.reader(&partition(), Offset(0)).unwrap();
    let mut numbers = Vec::new();
    while let Some(batch) = reader.read(Duration::ZERO).unwrap() {
        let mut records = Vec::new();
        batch.records(&mut records).unwrap();
        numbers.extend(records.iter().map(|record| u64::from_be_bytes(record.value.unwrap()[..8].try_into().unwrap())));
    }
    numbers
}

fn on_the_small_disk(dir: &Path, ballast_mib: usize, memory: usize) {
    std::fs::create_dir(dir).unwrap();
    let ballast = dir.join("ballast");
    std::fs::write(&ballast, vec![0; ballast_mib << 20]).unwrap();
    let broker = open(dir, memory);
    broker.create_topic("clicks", &TopicSettings::kept_for_ever(1)).unwrap();
    let mut stored = 0;
    let refused = loop {
        match broker.append(unit(stored)) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < DISK_MIB as u64, "the disk is never full");
    };
    assert_eq!(refused.kind(), ErrorKind::Retry, "{refused}");
    assert!(refused.to_string().contains("room"), "{refused}");
    println!("full after {stored} units: {refused}");
    let everything = |stored| (0..stored).collect::<Vec<u64>>();
    assert_eq!(numbers(&broker), everything(stored), "what was acknowledged is still read");
    for _ in 0..10 {
        assert_eq!(broker.append(unit(stored)).unwrap_err().kind(), ErrorKind::Retry);
    }

    std::fs::remove_file(&ballast).unwrap();
    let since = Instant::now();
    let (_never, wait) = mpsc::channel::<()>();
    loop {
        match broker.append(unit(stored)) {
            Ok(Appended::Stored(_)) => break,
            Ok(Appended::AlreadyStored(_)) => panic!("a refused unit was stored"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Retry, "{error}"),
        }
        assert!(since.elapsed() < Duration::from_secs(60), "it does not go on by itself");
        let _ = wait.recv_timeout(Duration::from_millis(50));
    }
    println!("goes on after {:?}", since.elapsed());
    stored += 1;
    for _ in 0..5 {
        assert!(matches!(broker.append(unit(stored)).unwrap(), Appended::Stored(_)));
        stored += 1;
    }
    assert_eq!(numbers(&broker), everything(stored));
    drop(broker);
    let again = open(dir, memory);
    assert_eq!(numbers(&again), everything(stored), "and after a restart");
    assert_eq!(again.append(unit(0)).unwrap(), Appended::AlreadyStored(Vec::new()), "keys too");
}
