//! The real process: kills, signals, exit codes, configuration.

#[allow(dead_code, reason = "the table of misfits uses more of it")]
#[path = "../../crates/history/tests/structural/raw.rs"]
mod raw;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use model::DocumentId;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use raw::Raw;
use support::Client;
use tempfile::TempDir;
use tributary_tests::{Server, run};

/// How often the server is killed. Each time, what was acknowledged has to be there.
const KILLS: i64 = 50;

fn document(n: u8) -> DocumentId {
    DocumentId::from_bytes(&[n; 16]).expect("16 bytes")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("there is room for a folder")
}

/// Each cycle begins by looking for everything that was ever acknowledged, with a client that has
/// nothing itself, and ends in the middle of writes that nobody has acknowledged.
fn survives_kills(store: &str, seed: u64) {
    let data = folder();
    let mut random = SmallRng::seed_from_u64(seed);
    let documents = [document(1), document(2)];
    let mut acknowledged = [0, 0];
    let mut written = [0, 0];
    for kill in 0..KILLS {
        let server = Server::start(data.path(), &["--store", store]);
        let mut clients = documents.each_ref().map(|document| {
            let mut client = Client::join(&server, &format!("client-{document}-{kill}"), document);
            client.pull();
            client
        });
        for (at, client) in clients.iter_mut().enumerate() {
            for number in 0..acknowledged[at] {
                let found = client.get(&format!("key {number}"));
                assert_eq!(found, Some(number), "after {kill} kills, seed {seed}");
            }
            for _ in 0..random.random_range(1..6) {
                client.put(&format!("key {}", written[at]), written[at]);
                written[at] += 1;
                if random.random_bool(0.7) {
                    client.acknowledged();
                    acknowledged[at] = written[at];
                }
            }
            // Unacknowledged ones may be lost: their keys are written again.
            written[at] = acknowledged[at];
            for number in 0..random.random_range(0..4) {
                client.put(&format!("key {}", acknowledged[at] + number), -1);
            }
        }
        server.kill();
    }
    assert!(acknowledged.iter().all(|number| *number > KILLS));
}

#[test]
fn acknowledged_changes_survive_fifty_kills_on_sled() {
    survives_kills("sled", 1);
}

#[test]
fn acknowledged_changes_survive_fifty_kills_on_sqlite() {
    survives_kills("sqlite", 2);
}

#[test]
fn sigterm_closes_sessions_with_1012_keeps_what_they_wrote_and_exits_with_0() {
    let data = folder();
    let mut server = Server::start(data.path(), &[]);
    let mut client = Client::join(&server, "writer", &document(1));
    client.pull();
    client.put("key", 7);
    client.acknowledged();
    let mut idle = Client::join(&server, "idle", &document(2));
    server.terminate();
    assert_eq!(client.closed(), Some(1012));
    assert_eq!(idle.closed(), Some(1012));
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());

    let server = Server::start(data.path(), &[]);
    let mut reader = Client::join(&server, "reader", &document(1));
    reader.pull();
    assert_eq!(reader.get("key"), Some(7));
}

#[test]
fn a_server_without_sessions_ends_at_once_on_sigterm() {
    let mut server = Server::start(folder().path(), &[]);
    server.terminate();
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
}

#[test]
fn an_unknown_key_in_the_config_file_is_named_and_nothing_starts() {
    let data = folder();
    let file = data.path().join("config.toml");
    fs::write(&file, "regoin = \"here\"\n").unwrap();
    for command in ["serve", "check-config"] {
        let output = run(&[command, "--config", file.to_str().unwrap()], &[]);
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("regoin"), "{said}");
    }
}

