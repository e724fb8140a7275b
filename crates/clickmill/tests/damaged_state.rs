//! State that is damaged or gone is rebuilt from the changelogs, said aloud, and never answered from.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod service;

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;
use service::{Service, clickmill, pause};

const PERIOD: &str = "from=2024-06-01T00:00:00Z&to=2024-06-01T01:00:00Z";

/// Files small enough to have several, and no cache that outlives a restart anyway.
const CONFIGURATION: &str = "[engine]\nmemory = \"256MiB\"\nidle_timeout = \"off\"\n";

struct Counted {
    service: Service,
    answers: Vec<Value>,
    dir: tempfile::TempDir,
}

/// A service that has counted some clicks and was stopped.
fn counted() -> Counted {
    let dir = tempfile::tempdir().unwrap();
    let mut service = Service::new(dir.path(), CONFIGURATION);
    service.start_and_wait();
    let fixed = ["generate", "--count", "30000", "--ads", "20000", "--start", "2024-06-01T00:00:00Z", "--span", "1h"];
    assert!(clickmill(&fixed).args(["--url", &service.url()]).output().unwrap().status.success());
    service.wait_until_counted();
    let answers = answers(&service);
    assert_eq!(answers[0]["clicks"], 30_000);
    service.stop();
    Counted { service, answers, dir }
}

/// All that the queries tell, but for what changes from one moment to the next.
fn answers(service: &Service) -> Vec<Value> {
    let paths = ["/v1/clicks?", "/v1/ads/top?limit=1000&", "/v1/ads/ad-1/clicks?", "/v1/ads/ad-777/clicks?"];
    let mut answers: Vec<Value> = paths.iter().map(|path| service.query(&format!("{path}{PERIOD}"))).collect();
    for answer in &mut answers {
        answer["completeness"]["lag_age_ms"] = Value::Null;
    }
    answers
}

impl Counted {
    /// Starts it, and gives what it said once all its answers are right again.
    fn start_and_check(&mut self) -> String {
        self.service.start_and_wait();
        self.service.wait_until_counted();
        assert_eq!(answers(&self.service), self.answers);
        let log = self.service.log();
        self.service.stop();
        log
    }

    fn store(&self, partition: u32) -> PathBuf {
        self.dir.path().join(format!("data/state/clickmill/ad-clicks-store/{partition}"))
    }
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

#[test]
fn damaged_and_lost_state_is_rebuilt() {
    let mut counted = counted();
    assert!(!counted.start_and_check().contains("rebuil"), "nothing was damaged yet");

    println!("a file cut short");
    for file in files(&counted.store(0), "sst") {
        let length = file.metadata().unwrap().len();
        OpenOptions::new().write(true).open(file).unwrap().set_len(length / 2).unwrap();
    }
    let log = counted.start_and_check();
    assert!(log.contains("rebuil") && log.contains("ad-clicks-store"), "{log}");

    println!("a file gone");
    files(&counted.store(1), "sst").iter().for_each(|file| fs::remove_file(file).unwrap());
    assert!(counted.start_and_check().contains("rebuil"));

    println!("a store of somebody else");
    fs::remove_dir_all(counted.store(3)).unwrap();
    copy(&counted.store(4), &counted.store(3));
    assert!(counted.start_and_check().contains("rebuil"));

    println!("all stores gone");
    fs::remove_dir_all(counted.dir.path().join("data/state")).unwrap();
    counted.start_and_check();
    assert!(!counted.start_and_check().contains("rebuil"), "it is whole again");
}

#[test]
fn damage_that_a_query_meets_is_noticed_and_rebuilt() {
    let mut counted = counted();
    for file in files(&counted.store(2), "sst") {
        let mut file = OpenOptions::new().write(true).open(file).unwrap();
        // Within the first block: opening the file does not read it.
        file.seek(SeekFrom::Start(50)).unwrap();
        file.write_all(&[0x5a; 64]).unwrap();
    }
    counted.service.start_and_wait();
    let top = format!("/v1/ads/top?limit=1000&{PERIOD}");
    let first = counted.service.get(&top);
    assert!(first.status == 503 || first.json["ads"] == counted.answers[1]["ads"], "a wrong answer: {}", first.json);
    counted.service.wait_until("rebuilt", |service| service.get(&top).status == 200);
    counted.service.wait_until_counted();
    pause(std::time::Duration::from_millis(500));
    assert_eq!(answers(&counted.service), counted.answers);
    assert!(counted.service.log().contains("rebuil"), "{}", counted.service.log());
    counted.service.stop();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
