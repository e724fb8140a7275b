//! The broker in memory.

mod broker_contract;

use std::sync::Arc;

use millstream::broker::local::MemoryBroker;
use millstream::clock::ManualClock;
use millstream::record::Timestamp;

#[test]
fn keeps_the_contract_of_every_broker() {
    broker_contract::contract(&MemoryBroker::in_memory(Arc::new(ManualClock::new(Timestamp(0)))));
}
