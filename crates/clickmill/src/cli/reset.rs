//! `clickmill reset`: an application counts anew.

use std::io::{self, Write};

use clap::Args;
use jiff::Timestamp;
use millstream_kafka::KafkaBroker;

use crate::admin::cluster;
use crate::admin::reset::{self, Counted, Gap, Plan, Scope, Start};
use crate::config::Config;

use super::error::CommandError;
use super::serve::OptionArgs;
use super::table;

/// Let an application that is stopped count anew: its positions, its own topics and the state on this machine go.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clickmill reset --config clickmill.toml                      show what would be done; nothing is changed
  clickmill reset --config clickmill.toml --execute            count all clicks that are still there anew
  clickmill reset --kafka kafka:9092 --to-datetime 2026-01-01T00:00:00Z --execute
  clickmill reset --kafka kafka:9092 --accept-gap --execute    go on behind clicks that were deleted before they were counted

The times of --to-datetime are those of the records, not of the clicks in them. The late and dead-letter topics are kept
unless --delete-outputs is given, so what is counted anew may come to lie on them once more. The flags for options are
those of `clickmill serve`.")]
pub(super) struct ResetArgs {
    #[command(flatten)]
    options: OptionArgs,
    /// Count from the first click that is still there [the default]
    #[arg(long, conflicts_with_all = ["to_latest", "to_datetime"])]
    to_earliest: bool,
    /// Count what comes from now on
    #[arg(long, conflicts_with = "to_datetime")]
    to_latest: bool,
    /// Count from the first record of each partition at this time or later, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    to_datetime: Option<Timestamp>,
    /// Delete the late and dead-letter topics too
    #[arg(long)]
    delete_outputs: bool,
    /// Go on where a transaction that no broker ends holds the positions
    #[arg(long)]
    despite_open_transactions: bool,
    /// Only move positions that lie before the start of their log to it, and keep everything else
    #[arg(long, conflicts_with_all = ["to_earliest", "to_latest", "to_datetime", "delete_outputs", "despite_open_transactions"])]
    accept_gap: bool,
    /// Do it; without this it is only shown
    #[arg(long, conflicts_with = "dry_run")]
    execute: bool,
    /// Only show what would be done [the default]
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: ResetArgs) -> Result<(), CommandError> {
    let start = match (args.to_latest, args.to_datetime) {
        (true, _) => Start::Latest,
        (false, Some(time)) => Start::Time(millstream::record::Timestamp(time.as_millisecond())),
        (false, None) => Start::Earliest,
    };
    let config = Config::load(&args.options.into_sources(std::env::vars_os()))?;
    let broker = cluster(&config, "on the embedded broker count under another engine.application_id instead")?;
    if args.accept_gap {
        return accept_gaps(&broker, &config, args.execute);
    }
    let ResetArgs { delete_outputs, despite_open_transactions, .. } = args;
    let plan = reset::plan(&broker, &config, Scope { start, delete_outputs, despite_open_transactions })?;
    writeln!(io::stdout(), "{}", picture(&plan))?;
    if !args.execute {
        return nothing_changed();
    }
    let mut out = io::stdout();
    let mut failed = Ok(());
    plan.execute(&broker, &mut |line| failed = writeln!(out, "{}", table::printable(&line)))?;
    failed?;
    Ok(writeln!(out, "application {} is reset: it counts anew when it is started", plan.group)?)
}

fn nothing_changed() -> Result<(), CommandError> {
    Ok(writeln!(io::stdout(), "nothing was changed: --execute does it")?)
}

fn picture(plan: &Plan) -> String {
    let mut table = table::table(&["partition", "counted up to", "will be counted from"]);
    for moved in &plan.moves {
        let from = match moved.from {
            Counted::Nothing => "nothing".to_owned(),
            Counted::UpTo(offset) => offset.to_string(),
            Counted::Unknown => "not known: a transaction is open".to_owned(),
        };
        let to = moved.to.map_or_else(|| "the first record".to_owned(), |offset| offset.to_string());
        table.add_row([moved.partition.to_string(), from, to].map(|text| table::text(&text)));
    }
    let line = |what: &str, topics: &[millstream::record::Topic]| match topics {
        [] => format!("{what} no topic"),
        topics => format!("{what} {}", topics.iter().map(|topic| table::printable(topic)).collect::<Vec<_>>().join(", ")),
    };
    let state = match plan.state.exists() {
        true => format!("to be deleted on this machine: {}", plan.state.dir().display()),
        false => format!("no state on this machine under {}", plan.state.dir().display()),
    };
    format!("{table}\n{}\n{}\n{state}", line("to be deleted:", &plan.topics), line("kept:", &plan.kept))
}

fn shown(Gap { partition, committed, start, made_again }: &Gap) -> String {
    let from = committed.offset;
    match made_again {
        Some(_) => format!(
            "{partition}: its topic was made again; what the one before held from offset {from} on is given up; it goes on at {start}"
        ),
        None => {
            let (last, lost) = (start.0 - 1, start.0 - from.0);
            format!("{partition}: offsets {from} to {last} are given up, {lost} in all; it goes on at {start}")
        }
    }
}

fn accept_gaps(broker: &KafkaBroker, config: &Config, execute: bool) -> Result<(), CommandError> {
    let gaps = reset::gaps(broker, config)?;
    if gaps.is_empty() {
        return Ok(writeln!(io::stdout(), "every position can be gone on from: there is no gap to accept")?);
    }
    for gap in &gaps {
        writeln!(io::stdout(), "{}", shown(gap))?;
    }
    if !execute {
        return nothing_changed();
    }
    reset::accept(broker, config, &gaps)?;
    Ok(writeln!(io::stdout(), "{} positions of group {} are moved", gaps.len(), config.engine.application_id)?)
}

fn time(text: &str) -> Result<Timestamp, String> {
    let time = text.parse().ok().filter(|time: &Timestamp| time.as_millisecond() >= 0);
    time.ok_or_else(|| "accepted is RFC 3339, such as 2026-01-01T00:00:00Z".to_owned())
}
