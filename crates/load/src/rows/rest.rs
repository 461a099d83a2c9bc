//! REST: what a backend asks for again and again, what it asks for first, and what both do to those
//! who type.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bench::{Bench, Upload, document_id};
use crate::histogram::Histogram;
use crate::http::{Load, Request, ask, run};
use crate::report::{Measured, short};
use crate::rows::fan_out::End;
use crate::rows::grouped;
use crate::server::{Kind, own_cpu};
use crate::world::World;

/// Of the rows that ask as fast as they are answered.
pub(super) const CONNECTIONS: usize = 32;
/// A keystroke that is kept by itself takes a hundred bytes and more, and one or two in a snapshot.
const COMPACTED_BYTES: u64 = 20;
const START_LIMIT: Duration = Duration::from_secs(60);
const UPLOAD_LIMIT: Duration = Duration::from_secs(120);
/// How often the server is started anew to be asked for what it has not opened yet.
const FIRST_TIMES: usize = 7;
/// Beside those who type: reads a second, half of them 304 and half JSON of 10 KB, and patches a
/// second, each followed by a read of what it made, which has to open the document.
const READS: f64 = 2_000.0;
const PATCHES: f64 = 20.0;
const SLICE: Duration = Duration::from_millis(250);

/// A document in the server.
struct Document {
    path: String,
    etag: String,
}

pub(super) fn unchanged(bench: &Bench, kind: Kind) -> Result<Measured, String> {
    reads(bench, kind, |document| {
        Request::get(&document.path, &[&format!("If-None-Match: {}", document.etag)], 304)
    })
}

pub(super) fn cached(bench: &Bench, kind: Kind) -> Result<Measured, String> {
    reads(bench, kind, |document| Request::get(&document.path, &[], 200))
}

fn reads(
    bench: &Bench,
    kind: Kind,
    request: impl Fn(&Document) -> Request,
) -> Result<Measured, String> {
    let server = bench.fresh(kind)?;
    let document = create(server.address)?;
    let requests = [request(&document)];
    let load = |seconds| Load {
        connections: CONNECTIONS,
        per_second: None,
        lasts: Duration::from_secs(seconds),
    };
    run(server.address, &requests, load(1))?;
    let (before, own, began) = (server.usage(), own_cpu(), Instant::now());
    let answers = run(server.address, &requests, load(bench.size(10, 2) as u64))?;
    let (usage, own) = (server.usage(), own_cpu() - own);
    let busy = own.as_secs_f64() / began.elapsed().as_secs_f64();

    let result = format!("{} reads/s", grouped(answers.per_second.round() as u64));
    let mut measured = Measured { result, ..Measured::default() };
    measured.latency(&answers.latency);
    let each = (usage.cpu - before.cpu).as_secs_f64() * 1e6 / answers.latency.total() as f64;
    measured.cpu = format!("{} µs a read", short(each));
    measured.memory(&usage);
    if answers.body_bytes > 0 {
        measured.remark(format!("{} bytes of JSON", grouped(answers.body_bytes as u64)));
    }
    measured.remark(format!("the load generator used {:.0} % of a core", busy * 100.0));
    measured.number("reads_per_s", answers.per_second);
    measured.number("cpu_us_per_read", each);
    Ok(measured)
}

pub(super) fn first(bench: &Bench, kind: Kind, edits: usize) -> Result<Measured, String> {
    let server = bench.fresh(kind)?;
    let mut world = World::new(server.address)?;
    let writer = bench.upload(&mut world, kind, 0, edits, Upload::Typed)?;
    if !world.run_until_all_done(Instant::now() + UPLOAD_LIMIT)? {
        return Err(format!("it has not taken the document after {} s", UPLOAD_LIMIT.as_secs()));
    }
    world.close(writer);
    drop(world);
    until_compacted(server.address)?;
    bench.stop(server)?;

    let request = Request::get(&format!("/v1/documents/{}", document_id(0)), &[], 200);
    let (mut latency, mut again) = (Histogram::new(), Histogram::new());
    let mut measured = Measured::default();
    let mut cpu = Duration::ZERO;
    for _ in 0..FIRST_TIMES {
        let server = bench.restart(kind, START_LIMIT)?;
        // What a start does is not the document's.
        thread::sleep(Duration::from_secs(2));
        let (before, began) = (server.usage(), Instant::now());
        let answer = ask(server.address, &request)?;
        latency.record(began.elapsed());
        let usage = server.usage();
        cpu += usage.cpu - before.cpu;
        let began = Instant::now();
        ask(server.address, &request)?;
        again.record(began.elapsed());
        measured.rss_bytes = usage.rss;
        measured.number("json_bytes", answer.body.len() as f64);
        bench.stop(server)?;
    }
    let millis = latency.quantile(0.5).as_secs_f64() * 1e3;
    measured.result = format!("{} ms", short(millis));
    measured.latency(&latency);
    let each = cpu.as_secs_f64() * 1e3 / FIRST_TIMES as f64;
    measured.cpu = format!("{} ms a read", short(each));
    let again = again.quantile(0.5).as_secs_f64() * 1e3;
    measured
        .remark(format!("{FIRST_TIMES} starts; the same asked again takes {} ms", short(again)));
    measured.number("first_json_ms", millis);
    measured.number("again_ms", again);
    Ok(measured)
}

