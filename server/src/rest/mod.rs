//! REST: documents as JSON, files, text, changes and events, under `/v1`.
//!
//! What is asked about heads is answered from the [`Board`], what has been asked before from a cache
//! by heads; only the rest opens a document, in worker processes of its own ([`pool`]). Writes become
//! changes in such a worker and then come in through the same door as a client's
//! ([`Machine::hand_in`]), so they are checked, stored and passed on like everybody's.

pub mod config;
mod documents;
mod events;
mod history;
mod pool;
pub mod problem;
mod replication;
mod request;
mod source;
mod status;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ::history::History;
use archive::{Declined, Job, Question, Told};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use model::{ActorId, DocumentId, Heads};
use node::rows::{self, LoadError};
use sha2::{Digest, Sha256};
use store::Store;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa::OpenApi;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::board::{Board, Known};
use crate::machine::Machine;
use crate::metrics::Metrics;
use crate::regions::Regions;
use crate::rest::config::RestConfig;
use crate::rest::pool::{Pool, Unanswered};
use crate::rest::problem::Problem;
use crate::rest::source::Source;
use crate::status::Gather;

/// How many documents are read from the store at once: more would only wait for the disk.
const READS_AT_ONCE: usize = 4;
/// How many documents are written at once, of those whose ids fall together.
const WRITE_LOCKS: usize = 64;
/// How often a document that changes is looked at again.
const ATTEMPTS_MAX: usize = 5;
/// How long a question that a worker failed over is not asked again.
const FAILED_FOR: Duration = Duration::from_secs(600);
/// How many bytes of graphs are kept, for whoever pages through a history or waits for heads.
const GRAPH_BYTES_MAX: u64 = 48 << 20;
/// How long one is kept that nobody asks for.
const GRAPH_FOR: Duration = Duration::from_secs(20);
/// What a cached answer takes besides its bytes and its name.
const CACHED_BYTES: usize = 300;

/// What the handlers share.
pub struct Rest {
    config: RestConfig,
    region: String,
    machine: Arc<Machine>,
    board: Arc<Board>,
    store: Arc<dyn Store>,
    regions: Option<Arc<Regions>>,
    status: Arc<Gather>,
    pool: Pool,
    /// Answers by document, heads and question.
    answers: moka::future::Cache<Asked, Bytes>,
    /// What failed: not asked again for a while.
    failed: moka::sync::Cache<Asked, ()>,
    /// Graphs by document and heads.
    graphs: moka::sync::Cache<(DocumentId, Heads), Arc<History>>,
    compact_tail_bytes: usize,
    reads: Semaphore,
    streams: Arc<Semaphore>,
    writes: Vec<Mutex<()>>,
    /// The second half of the actors of this server's own changes.
    author: [u8; 8],
    /// The first half is made of this and the document. A new one when it is not known what became
    /// of a change.
    generation: AtomicU64,
    /// Names the numbers of the feed: they begin again with every process.
    epoch: String,
    ready: AtomicBool,
}

/// A question about a state of a document.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Asked {
    document: DocumentId,
    heads: Heads,
    what: View,
}

/// What can be kept of a document.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum View {
    Json {
        pointer: String,
        form: archive::Form,
    },
    Text {
        pointer: String,
    },
    Conflicts {
        form: archive::Form,
    },
    Diff {
        from: Heads,
        to: Heads,
        form: archive::Form,
    },
    /// Not kept as an answer, only as a failure.
    Other,
}

/// What REST is built from.
pub struct Parts {
    /// Its limits.
    pub config: RestConfig,
    /// The address space of a worker, in MiB.
    pub worker_memory_mib: u64,
    /// From how many bytes of changes on beside the snapshot they are put into it.
    pub compact_tail_bytes: usize,
    /// The name of the region.
    pub region: String,
    /// The machine.
    pub machine: Arc<Machine>,
    /// The board that the machine's shards write on.
    pub board: Arc<Board>,
    /// The store, to read from.
    pub store: Arc<dyn Store>,
    /// Where figures go.
    pub metrics: Arc<Metrics>,
    /// The other regions, if there are any.
    pub regions: Option<Arc<Regions>>,
    /// How the region is.
    pub status: Arc<Gather>,
}

