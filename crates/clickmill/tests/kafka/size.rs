//! How much is done, as the environment says.

use std::str::FromStr;

/// Whether everything is to be run in full.
fn is_full() -> bool {
    std::env::var("EXACTLY_ONCE").is_ok_and(|size| size == "full")
}

/// The one for `cargo test`, or the one for a full run.
pub(crate) fn short_or_full<T>(short: T, full: T) -> T {
    if is_full() { full } else { short }
}

/// So many clicks, or as many as the environment says.
pub(crate) fn clicks(short: u64, full: u64) -> u64 {
    setting("EXACTLY_ONCE_CLICKS").unwrap_or_else(|| short_or_full(short, full))
}

/// Decides everything that is random.
pub(crate) fn seed() -> u64 {
    setting("EXACTLY_ONCE_SEED").unwrap_or(1)
}

/// What the environment says, if it does.
pub(crate) fn setting<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} cannot be read")))
}
