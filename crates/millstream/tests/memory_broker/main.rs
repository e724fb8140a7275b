//! The broker in memory: what it has beyond the traits.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../broker_contract/mod.rs"]
mod broker_contract;
mod doubtful;
mod fetching;
mod members;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use millstream::broker::group::Candidate;
use millstream::broker::local::{
    Appended, LocalBroker, LogChange, LogId, LogStorage, LogWrite, MemoryBroker, MemoryLog, Unit, VisitBatch, VisitEntry,
};
use millstream::broker::{
    Broker, BrokerError, CommittedOffset, ErrorKind, FetchedBatch, Isolation, LogReader, TopicSettings, TransactionalProducer,
};
use millstream::clock::ManualClock;
use millstream::record::{Offset, Partition, Record, Timestamp, TopicPartition};

use crate::doubtful::Doubtful;
use crate::members::assigned;

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp(0)))
}

fn tp(partition: u32) -> TopicPartition {
    TopicPartition::new("clicks", Partition(partition))
}

fn unit(partition: u32, values: &[&str]) -> Unit {
    let mut unit = Unit::new();
    for value in values {
        unit.add(&tp(partition), &Record::new(None, Some(value.as_bytes()), Timestamp(1)));
    }
    unit
}

fn values<S: LogStorage>(broker: &LocalBroker<S>, partition: u32) -> Vec<String> {
    let mut reader = broker.reader(&tp(partition), Offset(0)).unwrap();
    let mut values = Vec::new();
    while let Some(batch) = reader.read(Duration::ZERO).unwrap() {
        let mut records = Vec::new();
        batch.records(&mut records).unwrap();
        assert!(records.windows(2).all(|pair| pair[0].offset < pair[1].offset));
        values.extend(records.iter().map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
    }
    values
}

#[test]
fn keeps_the_contract_of_every_broker() {
    broker_contract::contract(&MemoryBroker::in_memory(clock()), broker_contract::Place::InProcess);
}

#[test]
fn a_unit_with_a_key_is_stored_once() {
    let clock = clock();
    let broker = MemoryBroker::in_memory(clock.clone());
    broker.create_topic("clicks", &TopicSettings::kept_for_ever(1)).unwrap();
    let keyed = |result: &str| {
        let mut unit = unit(0, &[result]);
        unit.set_idempotency_key(b"key", result.as_bytes());
        unit
    };
    assert!(matches!(broker.append(keyed("first")).unwrap(), Appended::Stored(_)));
    assert_eq!(broker.append(keyed("second")).unwrap(), Appended::AlreadyStored(b"first".to_vec()));
    assert_eq!(values(&broker, 0), ["first"]);

    let day = 24 * 60 * 60 * 1000;
    clock.set(Timestamp(day));
    broker.maintain().unwrap();
    assert_eq!(broker.append(keyed("third")).unwrap(), Appended::AlreadyStored(b"first".to_vec()), "kept for a day");
    clock.set(Timestamp(day + 1));
    broker.maintain().unwrap();
    assert!(matches!(broker.append(keyed("fourth")).unwrap(), Appended::Stored(_)));
    assert_eq!(values(&broker, 0), ["first", "fourth"]);
}

#[test]
fn concurrent_units_are_each_stored_whole_and_once() {
    const THREADS: usize = 8;
    const UNITS: usize = 50;
    let broker = MemoryBroker::in_memory(clock());
    broker.create_topic("clicks", &TopicSettings::kept_for_ever(1)).unwrap();
    let stored = AtomicUsize::new(0);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (broker, stored) = (&broker, &stored);
            scope.spawn(move || {
                for i in 0..UNITS {
                    // Every key is used by two threads.
                    let mut unit = unit(0, &[&format!("{i}-{}-a", thread / 2), &format!("{i}-{}-b", thread / 2)]);
                    unit.set_idempotency_key(format!("{i}-{}", thread / 2).as_bytes(), b"");
                    if let Appended::Stored(delivered) = broker.append(unit).unwrap() {
                        let (first, last) = delivered[&tp(0)];
                        assert_eq!(last.0, first.0 + 1);
                        stored.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(stored.into_inner(), THREADS / 2 * UNITS);
    let all = values(&broker, 0);
    assert_eq!(all.len(), THREADS * UNITS);
    assert!(all.chunks(2).all(|pair| pair[0].strip_suffix('a') == pair[1].strip_suffix('b')), "no unit is torn");
}

#[test]
fn everything_is_there_when_the_storage_is_opened_again() {
    let storage = MemoryLog::new();
    let open = || LocalBroker::open(storage.clone(), clock(), "cluster").unwrap();
    let (description, proof) = {
        let broker = open();
        broker.create_topic("clicks", &TopicSettings::kept_for_ever(2)).unwrap();
        broker.append(unit(0, &["a", "b", "c"])).unwrap();
        broker.delete_records(&tp(0), Offset(1)).unwrap();
        broker.add_partitions("clicks", 3).unwrap();
        let mut member = broker.join(&Candidate::new("group", "member", &["clicks".into()])).unwrap();
        let (partitions, fence) = assigned(&mut member);
        assert_eq!(partitions.len(), 3);
        let mut producer = broker.producer("p").unwrap();
        producer.begin().unwrap();
        let offset = CommittedOffset { offset: Offset(2), metadata: "meta".to_owned() };
        producer.send_offsets(&fence, &[(tp(0), offset)]).unwrap();
        producer.commit().unwrap();
        (broker.describe_topic("clicks").unwrap(), fence)
    };
    let broker = open();
    assert_eq!(broker.describe_topic("clicks").unwrap(), description);
    let range = broker.log_range(&tp(0), Isolation::ReadCommitted).unwrap();
    assert_eq!((range.start, range.end), (Offset(1), Offset(3)));
    let committed = broker.committed("group", &[tp(0), tp(1)]).unwrap();
    assert_eq!(committed, [Some(CommittedOffset { offset: Offset(2), metadata: "meta".to_owned() }), None]);
    let mut producer = broker.producer("p").unwrap();
    producer.begin().unwrap();
    assert_eq!(producer.send_offsets(&proof, &[]).unwrap_err().kind(), ErrorKind::AbortTransaction, "its group is gone");
    assert!(matches!(broker.append(unit(0, &["d"])).unwrap(), Appended::Stored(delivered) if delivered[&tp(0)].0 == Offset(3)));
}

#[test]
fn a_corrupt_batch_is_named_and_never_passed_over() {
    let broker = LocalBroker::open(Doubtful::new(MemoryLog::new()), clock(), "cluster").unwrap();
    broker.create_topic("clicks", &TopicSettings::kept_for_ever(1)).unwrap();
    broker.append(unit(0, &["a", "b"])).unwrap();
    broker.append(unit(0, &["c"])).unwrap();
    broker.storage().flips.store(true, Ordering::SeqCst);
    let batch = broker.reader(&tp(0), Offset(2)).unwrap().read(Duration::ZERO).unwrap().unwrap();
    let error = batch.records(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stop);
    assert!(error.to_string().contains("clicks-0") && error.to_string().contains("offset 2"), "{error}");
}

#[test]
fn a_failed_write_that_turns_up_is_taken_back() {
    let inner = MemoryLog::new();
    let broker = LocalBroker::open(Doubtful::new(inner.clone()), clock(), "cluster").unwrap();
    broker.create_topic("clicks", &TopicSettings::kept_for_ever(2)).unwrap();
    broker.append(unit(0, &["kept"])).unwrap();
    let keyed = || {
        let mut unit = unit(0, &["one", "two", "three"]);
        unit.add(&tp(1), &Record::new(None, Some(b"four"), Timestamp(1)));
        unit.set_idempotency_key(b"key", b"result");
        unit
    };
    broker.storage().fails.store(1, Ordering::SeqCst);
    assert_eq!(broker.append(keyed()).unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(values(&broker, 0), ["kept"]);
    broker.append(unit(0, &["after"])).unwrap();
    assert_eq!(values(&broker, 0), ["kept", "after"]);
    // The key went with the records, so that the client's second try stores them.
    broker.storage().fails.store(1, Ordering::SeqCst);
    assert!(broker.append(keyed()).is_err());
    assert!(matches!(broker.append(keyed()).unwrap(), Appended::Stored(_)));
    drop(broker);
    let again = LocalBroker::open(inner, clock(), "cluster").unwrap();
    assert_eq!(values(&again, 0), ["kept", "after", "one", "two", "three"]);
    assert_eq!(values(&again, 1), ["four"]);
}

#[test]
fn a_failed_write_may_turn_up_after_a_restart_and_is_answered_so() {
    let inner = MemoryLog::new();
    let open = || LocalBroker::open(Doubtful::new(inner.clone()), clock(), "cluster").unwrap();
    let broker = open();
    broker.create_topic("clicks", &TopicSettings::kept_for_ever(1)).unwrap();
    broker.storage().fails.store(2, Ordering::SeqCst);
    let keyed = || {
        let mut unit = unit(0, &["perhaps"]);
        unit.set_idempotency_key(b"key", b"result");
        unit
    };
    assert_eq!(broker.append(keyed()).unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(broker.append(unit(0, &["surely not"])).unwrap_err().kind(), ErrorKind::Retry, "only the first was tried");
    broker.append(unit(0, &["stored"])).unwrap();
    broker.storage().fails.store(1, Ordering::SeqCst);
    assert_eq!(broker.append(keyed()).unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    drop(broker);
    let again = open();
    assert_eq!(values(&again, 0), ["stored", "perhaps"], "nobody took it back");
    assert_eq!(again.append(keyed()).unwrap(), Appended::AlreadyStored(b"result".to_vec()));
}

#[test]
fn a_storage_that_breaks_for_good_leaves_only_the_write_under_way_in_doubt() {
    let broker = LocalBroker::open(Doubtful::failing_with(ErrorKind::Stop, MemoryLog::new()), clock(), "cluster").unwrap();
    broker.create_topic("clicks", &TopicSettings::kept_for_ever(1)).unwrap();
    broker.storage().fails.store(usize::MAX, Ordering::SeqCst);
    assert_eq!(broker.append(unit(0, &["perhaps"])).unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(broker.append(unit(0, &["surely not"])).unwrap_err().kind(), ErrorKind::Stop);
}

#[test]
fn another_format_version_is_refused() {
    let storage = MemoryLog::new();
    let version = LogChange::PutEntry { key: b"v".to_vec(), value: b"\x02id".to_vec() };
    storage.write(&LogWrite { changes: vec![version] }).unwrap();
    let error = LocalBroker::open(storage, clock(), "cluster").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stop);
    assert!(error.to_string().contains("version 2"), "{error}");
}

#[test]
fn a_writer_that_panics_fails_its_units_and_no_others() {
    /// A storage that panics once.
    struct Panics(MemoryLog, AtomicBool);
    impl LogStorage for Panics {
        fn write(&self, write: &LogWrite) -> Result<(), BrokerError> {
            assert!(!self.1.swap(false, Ordering::SeqCst), "as it was told to");
            self.0.write(write)
        }
        fn read(&self, log: LogId, from: Offset, visit: &mut VisitBatch<'_>) -> Result<(), BrokerError> {
            self.0.read(log, from, visit)
        }
        fn entry(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BrokerError> {
            self.0.entry(key)
        }
        fn entries(&self, from: &[u8], to: &[u8], visit: &mut VisitEntry<'_>) -> Result<(), BrokerError> {
            self.0.entries(from, to, visit)
        }
    }
    let broker = LocalBroker::open(Panics(MemoryLog::new(), AtomicBool::new(false)), clock(), "cluster").unwrap();
    broker.create_topic("clicks", &TopicSettings::kept_for_ever(1)).unwrap();
    broker.storage().1.store(true, Ordering::SeqCst);
    let other = broker.clone();
    assert!(thread::spawn(move || other.append(unit(0, &["lost"]))).join().is_err());
    broker.append(unit(0, &["kept"])).unwrap();
    assert_eq!(values(&broker, 0), ["kept"]);
}

#[test]
fn a_unit_for_a_partition_that_is_not_there_names_it_where_it_is_the_only_one() {
    let broker = MemoryBroker::in_memory(clock());
    broker.create_topic("clicks", &TopicSettings::kept_for_ever(1)).unwrap();
    let mut producer = broker.producer("p").unwrap();
    let mut refused = |partitions: &[u32]| {
        producer.begin().unwrap();
        let record = Record::new(None, None, Timestamp(1));
        partitions.iter().for_each(|partition| producer.send(&tp(*partition), &record).unwrap());
        let error = producer.commit().unwrap_err();
        producer.abort().unwrap();
        (error.kind(), error.partition().cloned())
    };
    assert_eq!(refused(&[0, 7]), (ErrorKind::Stop, Some(tp(7))));
    assert_eq!(refused(&[0, 7, 8]), (ErrorKind::Stop, None), "a transaction without one of them fails too");
    assert_eq!(values(&broker, 0), [""; 0]);
}
