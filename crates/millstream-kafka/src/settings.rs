//! The settings that topics are created with.

use std::time::Duration;

use millstream::broker::TopicSettings;

/// Kafka's name for how long records are kept.
pub(crate) const RETENTION_MS: &str = "retention.ms";

/// Kafka's names for how far the timestamp of a record may lie before and after the broker's clock.
const TIMESTAMP_BEFORE_MAX_MS: &str = "message.timestamp.before.max.ms";
const TIMESTAMP_AFTER_MAX_MS: &str = "message.timestamp.after.max.ms";

/// Both in one: the only name that brokers before 3.6 know, and one that those before 4.0 still go by where
/// [`TIMESTAMP_BEFORE_MAX_MS`] is its default.
const TIMESTAMP_DIFFERENCE_MAX_MS: &str = "message.timestamp.difference.max.ms";

/// The same settings in the words of each generation of brokers, to be tried one after the other while the brokers refuse a name.
/// Those of today are the second.
pub(crate) fn wordings(settings: &[(String, String)]) -> Vec<Vec<(String, String)>> {
    let today: Vec<_> = settings.iter().filter(|(name, _)| name != TIMESTAMP_DIFFERENCE_MAX_MS).cloned().collect();
    let is_limit = |name: &str| [TIMESTAMP_BEFORE_MAX_MS, TIMESTAMP_AFTER_MAX_MS].contains(&name);
    let limits = today.iter().filter(|(name, _)| is_limit(name));
    let Some(widest) = limits.filter_map(|(_, value)| value.parse::<i64>().ok()).max() else { return vec![today] };
    let both = (TIMESTAMP_DIFFERENCE_MAX_MS.to_owned(), widest.to_string());
    let mut before_3_6: Vec<_> = today.iter().filter(|(name, _)| !is_limit(name)).cloned().collect();
    before_3_6.push(both.clone());
    let mut before_4 = today.clone();
    before_4.push(both);
    vec![before_4, today, before_3_6]
}

/// The value of [`RETENTION_MS`].
pub(crate) fn retention_ms(retention: Option<Duration>) -> i64 {
    retention.map_or(-1, |retention| retention.as_millis().try_into().unwrap_or(i64::MAX))
}

/// The configuration of a topic, as Kafka names it.
pub(crate) fn topic_settings(settings: &TopicSettings) -> Vec<(String, String)> {
    let retention_bytes = settings.retention_bytes.map_or(-1, |bytes| bytes.try_into().unwrap_or(i64::MAX));
    let mut all = vec![
        // Records that nobody needs any more are deleted by offset, which Kafka refuses where the policy is `compact` alone.
        ("cleanup.policy", if settings.compacted { "compact,delete" } else { "delete" }.to_owned()),
        ("message.timestamp.type", "CreateTime".to_owned()),
        // Brokers refuse, by default, what lies more than an hour ahead of them, and may refuse what is old: a commit would fail for ever.
        (TIMESTAMP_BEFORE_MAX_MS, i64::MAX.to_string()),
        (TIMESTAMP_AFTER_MAX_MS, i64::MAX.to_string()),
        (RETENTION_MS, retention_ms(settings.retention).to_string()),
        ("retention.bytes", retention_bytes.to_string()),
    ];
    if let Some(segment_bytes) = settings.segment_bytes {
        all.push(("segment.bytes", segment_bytes.to_string()));
    }
    all.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(settings: &TopicSettings, key: &str) -> Option<String> {
        topic_settings(settings).into_iter().find(|(found, _)| found == key).map(|(_, value)| value)
    }

    #[test]
    fn a_changelog_is_compacted_kept_and_can_be_trimmed() {
        let changelog = TopicSettings::compacted(4);
        assert_eq!(value(&changelog, "cleanup.policy").as_deref(), Some("compact,delete"));
        assert_eq!(value(&changelog, "retention.ms").as_deref(), Some("-1"));
    }

    #[test]
    fn a_topic_of_ours_takes_records_of_any_time() {
        for settings in [TopicSettings::compacted(1), TopicSettings::purged(1), TopicSettings::kept_for_ever(1)] {
            for name in ["message.timestamp.before.max.ms", "message.timestamp.after.max.ms"] {
                assert_eq!(value(&settings, name).as_deref(), Some("9223372036854775807"), "{name}");
            }
            assert_eq!(value(&settings, "message.timestamp.type").as_deref(), Some("CreateTime"));
        }
    }

    #[test]
    fn brokers_of_each_generation_are_told_the_limits_in_their_words() {
        let limits = |settings: &Vec<(String, String)>| {
            let is_limit = |name: &&str| name.starts_with("message.timestamp.") && name.ends_with("max.ms");
            settings.iter().map(|(name, _)| name.as_str()).filter(is_limit).map(str::to_owned).collect::<Vec<_>>()
        };
        let (before, after, both) =
            ("message.timestamp.before.max.ms", "message.timestamp.after.max.ms", "message.timestamp.difference.max.ms");
        let wordings = wordings(&topic_settings(&TopicSettings::compacted(4)));
        assert_eq!(wordings.iter().map(limits).collect::<Vec<_>>(), [vec![before, after, both], vec![before, after], vec![both]]);
        for settings in &wordings {
            assert!(settings.iter().any(|(name, _)| name == "cleanup.policy"));
            let open = |(name, value): &(String, String)| !name.ends_with("max.ms") || *value == i64::MAX.to_string();
            assert!(settings.iter().all(open), "{settings:?}");
        }
        let other = [("cleanup.policy".to_owned(), "delete".to_owned())];
        assert_eq!(super::wordings(&other), [other]);
    }

    #[test]
    fn a_repartition_topic_has_small_segments_so_that_room_is_given_back_soon() {
        assert_eq!(value(&TopicSettings::purged(4), "segment.bytes").as_deref(), Some("52428800"));
        assert_eq!(value(&TopicSettings::kept_for_ever(4), "segment.bytes"), None);
    }

    #[test]
    fn retention_is_what_was_asked_for() {
        let day = Some(Duration::from_secs(24 * 60 * 60));
        let kept = TopicSettings { retention: day, retention_bytes: Some(1 << 30), ..TopicSettings::kept_for_ever(1) };
        assert_eq!(value(&kept, "retention.ms").as_deref(), Some("86400000"));
        assert_eq!(value(&kept, "retention.bytes").as_deref(), Some("1073741824"));
    }
}
