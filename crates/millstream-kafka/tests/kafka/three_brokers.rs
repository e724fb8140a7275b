//! Three brokers, of which one may go at any time.

use std::time::{Duration, Instant};

use kafka_test_server::Cluster;
use millstream::broker::{Broker, BrokerError, ErrorKind, Isolation, TopicSettings, TransactionalProducer};
use millstream::record::{Record, Timestamp};
use millstream_kafka::{KafkaBroker, KafkaConfig};

use crate::support::{SOON, broker_of, patiently, read_all, tp};

/// Each broker in turn is killed while transactions go on: what was said to have committed is there, once, and nothing else is,
/// except for what had an unknown outcome.
#[test]
fn a_broker_that_is_lost_loses_nothing() {
    let cluster = Cluster::start(3);
    let broker = broker_of(&cluster);
    broker.create_topic("three", &TopicSettings::kept_for_ever(3)).unwrap();
    let mut producer = broker.producer("three").unwrap();
    let (mut committed, mut unknown) = (Vec::new(), Vec::new());
    for round in 0..60 {
        match round {
            10 | 30 | 50 => cluster.kill(round / 20),
            20 | 40 => cluster.start_again(round / 20 - 1),
            _ => {}
        }
        let value = format!("{round:02}");
        let sent = producer.begin().and_then(|()| {
            (0..3).try_for_each(|p| producer.send(&tp("three", p), &Record::new(None, Some(value.as_bytes()), Timestamp(1))))?;
            producer.commit()
        });
        match sent {
            Ok(_) => committed.push(value),
            Err(error) => {
                if error.kind() == millstream::broker::ErrorKind::OutcomeUnknown {
                    unknown.push(value);
                }
                // Whatever it was, a successor settles it.
                drop(producer);
                producer = patiently(|| broker.producer("three"));
            }
        }
    }
    assert!(committed.len() > 40, "{} committed", committed.len());
    for partition in 0..3 {
        let range = patiently(|| broker.log_range(&tp("three", partition), Isolation::ReadUncommitted));
        assert!(range.end.0 >= 60, "{range:?}");
        let found = read_all(&broker, &tp("three", partition));
        assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "in order, each once: {found:?}");
        assert!(committed.iter().all(|value| found.contains(value)), "{committed:?} in {found:?}");
        assert!(found.iter().all(|value| committed.contains(value) || unknown.contains(value)), "{found:?}");
    }
}

/// What a look-up that cannot succeed now says, which it has to say soon.
fn refused_soon<T>(what: &str, look_up: impl FnOnce() -> Result<T, BrokerError>) -> String {
    let began = Instant::now();
    let error = look_up().err().unwrap_or_else(|| panic!("{what} succeeds"));
    let took = began.elapsed();
    println!("{what} took {took:.1?}: {error}");
    assert!(took < Duration::from_millis(3500), "{what} took {took:.1?}");
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    error.to_string()
}

/// A partition without a leader, and one with too few replicas in sync, are told from those that can be written to, and nobody is held up.
#[test]
fn what_cannot_be_written_to_is_told_soon() {
    let cluster = Cluster::start(3);
    let broker = broker_of(&cluster);
    let alone = KafkaBroker::new(KafkaConfig::new(cluster.bootstrap_servers(), []).unwrap().with_replication_factor(1)).unwrap();
    alone.create_topic("alone", &TopicSettings::kept_for_ever(3)).unwrap();
    let three = [("min.insync.replicas".to_owned(), "3".to_owned())];
    broker.create_topic_with("together", 1, &three).unwrap();
    let partitions = [0, 1, 2].map(|partition| tp("alone", partition));
    for partition in partitions.iter().chain([&tp("together", 0)]) {
        patiently(|| broker.check_writable(partition));
        broker.log_range(partition, Isolation::ReadUncommitted).unwrap();
    }

    cluster.kill(0);
    let began = Instant::now();
    let lost = loop {
        assert!(began.elapsed() < SOON, "every partition has a leader");
        if let Ok(Some(obstacle)) = broker.obstacle("alone", Duration::from_secs(5)) {
            break tp("alone", obstacle.partitions[0].0);
        }
    };
    let said = refused_soon("whether it can be written", || broker.check_writable(&lost));
    assert!(said.contains(&format!("{lost} has no leader")), "{said}");
    let said = refused_soon("where it ends", || broker.log_range(&lost, Isolation::ReadUncommitted));
    assert!(said.contains(&format!("{lost} has no leader")), "{said}");
    let said = refused_soon("where all end", || broker.log_ranges(&partitions, Isolation::ReadCommitted));
    assert!(said.contains(&format!("{lost} has no leader")), "{said}");
    let began = Instant::now();
    while broker.check_writable(&tp("together", 0)).is_ok() {
        assert!(began.elapsed() < SOON, "all its replicas are in sync");
    }
    let said = refused_soon("whether it can be written", || broker.check_writable(&tp("together", 0)));
    assert!(said.contains("together-0 has 2 of 3 replicas in sync (NOT_ENOUGH_REPLICAS)"), "{said}");
    for partition in partitions.iter().filter(|partition| **partition != lost) {
        patiently(|| broker.check_writable(partition));
        patiently(|| broker.log_range(partition, Isolation::ReadUncommitted));
    }

    // Nobody answers.
    cluster.kill(1);
    cluster.kill(2);
    refused_soon("whether it can be written", || broker.check_writable(&lost));
}

/// One of them is the one that the client sends its requests to, perhaps only because it heard so before the loss was noticed.
#[test]
fn requests_are_answered_whichever_broker_is_lost() {
    let cluster = Cluster::start(3);
    let broker = broker_of(&cluster);
    broker.create_topic("asked", &TopicSettings::kept_for_ever(1)).unwrap();
    for node in 0..3 {
        cluster.kill(node);
        let killed = Instant::now();
        // By then brokers have noticed.
        while killed.elapsed() < Duration::from_secs(6) {
            let asked = Instant::now();
            patiently(|| broker.describe_topic("asked")).unwrap();
            let took = asked.elapsed();
            assert!(took < Duration::from_secs(15), "without broker {} the answer took {took:.1?}", node + 1);
            std::thread::park_timeout(Duration::from_millis(100));
        }
        cluster.start_again(node);
        patiently(|| broker.log_range(&tp("asked", 0), Isolation::ReadUncommitted));
    }
}
