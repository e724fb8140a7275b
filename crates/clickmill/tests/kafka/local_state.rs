//! The local state is deleted between two runs: the changelog brings it back.

use std::fs;

use crate::clicks::Clicks;
use crate::scenario::Scenario;
use crate::size;
use crate::{cluster, counts};

#[test]
fn deleted_state_comes_back_from_the_changelog() {
    let clicks = Clicks::mixed(size::clicks(40_000, 1_000_000), size::seed());
    let scenario = Scenario::new("local-state", cluster::shared().bootstrap_servers(), clicks);
    let mut service = scenario.instance(0);
    let writer = scenario.start_writing(6);
    service.start_and_wait();
    service.wait_until("some way into the clicks", |service| {
        service.records_in(&scenario.clicks_topic).is_some_and(|records| records > scenario.clicks.count / 3)
    });
    service.kill();
    fs::remove_dir_all(service.data_dir().join("state")).unwrap();
    service.start_and_wait();
    writer.finish();
    let tally = counts::check(&scenario);
    counts::check_answers(&scenario, &mut service, &tally);
    service.stop();
    // And once more where there is nothing but the changelog: no click is read again, the answers are the same.
    fs::remove_dir_all(service.data_dir()).unwrap();
    service.start_and_wait();
    counts::check_answers(&scenario, &mut service, &tally);
    counts::check(&scenario);
    service.stop();
}
