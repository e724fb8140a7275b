//! How the clients are configured: any librdkafka property by its own name, except those that exactly-once rests on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use crate::connection::Connection;
use crate::wire::WireSettings;

/// Where the cluster is, and how to talk to it.
///
/// A property that the engine must decide, one that librdkafka does not know, and one that is about the safety of a connection and that librdkafka alone
/// could honour, is refused when this is made.
#[derive(Clone)]
pub struct KafkaConfig {
    bootstrap_servers: String,
    properties: BTreeMap<String, String>,
    replication_factor: Option<u16>,
    connection: Arc<Connection>,
}

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The engine decides this property.
    #[error("{key} cannot be set: {reason}")]
    Reserved {
        /// The property.
        key: String,
        /// What it is for.
        reason: &'static str,
    },
    /// There is no such property, or it cannot have this value.
    #[error("{key} cannot be set to {value:?}: {reason}; the properties are those of librdkafka's CONFIGURATION.md")]
    Invalid {
        /// The property.
        key: String,
        /// The value.
        value: String,
        /// librdkafka's words.
        reason: String,
    },
    /// The property exists, but this client cannot do what it asks for.
    #[error("{key} cannot be honoured: {reason}")]
    Unsupported {
        /// The property.
        key: String,
        /// What is missing.
        reason: String,
    },
    /// There is no address.
    #[error("no Kafka broker is named: give at least one as HOST:PORT")]
    NoServers,
}

