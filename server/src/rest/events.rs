//! Server-sent events: the heads of one document, and what changes in the region.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, KeepAliveStream, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use model::{DocumentId, Heads};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::{IntoParams, ToSchema};

use crate::board::Watch;
use crate::rest::Rest;
use crate::rest::problem::Problem;
use crate::rest::request::{Params, Target, etag, write_heads};

/// How often something is sent so that nobody takes the connection for dead.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
/// How many documents of the feed are looked up at once.
const FEED_AT_ONCE: usize = 32;

/// New heads of a document.
#[derive(Debug, Serialize, ToSchema)]
pub struct HeadsEvent {
    /// The document.
    id: String,
    /// The heads that it has, durably, when this is sent; in hexadecimal.
    heads: Vec<String>,
    /// How many changes lie behind them.
    changes: u32,
}

/// Events of one document: `heads` at once, and whenever they have changed.
///
/// Who reads slowly gets fewer events, each with the heads of that moment.
#[utoipa::path(
    get, path = "/v1/documents/{id}/events", tag = "events",
    params(("id" = String, Path, description = "The id, or an automerge: URL")),
    responses(
        (status = 200, description = "Events named 'heads'", body = HeadsEvent, content_type = "text/event-stream"),
        (status = 400, description = "A bad id", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such document", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too many streams", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn of_document(
    State(rest): State<Arc<Rest>>,
    target: Target,
) -> Result<Sse<KeepAliveStream<impl Stream<Item = Result<Event, Infallible>>>>, Problem> {
    let id = target.bare()?;
    let place = rest.stream()?;
    let watch = rest.board.watch(&id);
    rest.within(rest.known(&id)).await?;
    let stream = DocumentStream { rest, id, watch, told: None, _place: place };
    let events = unfold(stream, async |mut stream| Some((Ok(stream.next().await?), stream)));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE_EVERY)))
}

/// Since when.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FeedParams {
    /// The `id` of the last event that was seen; without it, events from now on. The header
    /// `Last-Event-ID` does the same.
    since: Option<String>,
}

/// The change feed of the region: which documents have changed.
///
/// It begins with an event `start`, whose `id` names this moment. An event `change` names a document
/// and the heads it has when the event is sent; several changes of a document may be one event. After
/// a pause, go on with the `id` of the last event: every document that has changed meanwhile comes
/// once. When that is too long ago, or the process has started again, an event `reset` comes first:
/// whatever was not listened to has to be looked up in `/v1/documents`.
#[utoipa::path(
    get, path = "/v1/events", tag = "events",
    params(
        FeedParams,
        ("Last-Event-ID" = Option<String>, Header, description = "As since, from an EventSource that comes back"),
    ),
    responses(
        (status = 200, description = "Events named 'start', 'change' and 'reset'", body = HeadsEvent, content_type = "text/event-stream"),
        (status = 400, description = "'since' is not the id of an event", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too many streams", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn of_region(
    State(rest): State<Arc<Rest>>,
    Params(params): Params<FeedParams>,
    headers: HeaderMap,
) -> Result<Sse<KeepAliveStream<impl Stream<Item = Result<Event, Infallible>>>>, Problem> {
    let last_event = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let since = params.since.as_deref().or(last_event);
    let since = since.map(parse).transpose()?;
    let place = rest.stream()?;
    let grown = rest.board.feed();
    let now = rest.board.last();
    let (at, opening) = match since {
        None => (now, Some(Opening::Start)),
        Some((epoch, number)) if epoch == rest.epoch && number <= now => (number, None),
        Some(_) => (now, Some(Opening::Reset)),
    };
    let stream = FeedStream { rest, at, opening, grown, waiting: Vec::new(), _place: place };
    let events = unfold(stream, async |mut stream| Some((Ok(stream.next().await?), stream)));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE_EVERY)))
}

/// `EPOCH-NUMBER`, as the ids of events are.
fn parse(text: &str) -> Result<(String, u64), Problem> {
    let parts =
        text.split_once('-').and_then(|(epoch, number)| Some((epoch, number.parse().ok()?)));
    let (epoch, number) =
        parts.ok_or_else(|| Problem::bad_request("'since' is the id of an event of this feed"))?;
    Ok((epoch.to_owned(), number))
}

struct DocumentStream {
    rest: Arc<Rest>,
    id: DocumentId,
    watch: Watch,
    told: Option<Heads>,
    _place: OwnedSemaphorePermit,
}

impl DocumentStream {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.told.is_some() {
                let _ = self.watch.next().await;
            }
            // When it cannot be read any more, the stream ends, and whoever comes again is told why.
            let known = self.rest.known(&self.id).await.ok()?;
            if self.told.as_ref() != Some(&known.heads) {
                self.told = Some(known.heads.clone());
                let event = HeadsEvent {
                    id: self.id.to_string(),
                    heads: write_heads(&known.heads),
                    changes: known.changes,
                };
                let name = etag(&known.heads);
                let name = name.to_str().unwrap_or_default().trim_matches('"').to_owned();
                return Event::default().event("heads").id(name).json_data(event).ok();
            }
        }
    }
}

enum Opening {
    Start,
    Reset,
}

struct FeedStream {
    rest: Arc<Rest>,
    /// The number of the last event that was sent.
    at: u64,
    opening: Option<Opening>,
    grown: watch::Receiver<u64>,
    /// What is to be sent next, the last first.
    waiting: Vec<(u64, DocumentId)>,
    _place: OwnedSemaphorePermit,
}

impl FeedStream {
    async fn next(&mut self) -> Option<Event> {
        if let Some(opening) = self.opening.take() {
            let name = match opening {
                Opening::Start => "start",
                Opening::Reset => "reset",
            };
            let region = serde_json::json!({ "region": self.rest.region });
            return self.event(name).json_data(region).ok();
        }
        loop {
            while let Some((number, id)) = self.waiting.pop() {
                self.at = number;
                // One that cannot be read is not what the others should wait for.
                let Ok(known) = self.rest.known(&id).await else { continue };
                let event = HeadsEvent {
                    id: id.to_string(),
                    heads: write_heads(&known.heads),
                    changes: known.changes,
                };
                return self.event("change").json_data(event).ok();
            }
            self.grown.mark_unchanged();
            match self.rest.board.changed_since(self.at, FEED_AT_ONCE) {
                Some(changed) if changed.is_empty() => self.grown.changed().await.ok()?,
                Some(changed) => self.waiting.extend(changed.into_iter().rev()),
                None => {
                    self.at = self.rest.board.last();
                    self.opening = Some(Opening::Reset);
                    return Box::pin(self.next()).await;
                }
            }
        }
    }

    fn event(&self, name: &str) -> Event {
        Event::default().event(name).id(format!("{}-{}", self.rest.epoch, self.at))
    }
}
