//! What the instances of an application have told of themselves, and what follows for who can answer what.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::broker::group::Directory;
use crate::record::{Offset, Partition, Timestamp, Topic, TopicPartition};
use crate::runtime::RestoreProgress;
use crate::task::{Role, TaskId, TaskState};

/// What an instance tells of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstanceStatus {
    /// Its name, the same after a restart.
    pub instance: Arc<str>,
    /// Drawn at random when its process started.
    pub incarnation: u64,
    /// The generation of the group that it knows.
    pub generation: i32,
    /// The program's version.
    pub version: String,
    /// Its tasks.
    pub tasks: Vec<TaskReport>,
}

/// What an instance tells of one of its tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskReport {
    /// The task.
    pub id: TaskId,
    /// What it reads.
    pub input: TopicPartition,
    /// What the instance is for it.
    pub role: Role,
    /// What it is doing.
    pub state: TaskState,
    /// The offset of the next record to read; none before it has committed, and for copies.
    pub position: Option<Offset>,
    /// Records not yet processed; for copies, changelog records not yet taken over. None where that is not known.
    pub lag: Option<u64>,
    /// Every window that ends at or before it is closed; zero for none.
    pub closed_through: i64,
    /// How far its store has been restored, while it is.
    pub restore: Option<RestoreProgress>,
    /// What keeps it from going on, if anything does.
    pub trouble: Option<String>,
    /// Since when it is quarantined, if it is.
    pub quarantined_since: Option<Timestamp>,
}

/// Who can answer for which partition of a store, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holders {
    /// The generation of the newest that is known.
    generation: i32,
    owners: BTreeMap<Partition, Arc<str>>,
    /// Those who keep a copy, the one that is behind by the least first.
    copies: BTreeMap<Partition, Vec<Arc<str>>>,
}

