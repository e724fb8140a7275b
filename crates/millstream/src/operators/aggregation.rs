//! What is kept of the records of one key and window.

use std::marker::PhantomData;

use crate::serdes::{Deserializer, Rejection, Serializer};
use crate::varint;

/// An aggregate that can be made in parts: `merge` is associative and commutative, and `init` is its neutral element.
///
/// That is what lets a source task combine before the shuffle: it sends one partial aggregate for each key and window and not
/// a record for each event.
pub trait Aggregation: Send + Sync + 'static {
    /// The aggregate, whole or in part.
    type Acc: Send + 'static;

    /// Whether what is kept are counts, which [`Counts`](crate::query::Counts) reads.
    const HOLDS_COUNTS: bool = false;

    /// The aggregate of nothing.
    fn init(&self) -> Self::Acc;

    /// Adds another part.
    fn merge(&self, into: &mut Self::Acc, other: Self::Acc);

    /// Appends the value as it stands on changelog and output topics.
    ///
    /// # Errors
    /// Where [`Aggregation::decode`] would not read it: what is sent or stored can always be read again.
    fn encode(&self, acc: &Self::Acc, into: &mut Vec<u8>) -> Result<(), EncodeError>;

    /// Reads what [`Aggregation::encode`] wrote.
    fn decode(&self, bytes: &[u8]) -> Option<Self::Acc>;

    /// Appends the value as it stands in stores and on the repartition topic, where only we read it.
    ///
    /// # Errors
    /// As [`Aggregation::encode`].
    fn encode_compact(&self, acc: &Self::Acc, into: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.encode(acc, into)
    }

    /// Reads what [`Aggregation::encode_compact`] wrote.
    fn decode_compact(&self, bytes: &[u8]) -> Option<Self::Acc> {
        self.decode(bytes)
    }

    /// Appends both forms.
    ///
    /// # Errors
    /// As [`Aggregation::encode`].
    fn encode_both(&self, acc: &Self::Acc, compact: &mut Vec<u8>, value: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.encode_compact(acc, compact)?;
        self.encode(acc, value)
    }

    /// Makes the compact form of the other, and gives the weight; none where it cannot be read.
    fn compact(&self, value: &[u8], into: &mut Vec<u8>) -> Option<i64> {
        let acc = self.decode(value)?;
        self.encode_compact(&acc, into).ok()?;
        Some(self.weight(&acc))
    }

    /// Undoes [`Aggregation::compact`].
    fn expand(&self, compact: &[u8], into: &mut Vec<u8>) -> Option<i64> {
        let acc = self.decode_compact(compact)?;
        self.encode(&acc, into).ok()?;
        Some(self.weight(&acc))
    }

    /// The aggregate of one event of which only key and time are known, where there is such a thing: Kafka Streams' own
    /// repartition topic of a count carries nothing else that matters.
    fn one(&self) -> Option<Self::Acc> {
        None
    }

    /// What totals and rankings add up: for a count the count, for others nothing.
    fn weight(&self, _: &Self::Acc) -> i64 {
        0
    }
}

/// Why an aggregate cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The serializer says that there is no value.
    #[error("its serializer makes null of it")]
    Null,
    /// The deserializer refuses what the serializer wrote, for that reason.
    #[error("its deserializer refuses what its serializer wrote ({0})")]
    Unreadable(Rejection),
}

/// `count`: how many records there were.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count;

impl Aggregation for Count {
    type Acc = i64;
    const HOLDS_COUNTS: bool = true;

    #[inline]
    fn init(&self) -> i64 {
        0
    }

    #[inline]
    fn merge(&self, into: &mut i64, other: i64) {
        *into += other;
    }

