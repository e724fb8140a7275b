//! Partitions that pass from member to member, and a server that goes away and comes back.

use std::thread;
use std::time::{Duration, Instant};

use kafka_test_server::Cluster;
use millstream::broker::{Broker, Consumer, FetchedBatch, Isolation, Polled, TopicSettings, TransactionalProducer};
use millstream::record::{Offset, Topic};
use millstream_kafka::{KafkaBroker, KafkaConfig};

use crate::support::{SOON, assigned, at, broker, broker_of, poll_until, produce, read_all, settled_end, texts, tp};

/// While a partition is being revoked nobody else has it, and it can be committed; the new owner sees what was.
#[test]
fn a_revoked_partition_is_committed_before_it_moves() {
    let broker = broker();
    let topic: Topic = "moving".into();
    broker.create_topic(&topic, &TopicSettings::kept_for_ever(2)).unwrap();
    let mut first = broker.subscribe("moving", "member", std::slice::from_ref(&topic)).unwrap();
    let (_, proof) = assigned(&mut first);
    let mut second = broker.subscribe("moving", "member", std::slice::from_ref(&topic)).unwrap();
    // The new member is polled all the time, as an engine would.
    let heir = thread::spawn(move || {
        let (partitions, _) = assigned(&mut second);
        (partitions, second)
    });
    let mut proof = proof;
    let going = poll_until(&mut first, |polled| match polled {
        Polled::Revoked { partitions } => Some(partitions),
        Polled::Assigned { group, .. } => {
            proof = group;
            None
        }
        _ => None,
    });
    assert_eq!(going.len(), 1);
    thread::park_timeout(Duration::from_secs(2));
    assert!(!heir.is_finished(), "nobody has it until it is given up");
    let mut producer = broker.producer("moving").unwrap();
    producer.begin().unwrap();
    producer.send_offsets(&proof, &[(going[0].clone(), at(7))]).unwrap();
    producer.commit().unwrap();
    let began = std::time::Instant::now();
    while !heir.is_finished() {
        assert!(began.elapsed() < crate::support::SOON);
        first.poll(Duration::from_millis(50)).unwrap();
    }
    let (come, _second) = heir.join().unwrap();
    assert_eq!(come, going);
    assert_eq!(broker.committed("moving", &come).unwrap(), [Some(at(7))]);
}

#[test]
fn a_member_that_misses_its_polls_is_told_that_it_has_lost_everything() {
    let cluster = Cluster::shared();
    let quick = [("max.poll.interval.ms", "6000"), ("session.timeout.ms", "6000")];
    let broker = crate::support::broker_with(cluster, &quick);
    broker.create_topic("missed", &TopicSettings::kept_for_ever(1)).unwrap();
    let from = tp("missed", 0);
    let mut consumer = broker.subscribe("missed", "member", &["missed".into()]).unwrap();
    let (_, old) = assigned(&mut consumer);
    thread::park_timeout(Duration::from_secs(8));
    poll_until(&mut consumer, |polled| matches!(polled, Polled::Lost).then_some(()));
    let (_, new) = assigned(&mut consumer);
    let mut producer = broker.producer("missed").unwrap();
    producer.begin().unwrap();
    assert!(producer.send_offsets(&old, &[(from.clone(), at(0))]).is_err(), "the old proof is good for nothing");
    producer.abort().unwrap();
    producer.begin().unwrap();
    producer.send_offsets(&new, &[(from, at(0))]).unwrap();
    producer.commit().unwrap();
}

/// The session is longer than the test waits.
#[test]
fn a_static_member_that_starts_again_gets_its_partitions_back_at_once() {
    let properties = [("session.timeout.ms", "45000"), ("heartbeat.interval.ms", "1000")];
    let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let config = KafkaConfig::new(Cluster::shared().bootstrap_servers(), properties).unwrap().with_static_membership();
    let broker = KafkaBroker::new(config).unwrap();
    broker.create_topic("static", &TopicSettings::kept_for_ever(2)).unwrap();
    let mut before = broker.subscribe("static", "app-0-0", &["static".into()]).unwrap();
    let (had, old) = assigned(&mut before);
    // A static member does not leave: to the group this is a crash.
    drop(before);
    let mut after = broker.subscribe("static", "app-0-0", &["static".into()]).unwrap();
    let (has, new) = assigned(&mut after);
    assert_eq!(has, had);
    let mut producer = broker.producer("static").unwrap();
    producer.begin().unwrap();
    assert!(producer.send_offsets(&old, &[(tp("static", 0), at(0))]).is_err(), "whoever it was before cannot commit any more");
    producer.abort().unwrap();
    producer.begin().unwrap();
    producer.send_offsets(&new, &[(tp("static", 0), at(0))]).unwrap();
    producer.commit().unwrap();
}

