//! Measurements of fetching, printed and never judged: `cargo test --release -p millstream-kafka --test kafka -- --ignored --nocapture
//! measure`. `FETCH`, as `property=value,...`, sets properties of the client.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kafka_test_server::Cluster;
use millstream::broker::group::Candidate;
use millstream::broker::{Broker, Fetched, FetchedBatch, Fetcher, Isolation, Membership, TopicSettings, TransactionalProducer};
use millstream::record::{Offset, Record, Timestamp, TopicPartition};
use millstream_kafka::{KafkaBroker, KafkaFetcher, KafkaIntake, KafkaProducer};

use crate::support::{SOON, assigned, broker_with, tp};

const PARTITIONS: u32 = 8;
const MESSAGES: usize = 5_000_000;
const MESSAGE_BYTES: usize = 211;

/// CPU time of this process, of which Kafka is none, in seconds.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit(") ").next().unwrap();
    let fields: Vec<u64> = after_name.split(' ').skip(11).take(2).map(|field| field.parse().unwrap()).collect();
    (fields[0] + fields[1]) as f64 / 100.0
}

fn broker() -> KafkaBroker {
    let given = std::env::var("FETCH").unwrap_or_default();
    let properties: Vec<_> = given.split(',').filter_map(|property| property.split_once('=')).collect();
    eprintln!("--- {given}");
    broker_with(Cluster::shared(), &properties)
}

/// Something like a click, of the length measured with; it compresses to a third.
fn message(number: usize) -> String {
    let hash = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut message = format!(
        "{{\"id\":\"{hash:016x}-{number:012}\",\"ad\":{},\"campaign\":{},\"time\":{},\"country\":\"DE\",\"device\":\"mobile\",\"user\":\"{:016x}\",",
        hash % 10_000,
        hash % 100,
        1_700_000_000_000 + number,
        hash.rotate_left(17)
    );
    message.push_str(&"padding ".repeat(40)[..MESSAGE_BYTES - 1 - message.len()]);
    message.push('}');
    message
}

/// Writes messages and waits for their answers.
fn write(intake: &KafkaIntake, topic: &str, messages: std::ops::Range<usize>) {
    let (answered, count) = (Arc::new(AtomicUsize::new(0)), messages.len());
    for number in messages {
        let value = message(number);
        loop {
            let answered = answered.clone();
            let record = Record::new(None, Some(value.as_bytes()), Timestamp(1 + number as i64));
            let to = tp(topic, number as u32 / 64 % PARTITIONS);
            if intake
                .send(&to, &record, move |outcome| {
                    outcome.unwrap();
                    answered.fetch_add(1, Ordering::Relaxed);
                })
                .is_ok()
            {
                break;
            }
            thread::park_timeout(Duration::from_millis(1));
        }
    }
    while answered.load(Ordering::Relaxed) < count {
        thread::park_timeout(Duration::from_micros(100));
    }
}

fn partitions(topic: &str) -> Vec<TopicPartition> {
    (0..PARTITIONS).map(|partition| tp(topic, partition)).collect()
}

/// Reads until it has so many records, and looks at each.
fn read(fetcher: &mut KafkaFetcher, wanted: usize) -> usize {
    let (mut read, mut bytes, mut polls) = (0, 0, 0);
    while read < wanted {
        polls += 1;
        let Fetched::Batch(batch) = fetcher.poll(Duration::from_millis(100)).unwrap() else { continue };
        let mut records = Vec::new();
        batch.records(&mut records).unwrap();
        read += records.len();
        bytes += records.iter().map(|record| record.value.map_or(0, <[u8]>::len)).sum::<usize>();
    }
    assert_eq!(bytes, wanted * MESSAGE_BYTES);
    polls
}

