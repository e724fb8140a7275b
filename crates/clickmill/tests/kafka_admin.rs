//! What an operator does to an application on a real Kafka: topics, reset, drain, starts that are refused; and what a client is told
//! whose click the topic does not take, or not now. One server serves all of these tests but two, each of which has an application and
//! topics of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod service;

use std::collections::BTreeMap;
use std::process::Output;
use std::sync::OnceLock;
use std::time::Duration;

use kafka_test_server::Cluster;
use millstream::broker::group::Candidate;
use millstream::broker::{
    Broker, CommittedOffset, FetchedBatch, Isolation, LogReader, MemberEvent, Membership, TransactionalProducer,
};
use millstream::record::{Offset, Partition, Record, Timestamp, TopicPartition};
use millstream::serdes::WindowedKey;
use millstream_kafka::{KafkaBroker, KafkaConfig};
use serde_json::Value;
use service::{Service, clickmill};

const PARTITIONS: u32 = 2;

/// Clicks are written with this timestamp, and those of a later half with one more. Brokers delete what is old.
fn written_at() -> i64 {
    static NOW: OnceLock<i64> = OnceLock::new();
    *NOW.get_or_init(|| jiff::Timestamp::now().as_millisecond())
}

/// An application with a clicks topic of its own, and what is under its directory.
struct App {
    name: &'static str,
    dir: tempfile::TempDir,
    broker: KafkaBroker,
    servers: String,
}

impl App {
    fn new(name: &'static str) -> Self {
        Self::on(Cluster::shared(), name)
    }

    fn on(cluster: &Cluster, name: &'static str) -> Self {
        let servers = cluster.bootstrap_servers().to_owned();
        let broker = KafkaBroker::new(KafkaConfig::new(&*servers, []).unwrap()).unwrap();
        Self { name, dir: tempfile::tempdir().unwrap(), broker, servers }
    }

    fn configuration(&self) -> String {
        format!(
            "[engine]\napplication_id = \"{name}\"\nthreads = 1\nmemory = \"256MiB\"\nidle_timeout = \"off\"\n\
             [clicks]\ntopic = \"{name}-clicks\"\npartitions = {PARTITIONS}\n\
             [kafka]\nbootstrap.servers = \"{}\"\n\"session.timeout.ms\" = 6000\n",
            self.servers,
            name = self.name
        )
    }

    fn service(&self) -> Service {
        Service::new(self.dir.path(), &self.configuration())
    }

    /// Runs a command on the service's configuration and directory.
    fn run(&self, arguments: &[&str]) -> Output {
        let file = self.dir.path().join("clickmill.toml");
        std::fs::write(&file, self.configuration()).unwrap();
        let mut command = clickmill(arguments);
        command.arg("--config").arg(file).arg("--data-dir").arg(self.dir.path().join("data"));
        command.output().unwrap()
    }

    /// What a command says, which must end with that status.
    fn says(&self, arguments: &[&str], status: i32) -> (String, String) {
        let output = self.run(arguments);
        let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        assert_eq!(output.status.code(), Some(status), "{arguments:?}\n{out}\n{err}");
        (out, err)
    }

    fn topic(&self, end: &str) -> String {
        format!("{}-{end}", self.name)
    }

