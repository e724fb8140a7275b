//! From an assigned partition to a task that is ready: the one step that is next.

use std::time::Duration;

use super::context::Parts;
use super::doubt::check_commit_lasts;
use super::first_start::check_first_start;
use super::join::Joining;
use super::plan::{Kept, Kind};
use super::positions::{check_changelog, check_topic, decode_metadata, gap, made_again};
use super::replica::{Replica, ReplicaOf};
use super::task::{Opening, Task};
use crate::broker::{Broker, BrokerError, CommittedOffset, ErrorKind, Isolation, TopicDescription};
use crate::record::{Offset, Timestamp, TopicPartition};
use crate::store::window_store::WindowStore;
use crate::store::{FORMAT, StoreIdentity};
use crate::task::input::{AggregatePosition, PartialsInput, SourceInput, SourcePosition, Sources, StatelessInput};
use crate::task::metadata::OffsetMetadata;
use crate::task::output::{Closing, Forward, Ranking, ResultTopic, Shuffle, WindowedState};
use crate::task::processor::{Composed, Processor};
use crate::task::{Role, SideOutput, TaskError, TopicIdentity};

/// How often a topic is looked for before it counts as gone: for some 25 s.
const LOOKS_FOR_A_TOPIC: u32 = 8;

/// Looks up where a task has got to, and begins whatever has to come before its next record. Its store goes on being open, if it is.
pub(super) fn look_up<B: Broker>(parts: &Parts<B>, task: &mut Task<B>, max_wait: Duration) -> Result<(), TaskError> {
    if let Some(partition) = task.blocked_on.as_ref().filter(|partition| *partition != task.input()) {
        // A transaction that fails again for it would hold up every task of its thread.
        parts.broker.check_writable(partition)?;
    }
    if task.role() == Role::Standby {
        return begin_copy(parts, task);
    }
    let input = task.input().clone();
    let topic = TopicIdentity::of(&described(parts, task, &input)?);
    task.topic = Some(topic);
    let (committed, log_start) = position(parts, &input, topic)?;
    let marks = task.marks()?;
    let next = match &task.subtopology().kind {
        Kind::Source { .. } => match committed.map(|committed| marks.source_position(&committed)).transpose()? {
            Some(position) if position.has_joined() => Opening::Ready(source(task, position)?),
            position => Opening::Joining(Joining::new(position, log_start, marks)),
        },
        Kind::Stateless { transform, output, output_partitions } => {
            let offset = committed.as_ref().map_or(log_start, |committed| committed.offset);
            let metadata = committed.map_or(Ok(OffsetMetadata::default()), |committed| decode_metadata(&committed))?;
            let side = SideOutput::new(task.plan().side_topics(&input));
            let input = StatelessInput::new(transform.clone(), *output_partitions, side, offset, marks.put(metadata));
            Opening::Ready(Box::new(Composed { input, output: Forward::new(output.clone()) }))
        }
        kind @ (Kind::Aggregate { kept, .. } | Kind::Fused { kept }) => {
            let kept = kept.clone();
            if input.partition.0 >= kept.partitions {
                return Err(without_store(&input, &kept));
            }
            if committed.is_none() {
                check_first_start(parts, &input, &kept, matches!(kind, Kind::Aggregate { .. }), max_wait)?;
            }
            return begin_replica(parts, task, &kept, committed);
        }
    };
    task.set_opening(next);
    Ok(())
}

/// What is known of a partition's topic. It is looked for several times: a broker that has just started may not know it yet.
fn described<B: Broker>(parts: &Parts<B>, task: &mut Task<B>, of: &TopicPartition) -> Result<TopicDescription, TaskError> {
    match parts.broker.describe_topic(&of.topic)? {
        Some(described) => {
            task.misses = 0;
            Ok(described)
        }
        None if task.misses < LOOKS_FOR_A_TOPIC => {
            task.misses += 1;
            let message = format!("topic {} is not known to the broker", of.topic);
            Err(BrokerError::new(ErrorKind::Retry, message).of_partition(of.clone()).into())
        }
        None => Err(BrokerError::unknown_topic(&of.topic).into()),
    }
}

