//! The embedded broker on a real disk.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../millstream/tests/broker_contract/mod.rs"]
mod broker_contract;

use std::path::Path;
use std::sync::Arc;

use millstream::broker::{Broker, ErrorKind};
use millstream::clock::ManualClock;
use millstream::record::Timestamp;
use millstream_rocksdb::broker::EmbeddedBroker;
use millstream_rocksdb::memory::MemoryBudget;

fn open(dir: &Path) -> EmbeddedBroker {
    millstream_rocksdb::broker::open(dir, Arc::new(ManualClock::new(Timestamp(0))), &MemoryBudget::new(64 << 20)).unwrap()
}

#[test]
fn keeps_the_contract_of_every_broker() {
    let dir = tempfile::tempdir().unwrap();
    broker_contract::contract(&open(dir.path()));
}

#[test]
fn a_second_opening_of_the_same_directory_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    let error = millstream_rocksdb::broker::open(dir.path(), clock, &MemoryBudget::new(64 << 20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stop);
    let message = error.to_string();
    assert!(message.contains(&dir.path().display().to_string()) && message.contains("another process"), "{message}");
    let id = first.cluster_id().unwrap();
    drop(first);
    assert_eq!(open(dir.path()).cluster_id().unwrap(), id, "the identity stays");
}
