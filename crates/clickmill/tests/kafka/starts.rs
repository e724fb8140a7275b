//! Starts that wait for a cluster: they say what they wait for, and end when they are told to.

use std::path::Path;
use std::time::{Duration, Instant};

use kafka_test_server::Cluster;

use crate::service::{Service, pause};
use crate::size::short_or_full;
use crate::{cluster, topic};

/// How soon the group misses a member that has died, unless told otherwise.
const SESSION: Duration = Duration::from_secs(10);

/// For the start itself, on a machine that is busy.
const MARGIN: Duration = Duration::from_secs(15);

fn service(dir: &Path, servers: &str, name: &str, properties: &str) -> Service {
    let clicks = format!("{name}-clicks");
    topic::create(servers, &clicks, 2, &[]);
    let configuration = format!(
        "[engine]\napplication_id = \"{name}\"\nmemory = \"256MiB\"\nthreads = 2\n[clicks]\ntopic = \"{clicks}\"\n\
         [kafka]\nbootstrap.servers = \"{servers}\"\n{properties}"
    );
    Service::new(dir, &configuration)
}

/// The coordinator lets a group that is new wait for more members.
#[test]
fn a_start_says_which_group_it_waits_for() {
    let cluster = Cluster::start_with(1, &[("group.initial.rebalance.delay.ms", "8000")]);
    let dir = tempfile::tempdir().unwrap();
    let mut service = service(dir.path(), cluster.bootstrap_servers(), "waits", "");
    service.start_and_wait();
    let log = service.log();
    assert!(log.contains("not ready yet: waits for group waits to share the partitions out"), "{log}");
    service.stop();
}

/// An instance that starts again goes on as the member that it was: nobody has to miss it first.
#[test]
fn a_start_after_a_kill_waits_for_no_session() {
    let dir = tempfile::tempdir().unwrap();
    let properties = "session.timeout.ms = 45000\n";
    let mut service = service(dir.path(), cluster::shared().bootstrap_servers(), "no-session", properties);
    service.start_and_wait();
    service.kill();
    let took = service.start_and_wait();
    println!("killed, with a session of 45 s: ready again after {took:.1?}");
    assert!(took < Duration::from_secs(30), "ready after {took:?}\n{}", service.log());
    service.stop();
}

/// After two seconds topics are being made, positions are being looked up, or the group is being joined. What decides is the session of the
/// member that has died, as long as it is unless set, and twice as long where it died while it joined.
#[test]
fn a_first_start_that_is_killed_costs_the_next_one_no_more_than_any_other_kill() {
    let servers = cluster::shared().bootstrap_servers();
    for (number, after_ms) in short_or_full(&[2_000][..], &[500, 1_000, 1_500, 2_000, 2_500, 3_000][..]).iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let mut service = service(dir.path(), servers, &format!("first-kill-{number}"), "");
        service.start();
        pause(Duration::from_millis(*after_ms));
        service.kill();
        let had_joined = service.log().contains("Clickmill is up");
        let took = service.start_and_wait();
        println!("killed {after_ms} ms after its first start (up: {had_joined}): ready again after {took:.1?}");
        assert!(took < 2 * SESSION + MARGIN, "ready after {took:?}\n{}", service.log());
        // A start that is quick has nothing to tell.
        assert!(took < Duration::from_secs(5) || service.log().contains("not ready yet: waits for "), "{}", service.log());
        service.stop();
    }
}

/// Brokers that hang before the first task runs: there is nothing to commit, and nobody to leave.
#[test]
fn a_signal_ends_it_before_its_tasks_run() {
    let cluster = Cluster::start_with(1, &[("group.initial.rebalance.delay.ms", "3000")]);
    let dir = tempfile::tempdir().unwrap();
    let mut service = service(dir.path(), cluster.bootstrap_servers(), "hangs", "");
    service.start();
    let began = Instant::now();
    while !service.log().contains("Clickmill is up") {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", service.log());
        pause(Duration::from_millis(5));
    }
    cluster.suspend(0);
    // Whoever asks a broker now waits for its answer.
    pause(Duration::from_secs(1));
    let began = Instant::now();
    service.signal("TERM");
    assert_eq!(service.wait_for_end().code(), Some(0), "{}", service.log());
    assert!(began.elapsed() < Duration::from_secs(8), "{}", service.log());
    assert!(service.log().contains("stopped before a task ran"), "{}", service.log());
    cluster.resume(0);
}
