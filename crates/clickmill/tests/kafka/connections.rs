//! Connections are cut, delayed and half-closed, and the commit of a transaction gets lost, so that the outcome of a commit is unknown.

use std::time::Duration;

use kafka_test_server::Cluster;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::clicks::Clicks;
use crate::counts;
use crate::proxy::{Loss, Proxy};
use crate::scenario::{Scenario, failures};
use crate::service::{Service, pause};
use crate::size::{self, short_or_full};

/// For longer than the producer waits for the outcome of a commit.
const SILENCE: Duration = Duration::from_secs(18);

#[test]
fn connections_that_fail_change_no_count() {
    let rounds = short_or_full(1, 10);
    let proxy = Proxy::start();
    let cluster = Cluster::start_with(1, &[("advertised.listeners", &format!("PLAINTEXT://{}", proxy.address()))]);
    proxy.lead_to(cluster.bootstrap_servers().rsplit_once(':').unwrap().1.parse().unwrap());
    let clicks = Clicks::mixed(size::clicks(60_000, 1_000_000), size::seed());
    // The membership outlives a silence: it is the commit alone that is at stake.
    let scenario = Scenario { session_timeout_ms: 40_000, ..Scenario::new("connections", &proxy.address(), clicks) };
    let mut random = ChaCha8Rng::seed_from_u64(size::seed());
    let mut service = scenario.instance(0);
    let writer = scenario.start_writing(rounds * 50);
    service.start_and_wait();
    for _ in 0..rounds {
        disturb(&proxy, &mut random);
        for loss in [Loss::Answer, Loss::Request] {
            let unknown_before = unknown_outcomes(&service);
            proxy.lose_commit(loss);
            pause(SILENCE);
            proxy.heal();
            service.wait_until("in doubt about a commit", |service| unknown_outcomes(service) > unknown_before);
            service.wait_until_ready();
        }
    }
    writer.finish();
    let tally = counts::check(&scenario);
    counts::check_answers(&scenario, &mut service, &tally);
    println!("{rounds} rounds of failing connections: {:?}", failures(&service.log()));
    assert_eq!(service.starts(), 1, "it went on by itself");
    service.stop();
}

fn unknown_outcomes(service: &Service) -> usize {
    failures(&service.log()).get("OutcomeUnknown").copied().unwrap_or_default()
}

/// What connections suffer, at random moments.
fn disturb(proxy: &Proxy, random: &mut ChaCha8Rng) {
    for fault in [Proxy::cut, Proxy::half_close, Proxy::cut, Proxy::half_close] {
        proxy.delay(Duration::from_millis(random.random_range(0..200)));
        pause(Duration::from_millis(random.random_range(300..1_500)));
        fault(proxy);
        pause(Duration::from_millis(random.random_range(0..1_000)));
    }
    proxy.heal();
}
