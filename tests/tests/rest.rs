//! REST on the real process, with a small HTTP client and the clients of the sync protocol.

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ObjType, ROOT, ReadDoc};
use model::DocumentId;
use serde_json::{Value as Json, json};
use support::Client;
use tempfile::TempDir;
use tributary_tests::{PATIENCE, Server};
use ureq::http::Response;
use ureq::{Agent, Body};

const JSON: &str = "application/json";
const AUTOMERGE: &str = "application/vnd.automerge";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// A server and a way to ask it.
struct Site {
    server: Server,
    agent: Agent,
    data: TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: ureq::http::HeaderMap,
    body: Vec<u8>,
}

impl Site {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(variables: &[(&str, &str)]) -> Self {
        let data = tempfile::tempdir().expect("there is room for a folder");
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| (*name, Path::new(*value))).collect();
        let server = Server::start_with(data.path(), &[], &variables);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build();
        Self { server, agent: config.into(), data }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address())
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = ureq::http::Request::builder().method(method).uri(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = match body {
            [] => self.agent.run(request.body(()).expect("a request")),
            body => self.agent.run(request.body(body).expect("a request")),
        };
        Answer::read(answer.expect("the server answers"))
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], &[])
    }

    fn create(&self, json: &Json) -> String {
        let body = json.to_string();
        let made = self.ask("POST", "/v1/documents", &[("content-type", JSON)], body.as_bytes());
        assert_eq!(made.status, 201, "{made:?}");
        made.json()["id"].as_str().expect("an id").to_owned()
    }

    fn patch(&self, id: &str, kind: &str, headers: &[(&str, &str)], patch: &Json) -> Answer {
        let mut all = vec![("content-type", kind)];
        all.extend(headers);
        let path = format!("/v1/documents/{id}");
        self.ask("PATCH", &path, &all, patch.to_string().as_bytes())
    }

    fn value(&self, id: &str) -> Json {
        self.get(&format!("/v1/documents/{id}")).json()
    }

    fn heads(&self, id: &str) -> String {
        let heads = self.get(&format!("/v1/documents/{id}/heads"));
        heads.etag().trim_matches('"').to_owned()
    }

    /// The lines of a stream of events, as they come.
    fn stream(&self, path: &str) -> Events {
        let answer = self.agent.get(self.url(path)).call().expect("the server answers");
        assert_eq!(answer.status(), 200);
        let (said, lines) = mpsc::channel();
        let reader = BufReader::new(answer.into_body().into_reader());
        thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                if said.send(line).is_err() {
                    break;
                }
            }
        });
        Events { lines }
    }

    /// How many questions workers have answered.
    fn questions(&self) -> u64 {
        let text = String::from_utf8(self.get("/metrics").body).expect("text");
        let line =
            text.lines().find(|line| line.starts_with("tributary_archive_job_seconds_count"));
        let number = line.and_then(|line| line.rsplit(' ').next()).expect("the figure is there");
        number.parse().expect("a number")
    }
}

impl Answer {
    fn read(answer: Response<Body>) -> Self {
        let (parts, mut body) = answer.into_parts();
        let body = body.with_config().limit(1 << 30).read_to_vec().expect("a whole answer");
        Self { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    fn etag(&self) -> String {
        self.header("etag").to_owned()
    }

    /// The kind of the problem, which is what its type ends with.
    fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let json = self.json();
        assert_eq!(json["status"], json!(self.status), "{json}");
        let kind = json["type"].as_str().expect("a type");
        kind.rsplit(':').next().expect("a word").to_owned()
    }
}

/// A stream of events.
struct Events {
    lines: mpsc::Receiver<String>,
}

/// One of them.
#[derive(Debug)]
struct Happened {
    name: String,
    id: String,
    data: Json,
}

impl Events {
    fn next(&self) -> Happened {
        let mut happened = Happened { name: String::new(), id: String::new(), data: Json::Null };
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("an event");
            match line.split_once(": ") {
                Some(("event", name)) => happened.name = name.to_owned(),
                Some(("id", id)) => happened.id = id.to_owned(),
                Some(("data", data)) => happened.data = serde_json::from_str(data).expect("JSON"),
                _ if line.is_empty() && !happened.name.is_empty() => return happened,
                _ => {}
            }
        }
    }
}

fn until(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "it does not come to hold");
        thread::yield_now();
    }
}

fn document(id: &str) -> DocumentId {
    id.parse().expect("an id")
}