    /// Writes that many clicks a partition, with that timestamp of their records.
    fn write_clicks(&self, count: u32, record_time: i64) {
        let mut producer = self.broker.producer(&self.topic("clicks-producer")).unwrap();
        producer.begin().unwrap();
        for number in 0..count {
            let time = written_at() - 1_000 + i64::from(number);
            let click = format!(r#"{{"ad_id": "ad-{}", "timestamp": {time}}}"#, number % 7);
            for partition in 0..PARTITIONS {
                let to = TopicPartition::new(self.topic("clicks"), Partition(partition));
                producer.send(&to, &Record::new(None, Some(click.as_bytes()), Timestamp(record_time))).unwrap();
            }
        }
        producer.commit().unwrap();
    }

    /// The counts on the changelog: for each window and ad.
    fn counts(&self) -> BTreeMap<(i64, String), i64> {
        let mut counts = BTreeMap::new();
        for partition in 0..PARTITIONS {
            let changelog = TopicPartition::new(self.topic("ad-clicks-store-changelog"), Partition(partition));
            let end = self.broker.log_range(&changelog, Isolation::ReadUncommitted).unwrap().end;
            let mut reader = self.broker.reader(&changelog, Offset::ZERO).unwrap();
            while reader.position() < end {
                let Some(batch) = reader.read(std::time::Duration::from_millis(200)).unwrap() else { continue };
                let mut records = Vec::new();
                batch.records(&mut records).unwrap();
                for record in records {
                    let WindowedKey { key, start } = WindowedKey::decode_from_changelog(record.key.unwrap()).unwrap();
                    let count = i64::from_be_bytes(record.value.unwrap().try_into().unwrap());
                    counts.insert((start.0, String::from_utf8(key.to_vec()).unwrap()), count);
                }
            }
        }
        counts
    }

    /// The positions of the clicks topic, metadata included.
    fn committed(&self, topic: &str) -> Vec<Option<(i64, String)>> {
        let partitions: Vec<_> = (0..PARTITIONS).map(|p| TopicPartition::new(self.topic(topic), Partition(p))).collect();
        let committed = self.broker.committed(self.name, &partitions).unwrap();
        committed.into_iter().map(|committed| committed.map(|at| (at.offset.0, at.metadata))).collect()
    }

    /// Counts what there is, and stops.
    fn count(&self) -> BTreeMap<(i64, String), i64> {
        let mut service = self.service();
        service.start_and_wait();
        service.wait_until_counted();
        service.stop();
        self.counts()
    }

    fn ranges(&self, topic: &str) -> Vec<(i64, i64)> {
        let partitions: Vec<_> = (0..PARTITIONS).map(|p| TopicPartition::new(self.topic(topic), Partition(p))).collect();
        let ranges = self.broker.log_ranges(&partitions, Isolation::ReadUncommitted).unwrap();
        ranges.into_iter().map(|range| (range.start.0, range.end.0)).collect()
    }
}

fn total(counts: &BTreeMap<(i64, String), i64>) -> i64 {
    counts.values().sum()
}

#[test]
fn topics_are_shown_created_checked_and_set_right() {
    let app = App::new("topics");
    let (_, err) = app.says(&["topics"], 1);
    assert!(err.contains("the clicks topic is missing (--create-clicks-topic creates it)"), "{err}");
    let output = app.service().command().output().unwrap();
    let refused = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{refused}");
    assert!(
        refused.contains("topic topics-clicks does not exist: clickmill topics --create-clicks-topic creates it"),
        "{refused}"
    );
    let (_, err) = app.says(&["topics", "--create"], 2);
    assert!(err.contains("--create-clicks-topic"), "nothing is created without the clicks topic: {err}");

    let (out, err) = app.says(&["topics", "--create-clicks-topic", "--create"], 0);
    assert_eq!(err.lines().count(), 6, "{err}");
    assert!(out.contains("topics-ad-clicks-store-changelog") && !out.contains("differs"), "{out}");
    let (out, _) = app.says(&["topics", "--json"], 0);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["topics"].as_array().unwrap().len(), 6);
    assert_eq!(json["topics"][0]["partitions"], PARTITIONS);
    let found = app.broker.topic_config("topics-clicks").unwrap();
    assert_eq!(found["message.timestamp.after.max.ms"], "600000", "max_ahead");

    // As an operator breaks it.
    let changelog = app.topic("ad-clicks-store-changelog");
    let broken = [("cleanup.policy", "delete".to_owned()), ("retention.ms", "86400000".to_owned())];
    app.broker.alter_topic_config(&changelog, &broken).unwrap();
    let (out, err) = app.says(&["topics"], 1);
    assert!(out.contains("differs: loses counts") && out.contains("a restore would not find them"), "{out}");
    assert!(err.contains("1 topics differ from what they should be (--fix"), "{err}");
    let output = app.service().command().output().unwrap();
    let refused = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{refused}");
    for part in [&*changelog, "retention.ms = 86400000", "a restore would not find them", "clickmill topics --fix"] {
        assert!(refused.contains(part), "{refused}");
    }
    let (out, err) = app.says(&["topics", "--fix"], 0);
    assert!(err.contains("retention.ms is -1 now, was 86400000") && !out.contains("differs"), "{err}\n{out}");
    assert_eq!(app.broker.topic_config(&changelog).unwrap()["cleanup.policy"], "compact,delete");
    app.says(&["topics"], 0);
}

