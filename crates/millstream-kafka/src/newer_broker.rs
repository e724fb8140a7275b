//! What becomes of error codes of a broker that is newer than librdkafka: each is named, by its number at least, and passes.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use millstream::broker::{
    Broker as _, BrokerError, ErrorKind, Fetched, FetchedBatch as _, Fetcher as _, LogReader as _, TransactionalProducer as _,
};
use millstream::record::{Offset, Partition, Record, Timestamp, TopicPartition};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::types::RDKafkaApiKey as Api;

use crate::ffi::Mock;
use crate::{KafkaBroker, KafkaConfig};

const SOON: Duration = Duration::from_secs(30);

/// `INCONSISTENT_TOPIC_ID`, with which brokers answer a fetch of a topic that was made again.
const INCONSISTENT_TOPIC_ID: i32 = 103;

/// A code that nobody knows yet.
const FROM_THE_FUTURE: i32 = 30_000;

fn broker(mock: &Mock) -> KafkaBroker {
    KafkaBroker::new(KafkaConfig::new(mock.servers(), []).expect("a configuration")).expect("a broker")
}

fn clicks() -> TopicPartition {
    TopicPartition::new("clicks", Partition(0))
}

fn mock() -> Mock {
    let mock = Mock::start();
    mock.create_topic("clicks");
    mock
}

fn write(broker: &KafkaBroker) -> Result<Offset, BrokerError> {
    let (answer, answers) = mpsc::channel();
    let record = Record::new(None, Some(b"click"), Timestamp(1));
    let intake = broker.intake()?;
    intake.send(&clicks(), &record, move |outcome| answer.send(outcome).expect("waited for"))?;
    answers.recv_timeout(SOON).expect("answered")
}

fn assert_named(error: &BrokerError, parts: &[&str]) {
    for part in parts {
        assert!(error.to_string().contains(part), "{part} is not in: {error}");
    }
}

#[test]
fn a_record_that_is_refused_with_an_unknown_code_is_answered_with_its_number() {
    let (mock, mut kinds) = (mock(), Vec::new());
    let broker = broker(&mock);
    for (number, name) in [(INCONSISTENT_TOPIC_ID, "103 (INCONSISTENT_TOPIC_ID)"), (FROM_THE_FUTURE, "30000")] {
        mock.fail(Api::Produce, &[number]);
        let error = write(&broker).expect_err("it is refused");
        assert_named(&error, &["writing to clicks-0", name, "does not know"]);
        kinds.push(error.kind());
    }
    assert_eq!(kinds, [ErrorKind::OutcomeUnknown; 2], "the intake does not know what such a broker has done");
    write(&broker).expect("it has passed");
}

#[test]
fn a_fetch_that_fails_with_an_unknown_code_is_tried_again() {
    let mock = mock();
    let broker = broker(&mock);
    write(&broker).expect("written");
    let mut reader = broker.reader(&clicks(), Offset(0)).expect("a reader");
    mock.fail(Api::Fetch, &[INCONSISTENT_TOPIC_ID, FROM_THE_FUTURE]);
    let began = Instant::now();
    while reader.position() < Offset(1) {
        assert!(began.elapsed() < SOON, "it is read up to {}", reader.position());
        reader.read(Duration::from_millis(100)).expect("it passes");
    }
}

#[test]
fn a_fetcher_whose_fetches_fail_with_an_unknown_code_goes_on() {
    let mock = mock();
    let broker = broker(&mock);
    write(&broker).expect("written");
    let mut fetcher = broker.fetcher().expect("a fetcher");
    mock.fail(Api::Fetch, &[INCONSISTENT_TOPIC_ID, FROM_THE_FUTURE]);
    fetcher.start(&clicks(), Offset(0)).expect("started");
    let (began, mut position) = (Instant::now(), Offset(0));
    while position < Offset(1) {
        assert!(began.elapsed() < SOON, "nothing comes");
        match fetcher.poll(Duration::from_millis(100)).expect("it passes") {
            Fetched::Batch(batch) => position = batch.next_offset(),
            Fetched::Failed(partition, error) => panic!("{partition} is given up: {error}"),
            Fetched::Nothing => {}
        }
    }
}

#[test]
fn committed_positions_that_are_refused_with_an_unknown_code_are_asked_for_again() {
    let mock = mock();
    let broker = broker(&mock);
    mock.fail(Api::OffsetFetch, &[INCONSISTENT_TOPIC_ID, FROM_THE_FUTURE]);
    assert_eq!(broker.committed("group", &[clicks()]).expect("it passes"), [None]);
}

#[test]
fn a_transaction_whose_record_is_refused_with_an_unknown_code_names_it() {
    let mock = mock();
    let mut producer = broker(&mock).producer("application-0").expect("a producer");
    producer.begin().expect("begun");
    mock.fail(Api::Produce, &[FROM_THE_FUTURE]);
    producer.send(&clicks(), &Record::new(None, Some(b"click"), Timestamp(1))).expect("taken");
    let error = producer.commit().expect_err("it is refused");
    assert_named(&error, &["writing to clicks-0", "30000", "does not know"]);
    assert_eq!(error.kind(), ErrorKind::AbortTransaction);
}

#[test]
fn a_transaction_whose_record_no_broker_will_take_stops_whatever_is_sent_next() {
    let mock = mock();
    let mut producer = broker(&mock).producer("application-1").expect("a producer");
    producer.begin().expect("begun");
    mock.fail(Api::Produce, &[Code::InvalidTimestamp as i32]);
    let record = Record::new(None, Some(b"click"), Timestamp(1));
    let began = Instant::now();
    // librdkafka takes nothing more once it has heard, and says of that record only that its transaction is lost.
    let error = loop {
        assert!(began.elapsed() < SOON, "it is not refused");
        if let Err(error) = producer.send(&clicks(), &record) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Stop, "{error}");
    assert_named(&error, &["writing to clicks-0", "InvalidTimestamp", "message.timestamp.before.max.ms"]);
}
