//! Instances that keep copies of each other's counts: where one dies or stops, its tasks go on where a copy is.

use std::time::{Duration, Instant};

use crate::clicks::Clicks;
use crate::scenario::{Scenario, caught_up_copies, running_tasks};
use crate::service::{Service, pause};
use crate::size::{self, short_or_full};
use crate::{cluster, counts};

const INSTANCES: usize = 3;

/// How long a round may take until everything runs and every copy is there.
const SOON: Duration = Duration::from_secs(120);

#[test]
fn copies_take_over_from_instances_that_are_killed_and_stopped() {
    let rounds = short_or_full(4, 30);
    let clicks = Clicks::mixed(size::clicks(80_000, 1_000_000), size::seed());
    let scenario = Scenario::new("standbys", cluster::shared().bootstrap_servers(), clicks);
    let scenario = Scenario { num_standbys: 1, ..scenario };
    let mut instances: Vec<_> = (0..INSTANCES).map(|number| scenario.instance(number)).collect();
    let writer = scenario.start_writing(rounds * 20);
    for instance in &mut instances {
        instance.start();
    }
    println!("all copies were there after {:.1?}", wait_for_copies(&instances, &scenario));
    for round in 0..rounds as usize {
        let (number, is_killed) = (round % INSTANCES, round % 2 == 0);
        let began = Instant::now();
        if is_killed {
            instances[number].kill();
        } else {
            instances[number].stop();
        }
        let others: Vec<_> = instances.iter().enumerate().filter(|(other, _)| *other != number).map(|(_, other)| other).collect();
        wait(|| others.iter().map(|other| running_tasks(other)).sum::<usize>() == scenario.task_count());
        let (what, taken_over) = (if is_killed { "killed" } else { "stopped" }, began.elapsed());
        instances[number].start();
        let complete = wait_for_copies(&instances, &scenario);
        println!(
            "instance {number} was {what}: its tasks ran elsewhere after {taken_over:.1?}, all copies were there {complete:.1?} later"
        );
    }
    writer.finish();
    counts::check(&scenario);
    for instance in &mut instances {
        instance.wait_until_ready();
        let rebuilt = instance.log().matches("the store is rebuilt from its changelog").count();
        assert_eq!(rebuilt, 0, "no state was thrown away:\n{}", instance.log());
        instance.stop();
    }
}

/// Waits until every task runs and every store has a copy that has caught up. Gives how long that took.
fn wait_for_copies(instances: &[Service], scenario: &Scenario) -> Duration {
    let began = Instant::now();
    let sum = |of: fn(&Service) -> usize| instances.iter().map(of).sum::<usize>();
    let copies = scenario.clicks.partitions as usize;
    wait(|| sum(running_tasks) == scenario.task_count() && sum(caught_up_copies) == copies);
    began.elapsed()
}

fn wait(is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < SOON, "it does not come to rest");
        pause(Duration::from_millis(20));
    }
}