#[test]
fn a_reset_counts_anew_from_where_it_is_told_to() {
    let app = App::new("reset");
    app.says(&["topics", "--create-clicks-topic"], 1);
    app.write_clicks(500, written_at());
    app.write_clicks(300, written_at() + 1);
    let counts = app.count();
    assert_eq!(total(&counts), 1600);
    let (positions, state) = (app.committed("clicks"), app.dir.path().join("data/state/reset"));

    // Shown, and nothing changed.
    for arguments in [["reset"].as_slice(), &["reset", "--dry-run"]] {
        let (out, _) = app.says(arguments, 0);
        assert!(out.contains("nothing was changed: --execute does it"), "{out}");
        assert!(out.contains("kept: reset-dead-letter, reset-late"), "{out}");
    }
    assert_eq!((app.committed("clicks"), app.counts()), (positions, counts.clone()));
    assert!(state.is_dir());

    let (out, _) = app.says(&["reset", "--execute"], 0);
    assert!(out.contains("application reset is reset"), "{out}");
    assert!(app.committed("clicks").iter().all(Option::is_none) && !state.is_dir());
    assert!(app.broker.describe_topic(&app.topic("ad-clicks-store-changelog")).unwrap().is_none());
    assert!(app.broker.describe_topic(&app.topic("late")).unwrap().is_some());
    assert_eq!(app.count(), counts);

    // From a time on: what was written before it is not counted, and the rest to the last click.
    let later = jiff::Timestamp::from_millisecond(written_at() + 1).unwrap().to_string();
    let (out, _) = app.says(&["reset", "--to-datetime", &later, "--delete-outputs", "--execute"], 0);
    assert!(out.contains("topic reset-late is deleted"), "{out}");
    let half = app.count();
    assert_eq!(total(&half), 600);

    app.says(&["reset", "--to-latest", "--execute"], 0);
    assert_eq!(total(&app.count()), 0);
    app.write_clicks(10, written_at());
    assert_eq!(total(&app.count()), 20, "it goes on from there");
}

/// A transaction that no broker ends, as the application sees one: its timeout is far away.
#[test]
fn positions_that_a_transaction_holds_are_reset_when_told_to() {
    let app = App::new("held");
    app.says(&["topics", "--create-clicks-topic", "--create"], 0);
    app.write_clicks(10, written_at());
    let counts = app.count();
    let lasting =
        KafkaConfig::new(Cluster::shared().bootstrap_servers(), [("transaction.timeout.ms".to_owned(), "600000".to_owned())])
            .unwrap();
    let broker = KafkaBroker::new(lasting).unwrap();
    let mut member = broker.join(&Candidate::new("held", "member", &[app.topic("clicks").into()])).unwrap();
    let (partitions, fence) = loop {
        if let MemberEvent::Assigned { partitions, fence } = member.poll(Duration::from_millis(100)).unwrap() {
            break (partitions, fence);
        }
    };
    let position = |partition| (partition, CommittedOffset { offset: Offset(7), metadata: String::new() });
    let mut producer = broker.producer("held-lost").unwrap();
    producer.begin().unwrap();
    producer.send_offsets(&fence, &partitions.into_iter().map(position).collect::<Vec<_>>()).unwrap();
    member.leave().unwrap();

    let (_, said) = app.says(&["reset", "--execute"], 1);
    assert!(said.contains("group held") && said.contains("add --despite-open-transactions"), "{said}");
    let (out, _) = app.says(&["reset", "--despite-open-transactions", "--execute"], 0);
    assert!(out.contains("not known") && out.contains("application held is reset"), "{out}");
    // However it ends, its positions do not come back.
    let ended = producer.commit();
    assert!(app.committed("clicks").iter().all(Option::is_none), "{ended:?}");
    assert_eq!(app.count(), counts);
}

