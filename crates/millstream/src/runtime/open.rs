//! From an assigned partition to a running task.

use std::time::Duration;

use super::StreamsConfig;
use super::doubt::check_commit_lasts;
use super::join::Joining;
use super::plan::{Kept, Kind, Plan};
use super::registry::StoreEntry;
use super::restore::{Restoration, RestoreFrom, gap};
use super::thread::StreamThread;
use crate::broker::{Broker, BrokerError, CommittedOffset, Consumer, ErrorKind, Isolation};
use crate::record::TopicPartition;
use crate::store::{FORMAT, StoreIdentity};
use crate::task::aggregate::{AggregatePosition, AggregateTask};
use crate::task::aggregate_state::{AggregateState, Output};
use crate::task::closing::Closing;
use crate::task::fused::FusedTask;
use crate::task::metadata::OffsetMetadata;
use crate::task::ranking::Ranking;
use crate::task::source::{SourcePosition, SourceTask};
use crate::task::sources::Sources;
use crate::task::stateless::StatelessTask;
use crate::task::stream_task::{CommittedTime, StreamTask};
use crate::task::{SideOutput, TaskError, TaskState};
use crate::topology::WindowedSpec;

/// How long a step of a restore waits for the broker at most.
const RESTORE_WAIT: Duration = Duration::from_millis(20);

/// What stands between a task and its next record.
pub(super) enum Phase<B: Broker> {
    /// Its position is to be looked up.
    Opening,
    /// Its store is behind its changelog. The position was read before the changelog's end.
    Restoring(Box<Restoration<B>>, Option<CommittedOffset>),
    /// Its aggregate tasks have to know of it.
    Joining(Joining),
    /// Nothing.
    Running(Box<dyn StreamTask>),
}

impl Plan {
    /// The aggregate that the task of this partition keeps, if it keeps one.
    pub(super) fn kept(&self, input: &TopicPartition) -> Option<&Kept> {
        match &self.task(input)?.1.kind {
            Kind::Aggregate { kept, .. } | Kind::Fused { kept } => Some(kept),
            Kind::Source { .. } | Kind::Stateless { .. } => None,
        }
    }
}

impl<B: Broker> StreamThread<B> {
    /// Brings each task that does not run yet one step nearer to it. Says whether any has moved.
    pub(super) fn advance_tasks(&mut self, max_wait: Duration) -> Result<bool, TaskError> {
        let now = self.clock.now();
        let waiting = self.slots.iter().filter(|(_, slot)| !matches!(slot.phase, Phase::Running(_)) && slot.may_start(now));
        let inputs: Vec<_> = waiting.map(|(input, _)| input.clone()).filter(|input| !self.is_left_alone(input)).collect();
        let mut advanced = false;
        for input in inputs {
            let began = self.clock.now();
            match self.advance_task(&input, max_wait) {
                Ok(moved) => advanced |= moved,
                Err(error) => {
                    // A broker that does not answer has kept the thread's other tasks waiting: now they have as long.
                    let now = self.clock.now();
                    if let Some(slot) = self.slots.get_mut(&input) {
                        slot.waits = Some((now, now.0 - began.0));
                    }
                    self.recover(Some(&input), error).map_err(|error| TaskError::Stop(error.to_string()))?;
                }
            }
        }
        Ok(advanced)
    }

    fn advance_task(&mut self, input: &TopicPartition, max_wait: Duration) -> Result<bool, TaskError> {
        let Some(slot) = self.slots.get_mut(input) else { return Ok(false) };
        match &mut slot.phase {
            Phase::Running(_) => Ok(false),
            Phase::Opening => {
                if slot.state != TaskState::Restoring {
                    slot.go(TaskState::Restoring, &self.registry)?;
                }
                self.open(input, max_wait)?;
                Ok(true)
            }
            Phase::Restoring(restoration, _) => {
                if !restoration.is_complete() {
                    if let Err(error) = restoration.advance(max_wait.min(RESTORE_WAIT), &*self.clock) {
                        // What was read and not applied is to be read again, from where the store and the changelog are now.
                        self.set_phase(input, Phase::Opening);
                        let is_cut = |e: &TaskError| matches!(e, TaskError::Broker(e) if e.kind() == ErrorKind::OffsetOutOfRange);
                        return if is_cut(&error) { Ok(true) } else { Err(error) };
                    }
                    let progress = restoration.progress();
                    self.registry.update_task(slot.id, |status| status.restore = Some(progress));
                    self.publish_restoring(input);
                    return Ok(true);
                }
                self.start_restored(input)?;
                Ok(true)
            }
            Phase::Joining(_) => self.advance_join(input),
        }
    }

