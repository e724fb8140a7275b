//! How the instance and its tasks are, as `/readyz` and `/v1/cluster` tell it.

use millstream::record::Timestamp;
use millstream::runtime;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::time::Time;

/// Whether an instance is ready, and why not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Readiness {
    /// Whether every task is restored and running.
    pub ready: bool,
    /// The tasks of this instance.
    pub tasks: Vec<TaskStatus>,
    /// What keeps clicks from being stored for now; null where nothing does.
    pub intake_trouble: Option<String>,
    /// What keeps this instance from answering for the others; null where nothing does.
    pub cluster_trouble: Option<String>,
}

/// All instances of the application.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Cluster {
    /// The application id.
    pub application_id: String,
    /// The generation of the group: with each, tasks may be held by others.
    pub generation: i32,
    /// The instances, this one among them.
    pub instances: Vec<Instance>,
    /// The tasks that no instance owns now.
    pub unassigned: Vec<TaskStatus>,
    /// The tasks that read nothing more until an operator lets them try again.
    pub quarantined: Vec<Quarantined>,
}

/// A task in quarantine: something is there that must not be, and going on would make wrong numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Quarantined {
    /// `<subtopology>_<partition>`.
    #[schema(example = "1_3")]
    pub task: String,
    /// What was found, and the way out.
    pub reason: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime, example = "2026-01-01T00:05:00.000Z")]
    #[serde(serialize_with = "as_time")]
    pub since: Timestamp,
}

fn as_time<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    Time(*time).serialize(serializer)
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Instance {
    /// Its id, which a restart keeps.
    pub id: String,
    /// How others reach it: `host:port`; null where they cannot.
    #[schema(example = "127.0.0.1:8080")]
    pub endpoint: Option<String>,
    /// The rack that it stands in; null where that is not known.
    pub rack: Option<String>,
    /// Its program's version; null before it was heard.
    pub version: Option<String>,
    /// `running`: so do all its tasks, or they are in quarantine; `starting`: some do not yet; `unknown`: it was not heard yet.
    #[schema(example = "running")]
    pub state: String,
    /// How long ago this instance has heard of it, in milliseconds; null where it never has.
    pub last_heard_ms: Option<u64>,
    /// The tasks that it runs.
    pub active_tasks: Vec<TaskStatus>,
    /// The tasks of which it keeps a copy of the state.
    pub standby_tasks: Vec<TaskStatus>,
    /// The tasks whose state it builds, to take them over once it has it.
    pub warmup_tasks: Vec<TaskStatus>,
}

/// One task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TaskStatus {
    /// `<subtopology>_<partition>`.
    #[schema(example = "1_3")]
    pub task: String,
    /// The state's name.
    #[schema(example = "running")]
    pub state: String,
    /// The topic it reads.
    pub topic: String,
    /// The partition it reads.
    pub partition: u32,
    /// The offset of the next record to read; null where nothing was read yet.
    pub position: Option<i64>,
    /// Records of the partition that are not yet processed; of a copy, changelog records that it does not have yet. Null while that is not known,
    /// as before the brokers have first answered.
    pub lag: Option<u64>,
    /// How far the restore of its state has come; null where there is none to do.
    pub restore: Option<RestoreProgress>,
    /// What keeps it from going on for now; null where nothing does.
    pub trouble: Option<String>,
}

/// How far a restore has come, in offsets of the changelog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct RestoreProgress {
    /// Where it started.
    pub start: i64,
    /// Where it is.
    pub position: i64,
    /// Where it ends.
    pub end: i64,
    /// How many records a second it has restored so far; null before there is something to reckon with.
    pub records_per_second: Option<u64>,
    /// How long it will take yet; null before there is something to reckon with.
    pub seconds_left: Option<u64>,
}

impl From<runtime::RestoreProgress> for RestoreProgress {
    fn from(restore: runtime::RestoreProgress) -> Self {
        Self {
            start: restore.from.0,
            position: restore.position.0,
            end: restore.end.0,
            records_per_second: restore.records_per_second(),
            seconds_left: restore.time_left().map(|left| left.as_secs()),
        }
    }
}