#[test]
fn members_keep_a_reset_and_a_drain_out() {
    let app = App::new("members");
    app.says(&["topics", "--create-clicks-topic"], 1);
    let mut service = app.service();
    service.start_and_wait();
    for arguments in [["reset", "--execute"].as_slice(), &["reset"], &["drain"], &["reset", "--accept-gap"]] {
        let (_, err) = app.says(arguments, 1);
        assert!(err.contains("group members has 1 members (") && err.contains("stop every instance first"), "{err}");
    }
    service.stop();
    app.says(&["reset"], 0);
}

#[test]
fn a_gap_is_accepted_by_an_operator_alone() {
    let app = App::new("gap");
    app.says(&["topics", "--create-clicks-topic"], 1);
    app.write_clicks(100, written_at());
    app.count();
    app.write_clicks(100, written_at());
    let before = app.committed("clicks");
    let gone = TopicPartition::new(app.topic("clicks"), Partition(0));
    let (position, metadata) = before[0].clone().unwrap();
    app.broker.delete_records(&gone, Offset(position + 40)).unwrap();

    let mut service = app.service();
    service.start();
    let reason = service.wait_for_quarantine(1);
    service.wait_until("counted", |_| app.committed("clicks")[1] != before[1]);
    assert!(reason.contains("40 records were deleted") && reason.contains("clickmill reset --accept-gap"), "{reason}");
    service.stop();
    // The other partition has been counted on.
    let (stopped, before) = (before, app.committed("clicks"));
    assert_eq!(before[0], stopped[0]);
    let (out, _) = app.says(&["reset", "--accept-gap"], 0);
    assert!(out.contains(&format!("gap-clicks-0: offsets {position} to {} are given up, 40 in all", position + 39)), "{out}");
    assert_eq!(app.committed("clicks"), before, "it was only shown");
    app.says(&["reset", "--accept-gap", "--execute"], 0);
    assert_eq!(app.committed("clicks"), [Some((position + 40, metadata)), before[1].clone()]);
    assert_eq!(total(&app.count()), 200 + 60 + 100);
    let (out, _) = app.says(&["reset", "--accept-gap", "--execute"], 0);
    assert!(out.contains("there is no gap"), "{out}");
}

#[test]
fn a_clicks_topic_that_was_made_again_is_not_counted_to_the_counts_of_the_one_before() {
    let app = App::new("again");
    app.says(&["topics", "--create-clicks-topic"], 1);
    app.write_clicks(100, written_at());
    assert_eq!(total(&app.count()), 200);
    app.broker.delete_topic(&app.topic("clicks")).unwrap();
    app.says(&["topics", "--create-clicks-topic"], 0);
    app.write_clicks(300, written_at());
    let mut service = app.service();
    service.start();
    let reason = service.wait_for_quarantine(PARTITIONS as usize);
    assert!(reason.contains("no committed offset for again-clicks-") && reason.contains("clickmill reset"), "{reason}");
    service.stop();
    app.says(&["reset", "--execute"], 0);
    assert_eq!(total(&app.count()), 600);
}

#[test]
fn a_clicks_topic_that_is_made_again_while_it_is_read_is_noticed_before_a_position_of_it_is_committed() {
    let app = App::new("remade");
    app.says(&["topics", "--create-clicks-topic"], 1);
    let mut service = app.service();
    service.start_and_wait();
    app.write_clicks(500, written_at());
    service.wait_until_counted();
    app.broker.delete_topic(&app.topic("clicks")).unwrap();
    app.says(&["topics", "--create-clicks-topic"], 0);
    app.write_clicks(750, written_at());
    let reason = service.wait_for_quarantine(PARTITIONS as usize);
    assert!(reason.contains("remade-clicks was deleted and made again") && reason.contains("clickmill reset"), "{reason}");
    service.stop();
    assert_eq!(total(&app.counts()), 1_000, "{}", service.log());
    assert_eq!(app.committed("clicks"), [None, None], "a position is committed that is one of the topic before");
    app.says(&["reset", "--execute"], 0);
    assert_eq!(total(&app.count()), 1_500);
}

