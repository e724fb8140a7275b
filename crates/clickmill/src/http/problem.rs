//! Errors as RFC 9457 problems: the one place where what went wrong becomes an answer.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use millstream::query::QueryError;
use millstream::record::Timestamp;
use millstream::store::StoreErrorKind;
use serde::Serialize;
use utoipa::ToSchema;

use super::clicks::{IntakeAnswer, Rejected};
use super::mill::AppendError;
use super::status::{Readiness, TaskStatus};
use super::time::Time;

/// The media type of a problem.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// The kinds of problems. Their `type` URIs are part of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProblemKind {
    InvalidRequest,
    InvalidParameter,
    PeriodTooEarly,
    PeriodTooLong,
    InvalidIdempotencyKey,
    MalformedBody,
    NotFound,
    MethodNotAllowed,
    BodyTooLarge,
    UnsupportedMediaType,
    Incomplete,
    NotReady,
    Overloaded,
    LogUnavailable,
    ShuttingDown,
    TimedOut,
    OutcomeUnknown,
    StoreUnavailable,
    IdempotencyUnavailable,
    Internal,
}

impl ProblemKind {
    #[cfg(test)]
    pub(super) const ALL: [Self; 20] = [
        Self::InvalidRequest,
        Self::InvalidParameter,
        Self::PeriodTooEarly,
        Self::PeriodTooLong,
        Self::InvalidIdempotencyKey,
        Self::MalformedBody,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::Incomplete,
        Self::NotReady,
        Self::Overloaded,
        Self::LogUnavailable,
        Self::ShuttingDown,
        Self::TimedOut,
        Self::OutcomeUnknown,
        Self::StoreUnavailable,
        Self::IdempotencyUnavailable,
        Self::Internal,
    ];

    /// The end of the `type` URI, the status, and the title.
    pub(super) fn words(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::InvalidRequest => ("invalid-request", S::BAD_REQUEST, "The request cannot be read"),
            Self::InvalidParameter => ("invalid-parameter", S::BAD_REQUEST, "A parameter cannot be taken"),
            Self::PeriodTooEarly => ("period-too-early", S::BAD_REQUEST, "The period starts before what is kept"),
            Self::PeriodTooLong => ("period-too-long", S::BAD_REQUEST, "The period is too long for one query"),
            Self::InvalidIdempotencyKey => ("invalid-idempotency-key", S::BAD_REQUEST, "The idempotency key cannot be taken"),
            Self::MalformedBody => ("malformed-body", S::BAD_REQUEST, "The body is not JSON"),
            Self::NotFound => ("not-found", S::NOT_FOUND, "There is nothing at this path"),
            Self::MethodNotAllowed => ("method-not-allowed", S::METHOD_NOT_ALLOWED, "This path does not take this method"),
            Self::BodyTooLarge => ("body-too-large", S::PAYLOAD_TOO_LARGE, "The body is too large"),
            Self::UnsupportedMediaType => {
                ("unsupported-media-type", S::UNSUPPORTED_MEDIA_TYPE, "The body is of a type that is not taken")
            }
            Self::Incomplete => ("incomplete", S::SERVICE_UNAVAILABLE, "Some partitions cannot answer now"),
            Self::NotReady => ("not-ready", S::SERVICE_UNAVAILABLE, "Not every task is running yet"),
            Self::Overloaded => ("overloaded", S::SERVICE_UNAVAILABLE, "There is more to do than can be done"),
            Self::LogUnavailable => ("log-unavailable", S::SERVICE_UNAVAILABLE, "The log cannot take clicks for now"),
            Self::ShuttingDown => ("shutting-down", S::SERVICE_UNAVAILABLE, "This instance is shutting down"),
            Self::TimedOut => ("timed-out", S::SERVICE_UNAVAILABLE, "The request took too long"),
            Self::OutcomeUnknown => ("outcome-unknown", S::SERVICE_UNAVAILABLE, "The clicks may be stored or not"),
            Self::StoreUnavailable => ("store-unavailable", S::SERVICE_UNAVAILABLE, "The counts cannot be read now"),
            Self::IdempotencyUnavailable => ("idempotency-unavailable", S::NOT_IMPLEMENTED, "This log keeps no idempotency keys"),
            Self::Internal => ("internal", S::INTERNAL_SERVER_ERROR, "Something went wrong in here"),
        }
    }

    /// After how many seconds the same request may succeed, where it may.
    fn retry_after(self) -> Option<u32> {
        match self {
            Self::LogUnavailable | Self::ShuttingDown => Some(10),
            _ => (self.words().1 == StatusCode::SERVICE_UNAVAILABLE).then_some(1),
        }
    }
}

/// What went wrong with a request.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    kind: ProblemKind,
    detail: String,
    earliest: Option<Timestamp>,
    missing: Option<Vec<u32>>,
    not_ready: Option<Box<Readiness>>,
    stored: Option<Box<IntakeAnswer>>,
    /// Whether sending the same again cannot count twice.
    repeatable: bool,
}

/// A problem as it is written.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem, title = "Problem", description = "RFC 9457 problem details.")]
pub(super) struct ProblemBody {
    /// The kind of problem, stable.
    #[schema(example = "/problems/period-too-early")]
    r#type: String,
    /// The kind in words.
    title: &'static str,
    /// The status of the answer.
    status: u16,
    /// What is wrong with this request.
    detail: String,
    /// With `period-too-early`: the earliest `from` that is answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    earliest: Option<Time>,
    /// With `incomplete`: the partitions that cannot answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<Vec<u32>>,
    /// With `not-ready`: the tasks and how far they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    tasks: Option<Vec<TaskStatus>>,
    /// With `not-ready`: what keeps clicks from being stored for now.
    #[serde(skip_serializing_if = "Option::is_none")]
    intake_trouble: Option<String>,
    /// With `not-ready`: what keeps this instance from answering for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_trouble: Option<String>,
    /// Where it is known of each click of a request: how many are stored for certain.
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<usize>,
    /// With `accepted`: those that are not stored, or may not be.
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<Vec<Rejected>>,
}

