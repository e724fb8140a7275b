//! From records to partial aggregates, and from partial aggregates to rows: the part of a windowed aggregate that knows the
//! user's types. Tasks use it through two traits, one call a batch or a distinct key, never one a record.

use std::ops::Range;
use std::sync::Arc;

use super::side_output::{Fate, SideOutput};
use super::stored_rows::StoredRows;
use super::table::Table;
use super::{TaskError, repartition::Partial};
use crate::operators::aggregation::{Add, Aggregation, EncodeError};
use crate::operators::chain::{Chain, KeySelector};
use crate::partitioner::partition_for_key;
use crate::record::{Record, Timestamp};
use crate::store::row;
use crate::time::{SourceProgress, TimeWindows};

/// A windowed aggregate of a topology.
pub(crate) trait Grouping: Send + Sync {
    /// Whether its rows are counts.
    fn holds_counts(&self) -> bool;

    /// An empty table of partial aggregates.
    fn partials(self: Arc<Self>) -> Box<dyn Partials>;

    /// The row of a changelog record, as (row, weight), or none where the value is no such aggregate.
    fn row_of_changelog(&self, start: Timestamp, latest: Timestamp, value: &[u8]) -> Option<(Vec<u8>, i64)>;

    /// Appends a row's value as output topics carry it, and gives (largest event time, weight), or none where it is no row.
    fn output_of_row(&self, start: Timestamp, row: &[u8], into: &mut Vec<u8>) -> Option<(Timestamp, i64)>;
}

/// What a source task lends while it processes a batch.
pub(crate) struct Intake<'a> {
    pub(crate) progress: &'a mut SourceProgress,
    pub(crate) side: &'a mut SideOutput,
    /// For a source that is keyed by the grouping key: how many partitions there are.
    pub(crate) keyed_partitions: Option<u32>,
}

/// A row that a commit changes.
pub(crate) struct ChangedRow<'a> {
    pub(crate) start: Timestamp,
    pub(crate) key: &'a [u8],
    pub(crate) latest: Timestamp,
    /// As it stands in the store.
    pub(crate) row: &'a [u8],
    /// As it stands on the changelog.
    pub(crate) value: &'a [u8],
    pub(crate) weight_added: i64,
    pub(crate) is_new: bool,
}

/// Is shown a partial aggregate.
pub(crate) type VisitPartial<'a> = dyn FnMut(&Partial<'_>) -> Result<(), TaskError> + 'a;

