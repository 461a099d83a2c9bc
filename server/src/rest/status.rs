//! How the region is, and how a document is: for the status page and for those who look from outside.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::rest::Rest;
use crate::rest::problem::Problem;
use crate::rest::request::Target;
use crate::status::{DocumentStatus, Peer, Status};

/// How many of those who have a document open are named.
const PEERS_MAX: usize = 1_000;

/// How this region is: who is connected, what comes and goes, how long commits take, links,
/// quarantine, and the last warnings and errors of its log.
#[utoipa::path(
    get, path = "/v1/status", tag = "status",
    responses(
        (status = 200, description = "The figures", body = Status),
        (status = 503, description = "The server is about to stop", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn region(State(rest): State<Arc<Rest>>) -> Response {
    let status = rest.status.status().await;
    ([(header::CACHE_CONTROL, "no-store")], Json(status)).into_response()
}

/// How a document is: its heads and size, and who has it open here. It is not opened for that.
#[utoipa::path(
    get, path = "/v1/documents/{id}/status", tag = "status",
    params(("id" = String, Path, description = "The id, or an automerge: URL")),
    responses(
        (status = 200, description = "The figures", body = DocumentStatus),
        (status = 400, description = "A bad id", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such document", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too much is going on, or it took too long", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn document(State(rest): State<Arc<Rest>>, target: Target) -> Result<Response, Problem> {
    let id = target.bare()?;
    let summary = async {
        let document = id.clone();
        let summary = rest.read(move |rest| rest.summary(&document)).await?;
        let summary = summary.ok_or_else(Problem::unknown_document)?;
        // After the heads, so that nobody is called level who was so a moment ago.
        Ok((summary, rest.machine.peers(id.clone()).await, rest.known(&id).await?))
    };
    let (summary, present, known) = rest.within(summary).await?;
    let peers_total = present.len() as u64;
    let mut peers: Vec<_> = present
        .into_iter()
        .map(|present| Peer {
            peer: present.peer.as_str().to_owned(),
            storage: present.storage.map(|storage| storage.as_str().to_owned()),
            session: present.session.0,
            level: present.holds.as_ref() == Some(&known.heads),
        })
        .collect();
    peers.sort_unstable();
    peers.truncate(PEERS_MAX);
    let status = DocumentStatus { peers, peers_total, ..summary.into() };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(status)).into_response())
}
