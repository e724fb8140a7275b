//! Who we are, in the words of a SASL mechanism. The mechanisms know nothing of connections.

use super::bearer::Bearer;
use super::scram::{Hash, Scram};
use super::settings::{Properties, unsupported};
use crate::config::ConfigError;

/// A mechanism with what it needs.
#[derive(Clone)]
pub(super) enum Credentials {
    Plain { user: String, password: String },
    Scram { hash: Hash, user: String, password: String },
    Bearer(Bearer),
}

impl Credentials {
    /// What the `sasl.*` properties say.
    pub(super) fn read(properties: &Properties<'_>) -> Result<Self, ConfigError> {
        let mechanism = properties.get("sasl.mechanisms").unwrap_or_default();
        let given = |key: &str| {
            properties.get(key).ok_or_else(|| unsupported(key, format!("it is not set, and sasl.mechanism {mechanism} needs it")))
        };
        let login = || Ok((given("sasl.username")?, given("sasl.password")?));
        let scram = |hash| login().map(|(user, password)| Self::Scram { hash, user, password });
        match mechanism.as_str() {
            "PLAIN" => login().map(|(user, password)| Self::Plain { user, password }),
            "SCRAM-SHA-256" => scram(Hash::Sha256),
            "SCRAM-SHA-512" => scram(Hash::Sha512),
            "OAUTHBEARER" => Bearer::read(properties).map(Self::Bearer),
            other => {
                let reason = format!("{other:?} is not supported: use PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER");
                Err(unsupported("sasl.mechanism", reason))
            }
        }
    }

    /// The name of the mechanism.
    pub(super) fn mechanism(&self) -> &'static str {
        match self {
            Self::Plain { .. } => "PLAIN",
            Self::Scram { hash, .. } => hash.mechanism(),
            Self::Bearer(_) => "OAUTHBEARER",
        }
    }

    /// Begins to authenticate.
    pub(super) fn begin(&self) -> Result<Dialogue, String> {
        Ok(match self {
            Self::Plain { user, password } => Dialogue::Plain(format!("\0{user}\0{password}").into_bytes()),
            Self::Scram { hash, user, password } => Dialogue::Scram(Scram::new(*hash, user, password)?),
            Self::Bearer(bearer) => Dialogue::Bearer(bearer.message()),
        })
    }
}

/// One authentication: what is said in turn.
pub(super) enum Dialogue {
    Plain(Vec<u8>),
    Scram(Scram),
    Bearer(Vec<u8>),
}

impl Dialogue {
    /// What is said first.
    pub(super) fn first(&mut self) -> Vec<u8> {
        match self {
            Self::Plain(message) | Self::Bearer(message) => std::mem::take(message),
            Self::Scram(scram) => scram.first(),
        }
    }

    /// What is said to an answer that is no error; none where all is said.
    pub(super) fn reply(&mut self, answer: &[u8]) -> Result<Option<Vec<u8>>, String> {
        match self {
            Self::Plain(_) => Ok(None),
            Self::Scram(scram) => scram.reply(answer),
            // A token that was refused: the broker says why once that is acknowledged (RFC 7628).
            Self::Bearer(_) => Ok((!answer.is_empty()).then(|| vec![1])),
        }
    }
}