/// Waits until what was typed is in the snapshot, as it is once nobody has typed for some seconds.
fn until_compacted(server: SocketAddr) -> Result<(), String> {
    let list = Request::get("/v1/documents", &[], 200);
    let bytes_a_change = || -> Result<u64, String> {
        let said: Value =
            serde_json::from_slice(&ask(server, &list)?.body).map_err(|error| error.to_string())?;
        let figure = |name: &str| {
            said["documents"][0][name].as_u64().ok_or_else(|| format!("the list has no {name}"))
        };
        Ok(figure("bytes")? / figure("changes")?.max(1))
    };
    let began = Instant::now();
    while bytes_a_change()? > COMPACTED_BYTES {
        if began.elapsed() > UPLOAD_LIMIT {
            return Err(format!("it is not compacted after {} s", UPLOAD_LIMIT.as_secs()));
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Reads and patches for as long as somebody types.
pub(super) fn beside(server: SocketAddr) -> Result<End, String> {
    let (read, patched) = (create(server)?, create(server)?);
    let tag = format!("If-None-Match: {}", read.etag);
    let reads = vec![Request::get(&read.path, &[&tag], 304), Request::get(&read.path, &[], 200)];
    let kind = "Content-Type: application/json-patch+json";
    let body = json!([{"op": "add", "path": "/cards/0/done", "value": true},
        {"op": "replace", "path": "/cards/1/votes", "value": 7}]);
    let body = body.to_string().into_bytes();
    let writes = vec![
        Request::new("PATCH", &patched.path, &[kind], &body, 200),
        Request::get(&patched.path, &[], 200),
    ];
    let stop = Arc::new(AtomicBool::new(false));
    let begin = |requests: Vec<Request>, rate: f64, connections: usize| {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            let load = Load { connections, per_second: Some(rate), lasts: SLICE };
            let (began, mut answered) = (Instant::now(), 0);
            while !stop.load(Ordering::Relaxed) {
                answered += run(server, &requests, load)?.latency.total();
            }
            Ok(answered as f64 / began.elapsed().as_secs_f64())
        })
    };
    let reading = begin(reads, READS, 16);
    let writing = begin(writes, 2.0 * PATCHES, 4);
    Ok(Box::new(move || {
        stop.store(true, Ordering::Relaxed);
        let ended = |thread: thread::JoinHandle<Result<f64, String>>| {
            thread.join().unwrap_or_else(|_| Err("a REST client panicked".to_owned()))
        };
        let (reads, writes) = (ended(reading)?, ended(writing)?);
        Ok(format!(
            "REST meanwhile: {} reads/s, half of them 304 and half JSON of 10 KB; {} patches/s, and \
             as many reads of what they made",
            grouped(reads.round() as u64),
            grouped((writes / 2.0).round() as u64)
        ))
    }))
}

/// A board of cards that is 10 KB as JSON.
fn create(server: SocketAddr) -> Result<Document, String> {
    let cards: Vec<_> = (0..80)
        .map(|number| {
            json!({"id": format!("card-{number:03}"), "votes": number, "done": false,
                "title": format!("Ask the people of region {number} what they miss most"),
                "tags": ["sync", "region", "board"]})
        })
        .collect();
    let body = json!({"title": "A board", "cards": cards}).to_string().into_bytes();
    let request =
        Request::new("POST", "/v1/documents", &["Content-Type: application/json"], &body, 201);
    let answer = ask(server, &request)?;
    Ok(Document { path: answer.location, etag: answer.etag })
}
