//! `tributary serve`: wires the parts together, runs them, and takes them down in order.

use std::io::Write as _;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use model::{DocumentId, PeerId};
use node::rows::LoadError;
use node::{Identity, Limits};
use store::{Store, StoreError};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backup::Backups;
use crate::backup::tap::Tap;
use crate::board::Board;
use crate::config::Config;
use crate::exit::Failure;
use crate::http::{self, Site};
use crate::machine::{Machine, Parts};
use crate::metrics::Metrics;
use crate::progress::{Counted, Progress};
use crate::regions::{self, Regions, Remote};
use crate::rest::{self, Rest};
use crate::socket::Surroundings;
use crate::status::{self, Gather, Lines};
use crate::{archive_pool, committer, stores};

/// How often all documents are looked through for changes to let go of.
const TRIM_EVERY: Duration = Duration::from_secs(3600);
/// And how long after the start for the first time: less may be kept than before it.
const TRIM_FIRST_AFTER: Duration = Duration::from_secs(20);
/// How long a connection may take to send its HTTP headers.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// How long to wait for connections and shards to finish after they have been asked to.
const FINISH_WITHIN: Duration = Duration::from_secs(20);

/// How long a region that stops waits until the others hold what was handed in here. Whoever is
/// reachable needs a few round trips; for the others it is the same as after a loss of power.
const LEVEL_WITHIN: Duration = Duration::from_secs(3);
/// How long links may take for their last words.
const LINKS_CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Runs a region until it is told to stop. `lines` has what its log says.
///
/// # Errors
/// When it cannot start, or its store fails while it runs.
pub fn run(config: &Config, lines: Arc<Lines>) -> Result<(), Failure> {
    // As many connections as the system allows.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Listen(format!("cannot start: {error}")))?;
    runtime.block_on(region(config, lines))
}

async fn region(config: &Config, lines: Arc<Lines>) -> Result<(), Failure> {
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| Failure::Listen(format!("cannot listen on {}: {error}", config.listen)))?;
    let address = listener.local_addr().map_err(|error| Failure::Listen(error.to_string()))?;
    let store = stores::open(config)?;
    let storage = stores::storage_id(&*store, &config.data)?;
    let mesh = regions::Setup::load(config, storage.clone())?;

    let metrics = Arc::new(Metrics::default());
    let tap = Arc::<Tap>::default();
    let backups = Backups::new(config, store.clone(), tap.clone())?;
    let (store_failed, failure) = oneshot::channel();
    let failed = |error| drop(store_failed.send(error));
    let (committer, committer_thread) =
        committer::start(store.clone(), metrics.clone(), tap, failed);
    let archive = archive_pool::start(&config.archive, &metrics)
        .map_err(|error| Failure::Listen(format!("cannot start the archive: {error}")))?;
    let (stop, stopped) = watch::channel(false);
    let short: String = storage.as_str().chars().take(8).collect();
    let peer = PeerId::new(&format!("tributary-{}-{short}", config.region_name()))
        .expect("a region's name leaves room");
    let shards = config.shard_count();
    let board = Arc::new(Board::new(now_ms()));
    let (machine, shard_tasks) = Machine::start(Parts {
        me: Identity { peer, storage },
        shards,
        limits: config.node_limits(shards),
        mesh: mesh.as_ref().map(regions::Setup::for_shards),
        links: mesh.as_ref().map(|mesh| mesh.doors.clone()).unwrap_or_default(),
        sessions_max: config.sessions_max,
        store: store.clone(),
        committer,
        archive,
        metrics: metrics.clone(),
        board: board.clone(),
        stop: stopped,
    })
    .map_err(|error| {
        let data = config.data.display();
        Failure::Store(format!("the logs of the mesh in {data} cannot be read: {error}"))
    })?;
    let regions = mesh.map(|mesh| Regions::start(mesh, machine.shard_doors()));
    let status = Gather::start(status::Parts {
        region: config.region.clone(),
        sessions_max: config.sessions_max,
        machine: machine.clone(),
        board: board.clone(),
        store: store.clone(),
        metrics: metrics.clone(),
        regions: regions.clone(),
        lines,
    });
    let rest = Rest::start(rest::Parts {
        config: config.rest.clone(),
        worker_memory_mib: config.archive.memory_mib,
        compact_tail_bytes: config.archive.compact_tail_kib << 10,
        region: config.region.clone(),
        machine: machine.clone(),
        board,
        store: store.clone(),
        metrics: metrics.clone(),
        regions: regions.clone(),
        status: status.clone(),
    })
    .map_err(|error| Failure::Listen(format!("cannot start the workers of REST: {error}")))?;
    let site = Arc::new(Site {
        around: Arc::new(Surroundings {
            machine: machine.clone(),
            metrics,
            join_within: Duration::from_secs(config.join_seconds),
            ping_every: Duration::from_secs(config.ping_seconds),
            write_within: Duration::from_secs(config.write_seconds),
            stopping: CancellationToken::new(),
        }),
        region: config.region.clone(),
        frame_bytes_max: config.frame_bytes_max,
        ready: AtomicBool::new(true),
        connections: TaskTracker::new(),
        backups,
        rest,
        status,
        regions,
    });
    tokio::spawn(trim_regularly(store, machine, config.node_limits(shards)));
    // Whoever reads that we listen may ask us to stop at once.
    let asked = asked_to_stop();
    announce(config, address);

    let ended = tokio::select! {
        never = accept(listener, site.clone()) => never,
        signal = asked => {
            tracing::info!(signal, "stopping");
            None
        }
        failed = failure => failed.ok(),
    };
    site.ready.store(false, Ordering::Relaxed);
    site.rest.stop();
    if let Some(error) = ended {
        // Nothing can be made durable any more, so nothing more is said to anyone.
        tracing::error!(%error, "the store has failed");
        return Err(store_failure(&error));
    }
    drain(config, &site).await;
    if let Some(regions) = &site.regions {
        regions.level(LEVEL_WITHIN).await;
    }
    let _ = stop.send(true);
    for task in shard_tasks {
        let _ = tokio::time::timeout(FINISH_WITHIN, task).await;
    }
    if let Some(regions) = &site.regions {
        regions.stop(LINKS_CLOSE_WITHIN).await;
    }
    // The shards were the last to have work for the committer.
    let joined = tokio::task::spawn_blocking(move || committer_thread.join());
    let _ = tokio::time::timeout(FINISH_WITHIN, joined).await;
    tracing::info!("stopped");
    Ok(())
}

