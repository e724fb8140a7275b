//! Fetching from positions that are set by hand.

use std::time::{Duration, Instant};

use kafka_test_server::Cluster;
use millstream::broker::group::Candidate;
use millstream::broker::{Broker, ErrorKind, Fetched, Fetcher, Isolation, Membership, TopicSettings, TransactionalProducer};
use millstream::record::{Offset, Record, Timestamp};

use crate::support::{
    SOON, assigned, broker, broker_of, fetch_until, fetched_to, patiently, produce, read_all, settled_end, texts, tp,
};

/// The position passes what holds no record: markers, and what was aborted.
#[test]
fn a_fetcher_gets_to_the_end_of_a_log_that_ends_without_records() {
    let broker = broker();
    broker.create_topic("markers", &TopicSettings::kept_for_ever(1)).unwrap();
    let from = tp("markers", 0);
    produce(&broker, &from, &["a"]);
    let mut producer = broker.producer("markers").unwrap();
    producer.begin().unwrap();
    producer.send(&from, &Record::new(None, Some(b"no"), Timestamp(1))).unwrap();
    // What is on the broker has a marker behind it when it is given up.
    let began = Instant::now();
    while broker.log_range(&from, Isolation::ReadUncommitted).unwrap().end < Offset(3) {
        assert!(began.elapsed() < SOON, "nothing is written");
    }
    producer.abort().unwrap();
    let end = settled_end(&broker, &from);
    let mut fetcher = broker.fetcher().unwrap();
    fetcher.start(&from, Offset(0)).unwrap();
    assert_eq!(fetched_to(&mut fetcher, &from, end), ["a"]);
    // At the end it stays quiet: nothing comes again and again.
    assert!(matches!(fetcher.poll(Duration::from_millis(1500)).unwrap(), Fetched::Nothing));
    // A marker that is written while the fetcher waits there is passed, too.
    produce(&broker, &from, &["b"]);
    assert_eq!(fetched_to(&mut fetcher, &from, settled_end(&broker, &from)), ["b"]);
}

#[test]
fn a_rewind_drops_what_was_fetched() {
    let broker = broker();
    broker.create_topic("rewinds", &TopicSettings::kept_for_ever(1)).unwrap();
    let from = tp("rewinds", 0);
    let values: Vec<_> = (0..10_000).map(|number| number.to_string()).collect();
    produce(&broker, &from, &values.iter().map(String::as_str).collect::<Vec<_>>());
    let end = settled_end(&broker, &from);
    let mut fetcher = broker.fetcher().unwrap();
    for round in 0..50 {
        let position = (round * 37) % 9_000;
        fetcher.start(&from, Offset(position)).unwrap();
        let first = fetch_until(&mut fetcher, |fetched| match fetched {
            Fetched::Batch(batch) => texts(&batch).first().cloned(),
            _ => None,
        });
        assert_eq!(first, position.to_string(), "in round {round}");
    }
    fetcher.start(&from, Offset(5_000)).unwrap();
    assert_eq!(fetched_to(&mut fetcher, &from, end), values[5_000..]);
    fetcher.start(&from, Offset(0)).unwrap();
    fetch_until(&mut fetcher, |fetched| matches!(fetched, Fetched::Batch(_)).then_some(()));
    fetcher.stop(&from);
    assert!(matches!(fetcher.poll(Duration::from_millis(500)).unwrap(), Fetched::Nothing), "nothing comes after a stop");
}

#[test]
fn a_position_outside_the_log_fails_its_partition_alone() {
    let broker = broker();
    broker.create_topic("outside", &TopicSettings::kept_for_ever(2)).unwrap();
    let (behind, good) = (tp("outside", 0), tp("outside", 1));
    produce(&broker, &behind, &["a", "b", "c"]);
    broker.delete_records(&behind, Offset(2)).unwrap();
    let mut fetcher = broker.fetcher().unwrap();
    fetcher.start(&behind, Offset(0)).unwrap();
    fetcher.start(&good, Offset(0)).unwrap();
    let error = fetch_until(&mut fetcher, |fetched| match fetched {
        Fetched::Failed(partition, error) => Some((partition, error)),
        _ => None,
    });
    assert_eq!((&error.0, error.1.kind()), (&behind, ErrorKind::OffsetOutOfRange), "{}", error.1);
    assert_eq!(error.1.partition(), Some(&behind));
    produce(&broker, &good, &["good"]);
    assert_eq!(fetched_to(&mut fetcher, &good, settled_end(&broker, &good)), ["good"]);
    fetcher.start(&behind, Offset(2)).unwrap();
    assert_eq!(fetched_to(&mut fetcher, &behind, Offset(3)), ["c"]);
}

