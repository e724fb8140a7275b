use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::StreamsConfig;
use super::open::Phase;
use super::plan::Plan;
use super::registry::{Registry, TaskStatus};
use crate::broker::{Broker, BrokerError, Consumer, ErrorKind, FetchedBatch, GroupMetadata, Polled};
use crate::clock::Clock;
use crate::record::{Offset, Timestamp, TopicPartition};
use crate::store::{StoreErrorKind, StoreProvider};
use crate::task::{TaskError, TaskId, TaskState};
use crate::topology::Topology;

/// A poll that brings so many records means that there are more.
const BACKLOG_RECORDS: usize = 1_000;

/// Is told about a thread's work as it happens, to measure it.
pub trait Observer: Send + Sync + 'static {
    /// A commit begins.
    fn commit_begins(&self) {}

    /// The commit that began last has ended.
    fn commit_ends(&self, _committed: bool) {}
}

impl Observer for () {}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stepped {
    /// Something was processed, restored or committed: step again at once.
    Worked,
    /// There was nothing to do.
    Idle,
    /// Something is out of order for now: give it a moment before the next step.
    Troubled,
}

/// Why a thread has stopped for good.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StreamsError(String);

impl StreamsError {
    pub(super) fn new(reason: impl ToString) -> Self {
        Self(reason.to_string())
    }
}

/// One thread's tasks, and the loop that runs them: a member of the application's group that owns its tasks whole.
///
/// It is driven from outside, step by step, so that a test can stop it anywhere. Dropping it is what a crash is:
/// nothing is committed; [`StreamThread::close`] is the orderly end.
pub struct StreamThread<B: Broker> {
    pub(super) broker: Arc<B>,
    topology: Topology,
    pub(super) config: StreamsConfig,
    pub(super) provider: Arc<dyn StoreProvider>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) registry: Registry,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) transactional_id: String,
    pub(super) plan: Option<Arc<Plan>>,
    pub(super) consumer: Option<B::Consumer>,
    pub(super) producer: Option<B::Producer>,
    pub(super) group: Option<GroupMetadata>,
    pub(super) slots: BTreeMap<TopicPartition, Slot<B>>,
    pub(super) last_commit: Timestamp,
    pub(super) last_idle_check: Timestamp,
    pub(super) trims: BTreeMap<TopicPartition, Offset>,
    pub(super) last_purge: Timestamp,
    /// A transaction has failed, and whether the one before it has lasted is still to be looked up.
    pub(super) is_in_doubt: bool,
    backlog: bool,
}

/// A task and what it is doing.
pub(super) struct Slot<B: Broker> {
    pub(super) id: TaskId,
    pub(super) state: TaskState,
    pub(super) phase: Phase<B>,
    pub(super) last_record_at: Timestamp,
    /// Its store is damaged and has to go before the task opens again.
    pub(super) discard_store: bool,
    /// It runs, and nothing is fetched for it.
    pub(super) is_held: bool,
    /// Since when it waits before it tries again to start, and how long.
    pub(super) waits: Option<(Timestamp, i64)>,
}

/// What a thread needs from outside.
pub struct Parts<B: Broker> {
    /// The broker.
    pub broker: Arc<B>,
    /// What to run.
    pub topology: Topology,
    /// How.
    pub config: StreamsConfig,
    /// Where the stores are.
    pub provider: Arc<dyn StoreProvider>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where the thread makes itself known.
    pub registry: Registry,
    /// Who measures it.
    pub observer: Arc<dyn Observer>,
}

impl<B: Broker> StreamThread<B> {
    /// The thread of that number within its instance. Nothing happens before the first step.
    pub fn new(number: usize, parts: Parts<B>) -> Self {
        let Parts { broker, topology, config, provider, clock, registry, observer } = parts;
        let registry = registry.of_thread(number);
        let (transactional_id, now) = (config.transactional_id(number), clock.now());
        Self {
            broker,
            topology,
            config,
            provider,
            clock,
            registry,
            observer,
            transactional_id,
            plan: None,
            consumer: None,
            producer: None,
            group: None,
            slots: BTreeMap::new(),
            last_commit: now,
            last_idle_check: now,
            trims: BTreeMap::new(),
            last_purge: now,
            is_in_doubt: false,
            backlog: false,
        }
    }

