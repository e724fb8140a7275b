//! The service is killed with kill -9 at random moments while clicks come in.

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::clicks::Clicks;
use crate::scenario::Scenario;
use crate::service::{Service, pause};
use crate::size::{self, short_or_full};
use crate::{cluster, counts};

/// From a start to the first click counted, about: the session of the one that was killed has to run out.
const CYCLE_SECONDS: u64 = 7;

#[test]
fn kills_change_no_count() {
    let kills = short_or_full(3, 30);
    let clicks = Clicks::mixed(size::clicks(100_000, 1_000_000), size::seed());
    // A start that waited for the transactions that the one before has left open would never get anywhere.
    let scenario =
        Scenario { transaction_timeout_ms: 120_000, ..Scenario::new("kills", cluster::shared().bootstrap_servers(), clicks) };
    let mut random = ChaCha8Rng::seed_from_u64(size::seed());
    let mut service = scenario.instance(0);
    let writer = scenario.start_writing(kills * CYCLE_SECONDS);
    let mut until_counting = Vec::new();
    service.start();
    for number in 0..kills {
        // Every third time in the middle of its start.
        if number % 3 == 2 {
            pause(Duration::from_millis(random.random_range(0..6_000)));
        } else {
            until_counting.push(wait_until_counting(&mut service));
            pause(Duration::from_millis(random.random_range(0..2_000)));
        }
        service.kill();
        service.start();
    }
    until_counting.push(wait_until_counting(&mut service));
    writer.finish();
    let tally = counts::check(&scenario);
    counts::check_answers(&scenario, &mut service, &tally);
    print_costs(&service, &until_counting);
    assert_no_store_was_wiped(&service);
    service.stop();
}

#[test]
fn a_static_member_that_was_killed_counts_on_before_its_session_has_ended() {
    let clicks = Clicks::mixed(size::clicks(40_000, 400_000), size::seed());
    let scenario = Scenario::new("static-member", cluster::shared().bootstrap_servers(), clicks);
    let scenario = Scenario { static_membership: true, session_timeout_ms: 100_000, transaction_timeout_ms: 120_000, ..scenario };
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
    print_costs(&service, &restarts);
    assert!(restarts.iter().all(|restart| restart.as_secs() < 50), "sessions last 100 s: {restarts:?}");
    service.stop();
}

/// Waits until the process has committed clicks, and gives how long that took and the longest that the start may be at fault for.
fn wait_until_counting(service: &mut Service) -> Duration {
    let began = Instant::now();
    service.wait_until("counting", |service| consumed(service) > 0);
    began.elapsed()
}

/// Clicks that the process has read and committed, by its own metrics.
fn consumed(service: &Service) -> u64 {
    let text = service.try_text("/metrics").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("clickmill_clicks_consumed_total "));
    line.map_or(0, |number| number.parse().unwrap())
}

fn print_costs(service: &Service, until_counting: &[Duration]) {
    let seconds: Vec<_> = until_counting.iter().map(|time| format!("{:.1}", time.as_secs_f64())).collect();
    println!("seconds from a start until clicks were counted: {}", seconds.join(" "));
    let replayed: Vec<_> = (1..=service.starts()).map(|start| records_restored(&service.log_of(start)).to_string()).collect();
    println!("changelog records read again at each start: {}", replayed.join(" "));
}

fn records_restored(log: &str) -> u64 {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let restored = lines.filter(|line| line["message"] == "the store is restored");
    restored.map(|line| line["records"].as_u64().unwrap()).sum()
}

/// A crash costs a replay, never a store.
fn assert_no_store_was_wiped(service: &Service) {
    for start in 1..=service.starts() {
        let log = service.log_of(start);
        assert!(!log.contains("rebuilt"), "start {start}:\n{log}");
    }
}
