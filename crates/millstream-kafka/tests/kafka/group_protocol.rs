//! Members of a group that speak Kafka's group protocol without librdkafka.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_test_server::{Cluster, tool};
use millstream::broker::group::{Answer, Coordinator, Gone, JoinRequest, MemberAssignment, MemberMetadata};
use millstream::broker::{Broker, BrokerError, ErrorKind, Fence, TopicSettings, TransactionalProducer};
use millstream::clock::BootTime;
use millstream::record::{Record, Timestamp, TopicPartition};
use millstream_kafka::{KafkaConfig, KafkaCoordinator, KafkaTransactions, boot_time, describe_group};
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::support::{SOON, at, broker, broker_of, patiently, tp};

/// Long enough for every member to join again.
const REBALANCE: Duration = Duration::from_secs(20);

pub(crate) fn config(cluster: &Cluster, properties: &[(&str, &str)]) -> KafkaConfig {
    let quick = [("heartbeat.interval.ms", "100"), ("session.timeout.ms", "6000")];
    let properties = quick.iter().chain(properties).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    KafkaConfig::new(cluster.bootstrap_servers(), properties).unwrap()
}

/// A member, as a caller sees it.
pub(crate) struct Member {
    line: KafkaCoordinator,
    id: Option<Arc<str>>,
    generation: i32,
    /// All members, if this one leads.
    members: Option<BTreeMap<Arc<str>, MemberMetadata>>,
}

impl Member {
    pub(crate) fn new(config: &KafkaConfig, group: &str, client_id: &str) -> Self {
        Self {
            line: KafkaCoordinator::new(config, group, client_id, REBALANCE).unwrap(),
            id: None,
            generation: -1,
            members: None,
        }
    }

    fn ask_to_join(&mut self, owned: &[TopicPartition], note: u8) {
        let metadata = MemberMetadata {
            topics: vec!["clicks".into()],
            owned: owned.to_vec(),
            generation: self.generation,
            user_data: vec![note],
        };
        self.line.join(JoinRequest { member: self.id.clone(), metadata }).unwrap();
    }

    /// The next answer, however long the coordinator cannot be reached.
    fn answer(&mut self) -> Answer {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < SOON, "no answer comes");
            match self.line.next(Duration::from_millis(100)) {
                Ok(Some(answer)) => return answer,
                Ok(None) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::Retry, "{error}"),
            }
        }
    }

    fn joined(&mut self) {
        match self.answer() {
            Answer::Joined { generation, member, members } => {
                (self.generation, self.id, self.members) = (generation, Some(member), members);
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn join(&mut self) {
        self.ask_to_join(&[], 0);
        self.joined();
    }

    fn synced(&mut self) -> MemberAssignment {
        match self.answer() {
            Answer::Synced(assignment) => assignment,
            other => panic!("{other:?}"),
        }
    }

    /// Joins and is assigned something, alone in its group.
    pub(crate) fn join_alone(&mut self, partitions: &[TopicPartition]) {
        self.join();
        let assignment = MemberAssignment { partitions: partitions.to_vec(), user_data: vec![7] };
        self.line.sync(BTreeMap::from([(self.id(), assignment.clone())])).unwrap();
        assert_eq!(self.synced(), assignment);
    }

    /// What comes in a short time, where nothing may fail.
    pub(crate) fn next(&mut self) -> Option<Answer> {
        self.line.next(Duration::from_millis(50)).unwrap()
    }

    pub(crate) fn confirmed_at(&self) -> Option<BootTime> {
        self.line.confirmation()?.at()
    }

    fn id(&self) -> Arc<str> {
        self.id.clone().unwrap()
    }

    /// The error that joining ends with.
    pub(crate) fn refusal(&mut self) -> BrokerError {
        self.ask_to_join(&[], 0);
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < SOON, "it is not refused");
            match self.line.next(Duration::from_millis(100)) {
                Ok(None) => {}
                Ok(Some(answer)) => panic!("{answer:?}"),
                Err(error) => return error,
            }
        }
    }
}

