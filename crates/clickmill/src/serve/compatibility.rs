//! What the configuration may not change once an application has counted: its counts would mean something else.

use std::time::Duration;

use millstream::broker::{Broker, ErrorKind};
use millstream::record::{Partition, Topic, TopicPartition};
use millstream::runtime::CountedWith;

use super::Misconfigured;
use crate::config::{Config, format_duration};

/// Refuses a configuration under which the counts that are there could not go on. The engine would too, once its threads run.
pub(super) fn check(config: &Config, broker: &impl Broker, clicks_partitions: u32) -> anyhow::Result<()> {
    let topic = Topic::from(config.clicks.topic.as_str());
    let inputs: Vec<_> = (0..clicks_partitions).map(|number| TopicPartition::new(topic.clone(), Partition(number))).collect();
    match CountedWith::of_positions(broker, &config.engine.application_id, &inputs) {
        Ok(all) => Ok(all.iter().try_for_each(|before| compare(config, before))?),
        Err(error) if error.kind() == ErrorKind::Retry => {
            tracing::debug!(%error, "what was counted with cannot be told yet: the threads will ask");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn compare(config: &Config, before: &CountedWith) -> Result<(), Misconfigured> {
    let refuse = |key: &str, set: String, counted: String| {
        Err(Misconfigured(format!(
            "{key} = {set}, but application {} has counted with {key} = {counted}: set that again, or count under another \
             engine.application_id",
            config.engine.application_id
        )))
    };
    let size = Duration::from_millis(before.window_size_ms.max(0) as u64);
    if config.window.size != size {
        return refuse("window.size", format_duration(config.window.size), format_duration(size));
    }
    if config.clicks.keyed_by_ad != before.keyed {
        return refuse("clicks.keyed_by_ad", config.clicks.keyed_by_ad.to_string(), before.keyed.to_string());
    }
    Ok(())
}
