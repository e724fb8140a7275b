//! Kafka's protocol without librdkafka, for requests that librdkafka does not have: blocking sockets, one request at a time on a connection.
//!
//! It connects as librdkafka does with the same properties. Data does not pass here.

mod address;
mod bearer;
mod connection;
mod coordinator;
mod coordinators;
mod sasl;
mod scram;
mod settings;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
mod tls;

pub(crate) use coordinator::{Cluster, CoordinatorLine, CoordinatorOf};
pub(crate) use coordinators::Coordinators;
pub(crate) use settings::WireSettings;
pub(crate) use stream::Abort;

use rdkafka::error::RDKafkaErrorCode as Code;

use crate::ffi::Failure;

/// Kafka's error codes that are answered here by something else than an error.
pub(crate) mod codes {
    pub(crate) const NONE: i16 = 0;
    pub(crate) const COORDINATOR_NOT_AVAILABLE: i16 = 15;
    pub(crate) const NOT_COORDINATOR: i16 = 16;
    pub(crate) const ILLEGAL_GENERATION: i16 = 22;
    pub(crate) const INCONSISTENT_GROUP_PROTOCOL: i16 = 23;
    pub(crate) const UNKNOWN_MEMBER_ID: i16 = 25;
    pub(crate) const REBALANCE_IN_PROGRESS: i16 = 27;
    pub(crate) const UNSUPPORTED_VERSION: i16 = 35;
    pub(crate) const CONCURRENT_TRANSACTIONS: i16 = 51;
    pub(crate) const GROUP_ID_NOT_FOUND: i16 = 69;
    pub(crate) const MEMBER_ID_REQUIRED: i16 = 79;
    pub(crate) const FENCED_INSTANCE_ID: i16 = 82;
}

/// Whether the answer says that another broker is to be asked.
pub(crate) fn has_moved(code: i16) -> bool {
    matches!(code, codes::NOT_COORDINATOR | codes::COORDINATOR_NOT_AVAILABLE)
}

/// Whether the request did not get through, which says nothing of the request itself.
pub(crate) fn is_transport(failure: &Failure) -> bool {
    matches!(failure.code, Code::BrokerTransportFailure | Code::OperationTimedOut | Code::Resolve | Code::BadMessage)
}
