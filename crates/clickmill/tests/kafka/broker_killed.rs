//! The broker is killed with kill -9 and started again while clicks come in.

use std::time::Duration;

use kafka_test_server::Cluster;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::clicks::Clicks;
use crate::counts;
use crate::scenario::{Scenario, failures};
use crate::service::pause;
use crate::size::{self, short_or_full};

/// The last version whose only broker may be killed. Apache Kafka 4.3 and 4.4 take partitions that have no leader, as all have while
/// it starts again, for deleted, and finish a transaction that had committed without marking its end in any of them
/// (`docs/exactly-once.md`, what is not promised).
const KEEPS_COMMITS: &str = "4.2.0";

#[test]
fn a_broker_killed_in_the_middle_changes_no_count() {
    let kills = short_or_full(2, 15);
    let cluster = Cluster::start_version(KEEPS_COMMITS, 1);
    // What the service writes carries event times older than a year.
    let clicks = Clicks::mixed(size::clicks(60_000, 1_000_000), size::seed()).recorded_today();
    let scenario = Scenario::new("broker-killed", cluster.bootstrap_servers(), clicks);
    let mut random = ChaCha8Rng::seed_from_u64(size::seed());
    let mut service = scenario.instance(0);
    let writer = scenario.start_writing(kills * 15);
    service.start_and_wait();
    for _ in 0..kills {
        pause(Duration::from_millis(random.random_range(500..3_000)));
        cluster.kill(0);
        pause(Duration::from_millis(random.random_range(0..2_000)));
        cluster.start_again(0);
        service.wait_until_ready();
    }
    writer.finish();
    let tally = counts::check(&scenario);
    service.wait_until_ready();
    counts::check_answers(&scenario, &mut service, &tally);
    println!("{kills} kills of the broker: {:?}", failures(&service.log()));
    assert_eq!(service.starts(), 1, "it went on by itself");
    service.stop();
}
