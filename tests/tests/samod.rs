//! samod, the Rust client of the field, against the real process.

use std::future::{Future, ready};
use std::sync::Arc;
use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{Automerge, ObjType, ROOT, ReadDoc};
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::{SinkExt, StreamExt};
use samod::{BackoffConfig, DialError, Dialer, DocHandle, Repo, Transport};
use tempfile::TempDir;
use tokio::time::timeout;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::{Error, Message};
use tributary_tests::{PATIENCE, Server};
use url::Url;

/// One binary message of the socket is one message of the protocol.
struct WebSocket(Url);

impl Dialer for WebSocket {
    type Error = Error;

    fn url(&self) -> Url {
        self.0.clone()
    }

    fn connect(&self) -> BoxFuture<'static, Result<Transport, DialError<Error>>> {
        let url = self.0.to_string();
        async move {
            let (socket, _) = connect_async(url).await.map_err(DialError::transient)?;
            let (sink, stream) = socket.split();
            let sink = sink.with(|bytes: Vec<u8>| ready(Ok::<_, Error>(Message::from(bytes))));
            let stream = stream.filter_map(|message| {
                ready(match message {
                    Ok(Message::Binary(bytes)) => Some(Ok(bytes.to_vec())),
                    Ok(_) => None,
                    Err(error) => Some(Err(error)),
                })
            });
            Ok(Transport::new(stream, sink))
        }
        .boxed()
    }
}

fn start() -> (TempDir, Server) {
    let data = tempfile::tempdir().expect("there is room for a folder");
    let server = Server::start(data.path(), &[]);
    (data, server)
}

/// A client that has joined.
async fn join(server: &Server) -> Repo {
    let repo = Repo::build_tokio().load().await;
    let dialer = Arc::new(WebSocket(server.url().parse().expect("a URL")));
    let backoff =
        BackoffConfig { max_delay: Duration::from_millis(500), ..BackoffConfig::default() };
    let handle = repo.dial(backoff, dialer).expect("the repo runs");
    soon(handle.established()).await.expect("the server answers the join");
    repo
}

/// What a future gives; it may not take longer than [`PATIENCE`].
async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("in time")
}

/// Waits until the document shows what `condition` wants.
async fn shows(handle: &DocHandle, condition: impl Fn(&Automerge) -> bool) {
    let mut changes = handle.changes();
    while !handle.with_document(|document| condition(document)) {
        soon(changes.next()).await.expect("the document lives");
    }
}

/// A document that another client has just created may still be on its way to the server.
async fn found(repo: &Repo, handle: &DocHandle) -> DocHandle {
    let (mut state, mut later) = repo.search(handle.document_id().clone()).expect("the repo runs");
    loop {
        if let samod::SearchState::Found(handle) = state {
            return handle;
        }
        state = soon(later.next()).await.expect("the search goes on");
    }
}

fn put(handle: &DocHandle, key: &str, value: i64) {
    handle.with_document(|document| {
        let mut change = document.transaction();
        change.put(ROOT, key, value).expect("maps take numbers");
        change.commit();
    });
}

fn get(document: &Automerge, key: &str) -> Option<i64> {
    document.get(ROOT, key).expect("the root is a map").and_then(|(value, _)| value.as_i64())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_samod_creates_another_finds_and_edits_go_both_ways() {
    let (_data, server) = start();
    let (alice, bob) = (join(&server).await, join(&server).await);
    let hers = alice.create(Automerge::new()).await.expect("the repo runs");
    put(&hers, "from alice", 1);
    let his = found(&bob, &hers).await;
    shows(&his, |document| get(document, "from alice") == Some(1)).await;
    for round in 2..20 {
        put(&his, "from bob", round);
        put(&hers, "from alice", round);
        let level = |document: &Automerge| {
            ["from alice", "from bob"].iter().all(|key| get(document, key) == Some(round))
        };
        shows(&hers, level).await;
        shows(&his, level).await;
    }
    assert!(
        hers.with_document(|hers| his.with_document(|his| hers.get_heads() == his.get_heads()))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_samods_that_type_into_one_text_at_once_end_with_the_same_text() {
    let (_data, server) = start();
    let (alice, bob) = (join(&server).await, join(&server).await);
    let mut document = Automerge::new();
    let mut change = document.transaction();
    let text = change.put_object(ROOT, "text", ObjType::Text).expect("maps take texts");
    change.commit();
    let hers = alice.create(document).await.expect("the repo runs");
    let his = found(&bob, &hers).await;
    shows(&his, |document| document.get(ROOT, "text").expect("a map").is_some()).await;
    for _ in 0..100 {
        for (handle, letter) in [(&hers, "a"), (&his, "b")] {
            handle.with_document(|document| {
                let mut change = document.transaction();
                change.splice_text(&text, 0, 0, letter).expect("it is a text");
                change.commit();
            });
            tokio::task::yield_now().await;
        }
    }
    for handle in [&hers, &his] {
        shows(handle, |document| document.length(&text) == 200).await;
    }
    let read = |handle: &DocHandle| handle.with_document(|document| document.text(&text));
    assert_eq!(read(&hers).expect("a text"), read(&his).expect("a text"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_nobody_has_is_not_found_and_the_search_ends() {
    let (_data, server) = start();
    let (alice, elsewhere) = (join(&server).await, Repo::build_tokio().load().await);
    let nowhere = elsewhere.create(Automerge::new()).await.expect("the repo runs");
    let result = soon(alice.find(nowhere.document_id().clone())).await.expect("the repo runs");
    assert!(result.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_samod_broadcasts_another_hears_in_order() {
    let (_data, server) = start();
    let (alice, bob) = (join(&server).await, join(&server).await);
    let hers = alice.create(Automerge::new()).await.expect("the repo runs");
    put(&hers, "opened", 1);
    let his = found(&bob, &hers).await;
    shows(&his, |document| get(document, "opened") == Some(1)).await;
    let heard = his.ephemera();
    for number in 0..100 {
        hers.broadcast(vec![0x18, 100 + number]);
    }
    let heard: Vec<_> = soon(heard.take(100).collect()).await;
    assert_eq!(heard, (0..100).map(|number| vec![0x18, 100 + number]).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_there_after_a_kill_with_nobody_left_to_supply_it() {
    let (data, server) = start();
    let (alice, bob) = (join(&server).await, join(&server).await);
    let hers = alice.create(Automerge::new()).await.expect("the repo runs");
    put(&hers, "kept", 1);
    let his = found(&bob, &hers).await;
    shows(&his, |document| get(document, "kept") == Some(1)).await;
    alice.stop().await;
    bob.stop().await;
    server.kill();

    let server = Server::start(data.path(), &[]);
    let carol = join(&server).await;
    let kept = found(&carol, &hers).await;
    shows(&kept, |document| get(document, "kept") == Some(1)).await;
}
