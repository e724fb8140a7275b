//! An instance that wants to be a member.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::record::Topic;

/// An instance that wants to be a member of its application's group.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The group: the application's id.
    pub group: Arc<str>,
    /// The instance's own name, the same after a restart.
    pub instance: Arc<str>,
    /// Another with every start of the process: the group tells one life of an instance from the next by it.
    pub incarnation: u64,
    /// What the group called it in its last life, if that is known: it goes on as that member, where the group has not missed it yet.
    pub member: Option<Arc<str>>,
    /// The topics that it consumes, each partition of which is a task.
    pub topics: Vec<Topic>,
    /// Those of them whose tasks keep a store.
    pub stateful: BTreeSet<Topic>,
    /// How many threads share its tasks.
    pub threads: u32,
    /// Where others reach it, if they can.
    pub endpoint: Option<Arc<str>>,
    /// The rack that it stands in, if that is known.
    pub rack: Option<Arc<str>>,
    /// How tasks are placed, where this member leads the group.
    pub placement: Placement,
}

impl Candidate {
    /// A candidate whose tasks keep no store, with one thread.
    pub fn new(group: impl Into<Arc<str>>, instance: impl Into<Arc<str>>, topics: &[Topic]) -> Self {
        Self {
            group: group.into(),
            instance: instance.into(),
            incarnation: 0,
            member: None,
            topics: topics.to_vec(),
            stateful: BTreeSet::new(),
            threads: 1,
            endpoint: None,
            rack: None,
            placement: Placement::default(),
        }
    }
}

/// How the tasks of a group are placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// How many other instances keep a copy of each store.
    pub standbys: u32,
    /// How many copies are built at a time so that their tasks can move.
    pub warmups: u32,
    /// For so long nobody builds the copies of an instance that is gone: it may come back with them. In milliseconds.
    pub standby_delay_ms: i64,
}

impl Default for Placement {
    fn default() -> Self {
        Self { standbys: 0, warmups: 2, standby_delay_ms: 60_000 }
    }
}

/// The transactional id of a producer of an instance: `<application.id>-<instance id>-<number>`. 0 is what partitions join with, the threads have the numbers
/// from 1 on.
pub fn transactional_id(application_id: &str, instance_id: &str, number: usize) -> String {
    format!("{application_id}-{instance_id}-{number}")
}
