//! The service is killed with kill -9 at random moments while clicks come in.

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::clicks::Clicks;
use crate::scenario::{Scenario, WRITE_BUFFER_BYTES, running_tasks};
use crate::service::{Service, pause};
use crate::size::{self, short_or_full};
use crate::{cluster, counts};

/// From a start to the first click counted, about: the session of the one that was killed has to run out.
const CYCLE_SECONDS: u64 = 7;

/// A store fills one write buffer while two wait to be flushed.
const WRITE_BUFFERS: u64 = 3;

/// What a row takes in a write buffer at least: window, ad, sequence number and count.
const ROW_BYTES: u64 = 24;

#[test]
fn kills_change_no_count() {
    let kills = short_or_full(3, 30);
    let clicks = Clicks::mixed(size::clicks(100_000, 1_000_000), size::seed());
    // A start that waited for the transactions that the one before has left open would never get anywhere.
    let scenario = Scenario::new("kills", cluster::shared().bootstrap_servers(), clicks);
    let scenario = Scenario { transaction_timeout_ms: 120_000, ..scenario };
    let most_replayed = u64::from(scenario.clicks.partitions) * WRITE_BUFFERS * WRITE_BUFFER_BYTES / ROW_BYTES;
    let mut random = ChaCha8Rng::seed_from_u64(size::seed());
    let mut service = scenario.instance(0);
    let writer = scenario.start_writing(kills * CYCLE_SECONDS);
    let (mut until_counting, mut replayed) = (Vec::new(), Vec::new());
    service.start();
    for number in 0..kills {
        // Every third time in the middle of its start.
        if number % 3 == 2 {
            pause(Duration::from_millis(random.random_range(0..6_000)));
        } else {
            until_counting.push(wait_until_counting(&mut service));
            replayed.push(wait_until_restored(&mut service, &scenario));
            pause(Duration::from_millis(random.random_range(0..2_000)));
        }
        service.kill();
        service.start();
    }
    until_counting.push(wait_until_counting(&mut service));
    replayed.push(wait_until_restored(&mut service, &scenario));
    writer.finish();
    let tally = counts::check(&scenario);
    counts::check_answers(&scenario, &mut service, &tally);
    print_times(&until_counting);
    println!("changelog records replayed by a start: {replayed:?}, at most {most_replayed}");
    assert!(replayed.iter().all(|records| *records <= most_replayed), "more than was not flushed was replayed: {replayed:?}");
    assert_no_store_was_wiped(&service);
    service.stop();
}

#[test]
fn an_instance_that_was_killed_counts_on_before_its_session_has_ended() {
    let clicks = Clicks::mixed(size::clicks(40_000, 400_000), size::seed());
    let scenario = Scenario::new("static-member", cluster::shared().bootstrap_servers(), clicks);
    let scenario = Scenario { session_timeout_ms: 100_000, transaction_timeout_ms: 120_000, ..scenario };
    let kills = short_or_full(2, 10);
    let mut service = scenario.instance(0);
    let writer = scenario.start_writing(kills * CYCLE_SECONDS);
    service.start();
    wait_until_counting(&mut service);
    let restarts: Vec<_> = (0..kills)
        .map(|_| {
            service.kill();
            service.start();
            wait_until_counting(&mut service)
        })
        .collect();
    writer.finish();
    counts::check(&scenario);
    print_times(&restarts);
    assert!(restarts.iter().all(|restart| restart.as_secs() < 50), "sessions last 100 s: {restarts:?}");
    service.stop();
}

/// Waits until the process has committed clicks, and gives how long that took and the longest that the start may be at fault for.
fn wait_until_counting(service: &mut Service) -> Duration {
    let began = Instant::now();
    service.wait_until("counting", |service| consumed(service) > 0);
    began.elapsed()
}

/// Waits until every task runs, and gives how many records of the changelog that took.
fn wait_until_restored(service: &mut Service, scenario: &Scenario) -> u64 {
    service.wait_until("restored", |service| running_tasks(service) == scenario.task_count());
    metric(service, "clickmill_restore_replayed_records_total").unwrap()
}

/// Clicks that the process has read and committed.
fn consumed(service: &Service) -> u64 {
    metric(service, "clickmill_clicks_consumed_total").unwrap_or(0)
}

fn metric(service: &Service, name: &str) -> Option<u64> {
    let text = service.try_text("/metrics")?;
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn print_times(until_counting: &[Duration]) {
    let seconds: Vec<_> = until_counting.iter().map(|time| format!("{:.1}", time.as_secs_f64())).collect();
    println!("seconds from a start until clicks were counted: {}", seconds.join(" "));
}

/// A crash costs a replay, never a store.
fn assert_no_store_was_wiped(service: &Service) {
    for start in 1..=service.starts() {
        let log = service.log_of(start);
        assert!(!log.contains("rebuilt"), "start {start}:\n{log}");
    }
}
