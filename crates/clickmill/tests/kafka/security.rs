//! A cluster that speaks TLS, asks for passwords and grants rights one by one: what Clickmill needs there, and what it says where
//! something is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use kafka_test_server::{Cluster, tool};

use crate::service::{Service, clickmill, pause};

const APPLICATION: &str = "guarded";
const CLICKS: &str = "ad-clicks";

/// Kafka's name for who the brokers know.
const LOGIN: &str = "listener.name.plaintext.plain.sasl.jaas.config";

/// The users that the brokers know, the service's with that password.
fn login(password: &str) -> String {
    format!(
        "org.apache.kafka.common.security.plain.PlainLoginModule required username=admin password=admin-secret \
         user_admin=admin-secret user_clickmill={password};"
    )
}

/// The cluster, and who may do what.
struct Guarded {
    cluster: Cluster,
    dir: tempfile::TempDir,
}

impl Guarded {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (keys, certificate) = (dir.path().join("keys.p12"), dir.path().join("certificate.pem"));
        make_certificate(&keys, &certificate);
        let login = login("clickmill-secret");
        let cluster = Cluster::start_with(
            1,
            &[
                ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:SASL_SSL"),
                ("inter.broker.listener.name", "PLAINTEXT"),
                ("sasl.mechanism.inter.broker.protocol", "PLAIN"),
                ("sasl.enabled.mechanisms", "PLAIN"),
                (LOGIN, &login),
                ("ssl.keystore.location", keys.to_str().unwrap()),
                ("ssl.keystore.password", "secret"),
                ("ssl.truststore.type", "PEM"),
                ("ssl.truststore.location", certificate.to_str().unwrap()),
                ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
                ("super.users", "User:admin;User:ANONYMOUS"),
            ],
        );
        let this = Self { cluster, dir };
        let admin = format!(
            "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nssl.truststore.type=PEM\nssl.truststore.location={}\n\
             sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username=admin password=admin-secret;\n",
            certificate.display()
        );
        fs::write(this.admin(), admin).unwrap();
        this
    }

    fn admin(&self) -> PathBuf {
        self.dir.path().join("admin.properties")
    }

    /// Grants the user of the service operations on a resource, as `kafka-acls` names both.
    fn grant(&self, resource: &[&str], operations: &[&str]) {
        let mut acls = tool("org.apache.kafka.tools.AclCommand");
        acls.args(["--bootstrap-server", self.cluster.bootstrap_servers(), "--command-config"]).arg(self.admin());
        acls.args(["--add", "--allow-principal", "User:clickmill"]).args(resource);
        for operation in operations {
            acls.args(["--operation", operation]);
        }
        succeed(&mut acls);
    }

    fn configuration(&self, password: &str, certificate: &Path) -> String {
        format!(
            "[engine]\napplication_id = \"{APPLICATION}\"\nmemory = \"256MiB\"\n[clicks]\ntopic = \"{CLICKS}\"\npartitions = 2\n\
             [kafka]\nbootstrap.servers = \"{}\"\nsecurity.protocol = \"SASL_SSL\"\nsasl.mechanism = \"PLAIN\"\n\
             sasl.username = \"clickmill\"\nsasl.password = \"{password}\"\nssl.ca.location = \"{}\"\n",
            self.cluster.bootstrap_servers(),
            certificate.display()
        )
    }

    fn service(&self) -> Service {
        Service::new(self.dir.path(), &self.configuration("clickmill-secret", &self.dir.path().join("certificate.pem")))
    }

    /// The one line that a start ends with.
    fn refusal(&self) -> String {
        let mut service = self.service();
        service.start();
        assert!(!service.wait_for_end().success());
        service.log()
    }

    /// What is said to a command with another configuration.
    fn topics(&self, configuration: &str, arguments: &[&str]) -> Output {
        let file = self.dir.path().join("other.toml");
        fs::write(&file, configuration).unwrap();
        clickmill(&["topics"]).args(arguments).arg("--config").arg(file).output().unwrap()
    }
}

