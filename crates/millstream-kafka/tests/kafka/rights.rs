//! Rights that are withdrawn while everything runs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kafka_test_server::{Cluster, tool};
use millstream::broker::group::Candidate;
use millstream::broker::{
    Broker, BrokerError, ErrorKind, Fence, Fetched, Fetcher, MemberEvent, Membership, TopicSettings, TransactionalProducer,
};
use millstream::record::{Offset, Record, Timestamp, TopicPartition};
use millstream_kafka::{KafkaBroker, KafkaFetcher};

use crate::support::{SOON, assigned, at, broker_with, fetch_until, patiently, produce, tp};

const LOGIN: &str = "org.apache.kafka.common.security.plain.PlainLoginModule required username=admin password=admin-secret";

/// A cluster where `admin` may do everything, and `engine` all that it is not denied.
struct Guarded {
    cluster: Cluster,
    dir: tempfile::TempDir,
}

impl Guarded {
    fn start() -> Self {
        let users = format!("{LOGIN} user_admin=admin-secret user_engine=engine-secret;");
        let cluster = Cluster::start_with(
            1,
            &[
                ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:SASL_PLAINTEXT"),
                ("inter.broker.listener.name", "PLAINTEXT"),
                ("sasl.mechanism.inter.broker.protocol", "PLAIN"),
                ("sasl.enabled.mechanisms", "PLAIN"),
                ("listener.name.plaintext.plain.sasl.jaas.config", &users),
                ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
                ("super.users", "User:admin;User:ANONYMOUS"),
            ],
        );
        let this = Self { cluster, dir: tempfile::tempdir().unwrap() };
        let admin = format!("security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config={LOGIN};\n");
        std::fs::write(this.admin(), admin).unwrap();
        for resource in ["--topic", "--group", "--transactional-id"] {
            this.change_rights(&["--add", "--allow-principal", "User:engine", resource, "*", "--operation", "All"]);
        }
        this
    }

    fn admin(&self) -> PathBuf {
        self.dir.path().join("admin.properties")
    }

    fn broker(&self) -> KafkaBroker {
        let engine = [
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", "engine"),
            ("sasl.password", "engine-secret"),
            ("topic.metadata.refresh.interval.ms", "500"),
        ];
        broker_with(&self.cluster, &engine)
    }

    fn withdraw(&self, operation: &str, topic: &str) {
        self.change_rights(&["--add", "--deny-principal", "User:engine", "--topic", topic, "--operation", operation]);
    }

    fn give_back(&self, operation: &str, topic: &str) {
        self.change_rights(&[
            "--remove",
            "--force",
            "--deny-principal",
            "User:engine",
            "--topic",
            topic,
            "--operation",
            operation,
        ]);
    }

    fn change_rights(&self, arguments: &[&str]) {
        let mut acls = tool("org.apache.kafka.tools.AclCommand");
        acls.args(["--bootstrap-server", self.cluster.bootstrap_servers(), "--command-config"]).arg(self.admin()).args(arguments);
        let output = acls.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A transaction that writes to all of these, and commits a position.
fn commit(producer: &mut impl TransactionalProducer, to: &[TopicPartition], fence: &Fence) -> Result<(), BrokerError> {
    producer.begin()?;
    let outcome = to
        .iter()
        .try_for_each(|to| producer.send(to, &Record::new(None, Some(b"count"), Timestamp(1))))
        .and_then(|()| producer.send_offsets(fence, &[(tp("clicks", 0), at(1))]))
        .and_then(|()| producer.commit().map(drop));
    if outcome.is_err() {
        producer.abort()?;
    }
    outcome
}

/// Polls for so long. Partitions may go, with a topic that cannot be seen any more, but nothing may end.
fn keep_up(member: &mut impl Membership, time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        let event = patiently(|| member.poll(Duration::from_millis(100)));
        if let MemberEvent::Revoked { partitions } = event {
            member.give_up(&partitions).unwrap();
        }
    }
}

fn failure_of(fetcher: &mut KafkaFetcher, partition: &TopicPartition) -> BrokerError {
    fetch_until(fetcher, |fetched| match fetched {
        Fetched::Failed(failed, error) => {
            assert_eq!(failed, *partition, "{error}");
            Some(error)
        }
        _ => None,
    })
}

#[test]
fn a_right_that_is_withdrawn_is_the_trouble_of_its_topic_alone() {
    let guarded = Guarded::start();
    let broker = guarded.broker();
    let topics = ["clicks", "counts", "late", "other"];
    for topic in topics {
        broker.create_topic(topic, &TopicSettings::kept_for_ever(1)).unwrap();
    }
    let mut member = broker.join(&Candidate::new("group", "instance", &["clicks".into(), "other".into()])).unwrap();
    let (_, fence) = assigned(&mut member);
    let all = ["late", "counts", "other"].map(|topic| tp(topic, 0));
    let mut producer = broker.producer("application-0").unwrap();
    commit(&mut producer, &all, &fence).unwrap();

    // Write: its own partition is named, whatever was sent before and after.
    guarded.withdraw("Write", "counts");
    let began = Instant::now();
    let error = loop {
        match commit(&mut producer, &all, &fence) {
            Ok(()) => assert!(began.elapsed() < SOON, "the right is not withdrawn"),
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), error.partition()), (ErrorKind::Stop, Some(&tp("counts", 0))), "{error}");
    assert!(error.to_string().contains("writing to counts-0") && error.to_string().contains("kafka-acls"), "{error}");
    commit(&mut producer, &["late", "other"].map(|topic| tp(topic, 0)), &fence).unwrap();
    guarded.give_back("Write", "counts");

    // Read, and Describe: the member goes on, and so do the partitions of other topics.
    let mut fetcher = broker.fetcher().unwrap();
    for (round, operation) in ["Read", "Describe"].into_iter().enumerate() {
        for topic in ["late", "other"] {
            fetcher.start(&tp(topic, 0), Offset(0)).unwrap();
        }
        fetch_until(&mut fetcher, |fetched| matches!(fetched, Fetched::Batch(_)).then_some(()));
        guarded.withdraw(operation, "other");
        let error = failure_of(&mut fetcher, &tp("other", 0));
        assert_eq!((error.kind(), error.partition()), (ErrorKind::Stop, Some(&tp("other", 0))), "{operation}: {error}");
        keep_up(&mut member, Duration::from_secs(3));
        let value = format!("in round {round}");
        produce(&broker, &tp("late", 0), &[&value]);
        fetch_until(&mut fetcher, |fetched| match fetched {
            Fetched::Batch(batch) => crate::support::texts(&batch).contains(&value).then_some(()),
            Fetched::Failed(partition, error) => panic!("{partition}: {error}"),
            Fetched::Nothing => None,
        });
        guarded.give_back(operation, "other");
    }
    member.leave().unwrap();
}
