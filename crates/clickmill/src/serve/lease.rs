//! Whether this instance may still call itself the owner of what it holds.
//!
//! Its group may take it for dead without its knowing, and others count on: where it stood still, or its coordinator cannot be reached. So an owner answers
//! as one only within a moment of
//! - having asked the group, which took it for a member; or
//! - every other member having said that it knows no later generation: where the coordinator is away, nobody takes over from anybody.
//!
//! A group of one has nobody who could take over. It answers on, but where it stood still itself: the group has to take it for a member first.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use millstream::clock::BootTime;
use millstream::query::ReadLease;
use millstream::runtime::Registry;
use millstream_kafka::boot_time;

use crate::peers::Words;

/// How long what was heard of the group is good for. A heartbeat and a status come more often.
const TERM: Duration = Duration::from_millis(500);

/// How often it is noted that this process runs.
const TICK_INTERVAL: Duration = Duration::from_millis(100);

/// The right of this instance to answer as an owner.
pub(super) struct GroupLease {
    registry: Registry,
    me: Arc<str>,
    /// Heard from the moment on that the service listens.
    words: OnceLock<Words>,
    /// When this process was last seen to run, and when it ran again after it had stood still, in milliseconds of [`BootTime`].
    ran_at: AtomicU64,
    resumed_at: AtomicU64,
}

impl GroupLease {
    pub(super) fn new(registry: Registry, me: &str) -> Self {
        let now = boot_time().as_millis();
        let (ran_at, resumed_at) = (AtomicU64::new(now), AtomicU64::new(0));
        Self { registry, me: me.into(), words: OnceLock::new(), ran_at, resumed_at }
    }

    /// Listens to the others from now on.
    pub(super) fn listen(&self, words: Words) {
        // Said once.
        let _ = self.words.set(words);
    }

    /// Notes for ever that this process runs.
    pub(super) async fn keep_ticking(self: Arc<Self>) {
        loop {
            self.tick(boot_time());
            tokio::time::sleep(TICK_INTERVAL).await;
        }
    }

    fn tick(&self, now: BootTime) {
        let before = self.ran_at.swap(now.as_millis(), Ordering::AcqRel);
        if now.as_millis().saturating_sub(before) > TERM.as_millis() as u64 {
            self.resumed_at.store(now.as_millis(), Ordering::Release);
        }
    }

    /// Whether this process has not stood still since.
    fn has_run_since(&self, since: BootTime) -> bool {
        let ran_at = BootTime::of_millis(self.ran_at.load(Ordering::Acquire));
        boot_time().since(ran_at) <= TERM && BootTime::of_millis(self.resumed_at.load(Ordering::Acquire)) <= since
    }

    fn is_agreed(&self, generation: i32, instance: &str) -> bool {
        let last = self.words.get().and_then(|words| words.last(instance));
        last.is_some_and(|(said_at, known)| boot_time().since(said_at) <= TERM && known <= generation)
    }
}

impl ReadLease for GroupLease {
    fn may_answer_as_active(&self) -> bool {
        let Some(confirmation) = self.registry.confirmation() else { return true };
        let confirmed_at = confirmation.at();
        if confirmed_at.is_some_and(|at| boot_time().since(at) <= TERM) {
            return true;
        }
        let directory = self.registry.directory();
        let mut others = directory.instances.keys().filter(|instance| **instance != self.me).peekable();
        match others.peek() {
            None => confirmed_at.is_some_and(|at| self.has_run_since(at)),
            Some(_) => others.all(|instance| self.is_agreed(directory.generation, instance)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_stood_still_asks_its_group_first() {
        let lease = GroupLease::new(Registry::new(), "i1");
        let now = boot_time();
        assert!(lease.has_run_since(now));
        lease.tick(now + Duration::from_millis(100));
        assert!(lease.has_run_since(now));
        lease.tick(now + Duration::from_secs(3));
        assert!(!lease.has_run_since(now));
        assert!(lease.has_run_since(now + Duration::from_secs(4)));
    }
}
