//! The keys with the largest counts over a period, exact, without reading every row where the rankings of final windows allow it.
//!
//! A threshold algorithm on bounds, as Fagin's NRA with lookups at its end. The lists of all windows are read to some depth, which
//! gives each key seen a lower and an upper bound of its count, and all others one upper bound together. The `limit`-th largest of
//! the lower bounds is a threshold: a key that cannot reach it is not among the best. Where keys that were not seen could, the
//! lists are read deeper. Of keys that were seen and can, the missing rows are looked up. Where that would cost as much as adding
//! up all rows of a partition, those are added up instead, which is decided before much is read in vain.

use std::ops::ControlFlow;

use super::lists::{ANY_WINDOW, Bounded, Lists};
use super::sums::{Means, scan_counts};
use super::{KeyCount, Period};
use crate::record::Timestamp;
use crate::store::best::Best;
use crate::store::ranking::{PIECES, listed_through};
use crate::store::window_store::scan_totals;
use crate::store::{StoreError, StoreSnapshot, row};
use crate::task::table::Table;

/// What is reckoned with when it is decided how to go on.
#[derive(Debug, Clone, Copy)]
struct Costs {
    /// What looking up one row costs, in rows read in order.
    lookup: u64,
    /// What part of a partition's rows may be read of its lists before it is known that they decide.
    try_one_in: u64,
    /// How many times the threshold may be missed by keys that are not listed before that counts as out of reach.
    reach: i64,
}

/// A lookup mostly reads a block of its own: a few microseconds where that is in the cache, dozens where not. A row read in order
/// takes a fifth of one.
const COSTS: Costs = Costs { lookup: 64, try_one_in: 8, reach: 8 };

/// The longest list of a window that is reckoned with. Shorter ones cost nothing but a needless step.
const LONGEST: usize = 1_024;

/// A partition could not be read.
#[derive(Debug)]
pub(super) struct Failed {
    /// Which of the snapshots.
    pub(super) number: usize,
    pub(super) error: StoreError,
}

/// The `limit` largest counts over all partitions: largest first, equal ones by key ascending. A key lies in one partition only.
pub(super) fn best(
    snapshots: &[Box<dyn StoreSnapshot + '_>],
    period: Period,
    limit: usize,
    means: Means<'_>,
) -> Result<Vec<KeyCount>, Failed> {
    best_at(snapshots, period, limit, means, COSTS)
}

fn best_at(
    snapshots: &[Box<dyn StoreSnapshot + '_>],
    period: Period,
    limit: usize,
    means: Means<'_>,
    costs: Costs,
) -> Result<Vec<KeyCount>, Failed> {
    let mut best = Best::new(limit);
    if limit > 0 {
        // The lists of all partitions are held at once, and without them a query takes very long; the sums of one, and with less room for
        // them it takes a few times as long.
        let for_sums = Means { bytes: means.bytes / 4, ..means };
        let for_lists = Means { bytes: (means.bytes - for_sums.bytes) / snapshots.len().max(1), ..means };
        let mut partitions = read(snapshots, period, limit, for_lists)?;
        let threshold = deepen(&mut partitions, limit, costs)?;
        // Those that are quick go first: the better what was found, the fewer keys of the others are worth keeping.
        partitions.sort_by_key(|partition| partition.is_hopeless);
        for partition in &partitions {
            partition.offer_all(threshold, period, for_sums, &mut best).map_err(|error| partition.failed(error))?;
        }
    }
    Ok(best.into_sorted().map(|(key, count)| KeyCount { key: key.into_vec(), count }).collect())
}

/// One partition's part of a query.
struct Part<'a> {
    number: usize,
    snapshot: &'a dyn StoreSnapshot,
    lists: Lists<'a>,
    /// Its lists do not decide: all its rows have to be added up.
    is_hopeless: bool,
}

/// How a partition goes on.
enum Next {
    /// What was read decides, but for lookups.
    Answer,
    /// The lists are to be read down to this piece.
    Deeper(u8),
    /// All rows are to be added up.
    AddUp,
}

fn read<'a>(
    snapshots: &'a [Box<dyn StoreSnapshot + 'a>],
    period: Period,
    limit: usize,
    means: Means<'a>,
) -> Result<Vec<Part<'a>>, Failed> {
    // Where the best spread evenly, each partition has its share of them; twice that lets the threshold come out high.
    let share = 2 * limit.div_ceil(snapshots.len().max(1));
    let piece = (0..PIECES).find(|piece| listed_through(*piece, LONGEST) >= share).unwrap_or(PIECES - 1);
    let part = |(number, snapshot): (usize, &'a (dyn StoreSnapshot + 'a))| {
        let lists = Lists::read(snapshot, period, piece, means).map_err(|error| Failed { number, error })?;
        let mut part = Part { number, snapshot, is_hopeless: lists.are_few(), lists };
        part.give_up_where_too_many();
        Ok(part)
    };
    snapshots.iter().map(|snapshot| &**snapshot).enumerate().map(part).collect()
}

