//! The chain of stateless operators: each wraps the one before it, so that a record passes all of them in one call that the
//! compiler has seen whole. Nothing here allocates or calls through a pointer.

use std::marker::PhantomData;

use crate::record::{Record, Timestamp};
use crate::serdes::{Deserializer, KeyBytes, Rejection};

/// What turns a record of a source topic into keys and values, which may borrow from it.
pub trait Chain: Send + Sync + 'static {
    /// The key that comes out.
    type Key<'r>;
    /// The value that comes out.
    type Value<'r>;

    /// Whether more than one may come out of a record. All that do have the record's event time.
    const FANS_OUT: bool;

    /// Passes a record through, calls `forward` with each (event time, key, value) that comes out, and gives the record's
    /// event time.
    ///
    /// # Errors
    /// Where the record cannot be read; nothing was forwarded then.
    fn process<'r>(
        &self,
        record: &Record<'r>,
        forward: &mut impl FnMut(Timestamp, Self::Key<'r>, Self::Value<'r>),
    ) -> Result<Timestamp, Rejection>;
}

/// Where a record's event time comes from.
pub trait TimestampExtractor<V: Deserializer>: Send + Sync + 'static {
    /// The event time of a record.
    ///
    /// # Errors
    /// Where it has none that can be believed.
    fn extract<'r>(&self, record: &Record<'r>, value: &V::Output<'r>) -> Result<Timestamp, Rejection>;
}

/// Event time is the record's own timestamp.
#[derive(Debug, Clone, Copy, Default)]
pub struct RecordTimestamp;

impl<V: Deserializer> TimestampExtractor<V> for RecordTimestamp {
    #[inline]
    fn extract<'r>(&self, record: &Record<'r>, _: &V::Output<'r>) -> Result<Timestamp, Rejection> {
        Ok(record.timestamp)
    }
}

/// Event time is what a function says.
#[derive(Debug, Clone, Copy)]
pub struct ExtractWith<F>(pub(crate) F);

impl<V, F> TimestampExtractor<V> for ExtractWith<F>
where
    V: Deserializer,
    F: for<'x, 'r> Fn(&'x Record<'r>, &'x V::Output<'r>) -> Result<Timestamp, Rejection> + Send + Sync + 'static,
{
    #[inline]
    fn extract<'r>(&self, record: &Record<'r>, value: &V::Output<'r>) -> Result<Timestamp, Rejection> {
        (self.0)(record, value)
    }
}

/// The head of a chain: deserializes.
#[derive(Debug)]
pub struct Source<K, V, T> {
    pub(crate) key: K,
    pub(crate) value: V,
    pub(crate) timestamp: T,
}

impl<K: Deserializer, V: Deserializer, T: TimestampExtractor<V>> Chain for Source<K, V, T> {
    type Key<'r> = K::Output<'r>;
    type Value<'r> = V::Output<'r>;
    const FANS_OUT: bool = false;

    #[inline]
    fn process<'r>(
        &self,
        record: &Record<'r>,
        forward: &mut impl FnMut(Timestamp, Self::Key<'r>, Self::Value<'r>),
    ) -> Result<Timestamp, Rejection> {
        let key = self.key.deserialize(record.key)?;
        let value = self.value.deserialize_value(record)?;
        let timestamp = self.timestamp.extract(record, &value)?;
        if timestamp.0 < 0 {
            return Err(Rejection::new("timestamp is negative"));
        }
        forward(timestamp, key, value);
        Ok(timestamp)
    }
}

/// `filter`.
#[derive(Debug)]
pub struct Filter<C, F>(pub(crate) C, pub(crate) F);

impl<C, F> Chain for Filter<C, F>
where
    C: Chain,
    F: for<'x, 'r> Fn(&'x C::Key<'r>, &'x C::Value<'r>) -> bool + Send + Sync + 'static,
{
    type Key<'r> = C::Key<'r>;
    type Value<'r> = C::Value<'r>;
    const FANS_OUT: bool = C::FANS_OUT;

    #[inline]
    fn process<'r>(
        &self,
        record: &Record<'r>,
        forward: &mut impl FnMut(Timestamp, Self::Key<'r>, Self::Value<'r>),
    ) -> Result<Timestamp, Rejection> {
        self.0.process(record, &mut |timestamp, key, value| {
            if (self.1)(&key, &value) {
                forward(timestamp, key, value);
            }
        })
    }
}

/// `peek`.
#[derive(Debug)]
pub struct Peek<C, F>(pub(crate) C, pub(crate) F);

impl<C, F> Chain for Peek<C, F>
where
    C: Chain,
    F: for<'x, 'r> Fn(&'x C::Key<'r>, &'x C::Value<'r>) + Send + Sync + 'static,
{
    type Key<'r> = C::Key<'r>;
    type Value<'r> = C::Value<'r>;
    const FANS_OUT: bool = C::FANS_OUT;

    #[inline]
    fn process<'r>(
        &self,
        record: &Record<'r>,
        forward: &mut impl FnMut(Timestamp, Self::Key<'r>, Self::Value<'r>),
    ) -> Result<Timestamp, Rejection> {
        self.0.process(record, &mut |timestamp, key, value| {
            (self.1)(&key, &value);
            forward(timestamp, key, value);
        })
    }
}

