//! What every broker behind the traits does, written once. Each test opens topics and groups of its own on the broker given.

mod fetching;
mod membership;

use std::time::{Duration, Instant};

use millstream::broker::{
    Broker, CommittedOffset, ErrorKind, FetchedBatch, Isolation, LogRange, LogReader, TopicSettings, TransactionalProducer,
};
use millstream::record::{HeadersBuf, Offset, Partition, Record, Timestamp, TopicPartition};

/// Long enough for an event that has to come.
const SOON: Duration = Duration::from_secs(30);

/// Where a broker in one process and one of many do the same in different ways, all of which the engine can live with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Everything happens at once.
    #[allow(dead_code, reason = "not every crate has a broker of this kind")]
    InProcess,
    /// - Every rebalance begins a new generation for all: a member is given a new proof though nothing came to it, and its old one
    ///   is no good even for what stayed. In a process, what stayed is committed on the old one.
    /// - A membership is checked when positions are sent. In a process it is checked once more at the commit.
    /// - Positions that an open transaction is about to change are waited for. In a process they are as they were before.
    /// - Partitions are fetched side by side and come as they come. In a process they take turns.
    #[allow(dead_code, reason = "not every crate has a broker of this kind")]
    Cluster,
}

/// Runs all of it.
pub(crate) fn contract<B: Broker>(broker: &B, place: Place) {
    topics(broker);
    a_transaction_is_all_or_nothing(broker);
    records_come_back_as_they_were(broker);
    a_new_producer_fences_the_old(broker);
    deleted_records_are_out_of_range(broker);
    membership::contract(broker, place);
    fetching::contract(broker, place);
}

fn tp(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition::new(topic, Partition(partition))
}

fn at(offset: i64) -> CommittedOffset {
    CommittedOffset { offset: Offset(offset), metadata: String::new() }
}

fn kind<T: std::fmt::Debug>(outcome: Result<T, millstream::broker::BrokerError>) -> ErrorKind {
    outcome.expect_err("refused").kind()
}

/// Commits one record per value.
fn produce<B: Broker>(broker: &B, to: &TopicPartition, values: &[&str]) {
    let mut producer = broker.producer("contract-produce").unwrap();
    producer.begin().unwrap();
    for value in values {
        producer.send(to, &Record::new(None, Some(value.as_bytes()), Timestamp(1))).unwrap();
    }
    producer.commit().unwrap();
}

/// Reads what is committed, to the end of the log: no transaction may be open there.
fn read_all<B: Broker>(broker: &B, from: &TopicPartition) -> Vec<String> {
    let LogRange { start, end } = broker.log_range(from, Isolation::ReadUncommitted).unwrap();
    let mut reader = broker.reader(from, start).unwrap();
    let mut values = Vec::new();
    let began = Instant::now();
    while reader.position() < end {
        assert!(began.elapsed() < SOON, "{from} is read up to {} of {end}", reader.position());
        if let Some(batch) = reader.read(SOON).unwrap() {
            values.extend(texts(&batch));
        }
    }
    values
}

fn texts(batch: &impl FetchedBatch) -> Vec<String> {
    let mut records = Vec::new();
    batch.records(&mut records).unwrap();
    records.iter().map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap()).collect()
}

fn topics<B: Broker>(broker: &B) {
    assert_eq!(broker.describe_topic("topics-none").unwrap(), None);
    broker.create_topic("topics-a", &TopicSettings::kept_for_ever(3)).unwrap();
    broker.create_topic("topics-a", &TopicSettings::kept_for_ever(3)).unwrap();
    broker.create_topic("topics-b", &TopicSettings::compacted(1)).unwrap();
    let (a, b) = (broker.describe_topic("topics-a").unwrap().unwrap(), broker.describe_topic("topics-b").unwrap().unwrap());
    assert_eq!((a.partitions, b.partitions), (3, 1));
    assert_ne!(a.id, b.id);
    assert_eq!(kind(broker.create_topic("topics-a", &TopicSettings::kept_for_ever(4))), ErrorKind::Stop);
    assert_eq!(kind(broker.log_range(&tp("topics-a", 3), Isolation::ReadCommitted)), ErrorKind::Stop);
    assert_eq!(
        broker.log_range(&tp("topics-a", 2), Isolation::ReadUncommitted).unwrap(),
        LogRange { start: Offset(0), end: Offset(0) }
    );
}

