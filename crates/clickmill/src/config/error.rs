//! Why a configuration is refused.

use std::path::PathBuf;

use super::settings::Origin;

/// A configuration that cannot be used. Its message is one line that names the key, the reason and the way out.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The configuration file is not TOML.
    #[error("{origin}: not TOML: {message}")]
    Syntax {
        /// File and line.
        origin: Origin,
        /// What the parser says.
        message: String,
    },
    /// There is no option of that name.
    #[error("{origin}: unknown key {key}; {known}")]
    UnknownKey {
        /// The key as it was written.
        key: String,
        /// Where it was written.
        origin: Origin,
        /// The names that exist instead.
        known: String,
    },
    /// A value that its option cannot take.
    #[error("{origin}: {key} = {value}: {reason}")]
    Invalid {
        /// The option.
        key: String,
        /// The value as it was written.
        value: String,
        /// Where it was written.
        origin: Origin,
        /// What is accepted.
        reason: String,
    },
    /// Values that do not go together.
    #[error("{key} = {value} ({origin}): {reason}")]
    Conflict {
        /// The option at fault.
        key: String,
        /// Its value.
        value: String,
        /// Where it was set.
        origin: Origin,
        /// What it clashes with and the way out.
        reason: String,
    },
}
