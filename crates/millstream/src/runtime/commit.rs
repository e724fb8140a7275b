//! Commits: one transaction for everything that a thread's tasks have done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::context::Parts;
use super::doubt::check_commit_lasts;
use super::task::Task;
use super::transactor::{Offsets, Transactor, is_undecided};
use super::trouble::{Remedy, broker_error, caught};
use crate::broker::{Broker, BrokerError, Delivered, ErrorKind, Fence, TransactionalProducer};
use crate::record::{Timestamp, TopicPartition};
use crate::task::processor::Trim;
use crate::task::{TaskError, TaskId, TopicIdentity};

/// Tasks that could not take part in a commit, or could not finish it, and why.
pub(super) type Failed = Vec<(TaskId, TaskError)>;

/// Commits what a thread's tasks have done.
pub(super) struct Committer<B: Broker> {
    thread: usize,
    parts: Arc<Parts<B>>,
    transactor: Transactor<B>,
    pub(super) last_commit: Timestamp,
    trims: Vec<Trim>,
    /// Tasks that were taken back to their last commit.
    rewound: Vec<TaskId>,
    failed: Failed,
    /// The next commit is a transaction for each task.
    is_one_by_one: bool,
}

impl<B: Broker> Committer<B> {
    pub(super) fn new(thread: usize, parts: Arc<Parts<B>>) -> Self {
        let transactor = Transactor::new(parts.broker.clone(), parts.config.transactional_id(thread + 1));
        let last_commit = parts.now();
        let (trims, rewound, failed) = Default::default();
        Self { thread, parts, transactor, last_commit, trims, rewound, failed, is_one_by_one: false }
    }

    /// As [`Transactor::connect`].
    pub(super) fn connect(&mut self) -> Result<(), BrokerError> {
        self.transactor.connect()
    }

    /// As [`Transactor::is_unsettled`].
    pub(super) fn is_unsettled(&self) -> bool {
        self.transactor.is_unsettled()
    }

    /// As [`Transactor::discard_producer`].
    pub(super) fn discard_producer(&mut self) {
        self.transactor.discard_producer();
    }

    /// What is not needed any more by what has committed since this was last asked.
    pub(super) fn take_trims(&mut self) -> Vec<Trim> {
        std::mem::take(&mut self.trims)
    }

    /// The tasks that were taken back since this was last asked: they are to be fetched from where they are now.
    pub(super) fn take_rewound(&mut self) -> Vec<TaskId> {
        std::mem::take(&mut self.rewound)
    }

    /// The tasks that could not take part in a commit, or could not finish it, since this was last asked.
    pub(super) fn take_failed(&mut self) -> Failed {
        std::mem::take(&mut self.failed)
    }

    /// Commits the work of all tasks that run and have any, and lets the stores take it. What became of single tasks is told by
    /// [`Committer::take_failed`] and [`Committer::take_rewound`], whether it succeeds or not.
    ///
    /// # Errors
    /// What concerns all of them. Unless the outcome is undecided, each is back at its last commit.
    pub(super) fn commit(&mut self, mut tasks: Vec<&mut Task<B>>, fence: &Fence) -> Result<(), TaskError> {
        self.last_commit = self.parts.now();
        tasks.retain(|task| task.running().is_some_and(|running| running.wants_commit()));
        if !std::mem::take(&mut self.is_one_by_one) || tasks.len() == 1 {
            return self.commit_together(tasks, fence);
        }
        self.commit_one_by_one(tasks, fence)
    }

    /// A transaction for each: one that is refused for good is that task's own doing.
    fn commit_one_by_one(&mut self, tasks: Vec<&mut Task<B>>, fence: &Fence) -> Result<(), TaskError> {
        tasks.into_iter().try_for_each(|task| self.commit_together(vec![task], fence))
    }

