//! Fetching from many partitions: what the broker in one process adds to the contract of every broker.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use millstream::broker::local::faults::{Call, CommitOutcome, Fault, FaultsAt, FaultyBroker};
use millstream::broker::local::{LocalBroker, LocalFetcher, MemoryBroker, MemoryLog};
use millstream::broker::{Broker, ErrorKind, Fetched, FetchedBatch, Fetcher, TopicSettings, TransactionalProducer};
use millstream::record::{Offset, Partition, Record, Timestamp};

use crate::doubtful::Doubtful;
use crate::{clock, tp, unit};

const NOW: Duration = Duration::ZERO;

/// Three partitions with a record each, and a fetcher of them.
fn three() -> (LocalBroker<Doubtful>, LocalFetcher<Doubtful>) {
    let broker = LocalBroker::open(Doubtful::new(MemoryLog::new()), clock(), "cluster").unwrap();
    broker.create_topic("clicks", &TopicSettings::kept_for_ever(3)).unwrap();
    let mut fetcher = broker.fetcher().unwrap();
    for partition in 0..3 {
        broker.append(unit(partition, &["a"])).unwrap();
        fetcher.start(&tp(partition), Offset(0)).unwrap();
    }
    (broker, fetcher)
}

/// The partition that the next batch is of.
fn next(fetcher: &mut impl Fetcher) -> Option<u32> {
    match fetcher.poll(NOW).unwrap() {
        Fetched::Batch(batch) => Some(batch.partition().partition.0),
        Fetched::Failed(partition, error) => panic!("{partition} failed: {error}"),
        Fetched::Nothing => None,
    }
}

#[test]
fn a_storage_that_is_out_of_order_for_now_holds_up_its_partition_alone() {
    let (broker, mut fetcher) = three();
    broker.storage().unreadable.lock().unwrap().insert(Partition(1), Some(ErrorKind::Retry));
    assert_eq!(next(&mut fetcher), Some(0));
    for _ in 0..3 {
        let error = fetcher.poll(NOW).unwrap_err();
        assert_eq!((error.kind(), error.partition()), (ErrorKind::Retry, Some(&tp(1))));
        broker.append(unit(2, &["b"])).unwrap();
        assert_eq!(next(&mut fetcher), Some(2), "the next has its turn");
    }
    broker.storage().unreadable.lock().unwrap().clear();
    assert_eq!(next(&mut fetcher), Some(1), "it is fetched all the while");
    assert_eq!(next(&mut fetcher), None);
}

#[test]
fn a_partition_that_cannot_be_read_fails_alone() {
    // A storage that has given up, and bytes that are no batch.
    for unreadable in [Some(ErrorKind::Stop), None] {
        let (broker, mut fetcher) = three();
        broker.storage().unreadable.lock().unwrap().insert(Partition(1), unreadable);
        assert_eq!(next(&mut fetcher), Some(0));
        let Fetched::Failed(partition, error) = fetcher.poll(NOW).unwrap() else { panic!("failed") };
        assert_eq!((&partition, error.kind(), error.partition()), (&tp(1), ErrorKind::Stop, Some(&tp(1))));
        assert_eq!(next(&mut fetcher), Some(2));
        assert_eq!(next(&mut fetcher), None, "told once");
        broker.storage().unreadable.lock().unwrap().clear();
        assert_eq!(next(&mut fetcher), None, "nor fetched");
        fetcher.start(&tp(1), Offset(0)).unwrap();
        assert_eq!(next(&mut fetcher), Some(1), "until it is started again");
    }
}

#[test]
fn a_batch_with_a_flipped_bit_names_its_partition() {
    let (broker, mut fetcher) = three();
    broker.storage().flips.store(true, Ordering::SeqCst);
    let Fetched::Batch(batch) = fetcher.poll(NOW).unwrap() else { panic!("a batch") };
    let error = batch.records(&mut Vec::new()).unwrap_err();
    assert_eq!((error.kind(), error.partition()), (ErrorKind::Stop, Some(&tp(0))));
}

#[test]
fn a_partition_that_is_not_there_cannot_be_started() {
    let (_broker, mut fetcher) = three();
    let error = fetcher.start(&tp(3), Offset(0)).unwrap_err();
    assert_eq!((error.kind(), error.partition()), (ErrorKind::Stop, Some(&tp(3))));
    fetcher.stop(&tp(3));
    assert_eq!(next(&mut fetcher), Some(0));
}

#[test]
fn a_fetcher_that_waits_is_woken_by_records_and_by_deletions() {
    let broker = MemoryBroker::in_memory(clock());
    broker.create_topic("clicks", &TopicSettings::kept_for_ever(2)).unwrap();
    let mut fetcher = broker.fetcher().unwrap();
    fetcher.start(&tp(1), Offset(0)).unwrap();
    let waiting = thread::spawn(move || fetcher.poll(Duration::from_secs(60)).map(|fetched| (fetched, fetcher)));
    broker.append(unit(0, &["of another"])).unwrap();
    broker.append(unit(1, &["a"])).unwrap();
    let (fetched, mut fetcher) = waiting.join().unwrap().unwrap();
    assert!(matches!(fetched, Fetched::Batch(batch) if *batch.partition() == tp(1)));
    fetcher.start(&tp(1), Offset(1)).unwrap();
    broker.append(unit(1, &["b"])).unwrap();
    broker.delete_records(&tp(1), Offset(2)).unwrap();
    assert!(matches!(fetcher.poll(NOW).unwrap(), Fetched::Failed(partition, _) if partition == tp(1)));
}

/// As on Kafka: what is not decided yet is waited for, and a position within it is one of the log's.
#[test]
fn an_open_transaction_is_waited_for() {
    let broker = MemoryBroker::in_memory(clock());
    broker.create_topic("clicks", &TopicSettings::kept_for_ever(1)).unwrap();
    let in_flight = FaultsAt::new().and(1, Call::Commit, Fault::OutcomeUnknown(CommitOutcome::InFlight));
    let mut producer = FaultyBroker::new(broker.clone(), std::sync::Arc::new(in_flight)).producer("p").unwrap();
    producer.begin().unwrap();
    for _ in 0..2 {
        producer.send(&tp(0), &Record::new(None, Some(b"open"), Timestamp(1))).unwrap();
    }
    assert_eq!(producer.commit().unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    broker.append(unit(0, &["after"])).unwrap();
    let (mut from_its_start, mut within) = (broker.fetcher().unwrap(), broker.fetcher().unwrap());
    from_its_start.start(&tp(0), Offset(0)).unwrap();
    within.start(&tp(0), Offset(1)).unwrap();
    assert_eq!((next(&mut from_its_start), next(&mut within)), (None, None));
    assert!(broker.settle(broker.open_transactions()[0], false).unwrap());
    for mut fetcher in [from_its_start, within] {
        let Fetched::Batch(batch) = fetcher.poll(NOW).unwrap() else { panic!("a batch") };
        let mut records = Vec::new();
        batch.records(&mut records).unwrap();
        assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), [Offset(2)]);
    }
}
