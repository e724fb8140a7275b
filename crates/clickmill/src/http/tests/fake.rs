//! A mill in memory: it counts what it is given at once, and fails as it is told.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::Instant;

use millstream::broker::group::Directory;
use millstream::partitioner::partition_for_key;
use millstream::query::{
    Ask, Cancellation, Completeness, CountQueries, InstanceStatus, KeyCount, Part, PartialCounts, Parts, QueryError, Question,
    Standing, TaskReport,
};
use millstream::record::{Offset, Partition, Timestamp, TopicPartition};
use millstream::store::{StoreError, StoreErrorKind};
use millstream::task::{Role, TaskId, TaskState};
use millstream::time::TimeWindows;

use super::super::*;
use crate::click::{ClickFields, TimestampSource};
use crate::metrics::{EngineStats, EngineTotals};

pub(super) const NOW: Timestamp = Timestamp(1_767_226_000_000);
pub(super) const WINDOW_MS: i64 = 300_000;
pub(super) const PARTITIONS: u32 = 4;

/// Key and value of a record together.
pub(super) const MAX_RECORD_BYTES: usize = 20_000;

/// What is to go wrong.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) append: Option<AppendError>,
    /// Appends wait until the sender is gone.
    pub(super) append_blocks: Option<Mutex<std::sync::mpsc::Receiver<()>>>,
    pub(super) missing: Vec<u32>,
    pub(super) store: Option<StoreErrorKind>,
    pub(super) earliest: Option<Timestamp>,
    pub(super) not_ready: bool,
    pub(super) intake_trouble: Option<String>,
    pub(super) panics: bool,
    pub(super) blocks: Option<Mutex<std::sync::mpsc::Receiver<()>>>,
}

#[derive(Default)]
pub(super) struct FakeMill {
    pub(super) faults: Faults,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// (partition, key, value) as they were appended.
    records: Vec<(Partition, String, Vec<u8>)>,
    counts: BTreeMap<(i64, String), i64>,
    answers: HashMap<Vec<u8>, Vec<u8>>,
}

impl FakeMill {
    pub(super) fn failing(faults: Faults) -> Self {
        Self { faults, ..Self::default() }
    }

    pub(super) fn records(&self) -> Vec<(Partition, String, Vec<u8>)> {
        self.state.lock().unwrap().records.clone()
    }

    /// The clicks of each ad of those partitions, by window.
    fn counts_of(&self, ask: &Ask) -> Vec<(i64, String, i64)> {
        let (period, state) = (ask.question.period(), self.state.lock().unwrap());
        let is_asked = |start: i64, ad: &str| {
            let is_there = ask.partitions.contains(&partition_for_key(ad.as_bytes(), PARTITIONS));
            let is_of_key = !matches!(&ask.question, Question::Key { key, .. } if key != ad.as_bytes());
            (period.from.0..period.to.0).contains(&start) && is_there && is_of_key
        };
        let counts = state.counts.iter().filter(|((start, ad), _)| is_asked(*start, ad));
        counts.map(|((start, ad), count)| (*start, ad.clone(), *count)).collect()
    }
}

impl CountQueries for FakeMill {
    fn windows(&self) -> TimeWindows {
        TimeWindows::of_size_with_no_grace(Duration::from_millis(WINDOW_MS as u64))
    }

    fn partitions(&self) -> u32 {
        PARTITIONS
    }

    fn earliest(&self, _: Timestamp) -> Option<Timestamp> {
        self.faults.earliest
    }

    fn parts(&self, ask: &Ask, _: &Cancellation) -> Result<Parts, QueryError> {
        assert!(!self.faults.panics, "told to panic");
        if let Some(receiver) = &self.faults.blocks {
            let _ = receiver.lock().unwrap().recv();
        }
        if let Some(kind) = self.faults.store {
            return Err(StoreError::new(kind, "the store is out of order").into());
        }
        let there: Vec<_> = ask.partitions.iter().copied().filter(|p| !self.faults.missing.contains(&p.0)).collect();
        let ask = Ask { partitions: there, ..ask.clone() };
        let counts = self.counts_of(&ask);
        let counts = match &ask.question {
            Question::Top { limit, .. } => {
                let mut ads = BTreeMap::<String, i64>::new();
                counts.into_iter().for_each(|(_, ad, count)| *ads.entry(ad).or_default() += count);
                let mut ads: Vec<_> = ads.into_iter().map(|(ad, count)| KeyCount { key: ad.into_bytes(), count }).collect();
                ads.sort_by_key(|ad| -ad.count);
                ads.truncate(*limit);
                PartialCounts::Keys(ads)
            }
            Question::Key { .. } | Question::Totals { .. } => {
                let mut windows = BTreeMap::new();
                counts.into_iter().for_each(|(start, _, count)| *windows.entry(Timestamp(start)).or_default() += count);
                PartialCounts::Windows(windows.into_iter().collect())
            }
        };
        let closed_through = NOW.0 - NOW.0 % WINDOW_MS - WINDOW_MS;
        let part = |partition: &Partition| Part {
            partition: *partition,
            standing: Standing::Active,
            position: Some(Offset(5)),
            closed_through,
        };
        Ok(Parts { generation: 0, parts: ask.partitions.iter().map(part).collect(), counts })
    }