#[test]
fn a_document_made_by_rest_is_there_for_clients_and_what_they_write_is_there_for_rest() {
    let site = Site::start();
    let id = site.create(&json!({ "title": "hello", "n": 1 }));
    let mut client = Client::join(&site.server, "ann", &document(&id));
    client.pull();
    assert_eq!(client.get("n"), Some(1));
    client.put("m", 2);
    client.acknowledged();
    assert_eq!(site.value(&id), json!({ "title": "hello", "n": 1, "m": 2 }));
    let patched = site.patch(&id, MERGE_PATCH, &[], &json!({ "n": 5 }));
    assert_eq!(patched.status, 200, "{patched:?}");
    let mut other = Client::join(&site.server, "bob", &document(&id));
    other.pull();
    assert_eq!(other.get("n"), Some(5));
}

#[test]
fn an_unchanged_document_costs_nothing_and_a_cached_one_no_worker() {
    let site = Site::start();
    let id = site.create(&json!({ "n": 1 }));
    let path = format!("/v1/documents/{id}");
    let first = site.get(&path);
    assert_eq!((first.status, first.header("content-type")), (200, JSON));
    let questions = site.questions();
    for _ in 0..20 {
        let same = site.ask("GET", &path, &[("if-none-match", &first.etag())], &[]);
        assert_eq!((same.status, same.body.len()), (304, 0));
        assert_eq!(site.get(&path).body, first.body);
    }
    assert_eq!(site.questions(), questions, "no worker was asked");
    site.patch(&id, MERGE_PATCH, &[], &json!({ "n": 2 }));
    let changed = site.ask("GET", &path, &[("if-none-match", &first.etag())], &[]);
    assert_eq!((changed.status, changed.json()), (200, json!({ "n": 2 })));
    assert_ne!(changed.etag(), first.etag());
    let head = site.ask("HEAD", &path, &[], &[]);
    assert_eq!((head.status, head.etag()), (200, changed.etag()));
}

#[test]
fn a_document_can_be_had_as_json_as_a_file_and_as_text_now_and_then() {
    let site = Site::start();
    let id = site.create(&json!({ "text": "one", "list": [{ "x": 1 }] }));
    let then = site.heads(&id);
    site.patch(&id, MERGE_PATCH, &[], &json!({ "text": "one two" }));
    let path = format!("/v1/documents/{id}");

    let file = site.ask("GET", &path, &[("accept", AUTOMERGE)], &[]);
    assert_eq!((file.status, file.header("content-type")), (200, AUTOMERGE));
    let mut doc = AutoCommit::load(&file.body).expect("a file");
    let heads: Vec<String> = doc.get_heads().iter().map(ToString::to_string).collect();
    assert_eq!(format!("\"{}\"", heads.join(".")), file.etag());

    let text = |query: &str| {
        let path = format!("{path}?path=/text{query}");
        String::from_utf8(site.ask("GET", &path, &[("accept", "text/plain")], &[]).body)
    };
    assert_eq!(text("").as_deref(), Ok("one two"));
    assert_eq!(text(&format!("&heads={then}")).as_deref(), Ok("one"));
    let past = site.get(&format!("{path}?heads={then}"));
    assert_eq!(past.json()["text"], json!("one"));
    assert_eq!(past.etag(), format!("\"{then}\""));
    assert_eq!(site.get(&format!("{path}?path=/list/0/x")).json(), json!(1));
    let past = site.ask("GET", &format!("{path}?heads={then}"), &[("accept", AUTOMERGE)], &[]);
    let mut doc = AutoCommit::load(&past.body).expect("a file");
    assert_eq!(doc.get_heads()[0].to_string(), then);

    // As clients write it: with a path, and with heads in base58.
    let url = site.get(&format!("{path}/heads")).json()["url"].as_str().unwrap().to_owned();
    let url = url.replace('#', "%23").replace('|', "%7C");
    assert_eq!(site.get(&format!("/v1/documents/{url}")).json()["text"], json!("one two"));
    let place = site.get(&format!("/v1/documents/automerge:{id}%2Flist%2F@0%2Fx"));
    assert_eq!(place.json(), json!(1));
}

