//! A position that was set from outside, or lost: counted is what comes from there on, or nothing where counts are there already.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream::broker::group::Candidate;
use millstream::broker::local::faults::{Call, Fault, FaultyBroker};
use millstream::broker::local::{MemoryBroker, Unit};
use millstream::broker::{
    Broker, BrokerError, CommittedOffset, ErrorKind, FetchedBatch, Isolation, LogRange, LogReader, MemberEvent, Membership,
    TopicDescription, TopicSettings, TransactionalProducer,
};
use millstream::clock::ManualClock;
use millstream::record::{Offset, Partition, Record, Timestamp, Topic, TopicPartition};
use millstream::runtime::{Instance, Parts, Registry, StreamsConfig, TaskStatus};
use millstream::serdes::{Bytes, Utf8, WindowedKey};
use millstream::store::memory::MemoryStores;
use millstream::task::TaskState;
use millstream::task::metadata::OffsetMetadata;
use millstream::time::TimeWindows;
use millstream::topology::{Materialized, StreamsBuilder, Topology};

const WORDS: &str = "words";
const SHUFFLED: &str = "app-counts-repartition";
const CHANGELOG: &str = "app-counts-changelog";
const PARTITIONS: u32 = 3;

type Positions = Vec<(TopicPartition, CommittedOffset)>;

fn topology() -> Topology {
    let builder = StreamsBuilder::with_serdes(Bytes, Utf8);
    let windows = TimeWindows::of_size_with_no_grace(Duration::from_millis(10));
    let counts = Materialized::as_("counts").with_retention(Duration::from_secs(1));
    builder.stream(WORDS).group_by(|_, word| *word).windowed_by(windows).count(counts);
    builder.build().expect("it can work")
}

/// An instance that makes itself known there.
fn instance<B: Broker>(broker: B, clock: &Arc<ManualClock>, registry: &Registry) -> Instance<B> {
    instance_with(MemoryStores::new(), broker, clock, registry)
}

fn instance_with<B: Broker>(stores: MemoryStores, broker: B, clock: &Arc<ManualClock>, registry: &Registry) -> Instance<B> {
    let parts = Parts {
        broker: Arc::new(broker),
        topology: topology(),
        config: StreamsConfig { commit_interval: Duration::ZERO, ..StreamsConfig::new("app") },
        provider: Arc::new(stores),
        clock: clock.clone(),
        registry: registry.clone(),
        observer: Arc::new(()),
    };
    Instance::new(1, parts)
}

fn go<B: Broker>(instance: &mut Instance<B>) -> Result<(), String> {
    (0..200).try_for_each(|_| instance.step(Duration::ZERO).map(drop)).map_err(|error| error.to_string())
}

/// Runs an instance for a while. A task in quarantine is its error, too.
fn run(broker: &MemoryBroker, clock: &Arc<ManualClock>) -> Result<(), String> {
    let registry = Registry::new();
    let mut instance = instance(broker.clone(), clock, &registry);
    go(&mut instance)?;
    let quarantined = registry.tasks().into_iter().find(|task| task.state == TaskState::Quarantined);
    instance.close().map_err(|error| error.to_string())?;
    quarantined.map_or(Ok(()), |task| Err(task.trouble.expect("a reason")))
}

fn broker() -> (MemoryBroker, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    let broker = MemoryBroker::in_memory(clock.clone());
    broker.create_topic(WORDS, &TopicSettings::kept_for_ever(PARTITIONS)).expect("it is new");
    (broker, clock)
}

/// Ten words a partition, all of one window.
fn write_words(broker: &MemoryBroker) {
    for partition in 0..PARTITIONS {
        for number in 0..10 {
            let word = format!("word-{}", number % 2);
            let mut unit = Unit::new();
            let to = TopicPartition::new(WORDS, Partition(partition));
            unit.add(&to, &Record::new(None, Some(word.as_bytes()), Timestamp(number)));
            broker.append(unit).expect("there is room");
        }
    }
}

/// Commits a position for every partition of a topic.
fn set_positions(broker: &MemoryBroker, topic: &str, offset: i64, metadata: &str) {
    let position = |partition| (partition, CommittedOffset { offset: Offset(offset), metadata: metadata.to_owned() });
    commit(broker, &[topic.into()], |partitions| partitions.into_iter().map(position).collect());
}

/// Commits positions as a member of the group that then leaves.
fn commit(broker: &MemoryBroker, topics: &[Topic], positions: impl FnOnce(Vec<TopicPartition>) -> Positions) {
    let mut member = broker.join(&Candidate::new("app", "member", topics)).expect("joined");
    let MemberEvent::Assigned { partitions, fence } = member.poll(Duration::ZERO).expect("told") else { panic!("assigned") };
    let mut producer = broker.producer("outside").expect("it is given");
    producer.begin().expect("begun");
    producer.send_offsets(&fence, &positions(partitions)).expect("sent");
    producer.commit().expect("committed");
    member.leave().expect("left");
}

