//! What librdkafka offers and its Rust wrapper does not: batches from queues, readers outside groups, transactions without a
//! wait of their own, topic ids, offsets by isolation, and the generation of a membership.
//!
//! All unsafe code of this crate is here. Each type owns what it points to, frees it when dropped, and keeps the client alive that
//! it came from, so that nothing outside of this module can misuse it.

mod admin;
mod configs;
mod failure;
mod membership;
mod message;
mod position;
mod queue;
mod topic;
mod transaction;

use std::ffi::{CStr, CString, c_char};
use std::time::Duration;

pub(crate) use admin::{Admin, End, NewTopic};
pub(crate) use failure::Failure;
pub(crate) use membership::{Membership, membership};
pub(crate) use message::Message;
pub(crate) use position::position;
pub(crate) use queue::{KeepAlive, Queue};
pub(crate) use topic::Consumption;
pub(crate) use transaction::{commit_transaction, flush, send_offsets};

/// A timeout as librdkafka takes it.
fn millis(timeout: Duration) -> i32 {
    timeout.as_millis().try_into().unwrap_or(i32::MAX)
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
