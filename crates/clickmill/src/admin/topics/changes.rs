//! Topics created and set right.

use millstream_kafka::KafkaBroker;

use super::Role;
use super::expected::Expected;
use super::survey::{Survey, TopicReport, Verdict};
use crate::config::Config;

/// Creates the clicks topic where it is missing. Says what was done, in a line each.
///
/// # Errors
/// Where it cannot be created.
pub fn create_clicks_topic(broker: &KafkaBroker, config: &Config, survey: &Survey) -> anyhow::Result<Vec<String>> {
    let missing =
        survey.topics.iter().zip(&survey.expected).find(|(topic, _)| topic.role == Role::Clicks && topic.partitions.is_none());
    let Some((topic, expected)) = missing else { return Ok(Vec::new()) };
    Ok(vec![create(broker, topic, config.clicks.partitions, expected)?])
}

/// Creates those of the application's own topics that are missing. Says what was done, in a line each.
///
/// # Errors
/// Where the clicks topic is missing, by which it is known how many partitions they have, or one cannot be created.
pub fn create_missing(broker: &KafkaBroker, survey: &Survey) -> anyhow::Result<Vec<String>> {
    let clicks = survey.clicks_partitions()?;
    // Changelog and repartition topic keep their number for life, whatever becomes of the clicks topic.
    let kept = survey.partitions(Role::Changelog).or_else(|| survey.partitions(Role::Repartition)).unwrap_or(clicks);
    let mut created = Vec::new();
    for (topic, expected) in survey.topics.iter().zip(&survey.expected).filter(|(topic, _)| topic.partitions.is_none()) {
        let partitions = if matches!(topic.role, Role::Late | Role::DeadLetter) { clicks } else { kept };
        created.push(create(broker, topic, partitions, expected)?);
    }
    Ok(created)
}

/// Sets the settings of the application's own topics that differ. Says what was done, in a line each.
///
/// # Errors
/// Where one cannot be changed.
pub fn fix(broker: &KafkaBroker, survey: &Survey) -> anyhow::Result<Vec<String>> {
    let mut fixed = Vec::new();
    for topic in survey.topics.iter().filter(|topic| topic.role != Role::Clicks) {
        let differing: Vec<_> = topic.settings.iter().filter(|setting| setting.verdict == Verdict::Differs).collect();
        if differing.is_empty() {
            continue;
        }
        let settings: Vec<_> = differing.iter().map(|setting| (setting.name.as_str(), setting.wanted.clone())).collect();
        broker.alter_topic_config(&topic.name, &settings)?;
        fixed.extend(differing.iter().map(|setting| {
            let before = setting.found.as_deref().unwrap_or_default();
            format!("topic {}: {} is {} now, was {before}", topic.name, setting.name, setting.wanted)
        }));
    }
    Ok(fixed)
}

fn create(broker: &KafkaBroker, topic: &TopicReport, partitions: u32, expected: &[Expected]) -> anyhow::Result<String> {
    let settings: Vec<_> = expected.iter().map(|setting| (setting.name.clone(), setting.value.clone())).collect();
    broker.create_topic_with(&topic.name, partitions, &settings)?;
    Ok(format!("topic {} is created with {partitions} partitions", topic.name))
}
