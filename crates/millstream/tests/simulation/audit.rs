//! Watches what is committed while it is committed: nothing twice, nothing back, nothing after the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millstream::broker::local::MemoryBroker;
use millstream::broker::{Broker, FetchedBatch, Isolation, LogReader};
use millstream::record::{Offset, Partition, Record, Timestamp, Topic, TopicPartition};
use millstream::serdes::WindowedKey;
use millstream::task::WindowEnd;
use millstream::task::metadata::OffsetMetadata;

use crate::aggregates::Aggregate;
use crate::scenario::{APPLICATION, CLICKS, CLOSED, Scenario};
use crate::trace::Trace;

/// What the engine must come to do in some of the seeds, or they prove nothing about it.
pub(crate) const MILESTONES: [&str; 13] = [
    JOINED_LATE,
    FELL_IDLE,
    CLOSED_IN_PIECES,
    LOG_CUT,
    RANKED,
    COUNTERS_COMPARED,
    AGGREGATED,
    FANNED_OUT,
    NO_KEY,
    PROMOTED,
    RETRIED,
    RESUMED,
    INTERRUPTED,
];
const JOINED_LATE: &str = "partition begins at what others have closed";
const FELL_IDLE: &str = "partition is idle";
const CLOSED_IN_PIECES: &str = "window is sent on in pieces";
pub(crate) const RANKED: &str = "window is ranked";
pub(crate) const COUNTERS_COMPARED: &str = "counters are compared";
pub(crate) const AGGREGATED: &str = "aggregates are kept";
pub(crate) const FANNED_OUT: &str = "clicks come to none or many";
const NO_KEY: &str = "click comes to something without a key";
pub(crate) const RETRIED: &str = "quarantined task is tried again";
pub(crate) const PROMOTED: &str = "standby is promoted";
pub(crate) const RESUMED: &str = "instance goes on as the member that it was";
pub(crate) const INTERRUPTED: &str = "member goes on in the middle of a call";
const LOG_CUT: &str = "log is cut at its head";

/// A (window start, ad), and what is kept of it.
pub(crate) type Aggregates = BTreeMap<(Timestamp, String), Aggregate>;

/// What the group has committed for a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) offset: Offset,
    pub(crate) stream_time: Option<Timestamp>,
    pub(crate) closed_through: Timestamp,
    pub(crate) emitted_through: Timestamp,
    pub(crate) emitted_rows: i64,
    pub(crate) is_joining: bool,
}

/// A window on one partition of the topic of final windows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ClosedWindow {
    pub(crate) rows: BTreeMap<String, Aggregate>,
    pub(crate) has_ended: bool,
}

/// All that is committed, as it was read.
pub(crate) struct Audit {
    broker: MemoryBroker,
    scenario: Scenario,
    trace: Trace,
    tails: BTreeMap<TopicPartition, Offset>,
    /// Logs that were seen to begin later than at 0.
    cut: BTreeSet<TopicPartition>,
    /// The changelog: by partition, the latest aggregate of each window and ad.
    pub(crate) kept: BTreeMap<Partition, Aggregates>,
    /// Where late clicks came from.
    pub(crate) late: BTreeSet<(Partition, Offset)>,
    /// Where those came from that could not be processed, and why.
    pub(crate) dead: BTreeMap<(Partition, Offset), String>,
    pub(crate) closed: BTreeMap<Partition, BTreeMap<Timestamp, ClosedWindow>>,
    pub(crate) positions: BTreeMap<TopicPartition, Position>,
    /// The closed_through with which a source partition began to count.
    pub(crate) joined_at: BTreeMap<Partition, Timestamp>,
    /// Each position at which a source partition was found idle, with how far it had closed then.
    idled: BTreeMap<Partition, Vec<(Offset, Timestamp)>>,
    /// Up to where a query has called the windows of a partition final.
    pub(crate) called_final: BTreeMap<Partition, Timestamp>,
}

