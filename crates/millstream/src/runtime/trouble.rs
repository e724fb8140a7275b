//! What an error asks for, of one task: the others go on.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};

use super::transactor::is_undecided;
use crate::broker::{BrokerError, ErrorKind};
use crate::record::Timestamp;
use crate::store::StoreErrorKind;
use crate::task::TaskError;

/// What is to be done about a task that could not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// The same may succeed after a while.
    Wait,
    /// It looks up again what is committed, and goes on from there.
    StartAgain,
    /// The same, with a store that is built anew.
    Rebuild,
    /// An operator has to look.
    Quarantine,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wait => "cannot go on for now",
            Self::StartAgain => "looks up again what is committed",
            Self::Rebuild => "has a damaged store, which is rebuilt from its changelog",
            Self::Quarantine => "is quarantined: it reads nothing more until it is told to try again; the others go on",
        })
    }
}

/// How long what goes on is not said again in the log, in milliseconds.
const QUIET_MS: i64 = 60_000;

/// What was said last in the log of what is out of order, so that it is not said many times a second.
#[derive(Debug, Default)]
pub(super) struct Complaint {
    said: String,
    at: Timestamp,
    held_back: u64,
}

impl Complaint {
    /// Whether this is to be said now, and how often it was not since it was said last. Numbers in it make no difference.
    pub(super) fn is_to_be_said(&mut self, reason: &str, now: Timestamp) -> Option<u64> {
        let reason = reason.replace(|letter: char| letter.is_ascii_digit(), "");
        if self.said == reason && (0..QUIET_MS).contains(&(now.0 - self.at.0)) {
            self.held_back += 1;
            return None;
        }
        let held_back = if self.said == reason { self.held_back } else { 0 };
        *self = Self { said: reason, at: now, held_back: 0 };
        Some(held_back)
    }
}

/// Does a task's work. A panic in it, of a function that the topology was given most likely, is an error of that task: it would come
/// again wherever the task goes.
pub(super) fn caught<T>(work: impl FnOnce() -> Result<T, TaskError>) -> Result<T, TaskError> {
    // A task that has panicked is quarantined: what it was at is not used again.
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(TaskError::Stop(format!("the task has panicked: {}", text.unwrap_or("no message"))))
    })
}

impl Remedy {
    /// The remedy for an error.
    ///
    /// # Errors
    /// The error itself where it concerns more than the task.
    pub(super) fn of(error: &TaskError) -> Result<Self, TaskError> {
        Ok(match error {
            TaskError::Halt(_) => return Err(error.clone()),
            TaskError::Stop(_) => Self::Quarantine,
            TaskError::Store(store) => match store.kind() {
                StoreErrorKind::Stop => Self::Quarantine,
                StoreErrorKind::Corrupt => Self::Rebuild,
                StoreErrorKind::Retry => Self::Wait,
            },
            error if is_undecided(error) => Self::StartAgain,
            TaskError::Broker(broker) => match broker.kind() {
                ErrorKind::Stop => Self::Quarantine,
                ErrorKind::OffsetOutOfRange => Self::StartAgain,
                _ if broker.partition().is_some() => Self::StartAgain,
                _ => Self::Wait,
            },
        })
    }
}

/// The error of the broker, if it is one.
pub(super) fn broker_error(error: &TaskError) -> Option<&BrokerError> {
    match error {
        TaskError::Broker(error) => Some(error),
        TaskError::Store(_) | TaskError::Stop(_) | TaskError::Halt(_) => None,
    }
}