/// The error for a partition that a topic has got which is keyed by the grouping key: each key is counted in the partition that it had at
/// first, for life, and one that comes to another by now would be in two stores.
fn without_store(input: &TopicPartition, kept: &Kept) -> TaskError {
    let (store, partitions) = (&kept.spec.store, kept.partitions);
    TaskError::Stop(format!(
        "{input} was added to a topic that is keyed by the grouping key, and store {store} keeps its {partitions} partitions for life: nothing \
         is read of it; let producers place records by {partitions} partitions again, or count everything anew (clickmill reset, or another \
         application id)"
    ))
}

/// What is committed for a partition, and where its log starts.
fn position<B: Broker>(
    parts: &Parts<B>,
    input: &TopicPartition,
    topic: TopicIdentity,
) -> Result<(Option<CommittedOffset>, Offset), TaskError> {
    // Before the broker is asked: another may commit in between.
    let ours = parts.registry.committed(input);
    let committed = parts.committed_position(input)?;
    if let Some(committed) = &committed {
        check_topic(input, committed, topic)?;
    }
    match ours {
        // Brokers forget the positions in a topic that is deleted.
        Some((_, of)) if of != topic => return Err(made_again(input)),
        Some((ours, _)) => check_commit_lasts(input, ours, committed.as_ref())?,
        None => {}
    }
    let log = parts.broker.log_range(input, Isolation::ReadCommitted)?;
    match &committed {
        Some(committed) if committed.offset < log.start => Err(gap(input, committed.offset, log.start)),
        Some(committed) if committed.offset > log.end => {
            // Not for good: a leader that is new may not know its end yet.
            let message = format!(
                "the group's position in {input} is {}, behind the end of its log at {}: if the topic was deleted and made again, reset \
                 the application (clickmill reset)",
                committed.offset, log.end
            );
            Err(BrokerError::new(ErrorKind::Retry, message).into())
        }
        _ => Ok((committed, log.start)),
    }
}

/// Begins to bring a task's store up to where its changelog ends.
fn begin_replica<B: Broker>(
    parts: &Parts<B>,
    task: &mut Task<B>,
    kept: &Kept,
    committed: Option<CommittedOffset>,
) -> Result<(), TaskError> {
    let open = match task.set_opening(Opening::LookUp(None)) {
        Some(Opening::LookUp(open)) => open,
        _ => None,
    };
    let begun = replica(parts, task, kept, open, committed.as_ref());
    // What queries were shown goes with it: a store opens once at a time.
    let replica = begun.inspect_err(|_| task.hide_store())?;
    task.set_opening(Opening::Replica(Box::new(replica), committed));
    task.publish_replica();
    Ok(())
}

fn replica<B: Broker>(
    parts: &Parts<B>,
    task: &mut Task<B>,
    kept: &Kept,
    open: Option<WindowStore>,
    committed: Option<&CommittedOffset>,
) -> Result<Replica<B>, TaskError> {
    let open = discard_if_damaged(parts, task, kept, open)?;
    let changelog = TopicPartition::new(kept.changelog.clone(), task.input().partition);
    let described = described(parts, task, &changelog)?;
    let made_as = TopicIdentity::of(&described);
    if let Some(committed) = committed {
        // Before the store is looked at, which would be made anew from what is not there.
        check_changelog(&changelog, committed, made_as)?;
    }
    task.changelog = Some(made_as);
    let of = ReplicaOf {
        broker: &*parts.broker,
        provider: &*parts.provider,
        identity: identity(parts, kept, described.id, changelog.partition.0)?,
        changelog,
        spec: kept.spec.clone(),
        ranked_rows: parts.config.ranked_rows,
        now: parts.now(),
    };
    let mut replica = Replica::begin(of, open)?;
    if task.role() == Role::Active {
        replica.read_from(task.marks()?.topic)?;
        if let Some(ours) = replica.committed_input() {
            check_commit_lasts(task.input(), ours, committed)?;
        }
    }
    if let Some(committed) = committed {
        replica.owner_is_done(done(&task.subtopology().kind, committed)?)?;
    }
    Ok(replica)
}

