//! `clickmill config`: the effective configuration.

use std::io::{self, Write};

use clap::Args;

use crate::config::{Config, Settings, to_json, to_toml};

use super::error::CommandError;
use super::serve::OptionArgs;

/// Check the configuration and print the one in effect, with the origin of each value.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clickmill config                                   the defaults, and what the environment sets
  clickmill config --config clickmill.toml           what `serve` with the same flags would use
  clickmill config --json | jq .window.size.value")]
pub(super) struct ConfigArgs {
    #[command(flatten)]
    options: OptionArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: ConfigArgs) -> Result<(), CommandError> {
    let settings = Settings::collect(&args.options.into_sources(std::env::vars_os()))?;
    Config::from_settings(&settings)?;
    let text = if args.json { format!("{:#}\n", to_json(&settings)) } else { to_toml(&settings) };
    Ok(io::stdout().write_all(text.as_bytes())?)
}
