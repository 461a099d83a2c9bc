//! Reading documents: the list of them, and one as JSON, file or text.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use archive::{Form, Question};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::{ChangeHash, DocumentId, Heads};
use node::rows::{self, LoadError, META_KEYS, RowKind};
use serde::{Deserialize, Serialize};
use tokio::time::timeout_at;
use utoipa::{IntoParams, ToSchema};

use crate::rest::problem::Problem;
use crate::rest::request::{
    AUTOMERGE, JSON, Params, TEXT, Target, etag, names, negotiate, parse_heads, write_heads,
};
use crate::rest::source::{Source, meta, meta_key};
use crate::rest::{Rest, View, bytes};
use crate::status::DocumentStatus;

/// A page ends early when it has taken this long.
const PAGE_WITHIN: Duration = Duration::from_secs(2);
/// How many documents a page has unless it is said.
const PAGE: usize = 50;
/// How long a request for heads that are not here waits unless it is said, in seconds.
const WAIT_SECONDS: f64 = 10.0;

/// How values are written that JSON has no word for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// As what comes closest.
    #[default]
    Plain,
    /// As objects whose one key begins with `$`.
    Typed,
}

impl From<Shape> for Form {
    fn from(shape: Shape) -> Self {
        match shape {
            Shape::Plain => Self::Plain,
            Shape::Typed => Self::Typed,
        }
    }
}

/// Which page of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// Where to go on: `next` of the page before.
    cursor: Option<String>,
    /// How many documents at most; 50 unless it is said, and no more than `rest.page_max`.
    #[param(minimum = 1)]
    limit: Option<usize>,
}

/// A page of documents.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page {
    /// The documents, in the order of their ids' bytes, shorter ids first.
    documents: Vec<Summary>,
    /// The cursor of the next page; null at the end. A page may have fewer documents than asked for
    /// and still have one after it.
    next: Option<String>,
}

/// What is known of a document without opening it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Summary {
    /// The id, base58 with a checksum.
    id: String,
    /// The id as clients write it.
    url: String,
    /// The heads, in hexadecimal.
    heads: Vec<String>,
    /// How many changes there are.
    changes: u32,
    /// How many bytes are stored: the snapshot and the changes that are kept one by one.
    bytes: u64,
    /// When the document came here, in milliseconds since 1970 by this server's clock.
    created: u64,
    /// When it last changed here, in the same way; null when that is longer ago than changes are kept
    /// one by one.
    changed: Option<u64>,
}

impl From<Summary> for DocumentStatus {
    fn from(summary: Summary) -> Self {
        let Summary { id, url, heads, changes, bytes, created, changed } = summary;
        Self { id, url, heads, changes, bytes, created, changed, ..Self::default() }
    }
}

