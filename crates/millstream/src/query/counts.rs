//! Queries on the stores of this instance.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::lag::LagMonitor;
use super::sums::Means;
use super::top::{self, Failed};
use super::{
    Answer, Cancellation, Completeness, CountQueries, KeyCount, Period, QueryError, ReadOptions, StalePartition, WindowCount,
};
use crate::broker::{Broker, BrokerError, ErrorKind};
use crate::clock::Clock;
use crate::partitioner::partition_for_key;
use crate::record::{Offset, Partition, Timestamp, TopicPartition};
use crate::runtime::plan::Plan;
use crate::runtime::registry::StoreEntry;
use crate::runtime::{Registry, StreamsConfig};
use crate::store::window_store::scan_totals;
use crate::store::{StateStore, StoreError, StoreErrorKind, StoreSnapshot, row};
use crate::time::TimeWindows;
use crate::topology::Topology;

/// The counts of one store.
pub struct Counts<B: Broker> {
    broker: Arc<B>,
    registry: Registry,
    clock: Arc<dyn Clock>,
    store: Arc<str>,
    partitions: u32,
    windows: TimeWindows,
    horizon_ms: i64,
    query_bytes: usize,
    lag: LagMonitor,
}

impl<B: Broker> Counts<B> {
    /// Queries on the store of that name. `horizon` is how far back a query may reach: the store's retention, or less.
    ///
    /// # Errors
    /// Where the topology has no such store, or one that holds no counts; or where the broker cannot be asked for its topics.
    pub fn new(
        store: &str,
        horizon: Duration,
        topology: &Topology,
        config: &StreamsConfig,
        broker: Arc<B>,
        registry: Registry,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BrokerError> {
        let plan = Plan::prepare(topology, &*broker, config)?;
        let unknown = || BrokerError::new(ErrorKind::Stop, format!("the topology has no store {store}"));
        let found = plan.aggregates().find(|(_, _, kept)| &*kept.spec.store == store);
        let (source, repartition, kept) = found.ok_or_else(unknown)?;
        if !kept.spec.grouping.holds_counts() {
            let message = format!(
                "store {store} holds no counts but what `aggregate` makes, which count queries cannot read: count into a store of its own, or \
                 read the aggregates from the topic that they are sent to"
            );
            return Err(BrokerError::new(ErrorKind::Stop, message));
        }
        let repartition = repartition.map(|topic| (topic.clone(), kept.partitions));
        let lag = LagMonitor::new(config.application_id.clone(), source.clone(), repartition);
        let (store, partitions, windows) = (kept.spec.store.clone(), kept.partitions, kept.spec.windows);
        Ok(Self {
            broker,
            registry,
            clock,
            store,
            partitions,
            windows,
            horizon_ms: i64::try_from(horizon.as_millis()).unwrap_or(i64::MAX),
            query_bytes: config.query_bytes,
            lag,
        })
    }

    /// The number of partitions of the store.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Asks the broker how far counting is behind. To be called now and then; answers say how long ago it was.
    pub fn refresh_lag(&self) -> Result<(), BrokerError> {
        self.lag.refresh(&*self.broker, self.clock.now()).map(drop)
    }

    /// The number of source records not yet read, as last heard.
    pub fn source_lag(&self) -> Option<u64> {
        self.lag.last().map(|lag| lag.source())
    }

    /// How many partitions the source topic has, as last heard.
    pub fn source_partitions(&self) -> Option<u32> {
        self.lag.last().map(|lag| lag.source_partitions())
    }

    /// How many records of a partition of the source or repartition topic lie behind a position, or behind the group's where none is
    /// given, as last heard.
    pub fn records_behind(&self, input: &TopicPartition, position: Option<Offset>) -> Option<u64> {
        self.lag.last()?.behind(input, position)
    }

    /// What keeps the records of a partition of the source topic from being counted though every task works, as last heard: an open
    /// transaction of another producer.
    pub fn trouble(&self, input: &TopicPartition) -> Option<String> {
        self.lag.last()?.trouble(input)
    }

    /// The smallest stream time of the source partitions, as last heard.
    pub fn stream_time(&self) -> Option<Timestamp> {
        self.lag.last().and_then(|lag| lag.stream_time)
    }

    /// The copies that may answer for these partitions, and what an answer from them rests on.
    fn copies(&self, asked: &[Partition], read: ReadOptions) -> Result<(Vec<Copy>, Completeness), QueryError> {
        let mut completeness = Completeness { partitions: asked.len() as u32, ..Completeness::default() };
        let mut copies = Vec::with_capacity(asked.len());
        let mut closed_through = i64::MAX;
        for &partition in asked {
            let Some(copy) = self.registry.store(&self.store, partition).filter(|copy| may_answer(copy, read)) else {
                completeness.missing.push(partition);
                continue;
            };
            if let Some(lag) = copy.restoring {
                completeness.stale.push(StalePartition { partition, lag });
            }
            completeness.positions.extend(copy.position.map(|position| (partition, position)));
            closed_through = closed_through.min(copy.time.closed_through);
            copies.push(Copy { partition, store: copy.store });
        }
        completeness.answered = copies.len() as u32;
        let all_answered = completeness.missing.is_empty();
        completeness.final_until = (all_answered && closed_through > 0).then_some(Timestamp(closed_through));
        self.put_lag(&mut completeness, asked)?;
        if !all_answered && !read.allow_partial {
            return Err(QueryError::Incomplete(Box::new(completeness)));
        }
        Ok((copies, completeness))
    }

    /// How many records an answer could miss: those that nobody has read, and those that were read and have not come into the copy, which
    /// takes what is committed a moment later.
    fn put_lag(&self, completeness: &mut Completeness, asked: &[Partition]) -> Result<(), QueryError> {
        let lag = self.lag.known(&*self.broker, self.clock.now()).map_err(QueryError::LagUnknown)?;
        let position_of =
            |partition| completeness.positions.iter().find(|(its, _)| *its == partition).map(|(_, position)| *position);
        let into_copies = asked.iter().filter_map(|&partition| lag.behind(&self.lag.input(partition), position_of(partition)));
        let into_copies: u64 = into_copies.sum();
        // Without a shuffle a copy reads the source itself.
        completeness.max_lag = if self.lag.is_shuffled() { lag.source() + into_copies } else { lag.source().max(into_copies) };
        completeness.lag_age_ms = self.clock.now().0.saturating_sub(lag.heard_at.0).max(0) as u64;
        completeness.stream_time = lag.stream_time;
        let rests_on = |input: &TopicPartition| match *input == self.lag.input(input.partition) {
            true => asked.contains(&input.partition),
            // Every source partition has clicks of every ad.
            false => self.lag.is_source(input),
        };
        completeness.trouble = self.quarantine(rests_on).or_else(|| lag.trouble_of(rests_on));
        Ok(())
    }

    /// What an answer waits for that rests on a task in quarantine.
    fn quarantine(&self, rests_on: impl Fn(&TopicPartition) -> bool) -> Option<String> {
        let quarantined = self.registry.quarantined(rests_on);
        let (task, reason) = quarantined.first()?;
        let more = quarantined.len() - 1;
        let others = if more > 0 { format!(" (and {more} more)") } else { String::new() };
        Some(format!("task {task} is quarantined{others}: {reason}"))
    }

    /// What a copy was asked.
    fn ask<T>(&self, copy: &Copy, question: impl FnOnce(&dyn StoreSnapshot) -> Result<T, StoreError>) -> Result<T, QueryError> {
        question(&*copy.store.snapshot()).map_err(|error| self.failed(copy, error))
    }

    /// A copy could not be read. One that turns out to be damaged is not asked again before it is rebuilt.
    fn failed(&self, copy: &Copy, error: StoreError) -> QueryError {
        if error.kind() == StoreErrorKind::Corrupt {
            self.registry.report_damaged(&self.store, copy.partition);
        }
        error.into()
    }

    fn all_partitions(&self) -> Vec<Partition> {
        (0..self.partitions).map(Partition).collect()
    }

    fn window_counts(&self, counts: BTreeMap<Timestamp, i64>, completeness: &Completeness) -> Vec<WindowCount> {
        let final_until = completeness.final_until.unwrap_or_default();
        let counted = counts.into_iter().filter(|(_, count)| *count != 0);
        counted
            .map(|(start, count)| {
                let end = self.windows.end_of(start);
                WindowCount { start, end, count, is_final: end <= final_until }
            })
            .collect()
    }
}

/// A copy of one partition of the store.
struct Copy {
    partition: Partition,
    store: Arc<dyn StateStore>,
}

fn may_answer(copy: &StoreEntry, read: ReadOptions) -> bool {
    match copy.restoring {
        None => true,
        Some(lag) => read.allow_stale && read.max_stale_records.is_none_or(|most| lag <= most),
    }
}

impl<B: Broker> CountQueries for Counts<B> {
    fn windows(&self) -> TimeWindows {
        self.windows
    }

