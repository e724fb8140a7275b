//! What librdkafka offers and its Rust wrapper does not: batches from queues, fetching outside groups, transactions without a
//! wait of their own, topic ids, offsets by isolation, the generation of a membership, error codes that it does not know, consumers
//! that close without its help, and producers whose thread sleeps.
//!
//! All unsafe code of this crate is here. Each type owns what it points to, frees it when dropped, and keeps the client alive that
//! it came from, so that nothing outside of this module can misuse it.

mod admin;
mod codes;
mod committed;
mod configs;
mod consumer;
mod event;
mod failure;
mod groups;
mod membership;
mod message;
mod metadata;
#[cfg(test)]
mod mock;
mod offsets;
mod poll;
mod producer;
mod queue;
mod replicas;
mod topic;
mod topics;
mod transaction;

use std::ffi::{CStr, CString, c_char};
use std::time::Duration;

pub(crate) use admin::{Admin, End, NewTopic};
pub(crate) use codes::words;
pub(crate) use committed::committed;
pub(crate) use consumer::Consumer;
pub(crate) use failure::Failure;
pub(crate) use groups::Member;
pub(crate) use membership::Membership;
pub(crate) use message::Message;
pub(crate) use metadata::{known_partitions, look_again};
#[cfg(test)]
pub(crate) use mock::Mock;
pub(crate) use offsets::At;
pub(crate) use poll::poll;
pub(crate) use producer::{Deliver, Producer, pass_on};
pub(crate) use queue::{KeepAlive, Queue};
pub(crate) use replicas::Replicas;
pub(crate) use topic::Consumption;
pub(crate) use transaction::{
    abort_transaction, begin_transaction, commit_transaction, flush, init_transactions, send_offsets, transaction_failure,
};

/// A timeout as librdkafka takes it. A part of a millisecond is a whole one: a caller that waits for the rest of its time would otherwise
/// ask again and again without waiting.
fn millis(timeout: Duration) -> i32 {
    timeout.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(i32::MAX)
}

/// A name as C wants it. Kafka's names hold no zero byte; one that does is cut there and will not be found.
fn c_string(text: &str) -> CString {
    let text = text.split('\0').next().unwrap_or_default();
    CString::new(text).unwrap_or_default()
}

/// The text behind a pointer of librdkafka's, or an empty one where there is none.
///
/// # Safety
/// `text` is null, or points to a string that ends with a zero byte and lives at least as long as this call.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: it is not null, and the caller vouches for the rest.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// The elements of an array that librdkafka lends.
///
/// # Safety
/// `first` is null or points to `count` elements that live and do not change for `'a`.
unsafe fn array<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if first.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: it is not null, and the caller vouches for the rest.
    unsafe { std::slice::from_raw_parts(first, count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_never_shorter_than_asked_for() {
        assert_eq!(millis(Duration::ZERO), 0);
        assert_eq!(millis(Duration::from_micros(800)), 1);
        assert_eq!(millis(Duration::from_micros(99_001)), 100);
        assert_eq!(millis(Duration::from_millis(100)), 100);
        assert_eq!(millis(Duration::MAX), i32::MAX);
    }
}
