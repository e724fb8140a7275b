//! A process killed at any moment leaves rows that are exactly those of the position found beside them.

#![allow(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use millstream::record::Partition;
use millstream::store::{Space, StateStore, StoreBatch, StoreProvider};
use millstream_rocksdb::memory::MemoryBudget;
use millstream_rocksdb::state::{RocksDbOptions, RocksStores};

const DIRECTORY: &str = "MILLSTREAM_KILLED_PROCESS_DIR";
const ROUNDS: &str = "MILLSTREAM_KILL_ROUNDS";
const SLOTS: u64 = 64;
const ROWS_IN_A_SLOT: u64 = 100;

fn open(dir: &Path) -> std::sync::Arc<dyn StateStore> {
    let options = RocksDbOptions { write_buffer_size: 256 << 10, ..Default::default() };
    let provider = RocksStores::new(dir, MemoryBudget::new(16 << 20), options).unwrap();
    provider.open("clicks", Partition(0)).unwrap()
}

fn position_of(store: &dyn StateStore) -> u64 {
    let position = store.snapshot().get(Space::Meta, b"position").unwrap();
    position.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()))
}

/// The slot that batch `number` writes, and the one that it deletes.
fn slots_of(number: u64) -> (u64, Option<u64>) {
    let written = number % SLOTS;
    (written, (number % 8 == 7).then_some((written + SLOTS / 2) % SLOTS))
}

fn write_batch(store: &dyn StateStore, number: u64) {
    let mut batch = StoreBatch::new();
    let (written, deleted) = slots_of(number);
    if let Some(slot) = deleted {
        batch.delete_range(Space::Rows, &slot.to_be_bytes(), &(slot + 1).to_be_bytes());
    }
    for row in 0..ROWS_IN_A_SLOT {
        let key = [written.to_be_bytes(), row.to_be_bytes()].concat();
        batch.put(Space::Rows, &key, &number.to_be_bytes());
    }
    batch.put(Space::Meta, b"position", &(number + 1).to_be_bytes());
    store.write_waiting(&batch).unwrap();
    // What is derived from the rows is written after them, apart.
    let mut derived = StoreBatch::new();
    derived.put(Space::Derived, b"of position", &(number + 1).to_be_bytes());
    store.write_waiting(&derived).unwrap();
}

/// The number found in each slot at that position, if it has rows.
fn model_at(position: u64) -> Vec<Option<u64>> {
    let mut slots = vec![None; SLOTS as usize];
    for number in position.saturating_sub(8 * SLOTS)..position {
        let (written, deleted) = slots_of(number);
        if let Some(slot) = deleted {
            slots[slot as usize] = None;
        }
        slots[written as usize] = Some(number);
    }
    slots
}

fn assert_whole(store: &dyn StateStore, position: u64) {
    let mut expected = model_at(position)
        .into_iter()
        .enumerate()
        .filter_map(|(slot, number)| number.map(|number| (slot as u64, number)))
        .flat_map(|(slot, number)| (0..ROWS_IN_A_SLOT).map(move |row| (slot, row, number)));
    let mut visit = |key: &[u8], value: &[u8]| {
        let (slot, row, number) = expected.next().expect("a row that should not be there");
        assert_eq!(key, [slot.to_be_bytes(), row.to_be_bytes()].concat(), "at position {position}");
        assert_eq!(value, number.to_be_bytes(), "at position {position}");
        ControlFlow::Continue(())
    };
    store.snapshot().scan(Space::Rows, &[], &[255; 17], &mut visit).unwrap();
    assert_eq!(expected.next(), None, "rows are missing at position {position}");
    let derived = store.snapshot().get(Space::Derived, b"of position").unwrap();
    let derived = derived.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
    assert!(derived == position || derived + 1 == position, "derived of position {derived}, rows of {position}");
}

/// The child: goes on from the position it finds, until it is killed.
#[test]
#[ignore = "run by the test that kills it"]
fn writes_until_it_is_killed() {
    let dir = std::env::var_os(DIRECTORY).expect("started by the test that kills it");
    let store = open(Path::new(&dir));
    let start = position_of(&*store);
    assert_whole(&*store, start);
    for number in start.. {
        write_batch(&*store, number);
        if number % 50 == 49 {
            store.flush().unwrap();
        }
    }
}

fn start_writing(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writes_until_it_is_killed", "--ignored", "--nocapture"])
        .env(DIRECTORY, dir)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn rows_and_position_agree_after_every_kill() {
    let rounds: u32 = std::env::var(ROUNDS).map_or(40, |rounds| rounds.parse().expect(ROUNDS));
    let dir = tempfile::tempdir().unwrap();
    let mut positions = Vec::new();
    for round in 0..rounds {
        let mut child = start_writing(dir.path());
        // From before the store is open to after many flushes; irregular, so that kills hit different moments.
        let lifetime = Duration::from_micros(u64::from(round) * 7_919 % 150_000 + 1_000);
        let started = Instant::now();
        while started.elapsed() < lifetime {
            std::thread::park_timeout(lifetime - started.elapsed().min(lifetime));
        }
        assert_eq!(child.try_wait().unwrap(), None, "round {round}: the child ended by itself");
        // SIGKILL on Unix: nothing in the child runs any more.
        child.kill().unwrap();
        child.wait().unwrap();
        let store = open(dir.path());
        let position = position_of(&*store);
        assert_whole(&*store, position);
        assert!(positions.last().is_none_or(|before| *before <= position), "what was flushed is lost");
        positions.push(position);
    }
    let reached = positions.last().copied().unwrap_or(0);
    eprintln!("{rounds} kills, position {reached} reached");
    assert!(reached > 100, "the child hardly ran: {positions:?}");
}
