//! A write by a thread that counts never waits: where flushes or compactions do not keep up it is refused at once, and taken later.
//!
//! The threads of RocksDB are those of the process, and the tests take them away: one test at a time.

#![allow(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millstream::record::Partition;
use millstream::store::{Space, StateStore, StoreBatch, StoreErrorKind, StoreProvider};
use millstream_rocksdb::memory::MemoryBudget;
use millstream_rocksdb::state::{RocksDbOptions, RocksStores};
use rocksdb::Env;

const ROWS_IN_A_BATCH: u64 = 500;
const VALUE_BYTES: usize = 200;

/// Far longer than a write takes, far shorter than any wait.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The background threads of RocksDB: while this lives, and until some are given, none flushes or compacts.
struct Background {
    env: Env,
    _alone: MutexGuard<'static, ()>,
}

impl Background {
    fn alone() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Self { env: Env::new().unwrap(), _alone: alone }
    }

    fn set(&mut self, flushing: i32, compacting: i32) {
        self.env.set_high_priority_background_threads(flushing);
        self.env.set_low_priority_background_threads(compacting);
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.set(1, 1);
    }
}

fn provider(dir: &Path, budget: usize, write_buffer_size: usize) -> RocksStores {
    let options = RocksDbOptions { write_buffer_size, ..Default::default() };
    RocksStores::new(dir, MemoryBudget::new(budget), options).unwrap()
}

