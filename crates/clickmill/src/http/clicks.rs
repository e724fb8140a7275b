//! `POST /v1/clicks`: clicks in.

use std::time::Instant;

use axum::Json;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use millstream::partitioner::partition_for_key;
use millstream::record::Timestamp;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::ToSchema;

use super::body::BodyFormat;
use super::limits::{Deadline, on_blocking_thread};
use super::mill::{AppendError, Appended, Idempotency, IncomingClick};
use super::params::{NoParams, Params};
use super::problem::{Problem, ProblemBody, ProblemKind};
use super::{IDEMPOTENCY_KEY, MAX_IDEMPOTENCY_KEY_BYTES, Service};
use crate::click::Refusal;

/// Says of an answer that it is that of an earlier request.
const IDEMPOTENT_REPLAYED: &str = "idempotent-replayed";

/// What a click takes while it is decoded, and its rejection in the answer, at most.
const BYTES_PER_CLICK: usize = 104;

/// The reason of a click that may be stored or not.
const UNKNOWN: &str = "unknown";

/// The reason of a click that is not stored, though it is one.
const NOT_STORED: &str = "not stored";

/// A click, with any other fields. The names of these three are configuration.
#[derive(ToSchema)]
#[schema(as = Click, example = json!({"ad_id": "ad-1", "timestamp": 1767225600000_i64}))]
#[expect(dead_code, reason = "describes what the codec reads")]
struct ClickBody {
    /// 1 to 256 bytes of UTF-8.
    #[schema(min_length = 1, max_length = 256)]
    ad_id: String,
    /// When it happened. The time of arrival where absent.
    timestamp: Option<EventTime>,
    /// Carried and not interpreted.
    click_id: Option<String>,
}

/// A point in time, not negative.
#[derive(ToSchema, Serialize)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what the codec reads")]
enum EventTime {
    /// Epoch milliseconds.
    Milliseconds(u64),
    /// RFC 3339 with an offset, or epoch milliseconds.
    Text(String),
}

/// One click or many.
#[derive(ToSchema)]
#[schema(as = ClicksIn)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what the codec reads")]
enum ClicksBody {
    One(ClickBody),
    Many(Vec<ClickBody>),
}

/// What became of the clicks of a request.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct IntakeAnswer {
    /// How many were taken.
    pub(super) accepted: usize,
    /// Those that were not.
    pub(super) rejected: Vec<Rejected>,
}

/// A click that was not taken.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Rejected {
    /// Its place in the request, from 0. Blank lines do not count.
    index: usize,
    /// Why.
    #[schema(example = "ad_id is missing")]
    reason: &'static str,
}

/// Takes clicks in. Answers once every accepted click is durable. With the embedded broker, the accepted clicks of a request are stored
/// together or not at all; on Kafka, each by itself.
#[utoipa::path(
    post, path = "/v1/clicks", tag = "clicks",
    params(("Idempotency-Key" = Option<String>, Header,
        description = "Up to 128 bytes, kept for 24 h at least. A key that is stored already answers 202 with the first result and adds nothing.")),
    request_body(
        description = "One object or an array (`application/json`), or one object a line (`application/x-ndjson`).",
        content((ClicksBody = "application/json"), (String = "application/x-ndjson"))
    ),
    responses(
        (status = 202, description = "Every accepted click is durable.", body = IntakeAnswer,
            headers(("Idempotent-Replayed" = String, description = "`true` where the key was stored before and this is the first result."))),
        (status = 400, description = "The body is not JSON, or a parameter or the key cannot be taken.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "The body is of another type.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "No click was accepted.", body = IntakeAnswer),
        (status = 501, description = "An Idempotency-Key, where the log is Kafka.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "It cannot keep up, has no room, or is shutting down.", body = ProblemBody, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds. Only where the same can be sent again without counting twice."))),
    )
)]
pub(super) async fn post_clicks(
    State(service): State<Service>,
    Params(NoParams): Params<NoParams>,
    Extension(deadline): Extension<Deadline>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let format = BodyFormat::of(&headers)?;
    let key = idempotency_key(&headers)?;
    let max_body = service.options().max_body;
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > max_body) {
        return Err(too_large(max_body));
    }
    let Some(room) = service.limits().room_for_body(announced.unwrap_or(max_body), deadline.turn_by).await else {
        return Err(no_turn(&service, "there was no room for its body", None));
    };
    let body = to_bytes(body, max_body).await.map_err(|error| unread(&error, max_body))?;
    let turn = service.limits().turn_to_append(deadline.turn_by).await;
    let work = move || match turn {
        Some(_turn) => take_in(&service, format, key.as_deref(), &body, deadline.answer_by, room),
        None => Err(turn_away(&service, format, &body, room)),
    };
    on_blocking_thread(work).await?
}