    /// Does what is to be done next: joins the group, restores a piece, processes a batch, commits. Waits for records at most
    /// `max_wait`.
    ///
    /// # Errors
    /// Where going on would make wrong numbers or an operator has to look. The thread must not be stepped again.
    pub fn step(&mut self, max_wait: Duration) -> Result<Stepped, StreamsError> {
        match self.try_step(max_wait) {
            Ok(stepped) => Ok(stepped),
            Err(error) => {
                self.recover(None, error)?;
                Ok(Stepped::Troubled)
            }
        }
    }

    /// Commits what has been processed and leaves the group.
    ///
    /// # Errors
    /// Where the last commit was refused for good; what it held is processed again by whoever goes on.
    pub fn close(mut self) -> Result<(), StreamsError> {
        let committed = self.commit();
        if let Err(error) = committed {
            self.recover(None, error)?;
        }
        self.drop_all_tasks();
        if let Some(mut consumer) = self.consumer.take() {
            // Where it cannot be told, the group finds out by itself.
            if let Err(error) = consumer.leave() {
                tracing::warn!(%error, "the group could not be told that this member leaves");
            }
        }
        Ok(())
    }

    fn try_step(&mut self, max_wait: Duration) -> Result<Stepped, TaskError> {
        self.connect()?;
        self.rebuild_damaged()?;
        let advanced = self.advance_tasks(max_wait)?;
        let settled = self.settle()?;
        // With a store that cannot take what has committed nothing new is read.
        let derived = settled && self.derive()?;
        let wait = if advanced || derived || !settled { Duration::ZERO } else { max_wait.min(self.until_commit()) };
        if settled {
            self.release()?
        } else {
            self.hold()?
        };
        // A member that does not poll is taken for dead.
        let polled = self.poll(wait)?;
        if settled {
            self.check_idle()?;
            if self.commit_is_due() {
                self.commit()?;
            }
        }
        self.purge();
        Ok(match (settled, advanced || derived || polled) {
            (false, _) => Stepped::Troubled,
            (true, true) => Stepped::Worked,
            (true, false) => Stepped::Idle,
        })
    }

    /// Makes sure that there are a plan, a member and a producer.
    fn connect(&mut self) -> Result<(), TaskError> {
        // First of all: it ends the transaction that a process before may have left open, which committed positions are waited for.
        if self.producer.is_none() {
            self.producer = Some(self.broker.producer(&self.transactional_id)?);
        }
        let plan = match &self.plan {
            Some(plan) => plan.clone(),
            None => Arc::new(Plan::prepare(&self.topology, &*self.broker, &self.config)?),
        };
        self.plan = Some(plan.clone());
        if self.consumer.is_none() {
            self.consumer =
                Some(self.broker.subscribe(&self.config.application_id, &self.transactional_id, &plan.subscription())?);
        }
        Ok(())
    }

    fn poll(&mut self, max_wait: Duration) -> Result<bool, TaskError> {
        let Some(consumer) = &mut self.consumer else { return Ok(false) };
        match consumer.poll(max_wait)? {
            Polled::Nothing => {
                self.backlog = false;
                return Ok(false);
            }
            Polled::Assigned { partitions, group } => {
                self.group = Some(group);
                self.registry.put_member(true);
                for partition in partitions {
                    self.assign(partition);
                }
            }
            Polled::Revoked { partitions } => {
                // What they have processed is committed while they are still ours.
                let committed = self.commit();
                for partition in partitions {
                    self.drop_task(&partition);
                }
                committed?;
            }
            Polled::Lost => {
                tracing::warn!("the membership was lost: uncommitted work is dropped, and the group joined again");
                self.drop_all_tasks();
                self.group = None;
            }
            Polled::Batch(batch) => self.process(&batch)?,
        }
        Ok(true)
    }

