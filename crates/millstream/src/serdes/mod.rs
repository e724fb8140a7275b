//! From bytes to values and back: what sources read with and what keys and outputs are written with.
//!
//! A [`Deserializer`] may give a value that borrows from the record. The bytes are those of Kafka's own serializers
//! (`org.apache.kafka.common.serialization`), so that either side reads what the other wrote.

mod json;
mod key;
mod primitive;
mod windowed;

use std::borrow::Cow;

use crate::record::Record;

pub use json::Json;
pub use key::KeyBytes;
pub use primitive::{Bytes, Int, Long, Utf8};
pub use windowed::WindowedKey;

/// Reads a record's key or value.
pub trait Deserializer: Send + Sync + 'static {
    /// What comes out; may borrow from the record's bytes.
    type Output<'r>;

    /// Reads the bytes; none where the record has no key or is a tombstone.
    ///
    /// # Errors
    /// A [`Rejection`] sends the record to the dead-letter topic with its reason.
    fn deserialize<'r>(&self, bytes: Option<&'r [u8]>) -> Result<Self::Output<'r>, Rejection>;

    /// Reads a record's value. For a deserializer that needs to see more of the record than the value's bytes.
    ///
    /// # Errors
    /// As [`Deserializer::deserialize`].
    #[inline]
    fn deserialize_value<'r>(&self, record: &Record<'r>) -> Result<Self::Output<'r>, Rejection> {
        self.deserialize(record.value)
    }
}

/// Writes values of type `T`.
pub trait Serializer<T: ?Sized>: Send + Sync + 'static {
    /// Appends the value's bytes to `into`, and says whether there is a value at all: `false` makes it null.
    fn serialize(&self, value: &T, into: &mut Vec<u8>) -> bool;
}

/// Why a record cannot be processed. The reason travels with it to the dead-letter topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Rejection {
    reason: Cow<'static, str>,
}

impl Rejection {
    /// A rejection for that reason, a short phrase.
    pub fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: reason.into() }
    }

    /// The reason.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}