/// The clicks of a body, before anything is done with them.
struct Judged<'a> {
    accepted: Vec<IncomingClick<'a>>,
    /// With their places in the request.
    refused: Vec<(usize, Refusal)>,
}

/// Decodes a body, which has that room.
fn judge<'a>(
    service: &Service,
    format: BodyFormat,
    body: &'a Bytes,
    arrived: Timestamp,
    room: &mut OwnedSemaphorePermit,
) -> Result<Judged<'a>, Problem> {
    let parts = format.split(body)?;
    // Of many tiny clicks more is made than they are long.
    if !service.limits().grow(room, parts.len() * BYTES_PER_CLICK) {
        return Err(Problem::new(ProblemKind::Overloaded, "too many clicks are being worked on"));
    }
    let topic = service.mill().clicks_topic();
    let mut judged = Judged { accepted: Vec::with_capacity(parts.len()), refused: Vec::new() };
    for (index, value) in parts.into_iter().enumerate() {
        match service.decoder().decode(value, arrived) {
            Ok(click) if click.ad_id.len() + value.len() > topic.max_record_bytes => {
                judged.refused.push((index, Refusal::TooLarge));
            }
            Ok(click) => {
                let partition = partition_for_key(click.ad_id.as_bytes(), topic.partitions);
                judged.accepted.push(IncomingClick { partition, ad_id: click.ad_id, value });
            }
            Err(refusal) => judged.refused.push((index, refusal)),
        }
    }
    Ok(judged)
}

/// What a request is told whose turn to append did not come: nothing of it is stored.
fn turn_away(service: &Service, format: BodyFormat, body: &Bytes, mut room: OwnedSemaphorePermit) -> Problem {
    match judge(service, format, body, service.mill().now(), &mut room) {
        Ok(Judged { accepted, refused }) => {
            let answer = told_of_each(&refused, &vec![false; accepted.len()], NOT_STORED);
            no_turn(service, "those before it were not done with theirs", Some(answer))
        }
        Err(problem) => problem,
    }
}

/// The problem of a request that has waited for its turn in vain. The cause is told where it is known.
fn no_turn(service: &Service, why: &str, answer: Option<IntakeAnswer>) -> Problem {
    let (kind, cause) = match service.mill().intake_trouble() {
        Some(trouble) => (ProblemKind::LogUnavailable, format!(": {trouble}")),
        None => (ProblemKind::Overloaded, String::new()),
    };
    let detail = format!("nothing of the request is stored, its turn did not come in time, for {why}{cause}");
    match answer {
        Some(answer) => Problem::not_stored(kind, answer, detail),
        None => Problem::new(kind, detail),
    }
}

