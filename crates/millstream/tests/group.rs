//! Groups of members, whatever happens to them and to their lines to the coordinator: a task is in one hand, and what is committed goes on from what was.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream::broker::group::{
    Answer, Candidate, Confirmation, Coordinator, Directory, Gone, GroupMember, JoinRequest, MemberAssignment, PartitionCounts,
    Placement, transactional_id,
};
use millstream::broker::local::MemoryBroker;
use millstream::broker::local::faults::{
    Call, CommitOutcome, Fault, Faults, FaultyBroker, FaultyMembership, FaultyProducer, SeededFaults,
};
use millstream::broker::{
    Broker, BrokerError, CommittedOffset, ErrorKind, Fence, MemberEvent, Membership, StoreCopy, TopicSettings,
    TransactionalProducer,
};
use millstream::clock::ManualClock;
use millstream::record::{Offset, Partition, Timestamp, TopicPartition};
use proptest::prelude::*;

const GROUP: &str = "group";
const INSTANCES: usize = 5;
const MOST_PARTITIONS: u32 = 9;
/// More than a line is late at most.
const QUIET_ROUNDS: u32 = 12;
/// A group that is not at rest after so many rounds of polls never will be.
const MOST_ROUNDS: u32 = 150;

#[derive(Debug, Clone)]
enum Step {
    Start(usize),
    /// As many polls of a process as there are.
    Poll(usize, usize),
    /// A process commits a step of each task that it holds.
    Work(usize),
    /// A process gives up what it was asked for, or a part of that.
    GiveUp(usize, bool),
    Report(usize, u32),
    Leave(usize),
    /// It hears and says nothing from here on, but what it has begun goes on.
    Stall(usize),
    /// It stalls, and its successor joins under its name.
    Restart(usize),
    Expire(usize),
    Rebalance,
    TimeOut,
    Grow,
    Settle(bool),
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    let which = || 0..64_usize;
    prop_oneof![
        3 => (0..INSTANCES).prop_map(Step::Start),
        20 => (which(), 1..6_usize).prop_map(|(process, polls)| Step::Poll(process, polls)),
        10 => which().prop_map(Step::Work),
        6 => (which(), any::<bool>()).prop_map(|(process, all)| Step::GiveUp(process, all)),
        4 => (which(), any::<u32>()).prop_map(|(process, caught_up)| Step::Report(process, caught_up)),
        1 => which().prop_map(Step::Leave),
        1 => which().prop_map(Step::Stall),
        1 => which().prop_map(Step::Restart),
        2 => which().prop_map(Step::Expire),
        1 => Just(Step::Rebalance),
        2 => Just(Step::TimeOut),
        1 => Just(Step::Grow),
        1 => any::<bool>().prop_map(Step::Settle),
        1 => Just(Step::Wait),
    ]
}

/// Faults, until they end.
struct UntilTheEnd(SeededFaults, AtomicBool);

impl Faults for UntilTheEnd {
    fn next(&self, call: Call) -> Option<Fault> {
        self.0.next(call).filter(|_| !self.1.load(Ordering::SeqCst))
    }
}

fn faults(seed: u64) -> SeededFaults {
    use Fault::{Fail, Late, LoseAnswer, LoseRequest, OutcomeUnknown};
    let odds = vec![
        (Call::JoinGroup, LoseRequest, 12),
        (Call::JoinGroup, LoseAnswer, 12),
        (Call::JoinGroup, Fail(ErrorKind::Retry), 20),
        (Call::SyncGroup, LoseRequest, 12),
        (Call::SyncGroup, LoseAnswer, 12),
        (Call::SyncGroup, Fail(ErrorKind::Retry), 20),
        (Call::Poll, Late(1), 12),
        (Call::Poll, Late(6), 30),
        (Call::Commit, OutcomeUnknown(CommitOutcome::InFlight), 10),
        (Call::Commit, OutcomeUnknown(CommitOutcome::Applied), 20),
    ];
    SeededFaults::new(seed, odds)
}

/// A process, and what it believes.
struct Process {
    instance: usize,
    broker: FaultyBroker,
    member: FaultyMembership,
    producer: Option<FaultyProducer>,
    fence: Option<Fence>,
    /// What it holds, and the position of it once that is known.
    hands: BTreeMap<TopicPartition, Option<i64>>,
    asked_back: BTreeSet<TopicPartition>,
    standbys: BTreeSet<TopicPartition>,
    is_stalled: bool,
    /// Another process has joined under its name.
    is_succeeded: bool,
}

