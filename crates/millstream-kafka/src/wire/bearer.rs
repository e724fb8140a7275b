//! OAUTHBEARER (RFC 7628) with an unsecured token, made of `sasl.oauthbearer.config` as librdkafka makes it. It proves nothing: it is for tests.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::settings::{Properties, unsupported};
use crate::config::ConfigError;

/// How much the clock of a broker may be behind.
const CLOCKS_DIFFER_SECONDS: f64 = 1.0;

/// What a token says, but for the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bearer {
    principal_claim: String,
    principal: String,
    scope_claim: String,
    scope: Vec<String>,
    life_seconds: u32,
    extensions: Vec<(String, String)>,
}

impl Bearer {
    pub(super) fn read(properties: &Properties<'_>) -> Result<Self, ConfigError> {
        if properties.get("sasl.oauthbearer.method").is_some_and(|method| method != "default") {
            return Err(unsupported("sasl.oauthbearer.method", "tokens cannot be fetched over HTTP: use another sasl.mechanism"));
        }
        if !properties.is_true("enable.sasl.oauthbearer.unsecure.jwt") {
            let reason = "it is not set, and tokens come from nowhere else: use another sasl.mechanism";
            return Err(unsupported("enable.sasl.oauthbearer.unsecure.jwt", reason));
        }
        let config = properties.get("sasl.oauthbearer.config").unwrap_or_default();
        Self::parse(&config).map_err(|reason| unsupported("sasl.oauthbearer.config", reason))
    }

    /// `principal=admin scope=role1,role2 lifeSeconds=600 extension_name=value`, and what the claims are called.
    fn parse(config: &str) -> Result<Self, String> {
        let mut bearer = Self {
            principal_claim: "sub".to_owned(),
            principal: String::new(),
            scope_claim: "scope".to_owned(),
            scope: Vec::new(),
            life_seconds: 3600,
            extensions: Vec::new(),
        };
        for word in config.split_whitespace() {
            let (name, value) =
                word.split_once('=').filter(|(_, value)| !value.is_empty()).ok_or("it is no list of name=value")?;
            match name {
                "principalClaimName" => bearer.principal_claim = value.to_owned(),
                "principal" => bearer.principal = value.to_owned(),
                "scopeClaimName" => bearer.scope_claim = value.to_owned(),
                "scope" => bearer.scope = value.split(',').filter(|scope| !scope.is_empty()).map(str::to_owned).collect(),
                "lifeSeconds" => bearer.life_seconds = value.parse().map_err(|_| "lifeSeconds is no number")?,
                name => match name.strip_prefix("extension_") {
                    Some(extension) => bearer.extensions.push((extension.to_owned(), value.to_owned())),
                    None => return Err(format!("{name} is not known")),
                },
            }
        }
        if bearer.principal.is_empty() { Err("principal is missing".to_owned()) } else { Ok(bearer) }
    }

    /// What the client says first.
    pub(super) fn message(&self) -> Vec<u8> {
        let extensions: String = self.extensions.iter().map(|(name, value)| format!("{name}={value}\x01")).collect();
        format!("n,,\x01auth=Bearer {}\x01{extensions}\x01", self.token(seconds_since_1970())).into_bytes()
    }

    fn token(&self, now: f64) -> String {
        let mut claims = Map::new();
        claims.insert(self.principal_claim.clone(), json!(self.principal));
        // Brokers refuse a token of the future, if only by the part of a millisecond that they do not see.
        claims.insert("iat".to_owned(), json!(now - CLOCKS_DIFFER_SECONDS));
        claims.insert("exp".to_owned(), json!(now + f64::from(self.life_seconds)));
        if !self.scope.is_empty() {
            claims.insert(self.scope_claim.clone(), json!(self.scope));
        }
        let part = |text: String| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.", part(json!({"alg": "none"}).to_string()), part(Value::Object(claims).to_string()))
    }
}

/// The wall clock, which the broker compares the token with.
#[allow(clippy::disallowed_methods, reason = "the token is for others, whose clock is the wall's")]
fn seconds_since_1970() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_what_is_configured() {
        let bearer =
            Bearer::parse("principalClaimName=azp principal=admin scopeClaimName=roles scope=a,b lifeSeconds=600").unwrap();
        let token = bearer.token(1000.5);
        let parts: Vec<_> = token.split('.').collect();
        let decode = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        assert_eq!(decode(parts[0]), json!({"alg": "none"}));
        assert_eq!(decode(parts[1]), json!({"azp": "admin", "iat": 999.5, "exp": 1600.5, "roles": ["a", "b"]}));
        assert_eq!(parts[2], "");
    }

    #[test]
    fn extensions_follow_the_token() {
        let message = Bearer::parse("principal=admin extension_traceId=1").unwrap().message();
        let message = String::from_utf8(message).unwrap();
        assert!(message.starts_with("n,,\x01auth=Bearer ") && message.ends_with(".\x01traceId=1\x01\x01"), "{message}");
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        for config in ["", "principal=", "scope=a", "principal=a life=1", "principal=a lifeSeconds=x", "principal"] {
            assert!(Bearer::parse(config).is_err(), "{config}");
        }
    }
}
