//! The engine of this process: the broker, the stores, and the threads that count.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use millstream::broker::{Broker, BrokerError, ErrorKind};
use millstream::clock::Clock;
use millstream::query::Counts;
use millstream::record::Partition;
use millstream::runtime::{Observer, Parts, Registry, Stepped, StreamThread, StreamsConfig};
use millstream_rocksdb::memory::MemoryBudget;
use millstream_rocksdb::state::RocksStores;

use super::click_log::ClickLog;
use super::clock::SystemClock;
use super::threads::Threads;
use super::unused_state::UnusedState;
use super::{compatibility, instance, topology};
use crate::config::{Config, EngineConfig};
use crate::http::ClicksTopic;
use crate::metrics::Metrics;

/// How long a thread waits for records at most, and so how soon it sees that it is to stop.
pub(super) const LONGEST_POLL: Duration = Duration::from_millis(50);
/// How long a thread waits before it tries again what the broker or a store could not do.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// What part of the memory RocksDB gets.
const ROCKSDB_SHARE: usize = 2;
/// What part of the memory changes may take before they are committed. A commit holds them several times over: in the tasks' tables,
/// encoded for the log, in the log's write, and in the stores'.
const UNCOMMITTED_SHARE: usize = 16;
/// What part of the memory a query may take that ranks ads. There are two at a time.
const QUERY_SHARE: usize = 16;

/// What the parts of the service share.
pub(super) struct Engine<L: ClickLog> {
    pub(super) instance_id: String,
    pub(super) config: Config,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) log: L,
    pub(super) stores: Arc<RocksStores>,
    pub(super) registry: Registry,
    pub(super) counts: Counts<L::Broker>,
    pub(super) clicks_topic: ClicksTopic,
    streams: StreamsConfig,
    topology: millstream::topology::Topology,
}

impl<L: ClickLog> Engine<L> {
    /// Opens everything that is kept, and creates the topics that are missing.
    pub(super) fn open(config: Config) -> anyhow::Result<Self> {
        Self::open_with(config, false)
    }

    /// As [`Engine::open`], for threads that read no clicks and count only what is shuffled already.
    pub(super) fn open_to_drain(config: Config) -> anyhow::Result<Self> {
        // A static member would stay in the group after it has left.
        let engine = EngineConfig { static_membership: false, ..config.engine };
        Self::open_with(Config { engine, ..config }, true)
    }

    fn open_with(config: Config, drain: bool) -> anyhow::Result<Self> {
        let dir = &config.data.dir;
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create the data directory {}", dir.display()))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let memory = MemoryBudget::new(config.engine.memory as usize / ROCKSDB_SHARE);
        let log = L::open(&config, &clock, &memory)?;
        let instance_id = instance::id(dir)?;
        let state_dir: PathBuf = dir.join("state").join(&config.engine.application_id);
        let stores = Arc::new(RocksStores::new(state_dir, memory, config.rocksdb.clone())?);
        let topology = topology::ad_clicks(&config)?;
        let streams = StreamsConfig { drain, ..streams_config(&config, &instance_id) };
        let clicks_topic = log.prepare_clicks_topic(&config)?;
        end_open_transactions(&**log.broker(), &streams, thread_count(&config))?;
        compatibility::check(&config, &**log.broker(), clicks_topic.partitions)?;
        let registry = Registry::new();
        let horizon = config.window.retention;
        let (b, r, c) = (log.broker().clone(), registry.clone(), clock.clone());
        let counts = Counts::new(topology::STORE, horizon, &topology, &streams, b, r, c)?;
        // The topics are there now.
        log.keep_sent_on(&config, &streams)?;
        Ok(Self { instance_id, config, clock, log, stores, registry, counts, clicks_topic, streams, topology })
    }

    /// Starts the threads.
    pub(super) fn start(self: &Arc<Self>, metrics: &Arc<Metrics>) -> std::io::Result<Threads> {
        let mut threads = Threads::new();
        for number in 0..thread_count(&self.config) {
            let thread = self.thread(number, Arc::new(CommitTimer { metrics: metrics.clone(), began: Mutex::new(None) }));
            threads.spawn(format!("engine-{number}"), move |stop| count(thread, stop))?;
        }
        let engine = self.clone();
        threads.spawn("upkeep".to_owned(), move |stop| engine.upkeep(stop))?;
        Ok(threads)
    }

