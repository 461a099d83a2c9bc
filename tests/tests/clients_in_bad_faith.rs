//! Clients that do not read, say too much, or do not stop, against a real process with honest clients.
//!
//! What they cost is bounded by names in the code; the honest ones are served meanwhile.

#[path = "support/rogue.rs"]
mod rogue;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use automerge::transaction::Transactable;
use automerge::{ROOT, ScalarValue};
use model::DocumentId;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use rogue::{Rogue, Sent, frame};
use support::Client;
use tempfile::TempDir;
use tributary_tests::{PATIENCE, Server};

/// `session_bytes_in_flight` of `node::Limits`, for each shard.
const IN_FLIGHT_BYTES: u64 = 256 << 10;
/// What all else may take: queues to shards, logs, the store's cache, and what the system and the
/// allocator round up to. Everything that is measured here goes far beyond it when it has no bound.
const MARGIN_BYTES: u64 = 48 << 20;
/// What a document takes that one session has open and that is not there.
const OPEN_BYTES: u64 = 5 << 10;
const SHARDS: u64 = 2;
/// How often honest clients write, and hear it from each other, while somebody does harm.
const ROUNDS: i64 = 40;

fn document(n: u32) -> DocumentId {
    let mut bytes = [7; 16];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    DocumentId::from_bytes(&bytes).expect("16 bytes")
}

/// A server with a folder to itself. `config` is put into its file.
fn start(config: &str) -> (Server, TempDir) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let file = folder.path().join("config.toml");
    fs::write(&file, format!("shards = {SHARDS}\n{config}\n")).expect("it can be written");
    let file = file.to_str().expect("a path of ours");
    let server = Server::start(&folder.path().join("data"), &["--config", file]);
    (server, folder)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited {PATIENCE:?} for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until the log has a line with all these parts.
fn says(server: &Server, parts: &[&str]) {
    until(&format!("the log to say {parts:?}"), || {
        server.log().lines().any(|line| parts.iter().all(|part| line.contains(part)))
    });
}

/// Two people who write one document together.
struct Friends {
    ann: Client,
    bob: Client,
    round: i64,
}

impl Friends {
    fn meet(server: &Server, document: &DocumentId) -> Self {
        let [ann, bob] = ["ann", "bob"].map(|name| {
            let mut client = Client::join(server, name, document);
            client.pull();
            client
        });
        Self { ann, bob, round: 0 }
    }

    /// Each change is acknowledged, and reaches the other one.
    fn write(&mut self, rounds: i64) {
        for _ in 0..rounds {
            self.round += 1;
            self.ann.put("round", self.round);
            self.ann.acknowledged();
            self.bob.reads("round", self.round);
        }
    }

    /// Puts something large into the document that cannot be compressed.
    fn grow(&mut self, bytes: usize) {
        let mut noise = vec![0; bytes];
        SmallRng::seed_from_u64(self.round as u64).fill_bytes(&mut noise);
        self.ann.doc.put(ROOT, "noise", ScalarValue::Bytes(noise)).expect("maps take bytes");
        self.write(1);
    }
}

/// Checks that what happens inside costs the server no more memory than this and the margin.
fn costs_at_most<T>(server: &Server, bytes: u64, happens: impl FnOnce() -> T) -> T {
    server.forget_peak();
    let before = server.peak_bytes();
    let result = happens();
    let cost = server.peak_bytes() - before;
    let bound = bytes + MARGIN_BYTES;
    assert!(cost <= bound, "{} MiB and not {} MiB", cost >> 20, bound >> 20);
    result
}

/// Sends these bytes again and again as fast as the server takes them in, and reads nothing, while the
/// friends write. Gives how often it was held up.
fn floods(rogue: &mut Rogue, bytes: &[u8], friends: &mut Friends) -> u64 {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let (mut at, mut held_up) = (0, 0);
            while !over.load(Ordering::Relaxed) {
                match rogue.pour(&bytes[at..]) {
                    Sent::Some(count) => at = (at + count) % bytes.len(),
                    Sent::HeldUp => {
                        held_up += 1;
                        thread::sleep(Duration::from_millis(1));
                    }
                    Sent::Gone => panic!("it was closed"),
                }
            }
            held_up
        });
        // Not for ever, if the friends are not served.
        let sets = Sets(&over);
        friends.write(ROUNDS);
        drop(sets);
        flood.join().expect("it is held up and not closed")
    })
}

/// Sets a flag when it is dropped.
struct Sets<'a>(&'a AtomicBool);

