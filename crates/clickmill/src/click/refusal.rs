//! Why a record is no click.

use std::fmt;

/// The reason for which a record is refused: by the intake as the `reason` of its answer, by the engine as the `reason` header on the
/// dead-letter topic, in metrics by its [`Refusal::label`]. Texts and labels are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// The record has no value.
    NoValue,
    /// The record has no timestamp of its own (a negative one), so that nothing can be said of the event's.
    NoRecordTimestamp,
    /// The value is not UTF-8.
    NotUtf8,
    /// The value is not one JSON object.
    NotAnObject,
    /// The value nests too deep.
    TooDeep,
    /// There is no ad id, or it is null.
    AdIdMissing,
    /// The ad id is something else.
    AdIdNotAString,
    /// The ad id has no bytes.
    AdIdEmpty,
    /// The ad id has too many bytes.
    AdIdTooLong,
    /// The ad id holds half of a surrogate pair.
    AdIdNotUnicode,
    /// The timestamp is in neither form.
    TimestampUnreadable,
    /// The timestamp is a number with a fraction.
    TimestampFraction,
    /// The timestamp lies before 1970.
    TimestampNegative,
    /// The timestamp lies after the year 9999.
    TimestampOutOfRange,
    /// The event lies further past the record's own timestamp than `max_ahead`.
    TimestampAhead,
    /// The record would be larger than the clicks topic takes.
    TooLarge,
    /// The click id is something else than a string.
    ClickIdNotAString,
    /// The click id holds half of a surrogate pair.
    ClickIdNotUnicode,
}

impl Refusal {
    /// Every reason there is.
    pub const ALL: [Refusal; 18] = [
        Refusal::NoValue,
        Refusal::NoRecordTimestamp,
        Refusal::NotUtf8,
        Refusal::NotAnObject,
        Refusal::TooDeep,
        Refusal::AdIdMissing,
        Refusal::AdIdNotAString,
        Refusal::AdIdEmpty,
        Refusal::AdIdTooLong,
        Refusal::AdIdNotUnicode,
        Refusal::TimestampUnreadable,
        Refusal::TimestampFraction,
        Refusal::TimestampNegative,
        Refusal::TimestampOutOfRange,
        Refusal::TimestampAhead,
        Refusal::TooLarge,
        Refusal::ClickIdNotAString,
        Refusal::ClickIdNotUnicode,
    ];

    /// The reason in words.
    pub const fn text(self) -> &'static str {
        self.words().1
    }

    /// The reason in short, as a label of metrics.
    pub const fn label(self) -> &'static str {
        self.words().0
    }

    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Refusal::NoValue => ("no_value", "the record has no value"),
            Refusal::NoRecordTimestamp => ("no_record_timestamp", "the record has no timestamp"),
            Refusal::NotUtf8 => ("not_utf8", "not UTF-8"),
            Refusal::NotAnObject => ("not_an_object", "not a JSON object"),
            Refusal::TooDeep => ("too_deep", "nested deeper than 128 levels"),
            Refusal::AdIdMissing => ("ad_id_missing", "ad_id is missing"),
            Refusal::AdIdNotAString => ("ad_id_not_a_string", "ad_id is not a string"),
            Refusal::AdIdEmpty => ("ad_id_empty", "ad_id is empty"),
            Refusal::AdIdTooLong => ("ad_id_too_long", "ad_id is longer than 256 bytes"),
            Refusal::AdIdNotUnicode => ("ad_id_not_unicode", "ad_id is not valid Unicode"),
            Refusal::TimestampUnreadable => {
                ("timestamp_unreadable", "timestamp is neither epoch milliseconds nor RFC 3339 with an offset")
            }
            Refusal::TimestampFraction => ("timestamp_fraction", "timestamp is not a whole number of milliseconds"),
            Refusal::TimestampNegative => ("timestamp_negative", "timestamp is negative"),
            Refusal::TimestampOutOfRange => ("timestamp_out_of_range", "timestamp is past the year 9999"),
            Refusal::TimestampAhead => ("timestamp_ahead", "timestamp is too far ahead of the record's own"),
            Refusal::TooLarge => ("too_large", "larger than the clicks topic takes"),
            Refusal::ClickIdNotAString => ("click_id_not_a_string", "click_id is not a string"),
            Refusal::ClickIdNotUnicode => ("click_id_not_unicode", "click_id is not valid Unicode"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_reason_has_words_of_its_own() {
        assert_eq!(Refusal::ALL.iter().map(|r| r.label()).collect::<HashSet<_>>().len(), Refusal::ALL.len());
        assert_eq!(Refusal::ALL.iter().map(|r| r.text()).collect::<HashSet<_>>().len(), Refusal::ALL.len());
    }
}
