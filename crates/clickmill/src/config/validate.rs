//! What holds between options.

use millstream::runtime::StreamsConfig;
use millstream_kafka::ConfigError as Refused;

use super::error::ConfigError;
use super::options::{BOOTSTRAP_SERVERS, KAFKA_SECTION, ROCKSDB_SECTION};
use super::secrets::shown;
use super::settings::Settings;
use super::units::{format_duration, format_size};
use super::{ClicksConfig, Config};
use crate::serve::{STORE, closed_topic};

/// Refuses values that are fine each by itself but not together.
pub(super) fn check(config: &Config, settings: &Settings) -> Result<(), ConfigError> {
    check_kafka(config, settings)?;
    check_window(config, settings)?;
    check_clicks(&config.clicks, settings)?;
    check_topics(config, settings)?;
    check_rocksdb(config, settings)?;
    check_memory(config, settings)?;
    check_peers(config, settings)?;
    if config.engine.commit_interval_backlog < config.engine.commit_interval {
        let reason = format!(
            "shorter than engine.commit_interval = {}: make it at least as long",
            format_duration(config.engine.commit_interval)
        );
        return Err(conflict("engine.commit_interval_backlog", settings, reason));
    }
    Ok(())
}

fn check_kafka(config: &Config, settings: &Settings) -> Result<(), ConfigError> {
    let Some(kafka) = &config.kafka else { return Ok(()) };
    let Err(refused) = kafka.client_config() else { return Ok(()) };
    let (name, reason) = match &refused {
        Refused::NoServers => {
            let first = settings.section(KAFKA_SECTION).next().map_or(BOOTSTRAP_SERVERS, |(name, _)| name);
            (first, format!("{KAFKA_SECTION}.{BOOTSTRAP_SERVERS} does not name a broker: set it to HOST:PORT"))
        }
        Refused::Reserved { key, reason } => (key.as_str(), format!("cannot be set: {reason}")),
        Refused::Invalid { key, reason, .. } => (key.as_str(), reason.clone()),
        // What is missing may be a property that is not set: it is named in the reason.
        Refused::Unsupported { key, .. } => (key.as_str(), refused.to_string()),
    };
    // librdkafka may name a property by another of its names.
    let known = settings.get(&format!("{KAFKA_SECTION}.{name}")).is_some();
    let key = if known { format!("{KAFKA_SECTION}.{name}") } else { format!("{KAFKA_SECTION}.{BOOTSTRAP_SERVERS}") };
    Err(conflict(&key, settings, reason))
}

fn check_window(config: &Config, settings: &Settings) -> Result<(), ConfigError> {
    let window = &config.window;
    let least = window.size + window.grace;
    if window.retention < least {
        let reason = format!("shorter than window.size + window.grace = {}: make it at least that", format_duration(least));
        return Err(conflict("window.retention", settings, reason));
    }
    if config.server.max_query_period < window.size {
        let reason = format!("shorter than one window: make it at least window.size = {}", format_duration(window.size));
        return Err(conflict("server.max_query_period", settings, reason));
    }
    Ok(())
}

fn check_clicks(clicks: &ClicksConfig, settings: &Settings) -> Result<(), ConfigError> {
    let taken = "names the same field as";
    if clicks.timestamp_field == clicks.ad_id_field {
        return Err(conflict("clicks.timestamp_field", settings, format!("{taken} clicks.ad_id_field: give it another")));
    }
    for (key, field) in [("clicks.ad_id_field", &clicks.ad_id_field), ("clicks.timestamp_field", &clicks.timestamp_field)] {
        if *field == clicks.click_id_field {
            return Err(conflict("clicks.click_id_field", settings, format!("{taken} {key}: give it another")));
        }
    }
    Ok(())
}

fn check_rocksdb(config: &Config, settings: &Settings) -> Result<(), ConfigError> {
    config
        .rocksdb
        .validate()
        .map_err(|refused| conflict(&format!("{ROCKSDB_SECTION}.{}", refused.name), settings, refused.reason))
}

fn check_memory(config: &Config, settings: &Settings) -> Result<(), ConfigError> {
    let most = config.engine.intake_bytes();
    if config.server.max_body as u64 > most {
        let reason = format!("more than a sixteenth of engine.memory, {}: lower it, or raise engine.memory", format_size(most));
        return Err(conflict("server.max_body", settings, reason));
    }
    Ok(())
}

/// Others are told an address that they can use.
fn check_peers(config: &Config, settings: &Settings) -> Result<(), ConfigError> {
    let server = &config.server;
    if config.kafka.is_some() && server.peer_listen.ip().is_unspecified() && server.advertise.is_none() {
        let reason = "no address that other instances can reach: set server.advertise to one of this machine's, as HOST:PORT";
        return Err(conflict("server.peer_listen", settings, reason.to_owned()));
    }
    Ok(())
}

fn check_topics(config: &Config, settings: &Settings) -> Result<(), ConfigError> {
    let application_id = &config.engine.application_id;
    let streams = StreamsConfig::new(application_id.clone());
    let ours = [
        streams.changelog_topic(STORE),
        streams.repartition_topic(STORE),
        streams.late_topic(),
        streams.dead_letter_topic(),
        closed_topic(config),
    ];
    if ours.iter().any(|topic| **topic == *config.clicks.topic) {
        let reason = format!("the application {application_id} writes to this topic itself: choose another for the clicks");
        return Err(conflict("clicks.topic", settings, reason));
    }
    Ok(())
}

fn conflict(key: &str, settings: &Settings, reason: String) -> ConfigError {
    let setting = settings.get(key).expect("an option that was read has a value");
    let value = shown(key, &setting.text);
    // librdkafka's words may repeat it.
    let reason = if value == setting.text { reason } else { reason.replace(&setting.text, value) };
    ConfigError::Conflict { key: key.to_owned(), value: value.to_owned(), origin: setting.origin.clone(), reason }
}
