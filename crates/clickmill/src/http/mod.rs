//! The HTTP API, version 1, on axum. Handlers extract, call the [`Mill`], and convert; what goes wrong becomes an RFC 9457 problem in
//! one place (`problem`).

mod answer;
mod body;
mod clicks;
mod cluster;
mod counts;
mod limits;
mod mill;
mod observe;
mod operations;
mod page;
mod params;
mod period;
mod problem;
mod routed;
mod status;
mod time;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::middleware::{from_fn_with_state, map_response};
use axum::routing::get;
use millstream::time::TimeWindows;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

pub(crate) use limits::CancelOnDrop;
pub use mill::{AppendError, Appended, Application, ClicksTopic, Idempotency, IncomingClick, KnownTask, Mill};
pub use status::{Cluster, Instance, Quarantined, Readiness, RestoreProgress, TaskStatus};

use crate::click::ClickDecoder;
use crate::config::{Config, ServerConfig};
use crate::metrics::Metrics;
use crate::peers::Peers;
use limits::Limits;

/// The longest idempotency key, in bytes.
pub const MAX_IDEMPOTENCY_KEY_BYTES: usize = 128;

/// The header of the idempotency key.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// How many clicks one request may bring. The answer to the worst of bodies stays in bounds with it.
pub const MAX_CLICKS_PER_REQUEST: usize = 200_000;

/// The limits of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpOptions {
    /// The largest body in bytes.
    pub max_body: usize,
    /// How many bytes of bodies are held at once, at least `max_body`.
    pub intake_bytes: usize,
    /// How many requests are worked on at once.
    pub max_concurrent_requests: usize,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// The longest period of one query.
    pub max_query_period: Duration,
    /// How long a query waits for a partition that nobody answers for.
    pub failover_wait: Duration,
    /// How long after the start `/readyz?rollout` waits for copies.
    pub ready_wait: Duration,
}

impl From<&Config> for HttpOptions {
    fn from(config: &Config) -> Self {
        let &ServerConfig { max_body, max_concurrent_requests, request_timeout, max_query_period, failover_wait, .. } =
            &config.server;
        let intake_bytes = config.engine.intake_bytes() as usize;
        let ready_wait = config.engine.ready_wait;
        Self { max_body, intake_bytes, max_concurrent_requests, request_timeout, max_query_period, failover_wait, ready_wait }
    }
}

/// The API of a mill, and of its peers where it has any. `decoder` is the one that the engine reads the clicks topic with.
pub fn router(
    mill: Arc<dyn Mill>,
    peers: Option<Arc<Peers>>,
    decoder: ClickDecoder,
    metrics: Arc<Metrics>,
    options: HttpOptions,
) -> Router {
    let limits = Limits::new(&options);
    let service = Service(Arc::new(Inner { mill, peers, decoder, metrics, options, limits, started: Instant::now() }));
    let (bounded, bounded_api) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(clicks::post_clicks, counts::get_clicks))
        .routes(routes!(counts::get_top_ads))
        .routes(routes!(counts::get_ad_clicks))
        .routes(routes!(operations::get_cluster))
        .routes(routes!(operations::retry_task))
        .layer(from_fn_with_state(service.clone(), limits::bound))
        .split_for_parts();
    // A probe must get its answer when everything else is too much.
    let (router, api) = OpenApiRouter::with_openapi(bounded_api)
        .routes(routes!(operations::get_health))
        .routes(routes!(operations::get_readiness))
        .routes(routes!(operations::get_metrics))
        .split_for_parts();
    router
        .merge(bounded)
        .merge(SwaggerUi::new("/docs").url("/openapi.json", api))
        .route("/", get(page::get_page))
        .layer(from_fn_with_state(service.clone(), observe::measure))
        .layer(map_response(observe::as_problem))
        .layer(CatchPanicLayer::custom(observe::panicked))
        // A problem says itself what failed.
        .layer(TraceLayer::new_for_http().on_failure(()))
        .with_state(service)
}

/// The head of the OpenAPI description; the rest comes from the handlers.
#[derive(OpenApi)]
#[openapi(
    info(title = "Clickmill", description = "Counts ad clicks as they happen, exactly once."),
    tags(
        (name = "clicks", description = "Clicks in"),
        (name = "counts", description = "Counts out"),
        (name = "operations", description = "Running it"),
    )
)]
struct Description;

/// What handlers share.
#[derive(Clone)]
struct Service(Arc<Inner>);

struct Inner {
    mill: Arc<dyn Mill>,
    /// The other instances; none where this one is alone by its nature.
    peers: Option<Arc<Peers>>,
    decoder: ClickDecoder,
    metrics: Arc<Metrics>,
    options: HttpOptions,
    limits: Limits,
    started: Instant,
}

impl Service {
    fn mill(&self) -> &dyn Mill {
        self.0.mill.as_ref()
    }

    fn windows(&self) -> TimeWindows {
        self.mill().queries().windows()
    }

    fn peers(&self) -> Option<&Arc<Peers>> {
        self.0.peers.as_ref()
    }

    fn decoder(&self) -> &ClickDecoder {
        &self.0.decoder
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// Whether a roll-out still waits for copies.
    fn waits_for_copies(&self) -> bool {
        self.0.started.elapsed() < self.0.options.ready_wait
    }

    fn options(&self) -> &HttpOptions {
        &self.0.options
    }

    fn limits(&self) -> &Limits {
        &self.0.limits
    }
}

#[cfg(test)]
mod tests;