impl Drop for Sets<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn who_asks_for_a_large_document_again_and_again_and_reads_nothing_costs_little_and_is_closed() {
    const DOCUMENT_BYTES: usize = 4 << 20;
    let (server, _folder) = start("write_seconds = 2");
    let mut friends = Friends::meet(&server, &document(1));
    friends.grow(DOCUMENT_BYTES);
    let heads = friends.bob.doc.get_heads();
    let mut rogue = Rogue::join(&server, "never-reads");
    // A frame may be larger than what is left of the room. It is there as a message for all, as a
    // frame for one, and as what waits for the socket; and it was read from the store.
    let bound = SHARDS * IN_FLIGHT_BYTES + 5 * DOCUMENT_BYTES as u64;
    costs_at_most(&server, bound, || {
        for _ in 0..100 {
            // Whoever had everything and has nothing any more is sent everything.
            let asks = [rogue.has(&document(1), &heads), rogue.has(&document(1), &[])].concat();
            if !rogue.pour_all(&asks) {
                break;
            }
            friends.write(1);
        }
        until("it to be closed", || figure(&server, "tributary_sessions") == 2);
        friends.write(ROUNDS);
    });
    says(&server, &["never-reads", "reads too slowly"]);
    assert_eq!(figure(&server, "tributary_sessions_closed_for_cause_total"), 1);
    rogue.reads_to_the_end();
}

#[test]
fn who_takes_a_large_document_in_slowly_gets_all_of_it() {
    // Much more than the system keeps on the way; honest clients take frames of 16 MiB here.
    const DOCUMENT_BYTES: usize = 15 << 20;
    let (server, _folder) = start("write_seconds = 1\nping_seconds = 3");
    let mut friends = Friends::meet(&server, &document(1));
    friends.grow(DOCUMENT_BYTES);
    let mut rogue = Rogue::join(&server, "far-away");
    let asks = rogue.has(&document(1), &[]);
    assert!(rogue.pour_all(&asks));
    assert!(rogue.takes_slowly(DOCUMENT_BYTES) >= DOCUMENT_BYTES, "the server went away");
}

#[test]
fn a_flood_of_sync_messages_is_held_up_and_others_are_served_meanwhile() {
    let (server, _folder) = start("write_seconds = 600");
    let mut friends = Friends::meet(&server, &document(1));
    friends.grow(64 << 10);
    let heads = friends.bob.doc.get_heads();
    let mut rogue = Rogue::join(&server, "flooder");
    let asks = [rogue.has(&document(1), &heads), rogue.has(&document(1), &[])].concat();
    let held_up = costs_at_most(&server, SHARDS * IN_FLIGHT_BYTES, || {
        floods(&mut rogue, &asks.repeat(100), &mut friends)
    });
    assert!(held_up > 0);
}

#[test]
fn a_flood_of_presence_is_held_up_and_dropped_for_whoever_does_not_read_it() {
    let (server, _folder) = start("write_seconds = 600");
    let mut friends = Friends::meet(&server, &document(1));
    friends.write(1);
    let mut deaf = Rogue::join(&server, "never-reads");
    deaf.pour_all(&deaf.has(&document(1), &[]));
    let mut rogue = Rogue::join(&server, "flooder");
    rogue.pour_all(&rogue.has(&document(1), &[]));
    let shouts: Vec<_> = (0..100).flat_map(|n| rogue.presence(&document(1), n, 1000)).collect();
    let held_up = costs_at_most(&server, 4 * SHARDS * IN_FLIGHT_BYTES, || {
        floods(&mut rogue, &shouts, &mut friends)
    });
    assert!(held_up > 0);
    assert!(figure(&server, "tributary_presence_dropped_total") > 0);
    assert!(!server.log().contains("too many frames"), "{}", server.log());
}

#[test]
fn who_opens_more_documents_than_one_may_is_closed_with_1008_and_others_are_served_meanwhile() {
    let (server, _folder) = start("documents_per_session = 1000");
    let mut friends = Friends::meet(&server, &document(1));
    let mut rogue = Rogue::join(&server, "collector");
    let asks: Vec<_> = (2..6000).flat_map(|n| rogue.has(&document(n), &[])).collect();
    let code = costs_at_most(&server, SHARDS * IN_FLIGHT_BYTES, || {
        rogue.pour_all(&asks);
        friends.write(ROUNDS);
        rogue.reads_to_the_end()
    });
    assert_eq!(code, Some(1008));
    says(&server, &["closing a session", "documents on one connection"]);
    friends.write(1);
}

#[test]
fn who_reads_the_answers_to_thousands_of_requests_late_gets_every_one_of_them() {
    const REQUESTS: usize = 20_000;
    let (server, _folder) = start("write_seconds = 600");
    let mut friends = Friends::meet(&server, &document(1));
    // The name is in each answer: together they are far more than the system keeps unread.
    let mut rogue = Rogue::join(&server, &"reads-late".repeat(25));
    let documents = (2..).take(REQUESTS);
    let asks: Vec<_> = documents.flat_map(|n| rogue.has(&document(n), &[])).collect();
    costs_at_most(&server, REQUESTS as u64 * OPEN_BYTES, || {
        rogue.pour_all(&asks);
        until("all requests to be there", || {
            figure(&server, "tributary_documents") > REQUESTS as u64
        });
        friends.write(ROUNDS);
    });
    rogue.is_declined(REQUESTS);
}

