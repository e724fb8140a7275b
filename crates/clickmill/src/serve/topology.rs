//! What Clickmill does to clicks: the topology that the engine runs.

use std::time::Duration;

use millstream::record::{Record, Topic};
use millstream::serdes::{Bytes, Deserializer, Rejection};
use millstream::time::TimeWindows;
use millstream::topology::{Consumed, EmitStrategy, Materialized, StreamsBuilder, Topology};

use crate::click::{Click, ClickDecoder};
use crate::config::Config;

/// The store of the counts. The names of its topics come from it.
pub const STORE: &str = "ad-clicks-store";

/// Reads the clicks topic.
struct ClickSerde(ClickDecoder);

impl Deserializer for ClickSerde {
    type Output<'r> = Click<'r>;

    fn deserialize<'r>(&self, _: Option<&'r [u8]>) -> Result<Click<'r>, Rejection> {
        Err(Rejection::new("a click is judged by its whole record"))
    }

    #[inline]
    fn deserialize_value<'r>(&self, record: &Record<'r>) -> Result<Click<'r>, Rejection> {
        self.0.decode_record(record).map_err(|refusal| Rejection::new(refusal.text()))
    }
}

/// Clicks by ad, counted in windows, each final window sent on once.
///
/// # Errors
/// What does not go together in the configuration.
pub fn ad_clicks(config: &Config) -> anyhow::Result<Topology> {
    let windows = TimeWindows::try_new(config.window.size, config.window.grace)?;
    let builder = StreamsBuilder::with_serdes(Bytes, Bytes);
    let clicks = Consumed::with(Bytes, ClickSerde(ClickDecoder::from(&config.clicks)))
        .with_timestamp_extractor(|_: &Record<'_>, click: &Click<'_>| Ok(click.timestamp));
    let mut by_ad = builder.stream_with(config.clicks.topic.as_str(), clicks).group_by(|_, click: &Click<'_>| &*click.ad_id);
    if config.clicks.keyed_by_ad {
        by_ad = by_ad.already_partitioned();
    }
    by_ad
        .windowed_by(windows)
        .emit_strategy(EmitStrategy::OnWindowClose)
        .count(Materialized::as_(STORE).with_retention(kept_for(config)))
        .to(closed_topic(config));
    Ok(builder.build()?)
}

/// A period may begin up to the retention before now, in the middle of a window, while event time is ahead of now: so long a
/// window has to stay for every such question to have an answer.
fn kept_for(config: &Config) -> Duration {
    config.window.retention + config.window.size + config.clicks.max_ahead
}

/// The topic of the final windows.
pub(crate) fn closed_topic(config: &Config) -> Topic {
    format!("{}-{STORE}-closed", config.engine.application_id).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;
    use millstream::query::{CountQueries, Period, ReadOptions};
    use millstream::record::Timestamp;
    use millstream::testing::TopologyTestDriver;

    #[test]
    fn clicks_are_counted_late_ones_and_bad_ones_set_aside() {
        let config = Config::load(&Sources::default()).unwrap();
        let mut driver = TopologyTestDriver::new(ad_clicks(&config).unwrap(), Timestamp(0)).unwrap();
        let mut pipe = |json: &str, arrived| {
            driver.pipe_input("click-events-topic", None, Some(json.as_bytes()), Timestamp(arrived)).unwrap();
        };
        pipe(r#"{"ad_id": "ad-1", "timestamp": 1000}"#, 2_000);
        pipe(r#"{"ad_id": "ad-1", "timestamp": 299999}"#, 300_000);
        pipe(r#"{"ad_id": "ad-2", "timestamp": 1200000}"#, 1_200_000);
        pipe(r#"{"ad_id": "ad-1", "timestamp": 5}"#, 1_200_001);
        pipe(r#"{"timestamp": 5}"#, 1_200_002);
        pipe(r#"{"ad_id": "ad-1", "timestamp": 9000000}"#, 1_200_003);
        let counts = driver.counts(STORE).unwrap();
        let period = Period { from: Timestamp(0), to: Timestamp(1_500_000) };
        let answer = counts.totals(period, ReadOptions::default()).unwrap();
        let windows: Vec<_> = answer.value.iter().map(|w| (w.start.0, w.count, w.is_final)).collect();
        assert_eq!(windows, [(0, 2, true), (1_200_000, 1, false)]);
        assert_eq!(driver.read_output("test-late").unwrap().len(), 1);
        assert_eq!(driver.read_output("test-dead-letter").unwrap().len(), 2);
        let closed = driver.read_output("clickmill-ad-clicks-store-closed").unwrap();
        assert_eq!(closed[0].key.as_deref(), Some(&b"ad-1\0\0\0\0\0\0\0\0"[..]));
        assert_eq!(closed[0].value.as_deref(), Some(&2i64.to_be_bytes()[..]));
        assert_eq!(closed.len(), 2, "one row and its end record");
    }
}