/// The last count of every word.
fn counts(broker: &MemoryBroker) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let changelog = TopicPartition::new(CHANGELOG, Partition(partition));
        let mut reader = broker.reader(&changelog, Offset::ZERO).expect("it is there");
        while let Some(batch) = reader.read(Duration::ZERO).expect("it is read") {
            let mut records = Vec::new();
            batch.records(&mut records).expect("it is whole");
            for record in records {
                let key = WindowedKey::decode_from_changelog(record.key.expect("a key")).expect("a windowed key");
                let word = String::from_utf8(key.key.to_vec()).expect("a word");
                counts.insert(word, i64::from_be_bytes(record.value.expect("a count").try_into().expect("eight bytes")));
            }
        }
    }
    counts
}

fn each(count: i64) -> BTreeMap<String, i64> {
    [("word-0".to_owned(), count), ("word-1".to_owned(), count)].into()
}

#[test]
fn counting_begins_where_the_position_is() {
    let (broker, clock) = broker();
    write_words(&broker);
    set_positions(&broker, WORDS, 6, "");
    run(&broker, &clock).expect("it starts");
    assert_eq!(counts(&broker), each(2 * i64::from(PARTITIONS)));
    run(&broker, &clock).expect("it goes on");
    assert_eq!(counts(&broker), each(2 * i64::from(PARTITIONS)), "nothing is counted twice");
}

/// Kafka Streams' positions on both topics: a window may not be closed before all sources have said so.
#[test]
fn every_source_is_waited_for_where_others_have_counted() {
    let (broker, clock) = broker();
    broker.create_topic("app-counts-repartition", &TopicSettings::purged(PARTITIONS)).expect("it is new");
    let theirs = |stream_time| OffsetMetadata { stream_time, ..OffsetMetadata::default() }.encode();
    set_positions(&broker, WORDS, 0, &theirs(Some(Timestamp(0))));
    set_positions(&broker, "app-counts-repartition", 0, &theirs(None));
    // One partition is far ahead of the others.
    let mut unit = Unit::new();
    unit.add(&TopicPartition::new(WORDS, Partition(0)), &Record::new(None, Some(b"word-0"), Timestamp(5_000)));
    broker.append(unit).expect("there is room");
    run(&broker, &clock).expect("it starts");
    let behind = TopicPartition::new(WORDS, Partition(1));
    let mut unit = Unit::new();
    unit.add(&behind, &Record::new(None, Some(b"word-1"), Timestamp(5)));
    broker.append(unit).expect("there is room");
    run(&broker, &clock).expect("the window is still open");
    assert_eq!(counts(&broker), each(1));
}

#[test]
fn a_position_set_beside_counts_is_refused() {
    let (broker, clock) = broker();
    write_words(&broker);
    run(&broker, &clock).expect("it starts");
    assert_eq!(counts(&broker), each(5 * i64::from(PARTITIONS)));
    set_positions(&broker, WORDS, 3, "");
    let refused = run(&broker, &clock).expect_err("it would count twice");
    assert!(refused.contains("set from outside") && refused.contains("clickmill reset"), "{refused}");
    assert_eq!(counts(&broker), each(5 * i64::from(PARTITIONS)));
}

/// What the group has committed for the words.
fn positions(broker: &MemoryBroker) -> Positions {
    let partitions: Vec<_> = (0..PARTITIONS).map(|partition| TopicPartition::new(WORDS, Partition(partition))).collect();
    let committed = broker.committed("app", &partitions).expect("told");
    partitions.into_iter().zip(committed).map(|(partition, committed)| (partition, committed.expect("committed"))).collect()
}

#[test]
fn an_instance_that_starts_a_task_again_sees_that_its_commit_was_lost() {
    let (broker, clock) = broker();
    let registry = Registry::new();
    write_words(&broker);
    let mut first = instance(broker.clone(), &clock, &registry);
    go(&mut first).expect("it counts");
    let before = positions(&broker);
    write_words(&broker);
    go(&mut first).expect("it counts");
    first.close().expect("it leaves");
    commit(&broker, &[WORDS.into()], |_| before.clone());
    let refused = go(&mut instance(broker.clone(), &clock, &registry)).expect_err("it would count twice");
    for part in ["words-", "is 10, though 20 was committed from here", "clickmill reset"] {
        assert!(refused.contains(part), "{refused}");
    }
    assert_eq!(counts(&broker), each(10 * i64::from(PARTITIONS)), "nothing is counted twice");
}

