//! From librdkafka's errors to what the engine has to do, and to words that name the thing, the reason and the way out.

use millstream::broker::{BrokerError, ErrorKind};
use rdkafka::error::RDKafkaErrorCode as Code;

use crate::ffi::Failure;

/// The error of an operation on something (a topic, a partition, a group, a transactional id).
pub(crate) fn broker_error(operation: &str, subject: &str, failure: &Failure) -> BrokerError {
    let way_out = way_out(failure.code).map(|way| format!(": {way}")).unwrap_or_default();
    BrokerError::new(kind(failure), format!("{operation} {subject} failed: {failure} ({:?}){way_out}", failure.code))
}

/// The error of reading a partition. librdkafka goes on behind records that it finds damaged: nobody else may.
pub(crate) fn reading_error(subject: &str, failure: &Failure) -> BrokerError {
    if !matches!(failure.code, Code::BadMessage | Code::InvalidMessage) {
        return broker_error("reading", subject, failure);
    }
    let message = format!(
        "reading {subject} failed: {failure} ({:?}): the records are damaged, on the brokers' disks or on the way: nothing behind them was \
         read; look whether another replica has them whole",
        failure.code
    );
    BrokerError::new(ErrorKind::Stop, message)
}

/// What the caller must do about a failure of anything but a commit.
pub(crate) fn kind(failure: &Failure) -> ErrorKind {
    match failure.code {
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch | Code::FencedInstanceId => ErrorKind::Fenced,
        Code::OffsetOutOfRange | Code::AutoOffsetReset => ErrorKind::OffsetOutOfRange,
        Code::IllegalGeneration | Code::UnknownMemberId | Code::RebalanceInProgress => ErrorKind::AbortTransaction,
        code if way_out(code).is_some() => ErrorKind::Stop,
        // A client that is of no use any more is replaced, and everything begins from what is committed.
        _ if failure.fatal => ErrorKind::Fenced,
        _ if failure.requires_abort => ErrorKind::AbortTransaction,
        _ => ErrorKind::Retry,
    }
}

/// What a person can do, where only a person can.
fn way_out(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicId => {
            "create the topic with that partition, or correct its name"
        }
        Code::InvalidTopic => "correct the topic's name",
        Code::TopicAuthorizationFailed => "allow this user to read, write and describe the topic (kafka-acls)",
        Code::GroupAuthorizationFailed => "allow this user to read the group (kafka-acls)",
        Code::ClusterAuthorizationFailed => "allow this user the operation on the cluster (kafka-acls)",
        Code::TransactionalIdAuthorizationFailed => "allow this user to write the transactional id (kafka-acls)",
        Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism | Code::SSL => {
            "check security.protocol, the sasl.* and the ssl.* properties, and the user's credentials"
        }
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => {
            "raise max.message.bytes of the topic, and message.max.bytes here where it is set, or lower batch.size here below what the topic \
             takes"
        }
        Code::UnsupportedVersion | Code::UnsupportedFeature => "the brokers are too old for this: use Apache Kafka 3.6 or newer",
        Code::UnsupportedCompressionType | Code::NotImplemented | Code::BadCompression => {
            "records are damaged, or compressed in a way that is not known here: use zstd, lz4, snappy or gzip"
        }
        Code::OffsetOutOfRange | Code::AutoOffsetReset => {
            "the records there were deleted before they were read, or the topic was deleted and made again: start again to be told which, \
             and what can be done"
        }
        Code::OffsetMetadataTooLarge => "raise offset.metadata.max.bytes of the brokers",
        Code::InvalidTransactionTimeout => {
            "lower transaction.timeout.ms here, or raise transaction.max.timeout.ms of the brokers"
        }
        Code::InvalidReplicationFactor => "set a replication factor that the cluster has brokers for",
        Code::InvalidConfig | Code::PolicyViolation | Code::InvalidPartitions => {
            "create the topic by hand as the cluster's rules ask for"
        }
        Code::InconsistentGroupProtocol => {
            "members of another kind are in the group: stop them, and wait until their sessions have ended"
        }
        Code::InvalidSessionTimeout => "set session.timeout.ms within the brokers' group.min and group.max.session.timeout.ms",
        Code::GroupMaxSizeReached => "raise group.max.size of the brokers, or run fewer threads",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: Code) -> Failure {
        Failure::of_code(code)
    }

    #[test]
    fn each_failure_asks_for_what_the_engine_has_to_do() {
        assert_eq!(kind(&failure(Code::BrokerTransportFailure)), ErrorKind::Retry);
        assert_eq!(kind(&failure(Code::IllegalGeneration)), ErrorKind::AbortTransaction);
        assert_eq!(kind(&failure(Code::ProducerFenced)), ErrorKind::Fenced);
        assert_eq!(kind(&failure(Code::AutoOffsetReset)), ErrorKind::OffsetOutOfRange);
        assert_eq!(kind(&failure(Code::TopicAuthorizationFailed)), ErrorKind::Stop);
        assert_eq!(kind(&Failure { fatal: true, ..failure(Code::OutOfOrderSequenceNumber) }), ErrorKind::Fenced);
        assert_eq!(kind(&Failure { requires_abort: true, ..failure(Code::MessageTimedOut) }), ErrorKind::AbortTransaction);
    }

    #[test]
    fn nothing_is_read_behind_damaged_records() {
        let refused = reading_error("clicks-0 from offset 7", &failure(Code::BadMessage));
        assert_eq!(refused.kind(), ErrorKind::Stop);
        assert!(refused.to_string().contains("clicks-0 from offset 7") && refused.to_string().contains("damaged"), "{refused}");
        assert_eq!(reading_error("clicks-0", &failure(Code::BrokerTransportFailure)).kind(), ErrorKind::Retry);
    }

    #[test]
    fn a_message_names_the_operation_the_thing_the_reason_and_the_way_out() {
        let message = broker_error("writing to", "topic clicks", &failure(Code::MessageSizeTooLarge)).to_string();
        for part in ["writing to topic clicks", "MessageSizeTooLarge", "max.message.bytes"] {
            assert!(message.contains(part), "{message}");
        }
    }
}
