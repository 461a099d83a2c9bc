//! Errors as RFC 9457 has them: `application/problem+json`.

use std::borrow::Cow;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Serialize, Serializer};

/// What went wrong, for programs and for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// Which kind: `urn:tributary:problem:` and a word of `docs/rest.md`.
    #[serde(rename = "type", serialize_with = "as_urn")]
    #[schema(value_type = String)]
    pub kind: &'static str,
    /// The kind in a few words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What it was this time, and what can be done.
    pub detail: Cow<'static, str>,
    /// The limit that was passed: the key of the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<&'static str>,
    /// What it is set to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    /// When to try again, in seconds; also in the header `Retry-After`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
}

impl Problem {
    fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            kind,
            title,
            status: status.as_u16(),
            detail: detail.into(),
            limit: None,
            max: None,
            retry_after: None,
        }
    }

    fn again(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    fn named(self, limit: &'static str, max: impl TryInto<u64>) -> Self {
        Self { limit: Some(limit), max: max.try_into().ok(), ..self }
    }

    /// The id in the path is none.
    pub fn bad_id(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-id", "Not a document id", detail)
    }

    /// A parameter or header makes no sense.
    pub fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "The request makes no sense", detail)
    }

    /// The body is not what its type says.
    pub fn bad_body(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-body", "The body cannot be read", detail)
    }

    /// No such document here.
    pub fn unknown_document() -> Self {
        let detail = "this region holds no document with this id; if it is new elsewhere, ask with \
                      'at-least' and the heads you know";
        Self::new(StatusCode::NOT_FOUND, "unknown-document", "No such document", detail)
    }

    /// The document does not hold these heads.
    pub fn unknown_heads(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown-heads", "No such heads", detail)
    }

    /// Nothing is there in the document.
    pub fn unknown_place(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown-place", "Nothing is there", detail)
    }

    /// No such resource at all.
    pub fn unknown_resource() -> Self {
        let detail = "see /v1/openapi.json for what there is";
        Self::new(StatusCode::NOT_FOUND, "unknown-resource", "No such resource", detail)
    }

    /// The resource has no such method.
    pub fn method() -> Self {
        let detail = "see /v1/openapi.json for what can be done here";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method", "Not allowed here", detail)
    }

    /// None of the types that are accepted can be had.
    pub fn not_acceptable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_ACCEPTABLE, "not-acceptable", "Not in this form", detail)
    }

    /// The body took too long to come.
    pub fn slow_body(seconds: u32) -> Self {
        let detail = "the body did not come in time (rest.seconds)";
        Self::new(StatusCode::REQUEST_TIMEOUT, "slow-body", "The body came too slowly", detail)
            .named("rest.seconds", seconds)
    }

    /// The heads have not come within the time that was given.
    pub fn not_here_yet(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, "not-here-yet", "Not in this region yet", detail).again(1)
    }

    /// There is a document with this id.
    pub fn exists() -> Self {
        let detail = "a document with this id exists; PUT merges into it";
        Self::new(StatusCode::CONFLICT, "exists", "The document exists", detail)
    }

    /// A condition of the request does not hold.
    pub fn precondition(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "precondition",
            "A condition does not hold",
            detail,
        )
    }

    /// More than a limit.
    pub fn too_large(
        limit: &'static str,
        max: usize,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "More than a limit", detail)
            .named(limit, max)
    }

    /// A number in the request is over a limit.
    pub fn over_limit(
        limit: &'static str,
        max: usize,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "over-limit", "More than a limit", detail)
            .named(limit, max)
    }

    /// The type of the body is not one that is taken.
    pub fn unsupported(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported", "Unknown type of body", detail)
    }

    /// The request is well-formed and cannot be done on this document.
    pub fn impossible(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "impossible", "This cannot be done", detail)
    }

    /// A limit on work at once has been reached.
    pub fn overloaded(limit: &'static str, max: usize) -> Self {
        let detail = format!("too much is going on ({limit}); try again in a moment");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too much is going on", detail)
            .named(limit, max)
            .again(1)
    }

    /// It took too long.
    pub fn too_slow(seconds: u32) -> Self {
        let detail = "it took longer than a request may (rest.seconds)";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "too-slow", "It took too long", detail)
            .named("rest.seconds", seconds)
            .again(5)
    }

    /// The server is starting or stopping.
    pub fn not_ready() -> Self {
        let detail = "the server is not ready, or about to stop";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "Not ready", detail).again(5)
    }

    /// The document cannot be opened. The details are in the log, for the operator.
    pub fn unreadable() -> Self {
        let detail =
            "this document cannot be opened here; the operator finds the reason in the log";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "unreadable", "Cannot be opened", detail)
    }

    /// Ours.
    pub fn internal() -> Self {
        let detail = "something is wrong with this server; the operator finds more in the log";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Our mistake", detail)
    }
}

fn as_urn<S: Serializer>(kind: &&'static str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("urn:tributary:problem:{kind}"))
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (status, kind, body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
