//! The broker on a real Apache Kafka. One server serves all of these tests, each of which has topics and groups of its own; those
//! that stop a server have one to themselves.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../millstream/tests/broker_contract/mod.rs"]
mod broker_contract;
mod compression;
mod contract;
mod engine;
mod fetching;
mod group_protocol;
mod group_security;
mod measure;
mod positions;
mod rebalances;
mod rights;
mod support;
mod three_brokers;
mod transactions;
