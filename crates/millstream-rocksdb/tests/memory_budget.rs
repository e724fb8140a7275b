//! Memory stays within its budget while the state grows past ten times that size.
//!
//! `MILLSTREAM_BUDGET_MIB=64 cargo test --workspace --test memory_budget -- --nocapture` prints the figures, with the peak memory
//! of the process, for another budget. Only one test may run in this process: its memory is what is measured.

#![allow(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream::record::Partition;
use millstream::store::{Space, StateStore, StoreBatch, StoreErrorKind, StoreProvider};
use millstream_rocksdb::memory::MemoryBudget;
use millstream_rocksdb::state::{RocksDbOptions, RocksStores, StoreStatistics};

/// What the service uses; RocksDB allocates through it too.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const PARTITIONS: u32 = 4;
const ROWS_IN_A_BATCH: u64 = 2_000;
const VALUE_BYTES: usize = 100;

/// The largest resident size that the process ever had, where the system tells.
fn peak_resident_bytes() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()? * 1024)
}

/// Bytes that do not compress.
fn value(row: u64) -> [u8; VALUE_BYTES] {
    let mut state = row.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    std::array::from_fn(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
}

/// Rows in an order that spreads over the whole key space, so that every level is rewritten.
fn key(row: u64) -> [u8; 8] {
    row.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()
}

fn write(store: &dyn StateStore, number: u64) {
    let mut batch = StoreBatch::new();
    for row in number * ROWS_IN_A_BATCH..(number + 1) * ROWS_IN_A_BATCH {
        batch.put(Space::Rows, &key(row), &value(row));
    }
    batch.put(Space::Meta, b"position", &number.to_be_bytes());
    // Some as a restore does, some as a thread that counts does: it comes back.
    if number.is_multiple_of(2) {
        return store.write_waiting(&batch).unwrap();
    }
    let began = Instant::now();
    while let Err(refused) = store.write(&batch) {
        assert_eq!(refused.kind(), StoreErrorKind::Retry, "{refused}");
        assert!(began.elapsed() < Duration::from_secs(60), "{refused}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn read(store: &dyn StateStore, number: u64) {
    let mut rows: Vec<_> = (number * ROWS_IN_A_BATCH..(number + 1) * ROWS_IN_A_BATCH).collect();
    rows.sort_by_key(|row| key(*row));
    let keys: Vec<_> = rows.iter().map(|row| key(*row)).collect();
    let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    for (row, found) in rows.iter().zip(store.multi_get(&keys).unwrap()) {
        assert_eq!(found.unwrap(), value(*row));
    }
}

/// The highest of what was seen.
#[derive(Debug, Default)]
struct Peak {
    cache: usize,
    memtables: usize,
    table_readers: u64,
    all: usize,
}

impl Peak {
    fn see(&mut self, now: &StoreStatistics) {
        let table_readers: u64 = now.stores.iter().map(|store| store.table_reader_bytes).sum();
        self.cache = self.cache.max(now.memory.cache_bytes);
        self.memtables = self.memtables.max(now.memory.memtable_bytes);
        self.table_readers = self.table_readers.max(table_readers);
        // Memtables are charged to the cache.
        self.all = self.all.max(now.memory.cache_bytes + table_readers as usize);
    }
}

#[test]
fn memory_stays_within_its_budget_while_state_grows_past_ten_times_that() {
    let mib = std::env::var("MILLSTREAM_BUDGET_MIB").map_or(32, |mib| mib.parse().expect("MILLSTREAM_BUDGET_MIB"));
    let budget: usize = mib << 20;
    let at_start = peak_resident_bytes();
    let dir = tempfile::tempdir().unwrap();
    let provider = RocksStores::new(dir.path(), MemoryBudget::new(budget), RocksDbOptions::default()).unwrap();
    let stores: Vec<Arc<dyn StateStore>> =
        (0..PARTITIONS).map(|partition| provider.open("clicks", Partition(partition)).unwrap()).collect();
    let bytes_in_a_round = u64::from(PARTITIONS) * ROWS_IN_A_BATCH * (VALUE_BYTES as u64 + 8);
    let rounds = 12 * budget as u64 / bytes_in_a_round;
    let mut peak = Peak::default();
    for round in 0..rounds {
        for store in &stores {
            write(&**store, round);
            peak.see(&provider.statistics());
            read(&**store, round * 7 % (round + 1));
            peak.see(&provider.statistics());
        }
    }
    for store in &stores {
        let mut rows = 0;
        let mut count = |_: &[u8], _: &[u8]| {
            rows += 1;
            ControlFlow::Continue(())
        };
        store.snapshot().scan(Space::Rows, &[], &[255; 9], &mut count).unwrap();
        assert_eq!(rows, rounds * ROWS_IN_A_BATCH);
        peak.see(&provider.statistics());
    }
    let state: u64 = provider.statistics().stores.iter().map(|store| store.file_bytes + store.memtable_bytes).sum();
    let of_budget = |bytes: usize| format!("{:.1} MiB ({:.0} %)", bytes as f64 / 1048576.0, bytes as f64 * 100.0 / budget as f64);
    eprintln!("budget {mib} MiB, state {}", of_budget(state as usize));
    eprintln!("peak: cache {}, memtables {}", of_budget(peak.cache), of_budget(peak.memtables));
    eprintln!("peak: table readers {}, with the cache {}", of_budget(peak.table_readers as usize), of_budget(peak.all));
    if let (Some(start), Some(end)) = (at_start, peak_resident_bytes()) {
        eprintln!("peak resident size of the process: {} at start, {} at the end", of_budget(start), of_budget(end));
    }
    assert!(state > 10 * budget as u64, "the state is too small to show anything: {state}");
    assert!(peak.memtables <= budget / 2 + (8 << 20), "{peak:?}");
    assert!(peak.all <= budget, "{peak:?}");
}