/// The leader assigns each a partition.
fn sync_both(first: &mut Member, second: &mut Member) {
    let assignments: BTreeMap<_, _> = [&*first, &*second]
        .iter()
        .zip(0..)
        .map(|(member, number)| {
            let assignment = MemberAssignment { partitions: vec![tp("clicks", number)], user_data: vec![number as u8] };
            (member.id(), assignment)
        })
        .collect();
    for member in [&mut *first, &mut *second] {
        let leads = member.members.is_some();
        member.line.sync(if leads { assignments.clone() } else { BTreeMap::new() }).unwrap();
    }
    for (number, member) in [first, second].into_iter().enumerate() {
        assert_eq!(member.synced(), assignments[&member.id()], "{number}");
    }
}

/// The first one alone, then both.
fn two(group: &str) -> (Member, Member) {
    let config = config(Cluster::shared(), &[]);
    let (mut first, mut second) = (Member::new(&config, group, "first"), Member::new(&config, group, "second"));
    first.join_alone(&[tp("clicks", 0), tp("clicks", 1)]);
    second.ask_to_join(&[], 2);
    assert_eq!(first.answer(), Answer::Rebalance);
    first.ask_to_join(&[tp("clicks", 0)], 1);
    first.joined();
    second.joined();
    assert_eq!(first.generation, second.generation);
    (first, second)
}

#[test]
fn members_join_are_assigned_what_the_leader_says_and_are_seen_by_the_tools_of_kafka() {
    let broker = broker();
    patiently(|| broker.create_topic("clicks", &TopicSettings::kept_for_ever(2)));
    let (mut first, mut second) = two("seen");
    let (leader, follower) = if first.members.is_some() { (&first, &second) } else { (&second, &first) };
    assert_eq!(follower.members, None);
    let members = leader.members.clone().unwrap();
    assert_eq!(members[&first.id()].owned, [tp("clicks", 0)]);
    assert_eq!((members[&first.id()].generation, members[&second.id()].generation), (1, -1));
    assert_eq!((&members[&first.id()].user_data, &members[&second.id()].user_data), (&vec![1], &vec![2]));
    sync_both(&mut first, &mut second);
    for (member, name) in [(&first, "first-"), (&second, "second-")] {
        assert!(member.id().starts_with(name), "{}", member.id());
    }

    let described = describe_group(&config(Cluster::shared(), &[]), "seen", Duration::from_secs(10)).unwrap();
    assert_eq!((described.state.as_str(), described.protocol_type.as_str()), ("Stable", "consumer"));
    assert_eq!(described.protocol, "millstream");
    let mut seen: Vec<_> = described.members.iter().map(|member| (member.client_id.as_str(), member.host.as_str())).collect();
    seen.sort_unstable();
    assert_eq!(seen, [("first", "127.0.0.1"), ("second", "127.0.0.1")]);

    let mut groups = tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand");
    groups.args([
        "--bootstrap-server",
        Cluster::shared().bootstrap_servers(),
        "--describe",
        "--group",
        "seen",
        "--members",
        "--verbose",
    ]);
    let said = String::from_utf8(groups.output().unwrap().stdout).unwrap();
    for (member, partition) in [(&first, "clicks(0)"), (&second, "clicks(1)")] {
        let line = said.lines().find(|line| line.contains(&*member.id())).unwrap_or_else(|| panic!("{said}"));
        assert!(line.contains(partition) || line.contains(&partition.replace('(', ":").replace(')', "")), "{said}");
    }
}

#[test]
fn a_follower_that_joins_again_with_the_same_metadata_gets_the_same_generation() {
    let (mut first, mut second) = two("again");
    sync_both(&mut first, &mut second);
    let leads = first.members.is_some();
    let (follower, note) = if leads { (&mut second, 2) } else { (&mut first, 1) };
    let (before, owned) = (follower.generation, if leads { vec![] } else { vec![tp("clicks", 0)] });
    // What it said in the generation before.
    follower.generation = if leads { -1 } else { 1 };
    let asked = Instant::now();
    follower.ask_to_join(&owned, note);
    follower.joined();
    println!("joining again took {:.1?}", asked.elapsed());
    assert_eq!(follower.generation, before);
    follower.line.sync(BTreeMap::new()).unwrap();
    follower.synced();
}