impl Audit {
    pub(crate) fn new(broker: MemoryBroker, scenario: Scenario, trace: Trace) -> Self {
        Self {
            broker,
            scenario,
            trace,
            tails: BTreeMap::new(),
            cut: BTreeSet::new(),
            kept: BTreeMap::new(),
            late: BTreeSet::new(),
            dead: BTreeMap::new(),
            closed: BTreeMap::new(),
            positions: BTreeMap::new(),
            joined_at: BTreeMap::new(),
            idled: BTreeMap::new(),
            called_final: BTreeMap::new(),
        }
    }

    /// Looks at everything that was committed since the last look.
    pub(crate) fn look(&mut self) {
        let config = self.scenario.config(0);
        self.read_new(&self.scenario.changelog().into(), Self::see_kept);
        self.read_new(&CLOSED.into(), Self::see_closed);
        self.read_new(&config.late_topic(), |audit, _, record| {
            let from = source_of(record);
            assert!(audit.late.insert(from) && !audit.dead.contains_key(&from), "click {from:?} is late twice");
        });
        self.read_new(&config.dead_letter_topic(), |audit, _, record| {
            let from = source_of(record);
            let reason = text(record.headers.get("reason").unwrap());
            if reason == "key is null" {
                audit.trace.event(NO_KEY, from.1);
            }
            assert!(
                audit.dead.insert(from, reason).is_none() && !audit.late.contains(&from),
                "click {from:?} is dead-lettered twice"
            );
        });
        for topic in self.inputs() {
            for partition in self.partitions_of(&topic) {
                self.see_position(TopicPartition::new(topic.clone(), partition));
            }
        }
    }

    pub(crate) fn partitions_of(&self, topic: &str) -> Vec<Partition> {
        let described = self.broker.describe_topic(topic).unwrap();
        (0..described.map_or(0, |topic| topic.partitions)).map(Partition).collect()
    }

    /// How far the store of a partition has closed, as committed.
    pub(crate) fn closed_through(&self, partition: Partition) -> Timestamp {
        let input = TopicPartition::new(self.scenario.aggregate_input(), partition);
        self.positions.get(&input).map_or(Timestamp(0), |position| position.closed_through)
    }

    /// How far a source partition had closed when it was last found idle before that record.
    pub(crate) fn idled_through(&self, partition: Partition, record: Offset) -> Timestamp {
        let before = self.idled.get(&partition).into_iter().flatten().filter(|(position, _)| *position <= record);
        before.map(|(_, closed_through)| *closed_through).max().unwrap_or_default()
    }

    /// The topics that tasks read.
    fn inputs(&self) -> BTreeSet<Topic> {
        BTreeSet::from([CLICKS.into(), self.scenario.aggregate_input().into()])
    }

