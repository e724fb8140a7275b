//! The ranking of a final window: the rows with the largest counts, best first, in pieces that double in size.
//!
//! Lies in [`Space::Derived`]. What lists have in common comes first in their keys, so that a query reads the first pieces of many
//! windows in one go. Integers are big-endian unless said otherwise.
//!
//! - `h ‖ i64 window start`: the head. `u8 1 ‖ varint rows ‖ zigzag weight ‖ u8 pieces`, and for each piece `varint cut`. Rows and
//!   weight are the window's totals when it was ranked. A cut is the largest count of any row that is listed neither in the piece
//!   nor before it; 0 where there is none.
//! - `l ‖ u8 piece ‖ i64 window start`: a piece. `u8 1`, and for each row `varint key length ‖ key ‖ varint count`.
//!
//! Only windows without a negative count are ranked, so a row that is not listed counts between 0 and the cut. Rows of 0 are not listed.

use std::ops::ControlFlow;

use super::best::Best;
use super::window_store::WindowTotals;
use super::{Space, StoreBatch, StoreError, StoreErrorKind, StoreSnapshot, row};
use crate::record::Timestamp;
use crate::varint;

const HEAD: u8 = b'h';
const PIECE: u8 = b'l';
const VERSION: u8 = 1;

/// How many pieces a list has at most. The first one holds a 64th of the longest list.
pub(crate) const PIECES: u8 = 7;

/// What a query knows of a ranking before it reads any of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    rows: u64,
    weight: i64,
    cuts: Vec<i64>,
}

impl Head {
    /// Whether this is the ranking of a window that has these totals. Final windows do not change; a ranking of anything else
    /// than the window as it is would be worse than none.
    pub(crate) fn is_of(&self, totals: &WindowTotals) -> bool {
        (self.rows, self.weight) == (totals.rows, totals.weight)
    }

    /// The largest count that a row may have which is not listed up to and with that piece.
    pub(crate) fn cut(&self, piece: u8) -> i64 {
        self.cuts.get(usize::from(piece)).or(self.cuts.last()).copied().unwrap_or(0)
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        varint::put_unsigned(self.rows, &mut bytes);
        varint::put_signed(self.weight, &mut bytes);
        bytes.push(self.cuts.len() as u8);
        self.cuts.iter().for_each(|cut| varint::put_unsigned(*cut as u64, &mut bytes));
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&VERSION, mut rest) = bytes.split_first()? else { return None };
        let rows = varint::take_unsigned(&mut rest)?;
        let weight = varint::take_signed(&mut rest)?;
        let (&pieces, mut rest) = rest.split_first()?;
        let mut cut = || i64::try_from(varint::take_unsigned(&mut rest)?).ok();
        let cuts = (0..pieces.min(PIECES + 1)).map(|_| cut()).collect::<Option<Vec<_>>>()?;
        (rest.is_empty() && pieces <= PIECES).then_some(Self { rows, weight, cuts })
    }
}

/// How many rows a list of `longest` has up to and with that piece.
pub(crate) fn listed_through(piece: u8, longest: usize) -> usize {
    (longest.div_ceil(1 << (PIECES - 1)) << piece.min(PIECES - 1)).min(longest)
}

/// What a ranking of `longest` rows is made from: offer it every row of the window. It keeps one more than it lists, so as to
/// know the largest count that it does not list.
pub(crate) fn candidates(longest: usize) -> Best {
    Best::new(longest + 1)
}

/// Puts the ranking of a window into `batch`.
pub(crate) fn put(start: Timestamp, totals: &WindowTotals, candidates: Best, longest: usize, batch: &mut StoreBatch) {
    let ranked: Vec<_> = candidates.into_sorted().collect();
    let mut cuts = Vec::new();
    let (mut from, mut value) = (0, Vec::new());
    for piece in 0..PIECES {
        let to = listed_through(piece, longest).min(ranked.len());
        if from == to {
            break;
        }
        value.clear();
        value.push(VERSION);
        for (key, count) in &ranked[from..to] {
            varint::put_unsigned(key.len() as u64, &mut value);
            value.extend_from_slice(key);
            varint::put_unsigned(*count as u64, &mut value);
        }
        batch.put(Space::Derived, &piece_key(piece, start), &value);
        cuts.push(ranked.get(to).map_or(0, |(_, count)| *count));
        from = to;
    }
    let head = Head { rows: totals.rows, weight: totals.weight, cuts };
    batch.put(Space::Derived, &head_key(start), &head.encode());
}

/// Removes the rankings of all windows that start before `before`.
pub(crate) fn delete_before(before: Timestamp, batch: &mut StoreBatch) {
    batch.delete_range(Space::Derived, &head_key(Timestamp(0)), &head_key(before));
    for piece in 0..PIECES {
        batch.delete_range(Space::Derived, &piece_key(piece, Timestamp(0)), &piece_key(piece, before));
    }
}

/// Visits the heads of the windows that start in `from..to`, ascending.
pub(crate) fn scan_heads(
    snapshot: &dyn StoreSnapshot,
    from: Timestamp,
    to: Timestamp,
    visit: &mut dyn FnMut(Timestamp, Head),
) -> Result<(), StoreError> {
    scan(snapshot, &head_key(from), &head_key(to), &mut |start, value| Head::decode(value).map(|head| visit(start, head)))
}

/// Visits the rows of that piece of the windows that start in `from..to`: window by window, each in order.
pub(crate) fn scan_piece(
    snapshot: &dyn StoreSnapshot,
    piece: u8,
    from: Timestamp,
    to: Timestamp,
    visit: &mut dyn FnMut(Timestamp, &[u8], i64),
) -> Result<(), StoreError> {
    scan(snapshot, &piece_key(piece, from), &piece_key(piece, to), &mut |start, value| {
        let (&VERSION, mut rest) = value.split_first()? else { return None };
        while !rest.is_empty() {
            let length = usize::try_from(varint::take_unsigned(&mut rest)?).ok()?;
            let (key, after) = rest.split_at_checked(length)?;
            rest = after;
            visit(start, key, i64::try_from(varint::take_unsigned(&mut rest)?).ok()?);
        }
        Some(())
    })
}

