//! The service on the embedded broker.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use millstream::broker::local::{Appended as Stored, Unit};
use millstream::broker::{Broker, BrokerError, ErrorKind, TopicSettings};
use millstream::clock::Clock;
use millstream::record::{Record, Timestamp, Topic, TopicPartition};
use millstream::runtime::StreamsConfig;
use millstream_rocksdb::broker::{self, EmbeddedBroker};
use millstream_rocksdb::memory::MemoryBudget;

use super::click_log::ClickLog;
use super::{Misconfigured, topology};
use crate::config::{ClicksConfig, Config, TopicsConfig};
use crate::http::{AppendError, Appended, ClicksTopic, Idempotency, IncomingClick};

/// The embedded broker as the service's log.
pub(super) struct EmbeddedLog(Arc<EmbeddedBroker>);

impl ClickLog for EmbeddedLog {
    type Broker = EmbeddedBroker;

    const UPKEEP_INTERVAL: Duration = Duration::from_millis(250);
    const SHARED: bool = false;

    fn open(config: &Config, clock: &Arc<dyn Clock>, memory: &MemoryBudget) -> anyhow::Result<Self> {
        let dir = &config.data.dir;
        refuse_state_without_log(dir)?;
        Ok(Self(Arc::new(broker::open(&dir.join("log"), clock.clone(), memory)?)))
    }

    fn place(config: &Config) -> String {
        format!("the embedded broker in {}", config.data.dir.display())
    }

    fn waits_for_group(&self, _: &Config) -> String {
        "its threads to take tasks over".to_owned()
    }

    fn instances_named(&self, _: &Config, _: &str) -> Vec<String> {
        Vec::new()
    }

    fn broker(&self) -> &Arc<EmbeddedBroker> {
        &self.0
    }

    /// Creates the topic where there is none, else gives it the retention of the configuration and lets it grow where that says
    /// more partitions than it has.
    fn prepare_clicks_topic(&self, config: &Config) -> anyhow::Result<ClicksTopic> {
        // What a body holds, the log takes.
        let with = |partitions| ClicksTopic { partitions, max_record_bytes: usize::MAX };
        let ClicksConfig { topic, partitions, keyed_by_ad, retention, retention_bytes, .. } = &config.clicks;
        let Some(found) = self.0.describe_topic(topic)?.map(|found| found.partitions) else {
            let settings = TopicSettings {
                retention: *retention,
                retention_bytes: *retention_bytes,
                ..TopicSettings::kept_for_ever(*partitions)
            };
            self.0.create_topic(topic, &settings)?;
            return Ok(with(*partitions));
        };
        self.0.set_retention(topic, *retention, *retention_bytes)?;
        if found < *partitions {
            if *keyed_by_ad {
                return Err(Misconfigured(format!(
                    "topic {topic} has {found} partitions, the configuration says {partitions}: a topic that is keyed by ad must keep \
                     its number of partitions; set clicks.partitions = {found}"
                ))
                .into());
            }
            tracing::info!("topic {topic} grows from {found} to {partitions} partitions");
            self.0.add_partitions(topic, *partitions)?;
            return Ok(with(*partitions));
        }
        if found > *partitions {
            tracing::warn!("topic {topic} has {found} partitions, the configuration says {partitions}: a topic cannot shrink");
        }
        Ok(with(found))
    }

    fn keep_sent_on(&self, config: &Config, streams: &StreamsConfig) -> anyhow::Result<()> {
        let TopicsConfig { late_retention, dead_letter_retention, closed_retention } = config.topics;
        self.0.set_retention(&streams.late_topic(), late_retention, None)?;
        self.0.set_retention(&streams.dead_letter_topic(), dead_letter_retention, None)?;
        self.0.set_retention(&topology::closed_topic(config), closed_retention, None)?;
        Ok(())
    }

