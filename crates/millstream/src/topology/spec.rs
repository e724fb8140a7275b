//! A topology as data: what the runtime and the description read.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::record::Topic;
use crate::task::{Transform, WindowedSpec};

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
                check_retention(spec)?;
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

fn check_name(name: &str) -> Result<(), TopologyError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > 249 || matches!(name, "." | "..") || !name.chars().all(legal) {
        return Err(TopologyError::Name(name.to_owned()));
    }
    Ok(())
}

/// A window that does not outlive its grace would go before it is final.
fn check_retention(spec: &WindowedSpec) -> Result<(), TopologyError> {
    let needed = Duration::from_millis((spec.windows.size_ms() + spec.windows.grace_ms()) as u64);
    if spec.retention < needed {
        return Err(TopologyError::Retention { store: spec.store.clone(), retention: spec.retention, needed });
    }
    Ok(())
}
