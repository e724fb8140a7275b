//! Where tasks change hands. A task is in one hand at a time:
//!
//! ```text
//!  Member ──assigned──► StateUpdater ──ready──► StreamThread ──balance──► another StreamThread
//!                            ▲                       │
//!                            └──── to start again ───┘
//! ```
//!
//! A standby stays with its updater, until it goes or is promoted there.
//!
//! The member says what there is and what has to go; whoever has a task looks with each of its turns what is to become of it
//! ([`Handover::fate`]) and gives it up itself, between two transactions. So no lock is held while anything is done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::balance::share;
use super::task::Task;
use crate::broker::{Broker, Fence};
use crate::record::{Offset, Timestamp, TopicPartition};
use crate::task::processor::Trim;
use crate::task::{Role, TaskId};

/// What is passed between the parts of an instance.
pub(super) struct Handover<B: Broker> {
    inner: Mutex<Inner<B>>,
    changed: Condvar,
    /// Rises with everything that may change the fate of a task: looked at with every turn, which must cost nothing.
    version: AtomicU64,
}

struct Inner<B: Broker> {
    /// Tasks assigned under another membership are lost.
    membership: u64,
    fence: Option<Fence>,
    /// The thread of each task of this membership.
    threads: BTreeMap<TaskId, usize>,
    /// Tasks that the group wants back.
    recalled: BTreeSet<TaskId>,
    /// Tasks that this instance is to be a standby of.
    standbys: BTreeSet<TaskId>,
    /// Tasks that there is an object of, in whatever role: some to be promoted, some to go.
    made: BTreeSet<TaskId>,
    to_updaters: Vec<VecDeque<Task<B>>>,
    to_threads: Vec<VecDeque<Task<B>>>,
    trims: BTreeMap<TopicPartition, Trim>,
    silent: BTreeSet<TopicPartition>,
    idle: BTreeMap<TopicPartition, Idle>,
    /// Threads and updaters that have not closed.
    at_work: usize,
}

/// What is to become of a task, for whoever has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays where it is.
    Stay,
    /// The group wants it back: it is committed and given up.
    Return,
    /// It was a standby, and is the active one from here on.
    Promote,
    /// It goes to the thread of that number, with what it has not committed.
    Move(usize),
    /// It is not ours any more, and nothing of it can be committed.
    Lost,
}

/// What was found out about a partition that has brought nothing for a while.
#[derive(Debug, Clone, Copy)]
pub(super) struct Idle {
    /// When its end was asked for.
    pub(super) asked_at: Timestamp,
    /// Where its log ended.
    pub(super) end: Offset,
    /// The smallest closed_through among the others that are not idle.
    pub(super) others: Option<Timestamp>,
}

impl<B: Broker> Handover<B> {
    pub(super) fn new(threads: usize) -> Self {
        let boxes = || (0..threads).map(|_| VecDeque::new()).collect();
        Self {
            inner: Mutex::new(Inner {
                membership: 0,
                fence: None,
                threads: BTreeMap::new(),
                recalled: BTreeSet::new(),
                standbys: BTreeSet::new(),
                made: BTreeSet::new(),
                to_updaters: boxes(),
                to_threads: boxes(),
                trims: BTreeMap::new(),
                silent: BTreeSet::new(),
                idle: BTreeMap::new(),
                at_work: 0,
            }),
            changed: Condvar::new(),
            version: AtomicU64::new(0),
        }
    }

    /// Tasks have been assigned, and this is the proof for all that are ours now.
    pub(super) fn assign(&self, fence: Fence, ids: &[TaskId]) {
        let mut inner = self.lock();
        inner.fence = Some(fence);
        inner.share(ids.iter().copied());
        self.note(inner);
    }

    /// This instance is to be a standby of these tasks, and of no others.
    pub(super) fn put_standbys(&self, ids: impl IntoIterator<Item = TaskId>) {
        let mut inner = self.lock();
        inner.standbys = ids.into_iter().collect();
        self.note(inner);
    }

    /// Makes the tasks that are missing, by `make` with their role and the number of the membership. A task has one object here: where there
    /// is one in another role, that is promoted, or has to go first.
    pub(super) fn make_missing(&self, make: impl Fn(TaskId, Role, u64) -> Task<B>) {
        let mut inner = self.lock();
        let active = inner.threads.iter().map(|(id, thread)| (*id, Role::Active, *thread));
        let updaters = inner.to_updaters.len();
        let standbys = inner.standbys.iter().filter(|id| !inner.threads.contains_key(id));
        let standbys = standbys.map(|id| (*id, Role::Standby, id.partition.0 as usize % updaters));
        let missing: Vec<_> = active.chain(standbys).filter(|(id, ..)| !inner.made.contains(id)).collect();
        for &(id, role, updater) in &missing {
            let task = make(id, role, inner.membership);
            inner.made.insert(id);
            inner.to_updaters[updater].push_back(task);
        }
        if !missing.is_empty() {
            self.note(inner);
        }
    }

    /// The group wants these tasks back.
    pub(super) fn recall(&self, ids: impl IntoIterator<Item = TaskId>) {
        let mut inner = self.lock();
        let known: Vec<_> = ids.into_iter().filter(|id| inner.threads.contains_key(id)).collect();
        inner.recalled.extend(known);
        self.note(inner);
    }

    /// Whether nobody has any of these tasks any more.
    pub(super) fn are_given_up(&self, ids: impl IntoIterator<Item = TaskId>) -> bool {
        let inner = self.lock();
        !ids.into_iter().any(|id| inner.threads.contains_key(&id))
    }