#[test]
#[ignore = "a measurement"]
fn measure_a_backlog_and_a_stream() {
    let broker = broker();
    broker.create_topic("measured", &TopicSettings::kept_for_ever(PARTITIONS)).unwrap();
    let intake = broker.intake().unwrap();
    let began = Instant::now();
    write(&intake, "measured", 0..MESSAGES);
    eprintln!("written in {:?}", began.elapsed());
    for round in 0..3 {
        let mut fetcher = broker.fetcher().unwrap();
        let (began, cpu_before) = (Instant::now(), cpu());
        partitions("measured").iter().for_each(|partition| fetcher.start(partition, Offset(0)).unwrap());
        let polls = read(&mut fetcher, MESSAGES);
        let (elapsed, cpu) = (began.elapsed(), cpu() - cpu_before);
        eprintln!(
            "backlog {round}: {elapsed:?}, {:.2} M/s, {:.0} ns of CPU a record, {polls} polls",
            MESSAGES as f64 / elapsed.as_secs_f64() / 1e6,
            cpu / MESSAGES as f64 * 1e9
        );
    }
    stream(&broker, &intake);
}

#[test]
#[ignore = "a measurement"]
fn measure_idleness_and_latencies() {
    let broker = broker();
    let intake = broker.intake().unwrap();
    idle(&broker, &intake);
}

/// The CPU time of each thread, by its name, in ticks.
fn threads() -> BTreeMap<(u32, String), u64> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    tasks
        .filter_map(|task| {
            let stat = std::fs::read_to_string(task.join("stat")).ok()?;
            let (id, rest) = stat.split_once(" (")?;
            let (name, rest) = rest.rsplit_once(") ")?;
            let ticks = rest.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
            Some(((id.parse().unwrap(), name.to_owned()), ticks))
        })
        .collect()
}

/// Records that come all the time, slower than they could be read.
fn stream(broker: &KafkaBroker, intake: &KafkaIntake) {
    broker.create_topic("streamed", &TopicSettings::kept_for_ever(PARTITIONS)).unwrap();
    for rate in [1_000, 20_000, 100_000] {
        let mut fetcher = broker.fetcher().unwrap();
        for partition in partitions("streamed") {
            let end = broker.log_range(&partition, Isolation::ReadCommitted).unwrap().end;
            fetcher.start(&partition, end).unwrap();
        }
        let count = rate * 10;
        let writing = intake.clone();
        let (before, writer_began) = (cpu(), Instant::now());
        let writer = thread::spawn(move || {
            let records = |piece: usize| piece * rate / 200..(piece + 1) * rate / 200;
            for piece in 0..2000 {
                for number in records(piece) {
                    let value = message(number);
                    let record = Record::new(None, Some(value.as_bytes()), Timestamp(1 + number as i64));
                    writing
                        .send(&tp("streamed", number as u32 % PARTITIONS), &record, |outcome| {
                            outcome.unwrap();
                        })
                        .unwrap();
                }
                let due = Duration::from_millis(5 * (piece as u64 + 1));
                thread::park_timeout(due.saturating_sub(writer_began.elapsed()));
            }
        });
        let reader = thread::Builder::new().name("reader".into()).spawn(move || read(&mut fetcher, count)).unwrap();
        let polls = reader.join().unwrap();
        writer.join().unwrap();
        eprintln!("stream of {rate}/s: {:.1} % of a core (writing included), {polls} polls", (cpu() - before) * 10.0);
    }
}

/// A member and four fetchers with nothing to do; what one click and one transaction then take.
fn idle(broker: &KafkaBroker, intake: &KafkaIntake) {
    broker.create_topic("idle", &TopicSettings::kept_for_ever(PARTITIONS)).unwrap();
    let mut member = broker.join(&Candidate::new("idle", "instance", &["idle".into()])).unwrap();
    assigned(&mut member);
    let stop = Arc::new(AtomicUsize::new(0));
    let stopped = stop.clone();
    let polled = thread::spawn(move || {
        while stopped.load(Ordering::Relaxed) == 0 {
            member.poll(Duration::from_millis(100)).unwrap();
        }
    });
    let began = Instant::now();
    let others: Vec<_> = (0..4)
        .map(|thread| {
            let (mut fetcher, stopped) = (broker.fetcher().unwrap(), stop.clone());
            for partition in partitions("idle").into_iter().filter(|partition| partition.partition.0 % 4 == thread) {
                fetcher.start(&partition, Offset(0)).unwrap();
            }
            thread::spawn(move || {
                while stopped.load(Ordering::Relaxed) == 0 {
                    fetcher.poll(Duration::from_millis(100)).unwrap();
                }
            })
        })
        .collect();
    thread::park_timeout(Duration::from_secs(3).saturating_sub(began.elapsed()));
    let (before, threads_before) = (cpu(), threads());
    thread::park_timeout(Duration::from_secs(20));
    eprintln!("idle: {:.2} % of a core for a member and four fetchers", (cpu() - before) / 20.0 * 100.0);
    for (thread, ticks) in threads() {
        let ticks = ticks - threads_before.get(&thread).unwrap_or(&0);
        if ticks > 0 {
            eprintln!("  {} {}: {:.2} %", thread.0, thread.1, ticks as f64 / 20.0);
        }
    }
    stop.store(1, Ordering::Relaxed);
    polled.join().unwrap();
    others.into_iter().for_each(|other| other.join().unwrap());
    latencies(broker, intake);
}