fn value(row: u64) -> [u8; VALUE_BYTES] {
    let mut state = row.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    std::array::from_fn(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
}

/// Batch `number` writes its own rows and the position, in one step.
fn batch(number: u64) -> StoreBatch {
    let mut batch = StoreBatch::new();
    for row in number * ROWS_IN_A_BATCH..(number + 1) * ROWS_IN_A_BATCH {
        batch.put(Space::Rows, &row.to_be_bytes(), &value(row));
    }
    batch.put(Space::Meta, b"position", &(number + 1).to_be_bytes());
    batch
}

/// Writes batches from `position` on as a thread that counts, until one is refused. Gives its number.
fn write_until_refused(store: &dyn StateStore, position: u64, message: &str) -> u64 {
    for number in position..position + 10_000 {
        let began = Instant::now();
        let written = store.write(&batch(number));
        assert!(began.elapsed() < AT_ONCE, "a write has waited for {:?}", began.elapsed());
        let Err(refused) = written else { continue };
        assert_eq!(refused.kind(), StoreErrorKind::Retry, "{refused}");
        assert!(refused.to_string().contains(message), "{refused}");
        return number;
    }
    panic!("no write is refused");
}

/// As an engine does: again and again.
fn until_taken(store: &dyn StateStore, number: u64) {
    let began = Instant::now();
    while let Err(refused) = store.write(&batch(number)) {
        assert_eq!(refused.kind(), StoreErrorKind::Retry, "{refused}");
        assert!(began.elapsed() < Duration::from_secs(30), "{refused}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Asserts that the store holds exactly the batches before `position`.
fn assert_holds(store: &dyn StateStore, position: u64) {
    let snapshot = store.snapshot();
    let found = snapshot.get(Space::Meta, b"position").unwrap().unwrap();
    assert_eq!(found, position.to_be_bytes());
    let mut next = 0_u64;
    let mut check = |key: &[u8], found: &[u8]| {
        assert_eq!(key, next.to_be_bytes());
        assert_eq!(found, value(next));
        next += 1;
        ControlFlow::Continue(())
    };
    snapshot.scan(Space::Rows, &[], &[255; 9], &mut check).unwrap();
    assert_eq!(next, position * ROWS_IN_A_BATCH);
}

#[test]
fn a_write_is_refused_at_once_while_flushes_stall_and_taken_later() {
    let mut background = Background::alone();
    let dir = tempfile::tempdir().unwrap();
    let provider = provider(dir.path(), 64 << 20, 256 << 10);
    let store = provider.open("clicks", Partition(0)).unwrap();
    background.set(0, 0);
    let refused = write_until_refused(&*store, 0, "flushes and compactions do not keep up");
    assert_eq!(write_until_refused(&*store, refused, "do not keep up"), refused);
    assert_holds(&*store, refused);
    assert!(provider.statistics().stores[0].stalls >= 2);
    background.set(1, 1);
    until_taken(&*store, refused);
    assert_holds(&*store, refused + 1);
    drop(store);
    assert_holds(&*provider.open("clicks", Partition(0)).unwrap(), refused + 1);
}

#[test]
fn a_write_is_refused_at_once_while_level_0_is_full_and_taken_later() {
    let mut background = Background::alone();
    let dir = tempfile::tempdir().unwrap();
    let provider = provider(dir.path(), 64 << 20, 256 << 10);
    let store = provider.open("clicks", Partition(0)).unwrap();
    background.set(1, 0);
    let mut position = 0;
    // Memtables fill faster than they are flushed: a stall that ends by itself, until level 0 is full.
    while provider.statistics().stores[0].level0_files < 24 {
        position = write_until_refused(&*store, position, "do not keep up");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let refused = write_until_refused(&*store, position, "flushes and compactions do not keep up");
    assert!(provider.statistics().stores[0].write_stopped);
    background.set(1, 1);
    until_taken(&*store, refused);
    assert_holds(&*store, refused + 1);
}

/// Another store's restore takes the room in memtables, as far as it may; what is left is for those who count, and no more.
#[test]
fn the_memory_bound_holds_while_nothing_can_be_flushed() {
    let background = Background::alone();
    let dir = tempfile::tempdir().unwrap();
    let budget = 64 << 20;
    // As many memtables as come: only the bound keeps them.
    let named = BTreeMap::from([("max_write_buffer_number".to_owned(), "1000".to_owned())]);
    let options = RocksDbOptions { named, ..Default::default() };
    let provider = RocksStores::new(dir.path(), MemoryBudget::new(budget), options).unwrap();
    let stores: Vec<Arc<dyn StateStore>> = (0..4).map(|p| provider.open("clicks", Partition(p)).unwrap()).collect();
    let (counting, restoring) = stores.split_last().unwrap();
    // Given back before the stores close, also where the test fails.
    let mut background = background;
    background.set(0, 0);
    std::thread::scope(|scope| {
        let restores: Vec<_> = restoring
            .iter()
            .map(|store| scope.spawn(move || (0..120).for_each(|number| store.write_waiting(&batch(number)).unwrap())))
            .collect();
        let began = Instant::now();
        while provider.statistics().memory.memtable_bytes < budget / 8 * 3 {
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}", provider.statistics().memory);
            std::thread::park_timeout(Duration::from_millis(5));
        }
        std::thread::park_timeout(Duration::from_millis(100));
        let refused = write_until_refused(&**counting, 0, "memtables hold as much as they may");
        assert!(refused > 4, "the restores have left no room: {refused}");
        let held = provider.statistics().memory.memtable_bytes;
        assert!(held <= budget / 2 + (4 << 20), "{held}");
        assert!(restores.iter().any(|restore| !restore.is_finished()), "the restores do not wait");
        background.set(1, 1);
        until_taken(&**counting, refused);
        assert_holds(&**counting, refused + 1);
    });
    restoring.iter().for_each(|store| assert_holds(&**store, 120));
}

/// Nobody writes to the stores that hold the memory, so RocksDB does not flush them by itself.
#[test]
fn memory_that_other_stores_hold_is_freed_for_a_write_that_was_refused() {
    let _background = Background::alone();
    let dir = tempfile::tempdir().unwrap();
    let budget = 32 << 20;
    let provider = provider(dir.path(), budget, 64 << 20);
    let idle: Vec<Arc<dyn StateStore>> = (1..12).map(|p| provider.open("clicks", Partition(p)).unwrap()).collect();
    let store = provider.open("clicks", Partition(0)).unwrap();
    for number in 0..10 {
        idle.iter().for_each(|store| until_taken(&**store, number));
    }
    (0..100).for_each(|number| until_taken(&*store, number));
    let held = provider.statistics().memory.memtable_bytes;
    assert!(held <= budget / 2 + (4 << 20), "{held}");
    assert_holds(&*store, 100);
    idle.iter().for_each(|store| assert_holds(&**store, 10));
}

/// As in a backlog, in which every commit expires something.
#[test]
fn expiry_neither_flushes_nor_waits() {
    let mut background = Background::alone();
    let dir = tempfile::tempdir().unwrap();
    let provider = provider(dir.path(), 64 << 20, 1 << 20);
    let store = provider.open("clicks", Partition(0)).unwrap();
    store.write(&batch(0)).unwrap();
    store.flush().unwrap();
    background.set(0, 0);
    let flushed_bytes = provider.statistics().flush_write_bytes;
    let memtables = |provider: &RocksStores| provider.statistics().stores[0].memtable_bytes;
    for row in 1..50_u64 {
        let mut expiry = StoreBatch::new();
        expiry.delete_range(Space::Rows, &0_u64.to_be_bytes(), &row.to_be_bytes());
        let began = Instant::now();
        store.write(&expiry).unwrap();
        assert!(began.elapsed() < AT_ONCE, "an expiry has waited for {:?}", began.elapsed());
    }
    assert!(memtables(&provider) < 1 << 20, "memtables were switched for a flush: {}", memtables(&provider));
    background.set(1, 1);
    // What the next memtable takes is one file, however many expiries there were.
    std::thread::park_timeout(Duration::from_millis(500));
    assert_eq!(provider.statistics().flush_write_bytes, flushed_bytes);
    // The flusher comes by some time later, and drops what has expired.
    let began = Instant::now();
    while provider.statistics().flush_write_bytes == flushed_bytes {
        assert!(began.elapsed() < Duration::from_secs(30), "what has expired is never flushed");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    assert_eq!(store.multi_get(&[&48_u64.to_be_bytes(), &49_u64.to_be_bytes()]).unwrap(), [None, Some(value(49).to_vec())]);
}