/// The partial aggregates of the transaction being built.
pub(crate) trait Partials: Send {
    /// Adds records of the source topic.
    fn process(&mut self, records: &[Record<'_>], intake: &mut Intake<'_>) -> Result<(), TaskError>;

    /// Adds a partial aggregate that came over the repartition topic; false where it cannot be read.
    fn merge(&mut self, partial: &Partial<'_>) -> bool;

    /// Adds one event that Kafka Streams sent over the repartition topic; false where the aggregate cannot be made of it.
    fn merge_foreign(&mut self, key: &[u8], timestamp: Timestamp) -> bool;

    /// Visits all and forgets them.
    fn drain(&mut self, visit: &mut VisitPartial<'_>) -> Result<(), TaskError>;

    /// Puts them into the order of their row keys, which holds until the next change.
    fn sort(&mut self);

    /// The row keys of those in that part of their order.
    fn row_keys(&self, part: Range<usize>) -> Vec<Vec<u8>>;

    /// Merges each with the row stored for it, in their order, visits the results and forgets the partial aggregates.
    fn merge_into_rows(
        &mut self,
        stored: &StoredRows,
        visit: &mut dyn FnMut(ChangedRow<'_>) -> Result<(), TaskError>,
    ) -> Result<(), TaskError>;

    fn is_empty(&self) -> bool;

    fn len(&self) -> usize;

    /// Roughly the memory in use.
    fn bytes(&self) -> usize;

    fn clear(&mut self);
}

/// The types and functions of one windowed aggregate: the chain, what it is grouped by, how an event is added, what is kept.
pub(crate) struct WindowedGrouping<C, S, D, A> {
    pub(crate) chain: C,
    pub(crate) selector: S,
    pub(crate) add: D,
    pub(crate) aggregation: A,
    pub(crate) windows: TimeWindows,
    /// The store's name.
    pub(crate) store: Arc<str>,
}

impl<C, S, D, A: Aggregation> WindowedGrouping<C, S, D, A> {
    /// The error for an aggregate that cannot be written.
    #[cold]
    fn unwritable(&self, start: Timestamp, key: &[u8], reason: &EncodeError) -> TaskError {
        let (store, key) = (&self.store, String::from_utf8_lossy(key));
        TaskError::Stop(format!(
            "the aggregate of key {key:?} in the window from {start} cannot be kept in store {store}: {reason}; the commit was given up, \
             and nothing of it was sent or stored: mend the serde of the aggregate, or what the aggregate is made by, and let the task try again"
        ))
    }
}

impl<C, S, D, A> Grouping for WindowedGrouping<C, S, D, A>
where
    C: Chain,
    S: KeySelector<C>,
    D: Add<A::Acc, C>,
    A: Aggregation,
{
    fn holds_counts(&self) -> bool {
        A::HOLDS_COUNTS
    }

    fn partials(self: Arc<Self>) -> Box<dyn Partials> {
        Box::new(GroupedPartials { grouping: self, table: Table::new(), scratch: Vec::new(), value: Vec::new() })
    }

    fn row_of_changelog(&self, start: Timestamp, latest: Timestamp, value: &[u8]) -> Option<(Vec<u8>, i64)> {
        let mut bytes = Vec::new();
        row::encode_head(start, latest, &mut bytes);
        let weight = self.aggregation.compact(value, &mut bytes)?;
        Some((bytes, weight))
    }

    fn output_of_row(&self, start: Timestamp, row: &[u8], into: &mut Vec<u8>) -> Option<(Timestamp, i64)> {
        let (latest, compact) = row::decode(start, row)?;
        Some((latest, self.aggregation.expand(compact, into)?))
    }
}

struct GroupedPartials<C, S, D, A: Aggregation> {
    grouping: Arc<WindowedGrouping<C, S, D, A>>,
    table: Table<A::Acc>,
    scratch: Vec<u8>,
    value: Vec<u8>,
}

impl<C, S, D, A> Partials for GroupedPartials<C, S, D, A>
where
    C: Chain,
    S: KeySelector<C>,
    D: Add<A::Acc, C>,
    A: Aggregation,
{
    fn process<'r>(&mut self, records: &[Record<'r>], intake: &mut Intake<'_>) -> Result<(), TaskError> {
        let Self { grouping, table, .. } = self;
        let chain = &grouping.chain;
        let Intake { progress, side, keyed_partitions } = intake;
        side.counters.read += records.len() as u64;
        let mut adder =
            Adder { grouping, table, window: Default::default(), keyed_partitions: *keyed_partitions, misplaced: None };
        // What operators made of one record, where that may be more than one thing; empty and never grown where it may not.
        let mut outputs: Vec<(C::Key<'r>, C::Value<'r>)> = Vec::new();
        for record in records {
            let mut fate = Fate::Filtered;
            let processed = match C::FANS_OUT {
                false => chain.process(record, &mut |timestamp, key, value| {
                    fate = adder.add(record, timestamp, &key, &value, progress, side);
                }),
                true => {
                    outputs.clear();
                    let processed = chain.process(record, &mut |_, key, value| outputs.push((key, value)));
                    if let (Ok(timestamp), false) = (&processed, outputs.is_empty()) {
                        fate = adder.add_all(record, *timestamp, &outputs, progress, side);
                    }
                    processed
                }
            };
            match processed {
                Ok(timestamp) => {
                    side.settle(record, fate);
                    progress.observe(timestamp);
                }
                Err(rejection) => side.dead_letter(record, rejection.reason()),
            }
            if let Some(misplaced) = adder.misplaced.take() {
                return Err(TaskError::Stop(misplaced));
            }
        }
        Ok(())
    }

    fn merge(&mut self, partial: &Partial<'_>) -> bool {
        let aggregation = &self.grouping.aggregation;
        let Some(acc) = aggregation.decode_compact(partial.acc) else { return false };
        let (entry, _) = self.table.entry(partial.start, partial.key, || aggregation.init());
        entry.latest = entry.latest.max(partial.latest);
        aggregation.merge(&mut entry.acc, acc);
        true
    }

    fn merge_foreign(&mut self, key: &[u8], timestamp: Timestamp) -> bool {
        let aggregation = &self.grouping.aggregation;
        let Some(one) = aggregation.one() else { return false };
        let (entry, _) = self.table.entry(self.grouping.windows.start_of(timestamp), key, || aggregation.init());
        entry.latest = entry.latest.max(timestamp);
        aggregation.merge(&mut entry.acc, one);
        true
    }

    fn drain(&mut self, visit: &mut VisitPartial<'_>) -> Result<(), TaskError> {
        for entry in self.table.entries() {
            self.scratch.clear();
            let key = self.table.key(entry);
            let encoded = self.grouping.aggregation.encode_compact(&entry.acc, &mut self.scratch);
            encoded.map_err(|reason| self.grouping.unwritable(entry.start, key, &reason))?;
            visit(&Partial { key, start: entry.start, latest: entry.latest, acc: &self.scratch })?;
        }
        self.table.clear();
        Ok(())
    }

    fn sort(&mut self) {
        self.table.sort();
    }

    fn row_keys(&self, part: Range<usize>) -> Vec<Vec<u8>> {
        self.table.entries()[part].iter().map(|entry| row::key(entry.start, self.table.key(entry))).collect()
    }

    fn merge_into_rows(
        &mut self,
        stored: &StoredRows,
        visit: &mut dyn FnMut(ChangedRow<'_>) -> Result<(), TaskError>,
    ) -> Result<(), TaskError> {
        let Self { grouping, table, scratch, value } = self;
        let aggregation = &grouping.aggregation;
        let mut stored = stored.iter();
        table.drain(|key, entry| {
            let not_read = || TaskError::Halt(format!("the rows that store {} changes were not read before", grouping.store));
            let stored = stored.next().ok_or_else(not_read)?;
            let mut acc = entry.acc;
            let (mut latest, mut weight_before) = (entry.latest, 0);
            if let Some(stored) = stored {
                let unreadable = || TaskError::Store(row::unreadable(entry.start, key));
                let (stored_latest, compact) = row::decode(entry.start, stored).ok_or_else(unreadable)?;
                let before = aggregation.decode_compact(compact).ok_or_else(unreadable)?;
                weight_before = aggregation.weight(&before);
                latest = latest.max(stored_latest);
                let part = std::mem::replace(&mut acc, before);
                aggregation.merge(&mut acc, part);
            }
            scratch.clear();
            row::encode_head(entry.start, latest, scratch);
            value.clear();
            let encoded = aggregation.encode_both(&acc, scratch, value);
            encoded.map_err(|reason| grouping.unwritable(entry.start, key, &reason))?;
            visit(ChangedRow {
                start: entry.start,
                key,
                latest,
                row: scratch,
                value,
                weight_added: aggregation.weight(&acc) - weight_before,
                is_new: stored.is_none(),
            })
        })
    }

    fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    fn len(&self) -> usize {
        self.table.len()
    }

    fn bytes(&self) -> usize {
        self.table.bytes()
    }

    fn clear(&mut self) {
        self.table.clear();
    }
}

/// Adds the records of a batch to a table. Each goes in whole or not at all.
struct Adder<'a, C, S, D, A: Aggregation> {
    grouping: &'a WindowedGrouping<C, S, D, A>,
    table: &'a mut Table<A::Acc>,
    /// Start and end of the window of the record before. Neighbouring records mostly fall into one: it spares them the division.
    window: (Timestamp, Timestamp),
    keyed_partitions: Option<u32>,
    /// What is wrong with the place of the first record that is not where it belongs.
    misplaced: Option<String>,
}

impl<C, S, D, A> Adder<'_, C, S, D, A>
where
    C: Chain,
    S: KeySelector<C>,
    D: Add<A::Acc, C>,
    A: Aggregation,
{
    /// Adds a record of which one thing came out.
    #[inline]
    fn add<'r>(
        &mut self,
        record: &Record<'r>,
        timestamp: Timestamp,
        key: &C::Key<'r>,
        value: &C::Value<'r>,
        progress: &SourceProgress,
        side: &SideOutput,
    ) -> Fate {
        if self.is_late(timestamp, progress) {
            return Fate::Late;
        }
        match self.add_to_window(record, timestamp, key, value, side) {
            Some(()) => Fate::Counted,
            None => Fate::NullKey,
        }
    }

    /// Adds a record of which those came out.
    fn add_all<'r>(
        &mut self,
        record: &Record<'r>,
        timestamp: Timestamp,
        outputs: &[(C::Key<'r>, C::Value<'r>)],
        progress: &SourceProgress,
        side: &SideOutput,
    ) -> Fate {
        if self.is_late(timestamp, progress) {
            return Fate::Late;
        }
        if outputs.iter().any(|(key, value)| self.grouping.selector.with_key(key, value, |_| ()).is_none()) {
            return Fate::NullKey;
        }
        for (key, value) in outputs {
            self.add_to_window(record, timestamp, key, value, side);
        }
        Fate::Counted
    }