#[test]
fn an_instance_that_starts_anew_sees_by_its_stores_that_a_commit_was_lost() {
    let (broker, clock) = broker();
    let stores = MemoryStores::new();
    write_words(&broker);
    let mut first = instance_with(stores.clone(), broker.clone(), &clock, &Registry::new());
    go(&mut first).expect("it counts");
    let partitions: Vec<_> = (0..PARTITIONS).map(|number| TopicPartition::new(SHUFFLED, Partition(number))).collect();
    let before: Positions = {
        let committed = broker.committed("app", &partitions).expect("told");
        partitions.into_iter().zip(committed).map(|(of, committed)| (of, committed.expect("committed"))).collect()
    };
    write_words(&broker);
    go(&mut first).expect("it counts");
    first.close().expect("it leaves");
    commit(&broker, &[SHUFFLED.into()], |_| before.clone());
    for _ in 0..2 {
        let mut next = instance_with(stores.clone(), broker.clone(), &clock, &Registry::new());
        let refused = go(&mut next).expect_err("it would count twice, however often it is started");
        assert!(refused.contains(SHUFFLED) && refused.contains("was committed from here"), "{refused}");
    }
    assert_eq!(counts(&broker), each(10 * i64::from(PARTITIONS)), "nothing is counted twice");
}

/// A broker that can be told to know only that much of what the group has committed, or that it cannot tell.
#[derive(Clone)]
struct Forgetful {
    broker: FaultyBroker,
    knows: Arc<Mutex<Option<Result<Positions, BrokerError>>>>,
    /// The topic of the words, or of what is shuffled, was made again.
    made_again: Arc<Mutex<Option<&'static str>>>,
}

impl Broker for Forgetful {
    type Membership = <FaultyBroker as Broker>::Membership;
    type Fetcher = <FaultyBroker as Broker>::Fetcher;
    type Producer = <FaultyBroker as Broker>::Producer;
    type Reader = <FaultyBroker as Broker>::Reader;

