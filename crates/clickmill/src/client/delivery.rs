//! Bringing clicks to a service that keeps idempotency keys, or keeps none.

use std::ops::ControlFlow;

use super::{Attempts, ClicksAnswer, Client, ClientError, Patience};

/// The way of clicks to a service. Whether the service keeps idempotency keys is found out by the first request with one.
#[derive(Debug)]
pub struct Delivery {
    client: Client,
    patience: Patience,
    without_keys: bool,
}

/// What is known of clicks that were sent without a key.
#[derive(Debug)]
pub enum Outcome {
    /// What became of each of them.
    Known(ClicksAnswer),
    /// Some or all of them may be stored.
    Unknown {
        /// What became of each, where the service still said so: those that it calls unknown may be stored.
        told: Option<ClicksAnswer>,
        /// What went wrong.
        error: ClientError,
    },
}

impl Delivery {
    /// To that service. Nothing is sent yet.
    pub fn new(client: Client, patience: Patience) -> Self {
        Self { client, patience, without_keys: false }
    }

    /// The attempts at something that is sent on this way.
    pub fn attempts(&self) -> Attempts {
        Attempts::new(self.patience)
    }

    /// Whether the service is known to keep no keys.
    pub fn is_without_keys(&self) -> bool {
        self.without_keys
    }

    /// Sends clicks under a key, which never adds anything twice. None where the service keeps no keys: nothing was stored then.
    ///
    /// # Errors
    /// As [`Client::post_clicks_patiently`].
    pub fn send_under(
        &mut self,
        key: &str,
        lines: &[u8],
        waiting: &mut dyn FnMut(&ClientError) -> ControlFlow<()>,
    ) -> Result<Option<ClicksAnswer>, ClientError> {
        match self.client.post_clicks_patiently(lines, Some(key), self.patience, waiting) {
            Err(error) if error.keeps_no_keys() => {
                self.without_keys = true;
                Ok(None)
            }
            answer => answer.map(Some),
        }
    }

    /// Sends clicks without a key, and not again once they may be stored.
    ///
    /// # Errors
    /// As [`Client::post_clicks_patiently`]; of none of the clicks is anything stored then.
    pub fn send_once(
        &self,
        lines: &[u8],
        waiting: &mut dyn FnMut(&ClientError) -> ControlFlow<()>,
    ) -> Result<Outcome, ClientError> {
        match self.client.post_clicks_patiently(lines, None, self.patience, waiting) {
            Ok(answer) => Ok(Outcome::Known(answer)),
            Err(error) if error.may_have_stored() => Ok(Outcome::Unknown { told: error.told().cloned(), error }),
            Err(error) => Err(error),
        }
    }
}
