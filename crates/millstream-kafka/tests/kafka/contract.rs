//! The contract of every broker.

use crate::broker_contract::{self, Place};
use crate::support::broker;

#[test]
fn keeps_the_contract_of_every_broker() {
    broker_contract::contract(&broker(), Place::Cluster);
}
