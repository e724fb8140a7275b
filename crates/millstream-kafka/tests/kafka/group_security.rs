//! Members of a group where brokers ask who is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use kafka_test_server::{Cluster, tool};
use millstream::broker::{Broker, ErrorKind};
use millstream_kafka::{KafkaBroker, KafkaConfig, KafkaTransactions, boot_time, describe_group};
use openssl::pkcs12::Pkcs12;
use openssl::symm::Cipher;

use crate::group_protocol::{Member, config};
use crate::support::{SOON, patiently};

const PLAIN_LOGIN: &str = "org.apache.kafka.common.security.plain.PlainLoginModule required username=admin password=admin-secret \
     user_admin=admin-secret;";

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Brokers that end a session after two seconds.
fn with_passwords() -> Cluster {
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    let bearer =
        "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=admin;";
    let cluster = Cluster::start_with(
        1,
        &[
            ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:SASL_PLAINTEXT"),
            ("inter.broker.listener.name", "PLAINTEXT"),
            ("sasl.mechanism.inter.broker.protocol", "PLAIN"),
            ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER"),
            ("listener.name.plaintext.plain.sasl.jaas.config", PLAIN_LOGIN),
            ("listener.name.plaintext.scram-sha-256.sasl.jaas.config", scram),
            ("listener.name.plaintext.scram-sha-512.sasl.jaas.config", scram),
            ("listener.name.plaintext.oauthbearer.sasl.jaas.config", bearer),
            ("connections.max.reauth.ms", "2000"),
        ],
    );
    let dir = tempfile::tempdir().unwrap();
    let admin = dir.path().join("admin.properties");
    let login = "org.apache.kafka.common.security.plain.PlainLoginModule required username=admin password=admin-secret;";
    fs::write(&admin, format!("security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config={login}\n")).unwrap();
    for credential in ["SCRAM-SHA-256=[iterations=8192,password=pässword]", "SCRAM-SHA-512=[password=pässword]"] {
        let mut configs = tool("org.apache.kafka.tools.ConfigCommand");
        configs.args(["--bootstrap-server", cluster.bootstrap_servers(), "--command-config"]).arg(&admin);
        configs.args(["--alter", "--entity-type", "users", "--entity-name", "user=1", "--add-config", credential]);
        // The tool reads its arguments in the encoding of its environment.
        succeed(configs.env("LC_ALL", "C.UTF-8"));
    }
    cluster
}

fn login<'a>(mechanism: &'a str, user: &'a str, password: &'a str) -> [(&'a str, &'a str); 4] {
    [("security.protocol", "sasl_plaintext"), ("sasl.mechanism", mechanism), ("sasl.username", user), ("sasl.password", password)]
}

/// Stays a member for that long.
fn stay(member: &mut Member, time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        assert_eq!(member.next(), None);
    }
}

#[test]
fn a_member_says_who_it_is_in_each_mechanism_and_again_before_its_session_ends() {
    let cluster = with_passwords();
    let logins = [
        login("PLAIN", "admin", "admin-secret"),
        login("SCRAM-SHA-256", "user=1", "pässword"),
        login("SCRAM-SHA-512", "user=1", "pässword"),
        [
            ("security.protocol", "sasl_plaintext"),
            ("sasl.mechanism", "OAUTHBEARER"),
            ("enable.sasl.oauthbearer.unsecure.jwt", "true"),
            ("sasl.oauthbearer.config", "principal=admin scope=counting lifeSeconds=60"),
        ],
    ];
    let mut members: Vec<_> = logins
        .iter()
        .map(|login| {
            let config = config(&cluster, login);
            let mut member = Member::new(&config, login[1].1, "member");
            member.join_alone(&[]);
            let transactions = KafkaTransactions::new(&config, "ender").unwrap().end_transactions(&["gone"], SOON);
            transactions.unwrap();
            member
        })
        .collect();
    // Heartbeats go on over the same connections, and the connections of JoinGroup are good after a pause.
    let before = boot_time();
    for _ in 0..10 {
        members.iter_mut().for_each(|member| stay(member, Duration::from_millis(200)));
    }
    for member in &mut members {
        let confirmed = member.confirmed_at().unwrap();
        assert!(confirmed > before + Duration::from_secs(5), "no heartbeat for {:?}", boot_time().since(confirmed));
        member.join_alone(&[]);
    }
}