    /// Finds the window, and says whether it is closed.
    #[inline]
    fn is_late(&mut self, timestamp: Timestamp, progress: &SourceProgress) -> bool {
        if timestamp < self.window.0 || timestamp >= self.window.1 {
            let windows = &self.grouping.windows;
            self.window.0 = windows.start_of(timestamp);
            self.window.1 = windows.end_of(self.window.0);
        }
        progress.is_late(self.window.1)
    }

    /// Adds to the window that was found; none where the key is null.
    #[inline]
    fn add_to_window<'r>(
        &mut self,
        record: &Record<'r>,
        timestamp: Timestamp,
        key: &C::Key<'r>,
        value: &C::Value<'r>,
        side: &SideOutput,
    ) -> Option<()> {
        let Self { grouping, table, window, keyed_partitions, misplaced } = self;
        let WindowedGrouping { selector, add, aggregation, .. } = *grouping;
        selector.with_key(key, value, |key| {
            let (entry, is_new) = table.entry(window.0, key, || aggregation.init());
            entry.latest = entry.latest.max(timestamp);
            add.add(&mut entry.acc, value);
            if is_new && let Some(partitions) = *keyed_partitions {
                *misplaced = misplaced.take().or_else(|| misplacement(record, key, partitions, side));
            }
        })
    }
}

/// What is wrong with the place of a record whose source is said to be keyed by the grouping key, if anything.
#[cold]
fn misplacement(record: &Record<'_>, key: &[u8], partitions: u32, side: &SideOutput) -> Option<String> {
    let source = side.source();
    let expected = partition_for_key(key, partitions);
    if record.key == Some(key) && expected == source.partition {
        return None;
    }
    Some(format!(
        "record {source}@{} is not keyed by what it is grouped by: its key is {}, the grouping key {} belongs to partition {expected}: \
         repartition the topic by that key (murmur2, as Java clients do), or do not declare the source as keyed",
        record.offset,
        record.key.map_or("null".into(), |key| format!("{:?}", String::from_utf8_lossy(key))),
        format_args!("{:?}", String::from_utf8_lossy(key)),
    ))
}
