//! The engine of this process: the embedded broker, the stores, and the threads that count.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use millstream::broker::{Broker, TopicSettings};
use millstream::clock::Clock;
use millstream::query::Counts;
use millstream::runtime::{Observer, Parts, Registry, Stepped, StreamThread, StreamsConfig};
use millstream_rocksdb::broker::{self, EmbeddedBroker};
use millstream_rocksdb::memory::MemoryBudget;
use millstream_rocksdb::state::RocksStores;

use super::clock::SystemClock;
use super::threads::Threads;
use super::{Misconfigured, compatibility, instance, topology};
use crate::config::{ClicksConfig, Config};
use crate::metrics::Metrics;

/// How long a thread waits for records at most, and so how soon it sees that it is to stop.
const LONGEST_POLL: Duration = Duration::from_millis(50);
/// How long a thread waits before it tries again what the broker or a store could not do.
const PAUSE: Duration = Duration::from_millis(200);
/// How often lag is looked up and the broker's own work is done.
const UPKEEP_INTERVAL: Duration = Duration::from_millis(250);

/// What part of the memory RocksDB gets.
const ROCKSDB_SHARE: usize = 2;
/// What part of the memory changes may take before they are committed. A commit holds them several times over: in the tasks' tables,
/// encoded for the log, in the log's write, and in the stores'.
const UNCOMMITTED_SHARE: usize = 16;

/// What the parts of the service share.
pub(super) struct Engine {
    pub(super) instance_id: String,
    pub(super) config: Config,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) broker: Arc<EmbeddedBroker>,
    pub(super) stores: Arc<RocksStores>,
    pub(super) registry: Registry,
    pub(super) counts: Counts<EmbeddedBroker>,
    pub(super) clicks_partitions: u32,
    streams: StreamsConfig,
    topology: millstream::topology::Topology,
}

impl Engine {
    /// Opens everything that is kept, and creates the topics that are missing.
    pub(super) fn open(config: Config) -> anyhow::Result<Self> {
        let dir = &config.data.dir;
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create the data directory {}", dir.display()))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let memory = MemoryBudget::new(config.engine.memory as usize / ROCKSDB_SHARE);
        refuse_state_without_log(dir)?;
        let broker = Arc::new(broker::open(&dir.join("log"), clock.clone(), &memory)?);
        let instance_id = instance::id(dir)?;
        let state_dir: PathBuf = dir.join("state").join(&config.engine.application_id);
        let stores = Arc::new(RocksStores::new(state_dir, memory, config.rocksdb.clone())?);
        let topology = topology::ad_clicks(&config)?;
        let streams = streams_config(&config, &instance_id);
        compatibility::check(&config, &streams, &broker, &stores)?;
        let clicks_partitions = clicks_topic(&broker, &config)?;
        let registry = Registry::new();
        let horizon = config.window.retention;
        let (b, r, c) = (broker.clone(), registry.clone(), clock.clone());
        let counts = Counts::new(topology::STORE, horizon, &topology, &streams, b, r, c)?;
        Ok(Self { instance_id, config, clock, broker, stores, registry, counts, clicks_partitions, streams, topology })
    }

    /// Starts the threads.
    pub(super) fn start(self: &Arc<Self>, metrics: &Arc<Metrics>) -> std::io::Result<Threads> {
        let mut threads = Threads::new();
        for number in 0..thread_count(&self.config) {
            let parts = Parts {
                broker: self.broker.clone(),
                topology: self.topology.clone(),
                config: self.streams.clone(),
                provider: self.stores.clone(),
                clock: self.clock.clone(),
                registry: self.registry.clone(),
                observer: Arc::new(CommitTimer { metrics: metrics.clone(), began: Mutex::new(None) }),
            };
            let thread = StreamThread::new(number, parts);
            threads.spawn(format!("engine-{number}"), move |stop| count(thread, stop))?;
        }
        let engine = self.clone();
        threads.spawn("upkeep".to_owned(), move |stop| {
            engine.upkeep(stop);
            Ok::<_, Infallible>(())
        })?;
        Ok(threads)
    }

    /// How many tasks there are: one for each partition of the clicks, and of their counts where clicks are shuffled.
    pub(super) fn task_count(&self) -> usize {
        let shuffled = if self.config.clicks.keyed_by_ad { 0 } else { self.counts.partitions() };
        (self.clicks_partitions + shuffled) as usize
    }

    /// What has to be done now and then, in bounded pieces.
    fn upkeep(&self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            if let Err(error) = self.counts.refresh_lag() {
                tracing::debug!(%error, "the lag could not be looked up");
            }
            loop {
                match self.broker.maintain() {
                    Ok(true) if !stop.load(Ordering::Relaxed) => {}
                    Ok(_) => break,
                    Err(error) => {
                        tracing::warn!(%error, "the log's upkeep has to wait");
                        break;
                    }
                }
            }
            thread::park_timeout(UPKEEP_INTERVAL);
        }
    }
}

fn count(mut thread: StreamThread<EmbeddedBroker>, stop: &AtomicBool) -> Result<(), millstream::runtime::StreamsError> {
    while !stop.load(Ordering::Relaxed) {
        if thread.step(LONGEST_POLL)? == Stepped::Troubled {
            thread::park_timeout(PAUSE);
        }
    }
    thread.close()
}

/// Measures how long commits take.
struct CommitTimer {
    metrics: Arc<Metrics>,
    began: Mutex<Option<Instant>>,
}

impl Observer for CommitTimer {
    fn commit_begins(&self) {
        *self.began.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn commit_ends(&self, committed: bool) {
        let began = self.began.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(began) = began.filter(|_| committed) {
            self.metrics.commit_took(began.elapsed());
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

fn thread_count(config: &Config) -> usize {
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    config.engine.threads.map_or_else(cores, |threads| threads.get() as usize)
}

fn streams_config(config: &Config, instance_id: &str) -> StreamsConfig {
    StreamsConfig {
        instance_id: instance_id.to_owned(),
        commit_interval: config.engine.commit_interval,
        commit_interval_backlog: config.engine.commit_interval_backlog,
        uncommitted_bytes: config.engine.memory as usize / UNCOMMITTED_SHARE / thread_count(config),
        idle_timeout: config.engine.idle_timeout,
        ..StreamsConfig::new(config.engine.application_id.clone())
    }
}

/// Creates the clicks topic where there is none, else gives it the retention of the configuration and lets it grow where that
/// says more partitions than it has. Gives the number that it has then.
fn clicks_topic(broker: &EmbeddedBroker, config: &Config) -> anyhow::Result<u32> {
    let ClicksConfig { topic, partitions, keyed_by_ad, retention, retention_bytes, .. } = &config.clicks;
    let Some(found) = broker.describe_topic(topic)?.map(|found| found.partitions) else {
        let settings =
            TopicSettings { partitions: *partitions, compacted: false, retention: *retention, retention_bytes: *retention_bytes };
        broker.create_topic(topic, &settings)?;
        return Ok(*partitions);
    };
    broker.set_retention(topic, *retention, *retention_bytes)?;
    if found < *partitions {
        if *keyed_by_ad {
            return Err(Misconfigured(format!(
                "topic {topic} has {found} partitions, the configuration says {partitions}: a topic that is keyed by ad must keep its \
                 number of partitions; set clicks.partitions = {found}"
            ))
            .into());
        }
        tracing::info!("topic {topic} grows from {found} to {partitions} partitions");
        broker.add_partitions(topic, *partitions)?;
        return Ok(*partitions);
    }
    if found > *partitions {
        tracing::warn!("topic {topic} has {found} partitions, the configuration says {partitions}: a topic cannot shrink");
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
