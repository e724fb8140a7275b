//! `clickmill generate`: clicks to try the service with.

mod sink;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;
use jiff::Timestamp;

use crate::client::Patience;
use crate::config::{format_duration, parse_duration};
use crate::generate::{ClickGenerator, EventTimes, Generated, Pace, Traffic};

use super::error::CommandError;
use super::progress::{self, Waiting};
use super::server::ServerArgs;
use sink::Sink;

/// Generate clicks and send them to the service, or write them to a file.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clickmill generate --rate 1000                          live clicks until Ctrl-C
  clickmill generate --count 1000000 --span 1h            a million clicks spread over the last hour
  clickmill generate --count 10000000 --ads 1000000 --start 2026-01-01T00:00:00Z --span 6h \\
                     --disorder 30s --late 0.01 --bad 0.001 --seed 7 --out clicks.ndjson.zst

A bad click is one of: JSON broken off; ad_id missing, empty, too long or a number; a timestamp
that is negative, not a time, or in the year 2100. The same seed with the same options gives the
same bytes where --start is a fixed time.

On Kafka the service keeps no idempotency keys: clicks whose answer was lost may be stored or not.
They are not sent again; it says how many they are, and goes on.")]
pub(super) struct GenerateArgs {
    /// Clicks a second [default: as fast as possible]
    #[arg(long, value_name = "N", value_parser = positive)]
    rate: Option<f64>,
    /// How many clicks [default: without end]
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// How many ads: ad-1 to ad-N, most clicked first
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    ads: u64,
    /// The exponent of Zipf's law; 0 treats all ads alike
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    zipf: f64,
    /// Event time of the first click: RFC 3339, epoch milliseconds, `now`, or an offset such as -1h [default: live]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    start: Option<String>,
    /// Spread the event times of all clicks evenly over so long; without --start it ends now
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "count")]
    span: Option<Duration>,
    /// Set event times back by up to so long, at random
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
    disorder: Duration,
    /// The share of late clicks, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    late: f64,
    /// How far late clicks are set back, once to twice: more than size and grace of the windows together
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30m")]
    late_by: Duration,
    /// The share of clicks that cannot be counted, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    bad: f64,
    /// Decides everything that is random
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write to a file instead, compressed where it ends in .gz or .zst; `-` is standard output
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    out: Option<PathBuf>,
    /// How long to wait for a service that is away or cannot keep up
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5m")]
    retry_for: Duration,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn run(args: GenerateArgs) -> Result<(), CommandError> {
    let traffic = args.traffic();
    let generator = ClickGenerator::new(&traffic).map_err(|error| CommandError::Usage(error.to_string()))?;
    let times = args.event_times(Timestamp::now())?;
    let sink = args.sink()?;
    let mut run = Run {
        generator,
        times,
        pace: Pace { rate: args.rate },
        sink,
        bar: progress::clicks(args.count),
        sent: Counts::default(),
    };
    run.send(args.count.unwrap_or(u64::MAX))?;
    run.finish()
}

impl GenerateArgs {
    fn traffic(&self) -> Traffic {
        let Self { seed, ads, zipf, disorder, late, late_by, bad, .. } = *self;
        Traffic { seed, ads, zipf, disorder, late, late_by, bad }
    }

    fn event_times(&self, now: Timestamp) -> Result<EventTimes, CommandError> {
        let span_ms = self.span.map(|span| span.as_secs_f64() * 1_000.0);
        let step_ms = match (span_ms, self.count, self.rate) {
            (Some(span_ms), Some(count), _) => Some(span_ms / count.max(1) as f64),
            (_, _, Some(rate)) => Some(1_000.0 / rate),
            _ => None,
        };
        let start = match (&self.start, self.span) {
            (Some(text), _) => start_time(text, now)?,
            (None, Some(span)) => now - span,
            (None, None) => return Ok(EventTimes::Live),
        };
        let step_ms =
            step_ms.ok_or_else(|| CommandError::Usage("--start needs --span or --rate to space the clicks".to_owned()))?;
        Ok(EventTimes::Spaced { start_ms: start.as_millisecond(), step_ms })
    }

    fn sink(&self) -> Result<Sink, CommandError> {
        let Some(path) = &self.out else {
            return Ok(Sink::service(self.server.client()?, Patience(self.retry_for)));
        };
        if path.as_os_str() == "-" {
            return Ok(Sink::stdout());
        }
        if self.count.is_none() {
            return Err(CommandError::Usage("--out needs --count: without it the file would grow without end".to_owned()));
        }
        Ok(Sink::file(path)?)
    }
}

/// Generation under way.
struct Run {
    generator: ClickGenerator,
    times: EventTimes,
    pace: Pace,
    sink: Sink,
    bar: ProgressBar,
    sent: Counts,
}

#[derive(Default)]
struct Counts {
    all: u64,
    late: u64,
    bad: u64,
}

impl Run {
    fn send(&mut self, count: u64) -> Result<(), CommandError> {
        let started = Instant::now();
        let mut batch = Vec::new();
        while self.sent.all < count {
            wait_until(started, self.pace.due(self.sent.all));
            let clicks = self.pace.batch().min(count - self.sent.all);
            let now_ms = Timestamp::now().as_millisecond();
            batch.clear();
            for _ in 0..clicks {
                let event_time = self.times.at(self.sent.all, now_ms);
                match self.generator.write_click(event_time, &mut batch) {
                    Generated::Click => {}
                    Generated::Late => self.sent.late += 1,
                    Generated::Bad => self.sent.bad += 1,
                }
                self.sent.all += 1;
            }
            self.sink.send(&batch, &self.bar)?;
            self.bar.set_position(self.sent.all);
        }
        Ok(())
    }

    fn finish(self) -> Result<(), CommandError> {
        self.bar.finish_and_clear();
        let Counts { all, late, bad } = self.sent;
        let result = self.sink.finish()?;
        eprintln!("{all} clicks generated, {late} of them late and {bad} bad{result}");
        Ok(())
    }
}

#[allow(clippy::disallowed_methods, reason = "a rate is kept by waiting for the clock")]
fn wait_until(started: Instant, due: Duration) {
    std::thread::sleep(due.saturating_sub(started.elapsed()));
}

fn start_time(text: &str, now: Timestamp) -> Result<Timestamp, CommandError> {
    let offset = text.strip_prefix('-').and_then(parse_duration).map(|back| now - back);
    let milliseconds = || text.parse().ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let time = match text {
        "now" => Some(now),
        _ => offset.or_else(milliseconds).or_else(|| text.parse().ok()),
    };
    time.filter(|time| time.as_millisecond() >= 0).ok_or_else(|| {
        CommandError::Usage(format!("--start {text}: accepted is RFC 3339, epoch milliseconds, now, or an offset such as -1h"))
    })
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| {
        format!("accepted is a number with ms, s, m, h or d, such as {}", format_duration(Duration::from_secs(300)))
    })
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && *number > 0.0)
        .ok_or_else(|| "accepted is a number above 0".to_owned())
}
