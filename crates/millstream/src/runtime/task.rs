//! A task: one partition of a subtopology, from assigned to given up. It owns its one lifecycle, its inputs and its store, and makes
//! known what becomes of it. It is in one hand at a time: a [`super::StateUpdater`]'s until it can run, then a
//! [`super::StreamThread`]'s ([`super::handover`]).

use std::sync::Arc;

use super::join::Joining;
use super::plan::{Plan, Subtopology};
use super::positions::Marks;
use super::registry::{Registry, StoreEntry, TaskStatus, TaskView};
use super::replica::Replica;
use super::trouble::{Complaint, Remedy, broker_error};
use crate::broker::{Broker, CommittedOffset};
use crate::record::{Offset, Timestamp, TopicPartition};
use crate::store::window_store::WindowStore;
use crate::task::processor::{CommittedTime, Processor};
use crate::task::{Role, TaskError, TaskId, TaskState, TopicIdentity};

/// How long a task waits after it could not be committed, in milliseconds: at first, and at most.
const FIRST_REFUSAL_MS: i64 = 100;
const LONGEST_REFUSAL_MS: i64 = 30_000;

/// A task of this instance.
pub(super) struct Task<B: Broker> {
    id: TaskId,
    role: Role,
    inputs: Vec<TopicPartition>,
    plan: Arc<Plan>,
    /// The number of the membership that it was assigned under. With another one it has been lost.
    membership: u64,
    lifecycle: Lifecycle<B>,
    view: TaskView,
    /// Which topic it reads, as it was when its position was looked up.
    pub(super) topic: Option<TopicIdentity>,
    /// Which changelog its store goes with, as above.
    pub(super) changelog: Option<TopicIdentity>,
    /// How often in a row a topic of its could not be found.
    pub(super) misses: u32,
    /// How often in a row a step towards running has failed.
    pub(super) failures: u32,
    /// Its store is damaged and has to go before the task opens again.
    pub(super) discards_store: bool,
    /// When the last record came; none where it was idle already when it was last committed.
    pub(super) last_record_at: Option<Timestamp>,
    /// What it writes to and could not: it waits until that has a leader again.
    pub(super) blocked_on: Option<TopicPartition>,
    /// How often in a row it could not.
    refusals: u32,
    /// What was said last of what keeps it from going on.
    complaint: Complaint,
    /// A transaction that it took part in has failed, and whether the one before has lasted is still to be looked up.
    pub(super) is_in_doubt: bool,
    /// Since when it waits before it tries again to start, and how long in milliseconds.
    pub(super) waits: Option<(Timestamp, i64)>,
}

/// What a task is doing, with what it needs for it. Which follows which is the table of [`TaskState`].
enum Lifecycle<B: Broker> {
    Created,
    Restoring(Opening<B>),
    Running(Box<dyn Processor>),
    Suspended(Box<dyn Processor>),
    Quarantined(Option<WindowStore>),
    Closed,
}

/// What stands between a task and its next record.
pub(super) enum Opening<B: Broker> {
    /// Its position is to be looked up. Its store may be open.
    LookUp(Option<WindowStore>),
    /// Its store is behind its changelog, or a standby's copy. The position was read before the changelog's end.
    Replica(Box<Replica<B>>, Option<CommittedOffset>),
    /// Its aggregate tasks have to know of it.
    Joining(Joining),
    /// Its thread has to take it up.
    Ready(Box<dyn Processor>),
}

impl<B: Broker> Lifecycle<B> {
    fn state(&self) -> TaskState {
        match self {
            Lifecycle::Created => TaskState::Created,
            Lifecycle::Restoring(_) => TaskState::Restoring,
            Lifecycle::Running(_) => TaskState::Running,
            Lifecycle::Suspended(_) => TaskState::Suspended,
            Lifecycle::Quarantined(_) => TaskState::Quarantined,
            Lifecycle::Closed => TaskState::Closed,
        }
    }

    /// The store, where it is open and whole.
    fn into_store(self) -> Option<WindowStore> {
        match self {
            Lifecycle::Running(processor) | Lifecycle::Suspended(processor) => processor.into_store(),
            Lifecycle::Quarantined(store) | Lifecycle::Restoring(Opening::LookUp(store)) => store,
            Lifecycle::Restoring(Opening::Replica(replica, _)) => Some(replica.into_store()),
            Lifecycle::Restoring(Opening::Ready(processor)) => processor.into_store(),
            Lifecycle::Created | Lifecycle::Restoring(Opening::Joining(_)) | Lifecycle::Closed => None,
        }
    }
}

