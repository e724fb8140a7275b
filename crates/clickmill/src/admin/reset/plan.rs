//! What a reset would do, and doing it.

use millstream::broker::{Broker, CommittedOffset, ErrorKind, Isolation};
use millstream::record::{Offset, Partition, Topic, TopicPartition};
use millstream::runtime::StreamsConfig;
use millstream_kafka::KafkaBroker;

use super::Start;
use super::state::LocalState;
use crate::admin::refuse_members;
use crate::admin::topics::{Role, topics_of};
use crate::config::Config;
use crate::serve::{Misconfigured, STORE};

/// Where a partition of the clicks topic was counted up to, and where it will be counted from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The partition.
    pub partition: TopicPartition,
    /// The position committed now, if there is one.
    pub from: Counted,
    /// The position to be committed; none is the first record there is when the application starts.
    pub to: Option<Offset>,
}

/// A position of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Nothing is counted yet.
    Nothing,
    /// Up to this offset.
    UpTo(Offset),
    /// A transaction that is open holds it.
    Unknown,
}

/// What a reset is to do beside the obvious.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// Where counting begins anew.
    pub start: Start,
    /// Whether the late and dead-letter topics go too.
    pub delete_outputs: bool,
    /// Whether it goes on where an open transaction holds the positions.
    pub despite_open_transactions: bool,
}

/// A reset, not yet done.
#[derive(Debug)]
pub struct Plan {
    /// The group whose positions go.
    pub group: String,
    /// The positions of the clicks topic.
    pub moves: Vec<Move>,
    /// The topics to be deleted: those that exist.
    pub topics: Vec<Topic>,
    /// What others read, and what stays for them.
    pub kept: Vec<Topic>,
    /// The state on this machine, where there is any.
    pub state: LocalState,
    /// Whether the task that reads the clicks keeps the state too.
    keyed: bool,
}

/// Looks up what a reset would do.
///
/// # Errors
/// Where the group has members, the clicks topic does not exist, or a transaction holds the group's positions.
pub fn plan(broker: &KafkaBroker, config: &Config, scope: Scope) -> anyhow::Result<Plan> {
    let group = config.engine.application_id.clone();
    refuse_members(broker, &group)?;
    let (mut topics, mut kept) = (Vec::new(), Vec::new());
    for (name, is_output) in own_topics(config) {
        if broker.describe_topic(&name)?.is_some() {
            if is_output && !scope.delete_outputs { kept.push(name) } else { topics.push(name) }
        }
    }
    let state = LocalState::of(config);
    Ok(Plan { moves: moves(broker, config, scope)?, group, topics, kept, state, keyed: config.clicks.keyed_by_ad })
}

/// The application's topics, the changelog last, and whether others read them to see what was not counted.
fn own_topics(config: &Config) -> Vec<(Topic, bool)> {
    // Whether clicks were shuffled before, the configuration of today does not say.
    let repartition = StreamsConfig::new(config.engine.application_id.clone()).repartition_topic(STORE);
    let mut all = vec![(repartition, Role::Repartition)];
    all.extend(topics_of(config).into_iter().map(|topic| (topic.name, topic.role)));
    let is_own = |(name, role): (Topic, Role)| match role {
        Role::Clicks => None,
        Role::Late | Role::DeadLetter => Some((name, true)),
        Role::Repartition | Role::Changelog | Role::Closed => Some((name, false)),
    };
    let mut own: Vec<_> = all.into_iter().filter_map(is_own).collect();
    own.sort_by(|(a, _), (b, _)| (a.ends_with("-changelog"), a).cmp(&(b.ends_with("-changelog"), b)));
    own.dedup();
    own
}

fn moves(broker: &KafkaBroker, config: &Config, scope: Scope) -> anyhow::Result<Vec<Move>> {
    let topic = &config.clicks.topic;
    let missing = || Misconfigured(format!("topic {topic} does not exist: set clicks.topic to the one that holds the clicks"));
    let count = broker.describe_topic(topic)?.ok_or_else(missing)?.partitions;
    let partitions: Vec<_> = (0..count).map(|p| TopicPartition::new(topic.as_str(), Partition(p))).collect();
    let counted = counted(broker, &config.engine.application_id, &partitions, scope.despite_open_transactions)?;
    let ends = || -> anyhow::Result<Vec<Offset>> {
        Ok(broker.log_ranges(&partitions, Isolation::ReadCommitted)?.into_iter().map(|range| range.end).collect())
    };
    let to: Vec<Option<Offset>> = match scope.start {
        Start::Earliest => vec![None; partitions.len()],
        Start::Latest => ends()?.into_iter().map(Some).collect(),
        Start::Time(time) => {
            let found = broker.offsets_for_time(&partitions, time)?;
            found.into_iter().zip(ends()?).map(|(found, end)| Some(found.unwrap_or(end))).collect()
        }
    };
    Ok(partitions.into_iter().zip(counted).zip(to).map(|((partition, from), to)| Move { partition, from, to }).collect())
}

/// The group's positions. Waits for transactions that are still open and could commit one later; those that no broker ends could be
/// waited for for ever.
fn counted(broker: &KafkaBroker, group: &str, partitions: &[TopicPartition], despite: bool) -> anyhow::Result<Vec<Counted>> {
    match broker.committed(group, partitions) {
        Ok(all) => {
            Ok(all.into_iter().map(|committed| committed.map_or(Counted::Nothing, |at| Counted::UpTo(at.offset))).collect())
        }
        Err(error) if error.kind() == ErrorKind::Retry && despite => Ok(vec![Counted::Unknown; partitions.len()]),
        Err(error) if error.kind() == ErrorKind::Retry => Err(anyhow::Error::new(error).context(
            "the positions cannot be told now: try again in a quarter of a minute; where a transaction holds them that no broker ends \
             (docs/operations.md, Transactions that hang), add --despite-open-transactions",
        )),
        Err(error) => Err(error.into()),
    }
}

impl Plan {
    /// Does it. `tell` is told what was done, step by step.
    ///
    /// # Errors
    /// What could not be done. Run again it goes on from there; until then the application does not start.
    pub fn execute(&self, broker: &KafkaBroker, tell: &mut dyn FnMut(String)) -> anyhow::Result<()> {
        broker.delete_group(&self.group)?;
        tell(format!("the positions of group {} are deleted", self.group));
        if !self.keyed {
            self.set_positions(broker, tell)?;
        }
        for topic in &self.topics {
            broker.delete_topic(topic)?;
            tell(format!("topic {topic} is deleted"));
        }
        if self.keyed {
            self.set_positions(broker, tell)?;
        }
        if self.state.delete()? {
            tell(format!("the state under {} is deleted", self.state.dir().display()));
        }
        Ok(())
    }

    /// Without metadata: stream time is not known, as before the first click.
    fn set_positions(&self, broker: &KafkaBroker, tell: &mut dyn FnMut(String)) -> anyhow::Result<()> {
        let position =
            |moved: &Move| Some((moved.partition.clone(), CommittedOffset { offset: moved.to?, metadata: String::new() }));
        let positions: Vec<_> = self.moves.iter().filter_map(position).collect();
        if !positions.is_empty() {
            broker.set_committed(&self.group, &positions)?;
            tell(format!("{} positions of group {} are set", positions.len(), self.group));
        }
        Ok(())
    }
}