    fn commit_together(&mut self, mut tasks: Vec<&mut Task<B>>, fence: &Fence) -> Result<(), TaskError> {
        if let Err(error) = self.check_topics(&mut tasks).and_then(|()| self.check_commits_last(&mut tasks)) {
            tasks.iter_mut().for_each(|task| self.roll_back(task));
            return Err(error);
        }
        self.prepare(&mut tasks);
        if tasks.is_empty() {
            return Ok(());
        }
        self.parts.observer.commit_begins(self.thread);
        let mut staging = None;
        let delivered = self.transactor.transact(fence, |producer| stage(&mut tasks, producer, &mut staging));
        self.parts.observer.commit_ends(self.thread, delivered.is_ok());
        match delivered {
            Ok(delivered) => {
                self.committed(&mut tasks, &delivered);
                Ok(())
            }
            Err(error) => self.refused(&mut tasks, error, staging),
        }
    }

    /// Makes sure that the topics are those that the tasks' positions are positions of: asked after everything was fetched that the
    /// transaction is about, so that no position of one topic is committed for another. A task whose topic was made again starts again.
    fn check_topics(&mut self, tasks: &mut Vec<&mut Task<B>>) -> Result<(), TaskError> {
        let topics: BTreeSet<_> = tasks.iter().flat_map(|task| known_topics(task)).map(|(topic, _)| topic.topic).collect();
        let mut found = BTreeMap::new();
        for topic in topics {
            let described = match self.parts.broker.describe_topic(&topic) {
                Err(error) if error.kind() != ErrorKind::Stop => return Err(error.into()),
                described => described,
            };
            found.insert(topic, described.map(|described| described.as_ref().map(TopicIdentity::of)));
        }
        tasks.retain_mut(|task| {
            let error = known_topics(task).into_iter().find_map(|(of, known)| match &found[&of.topic] {
                Ok(topic) if *topic == known => None,
                Ok(_) => {
                    let message = format!("topic {} was deleted, and perhaps made again: {of} is looked up again", of.topic);
                    Some(BrokerError::new(ErrorKind::Retry, message).of_partition(of))
                }
                Err(error) => Some(error.clone()),
            });
            let Some(error) = error else { return true };
            self.failed.push((task.id(), error.into()));
            self.roll_back(task);
            false
        });
        Ok(())
    }

    /// Reads what the transaction changes. A task that cannot waits for the next one.
    fn prepare(&mut self, tasks: &mut Vec<&mut Task<B>>) {
        tasks.retain_mut(|task| {
            let Some(Err(error)) = task.running_mut().map(|running| caught(|| running.prepare())) else { return true };
            self.failed.push((task.id(), error));
            self.roll_back(task);
            false
        });
    }

    /// What the transaction held is gone from the tasks' tables, so they go back; unless the outcome is undecided: then they look it up.
    fn refused(&mut self, tasks: &mut [&mut Task<B>], error: TaskError, staging: Option<TaskId>) -> Result<(), TaskError> {
        if is_undecided(&error) {
            return Err(error);
        }
        for task in tasks.iter_mut() {
            task.is_in_doubt = true;
            self.roll_back(task);
        }
        let is_at_fault = |task: &Task<B>| match broker_error(&error) {
            None => Some(task.id()) == staging,
            Some(error) => {
                let writes = |partition| task.running().is_some_and(|running| running.writes_to(partition));
                error.partition().is_some_and(writes)
            }
        };
        let at_fault: Vec<_> = tasks.iter().filter(|task| is_at_fault(task)).map(|task| task.id()).collect();
        if is_final(&error) && at_fault.len() != 1 && tasks.len() > 1 {
            // Only one of them is at fault, most likely: each by itself will show which.
            tracing::warn!(%error, "a transaction was refused for good: its tasks commit one by one");
            self.is_one_by_one = true;
            return Ok(());
        }
        if let ([task], [], true) = (&*tasks, &*at_fault, is_final(&error)) {
            // Whatever it is, it is in the way of this task alone: others may have committed meanwhile.
            self.failed.push((task.id(), error));
            return Ok(());
        }
        if at_fault.is_empty() {
            return Err(error);
        }
        self.failed.extend(at_fault.into_iter().map(|id| (id, error.clone())));
        Ok(())
    }

