//! Instances that cannot reach each other while all reach Kafka, one that cannot reach Kafka while it reaches the others, and a Kafka that is away for
//! all: what is answered meanwhile is right, or says what is missing.

use std::time::Duration;

use kafka_test_server::Cluster;

use crate::clicks::Clicks;
use crate::cluster;
use crate::fleet::Fleet;
use crate::proxy::Proxy;
use crate::scenario::Scenario;
use crate::service::{Service, free_port, pause};
use crate::size::{self, short_or_full};

const INSTANCES: usize = 3;

/// The last version that may be without any leader: see `broker_killed`.
const KEEPS_COMMITS: &str = "4.2.0";

/// For how long something is cut off: for less than the session, and for more.
const TIMES: [Duration; 2] = [Duration::from_millis(2_000), Duration::from_millis(7_000)];

#[test]
fn links_between_instances_that_are_cut_make_no_answer_wrong() {
    let rounds = short_or_full(1, 8);
    let scenario = scenario("peers-cut", cluster::shared().bootstrap_servers());
    let proxies: Vec<_> = (0..INSTANCES).map(|_| Proxy::before(free_port())).collect();
    let instances = (0..INSTANCES).map(|number| scenario.instance_behind(number, &proxies[number])).collect();
    let writer = scenario.start_writing(50 * rounds);
    let mut fleet = Fleet::start(scenario, instances, INSTANCES, writer);
    for round in 0..rounds as usize {
        let of_one = std::slice::from_ref(&proxies[round % INSTANCES]);
        fleet.round("connections of all are broken", |_| proxies.iter().for_each(Proxy::cut));
        for time in TIMES {
            fleet.round(&format!("nothing reaches one for {time:?}"), |_| silence(of_one, time));
            fleet.round(&format!("nothing reaches anyone for {time:?}"), |_| silence(&proxies, time));
        }
        fleet.round("nobody listens for one for 3 s", |_| of_one[0].refuse_for(Duration::from_secs(3)));
    }
    fleet.finish();
}

#[test]
fn an_instance_without_kafka_gives_no_wrong_answer() {
    let rounds = short_or_full(1, 8);
    let proxy = Proxy::start();
    let (cluster, port) = Cluster::start_with_another_address(&proxy.address());
    proxy.lead_to(port);
    let scenario = scenario("kafka-cut", cluster.bootstrap_servers());
    let behind = scenario.configuration().replace(cluster.bootstrap_servers(), &proxy.address());
    let mut instances: Vec<_> = (1..INSTANCES).map(|number| scenario.instance(number)).collect();
    instances.insert(0, Service::new(&scenario.instance_dir(0), &behind));
    let writer = scenario.start_writing(40 * rounds);
    let mut fleet = Fleet::start(scenario, instances, INSTANCES, writer);
    for _ in 0..rounds {
        fleet.round("its connections to Kafka are broken", |_| proxy.cut());
        for time in TIMES {
            fleet.round(&format!("one has no Kafka for {time:?}"), |_| silence(std::slice::from_ref(&proxy), time));
        }
    }
    fleet.finish();
}

#[test]
fn a_broker_that_restarts_makes_no_answer_wrong() {
    let rounds = short_or_full(1, 8);
    let cluster = Cluster::start_version(KEEPS_COMMITS, 1);
    let scenario = scenario("broker-restarts", cluster.bootstrap_servers());
    let scenario = Scenario { clicks: scenario.clicks.clone().recorded_today(), ..scenario };
    let instances = (0..INSTANCES).map(|number| scenario.instance(number)).collect();
    let writer = scenario.start_writing(40 * rounds);
    let mut fleet = Fleet::start(scenario, instances, INSTANCES, writer);
    for _ in 0..rounds {
        fleet.round("the broker is stopped and starts", |_| {
            cluster.stop(0);
            cluster.start_again(0);
        });
        fleet.round("the broker is killed and starts 3 s later", |_| {
            cluster.kill(0);
            pause(Duration::from_secs(3));
            cluster.start_again(0);
        });
    }
    fleet.finish();
}

fn scenario(name: &str, servers: &str) -> Scenario {
    let clicks = Clicks::mixed(size::clicks(40_000, 500_000), size::seed());
    Scenario { num_standbys: 1, ..Scenario::new(name, servers, clicks) }
}

fn silence(proxies: &[Proxy], time: Duration) {
    proxies.iter().for_each(Proxy::fall_silent);
    pause(time);
    proxies.iter().for_each(Proxy::heal);
}
