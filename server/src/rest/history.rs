//! Heads, raw changes, who did what when, what is different, and what was written at once.

use std::sync::Arc;

use archive::{Question, Told};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use history::graph::Position;
use model::{ChangeHash, DocumentId, Heads};
use node::rows::{self, LoadError};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::rest::documents::Shape;
use crate::rest::problem::Problem;
use crate::rest::request::{
    AUTOMERGE, JSON, Params, Target, etag, names, parse_heads, write_heads,
};
use crate::rest::{Rest, View, bytes};

/// How many changes a page of a history has unless it is said.
const PAGE: usize = 100;

/// Where a document is.
#[derive(Debug, Serialize, ToSchema)]
pub struct HeadsOf {
    /// The id.
    id: String,
    /// The document at these heads, as clients write it.
    url: String,
    /// The heads, in hexadecimal.
    heads: Vec<String>,
    /// How many changes lie behind them.
    changes: u32,
}

/// The heads of a document, durable in this region.
#[utoipa::path(
    get, path = "/v1/documents/{id}/heads", tag = "history",
    params(
        ("id" = String, Path, description = "The id, or an automerge: URL"),
        ("If-None-Match" = Option<String>, Header, description = "An ETag that is known; with it a document that has not changed answers 304"),
    ),
    responses(
        (status = 200, description = "The heads", body = HeadsOf),
        (status = 304, description = "They are those of If-None-Match"),
        (status = 400, description = "A bad id", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such document", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn heads(
    State(rest): State<Arc<Rest>>,
    target: Target,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = target.bare()?;
    let known = rest.within(rest.known(&id)).await?;
    let tag = etag(&known.heads);
    if names(&headers, &header::IF_NONE_MATCH, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let body = HeadsOf {
        id: id.to_string(),
        url: url_at(&id, &known.heads),
        heads: write_heads(&known.heads),
        changes: known.changes,
    };
    let cache = (header::CACHE_CONTROL, "no-cache");
    Ok(([(header::ETAG, tag)], [cache], Json(body)).into_response())
}

/// Since when.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ChangesParams {
    /// Heads whose ancestors are not wanted; without it everything is.
    since: Option<String>,
}

/// Raw changes, one after the other, as `Automerge.loadIncremental` takes them.
///
/// Without `since` it is the whole document as a file.
#[utoipa::path(
    get, path = "/v1/documents/{id}/changes", tag = "history",
    params(("id" = String, Path, description = "The id, or an automerge: URL"), ChangesParams),
    responses(
        (status = 200, description = "Change chunks in causal order", body = Vec<u8>, content_type = "application/vnd.automerge", headers(("ETag" = String, description = "The heads that they lead to"))),
        (status = 400, description = "A bad id, or heads that are none", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such document, or it does not hold these heads", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "More changes than rest.history_max", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too much is going on, or it took too long", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn changes(
    State(rest): State<Arc<Rest>>,
    target: Target,
    Params(params): Params<ChangesParams>,
) -> Result<Response, Problem> {
    let id = target.bare()?;
    let since = params.since.as_deref().map(|text| parse_heads("since", text)).transpose()?;
    let (heads, body) = rest.within(rest.changes(&id, since)).await?;
    let headers = [(header::CONTENT_TYPE, AUTOMERGE.parse()), (header::ETAG, Ok(etag(&heads)))];
    let headers = headers.map(|(name, value)| (name, value.expect("a type, and a tag")));
    Ok((headers, body).into_response())
}

/// Which part of a history.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryParams {
    /// Where to go on: `next` of the page before. One above the newest change begins with that.
    cursor: Option<u32>,
    /// How many changes at most; 100 unless it is said, and no more than `rest.history_max`.
    #[param(minimum = 1)]
    limit: Option<usize>,
}

/// A page of a history.
#[derive(Debug, Serialize, ToSchema)]
pub struct HistoryPage {
    /// The changes, the newest first.
    changes: Vec<HistoryEntry>,
    /// The cursor of the next page, which is older; null at the end.
    next: Option<u32>,
}

/// One change.
#[derive(Debug, Serialize, ToSchema)]
pub struct HistoryEntry {
    /// Its hash, in hexadecimal.
    hash: String,
    /// Who made it: an actor, which is one writer on one device in one session.
    actor: String,
    /// Whether this region's server made it, for a call of REST.
    by_server: bool,
    /// Whose change it is, if the writer has said so, in hexadecimal.
    author: Option<String>,
    /// How many changes this actor has made up to this one.
    seq: u64,
    /// When, in seconds since 1970 by the writer's clock; 0 if the writer has not said.
    time: i64,
    /// What the writer has said about it.
    message: Option<String>,
    /// How many operations it has.
    operations: u64,
    /// What it builds on, in hexadecimal.
    dependencies: Vec<String>,
}

/// Who changed the document when, and how much.
///
/// The order is the one in which changes came into this region, the newest first. Changes that come
/// while one reads do not move the pages.
#[utoipa::path(
    get, path = "/v1/documents/{id}/history", tag = "history",
    params(("id" = String, Path, description = "The id, or an automerge: URL"), HistoryParams),
    responses(
        (status = 200, description = "A page", body = HistoryPage),
        (status = 400, description = "A bad id, or a limit over rest.history_max", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such document", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too much is going on, or it took too long", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn history(
    State(rest): State<Arc<Rest>>,
    target: Target,
    Params(params): Params<HistoryParams>,
) -> Result<Json<HistoryPage>, Problem> {
    let id = target.bare()?;
    let max = rest.config.history_max;
    let limit = params.limit.unwrap_or(PAGE.min(max));
    if !(1..=max).contains(&limit) {
        return Err(Problem::over_limit("rest.history_max", max, format!("'limit' is 1 to {max}")));
    }
    Ok(Json(rest.within(rest.history(&id, params.cursor, limit)).await?))
}

/// Between which points.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DiffParams {
    /// The heads of the one.
    from: String,
    /// The heads of the other; the newest unless it is said.
    to: Option<String>,
    /// How values are written that JSON has no word for.
    #[serde(default)]
    #[param(inline)]
    form: Shape,
}

/// What is different between two states, as patches in the words of Automerge's JavaScript clients.
///
/// Positions in texts are counted in UTF-16 code units.
#[utoipa::path(
    get, path = "/v1/documents/{id}/diff", tag = "history",
    params(("id" = String, Path, description = "The id, or an automerge: URL"), DiffParams),
    responses(
        (status = 200, description = "The patches", body = Vec<serde_json::Value>),
        (status = 400, description = "A bad id, or heads that are none", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such document, or it does not hold these heads", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too much is going on, or it took too long", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn diff(
    State(rest): State<Arc<Rest>>,
    target: Target,
    Params(params): Params<DiffParams>,
) -> Result<Response, Problem> {
    let id = target.bare()?;
    let from = parse_heads("from", &params.from)?;
    let patches = async {
        let to = match params.to {
            Some(to) => parse_heads("to", &to)?,
            None => rest.known(&id).await?.heads.clone(),
        };
        // Both ends lie in the past by the time they are looked at: they are named.
        let what = View::Diff { from, to: to.clone(), form: params.form.into() };
        rest.view(&id, &to, what, true).await
    };
    let patches = rest.within(patches).await?;
    Ok(([(header::CONTENT_TYPE, JSON)], patches).into_response())
}

/// As of when.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ConflictsParams {
    /// The heads of the state to look at, if not the newest.
    heads: Option<String>,
    /// How values are written that JSON has no word for.
    #[serde(default)]
    #[param(inline)]
    form: Shape,
}

/// A place where more than one value is kept.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "a description of what a worker writes")]
pub struct Conflict {
    /// The place, as a JSON Pointer.
    path: String,
    /// The operations on the way there that lost to others; empty where everybody looks.
    within: Vec<String>,
    /// What was written there concurrently, the winner last.
    values: Vec<ConflictingValue>,
}

/// One of several values in one place.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "a description of what a worker writes")]
pub struct ConflictingValue {
    /// The value.
    value: serde_json::Value,
    /// Who wrote it.
    actor: String,
    /// Which operation: its number and its actor.
    operation: String,
    /// The hash of the change in which it was written.
    change: Option<String>,
    /// Whether this is the value that readers see.
    winner: bool,
}

/// Every place where concurrent writes are both kept: all values, who wrote them, and which one
/// readers see.
#[utoipa::path(
    get, path = "/v1/documents/{id}/conflicts", tag = "history",
    params(("id" = String, Path, description = "The id, or an automerge: URL"), ConflictsParams),
    responses(
        (status = 200, description = "The places", body = Vec<Conflict>),
        (status = 400, description = "A bad id, or heads that are none", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such document, or it does not hold these heads", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too much is going on, or it took too long", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn conflicts(
    State(rest): State<Arc<Rest>>,
    target: Target,
    Params(params): Params<ConflictsParams>,
) -> Result<Response, Problem> {
    let past = target.heads(params.heads.as_deref())?;
    let id = target.id;
    let found = async {
        let is_past = past.is_some();
        let heads = match past {
            Some(heads) => heads,
            None => rest.known(&id).await?.heads.clone(),
        };
        let what = View::Conflicts { form: params.form.into() };
        Ok((etag(&heads), rest.view(&id, &heads, what, is_past).await?))
    };
    let (tag, found) = rest.within(found).await?;
    let kind = (header::CONTENT_TYPE, JSON);
    Ok(([(header::ETAG, tag)], [kind], found).into_response())
}

/// The document at these heads, as clients write it.
pub fn url_at(id: &DocumentId, heads: &Heads) -> String {
    let heads: Vec<String> = heads.iter().map(ChangeHash::to_base58check).collect();
    format!("automerge:{id}#{}", heads.join("|"))
}

/// What a graph says of a change.
struct Seen {
    hash: ChangeHash,
    actor: String,
    by_server: bool,
    seq: u64,
    operations: u64,
    dependencies: Vec<String>,
}

/// Raw changes, as far as they are kept one by one.
enum Raw {
    Here(Heads, Vec<u8>),
    /// Some exist only inside the snapshot.
    Inside,
    TooMany(usize),
    Unknown(ChangeHash),
}

impl Rest {
    async fn changes(
        self: &Arc<Self>,
        id: &DocumentId,
        since: Option<Heads>,
    ) -> Result<(Heads, Vec<u8>), Problem> {
        let Some(since) = since else {
            let (known, source) = self.open(id).await?;
            return Ok((known.heads.clone(), source.into_file()));
        };
        self.known(id).await?;
        let (document, wanted, max) = (id.clone(), since.clone(), self.config.history_max);
        let raw = self.read(move |rest| rest.raw(&document, &wanted, max)).await?;
        match raw {
            Raw::Here(heads, bytes) => Ok((heads, bytes)),
            Raw::Unknown(hash) => {
                Err(Problem::unknown_heads(format!("the document does not hold the change {hash}")))
            }
            Raw::TooMany(count) => Err(Problem::too_large(
                "rest.history_max",
                max,
                format!(
                    "there are {count} changes since then; without 'since' the whole document \
                         comes as one file"
                ),
            )),
            Raw::Inside => {
                let question = Question::Changes { since };
                let (known, told) = self.ask(id, View::Other, question).await?;
                Ok((known.heads.clone(), bytes(told)?.to_vec()))
            }
        }
    }

    fn raw(&self, id: &DocumentId, since: &Heads, max: usize) -> Result<Raw, LoadError> {
        let Some(history) = self.graph(id)? else {
            return Ok(Raw::Here(Heads::none(), Vec::new()));
        };
        let mut held = Vec::with_capacity(since.len());
        for hash in since {
            match history.graph().position(hash) {
                Some(position) => held.push(position),
                None => return Ok(Raw::Unknown(*hash)),
            }
        }
        let lacking = history.beyond(&held);
        if lacking.len() > max {
            return Ok(Raw::TooMany(lacking.len()));
        }
        let heads = history.heads().clone();
        let (Some(first), Some(last)) = (lacking.first().copied(), lacking.last().copied()) else {
            return Ok(Raw::Here(heads, Vec::new()));
        };
        if first < history.raw_from() {
            return Ok(Raw::Inside);
        }
        let raw_from = history.raw_from();
        let read = match rows::changes(&*self.store, id, raw_from, first, last + 1, usize::MAX) {
            Ok(read) => read,
            // A compaction has just deleted them.
            Err(LoadError::Row(_)) => return Ok(Raw::Inside),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        for position in lacking {
            bytes.extend_from_slice(read[(position - first) as usize].bytes());
        }
        Ok(Raw::Here(heads, bytes))
    }

    async fn history(
        self: &Arc<Self>,
        id: &DocumentId,
        cursor: Option<Position>,
        limit: usize,
    ) -> Result<HistoryPage, Problem> {
        self.known(id).await?;
        let document = id.clone();
        let seen = self.read(move |rest| rest.seen(&document, cursor, limit));
        let (seen, next) = seen.await?;
        if seen.is_empty() {
            return Ok(HistoryPage { changes: Vec::new(), next: None });
        }
        let hashes = seen.iter().map(|seen| seen.hash).collect();
        let (_, told) = self.ask(id, View::Other, Question::History { hashes }).await?;
        let Told::Bytes(said) = told else { return Err(Problem::internal()) };
        let said: Vec<Said> = serde_json::from_slice(&said).map_err(|_| Problem::internal())?;
        let entries = seen.into_iter().zip(said).map(|(seen, said)| HistoryEntry {
            hash: seen.hash.to_string(),
            actor: seen.actor,
            by_server: seen.by_server,
            author: said.author,
            seq: seen.seq,
            time: said.time,
            message: said.message,
            operations: seen.operations,
            dependencies: seen.dependencies,
        });
        Ok(HistoryPage { changes: entries.collect(), next })
    }

    /// What the graph says of up to `limit` changes below `cursor`, the newest first, and the cursor
    /// after them.
    fn seen(
        &self,
        id: &DocumentId,
        cursor: Option<Position>,
        limit: usize,
    ) -> Result<(Vec<Seen>, Option<Position>), LoadError> {
        let Some(history) = self.graph(id)? else { return Ok((Vec::new(), None)) };
        let graph = history.graph();
        let end = cursor.map_or(graph.len(), |cursor| cursor.min(graph.len()));
        let from = end.saturating_sub(u32::try_from(limit).unwrap_or(u32::MAX));
        let mut seqs = std::collections::BTreeMap::new();
        let mut seen = Vec::with_capacity((end - from) as usize);
        for position in (from..end).rev() {
            let node = graph.node(position);
            // Going down, an actor's numbers are one less each time.
            let seq = match seqs.get(node.actor) {
                Some(above) => above - 1,
                None => seq_of(graph, position),
            };
            seqs.insert(node.actor.clone(), seq);
            seen.push(Seen {
                hash: node.hash,
                actor: node.actor.to_string(),
                by_server: self.is_ours(node.actor),
                seq,
                operations: node.operations,
                dependencies: (graph.deps(position).iter())
                    .map(|dep| graph.hash(*dep).to_string())
                    .collect(),
            });
        }
        Ok((seen, (from > 0).then_some(from)))
    }
}

/// What only the change itself says.
#[derive(Deserialize)]
struct Said {
    time: i64,
    message: Option<String>,
    author: Option<String>,
}

/// The number of a change among those of its actor, which are in the log in their order.
fn seq_of(graph: &history::graph::Graph, position: Position) -> u64 {
    let actor = graph.node(position).actor;
    let (mut low, mut high) = (1, graph.sequence(actor));
    while low < high {
        let middle = low + (high - low) / 2;
        match graph.slot(actor, middle) {
            Some(at) if at < position => low = middle + 1,
            _ => high = middle,
        }
    }
    low
}