fn a_transaction_is_all_or_nothing<B: Broker>(broker: &B) {
    broker.create_topic("atomic", &TopicSettings::kept_for_ever(2)).unwrap();
    let (a, b) = (tp("atomic", 0), tp("atomic", 1));
    let mut producer = broker.producer("atomic").unwrap();
    assert_eq!(kind(producer.send(&a, &Record::new(None, None, Timestamp(0)))), ErrorKind::Stop, "no transaction");
    producer.begin().unwrap();
    for value in ["one", "two"] {
        producer.send(&a, &Record::new(None, Some(value.as_bytes()), Timestamp(1))).unwrap();
    }
    producer.send(&b, &Record::new(None, Some(b"three"), Timestamp(1))).unwrap();
    assert_eq!(broker.log_range(&a, Isolation::ReadCommitted).unwrap().end, Offset(0), "nothing before the commit");
    let delivered = producer.commit().unwrap();
    assert_eq!(delivered[&a].1.0 - delivered[&a].0.0, 1);
    producer.begin().unwrap();
    producer.send(&a, &Record::new(None, Some(b"given up"), Timestamp(1))).unwrap();
    producer.abort().unwrap();
    produce(broker, &a, &["four"]);
    assert_eq!(read_all(broker, &a), ["one", "two", "four"]);
    assert_eq!(read_all(broker, &b), ["three"]);
}

fn records_come_back_as_they_were<B: Broker>(broker: &B) {
    broker.create_topic("as-they-were", &TopicSettings::kept_for_ever(1)).unwrap();
    let to = tp("as-they-were", 0);
    let mut headers = HeadersBuf::new();
    headers.push("reason", b"none");
    let tombstone = Record::new(Some(b"key"), None, Timestamp(5));
    let full = Record::new(Some(b""), Some(b"value"), Timestamp(-3)).with_headers(headers.as_headers());
    let mut producer = broker.producer("as-they-were").unwrap();
    producer.begin().unwrap();
    producer.send(&to, &tombstone).unwrap();
    producer.send(&to, &full).unwrap();
    let (first, last) = producer.commit().unwrap()[&to];
    let batch = broker.reader(&to, first).unwrap().read(SOON).unwrap().expect("there are records");
    let mut records = Vec::new();
    batch.records(&mut records).unwrap();
    assert_eq!(records, [Record { offset: first, ..tombstone }, Record { offset: last, ..full }]);
    assert!(batch.next_offset() > last);
}

fn a_new_producer_fences_the_old<B: Broker>(broker: &B) {
    broker.create_topic("fenced", &TopicSettings::kept_for_ever(1)).unwrap();
    let to = tp("fenced", 0);
    let mut old = broker.producer("fenced").unwrap();
    old.begin().unwrap();
    old.send(&to, &Record::new(None, Some(b"zombie"), Timestamp(1))).unwrap();
    let mut new = broker.producer("fenced").unwrap();
    assert_eq!(kind(old.commit()), ErrorKind::Fenced);
    assert_eq!(kind(old.begin()), ErrorKind::Fenced);
    new.begin().unwrap();
    new.send(&to, &Record::new(None, Some(b"alive"), Timestamp(1))).unwrap();
    new.commit().unwrap();
    assert_eq!(read_all(broker, &to), ["alive"]);
}

fn deleted_records_are_out_of_range<B: Broker>(broker: &B) {
    broker.create_topic("deleted", &TopicSettings::kept_for_ever(1)).unwrap();
    let from = tp("deleted", 0);
    produce(broker, &from, &["a", "b", "c"]);
    let mut behind = broker.reader(&from, Offset(0)).unwrap();
    broker.delete_records(&from, Offset(2)).unwrap();
    assert_eq!(broker.log_range(&from, Isolation::ReadCommitted).unwrap().start, Offset(2));
    assert_eq!(kind(behind.read(SOON).map(drop)), ErrorKind::OffsetOutOfRange);
    assert_eq!(read_all(broker, &from), ["c"]);
    broker.delete_records(&from, Offset(1)).unwrap();
    assert_eq!(broker.log_range(&from, Isolation::ReadCommitted).unwrap().start, Offset(2), "a start never falls");
    broker.delete_records(&from, Offset(i64::MAX)).unwrap();
    let end = broker.log_range(&from, Isolation::ReadCommitted).unwrap();
    assert_eq!(end.start, end.end);
    produce(broker, &from, &["d"]);
    assert_eq!(read_all(broker, &from), ["d"]);
}
