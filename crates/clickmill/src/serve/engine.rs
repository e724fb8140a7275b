//! The engine of this process: the broker, the stores, and the threads that count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use millstream::broker::{Broker, BrokerError, ErrorKind};
use millstream::clock::Clock;
use millstream::query::{CountQueries, Counts};
use millstream::record::{Partition, Topic, TopicPartition};
use millstream::runtime::{
    Instance, Member, Observer, Parts, Registry, Stepped, StreamThread, StreamsConfig, StreamsError, Workers,
};
use millstream::task::{TaskId, TaskState};
use millstream_rocksdb::durable;
use millstream_rocksdb::memory::MemoryBudget;
use millstream_rocksdb::state::RocksStores;

use super::click_log::ClickLog;
use super::clock::SystemClock;
use super::instance::LastLife;
use super::lease::GroupLease;
use super::threads::Threads;
use super::unused_state::UnusedState;
use super::waiting::Opening;
use super::{compatibility, instance, topology, twins};
use crate::config::Config;
use crate::http::{ClicksTopic, KnownTask};
use crate::metrics::Metrics;

/// How long a thread waits for records at most, and so how soon it sees that it is to stop.
pub(super) const LONGEST_POLL: Duration = Duration::from_millis(50);
/// How long what is done now and then waits at most until it looks whether something is due.
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// How long a thread waits before it tries again what the broker or a store could not do.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// What part of the memory RocksDB gets.
const ROCKSDB_SHARE: usize = 2;
/// What part of the memory changes may take before they are committed. A commit holds them several times over: in the tasks' tables,
/// encoded for the log, in the log's write, and in the stores'.
const UNCOMMITTED_SHARE: usize = 16;
/// What part of the memory queries may take that rank ads, all of them together.
const QUERIES_SHARE: usize = 8;
/// How many of them there are at a time: for clients, and on Kafka as many for other instances.
const QUERIES_AT_ONCE: usize = 2;

/// What the parts of the service share.
pub(super) struct Engine<L: ClickLog> {
    pub(super) instance_id: String,
    pub(super) config: Config,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) log: L,
    pub(super) stores: Arc<RocksStores>,
    pub(super) registry: Registry,
    pub(super) counts: Counts<L::Broker>,
    pub(super) lease: Arc<GroupLease>,
    clicks_topic: Mutex<ClicksTopic>,
    streams: StreamsConfig,
    topology: millstream::topology::Topology,
}

impl<L: ClickLog> Engine<L> {
    /// Opens everything that is kept, and creates the topics that are missing.
    pub(super) fn open(config: Config, step: &Opening) -> anyhow::Result<Self> {
        Self::open_with(config, false, step)
    }

    /// As [`Engine::open`], for threads that read no clicks and count only what is shuffled already.
    pub(super) fn open_to_drain(config: Config) -> anyhow::Result<Self> {
        Self::open_with(config, true, &Opening::default())
    }

    fn open_with(config: Config, drain: bool, step: &Opening) -> anyhow::Result<Self> {
        let dir = &config.data.dir;
        step.waits_for(format!("the files in {}", dir.display()));
        durable::create_dir_all(dir).with_context(|| format!("cannot create the data directory {}", dir.display()))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let memory = MemoryBudget::new(config.engine.memory as usize / ROCKSDB_SHARE);
        let log = L::open(&config, &clock, &memory)?;
        let instance_id = instance::id(dir)?;
        let state_dir: PathBuf = dir.join("state").join(&config.engine.application_id);
        let stores = Arc::new(RocksStores::new(state_dir, memory, config.rocksdb.clone())?);
        let topology = topology::ad_clicks(&config)?;
        let last = if L::SHARED { instance::last_life(dir, &instance_id) } else { None };
        step.waits_for(format!("the topics of {}", L::place(&config)));
        let clicks_topic = log.prepare_clicks_topic(&config)?;
        if L::SHARED {
            step.waits_for("an answer of whoever else may be this instance");
            twins::refuse(&config, &instance_id, last.as_ref(), &log.instances_named(&config, &instance_id))?;
        }
        let member = last.map(|last| last.member);
        let streams = StreamsConfig { drain, member, ..streams_config(&config, &instance_id) };
        step.waits_for("transactions that a process before this one has left open to end");
        end_open_transactions(&**log.broker(), &streams, thread_count(&config))?;
        step.waits_for(format!("what application {} has committed, and its topics", config.engine.application_id));
        compatibility::check(&config, &**log.broker(), clicks_topic.partitions)?;
        let registry = Registry::new();
        let horizon = config.window.retention;
        let (b, r, c) = (log.broker().clone(), registry.clone(), clock.clone());
        let lease = Arc::new(GroupLease::new(registry.clone(), &instance_id));
        let counts = Counts::new(topology::STORE, horizon, &topology, &streams, b, r, c)?.with_lease(lease.clone());
        // The topics are there now.
        log.keep_sent_on(&config, &streams)?;
        Ok(Self {
            instance_id,
            config,
            clock,
            log,
            stores,
            registry,
            counts,
            lease,
            clicks_topic: Mutex::new(clicks_topic),
            streams,
            topology,
        })
    }

