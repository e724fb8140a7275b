//! A RocksDB store does what the in-memory store does, across flushes and reopening.

#![allow(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use std::ops::ControlFlow;
use std::sync::Arc;

use millstream::record::Partition;
use millstream::store::memory::MemoryStore;
use millstream::store::{Space, StateStore, StoreBatch, StoreErrorKind, StoreProvider, StoreSnapshot};
use millstream_rocksdb::memory::MemoryBudget;
use millstream_rocksdb::state::{RocksDbConfigSetter, RocksDbOptions, RocksStores};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<Change>),
    Flush,
    Reopen,
    TakeSnapshot,
}

#[derive(Debug, Clone)]
enum Change {
    Put(Space, Vec<u8>, Vec<u8>),
    Delete(Space, Vec<u8>),
    DeleteRange(Space, Vec<u8>, Vec<u8>),
}

fn space() -> impl Strategy<Value = Space> {
    prop_oneof![4 => Just(Space::Rows), 1 => Just(Space::Meta), 1 => Just(Space::Derived)]
}

/// Few keys, some of them the beginning of others, so that they meet.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(128), Just(255)], 1..4)
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (space(), key(), prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(s, k, v)| Change::Put(s, k, v)),
        1 => (space(), key()).prop_map(|(s, k)| Change::Delete(s, k)),
        1 => (space(), key(), key()).prop_map(|(s, a, b)| Change::DeleteRange(s, a.clone().min(b.clone()), a.max(b))),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(change(), 1..12).prop_map(Step::Write),
        2 => Just(Step::Flush),
        1 => Just(Step::Reopen),
        1 => Just(Step::TakeSnapshot),
    ]
}

fn batch_of(changes: &[Change]) -> StoreBatch {
    let mut batch = StoreBatch::new();
    for change in changes {
        match change {
            Change::Put(space, key, value) => batch.put(*space, key, value),
            Change::Delete(space, key) => batch.delete(*space, key),
            Change::DeleteRange(space, from, to) => batch.delete_range(*space, from, to),
        }
    }
    batch
}

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

fn scan(snapshot: &dyn StoreSnapshot, space: Space, from: &[u8], to: &[u8]) -> Entries {
    let mut entries = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        entries.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    snapshot.scan(space, from, to, &mut visit).unwrap();
    entries
}

fn everything(snapshot: &dyn StoreSnapshot) -> [Entries; 3] {
    [Space::Rows, Space::Meta, Space::Derived].map(|space| scan(snapshot, space, &[], &[255; 8]))
}

fn provider(dir: &std::path::Path) -> RocksStores {
    let options = RocksDbOptions { write_buffer_size: 64 << 10, ..Default::default() };
    RocksStores::new(dir, MemoryBudget::new(16 << 20), options).unwrap()
}

fn assert_same(rocks: &dyn StateStore, model: &MemoryStore) {
    let (rocks, model) = (rocks.snapshot(), model.snapshot());
    let expected = everything(&*model);
    assert_eq!(everything(&*rocks), expected);
    let keys: Vec<&[u8]> = expected[0].iter().map(|(key, _)| key.as_slice()).collect();
    assert_eq!(rocks.multi_get(&keys).unwrap(), model.multi_get(&keys).unwrap());
    assert_eq!(rocks.get(Space::Meta, &[1]).unwrap(), model.get(Space::Meta, &[1]).unwrap());
    let absent: [&[u8]; 2] = [&[7], &[7, 7]];
    assert_eq!(rocks.multi_get(&absent).unwrap(), [None, None]);
    assert_eq!(scan(&*rocks, Space::Rows, &[0, 255], &[128, 1]), scan(&*model, Space::Rows, &[0, 255], &[128, 1]));
}

