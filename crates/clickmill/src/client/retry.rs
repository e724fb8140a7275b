//! Sending again while the service is away or cannot keep up.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::{ClicksAnswer, Client, ClientError};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long to go on trying after a request first failed.
#[derive(Debug, Clone, Copy)]
pub struct Patience(pub Duration);

/// The attempts at one thing: the first pause is 100 ms, and they grow.
#[derive(Debug)]
pub struct Attempts {
    patience: Patience,
    pause: Duration,
    first_failure: Option<Instant>,
}

impl Attempts {
    /// None has failed yet.
    pub fn new(patience: Patience) -> Self {
        Self { patience, pause: FIRST_PAUSE, first_failure: None }
    }

    /// Notes a failure. False where the patience is at its end.
    pub fn may_go_on(&mut self) -> bool {
        self.first_failure.get_or_insert_with(Instant::now).elapsed() < self.patience.0
    }

    /// Waits before the next attempt, as long as the service has asked for where it has.
    pub fn pause(&mut self, asked: Option<Duration>) {
        sleep(asked.unwrap_or(self.pause).max(FIRST_PAUSE));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

impl Client {
    /// Sends clicks until they are answered: after a failure that may pass, again with the same key, first after 100 ms, then
    /// in growing pauses or when the service says. Without a key only after a failure that has certainly stored nothing.
    /// `waiting` hears of every failure that is to be waited out, and may break that off.
    ///
    /// # Errors
    /// A failure that will not pass, or the last one when the patience is at its end or `waiting` breaks off. Without a key
    /// also one that may have stored clicks.
    pub fn post_clicks_patiently(
        &self,
        lines: &[u8],
        idempotency_key: Option<&str>,
        patience: Patience,
        waiting: &mut dyn FnMut(&ClientError) -> ControlFlow<()>,
    ) -> Result<ClicksAnswer, ClientError> {
        let mut attempts = Attempts::new(patience);
        loop {
            let error = match self.post_clicks(lines, idempotency_key) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let could_repeat = idempotency_key.is_none() && error.may_have_stored();
            if could_repeat || !error.is_transient() || !attempts.may_go_on() || waiting(&error).is_break() {
                return Err(error);
            }
            attempts.pause(error.retry_after());
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "nothing tells a client that a service is back; it has to ask again")]
fn sleep(pause: Duration) {
    std::thread::sleep(pause);
}
