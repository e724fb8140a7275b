//! `clickmill drain`: what is shuffled is counted, and the repartition topic emptied.

use std::io::{self, Write};
use std::time::Instant;

use clap::Args;

use crate::config::Config;
use crate::logging;
use crate::serve::{Drained, Draining, drain};

use super::error::CommandError;
use super::serve::OptionArgs;
use super::table;

/// Count what lies on the repartition topic, empty it, and read no new clicks: before another program takes the application over.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clickmill drain --config clickmill.toml
  clickmill drain --kafka kafka:9092 --application-id clicks --data-dir /var/lib/clickmill

Stop every instance first. Kafka Streams cannot read what Clickmill writes on the repartition topic: drain before the Java
program is started again. The flags for options are those of `clickmill serve`.")]
pub(super) struct DrainArgs {
    #[command(flatten)]
    options: OptionArgs,
}

pub(super) fn run(args: DrainArgs) -> Result<(), CommandError> {
    let config = Config::load(&args.options.into_sources(std::env::vars_os()))?;
    logging::init(&config.log).map_err(anyhow::Error::from)?;
    let group = config.engine.application_id.clone();
    let (began, mut told) = (Instant::now(), None);
    let drained = drain(config, &mut |progress: &Draining| {
        if told.as_ref() != Some(progress) {
            eprintln!("{}", line(progress));
            told = Some(progress.clone());
        }
    })?;
    let mut out = io::stdout();
    match drained {
        Drained::Nothing(why) => writeln!(out, "there is nothing to drain: {why}")?,
        Drained::Emptied(partitions) => {
            for (partition, end) in &partitions {
                writeln!(out, "{partition}: counted and emptied up to offset {end}")?;
            }
            let seconds = began.elapsed().as_secs_f64();
            writeln!(out, "{} partitions drained in {seconds:.1} s, and group {group} left", partitions.len())?;
        }
    }
    Ok(())
}

fn line(progress: &Draining) -> String {
    let Draining { partitions, running, remaining, trouble } = progress;
    let trouble = trouble.as_ref().map_or_else(String::new, |trouble| format!("; trouble: {}", table::printable(trouble)));
    if *partitions == 0 {
        return format!("joining the group{trouble}");
    }
    format!("{running} of {partitions} partitions are being counted, {remaining} offsets to go{trouble}")
}