#[test]
fn a_member_is_evicted_by_another_at_once() {
    let (mut first, mut second) = two("evicted");
    sync_both(&mut first, &mut second);
    // Its connections are there.
    std::thread::park_timeout(Duration::from_millis(500));
    let began = Instant::now();
    first.line.remove(&[second.id(), "nobody".into()], "it is dead").unwrap();
    assert_eq!(second.answer(), Answer::Gone(Gone::UnknownMember));
    println!("it took {:.1?} until the evicted member knew, with heartbeats of 100 ms", began.elapsed());
    assert_eq!(second.confirmed_at(), None);
    assert_eq!(first.answer(), Answer::Rebalance);
    first.join_alone(&[tp("clicks", 0)]);
    // It comes back as somebody new.
    let before = second.id.take().unwrap();
    second.generation = -1;
    second.ask_to_join(&[], 9);
    assert_eq!(first.answer(), Answer::Rebalance);
    first.ask_to_join(&[], 1);
    first.joined();
    second.joined();
    assert_ne!(second.id(), before);
}

#[test]
fn joining_again_after_an_eviction_takes_milliseconds() {
    let config = config(Cluster::shared(), &[]);
    let mut times = Vec::new();
    for round in 0..5 {
        let group = format!("takeover-{round}");
        let (mut first, mut second) = (Member::new(&config, &group, "first"), Member::new(&config, &group, "second"));
        first.join_alone(&[tp("clicks", 0)]);
        second.ask_to_join(&[], 2);
        assert_eq!(first.answer(), Answer::Rebalance);
        first.ask_to_join(&[], 1);
        first.joined();
        second.joined();
        sync_both(&mut first, &mut second);
        std::thread::park_timeout(Duration::from_millis(300));
        let dead = second.id();
        drop(second);
        let began = Instant::now();
        first.line.remove(&[dead], "it is dead").unwrap();
        // Without waiting for the answer: if it overtakes the removal, the group still waits for the dead member only until that.
        first.ask_to_join(&[], 5);
        first.joined();
        let me = first.id();
        first.line.sync(BTreeMap::from([(me, MemberAssignment::default())])).unwrap();
        first.synced();
        times.push(began.elapsed());
    }
    println!("LeaveGroup, JoinGroup and SyncGroup took {times:.1?}");
    assert!(times.iter().min().unwrap() < &Duration::from_secs(2), "{times:?}");
}

#[test]
fn a_member_that_leaves_frees_its_place_and_one_that_is_dropped_keeps_it() {
    let config = config(Cluster::shared(), &[]);
    let mut member = Member::new(&config, "kept", "member");
    member.join_alone(&[tp("clicks", 0)]);
    let (id, generation) = (member.id(), member.generation);
    let began = Instant::now();
    drop(member);
    assert!(began.elapsed() < Duration::from_secs(3), "dropping took {:?}", began.elapsed());
    assert_eq!(describe_group(&config, "kept", SOON).unwrap().members.len(), 1);

    // In its next life it has the same id at once.
    let mut member = Member::new(&config, "kept", "member");
    member.id = Some(id.clone());
    let began = Instant::now();
    member.join_alone(&[tp("clicks", 0)]);
    println!("joining under the id of the life before took {:.1?}", began.elapsed());
    assert_eq!((member.id(), member.generation), (id.clone(), generation + 1));
    member.line.remove(&[id], "stopped").unwrap();
    drop(member);
    assert_eq!(describe_group(&config, "kept", SOON).unwrap().members, []);
}

#[test]
fn an_id_that_the_group_does_not_know_is_told() {
    let mut member = Member::new(&config(Cluster::shared(), &[]), "forgotten", "member");
    member.id = Some("member-from-another-life".into());
    member.ask_to_join(&[], 0);
    assert_eq!(member.answer(), Answer::Gone(Gone::UnknownMember));
    member.id = None;
    member.join_alone(&[]);
}

#[test]
fn another_process_under_the_same_id_is_noticed() {
    let config = config(Cluster::shared(), &[]);
    let mut member = Member::new(&config, "double", "member");
    member.join_alone(&[]);
    let mut other = Member::new(&config, "double", "member");
    other.id = Some(member.id());
    other.ask_to_join(&[], 9);
    other.joined();
    assert_eq!(member.answer(), Answer::Gone(Gone::OtherGeneration));
}

