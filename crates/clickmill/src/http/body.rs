//! The body of `POST /v1/clicks`: which parts of it are meant to be clicks.

use axum::http::{HeaderMap, header};

use super::MAX_CLICKS_PER_REQUEST;
use super::problem::{Problem, ProblemKind};
use crate::click::{JsonError, array_elements};

/// How a body is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyFormat {
    /// One object, or an array of them.
    Json,
    /// One object a line. Blank lines are passed over.
    NdJson,
}

impl BodyFormat {
    /// What the headers say.
    ///
    /// # Errors
    /// It is neither format, or compressed.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let unsupported = |detail: &str| Problem::new(ProblemKind::UnsupportedMediaType, detail);
        if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(unsupported("a body with a Content-Encoding is not taken"));
        }
        let media_type = headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
        let essence = media_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        if essence.eq_ignore_ascii_case(b"application/json") {
            Ok(Self::Json)
        } else if essence.eq_ignore_ascii_case(b"application/x-ndjson") {
            Ok(Self::NdJson)
        } else {
            Err(unsupported("the Content-Type is to be application/json or application/x-ndjson"))
        }
    }

    /// The parts of the body that are meant to be clicks, as they came, in order.
    ///
    /// # Errors
    /// The body as a whole is not JSON, where it is to be, or there are more than [`MAX_CLICKS_PER_REQUEST`].
    pub(super) fn split(self, body: &[u8]) -> Result<Vec<&[u8]>, Problem> {
        let parts = match self {
            Self::Json => split_json(body)?,
            Self::NdJson => {
                let lines = memchr::memchr_iter(b'\n', body).chain([body.len()]).scan(0, |start, end| {
                    let line = &body[*start..end];
                    *start = end + 1;
                    Some(line.trim_ascii())
                });
                lines.filter(|line| !line.is_empty()).take(MAX_CLICKS_PER_REQUEST + 1).collect()
            }
        };
        if parts.len() > MAX_CLICKS_PER_REQUEST {
            let detail = format!("a request may bring {MAX_CLICKS_PER_REQUEST} clicks");
            return Err(Problem::new(ProblemKind::BodyTooLarge, detail));
        }
        Ok(parts)
    }
}

fn split_json(body: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    let malformed = |detail: &str| Problem::new(ProblemKind::MalformedBody, detail);
    let text = std::str::from_utf8(body).map_err(|_| malformed("the body is not UTF-8"))?;
    match array_elements(text, MAX_CLICKS_PER_REQUEST) {
        Ok(Some(elements)) => Ok(elements.into_iter().map(str::as_bytes).collect()),
        Ok(None) => Ok(vec![body.trim_ascii()]),
        Err(JsonError::Malformed) => {
            Err(malformed("the body is not JSON; where it has one object a line, it is application/x-ndjson"))
        }
        Err(JsonError::TooDeep) => Err(malformed("the body nests deeper than 128 levels")),
    }
}