    /// Lets nothing be fetched for the tasks that run.
    fn hold(&mut self) -> Result<(), TaskError> {
        let Some(consumer) = &mut self.consumer else { return Ok(()) };
        for (input, slot) in &mut self.slots {
            if matches!(slot.phase, Phase::Running(_)) && !slot.is_held {
                consumer.pause(input)?;
                slot.is_held = true;
            }
        }
        Ok(())
    }

    /// Lets the tasks that were held go on.
    fn release(&mut self) -> Result<(), TaskError> {
        let Some(consumer) = &mut self.consumer else { return Ok(()) };
        for (input, slot) in &mut self.slots {
            if let Phase::Running(task) = &slot.phase
                && slot.is_held
            {
                consumer.start(input, task.position())?;
                slot.is_held = false;
            }
        }
        Ok(())
    }

    fn assign(&mut self, input: TopicPartition) {
        let Some((id, _)) = self.plan.as_ref().and_then(|plan| plan.task(&input)) else { return };
        let state = TaskState::Created;
        let status =
            TaskStatus { id, input: input.clone(), state, restore: None, committed: None, stream_time: None, trouble: None };
        self.registry.put_task(status);
        self.slots.insert(input, Slot::new(id, self.clock.now()));
    }

    fn process(&mut self, batch: &<B::Consumer as Consumer>::Batch) -> Result<(), TaskError> {
        let Some(slot) = self.slots.get_mut(batch.partition()) else { return Ok(()) };
        let Phase::Running(task) = &mut slot.phase else { return Ok(()) };
        let mut records = Vec::new();
        batch.records(&mut records)?;
        self.backlog = records.len() >= BACKLOG_RECORDS;
        slot.last_record_at = self.clock.now();
        task.process(&records, batch.next_offset())
    }

    /// How long until what is uncommitted is due.
    fn until_commit(&self) -> Duration {
        if !self.running_tasks().any(|task| task.wants_commit()) {
            return Duration::MAX;
        }
        let since = self.clock.now().0.saturating_sub(self.last_commit.0);
        self.commit_interval().saturating_sub(Duration::from_millis(since.max(0) as u64))
    }

    fn commit_interval(&self) -> Duration {
        if self.backlog { self.config.commit_interval_backlog } else { self.config.commit_interval }
    }

    fn commit_is_due(&self) -> bool {
        let since = self.clock.now().0.saturating_sub(self.last_commit.0);
        if since < 0 || since >= self.commit_interval().as_millis() as i64 {
            return true;
        }
        let bytes: usize = self.running_tasks().map(|task| task.uncommitted_bytes()).sum();
        bytes >= self.config.uncommitted_bytes
    }

    /// Lets the stores take what has committed but could not be written. False where one still cannot.
    pub(super) fn settle(&mut self) -> Result<bool, TaskError> {
        let unsettled = |slot: &Slot<B>| matches!(&slot.phase, Phase::Running(task) if task.is_unsettled());
        let inputs: Vec<_> = self.slots.iter().filter(|(_, slot)| unsettled(slot)).map(|(input, _)| input.clone()).collect();
        let mut settled = true;
        for input in inputs {
            let Some(Phase::Running(task)) = self.slots.get_mut(&input).map(|slot| &mut slot.phase) else { continue };
            let outcome = task.settle();
            settled &= outcome.is_ok();
            self.settled(&input, outcome)?;
        }
        Ok(settled)
    }

    /// A store has taken what has committed, or could not.
    pub(super) fn settled(&mut self, input: &TopicPartition, outcome: Result<(), TaskError>) -> Result<(), TaskError> {
        let Some(slot) = self.slots.get_mut(input) else { return Ok(()) };
        match outcome {
            Ok(()) => {
                if slot.state == TaskState::Suspended {
                    slot.go(TaskState::Running, &self.registry)?;
                }
                self.publish_committed(input);
                Ok(())
            }
            Err(error) => {
                if slot.state == TaskState::Running {
                    slot.go(TaskState::Suspended, &self.registry)?;
                }
                self.publish_suspended(input);
                self.recover(Some(input), error).map_err(|error| TaskError::Stop(error.0))
            }
        }
    }