impl<B: Broker> Task<B> {
    /// A task of the plan's that was just assigned.
    pub(super) fn assigned(id: TaskId, role: Role, plan: &Arc<Plan>, membership: u64, registry: &Registry) -> Self {
        let subtopology = plan.subtopology(id);
        let store = subtopology.kept().map(|kept| (kept.spec.store.clone(), id.partition));
        let inputs = vec![TopicPartition::new(subtopology.topic.clone(), id.partition)];
        let view = registry.put_task(TaskStatus::created(id, role, inputs.clone()), store);
        Self {
            id,
            role,
            inputs,
            plan: plan.clone(),
            membership,
            lifecycle: Lifecycle::Created,
            view,
            topic: None,
            changelog: None,
            misses: 0,
            failures: 0,
            discards_store: false,
            last_record_at: None,
            blocked_on: None,
            refusals: 0,
            complaint: Complaint::default(),
            is_in_doubt: false,
            waits: None,
        }
    }

    pub(super) fn id(&self) -> TaskId {
        self.id
    }

    /// What this instance is for it.
    pub(super) fn role(&self) -> Role {
        self.role
    }

    pub(super) fn membership(&self) -> u64 {
        self.membership
    }

    /// The partitions that it reads. The subtopologies there are read one topic each.
    pub(super) fn inputs(&self) -> &[TopicPartition] {
        &self.inputs
    }

    /// The partition that it reads.
    pub(super) fn input(&self) -> &TopicPartition {
        &self.inputs[0]
    }

    pub(super) fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// What it does.
    pub(super) fn subtopology(&self) -> &Subtopology {
        self.plan.subtopology(self.id)
    }

    /// What every position of its has beside it.
    pub(super) fn marks(&self) -> Result<Marks, TaskError> {
        let topic = self.topic.ok_or_else(|| TaskError::Halt(format!("task {} has a position in no topic", self.id)))?;
        Ok(Marks { topic, changelog: self.changelog, counted_with: self.subtopology().counted_with() })
    }

    pub(super) fn state(&self) -> TaskState {
        self.lifecycle.state()
    }

    /// What it does with records, while it runs.
    pub(super) fn running(&self) -> Option<&dyn Processor> {
        match &self.lifecycle {
            Lifecycle::Running(processor) => Some(&**processor),
            _ => None,
        }
    }

    /// As [`Task::running`].
    pub(super) fn running_mut(&mut self) -> Option<&mut (dyn Processor + 'static)> {
        match &mut self.lifecycle {
            Lifecycle::Running(processor) => Some(&mut **processor),
            _ => None,
        }
    }

    /// What has committed and waits for the store, while it is suspended.
    pub(super) fn suspended_mut(&mut self) -> Option<&mut (dyn Processor + 'static)> {
        match &mut self.lifecycle {
            Lifecycle::Suspended(processor) => Some(&mut **processor),
            _ => None,
        }
    }

    /// What stands between it and its next record, while it is restoring.
    pub(super) fn opening_mut(&mut self) -> Option<&mut Opening<B>> {
        match &mut self.lifecycle {
            Lifecycle::Restoring(opening) => Some(opening),
            _ => None,
        }
    }

    /// Goes on with another part of its restoring. Gives what it was at.
    pub(super) fn set_opening(&mut self, next: Opening<B>) -> Option<Opening<B>> {
        Some(std::mem::replace(self.opening_mut()?, next))
    }

    /// From nothing to restoring: its position is to be looked up.
    pub(super) fn open(&mut self) -> Result<(), TaskError> {
        self.go(|_| Lifecycle::Restoring(Opening::LookUp(None)), TaskState::Restoring)
    }

    /// Starts again from what is committed, with its store if it is whole. (One that is not stays open: to close it takes a while.)
    pub(super) fn reopen(&mut self) -> Result<(), TaskError> {
        self.last_record_at = None;
        let again = |before: Lifecycle<B>| Lifecycle::Restoring(Opening::LookUp(before.into_store()));
        if self.state() == TaskState::Restoring {
            self.lifecycle = again(std::mem::replace(&mut self.lifecycle, Lifecycle::Closed));
        } else {
            self.go(again, TaskState::Restoring)?;
        }
        if self.discards_store {
            self.view.remove_store();
        }
        Ok(())
    }

