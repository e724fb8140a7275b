//! The topics as they are, beside what they should be.

use std::collections::BTreeSet;

use millstream::broker::Broker;
use millstream_kafka::KafkaBroker;
use serde::Serialize;

use super::expected::{
    CLEANUP_POLICY, Expected, Found, RETENTION_MS, TIMESTAMP_AFTER_MAX_MS, TIMESTAMP_DIFFERENCE_MAX_MS, expected, largest_click,
    loses_state,
};
use super::{AppTopic, Role, topics_of};
use crate::config::Config;
use crate::serve::Misconfigured;

/// What became of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Fine,
    /// Not as it should be.
    Differs,
    /// Different, and the business of who owns the topic.
    Noted,
}

/// A setting of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SettingReport {
    /// Kafka's name for it.
    pub name: String,
    /// Its value in effect; none where the brokers know no such setting.
    pub found: Option<String>,
    /// The value that it should have; at least that much where `at_least`.
    pub wanted: String,
    /// Whether more is as good.
    pub at_least: bool,
    /// Whether it is as it should be.
    pub verdict: Verdict,
    /// What another value risks, where it has one.
    pub risk: Option<&'static str>,
    /// Whether brokers delete what is still needed.
    pub loses_state: bool,
}

/// A topic, and how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopicReport {
    /// Its name.
    pub name: String,
    /// What it is to the application.
    pub role: Role,
    /// How many partitions it has; none where it does not exist.
    pub partitions: Option<u32>,
    /// Its settings, where it exists.
    pub settings: Vec<SettingReport>,
    /// What is wrong and cannot be set right by `--fix`, each with the way out.
    pub problems: Vec<String>,
}

/// All topics of an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Survey {
    /// The application.
    pub application_id: String,
    /// Its topics, the clicks first.
    pub topics: Vec<TopicReport>,
    #[serde(skip)]
    pub(super) expected: Vec<Vec<Expected>>,
    /// How far back counts are promised, in milliseconds.
    #[serde(skip)]
    horizon_ms: u128,
    #[serde(skip)]
    max_clicks_batch_bytes: Option<usize>,
}

/// Looks at the topics that the configuration names.
///
/// # Errors
/// Where the cluster cannot be asked.
pub fn survey(broker: &KafkaBroker, config: &Config) -> anyhow::Result<Survey> {
    let mut seen = Vec::new();
    for topic in topics_of(config) {
        let partitions = broker.describe_topic(&topic.name)?.map(|described| described.partitions);
        let settings = partitions.map(|_| broker.topic_config(&topic.name)).transpose()?;
        seen.push(Seen { topic, partitions, settings });
    }
    Ok(survey_of(config, &seen))
}

/// A topic as it was found.
struct Seen {
    topic: AppTopic,
    partitions: Option<u32>,
    settings: Option<Found>,
}

fn survey_of(config: &Config, seen: &[Seen]) -> Survey {
    let clicks = seen.first().and_then(|clicks| clicks.settings.as_ref());
    let expected: Vec<_> = seen.iter().map(|seen| expected(&seen.topic, config, clicks)).collect();
    let topics = seen.iter().zip(&expected).map(|(seen, expected)| report(seen, expected)).collect();
    let (application_id, horizon_ms) = (config.engine.application_id.clone(), config.window.retention.as_millis());
    let max_clicks_batch_bytes = clicks.and_then(largest_click).and_then(|bytes| bytes.try_into().ok());
    let mut survey = Survey { application_id, topics, expected, horizon_ms, max_clicks_batch_bytes };
    survey.find_problems(config);
    survey
}

fn report(seen: &Seen, expected: &[Expected]) -> TopicReport {
    let Seen { topic, partitions, settings } = seen;
    TopicReport {
        name: topic.name.to_string(),
        role: topic.role,
        partitions: *partitions,
        settings: settings.iter().flat_map(|found| compare(topic.role, expected, found)).collect(),
        problems: Vec::new(),
    }
}

fn compare(role: Role, expected: &[Expected], found: &Found) -> Vec<SettingReport> {
    let report = |wanted: &Expected| {
        let value = found.get(&wanted.name);
        let is_fine = value.is_none_or(|value| is_as_wanted(wanted, value));
        let is_others = role == Role::Clicks && wanted.name != CLEANUP_POLICY;
        let verdict = match (is_fine, is_others) {
            (true, _) => Verdict::Fine,
            (false, true) => Verdict::Noted,
            (false, false) => Verdict::Differs,
        };
        SettingReport {
            name: wanted.name.clone(),
            found: value.cloned(),
            wanted: wanted.value.clone(),
            at_least: wanted.at_least,
            verdict,
            risk: (!is_fine).then_some(wanted.risk),
            loses_state: loses_state(role, &wanted.name, found),
        }
    };
    // A name of the past is no news where the brokers have forgotten it.
    let is_known = |wanted: &&Expected| wanted.name != TIMESTAMP_DIFFERENCE_MAX_MS || found.contains_key(&wanted.name);
    expected.iter().filter(is_known).map(report).collect()
}

fn is_as_wanted(wanted: &Expected, found: &str) -> bool {
    if wanted.at_least {
        let number = |text: &str| text.parse::<i64>().ok();
        return number(found) >= number(&wanted.value);
    }
    // A policy is a set of words.
    let words = |text: &str| text.split(',').map(|word| word.trim().to_owned()).collect::<BTreeSet<_>>();
    words(found) == words(&wanted.value)
}