/// Decodes, appends, and answers. The body has that room.
fn take_in(
    service: &Service,
    format: BodyFormat,
    key: Option<&[u8]>,
    body: &Bytes,
    deadline: Instant,
    mut room: OwnedSemaphorePermit,
) -> Result<Response, Problem> {
    let (mill, metrics) = (service.mill(), service.metrics());
    let arrived = mill.now();
    let Judged { accepted, refused } = judge(service, format, body, arrived, &mut room)?;
    let rejected = refused.iter().map(|&(index, refusal)| Rejected { index, reason: refusal.text() }).collect();
    let answer = IntakeAnswer { accepted: accepted.len(), rejected };
    if accepted.is_empty() {
        if let Some(before) = key.map(|key| mill.stored_answer(key)).transpose()?.flatten() {
            return Ok(replayed(before));
        }
        refused.iter().for_each(|&(_, refusal)| metrics.click_rejected(refusal));
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, Json(answer)).into_response());
    }
    let answer = serde_json::to_vec(&answer).map_err(|error| Problem::new(ProblemKind::Internal, error.to_string()))?;
    match mill.append(&accepted, arrived, deadline, key.map(|key| Idempotency { key, answer: &answer })) {
        Err(AppendError::Partly { durable, reason }) => {
            let stored = told_of_each(&refused, &durable, UNKNOWN);
            metrics.clicks_accepted(stored.accepted);
            refused.iter().for_each(|&(_, refusal)| metrics.click_rejected(refusal));
            Err(Problem::partly_stored(stored, reason))
        }
        Err(error @ AppendError::Unavailable(_)) => {
            let answer = told_of_each(&refused, &vec![false; accepted.len()], NOT_STORED);
            Err(Problem::not_stored(ProblemKind::LogUnavailable, answer, error.to_string()))
        }
        // Whether it can be sent again depends on the key alone.
        Err(error @ AppendError::OutcomeUnknown(_)) => Err(Problem::from(error).repeatable(key.is_some())),
        Err(error) => Err(error.into()),
        Ok(Appended::Now) => {
            metrics.clicks_accepted(accepted.len());
            refused.iter().for_each(|&(_, refusal)| metrics.click_rejected(refusal));
            Ok(taken(answer))
        }
        Ok(Appended::Before(before)) => Ok(replayed(before)),
    }
}

/// The answer where not all of the clicks that were not refused are known to be stored. `durable` is in their order; the others are rejected
/// for that reason.
fn told_of_each(refused: &[(usize, Refusal)], durable: &[bool], reason: &'static str) -> IntakeAnswer {
    let accepted = durable.iter().filter(|durable| **durable).count();
    let mut rejected = Vec::new();
    let (mut refused, mut durable) = (refused.iter().peekable(), durable.iter());
    for index in 0.. {
        if let Some(&(_, refusal)) = refused.next_if(|(at, _)| *at == index) {
            rejected.push(Rejected { index, reason: refusal.text() });
            continue;
        }
        match durable.next() {
            Some(true) => {}
            Some(false) => rejected.push(Rejected { index, reason }),
            None => break,
        }
    }
    IntakeAnswer { accepted, rejected }
}

fn taken(answer: Vec<u8>) -> Response {
    (StatusCode::ACCEPTED, [(header::CONTENT_TYPE, "application/json")], answer).into_response()
}

/// The answer of an earlier request with the same key, marked as such.
fn replayed(answer: Vec<u8>) -> Response {
    ([(IDEMPOTENT_REPLAYED, "true")], taken(answer)).into_response()
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<Vec<u8>>, Problem> {
    let invalid = |detail: String| Problem::new(ProblemKind::InvalidIdempotencyKey, detail);
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    if keys.next().is_some() {
        return Err(invalid("there is more than one Idempotency-Key".to_owned()));
    }
    match key.len() {
        1..=MAX_IDEMPOTENCY_KEY_BYTES => Ok(Some(key.as_bytes().to_vec())),
        length => Err(invalid(format!("the Idempotency-Key has {length} bytes: it is to have 1 to {MAX_IDEMPOTENCY_KEY_BYTES}"))),
    }
}

fn too_large(max_body: usize) -> Problem {
    Problem::new(ProblemKind::BodyTooLarge, format!("a body may have {max_body} bytes"))
}

/// The problem with a body that could not be read to its end.
fn unread(error: &axum::Error, max_body: usize) -> Problem {
    let source = std::error::Error::source(error);
    if source.is_some_and(|source| source.is::<http_body_util::LengthLimitError>()) {
        return too_large(max_body);
    }
    Problem::new(ProblemKind::InvalidRequest, format!("the body ended early: {error}"))
}
