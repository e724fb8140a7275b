//! A clicks topic, an application that counts it, and its instances.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::clicks::{self, Clicks, MINUTE_MS, Writer};
use crate::proxy::Proxy;
use crate::service::Service;
use crate::topic;

/// How soon the group misses a member, unless a scenario says otherwise.
pub(crate) const SESSION_TIMEOUT_MS: u64 = 4_000;

/// The smallest that a store may have.
pub(crate) const WRITE_BUFFER_BYTES: u64 = 1 << 20;

pub(crate) struct Scenario {
    pub(crate) servers: String,
    pub(crate) application_id: String,
    pub(crate) clicks_topic: String,
    pub(crate) clicks: Clicks,
    pub(crate) grace_ms: i64,
    pub(crate) session_timeout_ms: u64,
    pub(crate) transaction_timeout_ms: u64,
    pub(crate) num_standbys: usize,
    pub(crate) dir: TempDir,
}

impl Scenario {
    /// A topic without clicks yet, and an application of that name.
    pub(crate) fn new(name: &str, servers: &str, clicks: Clicks) -> Self {
        let clicks_topic = format!("{name}-clicks");
        // The clicks are old, and brokers delete by the record's own time.
        topic::create(servers, &clicks_topic, clicks.partitions, &[("retention.ms", "-1")]);
        let (servers, application_id) = (servers.to_owned(), name.to_owned());
        Self {
            servers,
            application_id,
            clicks_topic,
            clicks,
            grace_ms: MINUTE_MS,
            session_timeout_ms: SESSION_TIMEOUT_MS,
            transaction_timeout_ms: 10_000,
            num_standbys: 0,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// Another application on the same clicks.
    pub(crate) fn of_application(&self, application_id: &str) -> Self {
        Self {
            servers: self.servers.clone(),
            application_id: application_id.to_owned(),
            clicks_topic: self.clicks_topic.clone(),
            clicks: self.clicks.clone(),
            dir: tempfile::tempdir().unwrap(),
            ..*self
        }
    }

    /// An instance with a directory of its own, not yet running.
    pub(crate) fn instance(&self, number: usize) -> Service {
        Service::new(&self.instance_dir(number), &self.configuration())
    }

    /// An instance that the others know by the address of a proxy.
    pub(crate) fn instance_behind(&self, number: usize, proxy: &Proxy) -> Service {
        let (listen, advertise) = (proxy.leads_to(), proxy.address());
        let server = format!("[server]\npeer_listen = \"127.0.0.1:{listen}\"\nadvertise = \"{advertise}\"\n");
        Service::new(&self.instance_dir(number), &(self.configuration() + &server))
    }

    pub(crate) fn instance_dir(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("instance-{number}"))
    }

    /// Nothing depends on when a test runs: partitions wait for each other for ever. Small write buffers, so that there are flushes.
    pub(crate) fn configuration(&self) -> String {
        let Self { servers, application_id, clicks_topic, grace_ms, .. } = self;
        let Self { session_timeout_ms, transaction_timeout_ms, num_standbys, .. } = self;
        format!(
            "[engine]\napplication_id = \"{application_id}\"\nmemory = \"256MiB\"\nidle_timeout = \"off\"\nthreads = 2\n\
             num_standbys = {num_standbys}\n\
             [clicks]\ntopic = \"{clicks_topic}\"\n\
             [window]\ngrace = \"{grace_ms}ms\"\n\
             [rocksdb]\nwrite_buffer_size = \"{WRITE_BUFFER_BYTES}B\"\n\
             [kafka]\nbootstrap.servers = \"{servers}\"\nsession.timeout.ms = {session_timeout_ms}\nheartbeat.interval.ms = 500\n\
             transaction.timeout.ms = {transaction_timeout_ms}\n"
        )
    }

    pub(crate) fn write_all(&self) {
        clicks::write_all(&self.servers, &self.clicks_topic, &self.clicks);
    }

    /// Starts to write the clicks, so many that they last for about that time.
    pub(crate) fn start_writing(&self, seconds: u64) -> Writer {
        Writer::start(&self.servers, &self.clicks_topic, &self.clicks, self.clicks.count / seconds)
    }

    /// A period that has all clicks in it, `from=…&to=…`.
    pub(crate) fn ever(&self) -> String {
        let Clicks { start_ms, span_ms, .. } = self.clicks;
        format!("from={}&to={}", start_ms - 60 * MINUTE_MS, start_ms + span_ms + 60 * MINUTE_MS)
    }

    /// Tasks of the application: one for each partition of the clicks and of the counts.
    pub(crate) fn task_count(&self) -> usize {
        2 * self.clicks.partitions as usize
    }
}

/// The tasks of an instance that run.
pub(crate) fn running_tasks(service: &Service) -> usize {
    let Some(answer) = service.try_get("/readyz") else { return 0 };
    let tasks = answer.json["tasks"].as_array().cloned().unwrap_or_default();
    tasks.iter().filter(|task| task["state"] == "running").count()
}

/// The copies of an instance that lack nothing, as it says itself.
pub(crate) fn caught_up_copies(service: &Service) -> usize {
    copies_within(service, 0)
}

/// The same, for copies that may lack so many records.
pub(crate) fn copies_within(service: &Service, lag: u64) -> usize {
    let (Some(answer), Ok(id)) =
        (service.try_get("/v1/cluster"), std::fs::read_to_string(service.data_dir().join("instance-id")))
    else {
        return 0;
    };
    let instances = answer.json["instances"].as_array().cloned().unwrap_or_default();
    let own = instances.iter().filter(|instance| instance["id"] == id);
    let copies = own.flat_map(|instance| instance["standby_tasks"].as_array().cloned().unwrap_or_default());
    copies.filter(|copy| copy["lag"].as_u64().is_some_and(|lacks| lacks <= lag)).count()
}

/// How often each kind of failure of the broker was met, by the log of one start.
pub(crate) fn failures(log: &str) -> BTreeMap<String, usize> {
    let mut failures = BTreeMap::new();
    for line in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        if let (Some("the thread could not go on for now"), Some(kind)) = (line["message"].as_str(), line["kind"].as_str()) {
            *failures.entry(kind.to_owned()).or_default() += 1;
        }
    }
    failures
}
