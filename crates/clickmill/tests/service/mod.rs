//! A `clickmill serve` of its own for a test: the real program, on a free port of this machine, ended by its process id.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::Agent;

/// How long a test waits for what should come soon.
const PATIENCE: Duration = Duration::from_secs(120);

/// The ports tried lie below those that the system gives to outgoing connections, so that one stays free while its service is down.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A data directory, the configuration of the service on it, and its process while there is one.
pub(crate) struct Service {
    dir: PathBuf,
    port: u16,
    agent: Agent,
    process: Option<Child>,
    starts: u32,
}

/// An answer: its status, the `Retry-After` header and its JSON.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<u64>,
    pub(crate) json: Value,
}

impl Service {
    /// A service that keeps everything under `dir`, with that configuration. It does not run yet.
    pub(crate) fn new(dir: &Path, configuration: &str) -> Self {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("clickmill.toml"), configuration).unwrap();
        let agent =
            Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(60))).proxy(None).build();
        Self { dir: dir.to_owned(), port: free_port(), agent: agent.into(), process: None, starts: 0 }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// How often it was started.
    pub(crate) fn starts(&self) -> u32 {
        self.starts
    }

    /// The command that starts it.
    pub(crate) fn command(&self) -> Command {
        let mut command = clickmill(&["serve", "--log-format", "json", "--listen", &format!("127.0.0.1:{}", self.port)]);
        command.arg("--config").arg(self.dir.join("clickmill.toml")).arg("--data-dir").arg(self.data_dir());
        command
    }

    /// Starts the process and does not wait for anything.
    pub(crate) fn start(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        self.starts += 1;
        let log = File::create(self.log_path(self.starts)).unwrap();
        self.process = Some(self.command().stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// Starts the process and waits until its tasks run. Gives how long that took.
    pub(crate) fn start_and_wait(&mut self) -> Duration {
        let began = Instant::now();
        self.start();
        self.wait_until_ready();
        began.elapsed()
    }

    pub(crate) fn wait_until_ready(&mut self) {
        self.wait_until("ready", |service| service.try_get("/readyz").is_some_and(|answer| answer.status == 200));
    }

    /// Waits until all that was taken in is counted, and nothing moves any more.
    pub(crate) fn wait_until_counted(&mut self) {
        let (asked, mut quiet_since) = (Instant::now(), None);
        self.wait_until("counted", |service| {
            // A lag that was heard before the last click came says nothing of it.
            if service.lag() != Some(0) || service.age_of_no_lag().is_none_or(|age| age >= asked.elapsed()) {
                quiet_since = None;
                return false;
            }
            quiet_since.get_or_insert_with(Instant::now).elapsed() >= Duration::from_secs(1)
        });
    }

    /// How long ago it was heard that no record is left to count, where that was heard last.
    fn age_of_no_lag(&self) -> Option<Duration> {
        let completeness = &self.try_get("/v1/clicks")?.json["completeness"];
        (completeness["max_lag"] == 0).then(|| Duration::from_millis(completeness["lag_age_ms"].as_u64().unwrap()))
    }

    /// Looks until it is so. Fails where the process ends meanwhile, or nothing has moved for long.
    pub(crate) fn wait_until(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let (mut since, mut before) = (Instant::now(), None);
        while !is_so(self) {
            if let Some(status) = self.process.as_mut().unwrap().try_wait().unwrap() {
                panic!("the service ended by itself ({status}) before it was {what}:\n{}", self.log());
            }
            let progress = self.try_get("/v1/cluster").map(|answer| answer.json.to_string());
            if progress != before {
                (since, before) = (Instant::now(), progress);
            }
            assert!(since.elapsed() < PATIENCE, "not {what}, and nothing moves:\n{}", self.log());
            pause(Duration::from_millis(20));
        }
    }

    /// Records that are not yet counted, before and behind the shuffle; none while that is not known.
    pub(crate) fn lag(&self) -> Option<u64> {
        let tasks = self.tasks()?;
        tasks.iter().map(|task| task["lag"].as_u64()).sum()
    }

    /// How many records the topic has, as far as the service runs and tells.
    pub(crate) fn records_in(&self, topic: &str) -> Option<u64> {
        let tasks = self.tasks()?;
        let of_topic = tasks.iter().filter(|task| task["topic"] == topic);
        of_topic.map(|task| Some(task["lag"].as_u64()? + task["position"].as_u64().unwrap_or(0))).sum()
    }

    fn tasks(&self) -> Option<Vec<Value>> {
        let answer = self.try_get("/v1/cluster")?;
        let active = answer.json["instances"].as_array()?.iter().filter_map(|instance| instance["active_tasks"].as_array());
        let tasks: Vec<Value> = active.chain(answer.json["unassigned"].as_array()).flatten().cloned().collect();
        (!tasks.is_empty()).then_some(tasks)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.try_get(path).unwrap_or_else(|| panic!("no answer to {path}:\n{}", self.log()))
    }

    /// The JSON of a query that must succeed.
    pub(crate) fn query(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.json);
        answer.json
    }

    /// The answer, or none where none came.
    pub(crate) fn try_get(&self, path: &str) -> Option<Answer> {
        read(self.agent.get(format!("{}{path}", self.url())).call().ok()?)
    }

    /// The text of an answer, or none where none came.
    pub(crate) fn try_text(&self, path: &str) -> Option<String> {
        self.agent.get(format!("{}{path}", self.url())).call().ok()?.body_mut().read_to_string().ok()
    }

    /// Posts lines of clicks. None where no answer came.
    pub(crate) fn post(&self, lines: &str, key: Option<&str>) -> Option<Answer> {
        let mut request = self.agent.post(format!("{}/v1/clicks", self.url())).content_type("application/x-ndjson");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        read(request.send(lines).ok()?)
    }

    /// Lets a quarantined task try again, and gives the status of the answer.
    pub(crate) fn retry(&self, task: &str) -> u16 {
        read(self.agent.post(format!("{}/v1/cluster/tasks/{task}/retry", self.url())).send("").unwrap()).unwrap().status
    }

    /// Ends the process as a crash would.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Sends a signal by its name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// The names of the threads that count.
    pub(crate) fn counting_threads(&self) -> Vec<String> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.process.as_ref().unwrap().id())).unwrap();
        // A thread may end meanwhile.
        let names = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("comm")).ok());
        let number = |name: &str| name.strip_prefix("engine-").is_some_and(|rest| rest.parse::<u32>().is_ok());
        names.map(|name| name.trim_end().to_owned()).filter(|name| number(name)).collect()
    }

    /// Waits until so many tasks are quarantined, and gives their reasons. All others run: the instance is ready.
    pub(crate) fn wait_for_quarantine(&mut self, tasks: usize) -> String {
        let quarantined = |service: &Self| service.try_get("/v1/cluster")?.json["quarantined"].as_array().cloned();
        self.wait_until("in quarantine", |service| quarantined(service).is_some_and(|found| found.len() == tasks));
        self.wait_until_ready();
        let reasons: Vec<_> = quarantined(self).unwrap().iter().map(|task| task["reason"].as_str().unwrap().to_owned()).collect();
        reasons.join("\n")
    }

    /// Waits until the process has ended by itself.
    pub(crate) fn wait_for_end(&mut self) -> ExitStatus {
        let since = Instant::now();
        let mut process = self.process.take().unwrap();
        loop {
            if let Some(status) = process.try_wait().unwrap() {
                return status;
            }
            if since.elapsed() > Duration::from_secs(30) {
                process.kill().unwrap();
                panic!("it does not end:\n{}", self.log());
            }
            pause(Duration::from_millis(10));
        }
    }

    /// Stops it in order.
    pub(crate) fn stop(&mut self) {
        self.signal("TERM");
        let status = self.wait_for_end();
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }

    /// Drains the application, of which no instance may run.
    pub(crate) fn drain(&self) {
        let mut command = clickmill(&["drain"]);
        command.arg("--config").arg(self.dir.join("clickmill.toml")).arg("--data-dir").arg(self.data_dir());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// What the process that was started last has said.
    pub(crate) fn log(&self) -> String {
        self.log_of(self.starts)
    }

    /// What the process of that start, counted from 1, has said.
    pub(crate) fn log_of(&self, start: u32) -> String {
        fs::read_to_string(self.log_path(start)).unwrap_or_default()
    }

    fn log_path(&self, start: u32) -> PathBuf {
        self.dir.join(format!("serve-{start}.log"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The program with these arguments and nothing of our environment that it would heed.
pub(crate) fn clickmill(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clickmill"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CLICKMILL_")) {
        command.env_remove(name);
    }
    command
}

/// Bytes of all files under a directory.
pub(crate) fn bytes_under(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_under(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}

/// Lets some time pass.
pub(crate) fn pause(time: Duration) {
    let since = Instant::now();
    while let Some(left) = time.checked_sub(since.elapsed()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

/// A port that nothing listens on, and that no outgoing connection is given.
pub(crate) fn free_port() -> u16 {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let first = std::process::id().wrapping_mul(37) as u16 % PORTS.len() as u16;
    loop {
        let port = PORTS.start + (first + TRIED.fetch_add(1, Ordering::Relaxed)) % PORTS.len() as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Reads an answer to its end; none where that does not come.
pub(crate) fn read(mut answer: ureq::http::Response<ureq::Body>) -> Option<Answer> {
    let retry_after = answer.headers().get("retry-after").map(|seconds| seconds.to_str().unwrap().parse().unwrap());
    let text = answer.body_mut().with_config().limit(1 << 30).read_to_string().ok()?;
    Some(Answer { status: answer.status().as_u16(), retry_after, json: serde_json::from_str(&text).unwrap_or_default() })
}
