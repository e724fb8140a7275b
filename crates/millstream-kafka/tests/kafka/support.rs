//! What the tests share.

use std::time::{Duration, Instant};

use kafka_test_server::Cluster;
use millstream::broker::{
    Broker, BrokerError, CommittedOffset, ErrorKind, Fence, Fetched, FetchedBatch, Fetcher, Isolation, LogReader, MemberEvent,
    Membership, TransactionalProducer,
};
use millstream::record::{Offset, Partition, Record, Timestamp, TopicPartition};
use millstream_kafka::{KafkaBatch, KafkaBroker, KafkaConfig, KafkaFetcher, KafkaMembership};

/// Long enough for anything that has to come.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A broker on the server that all tests share.
pub(crate) fn broker() -> KafkaBroker {
    broker_of(Cluster::shared())
}

/// A broker whose members notice a rebalance, and are missed, sooner than by default.
pub(crate) fn broker_of(cluster: &Cluster) -> KafkaBroker {
    broker_with(cluster, &[])
}

pub(crate) fn broker_with(cluster: &Cluster, properties: &[(&str, &str)]) -> KafkaBroker {
    let quick = [("heartbeat.interval.ms", "300"), ("session.timeout.ms", "6000")];
    let properties = quick.iter().chain(properties).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    KafkaBroker::new(KafkaConfig::new(cluster.bootstrap_servers(), properties).unwrap()).unwrap()
}

pub(crate) fn tp(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition::new(topic, Partition(partition))
}

pub(crate) fn at(offset: i64) -> CommittedOffset {
    CommittedOffset { offset: Offset(offset), metadata: String::new() }
}

/// What comes of it as soon as it does not fail with what may succeed later, as the engine asks too.
pub(crate) fn patiently<T>(mut attempt: impl FnMut() -> Result<T, BrokerError>) -> T {
    let began = Instant::now();
    loop {
        match attempt() {
            Err(error) if error.kind() == ErrorKind::Retry && began.elapsed() < SOON => {}
            outcome => return outcome.unwrap(),
        }
    }
}

/// Where a log ends once no transaction is open: the broker writes the marker of one that was ended a moment later.
pub(crate) fn settled_end(broker: &KafkaBroker, partition: &TopicPartition) -> Offset {
    let began = Instant::now();
    loop {
        let end = |isolation| broker.log_range(partition, isolation).unwrap().end;
        let (stable, end) = (end(Isolation::ReadCommitted), end(Isolation::ReadUncommitted));
        if stable == end {
            return end;
        }
        assert!(began.elapsed() < SOON, "{partition} is stable up to {stable} of {end}");
    }
}

/// Commits one record per value in one transaction, of which the marker is there too.
pub(crate) fn produce(broker: &KafkaBroker, to: &TopicPartition, values: &[&str]) {
    let mut producer = broker.producer(&format!("produce-{to}")).unwrap();
    producer.begin().unwrap();
    for value in values {
        producer.send(to, &Record::new(None, Some(value.as_bytes()), Timestamp(1))).unwrap();
    }
    producer.commit().unwrap();
    settled_end(broker, to);
}

/// What is committed now, to the end of the log: no transaction may be open there.
pub(crate) fn read_all(broker: &KafkaBroker, from: &TopicPartition) -> Vec<String> {
    let range = patiently(|| broker.log_range(from, Isolation::ReadUncommitted));
    let mut reader = broker.reader(from, range.start).unwrap();
    let (mut values, began) = (Vec::new(), Instant::now());
    while reader.position() < range.end {
        assert!(began.elapsed() < SOON, "{from} is read up to {} of {}", reader.position(), range.end);
        if let Some(batch) = patiently(|| reader.read(Duration::from_millis(100))) {
            values.extend(texts(&batch));
        }
    }
    values
}

pub(crate) fn texts(batch: &impl FetchedBatch) -> Vec<String> {
    let mut records = Vec::new();
    batch.records(&mut records).unwrap();
    records.iter().map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap()).collect()
}

/// Polls until the event that is looked for comes, and says what it was.
pub(crate) fn poll_until<T>(member: &mut KafkaMembership, mut wanted: impl FnMut(MemberEvent) -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < SOON, "it does not come");
        if let Some(found) = wanted(patiently(|| member.poll(Duration::from_millis(100)))) {
            return found;
        }
    }
}

/// Polls until partitions are assigned.
pub(crate) fn assigned(member: &mut KafkaMembership) -> (Vec<TopicPartition>, Fence) {
    poll_until(member, |event| match event {
        MemberEvent::Assigned { partitions, fence } if !partitions.is_empty() => Some((partitions, fence)),
        _ => None,
    })
}

/// Polls until partitions are asked back; the proof is the one that is good by then.
pub(crate) fn revoked(member: &mut KafkaMembership, mut proof: Fence) -> (Vec<TopicPartition>, Fence) {
    let partitions = poll_until(member, |event| match event {
        MemberEvent::Revoked { partitions } => Some(partitions),
        MemberEvent::Assigned { fence, .. } => {
            proof = fence;
            None
        }
        _ => None,
    });
    (partitions, proof)
}

/// Polls until what is looked for was fetched, and says what it was.
pub(crate) fn fetch_until<T>(fetcher: &mut KafkaFetcher, mut wanted: impl FnMut(Fetched<KafkaBatch>) -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < SOON, "it does not come");
        if let Some(found) = wanted(fetcher.poll(Duration::from_millis(100)).unwrap()) {
            return found;
        }
    }
}

/// What is fetched until the position of the partition is that; nothing else may come meanwhile.
pub(crate) fn fetched_to(fetcher: &mut KafkaFetcher, partition: &TopicPartition, end: Offset) -> Vec<String> {
    let mut values = Vec::new();
    fetch_until(fetcher, |fetched| match fetched {
        Fetched::Batch(batch) => {
            assert_eq!(batch.partition(), partition);
            values.extend(texts(&batch));
            (batch.next_offset() >= end).then_some(())
        }
        Fetched::Failed(partition, error) => panic!("{partition}: {error}"),
        Fetched::Nothing => None,
    });
    values
}
