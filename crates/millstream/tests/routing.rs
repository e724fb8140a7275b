//! Several instances come, go, move tasks and lag behind, while questions to any of them are answered by all of them: every complete answer is right,
//! every other one says what is missing, and no partition is in an answer twice.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millstream::broker::local::{MemoryBroker, Unit};
use millstream::broker::{Broker, TopicSettings};
use millstream::clock::ManualClock;
use millstream::partitioner::partition_for_key;
use millstream::query::{
    Answer, Cancellation, CountQueries, Counts, Holders, InstanceStatus, Next, PartialCounts, Parts, Period, QueryError,
    Question, ReadLease, ReadOptions, Request, Router, RouterLimits, Standing,
};
use millstream::record::{Partition, Record, Timestamp, TopicPartition};
use millstream::runtime::{Instance, Parts as EngineParts, Registry, StreamsConfig};
use millstream::serdes::{Bytes, Utf8};
use millstream::store::memory::MemoryStores;
use millstream::time::TimeWindows;
use millstream::topology::{Materialized, StreamsBuilder, Topology};
use proptest::prelude::*;

const STORE: &str = "counts";
const PARTITIONS: u32 = 4;
const RETENTION: Duration = Duration::from_secs(1_000_000);
const EVER: Period = Period { from: Timestamp(0), to: Timestamp(1_000_000) };
const LIMITS: RouterLimits = RouterLimits { deadline: Duration::from_secs(5), failover_wait: Duration::from_secs(1) };

fn topology() -> Topology {
    let builder = StreamsBuilder::with_serdes(Bytes, Utf8);
    let windows = TimeWindows::of_size_and_grace(Duration::from_secs(1), Duration::from_secs(1_000));
    let counts = Materialized::as_(STORE).with_retention(RETENTION);
    builder.stream("words").group_by(|_, word| *word).already_partitioned().windowed_by(windows).count(counts);
    builder.build().unwrap()
}

/// Splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % most
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Default)]
struct Lease(AtomicBool);

impl ReadLease for Lease {
    fn may_answer_as_active(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }
}

struct Process {
    instance: Instance<MemoryBroker>,
    registry: Registry,
    counts: Counts<MemoryBroker>,
    /// Set while it gets no processor time.
    stalled: Arc<Lease>,
}

struct World {
    random: Random,
    broker: Arc<MemoryBroker>,
    clock: Arc<ManualClock>,
    processes: BTreeMap<Arc<str>, Process>,
    /// What the instances have told each other, now and then.
    told: BTreeMap<Arc<str>, InstanceStatus>,
    started: u32,
    /// What was written, by word, and how much of it is counted for certain.
    written: BTreeMap<String, i64>,
    counted: BTreeMap<String, i64>,
}

