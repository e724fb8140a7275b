//! Query parameters. One that is not known is refused.

use std::error::Error;

use axum::extract::{FromRequestParts, Query};
use axum::http::Uri;
use axum::http::request::Parts;
use millstream::query::ReadOptions;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::problem::{Problem, ProblemKind};

/// The parameters of a request. A plus sign means itself, so that `+02:00` needs no encoding.
pub(super) struct Params<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default().replace('+', "%2B");
        let invalid = |reason: String| Problem::new(ProblemKind::InvalidParameter, reason);
        let uri: Uri = format!("/?{query}").parse().map_err(|_| invalid("the query is no URI query".to_owned()))?;
        match Query::try_from_uri(&uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => Err(invalid(rejection.source().map_or_else(|| rejection.to_string(), |reason| reason.to_string()))),
        }
    }
}

/// A path that takes no parameters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoParams {}

/// What every query for counts takes.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
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
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TopParams {
    /// The start of the period: RFC 3339, epoch milliseconds, `now`, or an offset from now such as `-15m`, `-1h`, `-7d`. One hour
    /// before `to` where absent.
    from: Option<String>,
    /// The end of the period, exclusive. Now where absent.
    to: Option<String>,
    /// How many ads.
    #[param(minimum = 1, maximum = 1000, default = 10)]
    limit: Option<u64>,
    /// Answer from the partitions there are, should some be missing.
    allow_partial: Option<bool>,
    /// Let standbys and restoring copies answer.
    allow_stale: Option<bool>,
    /// With `allow_stale`: refuse copies further behind than this many changelog records.
    max_stale_records: Option<u64>,
}

impl TopParams {
    /// How many ads are asked for.
    ///
    /// # Errors
    /// It is out of range.
    pub(super) fn limit(&self) -> Result<usize, Problem> {
        match self.limit.unwrap_or(10) {
            limit @ 1..=1000 => Ok(limit as usize),
            limit => Err(Problem::parameter("limit", format_args!("{limit} is not between 1 and 1000"))),
        }
    }

    /// The parameters that it shares with the other queries.
    pub(super) fn into_count_params(self) -> CountParams {
        let Self { from, to, limit: _, allow_partial, allow_stale, max_stale_records } = self;
        CountParams { from, to, allow_partial, allow_stale, max_stale_records }
    }
}