/// Begins a standby's copy of its task's store. Nothing is looked at that is its owner's business.
fn begin_copy<B: Broker>(parts: &Parts<B>, task: &mut Task<B>) -> Result<(), TaskError> {
    let plan = task.plan().clone();
    let Some(kept) = plan.subtopology(task.id()).kept() else {
        return Err(TaskError::Halt(format!("task {} keeps nothing that there could be a copy of", task.id())));
    };
    let committed = parts.committed_position(task.input())?;
    begin_replica(parts, task, kept, committed)
}

/// Looks now and then how far the owner of a standby's task is.
pub(super) fn follow<B: Broker>(parts: &Parts<B>, task: &mut Task<B>) -> Result<(), TaskError> {
    let (now, input, plan, id) = (parts.now(), task.input().clone(), task.plan().clone(), task.id());
    let Some(Opening::Replica(replica, _)) = task.opening_mut() else {
        return Err(TaskError::Halt(format!("task {id} has no copy that could follow its owner")));
    };
    if replica.is_to_look(now) {
        if let Some(committed) = parts.committed_position(&input)? {
            replica.owner_is_done(done(&plan.subtopology(id).kind, &committed)?)?;
        }
        replica.look(parts.broker.log_range(replica.changelog(), Isolation::ReadUncommitted)?.end, now);
    }
    Ok(())
}

/// Up to where a task has nothing more to do with its windows, as committed.
fn done(kind: &Kind, committed: &CommittedOffset) -> Result<Timestamp, TaskError> {
    let (offset, metadata) = (committed.offset, decode_metadata(committed)?);
    Ok(match kind {
        Kind::Aggregate { kept, .. } | Kind::Fused { kept } if kept.spec.sends_final_windows() => {
            Timestamp(Closing::from_entries(&metadata.entries).through)
        }
        Kind::Aggregate { .. } => AggregatePosition::new(offset, metadata)?.closed_through(),
        Kind::Source { .. } | Kind::Fused { .. } | Kind::Stateless { .. } => SourcePosition { offset, metadata }.closed_through(),
    })
}

/// Gives the store back that is open, unless it is damaged: then it is closed and destroyed.
fn discard_if_damaged<B: Broker>(
    parts: &Parts<B>,
    task: &mut Task<B>,
    kept: &Kept,
    open: Option<WindowStore>,
) -> Result<Option<WindowStore>, TaskError> {
    if !task.discards_store {
        return Ok(open);
    }
    task.hide_store();
    drop(open);
    parts.provider.destroy(&kept.spec.store, task.input().partition)?;
    task.discards_store = false;
    Ok(None)
}

fn identity<B: Broker>(parts: &Parts<B>, kept: &Kept, changelog_id: String, partition: u32) -> Result<StoreIdentity, TaskError> {
    Ok(StoreIdentity {
        format: FORMAT,
        cluster_id: parts.broker.cluster_id()?,
        changelog_id,
        partition,
        application_id: parts.config.application_id.clone(),
        window_size_ms: kept.spec.windows.size_ms(),
        keyed: kept.spec.keyed,
    })
}

