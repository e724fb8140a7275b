//! Damage in the files of the embedded broker.

#![allow(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use millstream::broker::local::Unit;
use millstream::broker::{Broker, ErrorKind, FetchedBatch, LogReader, TopicSettings};
use millstream::clock::ManualClock;
use millstream::record::{Offset, Partition, Record, Timestamp, TopicPartition};
use millstream_rocksdb::broker::{self, EmbeddedBroker};
use millstream_rocksdb::memory::MemoryBudget;

const TOPIC: &str = "clicks";

fn open(dir: &Path) -> Result<EmbeddedBroker, millstream::broker::BrokerError> {
    broker::open(dir, Arc::new(ManualClock::new(Timestamp(0))), &MemoryBudget::new(16 << 20))
}

fn partition() -> TopicPartition {
    TopicPartition::new(TOPIC, Partition(0))
}

/// A log of so many records, one unit each, none of them flushed.
fn build(dir: &Path, records: u64) {
    let broker = open(dir).unwrap();
    broker.create_topic(TOPIC, &TopicSettings::kept_for_ever(1)).unwrap();
    for number in 0..records {
        let mut unit = Unit::new();
        unit.add(&partition(), &Record::new(None, Some(&number.to_be_bytes()), Timestamp(1)));
        broker.append(unit).unwrap();
    }
}

fn records_in(broker: &EmbeddedBroker) -> usize {
    let mut reader = broker.reader(&partition(), Offset::ZERO).unwrap();
    let mut found = 0;
    while let Some(batch) = reader.read(Duration::ZERO).unwrap() {
        let mut records = Vec::new();
        batch.records(&mut records).unwrap();
        found += records.len();
    }
    found
}

fn file_like(dir: &Path, part: &str) -> PathBuf {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.to_string_lossy().contains(part) && file.metadata().unwrap().len() > 0);
    files.pop().expect(part)
}

/// Gives a record of a file, counted from its end, another type.
fn retype(file: &Path, from_the_end: usize, kind: u8) {
    let mut bytes = std::fs::read(file).unwrap();
    let mut starts = vec![0];
    while let Some(header) = bytes.get(starts[starts.len() - 1]..).and_then(|rest| rest.first_chunk::<7>()) {
        starts.push(starts[starts.len() - 1] + 7 + usize::from(u16::from_le_bytes([header[4], header[5]])));
    }
    bytes[starts[starts.len() - 2 - from_the_end] + 6] = kind;
    std::fs::write(file, bytes).unwrap();
}

/// RocksDB would read the types of log files that are used again for ever.
#[test]
fn a_torn_tail_of_a_wrong_type_ends_the_log_there() {
    for kind in [5, 6, 7, 8, 11, 131] {
        let dir = tempfile::tempdir().unwrap();
        build(dir.path(), 5);
        retype(&file_like(dir.path(), ".log"), 1, kind);
        assert_eq!(records_in(&open(dir.path()).unwrap()), 3, "{kind}");
    }
}

#[test]
fn a_manifest_with_a_record_of_a_wrong_type_is_refused() {
    for kind in [5, 6, 7, 8, 11, 131] {
        let dir = tempfile::tempdir().unwrap();
        build(dir.path(), 5);
        // Opened again, it has flushed its log.
        drop(open(dir.path()).unwrap());
        retype(&file_like(dir.path(), "MANIFEST"), 1, kind);
        let refused = open(dir.path()).expect_err("damaged");
        assert_eq!(refused.kind(), ErrorKind::Stop);
        assert!(refused.to_string().contains("backup"), "{refused}");
    }
}