#[test]
fn who_is_not_let_in_is_told_why() {
    let cluster = with_passwords();
    for (login, parts) in [
        (login("PLAIN", "admin", "wrong"), vec!["Invalid username or password", "sasl.*"]),
        (login("SCRAM-SHA-256", "user=1", "wrong"), vec!["Authentication failed", "SCRAM", "sasl.*"]),
        (login("SCRAM-SHA-512", "nobody", "pässword"), vec!["Authentication failed", "SCRAM", "sasl.*"]),
    ] {
        let error = Member::new(&config(&cluster, &login), "refused", "member").refusal();
        assert_eq!(error.kind(), ErrorKind::Stop, "{error}");
        for part in [["joining group refused"].as_slice(), &parts].concat() {
            assert!(error.to_string().contains(part), "{part} is not in {error}");
        }
    }
    // A mechanism that these brokers do not have.
    let plain = Cluster::start_with(
        1,
        &[
            ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:SASL_PLAINTEXT"),
            ("inter.broker.listener.name", "PLAINTEXT"),
            ("sasl.mechanism.inter.broker.protocol", "PLAIN"),
            ("sasl.enabled.mechanisms", "PLAIN"),
            ("listener.name.plaintext.plain.sasl.jaas.config", PLAIN_LOGIN),
        ],
    );
    let error = Member::new(&config(&plain, &login("SCRAM-SHA-256", "admin", "admin-secret")), "refused", "member").refusal();
    assert_eq!(error.kind(), ErrorKind::Stop, "{error}");
    assert!(error.to_string().contains("SCRAM-SHA-256") && error.to_string().contains("it takes PLAIN"), "{error}");
    // Without SASL.
    let mut member = Member::new(&config(&plain, &[]), "refused", "member");
    let error = member.refusal();
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    assert!(error.to_string().contains("check security.protocol"), "{error}");
}

#[test]
fn missing_rights_are_named_with_what_they_are_for() {
    let users = PLAIN_LOGIN.replace(';', " user_engine=engine-secret;");
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
    let config = config(&cluster, &login("PLAIN", "engine", "engine-secret"));
    let refused = Member::new(&config, "guarded", "member").refusal();
    let described = describe_group(&config, "guarded", SOON).unwrap_err();
    let ended = KafkaTransactions::new(&config, "ender").unwrap().end_transactions(&["guarded-0"], SOON).unwrap_err();
    for (error, parts) in [
        (refused, ["joining group guarded", "GroupAuthorizationFailed", "kafka-acls"]),
        (described, ["describing group guarded", "GroupAuthorizationFailed", "kafka-acls"]),
        (ended, ["transactional id guarded-0", "TransactionalIdAuthorizationFailed", "kafka-acls"]),
    ] {
        assert_eq!(error.kind(), ErrorKind::Stop, "{error}");
        for part in parts {
            assert!(error.to_string().contains(part), "{part} is not in {error}");
        }
    }
}

/// Keys, certificates and the cluster that asks for them.
struct Certified {
    cluster: Cluster,
    dir: tempfile::TempDir,
}

impl Certified {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["server", "client", "other"] {
            make_certificate(dir.path(), name);
        }
        let path = |file: &str| dir.path().join(file).to_str().unwrap().to_owned();
        let cluster = Cluster::start_with(
            1,
            &[
                ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:SSL"),
                ("inter.broker.listener.name", "PLAINTEXT"),
                ("ssl.keystore.location", &path("server.p12")),
                ("ssl.keystore.password", "secret"),
                ("ssl.truststore.type", "PEM"),
                ("ssl.truststore.location", &path("trusted.pem")),
                ("ssl.client.auth", "required"),
            ],
        );
        Self { cluster, dir }
    }

    fn path(&self, file: &str) -> String {
        self.dir.path().join(file).to_str().unwrap().to_owned()
    }

    fn config(&self, properties: &[(&str, &str)]) -> KafkaConfig {
        config(&self.cluster, &[&[("security.protocol", "ssl")], properties].concat())
    }

    fn refusal(&self, properties: &[(&str, &str)]) -> String {
        let error = Member::new(&self.config(properties), "refused", "member").refusal();
        assert_eq!(error.kind(), ErrorKind::Stop, "{error}");
        assert!(error.to_string().contains("SSL") && error.to_string().contains("ssl.*"), "{error}");
        error.to_string()
    }
}

/// A certificate for this machine that signs itself, as PKCS#12 and as PEM, with a key that has a password. The server trusts all but `other`.
fn make_certificate(dir: &Path, name: &str) {
    let keys: PathBuf = dir.join(format!("{name}.p12"));
    let keytool = |arguments: &[&str]| {
        let mut keytool = Command::new("keytool");
        succeed(keytool.args(arguments).args(["-alias", "kafka", "-storepass", "secret", "-keystore"]).arg(&keys))
    };
    let subject = ["-dname", "CN=kafka", "-ext", "san=ip:127.0.0.1", "-validity", "2", "-keyalg", "EC", "-storetype", "PKCS12"];
    keytool(&[&["-genkeypair"], subject.as_slice()].concat());
    let certificate = keytool(&["-exportcert", "-rfc"]).stdout;
    fs::write(dir.join(format!("{name}.pem")), &certificate).unwrap();
    if name != "other" {
        let trusted = dir.join("trusted.pem");
        let before = fs::read(&trusted).unwrap_or_default();
        fs::write(trusted, [before, certificate].concat()).unwrap();
    }
    let key = Pkcs12::from_der(&fs::read(&keys).unwrap()).unwrap().parse2("secret").unwrap().pkey.unwrap();
    let pem = key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"key-secret").unwrap();
    fs::write(dir.join(format!("{name}.key")), pem).unwrap();
}

