//! The uncommitted part of an aggregate: one entry for each (window, key) that changed since the last commit.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::kept::Kept;
use crate::record::Timestamp;

/// One key's partial aggregate of one window.
#[derive(Debug)]
pub(crate) struct Entry<A> {
    hash: u64,
    pub(crate) start: Timestamp,
    /// The largest event time in it.
    pub(crate) latest: Timestamp,
    key_at: usize,
    key_len: u32,
    pub(crate) acc: A,
}

/// Entries by (window, key). Keys are interned in one buffer; clearing keeps the memory that the next commit usually needs.
#[derive(Debug)]
pub(crate) struct Table<A> {
    index: HashTable<u32>,
    entries: Vec<Entry<A>>,
    keys: Vec<u8>,
    hasher: FixedState,
    kept: Kept,
}

impl<A> Table<A> {
    pub(crate) fn new() -> Self {
        Self {
            index: HashTable::new(),
            entries: Vec::new(),
            keys: Vec::new(),
            hasher: FixedState::default(),
            kept: Kept::default(),
        }
    }

    /// The entry of a window and key, and whether it was made just now, with `init` as its aggregate.
    #[inline]
    pub(crate) fn entry(&mut self, start: Timestamp, key: &[u8], init: impl FnOnce() -> A) -> (&mut Entry<A>, bool) {
        let hash = self.hash(start, key);
        if let Some(i) = self.find_hashed(hash, start, key) {
            return (&mut self.entries[i], false);
        }
        let Self { index, entries, keys, .. } = self;
        let at = entries.len();
        entries.push(Entry {
            hash,
            start,
            latest: Timestamp(i64::MIN),
            key_at: keys.len(),
            key_len: key.len() as u32,
            acc: init(),
        });
        keys.extend_from_slice(key);
        index.insert_unique(hash, at as u32, |&i| entries[i as usize].hash);
        (&mut entries[at], true)
    }

    /// The number of the entry of a window and key among [`Table::entries`].
    #[inline]
    pub(crate) fn find(&self, start: Timestamp, key: &[u8]) -> Option<usize> {
        self.find_hashed(self.hash(start, key), start, key)
    }

