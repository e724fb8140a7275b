//! A window store: rows by (window, key), the totals of each window, and the changelog position that all of it stands for.
//!
//! Meta keys: `i` the identity (JSON) · `o` the position of the task's input committed last with it (`i64`) · `p` the position (`i64`) ·
//! `t` the topic that `o` is a position in (16 bytes) · `w ‖ i64 window start` the window's totals
//! (`u8 1 ‖ varint rows ‖ zigzag weight ‖ varint first changelog offset`). Integers are big-endian unless said otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::best::Best;
use super::{Space, StateStore, StoreBatch, StoreError, StoreErrorKind, StoreSnapshot, ranking, row};
use crate::record::{Offset, Timestamp};
use crate::varint;

const IDENTITY: &[u8] = b"i";
const INPUT: &[u8] = b"o";
const POSITION: &[u8] = b"p";
const INPUT_TOPIC: &[u8] = b"t";
const TOTALS: u8 = b'w';
const TOTALS_VERSION: u8 = 1;

/// The version of all layouts of a store.
pub const FORMAT: u32 = 1;

/// What a store belongs to. A store of another cluster or changelog holds somebody else's numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreIdentity {
    /// [`FORMAT`].
    pub format: u32,
    /// The broker's cluster id.
    pub cluster_id: String,
    /// The topic id of the changelog.
    pub changelog_id: String,
    /// The partition: each holds other keys.
    pub partition: u32,
    /// The application id.
    pub application_id: String,
    /// The window size counted with, in milliseconds.
    pub window_size_ms: i64,
    /// Whether the source was keyed by the grouping key, so that nothing was shuffled.
    pub keyed: bool,
}

impl StoreIdentity {
    /// What a store says that it belongs to; none where it says nothing, as a new one.
    fn read(snapshot: &dyn StoreSnapshot) -> Result<Option<Self>, StoreError> {
        let Some(bytes) = snapshot.get(Space::Meta, IDENTITY)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| garbled(&format!("its identity cannot be read: {e}")))
    }
}

/// What a window's rows add up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WindowTotals {
    /// How many rows (keys) it has.
    pub rows: u64,
    /// The sum of their weights (for counts, of the counts).
    pub weight: i64,
    /// The first changelog offset that was written for it: what lies before is not needed to restore it.
    pub first_offset: Offset,
}

/// What changed in one window.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WindowChange {
    pub(crate) rows: i64,
    pub(crate) weight: i64,
    /// Where the changelog has the first of the changes.
    pub(crate) first_offset: Option<Offset>,
}

/// The window store of one partition, as its task sees it.
pub(crate) struct WindowStore {
    store: Arc<dyn StateStore>,
    identity: Option<StoreIdentity>,
    position: Option<Offset>,
    input: Option<Offset>,
    input_topic: Option<Vec<u8>>,
    windows: BTreeMap<Timestamp, WindowTotals>,
    /// The windows without a ranking, final or not.
    unranked: BTreeSet<Timestamp>,
}

impl WindowStore {
    /// Reads what the store knows about itself.
    pub(crate) fn open(store: Arc<dyn StateStore>) -> Result<Self, StoreError> {
        let (mut windows, mut unranked) = (BTreeMap::new(), BTreeSet::new());
        let (identity, position, input, input_topic) = {
            let snapshot = store.snapshot();
            let offset = |key| -> Result<Option<Offset>, StoreError> {
                let Some(bytes) = snapshot.get(Space::Meta, key)? else { return Ok(None) };
                let bytes = bytes.try_into().map_err(|_| garbled("a position cannot be read"))?;
                Ok(Some(Offset(i64::from_be_bytes(bytes))))
            };
            let (position, input) = (offset(POSITION)?, offset(INPUT)?);
            scan_totals(&*snapshot, Timestamp(0), Timestamp(i64::MAX), &mut |start, totals| {
                windows.insert(start, totals);
                unranked.insert(start);
            })?;
            ranking::scan_heads(&*snapshot, Timestamp(0), Timestamp(i64::MAX), &mut |start, head| {
                if windows.get(&start).is_some_and(|totals| head.is_of(totals)) {
                    unranked.remove(&start);
                }
            })?;
            (StoreIdentity::read(&*snapshot)?, position, input, snapshot.get(Space::Meta, INPUT_TOPIC)?)
        };
        Ok(Self { store, identity, position, input, input_topic, windows, unranked })
    }

