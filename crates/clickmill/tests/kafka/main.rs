//! Exactly once on a real Apache Kafka: the real program counts clicks while everything around it fails, and in the end every count
//! is compared with a tally that knows the definitions and nothing of the engine. `docs/exactly-once.md` says what each file shows.
//!
//! `cargo test` runs a short form of each. In full, in three quarters of an hour or so:
//!
//! ```sh
//! EXACTLY_ONCE=full cargo test --workspace --test kafka -- --nocapture --test-threads 1
//! ```
//!
//! Ten million clicks and thirty kills:
//!
//! ```sh
//! EXACTLY_ONCE=full EXACTLY_ONCE_CLICKS=10000000 cargo test --workspace --test kafka -- --nocapture kills
//! ```
//!
//! What several instances answer while they are killed, hang, are stopped, and are cut off from each other and from Kafka:
//!
//! ```sh
//! EXACTLY_ONCE=full cargo test --workspace --test kafka -- --nocapture --test-threads 1 failures cut_off
//! ```
//!
//! `EXACTLY_ONCE_SEED` gives other clicks and other moments.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod any_instance;
mod between;
mod bounds;
mod broker_killed;
mod clicks;
mod cluster;
mod committed;
mod connections;
mod counts;
mod cut_off;
mod failover;
mod failures;
mod fleet;
mod found;
mod full_disk;
mod growth;
mod instances;
mod java;
mod kills;
mod lateness;
mod leaderless;
mod loading;
mod local_state;
mod old_clicks;
mod open_transaction;
mod proxy;
mod restoring;
mod scenario;
mod security;
mod sent;
#[path = "../service/mod.rs"]
mod service;
mod silent;
mod size;
mod standbys;
mod starts;
mod stops;
mod tally;
mod topic;
mod twins;
mod zombie;
