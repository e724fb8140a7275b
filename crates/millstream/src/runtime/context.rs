//! What every part of an instance is handed.

use std::sync::Arc;

use super::StreamsConfig;
use super::registry::Registry;
use crate::broker::{Broker, BrokerError, CommittedOffset};
use crate::clock::Clock;
use crate::record::{Timestamp, TopicPartition};
use crate::store::StoreProvider;
use crate::topology::Topology;

/// Is told about an instance's work as it happens.
pub trait Observer: Send + Sync + 'static {
    /// This is what the group calls the instance.
    fn joined(&self, _member: &str) {}

    /// A commit of the thread of that number begins.
    fn commit_begins(&self, _thread: usize) {}

    /// The commit of that thread that began last has ended.
    fn commit_ends(&self, _thread: usize, _committed: bool) {}
}

impl Observer for () {}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stepped {
    /// Something was processed, restored or committed: step again at once.
    Worked,
    /// There was nothing to do.
    Idle,
    /// Something is out of order for now: give it a moment before the next step.
    Troubled,
}

impl Stepped {
    /// What two steps did together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Troubled, _) | (_, Self::Troubled) => Self::Troubled,
            (Self::Worked, _) | (_, Self::Worked) => Self::Worked,
            (Self::Idle, Self::Idle) => Self::Idle,
        }
    }
}

/// Why an instance has stopped for good.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StreamsError(String);

impl StreamsError {
    pub(super) fn new(reason: impl ToString) -> Self {
        Self(reason.to_string())
    }
}

/// What an instance needs from outside.
pub struct Parts<B: Broker> {
    /// The broker.
    pub broker: Arc<B>,
    /// What to run.
    pub topology: Topology,
    /// How.
    pub config: StreamsConfig,
    /// Where the stores are.
    pub provider: Arc<dyn StoreProvider>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where the instance makes itself known.
    pub registry: Registry,
    /// Who measures it.
    pub observer: Arc<dyn Observer>,
}

impl<B: Broker> Parts<B> {
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// What the application's group has committed.
    pub(super) fn committed(&self, inputs: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, BrokerError> {
        self.broker.committed(&self.config.application_id, inputs)
    }

    /// What the application's group has committed for one partition.
    pub(super) fn committed_position(&self, input: &TopicPartition) -> Result<Option<CommittedOffset>, BrokerError> {
        Ok(self.committed(std::slice::from_ref(input))?.pop().flatten())
    }

    /// Whether so much time has not passed yet. A clock that was set back is no reason to wait until it has caught up.
    pub(super) fn is_before(&self, since: Timestamp, interval_ms: i64) -> bool {
        (0..interval_ms).contains(&(self.now().0 - since.0))
    }
}
