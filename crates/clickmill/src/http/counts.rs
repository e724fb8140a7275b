//! Counts out: one ad, the top ads, all ads together.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use millstream::query::{Period, Question};

use super::Service;
use super::answer::{AdClicks, Clicks, TopAds};
use super::params::{CountParams, Params, TopParams};
use super::problem::{Problem, ProblemBody};
use super::{period, routed};
use crate::click::MAX_AD_ID_BYTES;

/// The clicks of one ad. An ad never seen has none.
#[utoipa::path(
    get, path = "/v1/ads/{ad_id}/clicks", tag = "counts",
    params(("ad_id" = String, Path, description = "The ad, percent-encoded where it holds a slash."), CountParams),
    responses(
        (status = 200, description = "The clicks of the ad, window by window.", body = AdClicks),
        (status = 400, description = "The period or a parameter cannot be taken.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "Some partitions cannot answer now, or there is too much to do.", body = ProblemBody, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds."))),
    )
)]
pub(super) async fn get_ad_clicks(
    State(service): State<Service>,
    ad_id: Result<Path<String>, PathRejection>,
    Params(params): Params<CountParams>,
) -> Result<Json<AdClicks>, Problem> {
    let Path(ad_id) = ad_id.map_err(|rejection| Problem::parameter("ad_id", rejection.body_text()))?;
    if !(1..=MAX_AD_ID_BYTES).contains(&ad_id.len()) {
        let reason = format_args!("it has {} bytes, an ad id has 1 to {MAX_AD_ID_BYTES}", ad_id.len());
        return Err(Problem::parameter("ad_id", reason));
    }
    let period = period_of(&service, &params)?;
    let question = Question::Key { key: ad_id.as_bytes().to_vec(), period };
    let answer = routed::answer(&service, question, params.read_options()).await?.into_windows(service.windows());
    Ok(Json(AdClicks { ad_id, clicks: Clicks::new(period, answer.value, answer.completeness) }))
}

/// The most clicked ads of a period, exact over all partitions and instances.
#[utoipa::path(
    get, path = "/v1/ads/top", tag = "counts",
    params(
        CountParams,
        ("limit" = Option<u64>, Query, description = "How many ads. Ten where absent.", minimum = 1, maximum = 1000)
    ),
    responses(
        (status = 200, description = "The ads, most clicks first.", body = TopAds),
        (status = 400, description = "The period or a parameter cannot be taken.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "Some partitions cannot answer now, or there is too much to do.", body = ProblemBody, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds."))),
    )
)]
pub(super) async fn get_top_ads(
    State(service): State<Service>,
    Params(params): Params<TopParams>,
) -> Result<Json<TopAds>, Problem> {
    let TopParams { limit, counts } = params;
    let period = period_of(&service, &counts)?;
    let answer = routed::answer(&service, Question::Top { period, limit }, counts.read_options()).await?.into_keys();
    Ok(Json(TopAds::new(period, answer.value, answer.completeness)))
}

/// The clicks of all ads together.
#[utoipa::path(
    get, path = "/v1/clicks", tag = "counts",
    params(CountParams),
    responses(
        (status = 200, description = "The clicks, window by window.", body = Clicks),
        (status = 400, description = "The period or a parameter cannot be taken.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "Some partitions cannot answer now, or there is too much to do.", body = ProblemBody, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds."))),
    )
)]
pub(super) async fn get_clicks(
    State(service): State<Service>,
    Params(params): Params<CountParams>,
) -> Result<Json<Clicks>, Problem> {
    let period = period_of(&service, &params)?;
    let answer = routed::answer(&service, Question::Totals { period }, params.read_options()).await?;
    let answer = answer.into_windows(service.windows());
    Ok(Json(Clicks::new(period, answer.value, answer.completeness)))
}

/// The whole windows that are asked for.
fn period_of(service: &Service, params: &CountParams) -> Result<Period, Problem> {
    let (now, queries) = (service.mill().now(), service.mill().queries());
    let longest = service.options().max_query_period;
    period::resolve(params.from.as_deref(), params.to.as_deref(), now, queries, longest)
}
