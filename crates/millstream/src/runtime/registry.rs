//! What the threads of an instance make known: stores that can be queried, the state of each task, what became of the records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::record::{Offset, Partition, Timestamp, TopicPartition};
use crate::store::StateStore;
use crate::task::stream_task::CommittedTime;
use crate::task::{RecordCounters, TaskId, TaskState};

/// Shared by the threads of an instance and whoever asks about them.
#[derive(Clone, Default)]
pub struct Registry {
    inner: Arc<Mutex<Inner>>,
    /// The number of the thread that makes things known through this one. A thread that has lost a task without knowing it yet
    /// must not take away what its successor has put.
    thread: usize,
}

#[derive(Default)]
struct Inner {
    tasks: BTreeMap<TaskId, (usize, TaskStatus)>,
    stores: BTreeMap<(Arc<str>, Partition), (usize, StoreEntry)>,
    records: RecordCounters,
    damaged: BTreeSet<(Arc<str>, Partition)>,
    /// How far this instance has ever committed.
    committed: BTreeMap<TopicPartition, Offset>,
    /// The threads that the group has told what is theirs.
    members: BTreeSet<usize>,
    /// Changelog records that were replayed, all restores together.
    restored: u64,
}

/// A task of this instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskStatus {
    /// The task.
    pub id: TaskId,
    /// What it reads.
    pub input: TopicPartition,
    /// What it is doing.
    pub state: TaskState,
    /// How far its store has been restored, while it is.
    pub restore: Option<RestoreProgress>,
    /// The position it has committed; none before it runs.
    pub committed: Option<Offset>,
    /// Event time as committed.
    pub stream_time: Option<Timestamp>,
    /// What keeps it from going on, if anything does.
    pub trouble: Option<String>,
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
    /// The position of its task that the store holds everything before; none while it is behind.
    pub(crate) position: Option<Offset>,
    pub(crate) time: CommittedTime,
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

    /// Whether this instance has so many tasks, and all of them run. While tasks go over between threads there are fewer.
    pub fn is_running(&self, tasks: usize) -> bool {
        let inner = self.lock();
        inner.tasks.len() == tasks && inner.tasks.values().all(|(_, task)| task.state == TaskState::Running)
    }

    /// Whether so many threads of this instance have been told by the group what is theirs, which may be nothing, and all of it runs.
    pub fn is_settled(&self, threads: usize) -> bool {
        let inner = self.lock();
        inner.members.len() == threads && inner.tasks.values().all(|(_, task)| task.state == TaskState::Running)
    }

    /// The same registry, for the thread of that number.
    pub(crate) fn of_thread(&self, thread: usize) -> Self {
        Self { inner: self.inner.clone(), thread }
    }

    /// The group has told the thread what is its own, or has let it go.
    pub(crate) fn put_member(&self, is_member: bool) {
        let mut inner = self.lock();
        if is_member {
            inner.members.insert(self.thread)
        } else {
            inner.members.remove(&self.thread)
        };
    }

    pub(crate) fn count_restored(&self, records: u64) {
        self.lock().restored += records;
    }

    pub(crate) fn count(&self, records: &RecordCounters) {
        self.lock().records.add(records);
    }

    /// A position has been committed here.
    pub(crate) fn put_committed(&self, input: &TopicPartition, position: Offset) {
        let mut inner = self.lock();
        match inner.committed.get_mut(input) {
            Some(before) => *before = position.max(*before),
            None => _ = inner.committed.insert(input.clone(), position),
        }
    }

    /// The largest position that was committed here since this instance started.
    pub(crate) fn committed(&self, input: &TopicPartition) -> Option<Offset> {
        self.lock().committed.get(input).copied()
    }

    pub(crate) fn put_task(&self, status: TaskStatus) {
        self.lock().tasks.insert(status.id, (self.thread, status));
    }

    pub(crate) fn update_task(&self, id: TaskId, update: impl FnOnce(&mut TaskStatus)) {
        if let Some((_, status)) = self.lock().tasks.get_mut(&id).filter(|(thread, _)| *thread == self.thread) {
            update(status);
        }
    }

    pub(crate) fn remove_task(&self, id: TaskId) {
        let mut inner = self.lock();
        if inner.tasks.get(&id).is_some_and(|(thread, _)| *thread == self.thread) {
            inner.tasks.remove(&id);
        }
    }

    pub(crate) fn put_store(&self, store: &Arc<str>, partition: Partition, entry: StoreEntry) {
        self.lock().stores.insert((store.clone(), partition), (self.thread, entry));
    }

    /// A query found the store damaged: its thread is to rebuild it. Nobody is answered from it until then.
    pub(crate) fn report_damaged(&self, store: &Arc<str>, partition: Partition) {
        let mut inner = self.lock();
        inner.stores.remove(&(store.clone(), partition));
        inner.damaged.insert((store.clone(), partition));
    }

    pub(crate) fn take_damaged(&self, store: &Arc<str>, partition: Partition) -> bool {
        self.lock().damaged.remove(&(store.clone(), partition))
    }

    pub(crate) fn remove_store(&self, store: &Arc<str>, partition: Partition) {
        let (mut inner, key) = (self.lock(), (store.clone(), partition));
        if inner.stores.get(&key).is_some_and(|(thread, _)| *thread == self.thread) {
            inner.stores.remove(&key);
        }
    }

    pub(crate) fn store(&self, store: &Arc<str>, partition: Partition) -> Option<StoreEntry> {
        self.lock().stores.get(&(store.clone(), partition)).map(|(_, entry)| entry.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            registry.put_task(TaskStatus { id, input, state, restore: None, committed: None, stream_time: None, trouble: None });
            id
        };
        put(0, TaskState::Running);
        assert!(!registry.is_running(2));
        put(1, TaskState::Restoring);
        assert!(!registry.is_running(2));
        let revoked = put(1, TaskState::Running);
        assert!(registry.is_running(2));
        registry.remove_task(revoked);
        assert!(!registry.is_running(2));
    }
}
