//! librdkafka's errors.

use std::fmt;

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka_sys as sys;

use super::{codes, text};

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
    /// No broker has answered yet: what keeps the client from them may be a mistake in its configuration.
    pub(crate) before_contact: bool,
}

impl Failure {
    pub(crate) fn new(code: RDKafkaErrorCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), fatal: false, retriable: false, requires_abort: false, before_contact: false }
    }

    /// The failure of a call that was not answered in time.
    pub(super) fn timed_out() -> Self {
        let failure = Self::new(RDKafkaErrorCode::OperationTimedOut, "no answer from the broker in time");
        Self { retriable: true, ..failure }
    }

    /// The outcome that a code stands for.
    pub(crate) fn check(number: i32) -> Result<(), Self> {
        if number == codes::NO_ERROR { Ok(()) } else { Err(Self::of_number(number)) }
    }

    /// As [`Failure::check`], with what is said about it, if anything.
    pub(crate) fn check_with(number: i32, text: impl FnOnce() -> String) -> Result<(), Self> {
        if number == codes::NO_ERROR { Ok(()) } else { Err(Self::with_text(number, text())) }
    }

    pub(crate) fn of_code(code: RDKafkaErrorCode) -> Self {
        Self::new(code, code.to_string())
    }

    /// The failure that a code stands for, one that librdkafka does not know included.
    pub(crate) fn of_number(number: i32) -> Self {
        match codes::known(number) {
            Some(code) => Self::of_code(code),
            None => Self::unknown(number, String::new()),
        }
    }

    /// As [`Failure::of_number`], with what librdkafka says about it.
    pub(crate) fn with_text(number: i32, text: String) -> Self {
        match codes::known(number) {
            Some(code) if text.is_empty() => Self::of_code(code),
            Some(code) => Self::new(code, text),
            None => Self::unknown(number, text),
        }
    }

    /// The failure of a code that librdkafka does not know: it passes, as far as is known here.
    fn unknown(number: i32, text: String) -> Self {
        let name = codes::name(number).map(|name| format!(" ({name})")).unwrap_or_default();
        // librdkafka's own words for such a code say no more than its number.
        let text = if text.is_empty() || text.contains("Err-") { String::new() } else { format!(": {text}") };
        let reason = format!("the broker answered with error code {number}{name}, which this client does not know{text}");
        Self { requires_abort: number == codes::TRANSACTION_ABORTABLE, ..Self::new(RDKafkaErrorCode::Unknown, reason) }
    }

    /// Why a client is of no use any more, if so. It comes before what followed from it.
    pub(crate) fn fatal<C: ClientContext>(client: &Client<C>) -> Option<Self> {
        let mut buffer = [0; 512];
        // SAFETY: the client lives for the call, which writes a text that ends with a zero byte where there is an error.
        let (number, reason) = unsafe {
            let number = codes::rd_kafka_fatal_error(client.native_ptr(), buffer.as_mut_ptr(), buffer.len());
            (number, text(buffer.as_ptr()))
        };
        (number != codes::NO_ERROR).then(|| Self { fatal: true, ..Self::with_text(number, reason) })
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
        unsafe {
            let number = codes::rd_kafka_error_code(error);
            // An error object of "no error" means that there is none.
            if number == codes::NO_ERROR {
                return Ok(());
            }
            let failure = Self::with_text(number, text(sys::rd_kafka_error_string(error)));
            Err(Self {
                fatal: sys::rd_kafka_error_is_fatal(error) != 0,
                retriable: sys::rd_kafka_error_is_retriable(error) != 0,
                requires_abort: failure.requires_abort || sys::rd_kafka_error_txn_requires_abort(error) != 0,
                ..failure
            })
        }
    }
}

impl From<KafkaError> for Failure {
    fn from(error: KafkaError) -> Self {
        match &error {
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