    /// Looks up where the task has got to, and begins whatever has to come before its next record.
    fn open(&mut self, input: &TopicPartition, max_wait: Duration) -> Result<(), TaskError> {
        let Some(plan) = self.plan.clone() else { return Ok(()) };
        let Some((_, subtopology)) = plan.task(input) else { return Ok(()) };
        let group = &self.config.application_id;
        // Before the broker is asked: another thread may commit in between.
        let ours = self.registry.committed(input);
        let committed = self.broker.committed(group, std::slice::from_ref(input))?.pop().flatten();
        if let Some(ours) = ours {
            check_commit_lasts(input, ours, committed.as_ref())?;
        }
        let log = self.broker.log_range(input, Isolation::ReadCommitted)?;
        if let Some(committed) = committed.as_ref().filter(|committed| committed.offset < log.start) {
            return Err(gap(input, committed.offset, log.start).into());
        }
        if let Some(committed) = committed.as_ref().filter(|committed| committed.offset > log.end) {
            // Not for good: a leader that is new may not know its end yet.
            let message = format!(
                "the group's position in {input} is {}, behind the end of its log at {}: if the topic was deleted and made again, reset \
                 the application (clickmill reset)",
                committed.offset, log.end
            );
            return Err(BrokerError::new(ErrorKind::Retry, message).into());
        }
        match &subtopology.kind {
            Kind::Source { spec, .. } => {
                let position = committed.map(|committed| source_position(&committed, spec)).transpose()?;
                match position {
                    Some(position) if position.has_joined() => self.start_source(input, position),
                    position => {
                        self.set_phase(input, Phase::Joining(Joining::new(position, log.start, spec)));
                        Ok(())
                    }
                }
            }
            Kind::Stateless { transform, output_partitions } => {
                let offset = committed.as_ref().map_or(log.start, |committed| committed.offset);
                let metadata = committed.map_or(Ok(OffsetMetadata::default()), |committed| decode_metadata(&committed))?;
                let side = SideOutput::new(plan.side_topics(input));
                let task = StatelessTask::new(transform.clone(), *output_partitions, side, offset, metadata);
                self.run(input, Box::new(task))
            }
            Kind::Aggregate { kept, .. } | Kind::Fused { kept } => {
                if committed.is_none() {
                    self.check_first_start(input, kept, matches!(subtopology.kind, Kind::Aggregate { .. }), max_wait)?;
                }
                self.begin_restore(input, kept, committed)
            }
        }
    }

    fn begin_restore(
        &mut self,
        input: &TopicPartition,
        kept: &Kept,
        committed: Option<CommittedOffset>,
    ) -> Result<(), TaskError> {
        self.forget_store(input);
        if let Some(slot) = self.slots.get_mut(input).filter(|slot| slot.discard_store) {
            self.provider.destroy(&kept.spec.store, input.partition)?;
            slot.discard_store = false;
        }
        let restoration = Restoration::begin(RestoreFrom {
            broker: &*self.broker,
            provider: &*self.provider,
            store_name: &kept.spec.store,
            identity: StoreIdentity {
                format: FORMAT,
                cluster_id: self.broker.cluster_id()?,
                changelog_id: kept.changelog_id.clone(),
                partition: input.partition.0,
                application_id: self.config.application_id.clone(),
                window_size_ms: kept.spec.windows.size_ms(),
                keyed: kept.spec.keyed,
            },
            changelog: TopicPartition::new(kept.changelog.clone(), input.partition),
            grouping: kept.spec.grouping.clone(),
            now: self.clock.now(),
        })?;
        if let Some(ours) = restoration.committed_input() {
            check_commit_lasts(input, ours, committed.as_ref())?;
        }
        self.set_phase(input, Phase::Restoring(Box::new(restoration), committed));
        self.publish_restoring(input);
        Ok(())
    }

    fn publish_restoring(&self, input: &TopicPartition) {
        let Some(kept) = self.plan.as_ref().and_then(|plan| plan.kept(input)) else { return };
        if let Some(Phase::Restoring(restoration, _)) = self.slots.get(input).map(|slot| &slot.phase) {
            let progress = restoration.progress();
            let lag = (progress.end.0 - progress.position.0).max(0) as u64;
            let entry = StoreEntry {
                store: restoration.state_store().clone(),
                restoring: Some(lag),
                position: None,
                // A copy that is behind calls nothing final.
                time: CommittedTime::default(),
            };
            self.registry.put_store(&kept.spec.store, input.partition, entry);
        }
    }

