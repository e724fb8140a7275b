//! A backlog of clicks that are in order in their own partitions, with no grace: none is late. Kafka Streams judges behind the shuffle,
//! where the partitions' times mix, and drops some.

use crate::clicks::Clicks;
use crate::java::StreamsProgram;
use crate::scenario::Scenario;
use crate::{cluster, counts, size};

#[test]
fn only_what_is_late_in_its_own_partition_is_late() {
    let in_order = Clicks { disorder_ms: 0, bad_share: 0.0, ..Clicks::mixed(size::clicks(100_000, 2_000_000), size::seed()) };
    let scenario = Scenario::new("lateness", cluster::shared().bootstrap_servers(), in_order);
    let scenario = Scenario { grace_ms: 0, ..scenario };
    scenario.write_all();
    let mut service = scenario.instance(0);
    service.start_and_wait();
    let tally = counts::check(&scenario);
    counts::check_answers(&scenario, &mut service, &tally);
    service.stop();
    let mut java = StreamsProgram::start(&scenario, "java-lateness");
    java.wait_until_caught_up(&scenario.clicks_topic);
    let totals = java.stop();
    let dropped = totals["dropped-records-total"].as_f64().unwrap() as u64;
    println!("late in their own partition: {}; dropped by Kafka Streams: {dropped}", tally.late.len());
    assert!(dropped > tally.late.len() as u64, "Kafka Streams dropped {dropped} clicks, {} are late", tally.late.len());
}