impl Rest {
    /// Starts the workers' threads.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(parts: Parts) -> std::io::Result<Arc<Self>> {
        let Parts { config, worker_memory_mib, region, machine, board, store, metrics, .. } = parts;
        let (regions, status) = (parts.regions, parts.status);
        let compact_tail_bytes = parts.compact_tail_bytes;
        let pool = Pool::start(&config, worker_memory_mib, &metrics)?;
        let storage = Sha256::digest(machine.me().storage.as_str().as_bytes());
        let answers = moka::future::Cache::builder()
            .max_capacity(config.cache_mib << 20)
            .weigher(|asked: &Asked, answer: &Bytes| {
                let name = match &asked.what {
                    View::Json { pointer, .. } | View::Text { pointer } => pointer.len(),
                    View::Diff { from, to, .. } => 32 * (from.len() + to.len()),
                    View::Conflicts { .. } | View::Other => 0,
                };
                let bytes = answer.len() + name + 32 * asked.heads.len() + CACHED_BYTES;
                u32::try_from(bytes).unwrap_or(u32::MAX)
            })
            .build();
        let random = uuid::Uuid::new_v4();
        let (generation, epoch) = random.as_u64_pair();
        Ok(Arc::new(Self {
            region,
            machine,
            board,
            store,
            regions,
            status,
            pool,
            answers,
            failed: moka::sync::Cache::builder()
                .max_capacity(10_000)
                .time_to_live(FAILED_FOR)
                .build(),
            graphs: moka::sync::Cache::builder()
                .max_capacity(GRAPH_BYTES_MAX)
                .weigher(|_, history: &Arc<History>| {
                    u32::try_from(history.memory_bytes()).unwrap_or(u32::MAX)
                })
                .time_to_idle(GRAPH_FOR)
                .build(),
            compact_tail_bytes,
            reads: Semaphore::new(READS_AT_ONCE),
            streams: Arc::new(Semaphore::new(config.streams_max)),
            writes: (0..WRITE_LOCKS).map(|_| Mutex::default()).collect(),
            author: std::array::from_fn(|i| storage[i]),
            generation: AtomicU64::new(generation),
            epoch: format!("{:08x}", epoch as u32),
            ready: AtomicBool::new(true),
            config,
        }))
    }

    /// From now on nothing is answered but that the server stops.
    pub fn stop(&self) {
        self.ready.store(false, Ordering::Relaxed);
    }

    /// The heads that a document has here, durably. It is not opened for that.
    async fn known(self: &Arc<Self>, id: &DocumentId) -> Result<Arc<Known>, Problem> {
        if let Some(known) = self.board.known(id) {
            return Ok(known);
        }
        let id = id.clone();
        self.read(move |rest| rest.board.read(&*rest.store, &id))
            .await?
            .ok_or_else(Problem::unknown_document)
    }

    /// Reads the store where blocking is fine.
    async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Self) -> Result<T, LoadError> + Send + 'static,
    ) -> Result<T, Problem> {
        let _turn = self.reads.acquire().await.map_err(|_| Problem::not_ready())?;
        let rest = self.clone();
        match tokio::task::spawn_blocking(move || read(&rest)).await {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(error)) => {
                tracing::error!(%error, "a document cannot be read for REST");
                Err(Problem::unreadable())
            }
            Err(_) => Err(Problem::internal()),
        }
    }

    /// Who builds on whom in a document, as of now or a little later. `None`: there is no such
    /// document. Blocks.
    fn graph(&self, id: &DocumentId) -> Result<Option<Arc<History>>, LoadError> {
        if let Some(known) = self.board.known(id)
            && let Some(history) = self.graphs.get(&(id.clone(), known.heads.clone()))
        {
            return Ok(Some(history));
        }
        let Some(loaded) = rows::load(&*self.store, id)? else { return Ok(None) };
        let history = Arc::new(loaded.history);
        self.graphs.insert((id.clone(), history.heads().clone()), history.clone());
        Ok(Some(history))
    }

    /// A document with the heads that it has at this moment.
    async fn open(self: &Arc<Self>, id: &DocumentId) -> Result<(Arc<Known>, Source), Problem> {
        for _ in 0..ATTEMPTS_MAX {
            let known = self.known(id).await?;
            let (wanted, document) = (known.clone(), id.clone());
            let source = self.read(move |rest| Source::read(&*rest.store, &document, &wanted));
            if let Some(source) = source.await? {
                if source.is_long(self.compact_tail_bytes) {
                    // Nobody has it open, or it has not been quiet: the next time it opens faster.
                    self.machine.tend(id.clone()).await;
                }
                return Ok((known, source));
            }
            tokio::task::yield_now().await;
        }
        tracing::warn!(document = %id, "a document changes faster than REST can read it");
        Err(Problem::overloaded("rest.seconds", self.config.seconds as usize))
    }

    /// Asks a worker about a document; gives the heads that it had.
    async fn ask(
        self: &Arc<Self>,
        id: &DocumentId,
        what: View,
        question: Question,
    ) -> Result<(Arc<Known>, Told), Problem> {
        let (known, source) = self.open(id).await?;
        let asked = Asked { document: id.clone(), heads: known.heads.clone(), what };
        if self.failed.contains_key(&asked) {
            return Err(Problem::unreadable());
        }
        let Source { snapshot, changes } = source;
        match self.work(Job::Ask { snapshot, changes, question }).await {
            Ok(told) => Ok((known, told)),
            Err(Failed::Problem(problem)) => Err(problem),
            Err(Failed::Document(problem)) => {
                self.failed.insert(asked, ());
                Err(problem)
            }
        }
    }

    /// Has a job done.
    async fn work(&self, job: Job) -> Result<Told, Failed> {
        match self.pool.ask(job).await {
            Ok(told) => Ok(told),
            Err(Unanswered::Overloaded) => {
                Err(Failed::Problem(Problem::overloaded("rest.queue_max", self.config.queue_max)))
            }
            Err(Unanswered::TooSlow) => {
                tracing::warn!("a worker was killed, a question took too long");
                Err(Failed::Document(Problem::too_slow(self.config.seconds)))
            }
            Err(Unanswered::Failed(why)) => {
                // What it says may quote the document: a field that stays in the log.
                tracing::error!(words = why, "a worker failed over a document");
                Err(Failed::Document(Problem::unreadable()))
            }
        }
    }

    /// An answer that may be kept. Whoever asks the same at the same time waits for the same answer.
    async fn view(
        self: &Arc<Self>,
        id: &DocumentId,
        heads: &Heads,
        what: View,
        past: bool,
    ) -> Result<Bytes, Problem> {
        let asked = Asked { document: id.clone(), heads: heads.clone(), what };
        if let Some(answer) = self.answers.get(&asked).await {
            return Ok(answer);
        }
        let question = asked.question(past);
        let (rest, what, document) = (self.clone(), asked.what.clone(), id.clone());
        let wanted = asked.heads.clone();
        let make = async move {
            let (known, told) = rest.ask(&document, what.clone(), question).await?;
            let answer = bytes(told)?;
            if past || known.heads == wanted {
                return Ok(answer);
            }
            // It has moved on since the heads were looked up: then this is the past now.
            let then = Asked { document: document.clone(), heads: wanted, what: what.clone() };
            bytes(rest.ask(&document, what, then.question(true)).await?.1)
        };
        let made = self.answers.try_get_with(asked, make).await;
        made.map_err(|problem: Arc<Problem>| (*problem).clone())
    }

    /// Does something within the time that a request has.
    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        let seconds = self.config.seconds;
        match timeout(Duration::from_secs(seconds.into()), work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Problem::too_slow(seconds)),
        }
    }

    /// A place among those who wait.
    fn stream(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let place = self.streams.clone().try_acquire_owned();
        place.map_err(|_| Problem::overloaded("rest.streams_max", self.config.streams_max))
    }

    /// Who makes this server's changes of a document at the moment. Another one for each document:
    /// else two of them could never be merged.
    fn actor(&self, id: &DocumentId) -> ActorId {
        let mut hasher = Sha256::new();
        hasher.update(self.generation.load(Ordering::Relaxed).to_be_bytes());
        hasher.update(id.as_bytes());
        // What tells them apart comes first: people are shown the start of an actor.
        let mut bytes = hasher.finalize()[..8].to_vec();
        bytes.extend_from_slice(&self.author);
        ActorId::new(&bytes).expect("16 bytes")
    }

    /// Whether an actor is one of this server's.
    fn is_ours(&self, actor: &ActorId) -> bool {
        let bytes = actor.as_bytes();
        bytes.len() == 16 && bytes.ends_with(&self.author)
    }
}