    fn committed(&mut self, tasks: &mut [&mut Task<B>], delivered: &Delivered) {
        for task in tasks {
            let (id, input, topic) = (task.id(), task.input().clone(), task.topic);
            // Tasks that run alone take part, and none stops running in between.
            let Some(running) = task.running_mut() else { continue };
            self.parts.registry.count(&running.committed(delivered));
            if let Some(topic) = topic {
                self.parts.registry.put_committed(&input, running.position(), topic);
            }
            task.has_committed();
            let Some(running) = task.running_mut() else { continue };
            match caught(|| running.settle()) {
                Ok(()) => {
                    self.trims.extend(running.take_trims());
                    task.publish_committed();
                }
                Err(error) => {
                    self.failed.push((id, error));
                    task.publish_unapplied();
                }
            }
        }
    }

    fn roll_back(&mut self, task: &mut Task<B>) {
        if let Some(running) = task.running_mut() {
            running.rollback();
            self.rewound.push(task.id());
        }
    }

    /// After a transaction that failed, and before the next, makes sure that what the tasks went back to is what is committed.
    ///
    /// # Errors
    /// [`TaskError::Halt`] where it is not. Where it cannot be told now, the next commit asks again: positions that a transaction still
    /// holds are not lost, and that commit may be what lets them go.
    fn check_commits_last(&mut self, tasks: &mut [&mut Task<B>]) -> Result<(), TaskError> {
        // Before the broker is asked: who has taken a task over meanwhile may commit in between.
        let ours = |task: &&mut Task<B>| Some((task.input().clone(), self.parts.registry.committed(task.input())?.0));
        let (inputs, ours): (Vec<_>, Vec<_>) = tasks.iter().filter(|task| task.is_in_doubt).filter_map(ours).unzip();
        if inputs.is_empty() {
            return Ok(());
        }
        let committed = match self.parts.committed(&inputs) {
            Err(error) if error.kind() == ErrorKind::Retry => {
                tracing::debug!(%error, "whether the last commit has lasted cannot be told yet");
                return Ok(());
            }
            answered => answered?,
        };
        for ((input, ours), committed) in inputs.iter().zip(ours).zip(&committed) {
            check_commit_lasts(input, ours, committed.as_ref())?;
        }
        tasks.iter_mut().for_each(|task| task.is_in_doubt = false);
        Ok(())
    }
}

/// The partitions of topics that a task's position rests on, each with the topic that it was looked up in: what it reads, and the changelog.
fn known_topics<B: Broker>(task: &Task<B>) -> Vec<(TopicPartition, Option<TopicIdentity>)> {
    let changelog = task.subtopology().kept().map(|kept| TopicPartition::new(kept.changelog.clone(), task.id().partition));
    let changelog = changelog.map(|changelog| (changelog, task.changelog));
    std::iter::once((task.input().clone(), task.topic)).chain(changelog).collect()
}

/// Whether nothing but an operator's hand makes it succeed.
fn is_final(error: &TaskError) -> bool {
    Remedy::of(error).is_ok_and(|remedy| remedy == Remedy::Quarantine)
}

/// Sends the work of all tasks, and gives the positions to commit with it. `staging` is the task that is at it.
fn stage<B: Broker>(
    tasks: &mut [&mut Task<B>],
    producer: &mut dyn TransactionalProducer,
    staging: &mut Option<TaskId>,
) -> Result<Offsets, TaskError> {
    let mut offsets = Offsets::with_capacity(tasks.len());
    for task in tasks {
        *staging = Some(task.id());
        let input = task.input().clone();
        if let Some(running) = task.running_mut() {
            offsets.push((input, caught(|| running.stage(producer))?));
        }
    }
    *staging = None;
    Ok(offsets)
}
