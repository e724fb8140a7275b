//! Clicks: what the engine reads out of a record of the clicks topic, without copying it.

mod json;
mod refusal;
mod text;
mod time;

use std::borrow::Cow;
use std::time::Duration;

use millstream::record::{Record, Timestamp};

pub(crate) use json::{JsonError, array_elements};
pub use refusal::Refusal;
pub use time::LAST_TIMESTAMP;
pub(crate) use time::{TimeError, from_text as time_from_text};

use crate::config::ClicksConfig;
use json::Value;

/// The longest ad id, in bytes of UTF-8.
pub const MAX_AD_ID_BYTES: usize = 256;

/// A click, borrowed from its record unless an escape in the JSON forces a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Click<'r> {
    /// The ad that was clicked: 1 to [`MAX_AD_ID_BYTES`] bytes.
    pub ad_id: Cow<'r, str>,
    /// When it was clicked: event time, from 0 to [`LAST_TIMESTAMP`].
    pub timestamp: Timestamp,
    /// The click's own id, carried and not interpreted.
    pub click_id: Option<Cow<'r, str>>,
}

/// Where event time comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TimestampSource {
    /// The click's timestamp field; the record's own timestamp where the field is absent.
    #[default]
    Field,
    /// The record's own timestamp. The field is not looked at.
    Record,
}

/// The names of the fields of a click.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClickFields {
    /// The field of the ad id.
    pub ad_id: String,
    /// The field of event time.
    pub timestamp: String,
    /// The field of the click's own id.
    pub click_id: String,
}

impl Default for ClickFields {
    fn default() -> Self {
        Self { ad_id: "ad_id".into(), timestamp: "timestamp".into(), click_id: "click_id".into() }
    }
}

impl From<&ClicksConfig> for ClickDecoder {
    fn from(config: &ClicksConfig) -> Self {
        let fields = ClickFields {
            ad_id: config.ad_id_field.clone(),
            timestamp: config.timestamp_field.clone(),
            click_id: config.click_id_field.clone(),
        };
        Self::new(fields, config.timestamp_source, config.max_ahead)
    }
}

/// Reads clicks out of records. What it says of a record depends on that record and this configuration alone, so that a replay says
/// the same.
///
/// The value is one JSON object (RFC 8259, UTF-8 without a byte order mark, at most 128 levels deep). Of a field that comes twice the
/// last one counts. A field that is null is absent. Fields other than the three may hold anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClickDecoder {
    fields: ClickFields,
    timestamp_source: TimestampSource,
    max_ahead_ms: i64,
}

impl ClickDecoder {
    /// A decoder for clicks with those fields. An event further than `max_ahead` past its record's own timestamp is refused: one bad
    /// clock must not close the windows of all.
    pub fn new(fields: ClickFields, timestamp_source: TimestampSource, max_ahead: Duration) -> Self {
        Self { fields, timestamp_source, max_ahead_ms: i64::try_from(max_ahead.as_millis()).unwrap_or(i64::MAX) }
    }

    /// The click that a record of the clicks topic holds.
    ///
    /// # Errors
    /// The reason for which it is none.
    pub fn decode_record<'r>(&self, record: &Record<'r>) -> Result<Click<'r>, Refusal> {
        self.decode(record.value.ok_or(Refusal::NoValue)?, record.timestamp)
    }

    /// The click in a record's value, given the record's own timestamp.
    ///
    /// # Errors
    /// The reason for which it is none: what is wrong with the JSON first, then with the ad id, event time and click id.
    pub fn decode<'r>(&self, value: &'r [u8], record_timestamp: Timestamp) -> Result<Click<'r>, Refusal> {
        let text = std::str::from_utf8(value).map_err(|_| Refusal::NotUtf8)?;
        let (mut ad_id, mut timestamp, mut click_id) = (Value::Null, Value::Null, Value::Null);
        let scanned = json::for_each_field(text, |name, value| {
            if name.is(&self.fields.ad_id) {
                ad_id = value;
            }
            if name.is(&self.fields.timestamp) {
                timestamp = value;
            }
            if name.is(&self.fields.click_id) {
                click_id = value;
            }
        });
        scanned.map_err(|error| match error {
            JsonError::Malformed => Refusal::NotAnObject,
            JsonError::TooDeep => Refusal::TooDeep,
        })?;
        Ok(Click {
            ad_id: read_ad_id(ad_id)?,
            timestamp: self.event_time(timestamp, record_timestamp)?,
            click_id: read_click_id(click_id)?,
        })
    }

    #[inline]
    fn event_time(&self, field: Value<'_>, record_timestamp: Timestamp) -> Result<Timestamp, Refusal> {
        if record_timestamp.0 < 0 {
            return Err(Refusal::NoRecordTimestamp);
        }
        let read = match (self.timestamp_source, field) {
            (TimestampSource::Record, _) | (TimestampSource::Field, Value::Null) => Ok(record_timestamp),
            (TimestampSource::Field, Value::Number(number)) => time::from_number(number),
            (TimestampSource::Field, Value::String(text)) => {
                text.unescape().ok_or(TimeError::NeitherForm).and_then(|text| time::from_text(&text))
            }
            (TimestampSource::Field, Value::Other) => Err(TimeError::NeitherForm),
        };
        let timestamp = read.map_err(|error| match error {
            TimeError::NeitherForm => Refusal::TimestampUnreadable,
            TimeError::Fraction => Refusal::TimestampFraction,
            TimeError::Negative => Refusal::TimestampNegative,
            TimeError::OutOfRange => Refusal::TimestampOutOfRange,
        })?;
        if timestamp > LAST_TIMESTAMP {
            return Err(Refusal::TimestampOutOfRange);
        }
        if timestamp.0 > record_timestamp.0.saturating_add(self.max_ahead_ms) {
            return Err(Refusal::TimestampAhead);
        }
        Ok(timestamp)
    }
}

#[inline]
fn read_ad_id(value: Value<'_>) -> Result<Cow<'_, str>, Refusal> {
    let text = match value {
        Value::Null => return Err(Refusal::AdIdMissing),
        Value::String(text) => text,
        Value::Number(_) | Value::Other => return Err(Refusal::AdIdNotAString),
    };
    let ad_id = text.unescape().ok_or(Refusal::AdIdNotUnicode)?;
    match ad_id.len() {
        0 => Err(Refusal::AdIdEmpty),
        1..=MAX_AD_ID_BYTES => Ok(ad_id),
        _ => Err(Refusal::AdIdTooLong),
    }
}

#[inline]
fn read_click_id(value: Value<'_>) -> Result<Option<Cow<'_, str>>, Refusal> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => text.unescape().map(Some).ok_or(Refusal::ClickIdNotUnicode),
        Value::Number(_) | Value::Other => Err(Refusal::ClickIdNotAString),
    }
}

#[cfg(test)]
mod tests;
