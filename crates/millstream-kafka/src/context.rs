//! What every client of ours does with librdkafka's log and its errors.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millstream::broker::BrokerError;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::connection::Connection;
use crate::error::{is_handshake, way_out};
use crate::ffi::Failure;

/// A refusal older than this has nothing to do with a call that fails now.
const RECENT: Duration = Duration::from_secs(30);

/// Passes the log on, without what was just said, and remembers why the brokers turned us away: the calls themselves just time out
/// then.
#[derive(Debug, Default)]
pub(crate) struct Diary {
    connection: Arc<Connection>,
    turned_away: Mutex<Option<(Instant, Failure)>>,
}

impl Diary {
    /// The diary of a client of the configuration that the connection belongs to.
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        Self { connection, turned_away: Mutex::default() }
    }

    /// A broker has answered this client.
    pub(crate) fn answered(&self) {
        self.connection.answered();
    }

    /// The reason why the brokers turned us away just now, if they did, instead of the timeout that came of it; and whether that is
    /// before any broker has answered.
    pub(crate) fn explain(&self, failure: Failure) -> Failure {
        let is_silence = matches!(
            failure.code,
            Code::OperationTimedOut | Code::MessageTimedOut | Code::AllBrokersDown | Code::BrokerTransportFailure | Code::Resolve
        );
        let ours = lock(&self.turned_away).clone().filter(|(when, _)| when.elapsed() < RECENT).map(|(_, reason)| reason);
        let reason = match ours.or_else(|| self.connection.failed_handshake(RECENT)) {
            Some(reason) if is_silence => reason,
            _ => failure,
        };
        Failure { before_contact: !self.connection.was_reached(), ..reason }
    }

    /// Says that the client tries again after an error; of one that comes again and again at most once a minute.
    pub(crate) fn tries_again(&self, error: &BrokerError) {
        if let Some(held_back) = self.connection.complain(&error.to_string()) {
            tracing::warn!(%error, held_back, "the client tries again");
        }
    }
}

impl ClientContext for Diary {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // A property for another kind of client than this one is no news: the same are given to all.
        if facility == "CONFWARN" {
            return tracing::debug!(target: "librdkafka", "{facility}: {message}");
        }
        let Some(held_back) = self.connection.complain(message) else {
            return tracing::debug!(target: "librdkafka", "{facility}: {message}");
        };
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::error!(target: "librdkafka", held_back, "{facility}: {message}");
            }
            RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", held_back, "{facility}: {message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", held_back, "{facility}: {message}");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", "{facility}: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        let way_out = code.and_then(way_out).map(|way| format!(": {way}")).unwrap_or_default();
        // librdkafka's own line, which says the same, has no way out: it must not hold this one back.
        let complaint = format!("{}{way_out}", reason.split(" (after ").next().unwrap_or_default());
        let to_say = match code {
            Some(Code::AllBrokersDown) => self.connection.lost(),
            _ => self.connection.complain(&complaint),
        };
        match to_say {
            Some(held_back) => tracing::warn!(target: "librdkafka", %error, held_back, "{reason}{way_out}"),
            None => tracing::debug!(target: "librdkafka", %error, "{reason}{way_out}"),
        }
        if let Some(code) = code.filter(|code| is_refusal(*code)) {
            let failure = Failure::new(code, reason);
            if is_handshake(code) {
                self.connection.handshake_failed(failure.clone());
            }
            *lock(&self.turned_away) = Some((Instant::now(), failure));
        }
    }
}

/// Whether the brokers do not know this user, or do not allow it something.
fn is_refusal(code: Code) -> bool {
    is_handshake(code)
        || matches!(
            code,
            Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::TransactionalIdAuthorizationFailed
        )
}

/// Nothing of ours panics with a lock held and leaves what it guards half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
