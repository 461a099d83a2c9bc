//! `POST /v1/backup`: a whole copy of the store, made while the region runs.
//!
//! The answer is a stream of rows ([`stream`]); whoever asked, `tributary backup`, makes a store of
//! them. So the server writes no second store, opens no path that somebody names, and its disk does not
//! fill up by a copy. A thread of its own reads the store in small pieces, and between them passes on
//! what was committed meanwhile ([`tap`]); why that is consistent is said there.

pub mod config;
pub mod stream;
pub mod tap;

use std::fs;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::poll_fn;
use sha2::{Digest, Sha256};
use store::{KEY_BYTES_MAX, Store, StoreError};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::config::{Config, is_unset};
use crate::exit::Failure;
use crate::http::Site;
use crate::regions::Remote;
use stream::About;
use tap::{Follower, Lost, Tap};

/// How many bytes of rows are read before commits of the meantime are looked after.
const PIECE_BYTES: usize = 512 << 10;
/// How long a copy pauses between two pieces at most.
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// How many pieces may wait for the reader.
const PIECES_MAX: usize = 2;
/// How long a reader may take to make room for the next piece.
const READER_WITHIN: Duration = Duration::from_secs(60);
/// How long the last commit of a copy may take.
const COMMIT_WITHIN: Duration = Duration::from_secs(60);
/// How often a copy that waits for its reader looks whether the server stops.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A secret has at least so many bytes.
const KEY_BYTES_MIN: usize = 16;
/// What proxies say of whom they ask for, who is not on this machine; and what browsers say, whose pages
/// come from anywhere.
const NOT_AN_OPERATOR: [&str; 7] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-real-ip",
    "via",
    "origin",
    "sec-fetch-site",
];

/// What the endpoint needs.
pub struct Backups {
    store: Arc<dyn Store>,
    tap: Arc<Tap>,
    about: About,
    /// Where the server listens: whoever asks from that address is on this machine as well.
    listens: IpAddr,
    key: Option<Key>,
}

/// The secret that whoever asks has to know.
pub struct Key([u8; 32]);

impl Key {
    /// Reads it from a file; `None` when no file is configured.
    ///
    /// # Errors
    /// A sentence that names the key of the configuration.
    pub fn load(file: &Path) -> Result<Option<Self>, Failure> {
        Ok(read_key(file)?.map(|text| Self::of(&text)))
    }

    fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Compares digests: how long it takes says nothing about the secret.
    fn is(&self, text: &str) -> bool {
        self.0 == Self::of(text).0
    }
}

/// The text of the secret in a file; `None` when no file is configured.
///
/// # Errors
/// A sentence that names the key of the configuration.
pub fn read_key(file: &Path) -> Result<Option<String>, Failure> {
    if is_unset(file) {
        return Ok(None);
    }
    let refused = |why: String| Failure::Usage(format!("backup.key_file {} {why}", file.display()));
    let text =
        fs::read_to_string(file).map_err(|error| refused(format!("cannot be read: {error}")))?;
    let text = text.trim().to_owned();
    if text.len() < KEY_BYTES_MIN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(refused(format!(
            "holds no key: expected at least {KEY_BYTES_MIN} letters, digits or signs without blanks, \
             as 'openssl rand -base64 32' prints"
        )));
    }
    Ok(Some(text))
}

impl Backups {
    /// Takes what is needed for copies of a store.
    ///
    /// # Errors
    /// When the key cannot be read.
    pub fn new(config: &Config, store: Arc<dyn Store>, tap: Arc<Tap>) -> Result<Self, Failure> {
        Ok(Self {
            store,
            tap,
            about: about(config),
            listens: config.listen.ip(),
            key: Key::load(&config.backup.key_file)?,
        })
    }

    /// Whether this request may have a copy of everything; why not.
    fn admits(&self, from: Option<IpAddr>, headers: &HeaderMap) -> Result<(), &'static str> {
        if let Some(key) = &self.key {
            let said = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
            return match said.and_then(|said| said.strip_prefix("Bearer ")) {
                Some(said) if key.is(said) => Ok(()),
                Some(_) => Err("the key is not the one in the server's backup.key_file"),
                None => Err("the server has a backup.key_file; name the same file with --key-file"),
            };
        }
        let foreign = NOT_AN_OPERATOR.iter().any(|name| headers.contains_key(*name));
        let here = from.is_some_and(|from| {
            let from = from.to_canonical();
            from.is_loopback() || from == self.listens.to_canonical()
        });
        match here && !foreign {
            true => Ok(()),
            false => Err(
                "only the server's own machine may ask, not a browser or through a proxy; to ask from \
                 elsewhere, set backup.key_file",
            ),
        }
    }
}