/// A certificate for this machine that signs itself.
fn make_certificate(keys: &Path, certificate: &Path) {
    let keytool = |arguments: &[&str]| {
        let mut keytool = Command::new("keytool");
        keytool.args(arguments).args(["-alias", "kafka", "-storepass", "secret", "-keystore"]).arg(keys);
        succeed(&mut keytool)
    };
    let subject = ["-dname", "CN=kafka", "-ext", "san=ip:127.0.0.1", "-validity", "2", "-keyalg", "EC", "-storetype", "PKCS12"];
    keytool(&[&["-genkeypair"], subject.as_slice()].concat());
    fs::write(certificate, keytool(&["-exportcert", "-rfc"]).stdout).unwrap();
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn each_missing_right_is_named_and_those_of_the_documentation_are_enough() {
    let guarded = Guarded::start();
    // Who is turned away.
    let certificate = guarded.dir.path().join("certificate.pem");
    let mistaken = guarded.topics(&guarded.configuration("wrong", &certificate), &[]);
    assert_says(&String::from_utf8(mistaken.stderr).unwrap(), &["Invalid username or password", "sasl.*", "credentials"]);
    let other = guarded.dir.path().join("other.pem");
    make_certificate(&guarded.dir.path().join("other.p12"), &other);
    let mistaken = guarded.topics(&guarded.configuration("clickmill-secret", &other), &[]);
    assert_says(&String::from_utf8(mistaken.stderr).unwrap(), &["SSL", "certificate", "ssl.*"]);

    // Who is not allowed something.
    assert_says(&guarded.refusal(), &["describing topic ", "TopicAuthorizationFailed", "kafka-acls"]);
    guarded.grant(&["--topic", CLICKS], &["Read", "Describe", "DescribeConfigs", "Write", "Create"]);
    assert_says(&guarded.refusal(), &["topic guarded-", "TopicAuthorizationFailed", "kafka-acls"]);
    let own = ["Create", "Describe", "DescribeConfigs", "AlterConfigs", "Read", "Write", "Delete"];
    guarded.grant(&["--resource-pattern-type", "prefixed", "--topic", "guarded-"], &own);
    let created =
        guarded.topics(&guarded.configuration("clickmill-secret", &certificate), &["--create-clicks-topic", "--create"]);
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    assert_says(&guarded.refusal(), &["TransactionalIdAuthorizationFailed", "transactional id guarded-", "kafka-acls"]);
    guarded.grant(&["--resource-pattern-type", "prefixed", "--transactional-id", "guarded-"], &["Write", "Describe"]);
    assert_says(&guarded.refusal(), &["GroupAuthorizationFailed", "group guarded", "kafka-acls"]);
    guarded.grant(&["--group", APPLICATION], &["Read", "Describe"]);

    let mut service = guarded.service();
    service.start_and_wait();
    let clicks = "{\"ad_id\":\"ad-1\",\"timestamp\":1700000000000}\n".repeat(3);
    assert_eq!(service.post(&clicks, None).unwrap().status, 202);
    service.wait_until_counted();
    let answer = service.query("/v1/ads/ad-1/clicks?from=1699999800000&to=1700000100000");
    assert_eq!(answer["clicks"], 3, "{answer}");
    service.stop();
}

/// Lines of the service's log that are warnings or worse, of librdkafka's own or of what came of it.
fn complaints(log: &str) -> usize {
    log.lines().filter(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\"")).count()
}

/// As where a broker comes back with another certificate, or cannot reach the place where users are looked up.
#[test]
fn brokers_that_turn_a_running_service_away_for_a_while_do_not_end_it() {
    let guarded = Guarded::start();
    let application = format!("{APPLICATION}-");
    guarded.grant(&["--resource-pattern-type", "prefixed", "--topic", &application], &["All"]);
    guarded.grant(&["--topic", CLICKS], &["All"]);
    guarded.grant(&["--resource-pattern-type", "prefixed", "--transactional-id", &application], &["All"]);
    guarded.grant(&["--group", APPLICATION], &["All"]);
    let certificate = guarded.dir.path().join("certificate.pem");
    let created =
        guarded.topics(&guarded.configuration("clickmill-secret", &certificate), &["--create-clicks-topic", "--create"]);
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let mut service = guarded.service();
    service.start_and_wait();
    let clicks = "{\"ad_id\":\"ad-1\",\"timestamp\":1700000000000}\n".repeat(3);
    assert_eq!(service.post(&clicks, None).unwrap().status, 202);
    service.wait_until_counted();

    guarded.cluster.stop(0);
    guarded.cluster.reconfigure(0, &[(LOGIN, &login("another-secret"))]);
    guarded.cluster.start_again(0);
    service.wait_until("turned away", |service| service.log().contains("Invalid username or password"));
    assert_says(&service.log(), &["check security.protocol, the sasl.* and the ssl.* properties"]);
    let before = complaints(&service.log());
    pause(Duration::from_secs(20));
    let lines = complaints(&service.log()) - before;
    assert!(lines < 40, "{lines} lines in 20 seconds:\n{}", service.log());

    guarded.cluster.stop(0);
    guarded.cluster.reconfigure(0, &[(LOGIN, &login("clickmill-secret"))]);
    guarded.cluster.start_again(0);
    service.wait_until("taking clicks again", |service| service.post(&clicks, None).is_some_and(|answer| answer.status == 202));
    service.wait_until_counted();
    service.stop();
}
