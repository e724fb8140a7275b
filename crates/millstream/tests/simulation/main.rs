//! The simulation: click topologies on the broker in memory, several instances stepped in random order on one thread, a clock
//! that stands still until it is moved, and faults at every step. At the end everything is compared with a naive model.
//!
//! - `cargo test -p millstream --test simulation`: many seeds. `SIM_SEEDS=20000` runs so many, `SIM_FROM=20000` begins with that one.
//! - `SIM_SEED=123 cargo test -p millstream --test simulation -- --nocapture one_seed`: one seed, told line by line.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod aggregates;
mod audit;
mod clicks;
mod disk;
mod events;
mod faults;
mod instance;
mod model;
mod queries;
mod random;
mod scenario;
mod trace;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use trace::Trace;

const SEEDS: u64 = 1_000;
const THREADS: usize = 2;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {value:?}")))
}

#[test]
fn every_seed_ends_with_the_counts_of_the_model() {
    let (seeds, from) = (from_environment("SIM_SEEDS").unwrap_or(SEEDS), from_environment("SIM_FROM").unwrap_or(0));
    let (next, failed) = (AtomicU64::new(from), Mutex::new(Vec::new()));
    let counts: Mutex<BTreeMap<String, u64>> = Mutex::default();
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= from + seeds {
                return;
            }
            let trace = Trace::new(false);
            if catch_unwind(AssertUnwindSafe(|| world::run(seed, trace.clone()))).is_err() {
                println!("seed {seed} failed. To repeat it:");
                println!("SIM_SEED={seed} cargo test -p millstream --test simulation -- --nocapture one_seed");
                failed.lock().unwrap().push(seed);
            }
            for (kind, count) in trace.counts() {
                *counts.lock().unwrap().entry(kind).or_default() += count;
            }
        }
    };
    std::thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(work))));
    let (failed, counts) = (failed.into_inner().unwrap(), counts.into_inner().unwrap());
    assert!(failed.is_empty(), "{} of {seeds} seeds failed: {failed:?}", failed.len());
    for kind in all_kinds() {
        let count = counts.get(&kind).copied().unwrap_or(0);
        println!("{count:>8} {kind}");
        assert!(seeds < SEEDS || count >= 3, "{kind} happened {count} times only: the run proves nothing about it");
    }
}

/// Everything that can go wrong, and what the engine is to go through.
fn all_kinds() -> Vec<String> {
    let others = ["state deleted", events::OPEN_COMMITS, events::OPEN_ABORTS];
    let events = events::EVENTS.iter().map(|(name, ..)| (*name).to_owned()).chain(others.map(str::to_owned));
    let on_broker = faults::BROKER_FAULTS.iter().map(|(call, fault, _)| faults::broker_fault(*call, *fault));
    let on_store = faults::STORE_FAULTS.iter().map(|(call, kind, _)| faults::store_fault(*call, *kind));
    let reached = audit::MILESTONES.iter().map(|name| (*name).to_owned());
    events.chain(reached).chain(on_broker).chain(on_store).collect()
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..10 {
        let hash = |seed| {
            let trace = Trace::new(false);
            world::run(seed, trace.clone());
            trace.hash()
        };
        assert_eq!(hash(seed), hash(seed), "seed {seed}");
        assert_ne!(hash(seed), hash(seed + 1), "seed {seed}");
    }
}

#[test]
fn one_seed() {
    let seed = from_environment("SIM_SEED");
    world::run(seed.unwrap_or(0), Trace::new(seed.is_some()));
}
