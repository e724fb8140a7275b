//! Durations and sizes as people write them: `100ms`, `5m`, `7d`, `64KiB`, `1GiB`.

use std::time::Duration;

/// What a duration may look like, for error messages.
pub(crate) const DURATION_FORM: &str = "a whole number with a unit: ms, s, m, h or d, such as 15m";

/// What a size may look like, for error messages.
pub(crate) const SIZE_FORM: &str = "a whole number with a unit: B, KiB, MiB, GiB or TiB, such as 64MiB";

const DURATION_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE_UNITS: [(&str, u64); 5] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// Longer durations are mistakes, and their milliseconds would not add up to a timestamp safely.
const MAX_DURATION_MS: u64 = 100 * 365 * 86_400_000;

/// The duration written so, or none. At most a hundred years.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let ms = parse_with_unit(text, &DURATION_UNITS)?;
    (ms <= MAX_DURATION_MS).then(|| Duration::from_millis(ms))
}

/// The number of bytes written so, or none.
pub fn parse_size(text: &str) -> Option<u64> {
    parse_with_unit(text, &SIZE_UNITS).filter(|bytes| i64::try_from(*bytes).is_ok())
}

/// The duration in the largest unit that needs no fraction; what is below a millisecond is cut.
pub fn format_duration(duration: Duration) -> String {
    format_with_unit(duration.as_millis().try_into().unwrap_or(u64::MAX), "0s", &DURATION_UNITS)
}

/// The size in the largest unit that needs no fraction.
pub fn format_size(bytes: u64) -> String {
    format_with_unit(bytes, "0B", &SIZE_UNITS)
}

fn parse_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.checked_mul(*factor)
}

fn format_with_unit(amount: u64, zero: &str, units: &[(&str, u64)]) -> String {
    let largest = units.iter().rev().find(|(_, factor)| amount > 0 && amount.is_multiple_of(*factor));
    largest.map_or_else(|| zero.to_owned(), |(name, factor)| format!("{}{name}", amount / factor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_and_sizes_are_read() {
        assert_eq!(parse_duration("100ms"), Some(Duration::from_millis(100)));
        assert_eq!(parse_duration("15 m"), Some(Duration::from_secs(900)));
        assert_eq!(parse_duration("7d"), Some(Duration::from_secs(7 * 86_400)));
        assert_eq!(parse_duration("0s"), Some(Duration::ZERO));
        assert_eq!(parse_size("1GiB"), Some(1 << 30));
        assert_eq!(parse_size("512B"), Some(512));
    }

    #[test]
    fn what_is_not_one_is_refused() {
        for text in ["", "5", "m", "-5m", "1.5h", "5 minutes", "5M", "99999999999999999999d", "40000d", "٣m"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        for text in ["", "5", "1GB", "-1MiB", "99999999TiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(ms in 0..MAX_DURATION_MS, bytes in 0..i64::MAX as u64) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
            prop_assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
        }
    }
}
