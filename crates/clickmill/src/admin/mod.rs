//! What an operator does to an application that is not running: its topics looked at, created and set right; the application reset.

mod members;
pub mod reset;
pub mod topics;

use millstream_kafka::KafkaBroker;

use crate::config::Config;
use crate::serve::Misconfigured;

pub use members::refuse_members;

/// The Kafka cluster of the configuration.
///
/// # Errors
/// [`Misconfigured`] where it has none, with `instead` as the way out.
pub fn cluster(config: &Config, instead: &str) -> anyhow::Result<KafkaBroker> {
    let Some(kafka) = &config.kafka else {
        return Err(Misconfigured(format!(
            "no Kafka cluster is configured, and this is for Kafka alone: give --kafka HOST:PORT; {instead}"
        ))
        .into());
    };
    Ok(KafkaBroker::new(kafka.client_config()?)?)
}
