//! What every broker behind the traits does, written once. Each test opens topics and groups of its own on the broker given.

use std::time::{Duration, Instant};

use millstream::broker::{
    Broker, CommittedOffset, Consumer, ErrorKind, FetchedBatch, GroupMetadata, Isolation, LogRange, LogReader, Polled,
    TopicSettings, TransactionalProducer,
};
use millstream::record::{HeadersBuf, Offset, Partition, Record, Timestamp, Topic, TopicPartition};

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
    offsets_carry_metadata(broker, place);
    a_new_producer_fences_the_old(broker);
    partitions_pass_from_hand_to_hand(broker, place);
    a_member_that_left_cannot_commit(broker, place);
    a_rewound_partition_is_read_again(broker);
    deleted_records_are_out_of_range(broker);
    if place == Place::InProcess {
        fetches_take_turns(broker);
    }
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

fn assigned<C: Consumer>(consumer: &mut C) -> (Vec<TopicPartition>, GroupMetadata) {
    match event(consumer) {
        Polled::Assigned { partitions, group } => (partitions, group),
        other => panic!("expected Assigned, got {}", name(&other)),
    }
}

/// What has come to a member, and the proof for what stays with the one that gave it up. Both poll, for a group may ask each of them
/// for something before it goes on; in a cluster until both are in the same generation.
fn handed_over<C: Consumer>(
    giver: &mut C,
    mut proof: GroupMetadata,
    taker: &mut C,
    place: Place,
) -> (Vec<TopicPartition>, GroupMetadata) {
    let (began, mut taken, mut generation) = (Instant::now(), Vec::new(), 0);
    loop {
        match giver.poll(Duration::ZERO).unwrap() {
            Polled::Nothing => {}
            Polled::Assigned { partitions, group } if partitions.is_empty() => proof = group,
            other => panic!("expected nothing, got {}", name(&other)),
        }
        match taker.poll(Duration::from_millis(20)).unwrap() {
            Polled::Nothing => {}
            Polled::Assigned { partitions, group } => {
                taken.extend(partitions);
                generation = group.generation;
            }
            other => panic!("expected Assigned, got {}", name(&other)),
        }
        if !taken.is_empty() && (place == Place::InProcess || generation == proof.generation) {
            return (taken, proof);
        }
        assert!(began.elapsed() < SOON, "nothing is handed over");
    }
}

/// What is to be given up, and the proof under which that may still be committed.
fn revoked<C: Consumer>(consumer: &mut C, mut proof: GroupMetadata) -> (Vec<TopicPartition>, GroupMetadata) {
    loop {
        match consumer.poll(SOON).unwrap() {
            Polled::Assigned { partitions, group } if partitions.is_empty() => proof = group,
            Polled::Revoked { partitions } => return (partitions, proof),
            other => panic!("expected Revoked, got {}", name(&other)),
        }
    }
}

/// The next event but for those that tell of nothing new: a new proof alone, or an end of a log.
fn event<C: Consumer>(consumer: &mut C) -> Polled<C::Batch> {
    let began = Instant::now();
    loop {
        match consumer.poll(SOON.saturating_sub(began.elapsed())).unwrap() {
            Polled::Assigned { partitions, .. } if partitions.is_empty() => {}
            Polled::Batch(batch) if texts(&batch).is_empty() => {}
            event => return event,
        }
    }
}

/// Whether a poll brings nothing but a new proof at most.
fn brings_nothing<C: Consumer>(consumer: &mut C) -> bool {
    match consumer.poll(Duration::ZERO).unwrap() {
        Polled::Nothing => true,
        Polled::Assigned { partitions, .. } => partitions.is_empty(),
        _ => false,
    }
}

fn name<B>(polled: &Polled<B>) -> &'static str {
    match polled {
        Polled::Assigned { .. } => "Assigned",
        Polled::Revoked { .. } => "Revoked",
        Polled::Lost => "Lost",
        Polled::Batch(_) => "Batch",
        Polled::Nothing => "Nothing",
    }
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

