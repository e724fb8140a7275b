//! The service: everything that `clickmill serve` runs.

use crate::config::Config;

/// Runs the service until it is told to stop.
///
/// # Errors
/// What kept it from starting, or from going on.
pub fn run(_config: Config) -> anyhow::Result<()> {
    anyhow::bail!("the engine is not wired into this build yet")
}
