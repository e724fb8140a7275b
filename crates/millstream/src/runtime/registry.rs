//! What the parts of an instance make known: stores that can be queried, the state of each task, what became of the records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::broker::StoreCopy;
use crate::broker::group::{Confirmation, Directory};
use crate::record::{Offset, Partition, Timestamp, TopicPartition};
use crate::store::StateStore;
use crate::task::processor::CommittedTime;
use crate::task::{RecordCounters, Role, TaskId, TaskState, TopicIdentity};

/// Shared by the parts of an instance and whoever asks about them.
#[derive(Clone, Default)]
pub struct Registry {
    inner: Arc<Mutex<Inner>>,
    /// How many stores are to be rebuilt and tasks to be tried again: looked at with every turn, which must cost nothing.
    requests: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Inner {
    tasks: BTreeMap<TaskId, (Serial, TaskStatus)>,
    stores: BTreeMap<(Arc<str>, Partition), (Serial, StoreEntry)>,
    records: RecordCounters,
    damaged: BTreeSet<(Arc<str>, Partition)>,
    /// Quarantined tasks that an operator lets try again.
    retries: BTreeSet<TaskId>,
    /// How far this instance has ever committed, and in which topic of that name.
    committed: BTreeMap<TopicPartition, (Offset, TopicIdentity)>,
    /// Whether the group has told this instance what is its own.
    is_member: bool,
    /// Lives of other instances that have ended, as somebody has found out.
    dead: Vec<(Arc<str>, u64)>,
    /// Lives of other instances that are silent, as somebody has noticed.
    silent: BTreeMap<Arc<str>, u64>,
    /// When the group confirmed last that this instance is a member, where that has to be looked at.
    confirmation: Option<Confirmation>,
    /// It is about to stop, and others are to go on with its tasks; and whether they do, as far as they can.
    is_handing_over: bool,
    has_handed_over: bool,
    /// What the group told last of who holds what.
    directory: Arc<Directory>,
    /// Changelog records that were replayed, all restores together.
    restored: u64,
    serials: Serial,
    /// What tasks up to this one had was lost with a membership, whether they know it yet or not.
    lost: Serial,
}

/// Which task object has put something. One that has been lost without knowing it yet must not take away what its successor has put.
type Serial = u64;

/// A task of this instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskStatus {
    /// The task.
    pub id: TaskId,
    /// What this instance is for it.
    pub role: Role,
    /// What it reads.
    pub inputs: Vec<TopicPartition>,
    /// What it is doing.
    pub state: TaskState,
    /// How far its store has been restored, while it is.
    pub restore: Option<RestoreProgress>,
    /// The position it has committed; none before it runs.
    pub committed: Option<Offset>,
    /// Whether something that is committed is still to be done: final windows to be sent on, changes that the store has not taken.
    pub is_pending: bool,
    /// Event time as committed.
    pub stream_time: Option<Timestamp>,
    /// What keeps it from going on, if anything does.
    pub trouble: Option<String>,
    /// Since when it is quarantined, if it is.
    pub quarantined_since: Option<Timestamp>,
}

impl TaskStatus {
    /// A task that has just been assigned.
    pub(crate) fn created(id: TaskId, role: Role, inputs: Vec<TopicPartition>) -> Self {
        Self {
            id,
            role,
            inputs,
            state: TaskState::Created,
            restore: None,
            committed: None,
            is_pending: false,
            stream_time: None,
            trouble: None,
            quarantined_since: None,
        }
    }

    /// The partition that it reads. (Subtopologies read one topic each.)
    pub fn input(&self) -> &TopicPartition {
        &self.inputs[0]
    }

    /// The copy of its store that lies here, where it keeps one.
    pub(crate) fn copy(&self) -> StoreCopy {
        match (self.state, self.restore) {
            (TaskState::Running | TaskState::Suspended, _) => StoreCopy { position: None, is_caught_up: true },
            (_, Some(restore)) => StoreCopy { position: Some(restore.position), is_caught_up: restore.position >= restore.end },
            (_, None) => StoreCopy { position: None, is_caught_up: false },
        }
    }

    /// Whether it does all that it can do for now.
    fn is_settled(&self) -> bool {
        matches!(self.state, TaskState::Running | TaskState::Quarantined)
    }
}

