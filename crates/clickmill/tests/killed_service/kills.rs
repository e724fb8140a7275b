//! The load, and the kills that it has to get through.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::expected::CLICKS;
use super::file::ClicksFile;
use super::service::{Service, clickmill, pause};

/// What happened.
pub(crate) struct Story {
    pub(crate) loads_killed: u32,
    until_ready: Vec<Duration>,
}

/// Loads the file while the service is killed so often: at random points of the load, and every third time soon after its start. Every
/// other kill the load is killed too and started again. Ends when the load has ended.
pub(crate) fn load_under_kills(service: &mut Service, file: &ClicksFile, already_there: u64, kills: usize, seed: u64) -> Story {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut points: Vec<u64> =
        (0..kills).map(|_| already_there + rng.random_range(file.clicks() / 50..file.clicks() * 9 / 10)).collect();
    points.sort_unstable();
    let mut story = Story { loads_killed: 0, until_ready: Vec::new() };
    service.start();
    let mut started = Instant::now();
    let mut load = start_load(service, file);
    for (number, point) in points.into_iter().enumerate() {
        if number % 3 == 2 {
            pause(Duration::from_millis(rng.random_range(0..1_500)));
        } else {
            service.wait_until_ready();
            story.until_ready.push(started.elapsed());
            service
                .wait_until("so far in its load", |service| service.records_in(CLICKS).is_some_and(|records| records >= point));
            pause(Duration::from_micros(rng.random_range(0..50 * file.clicks() / 1_000)));
        }
        assert!(load.try_wait().unwrap().is_none(), "the load ended before kill {number}");
        service.kill();
        if number % 2 == 1 {
            load.kill().unwrap();
            load.wait().unwrap();
            story.loads_killed += 1;
            load = start_load(service, file);
        }
        service.start();
        started = Instant::now();
    }
    service.wait_until("all loaded", |_| load.try_wait().unwrap().is_some());
    let output = load.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    println!("{}", said.lines().next().unwrap());
    story
}

fn start_load(service: &Service, file: &ClicksFile) -> Child {
    // So many blocks that a kill comes between two of them, or in the middle of one, whatever the size of the file.
    let block_size = format!("{}KiB", file.bytes() / 3_000 / 1024);
    let mut command = clickmill(&["load", file.path(), "--url", &service.url(), "--block-size", &block_size]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

impl Story {
    /// What a crash costs: until the tasks run again, and the changelog records that are read again.
    pub(crate) fn print(&self, service: &Service) {
        let until_ready: Vec<_> = self.until_ready.iter().map(|time| format!("{:.1}", time.as_secs_f64())).collect();
        println!("seconds from a start until it was ready: {}", until_ready.join(" "));
        let replayed: Vec<_> = (1..=service.starts()).map(|start| records_restored(&service.log_of(start)).to_string()).collect();
        println!("changelog records read again at each start: {}", replayed.join(" "));
    }
}

fn records_restored(log: &str) -> u64 {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let restored = lines.filter(|line| line["message"] == "the store is restored");
    restored.map(|line| line["records"].as_u64().unwrap()).sum()
}