struct World {
    broker: MemoryBroker,
    faults: Arc<UntilTheEnd>,
    now: Timestamp,
    partitions: u32,
    incarnations: u64,
    processes: Vec<Process>,
}

fn input(partition: u32) -> TopicPartition {
    TopicPartition::new("in", Partition(partition))
}

impl World {
    fn new(seed: u64, partitions: u32) -> Self {
        let broker = MemoryBroker::in_memory(Arc::new(ManualClock::new(Timestamp(0))));
        broker.create_topic("in", &TopicSettings::kept_for_ever(partitions)).unwrap();
        let faults = Arc::new(UntilTheEnd(faults(seed), AtomicBool::new(false)));
        Self { broker, faults, now: Timestamp(0), partitions, incarnations: 0, processes: Vec::new() }
    }

    fn start(&mut self, instance: usize, member: Option<Arc<str>>) {
        self.incarnations += 1;
        let broker = FaultyBroker::new(self.broker.clone(), self.faults.clone());
        let topics = ["in".into()];
        let candidate = Candidate {
            incarnation: self.incarnations,
            member,
            stateful: topics.iter().cloned().collect(),
            placement: Placement { standbys: 1, ..Placement::default() },
            ..Candidate::new(GROUP, instance.to_string(), &topics)
        };
        let member = broker.join(&candidate).unwrap();
        self.processes.push(Process {
            instance,
            broker,
            member,
            producer: None,
            fence: None,
            hands: BTreeMap::new(),
            asked_back: BTreeSet::new(),
            standbys: BTreeSet::new(),
            is_stalled: false,
            is_succeeded: false,
        });
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Start(instance) => {
                if !self.processes.iter().any(|process| process.instance == instance && !process.is_stalled) {
                    self.start(instance, None);
                }
            }
            Step::Rebalance => self.broker.force_rebalance(GROUP),
            Step::TimeOut => {
                self.broker.time_out_rebalance(GROUP);
            }
            Step::Grow => {
                if self.partitions < MOST_PARTITIONS {
                    self.partitions += 1;
                    self.broker.add_partitions("in", self.partitions).unwrap();
                }
            }
            Step::Settle(commit) => {
                if let Some(open) = self.broker.open_transactions().first() {
                    self.broker.settle(*open, commit).unwrap();
                }
            }
            Step::Wait => self.now = Timestamp(self.now.0 + 20_000),
            _ if self.processes.is_empty() => {}
            Step::Poll(which, polls) => {
                for _ in 0..polls {
                    self.process(which).poll();
                }
            }
            Step::Work(which) => {
                let broker = self.broker.clone();
                self.process(which).work(&broker);
            }
            Step::GiveUp(which, all) => self.process(which).give_up(all),
            Step::Report(which, caught_up) => {
                let now = self.now;
                self.process(which).report(now, caught_up);
            }
            Step::Leave(which) => {
                let which = which % self.processes.len();
                if !self.processes[which].is_stalled {
                    let mut process = self.processes.swap_remove(which);
                    process.member.leave().unwrap();
                }
            }
            Step::Stall(which) => self.process(which).is_stalled = true,
            Step::Restart(which) => {
                let process = self.process(which);
                let name = process.fence.as_ref().map(|fence| fence.member().clone());
                if !std::mem::replace(&mut process.is_succeeded, true) && !std::mem::replace(&mut process.is_stalled, true) {
                    let instance = process.instance;
                    self.start(instance, name);
                }
            }
            Step::Expire(which) => self.process(which).broker.expire_members(),
        }
    }

    fn process(&mut self, which: usize) -> &mut Process {
        let count = self.processes.len();
        &mut self.processes[which % count]
    }

    /// What has to be so at any moment.
    fn check(&self) {
        let (generation, members) = self.broker.describe_group(GROUP);
        let mut holders: BTreeMap<&TopicPartition, usize> = BTreeMap::new();
        let mut probe = self.broker.producer("probe").unwrap();
        for (number, process) in self.processes.iter().enumerate() {
            check_directory(process.member.directory());
            let Some(fence) = &process.fence else {
                assert!(process.hands.is_empty(), "held without a proof");
                continue;
            };
            let is_member = members.contains(fence.member());
            probe.begin().unwrap();
            let is_good = probe.send_offsets(fence, &[]).is_ok();
            probe.abort().unwrap();
            assert_eq!(is_good, is_member && fence.generation() == generation, "{fence:?} in generation {generation}");
            if is_member && !process.is_succeeded {
                for task in process.hands.keys() {
                    let other = holders.insert(task, number);
                    assert_eq!(other, None, "{task} is held by two, one of them {number}");
                }
            }
        }
    }

    /// Nothing goes wrong any more: after so many polls everything is held once.
    fn come_to_rest(&mut self) {
        self.faults.1.store(true, Ordering::SeqCst);
        for process in &self.processes {
            if process.is_stalled {
                process.broker.crash();
                process.broker.expire_members();
            }
        }
        self.processes.retain(|process| !process.is_stalled);
        if self.processes.is_empty() {
            self.start(0, None);
        }
        for open in self.broker.open_transactions() {
            self.broker.settle(open, true).unwrap();
        }
        let mut quiet = 0;
        for round in 0.. {
            assert!(round < MOST_ROUNDS, "the group does not come to rest");
            // Nobody is waited for any more that may come back.
            let now = Timestamp(self.now.0 + if round < QUIET_ROUNDS { 0 } else { 100_000 });
            let mut is_quiet = round > 2 * QUIET_ROUNDS;
            for number in 0..self.processes.len() {
                self.processes[number].report(now, u32::MAX);
                is_quiet &= !self.processes[number].poll();
                self.processes[number].give_up(true);
                self.check();
            }
            quiet = if is_quiet { quiet + 1 } else { 0 };
            if quiet == QUIET_ROUNDS {
                break;
            }
        }
        let members: Vec<_> = self.processes.iter().map(|process| &process.member).collect();
        let state = format!("{:?} {members:?}", self.broker.describe_group(GROUP));
        let all: BTreeSet<_> = (0..self.partitions).map(input).collect();
        let held: Vec<_> = self.processes.iter().flat_map(|process| process.hands.keys().cloned()).collect();
        assert_eq!((held.len(), held.into_iter().collect()), (all.len(), all.clone()), "everything is held once: {state}");
        let standbys: Vec<_> = self.processes.iter().flat_map(|process| process.standbys.iter().cloned()).collect();
        let expected = if self.processes.len() > 1 { all } else { BTreeSet::new() };
        assert_eq!((standbys.len(), standbys.into_iter().collect()), (expected.len(), expected), "everything has one standby");
        for process in &mut self.processes {
            // A producer may have been fenced meanwhile.
            (0..3).for_each(|_| process.work(&self.broker));
            assert!(process.hands.values().all(Option::is_some), "everything is committed");
        }
    }
}