#[test]
fn a_topic_that_is_deleted_fails_while_the_others_are_fetched_on() {
    let broker = broker();
    for topic in ["deleted-topic", "kept-topic"] {
        broker.create_topic(topic, &TopicSettings::kept_for_ever(1)).unwrap();
    }
    let (gone, kept) = (tp("deleted-topic", 0), tp("kept-topic", 0));
    produce(&broker, &gone, &["a"]);
    let mut fetcher = broker.fetcher().unwrap();
    fetcher.start(&gone, Offset(0)).unwrap();
    fetcher.start(&kept, Offset(0)).unwrap();
    assert_eq!(fetched_to(&mut fetcher, &gone, Offset(1)), ["a"]);
    broker.delete_topic("deleted-topic").unwrap();
    let error = fetch_until(&mut fetcher, |fetched| match fetched {
        Fetched::Failed(partition, error) => Some((partition, error)),
        _ => None,
    });
    assert_eq!((&error.0, error.1.kind()), (&gone, ErrorKind::OffsetOutOfRange), "{}", error.1);
    for value in ["b", "c"] {
        produce(&broker, &kept, &[value]);
        assert_eq!(fetched_to(&mut fetcher, &kept, settled_end(&broker, &kept)), [value]);
    }
}

#[test]
fn two_fetchers_read_different_partitions_under_one_membership() {
    let broker = broker();
    broker.create_topic("shared", &TopicSettings::kept_for_ever(2)).unwrap();
    let mut member = broker.join(&Candidate::new("shared", "instance", &["shared".into()])).unwrap();
    let (partitions, fence) = assigned(&mut member);
    assert_eq!(partitions, [tp("shared", 0), tp("shared", 1)]);
    for partition in &partitions {
        let value = partition.to_string();
        produce(&broker, partition, &[&value]);
        let mut fetcher = broker.fetcher().unwrap();
        fetcher.start(partition, Offset(0)).unwrap();
        assert_eq!(fetched_to(&mut fetcher, partition, settled_end(&broker, partition)), [value]);
        let mut producer = broker.producer(&format!("shared-{partition}")).unwrap();
        producer.begin().unwrap();
        producer.send_offsets(&fence, &[(partition.clone(), crate::support::at(1))]).unwrap();
        producer.commit().unwrap();
    }
    let at = || Some(crate::support::at(1));
    assert_eq!(broker.committed("shared", &partitions).unwrap(), [at(), at()]);
    member.leave().unwrap();
}

#[test]
fn a_server_that_was_killed_and_is_back_is_fetched_from_again() {
    let cluster = Cluster::start(1);
    let broker = broker_of(&cluster);
    broker.create_topic("back", &TopicSettings::kept_for_ever(1)).unwrap();
    let from = tp("back", 0);
    produce(&broker, &from, &["before"]);
    let mut member = broker.join(&Candidate::new("back", "instance", &["back".into()])).unwrap();
    assigned(&mut member);
    let mut fetcher = broker.fetcher().unwrap();
    fetcher.start(&from, Offset(0)).unwrap();
    assert_eq!(fetched_to(&mut fetcher, &from, Offset(1)), ["before"]);
    cluster.kill(0);
    // A broker that is away is no reason to stop, nor do a start and a stop wait for it.
    for _ in 0..10 {
        patiently(|| member.poll(Duration::from_millis(100)));
        assert!(!matches!(fetcher.poll(Duration::from_millis(100)).unwrap(), Fetched::Failed(..)));
    }
    fetcher.start(&from, Offset(0)).unwrap();
    fetcher.stop(&from);
    fetcher.start(&from, Offset(0)).unwrap();
    cluster.start_again(0);
    produce(&broker, &from, &["after"]);
    assert_eq!(read_all(&broker, &from), ["before", "after"]);
    assert_eq!(fetched_to(&mut fetcher, &from, settled_end(&broker, &from)), ["before", "after"]);
    // Its session survives where the server is back in time; else it is lost, and assigned again.
    patiently(|| member.poll(Duration::from_millis(100)));
}
