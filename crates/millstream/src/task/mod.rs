//! Tasks: one for each partition of each subtopology's topic. What a task is doing is its [`TaskState`].

pub(crate) mod counted_with;
pub(crate) mod grouping;
pub(crate) mod input;
pub mod metadata;
pub(crate) mod output;
pub(crate) mod processor;
pub(crate) mod repartition;
mod role;
mod side_output;
mod state;
pub(crate) mod stored_rows;
pub(crate) mod table;
mod topic_identity;
mod windowed_spec;

use std::fmt;

pub(crate) use grouping::Grouping;
pub(crate) use input::{Passed, Transform};
pub use output::WindowEnd;
pub use role::Role;
pub use side_output::RecordCounters;
pub(crate) use side_output::{OutputBuffer, SideOutput, SideTopics};
pub use state::{IllegalTransition, TaskState};
pub use topic_identity::TopicIdentity;
pub use windowed_spec::EmitStrategy;
pub(crate) use windowed_spec::WindowedSpec;

use crate::broker::BrokerError;
use crate::record::Partition;
use crate::store::StoreError;

/// A task's name: `<subtopology>_<partition>`, as in Kafka Streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// The number of the subtopology.
    pub subtopology: u32,
    /// The partition of the subtopology's topic.
    pub partition: Partition,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.subtopology, self.partition)
    }
}

/// Why a task cannot go on as it is.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TaskError {
    /// The broker said so.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The store said so.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the task found must not be: going on would make wrong numbers. It is quarantined, and the others go on.
    #[error("{0}")]
    Stop(String),
    /// What was found concerns more than the task: the whole instance stops.
    #[error("{0}")]
    Halt(String),
}