/// Lists the documents of this region.
///
/// The order is by id and does not depend on what is written meanwhile: a document that exists all
/// the time is listed exactly once, one that is created meanwhile once or not at all.
#[utoipa::path(
    get, path = "/v1/documents", tag = "documents", params(ListParams),
    responses(
        (status = 200, description = "A page", body = Page),
        (status = 400, description = "A cursor that is none, or a limit over rest.page_max", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(
    State(rest): State<Arc<Rest>>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page>, Problem> {
    let (limit, max) =
        (params.limit.unwrap_or(PAGE.min(rest.config.page_max)), rest.config.page_max);
    if !(1..=max).contains(&limit) {
        return Err(Problem::over_limit("rest.page_max", max, format!("'limit' is 1 to {max}")));
    }
    let after = match params.cursor.as_deref() {
        Some(cursor) => Some(
            cursor
                .parse::<DocumentId>()
                .map_err(|_| Problem::bad_request("'cursor' is 'next' of the page before"))?,
        ),
        None => None,
    };
    let page = rest.read(move |rest| rest.page(after.as_ref(), limit));
    Ok(Json(rest.within(page).await?))
}

/// Which state, which part, which words.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReadParams {
    /// The heads of the state to read, if not the newest: as in `ETag`, or in base58.
    heads: Option<String>,
    /// A JSON Pointer to a part.
    path: Option<String>,
    /// How values are written that JSON has no word for.
    #[serde(default)]
    #[param(inline)]
    form: Shape,
    /// Wait until this region has these heads.
    #[serde(rename = "at-least")]
    at_least: Option<String>,
    /// How many seconds to wait at most; 10 unless it is said, and no more than
    /// `rest.wait_seconds_max`.
    #[param(minimum = 0)]
    timeout: Option<f64>,
}

/// Reads a document.
///
/// `Accept` decides: JSON, an Automerge file, or the text at `path`. The `ETag` is the heads; with
/// `If-None-Match` an unchanged document costs nothing.
#[utoipa::path(
    get, path = "/v1/documents/{id}", tag = "documents",
    params(
        ("id" = String, Path, description = "The id, or an automerge: URL"),
        ReadParams,
        ("If-None-Match" = Option<String>, Header, description = "An ETag that is known; with it a document that has not changed answers 304"),
    ),
    responses(
        (status = 200, description = "The document", content(
            (serde_json::Value = "application/json"),
            (Vec<u8> = "application/vnd.automerge"),
            (String = "text/plain"),
        ), headers(("ETag" = String, description = "The heads"))),
        (status = 304, description = "It still has the heads of If-None-Match"),
        (status = 400, description = "A bad id, or a parameter that makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such document, heads or place", body = Problem, content_type = "application/problem+json"),
        (status = 406, description = "None of the types can be had", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The heads of at-least have not come in time", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "What is at the path is no text", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too much is going on, or it took too long", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn read(
    State(rest): State<Arc<Rest>>,
    target: Target,
    Params(params): Params<ReadParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let kind = negotiate(&headers, &[JSON, AUTOMERGE, TEXT])?;
    let past = target.heads(params.heads.as_deref())?;
    let pointer = match (&target.pointer, params.path) {
        (Some(_), Some(_)) => {
            return Err(Problem::bad_request("a path is in the URL and in 'path'"));
        }
        (Some(pointer), None) => pointer.clone(),
        (None, path) => path.unwrap_or_default(),
    };
    if let Some(heads) = &params.at_least {
        let heads = parse_heads("at-least", heads)?;
        rest.wait_for(&target.id, &heads, params.timeout).await?;
    } else if params.timeout.is_some() {
        return Err(Problem::bad_request("'timeout' goes with 'at-least'"));
    }
    let id = target.id;
    let is_past = past.is_some();
    let current = match past {
        Some(heads) => heads,
        None => rest.within(rest.known(&id)).await?.heads.clone(),
    };
    let tag = etag(&current);
    if names(&headers, &header::IF_NONE_MATCH, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let body = match kind {
        AUTOMERGE if !pointer.is_empty() => {
            return Err(Problem::bad_request(
                "a file is a whole document: 'path' does not go with it",
            ));
        }
        AUTOMERGE if is_past => {
            let question = Question::File { heads: current };
            let (_, told) = rest.within(rest.ask(&id, View::Other, question)).await?;
            return Ok(represent(bytes(told)?, kind, tag, true));
        }
        AUTOMERGE => {
            // Straight from the store: what lies there is a file already.
            let (known, source) = rest.within(rest.open(&id)).await?;
            return Ok(represent(source.into_file().into(), kind, etag(&known.heads), false));
        }
        TEXT if pointer.is_empty() => {
            return Err(Problem::bad_request("which text? Say it in 'path', as a JSON Pointer"));
        }
        TEXT => rest.view(&id, &current, View::Text { pointer }, is_past),
        _ => {
            let form = params.form.into();
            rest.view(&id, &current, View::Json { pointer, form }, is_past)
        }
    };
    Ok(represent(rest.within(body).await?, kind, tag, is_past))
}

fn represent(body: Bytes, kind: &str, tag: HeaderValue, past: bool) -> Response {
    let kind = if kind == TEXT { "text/plain; charset=utf-8" } else { kind };
    let kind = HeaderValue::from_str(kind).expect("one of a few");
    // What was does not change any more; what is has to be asked for.
    let keep = if past { "private, max-age=31536000, immutable" } else { "no-cache" };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::ETAG, tag),
        (header::VARY, HeaderValue::from_static("accept")),
        (header::CACHE_CONTROL, HeaderValue::from_static(keep)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, body).into_response()
}

impl Rest {
    /// Waits until this region holds these changes.
    async fn wait_for(
        self: &Arc<Self>,
        id: &DocumentId,
        heads: &Heads,
        seconds: Option<f64>,
    ) -> Result<(), Problem> {
        let max = self.config.wait_seconds_max;
        let seconds = seconds.unwrap_or_else(|| WAIT_SECONDS.min(max.into()));
        if !(0.0..=f64::from(max)).contains(&seconds) {
            let why = format!("'timeout' is 0 to {max} seconds");
            return Err(Problem::over_limit("rest.wait_seconds_max", max as usize, why));
        }
        // Before anything is looked at, so that nothing comes unheard in between.
        let mut watch = self.board.watch(id);
        let mut missing = self.missing(id, heads).await?;
        if missing.is_empty() {
            return Ok(());
        }
        let _place = self.stream()?;
        let deadline = tokio::time::Instant::now() + Duration::from_secs_f64(seconds);
        while !missing.is_empty() {
            match timeout_at(deadline, watch.next()).await {
                Ok(Some(news)) if !news.hashes.is_empty() => {
                    missing.retain(|hash| !news.hashes.contains(hash));
                }
                Ok(_) => missing = self.missing(id, heads).await?,
                Err(_) => {
                    let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
                    return Err(Problem::not_here_yet(format!(
                        "after {seconds} s region '{}' does not hold {}",
                        self.region,
                        missing.join(", ")
                    )));
                }
            }
        }
        Ok(())
    }

    /// Those of these changes that are not here.
    async fn missing(
        self: &Arc<Self>,
        id: &DocumentId,
        hashes: &Heads,
    ) -> Result<Vec<ChangeHash>, Problem> {
        if let Some(known) = self.board.known(id)
            && hashes.iter().all(|hash| known.heads.contains(hash))
        {
            return Ok(Vec::new());
        }
        let (id, hashes) = (id.clone(), hashes.clone());
        self.read(move |rest| {
            let history = rest.graph(&id)?;
            // All that is in the store is durable.
            let held = |hash: &ChangeHash| {
                history.as_ref().is_some_and(|history| history.graph().position(hash).is_some())
            };
            Ok(hashes.iter().filter(|hash| !held(hash)).copied().collect())
        })
        .await
    }

    fn page(&self, after: Option<&DocumentId>, limit: usize) -> Result<Page, LoadError> {
        let mut from = after.map_or_else(|| vec![META_KEYS.0], meta_key);
        // No key is the beginning of another, so this is the next possible one.
        from.push(0);
        if after.is_none() {
            from.pop();
        }
        let mut ids = Vec::new();
        let mut more = false;
        self.store.scan(&from, &[META_KEYS.1], &mut |key, _| {
            if ids.len() == limit {
                more = true;
                return ControlFlow::Break(());
            }
            if let Some((RowKind::Meta, id)) = rows::read_key(key) {
                ids.push(id);
            }
            ControlFlow::Continue(())
        })?;
        let started = Instant::now();
        let (mut documents, mut last) = (Vec::with_capacity(ids.len()), None);
        for id in ids {
            // One is listed however long it takes, so that every page goes on.
            if last.is_some() && started.elapsed() > PAGE_WITHIN {
                more = true;
                break;
            }
            documents.extend(self.summary(&id)?);
            last = Some(id);
        }
        let next = last.filter(|_| more).map(|id| id.to_string());
        Ok(Page { documents, next })
    }

    /// What is known of a document without opening it. `None`: there is no such document. Blocks.
    pub(super) fn summary(&self, id: &DocumentId) -> Result<Option<Summary>, LoadError> {
        let known = match self.board.known(id) {
            Some(known) => Some(known),
            None => self.board.read(&*self.store, id)?,
        };
        let (Some(known), Some(meta)) = (known, meta(&*self.store, id)?) else { return Ok(None) };
        let rows = rows::log_rows(&*self.store, id, meta.raw_from, u32::MAX)?;
        Ok(Some(Summary {
            id: id.to_string(),
            url: format!("automerge:{id}"),
            heads: write_heads(&known.heads),
            changes: known.changes,
            bytes: meta.snapshot_bytes + rows.iter().map(|row| row.bytes as u64).sum::<u64>(),
            created: meta.created_ms,
            changed: rows.iter().map(|row| row.written_ms).max().filter(|ms| *ms > 0),
        }))
    }

    /// The file of a document, or of a state of it.
    pub(super) async fn file(
        self: &Arc<Self>,
        id: &DocumentId,
        heads: Option<Heads>,
    ) -> Result<Source, Problem> {
        match heads {
            None => Ok(self.open(id).await?.1),
            Some(heads) => {
                let (_, told) = self.ask(id, View::Other, Question::File { heads }).await?;
                Ok(Source { snapshot: Some(bytes(told)?.to_vec()), changes: Vec::new() })
            }
        }
    }
}
