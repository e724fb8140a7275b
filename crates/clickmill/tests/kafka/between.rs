//! A process dies between the commit of its transaction and the write of its store: the aim that a kill from outside cannot take.
//!
//! The test runs itself again as a process that drives the engine as the service does, with stores that abort the process when they
//! are to take what has committed. In the end the service itself goes on with what those processes have left.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use clickmill::config::{Config, Sources};
use clickmill::serve::ad_clicks;
use millstream::clock::Clock;
use millstream::record::{Partition, Timestamp};
use millstream::runtime::{Instance, Parts, Registry, StreamsConfig};
use millstream::store::{StateStore, StoreBatch, StoreError, StoreProvider, StoreSnapshot};
use millstream::task::TaskState;
use millstream_kafka::KafkaBroker;
use millstream_rocksdb::memory::MemoryBudget;
use millstream_rocksdb::state::RocksStores;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::clicks::Clicks;
use crate::scenario::Scenario;
use crate::size::{self, short_or_full};
use crate::{cluster, counts};

/// The directory of the instance, and at which write of a store the process dies.
const DIR: &str = "EXACTLY_ONCE_BETWEEN_DIR";
const WRITE: &str = "EXACTLY_ONCE_BETWEEN_WRITE";
const INSTANCE_ID: &str = "between";
const SIGABRT: i32 = 6;

#[test]
fn a_crash_between_commit_and_store_changes_no_count() {
    if let Some(dir) = std::env::var_os(DIR) {
        return die_at_a_write(Path::new(&dir), std::env::var(WRITE).unwrap().parse().unwrap());
    }
    let rounds = short_or_full(6, 100);
    let clicks = Clicks::mixed(size::clicks(60_000, 1_000_000), size::seed());
    let scenario = Scenario::new("between", cluster::shared().bootstrap_servers(), clicks);
    let scenario = Scenario { session_timeout_ms: 1_500, ..scenario };
    let mut random = ChaCha8Rng::seed_from_u64(size::seed());
    let mut service = scenario.instance(0);
    fs::create_dir_all(service.data_dir()).unwrap();
    fs::write(service.data_dir().join("instance-id"), INSTANCE_ID).unwrap();
    let writer = scenario.start_writing(rounds * 4);
    for _ in 0..rounds {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "between::a_crash_between_commit_and_store_changes_no_count", "--nocapture"])
            .env(DIR, scenario.instance_dir(0))
            .env(WRITE, random.random_range(0..20).to_string())
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(SIGABRT), "{status}");
    }
    service.start_and_wait();
    writer.finish();
    let tally = counts::check(&scenario);
    counts::check_answers(&scenario, &mut service, &tally);
    println!("{rounds} crashes between a commit and the write of a store");
    service.stop();
}

/// Counts until every task runs, and then on to the write of that number.
fn die_at_a_write(dir: &Path, write: i64) {
    let config = Config::load(&Sources { file: Some(dir.join("clickmill.toml")), ..Sources::default() }).unwrap();
    let stores = Arc::new(MortalStores { stores: stores(dir, &config), writes_left: Arc::new(AtomicI64::new(i64::MAX)) });
    let registry = Registry::new();
    let parts = Parts {
        broker: Arc::new(KafkaBroker::new(config.kafka.as_ref().unwrap().client_config().unwrap()).unwrap()),
        topology: ad_clicks(&config).unwrap(),
        config: StreamsConfig {
            instance_id: INSTANCE_ID.to_owned(),
            idle_timeout: None,
            ..StreamsConfig::new(config.engine.application_id.clone())
        },
        provider: stores.clone(),
        clock: Arc::new(SinceStart(Instant::now())),
        registry: registry.clone(),
        observer: Arc::new(()),
    };
    let mut instance = Instance::new(1, parts);
    let (began, mut is_aimed) = (Instant::now(), false);
    while began.elapsed() < Duration::from_secs(120) {
        instance.step(Duration::from_millis(20)).unwrap();
        let tasks = registry.tasks();
        if !is_aimed && !tasks.is_empty() && tasks.iter().all(|task| task.state == TaskState::Running) {
            stores.writes_left.store(write, Ordering::SeqCst);
            is_aimed = true;
        }
    }
}

fn stores(dir: &Path, config: &Config) -> RocksStores {
    let state_dir: PathBuf = dir.join("data").join("state").join(&config.engine.application_id);
    RocksStores::new(state_dir, MemoryBudget::new(128 << 20), config.rocksdb.clone()).unwrap()
}

/// The time since the start: no wall clock is needed.
struct SinceStart(Instant);

impl Clock for SinceStart {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.elapsed().as_millis() as i64)
    }
}

/// Stores whose process dies before one of their writes.
struct MortalStores {
    stores: RocksStores,
    writes_left: Arc<AtomicI64>,
}

struct MortalStore {
    store: Arc<dyn StateStore>,
    writes_left: Arc<AtomicI64>,
}

impl StoreProvider for MortalStores {
    fn open(&self, store: &str, partition: Partition) -> Result<Arc<dyn StateStore>, StoreError> {
        let store = self.stores.open(store, partition)?;
        Ok(Arc::new(MortalStore { store, writes_left: self.writes_left.clone() }))
    }

    fn partitions(&self, store: &str) -> Result<Vec<Partition>, StoreError> {
        self.stores.partitions(store)
    }

    fn destroy(&self, store: &str, partition: Partition) -> Result<(), StoreError> {
        self.stores.destroy(store, partition)
    }
}

impl StateStore for MortalStore {
    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.store.multi_get(keys)
    }

    fn write(&self, batch: &StoreBatch) -> Result<(), StoreError> {
        if self.writes_left.fetch_sub(1, Ordering::SeqCst) == 0 {
            std::process::abort();
        }
        self.store.write(batch)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.store.flush()
    }

    fn snapshot(&self) -> Box<dyn StoreSnapshot + '_> {
        self.store.snapshot()
    }
}