fn offsets_carry_metadata<B: Broker>(broker: &B, place: Place) {
    broker.create_topic("metadata", &TopicSettings::kept_for_ever(2)).unwrap();
    let mut consumer = broker.subscribe("metadata", "member", &["metadata".into()]).unwrap();
    let (partitions, group) = assigned(&mut consumer);
    assert_eq!(partitions, [tp("metadata", 0), tp("metadata", 1)]);
    assert_eq!(broker.committed("metadata", &partitions).unwrap(), [None, None]);
    let offset = CommittedOffset { offset: Offset(0), metadata: "AgAA=".to_owned() };
    let mut producer = broker.producer("metadata").unwrap();
    producer.begin().unwrap();
    producer.send_offsets(&group, &[(partitions[1].clone(), offset.clone())]).unwrap();
    if place == Place::InProcess {
        assert_eq!(broker.committed("metadata", &partitions).unwrap(), [None, None], "not before the commit");
    }
    producer.commit().unwrap();
    assert_eq!(broker.committed("metadata", &partitions).unwrap(), [None, Some(offset)]);
    consumer.leave().unwrap();
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

fn partitions_pass_from_hand_to_hand<B: Broker>(broker: &B, place: Place) {
    let topic: Topic = "hands".into();
    broker.create_topic(&topic, &TopicSettings::kept_for_ever(4)).unwrap();
    let mut first = broker.subscribe("hands", "member", std::slice::from_ref(&topic)).unwrap();
    let (all, proof) = assigned(&mut first);
    assert_eq!(all.len(), 4);
    let mut second = broker.subscribe("hands", "member", &[topic]).unwrap();
    assert!(brings_nothing(&mut second), "not before they were given up");
    let (going, proof) = revoked(&mut first, proof);
    assert_eq!(going.len(), 2, "half of them, and no more");
    assert!(brings_nothing(&mut second), "not before the holder polls again");

    // What is being revoked may still be committed.
    let mut producer = broker.producer("hands-first").unwrap();
    producer.begin().unwrap();
    producer.send_offsets(&proof, &[(going[0].clone(), at(0))]).unwrap();
    producer.commit().unwrap();
    let (come, still_good) = handed_over(&mut first, proof.clone(), &mut second, place);
    assert_eq!(come, going);
    assert_eq!(broker.committed("hands", &going[..1]).unwrap(), [Some(at(0))]);

    // From here on not, while those that stayed are.
    producer.begin().unwrap();
    let refused = producer.send_offsets(&proof, &[(going[0].clone(), at(0))]).and_then(|()| producer.commit());
    assert_eq!(kind(refused), ErrorKind::AbortTransaction);
    producer.abort().unwrap();
    let stayed = all.iter().find(|partition| !going.contains(partition)).unwrap();
    producer.begin().unwrap();
    producer.send_offsets(&still_good, &[(stayed.clone(), at(0))]).unwrap();
    producer.commit().unwrap();

    second.leave().unwrap();
    let (back, newer) = assigned(&mut first);
    assert_eq!(back, going);
    producer.begin().unwrap();
    let refused = producer.send_offsets(&proof, &[(going[0].clone(), at(0))]).and_then(|()| producer.commit());
    assert_eq!(kind(refused), ErrorKind::AbortTransaction, "the old proof is not good for what came back");
    producer.abort().unwrap();
    producer.begin().unwrap();
    producer.send_offsets(&newer, &[(going[0].clone(), at(0)), (stayed.clone(), at(0))]).unwrap();
    producer.commit().unwrap();
    first.leave().unwrap();
}

fn a_member_that_left_cannot_commit<B: Broker>(broker: &B, place: Place) {
    broker.create_topic("left", &TopicSettings::kept_for_ever(1)).unwrap();
    let mut consumer = broker.subscribe("left", "member", &["left".into()]).unwrap();
    let (partitions, proof) = assigned(&mut consumer);
    let mut producer = broker.producer("left").unwrap();
    producer.begin().unwrap();
    producer.send(&partitions[0], &Record::new(None, Some(b"late"), Timestamp(1))).unwrap();
    let offsets = [(partitions[0].clone(), at(0))];
    if place == Place::InProcess {
        producer.send_offsets(&proof, &offsets).unwrap();
        consumer.leave().unwrap();
        assert_eq!(kind(producer.commit()), ErrorKind::AbortTransaction);
    } else {
        consumer.leave().unwrap();
        assert_eq!(kind(producer.send_offsets(&proof, &offsets)), ErrorKind::AbortTransaction);
    }
    producer.abort().unwrap();
    assert_eq!(broker.committed("left", &partitions).unwrap(), [None]);
    assert_eq!(read_all(broker, &partitions[0]), [""; 0]);
}

fn a_rewound_partition_is_read_again<B: Broker>(broker: &B) {
    broker.create_topic("rewound", &TopicSettings::kept_for_ever(1)).unwrap();
    let from = tp("rewound", 0);
    produce(broker, &from, &["a", "b", "c"]);
    let mut consumer = broker.subscribe("rewound", "member", &["rewound".into()]).unwrap();
    assigned(&mut consumer);
    assert!(matches!(consumer.poll(Duration::ZERO).unwrap(), Polled::Nothing), "nothing before it is started");
    let batch = |consumer: &mut B::Consumer| match event(consumer) {
        Polled::Batch(batch) => texts(&batch),
        other => panic!("expected Batch, got {}", name(&other)),
    };
    consumer.start(&from, Offset(0)).unwrap();
    assert_eq!(batch(&mut consumer), ["a", "b", "c"]);
    consumer.start(&from, Offset(1)).unwrap();
    assert_eq!(batch(&mut consumer), ["b", "c"]);
    consumer.start(&from, Offset(2)).unwrap();
    consumer.pause(&from).unwrap();
    assert!(matches!(consumer.poll(Duration::ZERO).unwrap(), Polled::Nothing));
    consumer.leave().unwrap();
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

fn fetches_take_turns<B: Broker>(broker: &B) {
    broker.create_topic("turns", &TopicSettings::kept_for_ever(2)).unwrap();
    let large = "x".repeat(600_000);
    for partition in 0..2 {
        produce(broker, &tp("turns", partition), &[&large, &large, &large, &large, &large, &large]);
    }
    let mut consumer = broker.subscribe("turns", "member", &["turns".into()]).unwrap();
    let (partitions, _) = assigned(&mut consumer);
    for partition in &partitions {
        consumer.start(partition, Offset(0)).unwrap();
    }
    let mut seen = Vec::new();
    while let Polled::Batch(batch) = consumer.poll(Duration::ZERO).unwrap() {
        seen.push((batch.partition().partition.0, texts(&batch).len()));
    }
    assert_eq!(seen.iter().map(|(_, records)| records).sum::<usize>(), 12);
    assert!(seen.len() >= 4, "a fetch is bounded: {seen:?}");
    assert!(seen[..4].windows(2).all(|pair| pair[0].0 != pair[1].0), "in turn: {seen:?}");
    consumer.leave().unwrap();
}