#[test]
fn a_patch_on_old_heads_merges_and_a_text_is_spliced() {
    let site = Site::start();
    let id = site.create(&json!({ "text": "The fox", "n": 1 }));
    let base = site.get(&format!("/v1/documents/{id}")).etag();
    // Somebody else has moved on meanwhile.
    let mut client = Client::join(&site.server, "ann", &document(&id));
    client.pull();
    let (_, text) = client.doc.get(ROOT, "text").unwrap().unwrap();
    client.doc.splice_text(&text, 7, 0, " jumps").unwrap();
    client.put("m", 1);
    client.acknowledged();

    let patch = json!([{ "op": "replace", "path": "/text", "value": "The quick fox" }]);
    let done = site.patch(&id, JSON_PATCH, &[("if-match", &base)], &patch);
    assert_eq!(done.status, 200, "{done:?}");
    assert_eq!(site.value(&id), json!({ "text": "The quick fox jumps", "n": 1, "m": 1 }));
    // Once more on the same heads: our actor has written since, and must not fork itself.
    let again = site.patch(&id, MERGE_PATCH, &[("if-match", &base)], &json!({ "n": 2 }));
    assert_eq!(again.status, 200, "{again:?}");
    assert_eq!(site.value(&id)["n"], json!(2));

    let strange = format!("\"{}\"", "ab".repeat(32));
    let refused = site.patch(&id, MERGE_PATCH, &[("if-match", &strange)], &json!({ "n": 3 }));
    assert_eq!((refused.status, refused.problem().as_str()), (412, "precondition"));
    let nothing = site.patch(&id, MERGE_PATCH, &[], &json!({ "n": 2 }));
    assert_eq!((nothing.status, &nothing.json()["change"]), (200, &Json::Null));
    let failed =
        site.patch(&id, JSON_PATCH, &[], &json!([{ "op": "test", "path": "/n", "value": 9 }]));
    assert_eq!((failed.status, failed.problem().as_str()), (422, "impossible"));
}

#[test]
fn many_patches_at_once_all_count() {
    let site = Site::start();
    let id = site.create(&json!({}));
    thread::scope(|scope| {
        for n in 0..8 {
            let (site, id) = (&site, &id);
            scope.spawn(move || {
                for m in 0..5 {
                    let key = format!("key {n} {m}");
                    let done = site.patch(id, MERGE_PATCH, &[], &json!({ key: n }));
                    assert_eq!(done.status, 200, "{done:?}");
                }
            });
        }
    });
    assert_eq!(site.value(&id).as_object().unwrap().len(), 40);
}

#[test]
fn a_file_creates_a_document_or_merges_into_one_and_a_broken_one_does_neither() {
    let site = Site::start();
    let mut doc = AutoCommit::new();
    doc.put(ROOT, "n", 1).unwrap();
    let file = doc.save();
    let kind = [("content-type", AUTOMERGE)];
    let made = site.ask("POST", "/v1/documents", &kind, &file);
    assert_eq!(made.status, 201, "{made:?}");
    let location = made.header("location").to_owned();
    assert_eq!(site.get(&location).json(), json!({ "n": 1 }));

    let mut other = doc.fork();
    other.put(ROOT, "m", 2).unwrap();
    let merged = site.ask("PUT", &location, &kind, &other.save());
    assert_eq!(merged.status, 200, "{merged:?}");
    assert_eq!(site.get(&location).json(), json!({ "n": 1, "m": 2 }));
    let again = site.ask("PUT", &location, &kind, &other.save());
    assert_eq!((again.status, again.etag()), (200, merged.etag()));

    let id = "p3u5PhN9wrNpsGCwfkeef2LzF9";
    let path = format!("/v1/documents/{id}");
    assert_eq!(site.ask("PUT", &path, &kind, &file).status, 201);
    let only_new = [("content-type", AUTOMERGE), ("if-none-match", "*")];
    assert_eq!(site.ask("PUT", &path, &only_new, &file).status, 412);
    let twice = site.ask("POST", &format!("/v1/documents?id={id}"), &kind, &file);
    assert_eq!((twice.status, twice.problem().as_str()), (409, "exists"));

    let mut broken = file.clone();
    let last = broken.len() - 1;
    broken[last] ^= 1;
    for bad in [&broken[..], &file[..20], b"not a file", b"\x85"] {
        let refused = site.ask("PUT", &path, &kind, bad);
        assert_eq!((refused.status, refused.problem().as_str()), (400, "bad-body"));
    }
    // Changes that build on what is not here are not taken in without a word.
    other.put(ROOT, "k", 3).unwrap();
    let loose = other.get_last_local_change().unwrap();
    let refused = site.ask("PUT", &path, &kind, loose.raw_bytes());
    assert_eq!((refused.status, refused.problem().as_str()), (422, "impossible"));
    assert_eq!(site.value(id), json!({ "n": 1 }));
}