impl Problem {
    pub(super) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), earliest: None, missing: None, not_ready: None, stored: None, repeatable: true }
    }

    /// The problem of a parameter, by its name.
    pub(super) fn parameter(name: &str, reason: impl std::fmt::Display) -> Self {
        Self::new(ProblemKind::InvalidParameter, format!("{name}: {reason}"))
    }

    pub(super) fn period_too_early(from: Timestamp, earliest: Timestamp) -> Self {
        let detail = format!("counts before {} are not kept, and from is {}", Time(earliest), Time(from));
        Self { earliest: Some(earliest), ..Self::new(ProblemKind::PeriodTooEarly, detail) }
    }

    pub(super) fn not_ready(readiness: Readiness) -> Self {
        let is_waiting = |task: &&TaskStatus| !matches!(&*task.state, "running" | "quarantined");
        let waiting: Vec<&str> = readiness.tasks.iter().filter(is_waiting).map(|task| task.task.as_str()).collect();
        let detail = match (&readiness.cluster_trouble, waiting.is_empty()) {
            (_, false) => format!("tasks not running: {}", waiting.join(", ")),
            (Some(trouble), true) => trouble.clone(),
            (None, true) => "not every task is assigned yet".to_owned(),
        };
        Self { not_ready: Some(Box::new(readiness)), ..Self::new(ProblemKind::NotReady, detail) }
    }

    pub(super) fn not_quarantined(task: &str) -> Self {
        let detail = format!("no task {task:?} is quarantined on this instance: /v1/cluster lists those that are");
        Self::new(ProblemKind::NotFound, detail)
    }

    /// Clicks that are stored one by one, not all of which are known to be.
    pub(super) fn partly_stored(stored: IntakeAnswer, reason: impl Into<String>) -> Self {
        Self { stored: Some(Box::new(stored)), repeatable: false, ..Self::new(ProblemKind::OutcomeUnknown, reason) }
    }

    /// Clicks none of which is stored, for certain.
    pub(super) fn not_stored(kind: ProblemKind, answer: IntakeAnswer, reason: impl Into<String>) -> Self {
        Self { stored: Some(Box::new(answer)), ..Self::new(kind, reason) }
    }

    /// The same, of a request that can be sent again without counting twice, or cannot: only then does it say when.
    pub(super) fn repeatable(self, repeatable: bool) -> Self {
        Self { repeatable, ..self }
    }

    /// The problem that a bare status stands for; none where it is no error.
    pub(super) fn of_status(status: StatusCode) -> Option<Self> {
        let kind = match status {
            StatusCode::NOT_FOUND => ProblemKind::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => ProblemKind::MethodNotAllowed,
            StatusCode::PAYLOAD_TOO_LARGE => ProblemKind::BodyTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => ProblemKind::UnsupportedMediaType,
            _ if status.is_client_error() => ProblemKind::InvalidRequest,
            _ if status.is_server_error() => ProblemKind::Internal,
            _ => return None,
        };
        Some(Self::new(kind, kind.words().2))
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        let detail = error.to_string();
        match error {
            QueryError::Incomplete(completeness) => {
                let missing = completeness.missing.iter().map(|partition| partition.0).collect();
                Self { missing: Some(missing), ..Self::new(ProblemKind::Incomplete, detail) }
            }
            QueryError::LagUnknown(_) => Self::new(ProblemKind::StoreUnavailable, detail),
            QueryError::Store(error) => match error.kind() {
                StoreErrorKind::Retry | StoreErrorKind::Corrupt => Self::new(ProblemKind::StoreUnavailable, detail),
                StoreErrorKind::Stop => Self::new(ProblemKind::Internal, detail),
            },
        }
    }
}

impl From<AppendError> for Problem {
    fn from(error: AppendError) -> Self {
        let kind = match error {
            AppendError::Unavailable(_) => ProblemKind::LogUnavailable,
            AppendError::ShuttingDown => ProblemKind::ShuttingDown,
            AppendError::OutcomeUnknown(_) | AppendError::Partly { .. } => ProblemKind::OutcomeUnknown,
            AppendError::NoIdempotency => ProblemKind::IdempotencyUnavailable,
            AppendError::Failed(_) => ProblemKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (uri, status, title) = self.kind.words();
        match self.kind {
            // Asked every second while it starts, and the answer says it all.
            ProblemKind::NotReady => tracing::debug!(detail = self.detail, "not ready yet"),
            _ if status.is_server_error() => tracing::warn!(problem = uri, detail = self.detail, "a request failed"),
            _ => {}
        }
        let retry_after = self.kind.retry_after().filter(|_| self.repeatable);
        let (accepted, rejected) = self.stored.map(|stored| (stored.accepted, stored.rejected)).unzip();
        let not_ready = self.not_ready.map(|readiness| *readiness);
        let cluster_trouble = not_ready.as_ref().and_then(|readiness| readiness.cluster_trouble.clone());
        let (tasks, intake_trouble) = not_ready.map(|readiness| (readiness.tasks, readiness.intake_trouble)).unzip();
        let body = ProblemBody {
            r#type: format!("/problems/{uri}"),
            title,
            status: status.as_u16(),
            detail: self.detail,
            earliest: self.earliest.map(Time),
            missing: self.missing,
            tasks,
            intake_trouble: intake_trouble.flatten(),
            cluster_trouble,
            accepted,
            rejected,
        };
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
