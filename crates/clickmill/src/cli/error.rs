//! Why a command ends without success.

use std::io;

use crate::client::ClientError;
use crate::config::ConfigError;
use crate::load::LoadError;
use crate::serve::Misconfigured;

#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    /// Arguments that do not go together, or with what is kept.
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Standard output or an output file takes nothing more.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    #[error("{0:#}")]
    Other(anyhow::Error),
}

/// A configuration that does not fit what is there is a matter of usage.
impl From<anyhow::Error> for CommandError {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Misconfigured>() {
            Ok(misconfigured) => CommandError::Usage(misconfigured.to_string()),
            Err(other) => CommandError::Other(other),
        }
    }
}

impl CommandError {
    /// Whether nothing was started because of what the user wrote.
    pub(super) fn is_usage(&self) -> bool {
        match self {
            CommandError::Usage(_) | CommandError::Config(_) => true,
            CommandError::Client(error) => matches!(error, ClientError::Url { .. } | ClientError::WrongQuestion { .. }),
            _ => false,
        }
    }
}
