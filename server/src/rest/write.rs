//! Writing: documents are created, patched, merged and copied.
//!
//! A change of ours is made by a worker on top of what is durable, and handed in as a client would.
//! Two changes of one actor must not have one number, so writes on a document take turns; and when it
//! is not known what became of a change, the next one has another actor.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use archive::{Edit, Made, Question, Signature, Told};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use history::chunk::{self, Chunk, read_chunks};
use history::varint::{Malformed, Reader};
use model::{ChangeHash, DocumentId, Heads};
use serde::{Deserialize, Serialize};
use sync::{Flags, Reply};
use tokio::sync::MutexGuard;
use utoipa::{IntoParams, ToSchema};

use crate::machine::HandedBack;
use crate::rest::documents::Shape;
use crate::rest::history::url_at;
use crate::rest::problem::Problem;
use crate::rest::request::{
    AUTOMERGE, Base, Body, JSON, JSON_PATCH, MERGE_PATCH, Params, Target, content_type, depth,
    etag, if_match, names, write_heads,
};
use crate::rest::{Rest, View, declined};

/// The longest message that a change of ours carries, in bytes.
const MESSAGE_BYTES_MAX: usize = 4096;

/// How to create a document.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CreateParams {
    /// Its id; a random one unless it is said.
    id: Option<String>,
    /// How values are written that JSON has no word for.
    #[serde(default)]
    #[param(inline)]
    form: Shape,
    /// What the change says about itself.
    message: Option<String>,
}

/// What has become of a document.
#[derive(Debug, Serialize, ToSchema)]
pub struct Written {
    /// The id.
    id: String,
    /// The document at its heads, as clients write it.
    url: String,
    /// The heads that it has now, in hexadecimal; durable.
    heads: Vec<String>,
    /// The change that was made, in hexadecimal; null if there was nothing to do, or if the changes
    /// came in the body.
    change: Option<String>,
}