    fn put_lag(&self, completeness: &mut Completeness, _: &[Partition]) -> Result<(), QueryError> {
        (completeness.max_lag, completeness.lag_age_ms, completeness.stream_time) = (3, 12, Some(NOW));
        Ok(())
    }
}

impl Mill for FakeMill {
    fn now(&self) -> Timestamp {
        NOW
    }

    fn clicks_topic(&self) -> ClicksTopic {
        ClicksTopic { partitions: PARTITIONS, max_record_bytes: MAX_RECORD_BYTES }
    }

    fn append(
        &self,
        clicks: &[IncomingClick<'_>],
        arrived: Timestamp,
        _: Instant,
        idempotency: Option<Idempotency<'_>>,
    ) -> Result<Appended, AppendError> {
        assert!(!clicks.is_empty());
        assert_eq!(arrived, NOW);
        if let Some(receiver) = &self.faults.append_blocks {
            let _ = receiver.lock().unwrap().recv();
        }
        if let Some(error) = &self.faults.append {
            return Err(error.clone());
        }
        let mut state = self.state.lock().unwrap();
        if let Some(Idempotency { key, answer }) = idempotency {
            if let Some(before) = state.answers.get(key) {
                return Ok(Appended::Before(before.clone()));
            }
            state.answers.insert(key.to_vec(), answer.to_vec());
        }
        for click in clicks {
            let timestamp = decoder().decode(click.value, arrived).expect("only clicks come in").timestamp;
            let start = timestamp.0 - timestamp.0 % WINDOW_MS;
            *state.counts.entry((start, click.ad_id.to_string())).or_default() += 1;
            state.records.push((click.partition, click.ad_id.to_string(), click.value.to_vec()));
        }
        Ok(Appended::Now)
    }

    fn stored_answer(&self, key: &[u8]) -> Result<Option<Vec<u8>>, AppendError> {
        Ok(self.state.lock().unwrap().answers.get(key).cloned())
    }

    fn queries(&self) -> &dyn CountQueries {
        self
    }

    fn readiness(&self) -> Readiness {
        Readiness {
            ready: !self.faults.not_ready,
            tasks: vec![report(0, 0, TaskState::Running).into(), report(1, 0, TaskState::Restoring).into()],
            intake_trouble: self.faults.intake_trouble.clone(),
            cluster_trouble: None,
        }
    }

    fn intake_trouble(&self) -> Option<String> {
        self.faults.intake_trouble.clone()
    }

    fn application(&self) -> Application {
        let known = |id: TaskId| KnownTask { input: TopicPartition::new("clicks", id.partition), id, lag: Some(2) };
        let ids = (0..2).flat_map(|subtopology| (0..2).map(move |p| TaskId { subtopology, partition: Partition(p) }));
        Application {
            id: "clickmill".into(),
            endpoint: "127.0.0.1:8080".into(),
            store_input: "shuffled".into(),
            tasks: ids.map(known).collect(),
        }
    }

    fn directory(&self) -> Arc<Directory> {
        Arc::default()
    }

    fn status(&self) -> InstanceStatus {
        let tasks = vec![report(0, 0, TaskState::Running)];
        let quarantined = TaskReport {
            trouble: Some("a record is wrong".to_owned()),
            quarantined_since: Some(Timestamp(1_767_225_600_000)),
            role: Role::Standby,
            ..report(1, 1, TaskState::Quarantined)
        };
        let tasks = tasks.into_iter().chain([quarantined]).collect();
        InstanceStatus { instance: "i-1".into(), version: "1.2.3".to_owned(), tasks, ..InstanceStatus::default() }
    }

    fn retry_task(&self, task: &str) -> bool {
        task == "1_1"
    }
}

fn report(subtopology: u32, partition: u32, state: TaskState) -> TaskReport {
    let restore = (state == TaskState::Restoring).then_some(millstream::runtime::RestoreProgress {
        from: Offset(0),
        position: Offset(40),
        end: Offset(100),
        records: 40,
        elapsed: Duration::from_secs(2),
    });
    let id = TaskId { subtopology, partition: Partition(partition) };
    TaskReport {
        id,
        input: TopicPartition::new("clicks", id.partition),
        role: Role::Active,
        state,
        position: Some(Offset(5)),
        lag: (state == TaskState::Running).then_some(2),
        closed_through: 0,
        restore,
        trouble: None,
        quarantined_since: None,
    }
}

/// An engine that has done nothing.
pub(super) struct Idle;

impl EngineStats for Idle {
    fn totals(&self) -> EngineTotals {
        EngineTotals::default()
    }
}

pub(super) fn decoder() -> ClickDecoder {
    ClickDecoder::new(ClickFields::default(), TimestampSource::Field, Duration::from_secs(600))
}
