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
        // At first a mistake in the configuration. Once the cluster has answered, one broker's certificate, or its clock, or the place
        // where it looks users up: that passes.
        code if failure.before_contact && (is_handshake(code) || may_pass(code)) => ErrorKind::Stop,
        code if is_lasting(code) => ErrorKind::Stop,
        // A client that is of no use any more is replaced, and everything begins from what is committed.
        _ if failure.fatal => ErrorKind::Fenced,
        _ if failure.requires_abort => ErrorKind::AbortTransaction,
        _ => ErrorKind::Retry,
    }
}

/// Whether a connection was refused before any request was sent.
pub(crate) fn is_handshake(code: Code) -> bool {
    matches!(
        code,
        Code::Authentication
            | Code::SSL
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState
    )
}

/// Whether it concerns a topic and nothing else.
pub(crate) fn is_of_topic(code: Code) -> bool {
    matches!(
        code,
        Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::UnknownTopicId
            | Code::InvalidTopic
            | Code::TopicAuthorizationFailed
    )
}

/// Whether it passes though it looks like a mistake in the configuration: brokers are upgraded one after the other, and the sessions of
/// members that have died end.
fn may_pass(code: Code) -> bool {
    matches!(code, Code::UnsupportedVersion | Code::UnsupportedFeature | Code::GroupMaxSizeReached)
}

/// Whether it stays so until a person does something.
fn is_lasting(code: Code) -> bool {
    let is_of_another_thing = matches!(
        code,
        Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::MessageSizeTooLarge
            | Code::InvalidMessageSize
            | Code::MessageBatchTooLarge
            | Code::InvalidTimestamp
            | Code::InvalidRecord
            | Code::UnsupportedForMessageFormat
            | Code::UnsupportedCompressionType
            | Code::NotImplemented
            | Code::BadCompression
            | Code::OffsetMetadataTooLarge
            | Code::InvalidTransactionTimeout
            | Code::InvalidReplicationFactor
            | Code::InvalidConfig
            | Code::PolicyViolation
            | Code::InvalidPartitions
            | Code::InconsistentGroupProtocol
            | Code::InvalidSessionTimeout
    );
    is_of_another_thing || is_of_topic(code)
}

/// What a person can do about it. Says nothing of whether it passes by itself.
pub(crate) fn way_out(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicId => {
            "create the topic with that partition, or correct its name"
        }
        Code::InvalidTopic => "correct the topic's name",
        Code::TopicAuthorizationFailed => "allow this user to read, write and describe the topic (kafka-acls)",
        Code::GroupAuthorizationFailed => "allow this user to read the group (kafka-acls)",
        Code::ClusterAuthorizationFailed => "allow this user the operation on the cluster (kafka-acls)",
        Code::TransactionalIdAuthorizationFailed => "allow this user to write the transactional id (kafka-acls)",
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SSL => "check security.protocol, the sasl.* and the ssl.* properties, and the user's credentials",
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => {
            "raise max.message.bytes of the topic, and message.max.bytes here where it is set, or lower batch.size here below what the topic \
             takes"
        }
        Code::MessageBatchTooLarge => "raise segment.bytes of the topic, or lower batch.size here below it",
        Code::InvalidTimestamp => {
            "the topic does not take a record as old, or as far ahead, as this one: set message.timestamp.before.max.ms and \
             message.timestamp.after.max.ms of the topic to 9223372036854775807 (before Kafka 3.6 message.timestamp.difference.max.ms)"
        }
        Code::InvalidRecord | Code::UnsupportedForMessageFormat => {
            "the topic does not take a record of this form: look at its cleanup.policy, its message.timestamp.type and its message format"
        }
        Code::UnsupportedVersion | Code::UnsupportedFeature => {
            "a broker is too old for this: use Apache Kafka 3.6 or newer on all of them"
        }
        Code::UnsupportedCompressionType | Code::NotImplemented | Code::BadCompression => {
            "records are damaged, or compressed in a way that is not known here: use zstd, lz4, snappy or gzip"
        }
        Code::OffsetOutOfRange | Code::AutoOffsetReset => {
            "the records there were deleted before they were read, or the topic was deleted and made again: start again to be told which, \
             and what can be done"
        }
        Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => {
            "bring the brokers of the other replicas back, or lower min.insync.replicas of the topic"
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
        Code::GroupMaxSizeReached => {
            "raise group.max.size of the brokers, or run fewer instances; one that was killed counts until its session has ended"
        }
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
    fn a_handshake_that_fails_ends_a_start_and_nothing_else() {
        for code in [Code::Authentication, Code::SSL, Code::SaslAuthenticationFailed, Code::UnsupportedSASLMechanism] {
            assert_eq!(kind(&failure(code)), ErrorKind::Retry, "{code:?}");
            assert_eq!(kind(&Failure { before_contact: true, ..failure(code) }), ErrorKind::Stop, "{code:?}");
            assert!(broker_error("describing", "topic clicks", &failure(code)).to_string().contains("the ssl.* properties"));
        }
        // No answer at all may be a cluster that starts.
        assert_eq!(kind(&Failure { before_contact: true, ..failure(Code::OperationTimedOut) }), ErrorKind::Retry);
    }

    #[test]
    fn what_passes_when_a_session_ends_or_a_broker_is_upgraded_ends_a_start_and_nothing_else() {
        for (code, way) in [
            (Code::GroupMaxSizeReached, "fewer instances"),
            (Code::UnsupportedVersion, "3.6 or newer"),
            (Code::UnsupportedFeature, "3.6 or newer"),
        ] {
            assert_eq!(kind(&failure(code)), ErrorKind::Retry, "{code:?}");
            assert_eq!(kind(&Failure { requires_abort: true, ..failure(code) }), ErrorKind::AbortTransaction, "{code:?}");
            assert_eq!(kind(&Failure { before_contact: true, ..failure(code) }), ErrorKind::Stop, "{code:?}");
            assert!(broker_error("joining", "group clicks", &failure(code)).to_string().contains(way));
        }
    }

    #[test]
    fn a_record_that_no_broker_will_ever_take_stops_with_the_way_out() {
        for (code, way) in [
            (Code::InvalidTimestamp, "message.timestamp.before.max.ms"),
            (Code::InvalidRecord, "cleanup.policy"),
            (Code::UnsupportedForMessageFormat, "message format"),
            (Code::MessageBatchTooLarge, "segment.bytes"),
        ] {
            let error = broker_error("writing to", "clicks-0", &failure(code));
            assert_eq!(error.kind(), ErrorKind::Stop, "{error}");
            assert!(error.to_string().contains("clicks-0") && error.to_string().contains(way), "{error}");
        }
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