/// Creates a document from JSON or from an Automerge file.
#[utoipa::path(
    post, path = "/v1/documents", tag = "documents", params(CreateParams),
    request_body(content(
        (serde_json::Value = "application/json"),
        (Vec<u8> = "application/vnd.automerge"),
    )),
    responses(
        (status = 201, description = "It is there, durably", body = Written, headers(("Location" = String, description = "Where"), ("ETag" = String, description = "Its heads"))),
        (status = 400, description = "A bad id, or a body that cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body came too slowly", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "A document with this id exists", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "More than a limit", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Another type of body", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It cannot be a document", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too much is going on, or it took too long", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn create(
    State(rest): State<Arc<Rest>>,
    Params(params): Params<CreateParams>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Problem> {
    let id = rest.new_id(params.id.as_deref())?;
    let by = rest.signature(&id, params.message)?;
    let kind = content_type(&headers);
    let work = async {
        let _turn = rest.turn(&id).await;
        rest.must_be_new(&id).await?;
        match kind.as_str() {
            JSON => {
                rest.check_depth(&body)?;
                let edit = Edit::Create(body.to_vec());
                let question = Question::Edit { heads: None, edit, form: params.form.into(), by };
                let job = archive::Job::Ask { snapshot: None, changes: Vec::new(), question };
                let made = made(rest.work(job).await?)?;
                let hash = made.as_ref().map(|made| made.hash);
                rest.hand_in_made(&id, made).await?;
                rest.written(&id, hash).await
            }
            AUTOMERGE => {
                let expected = rest.check_file(&body)?;
                rest.hand_in(&id, &[&body], &expected).await?;
                rest.written(&id, None).await
            }
            other => Err(unsupported(other, &[JSON, AUTOMERGE])),
        }
    };
    created(rest.within(work).await?)
}

/// How to patch.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PatchParams {
    /// How values are written that JSON has no word for.
    #[serde(default)]
    #[param(inline)]
    form: Shape,
    /// What the change says about itself.
    message: Option<String>,
}

/// Changes a document by a JSON Patch or a merge patch: one change, by this server.
///
/// With `If-Match` the change is made on top of exactly those heads, and merges with what came since:
/// it is never refused for being late.
#[utoipa::path(
    patch, path = "/v1/documents/{id}", tag = "documents",
    params(
        ("id" = String, Path, description = "The id, or an automerge: URL"),
        PatchParams,
        ("If-Match" = Option<String>, Header, description = "The heads to build on"),
    ),
    request_body(content(
        (Vec<serde_json::Value> = "application/json-patch+json"),
        (serde_json::Value = "application/merge-patch+json"),
    )),
    responses(
        (status = 200, description = "Done, durably", body = Written, headers(("ETag" = String, description = "The heads that it has now"))),
        (status = 400, description = "A bad id, or a body that cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such document, or nothing at a path of the patch", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body came too slowly", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The document does not hold the heads of If-Match", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "More than a limit", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Another type of body", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The patch cannot be applied", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too much is going on, or it took too long", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn patch(
    State(rest): State<Arc<Rest>>,
    target: Target,
    Params(params): Params<PatchParams>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Problem> {
    let id = target.bare()?;
    rest.check_depth(&body)?;
    let by = rest.signature(&id, params.message)?;
    let edit = match content_type(&headers).as_str() {
        JSON_PATCH => Edit::JsonPatch(body.to_vec()),
        MERGE_PATCH => Edit::MergePatch(body.to_vec()),
        other => return Err(unsupported(other, &[JSON_PATCH, MERGE_PATCH])),
    };
    let work = async {
        let _turn = rest.turn(&id).await;
        let known = rest.known(&id).await?;
        let base = match if_match(&headers, &known.heads)? {
            Base::Any => None,
            Base::Heads(heads) => Some(heads),
        };
        // After a turn of waiting another change of ours may have come, with a later actor.
        let by = Signature { actor: rest.actor(&id), ..by };
        let question = Question::Edit { heads: base, edit, form: params.form.into(), by };
        let (_, told) = rest.ask(&id, View::Other, question).await?;
        if let Told::Declined(why @ archive::Declined::NoSuchHead(_)) = &told {
            return Err(Problem::precondition(why.to_string()));
        }
        let made = made(told)?;
        let hash = made.as_ref().map(|made| made.hash);
        rest.hand_in_made(&id, made).await?;
        rest.written(&id, hash).await
    };
    let (written, heads) = rest.within(work).await?;
    Ok(([(header::ETAG, etag(&heads))], Json(written)).into_response())
}

/// Merges an Automerge file into a document, or creates it from one.
///
/// `If-None-Match: *` only creates.
#[utoipa::path(
    put, path = "/v1/documents/{id}", tag = "documents",
    params(
        ("id" = String, Path, description = "The id, or an automerge: URL"),
        ("If-None-Match" = Option<String>, Header, description = "Only '*': create, and merge into nothing that is there"),
    ),
    request_body(content((Vec<u8> = "application/vnd.automerge"))),
    responses(
        (status = 200, description = "Merged, durably", body = Written, headers(("ETag" = String, description = "The heads that it has now"))),
        (status = 201, description = "There was no such document; now there is", body = Written, headers(("ETag" = String, description = "Its heads"))),
        (status = 400, description = "A bad id, or a body that cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body came too slowly", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "There is a document, against If-None-Match", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "More than a limit", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Another type of body", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The file does not fit", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too much is going on, or it took too long", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn merge(
    State(rest): State<Arc<Rest>>,
    target: Target,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Problem> {
    let id = target.bare()?;
    let kind = content_type(&headers);
    if kind != AUTOMERGE {
        return Err(unsupported(&kind, &[AUTOMERGE]));
    }
    let expected = rest.check_file(&body)?;
    let work = async {
        let _turn = rest.turn(&id).await;
        let before = match rest.known(&id).await {
            Ok(known) => Some(etag(&known.heads)),
            Err(problem) if problem.status == 404 => None,
            Err(problem) => return Err(problem),
        };
        if let Some(tag) = &before
            && names(&headers, &header::IF_NONE_MATCH, tag)
        {
            return Err(Problem::precondition("there is a document, against 'If-None-Match'"));
        }
        rest.hand_in(&id, &[&body], &expected).await?;
        Ok((before.is_none(), rest.written(&id, None).await?))
    };
    match rest.within(work).await? {
        (true, written) => created(written),
        (false, (written, heads)) => {
            Ok(([(header::ETAG, etag(&heads))], Json(written)).into_response())
        }
    }
}

/// What to copy, and to where.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ForkParams {
    /// The id of the copy; a random one unless it is said.
    id: Option<String>,
    /// The heads of the state to copy, if not the newest.
    heads: Option<String>,
}

/// Copies a document with its history.
///
/// The copy and the original hold the same changes, so they can be merged again.
#[utoipa::path(
    post, path = "/v1/documents/{id}/fork", tag = "documents",
    params(("id" = String, Path, description = "The id, or an automerge: URL"), ForkParams),
    responses(
        (status = 201, description = "The copy is there, durably", body = Written, headers(("Location" = String, description = "Where"), ("ETag" = String, description = "Its heads"))),
        (status = 400, description = "A bad id, or heads that are none", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such document, or it does not hold these heads", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "A document with the id of the copy exists", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too much is going on, or it took too long", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn fork(
    State(rest): State<Arc<Rest>>,
    target: Target,
    Params(params): Params<ForkParams>,
) -> Result<Response, Problem> {
    let heads = target.heads(params.heads.as_deref())?;
    let (id, copy) = (target.id, rest.new_id(params.id.as_deref())?);
    let work = async {
        let _turn = rest.turn(&copy).await;
        rest.must_be_new(&copy).await?;
        let source = rest.file(&id, heads).await?;
        let snapshot = source.snapshot.as_deref().into_iter();
        let chunks: Vec<&[u8]> = snapshot.chain(source.changes.iter().map(Vec::as_slice)).collect();
        rest.hand_in(&copy, &chunks, &[]).await?;
        rest.written(&copy, None).await
    };
    created(rest.within(work).await?)
}

fn created((written, heads): (Written, Heads)) -> Result<Response, Problem> {
    let location = format!("/v1/documents/{}", written.id);
    let location = HeaderValue::from_str(&location).map_err(|_| Problem::internal())?;
    let headers = [(header::LOCATION, location), (header::ETAG, etag(&heads))];
    Ok((StatusCode::CREATED, headers, Json(written)).into_response())
}

fn unsupported(given: &str, taken: &[&str]) -> Problem {
    let given = if given.is_empty() { "no Content-Type" } else { given };
    Problem::unsupported(format!("{given}; what is taken here is {}", taken.join(" or ")))
}

fn made(told: Told) -> Result<Option<Made>, Problem> {
    match told {
        Told::Edited(made) => Ok(made),
        Told::Declined(why) => Err(declined(&why)),
        Told::Bytes(_) => Err(Problem::internal()),
    }
}

impl Rest {
    /// One write on a document at a time.
    async fn turn(&self, id: &DocumentId) -> MutexGuard<'_, ()> {
        self.writes[id.shard(self.writes.len())].lock().await
    }

    fn new_id(&self, given: Option<&str>) -> Result<DocumentId, Problem> {
        match given {
            Some(text) => Target::parse(text)?.bare(),
            None => Ok(DocumentId::from_bytes(uuid::Uuid::new_v4().as_bytes())
                .expect("16 bytes are an id")),
        }
    }

    async fn must_be_new(self: &Arc<Self>, id: &DocumentId) -> Result<(), Problem> {
        match self.known(id).await {
            Ok(_) => Err(Problem::exists()),
            Err(problem) if problem.status == 404 => Ok(()),
            Err(problem) => Err(problem),
        }
    }

    fn signature(&self, id: &DocumentId, message: Option<String>) -> Result<Signature, Problem> {
        if message.as_ref().is_some_and(|message| message.len() > MESSAGE_BYTES_MAX) {
            let why = format!("'message' has at most {MESSAGE_BYTES_MAX} bytes");
            return Err(Problem::bad_request(why));
        }
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_seconds = i64::try_from(since_1970.as_secs()).unwrap_or_default();
        Ok(Signature { actor: self.actor(id), time_seconds, message })
    }

    fn check_depth(&self, json: &[u8]) -> Result<(), Problem> {
        let (found, max) = (depth(json), self.config.json_depth_max);
        if found > max {
            let why = format!("objects and arrays are nested {found} deep, and at most {max}");
            return Err(Problem::too_large("rest.json_depth_max", max, why));
        }
        Ok(())
    }

    /// Sees that a body is whole chunks before it is handed in; gives changes that have to be here
    /// afterwards: those that are in it one by one, and the heads of documents.
    fn check_file(&self, body: &[u8]) -> Result<Vec<ChangeHash>, Problem> {
        if body.is_empty() {
            return Err(Problem::bad_body("an Automerge file is not empty"));
        }
        let inflated_bytes_max = self.config.body_bytes_max;
        let limits = chunk::Limits { inflated_bytes_max, ..chunk::Limits::default() };
        let chunks = read_chunks(body, &limits)
            .map_err(|error| Problem::bad_body(format!("not an Automerge file: {error}")))?;
        let mut expected = Vec::new();
        for chunk in &chunks {
            match chunk {
                Chunk::Change(change) => expected.push(change.hash()),
                Chunk::Document(bytes) => expected
                    .extend(heads_of(bytes).map_err(|_| {
                        Problem::bad_body("not an Automerge file: its head is cut")
                    })?),
                Chunk::Bundle(_) => {}
            }
        }
        Ok(expected)
    }

    async fn hand_in_made(
        self: &Arc<Self>,
        id: &DocumentId,
        made: Option<Made>,
    ) -> Result<(), Problem> {
        match made {
            Some(Made { hash, change }) => self.hand_in(id, &[&change], &[hash]).await,
            None => Ok(()),
        }
    }

    /// Hands chunks in at the door for everybody, and waits until they are durable.
    async fn hand_in(
        self: &Arc<Self>,
        id: &DocumentId,
        chunks: &[&[u8]],
        expected: &[ChangeHash],
    ) -> Result<(), Problem> {
        let flags = Flags::READ_ONLY;
        let heads = expected.iter().copied().collect();
        let message = Reply { heads, need: Vec::new(), have: None, flags };
        let data = message.encode(chunks.iter().copied());
        // Whatever becomes of this request: what is handed in goes its way, and if that is not waited
        // for, it cannot be known whether our actor has used a number.
        let before = self.generation.load(Ordering::Relaxed);
        let unsure = || {
            let next = before.wrapping_add(1);
            let _ = self.generation.compare_exchange(
                before,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        };
        let mut doubt = Doubt { unsure: Some(unsure) };
        let handed = self.machine.hand_in(id.clone(), data).await;
        match handed {
            Ok(heads) if expected.iter().all(|hash| heads.contains(hash)) => {}
            Ok(_) => self.must_hold(id, expected).await?,
            Err(HandedBack::Refused { code: 1007 | 1008, reason }) => {
                tracing::info!(document = %id, reason, "what REST handed in was refused");
                return Err(Problem::impossible(format!("it does not fit the document: {reason}")));
            }
            Err(HandedBack::Refused { reason, .. }) => {
                tracing::error!(document = %id, reason, "what REST handed in came back");
                return Err(Problem::unreadable());
            }
            Err(HandedBack::Stopped) => return Err(Problem::not_ready()),
        }
        doubt.unsure = None;
        Ok(())
    }

    /// Sees that changes have been taken in, and were not set aside without a word.
    async fn must_hold(
        self: &Arc<Self>,
        id: &DocumentId,
        expected: &[ChangeHash],
    ) -> Result<(), Problem> {
        let (document, wanted) = (id.clone(), expected.to_vec());
        let lost = self.read(move |rest| {
            let history = rest.graph(&document)?;
            let graph = history.as_ref().map(|history| history.graph());
            let here =
                |hash: &ChangeHash| graph.is_some_and(|graph| graph.position(hash).is_some());
            Ok(wanted.into_iter().find(|hash| !here(hash)))
        });
        match lost.await? {
            None => Ok(()),
            Some(hash) => Err(Problem::impossible(format!(
                "the change {hash} was not taken in: it builds on changes that are not here, or its \
                 actor has made another one with its number"
            ))),
        }
    }

    async fn written(
        self: &Arc<Self>,
        id: &DocumentId,
        change: Option<ChangeHash>,
    ) -> Result<(Written, Heads), Problem> {
        let known = match self.known(id).await {
            Err(problem) if problem.status == 404 => {
                return Err(Problem::impossible("there are no changes in it"));
            }
            known => known?,
        };
        let heads = known.heads.clone();
        let written = Written {
            id: id.to_string(),
            url: url_at(id, &heads),
            heads: write_heads(&heads),
            change: change.map(|hash| hash.to_string()),
        };
        Ok((written, heads))
    }
}

/// The heads that a document chunk names: after its header come the actors, then the heads. Whether
/// they are the heads of what follows is found out when the chunk is opened.
fn heads_of(chunk: &[u8]) -> Result<Vec<ChangeHash>, Malformed> {
    let mut reader = Reader::new(chunk);
    // Four bytes of magic, four of checksum, the kind.
    reader.bytes(9)?;
    reader.number()?;
    for _ in 0..reader.count()? {
        let length = reader.count()?;
        reader.bytes(length)?;
    }
    let count = reader.count()?;
    (0..count).map(|_| Ok(ChangeHash(reader.array()?))).collect()
}

/// Does something unless it is told in time that all is well, also when the request is dropped.
struct Doubt<F: FnMut()> {
    unsure: Option<F>,
}

impl<F: FnMut()> Drop for Doubt<F> {
    fn drop(&mut self) {
        if let Some(mut unsure) = self.unsure.take() {
            unsure();
        }
    }
}
