//! From records to partial aggregates, and from partial aggregates to rows: the part of a windowed aggregate that knows the
//! user's types. Tasks use it through two traits, one call a batch or a distinct key, never one a record.

use std::sync::Arc;

use super::side_output::SideOutput;
use super::table::Table;
use super::{TaskError, repartition::Partial};
use crate::partitioner::partition_for_key;
use crate::record::{Record, Timestamp};
use crate::store::row;
use crate::time::{SourceProgress, TimeWindows};
use crate::topology::aggregation::{Add, Aggregation};
use crate::topology::chain::{Chain, KeySelector};

/// A windowed aggregate of a topology.
pub(crate) trait Grouping: Send + Sync {
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

    /// Appends the row key of each, in ascending order. The order holds until the next change.
    fn sorted_row_keys(&mut self) -> Vec<Vec<u8>>;

    /// Merges each with the row stored for it, in the order of [`Partials::sorted_row_keys`], visits the results and forgets
    /// the partial aggregates.
    fn merge_into_rows(
        &mut self,
        stored: &[Option<Vec<u8>>],
        visit: &mut dyn FnMut(ChangedRow<'_>) -> Result<(), TaskError>,
    ) -> Result<(), TaskError>;

    fn is_empty(&self) -> bool;

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
}

impl<C, S, D, A> Grouping for WindowedGrouping<C, S, D, A>
where
    C: Chain,
    S: KeySelector<C>,
    D: Add<A::Acc, C>,
    A: Aggregation,
{
    fn partials(self: Arc<Self>) -> Box<dyn Partials> {
        Box::new(GroupedPartials { grouping: self, table: Table::new(), scratch: Vec::new(), value: Vec::new() })
    }

    fn row_of_changelog(&self, start: Timestamp, latest: Timestamp, value: &[u8]) -> Option<(Vec<u8>, i64)> {
        let acc = self.aggregation.decode(value)?;
        let mut bytes = Vec::new();
        row::encode_head(start, latest, &mut bytes);
        self.aggregation.encode_compact(&acc, &mut bytes);
        Some((bytes, self.aggregation.weight(&acc)))
    }

    fn output_of_row(&self, start: Timestamp, row: &[u8], into: &mut Vec<u8>) -> Option<(Timestamp, i64)> {
        let (latest, compact) = row::decode(start, row)?;
        let acc = self.aggregation.decode_compact(compact)?;
        self.aggregation.encode(&acc, into);
        Some((latest, self.aggregation.weight(&acc)))
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
    fn process(&mut self, records: &[Record<'_>], intake: &mut Intake<'_>) -> Result<(), TaskError> {
        let Self { grouping, table, .. } = self;
        let WindowedGrouping { chain, selector, add, aggregation, windows } = &**grouping;
        let Intake { progress, side, keyed_partitions } = intake;
        side.counters.read += records.len() as u64;
        // Neighbouring records mostly fall into one window: spare them the division.
        let mut window = (Timestamp(0), Timestamp(0));
        let mut misplaced = None;
        for record in records {
            let outcome = chain.process(record, &mut |timestamp, key, value| {
                if timestamp < window.0 || timestamp >= window.1 {
                    window.0 = windows.start_of(timestamp);
                    window.1 = windows.end_of(window.0);
                }
                if progress.is_late(window.1) {
                    return side.late(record);
                }
                let added = selector.with_key(&key, &value, |key| {
                    let (entry, is_new) = table.entry(window.0, key, || aggregation.init());
                    entry.latest = entry.latest.max(timestamp);
                    add.add(&mut entry.acc, &value);
                    if is_new && let Some(partitions) = *keyed_partitions {
                        misplaced = misplaced.take().or_else(|| misplacement(record, key, partitions, side));
                    }
                });
                match added {
                    Some(()) => side.counters.counted += 1,
                    None => side.dead_letter(record, "key is null"),
                }
            });
            match outcome {
                Ok(timestamp) => progress.observe(timestamp),
                Err(rejection) => side.dead_letter(record, rejection.reason()),
            }
            if let Some(misplaced) = misplaced.take() {
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
            self.grouping.aggregation.encode_compact(&entry.acc, &mut self.scratch);
            let key = self.table.key(entry);
            visit(&Partial { key, start: entry.start, latest: entry.latest, acc: &self.scratch })?;
        }
        self.table.clear();
        Ok(())
    }

    fn sorted_row_keys(&mut self) -> Vec<Vec<u8>> {
        self.table.sort();
        self.table.entries().iter().map(|entry| row::key(entry.start, self.table.key(entry))).collect()
    }

    fn merge_into_rows(
        &mut self,
        stored: &[Option<Vec<u8>>],
        visit: &mut dyn FnMut(ChangedRow<'_>) -> Result<(), TaskError>,
    ) -> Result<(), TaskError> {
        let Self { grouping, table, scratch, value } = self;
        let aggregation = &grouping.aggregation;
        table.drain(|key, entry, i| {
            let mut acc = entry.acc;
            let (mut latest, mut weight_before) = (entry.latest, 0);
            if let Some(stored) = &stored[i] {
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
            aggregation.encode_compact(&acc, scratch);
            value.clear();
            aggregation.encode(&acc, value);
            visit(ChangedRow {
                start: entry.start,
                key,
                latest,
                row: scratch,
                value,
                weight_added: aggregation.weight(&acc) - weight_before,
                is_new: stored[i].is_none(),
            })
        })
    }

    fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    fn bytes(&self) -> usize {
        self.table.bytes()
    }

    fn clear(&mut self) {
        self.table.clear();
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