#[test]
fn history_changes_and_differences_are_told() {
    let site = Site::start();
    let id = site.create(&json!({ "text": "a" }));
    let first = site.heads(&id);
    let path = format!("/v1/documents/{id}");
    for n in 0..5 {
        let patch = json!({ "n": n, "text": "a".repeat(n + 2) });
        let url = format!("{path}?message=step%20{n}");
        let kind = [("content-type", MERGE_PATCH)];
        assert_eq!(site.ask("PATCH", &url, &kind, patch.to_string().as_bytes()).status, 200);
    }
    let page = site.get(&format!("{path}/history?limit=4")).json();
    let changes = page["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 4);
    assert_eq!(changes[0]["message"], json!("step 4"));
    assert_eq!((&changes[0]["seq"], &changes[3]["seq"]), (&json!(6), &json!(3)));
    // Somebody writes between two pages.
    site.patch(&id, MERGE_PATCH, &[], &json!({ "n": 100 }));
    let rest = site.get(&format!("{path}/history?limit=4&cursor={}", page["next"])).json();
    let rest_changes = rest["changes"].as_array().unwrap();
    assert_eq!((rest_changes.len(), &rest["next"]), (2, &Json::Null));
    assert_eq!(rest_changes[1]["hash"], json!(first));
    assert!(changes[0]["time"].as_i64().unwrap() > 1_700_000_000);

    let raw = site.get(&format!("{path}/changes?since={first}"));
    assert_eq!((raw.status, raw.header("content-type")), (200, AUTOMERGE));
    let whole = site.get(&format!("{path}/changes"));
    let mut doc = AutoCommit::load(&whole.body).unwrap();
    let then = doc.get_changes(&[])[0].clone();
    let mut behind = AutoCommit::new();
    behind.apply_changes([then]).unwrap();
    behind.load_incremental(&raw.body).unwrap();
    assert_eq!(behind.get_heads(), doc.get_heads());
    assert_eq!(raw.etag(), whole.etag());

    let diff = site.get(&format!("{path}/diff?from={first}")).json();
    let patches = diff.as_array().unwrap();
    assert!(
        patches.contains(&json!({ "action": "splice", "path": ["text", 1], "value": "aaaaa" }))
    );
    assert_eq!(site.get(&format!("{path}/diff?from={first}&to={first}")).json(), json!([]));
    let strange = "ab".repeat(32);
    for path in [format!("{path}/diff?from={strange}"), format!("{path}/changes?since={strange}")] {
        let refused = site.get(&path);
        assert_eq!((refused.status, refused.problem().as_str()), (404, "unknown-heads"));
    }
}

#[test]
fn a_merge_is_never_silent() {
    let site = Site::start();
    let id = site.create(&json!({ "title": 0 }));
    let base = site.get(&format!("/v1/documents/{id}")).etag();
    let mut client = Client::join(&site.server, "ann", &document(&id));
    client.pull();
    client.put("title", 1);
    client.acknowledged();
    let done = site.patch(&id, MERGE_PATCH, &[("if-match", &base)], &json!({ "title": 2 }));
    let conflicts = site.get(&format!("/v1/documents/{id}/conflicts")).json();
    assert_eq!(conflicts.as_array().map(Vec::len), Some(1), "{conflicts}");
    assert_eq!(conflicts[0]["path"], json!("/title"));
    let values = conflicts[0]["values"].as_array().unwrap();
    assert_eq!(values.len(), 2);
    let ours = values.iter().find(|value| value["value"] == json!(2)).unwrap();
    assert_eq!(ours["change"], done.json()["change"]);
    let theirs = values.iter().find(|value| value["value"] == json!(1)).unwrap();
    assert_eq!(theirs["actor"], json!(client.doc.get_actor().to_hex_string()));
    let winner = values.iter().find(|value| value["winner"] == json!(true)).unwrap();
    assert_eq!(site.value(&id)["title"], winner["value"]);
    // Whoever decides ends it.
    site.patch(&id, MERGE_PATCH, &[], &json!({ "title": 3 }));
    assert_eq!(site.get(&format!("/v1/documents/{id}/conflicts")).json(), json!([]));
}

#[test]
fn a_fork_has_the_history_and_goes_its_own_way() {
    let site = Site::start();
    let id = site.create(&json!({ "n": 1 }));
    let then = site.heads(&id);
    site.patch(&id, MERGE_PATCH, &[], &json!({ "n": 2 }));
    let fork = |query: &str| {
        let path = format!("/v1/documents/{id}/fork{query}");
        let made = site.ask("POST", &path, &[], &[]);
        assert_eq!(made.status, 201, "{made:?}");
        made.json()["id"].as_str().unwrap().to_owned()
    };
    let (copy, old) = (fork(""), fork(&format!("?heads={then}")));
    assert_eq!(site.heads(&copy), site.heads(&id));
    assert_eq!((site.value(&old), site.heads(&old)), (json!({ "n": 1 }), then));
    site.patch(&copy, MERGE_PATCH, &[], &json!({ "n": 3 }));
    assert_eq!((site.value(&id), site.value(&copy)), (json!({ "n": 2 }), json!({ "n": 3 })));
    // And back: they share their history.
    let file = site.ask("GET", &format!("/v1/documents/{copy}"), &[("accept", AUTOMERGE)], &[]);
    let kind = [("content-type", AUTOMERGE)];
    site.ask("PUT", &format!("/v1/documents/{id}"), &kind, &file.body);
    assert_eq!(site.value(&id), json!({ "n": 3 }));
}

#[test]
fn documents_that_rest_made_can_be_merged_and_what_cannot_is_not_taken_for_done() {
    let site = Site::start();
    let kind = [("content-type", AUTOMERGE)];
    let file = |id: &str| {
        site.ask("GET", &format!("/v1/documents/{id}"), &[("accept", AUTOMERGE)], &[]).body
    };
    // Each of them by this server, and a fork that both sides have written on.
    let one = site.create(&json!({ "one": 1 }));
    let two = site.create(&json!({ "two": 2 }));
    let copy = site.ask("POST", &format!("/v1/documents/{one}/fork"), &[], &[]);
    let copy = copy.json()["id"].as_str().unwrap().to_owned();
    site.patch(&one, MERGE_PATCH, &[], &json!({ "here": true }));
    site.patch(&copy, MERGE_PATCH, &[], &json!({ "there": true }));
    for other in [&two, &copy] {
        let merged = site.ask("PUT", &format!("/v1/documents/{one}"), &kind, &file(other));
        assert_eq!(merged.status, 200, "{merged:?}");
    }
    assert_eq!(site.value(&one), json!({ "one": 1, "two": 2, "here": true, "there": true }));

    // One actor with two histories.
    let with = |key: &str| {
        let mut doc = AutoCommit::new().with_actor(automerge::ActorId::from([7; 16]));
        doc.put(ROOT, key, 1).unwrap();
        doc.save()
    };
    let made = site.ask("POST", "/v1/documents", &kind, &with("first"));
    let refused = site.ask("PUT", made.header("location"), &kind, &with("second"));
    assert_eq!((refused.status, refused.problem().as_str()), (422, "impossible"));
    assert_eq!(site.get(made.header("location")).json(), json!({ "first": 1 }));
}

#[test]
fn a_read_waits_for_heads_that_are_on_their_way() {
    let site = Site::start();
    let id = site.create(&json!({ "n": 1 }));
    let mut client = Client::join(&site.server, "ann", &document(&id));
    client.pull();
    client.doc.put(ROOT, "n", 7).unwrap();
    let heads = client.doc.get_heads()[0].to_string();
    let path = format!("/v1/documents/{id}?at-least={heads}");
    let early = site.get(&format!("{path}&timeout=0.1"));
    assert_eq!((early.status, early.problem().as_str()), (409, "not-here-yet"));
    assert!(early.json()["detail"].as_str().unwrap().contains(&heads));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| site.get(&format!("{path}&timeout=20")));
        // The change after the one that is waited for.
        client.put("m", 1);
        client.acknowledged();
        assert_eq!(waiting.join().unwrap().json(), json!({ "n": 7, "m": 1 }));
    });
    let here = site.get(&format!("{path}&timeout=0"));
    assert_eq!(here.status, 200);
}