/// Reads lists deeper until every partition is decided or hopeless, and gives the threshold; none while there are fewer keys.
fn deepen(partitions: &mut [Part<'_>], limit: usize, costs: Costs) -> Result<Option<i64>, Failed> {
    loop {
        let threshold = threshold(partitions, limit);
        let mut has_changed = false;
        for partition in &mut *partitions {
            has_changed |= partition.decide(threshold, costs).map_err(|error| partition.failed(error))?;
        }
        if !has_changed {
            return Ok(threshold);
        }
    }
}

/// What the last of the best counts at least.
fn threshold(partitions: &[Part<'_>], limit: usize) -> Option<i64> {
    let least = partitions.iter().flat_map(|partition| partition.lists.bounded()).map(|key| key.least);
    let mut least: Vec<i64> = least.filter(|count| *count > 0).collect();
    let last = limit.checked_sub(1).filter(|last| *last < least.len())?;
    Some(*least.select_nth_unstable_by(last, |a, b| b.cmp(a)).1)
}

impl Part<'_> {
    fn failed(&self, error: StoreError) -> Failed {
        Failed { number: self.number, error }
    }

    /// Reads the lists one piece deeper where that is needed, and says whether it was.
    fn decide(&mut self, threshold: Option<i64>, costs: Costs) -> Result<bool, StoreError> {
        if self.is_hopeless {
            return Ok(false);
        }
        match self.next(threshold, costs) {
            Next::Answer => Ok(false),
            Next::AddUp => {
                self.give_up();
                Ok(false)
            }
            Next::Deeper(piece) => {
                self.lists.read_to(piece)?;
                self.give_up_where_too_many();
                Ok(true)
            }
        }
    }

    fn give_up(&mut self) {
        self.is_hopeless = true;
        self.lists.forget();
    }

    fn give_up_where_too_many(&mut self) {
        if self.lists.are_too_many() {
            self.give_up();
        }
    }

    fn next(&self, threshold: Option<i64>, costs: Costs) -> Next {
        let (piece, rows) = (self.lists.piece(), self.lists.rows());
        let deeper = Some(piece + 1).filter(|deeper| *deeper < PIECES);
        let to_read = deeper.map(|deeper| (self.lists.windows() * listed_through(deeper, LONGEST)) as u64);
        // Keys that count nothing are in no answer. Equal counts may be: which of them is said by the key, and that was not seen.
        let suffices = |piece: u8| {
            let most = self.lists.most_unseen(piece);
            most == 0 || threshold.is_some_and(|threshold| most < threshold)
        };
        if suffices(piece) {
            let lookups = self.lookups(threshold).saturating_mul(costs.lookup);
            return match deeper {
                Some(deeper) if to_read.is_some_and(|to_read| lookups > to_read) => Next::Deeper(deeper),
                _ if lookups > rows => Next::AddUp,
                _ => Next::Answer,
            };
        }
        // The threshold rises with what is read: it may come to suffice where it does not yet.
        let is_in_reach = |threshold: i64| self.lists.most_unseen(PIECES - 1) / costs.reach <= threshold;
        let is_cheap = to_read.is_some_and(|to_read| to_read.saturating_mul(costs.try_one_in) <= rows);
        let is_worth_trying = is_cheap && threshold.is_none_or(is_in_reach);
        match deeper {
            Some(deeper) if is_worth_trying || (deeper..PIECES).any(suffices) => Next::Deeper(deeper),
            _ => Next::AddUp,
        }
    }

    /// How many rows would have to be looked up.
    fn lookups(&self, threshold: Option<i64>) -> u64 {
        self.candidates(threshold).map(|key| self.lists.unknown_rows(&key) as u64).sum()
    }

    fn candidates(&self, threshold: Option<i64>) -> impl Iterator<Item = Bounded<'_>> {
        self.lists.bounded().filter(move |key| threshold.is_none_or(|threshold| key.most >= threshold))
    }

    fn offer_all(&self, threshold: Option<i64>, period: Period, means: Means<'_>, best: &mut Best) -> Result<(), StoreError> {
        if self.is_hopeless {
            return offer_sums(self.snapshot, period, means, best);
        }
        let (known, unknown): (Vec<_>, Vec<_>) = self.candidates(threshold).partition(|key| key.least == key.most);
        known.iter().for_each(|key| best.offer(key.least, key.key));
        if unknown.is_empty() { Ok(()) } else { self.lists.look_up(unknown, &mut |key, count| best.offer(count, key)) }
    }
}