    fn read_new(&mut self, topic: &Topic, mut see: impl FnMut(&mut Self, Partition, &Record<'_>)) {
        for partition in self.partitions_of(topic) {
            let log = TopicPartition::new(topic.clone(), partition);
            let range = self.broker.log_range(&log, Isolation::ReadCommitted).unwrap();
            if range.start > Offset::ZERO && self.cut.insert(log.clone()) {
                self.trace.event(LOG_CUT, &log);
            }
            let from = self.tails.get(&log).copied().unwrap_or_default();
            assert!(range.start <= from, "{log} was cut to {} before what comes after {from} was looked at", range.start);
            if from >= range.end {
                continue;
            }
            let mut reader = self.broker.reader(&log, from).unwrap();
            while let Some(batch) = reader.read(Duration::ZERO).unwrap() {
                let mut records = Vec::new();
                batch.records(&mut records).unwrap();
                for record in &records {
                    self.trace.note(format_args!("{log}@{} {:?} {:?}", record.offset, record.key, record.value));
                    see(self, partition, record);
                }
            }
            self.tails.insert(log, reader.position());
        }
    }

    fn see_kept(&mut self, partition: Partition, record: &Record<'_>) {
        let WindowedKey { key, start } = record.key.and_then(WindowedKey::decode_from_changelog).unwrap();
        let now = self.scenario.read(record.value.unwrap());
        let end = self.scenario.windows.end_of(start);
        let closed_through = self.closed_through(partition);
        assert!(end > closed_through, "the window from {start} changes after it was closed (through {closed_through})");
        let called = self.called_final.get(&partition).copied().unwrap_or_default();
        assert!(end > called, "the window from {start} changes after a query called it final (until {called})");
        let before = self.kept.entry(partition).or_default().insert((start, text(key)), now);
        assert!(
            before.is_none_or(|before| now.has_grown_from(&before)),
            "the aggregate in the window from {start} falls: {before:?} to {now:?}"
        );
    }

    fn see_closed(&mut self, partition: Partition, record: &Record<'_>) {
        let windows = self.closed.entry(partition).or_default();
        if let Some(end) = WindowEnd::decode(record) {
            let window = windows.entry(end.start).or_default();
            assert!(!window.has_ended, "the window from {} ends twice", end.start);
            let sum: i64 = window.rows.values().map(|row| row.count).sum();
            let weight = if self.scenario.aggregates { 0 } else { sum };
            assert_eq!(
                (end.rows, end.weight),
                (window.rows.len() as u64, weight),
                "the end record of the window from {}",
                end.start
            );
            window.has_ended = true;
            return;
        }
        let WindowedKey { key, start } = record.key.and_then(WindowedKey::decode).unwrap();
        let window = windows.entry(start).or_default();
        assert!(!window.has_ended, "a row comes after the end of the window from {start}");
        let row = self.scenario.read(record.value.unwrap());
        assert_eq!(window.rows.insert(text(key), row), None, "the row of {} in the window from {start} comes twice", text(key));
    }

    /// Of a position that is part of an open transaction nothing is known for now.
    fn see_position(&mut self, input: TopicPartition) {
        let Ok(mut committed) = self.broker.committed(APPLICATION, std::slice::from_ref(&input)) else { return };
        let Some(committed) = committed.remove(0) else { return };
        let metadata = OffsetMetadata::decode(&committed.metadata).unwrap();
        let entry = |name: &str| Timestamp(metadata.entries.get(name).copied().unwrap_or(0));
        let now = Position {
            offset: committed.offset,
            stream_time: metadata.stream_time,
            closed_through: entry("clickmill.closed_through"),
            emitted_through: entry("clickmill.emitted_through"),
            emitted_rows: metadata.entries.get("clickmill.emitted_rows").copied().unwrap_or(0),
            is_joining: metadata.entries.contains_key("clickmill.joining"),
        };
        let known = self.positions.get(&input);
        if known == Some(&now) {
            return;
        }
        let before = known.cloned().unwrap_or_default();
        self.trace.note(format_args!("{input} {now:?}"));
        assert!(
            before.offset <= now.offset
                && before.stream_time <= now.stream_time
                && before.closed_through <= now.closed_through
                && before.emitted_through <= now.emitted_through,
            "{input} falls back: from {before:?} to {now:?}"
        );
        if !self.scenario.keyed && &*input.topic == CLICKS && !now.is_joining {
            if !self.joined_at.contains_key(&input.partition) && now.closed_through > Timestamp(0) {
                self.trace.event(JOINED_LATE, &input);
            }
            self.joined_at.entry(input.partition).or_insert(now.closed_through);
        }
        if metadata.entries.contains_key("clickmill.idle") {
            self.trace.event(FELL_IDLE, &input);
            self.idled.entry(input.partition).or_default().push((now.offset, now.closed_through));
        }
        if now.emitted_rows > 0 {
            self.trace.event(CLOSED_IN_PIECES, &input);
        }
        self.positions.insert(input, now);
    }
}

fn source_of(record: &Record<'_>) -> (Partition, Offset) {
    let header = |name| std::str::from_utf8(record.headers.get(name).unwrap()).unwrap();
    (Partition(header("source.partition").parse().unwrap()), Offset(header("source.offset").parse().unwrap()))
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
