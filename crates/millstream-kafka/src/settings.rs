//! The settings that topics are created with.

use std::time::Duration;

use millstream::broker::TopicSettings;

/// Kafka's name for how long records are kept.
pub(crate) const RETENTION_MS: &str = "retention.ms";

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
        // Brokers refuse, by default, what lies more than an hour ahead of them, and a commit would fail for ever.
        ("message.timestamp.after.max.ms", i64::MAX.to_string()),
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
        assert_eq!(value(&changelog, "message.timestamp.after.max.ms").as_deref(), Some("9223372036854775807"));
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
