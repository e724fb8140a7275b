//! An instance of an application: the parts that run it, and how they are driven together.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::context::{Parts, Stepped, StreamsError};
use super::handover::Handover;
use super::member::Member;
use super::thread::StreamThread;
use super::transactor::Transactor;
use super::updater::StateUpdater;
use super::upkeep::Upkeep;
use crate::broker::Broker;

/// An instance of an application: one member of its group, the threads that count, the updaters that bring tasks to them, and upkeep.
///
/// Each part may be driven by a thread of its own ([`Instance::into_workers`]), or all of them in turn ([`Instance::step`]). Dropping it
/// is what a crash is; [`Instance::close`] is the orderly end.
pub struct Instance<B: Broker> {
    parts: Arc<Parts<B>>,
    workers: Workers<B>,
}

/// The parts of an instance.
pub struct Workers<B: Broker> {
    /// The member of the group. Closed after all threads and updaters.
    pub member: Member<B>,
    /// As many as were asked for.
    pub threads: Vec<StreamThread<B>>,
    /// As many as threads.
    pub updaters: Vec<StateUpdater<B>>,
    /// One.
    pub upkeep: Upkeep<B>,
}

impl<B: Broker> Instance<B> {
    /// An instance with so many threads. Nothing happens before the first step.
    pub fn new(threads: usize, parts: Parts<B>) -> Self {
        let parts = Arc::new(parts);
        let handover = Arc::new(Handover::new(threads));
        let joins = Arc::new(Mutex::new(Transactor::new(parts.broker.clone(), parts.config.transactional_id(0))));
        let workers = Workers {
            member: Member::new(threads, parts.clone(), handover.clone()),
            threads: (0..threads).map(|n| StreamThread::new(n, parts.clone(), handover.clone())).collect(),
            updaters: (0..threads).map(|n| StateUpdater::new(n, parts.clone(), handover.clone(), joins.clone())).collect(),
            upkeep: Upkeep::new(parts.clone(), handover),
        };
        Self { parts, workers }
    }

    /// The parts, each to be driven by itself.
    pub fn into_workers(self) -> Workers<B> {
        self.workers
    }

    /// What it was made of.
    pub(super) fn parts(&self) -> &Parts<B> {
        &self.parts
    }

    /// Steps all parts, one after the other. The threads wait for records at most `max_wait` each.
    ///
    /// # Errors
    /// Where the instance has to stop. It must not be stepped again.
    pub fn step(&mut self, max_wait: Duration) -> Result<Stepped, StreamsError> {
        let Workers { member, threads, updaters, upkeep } = &mut self.workers;
        let mut stepped = member.step(Duration::ZERO)?;
        for updater in updaters {
            stepped = stepped.and(updater.step(Duration::ZERO)?);
        }
        for thread in threads {
            let wait = if stepped == Stepped::Idle { max_wait } else { Duration::ZERO };
            stepped = stepped.and(thread.step(wait)?);
        }
        Ok(stepped.and(upkeep.step(Duration::ZERO)))
    }

    /// Commits what has been processed and leaves the group.
    ///
    /// # Errors
    /// Where a last commit was refused for good; what it held is processed again by whoever goes on.
    pub fn close(self) -> Result<(), StreamsError> {
        let Workers { member, threads, updaters, .. } = self.workers;
        let mut outcome = Ok(());
        for thread in threads {
            outcome = outcome.and(thread.close());
        }
        drop(updaters);
        member.close();
        outcome
    }
}
