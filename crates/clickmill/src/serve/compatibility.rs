//! What the configuration may not change once an application has counted: its counts would mean something else.

use std::time::Duration;

use millstream::broker::Broker;
use millstream::runtime::StreamsConfig;
use millstream::store::{StoreError, StoreIdentity, StoreProvider};
use millstream_rocksdb::state::RocksStores;

use super::Misconfigured;
use super::topology::STORE;
use crate::config::{Config, format_duration};

/// Refuses a configuration under which the stores that are there could not go on.
pub(super) fn check(config: &Config, streams: &StreamsConfig, broker: &impl Broker, stores: &RocksStores) -> anyhow::Result<()> {
    let Some(changelog) = broker.describe_topic(&streams.changelog_topic(STORE))? else { return Ok(()) };
    let cluster_id = broker.cluster_id()?;
    for partition in stores.partitions(STORE)? {
        let identity = stores.open(STORE, partition).and_then(|store| StoreIdentity::of(&*store));
        // What cannot be read, or belongs to another log, says nothing: its task will rebuild it, or tell what is wrong.
        let ours = |found: &StoreIdentity| found.cluster_id == cluster_id && found.changelog_id == changelog.id;
        if let Some(found) = known(identity).filter(ours) {
            return Ok(compare(config, &found)?);
        }
    }
    Ok(())
}

fn known(identity: Result<Option<StoreIdentity>, StoreError>) -> Option<StoreIdentity> {
    identity.unwrap_or_else(|error| {
        tracing::debug!(%error, "a store does not say what it belongs to");
        None
    })
}

fn compare(config: &Config, found: &StoreIdentity) -> Result<(), Misconfigured> {
    let application_id = &found.application_id;
    let refuse = |key: &str, set: String, counted: String| {
        Err(Misconfigured(format!(
            "{key} = {set}, but application {application_id} has counted with {key} = {counted}: set that again, or count under \
             another engine.application_id"
        )))
    };
    let size = Duration::from_millis(found.window_size_ms.max(0) as u64);
    if config.window.size != size {
        return refuse("window.size", format_duration(config.window.size), format_duration(size));
    }
    if config.clicks.keyed_by_ad != found.keyed {
        return refuse("clicks.keyed_by_ad", config.clicks.keyed_by_ad.to_string(), found.keyed.to_string());
    }
    Ok(())
}
