//! The HTTP API's view of the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millstream::broker::local::{Appended as Stored, Unit};
use millstream::broker::{Broker, BrokerError, ErrorKind, Isolation};
use millstream::query::CountQueries;
use millstream::record::{Record, Timestamp, Topic, TopicPartition};
use millstream::runtime;

use super::engine::Engine;
use crate::http::{
    AppendError, Appended, Cluster, Idempotency, IncomingClick, Instance, Mill, Readiness, RestoreProgress, TaskStatus,
};

/// An engine that takes clicks in until it is told to stop.
pub(super) struct EngineMill {
    engine: Arc<Engine>,
    topic: Topic,
    endpoint: String,
    is_closed: AtomicBool,
}

impl EngineMill {
    pub(super) fn new(engine: Arc<Engine>, endpoint: String) -> Self {
        let topic = engine.config.clicks.topic.as_str().into();
        Self { engine, topic, endpoint, is_closed: AtomicBool::new(false) }
    }

    /// Takes nothing more in.
    pub(super) fn close_intake(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    fn task_status(&self, task: runtime::TaskStatus) -> TaskStatus {
        let end = self.engine.broker.log_range(&task.input, Isolation::ReadCommitted).map(|log| log.end.0);
        let position = task.committed.map(|offset| offset.0);
        TaskStatus {
            task: task.id.to_string(),
            state: task.state.to_string(),
            topic: task.input.topic.to_string(),
            partition: task.input.partition.0,
            position,
            lag: end.map_or(0, |end| (end - position.unwrap_or(0)).max(0) as u64),
            restore: task.restore.map(|restore| RestoreProgress {
                start: restore.from.0,
                position: restore.position.0,
                end: restore.end.0,
            }),
            trouble: task.trouble,
        }
    }

    fn tasks(&self) -> Vec<TaskStatus> {
        self.engine.registry.tasks().into_iter().map(|task| self.task_status(task)).collect()
    }
}

impl Mill for EngineMill {
    fn now(&self) -> Timestamp {
        self.engine.clock.now()
    }

    fn clicks_partitions(&self) -> u32 {
        self.engine.clicks_partitions
    }

    fn append(
        &self,
        clicks: &[IncomingClick<'_>],
        arrived: Timestamp,
        idempotency: Option<Idempotency<'_>>,
    ) -> Result<Appended, AppendError> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(AppendError::ShuttingDown);
        }
        let mut unit = Unit::new();
        for click in clicks {
            let to = TopicPartition::new(self.topic.clone(), click.partition);
            unit.add(&to, &Record::new(Some(click.ad_id.as_bytes()), Some(click.value), arrived));
        }
        if let Some(Idempotency { key, answer }) = idempotency {
            unit.set_idempotency_key(key, answer);
        }
        match self.engine.broker.append(unit) {
            Ok(Stored::Stored(_)) => Ok(Appended::Now),
            Ok(Stored::AlreadyStored(answer)) => Ok(Appended::Before(answer)),
            Err(error) => Err(append_error(&error)),
        }
    }

    fn stored_answer(&self, key: &[u8]) -> Result<Option<Vec<u8>>, AppendError> {
        self.engine.broker.stored_result(key).map_err(|error| append_error(&error))
    }

    fn queries(&self) -> &dyn CountQueries {
        &self.engine.counts
    }

    fn readiness(&self) -> Readiness {
        Readiness { ready: self.engine.registry.is_running(self.engine.task_count()), tasks: self.tasks() }
    }

    fn cluster(&self) -> Cluster {
        let instance = Instance {
            id: self.engine.instance_id.clone(),
            endpoint: self.endpoint.clone(),
            active_tasks: self.tasks(),
            standby_tasks: Vec::new(),
        };
        Cluster { application_id: self.engine.config.engine.application_id.clone(), instances: vec![instance] }
    }
}

fn append_error(error: &BrokerError) -> AppendError {
    let reason = error.to_string();
    match error.kind() {
        ErrorKind::Retry => AppendError::Unavailable(reason),
        ErrorKind::OutcomeUnknown => AppendError::OutcomeUnknown(reason),
        ErrorKind::AbortTransaction | ErrorKind::Fenced | ErrorKind::OffsetOutOfRange | ErrorKind::Stop => {
            AppendError::Failed(reason)
        }
    }
}
