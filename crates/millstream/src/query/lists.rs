//! What one partition knows of its keys' counts over a period, from the rankings of its windows: a lower and an upper bound for each.
//!
//! A key's count in a window is known where the window's list was read down to the key, and is between 0 and the list's cut where
//! not. Windows without a ranking (those that are not final, most of all) are added up row by row, so that their counts are known.

use std::ops::ControlFlow;

use crate::record::Timestamp;
use crate::store::ranking::{self, Head};
use crate::store::window_store::scan_totals;
use crate::store::{StoreError, StoreSnapshot, row};
use crate::task::table::{Entry, Table};

use super::Period;
use super::sums::{Means, scan_counts};

/// How many rows are looked up at once.
const ROWS_AT_ONCE: usize = 4_096;

/// The key of [`Table`] entries: one for each key, whatever the window.
pub(super) const ANY_WINDOW: Timestamp = Timestamp(0);

/// One partition's lists.
pub(super) struct Lists<'a> {
    snapshot: &'a dyn StoreSnapshot,
    period: Period,
    /// Ascending.
    ranked: Vec<RankedWindow>,
    /// The last piece read.
    piece: u8,
    unranked_rows: u64,
    means: Means<'a>,
    seen: Table<Seen>,
}

struct RankedWindow {
    start: Timestamp,
    rows: u64,
    head: Head,
}

/// What is known of a key.
#[derive(Default)]
struct Seen {
    /// Its counts in windows without a ranking.
    unranked: i64,
    /// Its counts in lists, as far as they were read.
    listed: i64,
    /// By how much those exceed the cuts of the same lists.
    excess: i64,
    /// In how many lists it was read.
    lists: usize,
}

/// A key whose count is known to be between two bounds.
pub(super) struct Bounded<'a> {
    pub(super) key: &'a [u8],
    pub(super) least: i64,
    pub(super) most: i64,
    number: usize,
}

impl<'a> Lists<'a> {
    /// Reads the lists of a period down to that piece, and all rows of windows without one. Where most rows are such, it reads
    /// neither: nothing would be won.
    pub(super) fn read(snapshot: &'a dyn StoreSnapshot, period: Period, piece: u8, means: Means<'a>) -> Result<Self, StoreError> {
        let mut lists = Self { snapshot, period, ranked: Vec::new(), piece, unranked_rows: 0, means, seen: Table::new() };
        let unranked = lists.find_windows()?;
        if !lists.are_few() {
            lists.read_unranked(&unranked)?;
            lists.read_lists()?;
        }
        Ok(lists)
    }

    /// Whether there are more keys than may be held: not all of them are known.
    pub(super) fn are_too_many(&self) -> bool {
        self.seen.bytes() > self.means.bytes
    }

    /// Whether most rows of the period are in windows without a list, and none were read.
    pub(super) fn are_few(&self) -> bool {
        self.unranked_rows > self.rows()
    }

    /// Finds the windows with a list, and gives the first and the last of each run of windows without one.
    fn find_windows(&mut self) -> Result<Vec<(Timestamp, Timestamp)>, StoreError> {
        let Period { from, to } = self.period;
        let mut heads = Vec::new();
        ranking::scan_heads(self.snapshot, from, to, &mut |start, head| heads.push((start, head)))?;
        let mut heads = heads.into_iter().peekable();
        let mut unranked: Vec<(Timestamp, Timestamp)> = Vec::new();
        let mut before_is_unranked = false;
        scan_totals(self.snapshot, from, to, &mut |start, totals| {
            while heads.next_if(|(of, _)| *of < start).is_some() {}
            let head = heads.next_if(|(of, head)| *of == start && head.is_of(&totals));
            let is_ranked = head.is_some();
            match (head, unranked.last_mut()) {
                (Some((_, head)), _) => self.ranked.push(RankedWindow { start, rows: totals.rows, head }),
                (None, Some((_, to))) if before_is_unranked => *to = start,
                (None, _) => unranked.push((start, start)),
            }
            before_is_unranked = !is_ranked;
            self.unranked_rows += if is_ranked { 0 } else { totals.rows };
        })?;
        Ok(unranked)
    }