/// Visits entries whose keys end in a window start until one cannot be read.
fn scan(
    snapshot: &dyn StoreSnapshot,
    from: &[u8],
    to: &[u8],
    visit: &mut dyn FnMut(Timestamp, &[u8]) -> Option<()>,
) -> Result<(), StoreError> {
    let mut unreadable = false;
    snapshot.scan(Space::Derived, from, to, &mut |key, value| {
        let start = key.last_chunk::<8>().map(|start| Timestamp(i64::from_be_bytes(*start)));
        unreadable = start.and_then(|start| visit(start, value)).is_none();
        if unreadable { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    match unreadable {
        true => {
            Err(StoreError::new(StoreErrorKind::Corrupt, "the window store is garbled: the ranking of a window cannot be read"))
        }
        false => Ok(()),
    }
}

fn head_key(start: Timestamp) -> [u8; 9] {
    let mut key = [HEAD; 9];
    key[1..].copy_from_slice(&row::first_key(start));
    key
}

fn piece_key(piece: u8, start: Timestamp) -> [u8; 10] {
    let mut key = [PIECE; 10];
    key[1] = piece;
    key[2..].copy_from_slice(&row::first_key(start));
    key
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryStore;
    use super::super::{StateStore, StoreChange};
    use super::*;
    use proptest::prelude::*;

    const TOTALS: WindowTotals = WindowTotals { rows: 4, weight: 312, first_offset: crate::record::Offset(0) };

    fn ranked(rows: &[(&str, i64)], longest: usize) -> StoreBatch {
        let (mut best, mut batch) = (candidates(longest), StoreBatch::new());
        rows.iter().for_each(|(key, count)| best.offer(*count, key.as_bytes()));
        put(Timestamp(300_000), &TOTALS, best, longest, &mut batch);
        batch
    }

    #[test]
    fn the_layout_stands() {
        let batch = ranked(&[("a", 4), ("b", 300), ("c", 0), ("d", 8)], 2);
        let start = [0, 0, 0, 0, 0, 4, 0x93, 0xe0];
        let keys =
            [[b"l\x00".as_slice(), &start].concat(), [b"l\x01".as_slice(), &start].concat(), [b"h".as_slice(), &start].concat()];
        let values: [&[u8]; 3] = [&[1, 1, b'b', 0xac, 2], &[1, 1, b'd', 8], &[1, 4, 0xf0, 4, 2, 8, 4]];
        let expected: Vec<_> = keys.iter().zip(values).map(|(k, v)| StoreChange::Put(Space::Derived, k, v)).collect();
        assert_eq!(batch.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn pieces_double() {
        let listed = |longest| (0..PIECES).map(|piece| listed_through(piece, longest)).collect::<Vec<_>>();
        assert_eq!(listed(1024), [16, 32, 64, 128, 256, 512, 1024]);
        assert_eq!(listed(100), [2, 4, 8, 16, 32, 64, 100]);
        assert_eq!(listed(1), [1; 7]);
    }

    proptest! {
        #[test]
        fn rankings_round_trip(
            rows in prop::collection::btree_map("[a-z]{0,3}", 0i64..20, 0..40), longest in 1usize..50,
        ) {
            let (mut best, mut batch) = (candidates(longest), StoreBatch::new());
            rows.iter().for_each(|(key, count)| best.offer(*count, key.as_bytes()));
            put(Timestamp(10), &TOTALS, best, longest, &mut batch);
            let store = MemoryStore::new();
            store.write(&batch).unwrap();

            let mut sorted: Vec<_> = rows.into_iter().filter(|(_, count)| *count > 0).collect();
            sorted.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            let mut heads = Vec::new();
            scan_heads(&*store.snapshot(), Timestamp(0), Timestamp(20), &mut |start, head| heads.push((start, head))).unwrap();
            let [(Timestamp(10), head)] = heads.as_slice() else { panic!("{heads:?}") };
            let others = WindowTotals { weight: 1, ..TOTALS };
            prop_assert!(head.is_of(&TOTALS) && !head.is_of(&others));
            let mut listed = Vec::new();
            for piece in 0..PIECES {
                scan_piece(&*store.snapshot(), piece, Timestamp(0), Timestamp(20), &mut |_, key, count| {
                    listed.push((String::from_utf8_lossy(key).into_owned(), count));
                }).unwrap();
                let so_far = listed_through(piece, longest).min(sorted.len());
                prop_assert_eq!(&listed, &sorted[..so_far]);
                prop_assert_eq!(head.cut(piece), sorted.get(so_far).map_or(0, |(_, count)| *count));
            }

            let mut removal = StoreBatch::new();
            delete_before(Timestamp(11), &mut removal);
            store.write(&removal).unwrap();
            let mut left = 0;
            store.snapshot().scan(Space::Derived, &[], &[255], &mut |_, _| { left += 1; ControlFlow::Continue(()) }).unwrap();
            prop_assert_eq!(left, 0);
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
            let _ = Head::decode(&bytes);
            let (store, mut batch) = (MemoryStore::new(), StoreBatch::new());
            batch.put(Space::Derived, &piece_key(0, Timestamp(1)), &bytes);
            store.write(&batch).unwrap();
            let _ = scan_piece(&*store.snapshot(), 0, Timestamp(0), Timestamp(2), &mut |_, _, _| ());
        }
    }
}