/// `map`.
#[derive(Debug)]
pub struct Map<C, F, K, V>(pub(crate) C, pub(crate) F, pub(crate) PhantomData<fn() -> (K, V)>);

impl<C, F, K, V> Chain for Map<C, F, K, V>
where
    C: Chain,
    F: for<'r> Fn(C::Key<'r>, C::Value<'r>) -> (K, V) + Send + Sync + 'static,
    K: 'static,
    V: 'static,
{
    type Key<'r> = K;
    type Value<'r> = V;
    const FANS_OUT: bool = C::FANS_OUT;

    #[inline]
    fn process<'r>(
        &self,
        record: &Record<'r>,
        forward: &mut impl FnMut(Timestamp, Self::Key<'r>, Self::Value<'r>),
    ) -> Result<Timestamp, Rejection> {
        self.0.process(record, &mut |timestamp, key, value| {
            let (key, value) = (self.1)(key, value);
            forward(timestamp, key, value);
        })
    }
}

/// `map_values`.
#[derive(Debug)]
pub struct MapValues<C, F, V>(pub(crate) C, pub(crate) F, pub(crate) PhantomData<fn() -> V>);

impl<C, F, V> Chain for MapValues<C, F, V>
where
    C: Chain,
    F: for<'r> Fn(C::Value<'r>) -> V + Send + Sync + 'static,
    V: 'static,
{
    type Key<'r> = C::Key<'r>;
    type Value<'r> = V;
    const FANS_OUT: bool = C::FANS_OUT;

    #[inline]
    fn process<'r>(
        &self,
        record: &Record<'r>,
        forward: &mut impl FnMut(Timestamp, Self::Key<'r>, Self::Value<'r>),
    ) -> Result<Timestamp, Rejection> {
        self.0.process(record, &mut |timestamp, key, value| forward(timestamp, key, (self.1)(value)))
    }
}

/// `flat_map`.
#[derive(Debug)]
pub struct FlatMap<C, F, I>(pub(crate) C, pub(crate) F, pub(crate) PhantomData<fn() -> I>);

impl<C, F, I, K, V> Chain for FlatMap<C, F, I>
where
    C: Chain,
    F: for<'r> Fn(C::Key<'r>, C::Value<'r>) -> I + Send + Sync + 'static,
    I: IntoIterator<Item = (K, V)> + 'static,
    K: 'static,
    V: 'static,
{
    type Key<'r> = K;
    type Value<'r> = V;
    const FANS_OUT: bool = true;

    #[inline]
    fn process<'r>(
        &self,
        record: &Record<'r>,
        forward: &mut impl FnMut(Timestamp, Self::Key<'r>, Self::Value<'r>),
    ) -> Result<Timestamp, Rejection> {
        self.0.process(record, &mut |timestamp, key, value| {
            for (key, value) in (self.1)(key, value) {
                forward(timestamp, key, value);
            }
        })
    }
}

/// What a grouped stream is grouped by.
pub trait KeySelector<C: Chain>: Send + Sync + 'static {
    /// Calls `use_key` with the grouping key's bytes, or gives none for a null key.
    fn with_key<'r, R>(&self, key: &C::Key<'r>, value: &C::Value<'r>, use_key: impl FnOnce(&[u8]) -> R) -> Option<R>;
}

/// Grouped by the stream's key.
#[derive(Debug, Clone, Copy)]
pub struct ByKey;

impl<C: Chain> KeySelector<C> for ByKey
where
    for<'r> C::Key<'r>: KeyBytes,
{
    #[inline]
    fn with_key<'r, R>(&self, key: &C::Key<'r>, _: &C::Value<'r>, use_key: impl FnOnce(&[u8]) -> R) -> Option<R> {
        key.with_bytes(use_key)
    }
}

/// Grouped by what a function picks, borrowed from the record.
#[derive(Debug)]
pub struct BySelected<F, K: ?Sized>(pub(crate) F, pub(crate) PhantomData<fn(&K)>);

impl<C, F, K> KeySelector<C> for BySelected<F, K>
where
    C: Chain,
    F: for<'x, 'r> Fn(&'x C::Key<'r>, &'x C::Value<'r>) -> &'x K + Send + Sync + 'static,
    K: KeyBytes + ?Sized + 'static,
{
    #[inline]
    fn with_key<'r, R>(&self, key: &C::Key<'r>, value: &C::Value<'r>, use_key: impl FnOnce(&[u8]) -> R) -> Option<R> {
        (self.0)(key, value).with_bytes(use_key)
    }
}
