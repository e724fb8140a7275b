//! Who counts, and what a run of it costs.

use std::fmt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kafka_test_server::Cluster;
use millstream::broker::{Broker, Isolation};
use millstream::record::{Partition, TopicPartition};
use millstream_kafka::{KafkaBroker, KafkaConfig};

use crate::java;
use crate::load::Load;
use crate::process::{peak_memory, processor_time, stop};

const THREADS: &str = "2";
const STORE: &str = "ad-clicks-store";

/// How often it is looked whether all is counted.
const LOOK: Duration = Duration::from_millis(200);
/// How long a run may take.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    Clickmill,
    KafkaStreams,
}

/// One count of a topic from its beginning.
pub(crate) struct Run<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) load: &'a Load,
    pub(crate) interval: Duration,
    pub(crate) round: usize,
}

/// What a run has cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) clicks: u64,
    pub(crate) passed: Duration,
    pub(crate) process: Duration,
    pub(crate) broker: Duration,
    pub(crate) peak_memory: u64,
    pub(crate) repartition_bytes: u64,
    pub(crate) changelog_bytes: u64,
}

impl Contender {
    pub(crate) const ALL: [Self; 2] = [Self::Clickmill, Self::KafkaStreams];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Clickmill => "Clickmill",
            Self::KafkaStreams => "Kafka Streams",
        }
    }

    /// Counts the topic with an application of its own, until all of it is committed.
    pub(crate) fn count(self, run: &Run<'_>) -> Measured {
        let Run { cluster, load, interval, round } = run;
        let application = format!("{self:?}-{}-{}-{round}", load.topic, interval.as_millis()).to_lowercase();
        let dir = tempfile::tempdir().unwrap();
        let (began, server) = (Instant::now(), cluster.process_id(0));
        let broker_before = processor_time(server);
        let mut process = self.start(run, &application, dir.path());
        wait_until_counted(cluster, load, &application, &mut process);
        let measured = Measured {
            clicks: load.clicks,
            passed: began.elapsed(),
            process: processor_time(process.id()),
            broker: processor_time(server) - broker_before,
            peak_memory: peak_memory(process.id()),
            repartition_bytes: topic_bytes(cluster, &format!("{application}-{STORE}-repartition")),
            changelog_bytes: topic_bytes(cluster, &format!("{application}-{STORE}-changelog")),
        };
        stop(process);
        measured
    }

    fn start(self, run: &Run<'_>, application: &str, dir: &Path) -> Child {
        let interval_ms = run.interval.as_millis().to_string();
        let (servers, topic) = (run.cluster.bootstrap_servers(), run.load.topic);
        let mut command = match self {
            Self::Clickmill => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_clickmill"));
                command
                    .args(["serve", "--kafka", servers, "--topic", topic, "--application-id", application])
                    .args(["--listen", "127.0.0.1:0", "--log-level", "warn", "--data-dir"])
                    .arg(dir)
                    .env("CLICKMILL_ENGINE__THREADS", THREADS)
                    .env("CLICKMILL_ENGINE__COMMIT_INTERVAL", format!("{interval_ms}ms"))
                    .env("CLICKMILL_ENGINE__COMMIT_INTERVAL_BACKLOG", format!("{interval_ms}ms"))
                    .env("CLICKMILL_ENGINE__IDLE_TIMEOUT", "off")
                    .env("CLICKMILL_WINDOW__GRACE", "1h");
                command
            }
            Self::KafkaStreams => {
                let mut command = java::class("ClickCounts");
                command
                    .args(["--bootstrap", servers, "--topic", topic, "--application-id", application])
                    .args(["--threads", THREADS, "--commit-ms", &interval_ms, "--grace-ms", "3600000"])
                    // By default old clicks' counts would be deleted with the broker's next look.
                    .args(["--property", "windowstore.changelog.additional.retention.ms=31536000000000", "--state-dir"])
                    .arg(dir);
                command
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it can be started")
    }
}

/// Waits until the group has committed the clicks to their end and then, of what they became, all but the last transactions' markers.
fn wait_until_counted(cluster: &Cluster, load: &Load, application: &str, process: &mut Child) {
    let broker = KafkaBroker::new(KafkaConfig::new(cluster.bootstrap_servers(), []).unwrap()).unwrap();
    let repartition = format!("{application}-{STORE}-repartition");
    let began = Instant::now();
    while !(is_read(&broker, application, load.topic, 0) && is_read(&broker, application, &repartition, 1)) {
        assert!(process.try_wait().expect("the process is ours").is_none(), "{application} has ended by itself");
        assert!(began.elapsed() < PATIENCE, "{application} has not counted in time");
        std::thread::park_timeout(LOOK);
    }
}

fn is_read(broker: &KafkaBroker, group: &str, topic: &str, markers: i64) -> bool {
    let Ok(Some(described)) = broker.describe_topic(topic) else { return false };
    let partitions: Vec<_> = (0..described.partitions).map(|p| TopicPartition::new(topic, Partition(p))).collect();
    let Ok(logs) = broker.log_ranges(&partitions, Isolation::ReadUncommitted) else { return false };
    let Ok(committed) = broker.committed(group, &partitions) else { return false };
    logs.iter()
        .zip(committed)
        .all(|(log, committed)| committed.is_some_and(|committed| committed.offset.0 + markers >= log.end.0))
}

/// What was written to a topic, as the files hold it.
fn topic_bytes(cluster: &Cluster, topic: &str) -> u64 {
    let logs = std::fs::read_dir(cluster.data_dir(0)).unwrap().map(|entry| entry.unwrap().path());
    let is_its = |dir: &std::path::PathBuf| {
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.strip_prefix(topic).and_then(|rest| rest.strip_prefix('-')).is_some_and(|partition| partition.parse::<u32>().is_ok())
    };
    let files = logs.filter(is_its).flat_map(|dir| std::fs::read_dir(dir).unwrap());
    let segments =
        files.map(|file| file.unwrap().path()).filter(|file| file.extension().is_some_and(|extension| extension == "log"));
    segments.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = |time: Duration| time.as_secs_f64() * 1e6 / self.clicks as f64;
        write!(
            f,
            "{:.1} s, {:.2} us of processor a click and {:.2} of the broker's, peak {} MiB",
            self.passed.as_secs_f64(),
            micros(self.process),
            micros(self.broker),
            self.peak_memory >> 20
        )
    }
}
