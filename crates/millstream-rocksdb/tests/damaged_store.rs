//! Whatever happens to the files of a store: it holds the state of some earlier write, whole, or says that it is damaged.

#![allow(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use millstream::record::Partition;
use millstream::store::{Space, StateStore, StoreBatch, StoreError, StoreErrorKind, StoreProvider};
use millstream_rocksdb::memory::MemoryBudget;
use millstream_rocksdb::state::{RocksDbOptions, RocksStores};

const SEEDS: &str = "MILLSTREAM_DAMAGE_SEEDS";
const BATCHES: u64 = 60;
const KEYS: u64 = 3_000;

/// xorshift64*: the same seed does the same damage.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

fn provider(dir: &Path) -> RocksStores {
    provider_with(dir, &[])
}

fn provider_with(dir: &Path, named: &[(&str, &str)]) -> RocksStores {
    let named = named.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = RocksDbOptions { write_buffer_size: 128 << 10, block_size: 4 << 10, named, ..Default::default() };
    RocksStores::new(dir, MemoryBudget::new(16 << 20), options).unwrap()
}

/// What batch `number` writes: each batch overwrites part of the rows of others.
fn rows_of(number: u64) -> Vec<(u64, u64)> {
    let mut random = Random::new(number + 1);
    (0..200).map(|_| (random.below(KEYS), number)).collect()
}

fn write_batch(store: &dyn StateStore, number: u64) {
    let mut batch = StoreBatch::new();
    for (key, value) in rows_of(number) {
        batch.put(Space::Rows, &key.to_be_bytes(), &value.to_be_bytes());
    }
    batch.put(Space::Meta, b"position", &(number + 1).to_be_bytes());
    store.write_waiting(&batch).unwrap();
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn model_at(position: u64) -> Rows {
    let rows = (0..position).flat_map(rows_of);
    rows.map(|(key, value)| (key.to_be_bytes().to_vec(), value.to_be_bytes().to_vec())).collect()
}

fn read_all(store: &dyn StateStore) -> Result<(u64, Rows), StoreError> {
    let snapshot = store.snapshot();
    let position = snapshot.get(Space::Meta, b"position")?;
    let position = position.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
    let mut rows = BTreeMap::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        rows.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    };
    snapshot.scan(Space::Rows, &[], &[255; 9], &mut visit)?;
    let keys: Vec<Vec<u8>> = (0..KEYS).map(|key| key.to_be_bytes().to_vec()).collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    for (key, value) in keys.iter().zip(snapshot.multi_get(&keys)?) {
        assert_eq!(value.as_ref(), rows.get(*key));
    }
    Ok((position, rows))
}