/// Offers the counts of every key, added up row by row. Where there are more keys than may be held, one range of keys after the other.
fn offer_sums(snapshot: &dyn StoreSnapshot, period: Period, means: Means<'_>, best: &mut Best) -> Result<(), StoreError> {
    let mut starts = Vec::new();
    scan_totals(snapshot, period.from, period.to, &mut |start, _| starts.push(start))?;
    // The range that is added up ends where the last of these is, and the next one at the one before: the first end that is found
    // halves all keys, the second the first half, and so on.
    let (mut from, mut ends) = (Vec::new(), Vec::<Vec<u8>>::new());
    loop {
        let mut sums = Table::new();
        for start in &starts {
            let first = row::key(*start, &from);
            let end = match ends.last() {
                Some(end) => row::key(*start, end),
                None => row::first_key(Timestamp(start.0.saturating_add(1))).to_vec(),
            };
            scan_counts(snapshot, &first, &end, means, &mut |key, count| {
                if ends.last().is_some_and(|end| key >= end) {
                    return ControlFlow::Break(());
                }
                sums.entry(ANY_WINDOW, key, || 0).0.acc += count;
                if sums.bytes() > means.bytes && sums.entries().len() > 1 {
                    ends.push(keep_first_half(&mut sums));
                }
                ControlFlow::Continue(())
            })?;
        }
        for entry in sums.entries() {
            best.offer(entry.acc, sums.key(entry));
        }
        match ends.pop() {
            Some(end) => from = end,
            None => return Ok(()),
        }
    }
}

