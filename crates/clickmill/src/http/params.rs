//! Query parameters. One that is not known is refused.

use std::collections::BTreeMap;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Query};
use axum::http::Uri;
use axum::http::request::Parts;
use millstream::query::ReadOptions;
use utoipa::IntoParams;

use super::problem::{Problem, ProblemKind};

const BOOLEAN: &str = "true or false";
const WHOLE_NUMBER: &str = "a whole number";

/// The parameters of a request. A plus sign means itself, so that `+02:00` needs no encoding.
pub(super) struct Params<T>(pub(super) T);

/// Parameters that are taken from a query, each by its name.
pub(super) trait FromQuery: Sized {
    /// # Errors
    /// A value that its parameter cannot have.
    fn from_query(query: &mut NamedValues) -> Result<Self, Problem>;
}

impl<S: Sync, T: FromQuery> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default().replace('+', "%2B");
        let invalid = || Problem::new(ProblemKind::InvalidParameter, "the query is no URI query");
        let uri: Uri = format!("/?{query}").parse().map_err(|_| invalid())?;
        let Query(pairs) = Query::try_from_uri(&uri).map_err(|_| invalid())?;
        let mut query = NamedValues::new(pairs)?;
        let params = T::from_query(&mut query)?;
        query.refuse_the_rest()?;
        Ok(Self(params))
    }
}

/// What a query holds, by name, and the names that were asked for.
pub(super) struct NamedValues {
    values: BTreeMap<String, String>,
    known: Vec<&'static str>,
}

impl NamedValues {
    fn new(pairs: Vec<(String, String)>) -> Result<Self, Problem> {
        let mut values = BTreeMap::new();
        for (name, value) in pairs {
            if values.contains_key(&name) {
                return Err(Problem::parameter(&name, "it comes more than once"));
            }
            values.insert(name, value);
        }
        Ok(Self { values, known: Vec::new() })
    }

    fn text(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        self.values.remove(name)
    }

    fn parse<T: FromStr>(&mut self, name: &'static str, kind: &str) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let value = text.parse().map_err(|_| Problem::parameter(name, format_args!("{text:?} is not {kind}")))?;
        Ok(Some(value))
    }

    fn refuse_the_rest(self) -> Result<(), Problem> {
        let Some(name) = self.values.keys().next() else { return Ok(()) };
        let known = if self.known.is_empty() { "none".to_owned() } else { self.known.join(", ") };
        Err(Problem::parameter(name, format_args!("there is no such parameter here; there are: {known}")))
    }
}

/// A path that takes no parameters.
pub(super) struct NoParams;

impl FromQuery for NoParams {
    fn from_query(_: &mut NamedValues) -> Result<Self, Problem> {
        Ok(Self)
    }
}

/// What every query for counts takes.
#[derive(Debug, Clone, Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct CountParams {
    /// The start of the period: RFC 3339, epoch milliseconds, `now`, or an offset from now such as `-15m`, `-1h`, `-7d`. One hour
    /// before `to` where absent.
    pub(super) from: Option<String>,
    /// The end of the period, exclusive. Now where absent.
    pub(super) to: Option<String>,
    /// Answer from the partitions there are, should some be missing.
    allow_partial: Option<bool>,
    /// Let standbys and restoring copies answer.
    allow_stale: Option<bool>,
    /// With `allow_stale`: refuse copies further behind than this many changelog records.
    max_stale_records: Option<u64>,
}

impl FromQuery for CountParams {
    fn from_query(query: &mut NamedValues) -> Result<Self, Problem> {
        Ok(Self {
            from: query.text("from"),
            to: query.text("to"),
            allow_partial: query.parse("allow_partial", BOOLEAN)?,
            allow_stale: query.parse("allow_stale", BOOLEAN)?,
            max_stale_records: query.parse("max_stale_records", WHOLE_NUMBER)?,
        })
    }
}

impl CountParams {
    pub(super) fn read_options(&self) -> ReadOptions {
        ReadOptions {
            allow_partial: self.allow_partial.unwrap_or_default(),
            allow_stale: self.allow_stale.unwrap_or_default(),
            max_stale_records: self.max_stale_records,
        }
    }
}

/// What the query for the top ads takes.
pub(super) struct TopParams {
    /// How many ads, 1 to 1000.
    pub(super) limit: usize,
    pub(super) counts: CountParams,
}

impl FromQuery for TopParams {
    fn from_query(query: &mut NamedValues) -> Result<Self, Problem> {
        let counts = CountParams::from_query(query)?;
        let limit = match query.parse::<u64>("limit", WHOLE_NUMBER)?.unwrap_or(10) {
            limit @ 1..=1000 => limit as usize,
            limit => return Err(Problem::parameter("limit", format_args!("{limit} is not between 1 and 1000"))),
        };
        Ok(Self { limit, counts })
    }
}
