//! The uncommitted part of an aggregate: one entry for each (window, key) that changed since the last commit.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

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

/// Entries by (window, key). Keys are interned in one buffer; clearing keeps the memory for the next commit.
#[derive(Debug)]
pub(crate) struct Table<A> {
    index: HashTable<u32>,
    entries: Vec<Entry<A>>,
    keys: Vec<u8>,
    hasher: FixedState,
}

impl<A> Table<A> {
    pub(crate) fn new() -> Self {
        Self { index: HashTable::new(), entries: Vec::new(), keys: Vec::new(), hasher: FixedState::default() }
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

    /// Roughly the memory in use.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.len() * (size_of::<Entry<A>>() + 2 * size_of::<u32>()) + self.keys.len()
    }

    pub(crate) fn clear(&mut self) {
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

    /// Takes all entries out in order, as (key, entry, number), and stops at the first error.
    pub(crate) fn drain<E>(&mut self, mut visit: impl FnMut(&[u8], Entry<A>, usize) -> Result<(), E>) -> Result<(), E> {
        let keys = &self.keys;
        let visited = self.entries.drain(..).enumerate().try_for_each(|(i, entry)| {
            let key = &keys[entry.key_at..entry.key_at + entry.key_len as usize];
            visit(key, entry, i)
        });
        self.clear();
        visited
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

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
            let drain = table.drain(|key, e, _| {
                drained.push(((e.start.0, String::from_utf8_lossy(key).into_owned()), (e.acc, e.latest.0)));
                Ok::<(), ()>(())
            });
            prop_assert!(drain.is_ok());
            prop_assert_eq!(drained, model.into_iter().collect::<Vec<_>>());
            prop_assert!(table.is_empty());
        }
    }
}
