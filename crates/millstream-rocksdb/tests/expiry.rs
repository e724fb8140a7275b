//! Windows that expire give their room back, and readers see either all of a window or nothing.

#![allow(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream::record::Partition;
use millstream::store::{Space, StateStore, StoreBatch, StoreProvider, StoreSnapshot};
use millstream_rocksdb::memory::MemoryBudget;
use millstream_rocksdb::state::{RocksDbOptions, RocksStores};

const WINDOWS: u64 = 24;
const ROWS: u64 = 5_000;
const VALUE_BYTES: usize = 100;

fn value(row: u64) -> [u8; VALUE_BYTES] {
    let mut state = row.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    std::array::from_fn(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
}

fn write_window(store: &dyn StateStore, window: u64) {
    let mut batch = StoreBatch::new();
    for row in 0..ROWS {
        batch.put(Space::Rows, &[window.to_be_bytes(), row.to_be_bytes()].concat(), &value(window * ROWS + row));
    }
    batch.put(Space::Meta, b"position", &window.to_be_bytes());
    store.write_waiting(&batch).unwrap();
}

fn expire(store: &dyn StateStore, from: u64, to: u64) {
    let mut batch = StoreBatch::new();
    batch.delete_range(Space::Rows, &from.to_be_bytes(), &to.to_be_bytes());
    store.write_waiting(&batch).unwrap();
}

fn rows_between(snapshot: &dyn StoreSnapshot, from: u64, to: u64) -> u64 {
    let mut rows = 0;
    let mut count = |_: &[u8], _: &[u8]| {
        rows += 1;
        ControlFlow::Continue(())
    };
    snapshot.scan(Space::Rows, &from.to_be_bytes(), &to.to_be_bytes(), &mut count).unwrap();
    rows
}

fn filled(dir: &std::path::Path) -> (RocksStores, Arc<dyn StateStore>) {
    let options = RocksDbOptions { write_buffer_size: 1 << 20, ..Default::default() };
    let provider = RocksStores::new(dir, MemoryBudget::new(64 << 20), options).unwrap();
    let store = provider.open("clicks", Partition(0)).unwrap();
    for window in 0..WINDOWS {
        write_window(&*store, window);
    }
    store.flush().unwrap();
    (provider, store)
}

fn file_bytes(provider: &RocksStores) -> u64 {
    provider.statistics().stores[0].file_bytes
}

/// Writes a little, as the next commits do, until the files are that small.
fn until_files_are_below(provider: &RocksStores, store: &dyn StateStore, bytes: u64) {
    let start = Instant::now();
    while file_bytes(provider) > bytes {
        assert!(start.elapsed() < Duration::from_secs(30), "{} bytes are not given back", file_bytes(provider));
        let mut batch = StoreBatch::new();
        batch.put(Space::Meta, b"position", b"next");
        store.write_waiting(&batch).unwrap();
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn expired_windows_give_their_room_back_while_writes_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (provider, store) = filled(dir.path());
    let before = file_bytes(&provider);
    assert!(before > WINDOWS * ROWS * VALUE_BYTES as u64 * 9 / 10, "{before}");
    expire(&*store, 0, WINDOWS - 4);
    assert_eq!(rows_between(&*store.snapshot(), 0, WINDOWS), 4 * ROWS);
    until_files_are_below(&provider, &*store, before / 2);
    assert_eq!(rows_between(&*store.snapshot(), 0, WINDOWS), 4 * ROWS);
    drop(store);
    let store = provider.open("clicks", Partition(0)).unwrap();
    assert_eq!(rows_between(&*store.snapshot(), 0, WINDOWS), 4 * ROWS);
}

#[test]
fn a_snapshot_keeps_what_expires_under_it() {
    let dir = tempfile::tempdir().unwrap();
    let (provider, store) = filled(dir.path());
    let before = file_bytes(&provider);
    let snapshot = store.snapshot();
    expire(&*store, 0, WINDOWS - 4);
    for _ in 0..20 {
        store.flush().unwrap();
    }
    assert_eq!(rows_between(&*snapshot, 0, WINDOWS), WINDOWS * ROWS);
    assert_eq!(rows_between(&*store.snapshot(), 0, WINDOWS), 4 * ROWS);
    drop(snapshot);
    until_files_are_below(&provider, &*store, before / 2);
}

#[test]
fn rows_written_to_an_expired_window_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (_provider, store) = filled(dir.path());
    expire(&*store, 0, 12);
    write_window(&*store, 3);
    for _ in 0..20 {
        store.flush().unwrap();
        write_window(&*store, WINDOWS);
    }
    assert_eq!(rows_between(&*store.snapshot(), 0, 12), ROWS);
}

/// Expiring a window at a time, as an engine does for weeks, leaves nothing behind that makes reads slow.
#[test]
fn many_expiries_do_not_pile_up() {
    let dir = tempfile::tempdir().unwrap();
    let (provider, store) = filled(dir.path());
    let end = WINDOWS + 60;
    for window in WINDOWS..end {
        write_window(&*store, window);
        expire(&*store, 0, window - 3);
    }
    store.flush().unwrap();
    assert_eq!(rows_between(&*store.snapshot(), 0, end), 4 * ROWS);
    until_files_are_below(&provider, &*store, 12 * ROWS * (VALUE_BYTES as u64 + 16));
}
