//! What a state store does on one core: commits and scans. Figures are rows a second.
//!
//! `cargo bench --workspace --bench store --profile dev`

#![allow(clippy::unwrap_used, reason = "a benchmark stops where it cannot go on")]

use std::ops::ControlFlow;
use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use millstream::record::Partition;
use millstream::store::{Space, StateStore, StoreBatch, StoreProvider};
use millstream_rocksdb::memory::MemoryBudget;
use millstream_rocksdb::state::{RocksDbOptions, RocksStores};

const WINDOW: u64 = 300_000;

fn main() {
    divan::main();
}

/// A store with the given options by name on top of the defaults, for comparing settings: `STORE_OPTIONS="block_size=8192 …"`.
struct Bench {
    _dir: tempfile::TempDir,
    store: Arc<dyn StateStore>,
}

impl Bench {
    fn new() -> Self {
        let mut options = RocksDbOptions::default();
        for pair in std::env::var("STORE_OPTIONS").unwrap_or_default().split_whitespace() {
            let (name, value) = pair.split_once('=').expect("name=value");
            options.named.insert(name.to_owned(), value.to_owned());
        }
        let dir = tempfile::tempdir().unwrap();
        let provider = RocksStores::new(dir.path(), MemoryBudget::new(1 << 30), options).unwrap();
        let store = provider.open("clicks", Partition(0)).unwrap();
        Self { _dir: dir, store }
    }

    /// A store in which each of the ads has a row in each of the windows, flushed.
    fn filled(windows: u64, ads: u64) -> Self {
        let bench = Self::new();
        let mut batch = StoreBatch::new();
        for window in 0..windows {
            for ad in 0..ads {
                batch.put(Space::Rows, &key(window, ad), &value(ad));
                if ad % 10_000 == 9_999 {
                    bench.store.write_waiting(&batch).unwrap();
                    batch.clear();
                }
            }
            bench.store.write_waiting(&batch).unwrap();
            batch.clear();
        }
        bench.store.flush().unwrap();
        bench
    }

    /// What a commit does: reads the rows of these ads in the window, and writes them and the position.
    fn commit(&self, window: u64, ads: &[u64], batch: &mut StoreBatch) {
        let keys: Vec<_> = ads.iter().map(|ad| key(window, *ad)).collect();
        let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        let values = self.store.multi_get(&keys).unwrap();
        batch.clear();
        for (key, found) in keys.iter().zip(values) {
            let count = found.map_or(0, |bytes| u64::from_be_bytes(*bytes.first_chunk().unwrap()));
            batch.put(Space::Rows, key, &value(count + 1));
        }
        batch.put(Space::Meta, b"position", &window.to_be_bytes());
        self.store.write_waiting(batch).unwrap();
    }

    fn scan(&self, from: u64, to: u64) -> (u64, u64) {
        let (mut rows, mut clicks) = (0, 0_u64);
        let mut visit = |_: &[u8], value: &[u8]| {
            rows += 1;
            clicks = clicks.wrapping_add(u64::from_be_bytes(*value.first_chunk().unwrap()));
            ControlFlow::Continue(())
        };
        let snapshot = self.store.snapshot();
        snapshot.scan(Space::Rows, &(from * WINDOW).to_be_bytes(), &(to * WINDOW).to_be_bytes(), &mut visit).unwrap();
        (rows, clicks)
    }
}

fn key(window: u64, ad: u64) -> [u8; 17] {
    let mut key = [0; 17];
    key[..8].copy_from_slice(&(window * WINDOW).to_be_bytes());
    key[8..].copy_from_slice(format!("ad-{ad:06}").as_bytes());
    key
}

fn value(count: u64) -> [u8; 16] {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&count.to_be_bytes());
    value
}

/// Ads in ascending order, spread over all of them, others each time.
fn ads_of_commit(number: u64, ads: u64, in_a_commit: u64) -> Vec<u64> {
    let step = ads / in_a_commit;
    (0..in_a_commit).map(|i| i * step + number.wrapping_mul(0x9E37_79B9) % step).collect()
}

fn commits(bencher: Bencher, bench: &Bench, windows: u64, ads: u64, in_a_commit: u64) {
    let mut batch = StoreBatch::new();
    let mut number = 0;
    bencher.counter(ItemsCount::new(in_a_commit)).bench_local(|| {
        // A window ends now and then, and its rows begin anew.
        let window = windows + number / 200;
        bench.commit(window, &ads_of_commit(number, ads, in_a_commit), &mut batch);
        number += 1;
    });
}

#[divan::bench(sample_count = 1000)]
fn commit_1_000_keys_of_1_000(bencher: Bencher) {
    commits(bencher, &Bench::filled(1, 1_000), 1, 1_000, 1_000);
}

#[divan::bench(sample_count = 1000)]
fn commit_10_000_keys_of_1_000_000(bencher: Bencher) {
    commits(bencher, &Bench::filled(1, 1_000_000), 1, 1_000_000, 10_000);
}

#[divan::bench(sample_count = 20)]
fn scan_12_windows_of_100_000(bencher: Bencher) {
    let bench = Bench::filled(12, 100_000);
    assert_eq!(bench.scan(0, 12).0, 1_200_000);
    bencher.counter(ItemsCount::new(1_200_000_u32)).bench_local(|| bench.scan(0, 12));
}

/// The window that is being written to: its rows lie in memtables and in files of several levels.
#[divan::bench(sample_count = 20)]
fn scan_a_window_of_1_000_000_being_written(bencher: Bencher) {
    let bench = Bench::filled(1, 1_000_000);
    let mut batch = StoreBatch::new();
    for number in 0..100 {
        bench.commit(0, &ads_of_commit(number, 1_000_000, 10_000), &mut batch);
    }
    assert_eq!(bench.scan(0, 1).0, 1_000_000);
    bencher.counter(ItemsCount::new(1_000_000_u32)).bench_local(|| bench.scan(0, 1));
}