/// How far a store has been restored from its changelog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestoreProgress {
    /// Where the restore began.
    pub from: Offset,
    /// The next changelog offset to read.
    pub position: Offset,
    /// The changelog's end.
    pub end: Offset,
    /// How many records it has read.
    pub records: u64,
    /// How long it has taken so far.
    pub elapsed: Duration,
}

impl RestoreProgress {
    /// Records a second; none before there is something to reckon with.
    pub fn records_per_second(&self) -> Option<u64> {
        let seconds = self.elapsed.as_secs_f64();
        (seconds > 0.0 && self.records > 0).then(|| (self.records as f64 / seconds) as u64)
    }

    /// How long it will take yet, if it goes on as so far.
    pub fn time_left(&self) -> Option<Duration> {
        let (done, left) = (self.position.0 - self.from.0, (self.end.0 - self.position.0).max(0));
        (done > 0).then(|| self.elapsed.mul_f64(left as f64 / done as f64))
    }
}

/// A store that can be queried.
#[derive(Clone)]
pub(crate) struct StoreEntry {
    pub(crate) store: Arc<dyn StateStore>,
    /// How many changelog records it may be behind: none once its task runs.
    pub(crate) restoring: Option<u64>,
    /// Whether its task was lost: others may have counted on since.
    pub(crate) is_lost: bool,
    /// The position of its task that the store holds everything before; none while it is behind.
    pub(crate) position: Option<Offset>,
    pub(crate) time: CommittedTime,
}

impl Inner {
    /// The tasks that this instance is to count.
    fn active(&self) -> impl Iterator<Item = &TaskStatus> {
        self.tasks.values().map(|(_, task)| task).filter(|task| task.role == Role::Active)
    }
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// All tasks of this instance, by id.
    pub fn tasks(&self) -> Vec<TaskStatus> {
        self.lock().tasks.values().map(|(_, status)| status.clone()).collect()
    }

    /// What became of all records that this instance has committed since it started.
    pub fn records(&self) -> RecordCounters {
        self.lock().records.clone()
    }

    /// How many changelog records this instance has replayed since it started, by restores that are done.
    pub fn restored_records(&self) -> u64 {
        self.lock().restored
    }

    /// Whether this instance has so many active tasks, and all of them run or are quarantined.
    pub fn is_running(&self, tasks: usize) -> bool {
        let inner = self.lock();
        inner.active().count() == tasks && inner.active().all(TaskStatus::is_settled)
    }

    /// Whether this instance has been told by the group what is its own, which may be nothing, and all of it runs or is quarantined.
    pub fn is_settled(&self) -> bool {
        let inner = self.lock();
        inner.is_member && inner.active().all(TaskStatus::is_settled)
    }

    /// The quarantined tasks that read a partition which `is_asked`, as (task, reason).
    pub(crate) fn quarantined(&self, is_asked: impl Fn(&TopicPartition) -> bool) -> Vec<(TaskId, String)> {
        let inner = self.lock();
        let quarantined = inner.active().filter(|task| task.state == TaskState::Quarantined);
        let asked = quarantined.filter(|task| task.inputs.iter().any(&is_asked));
        asked.map(|task| (task.id, task.trouble.clone().unwrap_or_default())).collect()
    }

    /// Lets a quarantined task try again. Whether there is such a task.
    pub fn retry(&self, id: TaskId) -> bool {
        let mut inner = self.lock();
        let is_quarantined = inner.tasks.get(&id).is_some_and(|(_, task)| task.state == TaskState::Quarantined);
        if is_quarantined {
            inner.retries.insert(id);
            self.note_requests(&inner);
        }
        is_quarantined
    }

    fn note_requests(&self, inner: &Inner) {
        self.requests.store(inner.retries.len() + inner.damaged.len(), Ordering::Relaxed);
    }

    /// The group has told the instance what is its own, or has let it go. Then it has no task from now on, and its stores are copies, though a thread
    /// may take a while to see that.
    pub(crate) fn put_member(&self, is_member: bool) {
        let mut inner = self.lock();
        inner.is_member = is_member;
        if !is_member {
            inner.tasks.clear();
            inner.lost = inner.serials;
        }
    }

    /// That life of another instance has ended: the group need not wait for its session.
    pub fn report_dead(&self, instance: impl Into<Arc<str>>, incarnation: u64) {
        self.lock().dead.push((instance.into(), incarnation));
    }

    pub(crate) fn take_dead(&self) -> Vec<(Arc<str>, u64)> {
        std::mem::take(&mut self.lock().dead)
    }

