//! The HTTP client of the command line.

mod answers;
mod delivery;
mod retry;

use std::io::ErrorKind;
use std::time::Duration;

use serde::de::DeserializeOwned;
use ureq::http::Response;
use ureq::{Agent, Body};

pub use answers::{
    AdAnswer, ClicksAnswer, ClusterAnswer, Completeness, InstanceStatus, Quarantined, Rejected, RestoreProgress, Stale,
    TaskStatus, TopAd, TopAnswer, TotalsAnswer, WindowCount,
};
pub use delivery::{Delivery, Outcome};
pub use retry::{Attempts, Patience};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Answers longer than this are not the service's.
const MAX_ANSWER_BYTES: u64 = 256 << 20;

/// The service says with it that an answer is the one given first to the same key.
const REPLAYED_HEADER: &str = "idempotent-replayed";

/// The type of the problem of a service that keeps no idempotency keys. Nothing of the request was stored.
const NO_KEYS_KEPT: &str = "/problems/idempotency-unavailable";

/// A running service, as seen by a command. Calls block.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    base: String,
}

/// Why there is no answer to work with. Its message is one line.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL cannot be one of a service.
    #[error("{url} is not where a service can be: accepted is http://HOST:PORT")]
    Url {
        /// The URL.
        url: String,
    },
    /// No answer came, or only a part of one; the request may have been carried out.
    #[error("no answer from {url}: {reason}")]
    NoAnswer {
        /// The request's URL.
        url: String,
        /// What went wrong.
        reason: String,
        /// Whether it went wrong before anything was sent: there was no connection.
        unsent: bool,
    },
    /// The service refused.
    #[error("{url} answered {status}: {problem}")]
    Refused {
        /// The request's URL.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The problem's title and detail.
        problem: String,
        /// The problem's type; empty where it says none.
        kind: String,
        /// When to try again, where the service says so: the same request then counts nothing twice.
        retry_after: Option<Duration>,
        /// What became of each click, where the service knows.
        told: Option<Box<ClicksAnswer>>,
    },
    /// The service does not take the question as it was asked.
    #[error("{url} answered 400: {problem}")]
    WrongQuestion {
        /// The request's URL.
        url: String,
        /// The problem's title and detail.
        problem: String,
    },
    /// What answered is not Clickmill, or not this version of it.
    #[error("{url} did not answer as Clickmill does: {reason}")]
    Unexpected {
        /// The request's URL.
        url: String,
        /// What is wrong with the answer.
        reason: String,
    },
}

impl ClientError {
    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            ClientError::NoAnswer { .. } => true,
            ClientError::Refused { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            ClientError::Url { .. } | ClientError::WrongQuestion { .. } | ClientError::Unexpected { .. } => false,
        }
    }

    /// Whether the service keeps no idempotency keys. Nothing of the request was stored.
    pub fn keeps_no_keys(&self) -> bool {
        matches!(self, ClientError::Refused { kind, .. } if kind == NO_KEYS_KEPT)
    }

    /// When to try again, where the service says so.
    pub fn retry_after(&self) -> Option<Duration> {
        if let ClientError::Refused { retry_after, .. } = self { *retry_after } else { None }
    }

    /// What became of each click, where the service knows.
    pub fn told(&self) -> Option<&ClicksAnswer> {
        if let ClientError::Refused { told, .. } = self { told.as_deref() } else { None }
    }

    /// Whether clicks that were sent without a key may be stored all the same, some or all of them.
    pub fn may_have_stored(&self) -> bool {
        match self {
            ClientError::Url { .. } | ClientError::WrongQuestion { .. } => false,
            ClientError::NoAnswer { unsent, .. } => !unsent,
            ClientError::Refused { told: Some(told), .. } => told.accepted > 0 || told.unknown().next().is_some(),
            // The service says when to try again only where that counts nothing twice, and 501 before it does anything.
            ClientError::Refused { status, retry_after, .. } => {
                retry_after.is_none() && matches!(status, 200..300 | 408 | 500 | 502..600)
            }
            ClientError::Unexpected { .. } => true,
        }
    }
}

