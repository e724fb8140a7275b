//! The flags of commands that ask a running service.

use clap::Args;

use crate::client::{Client, ClientError, Completeness};

use super::table::printable;

const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// Which service a command talks to.
#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// Where the service is [default: http://127.0.0.1:8080] [environment: CLICKMILL_URL]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

impl ServerArgs {
    /// The URL of the flag, where there is one.
    pub(super) fn url_given(&self) -> Option<&str> {
        self.url.as_deref()
    }

    pub(super) fn client(&self) -> Result<Client, ClientError> {
        let from_environment = || std::env::var("CLICKMILL_URL").ok().filter(|url| !url.is_empty());
        let url = self.url.clone().or_else(from_environment).unwrap_or_else(|| DEFAULT_URL.to_owned());
        Client::new(&url)
    }
}

/// The period a question is about.
#[derive(Debug, Args)]
pub(super) struct PeriodArgs {
    /// Its start: RFC 3339, epoch milliseconds, `now` or an offset such as -15m [default: an hour before its end]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Its end, exclusive [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
}

impl PeriodArgs {
    /// The parameters of a query.
    pub(super) fn parameters(&self) -> Vec<(&'static str, String)> {
        [("from", &self.from), ("to", &self.to)].into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }
}

/// What is good enough for an answer.
#[derive(Debug, Args)]
pub(super) struct ReadArgs {
    /// Take what there is where some partitions cannot answer
    #[arg(long)]
    allow_partial: bool,
    /// Let standbys and copies that are still restoring answer
    #[arg(long)]
    allow_stale: bool,
    /// With --allow-stale: take no copy that is further behind than this many changelog records
    #[arg(long, value_name = "N", requires = "allow_stale")]
    max_stale_records: Option<u64>,
}

impl ReadArgs {
    /// The parameters of a query.
    pub(super) fn parameters(&self) -> Vec<(&'static str, String)> {
        let flags = [("allow_partial", self.allow_partial), ("allow_stale", self.allow_stale)];
        let set = flags.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| (name, "true".to_owned()));
        set.chain(self.max_stale_records.map(|most| ("max_stale_records", most.to_string()))).collect()
    }
}

/// What an answer rests on, in a line.
pub(super) fn completeness_line(completeness: &Completeness) -> String {
    let Completeness { complete, partitions, answered, stale, max_lag, stream_time, final_until, trouble } = completeness;
    let whole = match (complete, stale.len()) {
        (true, _) => "complete".to_owned(),
        (false, 0) => format!("INCOMPLETE, {answered} of {partitions} partitions"),
        (false, copies) => format!("INCOMPLETE, {answered} of {partitions} partitions, {copies} of them by copies"),
    };
    let lag = match max_lag {
        Some(0) => ", nothing waits to be counted".to_owned(),
        Some(records) => format!(", at most {records} records wait to be counted"),
        None => String::new(),
    };
    let time = stream_time.as_ref().map_or(String::new(), |time| format!(", stream time {time}"));
    let last = final_until.as_ref().map_or(String::new(), |time| format!(", final until {time}"));
    let trouble = trouble.as_ref().map_or(String::new(), |trouble| format!("; {trouble}"));
    printable(&format!("{whole}{lag}{time}{last}{trouble}"))
}
