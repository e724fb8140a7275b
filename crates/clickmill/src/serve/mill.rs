//! The HTTP API's view of the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use millstream::broker::group::Directory;
use millstream::query::{CountQueries, InstanceStatus};
use millstream::record::Timestamp;
use millstream::task::Role;

use super::click_log::ClickLog;
use super::engine::Engine;
use crate::http::{AppendError, Appended, Application, ClicksTopic, Idempotency, IncomingClick, Mill, Readiness};

/// An engine that takes clicks in until it is told to stop.
pub(super) struct EngineMill<L: ClickLog> {
    engine: Arc<Engine<L>>,
    endpoint: String,
    is_closed: AtomicBool,
}

impl<L: ClickLog> EngineMill<L> {
    pub(super) fn new(engine: Arc<Engine<L>>, endpoint: String) -> Self {
        Self { engine, endpoint, is_closed: AtomicBool::new(false) }
    }

    /// Takes nothing more in.
    pub(super) fn close_intake(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }
}

impl<L: ClickLog> Mill for EngineMill<L> {
    fn now(&self) -> Timestamp {
        self.engine.clock.now()
    }

    fn clicks_topic(&self) -> ClicksTopic {
        self.engine.clicks_topic()
    }

    fn append(
        &self,
        clicks: &[IncomingClick<'_>],
        arrived: Timestamp,
        deadline: Instant,
        idempotency: Option<Idempotency<'_>>,
    ) -> Result<Appended, AppendError> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(AppendError::ShuttingDown);
        }
        self.engine.log.append(&self.engine.config.clicks.topic, clicks, arrived, deadline, idempotency)
    }

    fn stored_answer(&self, key: &[u8]) -> Result<Option<Vec<u8>>, AppendError> {
        self.engine.log.stored_answer(key)
    }

    fn queries(&self) -> &dyn CountQueries {
        &self.engine.counts
    }

    fn readiness(&self) -> Readiness {
        let active = self.engine.counts.task_reports().into_iter().filter(|task| task.role == Role::Active);
        Readiness {
            ready: self.engine.is_ready(),
            tasks: active.map(Into::into).collect(),
            intake_trouble: self.intake_trouble(),
            cluster_trouble: None,
        }
    }

    fn intake_trouble(&self) -> Option<String> {
        self.engine.log.trouble()
    }

    fn application(&self) -> Application {
        Application {
            id: self.engine.config.engine.application_id.clone(),
            endpoint: self.endpoint.clone(),
            store_input: self.engine.counts.input_topic(),
            tasks: self.engine.all_tasks(),
        }
    }

    fn directory(&self) -> Arc<Directory> {
        self.engine.registry.directory()
    }

    fn status(&self) -> InstanceStatus {
        InstanceStatus {
            instance: self.engine.instance_id.as_str().into(),
            incarnation: self.engine.incarnation(),
            generation: self.engine.registry.directory().generation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            tasks: self.engine.counts.task_reports(),
        }
    }

    fn retry_task(&self, task: &str) -> bool {
        let registry = &self.engine.registry;
        registry.tasks().iter().find(|known| known.id.to_string() == task).is_some_and(|known| registry.retry(known.id))
    }
}
