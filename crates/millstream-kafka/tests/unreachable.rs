//! What the log says while no broker can be reached: librdkafka reports it some 20 times a second, each of our clients by itself.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::{Debug, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kafka_test_server::Cluster;
use millstream::broker::group::Candidate;
use millstream::broker::{Broker, ErrorKind, Fetcher, LogReader, MemberEvent, Membership, TopicSettings};
use millstream::record::{Offset, Partition, Record, Timestamp, TopicPartition};
use millstream_kafka::{KafkaBroker, KafkaConfig, KafkaMembership};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber, span};

/// Everything that is logged at the level of an operator's log.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn lines() -> MutexGuard<'static, Vec<String>> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Collect;

impl Subscriber for Collect {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        lines().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

/// What a poll brings. A coordinator that cannot be reached brings nothing.
fn poll(member: &mut KafkaMembership) -> MemberEvent {
    match member.poll(Duration::from_millis(20)) {
        Err(error) if error.kind() == ErrorKind::Retry => MemberEvent::Nothing,
        event => event.unwrap(),
    }
}

#[test]
fn that_no_broker_can_be_reached_is_said_once_and_so_is_that_it_is_over() {
    tracing::subscriber::set_global_default(Collect).unwrap();
    let cluster = Cluster::start(1);
    let broker = KafkaBroker::new(KafkaConfig::new(cluster.bootstrap_servers(), []).unwrap()).unwrap();
    broker.create_topic("clicks", &TopicSettings::kept_for_ever(1)).unwrap();
    let clicks = TopicPartition::new("clicks", Partition(0));
    let intake = broker.intake().unwrap();
    // Clients of every kind, each connected.
    let mut member = broker.join(&Candidate::new("group", "member", &["clicks".into()])).unwrap();
    while !matches!(poll(&mut member), MemberEvent::Assigned { .. }) {}
    let mut fetcher = broker.fetcher().unwrap();
    fetcher.start(&clicks, Offset(0)).unwrap();
    fetcher.poll(Duration::from_millis(100)).unwrap();
    broker.committed("group", std::slice::from_ref(&clicks)).unwrap();
    let mut reader = broker.reader(&clicks, Offset(0)).unwrap();
    reader.read(Duration::from_millis(100)).unwrap();
    lines().clear();

    cluster.kill(0);
    let record = Record::new(None, Some(b"click"), Timestamp(1));
    intake.send(&clicks, &record, |_| {}).unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        poll(&mut member);
        fetcher.poll(Duration::from_millis(20)).unwrap();
        let _ = reader.read(Duration::from_millis(20));
    }
    broker.committed("group", std::slice::from_ref(&clicks)).unwrap_err();
    let said = lines().clone();
    let brokers_down: Vec<_> = said.iter().filter(|line| line.contains("brokers are down")).collect();
    assert_eq!(brokers_down.len(), 1, "{said:#?}");
    // The connection that was lost, the one that is refused, what waited on it: of each a line, whoever had it.
    assert!(said.len() <= 12, "{} lines in ten seconds:\n{said:#?}", said.len());

    cluster.start_again(0);
    let began = Instant::now();
    while broker.describe_topic("clicks").is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "it is not found again");
    }
    let over = lines().iter().filter(|line| line.contains("a broker of the cluster answers again")).count();
    assert_eq!(over, 1, "{:#?}", lines());
}
