//! Generated clicks: the same seed gives the same bytes.

mod bad;
mod schedule;

use std::io::Write;
use std::time::Duration;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Zipf};

pub use schedule::{EventTimes, Pace};

/// What the clicks are like.
#[derive(Debug, Clone, PartialEq)]
pub struct Traffic {
    /// Decides everything that is random.
    pub seed: u64,
    /// How many ads there are: `ad-1` to `ad-N`, most clicked first.
    pub ads: u64,
    /// The exponent of Zipf's law: ad k gets clicks in proportion to 1 / k^zipf. 0 treats all ads alike.
    pub zipf: f64,
    /// How far event times are out of order: each is set back by up to this.
    pub disorder: Duration,
    /// The share of late clicks, 0 to 1.
    pub late: f64,
    /// How far late clicks are set back: from once to twice this.
    pub late_by: Duration,
    /// The share of clicks that cannot be counted, 0 to 1.
    pub bad: f64,
}

/// Traffic that cannot be generated. The message names the value and what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrafficError {
    /// No ads, or more than can be told apart.
    #[error("ads must be from 1 to 2^52")]
    Ads,
    /// An exponent that no law has.
    #[error("zipf must be a number from 0 to 100")]
    Zipf,
    /// Shares that are no shares.
    #[error("late and bad must be shares from 0 to 1, together at most 1")]
    Shares,
}

/// What a generated click is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generated {
    /// A click near the event time asked for.
    Click,
    /// A click set back far enough to be late.
    Late,
    /// A line that is not a click that can be counted.
    Bad,
}

/// The most ads: whole numbers beyond this are not all floating-point numbers.
const MAX_ADS: u64 = 1 << 52;
const MAX_ZIPF: f64 = 100.0;

const USERS: u64 = 1_000_000;
const CAMPAIGNS: u64 = 500;
const PAGES: u64 = 20_000;
const COUNTRIES: [&str; 8] = ["DE", "FR", "US", "GB", "IN", "JP", "BR", "PL"];
const USER_AGENTS: [&str; 4] = [
    "Mozilla/5.0 (X11; Linux x86_64)",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1)",
    "Mozilla/5.0 (Windows NT 10.0; Win64)",
    "Mozilla/5.0 (Linux; Android 15; Pixel 9)",
];

/// Writes clicks, one JSON object a line.
#[derive(Debug, Clone)]
pub struct ClickGenerator {
    rng: ChaCha8Rng,
    ad_ranks: Zipf<f64>,
    seed: u64,
    written: u64,
    disorder_ms: i64,
    late_by_ms: i64,
    late: f64,
    bad: f64,
}

impl ClickGenerator {
    /// A generator at its first click.
    ///
    /// # Errors
    /// A value of the traffic is out of its range.
    pub fn new(traffic: &Traffic) -> Result<Self, TrafficError> {
        if !(1..=MAX_ADS).contains(&traffic.ads) {
            return Err(TrafficError::Ads);
        }
        if !(0.0..=MAX_ZIPF).contains(&traffic.zipf) {
            return Err(TrafficError::Zipf);
        }
        let (late, bad) = (traffic.late, traffic.bad);
        let shares = (0.0..=1.0).contains(&late) && (0.0..=1.0).contains(&bad) && late + bad <= 1.0;
        if !shares {
            return Err(TrafficError::Shares);
        }
        let ad_ranks = Zipf::new(traffic.ads as f64, traffic.zipf).map_err(|_| TrafficError::Zipf)?;
        let (disorder_ms, late_by_ms) = (milliseconds(traffic.disorder), milliseconds(traffic.late_by));
        let rng = ChaCha8Rng::seed_from_u64(traffic.seed);
        Ok(Self { rng, ad_ranks, seed: traffic.seed, written: 0, disorder_ms, late_by_ms, late, bad })
    }

    /// Appends the next line, whose event time lies at `event_time_ms` (since the epoch) or before.
    pub fn write_click(&mut self, event_time_ms: i64, out: &mut Vec<u8>) -> Generated {
        self.written += 1;
        let share = self.rng.random::<f64>();
        if share < self.bad {
            self.write_bad(event_time_ms, out);
            return Generated::Bad;
        }
        let late = share < self.bad + self.late;
        let set_back = if late { self.late_by_ms + self.up_to(self.late_by_ms) } else { self.up_to(self.disorder_ms) };
        self.write_good((event_time_ms - set_back).max(0), out);
        if late { Generated::Late } else { Generated::Click }
    }

    fn up_to(&mut self, longest_ms: i64) -> i64 {
        if longest_ms == 0 { 0 } else { self.rng.random_range(0..=longest_ms) }
    }

    fn next_ad(&mut self) -> u64 {
        self.ad_ranks.sample(&mut self.rng) as u64
    }

    fn write_good(&mut self, timestamp: i64, out: &mut Vec<u8>) {
        let (ad, click) = (self.next_ad(), self.written);
        let (seed, rest) = (self.seed, Rest::draw(&mut self.rng));
        put(out, format_args!("{{\"click_id\":\"c-{seed}-{click}\",\"ad_id\":\"ad-{ad}\",\"timestamp\":{timestamp},{rest}}}\n"));
    }
}

/// The fields that nobody counts by, and their closing order: they make a click as long as clicks are.
struct Rest {
    user: u64,
    campaign: u64,
    page: u64,
    country: &'static str,
    user_agent: &'static str,
}

impl Rest {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        // One draw for all of them: remainders of one large number are as good as independent here.
        let bits = rng.next_u64();
        Self {
            user: bits % USERS,
            campaign: (bits >> 24) % CAMPAIGNS,
            page: (bits >> 34) % PAGES,
            country: COUNTRIES[(bits >> 56) as usize % COUNTRIES.len()],
            user_agent: USER_AGENTS[(bits >> 60) as usize % USER_AGENTS.len()],
        }
    }
}

impl std::fmt::Display for Rest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { user, campaign, page, country, user_agent } = self;
        write!(f, "\"user_id\":\"u-{user}\",\"campaign\":\"campaign-{campaign}\",\"url\":\"https://shop.example/p/{page}\",")?;
        write!(f, "\"country\":\"{country}\",\"user_agent\":\"{user_agent}\"")
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to memory does not fail");
}

fn milliseconds(duration: Duration) -> i64 {
    duration.as_millis().try_into().unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests;