impl TopicReport {
    /// Whether that is the finite retention of a compacted changelog which this program, by the other settings, has not created, and
    /// which covers everything back to the horizon.
    fn is_as_kafka_streams_makes_it(&self, setting: &SettingReport, horizon_ms: u128) -> bool {
        let covers = setting.found.as_ref().and_then(|found| found.parse::<u128>().ok()).is_some_and(|kept| kept >= horizon_ms);
        let found = |name: &str| self.settings.iter().find(|setting| setting.name == name);
        let compacted = found(CLEANUP_POLICY).is_some_and(|policy| policy.verdict == Verdict::Fine);
        let is_ours = found(TIMESTAMP_AFTER_MAX_MS).is_none_or(|after| after.verdict == Verdict::Fine);
        self.role == Role::Changelog && setting.name == RETENTION_MS && covers && compacted && !is_ours
    }
}

impl Survey {
    /// Whether all topics exist and are as they should be.
    pub fn is_fine(&self) -> bool {
        let is_fine = |topic: &TopicReport| {
            let settings_fine = topic.settings.iter().all(|setting| setting.verdict != Verdict::Differs);
            topic.partitions.is_some() && settings_fine && topic.problems.is_empty()
        };
        self.topics.iter().all(is_fine)
    }

    pub(super) fn of(&self, role: Role) -> Option<&TopicReport> {
        self.topics.iter().find(|topic| topic.role == role)
    }

    /// How many partitions the topic of that role has.
    pub(crate) fn partitions(&self, role: Role) -> Option<u32> {
        self.of(role)?.partitions
    }

    /// How many partitions the clicks topic has.
    ///
    /// # Errors
    /// [`Misconfigured`] where there is none, with the way out.
    pub fn clicks_partitions(&self) -> Result<u32, Misconfigured> {
        let missing = || {
            let topic = self.of(Role::Clicks).map_or("", |topic| &topic.name);
            Misconfigured(format!(
                "topic {topic} does not exist: clickmill topics --create-clicks-topic creates it; or set clicks.topic to the one that \
                 holds the clicks"
            ))
        };
        self.partitions(Role::Clicks).ok_or_else(missing)
    }

    /// How many bytes a batch of clicks may have; none where the brokers do not say.
    pub fn max_clicks_batch_bytes(&self) -> Option<usize> {
        self.max_clicks_batch_bytes
    }

    /// Refuses settings under which brokers delete what state or counts are made from. The retention that Kafka Streams gives a
    /// changelog is no reason where it covers what is promised: an application is moved over as it stands, and [`Survey::warnings`] tells
    /// of it.
    ///
    /// # Errors
    /// [`Misconfigured`] for the first of them.
    pub fn refuse_loss(&self) -> Result<(), Misconfigured> {
        for topic in &self.topics {
            let refused =
                |setting: &&SettingReport| setting.loses_state && !topic.is_as_kafka_streams_makes_it(setting, self.horizon_ms);
            let Some(setting) = topic.settings.iter().find(refused) else { continue };
            return Err(Misconfigured(format!(
                "topic {} has {} = {}: {}; set it to {} with clickmill topics --fix",
                topic.name,
                setting.name,
                setting.found.as_deref().unwrap_or_default(),
                setting.risk.unwrap_or("what is still needed is deleted"),
                setting.wanted
            )));
        }
        Ok(())
    }

    /// What differs without losing state, in a line each, for the log of a start.
    pub fn warnings(&self) -> Vec<String> {
        let of_topic = |topic: &TopicReport| {
            let differing = topic.settings.iter().filter(|setting| setting.verdict == Verdict::Differs);
            let line = |setting: &SettingReport| {
                let (found, risk) = (setting.found.as_deref().unwrap_or_default(), setting.risk.unwrap_or_default());
                format!("topic {} has {} = {found}, not {}: {risk}", topic.name, setting.name, setting.wanted)
            };
            differing.map(line).chain(topic.problems.iter().cloned()).collect::<Vec<_>>()
        };
        self.topics.iter().flat_map(of_topic).collect()
    }

    /// What no setting can put right.
    fn find_problems(&mut self, config: &Config) {
        let changelog = self.partitions(Role::Changelog);
        let clicks = self.partitions(Role::Clicks);
        for topic in &mut self.topics {
            let (Some(partitions), Some(wanted)) = (topic.partitions, changelog) else { continue };
            let name = &topic.name;
            let problem = match topic.role {
                Role::Repartition if partitions != wanted => format!(
                    "topic {name} has {partitions} partitions, the changelog has {wanted}: they must be equal; delete the one that was made by \
                     mistake, or let everything be counted anew (clickmill reset)"
                ),
                Role::Closed if partitions != wanted => format!(
                    "topic {name} has {partitions} partitions, the changelog has {wanted}: final windows go to the partition of the same \
                     number; delete the topic, and clickmill topics --create creates it anew"
                ),
                Role::Changelog if config.clicks.keyed_by_ad && clicks.is_some_and(|clicks| clicks != partitions) => format!(
                    "topic {name} has {partitions} partitions, the clicks topic has {}: with clicks.keyed_by_ad they must be equal; count \
                     everything anew (clickmill reset)",
                    clicks.unwrap_or_default()
                ),
                Role::Clicks if topic.settings.iter().any(|setting| setting.verdict == Verdict::Differs) => format!(
                    "topic {name} is not the application's own, so --fix leaves it: kafka-configs --alter --entity-type topics --entity-name \
                     {name} --add-config {CLEANUP_POLICY}=delete"
                ),
                _ => continue,
            };
            topic.problems.push(problem);
        }
    }
}

#[cfg(test)]
#[path = "survey_tests.rs"]
mod tests;