#[test]
fn nonsense_values_are_refused_by_the_name_of_their_key() {
    for (variable, value, key) in [
        ("TRIBUTARY_LISTEN", "somewhere", "listen"),
        ("TRIBUTARY_SESSIONS_MAX", "many", "sessions_max"),
        ("TRIBUTARY_FRAME_BYTES_MAX", "1", "frame_bytes_max"),
        ("TRIBUTARY_STORE", "paper", "store"),
    ] {
        let output = run(&["check-config"], &[(variable, value)]);
        assert_eq!(output.status.code(), Some(2), "{variable}={value}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(key), "{said}");
    }
}

#[test]
fn flags_count_more_than_the_environment_and_that_more_than_the_file() {
    let data = folder();
    let file = data.path().join("config.toml");
    fs::write(&file, "region = \"file\"\nlisten = \"127.0.0.1:1111\"\ndata = \"from-file\"\n")
        .unwrap();
    let output = run(
        &["check-config", "--config", file.to_str().unwrap(), "--region", "flag"],
        &[("TRIBUTARY_REGION", "environment"), ("TRIBUTARY_LISTEN", "127.0.0.1:2222")],
    );
    assert_eq!(output.status.code(), Some(0));
    let printed = String::from_utf8(output.stdout).unwrap();
    for line in ["region = \"flag\"", "listen = \"127.0.0.1:2222\"", "data = \"from-file\""] {
        assert!(printed.lines().any(|printed| printed == line), "{line} is not in\n{printed}");
    }
}

#[test]
fn the_printed_configuration_is_a_config_file_that_means_the_same() {
    let data = folder();
    let first = run(&["check-config", "--region", "somewhere"], &[]);
    let file = data.path().join("config.toml");
    fs::write(&file, &first.stdout).unwrap();
    let second = run(&["check-config", "--config", file.to_str().unwrap()], &[]);
    assert_eq!(
        String::from_utf8(first.stdout).unwrap(),
        String::from_utf8(second.stdout).unwrap(),
        "{}",
        String::from_utf8_lossy(&second.stderr)
    );
}

#[test]
fn each_way_to_fail_at_the_start_has_its_own_exit_code() {
    let data = folder();
    let path = data.path().join("store");
    let store = path.to_str().unwrap();

    let output = run(&["serve", "--no-such-flag"], &[]);
    assert_eq!(output.status.code(), Some(2), "the command line makes no sense");

    let file = data.path().join("file");
    fs::write(&file, "not a store").unwrap();
    let output = run(&["serve", "--listen", "127.0.0.1:0", "--data", file.to_str().unwrap()], &[]);
    assert_eq!(output.status.code(), Some(3), "the store cannot be opened");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(&["serve", "--listen", &address, "--data", store], &[]);
    assert_eq!(output.status.code(), Some(5), "the address is taken");
}

#[test]
fn two_servers_never_open_the_same_store() {
    for store in ["sled", "sqlite"] {
        let data = folder();
        let path = data.path().to_str().unwrap();
        let first = Server::start(data.path(), &["--store", store]);
        let output =
            run(&["serve", "--listen", "127.0.0.1:0", "--data", path, "--store", store], &[]);
        assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
        Client::join(&first, "still-served", &document(1)).pull();
    }
}

#[test]
fn a_store_of_one_kind_is_not_opened_as_the_other() {
    let data = folder();
    let path = data.path().to_str().unwrap();
    Server::start(data.path(), &["--store", "sled"]).kill();
    let output =
        run(&["serve", "--listen", "127.0.0.1:0", "--data", path, "--store", "sqlite"], &[]);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_server_that_runs_says_so_to_whoever_asks_by_http() {
    let server = Server::start(folder().path(), &[]);
    Client::join(&server, "one", &document(1)).pull();
    for (path, part) in
        [("/livez", ""), ("/readyz", ""), ("/metrics", "tributary_"), ("/", "<html")]
    {
        let answer = get(&server, path);
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        assert!(answer.contains(part), "{path}: {answer}");
    }
    assert!(get(&server, "/no-such-page").starts_with("HTTP/1.1 404"));
}

#[test]
fn what_only_the_crdt_can_judge_reaches_others_if_it_is_good_and_else_ends_its_connection() {
    let data = folder();
    let server = Server::start(data.path(), &[]);
    let [mut ann, mut bob, mut eve, mut fay] = ["ann", "bob", "eve", "fay"].map(|name| {
        let mut client = Client::join(&server, name, &document(4));
        client.pull();
        client
    });
    ann.put("title", 1);
    ann.acknowledged();
    let on_top = |client: &mut Client, actor: &[u8], start| {
        Raw::put(actor, 1, start, client.doc.get_heads().iter().map(|head| head.0).collect())
    };
    eve.hand_in(on_top(&mut ann, b"eve", 2).with_expand().bytes());
    ann.reads("x", 5);
    bob.reads("x", 5);
    fay.hand_in(on_top(&mut ann, b"fay", 3).with_run_of_one().bytes());
    assert_eq!(fay.closed(), Some(1008));
    ann.put("title", 2);
    ann.acknowledged();
    bob.reads("title", 2);
    assert_eq!(bob.doc.get_heads(), ann.doc.get_heads());
    let mut newcomer = Client::join(&server, "newcomer", &document(4));
    newcomer.pull();
    assert_eq!(newcomer.doc.get_heads(), ann.doc.get_heads());
    let figures = get(&server, "/metrics");
    assert!(figures.contains("changes_slow_lane_total 2\n"), "{figures}");
}

fn get(server: &Server, path: &str) -> String {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let host = server.address();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