/// Promotes a replica that has caught up: its task is ready, with the position that was committed before.
pub(super) fn promote<B: Broker>(parts: &Parts<B>, task: &mut Task<B>) -> Result<(), TaskError> {
    // What can fail comes first: until then the replica stays what it is.
    let position = position_to_run_from(parts, task)?;
    let Some(Opening::Replica(replica, _)) = task.set_opening(Opening::LookUp(None)) else {
        return Err(TaskError::Halt(format!("task {} is to be promoted and has no replica", task.id())));
    };
    let progress = replica.progress();
    tracing::info!(task = %task.id(), records = progress.records, position = %progress.position, "the store is restored");
    parts.registry.count_restored(progress.records);
    let (input, store) = (task.input(), replica.into_store());
    let processor: Box<dyn Processor> = match (&task.subtopology().kind, position) {
        (Kind::Aggregate { kept, .. }, RunFrom::Aggregate { position, is_first }) => {
            let closing = Closing::from_entries(&position.metadata.entries);
            let output = windowed(parts, kept, input, store, closing, position.closed_through());
            Box::new(Composed { input: PartialsInput::new(input.clone(), kept.spec.windows, position, is_first), output })
        }
        (Kind::Fused { kept }, RunFrom::Source(position)) => {
            let closing = Closing::from_entries(&position.metadata.entries);
            let output = windowed(parts, kept, input, store, closing, position.closed_through());
            let side = SideOutput::new(task.plan().side_topics(input));
            Box::new(Composed { input: SourceInput::new(kept.spec.windows, Some(kept.partitions), side, position), output })
        }
        _ => return Err(TaskError::Halt(format!("task {} has a replica and keeps nothing", task.id()))),
    };
    task.set_opening(Opening::Ready(processor));
    Ok(())
}

/// From where a task with a store goes on.
enum RunFrom {
    /// `is_first` where the position, with its sources, has not been committed yet.
    Aggregate {
        position: AggregatePosition,
        is_first: bool,
    },
    Source(SourcePosition),
}

fn position_to_run_from<B: Broker>(parts: &Parts<B>, task: &mut Task<B>) -> Result<RunFrom, TaskError> {
    let start = parts.broker.log_range(task.input(), Isolation::ReadCommitted)?.start;
    let marks = task.marks()?;
    let committed = match task.opening_mut() {
        Some(Opening::Replica(_, committed)) => committed.clone(),
        _ => None,
    };
    let Kind::Aggregate { source, .. } = &task.subtopology().kind else {
        return Ok(RunFrom::Source(match committed {
            Some(committed) => marks.source_position(&committed)?,
            None => SourcePosition { offset: start, metadata: marks.put(OffsetMetadata::default()) },
        }));
    };
    let mut position = match committed {
        Some(committed) => AggregatePosition::new(committed.offset, decode_metadata(&committed)?)?,
        None => AggregatePosition::first(start),
    };
    // Kafka Streams has counted without watermarks: from here on every source is waited for, as at a first start.
    let is_first = position.waits_for_nobody();
    if is_first {
        let source = parts.broker.describe_topic(source)?.ok_or_else(|| BrokerError::unknown_topic(source))?;
        position.sources = Sources::first(source.partitions);
    }
    position.metadata = marks.put(position.metadata);
    Ok(RunFrom::Aggregate { position, is_first })
}

/// What a source task that has joined does, from that position on.
pub(super) fn source<B: Broker>(task: &Task<B>, position: SourcePosition) -> Result<Box<dyn Processor>, TaskError> {
    let Kind::Source { repartition, spec } = &task.subtopology().kind else {
        return Err(TaskError::Halt(format!("task {} is no source task", task.id())));
    };
    let side = SideOutput::new(task.plan().side_topics(task.input()));
    let partials = spec.grouping.clone().partials();
    let output = Shuffle::new(task.input().partition, repartition.clone(), spec.windows.size_ms(), partials);
    Ok(Box::new(Composed { input: SourceInput::new(spec.windows, None, side, position), output }))
}

fn windowed<B: Broker>(
    parts: &Parts<B>,
    kept: &Kept,
    input: &TopicPartition,
    store: WindowStore,
    closing: Closing,
    closed_through: Timestamp,
) -> WindowedState {
    let changelog = TopicPartition::new(kept.changelog.clone(), input.partition);
    let output = kept.output.as_ref().map(|(topic, partitions)| ResultTopic {
        partition: TopicPartition::new(topic.clone(), input.partition),
        partitions: *partitions,
        rows_per_commit: parts.config.final_rows_per_commit,
    });
    let ranking = Ranking::new(parts.config.ranked_rows);
    WindowedState::new(kept.spec.clone(), store, changelog, output, closing, closed_through, ranking)
}