    /// These lives of other instances are silent, and no others: the group is asked whether they are still there.
    pub fn report_silent(&self, silent: BTreeMap<Arc<str>, u64>) {
        self.lock().silent = silent;
    }

    pub(crate) fn silent(&self) -> BTreeMap<Arc<str>, u64> {
        self.lock().silent.clone()
    }

    /// When the group confirmed last that this instance is a member; none where the instance always knows at once that it is none any more.
    pub fn confirmation(&self) -> Option<Confirmation> {
        self.lock().confirmation.clone()
    }

    pub(crate) fn put_confirmation(&self, confirmation: Option<Confirmation>) {
        self.lock().confirmation = confirmation;
    }

    /// Lets other instances go on with what they can go on with at once, for this one is about to stop.
    pub fn hand_over(&self) {
        self.lock().is_handing_over = true;
    }

    /// Whether they do.
    pub fn has_handed_over(&self) -> bool {
        self.lock().has_handed_over
    }

    pub(crate) fn is_handing_over(&self) -> bool {
        self.lock().is_handing_over
    }

    pub(crate) fn put_handed_over(&self, has_handed_over: bool) {
        self.lock().has_handed_over = has_handed_over;
    }

    /// Who holds what in the group, as this instance was told last. Before it was told anything nobody holds anything.
    pub fn directory(&self) -> Arc<Directory> {
        self.lock().directory.clone()
    }

    pub(crate) fn put_directory(&self, directory: &Arc<Directory>) {
        let mut inner = self.lock();
        if !Arc::ptr_eq(&inner.directory, directory) {
            inner.directory = directory.clone();
        }
    }

    pub(crate) fn count_restored(&self, records: u64) {
        self.lock().restored += records;
    }

    pub(crate) fn count(&self, records: &RecordCounters) {
        self.lock().records.add(records);
    }

    /// A position has been committed here.
    pub(crate) fn put_committed(&self, input: &TopicPartition, position: Offset, topic: TopicIdentity) {
        let mut inner = self.lock();
        match inner.committed.get_mut(input) {
            Some((before, of)) if *of == topic => *before = position.max(*before),
            Some(before) => *before = (position, topic),
            None => _ = inner.committed.insert(input.clone(), (position, topic)),
        }
    }

    /// The largest position that was committed here since this instance started, and in which topic.
    pub(crate) fn committed(&self, input: &TopicPartition) -> Option<(Offset, TopicIdentity)> {
        self.lock().committed.get(input).copied()
    }

    /// Makes a task known, until the view is dropped.
    pub(crate) fn put_task(&self, status: TaskStatus, store: Option<(Arc<str>, Partition)>) -> TaskView {
        let mut inner = self.lock();
        inner.serials += 1;
        let (serial, id) = (inner.serials, status.id);
        inner.tasks.insert(id, (serial, status));
        TaskView { registry: self.clone(), serial, id, store }
    }

    /// A query found the store damaged: it is to be rebuilt. Nobody is answered from it until then.
    pub(crate) fn report_damaged(&self, store: &Arc<str>, partition: Partition) {
        let mut inner = self.lock();
        let removed = inner.stores.remove(&(store.clone(), partition));
        inner.damaged.insert((store.clone(), partition));
        self.note_requests(&inner);
        drop(inner);
        drop(removed);
    }

