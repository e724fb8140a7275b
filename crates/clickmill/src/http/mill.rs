//! What the HTTP API needs of the process it runs in.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use millstream::broker::group::Directory;
use millstream::query::{CountQueries, InstanceStatus};
use millstream::record::{Partition, Timestamp, Topic, TopicPartition};
use millstream::task::TaskId;

use super::status::Readiness;

/// The running mill, as the HTTP API sees it. Calls may block for as long as storage takes; handlers make them on threads where
/// that is allowed. [`Mill::now`], [`Mill::readiness`], and what tells of instances and tasks do not block.
pub trait Mill: Send + Sync + 'static {
    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// The topic that clicks go to.
    fn clicks_topic(&self) -> ClicksTopic;

    /// Appends the clicks to the clicks topic, each to its partition, with `arrived` as the timestamp of all. Returns when they are
    /// durable: all of them, or on an error none, unless it is [`AppendError::Partly`]. Where each click is a unit of its own, it returns
    /// early enough before the deadline that the answer can still tell of each.
    ///
    /// With an idempotency key, key and answer are stored in the same unit. Where the key is stored already, nothing is appended.
    ///
    /// # Errors
    /// See [`AppendError`].
    fn append(
        &self,
        clicks: &[IncomingClick<'_>],
        arrived: Timestamp,
        deadline: Instant,
        idempotency: Option<Idempotency<'_>>,
    ) -> Result<Appended, AppendError>;

    /// The answer that is stored with an idempotency key.
    ///
    /// # Errors
    /// See [`AppendError`].
    fn stored_answer(&self, key: &[u8]) -> Result<Option<Vec<u8>>, AppendError>;

    /// The counts.
    fn queries(&self) -> &dyn CountQueries;

    /// Whether every task of this instance is restored and running.
    fn readiness(&self) -> Readiness;

    /// What keeps clicks from being stored for now, where something is known to. Does not block.
    fn intake_trouble(&self) -> Option<String>;

    /// The application, and what is known of all its tasks.
    fn application(&self) -> Application;

    /// Who holds what in the group, as this instance was told last.
    fn directory(&self) -> Arc<Directory>;

    /// What this instance tells others of itself.
    fn status(&self) -> InstanceStatus;

    /// Lets a quarantined task of this instance try again; false where it has no such task in quarantine.
    fn retry_task(&self, task: &str) -> bool;
}

/// The application that an instance is one of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// Its id.
    pub id: String,
    /// How this instance is reached, where the group does not say so.
    pub endpoint: String,
    /// The topic whose tasks keep the counts.
    pub store_input: Topic,
    /// All tasks that there are, whoever holds them.
    pub tasks: Vec<KnownTask>,
}

/// A task, of which nothing has to be known but that it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownTask {
    /// The task.
    pub id: TaskId,
    /// What it reads.
    pub input: TopicPartition,
    /// Records that are not yet processed, by the position that is committed; none while that is not known.
    pub lag: Option<u64>,
}

/// What has to be known of a topic to write clicks to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClicksTopic {
    /// How many partitions it has, at least 1.
    pub partitions: u32,
    /// How many bytes the key and the value of a record may have together.
    pub max_record_bytes: usize,
}

/// A click that was taken in and is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingClick<'a> {
    /// The partition of its ad.
    pub partition: Partition,
    /// The ad id: the record's key.
    pub ad_id: Cow<'a, str>,
    /// The object as it came: the record's value.
    pub value: &'a [u8],
}

/// What makes a request safe to send again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idempotency<'a> {
    /// The client's key, 1 to [`super::MAX_IDEMPOTENCY_KEY_BYTES`] bytes.
    pub key: &'a [u8],
    /// The body of the answer, to be given again.
    pub answer: &'a [u8],
}

/// What became of a request's clicks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// They are durable.
    Now,
    /// The key was stored before, with this answer; nothing was added.
    Before(Vec<u8>),
}

/// Why no click of a request was appended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// The log takes nothing for now, as where its disk is full; it may later.
    #[error("the log cannot take clicks for now: {0}")]
    Unavailable(String),
    /// The process is on its way down and takes nothing more.
    #[error("this instance is shutting down")]
    ShuttingDown,
    /// The clicks may have become durable, or not.
    #[error("it is not known whether the clicks are stored ({0}); with the same Idempotency-Key they may be sent again")]
    OutcomeUnknown(String),
    /// Each click is a unit of its own, and some may not have become durable: `durable` says of each whether it certainly has.
    #[error("not all clicks are known to be stored: {reason}")]
    Partly {
        /// In the order of the clicks.
        durable: Vec<bool>,
        /// Why not all.
        reason: String,
    },
    /// The log cannot keep idempotency keys.
    #[error("idempotency keys are kept by the embedded broker only, not on Kafka: send the request without Idempotency-Key")]
    NoIdempotency,
    /// Anything else; an operator has to look.
    #[error("clicks cannot be written: {0}")]
    Failed(String),
}
