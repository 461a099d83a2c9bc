//! What an operator sees of a running region: the page, the figures behind it, and the commands that
//! show them on a terminal.

mod support;

use std::time::Instant;

use model::DocumentId;
use serde_json::{Value as Json, json};
use support::Client;
use tempfile::TempDir;
use tributary_tests::{PATIENCE, Server, run};
use ureq::Agent;

/// A server and a way to ask it.
struct Site {
    server: Server,
    agent: Agent,
    _data: TempDir,
}

/// An answer, read to its end.
struct Answer {
    status: u16,
    headers: ureq::http::HeaderMap,
    body: String,
}

impl Site {
    fn start() -> Self {
        let data = tempfile::tempdir().expect("there is room for a folder");
        let server = Server::start(data.path(), &[]);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build();
        Self { server, agent: config.into(), _data: data }
    }

    fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    fn get(&self, path: &str, accept: &str) -> Answer {
        let asked = self.agent.get(format!("{}{path}", self.url())).header("accept", accept);
        let (parts, mut body) = asked.call().expect("the server answers").into_parts();
        let body = body.read_to_string().expect("text");
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    fn json(&self, path: &str) -> Json {
        let answer = self.get(path, "application/json");
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        serde_json::from_str(&answer.body).expect("JSON")
    }

    fn status(&self) -> Json {
        self.json("/v1/status")
    }

    /// What a command says of this region, and how it ends.
    fn command(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let url = self.url();
        let output = run(&[args, &["--url", &url]].concat(), &[]);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

fn document(n: u8) -> DocumentId {
    DocumentId::from_bytes(&[n; 16]).expect("16 bytes")
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited for {what}");
        std::thread::yield_now();
    }
}

#[test]
fn the_page_comes_with_a_policy_that_forbids_all_but_itself_and_everything_it_names_is_there() {
    let site = Site::start();
    let page = site.get("/", "text/html,*/*;q=0.8");
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    let policy = page.header("content-security-policy").to_owned();
    for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert!(page.body.contains("WebSocketClientAdapter") && !page.body.contains("://unpkg"));
    let mut names: Vec<String> = page
        .body
        .split("\"page/")
        .skip(1)
        .map(|rest| rest[..rest.find('"').unwrap()].to_owned())
        .collect();
    assert!(names.len() >= 2, "{names:?}");
    while let Some(name) = names.pop() {
        let file = site.get(&format!("/page/{name}"), "*/*");
        assert_eq!(file.status, 200, "{name}");
        let kind = if name.ends_with(".css") { "text/css" } else { "text/javascript" };
        assert!(file.header("content-type").starts_with(kind), "{name}");
        // No two of them import each other, but for what `main.js` is asked through.
        let imports =
            file.body.split("from \"./").skip(1).map(|rest| &rest[..rest.find('"').unwrap()]);
        names.extend(imports.filter(|import| *import != "main.js").map(str::to_owned));
    }
    assert_eq!(site.get("/page/../Cargo.toml", "*/*").status, 404);
    assert_eq!(site.get("/page/nothing.js", "*/*").status, 404);
}

#[test]
fn whoever_asks_with_curl_gets_words_and_a_client_at_the_same_place_gets_its_socket() {
    let site = Site::start();
    let mut client = Client::join(&site.server, "ann", &document(1));
    client.pull();
    let words = site.get("/", "*/*");
    assert!(words.header("content-type").starts_with("text/plain"));
    let address = format!("ws://{}", site.server.address());
    for part in ["Tributary", "Region local", "sessions             1", &address] {
        assert!(words.body.contains(part), "{part} is not in\n{}", words.body);
    }
}

#[test]
fn the_figures_are_those_of_the_clients_that_are_there() {
    let site = Site::start();
    let empty = site.status();
    assert_eq!(empty["sessions"]["connected"], json!(0));
    assert_eq!(empty["commits"]["p99_ms"], Json::Null);
    assert_eq!(empty["documents"]["recent"], json!([]));
    assert_eq!((&empty["region"], &empty["links"]), (&json!("local"), &json!([])));

    let id = document(1);
    let (mut ann, mut bob) =
        (Client::join(&site.server, "ann", &id), Client::join(&site.server, "bob", &id));
    for n in 0..5 {
        ann.put("n", n);
        ann.acknowledged();
    }
    bob.pull();
    until("the figures to follow", || {
        let status = site.status();
        status["totals"]["changes_in"] == json!(5)
            && status["totals"]["bytes_in"].as_u64() > Some(0)
            && status["minute"]["changes_in"].as_array().is_some_and(|all| !all.is_empty())
    });
    let status = site.status();
    assert_eq!(
        (&status["sessions"]["connected"], &status["sessions"]["opened"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(status["documents"]["recent"], json!([id.to_string()]));
    assert_eq!(status["documents"]["open"], json!(1));
    let (p50, p99) = (&status["commits"]["p50_ms"], &status["commits"]["p99_ms"]);
    assert!(p50.as_f64() > Some(0.0) && p99.as_f64() >= p50.as_f64(), "{}", status["commits"]);
    assert!(status["commits"]["count"].as_u64() >= Some(5), "{}", status["commits"]);
    assert!(status["minute"]["commit_p99_ms"].as_array().is_some_and(|all| all.len() < 60));
}

#[test]
fn a_document_says_who_has_it_open_and_who_of_them_is_level() {
    let site = Site::start();
    let id = document(1);
    let path = format!("/v1/documents/{id}/status");
    assert_eq!(site.get(&path, "*/*").status, 404);
    let mut ann = Client::join(&site.server, "ann", &id);
    ann.put("n", 1);
    ann.acknowledged();
    let mut bob = Client::join(&site.server, "bob", &id);
    bob.pull();
    let _elsewhere = Client::join(&site.server, "cat", &document(2));
    let names = |status: &Json| -> Vec<String> {
        let peers = status["peers"].as_array().expect("a list");
        let level = peers.iter().filter(|peer| peer["level"] == json!(true));
        level.map(|peer| peer["peer"].as_str().expect("a name").to_owned()).collect()
    };
    until("both to be level", || names(&site.json(&path)) == ["ann", "bob"]);
    let status = site.json(&path);
    assert_eq!((&status["changes"], &status["peers_total"]), (&json!(1), &json!(2)));
    let heads: Vec<String> = ann.doc.get_heads().iter().map(ToString::to_string).collect();
    assert_eq!(status["heads"], json!(heads));
    drop(bob);
    until("who has gone to be gone", || site.json(&path)["peers_total"] == json!(1));
    // What REST writes comes from nobody who is connected.
    let patch = format!("{}/v1/documents/{id}", site.url());
    let kind = "application/merge-patch+json";
    let patched = site.agent.patch(patch).header("content-type", kind).send("{\"m\": 2}");
    assert_eq!(patched.expect("an answer").status(), 200);
    assert_eq!(site.json(&path)["peers_total"], json!(1));
}

#[test]
fn warnings_are_told_without_the_words_of_whoever_caused_them() {
    let data = tempfile::tempdir().expect("there is room for a folder");
    let key = data.path().join("key");
    std::fs::write(&key, "a secret of more than sixteen bytes").expect("it can be written");
    let link = ["--link", "us=ws://127.0.0.1:1", "--mesh-key-file", key.to_str().expect("text")];
    let server = Server::start(&data.path().join("data"), &link);
    let site = Site { server, ..Site::start() };
    until("the link to be missed", || {
        !site.status()["errors"].as_array().expect("a list").is_empty()
    });
    let status = site.status();
    let line = &status["errors"][0];
    assert_eq!((&line["level"], &line["fields"]["region"]), (&json!("warn"), &json!("us")));
    assert!(!status["errors"].to_string().contains("ws://"), "{}", status["errors"]);
    assert_eq!(
        (&status["links"][0]["region"], &status["links"][0]["state"]),
        (&json!("us"), &json!("down"))
    );
}

#[test]
fn inspect_prints_what_rest_says() {
    let site = Site::start();
    let id = document(1);
    let mut ann = Client::join(&site.server, "ann", &id);
    for n in 0..3 {
        ann.put("n", n);
        ann.acknowledged();
    }
    let name = id.to_string();
    let path = format!("/v1/documents/{name}");
    until("ann to be level", || {
        site.json(&format!("{path}/status"))["peers"][0]["level"] == json!(true)
    });
    let (status, value) = (site.json(&format!("{path}/status")), site.json(&path));

    let (code, said, errors) = site.command(&["inspect", &name]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let head = status["heads"][0].as_str().expect("a head");
    let url = format!("automerge:{name}");
    for part in
        [&url, head, "changes      3", "1 session", "ann  level", "changes 1 to 3 of", "  n: 2"]
    {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    let (code, said, _) = site.command(&["inspect", &url, "--json"]);
    assert_eq!(code, Some(0));
    let all: Json = serde_json::from_str(&said).expect("JSON");
    assert_eq!((&all["status"], &all["value"]), (&status, &value));
    assert_eq!(all["history"]["changes"].as_array().map(Vec::len), Some(3));
}

#[test]
fn inspect_says_what_is_wrong_and_its_exit_code_says_whose_mistake_it_is() {
    let site = Site::start();
    let unknown = document(9).to_string();
    let (code, said, errors) = site.command(&["inspect", &unknown]);
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert!(errors.contains(&unknown) && errors.contains("/v1/documents"), "{errors}");
    let (code, _, errors) = site.command(&["inspect", "not-an-id"]);
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("not-an-id"), "{errors}");
    let output = run(&["inspect", &unknown, "--url", "http://127.0.0.1:1"], &[]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("http://127.0.0.1:1") && errors.contains("--url"), "{errors}");
    let output = run(&["inspect", &unknown, "--url", "https://a.example"], &[]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn top_prints_a_frame_where_it_is_asked_for_one_and_ends_where_there_is_no_terminal() {
    let site = Site::start();
    let mut ann = Client::join(&site.server, "ann", &document(1));
    ann.put("n", 1);
    ann.acknowledged();
    let (code, said, _) = site.command(&["top", "--once"]);
    assert_eq!(code, Some(0));
    for part in [" local ", "live", "sessions", "Commit p99", "this region stands alone", "q quits"]
    {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    let (code, said, errors) = site.command(&["top"]);
    assert_eq!((code, said.as_str()), (Some(2), ""));
    assert!(errors.contains("--once"), "{errors}");
    let output = run(&["top", "--once", "--url", "http://127.0.0.1:1"], &[]);
    assert_eq!(output.status.code(), Some(1));
}