    pub(super) fn running_tasks(&self) -> impl Iterator<Item = &dyn crate::task::stream_task::StreamTask> {
        self.slots.values().filter_map(|slot| match &slot.phase {
            Phase::Running(task) => Some(&**task),
            _ => None,
        })
    }

    /// Does what the error asks for; an error that asks for a person ends the thread.
    pub(super) fn recover(&mut self, input: Option<&TopicPartition>, error: TaskError) -> Result<(), StreamsError> {
        let message = error.to_string();
        match error {
            TaskError::Stop(_) => return Err(StreamsError(message)),
            TaskError::Broker(error) => self.recover_broker(&error)?,
            TaskError::Store(error) => match (error.kind(), input) {
                (StoreErrorKind::Stop, _) | (StoreErrorKind::Corrupt, None) => return Err(StreamsError(message)),
                (StoreErrorKind::Corrupt, Some(input)) => self.rebuild(&input.clone()).map_err(StreamsError::new)?,
                (StoreErrorKind::Retry, _) => tracing::warn!(error = message, "a store is out of order for now"),
            },
        }
        for slot in self.slots.values() {
            self.registry.update_task(slot.id, |status| status.trouble = Some(message.clone()));
        }
        Ok(())
    }

    fn recover_broker(&mut self, error: &BrokerError) -> Result<(), StreamsError> {
        tracing::warn!(%error, kind = ?error.kind(), "the broker refused or failed");
        match error.kind() {
            // A commit that failed has gone back already.
            ErrorKind::Retry | ErrorKind::AbortTransaction => {}
            ErrorKind::Fenced => {
                self.drop_all_tasks();
                (self.consumer, self.producer, self.group) = (None, None, None);
            }
            ErrorKind::OutcomeUnknown => {
                // A new producer settles what the old one began; every task then starts from what is committed.
                self.producer = None;
                self.reopen_all_tasks().map_err(StreamsError::new)?;
            }
            ErrorKind::OffsetOutOfRange | ErrorKind::Stop => return Err(StreamsError::new(error)),
        }
        Ok(())
    }

    /// The membership is gone, or about to go.
    fn drop_all_tasks(&mut self) {
        self.registry.put_member(false);
        let inputs: Vec<_> = self.slots.keys().cloned().collect();
        for input in inputs {
            self.drop_task(&input);
        }
    }

    pub(super) fn drop_task(&mut self, input: &TopicPartition) {
        let Some(slot) = self.slots.remove(input) else { return };
        tracing::debug!(task = %slot.id, state = %slot.state, "the task is closed");
        self.registry.remove_task(slot.id);
        self.forget_store(input);
    }

    pub(super) fn forget_store(&self, input: &TopicPartition) {
        if let Some(kept) = self.plan.as_ref().and_then(|plan| plan.kept(input)) {
            self.registry.remove_store(&kept.spec.store, input.partition);
        }
    }
}

impl<B: Broker> Slot<B> {
    fn new(id: TaskId, now: Timestamp) -> Self {
        let (state, phase) = (TaskState::Created, Phase::Opening);
        Self { id, state, phase, last_record_at: now, discard_store: false, is_held: false, waits: None }
    }

    /// Whether it is to try again to start. A clock that was set back keeps nothing waiting.
    pub(super) fn may_start(&self, now: Timestamp) -> bool {
        self.waits.is_none_or(|(since, most)| !(0..most).contains(&(now.0 - since.0)))
    }

    /// Goes to another state, as the table of [`TaskState`] allows.
    pub(super) fn go(&mut self, to: TaskState, registry: &Registry) -> Result<(), TaskError> {
        self.state = self.state.transition(to).map_err(|illegal| TaskError::Stop(illegal.to_string()))?;
        registry.update_task(self.id, |status| {
            status.state = to;
            status.trouble = None;
        });
        Ok(())
    }
}