    fn earliest(&self, now: Timestamp) -> Option<Timestamp> {
        let closed = |partition| self.registry.store(&self.store, partition).map(|copy| copy.time.closed_through);
        // A copy that is not up to date calls nothing closed, though it was committed.
        let committed = self.lag.last().map(|lag| lag.closed_through);
        let largest = self.all_partitions().into_iter().filter_map(closed).chain(committed).max().filter(|closed| *closed > 0)?;
        Some(Timestamp(now.0.min(largest).saturating_sub(self.horizon_ms)))
    }

    fn fetch(&self, key: &[u8], period: Period, read: ReadOptions) -> Result<Answer<Vec<WindowCount>>, QueryError> {
        let partition = partition_for_key(key, self.partitions);
        let (copies, completeness) = self.copies(&[partition], read)?;
        let mut counts = BTreeMap::new();
        for copy in copies {
            counts.extend(self.ask(&copy, |snapshot| counts_of_key(snapshot, key, period))?);
        }
        Ok(Answer { value: self.window_counts(counts, &completeness), completeness })
    }

    fn top(
        &self,
        period: Period,
        limit: usize,
        read: ReadOptions,
        cancellation: &Cancellation,
    ) -> Result<Answer<Vec<KeyCount>>, QueryError> {
        let (copies, completeness) = self.copies(&self.all_partitions(), read)?;
        let snapshots: Vec<_> = copies.iter().map(|copy| copy.store.snapshot()).collect();
        let means = Means { bytes: self.query_bytes, cancellation };
        let best = top::best(&snapshots, period, limit, means)
            .map_err(|Failed { number, error }| self.failed(&copies[number], error))?;
        Ok(Answer { value: best, completeness })
    }

