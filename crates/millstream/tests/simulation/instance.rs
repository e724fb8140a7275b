//! One instance of the program: its parts, its stores, its connection to the broker.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millstream::broker::local::MemoryBroker;
use millstream::broker::local::faults::{Call, Fault, Faults, FaultyBroker};
use millstream::clock::ManualClock;
use millstream::query::Counts;
use millstream::runtime::{
    Instance as Engine, Member, Parts, Registry, StateUpdater, Stepped, StreamThread, StreamsConfig, TaskStatus, Upkeep, Workers,
};
use millstream::task::{RecordCounters, Role, TaskId, TaskState};

use crate::disk::{Disk, Identity};
use crate::faults::CallFaults;
use crate::scenario::{STORE, Scenario};

/// What all instances of a run share.
pub(crate) struct Surroundings {
    pub(crate) scenario: Scenario,
    pub(crate) broker: MemoryBroker,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) faults: Arc<CallFaults>,
}

/// A running process.
pub(crate) struct Instance {
    pub(crate) number: usize,
    pub(crate) broker: FaultyBroker,
    pub(crate) disk: Disk,
    /// It gets no processor time until that tick.
    pub(crate) stalled_until: u64,
    /// Its threads are stuck in what they do until it is closed in that tick, while its other parts go on.
    pub(crate) closes_at: Option<u64>,
    member: SharedMember,
    threads: Vec<StreamThread<FaultyBroker>>,
    updaters: Vec<StateUpdater<FaultyBroker>>,
    upkeep: Upkeep<FaultyBroker>,
    registry: Registry,
    standbys: BTreeSet<TaskId>,
    promoted: Vec<TaskId>,
}

/// Its part that is a member of the group; none before it has started, and after its end.
type SharedMember = Arc<Mutex<Option<Member<FaultyBroker>>>>;

/// What may go wrong with the calls of an instance, and in the middle of which its member goes on: each part has a thread of its own.
struct Meanwhile {
    faults: Arc<CallFaults>,
    member: SharedMember,
}

impl Faults for Meanwhile {
    fn next(&self, call: Call) -> Option<Fault> {
        let Ok(mut member) = self.member.try_lock() else { return self.faults.next(call) };
        if let Some(member) = member.as_mut() {
            for _ in 0..self.faults.steps_meanwhile(call) {
                // Where its process crashes there, the call in the middle of which that was tells.
                if let Err(error) = member.step(Duration::ZERO) {
                    assert!(error.to_string().contains("has crashed"), "the member stopped: {error}");
                    break;
                }
            }
        }
        drop(member);
        self.faults.next(call)
    }
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Done(Stepped),
    /// The whole process is gone.
    Crashed,
}

impl Instance {
    pub(crate) fn start(number: usize, disk: Disk, around: &Surroundings) -> Self {
        let member = SharedMember::default();
        let meanwhile = Meanwhile { faults: around.faults.clone(), member: member.clone() };
        let broker = FaultyBroker::new(around.broker.clone(), Arc::new(meanwhile));
        let registry = Registry::new();
        let Identity { incarnation, member: name } = disk.next_life();
        let parts = Parts {
            broker: Arc::new(broker.clone()),
            topology: around.scenario.topology(),
            config: StreamsConfig { incarnation, member: name, ..around.scenario.config(number) },
            provider: Arc::new(disk.clone()),
            clock: around.clock.clone(),
            registry: registry.clone(),
            observer: Arc::new(disk.clone()),
        };
        let Workers { member: part, threads, updaters, upkeep } = Engine::new(around.scenario.threads, parts).into_workers();
        *lock(&member) = Some(part);
        let (standbys, promoted) = Default::default();
        Self {
            number,
            broker,
            disk,
            stalled_until: 0,
            closes_at: None,
            member,
            threads,
            updaters,
            upkeep,
            registry,
            standbys,
            promoted,
        }
    }

    /// How many parts there are to be stepped.
    pub(crate) fn parts(&self) -> usize {
        2 + self.threads.len() + self.updaters.len()
    }

    /// Whether that part is a thread that is stuck.
    pub(crate) fn is_stuck(&self, part: usize) -> bool {
        self.closes_at.is_some() && (2..2 + self.threads.len()).contains(&part)
    }

