//! Millstream on Apache Kafka: the engine's broker, through librdkafka.
//!
//! [`KafkaBroker`] gives the engine what it asks of a broker: members of classic consumer groups with cooperative rebalances,
//! fetchers of what they are assigned, transactional producers fenced by epoch and generation, readers of committed records, topics and positions. [`KafkaIntake`] is for
//! records that come from outside. No state, no topology, no HTTP: this crate moves records and says what became of them.
//!
//! Beside librdkafka, `wire` speaks Kafka's protocol for what librdkafka has not: [`KafkaCoordinator`] is a member of a group whose members decide
//! themselves who holds what, [`KafkaTransactions`] ends the transactions of producers that are gone.
//!
//! Any librdkafka property can be set by its own name in [`KafkaConfig`], except those that exactly-once rests on.

mod batch;
mod boot_time;
mod broker;
mod config;
mod connection;
mod context;
mod deliveries;
mod error;
mod fetcher;
#[allow(unsafe_code, reason = "librdkafka is C, and its wrapper does not reach everything that is needed")]
mod ffi;
mod group;
#[cfg(test)]
mod handshake;
mod intake;
mod membership;
#[cfg(test)]
mod newer_broker;
mod partitions;
mod positions;
mod producer;
mod reader;
mod settings;
mod transactions;
mod wire;

pub use batch::KafkaBatch;
pub use boot_time::boot_time;
pub use broker::{GroupMember, KafkaBroker, Obstacle};
pub use config::{ConfigError, KafkaConfig};
pub use fetcher::KafkaFetcher;
pub use group::{DescribedGroup, DescribedMember, KafkaCoordinator, describe_group};
pub use intake::{KafkaIntake, Outcome};
pub use membership::KafkaMembership;
pub use producer::KafkaProducer;
pub use reader::KafkaReader;
pub use transactions::KafkaTransactions;