fn check_directory(directory: &Directory) {
    let mut seen = BTreeSet::new();
    let assignment = &directory.assignment;
    for (instance, roles) in &assignment.members {
        for task in &roles.active {
            assert!(seen.insert(task), "{task} is assigned twice");
            assert!(!assignment.moving.contains_key(task), "{task} moves, and is held");
            assert!(!roles.standby.contains(task) && !roles.warmup.contains(task), "{task} has two roles at {instance}");
        }
    }
}

impl Process {
    /// Whether it heard something.
    fn poll(&mut self) -> bool {
        if self.is_stalled {
            return false;
        }
        match self.member.poll(Duration::ZERO) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Retry, "{error}"),
            Ok(MemberEvent::Nothing) => return false,
            Ok(MemberEvent::Assigned { partitions, fence }) => {
                for task in partitions {
                    assert!(!self.standbys.contains(&task) || !self.hands.contains_key(&task));
                    assert_eq!(self.hands.insert(task.clone(), None), None, "{task} is assigned while it is held");
                }
                self.fence = Some(fence);
            }
            Ok(MemberEvent::Revoked { partitions }) => {
                for task in partitions {
                    assert!(self.hands.contains_key(&task), "{task} is asked back of one that does not hold it");
                    assert!(self.asked_back.insert(task.clone()), "{task} is asked back twice");
                }
            }
            Ok(MemberEvent::Standbys { partitions }) => {
                self.standbys = partitions.into_iter().collect();
                let both = self.standbys.iter().find(|task| self.hands.contains_key(task) && !self.asked_back.contains(task));
                assert_eq!(both, None, "a standby beside the task");
            }
            Ok(MemberEvent::Lost) => {
                self.fence = None;
                self.hands.clear();
                self.asked_back.clear();
                self.standbys.clear();
            }
        }
        true
    }

    fn give_up(&mut self, all: bool) {
        if self.is_stalled {
            return;
        }
        let count = if all { self.asked_back.len() } else { self.asked_back.len().min(1) };
        let given_up: Vec<_> = self.asked_back.iter().take(count).cloned().collect();
        for task in &given_up {
            self.asked_back.remove(task);
            self.hands.remove(task);
        }
        self.member.give_up(&given_up).unwrap();
    }

    fn report(&mut self, now: Timestamp, caught_up: u32) {
        if self.is_stalled {
            return;
        }
        let here = self.hands.keys().chain(&self.standbys);
        let copy = |task: &TopicPartition| {
            let is_caught_up = caught_up & (1 << task.partition.0) != 0;
            let position = (caught_up & (1 << (16 + task.partition.0)) != 0).then(|| Offset(i64::from(caught_up & 7)));
            (task.clone(), StoreCopy { position, is_caught_up })
        };
        self.member.report(now, here.map(copy).collect());
    }

    /// Looks up where each task is that it holds, or goes on with it by one. Whatever the broker takes has to go on from what was taken last.
    fn work(&mut self, broker: &MemoryBroker) {
        let Some(fence) = self.fence.clone() else { return };
        for task in self.hands.keys().cloned().collect::<Vec<_>>() {
            let committed = broker.committed(GROUP, std::slice::from_ref(&task)).map(|mut committed| committed.remove(0));
            let committed = committed.ok().map(|committed| committed.map_or(0, |committed| committed.offset.0));
            let Some(position) = self.hands[&task] else {
                self.hands.insert(task, committed);
                continue;
            };
            let taken = self.commit(&fence, &task, position + 1);
            match taken.map_err(|error| error.kind()) {
                Ok(()) => {
                    assert_eq!(committed, Some(position), "{task} goes on elsewhere than where it was");
                    self.hands.insert(task, Some(position + 1));
                }
                // The next producer settles that.
                Err(ErrorKind::OutcomeUnknown | ErrorKind::Fenced) => {
                    self.producer = None;
                    self.hands.insert(task, None);
                }
                Err(_) => {}
            }
        }
    }

    fn commit(&mut self, fence: &Fence, task: &TopicPartition, position: i64) -> Result<(), BrokerError> {
        let producer = match &mut self.producer {
            Some(producer) => producer,
            none => none.insert(self.broker.producer(&transactional_id(GROUP, &self.instance.to_string(), 1))?),
        };
        producer.begin()?;
        let offset = CommittedOffset { offset: Offset(position), metadata: String::new() };
        let outcome = producer.send_offsets(fence, &[(task.clone(), offset)]).and_then(|()| producer.commit().map(drop));
        if outcome.as_ref().is_err_and(|error| error.kind() != ErrorKind::OutcomeUnknown) {
            // One that is fenced is replaced.
            drop(producer.abort());
        }
        outcome
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_task_is_in_one_hand_and_goes_on_from_where_it_was(
        seed in any::<u64>(),
        partitions in 1..6_u32,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut world = World::new(seed, partitions);
        for step in &steps {
            world.take(step);
            world.check();
        }
        world.come_to_rest();
    }
}