#[test]
fn certificates_are_shown_and_checked() {
    let certified = Certified::start();
    let (server, client, key) = (certified.path("server.pem"), certified.path("client.pem"), certified.path("client.key"));
    let (keystore, other) = (certified.path("client.p12"), certified.path("other.pem"));
    let (server_pem, client_pem) = (fs::read_to_string(&server).unwrap(), fs::read_to_string(&client).unwrap());
    let key_pem = fs::read_to_string(&key).unwrap();
    let with_keystore = [("ssl.keystore.location", keystore.as_str()), ("ssl.keystore.password", "secret")];
    let with_files =
        [("ssl.certificate.location", client.as_str()), ("ssl.key.location", &key), ("ssl.key.password", "key-secret")];
    let with_pem = [("ssl.certificate.pem", client_pem.as_str()), ("ssl.key.pem", &key_pem), ("ssl.key.password", "key-secret")];
    let trusting = [("ssl.ca.location", server.as_str())];

    // Who is let in, by librdkafka's way of connecting and by ours alike.
    let good = [
        [trusting.as_slice(), &with_keystore].concat(),
        [trusting.as_slice(), &with_files, &[("ssl.cipher.suites", "ECDHE-ECDSA-AES256-GCM-SHA384")]].concat(),
        [[("ssl.ca.pem", server_pem.as_str())].as_slice(), &with_pem, &[("ssl.curves.list", "P-256")]].concat(),
        [[("ssl.ca.location", other.as_str()), ("enable.ssl.certificate.verification", "false")].as_slice(), &with_files]
            .concat(),
    ];
    for (number, properties) in good.iter().enumerate() {
        let config = certified.config(properties);
        let mut member = Member::new(&config, &format!("certified-{number}"), "member");
        let began = Instant::now();
        member.join_alone(&[]);
        let first = began.elapsed();
        member.join_alone(&[]);
        println!("joining took {first:.1?} with all handshakes, and joining again {:.1?}", began.elapsed() - first);
        let broker = KafkaBroker::new(config).unwrap();
        patiently(|| broker.cluster_id());
    }

    // Who is not.
    let said = certified.refusal(&[[("ssl.ca.location", other.as_str())].as_slice(), &with_files].concat());
    assert!(said.contains("certificate"), "{said}");
    certified.refusal(&trusting);
    let by_name = certified.cluster.bootstrap_servers().replace("127.0.0.1", "localhost");
    let properties = [[("security.protocol", "ssl")].as_slice(), &trusting, &with_files].concat();
    let properties = properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let named = KafkaConfig::new(by_name.clone(), properties.clone()).unwrap();
    let error = Member::new(&named, "named", "member").refusal();
    assert_eq!(error.kind(), ErrorKind::Stop, "{error}");
    let unchecked = [("ssl.endpoint.identification.algorithm".to_owned(), "none".to_owned())];
    Member::new(&KafkaConfig::new(by_name, properties.chain(unchecked)).unwrap(), "named", "member").join_alone(&[]);

    // Files that cannot be used are named before anything is sent.
    for (properties, part) in [
        (vec![("ssl.ca.location", "/nowhere/ca.pem")], "ssl.ca.location: /nowhere/ca.pem"),
        (vec![with_files[0], with_files[1], ("ssl.key.password", "wrong")], "ssl.key.password"),
        (vec![with_keystore[0], ("ssl.keystore.password", "wrong")], "ssl.keystore.password"),
        (vec![("ssl.ca.pem", "no certificate")], "ssl.ca.pem"),
        (vec![("ssl.cipher.suites", "NONE-SUCH")], "ssl.cipher.suites"),
    ] {
        let error = KafkaTransactions::new(&certified.config(&properties), "client").err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Stop, "{error}");
        assert!(error.to_string().contains(part), "{part} is not in {error}");
    }

    // One side speaks TLS, and the other does not.
    let plain = Member::new(&config(&certified.cluster, &[]), "plain", "member").refusal();
    assert!(plain.to_string().contains("TLS") || plain.to_string().contains("check security.protocol"), "{plain}");
    let error = Member::new(&config(Cluster::shared(), &[("security.protocol", "ssl")]), "plain", "member").refusal();
    assert_eq!(error.kind(), ErrorKind::Stop, "{error}");
}
