//! What every answer goes through: metrics, and problems where the framework gave a bare status.

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Service;
use super::problem::{Problem, ProblemKind};
use crate::metrics::Metrics;

/// Counts and times requests by route.
pub(super) async fn measure(State(service): State<Service>, request: Request, next: Next) -> Response {
    let route =
        request.extensions().get::<MatchedPath>().map_or(Cow::Borrowed("unknown"), |path| path.as_str().to_owned().into());
    let method = method_label(request.method());
    let started = Instant::now();
    let _in_flight = InFlight::new(service.metrics().clone());
    let response = next.run(request).await;
    service.metrics().request_took(route, method, response.status().as_u16(), started.elapsed());
    response
}

/// A request that is being worked on, also when its client leaves early.
struct InFlight(Arc<Metrics>);

impl InFlight {
    fn new(metrics: Arc<Metrics>) -> Self {
        metrics.request_started();
        Self(metrics)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

/// Clients choose methods, so that only those we know become labels.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        _ => "other",
    }
}

/// Gives a bare error status its problem. Headers such as `Allow` stay.
pub(super) async fn as_problem(response: Response) -> Response {
    let Some(problem) = Problem::of_status(response.status()) else { return response };
    let json = |value: &HeaderValue| value.as_bytes().starts_with(b"application/");
    if response.headers().get(header::CONTENT_TYPE).is_some_and(json) {
        return response;
    }
    let allow = response.headers().get(header::ALLOW).cloned();
    let mut response = problem.into_response();
    if let Some(allow) = allow {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

/// The answer where a handler panicked.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(message, "a handler panicked");
    Problem::new(ProblemKind::Internal, "the request ended in a panic; the log has more").into_response()
}