    pub(crate) fn store(&self, store: &Arc<str>, partition: Partition) -> Option<StoreEntry> {
        let inner = self.lock();
        let (serial, entry) = inner.stores.get(&(store.clone(), partition))?;
        Some(StoreEntry { is_lost: *serial <= inner.lost, ..entry.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task as others see it.
pub(crate) struct TaskView {
    registry: Registry,
    serial: Serial,
    id: TaskId,
    /// The store that it keeps, if it keeps one.
    store: Option<(Arc<str>, Partition)>,
}

impl TaskView {
    pub(crate) fn update(&self, update: impl FnOnce(&mut TaskStatus)) {
        if let Some((_, status)) = self.registry.lock().tasks.get_mut(&self.id).filter(|(serial, _)| *serial == self.serial) {
            update(status);
        }
    }

    /// Lets queries ask the store.
    pub(crate) fn put_store(&self, entry: StoreEntry) {
        let Some(name) = &self.store else { return };
        let mut inner = self.registry.lock();
        let is_ours = inner.stores.get(name).is_none_or(|(serial, _)| *serial <= self.serial);
        let before = is_ours.then(|| inner.stores.insert(name.clone(), (self.serial, entry)));
        drop(inner);
        // Whoever holds a store last closes it, which takes a while.
        drop(before);
    }

    /// Nobody is answered from the store any more.
    pub(crate) fn remove_store(&self) {
        let Some(name) = &self.store else { return };
        let mut inner = self.registry.lock();
        let is_ours = inner.stores.get(name).is_some_and(|(serial, _)| *serial == self.serial);
        let removed = is_ours.then(|| inner.stores.remove(name));
        drop(inner);
        drop(removed);
    }

    /// Whether an operator lets the task try again.
    pub(crate) fn take_retry(&self) -> bool {
        if self.registry.requests.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let mut inner = self.registry.lock();
        let asked = inner.retries.remove(&self.id);
        self.registry.note_requests(&inner);
        asked
    }

    /// Whether a query has found the store damaged since this was last asked.
    pub(crate) fn take_damaged(&self) -> bool {
        if self.registry.requests.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let mut inner = self.registry.lock();
        let is_damaged = self.store.as_ref().is_some_and(|name| inner.damaged.remove(name));
        self.registry.note_requests(&inner);
        is_damaged
    }
}

impl Drop for TaskView {
    fn drop(&mut self) {
        self.remove_store();
        let mut inner = self.registry.lock();
        if inner.tasks.get(&self.id).is_some_and(|(serial, _)| *serial == self.serial) {
            inner.tasks.remove(&self.id);
            inner.retries.remove(&self.id);
            self.registry.note_requests(&inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    #[test]
    fn a_restore_says_how_long_it_will_take_yet() {
        let restore = |position, records, seconds| RestoreProgress {
            from: Offset(100),
            position: Offset(position),
            end: Offset(500),
            records,
            elapsed: Duration::from_secs(seconds),
        };
        assert_eq!((restore(100, 0, 0).records_per_second(), restore(100, 0, 0).time_left()), (None, None));
        assert_eq!(restore(200, 80, 2).records_per_second(), Some(40));
        assert_eq!(restore(200, 80, 2).time_left(), Some(Duration::from_secs(6)));
        assert_eq!(restore(600, 80, 2).time_left(), Some(Duration::ZERO));
    }

    #[test]
    fn tasks_that_are_missing_do_not_run() {
        let registry = Registry::new();
        let put = |number: u32, state: TaskState| {
            let input = TopicPartition::new("t", Partition(number));
            let id = TaskId { subtopology: 0, partition: input.partition };
            registry.put_task(TaskStatus { state, ..TaskStatus::created(id, Role::Active, vec![input]) }, None)
        };
        let _first = put(0, TaskState::Running);
        assert!(!registry.is_running(2));
        let lost = put(1, TaskState::Restoring);
        assert!(!registry.is_running(2));
        let quarantined = put(1, TaskState::Quarantined);
        assert!(registry.is_running(2));
        drop(lost);
        assert!(registry.is_running(2), "a task that was lost takes nothing away from its successor");
        drop(quarantined);
        assert!(!registry.is_running(2));
    }

    #[test]
    fn what_is_lost_with_a_membership_is_a_copy_though_its_task_does_not_know_yet() {
        let (registry, input) = (Registry::new(), TopicPartition::new("t", Partition(0)));
        let id = TaskId { subtopology: 0, partition: input.partition };
        let status = TaskStatus { state: TaskState::Running, ..TaskStatus::created(id, Role::Active, vec![input]) };
        let name: Arc<str> = "counts".into();
        let entry = || {
            let store = Arc::new(MemoryStore::new());
            StoreEntry { store, restoring: None, is_lost: false, position: None, time: CommittedTime::default() }
        };
        let is_lost = || registry.store(&name, Partition(0)).unwrap().is_lost;
        let before = registry.put_task(status.clone(), Some((name.clone(), Partition(0))));
        before.put_store(entry());
        assert!(!is_lost());
        registry.put_member(false);
        before.put_store(entry());
        assert!(is_lost() && registry.tasks().is_empty());
        registry.put_member(true);
        assert!(is_lost());
        let after = registry.put_task(status, Some((name.clone(), Partition(0))));
        after.put_store(entry());
        drop(before);
        assert!(!is_lost() && registry.tasks().len() == 1);
    }
}
