//! Running it: health, readiness, the cluster, metrics.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::Service;
use super::params::{NoParams, Params};
use super::problem::{Problem, ProblemBody};
use super::status::{Cluster, Readiness};
use crate::metrics::CONTENT_TYPE;

/// 200 while the process works.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn get_health() -> &'static str {
    "ok\n"
}

/// 200 once the tasks of this instance are restored and running.
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    responses(
        (status = 200, body = Readiness),
        (status = 503, description = "Not yet; with the progress of each task.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get_readiness(State(service): State<Service>) -> Result<Json<Readiness>, Problem> {
    let readiness = service.mill().readiness();
    if readiness.ready { Ok(Json(readiness)) } else { Err(Problem::not_ready(readiness.tasks)) }
}

/// All instances, their tasks, and the state and lag of each.
#[utoipa::path(get, path = "/v1/cluster", tag = "operations", responses((status = 200, body = Cluster)))]
pub(super) async fn get_cluster(
    State(service): State<Service>,
    Params(NoParams {}): Params<NoParams>,
) -> Result<Json<Cluster>, Problem> {
    let asked = service.clone();
    service.limits().operation(move || Json(asked.mill().cluster())).await
}

/// Metrics for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
pub(super) async fn get_metrics(State(service): State<Service>) -> Result<impl IntoResponse, Problem> {
    let asked = service.clone();
    let text = service.limits().operation(move || asked.metrics().render()).await?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text))
}