    /// From a standby to the active one: its position is to be looked up, and its store goes on being open.
    pub(super) fn promote(&mut self) -> Result<(), TaskError> {
        self.role = Role::Active;
        self.view.update(|status| status.role = Role::Active);
        (self.waits, self.refusals) = (None, 0);
        // One that has not begun yet begins as an active one.
        if self.state() == TaskState::Created { Ok(()) } else { self.reopen() }
    }

    /// Starts again where that was asked for: of one that a query has found damaged, with a store made anew, and of one that is quarantined, by
    /// an operator and by nobody else. Says whether it does.
    pub(super) fn starts_as_requested(&mut self) -> Result<bool, TaskError> {
        if self.take_damaged() {
            tracing::warn!(task = %self.id, "a query has found the store damaged: it is rebuilt from its changelog");
            self.discards_store = true;
            if self.state() != TaskState::Quarantined {
                return self.reopen().map(|()| true);
            }
        }
        if self.state() != TaskState::Quarantined || !self.view.take_retry() {
            return Ok(false);
        }
        tracing::info!(task = %self.id, "the task tries again, as it was told to");
        (self.waits, self.refusals) = (None, 0);
        self.reopen().map(|()| true)
    }

    /// A task that is ready runs from here on.
    pub(super) fn run(&mut self, now: Timestamp) -> Result<(), TaskError> {
        let Lifecycle::Restoring(Opening::Ready(processor)) = &self.lifecycle else {
            return Err(TaskError::Halt(format!("task {} is to run and is not ready", self.id)));
        };
        self.last_record_at = (processor.is_idle() != Some(true)).then_some(now);
        let run = |before| match before {
            Lifecycle::Restoring(Opening::Ready(processor)) => Lifecycle::Running(processor),
            // Looked at above.
            before => before,
        };
        self.go(run, TaskState::Running)?;
        (self.waits, self.blocked_on) = (None, None);
        self.publish_committed();
        Ok(())
    }

    /// Waits until its store has taken what has committed.
    pub(super) fn suspend(&mut self) -> Result<(), TaskError> {
        let suspend = |before| match before {
            Lifecycle::Running(processor) => Lifecycle::Suspended(processor),
            before => before,
        };
        self.go(suspend, TaskState::Suspended)?;
        self.publish_unapplied();
        Ok(())
    }

    /// Its store has taken what has committed: it goes on.
    pub(super) fn resume(&mut self) -> Result<(), TaskError> {
        let resume = |before| match before {
            Lifecycle::Suspended(processor) => Lifecycle::Running(processor),
            before => before,
        };
        self.go(resume, TaskState::Running)?;
        self.publish_committed();
        Ok(())
    }

    /// Reads nothing more until an operator lets it. Uncommitted work is dropped; what it has counted can be queried.
    pub(super) fn quarantine(&mut self, reason: &str, now: Timestamp) -> Result<(), TaskError> {
        self.go(|before| Lifecycle::Quarantined(before.into_store()), TaskState::Quarantined)?;
        self.view.update(|status| {
            status.trouble = Some(reason.to_owned());
            status.quarantined_since = Some(now);
        });
        Ok(())
    }

    /// A partition that it writes to could not be written. It waits for longer each time, so that the tasks that it commits with are not kept
    /// from their work.
    pub(super) fn hold_off(&mut self, partition: Option<TopicPartition>, now: Timestamp) {
        self.waits = Some((now, (FIRST_REFUSAL_MS << self.refusals.min(16)).min(LONGEST_REFUSAL_MS)));
        self.refusals += 1;
        self.blocked_on = partition;
    }

    /// It has taken part in a commit: what it could not do before is over.
    pub(super) fn has_committed(&mut self) {
        self.refusals = 0;
    }

