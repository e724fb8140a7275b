use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::context::{Parts, Stepped, StreamsError};
use super::handover::{Fate, Handover};
use super::join::Joined;
use super::open::{follow, look_up, promote, source};
use super::plan::Kind;
use super::task::{Opening, Task};
use super::transactor::Transactor;
use super::trouble::{Complaint, caught};
use crate::broker::{Broker, BrokerError, ErrorKind};
use crate::task::{Role, TaskError, TaskState};

/// How long a step of a replica waits for the broker at most.
const TAIL_WAIT: Duration = Duration::from_millis(20);

/// How long a replica's turn goes on while there is more to read, in milliseconds.
const TAIL_SLICE_MS: i64 = 100;

/// After so long a step ends with the turn that is under way, in milliseconds.
const LONGEST_STEP_MS: i64 = 1_000;

/// How long a task that could not go on waits at least before it tries again, in milliseconds.
const SHORTEST_WAIT_MS: i64 = 50;

/// So often that is doubled: to less than a second.
const MOST_DOUBLINGS: u32 = 4;

/// Brings tasks from assigned to ready, beside the threads that count: looks up positions, opens stores, tails changelogs. Whatever it
/// waits for, a broker, a disk, a long changelog, no thread waits with it. Kafka Streams' `StateUpdater`.
pub struct StateUpdater<B: Broker> {
    number: usize,
    parts: Arc<Parts<B>>,
    handover: Arc<Handover<B>>,
    /// What joins are committed with; shared by the updaters of an instance.
    joins: Arc<Mutex<Transactor<B>>>,
    tasks: Vec<Task<B>>,
    complaint: Complaint,
}

impl<B: Broker> StateUpdater<B> {
    pub(super) fn new(number: usize, parts: Arc<Parts<B>>, handover: Arc<Handover<B>>, joins: Arc<Mutex<Transactor<B>>>) -> Self {
        handover.opened();
        Self { number, parts, handover, joins, tasks: Vec::new(), complaint: Complaint::default() }
    }

    /// Brings each of its tasks a step further. Waits for the broker or for a task at most `max_wait`.
    ///
    /// # Errors
    /// Where the instance as a whole has to stop. It must not be stepped again.
    pub fn step(&mut self, max_wait: Duration) -> Result<Stepped, StreamsError> {
        let version = self.handover.version();
        self.tasks.extend(self.handover.take_for_updater(self.number));
        let (mut worked, mut waits) = (self.give_up()?, false);
        let can_join = self.connect_joins();
        let (began, mut turns) = (self.parts.now(), VecDeque::from(std::mem::take(&mut self.tasks)));
        while let Some(mut task) = turns.pop_front() {
            if !can_join && is_source(&task) && task.state() != TaskState::Quarantined {
                waits = true;
                self.tasks.push(task);
                continue;
            }
            if let Some(moved) = self.turn(&mut task, max_wait)? {
                worked |= moved;
                waits |= !moved;
            }
            if matches!(task.opening_mut(), Some(Opening::Ready(_))) {
                self.handover.pass_to_thread(task);
            } else {
                self.tasks.push(task);
            }
            // Brokers that do not answer have taken their time: whoever drives this is to have his say in between.
            if !self.parts.is_before(began, LONGEST_STEP_MS) {
                break;
            }
        }
        // Those that had no turn come first with the next step.
        turns.extend(self.tasks.drain(..));
        self.tasks = turns.into();
        if !worked {
            self.handover.wait(version, max_wait);
        }
        Ok(match (worked, waits) {
            (true, _) => Stepped::Worked,
            (false, true) => Stepped::Troubled,
            (false, false) => Stepped::Idle,
        })
    }

    /// Gives up the tasks that have to go, and promotes those that become active. Says whether any went.
    fn give_up(&mut self) -> Result<bool, StreamsError> {
        let before = self.tasks.len();
        let tasks = std::mem::take(&mut self.tasks);
        for mut task in tasks {
            let may_go = match self.handover.fate(&task, None) {
                Fate::Stay | Fate::Move(_) => false,
                Fate::Promote => {
                    task.promote().map_err(StreamsError::new)?;
                    false
                }
                Fate::Lost => true,
                // A join that may still be open is settled first.
                Fate::Return => !self.joins().is_unsettled() || self.joins().connect().is_ok(),
            };
            if may_go {
                self.handover.give_up(task);
            } else {
                self.tasks.push(task);
            }
        }
        Ok(self.tasks.len() < before)
    }

    /// Makes sure that joins can be committed, where there is a task that may have to join: what a process before has left open, or one of
    /// ours in doubt, is settled with it. Asked for once a step, for it may take a while.
    fn connect_joins(&mut self) -> bool {
        if !self.tasks.iter().any(is_source) {
            return true;
        }
        let connected = self.joins().connect();
        match connected {
            Ok(()) => true,
            Err(error) => {
                let reason = error.to_string();
                if let Some(held_back) = self.complaint.is_to_be_said(&reason, self.parts.now()) {
                    tracing::warn!(reason, held_back, "partitions of source topics cannot be taken up for now");
                }
                self.tasks.iter().filter(|task| is_source(task)).for_each(|task| task.put_trouble(&reason));
                false
            }
        }
    }

    /// Gives up what it has: the store of each task stays as it is.
    pub fn close(self) {
        drop(self);
    }

