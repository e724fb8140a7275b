//! A standby keeps a copy of a store that somebody else's task keeps, and takes the task over in place.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use millstream::broker::local::{MemoryBroker, Unit};
use millstream::broker::{Broker, Isolation, TopicSettings};
use millstream::clock::ManualClock;
use millstream::query::{CountQueries, Counts, Period, ReadOptions};
use millstream::record::{Offset, Partition, Record, Timestamp, TopicPartition};
use millstream::runtime::{Instance, Parts, Registry, StreamsConfig, TaskStatus};
use millstream::serdes::{Bytes, Utf8};
use millstream::store::memory::MemoryStores;
use millstream::store::{Space, StateStore, StoreError, StoreProvider};
use millstream::task::{Role, TaskState};
use millstream::time::TimeWindows;
use millstream::topology::{Materialized, StreamsBuilder, Topology};

const STORE: &str = "counts";
const RETENTION: Duration = Duration::from_secs(1);
const EVER: Period = Period { from: Timestamp(0), to: Timestamp(1_000_000) };

fn topology() -> Topology {
    let builder = StreamsBuilder::with_serdes(Bytes, Utf8);
    let windows = TimeWindows::of_size_with_no_grace(Duration::from_millis(10));
    let counts = Materialized::as_(STORE).with_retention(RETENTION);
    builder.stream("words").group_by(|_, word| *word).already_partitioned().windowed_by(windows).count(counts);
    builder.build().unwrap()
}

fn config(id: &str) -> StreamsConfig {
    StreamsConfig {
        commit_interval: Duration::ZERO,
        purge_interval: Duration::ZERO,
        instance_id: id.to_owned(),
        num_standbys: 1,
        ..StreamsConfig::new("app")
    }
}

/// Counts how often stores are opened and destroyed, and lets a test look into the one that was opened last.
#[derive(Default)]
struct Watched {
    stores: MemoryStores,
    opened: AtomicUsize,
    destroyed: AtomicUsize,
    last: Mutex<Option<Weak<dyn StateStore>>>,
}

impl Watched {
    fn rows(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.all(Space::Rows, &[0; 8], &[255; 8])
    }

    /// What was made of the rows: rankings of final windows.
    fn rankings(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.all(Space::Derived, b"", &[255; 8])
    }

    fn all(&self, space: Space, from: &[u8], to: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let Some(store) = self.last.lock().unwrap().as_ref().and_then(Weak::upgrade) else { return Vec::new() };
        let mut rows = Vec::new();
        let mut visit = |key: &[u8], value: &[u8]| {
            rows.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        };
        store.snapshot().scan(space, from, to, &mut visit).unwrap();
        rows
    }
}

impl StoreProvider for Watched {
    fn open(&self, store: &str, partition: Partition) -> Result<Arc<dyn StateStore>, StoreError> {
        let opened = self.stores.open(store, partition)?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        *self.last.lock().unwrap() = Some(Arc::downgrade(&opened));
        Ok(opened)
    }

    fn partitions(&self, store: &str) -> Result<Vec<Partition>, StoreError> {
        self.stores.partitions(store)
    }

