//! Coordinators that do not answer as they should.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kafka_protocol::messages::{
    ApiKey, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use millstream::broker::group::{Answer, Coordinator as _, Gone, JoinRequest, MemberMetadata};
use millstream::broker::{BrokerError, ErrorKind};

use super::KafkaCoordinator;
use crate::context::lock;
use crate::wire::codes;
use crate::wire::testing::{FakeBroker, Reaction, Received, read};

const SOON: Duration = Duration::from_secs(30);

fn member(broker: &FakeBroker) -> KafkaCoordinator {
    let config = broker.config(&[("heartbeat.interval.ms", "50"), ("session.timeout.ms", "3000")]);
    KafkaCoordinator::new(&config, "group", "client", Duration::from_secs(20)).expect("a line")
}

fn join(line: &mut KafkaCoordinator, id: Option<&str>, note: u8) {
    let metadata = MemberMetadata { user_data: vec![note], generation: -1, ..MemberMetadata::default() };
    line.join(JoinRequest { member: id.map(Into::into), metadata }).expect("asked");
}

/// The next answer, and the errors before it.
fn answer(line: &mut KafkaCoordinator) -> (Answer, Vec<BrokerError>) {
    let (began, mut errors) = (Instant::now(), Vec::new());
    loop {
        assert!(began.elapsed() < SOON, "no answer comes: {errors:?}");
        match line.next(Duration::from_millis(50)) {
            Ok(Some(answer)) => return (answer, errors),
            Ok(None) => {}
            Err(error) => errors.push(error),
        }
    }
}

fn joins_as(line: &mut KafkaCoordinator, id: &str, generation: i32) -> Vec<BrokerError> {
    let (answer, errors) = answer(line);
    assert_eq!(answer, Answer::Joined { generation, member: id.into(), members: None });
    errors
}

fn joined(received: &Received, id: &str, generation: i32) -> Reaction {
    let answer = JoinGroupResponse::default()
        .with_generation_id(generation)
        .with_protocol_name(Some(StrBytes::from_static_str("millstream")));
    let answer = answer.with_leader(StrBytes::from_static_str("leader")).with_member_id(StrBytes::from_string(id.to_owned()));
    received.answer(&answer)
}

fn not_joined(received: &Received, code: i16, id: &'static str) -> Reaction {
    let answer = JoinGroupResponse::default().with_protocol_name(Some(StrBytes::from_static_str("")));
    received.answer(&answer.with_error_code(code).with_member_id(StrBytes::from_static_str(id)))
}

fn beaten(received: &Received, code: i16) -> Reaction {
    received.answer(&HeartbeatResponse::default().with_error_code(code))
}

/// A coordinator whose answers to JoinGroup depend on how many came before, and which heartbeats please.
fn joining(script: impl Fn(&Received, usize) -> Reaction + Send + Sync + 'static) -> FakeBroker {
    let times = AtomicUsize::new(0);
    FakeBroker::start(move |received| match received.key {
        ApiKey::JoinGroup => Some(script(received, times.fetch_add(1, Ordering::Relaxed))),
        ApiKey::Heartbeat => Some(beaten(received, codes::NONE)),
        ApiKey::LeaveGroup => Some(received.answer(&LeaveGroupResponse::default())),
        _ => None,
    })
}

#[test]
fn a_join_whose_connection_is_cut_is_sent_again_under_the_id_that_was_given() {
    let ids = Arc::new(Mutex::new(Vec::new()));
    let seen = ids.clone();
    let broker = joining(move |received, time| {
        lock(&seen).push(read::<JoinGroupRequest>(received).member_id.to_string());
        match time {
            0 => not_joined(received, codes::MEMBER_ID_REQUIRED, "client-1"),
            1 | 2 => Reaction::Close,
            _ => joined(received, "client-1", 1),
        }
    });
    let mut line = member(&broker);
    join(&mut line, None, 0);
    joins_as(&mut line, "client-1", 1);
    assert_eq!(*lock(&ids), ["", "client-1", "client-1", "client-1"]);
}

