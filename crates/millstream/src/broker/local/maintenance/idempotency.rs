//! Idempotency keys expire.

use std::ops::ControlFlow;
use std::time::Duration;

use super::super::super::BrokerError;
use super::super::storage::{LogStorage, LogWrite};
use super::super::{Shared, entries, lock};
use crate::record::Timestamp;

/// How long an idempotency key is kept at least.
pub const IDEMPOTENCY_KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// How many keys one piece of work removes.
const KEYS_AT_ONCE: usize = 1000;

impl<S: LogStorage> Shared<S> {
    /// Removes some keys that are old enough. Whether there may be more of them.
    pub(super) fn expire_keys(&self) -> Result<bool, BrokerError> {
        let mut writer = lock(&self.writer);
        let before = Timestamp(self.clock.now().0.saturating_sub(IDEMPOTENCY_KEPT_FOR.as_millis() as i64));
        let (from, _) = entries::family(b'x');
        let mut write = LogWrite::default();
        let mut removed = 0;
        self.storage.entries(&from, &entries::expiry_key(before, &[]), &mut |expiry, _| {
            if let Some(key) = entries::decode_expiry(expiry) {
                write.remove_entry(entries::idempotency_key(key));
            }
            write.remove_entry(expiry.to_vec());
            removed += 1;
            if removed < KEYS_AT_ONCE { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if removed > 0 {
            // Expired keys may as well be gone: a failed write needs no undoing.
            writer.write(&self.storage, write, LogWrite::default())?;
        }
        Ok(removed == KEYS_AT_ONCE)
    }
}
