//! `clickmill serve`, and the flags that set options.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::config::{Config, FlagValue, LogFormat, Sources};
use crate::{logging, serve};

use super::error::CommandError;

/// Start the service: on its embedded broker, or on Kafka.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clickmill serve
  clickmill serve --listen 0.0.0.0:8080 --data-dir /var/lib/clickmill
  clickmill serve --config clickmill.toml
  clickmill serve --kafka kafka-1:9092,kafka-2:9092 --topic clicks
  CLICKMILL_WINDOW__GRACE=1h clickmill serve

Every option can be set in the file and in the environment: see docs/configuration.md.")]
pub(super) struct ServeArgs {
    #[command(flatten)]
    options: OptionArgs,
}

/// The flags that set options, the same for every command that takes a configuration.
#[derive(Debug, Args)]
pub(super) struct OptionArgs {
    /// The configuration file, TOML [environment: CLICKMILL_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The address of the HTTP server [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Where the log and the state are kept [default: data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Kafka's bootstrap servers: the log is theirs then, not the embedded broker's
    #[arg(long, value_name = "HOST:PORT[,…]")]
    kafka: Option<String>,
    /// The topic of the clicks [default: click-events-topic]
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// The consumer group, and the prefix of all topics besides the clicks [default: clickmill]
    #[arg(long, value_name = "NAME")]
    application_id: Option<String>,
    /// How other instances reach this one [default: the address it listens on]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// What is logged: a level or tracing directives [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How it is logged [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

impl OptionArgs {
    /// The sources of the configuration under this environment.
    pub(super) fn into_sources(self, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Sources {
        let environment: Vec<(String, String)> = environment
            .into_iter()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect();
        let named_file = environment.iter().find(|(name, value)| name == "CLICKMILL_CONFIG" && !value.is_empty());
        let file = self.config.or_else(|| named_file.map(|(_, value)| PathBuf::from(value)));
        let log_format = self.log_format.map(|format| match format {
            LogFormat::Text => "text".to_owned(),
            LogFormat::Json => "json".to_owned(),
        });
        let flags = [
            ("server.listen", "--listen", self.listen),
            ("data.dir", "--data-dir", self.data_dir),
            ("kafka.bootstrap.servers", "--kafka", self.kafka),
            ("clicks.topic", "--topic", self.topic),
            ("engine.application_id", "--application-id", self.application_id),
            ("server.advertise", "--advertise", self.advertise),
            ("log.level", "--log-level", self.log_level),
            ("log.format", "--log-format", log_format),
        ];
        let given = flags.into_iter().filter_map(|(key, flag, value)| Some(FlagValue { key, flag, value: value? }));
        Sources { file, flags: given.collect(), environment }
    }
}

impl ServeArgs {
    #[cfg(test)]
    pub(super) fn into_sources(self, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Sources {
        self.options.into_sources(environment)
    }
}

pub(super) fn run(args: ServeArgs) -> Result<(), CommandError> {
    let config = Config::load(&args.options.into_sources(std::env::vars_os()))?;
    logging::init(&config.log).map_err(anyhow::Error::from)?;
    serve::run(config).map_err(CommandError::from)
}
