//! From settings to typed values, each checked against what its option takes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use millstream_rocksdb::state::{Compression, RocksDbOptions};
use tracing_subscriber::EnvFilter;

use super::error::ConfigError;
use super::options::{self, BOOTSTRAP_SERVERS, KAFKA_SECTION, Kind, ROCKSDB_SECTION};
use super::secrets::shown;
use super::settings::{Setting, Settings};
use super::units::{DURATION_FORM, SIZE_FORM, format_size, parse_duration, parse_size};
use super::{
    ClicksConfig, Config, DataConfig, EngineConfig, KafkaOptions, LogConfig, LogFormat, ServerConfig, TimestampSource,
    TopicsConfig, WindowConfig,
};

/// The word that switches an option off.
const OFF: &str = "off";

const TIMESTAMP_SOURCES: &[(&str, TimestampSource)] = &[("field", TimestampSource::Field), ("record", TimestampSource::Record)];
const LOG_FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
const COMPRESSIONS: &[(&str, Compression)] =
    &[("none", Compression::None), ("lz4", Compression::Lz4), ("zstd", Compression::Zstd)];

/// The most threads that can be asked for.
const MAX_THREADS: u32 = 1024;

/// Reads every option.
///
/// # Errors
/// The first value that its option cannot take.
pub(super) fn config(settings: &Settings) -> Result<Config, ConfigError> {
    let values = Values(settings);
    Ok(Config {
        server: server(values)?,
        data: DataConfig { dir: values.text("data.dir")?.into() },
        engine: engine(values)?,
        clicks: clicks(values)?,
        window: WindowConfig {
            size: values.duration("window.size")?,
            grace: values.duration("window.grace")?,
            retention: values.duration("window.retention")?,
        },
        topics: TopicsConfig {
            late_retention: values.duration_or_off("topics.late_retention")?,
            dead_letter_retention: values.duration_or_off("topics.dead_letter_retention")?,
            closed_retention: values.duration_or_off("topics.closed_retention")?,
        },
        kafka: kafka(settings),
        rocksdb: rocksdb(values)?,
        log: LogConfig { level: values.log_level("log.level")?, format: values.choice("log.format", LOG_FORMATS)? },
    })
}

fn server(values: Values<'_>) -> Result<ServerConfig, ConfigError> {
    Ok(ServerConfig {
        listen: values.socket_address("server.listen")?,
        advertise: values.host_port("server.advertise")?,
        peer_listen: values.socket_address("server.peer_listen")?,
        peer_secret_file: values.optional_path("server.peer_secret_file")?,
        failover_wait: values.duration("server.failover_wait")?,
        max_body: values.size("server.max_body")? as usize,
        max_concurrent_requests: values.integer("server.max_concurrent_requests")? as usize,
        request_timeout: values.duration("server.request_timeout")?,
        max_query_period: values.duration("server.max_query_period")?,
    })
}

fn engine(values: Values<'_>) -> Result<EngineConfig, ConfigError> {
    Ok(EngineConfig {
        application_id: values.text("engine.application_id")?,
        commit_interval: values.duration("engine.commit_interval")?,
        commit_interval_backlog: values.duration("engine.commit_interval_backlog")?,
        threads: values.threads("engine.threads")?,
        num_standbys: values.integer("engine.num_standbys")? as u32,
        rack: values.optional_text("engine.rack")?,
        memory: values.size("engine.memory")?,
        state_cleanup_delay: values.duration("engine.state_cleanup_delay")?,
        ready_wait: values.duration("engine.ready_wait")?,
        idle_timeout: values.duration_or_off("engine.idle_timeout")?,
    })
}

