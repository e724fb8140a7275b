//! What the service needs of the log beside what the engine does: clicks go in, and somebody looks after the topics.

use std::sync::Arc;
use std::time::Duration;

use millstream::broker::{Broker, BrokerError};
use millstream::clock::Clock;
use millstream::record::Timestamp;
use millstream::runtime::StreamsConfig;
use millstream_rocksdb::memory::MemoryBudget;

use crate::config::Config;
use crate::http::{AppendError, Appended, ClicksTopic, Idempotency, IncomingClick};

/// A log that the service can run on.
pub(super) trait ClickLog: Send + Sync + Sized + 'static {
    /// The engine's side of it.
    type Broker: Broker;

    /// How often lag is looked up and [`ClickLog::maintain`] is called.
    const UPKEEP_INTERVAL: Duration;

    /// Whether other instances may hold part of the tasks.
    const SHARED: bool;

    /// Opens the log that the configuration names.
    fn open(config: &Config, clock: &Arc<dyn Clock>, memory: &MemoryBudget) -> anyhow::Result<Self>;

    /// The engine's side of it.
    fn broker(&self) -> &Arc<Self::Broker>;

    /// Makes sure that the clicks topic is there as the configuration has it.
    fn prepare_clicks_topic(&self, config: &Config) -> anyhow::Result<ClicksTopic>;

    /// Gives the topics of what is sent on, which are there by now, the retention of the configuration.
    fn keep_sent_on(&self, config: &Config, streams: &StreamsConfig) -> anyhow::Result<()>;

    /// Appends clicks, as [`crate::http::Mill::append`] says.
    fn append(
        &self,
        topic: &str,
        clicks: &[IncomingClick<'_>],
        arrived: Timestamp,
        idempotency: Option<Idempotency<'_>>,
    ) -> Result<Appended, AppendError>;

    /// The answer that is stored with an idempotency key.
    fn stored_answer(&self, key: &[u8]) -> Result<Option<Vec<u8>>, AppendError>;

    /// Does a piece of what has to be done now and then, and says whether there is more.
    fn maintain(&self) -> Result<bool, BrokerError>;

    /// How many bytes the log takes on this machine's disk.
    fn disk_bytes(&self) -> u64;
}