    fn committed(&self, group: &str, of: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, BrokerError> {
        let Some(known) = self.knows.lock().expect("not poisoned").clone() else { return self.broker.committed(group, of) };
        let known = known?;
        let known = |input: &TopicPartition| known.iter().find(|(of, _)| of == input).map(|(_, committed)| committed.clone());
        Ok(of.iter().map(known).collect())
    }

    fn cluster_id(&self) -> Result<String, BrokerError> {
        self.broker.cluster_id()
    }

    fn describe_topic(&self, topic: &str) -> Result<Option<TopicDescription>, BrokerError> {
        let described = self.broker.describe_topic(topic)?;
        let is_again = *self.made_again.lock().expect("not poisoned") == Some(topic);
        Ok(described.map(|known| if is_again { TopicDescription { id: "another".to_owned(), ..known } } else { known }))
    }

    fn create_topic(&self, topic: &str, settings: &TopicSettings) -> Result<(), BrokerError> {
        self.broker.create_topic(topic, settings)
    }

    fn log_range(&self, partition: &TopicPartition, isolation: Isolation) -> Result<LogRange, BrokerError> {
        self.broker.log_range(partition, isolation)
    }

    fn delete_records(&self, partition: &TopicPartition, before: Offset) -> Result<(), BrokerError> {
        self.broker.delete_records(partition, before)
    }

    fn join(&self, candidate: &Candidate) -> Result<Self::Membership, BrokerError> {
        self.broker.join(candidate)
    }

    fn fetcher(&self) -> Result<Self::Fetcher, BrokerError> {
        self.broker.fetcher()
    }

    fn producer(&self, transactional_id: &str) -> Result<Self::Producer, BrokerError> {
        self.broker.producer(transactional_id)
    }

    fn reader(&self, partition: &TopicPartition, from: Offset) -> Result<Self::Reader, BrokerError> {
        self.broker.reader(partition, from)
    }
}

#[test]
fn a_task_that_goes_on_after_a_failed_transaction_sees_that_the_one_before_was_lost() {
    let (broker, clock) = broker();
    let fails = Arc::new(AtomicBool::new(false));
    let faults = {
        let fails = fails.clone();
        let fault = Fault::Fail(ErrorKind::AbortTransaction);
        move |call| (call == Call::Commit && fails.swap(false, Ordering::Relaxed)).then_some(fault)
    };
    let forgetful = Forgetful {
        broker: FaultyBroker::new(broker.clone(), Arc::new(faults)),
        knows: Arc::default(),
        made_again: Arc::default(),
    };
    let mut instance = instance(forgetful.clone(), &clock, &Registry::new());
    write_words(&broker);
    go(&mut instance).expect("it counts");
    // A transaction that fails while what was committed has lasted.
    fails.store(true, Ordering::Relaxed);
    write_words(&broker);
    go(&mut instance).expect("it counts them with the next");
    assert_eq!(counts(&broker), each(10 * i64::from(PARTITIONS)));
    // One while that cannot be told: the next commit goes on, for it may be what the positions wait for.
    *forgetful.knows.lock().expect("not poisoned") = Some(Err(BrokerError::new(ErrorKind::Retry, "a transaction holds them")));
    fails.store(true, Ordering::Relaxed);
    write_words(&broker);
    go(&mut instance).expect("it counts them with the next");
    assert_eq!(counts(&broker), each(15 * i64::from(PARTITIONS)));
    // And one while it has not.
    let known = positions(&broker).into_iter().map(|(of, committed)| (of, CommittedOffset { offset: Offset(10), ..committed }));
    *forgetful.knows.lock().expect("not poisoned") = Some(Ok(known.collect()));
    fails.store(true, Ordering::Relaxed);
    write_words(&broker);
    let refused = go(&mut instance).expect_err("what was committed is gone");
    for part in ["though", "was committed from here", "clickmill reset"] {
        assert!(refused.contains(part), "{refused}");
    }
    assert_eq!(counts(&broker), each(15 * i64::from(PARTITIONS)), "nothing more is counted");
}

#[test]
fn nothing_is_committed_for_a_topic_that_was_made_again_while_it_was_read() {
    for (topic, input) in [(WORDS, WORDS), (SHUFFLED, SHUFFLED), (CHANGELOG, SHUFFLED)] {
        let (broker, clock) = broker();
        let nothing = |_| None;
        let remade = Forgetful {
            broker: FaultyBroker::new(broker.clone(), Arc::new(nothing)),
            knows: Arc::default(),
            made_again: Arc::default(),
        };
        let registry = Registry::new();
        let mut instance = instance(remade.clone(), &clock, &registry);
        write_words(&broker);
        go(&mut instance).expect("it counts");
        let (counted, committed) = (counts(&broker), positions(&broker));
        assert_eq!(counted, each(5 * i64::from(PARTITIONS)));
        *remade.made_again.lock().expect("not poisoned") = Some(topic);
        write_words(&broker);
        go(&mut instance).expect("the others go on");
        // What had to look it up again has waited for a moment.
        clock.advance_ms(1_000);
        go(&mut instance).expect("the others go on");
        assert_eq!(counts(&broker), counted, "{topic}");
        assert!(topic != WORDS || positions(&broker) == committed, "a position of another topic is committed");
        // Those that have read something of it; of what is shuffled that is not every partition.
        let has_read = |task: &TaskStatus| &*task.input().topic == input && task.state == TaskState::Quarantined;
        let quarantined: Vec<_> = registry.tasks().into_iter().filter(has_read).collect();
        assert!(!quarantined.is_empty() && (topic != WORDS || quarantined.len() == PARTITIONS as usize), "{quarantined:?}");
        for task in &quarantined {
            let reason = task.trouble.as_deref().unwrap_or_default();
            for part in [topic, "made again", "clickmill reset"] {
                assert!(reason.contains(part), "{reason}");
            }
        }
        // Nothing was made again after all: they go on from where they were.
        *remade.made_again.lock().expect("not poisoned") = None;
        assert!(quarantined.iter().all(|task| registry.retry(task.id)));
        go(&mut instance).expect("it counts");
        assert_eq!(counts(&broker), each(10 * i64::from(PARTITIONS)), "{topic}");
    }
}

#[test]
fn a_store_whose_changelog_was_made_again_is_left_as_it_is() {
    let (broker, clock) = broker();
    let remade = Forgetful {
        broker: FaultyBroker::new(broker.clone(), Arc::new(|_| None)),
        knows: Arc::default(),
        made_again: Arc::default(),
    };
    let stores = MemoryStores::new();
    write_words(&broker);
    let mut first = instance_with(stores.clone(), remade.clone(), &clock, &Registry::new());
    go(&mut first).expect("it counts");
    first.close().expect("it leaves");
    *remade.made_again.lock().expect("not poisoned") = Some(CHANGELOG);
    let registry = Registry::new();
    let mut next = instance_with(stores, remade.clone(), &clock, &registry);
    go(&mut next).expect("the others go on");
    let quarantined = registry.tasks().into_iter().filter(|task| task.state == TaskState::Quarantined);
    let quarantined: Vec<_> = quarantined.map(|task| (task.id, task.input().topic.to_string())).collect();
    assert_eq!(quarantined.len(), PARTITIONS as usize, "{quarantined:?}");
    assert!(quarantined.iter().all(|(_, topic)| topic == SHUFFLED), "{quarantined:?}");
    // It was there all the time: the stores are, too, and nothing is replayed.
    *remade.made_again.lock().expect("not poisoned") = None;
    assert!(quarantined.iter().all(|(id, _)| registry.retry(*id)));
    write_words(&broker);
    go(&mut next).expect("it counts");
    assert_eq!((counts(&broker), registry.restored_records()), (each(10 * i64::from(PARTITIONS)), 0));
}
