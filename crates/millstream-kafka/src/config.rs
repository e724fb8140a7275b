//! How the clients are configured: any librdkafka property by its own name, except those that exactly-once rests on.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

/// Where the cluster is, and how to talk to it.
///
/// A property that the engine must decide, and one that librdkafka does not know, is refused when this is made.
#[derive(Clone)]
pub struct KafkaConfig {
    bootstrap_servers: String,
    properties: BTreeMap<String, String>,
    replication_factor: Option<u16>,
    static_membership: bool,
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
    /// There is no address.
    #[error("no Kafka broker is named: give at least one as HOST:PORT")]
    NoServers,
}

/// What a client is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role<'a> {
    /// A member of this group, with a name of its own.
    Consumer { group: &'a str, member: &'a str },
    /// Readers outside groups.
    Reader,
    /// A producer of this transactional id.
    Transactional { id: &'a str },
    /// The intake, whose batches are no larger than that.
    Idempotent { batch_bytes: usize },
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
    ("group.instance.id", "it is the member's own name, where static membership is asked for"),
    ("group.protocol", "the engine is a member of a classic group"),
    ("group.protocol.type", "the engine is a member of a classic group"),
    ("group.remote.assignor", "the engine is a member of a classic group"),
    ("partition.assignment.strategy", "tasks that stay must keep running while others move: cooperative-sticky"),
    ("enable.partition.eof", "a restore needs it, and a member of a group must not have it"),
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
        let config = Self { bootstrap_servers, properties, replication_factor: None, static_membership: false };
        config.client(Role::Admin).create_native_config().map_err(|error| config.invalid(&error))?;
        Ok(config)
    }

    /// The same, with topics created with so many copies of each partition; otherwise it is the brokers' default.
    pub fn with_replication_factor(self, replication_factor: u16) -> Self {
        Self { replication_factor: Some(replication_factor), ..self }
    }

    /// The same, with members that are known to the group by their names: one that starts again within the session timeout gets its
    /// partitions back at once, and the broker then refuses what the one before still tries, for it has another member id. But one that
    /// ends, in good order too, keeps its partitions from others until the session times out.
    pub fn with_static_membership(self) -> Self {
        Self { static_membership: true, ..self }
    }

    /// The servers that are asked first.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// Copies of each partition of a topic created; -1 is the brokers' default.
    pub(crate) fn replication(&self) -> i32 {
        self.replication_factor.map_or(-1, i32::from)
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
            Role::Consumer { group, member } => {
                if self.static_membership {
                    client.set("group.instance.id", member);
                }
                client.set("group.id", group)
            }
            Role::Transactional { id } => client.set("transactional.id", id),
            Role::Idempotent { batch_bytes } => {
                let configured = client.get("batch.size").and_then(|size| size.parse().ok());
                client.set("batch.size", configured.unwrap_or(batch_bytes).min(batch_bytes).to_string())
            }
            Role::Reader | Role::Admin => &mut client,
        };
        client
    }
}

impl std::fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.properties.iter().map(|(key, value)| (key, if is_secret(key) { "(secret)" } else { value }));
        f.debug_struct("KafkaConfig")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("properties", &shown.collect::<BTreeMap<_, _>>())
            .field("replication_factor", &self.replication_factor)
            .field("static_membership", &self.static_membership)
            .finish()
    }
}

fn is_secret(key: &str) -> bool {
    ["password", "passphrase", "secret", "pem", "jaas", "key.string", "oauthbearer.config"].iter().any(|part| key.contains(part))
}

/// A broker that is back is found within a second.
const COMMON: &[(&str, &str)] = &[("reconnect.backoff.max.ms", "1000"), ("socket.keepalive.enable", "true")];

/// Larger fetches, and a queue that is looked at again soon after it was full: by default a consumer that works off a backlog idles.
/// Damaged records are noticed.
const FETCH: &[(&str, &str)] = &[
    ("check.crcs", "true"),
    ("fetch.min.bytes", "65536"),
    ("fetch.wait.max.ms", "25"),
    ("fetch.message.max.bytes", "2097152"),
    ("fetch.queue.backoff.ms", "5"),
    ("queued.max.messages.kbytes", "16384"),
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
        Role::Consumer { .. } => FETCH,
        Role::Reader => FETCH_ALONE,
        Role::Transactional { .. } => TRANSACTIONAL,
        Role::Idempotent { .. } => IDEMPOTENT,
        Role::Admin => &[],
    }
}

/// Without events for the ends of partitions: librdkafka takes one for a record and moves the position past it. A rebalance, which
/// pauses all partitions for a moment and goes on from the position, would then skip the next record without a word.
const MEMBER: &[(&str, &str)] = &[
    ("isolation.level", "read_committed"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("enable.partition.eof", "false"),
    ("partition.assignment.strategy", "cooperative-sticky"),
];

/// With events for the ends of partitions: nothing ever pauses a reader.
const READER: &[(&str, &str)] = &[
    ("isolation.level", "read_committed"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("enable.partition.eof", "true"),
];

fn decided(role: Role<'_>) -> &'static [(&'static str, &'static str)] {
    match role {
        Role::Consumer { .. } => MEMBER,
        Role::Reader => READER,
        Role::Transactional { .. } | Role::Idempotent { .. } => {
            &[("enable.idempotence", "true"), ("acks", "all"), ("delivery.report.only.error", "false")]
        }
        Role::Admin => &[],
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
        let config = config(&[("transaction.timeout.ms", "20000"), ("security.protocol", "SASL_SSL")]).unwrap();
        let client = config.client(Role::Transactional { id: "app-0-1" });
        assert_eq!(client.get("transaction.timeout.ms"), Some("20000"));
        assert_eq!(client.get("security.protocol"), Some("SASL_SSL"));
        assert_eq!((client.get("acks"), client.get("transactional.id")), (Some("all"), Some("app-0-1")));
    }

    #[test]
    fn every_role_is_known_to_librdkafka() {
        let config = config(&[]).unwrap();
        let (consumer, transactional) = (Role::Consumer { group: "app", member: "app-0-1" }, Role::Transactional { id: "app" });
        for role in [consumer, transactional, Role::Reader, Role::Idempotent { batch_bytes: 1_000 }, Role::Admin] {
            assert!(config.client(role).create_native_config().is_ok(), "{role:?}");
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
