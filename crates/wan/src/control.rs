//! The network over HTTP, so that a page can have sliders for it.
//!
//! | request | answer |
//! |---|---|
//! | `GET /links` | a list of links |
//! | `PUT /links/{name}` with [`Conditions`] | the link as it is now; 404 if there is none, 422 if the conditions are none |
//! | `POST /links/{name}/reset` | 204, and all its connections have ended |
//!
//! A link is `{"name", "listen", "target", "conditions": {"there", "back"}, "stats"}`. There is no
//! password: whoever can reach it can break the network.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Serialize;

use crate::{Conditions, LinkHandle, Stats, Wan};

/// The most bytes of a request's body.
const BODY_BYTES_MAX: usize = 16 << 10;

/// What answers requests. `origin`: pages from there may use it, too (`https://example.org`, or `*`);
/// without one, a browser keeps all other pages away from it.
pub fn router(wan: Arc<Wan>, origin: Option<HeaderValue>) -> Router {
    let router = Router::new()
        .route("/links", get(list))
        .route("/links/{name}", put(set))
        .route("/links/{name}/reset", post(reset))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(wan);
    match origin {
        Some(origin) => router.layer(middleware::from_fn_with_state(origin, allow)),
        None => router,
    }
}

/// A link as it is told.
#[derive(Serialize)]
struct Shown {
    name: String,
    listen: String,
    target: String,
    conditions: Conditions,
    stats: Stats,
}

impl From<&LinkHandle> for Shown {
    fn from(link: &LinkHandle) -> Self {
        Self {
            name: link.name().to_owned(),
            listen: link.listen().to_string(),
            target: link.target().to_string(),
            conditions: link.conditions(),
            stats: link.stats(),
        }
    }
}

async fn list(State(wan): State<Arc<Wan>>) -> Json<Vec<Shown>> {
    Json(wan.links().iter().map(Shown::from).collect())
}

async fn set(
    State(wan): State<Arc<Wan>>,
    Path(name): Path<String>,
    Json(conditions): Json<Conditions>,
) -> Result<Json<Shown>, (StatusCode, String)> {
    let link = wan.get(&name).ok_or_else(|| unknown(&name))?;
    let set = link.set(conditions);
    set.map_err(|error| (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
    Ok(Json(Shown::from(&link)))
}

async fn reset(
    State(wan): State<Arc<Wan>>,
    Path(name): Path<String>,
) -> Result<StatusCode, (StatusCode, String)> {
    wan.get(&name).ok_or_else(|| unknown(&name))?.reset();
    Ok(StatusCode::NO_CONTENT)
}

fn unknown(name: &str) -> (StatusCode, String) {
    (StatusCode::NOT_FOUND, format!("there is no link {name}"))
}

/// Tells the browser that pages of another origin may do this.
async fn allow(State(origin): State<HeaderValue>, request: Request, next: Next) -> Response {
    let asked = request.method() == Method::OPTIONS;
    let mut response =
        if asked { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, PUT, POST"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type"));
    response
}
