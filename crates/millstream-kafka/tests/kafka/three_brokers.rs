//! Three brokers, of which one may go at any time.

use kafka_test_server::Cluster;
use millstream::broker::{Broker, Isolation, TopicSettings, TransactionalProducer};
use millstream::record::{Record, Timestamp};

use crate::support::{broker_of, patiently, read_all, tp};

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
