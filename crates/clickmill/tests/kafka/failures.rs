//! Three to five instances of which one or two are killed, hang, are stopped, start anew, come and go, while clicks flow and every instance is
//! asked everything: complete answers are right, all others say what is missing, and in the end every count is.

use std::time::Duration;

use kafka_test_server::Cluster;

use crate::clicks::Clicks;
use crate::cluster;
use crate::fleet::Fleet;
use crate::scenario::Scenario;
use crate::size::{self, short_or_full};

/// How many instances there are at most.
const MOST: usize = 5;

/// For less than the session, and for more.
const SUSPENSIONS: [Duration; 2] = [Duration::from_millis(2_000), Duration::from_millis(6_000)];

#[test]
fn no_end_of_an_instance_makes_an_answer_wrong() {
    let mut fleet = fleet("failures", cluster::shared().bootstrap_servers(), MOST, 60 * short_or_full(1, 10));
    for _ in 0..short_or_full(1, 10) {
        (0..3).for_each(|number| kill(&mut fleet, &[number]));
        kill(&mut fleet, &[0, 1]);
        stop(&mut fleet, 1);
        restart_all(&mut fleet);
    }
    scale(&mut fleet);
    fleet.finish();
}

#[test]
fn nor_does_an_instance_that_hangs() {
    let rounds = short_or_full(1, 10);
    let mut fleet = fleet("hanging", cluster::shared().bootstrap_servers(), 3, 30 * rounds);
    for round in 0..rounds as usize {
        SUSPENSIONS.into_iter().enumerate().for_each(|(number, time)| suspend(&mut fleet, (round + number) % 3, time));
    }
    fleet.finish();
}

#[test]
fn nor_do_they_on_an_older_kafka() {
    let cluster = Cluster::start_version("3.9.1", 1);
    let rounds = short_or_full(1, 5);
    let mut fleet = fleet("failures-on-3-9", cluster.bootstrap_servers(), 3, 30 * rounds);
    for _ in 0..rounds {
        kill(&mut fleet, &[0]);
        kill(&mut fleet, &[1, 2]);
        suspend(&mut fleet, 1, SUSPENSIONS[1]);
        stop(&mut fleet, 2);
    }
    fleet.finish();
}

/// Three instances, and more that do not run yet.
fn fleet(name: &str, servers: &str, most: usize, seconds: u64) -> Fleet {
    let clicks = Clicks::mixed(size::clicks(60_000, 1_000_000), size::seed());
    let scenario = Scenario { num_standbys: 1, ..Scenario::new(name, servers, clicks) };
    let instances = (0..most).map(|number| scenario.instance(number)).collect();
    let writer = scenario.start_writing(seconds);
    Fleet::start(scenario, instances, 3, writer)
}

/// One is replaced by its copies. Of two, some partitions may have had both owner and copy: they wait.
fn kill(fleet: &mut Fleet, numbers: &[usize]) {
    fleet.round(&format!("kill -9 of {numbers:?}"), |fleet| {
        numbers.iter().for_each(|number| fleet.kill(*number));
        if let [_] = numbers {
            fleet.wait_until_taken_over();
        }
        numbers.iter().for_each(|number| fleet.begin(*number));
    });
}

fn suspend(fleet: &mut Fleet, number: usize, time: Duration) {
    fleet.round(&format!("{number} hangs for {time:?}"), |fleet| fleet.suspend(number, time));
}

fn stop(fleet: &mut Fleet, number: usize) {
    fleet.round(&format!("SIGTERM to {number}"), |fleet| {
        fleet.stop(number);
        fleet.wait_until_taken_over();
        fleet.begin(number);
    });
}

fn restart_all(fleet: &mut Fleet) {
    for number in 0..3 {
        fleet.round(&format!("rolling restart, {number}"), |fleet| {
            fleet.stop(number);
            fleet.begin(number);
        });
    }
}

/// What those who left had copies of is not copied elsewhere for a minute: it ends with one.
fn scale(fleet: &mut Fleet) {
    fleet.round("from three to one", |fleet| [2, 1].into_iter().for_each(|number| fleet.stop(number)));
    fleet.round("from one to five", |fleet| (1..MOST).for_each(|number| fleet.begin(number)));
    fleet.round("from five to one", |fleet| (1..MOST).for_each(|number| fleet.stop(number)));
}