    /// Kafka's `LongSerializer`: what Kafka Streams' own count writes.
    fn encode(&self, acc: &i64, into: &mut Vec<u8>) -> Result<(), EncodeError> {
        into.extend_from_slice(&acc.to_be_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Option<i64> {
        Some(i64::from_be_bytes(bytes.try_into().ok()?))
    }

    fn encode_compact(&self, acc: &i64, into: &mut Vec<u8>) -> Result<(), EncodeError> {
        varint::put_signed(*acc, into);
        Ok(())
    }

    fn decode_compact(&self, mut bytes: &[u8]) -> Option<i64> {
        let acc = varint::take_signed(&mut bytes)?;
        bytes.is_empty().then_some(acc)
    }

    fn one(&self) -> Option<i64> {
        Some(1)
    }

    fn weight(&self, acc: &i64) -> i64 {
        *acc
    }
}

/// `aggregate`: what the given functions make of the records.
#[derive(Debug)]
pub struct Custom<A, I, M, S> {
    pub(crate) init: I,
    pub(crate) merge: M,
    pub(crate) serde: S,
    pub(crate) acc: PhantomData<fn() -> A>,
}

impl<A, I, M, S> Aggregation for Custom<A, I, M, S>
where
    A: Send + 'static,
    I: Fn() -> A + Send + Sync + 'static,
    M: Fn(&mut A, A) + Send + Sync + 'static,
    S: Serializer<A> + for<'r> Deserializer<Output<'r> = A>,
{
    type Acc = A;

    fn init(&self) -> A {
        (self.init)()
    }

    fn merge(&self, into: &mut A, other: A) {
        (self.merge)(into, other);
    }

    /// The serde is the user's: that it reads what it wrote is seen before anything rests on it, for then it is too late. (JSON writes a
    /// number that is none as null, and reads no number from that.)
    fn encode(&self, acc: &A, into: &mut Vec<u8>) -> Result<(), EncodeError> {
        let start = into.len();
        if !self.serde.serialize(acc, into) {
            return Err(EncodeError::Null);
        }
        self.serde.deserialize(Some(&into[start..])).map(drop).map_err(EncodeError::Unreadable)
    }

    fn decode(&self, bytes: &[u8]) -> Option<A> {
        self.serde.deserialize(Some(bytes)).ok()
    }

    // There is one form only: it is not made twice, and what was written stays as it was written.

    fn encode_both(&self, acc: &A, compact: &mut Vec<u8>, value: &mut Vec<u8>) -> Result<(), EncodeError> {
        let start = compact.len();
        self.encode(acc, compact)?;
        value.extend_from_slice(&compact[start..]);
        Ok(())
    }

    fn compact(&self, value: &[u8], into: &mut Vec<u8>) -> Option<i64> {
        self.decode(value)?;
        into.extend_from_slice(value);
        Some(0)
    }

    fn expand(&self, compact: &[u8], into: &mut Vec<u8>) -> Option<i64> {
        self.compact(compact, into)
    }
}

/// How one event is added to an aggregate.
pub trait Add<A, C: super::chain::Chain>: Send + Sync + 'static {
    /// Adds the event.
    fn add<'r>(&self, acc: &mut A, value: &C::Value<'r>);
}

/// Counts the event.
#[derive(Debug, Clone, Copy)]
pub struct AddOne;

impl<C: super::chain::Chain> Add<i64, C> for AddOne {
    #[inline]
    fn add<'r>(&self, acc: &mut i64, _: &C::Value<'r>) {
        *acc += 1;
    }
}

/// Adds the event as a function says.
#[derive(Debug)]
pub struct AddWith<F>(pub(crate) F);

impl<A, C, F> Add<A, C> for AddWith<F>
where
    C: super::chain::Chain,
    F: for<'x, 'r> Fn(&'x mut A, &'x C::Value<'r>) + Send + Sync + 'static,
{
    #[inline]
    fn add<'r>(&self, acc: &mut A, value: &C::Value<'r>) {
        (self.0)(acc, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counts_round_trip(count in any::<i64>()) {
            let (mut kafka, mut compact) = (Vec::new(), Vec::new());
            Count.encode_both(&count, &mut compact, &mut kafka).unwrap();
            prop_assert_eq!(Count.decode(&kafka), Some(count));
            prop_assert_eq!(Count.decode_compact(&compact), Some(count));
            let (mut expanded, mut compacted) = (Vec::new(), Vec::new());
            prop_assert_eq!((Count.expand(&compact, &mut expanded), Count.compact(&kafka, &mut compacted)), (Some(count), Some(count)));
            prop_assert_eq!((expanded, compacted), (kafka, compact));
        }
    }
}
