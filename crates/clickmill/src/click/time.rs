//! Points in time as clients write them: epoch milliseconds or RFC 3339.

use millstream::record::Timestamp;

/// The last event time that is taken: RFC 3339 ends with the year 9999, and so does what can be answered.
pub const LAST_TIMESTAMP: Timestamp = Timestamp(253_402_207_200_000);

/// Why text or a number is no point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeError {
    /// Neither form.
    NeitherForm,
    /// Milliseconds with a fraction.
    Fraction,
    /// Before 1970.
    Negative,
    /// After [`LAST_TIMESTAMP`].
    OutOfRange,
}

/// The time that a JSON number stands for: whole milliseconds since 1970, in any notation of that number.
pub(crate) fn from_number(number: &str) -> Result<Timestamp, TimeError> {
    if let Ok(milliseconds) = number.parse::<i64>() {
        return in_range(milliseconds);
    }
    let value: f64 = number.parse().map_err(|_| TimeError::NeitherForm)?;
    if value.is_finite() && value.fract() != 0.0 {
        return Err(TimeError::Fraction);
    }
    // Saturates outside the range of i64, which is outside of ours too.
    in_range(value as i64)
}

/// The time that a text stands for: epoch milliseconds (digits, with a sign perhaps) or RFC 3339. Below a millisecond is cut off.
pub(crate) fn from_text(text: &str) -> Result<Timestamp, TimeError> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return from_number(text);
    }
    let time: jiff::Timestamp = text.parse().map_err(|_| TimeError::NeitherForm)?;
    if time < jiff::Timestamp::UNIX_EPOCH {
        return Err(TimeError::Negative);
    }
    in_range(time.as_millisecond())
}

fn in_range(milliseconds: i64) -> Result<Timestamp, TimeError> {
    match milliseconds {
        ..0 => Err(TimeError::Negative),
        _ if milliseconds > LAST_TIMESTAMP.0 => Err(TimeError::OutOfRange),
        _ => Ok(Timestamp(milliseconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers() {
        let ok = |ms| Ok(Timestamp(ms));
        assert_eq!(from_number("0"), ok(0));
        assert_eq!(from_number("-0"), ok(0));
        assert_eq!(from_number("1.7e12"), ok(1_700_000_000_000));
        assert_eq!(from_number("1700000000000.0"), ok(1_700_000_000_000));
        assert_eq!(from_number("1700000000000.5"), Err(TimeError::Fraction));
        assert_eq!(from_number("-1"), Err(TimeError::Negative));
        assert_eq!(from_number("-1e300"), Err(TimeError::Negative));
        assert_eq!(from_number("253402207200000"), ok(253_402_207_200_000));
        assert_eq!(from_number("253402207200001"), Err(TimeError::OutOfRange));
        assert_eq!(from_number("9223372036854775808"), Err(TimeError::OutOfRange));
        assert_eq!(from_number("1e999"), Err(TimeError::OutOfRange));
    }

    #[test]
    fn texts() {
        let ok = |ms| Ok(Timestamp(ms));
        assert_eq!(from_text("1700000000000"), ok(1_700_000_000_000));
        assert_eq!(from_text("2026-01-01T00:05:00.000Z"), ok(1_767_225_900_000));
        assert_eq!(from_text("2026-01-01T02:05:00.0019+02:00"), ok(1_767_225_900_001));
        assert_eq!(from_text("1969-12-31T23:59:59.9999Z"), Err(TimeError::Negative));
        assert_eq!(from_text("-5"), Err(TimeError::Negative));
        for neither in ["", "-", "now", "1.7e12", "2026-01-01", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z", " 1", "+1", "١"] {
            assert_eq!(from_text(neither), Err(TimeError::NeitherForm), "{neither:?}");
        }
    }

    proptest! {
        #[test]
        fn whole_milliseconds_are_read_exactly(ms in 0..=LAST_TIMESTAMP.0) {
            prop_assert_eq!(from_number(&ms.to_string()), Ok(Timestamp(ms)));
            prop_assert_eq!(from_number(&format!("{ms}.00")), Ok(Timestamp(ms)));
            prop_assert_eq!(from_text(&ms.to_string()), Ok(Timestamp(ms)));
            let rfc3339 = jiff::Timestamp::from_millisecond(ms).unwrap().to_string();
            prop_assert_eq!(from_text(&rfc3339), Ok(Timestamp(ms)));
        }

        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,40}") {
            let _ = (from_text(&text), from_number(&text));
        }
    }
}
