//! Real sockets through the network: what it does to them, and that it leaves the bytes alone.

use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tributary_wan::{BUFFER_BYTES, Conditions, Flow, LinkError, LinkHandle, Wan, Way, control};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);
/// How long nothing has to happen to count as nothing.
const QUIET: Duration = Duration::from_millis(150);

const ANY: &str = "127.0.0.1:0";

fn any() -> SocketAddr {
    ANY.parse().expect("an address")
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(LONG, what).await.expect("it happens at all")
}

async fn until(what: impl Fn() -> bool) {
    soon(async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Says back what it hears, until it hears the end.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind(any()).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    address
}

fn way(latency_ms: u32) -> Way {
    Way { latency_ms, ..Way::default() }
}

fn wan_to(target: SocketAddr) -> (Wan, LinkHandle) {
    let wan = Wan::new(7);
    let link = wan.link("a-b", any(), target).expect("a link");
    (wan, link)
}

async fn through(link: &LinkHandle) -> TcpStream {
    let stream = TcpStream::connect(link.listen()).await.expect("it is accepted");
    stream.set_nodelay(true).expect("an option");
    stream
}

/// Says something and waits for the echo.
async fn ask(stream: &mut TcpStream, text: &[u8]) -> Duration {
    let start = Instant::now();
    stream.write_all(text).await.expect("it is open");
    let mut answer = vec![0; text.len()];
    soon(stream.read_exact(&mut answer)).await.expect("it is open");
    assert_eq!(answer, text);
    start.elapsed()
}

#[tokio::test]
async fn each_way_takes_its_latency_and_what_is_changed_holds_for_open_connections() {
    let (_wan, link) = wan_to(echo().await);
    let mut stream = through(&link).await;
    ask(&mut stream, b"dials the target").await;
    link.set(Conditions { there: way(30), back: way(50) }).expect("conditions");
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..5 {
        took.push(ask(&mut stream, b"hello").await);
    }
    took.sort_unstable();
    assert!(took[0] >= Duration::from_millis(80), "{took:?}");
    assert!(took[2] < Duration::from_millis(200), "{took:?}");
    link.set(Conditions::default()).expect("conditions");
    ask(&mut stream, b"hello").await;
    let stats = link.stats();
    assert_eq!((stats.there, stats.back), (stats.back, stats.there));
    assert_eq!(stats.there.delivered_bytes, 16 + 6 * 5);
    assert_eq!((stats.connections, stats.connections_open), (1, 1));
    let long = Conditions { there: way(100_000), back: way(0) };
    assert!(link.set(long).is_err());
    assert_eq!(link.conditions(), Conditions::default());
}

#[tokio::test]
async fn jitter_and_bandwidth_change_neither_bytes_nor_their_order() {
    let (_wan, link) = wan_to(echo().await);
    let bytes_per_second = 4_000_000.try_into().ok();
    let shaky = Way { latency_ms: 2, jitter_ms: 15, bytes_per_second, flow: Flow::Open };
    link.set(Conditions::both(shaky)).expect("conditions");
    let (mut read, mut write) = through(&link).await.into_split();
    let sent: Vec<u8> = (0..500_000_u32).flat_map(|number| number.to_le_bytes()).collect();
    let start = Instant::now();
    let copy = sent.clone();
    let writing = tokio::spawn(async move {
        write.write_all(&copy).await.expect("it is open");
        write.shutdown().await.expect("it is open");
    });
    let mut received = Vec::new();
    soon(read.read_to_end(&mut received)).await.expect("an orderly end");
    writing.await.expect("all was written");
    assert!(received == sent, "{} of {} bytes, or others", received.len(), sent.len());
    // 2 MB at 4 MB/s.
    assert!(start.elapsed() >= Duration::from_millis(480), "{:?}", start.elapsed());
    until(|| link.stats().connections_open == 0).await;
}

#[tokio::test]
async fn connections_share_the_bandwidth_and_a_word_does_not_wait_behind_a_book() {
    let (_wan, link) = wan_to(echo().await);
    let mut word = through(&link).await;
    ask(&mut word, b"dials the target").await;
    let narrow = Way { bytes_per_second: 500_000.try_into().ok(), ..Way::default() };
    link.set(Conditions { there: narrow, back: Way::default() }).expect("conditions");
    let (mut read, mut write) = through(&link).await.into_split();
    let book = tokio::spawn(async move { while write.write_all(&[7; 10_000]).await.is_ok() {} });
    let reader = tokio::spawn(async move {
        let mut buffer = [0; 10_000];
        while read.read(&mut buffer).await.is_ok_and(|bytes| bytes > 0) {}
    });
    until(|| link.stats().there.delivered_bytes > 100_000).await;
    let mut took = Vec::new();
    for _ in 0..5 {
        took.push(ask(&mut word, b"word").await);
    }
    took.sort_unstable();
    assert!(took[2] < Duration::from_millis(400), "{took:?}");
    book.abort();
    reader.abort();
}

#[tokio::test]
async fn a_cut_loses_nothing_and_tells_nothing_until_it_is_healed() {
    let (_wan, link) = wan_to(echo().await);
    let mut stream = through(&link).await;
    ask(&mut stream, b"before").await;
    link.cut();
    stream.write_all(b"during").await.expect("the kernel takes it");
    let mut answer = [0; 6];
    assert!(timeout(QUIET, stream.read_exact(&mut answer)).await.is_err());
    assert_eq!(link.stats().there.taken_bytes, 6);
    link.heal();
    soon(stream.read_exact(&mut answer)).await.expect("it is open");
    assert_eq!(&answer, b"during");
}

#[tokio::test]
async fn one_way_can_be_cut_alone() {
    let (_wan, link) = wan_to(echo().await);
    let mut stream = through(&link).await;
    ask(&mut stream, b"before").await;
    let cut = Way { flow: Flow::Cut, ..Way::default() };
    link.set(Conditions { there: Way::default(), back: cut }).expect("conditions");
    stream.write_all(b"during").await.expect("it is open");
    until(|| link.stats().there.delivered_bytes == 12).await;
    let mut answer = [0; 6];
    assert!(timeout(QUIET, stream.read_exact(&mut answer)).await.is_err());
    assert_eq!(link.stats().back.delivered_bytes, 6);
    link.heal();
    soon(stream.read_exact(&mut answer)).await.expect("it is open");
}

#[tokio::test]
async fn a_dead_process_behind_a_cut_is_silent_until_it_is_healed() {
    let listener = TcpListener::bind(any()).await.expect("a port");
    let (_wan, link) = wan_to(listener.local_addr().expect("an address"));
    let mut stream = through(&link).await;
    let (target, _) = soon(listener.accept()).await.expect("it is dialled");
    link.cut();
    drop(target);
    let mut byte = [0];
    assert!(timeout(QUIET, stream.read(&mut byte)).await.is_err());
    link.heal();
    assert_eq!(soon(stream.read(&mut byte)).await.expect("an end"), 0);
}

#[tokio::test]
async fn a_stalled_link_takes_in_a_bounded_amount_and_delivers_it_when_healed() {
    let (_wan, link) = wan_to(echo().await);
    let mut stream = through(&link).await;
    ask(&mut stream, b"dials the target").await;
    link.stall();
    let before = link.stats();
    let (mut read, mut write) = stream.into_split();
    let total = 2 * BUFFER_BYTES + (8 << 20);
    let writing = tokio::spawn(async move {
        write.write_all(&vec![9; total]).await.expect("it is open");
        write.shutdown().await.expect("it is open");
    });
    until(|| link.stats().there.taken_bytes > (BUFFER_BYTES / 2) as u64).await;
    let mut byte = [0];
    assert!(timeout(QUIET, read.read(&mut byte)).await.is_err());
    let stats = link.stats();
    assert!(stats.there.taken_bytes - before.there.taken_bytes <= BUFFER_BYTES as u64);
    assert_eq!(stats.there.delivered_bytes, before.there.delivered_bytes);
    assert!(!writing.is_finished(), "the rest waits with the sender");
    link.heal();
    let mut received = Vec::new();
    soon(read.read_to_end(&mut received)).await.expect("an orderly end");
    assert_eq!(received.len(), total);
}

#[tokio::test]
async fn a_reset_ends_both_sides_in_the_middle_and_new_connections_work() {
    let listener = TcpListener::bind(any()).await.expect("a port");
    let (_wan, link) = wan_to(listener.local_addr().expect("an address"));
    for cut in [false, true] {
        let mut client = through(&link).await;
        let (mut target, _) = soon(listener.accept()).await.expect("it is dialled");
        client.write_all(b"half of a fra").await.expect("it is open");
        let mut some = [0; 5];
        soon(target.read_exact(&mut some)).await.expect("it arrives");
        if cut {
            link.cut();
        }
        link.reset();
        for stream in [&mut client, &mut target] {
            let mut rest = Vec::new();
            let error = soon(stream.read_to_end(&mut rest)).await.expect_err("no orderly end");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
        until(|| link.stats().connections_open == 0).await;
        link.heal();
    }
    assert_eq!(link.stats().resets, 2);
}

#[tokio::test]
async fn a_reset_of_one_side_reaches_the_other() {
    let listener = TcpListener::bind(any()).await.expect("a port");
    let (_wan, link) = wan_to(listener.local_addr().expect("an address"));
    let mut client = through(&link).await;
    let (target, _) = soon(listener.accept()).await.expect("it is dialled");
    target.set_zero_linger().expect("an option");
    drop(target);
    let mut byte = [0];
    let error = soon(client.read(&mut byte)).await.expect_err("no orderly end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn who_connects_while_it_is_cut_gets_through_when_it_is_healed() {
    let (_wan, link) = wan_to(echo().await);
    link.cut();
    let mut stream = through(&link).await;
    stream.write_all(b"patience").await.expect("the kernel takes it");
    let mut answer = [0; 8];
    assert!(timeout(QUIET, stream.read_exact(&mut answer)).await.is_err());
    link.heal();
    soon(stream.read_exact(&mut answer)).await.expect("it is open");
    assert_eq!(&answer, b"patience");
}

#[tokio::test]
async fn where_nobody_listens_the_connection_is_reset_and_later_ones_find_who_came() {
    let target = {
        let listener = TcpListener::bind(any()).await.expect("a port");
        listener.local_addr().expect("an address")
    };
    let (_wan, link) = wan_to(target);
    let mut byte = [0];
    let error = soon(through(&link).await.read(&mut byte)).await.expect_err("nobody is there");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let listener = TcpListener::bind(target).await.expect("the port is free");
    let _client = through(&link).await;
    soon(listener.accept()).await.expect("it is dialled");
}

#[tokio::test]
async fn a_name_and_a_port_are_taken_once_and_free_when_the_network_is_gone() {
    let (wan, link) = wan_to(any());
    assert!(matches!(wan.link("a-b", any(), any()), Err(LinkError::Taken { .. })));
    assert!(matches!(wan.link("b-a", link.listen(), any()), Err(LinkError::Listen { .. })));
    assert_eq!(wan.links().len(), 1);
    drop(wan);
    soon(async {
        while TcpListener::bind(link.listen()).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// One request; the status and the body.
async fn http(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: wan\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len(),
    );
    stream.write_all(request.as_bytes()).await.expect("it is open");
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.expect("text");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), answer)
}

#[tokio::test]
async fn the_network_is_read_and_changed_over_http() {
    let (wan, link) = wan_to(echo().await);
    let listener = TcpListener::bind(any()).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let origin = "https://demo.example".try_into().ok();
    let router = control::router(Arc::new(wan), origin);
    tokio::spawn(async move { axum::serve(listener, router).await });

    let (status, answer) = http(address, "GET", "/links", "").await;
    assert_eq!(status, 200);
    assert!(answer.contains("access-control-allow-origin: https://demo.example"), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let links: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(links[0]["name"], "a-b");
    assert_eq!(links[0]["listen"], link.listen().to_string());
    assert_eq!(links[0]["conditions"]["there"]["flow"], "open");
    assert_eq!(links[0]["stats"]["connections"], 0);

    let body = r#"{"there": {"latency_ms": 40}, "back": {"flow": "cut"}}"#;
    assert_eq!(http(address, "PUT", "/links/a-b", body).await.0, 200);
    assert_eq!(link.conditions().there, way(40));
    assert_eq!(link.conditions().back.flow, Flow::Cut);
    assert_eq!(http(address, "PUT", "/links/b-a", body).await.0, 404);
    let body = r#"{"there": {"latency_ms": 400000}}"#;
    assert_eq!(http(address, "PUT", "/links/a-b", body).await.0, 422);
    assert_eq!(http(address, "PUT", "/links/a-b", r#"{"their": {}}"#).await.0, 422);
    assert_eq!(http(address, "PUT", "/links/a-b", "{").await.0, 400);
    assert_eq!(link.conditions().there, way(40));

    assert_eq!(http(address, "OPTIONS", "/links/a-b", "").await.0, 204);
    assert_eq!(http(address, "POST", "/links/a-b/reset", "").await.0, 204);
    assert_eq!(link.stats().resets, 1);
}
