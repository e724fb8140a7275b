//! A message as librdkafka fetched it, owned.

use std::ffi::{CStr, c_void};
use std::ptr::{self, NonNull};

use millstream::record::HeadersBuf;
use rdkafka_sys as sys;

use super::{Failure, codes, text};

/// A fetched message, or an event of its partition (see [`Message::failure`]).
#[derive(Debug)]
pub(crate) struct Message(NonNull<sys::rd_kafka_message_t>);

// SAFETY: a message belongs to one owner, and librdkafka lets any thread read and destroy it.
unsafe impl Send for Message {}
// SAFETY: shared access only reads, except for headers, which are parsed on the first call: `push_headers` takes `&mut self`.
unsafe impl Sync for Message {}

impl Message {
    /// Takes a message over.
    ///
    /// # Safety
    /// The message came from a consume call and nobody else destroys it.
    pub(super) unsafe fn from_native(message: *mut sys::rd_kafka_message_t) -> Option<Self> {
        NonNull::new(message).map(Self)
    }

    /// Why this is no record: the end of the partition, or something went wrong there.
    pub(crate) fn failure(&self) -> Option<Failure> {
        // SAFETY: the message is ours, so it lives until we are dropped, and its text as long.
        unsafe {
            let said = || text(sys::rd_kafka_message_errstr(self.0.as_ptr()));
            Failure::check_with(codes::of_message(self.0.as_ptr()), said).err()
        }
    }

    pub(crate) fn offset(&self) -> i64 {
        // SAFETY: the message is ours, so it lives until we are dropped, and nobody writes to it. The field alone is read, never the
        // whole message: the error code in it may be none that the wrapper knows.
        unsafe { (*self.0.as_ptr()).offset }
    }

    pub(crate) fn partition(&self) -> i32 {
        // SAFETY: as above.
        unsafe { (*self.0.as_ptr()).partition }
    }

    fn native_topic(&self) -> *mut sys::rd_kafka_topic_t {
        // SAFETY: as above.
        unsafe { (*self.0.as_ptr()).rkt }
    }

    /// Whether both come from the same partition.
    pub(crate) fn is_beside(&self, other: &Message) -> bool {
        self.partition() == other.partition() && self.native_topic() == other.native_topic()
    }

    /// The topic's name.
    pub(crate) fn topic(&self) -> &str {
        let topic = self.native_topic();
        if topic.is_null() {
            return "";
        }
        // SAFETY: a message keeps its topic alive, and the topic its name, which ends with a zero byte.
        let name = unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(topic)) };
        name.to_str().unwrap_or_default()
    }

    pub(crate) fn key(&self) -> Option<&[u8]> {
        let message = self.0.as_ptr();
        // SAFETY: key and length belong together and lie in the message's buffer, which lives as long as the message.
        unsafe { bytes((*message).key, (*message).key_len) }
    }

    pub(crate) fn value(&self) -> Option<&[u8]> {
        let message = self.0.as_ptr();
        // SAFETY: payload and length belong together and lie in the message's buffer, which lives as long as the message.
        unsafe { bytes((*message).payload, (*message).len) }
    }

    /// Milliseconds since the epoch; -1 where the record has none.
    pub(crate) fn timestamp(&self) -> i64 {
        // SAFETY: the message lives; the type of the timestamp may be left unasked.
        unsafe { sys::rd_kafka_message_timestamp(self.0.as_ptr(), ptr::null_mut()) }
    }

    /// Appends the headers. Says whether there were any.
    pub(crate) fn push_headers(&mut self, into: &mut HeadersBuf) -> bool {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is ours alone for the call, which may parse the headers into it.
        let code = unsafe { codes::rd_kafka_message_headers(self.0.as_ptr(), &mut headers) };
        if code != codes::NO_ERROR || headers.is_null() {
            return false;
        }
        for index in 0.. {
            let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0);
            // SAFETY: the headers belong to the message and live as long; each pointer is written by the call if it succeeds.
            let code = unsafe { codes::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut length) };
            if code != codes::NO_ERROR || name.is_null() {
                return index > 0;
            }
            // SAFETY: the call succeeded: the name ends with a zero byte, value and length belong together, and both live as long
            // as the headers.
            let (name, value) = unsafe { (CStr::from_ptr(name), bytes(value, length)) };
            into.push(&name.to_string_lossy(), value.unwrap_or_default());
        }
        false
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: it is ours, and dropped once.
        unsafe { sys::rd_kafka_message_destroy(self.0.as_ptr()) };
    }
}

/// # Safety
/// `first` is null or points to `length` bytes that live and do not change for `'a`.
unsafe fn bytes<'a>(first: *const c_void, length: usize) -> Option<&'a [u8]> {
    if first.is_null() {
        return None;
    }
    // SAFETY: it is not null, and the caller vouches for the rest.
    Some(unsafe { std::slice::from_raw_parts(first.cast(), length) })
}