/// Looks through all documents for changes that are kept one by one for longer than configured.
async fn trim_regularly(store: Arc<dyn Store>, machine: Arc<Machine>, limits: Limits) {
    let first = tokio::time::Instant::now() + TRIM_FIRST_AFTER;
    let mut every = tokio::time::interval_at(first, TRIM_EVERY);
    loop {
        every.tick().await;
        let (store, limits) = (store.clone(), limits.clone());
        match tokio::task::spawn_blocking(move || keep_too_old_changes(&*store, &limits)).await {
            Ok(Ok(found)) => {
                for document in found {
                    machine.tend(document).await;
                }
            }
            Ok(Err(error)) => tracing::error!(%error, "documents cannot be listed"),
            Err(_) => return,
        }
    }
}

/// The documents whose oldest change behind the snapshot is kept for longer than it should be: only those
/// have to be woken.
fn keep_too_old_changes(store: &dyn Store, limits: &Limits) -> Result<Vec<DocumentId>, LoadError> {
    let mut with_changes = Vec::new();
    node::rows::documents(store, &mut |document, meta| {
        if meta.raw_from < meta.base {
            with_changes.push((document, meta.raw_from));
        }
        ControlFlow::Continue(())
    })?;
    let keep_none = limits.retain_age.is_zero() || limits.retain_bytes == 0;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let oldest = now.saturating_sub(limits.retain_age).as_millis() as u64;
    let mut found = Vec::new();
    for (document, raw_from) in with_changes {
        let first = node::rows::log_rows(store, &document, raw_from, raw_from + 1)?;
        if keep_none || first.first().is_none_or(|row| row.written_ms < oldest) {
            found.push(document);
        }
    }
    Ok(found)
}

fn announce(config: &Config, address: SocketAddr) {
    tracing::info!(region = config.region, %address, data = %config.data.display(), "listening");
    // This line is a contract: scripts wait for it and read the URL. A closed pipe is not our end.
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "tributary: region {} is listening on ws://{address}", config.region);
    let _ = out.flush();
}

/// Accepts connections for ever. Never returns.
async fn accept(listener: TcpListener, site: Arc<Site>) -> Option<StoreError> {
    let router = http::router(site);
    loop {
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, or the peer is gone already: the next may do better.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Keystrokes are small, and waiting to fill a segment would be all of their latency.
        let _ = stream.set_nodelay(true);
        let progress = Progress::default();
        let known = progress.clone();
        let stream = TokioIo::new(Counted::new(stream, progress));
        let service = TowerToHyperService::new(router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Remote(remote));
            request.extensions_mut().insert(known.clone());
            service.call(request)
        });
        tokio::spawn(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new())
                .header_read_timeout(HEADERS_WITHIN)
                .max_buf_size(16 << 10);
            let connection = http.serve_connection(stream, service).with_upgrades();
            // Errors here are the peer's: a half-sent request, a reset.
            let _ = connection.await;
        });
    }
}

/// Closes every session, spread over the window, so that clients do not all come back at once.
async fn drain(config: &Config, site: &Site) {
    let machine = &site.around.machine;
    let sessions = machine.open_sessions();
    let pause = config.drain_seconds / sessions.len().max(1) as f64;
    let started = tokio::time::Instant::now();
    for (n, session) in sessions.into_iter().enumerate() {
        let at = started + Duration::from_secs_f64(pause * n as f64);
        tokio::time::sleep_until(at).await;
        machine.close(session, 1012, "the server restarts");
    }
    for session in machine.open_sessions() {
        machine.close(session, 1012, "the server restarts");
    }
    site.around.stopping.cancel();
    site.connections.close();
    let _ = tokio::time::timeout(FINISH_WITHIN, site.connections.wait()).await;
}

fn now_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since_1970.as_millis() as u64
}

/// Waits for a signal; from the call on, not only from the first look at what it gives, none ends the
/// process by itself.
fn asked_to_stop() -> impl Future<Output = &'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be listened to");
    let mut interrupt = signal(SignalKind::interrupt()).expect("signals can be listened to");
    async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    }
}

fn store_failure(error: &StoreError) -> Failure {
    let hint = match error {
        StoreError::Full { .. } => "make room on the disk and start again",
        _ => "look at the disk; 'tributary verify' checks the data",
    };
    Failure::StoreFailed(format!(
        "the store has failed: {error}. Nothing that was acknowledged is lost; {hint}."
    ))
}
