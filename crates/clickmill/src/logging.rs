//! Log lines on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{LogConfig, LogFormat};

/// Sends the log of this process to standard error from here on.
///
/// # Errors
/// The process has a log already.
pub fn init(config: &LogConfig) -> Result<(), TryInitError> {
    let lines = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(&config.level)).with_writer(io::stderr);
    match config.format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).finish().try_init(),
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init(),
    }
}
