use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::aggregation::{Add, AddOne, AddWith, Aggregation, Count, Custom};
use super::chain::{ByKey, BySelected, Chain, Filter, FlatMap, KeySelector, Map, MapValues, Peek};
use super::spec::{End, Pipeline};
use super::{EmitStrategy, Materialized};
use crate::partitioner::partition_for_key;
use crate::record::{Partition, Record, Topic, TopicPartition};
use crate::serdes::{Deserializer, KeyBytes, Rejection, Serializer};
use crate::task::grouping::WindowedGrouping;
use crate::task::{OutputBuffer, Passed, Transform, WindowedSpec};
use crate::time::TimeWindows;

type Pipelines = RefCell<Vec<Pipeline>>;

/// A stream of records. Its operators borrow from the record where they can; what `map` and its kin make is owned.
pub struct KStream<'b, C> {
    pipelines: &'b Pipelines,
    source: Topic,
    operators: Vec<&'static str>,
    chain: C,
    key_changed: bool,
}

impl<'b, C: Chain> KStream<'b, C> {
    pub(super) fn new(pipelines: &'b Pipelines, source: Topic, chain: C) -> Self {
        Self { pipelines, source, operators: Vec::new(), chain, key_changed: false }
    }

    /// Keeps the records that the predicate is true of.
    pub fn filter<F>(self, predicate: F) -> KStream<'b, Filter<C, F>>
    where
        F: for<'x, 'r> Fn(&'x C::Key<'r>, &'x C::Value<'r>) -> bool + Send + Sync + 'static,
    {
        self.then("FILTER", false, |chain| Filter(chain, predicate))
    }

    /// Looks at each record.
    pub fn peek<F>(self, look: F) -> KStream<'b, Peek<C, F>>
    where
        F: for<'x, 'r> Fn(&'x C::Key<'r>, &'x C::Value<'r>) + Send + Sync + 'static,
    {
        self.then("PEEK", false, |chain| Peek(chain, look))
    }

    /// Makes one record of each, with a key and value of its own. To group by a part of the record without copying it, see
    /// [`KStream::group_by`].
    pub fn map<K, V, F>(self, mapper: F) -> KStream<'b, Map<C, F, K, V>>
    where
        F: for<'r> Fn(C::Key<'r>, C::Value<'r>) -> (K, V) + Send + Sync + 'static,
        K: 'static,
        V: 'static,
    {
        self.then("MAP", true, |chain| Map(chain, mapper, PhantomData))
    }

    /// Makes another value of each and keeps the key.
    pub fn map_values<V, F>(self, mapper: F) -> KStream<'b, MapValues<C, F, V>>
    where
        F: for<'r> Fn(C::Value<'r>) -> V + Send + Sync + 'static,
        V: 'static,
    {
        self.then("MAPVALUES", false, |chain| MapValues(chain, mapper, PhantomData))
    }

    /// Makes any number of records of each, all with its event time. An aggregate takes all of them or none: where its window is closed the
    /// record is late, once, and where one of them has no grouping key the record is dead-lettered, so that it can be put right and sent
    /// again without anything being counted twice. Of a record of which none is made nothing is left: it is filtered.
    pub fn flat_map<I, K, V, F>(self, mapper: F) -> KStream<'b, FlatMap<C, F, I>>
    where
        F: for<'r> Fn(C::Key<'r>, C::Value<'r>) -> I + Send + Sync + 'static,
        I: IntoIterator<Item = (K, V)> + 'static,
        K: 'static,
        V: 'static,
    {
        self.then("FLATMAP", true, |chain| FlatMap(chain, mapper, PhantomData))
    }

    /// Groups by the key. Where no operator has changed it, nothing is shuffled: the source must then be partitioned by it as
    /// Java clients do (murmur2), which is checked.
    pub fn group_by_key(self) -> KGroupedStream<'b, C, ByKey>
    where
        for<'r> C::Key<'r>: KeyBytes,
    {
        KGroupedStream { keyed: !self.key_changed, stream: self, selector: ByKey }
    }

    /// Groups by something borrowed from the record, which is shuffled for it.
    pub fn group_by<K, F>(self, select: F) -> KGroupedStream<'b, C, BySelected<F, K>>
    where
        F: for<'x, 'r> Fn(&'x C::Key<'r>, &'x C::Value<'r>) -> &'x K + Send + Sync + 'static,
        K: KeyBytes + ?Sized + 'static,
    {
        KGroupedStream { keyed: false, stream: self, selector: BySelected(select, PhantomData) }
    }

    /// Writes the records to a topic, partitioned by their keys as Java clients do.
    pub fn to<KS, VS>(self, topic: impl Into<Topic>, key: KS, value: VS)
    where
        KS: for<'r> Serializer<C::Key<'r>>,
        VS: for<'r> Serializer<C::Value<'r>>,
    {
        let topic = topic.into();
        let transform = Arc::new(ToTopic { chain: self.chain, key, value, topic: topic.clone() });
        let end = End::Sink { topic, transform };
        self.pipelines.borrow_mut().push(Pipeline { source: self.source, operators: self.operators, end });
    }

    fn then<D>(mut self, operator: &'static str, changes_key: bool, wrap: impl FnOnce(C) -> D) -> KStream<'b, D> {
        self.operators.push(operator);
        KStream {
            pipelines: self.pipelines,
            source: self.source,
            operators: self.operators,
            chain: wrap(self.chain),
            key_changed: self.key_changed || changes_key,
        }
    }
}

struct ToTopic<C, KS, VS> {
    chain: C,
    key: KS,
    value: VS,
    topic: Topic,
}

