//! A transaction may be open for seconds only, however slow a disk is: what it sends is read before it begins.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream::broker::local::faults::{Call, Fault, FaultyBroker};
use millstream::broker::local::{MemoryBroker, Unit};
use millstream::broker::{Broker, ErrorKind, FetchedBatch, LogReader, TopicSettings};
use millstream::clock::ManualClock;
use millstream::record::{Offset, Partition, Record, Timestamp, TopicPartition};
use millstream::runtime::{Instance, Parts, Registry, StreamsConfig};
use millstream::serdes::{Bytes, Utf8};
use millstream::store::memory::MemoryStores;
use millstream::store::{Space, StateStore, StoreBatch, StoreError, StoreProvider, StoreSnapshot, VisitEntry};
use millstream::time::TimeWindows;
use millstream::topology::{EmitStrategy, Materialized, StreamsBuilder, Topology};

/// What happens to broker and stores, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Begin,
    End,
    Get,
    Scan,
}

type Events = Arc<Mutex<Vec<Event>>>;

/// Stores that note what is read of them.
struct Noted {
    stores: MemoryStores,
    events: Events,
}

struct NotedStore {
    store: Arc<dyn StateStore>,
    events: Events,
}

struct NotedSnapshot<'a> {
    snapshot: Box<dyn StoreSnapshot + 'a>,
    events: &'a Events,
}

fn note(events: &Events, event: Event) {
    events.lock().unwrap().push(event);
}

impl StoreProvider for Noted {
    fn open(&self, store: &str, partition: Partition) -> Result<Arc<dyn StateStore>, StoreError> {
        Ok(Arc::new(NotedStore { store: self.stores.open(store, partition)?, events: self.events.clone() }))
    }

    fn partitions(&self, store: &str) -> Result<Vec<Partition>, StoreError> {
        self.stores.partitions(store)
    }

    fn destroy(&self, store: &str, partition: Partition) -> Result<(), StoreError> {
        self.stores.destroy(store, partition)
    }
}

impl StateStore for NotedStore {
    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        note(&self.events, Event::Get);
        self.store.multi_get(keys)
    }

    fn write(&self, batch: &StoreBatch) -> Result<(), StoreError> {
        self.store.write(batch)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.store.flush()
    }

    fn snapshot(&self) -> Box<dyn StoreSnapshot + '_> {
        Box::new(NotedSnapshot { snapshot: self.store.snapshot(), events: &self.events })
    }
}

impl StoreSnapshot for NotedSnapshot<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        note(self.events, Event::Get);
        self.snapshot.get(space, key)
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        note(self.events, Event::Get);
        self.snapshot.multi_get(keys)
    }

    fn scan(&self, space: Space, from: &[u8], to: &[u8], visit: &mut VisitEntry<'_>) -> Result<(), StoreError> {
        note(self.events, Event::Scan);
        self.snapshot.scan(space, from, to, visit)
    }
}

/// Final windows are sent on, each key twice in one.
fn topology() -> Topology {
    let builder = StreamsBuilder::with_serdes(Bytes, Utf8);
    let windows = TimeWindows::of_size_with_no_grace(Duration::from_millis(10));
    let windowed = builder.stream("words").group_by(|_, word| *word).windowed_by(windows);
    windowed.emit_strategy(EmitStrategy::OnWindowClose).count(Materialized::as_("counts")).to("closed");
    builder.build().unwrap()
}

type Sent = (Vec<u8>, Vec<u8>, Timestamp, Vec<u8>);

/// Counts words of three windows, of which two become final and are sent in pieces of two rows. The commit of that number is refused.
/// Gives what happened, and the records of the final windows.
fn run(refused: Option<u64>) -> (Vec<Event>, Vec<Sent>) {
    let (events, commits) = (Events::default(), AtomicU64::new(0));
    let noted = events.clone();
    let faults = move |call| {
        match call {
            Call::Begin => note(&noted, Event::Begin),
            Call::Commit | Call::Abort => note(&noted, Event::End),
            _ => {}
        }
        let is_refused = call == Call::Commit && Some(commits.fetch_add(1, Ordering::Relaxed)) == refused;
        is_refused.then_some(Fault::Fail(ErrorKind::AbortTransaction))
    };
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    let memory = MemoryBroker::in_memory(clock.clone());
    memory.create_topic("words", &TopicSettings::kept_for_ever(1)).unwrap();
    let parts = Parts {
        broker: Arc::new(FaultyBroker::new(memory.clone(), Arc::new(faults))),
        topology: topology(),
        config: StreamsConfig { commit_interval: Duration::ZERO, final_rows_per_commit: 2, ..StreamsConfig::new("app") },
        provider: Arc::new(Noted { stores: MemoryStores::new(), events: events.clone() }),
        clock: clock.clone(),
        registry: Registry::new(),
        observer: Arc::new(()),
    };
    let mut instance = Instance::new(1, parts);
    for (words, time) in [("a b c d e", 1), ("a b c d e", 2), ("a f", 11), ("z", 100)] {
        for word in words.split(' ') {
            let mut unit = Unit::new();
            unit.add(&TopicPartition::new("words", Partition(0)), &Record::new(None, Some(word.as_bytes()), Timestamp(time)));
            memory.append(unit).unwrap();
        }
        for _ in 0..60 {
            instance.step(Duration::ZERO).unwrap();
            clock.advance_ms(10);
        }
    }
    let events = events.lock().unwrap().clone();
    (events, read(&memory, "closed"))
}

fn read(broker: &MemoryBroker, topic: &str) -> Vec<Sent> {
    let mut reader = broker.reader(&TopicPartition::new(topic, Partition(0)), Offset::ZERO).unwrap();
    let mut sent = Vec::new();
    while let Some(batch) = reader.read(Duration::ZERO).unwrap() {
        let mut records = Vec::new();
        batch.records(&mut records).unwrap();
        let owned = |bytes: Option<&[u8]>| bytes.unwrap().to_vec();
        let record = |r: &Record<'_>| (owned(r.key), owned(r.value), r.timestamp, r.headers.as_bytes().to_vec());
        sent.extend(records.iter().map(record));
    }
    sent
}

#[test]
fn what_a_transaction_sends_is_read_before_it_begins() {
    let (events, sent) = run(None);
    assert_eq!(sent.len(), 5 + 1 + 2 + 1, "two windows, each with its end record");
    let (mut is_open, mut transactions, mut reads) = (false, 0, 0);
    for event in events {
        match event {
            Event::Begin => (is_open, transactions) = (true, transactions + 1),
            Event::End => is_open = false,
            read => {
                assert!(!is_open, "{read:?} within transaction {transactions}");
                reads += 1;
            }
        }
    }
    assert!(transactions > 6 && reads > 6, "{reads} reads and {transactions} transactions");
}

#[test]
fn a_piece_of_a_final_window_whose_commit_was_refused_is_sent_again_as_it_was() {
    let (events, sent) = run(None);
    let commits = events.iter().filter(|event| **event == Event::Begin).count() as u64;
    for refused in 0..commits {
        assert_eq!(run(Some(refused)).1, sent, "where commit {refused} was refused");
    }
}
