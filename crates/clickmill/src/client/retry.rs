//! Sending again while the service is away or cannot keep up.

use std::time::{Duration, Instant};

use super::{ClicksAnswer, Client, ClientError};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long to go on trying after a request first failed.
#[derive(Debug, Clone, Copy)]
pub struct Patience(pub Duration);

impl Client {
    /// Sends clicks until they are answered: after a failure that may pass, again with the same key, first after 100 ms, then
    /// in growing pauses or when the service says. `waiting` hears of every failure that is waited out.
    ///
    /// # Errors
    /// A failure that will not pass, or the last one when the patience is at its end.
    pub fn post_clicks_patiently(
        &self,
        lines: &[u8],
        idempotency_key: &str,
        patience: Patience,
        waiting: &mut dyn FnMut(&ClientError),
    ) -> Result<ClicksAnswer, ClientError> {
        let mut pause = FIRST_PAUSE;
        let mut first_failure = None;
        loop {
            let error = match self.post_clicks(lines, idempotency_key) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let failing_for = first_failure.get_or_insert_with(Instant::now).elapsed();
            if !error.is_transient() || failing_for >= patience.0 {
                return Err(error);
            }
            waiting(&error);
            let asked = if let ClientError::Refused { retry_after, .. } = &error { *retry_after } else { None };
            wait(asked.unwrap_or(pause).max(FIRST_PAUSE));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "nothing tells a client that a service is back; it has to ask again")]
fn wait(pause: Duration) {
    std::thread::sleep(pause);
}