#[test]
fn a_drain_counts_and_empties_what_was_shuffled_and_reads_nothing() {
    let app = App::new("drain");
    app.says(&["topics", "--create-clicks-topic"], 1);
    let (out, _) = app.says(&["drain"], 0);
    assert!(out.contains("there is nothing to drain: application drain has no repartition topic"), "{out}");
    app.write_clicks(200, written_at());
    app.count();
    // What a program that was stopped between the two halves leaves behind: clicks of its own on the repartition topic, uncounted.
    let repartition = TopicPartition::new(app.topic("ad-clicks-store-repartition"), Partition(1));
    let mut producer = app.broker.producer("drain-java").unwrap();
    producer.begin().unwrap();
    for _ in 0..5 {
        producer.send(&repartition, &Record::new(Some(b"ad-of-java"), Some(b""), Timestamp(written_at()))).unwrap();
    }
    producer.commit().unwrap();
    app.write_clicks(50, written_at());
    let read = app.committed("clicks");

    let (out, err) = app.says(&["drain"], 0);
    assert!(out.contains("2 partitions drained in ") && out.contains("group drain left"), "{out}\n{err}");
    let counts = app.counts();
    assert_eq!(total(&counts), 400 + 5);
    assert!(counts.iter().any(|((_, ad), count)| ad == "ad-of-java" && *count == 5), "{counts:?}");
    assert_eq!(app.committed("clicks"), read, "nothing was read");
    assert!(app.ranges("ad-clicks-store-repartition").iter().all(|(start, end)| start == end), "it is empty");
    assert!(app.broker.group_members("drain").unwrap().is_empty(), "the group was left");
    app.says(&["drain"], 0);
    assert_eq!(total(&app.count()), 500 + 5, "the service goes on where it was");
}

#[test]
fn the_ranges_of_many_partitions_are_those_of_each() {
    let app = App::new("ranges");
    app.says(&["topics", "--create-clicks-topic", "--create"], 0);
    app.write_clicks(30, written_at());
    let partition = |topic: &str, number| TopicPartition::new(app.topic(topic), Partition(number));
    let mut all: Vec<_> =
        ["late", "clicks"].iter().flat_map(|topic| (0..PARTITIONS).rev().map(|p| partition(topic, p))).collect();
    app.broker.delete_records(&partition("clicks", 1), Offset(7)).unwrap();
    for isolation in [Isolation::ReadCommitted, Isolation::ReadUncommitted] {
        let each: Vec<_> = all.iter().map(|partition| app.broker.log_range(partition, isolation).unwrap()).collect();
        assert_eq!(app.broker.log_ranges(&all, isolation).unwrap(), each);
        assert_eq!(
            (each[2].start, each[3].start, each[3].end),
            (Offset(7), Offset(0), Offset(31)),
            "with the end of the transaction"
        );
    }
    all.push(partition("clicks", PARTITIONS));
    let refused = app.broker.log_ranges(&all, Isolation::ReadCommitted).unwrap_err().to_string();
    assert_eq!(refused, "topic ranges-clicks has no partition 2");
    let refused = app.broker.log_ranges(&[partition("nowhere", 0)], Isolation::ReadCommitted).unwrap_err().to_string();
    assert_eq!(refused, "topic ranges-nowhere does not exist: create it, or correct its name");
}

/// A click with that many bytes of key and value together, on a line.
fn click_of(bytes: usize) -> String {
    let (head, tail) = ("{\"ad_id\":\"ad-1\",\"x\":\"", "\"}");
    format!("{head}{}{tail}\n", "y".repeat(bytes - "ad-1".len() - head.len() - tail.len()))
}

