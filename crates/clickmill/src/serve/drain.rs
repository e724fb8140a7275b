//! What `clickmill drain` runs: one instance that counts the repartition topic to its end and empties it.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use millstream::broker::{Broker, ErrorKind};
use millstream::record::{Offset, TopicPartition};
use millstream::runtime::{Draining as Progress, Instance, Registry, Stepped};
use millstream::task::TaskState;
use millstream_kafka::KafkaBroker;

use super::engine::{Engine, LONGEST_POLL, PAUSE};
use super::kafka::KafkaLog;
use crate::admin::topics::survey;
use crate::admin::{cluster, refuse_members};
use crate::config::Config;

/// How often is looked how far it has come.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How far draining has come, for whoever waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draining {
    /// Partitions of the repartition topic.
    pub partitions: usize,
    /// Those that are being counted.
    pub running: usize,
    /// Offsets that are not counted yet.
    pub remaining: u64,
    /// What keeps a task from going on, if anything does.
    pub trouble: Option<String>,
}

/// What draining has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drained {
    /// There is no repartition topic, and nothing on it.
    Nothing(String),
    /// Each partition, with the offset up to which it was counted and emptied.
    Emptied(Vec<(TopicPartition, Offset)>),
}

/// Counts the repartition topic to its end, empties it and leaves the group. Nothing is read of the clicks topic.
///
/// # Errors
/// Where the group has other members, or what `serve` would not start or go on with either.
pub fn drain(config: Config, tell: &mut dyn FnMut(&Draining)) -> anyhow::Result<Drained> {
    let broker = cluster(&config, "the embedded broker's repartition topic is nobody else's: there is nothing to drain it for")?;
    let group = config.engine.application_id.clone();
    if config.clicks.keyed_by_ad {
        return Ok(Drained::Nothing("clicks.keyed_by_ad is set: nothing is shuffled".to_owned()));
    }
    let survey = survey(&broker, &config)?;
    let is_there = |role| survey.topics.iter().any(|topic| topic.role == role && topic.partitions.is_some());
    if !is_there(crate::admin::topics::Role::Repartition) {
        return Ok(Drained::Nothing(format!("application {group} has no repartition topic")));
    }
    refuse_members(&broker, &group)?;
    let engine = Engine::<KafkaLog>::open_to_drain(config)?;
    let mut instance = engine.instance(Arc::new(()));
    step_to_the_end(&mut instance, &engine.registry, &mut |progress| {
        tell(progress);
        warn_of_company(&broker, &group);
    })?;
    Ok(Drained::Emptied(instance.finish_draining()?))
}

fn step_to_the_end<B: Broker>(
    instance: &mut Instance<B>,
    registry: &Registry,
    tell: &mut dyn FnMut(&Draining),
) -> anyhow::Result<()> {
    let mut looked = Instant::now();
    loop {
        if instance.step(LONGEST_POLL)? == Stepped::Troubled {
            thread::park_timeout(PAUSE);
        }
        if looked.elapsed() < LOOK_INTERVAL {
            continue;
        }
        looked = Instant::now();
        let mut tasks = registry.tasks().into_iter();
        if let Some(task) = tasks.find(|task| task.state == TaskState::Quarantined) {
            anyhow::bail!(task.trouble.unwrap_or_default());
        }
        match instance.draining() {
            Ok(progress) if progress.is_complete() => return Ok(()),
            Ok(progress) => tell(&shown(progress, registry)),
            Err(error) if error.kind() == ErrorKind::Retry => tracing::debug!(%error, "how far it has come is not known"),
            Err(error) => return Err(error.into()),
        }
    }
}

fn shown(progress: Progress, registry: &Registry) -> Draining {
    let trouble = registry.tasks().into_iter().find_map(|task| task.trouble);
    Draining { partitions: progress.partitions, running: progress.running, remaining: progress.remaining, trouble }
}

/// Whoever joins meanwhile takes partitions over, and draining waits until it is gone.
fn warn_of_company(broker: &KafkaBroker, group: &str) {
    match broker.group_members(group) {
        Ok(members) if members.len() > 1 => {
            tracing::warn!(members = members.len(), "others have joined group {group}: draining waits until they have left");
        }
        Ok(_) => {}
        Err(error) => tracing::debug!(%error, "the members are not known"),
    }
}