#[test]
fn a_document_tells_its_heads_as_they_change() {
    let site = Site::start();
    let id = site.create(&json!({ "n": 1 }));
    let events = site.stream(&format!("/v1/documents/{id}/events"));
    let first = events.next();
    assert_eq!((first.name.as_str(), first.id.clone()), ("heads", site.heads(&id)));
    for n in 0..3 {
        let done = site.patch(&id, MERGE_PATCH, &[], &json!({ "n": n + 10 })).json();
        let next = events.next();
        assert_eq!((next.name.as_str(), &next.data["heads"]), ("heads", &done["heads"]));
    }
}

#[test]
fn the_feed_of_the_region_goes_on_where_it_was_left_and_says_when_it_cannot() {
    let site = Site::start();
    let events = site.stream("/v1/events");
    let start = events.next();
    assert_eq!(start.name, "start");
    let id = site.create(&json!({ "n": 1 }));
    let first = events.next();
    assert_eq!((first.name.as_str(), &first.data["id"]), ("change", &json!(id)));
    drop(events);
    // While nobody listens: one document twice, another once.
    site.patch(&id, MERGE_PATCH, &[], &json!({ "n": 2 }));
    let other = site.create(&json!({ "n": 1 }));
    let heads = site.patch(&id, MERGE_PATCH, &[], &json!({ "n": 3 })).json()["heads"].clone();
    let events = site.stream(&format!("/v1/events?since={}", first.id));
    let (one, two) = (events.next(), events.next());
    assert_eq!((&one.data["id"], &two.data["id"]), (&json!(other), &json!(id)));
    assert_eq!(two.data["heads"], heads);
    // Another process knows nothing of these numbers.
    let another = Site::start();
    let events = another.stream(&format!("/v1/events?since={}", two.id));
    assert_eq!(events.next().name, "reset");
    let refused = site.get("/v1/events?since=nonsense");
    assert_eq!((refused.status, refused.problem().as_str()), (400, "bad-request"));
}