    /// Starts the threads: for the parts of the instance, one each, and for the upkeep of the log.
    pub(super) fn start(self: &Arc<Self>, metrics: &Arc<Metrics>) -> std::io::Result<Threads> {
        let (dir, instance) = (self.config.data.dir.clone(), self.instance_id.clone());
        let endpoint = self.streams.endpoint.clone();
        let timer = EngineObserver { metrics: metrics.clone(), began: Mutex::default(), dir, instance, endpoint };
        let Workers { member, threads: counting, updaters, mut upkeep } = self.instance(Arc::new(timer)).into_workers();
        let mut threads = Threads::new();
        for (number, thread) in counting.into_iter().enumerate() {
            threads.spawn(format!("engine-{number}"), move |stop| count(thread, stop))?;
        }
        for (number, mut updater) in updaters.into_iter().enumerate() {
            threads.spawn(format!("updater-{number}"), move |stop| run(stop, || updater.step(LONGEST_POLL)))?;
        }
        threads.spawn("engine-upkeep".to_owned(), move |stop| run(stop, || Ok(upkeep.step(LONGEST_WAIT))))?;
        threads.spawn("member".to_owned(), move |stop| be_member(member, stop))?;
        let engine = self.clone();
        threads.spawn("log-upkeep".to_owned(), move |stop| engine.upkeep(stop))?;
        Ok(threads)
    }

    /// The instance, not yet running.
    pub(super) fn instance(&self, observer: Arc<dyn Observer>) -> Instance<L::Broker> {
        let parts = Parts {
            broker: self.log.broker().clone(),
            topology: self.topology.clone(),
            config: self.streams.clone(),
            provider: self.stores.clone(),
            clock: self.clock.clone(),
            registry: self.registry.clone(),
            observer,
        };
        Instance::new(self.thread_count(), parts)
    }

    /// How many threads count: no more than there are tasks, unless told otherwise.
    fn thread_count(&self) -> usize {
        match self.config.engine.threads {
            Some(_) => thread_count(&self.config),
            None => thread_count(&self.config).min(self.task_count()).max(1),
        }
    }

    /// Whether all that is this instance's runs. Where the log is its alone, that is every task there is.
    pub(super) fn is_ready(&self) -> bool {
        if L::SHARED { self.registry.is_settled() } else { self.registry.is_running(self.task_count()) }
    }

    /// Whether a task here may hold what is not committed.
    pub(super) fn has_running_tasks(&self) -> bool {
        self.registry.tasks().iter().any(|task| matches!(task.state, TaskState::Running | TaskState::Suspended))
    }

    /// How many tasks there are: one for each partition of the clicks, and of their counts where clicks are shuffled.
    fn task_count(&self) -> usize {
        let shuffled = if self.config.clicks.keyed_by_ad { 0 } else { self.counts.partitions() };
        (self.clicks_topic().partitions + shuffled) as usize
    }

    /// Which life of the instance this is.
    pub(super) fn incarnation(&self) -> u64 {
        self.streams.incarnation
    }

    /// All tasks that there are, whoever holds them.
    pub(super) fn all_tasks(&self) -> Vec<KnownTask> {
        let (clicks, counted): (Topic, _) = (self.config.clicks.topic.as_str().into(), self.counts.input_topic());
        let source = [(clicks, self.clicks_topic().partitions)];
        let shuffled = (!self.config.clicks.keyed_by_ad).then(|| (counted, self.counts.partitions()));
        let of_topic = |(subtopology, (topic, partitions)): (u32, (Topic, u32))| {
            (0..partitions).map(Partition).map(move |partition| (TaskId { subtopology, partition }, topic.clone()))
        };
        let ids = (0..).zip(source.into_iter().chain(shuffled)).flat_map(of_topic);
        let known = ids.map(|(id, topic)| {
            let input = TopicPartition::new(topic, id.partition);
            KnownTask { lag: self.counts.records_behind(&input, None), id, input }
        });
        known.collect()
    }