    pub(crate) fn identity(&self) -> Option<&StoreIdentity> {
        self.identity.as_ref()
    }

    pub(crate) fn state_store(&self) -> &Arc<dyn StateStore> {
        &self.store
    }

    /// The changelog position that the store stands for; none in a new store.
    pub(crate) fn position(&self) -> Option<Offset> {
        self.position
    }

    /// The position of the task's input that was committed last with what the store holds; none before the first commit here.
    pub(crate) fn input(&self) -> Option<Offset> {
        self.input
    }

    /// The task's input is that topic from here on. What is known of a position in another one is forgotten.
    pub(crate) fn read_from(&mut self, topic: [u8; 16]) -> Result<(), StoreError> {
        if self.input_topic.as_deref() == Some(&topic) {
            return Ok(());
        }
        let mut batch = StoreBatch::new();
        batch.put(Space::Meta, INPUT_TOPIC, &topic);
        if self.input_topic.is_some() {
            batch.delete(Space::Meta, INPUT);
        }
        self.store.write_waiting(&batch)?;
        self.input = self.input.filter(|_| self.input_topic.is_none());
        self.input_topic = Some(topic.to_vec());
        Ok(())
    }

    pub(crate) fn windows(&self) -> &BTreeMap<Timestamp, WindowTotals> {
        &self.windows
    }

    pub(crate) fn multi_get(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        self.store.multi_get(&keys)
    }