    /// What it knows of the group.
    pub(crate) fn member(&self) -> String {
        format!("{:?}", lock(&self.member))
    }

    /// It has not heard for long of those others of its group that `is_missed` says, and of no others.
    pub(crate) fn miss_others(&self, mut is_missed: impl FnMut() -> bool) {
        let (directory, own) = (self.registry.directory(), self.number.to_string());
        let others = directory.instances.iter().filter(|(name, _)| ***name != *own);
        let missed = others.filter(|_| is_missed()).map(|(name, info)| (name.clone(), info.incarnation));
        self.registry.report_silent(missed.collect());
    }

    /// What has become of its tasks.
    pub(crate) fn tasks(&self) -> Vec<TaskStatus> {
        self.registry.tasks()
    }

    /// Steps one part. One may stop only because its process has crashed, and a task is quarantined only for a fault that was asked for.
    pub(crate) fn step(&mut self, part: usize) -> Step {
        let Self { member, threads, updaters, upkeep, .. } = self;
        let thread = part.checked_sub(2).filter(|number| *number < threads.len());
        let stepped = match (part, thread) {
            (0, _) => lock(member).as_mut().expect("it has not ended").step(Duration::ZERO),
            (1, _) => Ok(upkeep.step(Duration::ZERO)),
            (_, Some(thread)) => threads[thread].step(Duration::ZERO),
            (_, None) => updaters[part - 2 - threads.len()].step(Duration::ZERO),
        };
        match stepped {
            _ if self.broker.is_crashed() => Step::Crashed,
            Ok(stepped) => {
                let tasks = self.tasks();
                self.note_roles(&tasks);
                for task in tasks.iter().filter(|task| task.state == TaskState::Quarantined) {
                    let was_asked_for = task.trouble.as_ref().is_some_and(|trouble| trouble.contains("a fault was asked for"));
                    assert!(was_asked_for, "instance {} has a task in quarantine: {task:?}", self.number);
                }
                Step::Done(stepped)
            }
            Err(error) => panic!("part {part} of instance {} stopped: {error}", self.number),
        }
    }

    fn note_roles(&mut self, tasks: &[TaskStatus]) {
        let of = |role| tasks.iter().filter(move |task| task.role == role).map(|task| task.id);
        self.promoted.extend(of(Role::Active).filter(|id| self.standbys.contains(id)));
        self.standbys = of(Role::Standby).collect();
    }

    /// The standbys that have been promoted since this was last asked.
    pub(crate) fn take_promoted(&mut self) -> Vec<TaskId> {
        std::mem::take(&mut self.promoted)
    }

    /// An operator lets all quarantined tasks try again. Gives which those are.
    pub(crate) fn retry(&self) -> Vec<TaskId> {
        self.tasks().iter().map(|task| task.id).filter(|id| self.registry.retry(*id)).collect()
    }

    /// Ends in order. What is left is its disk, and its broker where it crashed on the way.
    pub(crate) fn close(self) -> (Disk, Option<FaultyBroker>) {
        for thread in self.threads {
            if let Err(error) = thread.close() {
                assert!(self.broker.is_crashed(), "closing instance {} failed: {error}", self.number);
            }
        }
        drop((self.updaters, self.upkeep));
        let member = lock(&self.member).take();
        member.expect("it has not ended").close();
        let crashed = self.broker.is_crashed();
        (self.disk, crashed.then_some(self.broker))
    }

    /// Ends at once.
    pub(crate) fn kill(self) -> (Disk, FaultyBroker) {
        self.broker.crash();
        drop(lock(&self.member).take());
        (self.disk, self.broker)
    }

    /// What became of the records that it has committed.
    pub(crate) fn records(&self) -> RecordCounters {
        self.registry.records()
    }

    /// Queries on its stores; none where they hold no counts, and while the broker has no room for the topics that are still to be made.
    pub(crate) fn counts(&self, around: &Surroundings) -> Option<Counts<MemoryBroker>> {
        let Surroundings { scenario, broker, clock, .. } = around;
        let (topology, config) = (scenario.topology(), scenario.config(self.number));
        let (broker, registry) = (Arc::new(broker.clone()), self.registry.clone());
        Counts::new(STORE, Duration::from_secs(1_000_000), &topology, &config, broker, registry, clock.clone()).ok()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
