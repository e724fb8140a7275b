//! A store from before there was a column family for what is derived.

#![allow(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use millstream::record::Partition;
use millstream::store::{Space, StateStore, StoreBatch, StoreProvider};
use millstream_rocksdb::memory::MemoryBudget;
use millstream_rocksdb::state::{RocksDbOptions, RocksStores};
use rocksdb::{DB, Options};

fn put(store: &dyn StateStore, space: Space, key: &[u8]) {
    let mut batch = StoreBatch::new();
    batch.put(space, key, b"value");
    store.write_waiting(&batch).unwrap();
    store.flush().unwrap();
}

#[test]
fn it_opens_with_all_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let provider = RocksStores::new(dir.path(), MemoryBudget::new(16 << 20), RocksDbOptions::default()).unwrap();
    let open = || provider.open("clicks", Partition(0)).unwrap();
    let store = open();
    put(&*store, Space::Rows, b"row");
    put(&*store, Space::Meta, b"position");
    drop(store);
    let path = dir.path().join("clicks/0");
    let mut older = DB::open_cf(&Options::default(), &path, ["default", "rows", "meta", "derived"]).unwrap();
    older.drop_cf("derived").unwrap();
    drop(older);
    assert_eq!(DB::list_cf(&Options::default(), &path).unwrap().len(), 3);

    put(&*open(), Space::Derived, b"ranking");
    let (store, found) = (open(), Some(b"value".to_vec()));
    let snapshot = store.snapshot();
    assert_eq!(snapshot.get(Space::Rows, b"row").unwrap(), found);
    assert_eq!(snapshot.get(Space::Meta, b"position").unwrap(), found);
    assert_eq!(snapshot.get(Space::Derived, b"ranking").unwrap(), found);
}
