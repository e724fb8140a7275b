//! The engine on Kafka: a topology that counts, crashed and started again, counts each record once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use kafka_test_server::Cluster;
use millstream::broker::{Broker, TopicSettings, TransactionalProducer};
use millstream::clock::Clock;
use millstream::record::{Offset, Record, Timestamp};
use millstream::runtime::{Instance, Parts, Registry, StreamsConfig};
use millstream::serdes::{Bytes, Utf8, WindowedKey};
use millstream::store::memory::MemoryStores;
use millstream::time::TimeWindows;
use millstream::topology::{Materialized, StreamsBuilder, Topology};
use millstream_kafka::KafkaBroker;

use crate::support::{broker_of, tp};

const WINDOW_MS: i64 = 1000;
const PARTITIONS: u32 = 3;
const RECORDS: u32 = 6000;

/// Counts words by window, shuffled over a repartition topic.
fn topology(source: &str) -> Topology {
    let builder = StreamsBuilder::with_serdes(Bytes, Utf8);
    let windows = TimeWindows::of_size_with_no_grace(Duration::from_millis(WINDOW_MS as u64));
    let day = Duration::from_secs(24 * 60 * 60);
    builder.stream(source).group_by(|_, word| *word).windowed_by(windows).count(Materialized::as_("counts").with_retention(day));
    builder.build().expect("it can work")
}

/// The time since it was made: no wall clock is needed.
struct SinceStart(Instant);

impl Clock for SinceStart {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.elapsed().as_millis() as i64)
    }
}

type Counts = BTreeMap<(String, i64), i64>;

/// Writes records in the order of their time, and says how often each word occurs in each window.
fn write_words(broker: &KafkaBroker, topic: &str) -> Counts {
    broker.create_topic(topic, &TopicSettings::kept_for_ever(PARTITIONS)).unwrap();
    let mut producer = broker.producer(&format!("words-of-{topic}")).unwrap();
    let mut tally = Counts::new();
    for chunk in 0..RECORDS / 100 {
        producer.begin().unwrap();
        for number in chunk * 100..(chunk + 1) * 100 {
            let word = format!("word-{}", number.wrapping_mul(2_654_435_761) % 37);
            let time = i64::from(number) * 5 + 1;
            let to = tp(topic, number % PARTITIONS);
            producer.send(&to, &Record::new(None, Some(word.as_bytes()), Timestamp(time))).unwrap();
            *tally.entry((word, time - time % WINDOW_MS)).or_default() += 1;
        }
        // Aborted transactions leave traces too.
        if chunk % 7 == 3 {
            producer.abort().unwrap();
            for number in chunk * 100..(chunk + 1) * 100 {
                let word = format!("word-{}", number.wrapping_mul(2_654_435_761) % 37);
                let time = i64::from(number) * 5 + 1;
                *tally.get_mut(&(word, time - time % WINDOW_MS)).unwrap() -= 1;
            }
        } else {
            producer.commit().unwrap();
        }
    }
    tally.retain(|_, count| *count > 0);
    tally
}

/// The last count of each word and window on the changelog.
fn counts(broker: &KafkaBroker, app: &str) -> Counts {
    use millstream::broker::{FetchedBatch, Isolation, LogReader};
    let changelog = format!("{app}-counts-changelog");
    let mut counts = Counts::new();
    for partition in 0..PARTITIONS {
        let range = broker.log_range(&tp(&changelog, partition), Isolation::ReadUncommitted).unwrap();
        let mut reader = broker.reader(&tp(&changelog, partition), range.start).unwrap();
        let began = Instant::now();
        while reader.position() < range.end && began.elapsed() < Duration::from_secs(12) {
            let Some(batch) = reader.read(Duration::from_millis(100)).unwrap() else { continue };
            let mut records = Vec::new();
            batch.records(&mut records).unwrap();
            for record in records {
                let WindowedKey { key, start } = WindowedKey::decode_from_changelog(record.key.unwrap()).unwrap();
                let count = i64::from_be_bytes(record.value.unwrap().try_into().unwrap());
                counts.insert((String::from_utf8(key.to_vec()).unwrap(), start.0), count);
            }
        }
    }
    counts
}

fn instance_of(
    broker: &KafkaBroker,
    app: &str,
    source: &str,
    number: usize,
    stores: &Arc<MemoryStores>,
) -> Instance<KafkaBroker> {
    let parts = Parts {
        broker: Arc::new(broker.clone()),
        topology: topology(source),
        config: StreamsConfig { idle_timeout: None, instance_id: number.to_string(), ..StreamsConfig::new(app) },
        provider: stores.clone(),
        clock: Arc::new(SinceStart(Instant::now())),
        registry: Registry::new(),
        observer: Arc::new(()),
    };
    Instance::new(1, parts)
}