    fn destroy(&self, store: &str, partition: Partition) -> Result<(), StoreError> {
        self.stores.destroy(store, partition)?;
        self.destroyed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Two instances of an application of one task: the first counts, the second is its standby.
struct Pair {
    broker: Arc<MemoryBroker>,
    clock: Arc<ManualClock>,
    owner: Process,
    standby: Process,
}

struct Process {
    instance: Instance<MemoryBroker>,
    registry: Registry,
    stores: Arc<Watched>,
}

impl Process {
    fn start(id: &str, broker: &Arc<MemoryBroker>, clock: &Arc<ManualClock>) -> Self {
        let (registry, stores) = (Registry::new(), Arc::new(Watched::default()));
        let parts = Parts {
            broker: broker.clone(),
            topology: topology(),
            config: config(id),
            provider: stores.clone(),
            clock: clock.clone(),
            registry: registry.clone(),
            observer: Arc::new(()),
        };
        Self { instance: Instance::new(1, parts), registry, stores }
    }

    fn step(&mut self) {
        for _ in 0..20 {
            self.instance.step(Duration::ZERO).unwrap();
        }
    }

    fn task(&self) -> TaskStatus {
        let mut tasks = self.registry.tasks();
        assert_eq!(tasks.len(), 1, "{tasks:?}");
        tasks.remove(0)
    }
}

impl Pair {
    fn start() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let broker = Arc::new(MemoryBroker::in_memory(clock.clone()));
        broker.create_topic("words", &TopicSettings::kept_for_ever(1)).unwrap();
        let mut owner = Process::start("0", &broker, &clock);
        owner.step();
        let mut standby = Process::start("1", &broker, &clock);
        for _ in 0..5 {
            standby.step();
            owner.step();
        }
        assert_eq!((owner.task().role, standby.task().role), (Role::Active, Role::Standby));
        Self { broker, clock, owner, standby }
    }

    /// Writes words of that time, and lets both go on for two seconds.
    fn write(&mut self, words: &str, time: i64) {
        self.write_unseen(words, time);
        self.standby.step();
    }

    /// As [`Pair::write`], and the standby gets no processor time.
    fn write_unseen(&mut self, words: &str, time: i64) {
        for word in words.split(' ') {
            let mut unit = Unit::new();
            let record = Record::new(Some(word.as_bytes()), Some(word.as_bytes()), Timestamp(time));
            unit.add(&TopicPartition::new("words", Partition(0)), &record);
            self.broker.append(unit).unwrap();
        }
        self.clock.advance_ms(2_000);
        self.owner.step();
    }

    fn changelog_start(&self) -> Offset {
        let changelog = TopicPartition::new("app-counts-changelog", Partition(0));
        self.broker.log_range(&changelog, Isolation::ReadCommitted).unwrap().start
    }
}

#[test]
fn a_standby_has_what_its_owner_has_and_answers_as_stale() {
    let mut pair = Pair::start();
    pair.write("a b a", 1);
    pair.write("b c", 12);
    assert_eq!(pair.owner.stores.rows().len(), 4);
    assert_eq!(pair.standby.stores.rows(), pair.owner.stores.rows());
    let task = pair.standby.task();
    let restore = task.restore.unwrap();
    assert_eq!((task.state, restore.end), (TaskState::Restoring, restore.position));

    let (broker, registry) = (pair.broker.clone(), pair.standby.registry.clone());
    let counts = Counts::new(STORE, RETENTION, &topology(), &config("1"), broker, registry, pair.clock.clone()).unwrap();
    counts.refresh_lag().unwrap();
    let fetch = |allow_stale| counts.fetch(b"a", EVER, ReadOptions { allow_stale, ..ReadOptions::default() });
    fetch(false).expect_err("it is its owner's to answer");
    let answer = fetch(true).unwrap();
    assert_eq!(answer.value.iter().map(|window| window.count).collect::<Vec<_>>(), [2]);
    assert_eq!(answer.completeness.stale[0].lag, Some(0));
    assert!(!pair.standby.registry.is_running(1), "it has no task of its own");
    assert!(pair.standby.registry.is_settled(), "and waits for none");
}

#[test]
fn a_standby_is_promoted_in_place() {
    let mut pair = Pair::start();
    pair.write("a b a", 1);
    let Pair { owner, mut standby, broker, .. } = pair;
    drop(owner);
    let mut unit = Unit::new();
    unit.add(&TopicPartition::new("words", Partition(0)), &Record::new(Some(b"a"), Some(b"a"), Timestamp(2)));
    broker.append(unit).unwrap();
    standby.step();
    let task = standby.task();
    assert_eq!((task.role, task.state, task.committed), (Role::Active, TaskState::Running, Some(Offset(4))), "{task:?}");
    assert_eq!(standby.stores.opened.load(Ordering::Relaxed), 1, "it goes on with the store that is open");
    assert_eq!(standby.stores.rows().len(), 2);
}

#[test]
fn a_standby_ranks_what_its_owner_ranks() {
    let mut pair = Pair::start();
    pair.write("a b a", 1);
    assert_eq!(pair.standby.stores.rankings(), [], "the window is not final");
    pair.write("c", 12);
    pair.write("c", 25);
    let ranked = pair.owner.stores.rankings();
    assert!(ranked.len() >= 4, "head and pieces of two windows: {ranked:?}");
    pair.clock.advance_ms(2_000);
    pair.standby.step();
    assert_eq!(pair.standby.stores.rankings(), ranked);
}

#[test]
fn a_standby_expires_what_its_owner_expires() {
    let mut pair = Pair::start();
    pair.write("a b a", 1);
    pair.write("a", 5_000);
    pair.write("b", 5_020);
    assert_eq!(pair.owner.stores.rows().len(), 2);
    assert_eq!(pair.standby.stores.rows(), pair.owner.stores.rows());
    assert_eq!(pair.standby.stores.destroyed.load(Ordering::Relaxed), 0);
}

#[test]
fn a_standby_that_was_left_behind_by_a_log_that_was_trimmed_is_built_anew() {
    let mut pair = Pair::start();
    pair.write("a b a", 1);
    let before = pair.changelog_start();
    pair.write_unseen("c d", 100);
    pair.write_unseen("a", 5_000);
    pair.write_unseen("b", 5_020);
    assert!(pair.changelog_start() > before.max(Offset(2)), "the log still begins at {}", pair.changelog_start());
    for _ in 0..4 {
        pair.standby.step();
        pair.clock.advance_ms(2_000);
    }
    assert_eq!(pair.standby.stores.destroyed.load(Ordering::Relaxed), 1);
    assert_eq!(pair.standby.stores.rows(), pair.owner.stores.rows());
    assert_eq!(pair.standby.stores.rows().len(), 2);
}

#[test]
fn an_owner_that_is_about_to_stop_hands_over_while_it_counts() {
    let mut pair = Pair::start();
    pair.write("a b a", 1);
    pair.owner.registry.hand_over();
    for _ in 0..10 {
        pair.clock.advance_ms(300);
        pair.owner.step();
        pair.standby.step();
    }
    assert!(pair.owner.registry.has_handed_over());
    let (left, taken) = (pair.owner.registry.tasks(), pair.standby.task());
    assert!(left.iter().all(|task| task.role == Role::Standby), "{left:?}");
    assert_eq!((taken.role, taken.state), (Role::Active, TaskState::Running));
    assert_eq!(pair.standby.stores.opened.load(Ordering::Relaxed), 1, "it goes on with the store that is open");
}

#[test]
fn an_instance_that_is_alone_keeps_its_tasks_until_it_stops() {
    let Pair { mut owner, standby, clock, .. } = Pair::start();
    drop(standby);
    owner.step();
    owner.registry.hand_over();
    clock.advance_ms(300);
    owner.step();
    assert!(owner.registry.has_handed_over());
    assert_eq!((owner.task().role, owner.task().state), (Role::Active, TaskState::Running));
}

#[test]
fn a_standby_takes_over_at_once_where_its_owner_is_known_to_be_dead() {
    let mut pair = Pair::start();
    pair.write("a b a", 1);
    let Pair { owner, mut standby, .. } = pair;
    let directory = standby.registry.directory();
    let (instance, info) = directory.instances.iter().find(|(instance, _)| &***instance == "0").unwrap();
    // It has not left: to the group it is alive.
    std::mem::forget(owner);
    standby.step();
    assert_eq!(standby.task().role, Role::Standby);
    standby.registry.report_dead(instance.clone(), info.incarnation + 1);
    standby.step();
    assert_eq!(standby.task().role, Role::Standby, "that was another life of it");
    standby.registry.report_dead(instance.clone(), info.incarnation);
    standby.step();
    let task = standby.task();
    assert_eq!((task.role, task.state), (Role::Active, TaskState::Running));
    assert_eq!(standby.stores.opened.load(Ordering::Relaxed), 1);
}

#[test]
fn a_standby_takes_over_from_an_owner_that_does_not_answer_the_roll() {
    let mut pair = Pair::start();
    pair.write("a b a", 1);
    let Pair { owner, mut standby, broker, clock } = pair;
    let incarnation = standby.registry.directory().instances["0"].incarnation;
    // It stands still.
    std::mem::forget(owner);
    let suspect = |standby: &Process, incarnation| standby.registry.report_silent([("0".into(), incarnation)].into());
    suspect(&standby, incarnation + 1);
    standby.step();
    assert!(!broker.time_out_rebalance("app"), "that was another life of it: nobody calls the roll");
    suspect(&standby, incarnation);
    clock.advance_ms(300);
    standby.step();
    assert!(broker.time_out_rebalance("app"), "the owner has not joined again");
    standby.step();
    let task = standby.task();
    assert_eq!((task.role, task.state), (Role::Active, TaskState::Running));
    assert_eq!(standby.stores.opened.load(Ordering::Relaxed), 1);
}