    /// Writes the identity of a new store.
    pub(crate) fn initialise(&mut self, identity: &StoreIdentity, position: Offset) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(identity).map_err(|e| garbled(&e.to_string()))?;
        let mut batch = StoreBatch::new();
        batch.put(Space::Meta, IDENTITY, &bytes);
        batch.put(Space::Meta, POSITION, &position.0.to_be_bytes());
        self.store.write_waiting(&batch)?;
        self.identity = Some(identity.clone());
        self.position = Some(position);
        Ok(())
    }

    /// Applies changed rows, which `batch` holds already, with what they do to the windows, the position they lead to, and that of the
    /// task's input that was committed with them here.
    /// All or nothing: after an error the store is as it was and `batch` can be given again.
    pub(crate) fn apply(
        &mut self,
        batch: &mut StoreBatch,
        changes: &BTreeMap<Timestamp, WindowChange>,
        position: Offset,
        input: Offset,
    ) -> Result<(), StoreError> {
        self.apply_by(|store, batch| store.write(batch), batch, changes, position, Some(input))
    }

    /// As [`WindowStore::apply`], for what was read from the changelog: waits for room.
    pub(crate) fn restore(
        &mut self,
        batch: &mut StoreBatch,
        changes: &BTreeMap<Timestamp, WindowChange>,
        position: Offset,
    ) -> Result<(), StoreError> {
        self.apply_by(|store, batch| store.write_waiting(batch), batch, changes, position, None)
    }

    fn apply_by(
        &mut self,
        write: impl FnOnce(&dyn StateStore, &StoreBatch) -> Result<(), StoreError>,
        batch: &mut StoreBatch,
        changes: &BTreeMap<Timestamp, WindowChange>,
        position: Offset,
        input: Option<Offset>,
    ) -> Result<(), StoreError> {
        let mark = batch.mark();
        let mut changed = Vec::with_capacity(changes.len());
        for (&start, change) in changes {
            let totals = self.changed_totals(start, change)?;
            batch.put(Space::Meta, &totals_key(start), &encode_totals(&totals));
            changed.push((start, totals));
        }
        batch.put(Space::Meta, POSITION, &position.0.to_be_bytes());
        if let Some(input) = input {
            batch.put(Space::Meta, INPUT, &input.0.to_be_bytes());
        }
        if let Err(error) = write(&*self.store, batch) {
            batch.truncate(mark);
            return Err(error);
        }
        batch.clear();
        self.unranked.extend(changed.iter().map(|(start, _)| *start));
        self.windows.extend(changed);
        self.position = Some(position);
        self.input = input.or(self.input);
        Ok(())
    }

    fn changed_totals(&self, start: Timestamp, change: &WindowChange) -> Result<WindowTotals, StoreError> {
        let before = self.windows.get(&start);
        let mut totals = before.copied().unwrap_or_default();
        totals.rows =
            totals.rows.checked_add_signed(change.rows).ok_or_else(|| garbled("a window has fewer rows than it lost"))?;
        totals.weight += change.weight;
        if let Some(first) = change.first_offset
            && before.is_none_or(|before| first < before.first_offset)
        {
            totals.first_offset = first;
        }
        Ok(totals)
    }

    /// Removes the windows that start before `before`, and says whether there were any.
    pub(crate) fn expire(&mut self, before: Timestamp) -> Result<bool, StoreError> {
        if self.windows.range(..before).next().is_none() {
            return Ok(false);
        }
        let mut batch = StoreBatch::new();
        batch.delete_range(Space::Rows, &row::first_key(Timestamp(0)), &row::first_key(before));
        batch.delete_range(Space::Meta, &totals_key(Timestamp(0)), &totals_key(before));
        ranking::delete_before(before, &mut batch);
        self.store.write(&batch)?;
        self.windows = self.windows.split_off(&before);
        self.unranked = self.unranked.split_off(&before);
        Ok(true)
    }

    /// The newest window without a ranking among those that start before `before`.
    pub(crate) fn newest_unranked(&self, before: Timestamp) -> Option<Timestamp> {
        self.unranked.range(..before).next_back().copied()
    }

    /// Writes the ranking of a final window, unless the window has expired meanwhile.
    pub(crate) fn rank(&mut self, start: Timestamp, candidates: Best, longest: usize) -> Result<(), StoreError> {
        if let Some(totals) = self.windows.get(&start) {
            let mut batch = StoreBatch::new();
            ranking::put(start, totals, candidates, longest, &mut batch);
            self.store.write(&batch)?;
        }
        self.unranked.remove(&start);
        Ok(())
    }

    /// A window that cannot be ranked is not tried again before the store is next opened.
    pub(crate) fn leave_unranked(&mut self, start: Timestamp) {
        self.unranked.remove(&start);
    }

    /// The changelog offset before which nothing is needed any more to restore the store as it is now. After a crash it may not be as it
    /// is now: a flush that begins after this makes it hold then too.
    pub(crate) fn needed_from(&self) -> Option<Offset> {
        let first = self.windows.values().map(|totals| totals.first_offset).min();
        first.or(self.position).min(self.position)
    }

    /// Visits up to `limit` rows of a window behind `after`, and says whether the window ends there.
    pub(crate) fn rows_after(
        &self,
        start: Timestamp,
        end: Timestamp,
        after: Option<&[u8]>,
        limit: usize,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<bool, StoreError> {
        let from = after.map_or_else(|| row::first_key(start).to_vec(), |last| [last, &[0]].concat());
        let mut seen = 0;
        let mut more = false;
        self.store.snapshot().scan(Space::Rows, &from, &row::first_key(end), &mut |key, value| {
            if seen == limit {
                more = true;
                return ControlFlow::Break(());
            }
            seen += 1;
            visit(key, value);
            ControlFlow::Continue(())
        })?;
        Ok(!more)
    }
}