fn about(config: &Config) -> About {
    let data = fs::canonicalize(&config.data).unwrap_or_else(|_| config.data.clone());
    About {
        region: config.region.clone(),
        store: config.store,
        data,
        taken: 0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The store of a configuration, as of now, for a copy that no server makes: nobody says whose it is.
pub fn about_now(config: &Config) -> About {
    About { taken: now(), region: String::new(), ..about(config) }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Answers with a copy of the store.
pub async fn endpoint(State(site): State<Arc<Site>>, request: Request) -> Response {
    let backups = &site.backups;
    let from = request.extensions().get::<Remote>().map(|remote| remote.0.ip());
    if let Err(why) = backups.admits(from, request.headers()) {
        tracing::warn!(?from, why, "a backup was refused");
        return problem(StatusCode::FORBIDDEN, "forbidden", "Not for everybody", why);
    }
    if !site.ready.load(Ordering::Relaxed) {
        let why = "the server is about to stop; ask again when it is back";
        return problem(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "Not ready", why);
    }
    let Some(follower) = backups.tap.open() else {
        let why = "another backup of this region is being made; wait until it has ended";
        return problem(StatusCode::CONFLICT, "backup-running", "One at a time", why);
    };
    let (pieces, mut sent) = mpsc::channel::<Bytes>(PIECES_MAX);
    let copy = Copy { site: site.clone(), pieces, runtime: Handle::current() };
    let thread = std::thread::Builder::new().name("backup".to_owned());
    if let Err(error) = thread.spawn(move || copy.run(follower)) {
        tracing::error!(%error, "a backup cannot be started");
        let why = "the server cannot start a thread; its log says more";
        return problem(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "No room", why);
    }
    let body = poll_fn(move |context| {
        sent.poll_recv(context).map(|piece| piece.map(Ok::<_, std::convert::Infallible>))
    });
    ([(header::CONTENT_TYPE, stream::CONTENT_TYPE)], Body::from_stream(body)).into_response()
}

fn problem(status: StatusCode, kind: &str, title: &str, detail: &str) -> Response {
    let body = serde_json::json!({
        "type": format!("urn:tributary:problem:{kind}"),
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
    });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

/// A copy that is being made.
struct Copy {
    site: Arc<Site>,
    pieces: mpsc::Sender<Bytes>,
    runtime: Handle,
}

/// Why a copy ended before its time.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(
        "a row of the store cannot be read: {0}. 'tributary verify' names what is damaged; \
         docs/operations.md says how to go on"
    )]
    Store(#[from] StoreError),
    #[error("{0}")]
    Lost(#[from] Lost),
    #[error("whoever asked for it has gone")]
    Gone,
    #[error("whoever asked for it has not read on for {} s", READER_WITHIN.as_secs())]
    Stalled,
    #[error("the server stops; ask again when it is back")]
    Stopping,
}

impl Copy {
    fn run(self, follower: Follower) {
        tracing::info!("a backup begins");
        let began = Instant::now();
        match self.send_all(follower) {
            Ok((rows, later)) => {
                let seconds = began.elapsed().as_secs_f64();
                tracing::info!(rows, later, seconds, "the backup is sent");
            }
            Err(why) => {
                tracing::warn!(%why, "the backup has failed");
                let _ = self.pieces.try_send(stream::failed(&why.to_string()).into());
            }
        }
    }

    fn send_all(&self, follower: Follower) -> Result<(u64, u64), Broken> {
        let backups = &self.site.backups;
        self.send(stream::head(&About { taken: now(), ..backups.about.clone() }))?;
        let (mut rows, mut later) = (0, 0);
        let mut next = Some(Vec::new());
        while let Some(from) = next {
            let mut piece = Vec::with_capacity(PIECE_BYTES + (8 << 10));
            let began = Instant::now();
            next = read_piece(&*backups.store, &from, &mut piece, &mut rows)?;
            // Reads half of the time, and leaves the other half to those who type.
            let pause = began.elapsed().min(PAUSE_MAX);
            self.send(piece)?;
            std::thread::sleep(pause);
            self.send_batches(follower.take()?, &mut later)?;
        }
        self.send_batches(follower.finish(COMMIT_WITHIN)?, &mut later)?;
        self.send(stream::end(rows, later))?;
        Ok((rows, later))
    }

    fn send_batches(&self, batches: Vec<Vec<store::Write>>, later: &mut u64) -> Result<(), Broken> {
        let mut piece = Vec::new();
        for write in batches.iter().flatten() {
            stream::write(&mut piece, write);
            *later += 1;
            if piece.len() >= PIECE_BYTES {
                self.send(std::mem::take(&mut piece))?;
            }
        }
        if piece.is_empty() { Ok(()) } else { self.send(piece) }
    }

    /// Waits for room, but not for a reader that does not read, and not longer than the server runs.
    fn send(&self, piece: Vec<u8>) -> Result<(), Broken> {
        let end = Instant::now() + READER_WITHIN;
        loop {
            if !self.site.ready.load(Ordering::Relaxed) {
                return Err(Broken::Stopping);
            }
            let room = async { timeout(LOOK_EVERY, self.pieces.reserve()).await };
            match self.runtime.block_on(room) {
                Ok(Ok(room)) => {
                    room.send(piece.into());
                    return Ok(());
                }
                Ok(Err(_)) => return Err(Broken::Gone),
                Err(_) if Instant::now() >= end => return Err(Broken::Stalled),
                Err(_) => {}
            }
        }
    }
}

/// Appends rows from a key on; gives the key to go on from, `None` after the last row.
pub fn read_piece(
    store: &dyn Store,
    from: &[u8],
    piece: &mut Vec<u8>,
    rows: &mut u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    let mut next = None;
    store.scan(from, &[0xff; KEY_BYTES_MAX], &mut |key, value| {
        stream::put(piece, key, value);
        *rows += 1;
        if piece.len() < PIECE_BYTES {
            return ControlFlow::Continue(());
        }
        // The smallest key behind this one.
        next = Some([key, &[0]].concat());
        ControlFlow::Break(())
    })?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::{MemoryDisk, MemoryStore, Write};

    fn backups(key: Option<&str>) -> Backups {
        let store = MemoryDisk::new().open();
        let about = about(&Config::default());
        Backups {
            store: Arc::new(store),
            tap: Arc::default(),
            about,
            listens: "10.9.8.7".parse().unwrap(),
            key: key.map(Key::of),
        }
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn without_a_key_only_this_machine_gets_a_copy_and_nobody_through_a_proxy() {
        let backups = backups(None);
        let none = HeaderMap::new();
        for here in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "127.9.9.9", "10.9.8.7"] {
            let here = Some(here.parse().unwrap());
            assert_eq!(backups.admits(here, &none), Ok(()));
            for name in NOT_AN_OPERATOR {
                assert!(backups.admits(here, &headers(name, "10.1.2.3")).is_err(), "{name}");
            }
        }
        for there in ["10.0.0.1", "::2", "::ffff:10.0.0.1"] {
            assert!(backups.admits(Some(there.parse().unwrap()), &none).is_err(), "{there}");
        }
        assert!(backups.admits(None, &none).is_err());
    }

    #[test]
    fn with_a_key_whoever_knows_it_gets_a_copy_and_nobody_else() {
        let backups = backups(Some("a secret of many letters"));
        let here = Some("127.0.0.1".parse().unwrap());
        let there = Some("10.0.0.1".parse().unwrap());
        assert!(backups.admits(here, &HeaderMap::new()).is_err());
        let right = headers("authorization", "Bearer a secret of many letters");
        assert_eq!(backups.admits(there, &right), Ok(()));
        for wrong in ["Bearer a secret of many letter", "a secret of many letters", "Bearer "] {
            assert!(backups.admits(here, &headers("authorization", wrong)).is_err(), "{wrong}");
        }
    }

    /// A model of a backup: pieces with commits in between, then the rest.
    #[test]
    fn pieces_and_what_was_committed_meanwhile_make_the_store_as_it_is_at_the_end() {
        let source = MemoryDisk::new().open();
        let tap = Arc::new(Tap::default());
        let commit = |writes: Vec<Write>| {
            let under_way = tap.begin();
            source.commit(&writes).unwrap();
            under_way.done(writes);
        };
        let put = |n: u16, value: u8| Write::Put {
            key: n.to_be_bytes().to_vec(),
            value: vec![value; PIECE_BYTES / 4],
        };
        commit((1..40).map(|n| put(n, 0)).collect());
        let follower = tap.open().unwrap();
        let (mut stream, mut rows, mut next, mut round) = (Vec::new(), 0, Some(Vec::new()), 0_u16);
        while let Some(from) = next {
            let mut piece = Vec::new();
            next = read_piece(&source, &from, &mut piece, &mut rows).unwrap();
            stream.extend(piece);
            let meanwhile = follower.take().unwrap();
            meanwhile.iter().flatten().for_each(|each| stream::write(&mut stream, each));
            // One row that has been read, one that will be, one that goes, one that is new.
            round += 1;
            commit(vec![
                put(1, round as u8),
                put(39, round as u8),
                Write::Delete { key: (round * 3).to_be_bytes().to_vec() },
                put(100 + round, 1),
            ]);
        }
        let rest = follower.finish(COMMIT_WITHIN).unwrap();
        rest.iter().flatten().for_each(|each| stream::write(&mut stream, each));
        stream.extend(stream::end(0, 0));

        let copy = MemoryDisk::new().open();
        let mut from = stream.as_slice();
        while let stream::Record::Write(write) = stream::read(&mut from).unwrap() {
            copy.commit(&[write]).unwrap();
        }
        let all = |store: &MemoryStore| {
            let mut rows = Vec::new();
            store
                .scan(&[], &[0xff; KEY_BYTES_MAX], &mut |key, value| {
                    rows.push((key.to_vec(), value[0]));
                    ControlFlow::Continue(())
                })
                .unwrap();
            rows
        };
        assert!(round > 5);
        assert_eq!(all(&copy), all(&source));
    }
}