#[test]
fn the_list_has_every_document_once_also_while_some_are_written() {
    let site = Site::start();
    let mut ids: Vec<String> = (0..25).map(|n| site.create(&json!({ "n": n }))).collect();
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = site.get(&format!("/v1/documents?limit=4{cursor}")).json();
        let documents = page["documents"].as_array().unwrap();
        assert!(documents.len() <= 4);
        for document in documents {
            let id = document["id"].as_str().unwrap();
            assert_eq!(document["heads"][0], json!(site.heads(id)));
            assert!(document["bytes"].as_u64().unwrap() > 50);
            assert!(document["changed"].as_u64().unwrap() > 1_700_000_000_000);
            seen.push(id.to_owned());
            site.patch(id, MERGE_PATCH, &[], &json!({ "seen": true }));
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    seen.sort();
    ids.sort();
    assert_eq!(seen, ids);
}

#[test]
fn what_was_written_survives_a_restart_and_is_written_on() {
    let mut site = Site::start();
    let id = site.create(&json!({ "n": 0 }));
    for n in 0..3 {
        let patch = json!({ "n": n, "was": { n.to_string(): n } });
        let done = site.patch(&id, MERGE_PATCH, &[], &patch);
        assert_eq!(done.status, 200, "{done:?}");
        site.server.terminate();
        assert_eq!(site.server.wait().code(), Some(0));
        site.server = Server::start(site.data.path(), &[]);
    }
    assert_eq!(site.value(&id), json!({ "n": 2, "was": { "0": 0, "1": 1, "2": 2 } }));
}

#[test]
fn what_makes_no_sense_is_answered_with_a_problem_that_says_so() {
    let site = Site::start();
    let id = site.create(&json!({ "n": 1 }));
    let unknown = "p3u5PhN9wrNpsGCwfkeef2LzF9";
    for (path, status, kind) in [
        ("/v1/documents/nonsense".to_owned(), 400, "bad-id"),
        ("/v1/documents/automerge:nonsense".to_owned(), 400, "bad-id"),
        ("/v1/documents/%FF".to_owned(), 400, "bad-id"),
        (format!("/v1/documents/{unknown}"), 404, "unknown-document"),
        (format!("/v1/documents/{unknown}/heads"), 404, "unknown-document"),
        (format!("/v1/documents/{unknown}/history"), 404, "unknown-document"),
        (format!("/v1/documents/{unknown}/changes"), 404, "unknown-document"),
        (format!("/v1/documents/{unknown}/events"), 404, "unknown-document"),
        (format!("/v1/documents/{unknown}/conflicts"), 404, "unknown-document"),
        (format!("/v1/documents/{id}?path=n"), 400, "bad-request"),
        (format!("/v1/documents/{id}?path=/m"), 404, "unknown-place"),
        (format!("/v1/documents/{id}?heads=x"), 400, "bad-request"),
        (format!("/v1/documents/{id}?haeds=x"), 400, "bad-request"),
        (format!("/v1/documents/{id}?heads={}", "ab".repeat(32)), 404, "unknown-heads"),
        (format!("/v1/documents/{id}?timeout=1"), 400, "bad-request"),
        (format!("/v1/documents/{id}/diff"), 400, "bad-request"),
        ("/v1/documents?cursor=nonsense".to_owned(), 400, "bad-request"),
        ("/v1/nothing".to_owned(), 404, "unknown-resource"),
    ] {
        let answer = site.get(&path);
        assert_eq!((answer.status, answer.problem().as_str()), (status, kind), "{path}");
    }
    let path = format!("/v1/documents/{id}");
    let picture = site.ask("GET", &path, &[("accept", "image/png")], &[]);
    assert_eq!((picture.status, picture.problem().as_str()), (406, "not-acceptable"));
    let text = site.ask("GET", &format!("{path}?path=/n"), &[("accept", "text/plain")], &[]);
    assert_eq!((text.status, text.problem().as_str()), (422, "impossible"));
    let delete = site.ask("DELETE", &path, &[], &[]);
    assert_eq!((delete.status, delete.problem().as_str()), (405, "method"));
    assert!(delete.header("allow").contains("PATCH"));
    for (kind, body, status, problem) in [
        ("text/csv", "a,b", 415, "unsupported"),
        (JSON, "{", 400, "bad-body"),
        (JSON, "[1]", 422, "impossible"),
        (AUTOMERGE, "{}", 400, "bad-body"),
    ] {
        let answer = site.ask("POST", "/v1/documents", &[("content-type", kind)], body.as_bytes());
        assert_eq!((answer.status, answer.problem().as_str()), (status, problem), "{kind}");
    }
    let answer = site.patch(&id, JSON_PATCH, &[], &json!({ "op": "add" }));
    assert_eq!((answer.status, answer.problem().as_str()), (400, "bad-body"));
    let answer = site.patch(&id, JSON, &[], &json!({}));
    assert_eq!((answer.status, answer.problem().as_str()), (415, "unsupported"));
    assert_eq!(site.value(&id), json!({ "n": 1 }));
}

#[test]
fn every_limit_is_named_by_the_problem_that_refuses() {
    let site = Site::start_with(&[
        ("TRIBUTARY_REST__BODY_BYTES_MAX", "2048"),
        ("TRIBUTARY_REST__JSON_DEPTH_MAX", "5"),
        ("TRIBUTARY_REST__PAGE_MAX", "10"),
        ("TRIBUTARY_REST__HISTORY_MAX", "3"),
        ("TRIBUTARY_REST__WAIT_SECONDS_MAX", "2"),
        ("TRIBUTARY_REST__STREAMS_MAX", "1"),
    ]);
    let id = site.create(&json!({ "n": 1 }));
    let first = site.heads(&id);
    for n in 0..5 {
        site.patch(&id, MERGE_PATCH, &[], &json!({ "n": n + 2 }));
    }
    let path = format!("/v1/documents/{id}");
    let json_kind = [("content-type", JSON)];
    let large = json!({ "text": "x".repeat(4096) }).to_string();
    let deep = format!("{}1{}", "[".repeat(9), "]".repeat(9));
    let _stream = site.stream("/v1/events");
    let answers = [
        (site.ask("POST", "/v1/documents", &json_kind, large.as_bytes()), 413, "body_bytes_max"),
        (site.ask("POST", "/v1/documents", &json_kind, deep.as_bytes()), 413, "json_depth_max"),
        (site.get("/v1/documents?limit=11"), 400, "page_max"),
        (site.get(&format!("{path}/history?limit=4")), 400, "history_max"),
        (site.get(&format!("{path}/changes?since={first}")), 413, "history_max"),
        (site.get(&format!("{path}?at-least={first}&timeout=3")), 400, "wait_seconds_max"),
        (site.get(&format!("{path}/events")), 503, "streams_max"),
    ];
    for (answer, status, limit) in answers {
        let problem = answer.json();
        assert_eq!((answer.status, &problem["limit"]), (status, &json!(format!("rest.{limit}"))));
        assert!(problem["max"].is_u64(), "{problem}");
        assert_eq!(status == 503, !answer.header("retry-after").is_empty());
    }
}

#[test]
fn too_many_questions_at_once_are_turned_away_and_told_when_to_come_again() {
    let site = Site::start_with(&[("TRIBUTARY_REST__QUEUE_MAX", "1")]);
    let text = "many words ".repeat(20_000);
    let id = site.create(&json!({ "text": text }));
    let path = format!("/v1/documents/{id}?path=/");
    let mut refused = None;
    // Each of these has to open the document, and only one may wait for that.
    until(|| {
        let answers = thread::scope(|scope| {
            let ask = |n: usize| {
                let (site, path) = (&site, &path);
                scope.spawn(move || site.get(&format!("{path}{n}")))
            };
            let asked: Vec<_> = (0..16).map(ask).collect();
            asked.into_iter().map(|answer| answer.join().unwrap()).collect::<Vec<_>>()
        });
        refused = answers.into_iter().find(|answer| answer.status == 503);
        refused.is_some()
    });
    let refused = refused.unwrap();
    assert_eq!((refused.problem().as_str(), refused.header("retry-after")), ("overloaded", "1"));
    assert_eq!(refused.json()["limit"], json!("rest.queue_max"));
}

#[test]
fn pages_of_other_origins_may_call_only_where_it_is_configured() {
    let site = Site::start_with(&[("TRIBUTARY_REST__CORS_ORIGINS", "[\"https://app.example\"]")]);
    let asked = |origin: &str| {
        let headers = [("origin", origin), ("access-control-request-method", "PATCH")];
        let id = "p3u5PhN9wrNpsGCwfkeef2LzF9";
        site.ask("OPTIONS", &format!("/v1/documents/{id}"), &headers, &[])
    };
    let welcome = asked("https://app.example");
    assert_eq!(welcome.header("access-control-allow-origin"), "https://app.example");
    assert!(welcome.header("access-control-allow-methods").contains("PATCH"));
    assert_eq!(asked("https://other.example").header("access-control-allow-origin"), "");
    let nowhere = Site::start();
    let answer = nowhere.ask("GET", "/v1/documents", &[("origin", "https://app.example")], &[]);
    assert_eq!(answer.header("access-control-allow-origin"), "");
}

#[test]
fn everything_is_described_in_openapi() {
    let site = Site::start();
    let api = site.get("/v1/openapi.json").json();
    assert!(api["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut operations = Vec::new();
    for (path, methods) in api["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            operations.push(format!("{} {path}", method.to_uppercase()));
        }
    }
    operations.sort();
    let one = "/v1/documents/{id}";
    let mut expected = vec![
        "GET /v1/documents".to_owned(),
        "GET /v1/events".to_owned(),
        "GET /v1/status".to_owned(),
        "POST /v1/documents".to_owned(),
        format!("POST {one}/fork"),
    ];
    expected.extend(["GET", "PATCH", "PUT"].map(|method| format!("{method} {one}")));
    let parts =
        ["changes", "conflicts", "diff", "events", "heads", "history", "replication", "status"];
    expected.extend(parts.map(|part| format!("GET {one}/{part}")));
    expected.sort();
    assert_eq!(operations, expected);
}

#[test]
fn a_document_of_a_client_with_every_type_is_told_in_both_forms() {
    let site = Site::start();
    let id = "p3u5PhN9wrNpsGCwfkeef2LzF9";
    let mut doc = AutoCommit::new();
    doc.put(ROOT, "count", automerge::ScalarValue::counter(2)).unwrap();
    doc.put(ROOT, "when", automerge::ScalarValue::Timestamp(0)).unwrap();
    doc.put(ROOT, "bytes", vec![1_u8]).unwrap();
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    doc.splice_text(&text, 0, 0, "bold").unwrap();
    let kind = [("content-type", AUTOMERGE)];
    site.ask("PUT", &format!("/v1/documents/{id}"), &kind, &doc.save());
    let plain = json!({
        "count": 2, "when": "1970-01-01T00:00:00.000Z", "bytes": "AQ==", "text": "bold",
    });
    assert_eq!(site.value(id), plain);
    let typed = site.get(&format!("/v1/documents/{id}?form=typed")).json();
    assert_eq!(typed["count"], json!({ "$counter": 2 }));
    let kind = [("content-type", JSON)];
    let copy = site.ask("POST", "/v1/documents?form=typed", &kind, typed.to_string().as_bytes());
    let copy = copy.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(site.get(&format!("/v1/documents/{copy}?form=typed")).json(), typed);
    // Plain JSON over it keeps the types.
    site.patch(id, MERGE_PATCH, &[], &json!({ "count": 5 }));
    let typed = site.get(&format!("/v1/documents/{id}?form=typed")).json();
    assert_eq!(typed["count"], json!({ "$counter": 5 }));
}
