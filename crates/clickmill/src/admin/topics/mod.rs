//! The topics of an application on Kafka: which they are, how they should be set, how they are set.

mod changes;
mod expected;
mod survey;

use std::fmt;
use std::time::Duration;

use millstream::record::Topic;
use millstream::runtime::StreamsConfig;
use serde::Serialize;

use crate::config::Config;
use crate::serve::{STORE, closed_topic};

pub use changes::{create_clicks_topic, create_missing, fix};
pub use survey::{SettingReport, Survey, TopicReport, Verdict, survey};

/// What a topic is to the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The clicks, which others write. Not the application's own.
    Clicks,
    /// Partial counts between the two halves.
    Repartition,
    /// What the state is restored from.
    Changelog,
    /// Final windows.
    Closed,
    /// Clicks that came too late.
    Late,
    /// Clicks that could not be read.
    DeadLetter,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Clicks => "clicks",
            Role::Repartition => "repartition",
            Role::Changelog => "changelog",
            Role::Closed => "closed",
            Role::Late => "late",
            Role::DeadLetter => "dead-letter",
        })
    }
}

/// A topic of an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AppTopic {
    pub(crate) role: Role,
    pub(crate) name: Topic,
    /// How long records are kept, where the configuration says so; none is for ever.
    pub(crate) retention: Option<Duration>,
}

/// The topics that the configuration makes, the clicks first.
pub(crate) fn topics_of(config: &Config) -> Vec<AppTopic> {
    let streams = StreamsConfig::new(config.engine.application_id.clone());
    let kept = |role, name, retention| AppTopic { role, name, retention };
    let sent_on = &config.topics;
    let mut topics = vec![kept(Role::Clicks, config.clicks.topic.as_str().into(), None)];
    if !config.clicks.keyed_by_ad {
        topics.push(kept(Role::Repartition, streams.repartition_topic(STORE), None));
    }
    topics.extend([
        kept(Role::Changelog, streams.changelog_topic(STORE), None),
        kept(Role::Closed, closed_topic(config), sent_on.closed_retention),
        kept(Role::Late, streams.late_topic(), sent_on.late_retention),
        kept(Role::DeadLetter, streams.dead_letter_topic(), sent_on.dead_letter_retention),
    ]);
    topics
}