    fn totals(&self, period: Period, read: ReadOptions) -> Result<Answer<Vec<WindowCount>>, QueryError> {
        let (copies, completeness) = self.copies(&self.all_partitions(), read)?;
        let mut counts = BTreeMap::new();
        for copy in copies {
            self.ask(&copy, |snapshot| {
                scan_totals(snapshot, period.from, period.to, &mut |start, totals| {
                    *counts.entry(start).or_insert(0) += totals.weight;
                })
            })?;
        }
        Ok(Answer { value: self.window_counts(counts, &completeness), completeness })
    }
}

/// One key's counts by window. The windows that exist are few: only they are looked into.
fn counts_of_key(snapshot: &dyn StoreSnapshot, key: &[u8], period: Period) -> Result<Vec<(Timestamp, i64)>, StoreError> {
    let mut starts = Vec::new();
    scan_totals(snapshot, period.from, period.to, &mut |start, _| starts.push(start))?;
    let keys: Vec<_> = starts.iter().map(|start| row::key(*start, key)).collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let rows = starts.into_iter().zip(snapshot.multi_get(&keys)?);
    let count = |start, row: Vec<u8>| Ok((start, row::decode_count(&row).ok_or_else(|| row::unreadable(start, key))?));
    rows.filter_map(|(start, row)| Some(count(start, row?))).collect()
}