/// Visits the totals of the windows that start in `from..to`, ascending.
pub(crate) fn scan_totals(
    snapshot: &dyn StoreSnapshot,
    from: Timestamp,
    to: Timestamp,
    visit: &mut dyn FnMut(Timestamp, WindowTotals),
) -> Result<(), StoreError> {
    let mut unreadable = false;
    snapshot.scan(Space::Meta, &totals_key(from), &totals_key(to), &mut |key, value| {
        let start = key.get(1..).and_then(|bytes| bytes.try_into().ok()).map(i64::from_be_bytes);
        match (start, decode_totals(value)) {
            (Some(start), Some(totals)) => visit(Timestamp(start), totals),
            _ => unreadable = true,
        }
        if unreadable { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if unreadable { Err(garbled("the totals of a window cannot be read")) } else { Ok(()) }
}

fn totals_key(start: Timestamp) -> [u8; 9] {
    let mut key = [TOTALS; 9];
    key[1..].copy_from_slice(&row::first_key(start));
    key
}

fn encode_totals(totals: &WindowTotals) -> Vec<u8> {
    let mut bytes = vec![TOTALS_VERSION];
    varint::put_unsigned(totals.rows, &mut bytes);
    varint::put_signed(totals.weight, &mut bytes);
    varint::put_unsigned(totals.first_offset.0 as u64, &mut bytes);
    bytes
}

fn decode_totals(bytes: &[u8]) -> Option<WindowTotals> {
    let (&TOTALS_VERSION, mut rest) = bytes.split_first()? else { return None };
    let rows = varint::take_unsigned(&mut rest)?;
    let weight = varint::take_signed(&mut rest)?;
    let first_offset = Offset(i64::try_from(varint::take_unsigned(&mut rest)?).ok()?);
    rest.is_empty().then_some(WindowTotals { rows, weight, first_offset })
}

fn garbled(what: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, format!("the window store is garbled: {what}"))
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryStore;
    use super::*;
    use proptest::prelude::*;

    fn change(rows: i64, weight: i64, first: i64) -> WindowChange {
        WindowChange { rows, weight, first_offset: Some(Offset(first)) }
    }

    #[test]
    fn totals_position_and_expiry_survive_reopening() {
        let memory = Arc::new(MemoryStore::new());
        let mut store = WindowStore::open(memory.clone()).unwrap();
        let mut batch = StoreBatch::new();
        for (start, key) in [(0, b"a"), (10, b"a"), (10, b"b")] {
            batch.put(Space::Rows, &row::key(Timestamp(start), key), b"row");
        }
        let changes = BTreeMap::from([(Timestamp(0), change(1, 5, 3)), (Timestamp(10), change(2, 7, 4))]);
        store.apply(&mut batch, &changes, Offset(9), Offset(77)).unwrap();
        store.restore(&mut batch, &BTreeMap::from([(Timestamp(10), change(0, 1, 9))]), Offset(10)).unwrap();
        assert_eq!(store.needed_from(), Some(Offset(3)));
        assert!(store.expire(Timestamp(10)).unwrap());

        let reopened = WindowStore::open(memory.clone()).unwrap();
        assert_eq!((reopened.position(), reopened.input()), (Some(Offset(10)), Some(Offset(77))));
        assert_eq!(reopened.needed_from(), Some(Offset(4)));
        let mut moved = WindowStore::open(memory.clone()).unwrap();
        moved.read_from([1; 16]).unwrap();
        assert_eq!(moved.input(), Some(Offset(77)), "what it was a position in was not said");
        moved.read_from([2; 16]).unwrap();
        assert_eq!((moved.input(), WindowStore::open(memory.clone()).unwrap().input()), (None, None));
        let expected = WindowTotals { rows: 2, weight: 8, first_offset: Offset(4) };
        assert_eq!(reopened.windows(), &BTreeMap::from([(Timestamp(10), expected)]));
        let mut rows = Vec::new();
        let all = reopened.rows_after(Timestamp(10), Timestamp(20), None, 1, &mut |key, _| rows.push(key.to_vec())).unwrap();
        assert!(!all);
        let all =
            reopened.rows_after(Timestamp(10), Timestamp(20), Some(&rows[0].clone()), 1, &mut |key, _| rows.push(key.to_vec()));
        assert!(all.unwrap());
        assert_eq!(rows, [row::key(Timestamp(10), b"a"), row::key(Timestamp(10), b"b")]);
    }

    proptest! {
        #[test]
        fn totals_round_trip(rows in any::<u64>(), weight in any::<i64>(), first in 0i64..) {
            let totals = WindowTotals { rows, weight, first_offset: Offset(first) };
            prop_assert_eq!(decode_totals(&encode_totals(&totals)), Some(totals));
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
            let _ = decode_totals(&bytes);
        }
    }
}