/// A coordinator that says what it was told to say, and keeps what it was asked.
#[derive(Default)]
struct Scripted {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    joins: Arc<Mutex<Vec<JoinRequest>>>,
}

impl Coordinator for Scripted {
    fn join(&mut self, request: JoinRequest) -> Result<(), BrokerError> {
        self.joins.lock().unwrap().push(request);
        Ok(())
    }

    fn sync(&mut self, _: BTreeMap<Arc<str>, MemberAssignment>) -> Result<(), BrokerError> {
        Ok(())
    }

    fn next(&mut self, _: Duration) -> Result<Option<Answer>, BrokerError> {
        Ok(self.answers.lock().unwrap().pop_front())
    }

    fn leave(&mut self, _: &str) -> Result<(), BrokerError> {
        Ok(())
    }

    fn end_transactions(&mut self, _: Vec<String>) -> Result<(), BrokerError> {
        Ok(())
    }

    fn remove(&mut self, _: &[Arc<str>], _: &str) -> Result<(), BrokerError> {
        Ok(())
    }

    fn confirmation(&self) -> Option<Confirmation> {
        None
    }

    fn is_settled(&self) -> bool {
        true
    }
}

struct OnePartition;

impl PartitionCounts for OnePartition {
    fn partitions(&self, _: &str) -> Option<u32> {
        Some(1)
    }
}

fn joined(generation: i32, member: &str) -> Answer {
    Answer::Joined { generation, member: member.into(), members: None }
}