#[test]
fn what_passes_is_waited_for_and_told_once_a_second() {
    for code in [14, codes::COORDINATOR_NOT_AVAILABLE, codes::NOT_COORDINATOR, 81, 30_000] {
        let broker = joining(
            move |received, time| if time < 6 { not_joined(received, code, "") } else { joined(received, "client-1", 1) },
        );
        let mut line = member(&broker);
        let began = Instant::now();
        join(&mut line, Some("client-1"), 0);
        let errors = joins_as(&mut line, "client-1", 1);
        let at_most = began.elapsed().as_secs() + 1;
        assert!(!errors.is_empty() && errors.len() as u64 <= at_most, "{code}: {errors:?}");
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
            assert!(error.to_string().starts_with("joining group group failed"), "{error}");
        }
        let lookups = broker.count(ApiKey::FindCoordinator);
        assert_eq!(lookups > 6, matches!(code, codes::COORDINATOR_NOT_AVAILABLE | codes::NOT_COORDINATOR), "{code}: {lookups}");
    }
}

#[test]
fn what_no_later_attempt_mends_is_told_once_and_the_line_stays_good() {
    for (code, part) in [(30, "kafka-acls"), (26, "session.timeout.ms"), (23, "another kind")] {
        let broker = joining(
            move |received, time| if time == 0 { not_joined(received, code, "") } else { joined(received, "client-1", 1) },
        );
        let mut line = member(&broker);
        join(&mut line, Some("client-1"), 0);
        // The coordinator is not asked for the members of the group by this script: that is given up after its time.
        let began = Instant::now();
        let error = loop {
            assert!(began.elapsed() < SOON, "it is not refused");
            if let Err(error) = line.next(Duration::from_millis(50)) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::Stop, "{error}");
        assert!(error.to_string().contains(part), "{part} is not in {error}");
        assert!(line.next(Duration::from_millis(300)).expect("told once").is_none());
        join(&mut line, Some("client-1"), 0);
        joins_as(&mut line, "client-1", 1);
    }
}

#[test]
fn the_next_generation_may_begin_before_its_member_hears_of_it() {
    let beats = Arc::new(AtomicUsize::new(0));
    let (joins, counted) = (AtomicUsize::new(0), beats.clone());
    // JoinGroup is answered after three heartbeats have been refused.
    let broker = FakeBroker::start(move |received| match received.key {
        ApiKey::JoinGroup if joins.fetch_add(1, Ordering::Relaxed) == 0 => Some(joined(received, "client-1", 1)),
        ApiKey::JoinGroup => {
            counted.store(0, Ordering::Relaxed);
            let began = Instant::now();
            while counted.load(Ordering::Relaxed) < 3 && began.elapsed() < SOON {
                std::thread::park_timeout(Duration::from_millis(5));
            }
            Some(joined(received, "client-1", 2))
        }
        ApiKey::Heartbeat => {
            counted.fetch_add(1, Ordering::Relaxed);
            Some(beaten(received, if joins.load(Ordering::Relaxed) == 2 { codes::ILLEGAL_GENERATION } else { codes::NONE }))
        }
        _ => None,
    });
    let mut line = member(&broker);
    join(&mut line, Some("client-1"), 0);
    joins_as(&mut line, "client-1", 1);
    join(&mut line, Some("client-1"), 1);
    assert_eq!(joins_as(&mut line, "client-1", 2).len(), 0);
    // Nobody joins now: the same answer means that somebody else has.
    assert_eq!(answer(&mut line).0, Answer::Gone(Gone::OtherGeneration));
}

