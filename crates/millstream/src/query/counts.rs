//! Queries on the stores of this instance.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::lag::LagMonitor;
use super::part::{Ask, Part, PartialCounts, Parts, Question, Standing};
use super::sums::Means;
use super::top::{self, Failed};
use super::view::TaskReport;
use super::{Answer, Cancellation, Completeness, CountQueries, KeyCount, Period, QueryError, ReadOptions};
use crate::broker::{Broker, BrokerError, ErrorKind};
use crate::clock::Clock;
use crate::record::{Offset, Partition, Timestamp, Topic, TopicPartition};
use crate::runtime::plan::Plan;
use crate::runtime::{Registry, StreamsConfig, TaskStatus};
use crate::store::window_store::scan_totals;
use crate::store::{StateStore, StoreError, StoreErrorKind, StoreSnapshot, row};
use crate::task::Role;
use crate::time::TimeWindows;
use crate::topology::Topology;

/// Says whether an owner may still call itself one. It could have been taken for dead without knowing it, and others count on since.
pub trait ReadLease: Send + Sync + 'static {
    /// Asked when the counts of an answer have been read. Does not block.
    fn may_answer_as_active(&self) -> bool;
}

/// Whoever is alone is always its own owner.
impl ReadLease for () {
    fn may_answer_as_active(&self) -> bool {
        true
    }
}

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
    lease: Arc<dyn ReadLease>,
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
            lease: Arc::new(()),
        })
    }

    /// The same, which answers as the owner of its partitions only under that lease. Without this it always may.
    pub fn with_lease(self, lease: Arc<dyn ReadLease>) -> Self {
        Self { lease, ..self }
    }

    /// The topic whose tasks keep the store.
    pub fn input_topic(&self) -> Topic {
        self.lag.input(Partition(0)).topic
    }

    /// What this instance tells others of its tasks.
    pub fn task_reports(&self) -> Vec<TaskReport> {
        self.registry.tasks().into_iter().map(|task| self.task_report(task)).collect()
    }

    fn task_report(&self, task: TaskStatus) -> TaskReport {
        let input = task.input().clone();
        let is_of_store = input == self.lag.input(input.partition);
        let store = is_of_store.then(|| self.registry.store(&self.store, input.partition)).flatten();
        let lag = match task.role {
            Role::Active => self.records_behind(&input, task.committed),
            Role::Standby => task.restore.map(|restore| (restore.end.0 - restore.position.0).max(0) as u64),
        };
        TaskReport {
            id: task.id,
            role: task.role,
            state: task.state,
            position: task.committed,
            lag,
            closed_through: store.map_or(0, |store| store.time.closed_through),
            restore: task.restore,
            trouble: task.trouble.or_else(|| self.trouble(&input)),
            quarantined_since: task.quarantined_since,
            input,
        }
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

    /// The copies here that may answer.
    fn copies(&self, ask: &Ask) -> Vec<Copy> {
        let copy = |&partition: &Partition| {
            let entry = self.registry.store(&self.store, partition)?;
            let standing = match entry.restoring {
                _ if entry.is_lost => Standing::Stale { lag: None },
                Some(lag) => Standing::Stale { lag: Some(lag) },
                None => Standing::Active,
            };
            let part = Part { partition, standing, position: entry.position, closed_through: entry.time.closed_through };
            is_good_enough(&part, ask.read).then_some(Copy { part, store: entry.store })
        };
        ask.partitions.iter().filter_map(copy).collect()
    }

    /// What these copies have counted.
    fn read(&self, question: &Question, copies: &[Copy], cancellation: &Cancellation) -> Result<PartialCounts, QueryError> {
        match question {
            Question::Key { key, period } => {
                let mut counts = Vec::new();
                for copy in copies {
                    counts.extend(self.ask(copy, |snapshot| counts_of_key(snapshot, key, *period))?);
                }
                Ok(PartialCounts::Windows(counts))
            }
            Question::Totals { period } => Ok(PartialCounts::Windows(self.totals_of(copies, *period)?)),
            Question::Top { period, limit } => Ok(PartialCounts::Keys(self.top_of(copies, *period, *limit, cancellation)?)),
        }
    }

    fn totals_of(&self, copies: &[Copy], period: Period) -> Result<Vec<(Timestamp, i64)>, QueryError> {
        let mut counts = BTreeMap::new();
        for copy in copies {
            self.ask(copy, |snapshot| {
                scan_totals(snapshot, period.from, period.to, &mut |start, totals| {
                    *counts.entry(start).or_insert(0) += totals.weight;
                })
            })?;
        }
        Ok(counts.into_iter().collect())
    }

    fn top_of(
        &self,
        copies: &[Copy],
        period: Period,
        limit: usize,
        cancellation: &Cancellation,
    ) -> Result<Vec<KeyCount>, QueryError> {
        let snapshots: Vec<_> = copies.iter().map(|copy| copy.store.snapshot()).collect();
        let means = Means { bytes: self.query_bytes, cancellation };
        let best = top::best(&snapshots, period, limit, means);
        best.map_err(|Failed { number, error }| self.failed(&copies[number], error))
    }

    /// What was read of these copies. An owner that cannot be sure any more that it is one answers as a copy, of which nobody knows how far it is
    /// behind.
    fn parts_of(&self, ask: &Ask, copies: &[Copy], counts: PartialCounts) -> Parts {
        let is_owner = self.lease.may_answer_as_active();
        let part = |copy: &Copy| match copy.part.standing {
            Standing::Active if !is_owner || self.was_lost(copy) => Part { standing: Standing::Stale { lag: None }, ..copy.part },
            _ => copy.part,
        };
        let parts: Vec<Part> = copies.iter().map(part).collect();
        let generation = self.registry.directory().generation;
        if parts.iter().all(|part| is_good_enough(part, ask.read)) {
            return Parts { generation, parts, counts };
        }
        Parts { generation, parts: Vec::new(), counts: PartialCounts::none(&ask.question) }
    }

    /// Whether the task of a copy was lost, or given up, since the copy was looked up.
    fn was_lost(&self, copy: &Copy) -> bool {
        let now = self.registry.store(&self.store, copy.part.partition);
        now.is_none_or(|now| now.is_lost || !Arc::ptr_eq(&now.store, &copy.store))
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
            self.registry.report_damaged(&self.store, copy.part.partition);
        }
        error.into()
    }
}

