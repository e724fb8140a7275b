//! What every client of ours does with librdkafka's log and its errors.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::ffi::Failure;

/// A refusal older than this has nothing to do with a call that fails now.
const RECENT: Duration = Duration::from_secs(30);

/// Passes the log on, and remembers why the brokers turned us away: the calls themselves just time out then.
#[derive(Debug, Default)]
pub(crate) struct Diary {
    turned_away: Mutex<Option<(Instant, Failure)>>,
}

impl Diary {
    /// The reason why the brokers turned us away just now, if they did, instead of the timeout that came of it.
    pub(crate) fn explain(&self, failure: Failure) -> Failure {
        let is_silence = matches!(
            failure.code,
            Code::OperationTimedOut | Code::MessageTimedOut | Code::AllBrokersDown | Code::BrokerTransportFailure | Code::Resolve
        );
        match &*lock(&self.turned_away) {
            Some((when, reason)) if is_silence && when.elapsed() < RECENT => reason.clone(),
            _ => failure,
        }
    }
}

impl ClientContext for Diary {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // A property for another kind of client than this one is no news: the same are given to all.
        if facility == "CONFWARN" {
            return tracing::debug!(target: "librdkafka", "{facility}: {message}");
        }
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::error!(target: "librdkafka", "{facility}: {message}");
            }
            RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", "{facility}: {message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(target: "librdkafka", "{facility}: {message}"),
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", "{facility}: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(target: "librdkafka", %error, "{reason}");
        if let Some(code) = error.rdkafka_error_code().filter(|code| is_refusal(*code)) {
            *lock(&self.turned_away) = Some((Instant::now(), Failure::new(code, reason)));
        }
    }
}

/// Whether the brokers do not know this user, or do not allow it something.
fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::SSL
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
    )
}

/// Nothing of ours panics with a lock held and leaves what it guards half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