    /// All clicks of a request are one unit.
    fn append(
        &self,
        topic: &str,
        clicks: &[IncomingClick<'_>],
        arrived: Timestamp,
        _: Instant,
        idempotency: Option<Idempotency<'_>>,
    ) -> Result<Appended, AppendError> {
        let topic = Topic::from(topic);
        let mut unit = Unit::new();
        for click in clicks {
            let to = TopicPartition::new(topic.clone(), click.partition);
            unit.add(&to, &Record::new(Some(click.ad_id.as_bytes()), Some(click.value), arrived));
        }
        if let Some(Idempotency { key, answer }) = idempotency {
            unit.set_idempotency_key(key, answer);
        }
        match self.0.append(unit) {
            Ok(Stored::Stored(_)) => Ok(Appended::Now),
            Ok(Stored::AlreadyStored(answer)) => Ok(Appended::Before(answer)),
            Err(error) => Err(append_error(&error)),
        }
    }

    fn partitions_to_append_to(&self, topic: &str) -> Result<u32, BrokerError> {
        Ok(self.0.describe_topic(topic)?.map_or(0, |topic| topic.partitions))
    }

    fn stored_answer(&self, key: &[u8]) -> Result<Option<Vec<u8>>, AppendError> {
        self.0.stored_result(key).map_err(|error| append_error(&error))
    }

    fn maintain(&self) -> Result<bool, BrokerError> {
        self.0.maintain()
    }

    fn disk_bytes(&self) -> u64 {
        self.0.storage().file_bytes()
    }
}

fn append_error(error: &BrokerError) -> AppendError {
    let reason = error.to_string();
    match error.kind() {
        ErrorKind::Retry => AppendError::Unavailable(reason),
        ErrorKind::OutcomeUnknown => AppendError::OutcomeUnknown(reason),
        ErrorKind::AbortTransaction | ErrorKind::Fenced | ErrorKind::OffsetOutOfRange | ErrorKind::Stop => {
            AppendError::Failed(reason)
        }
    }
}

/// The log holds the clicks and what the state is rebuilt from. A new one beside older state would be another cluster: the state
/// would be destroyed as not its own, and the loss would go unseen.
fn refuse_state_without_log(dir: &Path) -> anyhow::Result<()> {
    let (log, state) = (dir.join("log"), dir.join("state"));
    let lost = broker::is_new(&log) && holds_files(&state).with_context(|| format!("cannot list {}", state.display()))?;
    anyhow::ensure!(
        !lost,
        "{} is missing or empty, but {} holds counts made from it: put the log back from a backup, or delete {} too to begin anew",
        log.display(),
        state.display(),
        state.display()
    );
    Ok(())
}

/// Whether there is a file anywhere below `dir`.
fn holds_files(dir: &Path) -> std::io::Result<bool> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if !entry.file_type()?.is_dir() || holds_files(&entry.path())? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{FlagValue, Sources};
    use crate::serve::clock::SystemClock;
    use millstream::broker::Isolation;
    use millstream::record::Partition;

    #[test]
    fn a_new_log_beside_older_state_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = dir.path().join("state/clickmill/ad-clicks-store/0");
        std::fs::create_dir_all(&store).expect("created");
        refuse_state_without_log(dir.path()).expect("directories alone are no state");
        std::fs::write(store.join("CURRENT"), "").expect("written");
        let refused = refuse_state_without_log(dir.path()).expect_err("the log is gone").to_string();
        assert!(refused.contains("log is missing") && refused.contains("from a backup"), "{refused}");
        std::fs::create_dir(dir.path().join("log")).expect("created");
        std::fs::write(dir.path().join("log/CURRENT"), "").expect("written");
        refuse_state_without_log(dir.path()).expect("there is a log");
    }

    #[test]
    fn what_is_sent_on_is_kept_as_long_as_configured() {
        let dir = tempfile::tempdir().expect("a directory");
        let flags = vec![FlagValue { key: "topics.late_retention", flag: "--none", value: "1d".to_owned() }];
        let config = Config::load(&Sources { flags, ..Sources::default() }).expect("a configuration");
        let streams = StreamsConfig::new(config.engine.application_id.clone());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let broker = broker::open(dir.path(), clock, &MemoryBudget::new(64 << 20)).expect("opened");
        let log = EmbeddedLog(Arc::new(broker));
        let topics = [streams.late_topic(), streams.dead_letter_topic(), topology::closed_topic(&config)];
        for topic in &topics {
            log.0.create_topic(topic, &TopicSettings::kept_for_ever(1)).expect("created");
            let mut unit = Unit::new();
            unit.add(&TopicPartition::new(topic.clone(), Partition(0)), &Record::new(None, Some(b"old"), Timestamp(1)));
            log.0.append(unit).expect("appended");
        }
        log.keep_sent_on(&config, &streams).expect("set");
        while log.maintain().expect("kept up") {}
        let start = |topic: &Topic| {
            let partition = TopicPartition::new(topic.clone(), Partition(0));
            log.0.log_range(&partition, Isolation::ReadCommitted).expect("a range").start.0
        };
        assert_eq!(topics.each_ref().map(start), [1, 0, 0], "only late clicks were given a day");
    }
}