/// A copy of one partition of the store.
struct Copy {
    part: Part,
    store: Arc<dyn StateStore>,
}

fn is_good_enough(part: &Part, read: ReadOptions) -> bool {
    match part.standing {
        Standing::Active => true,
        Standing::Stale { lag } => read.takes_copy(lag),
    }
}

impl<B: Broker> CountQueries for Counts<B> {
    fn windows(&self) -> TimeWindows {
        self.windows
    }

    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn earliest(&self, now: Timestamp) -> Option<Timestamp> {
        let closed = |partition| self.registry.store(&self.store, partition).map(|copy| copy.time.closed_through);
        // A copy that is not up to date calls nothing closed, though it was committed.
        let committed = self.lag.last().map(|lag| lag.closed_through);
        let all = (0..self.partitions).map(Partition);
        let largest = all.filter_map(closed).chain(committed).max().filter(|closed| *closed > 0)?;
        Some(Timestamp(now.0.min(largest).saturating_sub(self.horizon_ms)))
    }

    fn parts(&self, ask: &Ask, cancellation: &Cancellation) -> Result<Parts, QueryError> {
        let copies = self.copies(ask);
        let counts = self.read(&ask.question, &copies, cancellation)?;
        Ok(self.parts_of(ask, &copies, counts))
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

    /// Where it will not do, nothing is read.
    fn answer(
        &self,
        question: Question,
        read: ReadOptions,
        cancellation: &Cancellation,
    ) -> Result<Answer<PartialCounts>, QueryError> {
        let ask = Ask { partitions: self.partitions_for(&question), question, read };
        let copies = self.copies(&ask);
        let counts = match copies.len() == ask.partitions.len() || read.allow_partial {
            true => self.read(&ask.question, &copies, cancellation)?,
            false => PartialCounts::none(&ask.question),
        };
        let parts = self.parts_of(&ask, &copies, counts);
        self.conclude(&ask.question, &ask.partitions, read, vec![parts])
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