impl Holders {
    /// What follows from what the group has told, and what instances have. `input` is the topic whose tasks keep the store.
    ///
    /// Where instances know a later generation than this one was told, what they call theirs is theirs: this one may be cut off from its group.
    pub fn new<'a>(input: &Topic, directory: &Directory, statuses: impl IntoIterator<Item = &'a InstanceStatus> + Clone) -> Self {
        let mut holders = Self { generation: directory.generation, ..Self::default() };
        for (instance, roles) in &directory.assignment.members {
            let of_store = roles.active.iter().filter(|task| task.topic == *input);
            holders.owners.extend(of_store.map(|task| (task.partition, instance.clone())));
        }
        holders.note_moving(input, directory, statuses.clone());
        holders.note_later_owners(input, directory.generation, statuses.clone());
        holders.note_copies(input, directory, statuses);
        holders
    }

    /// A task that moves is counted by its old owner until that has given it up.
    fn note_moving<'a>(&mut self, input: &Topic, directory: &Directory, statuses: impl IntoIterator<Item = &'a InstanceStatus>) {
        if directory.assignment.moving.is_empty() {
            return;
        }
        for status in statuses {
            let here = status.tasks.iter().filter(|task| task.role == Role::Active && task.state == TaskState::Running);
            let moving = here.filter(|task| task.input.topic == *input && directory.assignment.moving.contains_key(&task.input));
            for task in moving {
                self.owners.entry(task.input.partition).or_insert_with(|| status.instance.clone());
            }
        }
    }

    fn note_later_owners<'a>(&mut self, input: &Topic, told: i32, statuses: impl IntoIterator<Item = &'a InstanceStatus>) {
        let mut claimed: BTreeMap<Partition, i32> = BTreeMap::new();
        for status in statuses.into_iter().filter(|status| status.generation > told) {
            self.generation = self.generation.max(status.generation);
            let active = status.tasks.iter().filter(|task| task.role == Role::Active && task.input.topic == *input);
            for task in active {
                let before = claimed.entry(task.input.partition).or_insert(told);
                if status.generation > *before {
                    *before = status.generation;
                    self.owners.insert(task.input.partition, status.instance.clone());
                }
            }
        }
    }

    fn note_copies<'a>(&mut self, input: &Topic, directory: &Directory, statuses: impl IntoIterator<Item = &'a InstanceStatus>) {
        let mut lags: BTreeMap<(Partition, Arc<str>), Option<u64>> = BTreeMap::new();
        for (instance, roles) in &directory.assignment.members {
            let copies = roles.standby.iter().chain(&roles.warmup).filter(|task| task.topic == *input);
            lags.extend(copies.map(|task| ((task.partition, instance.clone()), None)));
        }
        for status in statuses {
            let of_store = status.tasks.iter().filter(|task| task.input.topic == *input);
            let copies = of_store.filter(|task| task.role == Role::Standby || task.state == TaskState::Restoring);
            lags.extend(copies.map(|task| ((task.input.partition, status.instance.clone()), task.lag)));
        }
        let mut sorted: Vec<_> = lags.into_iter().collect();
        sorted.sort_by_key(|((partition, _), lag)| (*partition, lag.unwrap_or(u64::MAX)));
        for ((partition, instance), _) in sorted {
            self.copies.entry(partition).or_default().push(instance);
        }
    }

    /// The newest generation that is known.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// Who owns the partition; none where nobody does, or nothing is known.
    pub fn owner(&self, partition: Partition) -> Option<&Arc<str>> {
        self.owners.get(&partition)
    }

    /// Who keeps a copy of it, the one that is behind by the least first.
    pub fn copies(&self, partition: Partition) -> &[Arc<str>] {
        self.copies.get(&partition).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(partition: u32, role: Role, lag: u64) -> TaskReport {
        TaskReport {
            id: TaskId { subtopology: 1, partition: Partition(partition) },
            input: TopicPartition::new("shuffled", Partition(partition)),
            role,
            state: if role == Role::Active { TaskState::Running } else { TaskState::Restoring },
            position: None,
            lag: Some(lag),
            closed_through: 0,
            restore: None,
            trouble: None,
            quarantined_since: None,
        }
    }

    fn status(instance: &str, generation: i32, tasks: Vec<TaskReport>) -> InstanceStatus {
        InstanceStatus { instance: instance.into(), generation, tasks, ..InstanceStatus::default() }
    }

    fn directory(generation: i32, active: &[(&str, u32)], standby: &[(&str, u32)]) -> Directory {
        let mut directory = Directory { generation, ..Directory::default() };
        let task = |partition| TopicPartition::new("shuffled", Partition(partition));
        for (instance, partition) in active {
            directory.assignment.members.entry((*instance).into()).or_default().active.insert(task(*partition));
        }
        for (instance, partition) in standby {
            directory.assignment.members.entry((*instance).into()).or_default().standby.insert(task(*partition));
        }
        directory
    }

    #[test]
    fn the_group_says_who_owns_what_and_instances_how_far_copies_are() {
        let directory = directory(3, &[("a", 0), ("b", 1)], &[("b", 0), ("c", 0)]);
        let told = [status("b", 3, vec![report(0, Role::Standby, 9)]), status("c", 3, vec![report(0, Role::Standby, 2)])];
        let holders = Holders::new(&"shuffled".into(), &directory, &told);
        assert_eq!(holders.owner(Partition(0)).map(|owner| &**owner), Some("a"));
        assert_eq!(holders.owner(Partition(2)), None);
        assert_eq!(holders.copies(Partition(0)).iter().map(|copy| &**copy).collect::<Vec<_>>(), ["c", "b"]);
    }

    #[test]
    fn what_moves_is_asked_of_its_old_owner_for_as_long_as_that_has_it() {
        let mut directory = directory(3, &[("a", 0)], &[]);
        let of = |partition| TopicPartition::new("shuffled", Partition(partition));
        directory.assignment.moving.extend([(of(1), "a".into()), (of(2), "a".into())]);
        let running = |partition| TaskReport { state: TaskState::Running, ..report(partition, Role::Active, 0) };
        let told = [status("b", 3, vec![running(0), running(1)])];
        let holders = Holders::new(&"shuffled".into(), &directory, &told);
        assert_eq!([0, 1, 2].map(|p| holders.owner(Partition(p)).map(|o| &**o)), [Some("a"), Some("b"), None]);
    }

    #[test]
    fn a_later_generation_is_believed_to_those_who_know_it() {
        let directory = directory(3, &[("a", 0), ("a", 1)], &[]);
        let told = [status("b", 5, vec![report(0, Role::Active, 0)]), status("a", 2, vec![report(1, Role::Active, 0)])];
        let holders = Holders::new(&"shuffled".into(), &directory, &told);
        assert_eq!(holders.generation(), 5);
        assert_eq!([0, 1].map(|p| holders.owner(Partition(p)).map(|o| &**o)), [Some("b"), Some("a")]);
    }
}
