//! What the service needs of the log beside what the engine does: clicks go in, and somebody looks after the topics.

use std::sync::Arc;
use std::time::{Duration, Instant};

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

    /// Where the log of that configuration is, for people.
    fn place(config: &Config) -> String;

    /// What the group waits for that has not told so many threads of this instance yet what is theirs, for people: "for …".
    fn waits_for_group(&self, config: &Config) -> String;

    /// Where those members of the group are that call themselves as that instance does, as far as can be told.
    fn instances_named(&self, config: &Config, instance: &str) -> Vec<String>;

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
        deadline: Instant,
        idempotency: Option<Idempotency<'_>>,
    ) -> Result<Appended, AppendError>;

    /// How many partitions [`ClickLog::append`] can write to now, after the cluster was asked.
    fn partitions_to_append_to(&self, topic: &str) -> Result<u32, BrokerError>;

    /// What keeps clicks from being stored for now, where something is known to. Does not block.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// The answer that is stored with an idempotency key.
    fn stored_answer(&self, key: &[u8]) -> Result<Option<Vec<u8>>, AppendError>;

    /// Does a piece of what has to be done now and then, and says whether there is more.
    fn maintain(&self) -> Result<bool, BrokerError>;

    /// How many bytes the log takes on this machine's disk.
    fn disk_bytes(&self) -> u64;
}