    fn start_restored(&mut self, input: &TopicPartition) -> Result<(), TaskError> {
        let Some(plan) = self.plan.clone() else { return Ok(()) };
        let Some((_, subtopology)) = plan.task(input) else { return Ok(()) };
        let Some(slot) = self.slots.get_mut(input) else { return Ok(()) };
        let Phase::Restoring(restoration, committed) = std::mem::replace(&mut slot.phase, Phase::Opening) else { return Ok(()) };
        let progress = restoration.progress();
        tracing::info!(task = %slot.id, records = progress.records, position = %progress.position, "the store is restored");
        self.registry.count_restored(progress.records);
        let store = restoration.finish();
        let start = self.broker.log_range(input, Isolation::ReadCommitted)?.start;
        let task: Box<dyn StreamTask> = match &subtopology.kind {
            Kind::Aggregate { source, kept } => {
                let mut position = match committed {
                    Some(committed) => AggregatePosition::new(committed.offset, decode_metadata(&committed)?)?,
                    None => AggregatePosition::first(start),
                };
                // Kafka Streams has counted without watermarks: from here on every source is waited for, as at a first start.
                let is_first = position.waits_for_nobody();
                if is_first {
                    position.sources = Sources::first(self.source_partitions(source)?);
                }
                position.metadata = counted_with(position.metadata, &kept.spec);
                let closing = Closing::from_entries(&position.metadata.entries);
                let state = aggregate_state(kept, input, &self.config, store, closing, position.closed_through());
                let windows = kept.spec.windows;
                let partials = kept.spec.grouping.clone().partials();
                Box::new(AggregateTask::new(input.clone(), windows, partials, state, position, is_first))
            }
            Kind::Fused { kept } => {
                let position = match committed {
                    Some(committed) => source_position(&committed, &kept.spec)?,
                    None => SourcePosition { offset: start, metadata: counted_with(OffsetMetadata::default(), &kept.spec) },
                };
                let closing = Closing::from_entries(&position.metadata.entries);
                let state = aggregate_state(kept, input, &self.config, store, closing, position.closed_through());
                let partials = kept.spec.grouping.clone().partials();
                let side = SideOutput::new(plan.side_topics(input));
                Box::new(FusedTask::new(kept.spec.windows, kept.partitions, partials, side, state, position))
            }
            Kind::Source { .. } | Kind::Stateless { .. } => return Ok(()),
        };
        self.run(input, task)
    }

    fn source_partitions(&self, source: &str) -> Result<u32, TaskError> {
        let described = self.broker.describe_topic(source)?;
        Ok(described.ok_or_else(|| crate::broker::BrokerError::unknown_topic(source))?.partitions)
    }

    pub(super) fn start_source(&mut self, input: &TopicPartition, position: SourcePosition) -> Result<(), TaskError> {
        let Some(plan) = self.plan.clone() else { return Ok(()) };
        let Some((_, subtopology)) = plan.task(input) else { return Ok(()) };
        let Kind::Source { repartition, spec } = &subtopology.kind else { return Ok(()) };
        let side = SideOutput::new(plan.side_topics(input));
        let partials = spec.grouping.clone().partials();
        let task = SourceTask::new(input.clone(), repartition.clone(), spec.windows, partials, side, position);
        self.run(input, Box::new(task))
    }

    fn run(&mut self, input: &TopicPartition, task: Box<dyn StreamTask>) -> Result<(), TaskError> {
        let (Some(slot), Some(consumer)) = (self.slots.get_mut(input), &mut self.consumer) else { return Ok(()) };
        consumer.start(input, task.position())?;
        slot.phase = Phase::Running(task);
        slot.last_record_at = self.clock.now();
        slot.go(TaskState::Running, &self.registry)?;
        self.publish_committed(input);
        Ok(())
    }

    /// Makes known that a task's store is behind what the task has committed.
    pub(super) fn publish_suspended(&self, input: &TopicPartition) {
        let Some(Phase::Running(task)) = self.slots.get(input).map(|slot| &slot.phase) else { return };
        if let (Some(kept), Some(store)) = (self.plan.as_ref().and_then(|plan| plan.kept(input)), task.state_store()) {
            let (store, restoring) = (store.clone(), Some(task.unapplied_changes()));
            let entry = StoreEntry { store, restoring, position: None, time: CommittedTime::default() };
            self.registry.put_store(&kept.spec.store, input.partition, entry);
        }
    }

