//! What connecting needs, read from librdkafka's properties.
//!
//! What decides whom we trust, who we are and how it is encrypted is either done here as librdkafka does it, or refused ([`UNSUPPORTED`]). Not looked
//! at are properties of librdkafka's own timers and buffers (`socket.timeout.ms`, `reconnect.backoff.ms`, `socket.send.buffer.bytes`): time limits are
//! those of the group, and pauses between attempts are short.

use std::fmt;
use std::time::Duration;

use rdkafka::config::NativeClientConfig;

use super::address::{Address, Family};
use super::sasl::Credentials;
use super::tls::TlsSettings;
use crate::config::ConfigError;

/// How brokers are connected to.
#[derive(Clone)]
pub(crate) struct WireSettings {
    pub(super) servers: Vec<Address>,
    pub(super) family: Family,
    pub(super) tls: Option<TlsSettings>,
    pub(super) sasl: Option<Credentials>,
    /// How long connecting may take, with all handshakes.
    pub(super) setup_timeout: Duration,
    pub(super) keepalive: bool,
    /// A larger answer is refused.
    pub(super) max_response_bytes: usize,
    /// How long the coordinator waits for a heartbeat before it drops the member.
    pub(crate) session_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
    /// The time limit of a transaction, which a broker asks for although none is begun.
    pub(crate) transaction_timeout: Duration,
}

/// Properties of librdkafka's that decide how safe a connection is and have no equivalent here, each with its reason. They are refused, for a
/// connection that is less safe than what was asked for is worse than none.
const UNSUPPORTED: &[(&str, &str)] = &[
    (
        "ssl.engine.location",
        "the connection to the group's coordinator has no OpenSSL engines: give the key as ssl.key.location or ssl.keystore.location",
    ),
    ("ssl.providers", "the connection to the group's coordinator has OpenSSL's default providers only"),
];

/// librdkafka's properties as they are after its own defaults, with each under its first name.
pub(super) struct Properties<'a>(pub(super) &'a NativeClientConfig);

impl Properties<'_> {
    /// The value of a property; none where it is not set, or empty.
    pub(super) fn get(&self, key: &str) -> Option<String> {
        self.0.get(key).ok().map(|value| value.trim_end_matches('\0').to_owned()).filter(|value| !value.is_empty())
    }

    fn number(&self, key: &str, otherwise: u64) -> u64 {
        self.get(key).and_then(|value| value.parse().ok()).unwrap_or(otherwise)
    }

    fn millis(&self, key: &str, otherwise: u64) -> Duration {
        Duration::from_millis(self.number(key, otherwise))
    }

    pub(super) fn is_true(&self, key: &str) -> bool {
        self.get(key).as_deref() == Some("true")
    }
}

/// The refusal of a property.
pub(super) fn unsupported(key: &str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Unsupported { key: key.to_owned(), reason: reason.into() }
}

impl WireSettings {
    /// What these properties ask for. No file is read yet.
    ///
    /// # Errors
    /// Names a property that this client cannot honour.
    pub(crate) fn read(native: &NativeClientConfig) -> Result<Self, ConfigError> {
        let properties = Properties(native);
        if let Some((key, reason)) = UNSUPPORTED.iter().find(|(key, _)| properties.get(key).is_some()) {
            return Err(unsupported(key, *reason));
        }
        if properties.get("client.dns.lookup").as_deref() == Some("resolve_canonical_bootstrap_servers_only") {
            return Err(unsupported("client.dns.lookup", "only use_all_dns_ips is supported"));
        }
        let (tls, sasl) = security(&properties)?;
        let servers = properties.get("bootstrap.servers").unwrap_or_default();
        let family = match properties.get("broker.address.family").as_deref() {
            Some("v4") => Family::V4,
            Some("v6") => Family::V6,
            _ => Family::Any,
        };
        Ok(Self {
            servers: Address::list(&servers).map_err(|reason| unsupported("bootstrap.servers", reason))?,
            family,
            tls: tls.then(|| TlsSettings::read(&properties)),
            sasl: if sasl { Some(Credentials::read(&properties)?) } else { None },
            setup_timeout: properties.millis("socket.connection.setup.timeout.ms", 30_000),
            keepalive: properties.is_true("socket.keepalive.enable"),
            max_response_bytes: properties.number("receive.message.max.bytes", 100_000_000).try_into().unwrap_or(usize::MAX),
            session_timeout: properties.millis("session.timeout.ms", 45_000),
            heartbeat_interval: properties.millis("heartbeat.interval.ms", 3_000),
            transaction_timeout: properties.millis("transaction.timeout.ms", 60_000),
        })
    }
}