/// How many records have been counted, by what is on the changelog.
fn total(counts: &Counts) -> i64 {
    counts.values().sum()
}

/// Steps an instance for some time, or until everything is counted.
fn run_for(instance: &mut Instance<KafkaBroker>, time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        instance.step(Duration::from_millis(50)).unwrap();
    }
}

fn run_until_counted(broker: &KafkaBroker, app: &str, instance: &mut Instance<KafkaBroker>, expected: &Counts) -> Counts {
    let began = Instant::now();
    loop {
        run_for(instance, Duration::from_secs(1));
        let found = counts(broker, app);
        if total(&found) >= total(expected) || began.elapsed() > Duration::from_secs(60) {
            return found;
        }
    }
}

#[test]
fn an_instance_that_crashes_again_and_again_counts_each_record_once() {
    let cluster = Cluster::shared();
    let broker = broker_of(cluster);
    let expected = write_words(&broker, "engine-words");
    let stores = Arc::new(MemoryStores::new());
    for round in 0..6 {
        let mut instance = instance_of(&broker, "engine", "engine-words", 0, &stores);
        // Long enough to get somewhere, and cut off in the middle of whatever it does then.
        run_for(&mut instance, Duration::from_millis(900 + 130 * round));
        drop(instance);
    }
    let mut instance = instance_of(&broker, "engine", "engine-words", 0, &stores);
    let found = run_until_counted(&broker, "engine", &mut instance, &expected);
    assert_eq!(found, expected);
    instance.close().unwrap();
    // And from the changelog alone, with nothing counted twice.
    let mut instance = instance_of(&broker, "engine", "engine-words", 0, &Arc::new(MemoryStores::new()));
    run_for(&mut instance, Duration::from_secs(3));
    instance.close().unwrap();
    assert_eq!(counts(&broker, "engine"), expected);
}

/// Two instances share the partitions; they come and go, with stores of their own, while records are counted.
#[test]
fn instances_that_come_and_go_count_each_record_once() {
    let cluster = Cluster::shared();
    let broker = broker_of(cluster);
    let expected = write_words(&broker, "shared-words");
    let run = |number: usize, rounds: u64| {
        let broker = broker.clone();
        thread::spawn(move || {
            let stores = Arc::new(MemoryStores::new());
            for round in 0..rounds {
                let mut instance = instance_of(&broker, "shared", "shared-words", number, &stores);
                run_for(&mut instance, Duration::from_millis(1500 + 400 * round * (number as u64 + 1)));
                // By turns it goes in order and as in a crash.
                if round % 2 == 0 { instance.close().unwrap() } else { drop(instance) }
            }
        })
    };
    let threads = [run(0, 3), run(1, 3)];
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let mut instance = instance_of(&broker, "shared", "shared-words", 2, &Arc::new(MemoryStores::new()));
    let found = run_until_counted(&broker, "shared", &mut instance, &expected);
    assert_eq!(found, expected);
    instance.close().unwrap();
}

/// The intake answers for each record once it is written, and what it wrote is there.
#[test]
fn the_intake_answers_for_each_record() {
    let broker = broker_of(Cluster::shared());
    broker.create_topic("intake", &TopicSettings::kept_for_ever(2)).unwrap();
    let intake = broker.intake().unwrap();
    let (sender, answers) = std::sync::mpsc::channel();
    for number in 0..1000_u32 {
        let (sender, value) = (sender.clone(), format!("click {number}"));
        let record = Record::new(None, Some(value.as_bytes()), Timestamp(5));
        let to = tp("intake", number % 2);
        intake.send(&to, &record, move |outcome| sender.send((number, outcome)).unwrap()).unwrap();
    }
    drop(sender);
    let mut offsets: Vec<(u32, Offset)> = answers.iter().map(|(number, outcome)| (number, outcome.unwrap())).collect();
    offsets.sort();
    assert_eq!(offsets.len(), 1000);
    assert!(offsets.iter().all(|(number, offset)| offset.0 == i64::from(number / 2)), "in order, each once");
    assert_eq!(crate::support::read_all(&broker, &tp("intake", 1)).len(), 500);
    let (sender, answers) = std::sync::mpsc::channel();
    let outcome = intake.send(&tp("intake", 7), &Record::new(None, Some(b"x"), Timestamp(5)), move |outcome| {
        sender.send(outcome).unwrap();
    });
    let error = outcome.err().unwrap_or_else(|| answers.recv().unwrap().unwrap_err());
    assert!(error.to_string().contains("intake-7"), "{error}");
}
