//! A topology as data: what the runtime and the description read.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::EmitStrategy;
use crate::record::{Record, Timestamp, Topic};
use crate::serdes::Rejection;
use crate::task::counted_with::CountedWith;
use crate::task::{Grouping, OutputBuffer};
use crate::time::TimeWindows;

/// A stateless chain that ends in a topic.
pub(crate) trait Transform: Send + Sync {
    /// Processes one batch: what comes out goes to `into`, a record that cannot be read to `reject`. Gives what became of the others.
    fn process(
        &self,
        records: &[Record<'_>],
        partitions: u32,
        into: &mut OutputBuffer,
        reject: &mut dyn FnMut(&Record<'_>, &Rejection),
    ) -> Passed;
}

/// How many records of a batch passed a stateless chain.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Passed {
    /// Those of which something came out.
    pub(crate) sent: u64,
    /// Those of which nothing did.
    pub(crate) filtered: u64,
}

/// One source topic and all that follows from it.
#[derive(Clone)]
pub(crate) struct Pipeline {
    pub(crate) source: Topic,
    pub(crate) operators: Vec<&'static str>,
    pub(crate) end: End,
}

#[derive(Clone)]
pub(crate) enum End {
    Sink { topic: Topic, transform: Arc<dyn Transform> },
    Windowed(WindowedSpec),
}

/// A windowed aggregate and how it is kept.
#[derive(Clone)]
pub(crate) struct WindowedSpec {
    pub(crate) store: Arc<str>,
    pub(crate) windows: TimeWindows,
    pub(crate) retention: Duration,
    pub(crate) emit: EmitStrategy,
    pub(crate) output: Option<Topic>,
    /// Whether the source is keyed by the grouping key already, so that nothing is shuffled.
    pub(crate) keyed: bool,
    pub(crate) operator: &'static str,
    pub(crate) grouping: Arc<dyn Grouping>,
}

/// A topology that has been checked and can be run.
#[derive(Clone)]
pub struct Topology {
    pub(crate) pipelines: Vec<Pipeline>,
}

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

/// Why a topology cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// Nothing is read, or nothing that is read ends anywhere.
    #[error("the topology is empty: end at least one stream in a topic or in an aggregate")]
    Empty,
    /// A topic or store name that brokers refuse.
    #[error("{0:?} is no name for a topic or store: use 1 to 249 of the characters a-z, A-Z, 0-9, '.', '_' and '-'")]
    Name(String),
    /// Two streams of one topic.
    #[error("topic {0} is read by two streams: read it once")]
    SourceTwice(Topic),
    /// Two aggregates in one store.
    #[error("store {0} is used by two aggregates: give each a store of its own")]
    StoreTwice(Arc<str>),
    /// A topic that is both read and written.
    #[error("topic {0} is read and written by the same topology: it would never come to an end")]
    Loop(Topic),
    /// A store that would lose windows that still change.
    #[error(
        "store {store} keeps windows for {retention:?}: they change for {needed:?} (window size + grace), so keep them at least that long"
    )]
    Retention {
        /// The store.
        store: Arc<str>,
        /// How long it keeps windows.
        retention: Duration,
        /// How long it must.
        needed: Duration,
    },
}

impl Topology {
    /// Checks the pipelines.
    pub(super) fn new(pipelines: Vec<Pipeline>) -> Result<Self, TopologyError> {
        if pipelines.is_empty() {
            return Err(TopologyError::Empty);
        }
        let sources: HashSet<_> = pipelines.iter().map(|p| p.source.clone()).collect();
        let (mut seen_sources, mut seen_stores) = (HashSet::new(), HashSet::new());
        for pipeline in &pipelines {
            check_name(&pipeline.source)?;
            if !seen_sources.insert(pipeline.source.clone()) {
                return Err(TopologyError::SourceTwice(pipeline.source.clone()));
            }
            if let Some(output) = pipeline.output() {
                check_name(output)?;
                if sources.contains(output) {
                    return Err(TopologyError::Loop(output.clone()));
                }
            }
            if let End::Windowed(spec) = &pipeline.end {
                check_name(&spec.store)?;
                if !seen_stores.insert(spec.store.clone()) {
                    return Err(TopologyError::StoreTwice(spec.store.clone()));
                }
                spec.check_retention()?;
            }
        }
        Ok(Self { pipelines })
    }
}

impl Pipeline {
    pub(crate) fn output(&self) -> Option<&Topic> {
        match &self.end {
            End::Sink { topic, .. } => Some(topic),
            End::Windowed(spec) => spec.output.as_ref(),
        }
    }
}

impl WindowedSpec {
    /// The settings that cannot change once something was counted.
    pub(crate) fn counted_with(&self) -> CountedWith {
        CountedWith { window_size_ms: self.windows.size_ms(), keyed: self.keyed }
    }

    /// Whether windows are sent on when they are final.
    pub(crate) fn sends_final_windows(&self) -> bool {
        self.emit == EmitStrategy::OnWindowClose && self.output.is_some()
    }

    /// The earliest start of a window that is still kept, where nothing more is to be done with those that end at or before `done`:
    /// a window expires when its end lies its retention back.
    pub(crate) fn kept_from(&self, done: Timestamp) -> Timestamp {
        let retention = i64::try_from(self.retention.as_millis()).unwrap_or(i64::MAX);
        let keep_from = done.0.saturating_sub(retention);
        Timestamp(keep_from.saturating_sub(self.windows.size_ms()).saturating_add(1).max(0))
    }

    fn check_retention(&self) -> Result<(), TopologyError> {
        let needed = Duration::from_millis((self.windows.size_ms() + self.windows.grace_ms()) as u64);
        if self.retention < needed {
            return Err(TopologyError::Retention { store: self.store.clone(), retention: self.retention, needed });
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), TopologyError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > 249 || matches!(name, "." | "..") || !name.chars().all(legal) {
        return Err(TopologyError::Name(name.to_owned()));
    }
    Ok(())
}
