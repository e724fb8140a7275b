//! What is kept of the records of one key and window.

use std::marker::PhantomData;

use crate::serdes::{Deserializer, Serializer};
use crate::varint;

/// An aggregate that can be made in parts: `merge` is associative and commutative, and `init` is its neutral element.
///
/// That is what lets a source task combine before the shuffle: it sends one partial aggregate for each key and window and not
/// a record for each event.
pub trait Aggregation: Send + Sync + 'static {
    /// The aggregate, whole or in part.
    type Acc: Send + 'static;

    /// The aggregate of nothing.
    fn init(&self) -> Self::Acc;

    /// Adds another part.
    fn merge(&self, into: &mut Self::Acc, other: Self::Acc);

    /// Appends the value as it stands on changelog and output topics.
    fn encode(&self, acc: &Self::Acc, into: &mut Vec<u8>);

    /// Reads what [`Aggregation::encode`] wrote.
    fn decode(&self, bytes: &[u8]) -> Option<Self::Acc>;

    /// Appends the value as it stands in stores and on the repartition topic, where only we read it.
    fn encode_compact(&self, acc: &Self::Acc, into: &mut Vec<u8>) {
        self.encode(acc, into);
    }

    /// Reads what [`Aggregation::encode_compact`] wrote.
    fn decode_compact(&self, bytes: &[u8]) -> Option<Self::Acc> {
        self.decode(bytes)
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

/// `count`: how many records there were.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count;

impl Aggregation for Count {
    type Acc = i64;

    #[inline]
    fn init(&self) -> i64 {
        0
    }

    #[inline]
    fn merge(&self, into: &mut i64, other: i64) {
        *into += other;
    }

    /// Kafka's `LongSerializer`: what Kafka Streams' own count writes.
    fn encode(&self, acc: &i64, into: &mut Vec<u8>) {
        into.extend_from_slice(&acc.to_be_bytes());
    }

    fn decode(&self, bytes: &[u8]) -> Option<i64> {
        Some(i64::from_be_bytes(bytes.try_into().ok()?))
    }

    fn encode_compact(&self, acc: &i64, into: &mut Vec<u8>) {
        varint::put_signed(*acc, into);
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
    pub(super) init: I,
    pub(super) merge: M,
    pub(super) serde: S,
    pub(super) acc: PhantomData<fn() -> A>,
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

    fn encode(&self, acc: &A, into: &mut Vec<u8>) {
        self.serde.serialize(acc, into);
    }

    fn decode(&self, bytes: &[u8]) -> Option<A> {
        self.serde.deserialize(Some(bytes)).ok()
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
pub struct AddWith<F>(pub(super) F);

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
            Count.encode(&count, &mut kafka);
            Count.encode_compact(&count, &mut compact);
            prop_assert_eq!(Count.decode(&kafka), Some(count));
            prop_assert_eq!(Count.decode_compact(&compact), Some(count));
        }
    }
}