#[test]
fn a_silent_member_expires() {
    let config = config(Cluster::shared(), &[]);
    let mut member = Member::new(&config, "silent", "member");
    member.join_alone(&[]);
    let began = Instant::now();
    drop(member);
    while !describe_group(&config, "silent", SOON).unwrap().members.is_empty() {
        assert!(began.elapsed() < SOON, "it does not expire");
        std::thread::park_timeout(Duration::from_millis(200));
    }
    let took = began.elapsed();
    println!("the silent member was gone after {took:.1?}");
    assert!(took > Duration::from_secs(4), "{took:?}");
}

#[test]
fn the_proof_of_the_membership_is_renewed_by_heartbeats() {
    let mut member = Member::new(&config(Cluster::shared(), &[]), "proof", "member");
    assert_eq!(member.confirmed_at(), None);
    member.join_alone(&[]);
    let first = member.confirmed_at().unwrap();
    let began = Instant::now();
    while member.confirmed_at().unwrap() <= first + Duration::from_millis(500) {
        assert!(began.elapsed() < SOON, "no heartbeat is answered");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

#[test]
fn a_coordinator_that_was_killed_and_comes_back_knows_its_members() {
    let cluster = Cluster::start(1);
    let config = config(&cluster, &[("session.timeout.ms", "60000")]);
    let mut member = Member::new(&config, "restarted", "member");
    member.join_alone(&[tp("clicks", 0)]);
    let (id, generation) = (member.id(), member.generation);
    cluster.kill(0);
    let (killed, mut told) = (Instant::now(), 0);
    while killed.elapsed() < Duration::from_secs(4) {
        match member.line.next(Duration::from_millis(200)) {
            Ok(answer) => assert_eq!(answer, None),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
                assert!(error.to_string().contains("group restarted"), "{error}");
                told += 1;
            }
        }
    }
    assert!((2..=5).contains(&told), "told {told} times in 4 seconds");
    // What is asked for meanwhile is done when it is back.
    member.ask_to_join(&[tp("clicks", 0)], 1);
    cluster.start_again(0);
    member.joined();
    assert_eq!((member.id(), member.generation), (id, generation + 1));
}

#[test]
fn a_coordinator_that_hangs_is_left_for_its_successor() {
    let cluster = Cluster::start(3);
    let config = config(&cluster, &[("session.timeout.ms", "6000")]);
    let mut member = Member::new(&config, "moved", "member");
    member.join_alone(&[]);
    for node in 0..3 {
        cluster.suspend(node);
        let (began, mut longest) = (Instant::now(), Duration::ZERO);
        // Whichever of them is the coordinator, heartbeats go on before the session would have ended twice.
        while began.elapsed() < Duration::from_secs(12) {
            match member.line.next(Duration::from_millis(100)) {
                Ok(Some(Answer::Gone(gone))) => panic!("node {node}: {gone:?}"),
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::Retry, "{error}"),
            }
            longest = longest.max(boot_time().since(member.confirmed_at().unwrap()));
        }
        println!("node {node} hangs: there was no heartbeat for {longest:.1?} at most");
        let silent = boot_time().since(member.confirmed_at().unwrap());
        assert!(silent < Duration::from_secs(5), "node {node}: no heartbeat for {silent:?}");
        cluster.resume(node);
        std::thread::park_timeout(Duration::from_secs(2));
    }
}

#[test]
fn a_group_that_members_of_another_kind_hold_is_refused_and_they_are_named() {
    let broker = broker();
    patiently(|| broker.create_topic("clashed", &TopicSettings::kept_for_ever(1)));
    let mut old = rdkafka::ClientConfig::new();
    old.set("bootstrap.servers", Cluster::shared().bootstrap_servers()).set("group.id", "clash");
    let old: BaseConsumer = old.set("partition.assignment.strategy", "cooperative-sticky").create().unwrap();
    old.subscribe(&["clashed"]).unwrap();
    while old.assignment().unwrap().count() == 0 {
        old.poll(Duration::from_millis(50));
    }
    let error = Member::new(&config(Cluster::shared(), &[]), "clash", "new").refusal();
    assert_eq!(error.kind(), ErrorKind::Stop, "{error}");
    for part in ["joining group clash", "InconsistentGroupProtocol", "cooperative-sticky", "127.0.0.1", "stop all instances"] {
        assert!(error.to_string().contains(part), "{part} is not in {error}");
    }
}

