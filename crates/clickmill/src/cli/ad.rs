//! `clickmill ad`: the clicks of one ad.

use std::io::{self, Write};

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use crate::client::{AdAnswer, path_segment};

use super::error::CommandError;
use super::server::{PeriodArgs, ReadArgs, ServerArgs, completeness_line};
use super::table;

/// Show the clicks of one ad, window by window.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clickmill ad ad-7                                      the last hour
  clickmill ad ad-7 --from -7d --json
  clickmill ad ad-7 --from 2026-01-01T00:00:00Z --to 2026-01-01T06:00:00Z")]
pub(super) struct AdArgs {
    /// The ad's id
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    id: String,
    #[command(flatten)]
    period: PeriodArgs,
    #[command(flatten)]
    read: ReadArgs,
    /// Print the service's answer as it is
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn run(args: &AdArgs) -> Result<(), CommandError> {
    let client = args.server.client()?;
    let path = format!("/v1/ads/{}/clicks", path_segment(&args.id));
    let mut parameters = args.period.parameters();
    parameters.extend(args.read.parameters());
    if args.json {
        return Ok(writeln!(io::stdout(), "{}", client.get(&path, &parameters)?)?);
    }
    let answer: AdAnswer = client.get_json(&path, &parameters)?;
    let mut table = table::table(&["window", "clicks", "final"]);
    for window in &answer.windows {
        let last_word = if window.r#final { "yes" } else { "no" };
        table.add_row([table::text(&window.start), table::number(window.clicks), table::text(last_word)]);
    }
    let heading = format!("{}: {} clicks from {} to {}", answer.ad_id, answer.clicks, answer.from, answer.to);
    let completeness = completeness_line(&answer.completeness);
    Ok(writeln!(io::stdout(), "{}\n{table}\n{completeness}", table::printable(&heading))?)
}