    /// What has to be known of the clicks topic to write to it, as far as it has grown by now.
    pub(super) fn clicks_topic(&self) -> ClicksTopic {
        *self.clicks_topic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets clicks go to partitions that their topic has got. Where its key is the ad id, each ad stays in the partition that it has
    /// always been in.
    fn use_new_partitions(&self) {
        let (topic, before) = (&self.config.clicks.topic, self.clicks_topic().partitions);
        let has_grown = self.counts.source_partitions().is_some_and(|found| found > before);
        if self.config.clicks.keyed_by_ad || !has_grown {
            return;
        }
        match self.log.partitions_to_append_to(topic) {
            Ok(found) if found > before => {
                self.clicks_topic.lock().unwrap_or_else(PoisonError::into_inner).partitions = found;
                tracing::info!(
                    "topic {topic} has grown from {before} to {found} partitions: clicks go to all of them from now on"
                );
            }
            Ok(found) => tracing::debug!(topic, before, found, "the intake does not know the new partitions yet"),
            Err(error) => tracing::debug!(%error, "new partitions of the clicks topic could not be looked up"),
        }
    }

    /// The partitions of the store that a task here keeps or is about to.
    fn kept_partitions(&self) -> BTreeSet<Partition> {
        let input = if self.config.clicks.keyed_by_ad {
            self.config.clicks.topic.as_str().into()
        } else {
            self.streams.repartition_topic(topology::STORE)
        };
        self.registry.tasks().into_iter().filter(|task| task.input().topic == input).map(|task| task.input().partition).collect()
    }

    fn delete_unused_state(&self, unused: &mut UnusedState) {
        // While the group is out of reach nobody says that others count, and everything here is wanted again as soon as it is back.
        if !self.registry.is_settled() {
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
            self.use_new_partitions();
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

fn count<B: Broker>(mut thread: StreamThread<B>, stop: &AtomicBool) -> Result<(), StreamsError> {
    run(stop, || thread.step(LONGEST_POLL))?;
    thread.close()
}

/// Is a member of the group until all threads have committed for the last time.
fn be_member<B: Broker>(mut member: Member<B>, stop: &AtomicBool) -> Result<(), StreamsError> {
    run(stop, || member.step(LONGEST_POLL))?;
    member.close();
    Ok(())
}

/// Takes steps until told to stop.
fn run(stop: &AtomicBool, mut step: impl FnMut() -> Result<Stepped, StreamsError>) -> Result<(), StreamsError> {
    while !stop.load(Ordering::Relaxed) {
        if step()? == Stepped::Troubled {
            thread::park_timeout(PAUSE);
        }
    }
    Ok(())
}

/// Measures how long commits take, and remembers what the group calls this instance.
struct EngineObserver {
    metrics: Arc<Metrics>,
    /// When the commit of each thread began that is under way.
    began: Mutex<BTreeMap<usize, Instant>>,
    dir: PathBuf,
    instance: String,
    /// Where others reach this instance.
    endpoint: Option<String>,
}

impl Observer for EngineObserver {
    fn joined(&self, member: &str) {
        let life = LastLife { member: member.to_owned(), endpoint: self.endpoint.clone() };
        if let Err(error) = instance::remember_life(&self.dir, &self.instance, &life) {
            tracing::warn!(%error, "what the group calls this instance could not be kept: after a kill it waits until the group has missed it");
        }
    }

    fn commit_begins(&self, thread: usize) {
        self.began.lock().unwrap_or_else(PoisonError::into_inner).insert(thread, Instant::now());
    }

    fn commit_ends(&self, thread: usize, committed: bool) {
        let began = self.began.lock().unwrap_or_else(PoisonError::into_inner).remove(&thread);
        if let Some(began) = began.filter(|_| committed) {
            self.metrics.commit_took(began.elapsed());
        }
    }
}

/// Ends the transactions that a process before this one was killed in. Until they have ended, nobody is told the group's positions,
/// which are looked at before the threads start.
fn end_open_transactions<B: Broker>(broker: &B, streams: &StreamsConfig, threads: usize) -> anyhow::Result<()> {
    // Number 0 is what partitions join with.
    for number in 0..=threads {
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

/// How many threads count at most.
fn thread_count(config: &Config) -> usize {
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    config.engine.threads.map_or_else(cores, |threads| threads.get() as usize)
}

fn queries_at_once(config: &Config) -> usize {
    if config.kafka.is_some() { 2 * QUERIES_AT_ONCE } else { QUERIES_AT_ONCE }
}

fn streams_config(config: &Config, instance_id: &str) -> StreamsConfig {
    StreamsConfig {
        instance_id: instance_id.to_owned(),
        incarnation: instance::incarnation(),
        num_standbys: config.engine.num_standbys,
        rack: config.engine.rack.clone().or_else(|| config.kafka.as_ref()?.properties.get("client.rack").cloned()),
        commit_interval: config.engine.commit_interval,
        commit_interval_backlog: config.engine.commit_interval_backlog,
        uncommitted_bytes: config.engine.memory as usize / UNCOMMITTED_SHARE / thread_count(config),
        query_bytes: config.engine.memory as usize / QUERIES_SHARE / queries_at_once(config),
        idle_timeout: config.engine.idle_timeout,
        endpoint: config.kafka.as_ref().and_then(|_| config.server.advertise.clone()),
        ..StreamsConfig::new(config.engine.application_id.clone())
    }
}
