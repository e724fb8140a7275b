//! An instance that stands still is no member soon, long before its session ends, and answers for nothing when it wakes up that others count on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::clicks::{Clicks, MINUTE_MS};
use crate::scenario::{Scenario, running_tasks};
use crate::service::{Service, pause};
use crate::size::{self, short_or_full};
use crate::{cluster, counts};

const INSTANCES: usize = 3;

/// As Kafka's consumers have it: nobody waits for it here.
const SESSION_TIMEOUT_MS: u64 = 45_000;

/// How long an instance stands still.
const STANDSTILL: Duration = Duration::from_secs(5);

/// For how long is looked what it says when it has woken up.
const AWAKE: Duration = Duration::from_secs(3);

#[test]
fn an_instance_that_stands_still_is_replaced_by_those_that_miss_it() {
    let rounds = short_or_full(2, 30);
    let clicks = Clicks::mixed(size::clicks(60_000, 1_000_000), size::seed());
    let ever = format!("from={}&to={}", clicks.start_ms - 60 * MINUTE_MS, clicks.start_ms + clicks.span_ms + 60 * MINUTE_MS);
    let totals = format!("/v1/clicks?{ever}");
    let scenario = Scenario::new("silent", cluster::shared().bootstrap_servers(), clicks);
    let scenario = Scenario { num_standbys: 1, session_timeout_ms: SESSION_TIMEOUT_MS, ..scenario };
    let mut instances: Vec<_> = (0..INSTANCES).map(|number| scenario.instance(number)).collect();
    let writer = scenario.start_writing(rounds * 15);
    instances.iter_mut().for_each(Service::start);
    instances.iter_mut().for_each(Service::wait_until_ready);
    let (largest, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    for round in 0..rounds as usize {
        let number = round % INSTANCES;
        instances[number].wait_until("at work with all others", |sleeper| running_tasks(sleeper) > 0);
        let (others, stops) = (others(&instances, number), AtomicBool::new(false));
        let taken_over = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stops.load(Ordering::SeqCst) {
                    for other in &others {
                        match complete(other, &totals) {
                            Some(clicks) => _ = largest.fetch_max(clicks, Ordering::SeqCst),
                            None => _ = failed.fetch_add(1, Ordering::SeqCst),
                        }
                    }
                }
            });
            let began = Instant::now();
            instances[number].signal("STOP");
            while others.iter().map(|other| running_tasks(other)).sum::<usize>() < scenario.task_count() {
                assert!(began.elapsed() < Duration::from_millis(SESSION_TIMEOUT_MS), "it is waited for its session");
                pause(Duration::from_millis(20));
            }
            let taken_over = began.elapsed();
            pause(STANDSTILL.saturating_sub(taken_over));
            instances[number].signal("CONT");
            let began = Instant::now();
            while began.elapsed() < AWAKE {
                let before = largest.load(Ordering::SeqCst);
                if let Some(clicks) = complete(&instances[number], &totals) {
                    assert!(
                        clicks >= before,
                        "instance {number} has woken up, and says {clicks} where there were {before} before"
                    );
                }
            }
            stops.store(true, Ordering::SeqCst);
            taken_over
        });
        println!("instance {number} stood still: its tasks ran elsewhere after {taken_over:.1?}");
    }
    println!("{} answers of the others were not complete", failed.load(Ordering::SeqCst));
    writer.finish();
    counts::check(&scenario);
    for instance in &mut instances {
        instance.wait_until_ready();
        assert_eq!(instance.starts(), 1, "it went on by itself");
        instance.stop();
    }
}

fn others(instances: &[Service], number: usize) -> Vec<&Service> {
    instances.iter().enumerate().filter(|(other, _)| *other != number).map(|(_, other)| other).collect()
}

/// The clicks of a complete answer.
fn complete(instance: &Service, path: &str) -> Option<u64> {
    let answer = instance.try_get(path).filter(|answer| answer.status == 200)?;
    assert_eq!(answer.json["completeness"]["complete"], true, "{}", answer.json);
    answer.json["clicks"].as_u64()
}
