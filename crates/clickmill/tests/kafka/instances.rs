//! Up to four instances join, leave and are killed at random while clicks come in.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::clicks::Clicks;
use crate::scenario::Scenario;
use crate::service::{Service, pause};
use crate::size::{self, short_or_full};
use crate::{cluster, counts};

const MOST: usize = 4;

#[test]
fn instances_that_come_and_go_change_no_count() {
    let changes = short_or_full(6, 60);
    let clicks = Clicks::mixed(size::clicks(80_000, 1_000_000), size::seed());
    let scenario = Scenario::new("instances", cluster::shared().bootstrap_servers(), clicks);
    let mut random = ChaCha8Rng::seed_from_u64(size::seed());
    let mut instances: Vec<_> = (0..MOST).map(|number| (scenario.instance(number), false)).collect();
    let writer = scenario.start_writing(changes * 4);
    for (instance, runs) in instances.iter_mut().take(2) {
        instance.start();
        *runs = true;
    }
    let mut story = Vec::new();
    for _ in 0..changes {
        pause(Duration::from_millis(random.random_range(500..5_000)));
        story.push(change(&mut instances, &mut random));
    }
    println!("{}", story.join(", "));
    writer.finish();
    counts::check(&scenario);
    for (instance, _) in instances.iter_mut().filter(|(_, runs)| *runs) {
        instance.wait_until_ready();
        instance.stop();
    }
}

/// One of them starts, stops or is killed. Two run at least.
fn change(instances: &mut [(Service, bool)], random: &mut ChaCha8Rng) -> String {
    let running = instances.iter().filter(|(_, runs)| *runs).count();
    let number = loop {
        let number = random.random_range(0..MOST);
        if !instances[number].1 || running > 2 {
            break number;
        }
    };
    let (instance, runs) = &mut instances[number];
    let what = match (*runs, random.random_range(0..2)) {
        (false, _) => {
            instance.start();
            "starts"
        }
        (true, 0) => {
            instance.stop();
            "stops"
        }
        (true, _) => {
            instance.kill();
            "is killed"
        }
    };
    *runs = !*runs;
    format!("{number} {what}")
}
