//! A mill in memory: it counts what it is given at once, and fails as it is told.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::Instant;

use millstream::query::{
    Answer, Cancellation, Completeness, CountQueries, KeyCount, Period, QueryError, ReadOptions, WindowCount,
};
use millstream::record::{Partition, Timestamp};
use millstream::store::{StoreError, StoreErrorKind};
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

    fn answer<T>(&self, value: T, read: ReadOptions) -> Result<Answer<T>, QueryError> {
        assert!(!self.faults.panics, "told to panic");
        if let Some(receiver) = &self.faults.blocks {
            let _ = receiver.lock().unwrap().recv();
        }
        if let Some(kind) = self.faults.store {
            return Err(StoreError::new(kind, "the store is out of order").into());
        }
        let missing: Vec<Partition> = self.faults.missing.iter().copied().map(Partition).collect();
        let answered = PARTITIONS - missing.len() as u32;
        let (stream_time, final_until) = (Some(NOW), Some(Timestamp(NOW.0 - NOW.0 % WINDOW_MS - WINDOW_MS)));
        let completeness = Completeness {
            partitions: PARTITIONS,
            answered,
            missing,
            max_lag: 3,
            lag_age_ms: 12,
            stream_time,
            final_until,
            ..Completeness::default()
        };
        if completeness.is_complete() || read.allow_partial {
            Ok(Answer { value, completeness })
        } else {
            Err(QueryError::Incomplete(Box::new(completeness)))
        }
    }

    fn windows_of(&self, period: Period, counts: impl Fn(&str) -> bool) -> Vec<WindowCount> {
        let mut windows = BTreeMap::<i64, i64>::new();
        for ((start, ad), count) in &self.state.lock().unwrap().counts {
            if (period.from.0..period.to.0).contains(start) && counts(ad) {
                *windows.entry(*start).or_default() += count;
            }
        }
        let window = |(start, count)| WindowCount {
            start: Timestamp(start),
            end: Timestamp(start + WINDOW_MS),
            count,
            is_final: start + WINDOW_MS <= NOW.0 - NOW.0 % WINDOW_MS - WINDOW_MS,
        };
        windows.into_iter().map(window).collect()
    }
}

impl CountQueries for FakeMill {
    fn windows(&self) -> TimeWindows {
        TimeWindows::of_size_with_no_grace(Duration::from_millis(WINDOW_MS as u64))
    }

    fn earliest(&self, _: Timestamp) -> Option<Timestamp> {
        self.faults.earliest
    }

    fn fetch(&self, key: &[u8], period: Period, read: ReadOptions) -> Result<Answer<Vec<WindowCount>>, QueryError> {
        self.answer(self.windows_of(period, |ad| ad.as_bytes() == key), read)
    }

    fn top(
        &self,
        period: Period,
        limit: usize,
        read: ReadOptions,
        _: &Cancellation,
    ) -> Result<Answer<Vec<KeyCount>>, QueryError> {
        let mut ads = BTreeMap::<String, i64>::new();
        for ((start, ad), count) in &self.state.lock().unwrap().counts {
            if (period.from.0..period.to.0).contains(start) {
                *ads.entry(ad.clone()).or_default() += count;
            }
        }
        let mut ads: Vec<KeyCount> = ads.into_iter().map(|(ad, count)| KeyCount { key: ad.into_bytes(), count }).collect();
        ads.sort_by_key(|ad| -ad.count);
        ads.truncate(limit);
        self.answer(ads, read)
    }

    fn totals(&self, period: Period, read: ReadOptions) -> Result<Answer<Vec<WindowCount>>, QueryError> {
        self.answer(self.windows_of(period, |_| true), read)
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
            tasks: vec![task("0_0", "running"), task("1_0", "restoring")],
            intake_trouble: self.faults.intake_trouble.clone(),
        }
    }

    fn intake_trouble(&self) -> Option<String> {
        self.faults.intake_trouble.clone()
    }

    fn cluster(&self) -> Cluster {
        let instance = Instance {
            id: "i-1".into(),
            endpoint: "127.0.0.1:8080".into(),
            active_tasks: vec![task("0_0", "running")],
            standby_tasks: vec![],
        };
        let quarantined =
            Quarantined { task: "1_1".into(), reason: "a record is wrong".into(), since: Timestamp(1_767_225_600_000) };
        Cluster { application_id: "clickmill".into(), instances: vec![instance], quarantined: vec![quarantined] }
    }

    fn retry_task(&self, task: &str) -> bool {
        task == "1_1"
    }
}

fn task(task: &str, state: &str) -> TaskStatus {
    let restore = (state == "restoring").then_some(RestoreProgress {
        start: 0,
        position: 40,
        end: 100,
        records_per_second: Some(20),
        seconds_left: None,
    });
    TaskStatus {
        task: task.into(),
        state: state.into(),
        topic: "clicks".into(),
        partition: 0,
        position: Some(5),
        lag: (state == "running").then_some(2),
        restore,
        trouble: None,
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
