//! Clicks a year old: brokers delete by the records' own time and their own clock, and nothing of ours may go that way.

use std::fs;
use std::time::{Duration, Instant};

use crate::clicks::{self, Clicks};
use crate::scenario::Scenario;
use crate::service::pause;
use crate::{cluster, counts, size, topic};

const CANARY: &str = "old-clicks-canary";

#[test]
fn nothing_of_old_clicks_is_lost_to_retention() {
    // The clicks of all scenarios are older than a year.
    let clicks = Clicks::mixed(size::clicks(20_000, 500_000), size::seed());
    let servers = cluster::shared().bootstrap_servers();
    let scenario = Scenario::new("old-clicks", servers, clicks.clone());
    let mut service = scenario.instance(0);
    scenario.write_all();
    service.start_and_wait();
    let tally = counts::check(&scenario);
    service.stop();
    wait_for_a_retention_check(servers, &Clicks { count: 100, ..clicks });
    fs::remove_dir_all(service.data_dir()).unwrap();
    service.start_and_wait();
    counts::check(&scenario);
    counts::check_answers(&scenario, &mut service, &tally);
    service.stop();
}

/// Clicks just as old in a topic that keeps a week are gone after the next check.
fn wait_for_a_retention_check(servers: &str, old: &Clicks) {
    topic::create(servers, CANARY, old.partitions, &[("retention.ms", "604800000")]);
    clicks::write_all(servers, CANARY, old);
    let began = Instant::now();
    while topic::ranges(servers, CANARY).iter().any(|(start, end)| start < end) {
        assert!(began.elapsed() < Duration::from_secs(90), "the broker checks no retention");
        pause(Duration::from_millis(200));
    }
}
