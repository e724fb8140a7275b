//! Lateness is judged in a click's own partition, so that it does not depend on who reads how fast. Kafka Streams judges behind the
//! shuffle, where the partitions' times mix, and drops clicks of a backlog that are not late.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::clicks::{Clicks, MINUTE_MS};
use crate::java::StreamsProgram;
use crate::scenario::Scenario;
use crate::service::pause;
use crate::size::{self, short_or_full};
use crate::{cluster, counts};

#[test]
fn of_a_backlog_that_is_in_order_nothing_is_late() {
    let mixed = Clicks::mixed(size::clicks(100_000, 2_000_000), size::seed());
    let in_order = Clicks { disorder_ms: 0, late_share: 0.0, bad_share: 0.0, ..mixed };
    let scenario = Scenario::new("in-order", cluster::shared().bootstrap_servers(), in_order);
    let scenario = Scenario { grace_ms: 0, ..scenario };
    scenario.write_all();
    let mut service = scenario.instance(0);
    service.start_and_wait();
    let tally = counts::check(&scenario);
    assert!(tally.late.is_empty());
    counts::check_answers(&scenario, &mut service, &tally);
    service.stop();
    assert_kafka_streams_drops_more_than(0, &scenario);
}

#[test]
fn the_same_clicks_are_late_live_through_kills_and_as_a_backlog() {
    let mixed = Clicks::mixed(size::clicks(100_000, 2_000_000), size::seed());
    let out_of_order = Clicks { disorder_ms: MINUTE_MS, late_share: 0.01, bad_share: 0.0, ..mixed };
    let live = Scenario::new("late-live", cluster::shared().bootstrap_servers(), out_of_order);
    let backlog = live.of_application("late-backlog");
    let kills = short_or_full(2, 10);
    let mut random = ChaCha8Rng::seed_from_u64(size::seed());
    let mut service = live.instance(0);
    let writer = live.start_writing(kills * 8);
    service.start_and_wait();
    for _ in 0..kills {
        pause(Duration::from_millis(random.random_range(500..3_000)));
        service.kill();
        service.start_and_wait();
    }
    writer.finish();
    // Both hold every record of their late topic against the same tally.
    let tally = counts::check(&live);
    assert!(!tally.late.is_empty());
    service.stop();
    let mut service = backlog.instance(0);
    service.start_and_wait();
    counts::check(&backlog);
    service.stop();
    assert_kafka_streams_drops_more_than(tally.late.len() as u64, &live);
}

fn assert_kafka_streams_drops_more_than(late: u64, scenario: &Scenario) {
    let mut java = StreamsProgram::start(scenario, &format!("java-{}", scenario.application_id));
    java.wait_until_caught_up(&scenario.clicks_topic);
    let dropped = java.stop()["dropped-records-total"].as_f64().unwrap() as u64;
    println!("{}: {late} are late in their own partition; Kafka Streams drops {dropped}", scenario.application_id);
    assert!(dropped > late, "Kafka Streams dropped {dropped} clicks, {late} are late");
}