impl Client {
    /// A client of the service at `http://HOST:PORT`. Connects on the first call.
    ///
    /// # Errors
    /// [`ClientError::Url`].
    pub fn new(url: &str) -> Result<Self, ClientError> {
        let wrong = || ClientError::Url { url: url.to_owned() };
        let base = url.trim_end_matches('/');
        let uri: ureq::http::Uri = base.parse().map_err(|_| wrong())?;
        if uri.scheme_str() != Some("http") || uri.host().is_none_or(str::is_empty) || uri.query().is_some() {
            return Err(wrong());
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(REQUEST_TIMEOUT))
            .proxy(None)
            .user_agent(concat!("clickmill/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { agent: config.into(), base: base.to_owned() })
    }

    /// The text of a successful answer to a query.
    ///
    /// # Errors
    /// Any but [`ClientError::Url`].
    pub fn get(&self, path: &str, parameters: &[(&str, String)]) -> Result<String, ClientError> {
        let url = format!("{}{path}", self.base);
        let pairs = parameters.iter().map(|(name, value)| (*name, value.as_str()));
        let answer = self.agent.get(&url).query_pairs(pairs).call();
        let answer = Received::of(&url, answer)?;
        match answer.status {
            200..300 => Ok(answer.text),
            400 => Err(ClientError::WrongQuestion { problem: answers::problem_in_one_line(&answer.text), url }),
            _ => Err(answer.into_refusal(url)),
        }
    }

    /// A successful answer's JSON as `T`.
    ///
    /// # Errors
    /// Any but [`ClientError::Url`].
    pub fn get_json<T: DeserializeOwned>(&self, path: &str, parameters: &[(&str, String)]) -> Result<T, ClientError> {
        let text = self.get(path, parameters)?;
        parse(&format!("{}{path}", self.base), &text)
    }

    /// Sends clicks, one JSON object a line. The same key never adds anything twice.
    ///
    /// # Errors
    /// Any but [`ClientError::Url`]. That all clicks were rejected is no error.
    pub fn post_clicks(&self, lines: &[u8], idempotency_key: Option<&str>) -> Result<ClicksAnswer, ClientError> {
        let url = format!("{}/v1/clicks", self.base);
        let mut request = self.agent.post(&url).content_type("application/x-ndjson");
        if let Some(key) = idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        let answer = Received::of(&url, request.send(lines))?;
        match answer.status {
            202 | 422 => Ok(ClicksAnswer { replayed: answer.replayed, ..parse(&url, &answer.text)? }),
            _ => Err(answer.into_refusal(url)),
        }
    }
}

/// An answer that came whole, whatever it says.
struct Received {
    status: u16,
    text: String,
    retry_after: Option<Duration>,
    replayed: bool,
}

impl Received {
    fn of(url: &str, answer: Result<Response<Body>, ureq::Error>) -> Result<Self, ClientError> {
        let no_answer = |error: ureq::Error| {
            let unsent = has_no_connection(&error);
            ClientError::NoAnswer { url: url.to_owned(), reason: error.to_string(), unsent }
        };
        let mut answer = answer.map_err(no_answer)?;
        let text =
            answer.body_mut().with_config().limit(MAX_ANSWER_BYTES).lossy_utf8(true).read_to_string().map_err(no_answer)?;
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let retry_after = header("retry-after").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
        let replayed = header(REPLAYED_HEADER) == Some("true");
        Ok(Self { status: answer.status().as_u16(), text, retry_after, replayed })
    }

    fn into_refusal(self, url: String) -> ClientError {
        let problem = answers::problem_in_one_line(&self.text);
        let kind = answers::problem_type(&self.text);
        let told = serde_json::from_str(&self.text).ok();
        ClientError::Refused { url, status: self.status, problem, kind, retry_after: self.retry_after, told }
    }
}

/// Whether it failed before there was a connection to send anything on.
fn has_no_connection(error: &ureq::Error) -> bool {
    use ureq::{Error, Timeout};
    match error {
        Error::Io(error) => error.kind() == ErrorKind::ConnectionRefused,
        Error::Timeout(at) => matches!(at, Timeout::Resolve | Timeout::Connect),
        Error::HostNotFound | Error::ConnectionFailed | Error::BadUri(_) => true,
        _ => false,
    }
}

fn parse<T: DeserializeOwned>(url: &str, text: &str) -> Result<T, ClientError> {
    serde_json::from_str(text).map_err(|error| ClientError::Unexpected { url: url.to_owned(), reason: error.to_string() })
}

/// A path segment: everything but unreserved characters is percent-encoded.
pub fn path_segment(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => char::from(byte).to_string(),
        // A dot is encoded too: a segment of dots alone would be taken as a way up.
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, retry_after: Option<u64>, text: &str) -> ClientError {
        let retry_after = retry_after.map(Duration::from_secs);
        Received { status, text: text.to_owned(), retry_after, replayed: false }.into_refusal("u".to_owned())
    }

    #[test]
    fn without_a_key_only_some_failures_leave_open_what_is_stored() {
        let told = |accepted: u64, reason: &str| {
            format!(
                r#"{{"type":"/problems/outcome-unknown","accepted":{accepted},"rejected":[{{"index":0,"reason":"{reason}"}}]}}"#
            )
        };
        for error in [
            refused(503, Some(1), ""),
            refused(429, None, ""),
            refused(413, None, ""),
            refused(501, None, r#"{"type":"/problems/idempotency-unavailable"}"#),
            refused(503, Some(10), &told(0, "not stored")),
            ClientError::NoAnswer { url: String::new(), reason: String::new(), unsent: true },
        ] {
            assert!(!error.may_have_stored(), "{error}");
        }
        for error in [
            refused(503, None, r#"{"type":"/problems/timed-out"}"#),
            refused(500, None, ""),
            refused(504, None, "<html>"),
            refused(503, None, &told(0, "unknown")),
            refused(503, None, &told(1, "ad_id is missing")),
            ClientError::NoAnswer { url: String::new(), reason: String::new(), unsent: false },
        ] {
            assert!(error.may_have_stored(), "{error}");
        }
        assert!(refused(501, None, r#"{"type":"/problems/idempotency-unavailable"}"#).keeps_no_keys());
        assert!(!refused(501, None, r#"{"type":"/problems/other"}"#).keeps_no_keys());
    }
}