#[test]
fn a_click_larger_than_the_topic_takes_is_refused_by_itself() {
    // What brokers take unless told otherwise (max.message.bytes), less what a batch has beside key and value.
    let largest = 1_048_588 - 93;
    let app = App::new("large-clicks");
    app.says(&["topics", "--create-clicks-topic", "--create"], 0);
    let mut service = app.service();
    service.start_and_wait();
    let fits = service.post(&click_of(largest), None).unwrap();
    assert_eq!(fits.status, 202, "{}", fits.json);
    let refused = service.post(&click_of(largest + 1), None).unwrap();
    assert_eq!(refused.status, 422, "{}", refused.json);
    let among_others = service.post(&[click_of(100), click_of(largest + 1), click_of(largest)].concat(), None).unwrap();
    assert_eq!((among_others.status, &among_others.json["accepted"]), (202, &Value::from(2)), "{}", among_others.json);
    let reason = serde_json::json!([{"index": 1, "reason": "larger than the clicks topic takes"}]);
    assert_eq!(among_others.json["rejected"], reason);
    service.wait_until_counted();
    service.stop();
    assert_eq!(total(&app.counts()), 3);
}

#[test]
fn small_clicks_are_no_larger_together_than_the_topic_takes() {
    let app = App::new("small-batches");
    app.says(&["topics", "--create-clicks-topic", "--create"], 0);
    app.broker.alter_topic_config(&app.topic("clicks"), &[("max.message.bytes", "50000".to_owned())]).unwrap();
    let mut service = app.service();
    service.start_and_wait();
    let many = service.post(&click_of(1_000).repeat(300), None).unwrap();
    assert_eq!((many.status, &many.json["accepted"]), (202, &Value::from(300)), "{}", many.json);
    service.wait_until_counted();
    service.stop();
    assert_eq!(total(&app.counts()), 300);
}

/// Brokers that take nothing older than a day, and clicks that are years old.
#[test]
fn old_clicks_are_counted_where_brokers_refuse_old_records_unless_told_otherwise() {
    const BEFORE: &str = "message.timestamp.before.max.ms";
    const DAY_MS: &str = "86400000";
    let cluster = Cluster::start_with(1, &[("log.message.timestamp.before.max.ms", DAY_MS)]);
    let app = App::on(&cluster, "old-records");
    app.says(&["topics", "--create-clicks-topic"], 1);
    let old = "{\"ad_id\":\"ad-1\",\"timestamp\":1700000000000}\n".repeat(5);
    let mut service = app.service();
    service.start_and_wait();
    assert_eq!(service.post(&old, None).unwrap().status, 202);
    service.wait_until_counted();
    service.stop();
    assert_eq!(total(&app.counts()), 5);
    app.says(&["topics"], 0);

    // As one that another program has made, or an operator has changed.
    let repartition = app.topic("ad-clicks-store-repartition");
    app.broker.alter_topic_config(&repartition, &[(BEFORE, DAY_MS.to_owned())]).unwrap();
    let (out, _) = app.says(&["topics"], 1);
    assert!(out.contains(BEFORE) && out.contains("brokers refuse a record of a click that is older"), "{out}");
    let mut service = app.service();
    service.start_and_wait();
    assert_eq!(service.post(&old, None).unwrap().status, 202);
    let refused = service.wait_for_quarantine(1);
    for part in ["writing to old-records-ad-clicks-store-repartition-", "InvalidTimestamp", BEFORE] {
        assert!(refused.contains(part), "{part} is not in:\n{refused}");
    }
    // An answer says what it waits for.
    let trouble = service.query("/v1/clicks?from=-7d&allow_partial=true")["completeness"]["trouble"].to_string();
    assert!(trouble.contains("is quarantined") && trouble.contains(BEFORE), "{trouble}");
    let (_, err) = app.says(&["topics", "--fix"], 0);
    assert!(err.contains(&format!("{BEFORE} is 9223372036854775807 now, was {DAY_MS}")), "{err}");
    let task = service.query("/v1/cluster")["quarantined"][0]["task"].as_str().unwrap().to_owned();
    assert_eq!(service.retry(&task), 202);
    service.wait_for_quarantine(0);
    service.wait_until_counted();
    service.stop();
    assert_eq!(total(&app.counts()), 10);
}

