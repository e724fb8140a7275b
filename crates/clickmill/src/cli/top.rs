//! `clickmill top`: the most clicked ads.

use std::io::{self, Write};

use clap::Args;

use crate::client::{Client, TopAnswer};

use super::error::CommandError;
use super::server::{PeriodArgs, ReadArgs, ServerArgs, completeness_line};
use super::{table, watch};

/// Show the most clicked ads of a period.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clickmill top                                          the ten most clicked ads of the last hour
  clickmill top --from -15m --limit 3
  clickmill top --from 2026-01-01T00:00:00Z --to 2026-01-02T00:00:00Z --json
  clickmill top --watch                                  as they change, until Ctrl-C")]
pub(super) struct TopArgs {
    #[command(flatten)]
    period: PeriodArgs,
    #[command(flatten)]
    read: ReadArgs,
    /// How many ads, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
    /// Show them again every second
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// Print the service's answer as it is
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn run(args: &TopArgs) -> Result<(), CommandError> {
    let client = args.server.client()?;
    let mut parameters = args.period.parameters();
    parameters.extend(args.read.parameters());
    parameters.push(("limit", args.limit.to_string()));
    if args.json {
        return Ok(writeln!(io::stdout(), "{}", client.get("/v1/ads/top", &parameters)?)?);
    }
    if args.watch {
        return watch(&client, &parameters);
    }
    let answer: TopAnswer = client.get_json("/v1/ads/top", &parameters)?;
    Ok(writeln!(io::stdout(), "{}", picture(&answer))?)
}

/// Draws the answer every second over the one before, until the program is stopped. A service that is away is waited for.
fn watch(client: &Client, parameters: &[(&str, String)]) -> Result<(), CommandError> {
    watch::redraw(|| match client.get_json::<TopAnswer>("/v1/ads/top", parameters) {
        Ok(answer) => Ok(picture(&answer)),
        Err(error) if error.is_transient() => Ok(watch::waiting(&error)),
        Err(error) => Err(error.into()),
    })
}

fn picture(answer: &TopAnswer) -> String {
    let mut table = table::table(&["rank", "ad", "clicks"]);
    for ad in &answer.ads {
        table.add_row([table::number(ad.rank), table::text(&ad.ad_id), table::number(ad.clicks)]);
    }
    let period = format!("from {} to {}", table::printable(&answer.from), table::printable(&answer.to));
    format!("{period}\n{table}\n{}", completeness_line(&answer.completeness))
}
