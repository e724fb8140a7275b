//! How `clickmill serve` ends, and what it refuses to start with.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod service;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use service::{Service, pause};

#[test]
fn a_second_signal_ends_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut service = Service::new(dir.path(), "");
    service.start_and_wait();
    // A request that is under way, for which an orderly end waits.
    let mut request = TcpStream::connect(service.url().trim_start_matches("http://")).unwrap();
    request
        .write_all(b"POST /v1/clicks HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{")
        .unwrap();
    pause(Duration::from_millis(200));
    let began = Instant::now();
    service.signal("TERM");
    service.wait_until("stopping", |service| service.log().contains("stopping: no more clicks"));
    service.signal("INT");
    assert_eq!(service.wait_for_end().code(), Some(1), "{}", service.log());
    assert!(began.elapsed() < Duration::from_secs(8), "{}", service.log());
    assert!(service.log().ends_with("clickmill: SIGINT while stopping: ended at once\n"), "{}", service.log());
}

/// Unless told otherwise.
#[test]
fn there_are_no_more_threads_than_tasks() {
    // One task. Whoever asks for more threads gets them.
    for (threads, expected) in [("\"auto\"", 1), ("3", 3)] {
        let dir = tempfile::tempdir().unwrap();
        let configuration = format!("[engine]\nthreads = {threads}\n[clicks]\npartitions = 1\nkeyed_by_ad = true\n");
        let mut service = Service::new(dir.path(), &configuration);
        service.start_and_wait();
        let counting = service.counting_threads();
        assert_eq!(counting.len(), expected, "threads = {threads}: {counting:?}");
        service.stop();
    }
}

/// Opening asks brokers that take the connection and never answer, for minutes unless it is told to stop.
#[test]
fn a_signal_ends_it_while_it_opens() {
    for signal in ["TERM", "INT"] {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let servers = silent.local_addr().unwrap();
        let mut service = Service::new(dir.path(), &format!("[kafka]\nbootstrap.servers = \"{servers}\"\n"));
        service.start();
        let _connection = silent.accept().unwrap();
        let began = Instant::now();
        service.signal(signal);
        assert_eq!(service.wait_for_end().code(), Some(0), "{}", service.log());
        assert!(began.elapsed() < Duration::from_secs(8), "{}", service.log());
        assert!(service.log().contains("stopped while it opened: nothing was taken in"), "{}", service.log());
    }
}

#[test]
fn an_opening_that_takes_long_says_what_it_waits_for() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (dir, servers) = (tempfile::tempdir().unwrap(), silent.local_addr().unwrap());
    let mut service = Service::new(dir.path(), &format!("[kafka]\nbootstrap.servers = \"{servers}\"\n"));
    service.start();
    let expected = format!("not ready yet: waits for the topics of Kafka at {servers}");
    let began = Instant::now();
    while !service.log().contains(&expected) {
        assert!(began.elapsed() < Duration::from_secs(12), "{}", service.log());
        pause(Duration::from_millis(50));
    }
    service.signal("TERM");
    assert_eq!(service.wait_for_end().code(), Some(0), "{}", service.log());
}

#[test]
fn what_would_change_the_meaning_of_counts_is_refused_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let mut service = Service::new(dir.path(), "[clicks]\npartitions = 2\n");
    service.start_and_wait();
    service.stop();
    let refused = |setting: &str, value: &str| {
        let output = service.command().env(setting, value).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(!said.contains("Clickmill is up"), "{said}");
        said
    };
    let said = refused("CLICKMILL_WINDOW__SIZE", "1m");
    assert!(said.contains("window.size = 1m, but application clickmill has counted with window.size = 5m: "), "{said}");
    let said = refused("CLICKMILL_CLICKS__KEYED_BY_AD", "true");
    assert!(said.contains("has counted with clicks.keyed_by_ad = false: "), "{said}");
    // Whether its state lies here or not.
    std::fs::remove_dir_all(service.data_dir().join("state")).unwrap();
    let said = refused("CLICKMILL_WINDOW__SIZE", "1m");
    assert!(said.contains("window.size = 1m, but application clickmill has counted with window.size = 5m: "), "{said}");
    service.start_and_wait();
    service.stop();
}
