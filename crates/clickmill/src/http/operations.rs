//! Running it: health, readiness, the cluster, metrics.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;

use super::Service;
use super::cluster;
use super::params::{NoParams, Params};
use super::problem::{Problem, ProblemBody};
use super::status::{Cluster, Readiness};
use crate::metrics::TextFormat;

/// 200 while the process works.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, description = "It works.", body = String, content_type = "text/plain")))]
pub(super) async fn get_health() -> &'static str {
    "ok\n"
}

/// 200 once the tasks of this instance are restored and running, or quarantined, and it knows of the other instances. For a roll-out, which stops the next
/// instance then, `?rollout` also waits until the copies that this one is to keep have caught up, for `engine.ready_wait` after the start at most.
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    params(("rollout" = Option<String>, Query, description = "Waits for copies too, whatever its value.")),
    responses(
        (status = 200, description = "Every task is running, or quarantined.", body = Readiness),
        (status = 503, description = "Not yet; with the progress of each task.", body = ProblemBody, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds."))),
    )
)]
pub(super) async fn get_readiness(
    State(service): State<Service>,
    Query(asked): Query<BTreeMap<String, String>>,
) -> Result<Json<Readiness>, Problem> {
    let mut readiness = service.mill().readiness();
    let waits_for_copies = asked.contains_key("rollout") && service.waits_for_copies();
    let behind = || if waits_for_copies { cluster::copies_behind(service.mill()) } else { None };
    readiness.cluster_trouble = cluster::trouble(service.mill(), service.peers()).or_else(behind);
    readiness.ready &= readiness.cluster_trouble.is_none();
    if readiness.ready { Ok(Json(readiness)) } else { Err(Problem::not_ready(readiness)) }
}

/// All instances, their tasks, and the state and lag of each.
#[utoipa::path(get, path = "/v1/cluster", tag = "operations", responses((status = 200, description = "The instances.", body = Cluster)))]
pub(super) async fn get_cluster(
    State(service): State<Service>,
    Params(NoParams): Params<NoParams>,
) -> Result<Json<Cluster>, Problem> {
    let asked = service.clone();
    service.limits().operation(move || Json(cluster::describe(asked.mill(), asked.peers()))).await
}

/// Lets a quarantined task try again, after what it found has been put right.
#[utoipa::path(
    post, path = "/v1/cluster/tasks/{task}/retry", tag = "operations",
    params(("task" = String, Path, description = "The task, as `/v1/cluster` names it.", example = "1_3")),
    responses(
        (status = 202, description = "It tries again. `/v1/cluster` tells what comes of it."),
        (status = 404, description = "No task of that name is quarantined here.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn retry_task(
    State(service): State<Service>,
    Path(task): Path<String>,
    Params(NoParams): Params<NoParams>,
) -> Result<StatusCode, Problem> {
    let (asked, named) = (service.clone(), task.clone());
    match service.limits().operation(move || asked.mill().retry_task(&named)).await? {
        true => Ok(StatusCode::ACCEPTED),
        false => Err(Problem::not_quarantined(&task)),
    }
}

/// Metrics for Prometheus: its own text format, or OpenMetrics where `Accept` names that.
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses((status = 200, description = "All metrics.", content((String = "text/plain"), (String = "application/openmetrics-text"))))
)]
pub(super) async fn get_metrics(State(service): State<Service>, headers: HeaderMap) -> Result<impl IntoResponse, Problem> {
    let asked = service.clone();
    let format = TextFormat::asked_for(headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok()));
    let text = service.limits().operation(move || asked.metrics().render(format)).await?;
    Ok(([(header::CONTENT_TYPE, format.content_type()), (header::VARY, "accept")], text))
}
