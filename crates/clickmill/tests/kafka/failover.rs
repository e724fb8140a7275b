//! How long clients notice that an instance is gone: three instances with one copy of each other's counts, a million ads in a day of windows, clicks
//! coming in. `bench/failover.sh` runs it and prints the table; every answer is checked as in the tests.

use std::fmt;
use std::time::Duration;

use crate::answers::Seen;
use crate::bounds::Bounds;
use crate::clicks::{Clicks, MINUTE_MS, Writer};
use crate::cluster;
use crate::fleet::Fleet;
use crate::scenario::Scenario;
use crate::service::Service;
use crate::size::{self, setting};

const INSTANCES: usize = 3;

/// Clicks that are counted before anything fails, and clicks a second from then on.
const BEFORE: u64 = 2_000_000;
const RATE: u64 = 5_000;

/// How long a round takes, about, and all that comes before the first.
const ROUND_SECONDS: u64 = 10;
const START_SECONDS: u64 = 60;

/// What the configuration does not set.
const GRACE_MS: i64 = 15 * MINUTE_MS;

/// For how long an instance hangs.
const HANGS: Duration = Duration::from_secs(8);

#[test]
#[ignore = "bench/failover.sh runs it"]
fn how_long_clients_notice_failures() {
    let rounds = |name: &str| setting(name).unwrap_or(3);
    let (kills, hangs, restarts) = (rounds("FAILOVER_KILLS"), rounds("FAILOVER_HANGS"), rounds("FAILOVER_RESTARTS"));
    let (before, rate) = (setting("FAILOVER_CLICKS").unwrap_or(BEFORE), setting("FAILOVER_RATE").unwrap_or(RATE));
    let mut fleet = start(before, rate, START_SECONDS + (kills + hangs + 4 * restarts) * ROUND_SECONDS);
    let table = [
        Row("kill -9", each(kills, |number| kill(&mut fleet, number))),
        Row("SIGSTOP", each(hangs, |number| fleet.round(&format!("{number} hangs"), |fleet| fleet.suspend(number, HANGS)))),
        Row("SIGTERM", each(restarts, |number| stop(&mut fleet, number))),
        Row("rolling restart", each(restarts * INSTANCES as u64, |number| restart(&mut fleet, number))),
    ];
    println!("{before} clicks in a day of windows before, {rate} a second meanwhile, {INSTANCES} instances, one copy:");
    println!(
        "| failure | times | complete again, median | at worst | complete answers | no answer | none though stale was allowed |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    table.iter().for_each(|row| println!("{row}"));
    fleet.finish();
}

/// The instances, once they have counted what was there before.
fn start(before: u64, rate: u64, seconds: u64) -> Fleet {
    let day = Clicks::mixed(before + rate * seconds, size::seed());
    let clicks = Clicks { ads: 1_000_000, span_ms: 24 * 60 * MINUTE_MS, late_share: 0.0, bad_share: 0.0, ..day };
    let scenario = Scenario { grace_ms: GRACE_MS, ..Scenario::new("failover", cluster::shared().bootstrap_servers(), clicks) };
    let instances = (0..INSTANCES).map(|number| Service::new(&scenario.instance_dir(number), &configuration(&scenario)));
    let mut instances: Vec<_> = instances.collect();
    let writer = Writer::start_after(before, &scenario.servers, &scenario.clicks_topic, &scenario.clicks, rate);
    instances.iter_mut().for_each(Service::start);
    instances.iter_mut().for_each(Service::wait_until_ready);
    let total = |service: &Service| service.try_get(&format!("/v1/clicks?{}", scenario.ever()))?.json["clicks"].as_u64();
    instances[0].wait_until("up to date", |service| total(service).is_some_and(|clicks| clicks >= before));
    let bounds = Bounds::new(writer.sent(), None);
    // Copies are a moment behind while clicks come.
    Fleet::watch(scenario, instances, INSTANCES, writer, bounds).with_lag(rate / 4)
}

/// What is not about the test is as it is by default.
fn configuration(scenario: &Scenario) -> String {
    let Scenario { servers, application_id, clicks_topic, .. } = scenario;
    format!(
        "[engine]\napplication_id = \"{application_id}\"\nmemory = \"512MiB\"\nidle_timeout = \"off\"\nnum_standbys = 1\n\
         [clicks]\ntopic = \"{clicks_topic}\"\n[kafka]\nbootstrap.servers = \"{servers}\"\n"
    )
}

fn kill(fleet: &mut Fleet, number: usize) -> Seen {
    fleet.round(&format!("kill -9 of {number}"), |fleet| {
        fleet.kill(number);
        fleet.wait_until_taken_over();
        fleet.begin(number);
    })
}

fn stop(fleet: &mut Fleet, number: usize) -> Seen {
    fleet.round(&format!("SIGTERM to {number}"), |fleet| {
        fleet.stop(number);
        fleet.wait_until_taken_over();
        fleet.begin(number);
    })
}

fn restart(fleet: &mut Fleet, number: usize) -> Seen {
    fleet.round(&format!("rolling restart, {number}"), |fleet| {
        fleet.stop(number);
        fleet.begin(number);
    })
}

/// By turns of each instance.
fn each(times: u64, mut round: impl FnMut(usize) -> Seen) -> Vec<Seen> {
    (0..times).map(|number| round(number as usize % INSTANCES)).collect()
}

/// What was seen of a kind of failure, each time.
struct Row(&'static str, Vec<Seen>);

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(failure, rounds) = self;
        let mut back: Vec<_> = rounds.iter().map(Seen::back).collect();
        back.sort();
        let ms = |time: Option<&Duration>| time.map_or("-".to_owned(), |time| format!("{} ms", time.as_millis()));
        let (median, worst) = (ms(back.get(back.len() / 2)), ms(back.last()));
        let sum = |of: fn(&Seen) -> usize| rounds.iter().map(of).sum::<usize>();
        let (complete, unanswered, stale_failed) =
            (sum(|seen| seen.complete), sum(Seen::unanswered), sum(|seen| seen.stale_failed));
        write!(f, "| {failure} | {} | {median} | {worst} | {complete} | {unanswered} | {stale_failed} |", rounds.len())
    }
}