    fn read_unranked(&mut self, runs: &[(Timestamp, Timestamp)]) -> Result<(), StoreError> {
        let (seen, means) = (&mut self.seen, self.means);
        runs.iter().try_for_each(|&(first, last)| {
            let (from, to) = (row::first_key(first), row::first_key(Timestamp(last.0.saturating_add(1))));
            scan_counts(self.snapshot, &from, &to, means, &mut |key, count| {
                seen.entry(ANY_WINDOW, key, Seen::default).0.acc.unranked += count;
                if seen.bytes() > means.bytes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        })
    }

    fn read_lists(&mut self) -> Result<(), StoreError> {
        for seen in self.seen.aggregates_mut() {
            *seen = Seen { unranked: seen.unranked, ..Seen::default() };
        }
        let piece = self.piece;
        let cuts: Vec<i64> = self.ranked.iter().map(|window| window.head.cut(piece)).collect();
        let mut table = std::mem::replace(&mut self.seen, Table::new());
        let most = self.means.bytes;
        let outcome = self.visit_lists(&mut |number, key, count| {
            if table.bytes() > most {
                return;
            }
            let seen = &mut table.entry(ANY_WINDOW, key, Seen::default).0.acc;
            seen.listed += count;
            seen.excess += count - cuts[number];
            seen.lists += 1;
        });
        self.seen = table;
        outcome
    }

    /// Visits what was read of the lists as (number of the window, key, count).
    fn visit_lists(&self, visit: &mut dyn FnMut(usize, &[u8], i64)) -> Result<(), StoreError> {
        let (Some(first), Some(last)) = (self.ranked.first(), self.ranked.last()) else { return Ok(()) };
        let (from, to) = (first.start, Timestamp(last.start.0.saturating_add(1)));
        for piece in 0..=self.piece {
            self.means.check()?;
            let mut number = 0;
            ranking::scan_piece(self.snapshot, piece, from, to, &mut |start, key, count| {
                while self.ranked[number].start < start {
                    number += 1;
                }
                // What is listed of a window that has changed since is not used.
                if self.ranked[number].start == start {
                    visit(number, key, count);
                }
            })?;
        }
        Ok(())
    }

    /// The last piece read.
    pub(super) fn piece(&self) -> u8 {
        self.piece
    }

    /// Reads the lists down to that piece.
    pub(super) fn read_to(&mut self, piece: u8) -> Result<(), StoreError> {
        self.piece = piece;
        self.read_lists()
    }

    /// Forgets the keys seen, which take memory.
    pub(super) fn forget(&mut self) {
        self.seen = Table::new();
    }

    /// The largest count that a key may have which is in no list down to that piece, and in no window without a list.
    pub(super) fn most_unseen(&self, piece: u8) -> i64 {
        self.ranked.iter().map(|window| window.head.cut(piece)).fold(0, i64::saturating_add)
    }

    /// How many rows the windows with a list have.
    pub(super) fn rows(&self) -> u64 {
        self.ranked.iter().map(|window| window.rows).sum()
    }

    /// How many windows have a list.
    pub(super) fn windows(&self) -> usize {
        self.ranked.len()
    }

    /// All keys seen.
    pub(super) fn bounded(&self) -> impl Iterator<Item = Bounded<'_>> {
        let most_unseen = self.most_unseen(self.piece);
        self.seen.entries().iter().enumerate().map(move |(number, entry)| {
            let Entry { acc: Seen { unranked, listed, excess, .. }, .. } = entry;
            Bounded { key: self.seen.key(entry), least: unranked + listed, most: unranked + most_unseen + excess, number }
        })
    }

    /// How many rows [`Lists::look_up`] would have to read for a key, at most.
    pub(super) fn unknown_rows(&self, key: &Bounded<'_>) -> usize {
        if key.least == key.most { 0 } else { self.ranked.len() - self.seen.entries()[key.number].acc.lists }
    }

    /// The counts of keys of which only bounds are known, in the order of the keys.
    pub(super) fn look_up(&self, mut keys: Vec<Bounded<'_>>, visit: &mut dyn FnMut(&[u8], i64)) -> Result<(), StoreError> {
        keys.sort_unstable_by_key(|key| key.key);
        let known = self.known_counts(&keys)?;
        let mut counts: Vec<i64> = keys.iter().map(|key| key.least).collect();
        let (mut of, mut row_keys) = (Vec::new(), Vec::new());
        for (number, window) in self.ranked.iter().enumerate() {
            for (key, count) in keys.iter().enumerate() {
                if !known[number * keys.len() + key] {
                    of.push(key);
                    row_keys.push(row::key(window.start, count.key));
                }
            }
            if row_keys.len() >= ROWS_AT_ONCE || number + 1 == self.ranked.len() {
                self.means.check()?;
                self.add_rows(&row_keys, &of, &mut counts)?;
                of.clear();
                row_keys.clear();
            }
        }
        keys.iter().zip(counts).for_each(|(key, count)| visit(key.key, count));
        Ok(())
    }

    /// For each window with a list, for each of these keys: whether its count there needs no looking up.
    fn known_counts(&self, keys: &[Bounded<'_>]) -> Result<Vec<bool>, StoreError> {
        let mut numbers = vec![None; self.seen.entries().len()];
        keys.iter().enumerate().for_each(|(number, key)| numbers[key.number] = Some(number));
        let no_more = |window: &RankedWindow| window.head.cut(self.piece) == 0;
        let mut known: Vec<bool> = self.ranked.iter().flat_map(|window| keys.iter().map(move |_| no_more(window))).collect();
        self.visit_lists(&mut |window, key, _| {
            if let Some(number) = self.seen.find(ANY_WINDOW, key).and_then(|at| numbers[at]) {
                known[window * keys.len() + number] = true;
            }
        })?;
        Ok(known)
    }

    fn add_rows(&self, row_keys: &[Vec<u8>], of: &[usize], counts: &mut [i64]) -> Result<(), StoreError> {
        let keys: Vec<&[u8]> = row_keys.iter().map(Vec::as_slice).collect();
        for (number, found) in self.snapshot.multi_get(&keys)?.into_iter().enumerate() {
            if let Some(found) = found {
                let count = row::decode_count(&found).ok_or_else(|| row::unreadable(self.period.from, keys[number]))?;
                counts[of[number]] += count;
            }
        }
        Ok(())
    }
}
