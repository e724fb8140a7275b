//! An instance hangs for longer than its session, another takes over, and the first wakes up: it commits nothing of what it had under
//! way, and joins again by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::clicks::Clicks;
use crate::scenario::{SESSION_TIMEOUT_MS, Scenario, failures, running_tasks};
use crate::service::pause;
use crate::size::{self, short_or_full};
use crate::{cluster, counts};

#[test]
fn a_zombie_commits_nothing_and_rejoins() {
    let rounds = short_or_full(1, 12);
    let clicks = Clicks::mixed(size::clicks(60_000, 500_000), size::seed());
    let scenario = Scenario::new("zombie", cluster::shared().bootstrap_servers(), clicks);
    let mut random = ChaCha8Rng::seed_from_u64(size::seed());
    let mut instances = [scenario.instance(0), scenario.instance(1)];
    let writer = scenario.start_writing(rounds * 15);
    for instance in &mut instances {
        instance.start_and_wait();
    }
    for round in 0..rounds as usize {
        let (sleeper, other) = (round % 2, (round + 1) % 2);
        instances[sleeper].wait_until("at work", |instance| running_tasks(instance) > 0);
        pause(Duration::from_millis(random.random_range(0..1_500)));
        instances[sleeper].signal("STOP");
        pause(Duration::from_millis(SESSION_TIMEOUT_MS));
        instances[other].wait_until("alone", |instance| running_tasks(instance) == scenario.task_count());
        pause(Duration::from_millis(random.random_range(0..1_000)));
        instances[sleeper].signal("CONT");
        // Its own tasks are gone first. It is given some by the next rebalance, with clicks still coming.
        instances[other].wait_until("one of two again", |instance| running_tasks(instance) < scenario.task_count());
        instances[sleeper].wait_until("at work again", |instance| running_tasks(instance) > 0);
    }
    writer.finish();
    counts::check(&scenario);
    let mut met = BTreeMap::new();
    for instance in &mut instances {
        assert_eq!(instance.starts(), 1, "it went on by itself");
        failures(&instance.log()).into_iter().for_each(|(kind, times)| *met.entry(kind).or_insert(0) += times);
        instance.stop();
    }
    let lost = instances.iter().map(|instance| instance.log().matches("the membership was lost").count()).sum::<usize>();
    println!("{rounds} zombies: membership lost {lost} times, refused by the broker: {met:?}");
    assert!(lost + met.values().sum::<usize>() >= rounds as usize, "every zombie was told: {met:?}");
}