/// A store of several files and levels, closed.
fn build(dir: &Path) {
    let store = provider(dir).open("clicks", Partition(0)).unwrap();
    for number in 0..BATCHES {
        write_batch(&*store, number);
        if number % 7 == 6 {
            store.flush().unwrap();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn files_of(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Damages one file, and says how.
fn damage(dir: &Path, random: &mut Random) -> String {
    let files: Vec<_> = files_of(dir).into_iter().filter(|file| std::fs::metadata(file).unwrap().len() > 0).collect();
    let file = &files[random.below(files.len() as u64) as usize];
    let mut bytes = std::fs::read(file).unwrap();
    let at = random.below(bytes.len() as u64) as usize;
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    match random.below(5) {
        0 => {
            std::fs::remove_file(file).unwrap();
            return format!("{name} removed");
        }
        1 => {
            bytes.truncate(at);
            std::fs::write(file, bytes).unwrap();
            return format!("{name} cut off at {at}");
        }
        2 => bytes[at] ^= 1 << random.below(8),
        3 => {
            let end = (at + 1 + random.below(4096) as usize).min(bytes.len());
            bytes[at..end].fill(0);
        }
        _ => {
            let end = (at + 1 + random.below(64) as usize).min(bytes.len());
            bytes[at..end].iter_mut().for_each(|byte| *byte = random.below(256) as u8);
        }
    }
    std::fs::write(file, bytes).unwrap();
    format!("{name} overwritten at {at}")
}

/// Opens and reads; the state found must be that of some position, or the error must be that it is damaged.
fn check(dir: &Path) -> Result<u64, StoreError> {
    let store = provider(dir).open("clicks", Partition(0))?;
    let (position, rows) = read_all(&*store)?;
    assert!(position <= BATCHES);
    assert!(rows == model_at(position), "wrong rows are served at position {position}");
    Ok(position)
}

#[test]
fn random_damage_is_noticed_or_harmless() {
    let seeds: u64 = std::env::var(SEEDS).map_or(80, |seeds| seeds.parse().expect(SEEDS));
    let pristine = tempfile::tempdir().unwrap();
    build(pristine.path());
    assert_eq!(check(pristine.path()).unwrap(), BATCHES);
    let mut noticed = 0;
    for seed in 0..seeds {
        let dir = tempfile::tempdir().unwrap();
        let store_dir = dir.path().join("clicks/0");
        copy(&pristine.path().join("clicks/0"), &store_dir);
        let done = damage(&store_dir, &mut Random::new(seed));
        match check(dir.path()) {
            Ok(_) => {}
            Err(e) => {
                assert_eq!(e.kind(), StoreErrorKind::Corrupt, "seed {seed}: {done}: {e}");
                assert!(e.to_string().contains(&*store_dir.to_string_lossy()), "seed {seed}: {done}: {e}");
                noticed += 1;
            }
        }
        let provider = provider(dir.path());
        provider.destroy("clicks", Partition(0)).unwrap_or_else(|e| panic!("seed {seed}: {done}: {e}"));
        assert_eq!(read_all(&*provider.open("clicks", Partition(0)).unwrap()).unwrap().0, 0);
    }
    eprintln!("{noticed} of {seeds} damaged stores were noticed, the others were whole");
    assert!(noticed > seeds / 4);
}

fn damaged(how: impl Fn(&Path)) -> Result<u64, StoreError> {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    how(&dir.path().join("clicks/0"));
    check(dir.path())
}

fn file_like(dir: &Path, part: &str) -> PathBuf {
    files_of(dir).into_iter().find(|file| file.file_name().unwrap().to_string_lossy().contains(part)).expect(part)
}

#[test]
fn a_missing_file_is_noticed_when_the_store_opens() {
    for part in ["CURRENT", "MANIFEST", ".sst"] {
        let error = damaged(|dir| std::fs::remove_file(file_like(dir, part)).unwrap()).expect_err(part);
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{part}: {error}");
    }
}

#[test]
fn a_garbled_current_is_noticed_when_the_store_opens() {
    for content in ["", "MANIFEST-999999\n", "nonsense", "MANIFEST-0", "../0/MANIFEST-000005\n", "\n", "LOCK\n"] {
        let error = damaged(|dir| std::fs::write(dir.join("CURRENT"), content).unwrap()).expect_err(content);
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{content:?}: {error}");
    }
}

#[test]
fn a_manifest_without_its_column_families_is_no_new_store() {
    let error = damaged(|dir| {
        let manifest = std::fs::File::options().write(true).open(file_like(dir, "MANIFEST")).unwrap();
        manifest.set_len(60).unwrap();
    });
    assert_eq!(error.unwrap_err().kind(), StoreErrorKind::Corrupt);
}

/// The types of log files that are used again, which RocksDB would read for ever.
#[test]
fn a_manifest_with_a_record_of_a_wrong_type_is_noticed() {
    for kind in [5, 6, 7, 8, 11, 131] {
        let error = damaged(|dir| {
            let manifest = file_like(dir, "MANIFEST");
            let mut bytes = std::fs::read(&manifest).unwrap();
            let second = 7 + usize::from(u16::from_le_bytes([bytes[4], bytes[5]]));
            bytes[second + 6] = kind;
            std::fs::write(manifest, bytes).unwrap();
        });
        assert_eq!(error.expect_err("damaged").kind(), StoreErrorKind::Corrupt, "{kind}");
    }
}

#[test]
fn a_store_damaged_while_it_is_open_does_not_serve_the_damage() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    // A compaction would replace files that are to be damaged.
    let store = provider_with(dir.path(), &[("level0_file_num_compaction_trigger", "23")]).open("clicks", Partition(0)).unwrap();
    for file in files_of(&dir.path().join("clicks/0")) {
        if file.extension().is_some_and(|extension| extension == "sst") {
            let mut bytes = std::fs::read(&file).unwrap();
            let end = bytes.len() / 2;
            bytes[..end].fill(0xA5);
            // In place: RocksDB has the file open.
            std::fs::write(&file, bytes).unwrap();
        }
    }
    assert_eq!(read_all(&*store).unwrap_err().kind(), StoreErrorKind::Corrupt);
}
