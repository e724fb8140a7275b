//! The period of a query: from how it is asked for to whole windows.

use std::time::Duration;

use millstream::query::{CountQueries, Period};
use millstream::record::Timestamp;

use super::problem::{Problem, ProblemKind};
use super::time::Time;
use crate::click::{LAST_TIMESTAMP, TimeError, time_from_text};

/// How long a period is whose `from` nobody named.
const DEFAULT_PERIOD_MS: i64 = 3_600_000;

/// The period that `from` and `to` ask for, widened to whole windows.
///
/// # Errors
/// They cannot be read, are the wrong way round, too far apart, or reach back before what is kept.
pub(super) fn resolve(
    from: Option<&str>,
    to: Option<&str>,
    now: Timestamp,
    queries: &dyn CountQueries,
    longest: Duration,
) -> Result<Period, Problem> {
    let to = to.map_or(Ok(now), |text| read("to", text, now))?;
    let from = from.map_or(Ok(Timestamp((to.0 - DEFAULT_PERIOD_MS).max(0))), |text| read("from", text, now))?;
    if from >= to {
        return Err(Problem::parameter("from", format_args!("{} is not before to, {}", Time(from), Time(to))));
    }
    if let Some(earliest) = queries.earliest(now).filter(|earliest| from < *earliest) {
        return Err(Problem::period_too_early(from, earliest));
    }
    if (to.0 - from.0) as u128 > longest.as_millis() {
        let detail = format!("{} ms asked for in one query, {} ms is the limit", to.0 - from.0, longest.as_millis());
        return Err(Problem::new(ProblemKind::PeriodTooLong, detail));
    }
    let (from, to) = queries.windows().widen(from, to);
    Ok(Period { from, to })
}

/// A time parameter: `now`, an offset from it, or a point in time.
fn read(name: &str, text: &str, now: Timestamp) -> Result<Timestamp, Problem> {
    if text == "now" {
        return Ok(now);
    }
    if let Some(ago_ms) = offset_ms(text) {
        return Ok(Timestamp(now.0.saturating_sub(ago_ms).max(0)));
    }
    time_from_text(text).map_err(|error| {
        let reason = match error {
            TimeError::NeitherForm | TimeError::Fraction => {
                "is neither RFC 3339, epoch milliseconds, now, nor an offset such as -15m"
            }
            TimeError::Negative => "lies before 1970",
            TimeError::OutOfRange => "lies after the year 9999",
        };
        Problem::parameter(name, format_args!("{text:?} {reason}"))
    })
}

/// The length of an offset such as `-15m`; none where the text is none.
fn offset_ms(text: &str) -> Option<i64> {
    let text = text.strip_prefix('-')?;
    let unit_ms = match text.bytes().last()? {
        b's' => 1_000,
        b'm' => 60_000,
        b'h' => 3_600_000,
        b'd' => 86_400_000,
        _ => return None,
    };
    let number = &text[..text.len() - 1];
    let is_digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_digits.then(|| number.parse().unwrap_or(LAST_TIMESTAMP.0).saturating_mul(unit_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn offsets() {
        assert_eq!(offset_ms("-15m"), Some(900_000));
        assert_eq!(offset_ms("-1h"), Some(3_600_000));
        assert_eq!(offset_ms("-7d"), Some(604_800_000));
        assert_eq!(offset_ms("-90s"), Some(90_000));
        assert_eq!(offset_ms("-99999999999999999999d"), Some(i64::MAX));
        for none in ["", "-", "-m", "15m", "-15", "--1m", "-1.5h", "-+1m", "-1é"] {
            assert_eq!(offset_ms(none), None, "{none:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[-0-9a-z:.Z]{0,30}|\\PC{0,12}", now in 0..LAST_TIMESTAMP.0) {
            if let Ok(time) = read("from", &text, Timestamp(now)) {
                prop_assert!((0..=LAST_TIMESTAMP.0).contains(&time.0));
            }
        }
    }
}