fn clicks(values: Values<'_>) -> Result<ClicksConfig, ConfigError> {
    Ok(ClicksConfig {
        topic: values.text("clicks.topic")?,
        partitions: values.integer("clicks.partitions")? as u32,
        ad_id_field: values.text("clicks.ad_id_field")?,
        timestamp_field: values.text("clicks.timestamp_field")?,
        click_id_field: values.text("clicks.click_id_field")?,
        timestamp_source: values.choice("clicks.timestamp_source", TIMESTAMP_SOURCES)?,
        max_ahead: values.duration("clicks.max_ahead")?,
        keyed_by_ad: values.boolean("clicks.keyed_by_ad")?,
        retention: values.duration_or_off("clicks.retention")?,
        retention_bytes: values.size_or_off("clicks.retention_bytes")?,
    })
}

fn kafka(settings: &Settings) -> Option<KafkaOptions> {
    let mut properties: BTreeMap<_, _> =
        settings.section(KAFKA_SECTION).map(|(name, setting)| (name.to_owned(), setting.text.clone())).collect();
    if properties.is_empty() {
        return None;
    }
    // Where it is missing, the check of the whole says so.
    let bootstrap_servers = properties.remove(BOOTSTRAP_SERVERS).unwrap_or_default();
    Some(KafkaOptions { bootstrap_servers, properties })
}

fn rocksdb(values: Values<'_>) -> Result<RocksDbOptions, ConfigError> {
    let all = values.0.section(ROCKSDB_SECTION);
    let named = all.filter(|(name, _)| options::find(&format!("{ROCKSDB_SECTION}.{name}")).is_none());
    Ok(RocksDbOptions {
        write_buffer_size: values.size("rocksdb.write_buffer_size")? as usize,
        block_size: values.size("rocksdb.block_size")? as usize,
        bloom_bits_per_key: values.number("rocksdb.bloom_bits_per_key")?,
        compression: values.choice("rocksdb.compression", COMPRESSIONS)?,
        bottommost_compression: values.choice("rocksdb.bottommost_compression", COMPRESSIONS)?,
        max_background_jobs: values.integer("rocksdb.max_background_jobs")? as u16,
        named: named.map(|(name, setting)| (name.to_owned(), setting.text.clone())).collect(),
    })
}

/// The settings, read by kind. A key asked for is in the table of options, and has a value unless it is optional there.
#[derive(Clone, Copy)]
struct Values<'s>(&'s Settings);

impl<'s> Values<'s> {
    fn kind(self, key: &str) -> Kind {
        options::find(key).expect("every key that is read is in the table of options").kind
    }