    /// The thread of that number, not yet running.
    pub(super) fn thread(&self, number: usize, observer: Arc<dyn Observer>) -> StreamThread<L::Broker> {
        let parts = Parts {
            broker: self.log.broker().clone(),
            topology: self.topology.clone(),
            config: self.streams.clone(),
            provider: self.stores.clone(),
            clock: self.clock.clone(),
            registry: self.registry.clone(),
            observer,
        };
        StreamThread::new(number, parts)
    }

    /// Whether all that is this instance's runs. Where the log is its alone, that is every task there is.
    pub(super) fn is_ready(&self) -> bool {
        if L::SHARED { self.registry.is_settled(thread_count(&self.config)) } else { self.registry.is_running(self.task_count()) }
    }

    /// How many tasks there are: one for each partition of the clicks, and of their counts where clicks are shuffled.
    fn task_count(&self) -> usize {
        let shuffled = if self.config.clicks.keyed_by_ad { 0 } else { self.counts.partitions() };
        (self.clicks_topic.partitions + shuffled) as usize
    }

    /// The partitions of the store that a task here keeps or is about to.
    fn kept_partitions(&self) -> BTreeSet<Partition> {
        let input = if self.config.clicks.keyed_by_ad {
            self.config.clicks.topic.as_str().into()
        } else {
            self.streams.repartition_topic(topology::STORE)
        };
        self.registry.tasks().into_iter().filter(|task| task.input.topic == input).map(|task| task.input.partition).collect()
    }

    fn delete_unused_state(&self, unused: &mut UnusedState) {
        // While the group is out of reach nobody says that others count, and everything here is wanted again as soon as it is back.
        if !self.registry.is_settled(thread_count(&self.config)) {
            *unused = UnusedState::default();
            return;
        }
        let (used, delay) = (self.kept_partitions(), self.config.engine.state_cleanup_delay);
        if let Err(error) = unused.delete(&self.stores, &used, self.clock.now(), delay) {
            tracing::debug!(%error, "state that is not used any more could not be deleted");
        }
    }

    /// What has to be done now and then, in bounded pieces.
    ///
    /// # Errors
    /// Where the log cannot be looked after until somebody has looked at it.
    fn upkeep(&self, stop: &AtomicBool) -> Result<(), BrokerError> {
        let mut unused = UnusedState::default();
        while !stop.load(Ordering::Relaxed) {
            if let Err(error) = self.counts.refresh_lag() {
                tracing::debug!(%error, "the lag could not be looked up");
            }
            // Before the group has a member, nobody could say that a partition is still to be read.
            while !self.registry.tasks().is_empty() {
                match self.log.maintain() {
                    Ok(true) if !stop.load(Ordering::Relaxed) => {}
                    Ok(_) => break,
                    Err(error) if error.kind() == ErrorKind::Stop => return Err(error),
                    Err(error) => {
                        tracing::warn!(%error, "the log's upkeep has to wait");
                        break;
                    }
                }
            }
            if L::SHARED {
                self.delete_unused_state(&mut unused);
            }
            thread::park_timeout(L::UPKEEP_INTERVAL);
        }
        Ok(())
    }
}

fn count<B: Broker>(mut thread: StreamThread<B>, stop: &AtomicBool) -> Result<(), millstream::runtime::StreamsError> {
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

/// Ends the transactions that a process before this one was killed in. Until they have ended, nobody is told the group's positions,
/// which are looked at before the threads start.
fn end_open_transactions<B: Broker>(broker: &B, streams: &StreamsConfig, threads: usize) -> anyhow::Result<()> {
    for number in 0..threads {
        match broker.producer(&streams.transactional_id(number)) {
            Ok(producer) => drop(producer),
            // The threads try again until they can.
            Err(error) if error.kind() == ErrorKind::Retry => {
                tracing::warn!(%error, "what a process before this one has left open cannot be ended yet");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
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
        query_bytes: config.engine.memory as usize / QUERY_SHARE,
        idle_timeout: config.engine.idle_timeout,
        ..StreamsConfig::new(config.engine.application_id.clone())
    }
}
