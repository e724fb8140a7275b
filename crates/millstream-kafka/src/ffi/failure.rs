//! librdkafka's errors.

use std::fmt;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka_sys as sys;

use super::text;

/// Why a call to librdkafka failed.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) code: RDKafkaErrorCode,
    pub(crate) reason: String,
    /// The client is of no use any more.
    pub(crate) fatal: bool,
    /// The same call may succeed later.
    pub(crate) retriable: bool,
    /// The transaction has to be aborted.
    pub(crate) requires_abort: bool,
}

impl Failure {
    pub(crate) fn new(code: RDKafkaErrorCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), fatal: false, retriable: false, requires_abort: false }
    }

    /// The failure of a call that was not answered in time.
    pub(super) fn timed_out() -> Self {
        let failure = Self::new(RDKafkaErrorCode::OperationTimedOut, "no answer from the broker in time");
        Self { retriable: true, ..failure }
    }

    /// The outcome that a code stands for.
    pub(super) fn check(code: sys::rd_kafka_resp_err_t) -> Result<(), Self> {
        match RDKafkaErrorCode::from(code) {
            RDKafkaErrorCode::NoError => Ok(()),
            code => Err(Self::of_code(code)),
        }
    }

    pub(crate) fn of_code(code: RDKafkaErrorCode) -> Self {
        Self::new(code, code.to_string())
    }

    /// The outcome that a call returned, which it gives away.
    ///
    /// # Safety
    /// `error` is null or an error that nobody else frees.
    pub(super) unsafe fn take(error: *mut sys::rd_kafka_error_t) -> Result<(), Self> {
        // SAFETY: null or an error that lives until it is destroyed below, as the caller vouches.
        let outcome = unsafe { Self::read(error) };
        if !error.is_null() {
            // SAFETY: it is ours, and nothing points into it any more.
            unsafe { sys::rd_kafka_error_destroy(error) };
        }
        outcome
    }

    /// The outcome that an error stands for.
    ///
    /// # Safety
    /// `error` is null or a living error.
    pub(super) unsafe fn read(error: *const sys::rd_kafka_error_t) -> Result<(), Self> {
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: it is not null, and the caller vouches that it lives; its text lives as long.
        let failure = unsafe {
            Self {
                code: sys::rd_kafka_error_code(error).into(),
                reason: text(sys::rd_kafka_error_string(error)),
                fatal: sys::rd_kafka_error_is_fatal(error) != 0,
                retriable: sys::rd_kafka_error_is_retriable(error) != 0,
                requires_abort: sys::rd_kafka_error_txn_requires_abort(error) != 0,
            }
        };
        // An error object of "no error" means that there is none.
        if failure.code == RDKafkaErrorCode::NoError { Ok(()) } else { Err(failure) }
    }
}

impl From<KafkaError> for Failure {
    fn from(error: KafkaError) -> Self {
        match &error {
            KafkaError::Transaction(transaction) => Self {
                code: transaction.code(),
                reason: transaction.string(),
                fatal: transaction.is_fatal(),
                retriable: transaction.is_retriable(),
                requires_abort: transaction.txn_requires_abort(),
            },
            KafkaError::MessageConsumptionFatal(code) => Self { fatal: true, ..Self::of_code(*code) },
            error => Self::new(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail), error.to_string()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}
