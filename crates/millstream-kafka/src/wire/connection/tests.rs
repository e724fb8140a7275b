//! Brokers that do not answer as they should.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kafka_protocol::messages::{
    ApiVersionsResponse, DescribeGroupsRequest, DescribeGroupsResponse, SaslAuthenticateResponse, SaslHandshakeResponse,
};

use super::super::testing::{FakeBroker, Reaction, Received, versions};
use super::super::{Cluster, CoordinatorLine, CoordinatorOf};
use super::*;

const SOON: Duration = Duration::from_secs(10);

fn line(broker: &FakeBroker, properties: &[(&str, &str)]) -> (CoordinatorLine, Arc<Abort>) {
    let cluster = Cluster::new(&broker.config(properties), "test").expect("a cluster");
    let abort = Arc::new(Abort::default());
    (CoordinatorLine::new(Arc::new(cluster), CoordinatorOf::Group("group".to_owned()), abort.clone()), abort)
}

fn describe(line: &mut CoordinatorLine, within: Duration) -> Result<DescribeGroupsResponse, Failure> {
    line.call(&DescribeGroupsRequest::default(), within)
}

/// The first answer to that request is wrong, all others are right.
fn wrong_once(key: ApiKey, wrong: impl Fn(&Received, Vec<u8>) -> Reaction + Send + Sync + 'static) -> FakeBroker {
    let times = AtomicUsize::new(0);
    FakeBroker::start(move |received| {
        let right = match received.key {
            ApiKey::DescribeGroups => received.frame(&DescribeGroupsResponse::default()),
            ApiKey::ApiVersions => received.frame(&versions(9)),
            _ => return None,
        };
        if received.key == key && times.fetch_add(1, Ordering::Relaxed) == 0 {
            return Some(wrong(received, right));
        }
        Some(Reaction::Bytes(right))
    })
}

/// It fails like that, and the next attempt succeeds.
fn assert_fails_once(broker: &FakeBroker, code: Code, part: &str) {
    let (mut line, _) = line(broker, &[("receive.message.max.bytes", "1000000")]);
    let began = Instant::now();
    let failure = describe(&mut line, Duration::from_millis(500)).expect_err("the answer is wrong");
    assert!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    assert_eq!(failure.code, code, "{failure}");
    assert!(failure.to_string().contains(part) && failure.to_string().contains("127.0.0.1"), "{failure}");
    describe(&mut line, SOON).expect("the next attempt");
}

#[test]
fn a_connection_that_is_cut_is_made_again() {
    assert_fails_once(
        &wrong_once(ApiKey::DescribeGroups, |_, _| Reaction::Close),
        Code::BrokerTransportFailure,
        "closed the connection",
    );
    let within = wrong_once(ApiKey::DescribeGroups, |_, right| Reaction::LastBytes(right[..right.len() - 1].to_vec()));
    assert_fails_once(&within, Code::BrokerTransportFailure, "within an answer");
    let half_closed = wrong_once(ApiKey::DescribeGroups, |_, _| Reaction::LastBytes(Vec::new()));
    assert_fails_once(&half_closed, Code::BrokerTransportFailure, "closed the connection");
}

#[test]
fn what_is_no_answer_is_not_taken_for_one() {
    let garbage = wrong_once(ApiKey::DescribeGroups, |_, _| Reaction::Bytes(b"\0\0\0\x08whatever".to_vec()));
    assert_fails_once(&garbage, Code::BadMessage, "no answer to the request");
    let http = wrong_once(ApiKey::DescribeGroups, |_, _| Reaction::Bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()));
    assert_fails_once(&http, Code::BadMessage, "receive.message.max.bytes");
    let negative = wrong_once(ApiKey::DescribeGroups, |_, _| Reaction::Bytes(vec![0xFF; 64]));
    assert_fails_once(&negative, Code::BadMessage, "its length is negative");
    let truncated = wrong_once(ApiKey::DescribeGroups, |_, right| {
        let length = i32::try_from(right.len() - 5).expect("it is small");
        Reaction::Bytes([&length.to_be_bytes(), &right[4..right.len() - 1]].concat())
    });
    assert_fails_once(&truncated, Code::BadMessage, "cannot be read");
    let too_long = wrong_once(ApiKey::DescribeGroups, |_, right| {
        let length = i32::try_from(right.len() - 3).expect("it is small");
        Reaction::Bytes([&length.to_be_bytes(), &right[4..], &[0]].concat())
    });
    assert_fails_once(&too_long, Code::BadMessage, "something behind it");
    let tls = wrong_once(ApiKey::ApiVersions, |_, _| Reaction::Bytes(vec![0x15, 3, 1, 0, 2, 2, 10]));
    assert_fails_once(&tls, Code::SSL, "set security.protocol to ssl");
}

