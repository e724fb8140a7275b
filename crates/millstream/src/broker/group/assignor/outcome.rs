//! What was decided: who holds which task in which role, and what the next decision has to know of this one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::user_data::{moves, tasks};
use crate::record::TopicPartition;

/// An assignment, and what it asks of the leader.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Who holds what.
    pub assignment: Assignment,
    /// When the leader has to assign anew if nothing else makes it do so before.
    pub next_look_ms: Option<i64>,
    /// What an operator should know.
    pub warnings: Vec<Warning>,
}

/// Who holds what. Plain data: it travels to all members, and the next call wants it back as [`super::Situation::previous`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Assignment {
    /// The tasks of each member, by instance id. Every member has an entry.
    pub members: BTreeMap<Arc<str>, Roles>,
    /// Tasks that are nobody's active task for now, and who is to get each once its old owner does not list it as owned any more. The old
    /// owner is asked to give it up by not being assigned it.
    #[serde(with = "moves")]
    pub moving: BTreeMap<TopicPartition, Arc<str>>,
    /// Instances that went, or are about to go, and the copies that are theirs when they come back.
    pub absent: BTreeMap<Arc<str>, Absence>,
    /// When the leader looks again at moves that are under way.
    pub probe_at_ms: Option<i64>,
}

/// What one member holds, by role. No task is in two of them, but for one that is moving: the member that gives it up may be
/// assigned it as a standby at once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Roles {
    /// Tasks that it processes.
    #[serde(with = "tasks")]
    pub active: BTreeSet<TopicPartition>,
    /// Tasks whose state it keeps up to date in case that their owner dies.
    #[serde(with = "tasks")]
    pub standby: BTreeSet<TopicPartition>,
    /// Tasks whose state it builds because it is to hold them in another role soon.
    #[serde(with = "tasks")]
    pub warmup: BTreeSet<TopicPartition>,
}

/// An instance that went, or drains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absence {
    /// Until when its copies are not built elsewhere. That of a member that still drains begins anew with each assignment.
    pub until_ms: i64,
    /// The tasks whose state it has.
    #[serde(with = "tasks")]
    pub copies: BTreeSet<TopicPartition>,
}

/// What an operator should know of an assignment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// The member's user data is of a version that the leader does not know, or is damaged.
    #[error(
        "The member {member} cannot be understood and is assigned nothing: is its version too old or too new for this group?"
    )]
    NotUnderstood {
        /// The instance id.
        member: Arc<str>,
    },
    /// There are fewer instances than copies wanted.
    #[error("{num_standbys} standbys of each task are wanted, which takes {} instances: there are {instances}", num_standbys + 1)]
    TooFewInstances {
        /// How many standbys are wanted.
        num_standbys: usize,
        /// How many instances can hold tasks, those included that are expected back.
        instances: usize,
    },
    /// The changelogs' ends could not be read.
    #[error("The ends of the changelogs could not be read: the assignment stays as it was, and is looked at again soon")]
    EndsUnknown,
    /// More than one member lists a task as owned. All of them are asked to give it up.
    #[error("The task {task} is listed as owned by {}: nobody gets it before all of them have given it up", members.join(", "))]
    OwnedTwice {
        /// The task.
        task: TopicPartition,
        /// The instance ids.
        members: Vec<Arc<str>>,
    },
    /// No member could be assigned anything.
    #[error("No member can be assigned tasks: {tasks} of them have no owner")]
    NoMember {
        /// How many tasks there are.
        tasks: usize,
    },
}
