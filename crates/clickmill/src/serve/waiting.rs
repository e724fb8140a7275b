//! A start that takes long says what it waits for, soon and then again and again.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millstream::task::TaskState;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::click_log::ClickLog;
use super::engine::Engine;

/// When it is said first. A usual start is over by then.
const FIRST: Duration = Duration::from_secs(3);

/// How often it is said again.
const AGAIN: Duration = Duration::from_secs(10);

/// The step that opening is at. Clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Opening(Arc<Mutex<String>>);

impl Opening {
    /// From now on it waits for this: "for …".
    pub(super) fn waits_for(&self, what: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what.into();
    }

    /// Says again and again what opening waits for.
    pub(super) async fn tell<Never>(&self) -> Never {
        let now = || async { Some(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()) };
        tell_while(now).await;
        std::future::pending().await
    }
}

/// Says again and again what the engine waits for, until it is ready.
pub(super) async fn tell_until_ready<L: ClickLog>(engine: Arc<Engine<L>>) {
    let now = || {
        let engine = engine.clone();
        // Brokers are asked.
        async { tokio::task::spawn_blocking(move || waits_for(&engine)).await.unwrap_or_default() }
    };
    tell_while(now).await;
}

/// What an instance waits for before it is ready; none once it is.
fn waits_for<L: ClickLog>(engine: &Engine<L>) -> Option<String> {
    if engine.is_ready() {
        return None;
    }
    let tasks = engine.registry.tasks();
    let waiting: Vec<_> =
        tasks.iter().filter(|task| !matches!(task.state, TaskState::Running | TaskState::Quarantined)).collect();
    let Some(first) = waiting.first() else {
        return Some(engine.log.waits_for_group(&engine.config));
    };
    let trouble = first.trouble.as_ref().map_or(String::new(), |trouble| format!(": {trouble}"));
    let of_all = format!("{} of {} tasks to run", waiting.len(), tasks.len());
    Some(format!("{of_all}, the first of which ({}, which reads {}) is {}{trouble}", first.id, first.input(), first.state))
}

/// Says what is waited for until that is nothing.
async fn tell_while<F: Future<Output = Option<String>>>(waits_for: impl Fn() -> F) {
    let began = Instant::now();
    let mut ticks = interval_at(began + FIRST, AGAIN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(what) = waits_for().await else { return };
        tracing::info!(seconds = began.elapsed().as_secs(), "not ready yet: waits for {what}");
    }
}
