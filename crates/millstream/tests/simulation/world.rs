//! A run: instances that come and go, clicks that keep coming, and whatever may happen to both.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millstream::broker::local::MemoryBroker;
use millstream::broker::local::faults::FaultyBroker;
use millstream::broker::{Broker, TopicSettings};
use millstream::clock::{Clock, ManualClock};
use millstream::query::Period;
use millstream::record::Timestamp;
use millstream::runtime::Stepped;
use millstream::task::RecordCounters;

use crate::audit::{AGGREGATED, Audit, COUNTERS_COMPARED, FANNED_OUT, PROMOTED, RETRIED};
use crate::clicks::Clicks;
use crate::disk::Disk;
use crate::faults::CallFaults;
use crate::instance::{Instance, Step, Surroundings};
use crate::model::Expected;
use crate::queries;
use crate::random::Random;
use crate::scenario::{APPLICATION, CLICKS, Scenario};
use crate::trace::Trace;

/// After so many rounds without a change nothing more will come.
const QUIET_ROUNDS: u32 = 12;
/// A run that has not come to rest by then never will.
const MOST_ROUNDS: u32 = 10_000;

/// A place for an instance.
pub(crate) enum Seat {
    Up(Instance),
    Down { disk: Disk, until: u64 },
}

pub(crate) struct World {
    pub(super) around: Surroundings,
    pub(super) random: Random,
    pub(super) trace: Trace,
    pub(super) tick: u64,
    pub(super) partitions: u32,
    pub(super) clicks: Clicks,
    pub(super) seats: Vec<Seat>,
    /// Crashed instances whose memberships have not expired.
    pub(super) graves: Vec<FaultyBroker>,
    /// Instances that others have replaced and that do not know it, with the tick in which they end.
    pub(super) ghosts: Vec<(Instance, u64)>,
    audit: Arc<Mutex<Audit>>,
}

/// Runs a seed to its end and checks everything.
pub(crate) fn run(seed: u64, trace: Trace) {
    let mut world = World::new(Scenario::new(seed), trace);
    for _ in 0..world.around.scenario.ticks {
        world.tick();
    }
    world.end_all_faults();
    world.come_to_rest();
    world.check_counts();
    world.check_counters();
    world.leave_one();
    world.come_to_rest();
    world.check_counts();
    world.check_answers();
}

impl World {
    fn new(scenario: Scenario, trace: Trace) -> Self {
        trace.note(format_args!("{scenario:?}"));
        let kinds = [(AGGREGATED, scenario.aggregates), (FANNED_OUT, scenario.fans_out)];
        kinds.iter().filter(|(_, is_so)| *is_so).for_each(|(kind, _)| trace.event(kind, ""));
        let mut random = Random::new(scenario.seed);
        let clock = Arc::new(ManualClock::new(Timestamp(random.pick(&[0, 1_000, 1_700_000_000_000]))));
        let broker = MemoryBroker::in_memory(clock.clone());
        broker.create_topic(CLICKS, &TopicSettings::kept_for_ever(scenario.partitions)).unwrap();
        let audit = Arc::new(Mutex::new(Audit::new(broker.clone(), scenario.clone(), trace.clone())));
        let faults = CallFaults::new(random.fork(), audit.clone(), trace.clone());
        if scenario.event_one_in.is_none() {
            faults.end();
        }
        let around = Surroundings { scenario: scenario.clone(), broker: broker.clone(), clock, faults: faults.clone() };
        let down = |_| Seat::Down { disk: Disk::new(faults.clone()), until: 0 };
        Self {
            tick: 0,
            partitions: scenario.partitions,
            clicks: Clicks::new(random.fork(), scenario.clone()),
            seats: (0..scenario.instances).map(down).collect(),
            graves: Vec::new(),
            ghosts: Vec::new(),
            audit,
            around,
            random,
            trace,
        }
    }