impl<C, KS, VS> Transform for ToTopic<C, KS, VS>
where
    C: Chain,
    KS: for<'r> Serializer<C::Key<'r>>,
    VS: for<'r> Serializer<C::Value<'r>>,
{
    fn process(
        &self,
        records: &[Record<'_>],
        partitions: u32,
        into: &mut OutputBuffer,
        reject: &mut dyn FnMut(&Record<'_>, &Rejection),
    ) -> Passed {
        let (mut key_bytes, mut value_bytes) = (Vec::new(), Vec::new());
        let mut passed = Passed::default();
        for record in records {
            let mut is_sent = false;
            let outcome = self.chain.process(record, &mut |timestamp, key, value| {
                key_bytes.clear();
                value_bytes.clear();
                let key = self.key.serialize(&key, &mut key_bytes).then_some(key_bytes.as_slice());
                let value = self.value.serialize(&value, &mut value_bytes).then_some(value_bytes.as_slice());
                let partition = key.map_or(Partition(0), |key| partition_for_key(key, partitions));
                into.push(TopicPartition::new(self.topic.clone(), partition), key, value, timestamp);
                is_sent = true;
            });
            match outcome {
                Ok(_) if is_sent => passed.sent += 1,
                Ok(_) => passed.filtered += 1,
                Err(rejection) => reject(record, &rejection),
            }
        }
        passed
    }
}

/// A stream whose records are grouped by a key.
pub struct KGroupedStream<'b, C, S> {
    stream: KStream<'b, C>,
    selector: S,
    keyed: bool,
}

impl<'b, C: Chain, S: KeySelector<C>> KGroupedStream<'b, C, S> {
    /// Says that the source topic is partitioned by the grouping key already, so that nothing needs to be shuffled. A task
    /// checks each key and is quarantined at the first record that is not where it belongs; the others go on.
    pub fn already_partitioned(self) -> Self {
        Self { keyed: true, ..self }
    }

    /// Divides each group into windows.
    pub fn windowed_by(self, windows: TimeWindows) -> TimeWindowedKStream<'b, C, S> {
        TimeWindowedKStream { grouped: self, windows, emit: EmitStrategy::default() }
    }
}

/// A grouped stream divided into windows.
pub struct TimeWindowedKStream<'b, C, S> {
    grouped: KGroupedStream<'b, C, S>,
    windows: TimeWindows,
    emit: EmitStrategy,
}

impl<'b, C: Chain, S: KeySelector<C>> TimeWindowedKStream<'b, C, S> {
    /// When results are sent on; with each update unless told otherwise.
    pub fn emit_strategy(self, emit: EmitStrategy) -> Self {
        Self { emit, ..self }
    }

    /// Counts the records of each key and window.
    pub fn count(self, materialized: Materialized) -> WindowedKTable<'b> {
        self.finish("COUNT", AddOne, Count, materialized)
    }

    /// Aggregates the records of each key and window: `init` makes an empty aggregate, `add` adds a value, and `merge` joins two
    /// parts. `merge` must be associative and commutative, with `init` as its neutral element.
    ///
    /// The value's serde must read back all that the aggregate is: it is written and read again with every commit, wherever that
    /// falls. The task of an aggregate that the serde makes null of or refuses to read back is quarantined, and nothing of its
    /// commit is kept; the others go on.
    pub fn aggregate<A, I, D, M, VS>(self, init: I, add: D, merge: M, materialized: Materialized<VS>) -> WindowedKTable<'b>
    where
        A: Send + 'static,
        I: Fn() -> A + Send + Sync + 'static,
        D: for<'x, 'r> Fn(&'x mut A, &'x C::Value<'r>) + Send + Sync + 'static,
        M: Fn(&mut A, A) + Send + Sync + 'static,
        VS: Serializer<A> + for<'r> Deserializer<Output<'r> = A>,
    {
        let Materialized { store, retention, value_serde: serde } = materialized;
        let aggregation = Custom { init, merge, serde, acc: PhantomData };
        self.finish("AGGREGATE", AddWith(add), aggregation, Materialized { store, retention, value_serde: () })
    }

    fn finish<D, A>(self, operator: &'static str, add: D, aggregation: A, materialized: Materialized) -> WindowedKTable<'b>
    where
        A: Aggregation,
        D: Add<A::Acc, C>,
    {
        let Self { grouped: KGroupedStream { stream, selector, keyed }, windows, emit } = self;
        let shortest = Duration::from_millis((windows.size_ms() + windows.grace_ms()) as u64);
        let store: Arc<str> = materialized.store.into();
        let spec = WindowedSpec {
            store: store.clone(),
            windows,
            retention: materialized.retention.unwrap_or(shortest),
            emit,
            output: None,
            keyed,
            operator,
            grouping: Arc::new(WindowedGrouping { chain: stream.chain, selector, add, aggregation, windows, store }),
        };
        let mut pipelines = stream.pipelines.borrow_mut();
        let index = pipelines.len();
        pipelines.push(Pipeline { source: stream.source, operators: stream.operators, end: End::Windowed(spec) });
        WindowedKTable { pipelines: stream.pipelines, index }
    }
}

/// The result of a windowed aggregate.
pub struct WindowedKTable<'b> {
    pipelines: &'b Pipelines,
    index: usize,
}

impl WindowedKTable<'_> {
    /// Writes the results to a topic: key = windowed key, value as on the changelog, timestamp = largest event time counted.
    /// With [`EmitStrategy::OnWindowClose`] each final window is followed, on each partition, by an end record.
    pub fn to(self, topic: impl Into<Topic>) {
        if let Some(Pipeline { end: End::Windowed(spec), .. }) = self.pipelines.borrow_mut().get_mut(self.index) {
            spec.output = Some(topic.into());
        }
    }
}
