//! What the service needs of its broker beside what the engine does: clicks go in, and somebody looks after the topics.

use std::sync::Arc;

use millstream::broker::{Broker, BrokerError};
use millstream::clock::Clock;
use millstream::record::Timestamp;
use millstream::runtime::StreamsConfig;
use millstream_rocksdb::memory::MemoryBudget;

use crate::config::Config;
use crate::http::{AppendError, Appended, Idempotency, IncomingClick};

/// A broker that the service can run on.
pub(super) trait ClickLog: Broker + Sized {
    /// Opens the log that the configuration names.
    fn open(config: &Config, clock: &Arc<dyn Clock>, memory: &MemoryBudget) -> anyhow::Result<Self>;

    /// Makes sure that the clicks topic is there as the configuration has it, and gives the number of its partitions.
    fn prepare_clicks_topic(&self, config: &Config) -> anyhow::Result<u32>;

    /// Gives the topics of what is sent on, which are there by now, the retention of the configuration.
    fn keep_sent_on(&self, config: &Config, streams: &StreamsConfig) -> anyhow::Result<()>;

    /// Appends clicks, as [`crate::http::Mill::append`] says.
    fn append_clicks(
        &self,
        topic: &str,
        clicks: &[IncomingClick<'_>],
        arrived: Timestamp,
        idempotency: Option<Idempotency<'_>>,
    ) -> Result<Appended, AppendError>;

    /// The answer that is stored with an idempotency key.
    fn stored_answer(&self, key: &[u8]) -> Result<Option<Vec<u8>>, AppendError>;

    /// Does a piece of what has to be done now and then, and says whether there is more.
    fn maintain_log(&self) -> Result<bool, BrokerError>;

    /// How many bytes the log takes on this machine's disk.
    fn disk_bytes(&self) -> u64;
}