#[test]
fn a_message_over_the_limit_is_closed_with_1009_and_the_log_names_who_and_of_what() {
    let (server, _folder) = start("frame_bytes_max = 65536");
    let mut friends = Friends::meet(&server, &document(1));
    let too_much = [7; 70_000];
    let (first, rest) = too_much.split_at(40_000);
    let whole = frame(0x82, &too_much);
    let pieces = [frame(0x02, first), frame(0x80, rest)].concat();
    for (n, name, bytes) in [(2, "in-one-frame", whole), (3, "in-two-frames", pieces)] {
        let mut rogue = Rogue::join(&server, name);
        rogue.pour_all(&rogue.has(&document(1), &[]));
        rogue.pour_all(&rogue.has(&document(n), &[]));
        rogue.pour_all(&bytes);
        assert_eq!(rogue.reads_to_the_end(), Some(1009), "{name}");
        says(&server, &["message over the limit", name, &document(n).to_string()]);
    }
    friends.write(1);
}

#[test]
fn sigterm_sends_many_sessions_away_one_after_the_other_and_exits_with_0() {
    const SESSIONS: usize = 60;
    const WINDOW: Duration = Duration::from_secs(4);
    let (mut server, _folder) = start(&format!("drain_seconds = {}", WINDOW.as_secs_f64()));
    let mut clients: Vec<_> = (0..SESSIONS)
        .map(|n| {
            let mut client = Client::join(&server, &format!("client-{n}"), &document(n as u32 % 7));
            client.pull();
            client
        })
        .collect();
    let ends: Vec<_> = thread::scope(|scope| {
        let waiting: Vec<_> = (clients.iter_mut())
            .map(|client| scope.spawn(|| (client.closed(), Instant::now())))
            .collect();
        server.terminate();
        waiting.into_iter().map(|it| it.join().expect("it is closed")).collect()
    });
    assert!(ends.iter().all(|(code, _)| *code == Some(1012)), "{ends:?}");
    let times = || ends.iter().map(|(_, at)| *at);
    let took = times().max().expect("there are some") - times().min().expect("there are some");
    assert!(took >= WINDOW / 2, "all were sent away within {took:?}");
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
}

#[test]
fn a_server_that_is_stopping_is_not_ready_takes_nobody_in_and_serves_who_is_still_there() {
    // One is sent away at once, the others long after this test.
    let (server, _folder) = start("drain_seconds = 600");
    let clients = ["ann", "bob", "cas"].map(|name| {
        let mut client = Client::join(&server, name, &document(1));
        client.pull();
        client
    });
    let mut open = [Http::connect(&server), Http::connect(&server)];
    for http in &mut open {
        assert!(http.asks("/readyz", "").starts_with("HTTP/1.1 200"));
    }
    server.terminate();
    until("nobody to be let in", || TcpStream::connect(server.address()).is_err());
    // Connections that were there before are still answered.
    let [health, upgrade] = &mut open;
    let answer = health.asks("/readyz", "");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("not ready\n"), "{answer}");
    assert!(health.asks("/livez", "").starts_with("HTTP/1.1 200"));
    let answer = upgrade.asks(
        "/sync",
        "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
    );
    let answer = answer.to_lowercase();
    assert!(answer.starts_with("http/1.1 503") && answer.contains("retry-after: 5"), "{answer}");
    until("the first one to be sent away", || {
        figure_in(&health.asks("/metrics", ""), "tributary_sessions") == 2
    });
    let served = clients.map(|mut client| {
        // Who was sent away has nobody to write to.
        let writes = AssertUnwindSafe(|| {
            client.put("late", 1);
            client.acknowledged();
        });
        catch_unwind(writes).is_ok()
    });
    assert_eq!(served.into_iter().filter(|served| *served).count(), 2);
}

/// A connection for several questions, which may be older than the wish that the server stops.
struct Http(TcpStream);

impl Http {
    fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address()).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout is not zero");
        Self(stream)
    }

    /// Asks, and gives the answer with its head.
    fn asks(&mut self, path: &str, headers: &str) -> String {
        write!(self.0, "GET {path} HTTP/1.1\r\nHost: here\r\n{headers}\r\n").expect("it is open");
        let mut answer = String::new();
        let length = loop {
            let mut byte = [0];
            self.0.read_exact(&mut byte).expect("it answers");
            answer.push(byte[0].into());
            if answer.ends_with("\r\n\r\n") {
                let lengths = answer.lines().filter_map(|line| line.split_once(": "));
                let mut lengths = lengths.filter(|(name, _)| name == &"content-length");
                let (_, length) = lengths.next().expect("there is a body");
                break length.parse().expect("a number");
            }
        };
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("it answers");
        answer + &String::from_utf8_lossy(&body)
    }
}

/// A figure of the server, without labels.
fn figure(server: &Server, name: &str) -> u64 {
    figure_in(&Http::connect(server).asks("/metrics", ""), name)
}

/// The same, of what it has told.
fn figure_in(answer: &str, name: &str) -> u64 {
    let mut values = answer.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = values.next().unwrap_or_else(|| panic!("no {name} in {answer}"));
    value.parse().expect("a number")
}