    /// The membership is gone, and all tasks with it.
    pub(super) fn lose(&self) {
        let mut inner = self.lock();
        inner.membership += 1;
        inner.fence = None;
        inner.threads.clear();
        inner.recalled.clear();
        inner.standbys.clear();
        inner.made.clear();
        inner.silent.clear();
        inner.idle.clear();
        self.note(inner);
    }

    /// What has changed since a fate was last looked up: nothing while this number stays.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// What is to become of a task that an updater has, or the thread of that number.
    pub(super) fn fate(&self, task: &Task<B>, thread: Option<usize>) -> Fate {
        let inner = self.lock();
        if task.membership() != inner.membership {
            return Fate::Lost;
        }
        if inner.recalled.contains(&task.id()) {
            return Fate::Return;
        }
        if task.role() == Role::Standby {
            return match (inner.threads.contains_key(&task.id()), inner.standbys.contains(&task.id())) {
                (true, _) => Fate::Promote,
                (false, true) => Fate::Stay,
                (false, false) => Fate::Lost,
            };
        }
        match (inner.threads.get(&task.id()), thread) {
            (None, _) => Fate::Lost,
            (Some(&to), Some(at)) if to != at => Fate::Move(to),
            _ => Fate::Stay,
        }
    }

    /// The number of the membership that there is, and the proof under which its tasks are committed; none while there is none.
    pub(super) fn proof(&self) -> Option<(u64, Fence)> {
        let inner = self.lock();
        Some((inner.membership, inner.fence.clone()?))
    }

    /// Closes a task that is given up.
    pub(super) fn give_up(&self, task: Task<B>) {
        let (id, role, membership) = (task.id(), task.role(), task.membership());
        // Its store is closed before another may open it.
        task.close();
        let mut inner = self.lock();
        if membership == inner.membership {
            inner.made.remove(&id);
            // A standby that goes says nothing of the task, which may be ours by now.
            if inner.recalled.remove(&id) || role == Role::Active {
                inner.threads.remove(&id);
                inner.share([]);
            }
        }
        self.note(inner);
    }

    /// Gives a task that is ready to the thread that is to run it.
    pub(super) fn pass_to_thread(&self, task: Task<B>) {
        let mut inner = self.lock();
        // Whichever thread gets one that is not ours any more sees that.
        let thread = inner.threads.get(&task.id()).copied().unwrap_or(0);
        inner.to_threads[thread].push_back(task);
        self.note(inner);
    }

    /// Gives a task that has to start again to the updater of that number.
    pub(super) fn pass_to_updater(&self, number: usize, task: Task<B>) {
        let mut inner = self.lock();
        inner.to_updaters[number].push_back(task);
        self.note(inner);
    }

    /// Tasks for the updater of that number.
    pub(super) fn take_for_updater(&self, number: usize) -> VecDeque<Task<B>> {
        std::mem::take(&mut self.lock().to_updaters[number])
    }

    /// Tasks for the thread of that number.
    pub(super) fn take_for_thread(&self, number: usize) -> VecDeque<Task<B>> {
        std::mem::take(&mut self.lock().to_threads[number])
    }

    /// Records that are not needed any more.
    pub(super) fn put_trims(&self, trims: Vec<Trim>) {
        if !trims.is_empty() {
            self.lock().trims.extend(trims.into_iter().map(|trim| (trim.log.clone(), trim)));
        }
    }

    /// The next of them.
    pub(super) fn take_trim(&self) -> Option<Trim> {
        self.lock().trims.pop_first().map(|(_, trim)| trim)
    }

    /// Asks whether these partitions are idle.
    pub(super) fn ask_if_idle(&self, silent: impl IntoIterator<Item = TopicPartition>) {
        self.lock().silent.extend(silent);
    }

    /// The partitions that were asked about.
    pub(super) fn take_silent(&self) -> BTreeSet<TopicPartition> {
        std::mem::take(&mut self.lock().silent)
    }

    /// Answers what was asked.
    pub(super) fn put_idle(&self, found: impl IntoIterator<Item = (TopicPartition, Idle)>) {
        self.lock().idle.extend(found);
    }

    /// The answer for a partition.
    pub(super) fn take_idle(&self, input: &TopicPartition) -> Option<Idle> {
        self.lock().idle.remove(input)
    }

    /// Another thread or updater is at work.
    pub(super) fn opened(&self) {
        self.lock().at_work += 1;
    }

    /// A thread or an updater has closed, and has no task any more.
    pub(super) fn closed(&self) {
        let mut inner = self.lock();
        inner.at_work = inner.at_work.saturating_sub(1);
        self.note(inner);
    }

    /// Waits until all threads and updaters have closed.
    pub(super) fn wait_closed(&self) {
        let inner = self.lock();
        drop(self.changed.wait_while(inner, |inner| inner.at_work > 0));
    }

    /// Waits until something has changed since that version, at most so long.
    pub(super) fn wait(&self, version: u64, max_wait: Duration) {
        if !max_wait.is_zero() {
            let inner = self.lock();
            let unchanged = |_: &mut Inner<B>| self.version() == version;
            drop(self.changed.wait_timeout_while(inner, max_wait, unchanged));
        }
    }

    fn note(&self, inner: MutexGuard<'_, Inner<B>>) {
        self.version.fetch_add(1, Ordering::Release);
        drop(inner);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner<B>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Broker> Inner<B> {
    /// Shares the tasks among the threads anew, with these too.
    fn share(&mut self, more: impl IntoIterator<Item = TaskId>) {
        let tasks = self.threads.keys().copied().chain(more).collect();
        self.threads = share(&tasks, self.to_threads.len(), &self.threads);
    }
}