#[test]
fn a_session_that_brokers_do_not_allow_is_refused() {
    let error = Member::new(&config(Cluster::shared(), &[("session.timeout.ms", "500")]), "short", "member").refusal();
    assert_eq!(error.kind(), ErrorKind::Stop, "{error}");
    assert!(error.to_string().contains("InvalidSessionTimeout") && error.to_string().contains("session.timeout.ms"), "{error}");
}

#[test]
fn a_commit_under_the_proof_of_such_a_member_is_taken_and_refused_as_it_should_be() {
    let broker = broker();
    patiently(|| broker.create_topic("fenced", &TopicSettings::kept_for_ever(1)));
    let mut member = Member::new(&config(Cluster::shared(), &[]), "fenced", "member");
    member.join_alone(&[tp("fenced", 0)]);
    let mut producer = broker.producer("fenced-0").unwrap();
    let mut commit = |generation, id: &str| {
        producer.begin()?;
        let fence = Fence::new("fenced", generation, id);
        let outcome = producer.send_offsets(&fence, &[(tp("fenced", 0), at(1))]).and_then(|()| producer.commit().map(drop));
        if outcome.is_err() {
            producer.abort()?;
        }
        outcome
    };
    let id = member.id();
    commit(member.generation, &id).unwrap();
    for (generation, id) in [(member.generation + 1, &*id), (member.generation, "another")] {
        assert_eq!(commit(generation, id).unwrap_err().kind(), ErrorKind::AbortTransaction);
    }
}

#[test]
fn transactions_of_a_producer_that_is_gone_are_ended_and_it_is_fenced() {
    let cluster = Cluster::shared();
    let broker = broker_of(cluster);
    patiently(|| broker.create_topic("ended", &TopicSettings::kept_for_ever(1)));
    let mut transactions = KafkaTransactions::new(&config(cluster, &[]), "ender").unwrap();
    let mut times = Vec::new();
    for round in 0..3 {
        let ids: Vec<_> = (0..4).map(|number| format!("ended-{round}-{number}")).collect();
        let mut producers: Vec<_> = ids
            .iter()
            .map(|id| {
                let mut producer = broker.producer(id).unwrap();
                producer.begin().unwrap();
                producer.send(&tp("ended", 0), &Record::new(None, Some(b"open"), Timestamp(1))).unwrap();
                producer
            })
            .collect();
        // The records are on the broker.
        std::thread::park_timeout(Duration::from_millis(300));
        let ids: Vec<_> = ids.iter().map(String::as_str).collect();
        let began = Instant::now();
        transactions.end_transactions(&ids, SOON).unwrap();
        times.push(began.elapsed());
        for producer in &mut producers {
            assert_eq!(producer.commit().unwrap_err().kind(), ErrorKind::Fenced);
        }
    }
    println!("ending four transactions at once took {times:.1?}");
    crate::support::settled_end(&broker, &tp("ended", 0));
    assert_eq!(crate::support::read_all(&broker, &tp("ended", 0)), Vec::<String>::new());
    transactions.end_transactions(&[], SOON).unwrap();
    transactions.end_transactions(&["nobody-ever-had-this"], SOON).unwrap();
}

#[test]
fn older_brokers_speak_the_same_protocol() {
    let cluster = Cluster::start_version("3.9.1", 1);
    let config = config(&cluster, &[]);
    let mut member = Member::new(&config, "older", "member");
    member.join_alone(&[tp("clicks", 0)]);
    assert_eq!(describe_group(&config, "older", SOON).unwrap().protocol, "millstream");
    assert_eq!(describe_group(&config, "nobody", SOON).unwrap().members, []);
    let mut other = Member::new(&config, "older", "other");
    other.line.remove(&[member.id()], "it is dead").unwrap();
    assert_eq!(member.answer(), Answer::Gone(Gone::UnknownMember));
    KafkaTransactions::new(&config, "ender").unwrap().end_transactions(&["gone"], SOON).unwrap();
}

#[test]
fn transactions_are_ended_when_their_coordinator_is_back() {
    let cluster = Cluster::start(1);
    let mut transactions = KafkaTransactions::new(&config(&cluster, &[]), "ender").unwrap();
    transactions.end_transactions(&["one"], SOON).unwrap();
    cluster.kill(0);
    let error = transactions.end_transactions(&["one"], Duration::from_secs(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    assert!(error.to_string().contains("transactional id one"), "{error}");
    cluster.start_again(0);
    transactions.end_transactions(&["one", "two"], SOON).unwrap();
}