/// A topic that asks for all of its three replicas, one of which is lost, refuses every record.
#[test]
fn clicks_that_too_few_replicas_would_have_are_answered_in_time_each_by_itself_and_with_the_cause() {
    let cluster = Cluster::start(3);
    let app = App::on(&cluster, "replicas");
    app.says(&["topics", "--create-clicks-topic", "--create"], 0);
    app.broker.alter_topic_config(&app.topic("clicks"), &[("min.insync.replicas", "3".to_owned())]).unwrap();
    let configuration = format!("{}[server]\nrequest_timeout = \"8s\"\n", app.configuration());
    let mut service = Service::new(app.dir.path(), &configuration);
    service.start_and_wait();
    assert_eq!(service.post(&click_of(100).repeat(10), None).unwrap().status, 202);
    cluster.kill(2);
    let began = std::time::Instant::now();
    loop {
        let obstacle = app.broker.obstacle(&app.topic("clicks"), Duration::from_secs(8));
        if obstacle.as_ref().is_ok_and(|found| found.as_ref().is_some_and(|found| found.partitions.len() == PARTITIONS as usize))
        {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{obstacle:?}");
    }

    let refused = service.post(&click_of(100).repeat(10), None).unwrap();
    assert_eq!((refused.status, &refused.json["type"]), (503, &Value::from("/problems/outcome-unknown")), "{}", refused.json);
    assert_eq!(refused.json["accepted"], 0);
    let rejected = refused.json["rejected"].as_array().unwrap();
    assert_eq!(rejected.len(), 10);
    assert!(rejected.iter().all(|click| click["reason"] == "unknown"), "{rejected:?}");
    let cause = ["replicas-clicks-0 has 2 of 3 replicas in sync (NOT_ENOUGH_REPLICAS)", "lower min.insync.replicas"];
    let readiness = service.query("/readyz");
    let log = service.log();
    for part in cause {
        for told in [&refused.json["detail"], &readiness["intake_trouble"]] {
            assert!(told.as_str().unwrap().contains(part), "{part} is not in {told}");
        }
        assert!(log.contains(part), "{part} is not in:\n{log}");
    }

    each_of_many_clients_is_told(&service);

    cluster.start_again(2);
    service.wait_until("free of trouble", |service| {
        service.post(&clicks_of_many_ads(), None).is_some_and(|answer| answer.status == 202)
            && service.query("/readyz")["intake_trouble"].is_null()
    });
    assert!(service.log().contains("clicks are stored again"), "{}", service.log());
    service.stop();
}

/// More than may append at a time, and more than twice that: nobody is left without an answer on each click. Whoever's turn did not come
/// can send again.
fn each_of_many_clients_is_told(service: &Service) {
    let told = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..300).map(|_| scope.spawn(|| service.post(&click_of(100).repeat(2), None))).collect();
        clients.into_iter().map(|client| client.join().unwrap().expect("an answer")).collect::<Vec<_>>()
    });
    let mut turned_away = 0;
    for answer in &told {
        let json = &answer.json;
        assert_eq!((answer.status, &json["accepted"]), (503, &Value::from(0)), "{json}");
        let reason = if json["type"] == "/problems/log-unavailable" { "not stored" } else { "unknown" };
        let rejected = json["rejected"].as_array().unwrap();
        assert!(rejected.len() == 2 && rejected.iter().all(|click| click["reason"] == reason), "{json}");
        assert!(json["detail"].as_str().unwrap().contains("NOT_ENOUGH_REPLICAS"), "{json}");
        assert_eq!(answer.retry_after.is_some(), reason == "not stored", "{json}");
        turned_away += usize::from(reason == "not stored");
    }
    assert!(turned_away > 0, "nobody had to wait for long");
}

/// Some for every partition.
fn clicks_of_many_ads() -> String {
    (0..20).map(|ad| format!("{{\"ad_id\":\"ad-{ad}\"}}\n")).collect()
}