/// What a client is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role<'a> {
    /// A member of a group, which is not librdkafka's: what it takes of the properties.
    Member,
    /// Questions about what this group has committed.
    Positions { group: &'a str },
    /// Fetches many partitions into one queue.
    Fetcher,
    /// Readers outside groups, each with a queue of its own.
    Reader,
    /// A producer of this transactional id.
    Transactional { id: &'a str },
    /// The intake, whose batches are no larger than that, and each of whose records is answered for within that time.
    Idempotent { batch_bytes: usize, delivery: Duration },
    /// Requests to the cluster.
    Admin,
}

/// The properties that belong to the engine, each with its reason.
const RESERVED: &[(&str, &str)] = &[
    ("bootstrap.servers", "it is given as the address of the cluster"),
    ("metadata.broker.list", "it is given as the address of the cluster"),
    ("isolation.level", "only committed records may be counted"),
    ("enable.auto.commit", "positions are committed in the transaction with what was counted up to them, and nowhere else"),
    ("auto.commit.enable", "positions are committed in the transaction with what was counted up to them, and nowhere else"),
    ("auto.commit.interval.ms", "positions are committed in the transaction with what was counted up to them, and nowhere else"),
    ("enable.auto.offset.store", "positions are committed in the transaction with what was counted up to them, and nowhere else"),
    ("offset.store.method", "positions are committed in the transaction with what was counted up to them, and nowhere else"),
    ("auto.offset.reset", "a missing position is never guessed"),
    ("group.id", "it is the application id"),
    ("group.instance.id", "an instance that starts again goes on as the member that it was"),
    ("group.protocol", "the engine is a member of a classic group"),
    ("group.protocol.type", "the engine is a member of a classic group"),
    ("group.remote.assignor", "the engine is a member of a classic group"),
    ("partition.assignment.strategy", "the members of the group share the tasks themselves"),
    ("enable.partition.eof", "it tells the position at the end of a log"),
    ("transactional.id", "it is made of application id, instance id and thread"),
    ("enable.idempotence", "a record must not be written twice"),
    ("enable.gapless.guarantee", "a record must not be left out"),
    ("acks", "what is answered for has to be on all in-sync replicas"),
    ("request.required.acks", "what is answered for has to be on all in-sync replicas"),
    ("delivery.report.only.error", "the offsets of what was written are needed"),
    ("allow.auto.create.topics", "a topic is never created by reading it: its settings would be wrong"),
    ("log.queue", "the log goes through the engine"),
];

impl KafkaConfig {
    /// The configuration for these servers (`HOST:PORT`, separated by commas) with these librdkafka properties.
    ///
    /// # Errors
    /// Where a property belongs to the engine, does not exist, or cannot have its value.
    pub fn new(
        bootstrap_servers: impl Into<String>,
        properties: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let (bootstrap_servers, properties) = (bootstrap_servers.into(), properties.into_iter().collect::<BTreeMap<_, _>>());
        if bootstrap_servers.trim().is_empty() {
            return Err(ConfigError::NoServers);
        }
        if let Some((key, reason)) = RESERVED.iter().find(|(key, _)| properties.contains_key(*key)) {
            return Err(ConfigError::Reserved { key: (*key).to_owned(), reason });
        }
        let config = Self { bootstrap_servers, properties, replication_factor: None, connection: Arc::default() };
        config.client(Role::Admin).create_native_config().map_err(|error| config.invalid(&error))?;
        // Whoever decides who holds what connects without librdkafka.
        config.wire_settings()?;
        Ok(config)
    }

    /// The same, with topics created with so many copies of each partition; otherwise it is the brokers' default.
    pub fn with_replication_factor(self, replication_factor: u16) -> Self {
        Self { replication_factor: Some(replication_factor), ..self }
    }

    /// The servers that are asked first.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// Copies of each partition of a topic created; -1 is the brokers' default.
    pub(crate) fn replication(&self) -> i32 {
        self.replication_factor.map_or(-1, i32::from)
    }

    /// What the clients of this configuration, and of its copies, know together of their cluster.
    pub(crate) fn connection(&self) -> Arc<Connection> {
        self.connection.clone()
    }

    /// How brokers are connected to without librdkafka.
    ///
    /// # Errors
    /// Names a property that can be honoured by librdkafka alone.
    pub(crate) fn wire_settings(&self) -> Result<WireSettings, ConfigError> {
        let client = self.client(Role::Member);
        let native = client.create_native_config().map_err(|error| self.invalid(&error))?;
        let mut settings = WireSettings::read(&native)?;
        let transactional = self.client(Role::Transactional { id: "" });
        if let Some(millis) = transactional.get("transaction.timeout.ms").and_then(|time| time.parse().ok()) {
            settings.transaction_timeout = Duration::from_millis(millis);
        }
        Ok(settings)
    }

    fn invalid(&self, error: &KafkaError) -> ConfigError {
        match error {
            KafkaError::ClientConfig(_, reason, key, value) => {
                let shown = if is_secret(key) { "(secret)" } else { value };
                ConfigError::Invalid { key: key.clone(), value: shown.to_owned(), reason: reason.clone() }
            }
            error => ConfigError::Invalid { key: String::new(), value: String::new(), reason: error.to_string() },
        }
    }

    /// The configuration of a client: defaults of ours, what was given, and what the engine decides, each over the one before.
    pub(crate) fn client(&self, role: Role<'_>) -> ClientConfig {
        let mut client = ClientConfig::new();
        // What of it is logged is decided by whoever reads the log.
        client.set_log_level(RDKafkaLogLevel::Info);
        let set = |client: &mut ClientConfig, properties: &[(&str, &str)]| {
            for (key, value) in properties {
                client.set(*key, *value);
            }
        };
        set(&mut client, COMMON);
        set(&mut client, defaults(role));
        for (key, value) in &self.properties {
            client.set(key, value);
        }
        client.set("bootstrap.servers", &self.bootstrap_servers);
        client.set("allow.auto.create.topics", "false");
        set(&mut client, decided(role));
        match role {
            Role::Positions { group } => client.set("group.id", group),
            Role::Transactional { id } => client.set("transactional.id", id),
            Role::Idempotent { batch_bytes, delivery } => limit_intake(&mut client, batch_bytes, delivery),
            // What it asks goes to the controller: one that is gone is to be noticed soon, for commits wait for the answer.
            Role::Admin => client.set("topic.metadata.refresh.interval.ms", "1000"),
            Role::Member | Role::Fetcher | Role::Reader => &mut client,
        };
        client
    }
}

/// Lets what is configured be smaller than that, and never larger.
fn limit_intake(client: &mut ClientConfig, batch_bytes: usize, delivery: Duration) -> &mut ClientConfig {
    let smaller = |configured: Option<&str>, most: u128| {
        configured
            .and_then(|value| value.parse().ok())
            .filter(|value| *value > 0)
            .map_or(most, |value: u128| value.min(most))
            .to_string()
    };
    let batch_size = smaller(client.get("batch.size"), batch_bytes as u128);
    let timeout = smaller(client.get("delivery.timeout.ms").or(client.get("message.timeout.ms")), delivery.as_millis().max(100));
    // Another name of the same property: which of the two comes last is not known.
    client.remove("delivery.timeout.ms");
    client.set("batch.size", batch_size).set("message.timeout.ms", timeout)
}

impl std::fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.properties.iter().map(|(key, value)| (key, if is_secret(key) { "(secret)" } else { value }));
        f.debug_struct("KafkaConfig")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("properties", &shown.collect::<BTreeMap<_, _>>())
            .field("replication_factor", &self.replication_factor)
            .finish()
    }
}

