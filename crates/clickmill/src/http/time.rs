//! Points in time as the API writes them.

use std::fmt;

use jiff::fmt::temporal::DateTimePrinter;
use millstream::record::Timestamp;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

/// A point in time: RFC 3339 in UTC with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-01-01T00:05:00.000Z")]
pub(super) struct Time(pub(super) Timestamp);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));
        // The widened end of a period may lie past the last year that RFC 3339 has.
        let time = jiff::Timestamp::from_millisecond(self.0.0).unwrap_or(jiff::Timestamp::MAX);
        f.write_str(&PRINTER.timestamp_to_string(&time))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_utc_with_milliseconds() {
        assert_eq!(Time(Timestamp(1_767_225_900_000)).to_string(), "2026-01-01T00:05:00.000Z");
        assert_eq!(Time(Timestamp(7)).to_string(), "1970-01-01T00:00:00.007Z");
        assert_eq!(&Time(Timestamp(i64::MAX)).to_string()[..4], "9999");
    }
}