impl Asked {
    fn question(&self, past: bool) -> Question {
        let heads = past.then(|| self.heads.clone());
        match self.what.clone() {
            View::Json { pointer, form } => Question::Json { heads, pointer, form },
            View::Text { pointer } => Question::Text { heads, pointer },
            View::Conflicts { form } => Question::Conflicts { heads, form },
            View::Diff { from, to, form } => Question::Diff { from, to, form },
            View::Other => Question::History { hashes: Vec::new() },
        }
    }
}

/// Why a job was not done: for a reason of the moment, or of the document.
enum Failed {
    Problem(Problem),
    Document(Problem),
}

impl From<Failed> for Problem {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Problem(problem) | Failed::Document(problem) => problem,
        }
    }
}

fn bytes(told: Told) -> Result<Bytes, Problem> {
    match told {
        Told::Bytes(bytes) => Ok(bytes.into()),
        Told::Declined(why) => Err(declined(&why)),
        Told::Edited(_) => Err(Problem::internal()),
    }
}

fn declined(why: &Declined) -> Problem {
    let text = why.to_string();
    match why {
        Declined::NoSuchHead(_) => Problem::unknown_heads(text),
        Declined::NoSuchPlace(_) => Problem::unknown_place(text),
        Declined::NotAPointer(_) => Problem::bad_request(text),
        Declined::NotJson(_) => Problem::bad_body(text),
        Declined::NotText(_) | Declined::TestFailed(_) | Declined::CannotApply(_) => {
            Problem::impossible(text)
        }
    }
}

