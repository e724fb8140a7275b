//! Clickmill and Kafka Streams count the same topic of a real Kafka in turn. `bench/side-by-side.sh` runs it.
//!
//! Both count exactly once with two threads, keep the same windows, and commit equally often. What is measured begins with the
//! start of the process and ends when it has committed all there is. SIDE_BY_SIDE_CLICKS and SIDE_BY_SIDE_ROUNDS make it shorter;
//! the whole one writes its table into docs/performance.md.

#![allow(clippy::unwrap_used, reason = "a benchmark ends where it cannot go on")]

mod contender;
mod java;
mod load;
mod process;
mod reading;
mod table;

use std::time::Duration;

use contender::{Contender, Run};
use kafka_test_server::Cluster;
use load::Load;
use table::Table;

const CLICKS: u64 = 5_000_000;
const ROUNDS: usize = 3;

/// How often both commit.
const COMMIT_INTERVALS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// What is written stays where it is for as long as the benchmark runs, so that the sizes of the directories are what was written.
const KEEP_FILES: [(&str, &str); 2] = [("log.retention.check.interval.ms", "86400000"), ("log.cleaner.enable", "false")];

fn main() {
    if reading::is_asked_for() {
        return reading::read();
    }
    let (clicks, rounds) = (setting("SIDE_BY_SIDE_CLICKS", CLICKS), setting("SIDE_BY_SIDE_ROUNDS", ROUNDS as u64) as usize);
    let cluster = Cluster::start_with(1, &KEEP_FILES);
    let mut table = Table::default();
    for load in [Load::zipf(clicks), Load::uniform(clicks)] {
        eprintln!("{clicks} clicks, {}", load.name);
        load.write(&cluster);
        let readings: Vec<_> = (0..rounds).map(|_| reading::measure(&cluster, &load)).collect();
        table.add_reading(&load, &readings);
        for interval in COMMIT_INTERVALS {
            let mut runs = [Vec::new(), Vec::new()];
            for round in 0..rounds {
                for (contender, runs) in Contender::ALL.into_iter().zip(&mut runs) {
                    let run = Run { cluster: &cluster, load: &load, interval, round };
                    let measured = contender.count(&run);
                    eprintln!("  {} every {interval:?}, round {}: {measured}", contender.name(), round + 1);
                    runs.push(measured);
                }
            }
            table.add_pair(&load, interval, &runs);
        }
    }
    println!("{table}");
    if clicks >= CLICKS && rounds >= ROUNDS {
        table.write_into_documentation();
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}