    fn setting(self, key: &str) -> &'s Setting {
        self.0.get(key).expect("an option that is not optional has a default")
    }

    /// The value of `parse`, or an error that says what is accepted.
    fn parse<T>(self, key: &str, accepted: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, ConfigError> {
        let setting = self.setting(key);
        parse(&setting.text).ok_or_else(|| invalid(key, setting, format!("accepted is {accepted}")))
    }

    fn text(self, key: &str) -> Result<String, ConfigError> {
        let kind = self.kind(key);
        let accepted = match kind {
            Kind::Name { max_length } => format!("a name of 1 to {max_length} letters, digits, '.', '_' or '-'"),
            _ => "a text that is not empty".to_owned(),
        };
        self.parse(key, &accepted, |text| {
            let fits = match kind {
                Kind::Name { max_length } => is_name(text, max_length),
                _ => !text.trim().is_empty(),
            };
            fits.then(|| text.to_owned())
        })
    }

    fn optional_text(self, key: &str) -> Result<Option<String>, ConfigError> {
        self.0.get(key).map(|_| self.text(key)).transpose()
    }

    fn optional_path(self, key: &str) -> Result<Option<PathBuf>, ConfigError> {
        self.0.get(key).map(|_| self.text(key).map(PathBuf::from)).transpose()
    }

    fn socket_address(self, key: &str) -> Result<SocketAddr, ConfigError> {
        self.parse(key, "an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080", |text| text.parse().ok())
    }

    fn host_port(self, key: &str) -> Result<Option<String>, ConfigError> {
        if self.0.get(key).is_none() {
            return Ok(None);
        }
        self.parse(key, "a host and a port, such as clicks-1.example.com:8080", |text| {
            let (host, port) = text.rsplit_once(':')?;
            let port: u16 = port.parse().ok()?;
            let plain = !host.is_empty() && !host.contains(['/', ' ', '@']);
            (plain && port > 0).then(|| Some(text.to_owned()))
        })
    }

    fn integer(self, key: &str) -> Result<u64, ConfigError> {
        let Kind::Integer { min, max } = self.kind(key) else { unreachable!("{key} is an integer") };
        let accepted = if min == max { format!("{min} only") } else { format!("a whole number from {min} to {max}") };
        self.parse(key, &accepted, |text| text.parse().ok().filter(|number| (min..=max).contains(number)))
    }

    fn threads(self, key: &str) -> Result<Option<NonZeroU32>, ConfigError> {
        self.parse(key, &format!("\"auto\" or a whole number from 1 to {MAX_THREADS}"), |text| match text {
            "auto" => Some(None),
            number => number.parse().ok().filter(|threads: &NonZeroU32| threads.get() <= MAX_THREADS).map(Some),
        })
    }

    fn boolean(self, key: &str) -> Result<bool, ConfigError> {
        self.parse(key, "true or false", |text| text.parse().ok())
    }

    fn duration(self, key: &str) -> Result<Duration, ConfigError> {
        let zero = self.kind(key) == Kind::Duration { zero: true };
        let accepted = if zero { DURATION_FORM.to_owned() } else { format!("{DURATION_FORM}, more than zero") };
        self.parse(key, &accepted, |text| parse_duration(text).filter(|duration| zero || !duration.is_zero()))
    }

    fn duration_or_off(self, key: &str) -> Result<Option<Duration>, ConfigError> {
        self.parse(key, &format!("\"{OFF}\" or {DURATION_FORM}, more than zero"), |text| match text {
            OFF => Some(None),
            other => parse_duration(other).filter(|duration| !duration.is_zero()).map(Some),
        })
    }

    fn size(self, key: &str) -> Result<u64, ConfigError> {
        let Kind::Size { min } = self.kind(key) else { unreachable!("{key} is a size") };
        let accepted = format!("{SIZE_FORM}, at least {}", format_size(min));
        self.parse(key, &accepted, |text| parse_size(text).filter(|bytes| *bytes >= min))
    }

    fn size_or_off(self, key: &str) -> Result<Option<u64>, ConfigError> {
        self.parse(key, &format!("\"{OFF}\" or {SIZE_FORM}, more than zero"), |text| match text {
            OFF => Some(None),
            other => parse_size(other).filter(|bytes| *bytes > 0).map(Some),
        })
    }

    fn number(self, key: &str) -> Result<f64, ConfigError> {
        let Kind::Number { min, max } = self.kind(key) else { unreachable!("{key} is a number") };
        let accepted = format!("a number from {min} to {max}");
        self.parse(key, &accepted, |text| text.parse().ok().filter(|number| (min..=max).contains(number)))
    }

    /// What one of the words stands for.
    fn choice<T: Copy>(self, key: &str, words: &[(&str, T)]) -> Result<T, ConfigError> {
        let accepted: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        self.parse(key, &accepted.join(" or "), |text| words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning))
    }

    fn log_level(self, key: &str) -> Result<String, ConfigError> {
        self.parse(key, "error, warn, info, debug, trace, or directives such as info,millstream=debug", |text| {
            EnvFilter::try_new(text).ok().filter(|_| !text.trim().is_empty())?;
            Some(text.to_owned())
        })
    }
}

pub(super) fn invalid(key: &str, setting: &Setting, reason: String) -> ConfigError {
    ConfigError::Invalid {
        key: key.to_owned(),
        value: format!("{:?}", shown(key, &setting.text)),
        origin: setting.origin.clone(),
        reason,
    }
}

fn is_name(text: &str, max_length: usize) -> bool {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    plain && (1..=max_length).contains(&text.len()) && ![".", ".."].contains(&text)
}