    /// Does what an error asks for, as far as it is the task's to do, and says so in the log: of what goes on once a minute.
    ///
    /// # Errors
    /// The error itself where it concerns more than this task.
    pub(super) fn recover(&mut self, error: &TaskError, now: Timestamp) -> Result<Remedy, TaskError> {
        let (remedy, reason) = (Remedy::of(error)?, error.to_string());
        if let Some(held_back) = self.complaint.is_to_be_said(&reason, now) {
            let (task, remedy) = (self.id, remedy.to_string());
            tracing::warn!(%task, reason, held_back, "the task {remedy}");
        }
        match remedy {
            Remedy::Wait => {}
            Remedy::StartAgain => {
                self.hold_off(broker_error(error).and_then(|error| error.partition().cloned()), now);
                self.reopen()?;
            }
            Remedy::Rebuild => {
                self.discards_store = true;
                self.reopen()?;
            }
            Remedy::Quarantine => self.quarantine(&reason, now)?,
        }
        self.put_trouble(&reason);
        Ok(remedy)
    }

    /// Makes known what keeps it from going on.
    pub(super) fn put_trouble(&self, reason: &str) {
        self.view.update(|status| status.trouble = Some(reason.to_owned()));
    }

    /// Makes known how far it has committed, and that its store is up to date.
    pub(super) fn publish_committed(&self) {
        let Some(processor) = self.running() else { return };
        let (time, position) = (processor.committed_time(), processor.position());
        let is_pending = processor.wants_commit() || processor.unapplied_changes() > 0;
        self.view.update(|status| {
            status.committed = Some(position);
            status.is_pending = is_pending;
            status.stream_time = time.stream_time;
            status.restore = None;
            status.trouble = None;
        });
        self.publish_store(None, Some(position), time);
    }

    /// Makes known that its store lacks what has committed last.
    pub(super) fn publish_unapplied(&self) {
        if let Lifecycle::Running(processor) | Lifecycle::Suspended(processor) = &self.lifecycle {
            self.view.update(|status| (status.committed, status.is_pending) = (Some(processor.position()), true));
            self.publish_store(Some(processor.unapplied_changes()), None, CommittedTime::default());
        }
    }

    /// Makes known how far its replica is.
    pub(super) fn publish_replica(&self) {
        let Lifecycle::Restoring(Opening::Replica(replica, _)) = &self.lifecycle else { return };
        self.view.update(|status| status.restore = Some(replica.progress()));
        // A copy that is behind calls nothing final.
        let (store, restoring) = (replica.state_store().clone(), Some(replica.lag()));
        self.view.put_store(StoreEntry { store, restoring, is_lost: false, position: None, time: CommittedTime::default() });
    }

    /// Nobody is answered from its store.
    pub(super) fn hide_store(&self) {
        self.view.remove_store();
    }

    /// Whether a query has found its store damaged. Whoever queries counts cannot tell damage from a store that holds something else.
    fn take_damaged(&self) -> bool {
        self.view.take_damaged() && self.subtopology().kept().is_some_and(|kept| kept.spec.grouping.holds_counts())
    }

    /// Whether it waits before it tries again to start. A clock that was set back keeps nothing waiting.
    pub(super) fn is_waiting(&self, now: Timestamp) -> bool {
        self.waits.is_some_and(|(since, most)| (0..most).contains(&(now.0 - since.0)))
    }

    /// Gives it up: its store is closed, which takes a while.
    pub(super) fn close(mut self) {
        if let Err(error) = self.go(|_| Lifecycle::Closed, TaskState::Closed) {
            tracing::error!(%error, "a task was given up that cannot be");
        }
    }

    fn publish_store(&self, restoring: Option<u64>, position: Option<Offset>, time: CommittedTime) {
        let processor = match &self.lifecycle {
            Lifecycle::Running(processor) | Lifecycle::Suspended(processor) => processor,
            _ => return,
        };
        if let Some(store) = processor.state_store() {
            self.view.put_store(StoreEntry { store: store.clone(), restoring, is_lost: false, position, time });
        }
    }

    fn go(&mut self, next: impl FnOnce(Lifecycle<B>) -> Lifecycle<B>, to: TaskState) -> Result<(), TaskError> {
        let illegal = |reason: String| TaskError::Halt(format!("task {}: {reason}", self.id));
        let state = self.state().transition(to).map_err(|error| illegal(error.to_string()))?;
        self.lifecycle = next(std::mem::replace(&mut self.lifecycle, Lifecycle::Closed));
        debug_assert_eq!(self.state(), state);
        self.view.update(|status| {
            status.state = state;
            status.trouble = None;
            status.quarantined_since = None;
        });
        Ok(())
    }
}