/// The position passes what holds no record: markers, and what was aborted.
#[test]
fn a_consumer_gets_to_the_end_of_a_log_that_ends_without_records() {
    let broker = broker();
    broker.create_topic("markers", &TopicSettings::kept_for_ever(1)).unwrap();
    let from = tp("markers", 0);
    produce(&broker, &from, &["a"]);
    let mut producer = broker.producer("markers").unwrap();
    producer.begin().unwrap();
    producer.send(&from, &millstream::record::Record::new(None, Some(b"no"), millstream::record::Timestamp(1))).unwrap();
    // What is on the broker has a marker behind it when it is given up.
    let began = Instant::now();
    while broker.log_range(&from, Isolation::ReadUncommitted).unwrap().end < Offset(3) {
        assert!(began.elapsed() < SOON, "nothing is written");
    }
    producer.abort().unwrap();
    let end = settled_end(&broker, &from);
    let mut consumer = broker.subscribe("markers", "member", &["markers".into()]).unwrap();
    assigned(&mut consumer);
    consumer.start(&from, Offset(0)).unwrap();
    let mut values = Vec::new();
    poll_until(&mut consumer, |polled| match polled {
        Polled::Batch(batch) => {
            values.extend(texts(&batch));
            (batch.next_offset() >= end).then_some(())
        }
        _ => None,
    });
    assert_eq!(values, ["a"]);
    // At the end it stays quiet: nothing comes again and again.
    assert!(matches!(consumer.poll(Duration::from_millis(500)).unwrap(), Polled::Nothing));
}

#[test]
fn a_server_that_was_killed_and_is_back_is_found_again() {
    let cluster = Cluster::start(1);
    let broker = broker_of(&cluster);
    broker.create_topic("back", &TopicSettings::kept_for_ever(1)).unwrap();
    let from = tp("back", 0);
    produce(&broker, &from, &["before"]);
    let mut consumer = broker.subscribe("back", "member", &["back".into()]).unwrap();
    assigned(&mut consumer);
    consumer.start(&from, Offset(0)).unwrap();
    let mut values = Vec::new();
    let mut read = |consumer: &mut millstream_kafka::KafkaConsumer, until: &str| {
        poll_until(consumer, |polled| match polled {
            Polled::Batch(batch) => {
                values.extend(texts(&batch));
                values.iter().any(|value| value == until).then_some(())
            }
            _ => None,
        });
    };
    read(&mut consumer, "before");
    cluster.kill(0);
    // A broker that is away is no reason to stop.
    for _ in 0..10 {
        consumer.poll(Duration::from_millis(100)).unwrap();
    }
    cluster.start_again(0);
    produce(&broker, &from, &["after"]);
    assert_eq!(read_all(&broker, &from), ["before", "after"]);
    // Its session survives where the server is back in time; else it is lost, and assigned again.
    let began = std::time::Instant::now();
    while !values.iter().any(|value| value == "after") {
        assert!(began.elapsed() < crate::support::SOON, "{values:?}");
        match consumer.poll(Duration::from_millis(100)).unwrap() {
            Polled::Batch(batch) => values.extend(texts(&batch)),
            Polled::Assigned { partitions, .. } if !partitions.is_empty() => consumer.start(&from, Offset(0)).unwrap(),
            _ => {}
        }
    }
}

/// A rebalance pauses every partition for a moment; what is read on from then is the next record, also at the end of a log.
#[test]
fn a_rebalance_at_the_end_of_a_log_skips_nothing() {
    let broker = broker();
    let topic: Topic = "skips".into();
    broker.create_topic(&topic, &TopicSettings::kept_for_ever(1)).unwrap();
    let from = tp("skips", 0);
    produce(&broker, &from, &["a"]);
    let mut consumer = broker.subscribe("skips", "member", std::slice::from_ref(&topic)).unwrap();
    assigned(&mut consumer);
    consumer.start(&from, Offset(0)).unwrap();
    let mut values = Vec::new();
    let mut read_until = |renewals: usize, records: usize, end: Offset| {
        let (mut renewed, mut position) = (0, Offset(0));
        poll_until(&mut consumer, |polled| {
            match polled {
                Polled::Batch(batch) => {
                    values.extend(texts(&batch));
                    position = batch.next_offset();
                }
                Polled::Assigned { .. } => renewed += 1,
                _ => {}
            }
            (renewed >= renewals && values.len() >= records && position >= end).then_some(())
        });
        values.clone()
    };
    // To the end, past the marker.
    read_until(0, 1, Offset(2));
    for round in 0..3 {
        // Another member comes, for which there is no partition, and goes: a rebalance each time.
        let mut other = broker.subscribe("skips", "member", std::slice::from_ref(&topic)).unwrap();
        read_until(1, 0, Offset(0));
        other.leave().unwrap();
        read_until(1, 0, Offset(0));
        produce(&broker, &from, &[&format!("after rebalance {round}")]);
        read_until(0, round + 2, Offset(4 + 2 * round as i64));
    }
    let values = read_until(0, 0, Offset(0));
    assert_eq!(values, ["a", "after rebalance 0", "after rebalance 1", "after rebalance 2"]);
}
