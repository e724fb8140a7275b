//! What is known of a group when its tasks are to be assigned.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Assignment;
use crate::record::TopicPartition;

/// All that an assignment depends on. The same situation gives the same assignment, whoever leads the group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Situation {
    /// All tasks, by the partition that each reads. Tasks of one topic are of one kind.
    pub tasks: BTreeMap<TopicPartition, TaskInfo>,
    /// The members of this generation, by instance id: a name that a restart does not change, as a member id does.
    pub members: BTreeMap<Arc<str>, MemberState>,
    /// The assignment before this one; the default where there was none.
    pub previous: Assignment,
    /// What the group wants.
    pub options: Options,
    /// The time, in milliseconds. It is compared with deadlines of earlier calls and decides nothing else.
    pub now_ms: i64,
    /// Whether the ends of the changelogs could be read. Where they could not, no lag means anything.
    pub ends_known: bool,
}

/// What an assignment has to know of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TaskInfo {
    /// Whether the task has a store: only then it has standbys, and something to warm up before it moves.
    pub stateful: bool,
}

/// What a member says of itself, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberState {
    /// How many threads process tasks there; none counts as one.
    pub threads: u32,
    /// Where it stands. Members that say nothing stand together.
    pub rack: Option<Arc<str>>,
    /// Whether it is about to leave, and gives its tasks to those who can go on at once.
    pub draining: bool,
    /// Whether its user data could be read. A member that cannot be understood is assigned nothing.
    pub understood: bool,
    /// The active tasks that it was assigned and has not given up. Nobody else may hold them.
    pub owned: BTreeMap<TopicPartition, Stage>,
    /// All state that it has of tasks, opened or only lying on its disk, whatever it is assigned. What it runs as the active one need
    /// not be among it.
    pub copies: BTreeMap<TopicPartition, StateCopy>,
}

impl Default for MemberState {
    /// One thread, no rack, nothing owned and nothing on disk.
    fn default() -> Self {
        let (owned, copies) = Default::default();
        Self { threads: 1, rack: None, draining: false, understood: true, owned, copies }
    }
}

/// How far an active task has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    /// It processes, or nobody knows better: then it is protected as if it did.
    #[default]
    Running,
    /// It reads its changelog first. Another member that has caught up takes it over.
    Restoring,
}

/// A task's state on one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateCopy {
    /// How far it is behind the changelog's end. None is unknown, which is worse than any that is known.
    pub lag: Option<Lag>,
}

/// A distance from the end of a changelog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// In records.
    pub records: u64,
    /// In time, in milliseconds; 0 where only records are counted.
    pub ms: u64,
}

impl Lag {
    /// Whether a copy that is so far behind has caught up, where `acceptable` is.
    pub fn is_within(self, acceptable: Lag) -> bool {
        self.records <= acceptable.records && self.ms <= acceptable.ms
    }
}

/// What the group wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How many copies of each task's state there are beside the active one.
    pub num_standbys: usize,
    /// How many copies may be built at once for tasks and standbys that are to move, in the whole group.
    pub max_warmups: usize,
    /// How far a copy may be behind and yet has caught up. By default no record: what a commit interval brings is for the caller to say.
    pub acceptable_lag: Lag,
    /// For how long, in milliseconds, the copies of a member that went are not built elsewhere.
    pub standby_delay_ms: i64,
    /// After how long, in milliseconds, the leader looks again at moves that no report of a member has ended.
    pub probing_interval_ms: i64,
    /// After how long, in milliseconds, the leader tries again to read the ends of the changelogs.
    pub retry_ms: i64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            num_standbys: 0,
            max_warmups: 2,
            acceptable_lag: Lag { records: 0, ms: u64::MAX },
            standby_delay_ms: 60_000,
            probing_interval_ms: 600_000,
            retry_ms: 5_000,
        }
    }
}
