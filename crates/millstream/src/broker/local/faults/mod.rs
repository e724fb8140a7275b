//! A broker that fails when it is told to: for the simulation.
//!
//! Each instance of the program under test sees the one [`MemoryBroker`] through a [`FaultyBroker`] of its own. Before every call
//! the broker asks its [`Faults`] what is to go wrong with it. The same answers give the same run.
//!
//! An instance that has crashed gets an error from every call ([`FaultyBroker::is_crashed`] tells it from others). Its members stay in
//! their groups until [`FaultyBroker::expire_members`], as those of a dead process do until their session expires, so a new
//! instance may be started before or after that.

mod broker;
mod coordinator;
mod fetcher;
mod plan;
mod producer;

pub use broker::FaultyBroker;
pub use coordinator::{FaultyCoordinator, FaultyMembership};
pub use fetcher::{FaultyFetcher, FaultyReader};
pub use plan::{Call, CommitOutcome, Fault, Faults, FaultsAt, SeededFaults};
pub use producer::FaultyProducer;

use super::MemoryBroker;
use crate::broker::{BrokerError, ErrorKind};

/// The error of a call that was to fail.
fn asked_for(call: Call, kind: ErrorKind) -> BrokerError {
    BrokerError::new(kind, format!("a fault was asked for at {call:?}"))
}