#[test]
fn a_request_that_is_held_back_is_given_up_for_the_next_one() {
    let broker = joining(|received, _| {
        let request: JoinGroupRequest = read(received);
        let metadata = super::encoding::read_subscription(&request.protocols[0].metadata).expect("ours");
        if metadata.user_data == [2] { joined(received, "client-1", 1) } else { Reaction::Silence }
    });
    let mut line = member(&broker);
    for note in 0..3 {
        join(&mut line, Some("client-1"), note);
        let began = Instant::now();
        while broker.count(ApiKey::JoinGroup) <= usize::from(note) {
            assert!(began.elapsed() < SOON, "it is not sent");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
    joins_as(&mut line, "client-1", 1);
    // The same for what a leader says.
    line.sync(BTreeMap::new()).expect("asked");
    join(&mut line, Some("client-1"), 2);
    joins_as(&mut line, "client-1", 1);
}

#[test]
fn a_coordinator_that_is_silent_to_heartbeats_is_not_waited_for_by_the_join_it_holds_back() {
    let joins = AtomicUsize::new(0);
    let broker = FakeBroker::start(move |received| match received.key {
        ApiKey::JoinGroup => match joins.fetch_add(1, Ordering::Relaxed) {
            0 => Some(joined(received, "client-1", 1)),
            1 => Some(Reaction::Silence),
            _ => Some(joined(received, "client-1", 2)),
        },
        _ => None,
    });
    let mut line = member(&broker);
    join(&mut line, Some("client-1"), 0);
    joins_as(&mut line, "client-1", 1);
    join(&mut line, Some("client-1"), 1);
    let began = Instant::now();
    joins_as(&mut line, "client-1", 2);
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
}

#[test]
fn a_member_that_is_dropped_does_not_leave_whatever_it_waits_for() {
    let broker = joining(|_, _| Reaction::Silence);
    let mut line = member(&broker);
    join(&mut line, Some("client-1"), 0);
    std::thread::park_timeout(Duration::from_millis(200));
    let began = Instant::now();
    drop(line);
    assert!(began.elapsed() < Duration::from_secs(3), "it took {:?}", began.elapsed());
    assert_eq!(broker.count(ApiKey::LeaveGroup), 0);
}

#[test]
fn a_removal_is_sent_until_it_is_answered_also_when_the_member_is_dropped() {
    let left = Arc::new(Mutex::new(Vec::new()));
    let (times, seen) = (AtomicUsize::new(0), left.clone());
    let broker = FakeBroker::start(move |received| match received.key {
        ApiKey::JoinGroup => Some(joined(received, "client-1", 1)),
        ApiKey::Heartbeat => Some(beaten(received, codes::NONE)),
        ApiKey::LeaveGroup => match times.fetch_add(1, Ordering::Relaxed) {
            0 => Some(Reaction::Close),
            1 => Some(received.answer(&LeaveGroupResponse::default().with_error_code(codes::NOT_COORDINATOR))),
            _ => {
                let request: LeaveGroupRequest = read(received);
                lock(&seen).extend(request.members.iter().map(|member| member.member_id.to_string()));
                Some(received.answer(&LeaveGroupResponse::default()))
            }
        },
        _ => None,
    });
    let mut line = member(&broker);
    join(&mut line, Some("client-1"), 0);
    joins_as(&mut line, "client-1", 1);
    line.remove(&["client-1".into(), "dead".into()], "the end").expect("asked");
    drop(line);
    assert_eq!(*lock(&left), ["client-1", "dead"]);
}

#[test]
fn a_removal_that_nobody_answers_does_not_hold_up_the_end() {
    let broker = FakeBroker::start(|received| (received.key == ApiKey::JoinGroup).then(|| joined(received, "client-1", 1)));
    let mut line = member(&broker);
    join(&mut line, Some("client-1"), 0);
    joins_as(&mut line, "client-1", 1);
    line.remove(&["client-1".into()], "the end").expect("asked");
    let began = Instant::now();
    drop(line);
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
}

#[test]
fn a_member_that_the_leader_has_forgotten_is_assigned_nothing_and_so_is_one_whose_assignment_is_garbage() {
    for assignment in [&b""[..], b"garbage"] {
        let broker = FakeBroker::start(move |received| match received.key {
            ApiKey::JoinGroup => Some(joined(received, "client-1", 1)),
            ApiKey::SyncGroup => {
                let answer = SyncGroupResponse::default().with_assignment(bytes::Bytes::from_static(assignment));
                Some(received.answer(&answer))
            }
            ApiKey::Heartbeat => Some(beaten(received, codes::NONE)),
            _ => None,
        });
        let mut line = member(&broker);
        join(&mut line, Some("client-1"), 0);
        joins_as(&mut line, "client-1", 1);
        line.sync(BTreeMap::new()).expect("asked");
        assert_eq!(answer(&mut line).0, Answer::Synced(Default::default()));
    }
}