/// The description of everything here.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tributary",
        description = "Documents of a region: as JSON, as Automerge files, as text; their history, \
                       and what happens to them. docs/rest.md says more.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    servers((url = "/")),
    components(schemas(Problem)),
)]
struct Api;

/// All routes below `/v1`.
pub fn router(rest: Arc<Rest>) -> Router {
    let (router, api) = OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(documents::list, write::create))
        .routes(routes!(documents::read, write::patch, write::merge))
        .routes(routes!(history::heads))
        .routes(routes!(history::changes))
        .routes(routes!(history::history))
        .routes(routes!(history::diff))
        .routes(routes!(history::conflicts))
        .routes(routes!(replication::replication))
        .routes(routes!(events::of_document))
        .routes(routes!(write::fork))
        .routes(routes!(events::of_region))
        .routes(routes!(status::region))
        .routes(routes!(status::document))
        .split_for_parts();
    let described: Bytes =
        everywhere(api).to_json().expect("the description can be written").into();
    let description = move || async move { ([(header::CONTENT_TYPE, request::JSON)], described) };
    let router = router
        .route("/v1/openapi.json", axum::routing::get(description))
        .route("/v1", axum::routing::any(async || Problem::unknown_resource()))
        .route("/v1/", axum::routing::any(async || Problem::unknown_resource()))
        .route("/v1/{*rest}", axum::routing::any(async || Problem::unknown_resource()))
        .method_not_allowed_fallback(async || Problem::method())
        .layer(DefaultBodyLimit::max(rest.config.body_bytes_max))
        .layer(from_fn_with_state(rest.clone(), guard));
    let router = match cors(&rest.config.cors_origins) {
        Some(cors) => router.layer(cors),
        None => router,
    };
    router.with_state(rest)
}

/// Adds what every call may answer: that the server is about to stop, or that it is broken.
fn everywhere(mut api: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let problem = |description: &str| {
        let schema = RefOr::Ref(Ref::from_schema_name("Problem"));
        let content = ContentBuilder::new().schema(Some(schema)).build();
        ResponseBuilder::new()
            .description(description)
            .content("application/problem+json", content)
            .build()
    };
    let operations = api.paths.paths.values_mut().flat_map(|item| {
        [&mut item.get, &mut item.post, &mut item.put, &mut item.patch].into_iter().flatten()
    });
    for operation in operations {
        let said = &mut operation.responses.responses;
        for (status, description) in [
            ("500", "Something is wrong with the server, or with the document here"),
            ("503", "The server is about to stop"),
        ] {
            said.entry(status.to_owned()).or_insert_with(|| RefOr::T(problem(description)));
        }
    }
    api
}

/// Refuses while the server is not ready.
async fn guard(State(rest): State<Arc<Rest>>, request: Request, next: Next) -> Response {
    if !rest.ready.load(Ordering::Relaxed) {
        return Problem::not_ready().into_response();
    }
    next.run(request).await
}

fn cors(origins: &[String]) -> Option<CorsLayer> {
    let exposed = [header::ETAG, header::LOCATION, header::RETRY_AFTER];
    let allowed = [
        header::CONTENT_TYPE,
        header::ACCEPT,
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        HeaderName::from_static("last-event-id"),
    ];
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH])
        .allow_headers(allowed)
        .expose_headers(exposed)
        .max_age(Duration::from_secs(3600));
    match origins {
        [] => None,
        _ if origins.iter().any(|origin| origin == "*") => {
            Some(layer.allow_origin(AllowOrigin::any()))
        }
        origins => {
            let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
            Some(layer.allow_origin(AllowOrigin::list(origins)))
        }
    }
}