    #[inline]
    fn hash(&self, start: Timestamp, key: &[u8]) -> u64 {
        self.hasher.hash_one(key) ^ (start.0 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[inline]
    fn find_hashed(&self, hash: u64, start: Timestamp, key: &[u8]) -> Option<usize> {
        let is_it = |&i: &u32| {
            let entry = &self.entries[i as usize];
            entry.hash == hash && entry.start == start && self.key(entry) == key
        };
        self.index.find(hash, is_it).map(|&i| i as usize)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The memory that it holds, in use or not, but for what it had kept when it was last emptied ([`Kept::charge`]). What aggregates hold
    /// elsewhere is not known.
    pub(crate) fn bytes(&self) -> usize {
        self.kept.charge(self.in_use(), self.held())
    }

    fn in_use(&self) -> usize {
        self.entries.len() * (size_of::<Entry<A>>() + 2 * size_of::<u32>()) + self.keys.len()
    }

    fn held(&self) -> usize {
        self.entries.capacity() * size_of::<Entry<A>>() + self.keys.capacity() + self.index.allocation_size()
    }

    pub(crate) fn clear(&mut self) {
        self.clear_after(self.in_use());
    }

    fn clear_after(&mut self, in_use: usize) {
        if self.kept.gives_back(in_use, self.held()) {
            *self = Self { kept: self.kept, ..Self::new() };
            return;
        }
        self.index.clear();
        self.entries.clear();
        self.keys.clear();
    }

    pub(crate) fn entries(&self) -> &[Entry<A>] {
        &self.entries
    }

    pub(crate) fn aggregates_mut(&mut self) -> impl Iterator<Item = &mut A> {
        self.entries.iter_mut().map(|entry| &mut entry.acc)
    }

    pub(crate) fn key(&self, entry: &Entry<A>) -> &[u8] {
        &self.keys[entry.key_at..entry.key_at + entry.key_len as usize]
    }

    /// Puts the entries into the order of (window, key), the order of the store's rows. The next new entry ends it.
    pub(crate) fn sort(&mut self) {
        let keys = &self.keys;
        let key = |e: &Entry<A>| &keys[e.key_at..e.key_at + e.key_len as usize];
        self.entries.sort_unstable_by(|a, b| a.start.cmp(&b.start).then_with(|| key(a).cmp(key(b))));
        self.index.clear();
        let Self { index, entries, .. } = self;
        for (i, entry) in entries.iter().enumerate() {
            index.insert_unique(entry.hash, i as u32, |&i| entries[i as usize].hash);
        }
    }

    /// Takes all entries out in order, as (key, entry), and stops at the first error.
    pub(crate) fn drain<E>(&mut self, mut visit: impl FnMut(&[u8], Entry<A>) -> Result<(), E>) -> Result<(), E> {
        let (in_use, keys) = (self.in_use(), &self.keys);
        let visited = self.entries.drain(..).try_for_each(|entry| {
            let key = &keys[entry.key_at..entry.key_at + entry.key_len as usize];
            visit(key, entry)
        });
        self.clear_after(in_use);
        visited
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn fill(table: &mut Table<i64>, keys: u32) {
        for key in 0..keys {
            table.entry(Timestamp(0), &key.to_be_bytes(), || 0);
        }
    }

    #[test]
    fn a_peak_is_counted_as_it_is_held_and_given_back() {
        let mut table = Table::new();
        for empty in [Table::clear, |table: &mut Table<i64>| table.drain(|_, _| Ok::<(), ()>(())).unwrap()] {
            // One more than fit into what the last doubling made of it.
            fill(&mut table, (1 << 16) + 1);
            let entries = table.entries.capacity() * size_of::<Entry<i64>>();
            assert!(entries >= 2 * (1 << 16) * size_of::<Entry<i64>>());
            let (index, keys) = (table.index.capacity() * size_of::<u32>(), table.keys.capacity());
            assert!(table.bytes() >= entries + index + keys, "{}", table.bytes());
            empty(&mut table);
            assert_eq!((table.bytes(), table.held()), (0, 0));
            fill(&mut table, 10);
            empty(&mut table);
        }
    }

    #[test]
    fn what_the_usual_commit_needs_is_kept_and_counts_nothing() {
        for keys in [1_000, 50_000] {
            let mut table = Table::new();
            (0..2).for_each(|_| {
                fill(&mut table, keys);
                table.clear();
            });
            let held = table.held();
            assert!(held > keys as usize * size_of::<Entry<i64>>());
            fill(&mut table, keys);
            assert!(table.bytes() <= held);
            table.drain(|_, _| Ok::<(), ()>(())).unwrap();
            assert_eq!((table.bytes(), table.held()), (0, held));
        }
    }

    proptest! {
        #[test]
        fn counts_as_an_ordered_map_does(events in prop::collection::vec((0i64..4, "[a-c]{0,3}"), 0..200)) {
            let mut table = Table::new();
            let mut model: BTreeMap<(i64, String), (i64, i64)> = BTreeMap::new();
            for (i, (start, key)) in events.iter().enumerate() {
                let (entry, _) = table.entry(Timestamp(*start), key.as_bytes(), || 0i64);
                entry.acc += 1;
                entry.latest = Timestamp(i as i64);
                let counted = model.entry((*start, key.clone())).or_default();
                *counted = (counted.0 + 1, i as i64);
            }
            table.sort();
            let mut drained = Vec::new();
            let drain = table.drain(|key, e| {
                drained.push(((e.start.0, String::from_utf8_lossy(key).into_owned()), (e.acc, e.latest.0)));
                Ok::<(), ()>(())
            });
            prop_assert!(drain.is_ok());
            prop_assert_eq!(drained, model.into_iter().collect::<Vec<_>>());
            prop_assert!(table.is_empty());
        }
    }
}
