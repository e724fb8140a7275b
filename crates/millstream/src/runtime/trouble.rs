//! What an error asks for, of one task: the others go on.

use super::transactor::is_undecided;
use crate::broker::{BrokerError, ErrorKind};
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