/// Forgets the larger half of the keys, and gives the first of them.
fn keep_first_half(sums: &mut Table<i64>) -> Vec<u8> {
    sums.sort();
    let (mut kept, half) = (Table::new(), sums.entries().len() / 2);
    for entry in &sums.entries()[..half] {
        kept.entry(ANY_WINDOW, sums.key(entry), || entry.acc);
    }
    let first = sums.key(&sums.entries()[half]).to_vec();
    *sums = kept;
    first
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::query::Cancellation;
    use crate::record::{Offset, Timestamp};
    use crate::store::memory::MemoryStore;
    use crate::store::window_store::{WindowChange, WindowStore};
    use crate::store::{Space, StateStore, StoreBatch, VisitEntry, ranking, row};
    use crate::varint;

    const EVER: Period = Period { from: Timestamp(0), to: Timestamp(i64::MAX) };
    const DEAR: Costs = Costs { lookup: u64::MAX, try_one_in: u64::MAX, reach: 1 };
    const FREE: Costs = Costs { lookup: 0, try_one_in: 0, reach: i64::MAX };

    /// A window's counts by key, and the length of its list; none is not ranked.
    type Window = (BTreeMap<String, i64>, Option<usize>);

    fn store_of(windows: &[Window], is_here: impl Fn(&str) -> bool) -> MemoryStore {
        let memory = MemoryStore::new();
        let mut store = WindowStore::open(Arc::new(memory.clone())).unwrap();
        for (start, (counts, longest)) in (0..).map(Timestamp).zip(windows) {
            let (mut batch, mut change) = (StoreBatch::new(), WindowChange::default());
            let mut candidates = ranking::candidates(longest.unwrap_or(0));
            for (key, count) in counts.iter().filter(|(key, _)| is_here(key)) {
                let mut value = Vec::new();
                row::encode_head(start, start, &mut value);
                varint::put_signed(*count, &mut value);
                batch.put(Space::Rows, &row::key(start, key.as_bytes()), &value);
                candidates.offer(*count, key.as_bytes());
                change.rows += 1;
                change.weight += count;
            }
            store.apply(&mut batch, &BTreeMap::from([(start, change)]), Offset(1), Offset(1)).unwrap();
            if let Some(longest) = longest {
                store.rank(start, candidates, *longest).unwrap();
            }
        }
        memory
    }

    fn naive(windows: &[Window], period: Period, limit: usize) -> Vec<(String, i64)> {
        let mut sums: BTreeMap<&String, i64> = BTreeMap::new();
        for (_, (counts, _)) in (0..).zip(windows).filter(|(start, _)| (period.from.0..period.to.0).contains(start)) {
            counts.iter().for_each(|(key, count)| *sums.entry(key).or_default() += count);
        }
        let mut sorted: Vec<_> = sums.into_iter().filter(|(_, sum)| *sum != 0).map(|(key, sum)| (key.clone(), sum)).collect();
        sorted.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        sorted.truncate(limit);
        sorted
    }

    fn found(stores: &[MemoryStore], period: Period, limit: usize, bytes: usize, costs: Costs) -> Vec<(String, i64)> {
        let snapshots: Vec<_> = stores.iter().map(|store| store.snapshot()).collect();
        let means = Means { bytes, cancellation: &Cancellation::default() };
        let best = best_at(&snapshots, period, limit, means, costs).unwrap();
        best.into_iter().map(|KeyCount { key, count }| (String::from_utf8(key).unwrap(), count)).collect()
    }

    /// Few distinct counts, so that many are equal; some keys in nearly all windows, others in few.
    fn windows() -> impl Strategy<Value = Vec<Window>> {
        let ranked = (prop::collection::btree_map("[a-f][a-c]?", prop_oneof![0i64..4, 0i64..100], 0..14), 1usize..8);
        let unranked = prop::collection::btree_map("[a-f][a-c]?", -3i64..4, 0..8);
        let window = prop_oneof![
            5 => ranked.prop_map(|(counts, longest)| (counts, Some(longest))),
            1 => unranked.prop_map(|counts| (counts, None)),
        ];
        prop::collection::vec(window, 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn the_best_are_those_of_full_sums(
            windows in windows(), partitions in 1usize..4, limit in 0usize..25, (from, length) in (0i64..6, 0i64..14),
            bytes in prop_oneof![Just(0usize), 200usize..2_000, Just(1 << 20)],
        ) {
            let partition_of = |key: &str| key.bytes().map(usize::from).sum::<usize>() % partitions;
            let stores: Vec<_> = (0..partitions).map(|number| store_of(&windows, |key| partition_of(key) == number)).collect();
            let period = Period { from: Timestamp(from), to: Timestamp(from + length) };
            for period in [period, EVER] {
                for costs in [FREE, COSTS, DEAR, Costs { lookup: 1, try_one_in: 1, reach: 2 }] {
                    prop_assert_eq!(found(&stores, period, limit, bytes, costs), naive(&windows, period, limit), "{:?}", costs);
                }
            }
        }
    }

    /// Counts what is read of the rows.
    struct Watched<'a> {
        snapshot: Box<dyn StoreSnapshot + 'a>,
        scanned: &'a Cell<usize>,
        looked_up: &'a Cell<usize>,
    }

    impl StoreSnapshot for Watched<'_> {
        fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            self.snapshot.get(space, key)
        }

        fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
            self.looked_up.set(self.looked_up.get() + keys.len());
            self.snapshot.multi_get(keys)
        }

        fn scan(&self, space: Space, from: &[u8], to: &[u8], visit: &mut VisitEntry<'_>) -> Result<(), StoreError> {
            self.snapshot.scan(space, from, to, &mut |key, value| {
                self.scanned.set(self.scanned.get() + usize::from(space == Space::Rows));
                visit(key, value)
            })
        }
    }

    /// Rows (scanned, looked up) for the best `limit` of 2,000 keys over 20 windows with lists of 256 rows, and one without a list.
    fn rows_read(limit: usize, count: impl Fn(i64, i64) -> i64) -> (usize, usize) {
        let window = |window| ((0..2_000).map(|rank| (format!("{rank:04}"), count(window, rank))).collect(), Some(256));
        let mut windows: Vec<Window> = (0..20).map(window).collect();
        windows.push((BTreeMap::from([("1999".to_owned(), 7)]), None));
        let store = store_of(&windows, |_| true);
        let (scanned, looked_up) = (Cell::new(0), Cell::new(0));
        let watched = Watched { snapshot: store.snapshot(), scanned: &scanned, looked_up: &looked_up };
        let means = Means { bytes: 1 << 30, cancellation: &Cancellation::default() };
        let best = best(&[Box::new(watched)], EVER, limit, means).unwrap();
        let best: Vec<_> = best.into_iter().map(|ad| (String::from_utf8(ad.key).unwrap(), ad.count)).collect();
        assert_eq!(best, naive(&windows, EVER, limit));
        (scanned.get(), looked_up.get())
    }

    #[test]
    fn where_lists_decide_rows_are_not_read() {
        assert_eq!(rows_read(10, |_, rank| 100_000 / (rank + 1)), (1, 0));
        // The best of one window in two is nowhere in the others' lists.
        let (scanned, looked_up) = rows_read(10, |window, rank| if (rank + window) % 2 == 0 { 10_000 / (rank + 1) } else { 0 });
        assert_eq!(scanned, 1);
        assert!(looked_up < 1_000, "{looked_up}");
    }

    #[test]
    fn where_lists_cannot_decide_all_rows_are_read() {
        assert_eq!(rows_read(10, |window, rank| 1 + (rank * 7 + window * 13) % 5), (20 * 2_000 + 2, 0));
    }

    /// 2,000 keys, alike: nothing is decided by lists.
    fn alike() -> MemoryStore {
        let window =
            |window: i64| ((0..2_000i64).map(|rank| (format!("{rank:04}"), 1 + (rank * 7 + window * 13) % 5)).collect(), None);
        store_of(&(0..3).map(window).collect::<Vec<_>>(), |_| true)
    }

    #[test]
    fn more_keys_than_may_be_held_are_added_up_range_by_range() {
        let store = alike();
        let scanned = Cell::new(0);
        let watched = Watched { snapshot: store.snapshot(), scanned: &scanned, looked_up: &Cell::new(0) };
        let means = Means { bytes: 128 << 10, cancellation: &Cancellation::default() };
        let best = best(&[Box::new(watched)], EVER, 10, means).unwrap();
        assert_eq!(best.len(), 10);
        assert_eq!(best[..2], [("0004", 11), ("0009", 11)].map(|(key, count)| KeyCount { key: key.into(), count }));
        // 2,000 keys take 120 kB, and there are 32 KiB for them.
        assert!((6_000..2 * 6_000).contains(&scanned.get()), "{}", scanned.get());
    }

    #[test]
    fn a_query_that_is_cancelled_reads_no_further() {
        let store = alike();
        let scanned = Cell::new(0);
        let watched = Watched { snapshot: store.snapshot(), scanned: &scanned, looked_up: &Cell::new(0) };
        let cancellation = Cancellation::default();
        cancellation.cancel();
        let failed = best(&[Box::new(watched)], EVER, 10, Means { bytes: 1 << 20, cancellation: &cancellation }).unwrap_err();
        assert!(failed.error.to_string().contains("cancelled"), "{failed:?}");
        assert_eq!(scanned.get(), 1);
    }
}
