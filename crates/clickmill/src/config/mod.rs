//! Configuration: defaults, one TOML file, the environment and flags, in rising order, checked as a whole before anything starts.

mod effective;
mod error;
mod options;
mod read;
mod reference;
mod secrets;
mod settings;
mod units;
mod validate;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use millstream_kafka::KafkaConfig;
use millstream_rocksdb::state::RocksDbOptions;

pub use crate::click::TimestampSource;
pub use effective::{to_json, to_toml};
pub use error::ConfigError;
pub use options::{Kind, OPTIONS, OptionSpec, SECTIONS};
pub use reference::reference;
pub use settings::{FlagValue, Origin, Setting, Settings, Sources};
pub use units::{format_duration, format_size, parse_duration, parse_size};

/// A configuration in which every value is in its range and all go together.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The HTTP server.
    pub server: ServerConfig,
    /// Where everything is kept.
    pub data: DataConfig,
    /// How clicks are processed.
    pub engine: EngineConfig,
    /// The clicks topic, and how a click is read.
    pub clicks: ClicksConfig,
    /// How clicks are counted.
    pub window: WindowConfig,
    /// How long what is sent on is kept.
    pub topics: TopicsConfig,
    /// The Kafka cluster that holds the log; none is the embedded broker.
    pub kafka: Option<KafkaOptions>,
    /// How state is stored; known to be valid.
    pub rocksdb: RocksDbOptions,
    /// What the service says on standard error.
    pub log: LogConfig,
}

/// `[server]`: the HTTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// How other instances reach this one, `HOST:PORT`; none is the address it listens on for them.
    pub advertise: Option<String>,
    /// The address to listen on for other instances; on Kafka only.
    pub peer_listen: SocketAddr,
    /// The file of the secret that all instances share.
    pub peer_secret_file: Option<PathBuf>,
    /// How long a query waits for a partition that nobody answers for.
    pub failover_wait: Duration,
    /// The largest body of a request in bytes.
    pub max_body: usize,
    /// How many requests are worked on at once.
    pub max_concurrent_requests: usize,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// The longest period of one query.
    pub max_query_period: Duration,
}

/// `[data]`: where everything is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataConfig {
    /// The directory of the log and the state.
    pub dir: PathBuf,
}

/// `[engine]`: how clicks are processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// The consumer group, and the prefix of all topics besides the clicks.
    pub application_id: String,
    /// Between two commits when caught up.
    pub commit_interval: Duration,
    /// Between two commits while there is a backlog; not shorter than `commit_interval`.
    pub commit_interval_backlog: Duration,
    /// How many threads process clicks; none is one for each processor core.
    pub threads: Option<NonZeroU32>,
    /// How many copies of the state other instances keep.
    pub num_standbys: u32,
    /// Where this instance stands, if that is known.
    pub rack: Option<String>,
    /// The budget of the whole process in bytes.
    pub memory: u64,
    /// How long the state of a partition that others count now is kept.
    pub state_cleanup_delay: Duration,
    /// How long after the start a roll-out waits for the copies that this instance is to keep.
    pub ready_wait: Duration,
    /// How long a partition may bring nothing before windows close without it; none is for ever.
    pub idle_timeout: Option<Duration>,
}

/// `[clicks]`: the clicks topic, and how a click is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClicksConfig {
    /// The topic.
    pub topic: String,
    /// How many partitions it is created with.
    pub partitions: u32,
    /// The field that holds the ad id. The three names differ.
    pub ad_id_field: String,
    /// The field that holds the event time.
    pub timestamp_field: String,
    /// The field that holds the click's own id.
    pub click_id_field: String,
    /// Where event time comes from.
    pub timestamp_source: TimestampSource,
    /// How far event time may be ahead of the record's own timestamp.
    pub max_ahead: Duration,
    /// Whether the topic's key is the ad id already.
    pub keyed_by_ad: bool,
    /// How long clicks are kept; none is for ever.
    pub retention: Option<Duration>,
    /// How many bytes of clicks a partition keeps; none is without bound.
    pub retention_bytes: Option<u64>,
}

/// `[window]`: how clicks are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowConfig {
    /// The length of a window, in whole milliseconds, not zero.
    pub size: Duration,
    /// How long after its end a window still takes clicks.
    pub grace: Duration,
    /// How far back counts can be asked for; at least size + grace.
    pub retention: Duration,
}

/// `[topics]`: how long what is sent on is kept, by the records' own timestamps; none is for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicsConfig {
    /// Late clicks.
    pub late_retention: Option<Duration>,
    /// Clicks that could not be read.
    pub dead_letter_retention: Option<Duration>,
    /// Counts of final windows.
    pub closed_retention: Option<Duration>,
}

/// `[kafka]`: the cluster that holds the log; known to be properties that librdkafka takes.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaOptions {
    /// Brokers to begin with, `HOST:PORT`, separated by commas.
    pub bootstrap_servers: String,
    /// librdkafka's properties by their own names.
    pub properties: BTreeMap<String, String>,
}

/// Passwords are not shown.
impl fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaOptions").field("bootstrap_servers", &self.bootstrap_servers).finish_non_exhaustive()
    }
}

/// `[log]`: what the service says on standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// A level or tracing directives, known to be well formed.
    pub level: String,
    /// For people or for machines.
    pub format: LogFormat,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl EngineConfig {
    /// How many bytes of request bodies may be on their way in at once, and so the largest that one may have. Each is held
    /// about three times over: as it came, encoded for the log, and in the log's write.
    pub fn intake_bytes(&self) -> u64 {
        self.memory / 16
    }
}

impl KafkaOptions {
    /// What the Kafka clients are made from.
    ///
    /// # Errors
    /// The first property that cannot be set.
    pub fn client_config(&self) -> Result<KafkaConfig, millstream_kafka::ConfigError> {
        KafkaConfig::new(self.bootstrap_servers.as_str(), self.properties.clone())
    }
}

impl Config {
    /// The configuration that the settings make.
    ///
    /// # Errors
    /// The first value that its option cannot take, or that does not go together with another.
    pub fn from_settings(settings: &Settings) -> Result<Self, ConfigError> {
        let config = read::config(settings)?;
        validate::check(&config, settings)?;
        Ok(config)
    }

    /// The configuration of these sources.
    ///
    /// # Errors
    /// As [`Settings::collect`] and [`Config::from_settings`].
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        Self::from_settings(&Settings::collect(sources)?)
    }
}

#[cfg(test)]
mod tests;