/// Whether TLS and whether SASL is asked for.
fn security(properties: &Properties<'_>) -> Result<(bool, bool), ConfigError> {
    match properties.get("security.protocol").as_deref() {
        None | Some("plaintext") => Ok((false, false)),
        Some("ssl") => Ok((true, false)),
        Some("sasl_plaintext") => Ok((false, true)),
        Some("sasl_ssl") => Ok((true, true)),
        Some(other) => Err(unsupported("security.protocol", format!("{other} is not known"))),
    }
}

impl fmt::Debug for WireSettings {
    /// Without what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WireSettings").field("servers", &self.servers).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KafkaConfig;

    fn read(properties: &[(&str, &str)]) -> Result<WireSettings, ConfigError> {
        let properties = properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        KafkaConfig::new("a:1,b:2", properties).and_then(|config| config.wire_settings())
    }

    fn refusal(properties: &[(&str, &str)]) -> String {
        read(properties).expect_err("it is refused").to_string()
    }

    #[test]
    fn settings_are_those_of_librdkafka_with_its_defaults_and_ours() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.servers.len(), 2);
        assert!(settings.tls.is_none() && settings.sasl.is_none() && settings.keepalive);
        assert_eq!((settings.session_timeout.as_secs(), settings.heartbeat_interval.as_millis()), (10, 300));
        assert_eq!((settings.setup_timeout.as_secs(), settings.max_response_bytes), (30, 100_000_000));
        let given =
            [("socket.connection.setup.timeout.ms", "2000"), ("broker.address.family", "v4"), ("session.timeout.ms", "7000")];
        let settings = read(&given).unwrap();
        assert_eq!((settings.setup_timeout.as_secs(), settings.family, settings.session_timeout.as_secs()), (2, Family::V4, 7));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        assert!(refusal(&[("ssl.engine.location", "/x")]).contains("ssl.engine.location"));
        assert!(refusal(&[("client.dns.lookup", "resolve_canonical_bootstrap_servers_only")]).contains("client.dns.lookup"));
        for mechanism in ["GSSAPI", "AWS_MSK_IAM"] {
            let refused = refusal(&[("security.protocol", "sasl_ssl"), ("sasl.mechanism", mechanism)]);
            assert!(refused.contains("sasl.mechanism") && refused.contains(mechanism), "{refused}");
        }
        let refused = refusal(&[("security.protocol", "sasl_ssl"), ("sasl.mechanism", "PLAIN"), ("sasl.username", "me")]);
        assert!(refused.contains("sasl.password"), "{refused}");
        let bearer = [("security.protocol", "sasl_ssl"), ("sasl.mechanism", "OAUTHBEARER")];
        assert!(refusal(&bearer).contains("enable.sasl.oauthbearer.unsecure.jwt"));
        let refused = refusal(&[bearer[0], bearer[1], ("sasl.oauthbearer.method", "oidc")]);
        assert!(refused.contains("sasl.oauthbearer.method"), "{refused}");
    }

    #[test]
    fn secrets_are_not_shown() {
        let secret = [
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", "me"),
            ("sasl.password", "hunter2"),
        ];
        assert!(!format!("{:?}", read(&secret).unwrap()).contains("hunter2"));
    }
}
