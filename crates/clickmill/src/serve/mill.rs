//! The HTTP API's view of the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use millstream::query::CountQueries;
use millstream::record::Timestamp;
use millstream::runtime;
use millstream::task::Role;

use super::click_log::ClickLog;
use super::engine::Engine;
use crate::http::{
    AppendError, Appended, ClicksTopic, Cluster, Idempotency, IncomingClick, Instance, Mill, Quarantined, Readiness,
    RestoreProgress, TaskStatus,
};

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

    fn task_status(&self, task: runtime::TaskStatus) -> TaskStatus {
        let lag = self.engine.counts.records_behind(task.input(), task.committed);
        let position = task.committed.map(|offset| offset.0);
        let trouble = task.trouble.clone().or_else(|| self.engine.counts.trouble(task.input()));
        TaskStatus {
            task: task.id.to_string(),
            state: task.state.to_string(),
            topic: task.input().topic.to_string(),
            partition: task.input().partition.0,
            position,
            lag,
            restore: task.restore.map(|restore| RestoreProgress {
                start: restore.from.0,
                position: restore.position.0,
                end: restore.end.0,
                records_per_second: restore.records_per_second(),
                seconds_left: restore.time_left().map(|left| left.as_secs()),
            }),
            trouble,
        }
    }

    fn tasks(&self, role: Role) -> Vec<TaskStatus> {
        let tasks = self.engine.registry.tasks().into_iter().filter(|task| task.role == role);
        tasks.map(|task| self.task_status(task)).collect()
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
        Readiness { ready: self.engine.is_ready(), tasks: self.tasks(Role::Active), intake_trouble: self.intake_trouble() }
    }

    fn intake_trouble(&self) -> Option<String> {
        self.engine.log.trouble()
    }

    fn cluster(&self) -> Cluster {
        let instance = Instance {
            id: self.engine.instance_id.clone(),
            endpoint: self.endpoint.clone(),
            active_tasks: self.tasks(Role::Active),
            standby_tasks: self.tasks(Role::Standby),
        };
        let quarantined = |task: runtime::TaskStatus| {
            let reason = task.trouble.unwrap_or_default();
            Some(Quarantined { task: task.id.to_string(), reason, since: task.quarantined_since? })
        };
        Cluster {
            application_id: self.engine.config.engine.application_id.clone(),
            instances: vec![instance],
            quarantined: self.engine.registry.tasks().into_iter().filter_map(quarantined).collect(),
        }
    }

    fn retry_task(&self, task: &str) -> bool {
        let registry = &self.engine.registry;
        registry.tasks().iter().find(|known| known.id.to_string() == task).is_some_and(|known| registry.retry(known.id))
    }
}
