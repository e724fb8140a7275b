//! Lines that cannot be counted, one for each reason there is.

use rand::RngExt;

use super::{ClickGenerator, put};

/// 2100-01-01: further ahead of any arrival than `clicks.max_ahead` may sensibly allow.
const FAR_AHEAD_MS: i64 = 4_102_444_800_000;

/// An ad id may have 256 bytes.
const TOO_LONG: usize = 257;

impl ClickGenerator {
    /// Appends a line that is refused, or dead-lettered, whatever came before it.
    pub(super) fn write_bad(&mut self, timestamp: i64, out: &mut Vec<u8>) {
        let (ad, click, seed) = (self.next_ad(), self.written, self.seed);
        let id = format_args!("\"click_id\":\"c-{seed}-{click}\"");
        match self.rng.random_range(0..8) {
            0 => put(out, format_args!("{{{id},\"ad_id\":\"ad-{ad}\",\"timest\n")),
            1 => put(out, format_args!("{{{id},\"timestamp\":{timestamp}}}\n")),
            2 => put(out, format_args!("{{{id},\"ad_id\":\"\",\"timestamp\":{timestamp}}}\n")),
            3 => put(out, format_args!("{{{id},\"ad_id\":\"{}\",\"timestamp\":{timestamp}}}\n", "x".repeat(TOO_LONG))),
            4 => put(out, format_args!("{{{id},\"ad_id\":{ad},\"timestamp\":{timestamp}}}\n")),
            5 => put(out, format_args!("{{{id},\"ad_id\":\"ad-{ad}\",\"timestamp\":-{}}}\n", timestamp.max(1))),
            6 => put(out, format_args!("{{{id},\"ad_id\":\"ad-{ad}\",\"timestamp\":\"yesterday\"}}\n")),
            _ => put(out, format_args!("{{{id},\"ad_id\":\"ad-{ad}\",\"timestamp\":{FAR_AHEAD_MS}}}\n")),
        }
    }
}