impl World {
    fn new(seed: u64) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let broker = Arc::new(MemoryBroker::in_memory(clock.clone()));
        broker.create_topic("words", &TopicSettings::kept_for_ever(PARTITIONS)).unwrap();
        Self {
            random: Random(seed),
            broker,
            clock,
            processes: BTreeMap::new(),
            told: BTreeMap::new(),
            started: 0,
            written: BTreeMap::new(),
            counted: BTreeMap::new(),
        }
    }

    fn start(&mut self) {
        let id = format!("i{}", self.started);
        self.started += 1;
        let config = StreamsConfig {
            commit_interval: Duration::ZERO,
            instance_id: id.clone(),
            num_standbys: 1,
            ..StreamsConfig::new("app")
        };
        let (registry, stalled) = (Registry::new(), Arc::new(Lease::default()));
        let (b, r, c) = (self.broker.clone(), registry.clone(), self.clock.clone());
        let counts = Counts::new(STORE, RETENTION, &topology(), &config, b, r, c).unwrap().with_lease(stalled.clone());
        let parts = EngineParts {
            broker: self.broker.clone(),
            topology: topology(),
            config,
            provider: Arc::new(MemoryStores::new()),
            clock: self.clock.clone(),
            registry: registry.clone(),
            observer: Arc::new(()),
        };
        let process = Process { instance: Instance::new(1, parts), registry, counts, stalled };
        self.processes.insert(id.into(), process);
    }

    fn pick(&mut self) -> Arc<str> {
        let number = self.random.below(self.processes.len() as u64) as usize;
        self.processes.keys().nth(number).unwrap().clone()
    }

    fn write(&mut self, words: u64) {
        for _ in 0..words {
            let word = format!("w{}", self.random.below(12));
            let mut unit = Unit::new();
            let to = TopicPartition::new("words", partition_for_key(word.as_bytes(), PARTITIONS));
            unit.add(&to, &Record::new(Some(word.as_bytes()), Some(word.as_bytes()), Timestamp(self.random.below(3_000) as i64)));
            self.broker.append(unit).unwrap();
            *self.written.entry(word).or_default() += 1;
        }
    }

    /// Lets those that are not stalled go on for a while.
    fn step(&mut self, steps: u64) {
        self.clock.advance_ms(20);
        for _ in 0..steps {
            for process in self.processes.values_mut().filter(|process| process.stalled.may_answer_as_active()) {
                process.instance.step(Duration::ZERO).unwrap();
            }
        }
        for (id, process) in &self.processes {
            if process.stalled.may_answer_as_active() && self.random.one_in(3) {
                let (generation, tasks) = (process.registry.directory().generation, process.counts.task_reports());
                let status = InstanceStatus { instance: id.clone(), generation, tasks, ..InstanceStatus::default() };
                self.told.insert(id.clone(), status);
            }
        }
    }

    /// Until everything that was written is counted.
    fn settle(&mut self) {
        for process in self.processes.values() {
            process.stalled.0.store(false, Ordering::Relaxed);
        }
        for _ in 0..500 {
            self.step(5);
            let counts = &self.processes.values().next().unwrap().counts;
            counts.refresh_lag().unwrap();
            let run = self.processes.values().flat_map(|process| process.counts.task_reports());
            let running = run.filter(|task| task.state == millstream::task::TaskState::Running).count();
            if counts.source_lag() == Some(0) && running == PARTITIONS as usize {
                self.counted = self.written.clone();
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// Things happen, clicks go on, and those that are not stalled count them.
    fn leave_some_behind(&mut self) {
        (0..4).for_each(|_| self.happen());
        self.write(6);
        for _ in 0..40 {
            self.step(5);
            let counts = &self.processes.values().next().unwrap().counts;
            counts.refresh_lag().unwrap();
            if counts.source_lag() == Some(0) {
                self.counted = self.written.clone();
                return;
            }
        }
    }

    /// Something happens to an instance.
    fn happen(&mut self) {
        let who = self.pick();
        match self.random.below(6) {
            0 if self.processes.len() > 1 => drop(self.processes.remove(&who)),
            1 if self.processes.len() < 4 => self.start(),
            2 => self.broker.force_rebalance("app"),
            3 if self.processes.len() > 1 => {
                let stalled = &self.processes[&who].stalled.0;
                stalled.store(!stalled.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            _ => self.step(3),
        }
        // A group without a living member moves nothing.
        if self.processes.values().all(|process| !process.stalled.may_answer_as_active()) {
            let first = self.processes.values().next().unwrap();
            first.stalled.0.store(false, Ordering::Relaxed);
        }
        let silent: Vec<_> = self.processes.iter().filter(|(_, process)| !process.stalled.may_answer_as_active()).collect();
        for (id, process) in silent {
            if self.random.one_in(3) {
                let directory = process.registry.directory();
                let member = directory.instances.get(id).map(|info| info.member.clone());
                member.inspect(|member| _ = self.broker.expire_member("app", member));
            }
        }
    }

    fn holders(&self, asker: &str) -> Option<Holders> {
        let process = self.processes.get(asker)?;
        Some(Holders::new(&process.counts.input_topic(), &process.registry.directory(), self.told.values()))
    }

    /// What an instance answers, if it is there and the link to it is good.
    fn ask(&mut self, request: &Request) -> Option<Parts> {
        if self.random.one_in(8) {
            return None;
        }
        let process = self.processes.get(&request.instance)?;
        process.counts.parts(&request.ask, &Cancellation::default()).ok()
    }

    /// Asks an instance, which asks the others, while things go on. None where it died meanwhile.
    fn question(
        &mut self,
        question: &Question,
        read: ReadOptions,
        writes: bool,
    ) -> Option<Result<Answer<PartialCounts>, QueryError>> {
        let asker = self.pick();
        let partitions = self.processes[&asker].counts.partitions_for(question);
        let mut router = Router::new(asker.clone(), question.clone(), partitions, read, LIMITS);
        let (mut now, mut coming) = (Duration::ZERO, BTreeMap::<(Duration, u64), Option<Parts>>::new());
        loop {
            let holders = self.holders(&asker)?;
            let Next::Wait { requests, until } = router.next(now, &holders, &|_| Duration::from_millis(40)) else { break };
            for request in requests {
                let answer = self.ask(&request);
                let slowest = if self.random.one_in(5) { 200 } else { 10 };
                let takes = Duration::from_millis(self.random.below(slowest));
                coming.insert((now + takes, request.id), answer);
            }
            now = coming.first_key_value().map_or(until, |((at, _), _)| until.min((*at).max(now)));
            while let Some(entry) = coming.first_entry().filter(|entry| entry.key().0 <= now) {
                let ((_, id), answer) = entry.remove_entry();
                match answer {
                    Some(parts) => router.answered(id, parts, now),
                    None => router.failed(id, now),
                }
            }
            if self.random.one_in(4) {
                self.happen();
            }
            if writes && self.random.one_in(3) {
                self.write(3);
            }
            self.step(2);
        }
        let asked = router.asked().to_vec();
        let answers = router.into_answers();
        let mut seen = BTreeSet::new();
        for part in answers.iter().flat_map(|answer| &answer.parts) {
            assert!(seen.insert(part.partition), "partition {} is in two answers", part.partition);
            assert!(read.allow_stale || part.standing == Standing::Active);
        }
        let counts = &self.processes.get(&asker)?.counts;
        Some(counts.conclude(question, &asked, read, answers))
    }
}

/// The words of those partitions with their counts, most first.
fn ranked(counts: &BTreeMap<String, i64>, missing: &[Partition]) -> Vec<(String, i64)> {
    let is_there = |word: &&String| !missing.contains(&partition_for_key(word.as_bytes(), PARTITIONS));
    let mut ranked: Vec<_> =
        counts.iter().filter(|(word, _)| is_there(word)).map(|(word, count)| (word.clone(), *count)).collect();
    ranked.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    ranked
}

fn total(counts: &PartialCounts) -> i64 {
    match counts {
        PartialCounts::Windows(windows) => windows.iter().map(|(_, count)| count).sum(),
        PartialCounts::Keys(keys) => keys.iter().map(|key| key.count).sum(),
    }
}

/// What the counts of these words come to, for the question.
fn expected(question: &Question, counts: &BTreeMap<String, i64>, missing: &[Partition]) -> i64 {
    let ranked = ranked(counts, missing);
    match question {
        Question::Key { key, .. } => ranked.iter().filter(|(word, _)| word.as_bytes() == key).map(|(_, count)| count).sum(),
        Question::Top { limit, .. } => ranked.iter().take(*limit).map(|(_, count)| count).sum(),
        Question::Totals { .. } => ranked.iter().map(|(_, count)| count).sum(),
    }
}

fn a_question(random: &mut Random) -> (Question, ReadOptions) {
    let question = match random.below(3) {
        0 => Question::Key { key: format!("w{}", random.below(12)).into_bytes(), period: EVER },
        1 => Question::Top { period: EVER, limit: 1 + random.below(6) as usize },
        _ => Question::Totals { period: EVER },
    };
    (question, ReadOptions { allow_partial: random.one_in(3), allow_stale: random.one_in(4), max_stale_records: None })
}

fn run(seed: u64) -> (u32, u32) {
    let mut world = World::new(seed);
    (0..3).for_each(|_| world.start());
    let (mut complete, mut incomplete) = (0, 0);
    for round in 0..12 {
        world.write(10);
        world.settle();
        // In every second round clicks go on: an answer lies between what was counted before and what is written after.
        let writes = round % 2 == 1;
        for _ in 0..3 {
            if writes {
                world.leave_some_behind();
            }
            let (question, read) = a_question(&mut world.random);
            let before = world.counted.clone();
            let Some(answer) = world.question(&question, read, writes) else { continue };
            match answer {
                Ok(answer) => {
                    let Answer { value, completeness } = answer;
                    let (least, most) = (
                        expected(&question, &before, &completeness.missing),
                        expected(&question, &world.written, &completeness.missing),
                    );
                    let least = if completeness.stale.is_empty() { least } else { 0 };
                    let found = total(&value);
                    assert!((least..=most).contains(&found), "seed {seed}: {found} is not in {least}..={most}: {completeness:?}");
                    if let (PartialCounts::Keys(keys), Question::Top { limit, .. }, false) = (&value, &question, writes)
                        && completeness.stale.is_empty()
                    {
                        let found: Vec<_> =
                            keys.iter().map(|key| (String::from_utf8(key.key.clone()).unwrap(), key.count)).collect();
                        let mut best = ranked(&before, &completeness.missing);
                        best.truncate(*limit);
                        assert_eq!(found, best, "seed {seed}");
                    }
                    assert_eq!(completeness.answered as usize + completeness.missing.len(), completeness.partitions as usize);
                    assert!(read.allow_partial || completeness.missing.is_empty());
                    if completeness.is_complete() { complete += 1 } else { incomplete += 1 }
                }
                Err(QueryError::Incomplete(completeness)) => {
                    assert!(!completeness.missing.is_empty() && !read.allow_partial);
                    incomplete += 1;
                }
                Err(other) => panic!("seed {seed}: {other}"),
            }
            if !writes {
                assert_eq!(world.written, world.counted);
            }
        }
    }
    (complete, incomplete)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn any_instance_answers_for_all_of_them(seed in any::<u64>()) {
        run(seed);
    }
}

#[test]
fn most_answers_are_complete_though_instances_come_and_go() {
    let outcomes: Vec<_> = (0..100).map(run).collect();
    let (complete, incomplete) = outcomes.iter().fold((0, 0), |(c, i), outcome| (c + outcome.0, i + outcome.1));
    assert!(complete > 5 * incomplete, "{complete} are complete, {incomplete} are not");
}