fn run(provider: &RocksStores, steps: &[Step]) {
    let model = MemoryStore::new();
    let mut store = provider.open("clicks", Partition(0)).unwrap();
    let mut rest = steps.iter();
    while let Some(step) = rest.next() {
        match step {
            Step::Write(changes) => {
                let batch = batch_of(changes);
                store.write_waiting(&batch).unwrap();
                model.write(&batch).unwrap();
            }
            Step::Flush => store.flush().unwrap(),
            Step::Reopen => {
                drop(store);
                store = provider.open("clicks", Partition(0)).unwrap();
            }
            Step::TakeSnapshot => {
                let snapshot = store.snapshot();
                let before = everything(&*snapshot);
                if let Some(Step::Write(changes)) = rest.next() {
                    let batch = batch_of(changes);
                    store.write_waiting(&batch).unwrap();
                    model.write(&batch).unwrap();
                    store.flush().unwrap();
                }
                assert_eq!(everything(&*snapshot), before);
            }
        }
        assert_same(&*store, &model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_store_equals_its_model(steps in prop::collection::vec(step(), 1..20)) {
        let dir = tempfile::tempdir().unwrap();
        run(&provider(dir.path()), &steps);
    }
}

#[test]
fn stores_are_apart_and_can_be_removed() {
    let dir = tempfile::tempdir().unwrap();
    let provider = provider(dir.path());
    let open = |store: &str, partition| provider.open(store, Partition(partition)).unwrap();
    let stores = [open("a", 0), open("a", 1), open("b", 0)];
    for (value, store) in stores.iter().enumerate() {
        store.write(&batch_of(&[Change::Put(Space::Rows, vec![1], vec![value as u8])])).unwrap();
    }
    assert_eq!(provider.statistics().stores.len(), 3);
    assert_eq!(provider.destroy("a", Partition(1)).unwrap_err().kind(), StoreErrorKind::Retry);
    drop(stores);
    assert_eq!(provider.statistics().stores, []);
    provider.destroy("a", Partition(1)).unwrap();
    provider.destroy("a", Partition(7)).unwrap();
    let values = [open("a", 0), open("a", 1), open("b", 0)].map(|store| store.multi_get(&[&[1]]).unwrap());
    assert_eq!(values, [[Some(vec![0])], [None], [Some(vec![2])]]);
}

#[test]
fn names_that_would_leave_the_directory_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let provider = provider(dir.path());
    for name in ["", ".", "..", "a/b", "ä"] {
        let refused = provider.open(name, Partition(0)).err().expect(name);
        assert_eq!(refused.kind(), StoreErrorKind::Stop);
    }
}

#[test]
fn a_store_opens_once_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let provider = provider(dir.path());
    let first = provider.open("a", Partition(0)).unwrap();
    assert_eq!(provider.open("a", Partition(0)).err().expect("open already").kind(), StoreErrorKind::Retry);
    drop(first);
    provider.open("a", Partition(0)).unwrap();
}

#[test]
fn statistics_follow_reads_and_writes() {
    let dir = tempfile::tempdir().unwrap();
    let provider = RocksStores::new(dir.path(), MemoryBudget::new(64 << 20), RocksDbOptions::default()).unwrap();
    let store = provider.open("a", Partition(3)).unwrap();
    let mut batch = StoreBatch::new();
    for i in 0..10_000_u32 {
        batch.put(Space::Rows, &i.to_be_bytes(), &[7; 20]);
    }
    store.write(&batch).unwrap();
    let before = provider.statistics();
    assert!(before.stores[0].memtable_bytes > 200_000 && before.memory.memtable_bytes > 200_000, "{before:?}");
    store.flush().unwrap();
    for i in 0..1_000_u32 {
        assert!(store.multi_get(&[&i.to_be_bytes()]).unwrap()[0].is_some());
        assert!(store.multi_get(&[&[&i.to_be_bytes()[..], b"x"].concat()]).unwrap()[0].is_none());
    }
    let after = provider.statistics();
    assert_eq!(after.stores[0].estimated_rows, 10_000);
    assert!(after.stores[0].file_bytes > 10_000 && after.flush_write_bytes > 10_000, "{after:?}");
    assert!(after.cache.data_hits > 900 && after.cache.data_misses > 0 && after.bloom_useful > 900, "{after:?}");
}

#[test]
fn an_option_that_cannot_be_used_is_refused_before_anything_opens() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = RocksDbOptions::default();
    options.named.insert("max_open_fils".to_owned(), "5".to_owned());
    let refused = RocksStores::new(dir.path().join("state"), MemoryBudget::new(16 << 20), options).err().expect("refused");
    assert_eq!(refused.to_string(), "RocksDB option max_open_fils: RocksDB has no such option");
    assert!(!dir.path().join("state").exists());
}

#[test]
fn a_setter_changes_one_store_apart_from_others() {
    struct WrongForB;
    impl RocksDbConfigSetter for WrongForB {
        fn set_config(&self, store: &str, options: &mut RocksDbOptions) {
            assert_eq!(options.write_buffer_size, 64 << 10);
            if store == "b" {
                options.named.insert("num_levels".to_owned(), "none".to_owned());
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let provider = provider(dir.path()).with_config_setter(WrongForB);
    let _a: Arc<dyn StateStore> = provider.open("a", Partition(0)).unwrap();
    let refused = provider.open("b", Partition(0)).err().expect("refused");
    assert_eq!(refused.kind(), StoreErrorKind::Stop);
    assert!(refused.to_string().contains("num_levels"), "{refused}");
    assert!(!dir.path().join("b").exists());
}
