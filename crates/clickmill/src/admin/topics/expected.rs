//! How each topic should be set, and what it risks where it is not.

use std::collections::BTreeMap;

use millstream::broker::TopicSettings;
use millstream_kafka::KafkaBroker;

use super::{AppTopic, Role};
use crate::config::Config;

pub(super) const CLEANUP_POLICY: &str = "cleanup.policy";
pub(super) const RETENTION_MS: &str = "retention.ms";
pub(super) const RETENTION_BYTES: &str = "retention.bytes";
pub(super) const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
pub(super) const TIMESTAMP_AFTER_MAX_MS: &str = "message.timestamp.after.max.ms";
const TIMESTAMP_BEFORE_MAX_MS: &str = "message.timestamp.before.max.ms";
pub(super) const TIMESTAMP_DIFFERENCE_MAX_MS: &str = "message.timestamp.difference.max.ms";
const TIMESTAMP_TYPE: &str = "message.timestamp.type";
const SEGMENT_BYTES: &str = "segment.bytes";

/// What headers and framing add to a click on the late and dead-letter topics, at most.
const BYTES_ADDED: i64 = 64 << 10;

/// The settings in effect of a topic.
pub(super) type Found = BTreeMap<String, String>;

/// A setting as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) name: String,
    pub(super) value: String,
    /// Whether a larger number is as good.
    pub(super) at_least: bool,
    /// What another value risks.
    pub(super) risk: &'static str,
}

/// The settings that a topic should have. `clicks` is what the clicks topic has, where there is one.
pub(super) fn expected(topic: &AppTopic, config: &Config, clicks: Option<&Found>) -> Vec<Expected> {
    let base = |partitions| match topic.role {
        Role::Changelog => TopicSettings::compacted(partitions),
        Role::Repartition => TopicSettings::purged(partitions),
        Role::Closed | Role::Late | Role::DeadLetter | Role::Clicks => TopicSettings::kept_for_ever(partitions),
    };
    let settings = KafkaBroker::settings_of(&TopicSettings { retention: topic.retention, ..base(1) });
    let mut all: Vec<_> = settings.into_iter().map(|(name, value)| of_role(topic.role, name, value)).collect();
    if topic.role != Role::Clicks {
        all.push(of_role(topic.role, TIMESTAMP_DIFFERENCE_MAX_MS.to_owned(), i64::MAX.to_string()));
    }
    if topic.role == Role::Clicks {
        // How long clicks are kept, and in which pieces, is the business of who owns the topic.
        all.retain(|setting| [CLEANUP_POLICY, TIMESTAMP_AFTER_MAX_MS].contains(&setting.name.as_str()));
        for setting in all.iter_mut().filter(|setting| setting.name == TIMESTAMP_AFTER_MAX_MS) {
            setting.value = config.clicks.max_ahead.as_millis().to_string();
        }
    }
    if let (Role::Late | Role::DeadLetter, Some(largest)) = (topic.role, clicks.and_then(largest_click)) {
        let value = largest.saturating_add(BYTES_ADDED).min(i64::from(i32::MAX)).to_string();
        let setting = of_role(topic.role, MAX_MESSAGE_BYTES.to_owned(), value);
        all.push(Expected { at_least: true, ..setting });
    }
    all
}

/// The largest record batch that the clicks topic takes.
pub(super) fn largest_click(clicks: &Found) -> Option<i64> {
    clicks.get(MAX_MESSAGE_BYTES)?.parse().ok()
}

fn of_role(role: Role, name: String, value: String) -> Expected {
    let risk = risk(role, &name);
    Expected { name, value, at_least: false, risk }
}

fn risk(role: Role, setting: &str) -> &'static str {
    match (role, setting) {
        (Role::Clicks, CLEANUP_POLICY) => "compaction deletes clicks with the key of a later one before they are counted",
        (Role::Changelog, CLEANUP_POLICY) => {
            "with delete alone it grows with every change; with compact alone the counts of expired windows cannot be deleted"
        }
        (Role::Changelog, RETENTION_MS | RETENTION_BYTES) => {
            "brokers delete counts that are still needed, by event time and their own clock: a restore would not find them"
        }
        (Role::Repartition, CLEANUP_POLICY) => "compaction deletes partial counts before they are counted",
        (Role::Repartition, RETENTION_MS | RETENTION_BYTES) => {
            "brokers delete partial counts before they are counted, by event time and their own clock"
        }
        (_, CLEANUP_POLICY) => "compaction deletes records with the key of a later one",
        (_, RETENTION_MS | RETENTION_BYTES) => "records are kept for another time than configured",
        (Role::Clicks, TIMESTAMP_AFTER_MAX_MS) => {
            "clicks ahead of time are refused by the brokers, or dead-lettered here, as the smaller says"
        }
        (_, TIMESTAMP_AFTER_MAX_MS) => {
            "brokers refuse a record of a click that is ahead of their clock, and no commit succeeds any more"
        }
        (_, TIMESTAMP_BEFORE_MAX_MS | TIMESTAMP_DIFFERENCE_MAX_MS) => {
            "brokers refuse a record of a click that is older by their clock, and no commit succeeds any more"
        }
        (Role::Changelog, TIMESTAMP_TYPE) => "the event time of counts is lost when they are restored",
        (_, TIMESTAMP_TYPE) => "the time of the original click is lost",
        (_, SEGMENT_BYTES) => "room on the brokers' disks is given back later than it could be",
        (_, MAX_MESSAGE_BYTES) => "a large click that cannot be counted does not fit, and no commit succeeds any more",
        _ => "it is not as it was made",
    }
}

/// Whether brokers would delete what state or counts are still made from, whatever each setting by itself says.
pub(super) fn loses_state(role: Role, setting: &str, found: &Found) -> bool {
    let value = |name: &str| found.get(name).map_or("", String::as_str);
    let deletes = value(CLEANUP_POLICY).split(',').any(|policy| policy.trim() == "delete");
    let compacts = value(CLEANUP_POLICY).split(',').any(|policy| policy.trim() == "compact");
    match (role, setting) {
        (Role::Changelog | Role::Repartition, RETENTION_MS | RETENTION_BYTES) => deletes && value(setting) != "-1",
        (Role::Repartition, CLEANUP_POLICY) => compacts,
        _ => false,
    }
}