fn synced(partitions: &[TopicPartition]) -> Answer {
    Answer::Synced(MemberAssignment { partitions: partitions.to_vec(), user_data: Vec::new() })
}

/// What a member is told when it hears these answers, and what its requests to join list as held.
fn told(answers: impl IntoIterator<Item = Answer>) -> (Vec<MemberEvent>, Vec<Vec<TopicPartition>>) {
    let line = Scripted::default();
    let joins = line.joins.clone();
    line.answers.lock().unwrap().extend(answers);
    let mut member = GroupMember::new(line, Candidate::new(GROUP, "member", &["in".into()]), Arc::new(OnePartition));
    let events = std::iter::from_fn(|| Some(member.poll(Duration::ZERO).unwrap()).filter(|event| *event != MemberEvent::Nothing));
    let events = events.collect();
    let joins = joins.lock().unwrap().iter().map(|request| request.metadata.owned.clone()).collect();
    (events, joins)
}

fn assigned(partitions: &[TopicPartition], generation: i32, member: &str) -> MemberEvent {
    MemberEvent::Assigned { partitions: partitions.to_vec(), fence: Fence::new(GROUP, generation, member) }
}

#[test]
fn a_proof_is_renewed_by_the_membership_that_listed_what_it_is_for_and_by_no_other() {
    let task = [input(0)];
    let start = || [joined(1, "one"), synced(&task), Answer::Rebalance];
    let renewed = told(start().into_iter().chain([joined(2, "one"), synced(&task)]));
    let events = vec![assigned(&task, 1, "one"), assigned(&[], 2, "one")];
    assert_eq!(renewed, (events, vec![vec![], task.to_vec()]));
    // It is another member all of a sudden.
    let (events, _) = told(start().into_iter().chain([joined(2, "other"), synced(&task)]));
    assert_eq!(events, [assigned(&task, 1, "one"), MemberEvent::Lost, assigned(&task, 2, "other")]);
    // It was no member in between.
    let gone = Answer::Gone(Gone::UnknownMember);
    let (events, listed) = told(start().into_iter().chain([gone, joined(2, "other"), synced(&task)]));
    assert_eq!(events, [assigned(&task, 1, "one"), MemberEvent::Lost, assigned(&task, 2, "other")]);
    assert_eq!(listed, [vec![], task.to_vec(), vec![]], "nothing is held that was lost");
}

/// Both lives have said the same of themselves, but for which life it is.
#[test]
fn a_process_that_goes_on_as_a_member_fences_the_one_before() {
    let broker = MemoryBroker::in_memory(Arc::new(ManualClock::new(Timestamp(0))));
    broker.create_topic("in", &TopicSettings::kept_for_ever(2)).unwrap();
    let candidate = |instance: &str| Candidate::new(GROUP, instance, &["in".into()]);
    let mut members = ["gone", "leader", "other"].map(|instance| broker.join(&candidate(instance)).unwrap());
    members.iter_mut().for_each(|member| drop(member.poll(Duration::ZERO).unwrap()));
    broker.time_out_rebalance(GROUP);
    members[1].poll(Duration::ZERO).unwrap();
    let MemberEvent::Assigned { partitions, fence } = members[2].poll(Duration::ZERO).unwrap() else { panic!("assigned") };
    assert_eq!(partitions.len(), 1);

    let name = Some(fence.member().clone());
    let mut next = broker.join(&Candidate { member: name, incarnation: 1, ..candidate("other") }).unwrap();
    let mut has_it = false;
    while !has_it {
        members[1].poll(Duration::ZERO).unwrap();
        has_it = matches!(next.poll(Duration::ZERO).unwrap(), MemberEvent::Assigned { partitions, .. } if !partitions.is_empty());
    }
    let mut producer = broker.producer("before").unwrap();
    producer.begin().unwrap();
    assert_eq!(producer.send_offsets(&fence, &[]).unwrap_err().kind(), ErrorKind::AbortTransaction);
}

#[test]
fn a_member_that_has_lost_what_it_listed_tells_the_group_so() {
    let task = [input(0)];
    // The generation between passed without it, and the leader waits for it to give up what it has listed.
    let (events, listed) = told([joined(1, "one"), synced(&task), Answer::Rebalance, joined(3, "one"), synced(&[])]);
    assert_eq!(events, [assigned(&task, 1, "one"), MemberEvent::Lost, assigned(&[], 3, "one")]);
    assert_eq!(listed, [vec![], task.to_vec(), vec![]]);
}