fn latencies(broker: &KafkaBroker, intake: &KafkaIntake) {
    broker.create_topic("late", &TopicSettings::kept_for_ever(PARTITIONS)).unwrap();
    let mut starts = Vec::new();
    for round in 0..20 {
        // All partitions are started, nothing is there; then one record to the last of them.
        let mut fetcher = broker.fetcher().unwrap();
        for partition in partitions("late") {
            fetcher.start(&partition, broker.log_range(&partition, Isolation::ReadUncommitted).unwrap().end).unwrap();
        }
        write(intake, "late", (PARTITIONS as usize - 1) * 64 + round..(PARTITIONS as usize - 1) * 64 + round + 1);
        let began = Instant::now();
        read(&mut fetcher, 1);
        starts.push(began.elapsed());
    }
    tell("a record just after a start", starts);
    let mut fetcher = broker.fetcher().unwrap();
    for partition in partitions("late") {
        fetcher.start(&partition, broker.log_range(&partition, Isolation::ReadUncommitted).unwrap().end).unwrap();
    }
    let mut clicks = Vec::new();
    for number in 0..50 {
        thread::park_timeout(Duration::from_millis(130));
        let began = Instant::now();
        write(intake, "late", number * 64..number * 64 + 1);
        read(&mut fetcher, 1);
        clicks.push(began.elapsed());
    }
    tell("a click", clicks);
    let mut producer = broker.producer("late").unwrap();
    let (mut transactions, mut markers) = (Vec::new(), Vec::new());
    for number in 0..20 {
        thread::park_timeout(Duration::from_millis(730));
        let to = tp("late", number % PARTITIONS);
        producer.begin().unwrap();
        producer.send(&to, &Record::new(None, Some(message(7).as_bytes()), Timestamp(1))).unwrap();
        let last = producer.commit().unwrap()[&to].1;
        let began = Instant::now();
        read(&mut fetcher, 1);
        transactions.push(began.elapsed());
        while began.elapsed() < SOON {
            let Fetched::Batch(batch) = fetcher.poll(Duration::from_millis(100)).unwrap() else { continue };
            if batch.partition() == &to && batch.next_offset() == Offset(last.0 + 2) {
                break;
            }
        }
        markers.push(began.elapsed());
    }
    tell("a record after its commit", transactions);
    tell("the position behind a marker", markers);
    commits(&mut producer);
}

fn commits(producer: &mut KafkaProducer) {
    let (mut times, before) = (Vec::new(), cpu());
    for round in 0..200 {
        let began = Instant::now();
        producer.begin().unwrap();
        for number in 0..1000 {
            let to = tp("late", number % PARTITIONS);
            producer.send(&to, &Record::new(None, Some(&message(round * 1000).as_bytes()[..32]), Timestamp(1))).unwrap();
        }
        producer.commit().unwrap();
        times.push(began.elapsed());
    }
    tell("a transaction of 1000 small records", times);
    eprintln!("  {:.0} ns of CPU a record", (cpu() - before) * 1e9 / 200_000.0);
}

fn tell(what: &str, mut times: Vec<Duration>) {
    times.sort();
    eprintln!("{what}: median {:?}, most {:?}", times[times.len() / 2], times[times.len() - 1]);
}