    /// Makes known how far a running task has committed, and that its store is up to date.
    pub(super) fn publish_committed(&self, input: &TopicPartition) {
        let Some(slot) = self.slots.get(input) else { return };
        let Phase::Running(task) = &slot.phase else { return };
        let (time, position) = (task.committed_time(), task.position());
        self.registry.update_task(slot.id, |status| {
            status.committed = Some(position);
            status.stream_time = time.stream_time;
            status.restore = None;
            status.trouble = None;
        });
        if let (Some(kept), Some(store)) = (self.plan.as_ref().and_then(|plan| plan.kept(input)), task.state_store()) {
            let entry = StoreEntry { store: store.clone(), restoring: None, position: Some(position), time };
            self.registry.put_store(&kept.spec.store, input.partition, entry);
        }
    }

    /// Lets every task start again from what is committed.
    pub(super) fn reopen_all_tasks(&mut self) -> Result<(), TaskError> {
        let inputs: Vec<_> = self.slots.keys().cloned().collect();
        inputs.iter().try_for_each(|input| self.reopen(input))
    }

    /// Lets a task start again from what is committed.
    pub(super) fn reopen(&mut self, input: &TopicPartition) -> Result<(), TaskError> {
        if let Some(Err(error)) = self.consumer.as_mut().map(|consumer| consumer.pause(input)) {
            tracing::debug!(%input, %error, "what is still fetched meanwhile is not processed");
        }
        self.forget_store(input);
        let Some(slot) = self.slots.get_mut(input) else { return Ok(()) };
        (slot.phase, slot.is_held) = (Phase::Opening, false);
        if matches!(slot.state, TaskState::Running | TaskState::Suspended) {
            slot.go(TaskState::Restoring, &self.registry)?;
        }
        Ok(())
    }

    /// Lets a task start again from its changelog alone: its store is damaged.
    pub(super) fn rebuild(&mut self, input: &TopicPartition) -> Result<(), TaskError> {
        self.rollback()?;
        self.reopen(input)?;
        if let Some(slot) = self.slots.get_mut(input) {
            tracing::warn!(task = %slot.id, "the store is damaged: it is rebuilt from its changelog");
            slot.discard_store = true;
        }
        Ok(())
    }

    /// Rebuilds the stores that a query found damaged.
    pub(super) fn rebuild_damaged(&mut self) -> Result<(), TaskError> {
        let Some(plan) = self.plan.clone() else { return Ok(()) };
        let is_damaged = |input: &&TopicPartition| {
            plan.kept(input).is_some_and(|kept| self.registry.take_damaged(&kept.spec.store, input.partition))
        };
        let damaged: Vec<_> = self.slots.keys().filter(is_damaged).cloned().collect();
        damaged.iter().try_for_each(|input| self.rebuild(input))
    }

    pub(super) fn set_phase(&mut self, input: &TopicPartition, phase: Phase<B>) {
        if let Some(slot) = self.slots.get_mut(input) {
            slot.phase = phase;
        }
    }
}

fn aggregate_state(
    kept: &Kept,
    input: &TopicPartition,
    config: &StreamsConfig,
    store: crate::store::window_store::WindowStore,
    closing: Closing,
    closed_through: crate::record::Timestamp,
) -> AggregateState {
    let changelog = TopicPartition::new(kept.changelog.clone(), input.partition);
    let output = kept.output.as_ref().map(|(topic, partitions)| Output {
        partition: TopicPartition::new(topic.clone(), input.partition),
        partitions: *partitions,
        rows_per_commit: config.final_rows_per_commit,
    });
    let ranking = Ranking::new(config.ranked_rows);
    AggregateState::new(kept.spec.clone(), store, changelog, output, closing, closed_through, ranking)
}

fn source_position(committed: &CommittedOffset, spec: &WindowedSpec) -> Result<SourcePosition, TaskError> {
    Ok(SourcePosition { offset: committed.offset, metadata: counted_with(decode_metadata(committed)?, spec) })
}

/// The metadata with what is counted with, which every later commit keeps.
pub(super) fn counted_with(mut metadata: OffsetMetadata, spec: &WindowedSpec) -> OffsetMetadata {
    spec.counted_with().put_entries(&mut metadata.entries);
    metadata
}

pub(super) fn decode_metadata(committed: &CommittedOffset) -> Result<OffsetMetadata, TaskError> {
    OffsetMetadata::decode(&committed.metadata).map_err(|invalid| TaskError::Stop(invalid.to_string()))
}