#[test]
fn an_answer_that_comes_byte_by_byte_or_not_at_all_is_not_waited_for_longer_than_asked() {
    let slow = wrong_once(ApiKey::DescribeGroups, |_, right| Reaction::Slowly(right, 200));
    assert_fails_once(&slow, Code::OperationTimedOut, "no answer in time");
    let silent = wrong_once(ApiKey::DescribeGroups, |_, _| Reaction::Silence);
    assert_fails_once(&silent, Code::OperationTimedOut, "no answer in time");
}

#[test]
fn a_broker_that_is_too_old_is_refused_by_name() {
    for newest in [0, 2, 4, 6] {
        let broker =
            FakeBroker::start(move |received| (received.key == ApiKey::ApiVersions).then(|| received.answer(&versions(newest))));
        let failure = describe(&mut line(&broker, &[]).0, SOON).expect_err("it is too old");
        assert_eq!(failure.code, Code::UnsupportedVersion, "{failure}");
        assert!(failure.to_string().contains("older than Apache Kafka 2.5"), "{failure}");
    }
    // One that does not know the version of the question answers in the first one.
    let broker = FakeBroker::start(|received| {
        let refusal = ApiVersionsResponse::default().with_error_code(codes::UNSUPPORTED_VERSION);
        (received.key == ApiKey::ApiVersions).then(|| received.of_version(0).answer(&refusal))
    });
    let failure = describe(&mut line(&broker, &[]).0, SOON).expect_err("it is too old");
    assert!(failure.to_string().contains("older than Apache Kafka 2.5"), "{failure}");
}

#[test]
fn a_wait_is_ended_from_another_thread() {
    let broker = FakeBroker::start(|_| None);
    let (mut line, abort) = line(&broker, &[]);
    for end in [Abort::cut, Abort::end] {
        let (ender, began) = (abort.clone(), Instant::now());
        let other = std::thread::spawn(move || {
            std::thread::park_timeout(Duration::from_millis(200));
            end(&ender);
        });
        let failure = describe(&mut line, Duration::from_secs(60)).expect_err("nothing is answered");
        assert_eq!(failure.code, Code::BrokerTransportFailure, "{failure}");
        assert!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
        other.join().expect("it ends");
    }
    let failure = describe(&mut line, SOON).expect_err("it is closed for good");
    assert!(failure.to_string().contains("being closed"), "{failure}");
}

#[test]
fn who_we_are_is_said_again_before_the_session_ends() {
    let broker = FakeBroker::start(|received| match received.key {
        ApiKey::SaslHandshake => Some(received.answer(&SaslHandshakeResponse::default())),
        ApiKey::SaslAuthenticate => Some(received.answer(&SaslAuthenticateResponse::default().with_session_lifetime_ms(400))),
        ApiKey::DescribeGroups => Some(received.answer(&DescribeGroupsResponse::default())),
        _ => None,
    });
    let login = [
        ("security.protocol", "sasl_plaintext"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "me"),
        ("sasl.password", "secret"),
    ];
    let (mut line, _) = line(&broker, &login);
    describe(&mut line, SOON).expect("an answer");
    describe(&mut line, SOON).expect("an answer");
    let first = broker.count(ApiKey::SaslAuthenticate);
    std::thread::park_timeout(Duration::from_millis(600));
    describe(&mut line, SOON).expect("an answer");
    assert_eq!((first, broker.count(ApiKey::SaslAuthenticate), broker.count(ApiKey::ApiVersions)), (1, 2, 1));
}