fn is_secret(key: &str) -> bool {
    ["password", "passphrase", "secret", "pem", "jaas", "key.string", "oauthbearer.config"].iter().any(|part| key.contains(part))
}

/// A broker that is back is found within a second.
const COMMON: &[(&str, &str)] = &[("reconnect.backoff.max.ms", "1000"), ("socket.keepalive.enable", "true")];

/// How soon a group misses a member that has died, and how soon the others hear that the group gathers. What a member that has died while it joined holds up
/// is held up twice as long: while the group waits for it to join, its session does not run, and begins anew when all others have joined.
/// Partitions that are added to a topic are seen, and assigned, within the interval of its metadata: by default it takes minutes.
const MEMBERSHIP: &[(&str, &str)] =
    &[("session.timeout.ms", "10000"), ("heartbeat.interval.ms", "300"), ("topic.metadata.refresh.interval.ms", "5000")];

/// Large fetches, and a queue that is looked at again soon after it was full: by default a consumer that works off a backlog idles.
/// What is there is answered at once, for a backlog fills a fetch by itself. A fetch that finds nothing waits so long at the broker, and
/// with it whatever was started since: longer would cost less when idle, and hold up a partition that was just taken over.
/// Damaged records are noticed, partitions that were added to a topic are found before they are assigned, and a topic that is gone is
/// missed soon.
const FETCH: &[(&str, &str)] = &[
    ("check.crcs", "true"),
    ("fetch.min.bytes", "1"),
    ("fetch.wait.max.ms", "100"),
    ("fetch.message.max.bytes", "2097152"),
    ("fetch.queue.backoff.ms", "5"),
    ("queued.max.messages.kbytes", "16384"),
    ("topic.metadata.refresh.interval.ms", "5000"),
    ("topic.metadata.propagation.max.ms", "10000"),
];

/// The bound is for each partition that is read, not for all of them.
const FETCH_ALONE: &[(&str, &str)] = &[
    ("check.crcs", "true"),
    ("fetch.min.bytes", "1"),
    ("fetch.wait.max.ms", "50"),
    ("fetch.message.max.bytes", "2097152"),
    ("fetch.queue.backoff.ms", "5"),
    ("queued.max.messages.kbytes", "4096"),
];

/// A commit sends everything at once, so nothing waits as long as it may; the bounds are what one commit needs at most at a time. The
/// coordinator refuses a transaction for a few milliseconds after the one before, while it writes its markers: hence the short retry.
/// How large a record may be is for the topics to say: one that was clicked on must not stop at our own door.
const TRANSACTIONAL: &[(&str, &str)] = &[
    ("message.max.bytes", "134217728"),
    ("transaction.timeout.ms", "10000"),
    ("linger.ms", "50"),
    ("retry.backoff.ms", "10"),
    ("queue.buffering.max.kbytes", "65536"),
    ("queue.buffering.max.messages", "500000"),
];

/// Somebody waits for the answer.
const IDEMPOTENT: &[(&str, &str)] = &[
    ("message.max.bytes", "134217728"),
    ("linger.ms", "5"),
    ("message.timeout.ms", "30000"),
    ("queue.buffering.max.kbytes", "65536"),
];