    fn audit(&self) -> MutexGuard<'_, Audit> {
        self.audit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&mut self) {
        self.tick += 1;
        self.around.clock.advance_ms(self.random.below(2 * self.around.scenario.tick_ms + 1) as i64);
        let now = self.around.clock.now();
        self.clicks.send(&self.around.broker, self.tick, now, self.partitions);
        self.start_what_is_due();
        self.close_what_is_due();
        if self.around.scenario.event_one_in.is_some_and(|one_in| self.random.one_in(one_in)) {
            self.cause_event();
        }
        self.settle_open();
        self.audit().look();
        for _ in 0..self.random.between(2, 12) {
            let seat = self.random.index(self.seats.len());
            self.step_any_part(seat);
        }
        self.step_ghosts();
        if self.random.one_in(10) {
            self.retry_quarantined();
        }
        self.ask();
    }

    /// An operator looks after what is quarantined.
    fn retry_quarantined(&self) {
        for seat in &self.seats {
            let Seat::Up(instance) = seat else { continue };
            for task in instance.retry() {
                self.trace.event(RETRIED, task);
            }
        }
    }

    pub(super) fn start_what_is_due(&mut self) {
        for number in 0..self.seats.len() {
            if let Seat::Down { disk, until } = &self.seats[number]
                && *until <= self.tick
            {
                self.trace.note(format_args!("instance {number} starts"));
                self.seats[number] = Seat::Up(Instance::start(number, disk.clone(), &self.around));
            }
        }
    }

    fn close_what_is_due(&mut self) {
        for seat in 0..self.seats.len() {
            let closes_at = if let Seat::Up(instance) = &self.seats[seat] { instance.closes_at } else { None };
            if closes_at.is_some_and(|tick| tick <= self.tick) {
                self.is_closed(seat);
            }
        }
    }

    fn step_any_part(&mut self, seat: usize) {
        let Seat::Up(instance) = &mut self.seats[seat] else { return };
        if instance.stalled_until > self.tick {
            return;
        }
        let part = self.random.index(instance.parts());
        if !instance.is_stuck(part) {
            self.step(seat, part);
        }
    }

    fn step(&mut self, seat: usize, part: usize) -> Stepped {
        let Seat::Up(instance) = &mut self.seats[seat] else { return Stepped::Idle };
        let step = instance.step(part);
        for task in instance.take_promoted() {
            self.trace.event(PROMOTED, task);
        }
        self.trace.note(format_args!("{} {}.{seat}.{part} {step:?}", self.around.clock.now(), self.tick));
        self.audit().look();
        match step {
            Step::Done(stepped) => stepped,
            Step::Crashed => {
                self.crash(seat);
                Stepped::Worked
            }
        }
    }

    /// The process in that seat is gone at once, and will be started again.
    pub(super) fn crash(&mut self, seat: usize) {
        let until = self.tick + self.random.below(40);
        let disk = match &self.seats[seat] {
            Seat::Up(instance) => instance.disk.clone(),
            Seat::Down { disk, .. } => disk.clone(),
        };
        if let Seat::Up(instance) = std::mem::replace(&mut self.seats[seat], Seat::Down { disk: disk.clone(), until }) {
            let (disk, grave) = instance.kill();
            disk.crash(&mut self.random);
            self.graves.push(grave);
        }
        if self.random.one_in(5) {
            self.trace.event("state deleted", seat);
            disk.erase();
        }
    }

    fn step_ghosts(&mut self) {
        for (mut ghost, until) in std::mem::take(&mut self.ghosts) {
            let part = self.random.index(ghost.parts());
            let step = ghost.step(part);
            self.trace.note(format_args!("ghost {}.{part} {step:?}", ghost.number));
            self.audit().look();
            if step == Step::Crashed || until <= self.tick {
                self.graves.push(ghost.kill().1);
            } else {
                self.ghosts.push((ghost, until));
            }
        }
    }

    fn ask(&mut self) {
        let seat = self.random.index(self.seats.len());
        let ad = self.clicks.ad();
        let is_time = self.random.one_in(3);
        let scenario = &self.around.scenario;
        let (now, size) = (self.around.clock.now().0, scenario.windows.size_ms());
        let from = (now / size - self.random.below(20) as i64).max(0) * size;
        let period = Period { from: Timestamp(from), to: Timestamp(from + self.random.between(1, 25) as i64 * size) };
        let limit = self.random.between(1, 6) as usize;
        let Seat::Up(instance) = &self.seats[seat] else { return };
        if let Some(counts) = instance.counts(&self.around).filter(|_| is_time) {
            queries::ask(&counts, &ad, scenario, &mut self.audit());
            queries::ask_top(&counts, period, limit, &self.audit());
        }
    }

    /// From here on nothing goes wrong any more, and everything that is down comes up.
    fn end_all_faults(&mut self) {
        self.trace.note("the end of all faults");
        self.around.faults.end();
        self.around.broker.storage().set_full(false);
        for (ghost, _) in std::mem::take(&mut self.ghosts) {
            self.graves.push(ghost.kill().1);
        }
        for seat in &mut self.seats {
            match seat {
                Seat::Up(instance) => {
                    instance.stalled_until = 0;
                    instance.closes_at = None;
                    instance.miss_others(|| false);
                    instance.disk.set_full(false);
                }
                Seat::Down { disk, until } => {
                    disk.set_full(false);
                    *until = 0;
                }
            }
        }
        self.start_what_is_due();
        self.graves.drain(..).for_each(|grave| grave.expire_members());
        for open in self.around.broker.open_transactions() {
            let commit = self.random.one_in(2);
            self.around.broker.settle(open, commit).unwrap();
            self.audit().look();
        }
    }

    /// Steps everything until nothing has happened for a while.
    fn come_to_rest(&mut self) {
        let scenario = &self.around.scenario;
        let pause = scenario.commit_interval.max(scenario.idle_timeout.unwrap_or_default() / 3).as_millis() as i64 + 1;
        let mut quiet = 0;
        for _ in 0..MOST_ROUNDS {
            self.retry_quarantined();
            self.around.clock.advance_ms(pause);
            let before = self.trace_of_progress();
            let mut idle = true;
            for seat in 0..self.seats.len() {
                let Seat::Up(instance) = &self.seats[seat] else { continue };
                for part in 0..instance.parts() {
                    idle &= self.step(seat, part) == Stepped::Idle;
                }
            }
            quiet = if idle && before == self.trace_of_progress() { quiet + 1 } else { 0 };
            if quiet == QUIET_ROUNDS {
                self.seats.iter().for_each(|seat| self.note_tasks(seat));
                return;
            }
        }
        self.seats.iter().for_each(|seat| self.note_tasks(seat));
        panic!("the instances do not come to rest");
    }

    fn note_tasks(&self, seat: &Seat) {
        let Seat::Up(instance) = seat else { return };
        let group = self.around.broker.describe_group(APPLICATION);
        self.trace.note(format_args!("instance {} {} of {group:?}", instance.number, instance.member()));
        for task in instance.tasks() {
            self.trace.note(format_args!(
                "instance {}: {} {:?} {} {:?}",
                instance.number, task.id, task.inputs, task.state, task.trouble
            ));
        }
    }

    /// What has been committed, and how far members are with joining: who waits for the others of its group, or for an answer that is late, is idle meanwhile.
    fn trace_of_progress(&self) -> String {
        let up = self.seats.iter().filter_map(|seat| if let Seat::Up(instance) = seat { Some(instance.member()) } else { None });
        format!("{:?} {:?}", self.audit().positions, up.collect::<Vec<_>>())
    }

    fn check_counts(&mut self) {
        let (scenario, mut audit) = (&self.around.scenario, self.audit());
        audit.look();
        Expected::of(scenario, &self.clicks, &audit).check(scenario, &self.clicks, &audit);
    }

    /// Closes all instances but one, which takes everything over.
    fn leave_one(&mut self) {
        for seat in self.seats.drain(1..) {
            if let Seat::Up(instance) = seat {
                instance.close();
            }
        }
    }

    /// What the instances have counted since they started adds up; and it is everything, where nothing can have been lost.
    fn check_counters(&self) {
        let mut all = RecordCounters::default();
        for seat in &self.seats {
            let Seat::Up(instance) = seat else { continue };
            let records = instance.records();
            assert_eq!(records.read, records.settled(), "{records:?}");
            all.add(&records);
        }
        let (scenario, audit) = (&self.around.scenario, self.audit());
        if scenario.event_one_in.is_none() {
            self.trace.event(COUNTERS_COMPARED, "");
            Expected::of(scenario, &self.clicks, &audit).check_counters(&self.clicks, &all);
        }
    }

    fn check_answers(&self) {
        let Seat::Up(instance) = &self.seats[0] else { panic!("nobody is left to ask") };
        let (scenario, counts) = (&self.around.scenario, instance.counts(&self.around));
        // What is no count cannot be queried.
        assert_eq!(counts.is_some(), !scenario.aggregates);
        if let Some(counts) = counts {
            queries::check_all(&counts, scenario, &self.audit());
        }
    }
}
