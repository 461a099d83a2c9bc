//! HTTP: the page, the health checks, the figures, and the way in for WebSockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use tokio_util::task::TaskTracker;

use crate::backup::{self, Backups};
use crate::page;
use crate::progress::Progress;
use crate::regions::{self, Regions};
use crate::rest::problem::Problem;
use crate::rest::{self, Rest};
use crate::socket::{self, Surroundings};
use crate::status::Gather;

/// Small buffers: axum's defaults cost 134 KB a connection. Most messages are a few hundred bytes;
/// a larger one grows the buffer it needs.
const READ_BUFFER_BYTES: usize = 1 << 10;
const WRITE_BUFFER_BYTES: usize = 4 << 10;

/// What the handlers share.
pub struct Site {
    /// What a connection needs.
    pub around: Arc<Surroundings>,
    /// The name of the region.
    pub region: String,
    /// The largest message.
    pub frame_bytes_max: usize,
    /// Whether new connections are welcome: not before the store is open, not when it has failed,
    /// not while the server is stopping.
    pub ready: AtomicBool,
    /// The tasks of connections.
    pub connections: TaskTracker,
    /// Documents as resources.
    pub rest: Arc<Rest>,
    /// How the region is.
    pub status: Arc<Gather>,
    /// Copies of the store.
    pub backups: Backups,
    /// The other regions, if this one has links.
    pub regions: Option<Arc<Regions>>,
}

/// All routes.
pub fn router(site: Arc<Site>) -> Router {
    let documents = rest::router(site.rest.clone());
    Router::new()
        .route("/", get(root))
        .route("/page/{file}", get(page::file))
        .route("/sync", get(upgrade))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/mesh", get(regions::endpoint))
        .route("/v1/mesh", get(regions::page))
        .route("/v1/backup", post(backup::endpoint))
        .with_state(site)
        .merge(documents)
        .fallback(async || Problem::unknown_resource())
}

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

async fn root(
    State(site): State<Arc<Site>>,
    Extension(progress): Extension<Progress>,
    headers: HeaderMap,
    ws: Upgrade,
) -> Response {
    match headers.contains_key(header::UPGRADE) {
        true => accept(&site, progress, ws),
        false => page::root(&site.status, &headers).await,
    }
}

async fn upgrade(
    State(site): State<Arc<Site>>,
    Extension(progress): Extension<Progress>,
    ws: Upgrade,
) -> Response {
    accept(&site, progress, ws)
}

fn accept(site: &Arc<Site>, progress: Progress, ws: Upgrade) -> Response {
    let ws = match ws {
        Ok(ws) => ws,
        Err(rejection) => return rejection.into_response(),
    };
    let place = site.around.machine.admit();
    let Some(place) = place.filter(|_| site.ready.load(Ordering::Relaxed)) else {
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], "no room\n")
            .into_response();
    };
    let (around, connections) = (site.around.clone(), site.connections.clone());
    ws.read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        // A message is written whole, so the largest must fit on top of what is buffered.
        .max_write_buffer_size(usize::MAX)
        .max_message_size(site.frame_bytes_max)
        .max_frame_size(site.frame_bytes_max)
        .on_upgrade(move |socket| {
            connections.track_future(socket::serve(socket, around, progress, place))
        })
}

async fn readyz(State(site): State<Arc<Site>>) -> Response {
    if site.ready.load(Ordering::Relaxed) {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}

async fn metrics(State(site): State<Arc<Site>>) -> Response {
    let machine = &site.around.machine;
    let mesh = Regions::view(site.regions.as_deref(), &site.region).await;
    let (counters, sessions) = (machine.counters(), machine.sessions());
    let text = site.around.metrics.encode(&counters, sessions, machine.uptime(), &mesh);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