    /// A task's turn. Says whether it has moved; nothing of one that is in nobody's way.
    fn turn(&mut self, task: &mut Task<B>, max_wait: Duration) -> Result<Option<bool>, StreamsError> {
        if !task.starts_as_requested().map_err(StreamsError::new)? && task.state() == TaskState::Quarantined {
            return Ok(None);
        }
        if self.is_left_alone(task) {
            return Ok(None);
        }
        if task.is_waiting(self.parts.now()) {
            return Ok(Some(false));
        }
        let began = self.parts.now();
        match caught(|| self.advance(task, max_wait)) {
            Ok(moved) => {
                task.failures = 0;
                Ok(moved)
            }
            Err(error) => {
                let now = self.parts.now();
                // Brokers that do not answer take their time: who waits for them is to leave others theirs.
                task.waits = Some((now, (now.0 - began.0).max(SHORTEST_WAIT_MS << task.failures.min(MOST_DOUBLINGS))));
                task.failures += 1;
                task.recover(&error, now).map_err(StreamsError::new)?;
                Ok(Some(false))
            }
        }
    }

    /// Draining leaves every task alone but those that count what is shuffled.
    fn is_left_alone(&self, task: &Task<B>) -> bool {
        self.parts.config.drain && !matches!(task.subtopology().kind, Kind::Aggregate { .. })
    }

    /// Takes the next step between a task and its next record. Says whether it could be taken; nothing of a standby that is up to date.
    fn advance(&self, task: &mut Task<B>, max_wait: Duration) -> Result<Option<bool>, TaskError> {
        if task.state() == TaskState::Created {
            task.open()?;
        }
        match task.opening_mut() {
            None | Some(Opening::Ready(_)) => Ok(Some(false)),
            Some(Opening::LookUp(_)) => look_up(&self.parts, task, max_wait).map(|()| Some(true)),
            Some(Opening::Replica(..)) => self.tail(task, max_wait),
            Some(Opening::Joining(_)) => self.join(task).map(Some),
        }
    }

    /// A replica's step: an active task's is promoted at its end, a standby's goes on behind its owner.
    fn tail(&self, task: &mut Task<B>, max_wait: Duration) -> Result<Option<bool>, TaskError> {
        let parts = &*self.parts;
        if task.role() == Role::Standby {
            follow(parts, task)?;
        }
        let role = task.role();
        let id = task.id();
        let Some(Opening::Replica(replica, _)) = task.opening_mut() else {
            return Err(TaskError::Halt(format!("task {id} is to tail a log and has no replica")));
        };
        if role == Role::Active && replica.is_caught_up() {
            return promote(parts, task).map(|()| Some(true));
        }
        // A copy that is up to date holds up no restore beside it; one that is behind gets on for a while, for a turn may be long in coming.
        let wait = if replica.is_caught_up() { Duration::ZERO } else { max_wait.min(TAIL_WAIT) };
        let (began, mut has_worked) = (parts.now(), false);
        let tailed = loop {
            match replica.tail(wait, &*parts.clock) {
                Ok(true) => has_worked = true,
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
            if replica.is_caught_up() || !parts.is_before(began, TAIL_SLICE_MS) {
                break Ok(());
            }
        };
        let tailed = match tailed {
            Ok(()) if role == Role::Standby && !has_worked => replica.derive().map(|derived| has_worked = derived),
            tailed => tailed,
        };
        match tailed {
            Ok(()) => {
                let is_behind = !replica.is_caught_up();
                task.publish_replica();
                Ok((role == Role::Active || has_worked || is_behind).then_some(true))
            }
            // What was read and not applied is to be read again, from where the store and the changelog are now.
            Err(error) => {
                task.reopen()?;
                Err(error)
            }
        }
    }

    fn join(&self, task: &mut Task<B>) -> Result<bool, TaskError> {
        let lost = || BrokerError::new(ErrorKind::Retry, format!("task {} is lost, or about to be", task.id()));
        let proof = self.handover.proof().filter(|(membership, _)| *membership == task.membership());
        let (_, fence) = proof.ok_or_else(lost)?;
        let (input, plan, id) = (task.input().clone(), task.plan().clone(), task.id());
        let Some(Opening::Joining(joining)) = task.opening_mut() else {
            return Err(TaskError::Halt(format!("task {id} is to join and is past that")));
        };
        let mut joins = self.joins();
        let next = match joining.advance(&self.parts, &input, &plan.subtopology(id).kind, &fence, &mut joins)? {
            Joined::Not => {
                task.waits = Some((self.parts.now(), joining.pause_ms()));
                return Ok(false);
            }
            Joined::Announced => return Ok(true),
            Joined::Committed => Opening::LookUp(None),
            Joined::From(position) => Opening::Ready(source(task, position)?),
        };
        task.set_opening(next);
        Ok(true)
    }

    /// What joins are committed with. While its outcome is unknown nothing is looked up: a position could be about to change.
    fn joins(&self) -> MutexGuard<'_, Transactor<B>> {
        self.joins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_source<B: Broker>(task: &Task<B>) -> bool {
    matches!(task.subtopology().kind, Kind::Source { .. })
}

impl<B: Broker> Drop for StateUpdater<B> {
    fn drop(&mut self) {
        self.tasks.drain(..).for_each(|task| self.handover.give_up(task));
        self.handover.take_for_updater(self.number).into_iter().for_each(|task| self.handover.give_up(task));
        self.handover.closed();
    }
}
