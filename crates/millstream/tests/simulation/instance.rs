//! One instance of the program: its threads, its stores, its connection to the broker.

use std::sync::Arc;
use std::time::Duration;

use millstream::broker::local::MemoryBroker;
use millstream::broker::local::faults::FaultyBroker;
use millstream::clock::ManualClock;
use millstream::query::Counts;
use millstream::runtime::{Parts, Registry, Stepped, StreamThread};

use crate::disk::Disk;
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
    threads: Vec<StreamThread<FaultyBroker>>,
    registry: Registry,
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
        let broker = FaultyBroker::new(around.broker.clone(), around.faults.clone());
        let registry = Registry::new();
        let parts = || Parts {
            broker: Arc::new(broker.clone()),
            topology: around.scenario.topology(),
            config: around.scenario.config(number),
            provider: Arc::new(disk.clone()),
            clock: around.clock.clone(),
            registry: registry.clone(),
            observer: Arc::new(()),
        };
        let threads = (0..around.scenario.threads).map(|thread| StreamThread::new(thread, parts())).collect();
        Self { number, broker, disk, stalled_until: 0, threads, registry }
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Steps one thread. A thread may stop only because its process has crashed.
    pub(crate) fn step(&mut self, thread: usize) -> Step {
        let stepped = self.threads[thread].step(Duration::ZERO);
        match stepped {
            _ if self.broker.is_crashed() => Step::Crashed,
            Ok(stepped) => Step::Done(stepped),
            Err(error) => panic!("thread {thread} of instance {} stopped: {error}", self.number),
        }
    }

    /// Ends in order. What is left is its disk, and its broker where it crashed on the way.
    pub(crate) fn close(mut self) -> (Disk, Option<FaultyBroker>) {
        for thread in self.threads.drain(..) {
            if let Err(error) = thread.close() {
                assert!(self.broker.is_crashed(), "closing instance {} failed: {error}", self.number);
            }
        }
        let crashed = self.broker.is_crashed();
        (self.disk, crashed.then_some(self.broker))
    }

    /// Ends at once.
    pub(crate) fn kill(self) -> (Disk, FaultyBroker) {
        self.broker.crash();
        (self.disk, self.broker)
    }

    /// Queries on its stores; none while the broker has no room for the topics that are still to be made.
    pub(crate) fn counts(&self, around: &Surroundings) -> Option<Counts<MemoryBroker>> {
        let Surroundings { scenario, broker, clock, .. } = around;
        let (topology, config) = (scenario.topology(), scenario.config(self.number));
        let (broker, registry) = (Arc::new(broker.clone()), self.registry.clone());
        Counts::new(STORE, Duration::from_secs(1_000_000), &topology, &config, broker, registry, clock.clone()).ok()
    }
}