fn defaults(role: Role<'_>) -> &'static [(&'static str, &'static str)] {
    match role {
        Role::Member => MEMBERSHIP,
        Role::Fetcher => FETCH,
        Role::Reader => FETCH_ALONE,
        Role::Transactional { .. } => TRANSACTIONAL,
        Role::Idempotent { .. } => IDEMPOTENT,
        Role::Positions { .. } | Role::Admin => &[],
    }
}

/// What a consumer of a group decides, though nothing is fetched by one.
const MEMBER: &[(&str, &str)] = &[
    ("isolation.level", "read_committed"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("enable.partition.eof", "false"),
    ("partition.assignment.strategy", "cooperative-sticky"),
];

/// With events for the ends of partitions, which tell the position behind the last marker. librdkafka takes such an event for a record
/// and moves the position past it, which does no harm as long as nothing pauses a partition.
const READER: &[(&str, &str)] = &[
    ("isolation.level", "read_committed"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("enable.partition.eof", "true"),
];

fn decided(role: Role<'_>) -> &'static [(&'static str, &'static str)] {
    match role {
        Role::Positions { .. } => MEMBER,
        Role::Fetcher | Role::Reader => READER,
        Role::Transactional { .. } | Role::Idempotent { .. } => {
            &[("enable.idempotence", "true"), ("acks", "all"), ("delivery.report.only.error", "false")]
        }
        Role::Member | Role::Admin => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(properties: &[(&str, &str)]) -> Result<KafkaConfig, ConfigError> {
        KafkaConfig::new("127.0.0.1:9092", properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn properties_that_exactly_once_rests_on_are_refused_with_the_reason() {
        for (key, reason) in RESERVED {
            let refused = config(&[(key, "anything")]).unwrap_err().to_string();
            assert!(refused.contains(key) && refused.contains(reason), "{refused}");
        }
    }

    #[test]
    fn a_property_that_does_not_exist_is_refused_by_name() {
        let refused = config(&[("sasl.mecanism", "PLAIN")]).unwrap_err().to_string();
        assert!(refused.contains("sasl.mecanism"), "{refused}");
        let refused = config(&[("session.timeout.ms", "soon")]).unwrap_err().to_string();
        assert!(refused.contains("session.timeout.ms") && refused.contains("soon"), "{refused}");
    }

    #[test]
    fn what_is_given_goes_over_our_defaults_and_under_what_the_engine_decides() {
        let config = config(&[("transaction.timeout.ms", "20000"), ("security.protocol", "SSL")]).unwrap();
        let client = config.client(Role::Transactional { id: "app-0-1" });
        assert_eq!(client.get("transaction.timeout.ms"), Some("20000"));
        assert_eq!(client.get("security.protocol"), Some("SSL"));
        assert_eq!((client.get("acks"), client.get("transactional.id")), (Some("all"), Some("app-0-1")));
    }

    #[test]
    fn a_group_misses_a_dead_member_soon_unless_told_otherwise() {
        let member = Role::Member;
        let sessions = |properties| {
            let client = config(properties).unwrap().client(member);
            (client.get("session.timeout.ms").map(str::to_owned), client.get("heartbeat.interval.ms").map(str::to_owned))
        };
        assert_eq!(sessions(&[]), (Some("10000".into()), Some("300".into())));
        assert_eq!(sessions(&[("session.timeout.ms", "45000")]), (Some("45000".into()), Some("300".into())));
    }

    #[test]
    fn every_role_is_known_to_librdkafka() {
        let config = config(&[]).unwrap();
        let (member, transactional) = (Role::Member, Role::Transactional { id: "app" });
        let idempotent = Role::Idempotent { batch_bytes: 1_000, delivery: Duration::from_secs(5) };
        let positions = Role::Positions { group: "app" };
        for role in [member, positions, Role::Fetcher, Role::Reader, transactional, idempotent, Role::Admin] {
            assert!(config.client(role).create_native_config().is_ok(), "{role:?}");
        }
    }

    #[test]
    fn the_intake_answers_in_time_whatever_is_configured() {
        let timeout = |properties: &[(&str, &str)], seconds| {
            let role = Role::Idempotent { batch_bytes: 1_000, delivery: Duration::from_secs(seconds) };
            let client = config(properties).unwrap().client(role);
            assert_eq!(client.get("delivery.timeout.ms"), None);
            client.get("message.timeout.ms").map(str::to_owned)
        };
        assert_eq!(timeout(&[], 15).as_deref(), Some("15000"));
        assert_eq!(timeout(&[], 60).as_deref(), Some("30000"), "the default is less");
        for name in ["message.timeout.ms", "delivery.timeout.ms"] {
            assert_eq!(timeout(&[(name, "5000")], 15).as_deref(), Some("5000"), "{name}");
            assert_eq!(timeout(&[(name, "120000")], 15).as_deref(), Some("15000"), "{name}");
            assert_eq!(timeout(&[(name, "0")], 15).as_deref(), Some("15000"), "{name}: for ever");
        }
    }

    #[test]
    fn tls_and_sasl_are_compiled_in() {
        for (key, value) in [("ssl.ca.location", "/dev/null"), ("sasl.mechanisms", "SCRAM-SHA-512"), ("sasl.password", "p")] {
            assert!(config(&[(key, value)]).is_ok(), "{key}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?}", config(&[("sasl.password", "hunter2"), ("sasl.username", "me")]).unwrap());
        assert!(!shown.contains("hunter2") && shown.contains("sasl.username"), "{shown}");
    }
}
