//! Error codes. A broker newer than librdkafka sends codes that librdkafka does not know, and librdkafka passes them on: a code is read
//! as the number that it is. The wrapper's enum has gaps, and a value of it that lies in a gap is undefined behaviour.

use std::ffi::{c_char, c_int, c_void};

use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka_sys as sys;
use sys::types::RDKafkaRespErr;

/// The functions of librdkafka that return a code, declared with the type that the code has in C.
mod numbers {
    use super::{c_char, c_int, c_void, sys};

    unsafe extern "C" {
        pub(in crate::ffi) fn rd_kafka_last_error() -> c_int;
        pub(in crate::ffi) fn rd_kafka_err2str(number: c_int) -> *const c_char;
        pub(in crate::ffi) fn rd_kafka_error_code(error: *const sys::rd_kafka_error_t) -> c_int;
        pub(in crate::ffi) fn rd_kafka_fatal_error(client: *mut sys::rd_kafka_t, text: *mut c_char, size: usize) -> c_int;
        pub(in crate::ffi) fn rd_kafka_event_error(event: *mut sys::rd_kafka_event_t) -> c_int;
        pub(in crate::ffi) fn rd_kafka_topic_result_error(result: *const sys::rd_kafka_topic_result_t) -> c_int;
        pub(in crate::ffi) fn rd_kafka_ConfigResource_error(resource: *const sys::rd_kafka_ConfigResource_t) -> c_int;
        pub(in crate::ffi) fn rd_kafka_AdminOptions_set_request_timeout(
            options: *mut sys::rd_kafka_AdminOptions_t,
            timeout_ms: c_int,
            text: *mut c_char,
            size: usize,
        ) -> c_int;
        pub(in crate::ffi) fn rd_kafka_flush(client: *mut sys::rd_kafka_t, timeout_ms: c_int) -> c_int;
        pub(in crate::ffi) fn rd_kafka_metadata(
            client: *mut sys::rd_kafka_t,
            all_topics: c_int,
            topic: *mut sys::rd_kafka_topic_t,
            metadata: *mut *const sys::rd_kafka_metadata_t,
            timeout_ms: c_int,
        ) -> c_int;
        pub(in crate::ffi) fn rd_kafka_committed(
            client: *mut sys::rd_kafka_t,
            partitions: *mut sys::rd_kafka_topic_partition_list_t,
            timeout_ms: c_int,
        ) -> c_int;
        pub(in crate::ffi) fn rd_kafka_message_headers(
            message: *const sys::rd_kafka_message_t,
            headers: *mut *mut sys::rd_kafka_headers_t,
        ) -> c_int;
        pub(in crate::ffi) fn rd_kafka_header_get_all(
            headers: *const sys::rd_kafka_headers_t,
            index: usize,
            name: *mut *const c_char,
            value: *mut *const c_void,
            size: *mut usize,
        ) -> c_int;
    }
}

pub(super) use numbers::*;

pub(super) const NO_ERROR: i32 = 0;

/// The code in a message.
///
/// # Safety
/// `message` points to a living message.
pub(super) unsafe fn of_message(message: *const sys::rd_kafka_message_t) -> i32 {
    // SAFETY: the caller vouches that it lives; the field is as large as the number, and never read as the enum.
    unsafe { (&raw const (*message).err).cast::<i32>().read() }
}

/// The code in an element of a list of partitions.
///
/// # Safety
/// `element` points to a living element.
pub(super) unsafe fn of_partition(element: *const sys::rd_kafka_topic_partition_t) -> i32 {
    // SAFETY: as above.
    unsafe { (&raw const (*element).err).cast::<i32>().read() }
}

/// What the wrapper calls a code; none where it does not know it.
pub(super) fn known(number: i32) -> Option<Code> {
    RDKafkaRespErr::try_from(number).ok().map(Code::from)
}

/// librdkafka's words for a code, as they stand in its log.
pub(crate) fn words(code: Code) -> String {
    // SAFETY: the text lives for ever, or until the thread asks for that of a code that librdkafka does not know.
    unsafe { super::text(rd_kafka_err2str(code as c_int)) }
}

/// Kafka's names of the codes that librdkafka does not know (Apache Kafka 4.3, `org.apache.kafka.common.protocol.Errors`).
pub(super) fn name(number: i32) -> Option<&'static str> {
    Some(match number {
        98 => "SNAPSHOT_NOT_FOUND",
        99 => "POSITION_OUT_OF_RANGE",
        101 => "DUPLICATE_BROKER_REGISTRATION",
        102 => "BROKER_ID_NOT_REGISTERED",
        103 => "INCONSISTENT_TOPIC_ID",
        104 => "INCONSISTENT_CLUSTER_ID",
        105 => "TRANSACTIONAL_ID_NOT_FOUND",
        106 => "FETCH_SESSION_TOPIC_ID_ERROR",
        107 => "INELIGIBLE_REPLICA",
        108 => "NEW_LEADER_ELECTED",
        109 => "OFFSET_MOVED_TO_TIERED_STORAGE",
        114 => "MISMATCHED_ENDPOINT_TYPE",
        115 => "UNSUPPORTED_ENDPOINT_TYPE",
        116 => "UNKNOWN_CONTROLLER_ID",
        119 => "INVALID_REGISTRATION",
        TRANSACTION_ABORTABLE => "TRANSACTION_ABORTABLE",
        121 => "INVALID_RECORD_STATE",
        122 => "SHARE_SESSION_NOT_FOUND",
        123 => "INVALID_SHARE_SESSION_EPOCH",
        124 => "FENCED_STATE_EPOCH",
        125 => "INVALID_VOTER_KEY",
        126 => "DUPLICATE_VOTER",
        127 => "VOTER_NOT_FOUND",
        128 => "INVALID_REGULAR_EXPRESSION",
        _ => return None,
    })
}

/// The transaction has to be aborted, and nothing else is wrong (KIP-890).
pub(super) const TRANSACTION_ABORTABLE: i32 = 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_a_code_of_its_own_or_none() {
        for number in -300..300 {
            if let Some(code) = known(number) {
                assert_eq!(code as i32, number);
            }
        }
        assert_eq!((known(0), known(1)), (Some(Code::NoError), Some(Code::OffsetOutOfRange)));
        assert_eq!((known(103), known(-120), known(i32::MAX)), (None, None, None));
    }

    #[test]
    fn what_librdkafka_knows_has_no_name_here() {
        for number in -300..300 {
            assert!(known(number).is_none() || name(number).is_none(), "{number}");
        }
    }
}
