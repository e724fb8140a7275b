//! A disk that is full stops writes with a kind that says "later", and costs nothing that was written.

#![allow(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use millstream::record::Partition;
use millstream::store::{Space, StateStore, StoreBatch, StoreError, StoreErrorKind, StoreProvider};
use millstream_rocksdb::memory::MemoryBudget;
use millstream_rocksdb::state::{RocksDbOptions, RocksStores};

const ROWS_IN_A_BATCH: u64 = 500;
const VALUE_BYTES: usize = 200;

/// A file system of a few megabytes, in memory.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// None, said aloud, where the test does not run as root.
    fn mount(bytes: usize) -> Option<Self> {
        let id = Command::new("id").arg("-u").output().unwrap();
        if String::from_utf8_lossy(&id.stdout).trim() != "0" {
            eprintln!("SKIPPED: mounting a small disk needs root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).status().unwrap();
        assert!(mounted.success(), "cannot mount a tmpfs although we are root: a container needs CAP_SYS_ADMIN for this test");
        Some(Self { dir })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Takes all the room that is left, but that many bytes.
    fn fill_up_to(&self, left: u64) -> PathBuf {
        let ballast = self.path().join("ballast");
        let mut written = Vec::new();
        while std::fs::write(&ballast, &written).is_ok() {
            written.resize(written.len() + (64 << 10), 0);
        }
        let full = std::fs::metadata(&ballast).unwrap().len();
        std::fs::File::options().write(true).open(&ballast).unwrap().set_len(full.saturating_sub(left)).unwrap();
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.dir.path()).status().unwrap();
    }
}

fn provider(disk: &SmallDisk) -> RocksStores {
    let options = RocksDbOptions { write_buffer_size: 1 << 20, ..Default::default() };
    RocksStores::new(disk.path().join("state"), MemoryBudget::new(16 << 20), options).unwrap()
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
fn write(store: &dyn StateStore, number: u64) -> Result<(), StoreError> {
    let mut batch = StoreBatch::new();
    for row in number * ROWS_IN_A_BATCH..(number + 1) * ROWS_IN_A_BATCH {
        batch.put(Space::Rows, &row.to_be_bytes(), &value(row));
    }
    batch.put(Space::Meta, b"position", &(number + 1).to_be_bytes());
    store.write(&batch)
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

/// Calls until it succeeds, as an engine does; every failure must say that it may.
fn until_it_succeeds(mut call: impl FnMut() -> Result<(), StoreError>) -> Duration {
    let start = Instant::now();
    while let Err(e) = call() {
        assert_eq!(e.kind(), StoreErrorKind::Retry, "{e}");
        assert!(start.elapsed() < Duration::from_secs(60), "still failing after a minute: {e}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    start.elapsed()
}

#[test]
fn writes_go_on_by_themselves_when_there_is_room_again() {
    let Some(disk) = SmallDisk::mount(48 << 20) else { return };
    let provider = provider(&disk);
    let store = provider.open("clicks", Partition(0)).unwrap();
    let mut position = 0;
    for round in 0..3 {
        for _ in 0..20 {
            until_it_succeeds(|| write(&*store, position));
            position += 1;
        }
        let ballast = disk.fill_up_to(64 << 10);
        let began = Instant::now();
        let refused = loop {
            let started = Instant::now();
            let result = write(&*store, position);
            assert!(started.elapsed() < Duration::from_secs(2), "a write hangs on a full disk");
            match result {
                Ok(()) => position += 1,
                Err(e) if e.to_string().contains("No space left on device") => break e,
                // The flush that will fail is still under way.
                Err(e) => {
                    assert_eq!(e.kind(), StoreErrorKind::Retry, "{e}");
                    assert!(began.elapsed() < Duration::from_secs(20), "a full disk is not told: {e}");
                    std::thread::park_timeout(Duration::from_millis(5));
                }
            }
        };
        assert_eq!(refused.kind(), StoreErrorKind::Retry, "{refused}");
        assert_eq!(store.flush().unwrap_err().kind(), StoreErrorKind::Retry);
        assert_holds(&*store, position);

        std::fs::remove_file(ballast).unwrap();
        let waited = until_it_succeeds(|| write(&*store, position));
        position += 1;
        eprintln!("round {round}: writes went on {waited:?} after there was room");
        until_it_succeeds(|| store.flush());
        assert_holds(&*store, position);
    }
    drop(store);
    assert_holds(&*provider.open("clicks", Partition(0)).unwrap(), position);
}

#[test]
fn a_flush_on_a_full_disk_says_so_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount(32 << 20) else { return };
    let provider = provider(&disk);
    let store = provider.open("clicks", Partition(0)).unwrap();
    for number in 0..5 {
        write(&*store, number).unwrap();
    }
    let ballast = disk.fill_up_to(0);
    let refused = store.flush().unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Retry, "{refused}");
    assert_holds(&*store, 5);
    std::fs::remove_file(ballast).unwrap();
    until_it_succeeds(|| store.flush());
    assert_holds(&*store, 5);
}

#[test]
fn a_store_opens_when_there_is_room_again() {
    let Some(disk) = SmallDisk::mount(32 << 20) else { return };
    let provider = provider(&disk);
    let ballast = disk.fill_up_to(0);
    let refused = provider.open("clicks", Partition(0)).err().expect("there is no room");
    assert_eq!(refused.kind(), StoreErrorKind::Retry, "{refused}");
    std::fs::remove_file(ballast).unwrap();
    let store = provider.open("clicks", Partition(0)).unwrap();
    write(&*store, 0).unwrap();
    assert_holds(&*store, 1);
}

#[test]
fn a_store_closed_on_a_full_disk_opens_as_of_some_earlier_write() {
    let Some(disk) = SmallDisk::mount(32 << 20) else { return };
    let provider = provider(&disk);
    let store = provider.open("clicks", Partition(0)).unwrap();
    for number in 0..8 {
        write(&*store, number).unwrap();
        if number == 3 {
            store.flush().unwrap();
        }
    }
    let ballast = disk.fill_up_to(0);
    assert!(store.flush().is_err());
    drop(store);
    std::fs::remove_file(ballast).unwrap();
    let store = provider.open("clicks", Partition(0)).unwrap();
    let position = store.snapshot().get(Space::Meta, b"position").unwrap().unwrap();
    let position = u64::from_be_bytes(position.try_into().unwrap());
    assert!((4..=8).contains(&position), "{position}");
    assert_holds(&*store, position);
}
