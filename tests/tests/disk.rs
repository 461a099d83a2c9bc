//! The real process on a disk that fills up, fails, or loses its power.
//!
//! The disk is the one of the stores' power-loss tests: a library that is loaded before the system's
//! own, counts what is written and synced, and keeps beside it what a loss of power would leave.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use automerge::transaction::Transactable;
use automerge::{ROOT, ScalarValue};
use model::DocumentId;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use support::Client;
use tempfile::TempDir;
use tributary_tests::{Server, run, workspace};

struct Disk {
    folder: TempDir,
    library: PathBuf,
}

impl Disk {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let library = folder.path().join("disk.so");
        let source = workspace().join("crates/store/tests/power_loss.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .args(["-ldl", "-lpthread"])
            .status()
            .expect("a C compiler, as for building the server with SQLite");
        assert!(built.success());
        for name in ["live", "shadow", "pending"] {
            fs::create_dir(folder.path().join(name)).expect("the folder is new");
        }
        Self { folder, library }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, store: &str, fault: Option<(&str, &str)>) -> Server {
        let (live, shadow, pending) =
            (self.path("live"), self.path("shadow"), self.path("pending"));
        let mut variables: Vec<(&str, &Path)> = vec![
            ("LD_PRELOAD", &self.library),
            ("POWER_LOSS_LIVE", &live),
            ("POWER_LOSS_SHADOW", &shadow),
            ("POWER_LOSS_PENDING", &pending),
        ];
        variables.extend(fault.map(|(name, value)| (name, Path::new(value))));
        Server::start_with(&live, &["--store", store], &variables)
    }
}

fn document() -> DocumentId {
    DocumentId::from_bytes(&[3; 16]).expect("16 bytes")
}

/// Writes until the server stops acknowledging, at most so often; how many were acknowledged.
fn write(server: &Server, most: i64) -> i64 {
    let mut acknowledged = 0;
    let mut client = Client::join(server, "writer", &document());
    let _ = catch_unwind(AssertUnwindSafe(|| {
        client.pull();
        while acknowledged < most {
            client.put(&format!("key {acknowledged}"), acknowledged);
            client.acknowledged();
            acknowledged += 1;
        }
    }));
    acknowledged
}

fn holds(data: &Path, store: &str, acknowledged: i64) {
    let server = Server::start(data, &["--store", store]);
    let mut reader = Client::join(&server, "reader", &document());
    reader.pull();
    for number in 0..acknowledged {
        assert_eq!(reader.get(&format!("key {number}")), Some(number), "of {acknowledged}");
    }
}

fn ends_with_4_and_loses_nothing(store: &str, fault: (&str, &str)) {
    let disk = Disk::new();
    let mut server = disk.start(store, Some(fault));
    let acknowledged = write(&server, 100_000);
    assert_eq!(server.wait().code(), Some(4), "{}", server.log());
    assert!(acknowledged > 0, "the fault came too early to show anything");
    assert!(server.log().contains("the store has failed"), "{}", server.log());
    drop(server);
    holds(&disk.path("live"), store, acknowledged);
}

#[test]
fn a_full_disk_ends_the_process_with_4_and_nothing_acknowledged_is_lost_on_sled() {
    ends_with_4_and_loses_nothing("sled", ("POWER_LOSS_SPACE", "600000"));
}

#[test]
fn a_full_disk_ends_the_process_with_4_and_nothing_acknowledged_is_lost_on_sqlite() {
    ends_with_4_and_loses_nothing("sqlite", ("POWER_LOSS_SPACE", "1500000"));
}

#[test]
fn a_sync_that_fails_ends_the_process_with_4_and_nothing_acknowledged_is_lost() {
    for store in ["sled", "sqlite"] {
        ends_with_4_and_loses_nothing(store, ("POWER_LOSS_SYNCS", "60"));
    }
}

#[test]
fn a_region_whose_store_has_failed_is_never_ready_again() {
    let disk = Disk::new();
    let mut server = disk.start("sled", Some(("POWER_LOSS_SPACE", "150000")));
    let address = server.address().to_owned();
    let over = AtomicBool::new(false);
    let answers = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut answers = vec![is_ready(&address)];
            while !over.load(Ordering::Relaxed) {
                answers.push(is_ready(&address));
            }
            answers
        });
        write(&server, 100_000);
        let status = server.wait();
        over.store(true, Ordering::Relaxed);
        assert_eq!(status.code(), Some(4), "{}", server.log());
        asking.join().expect("asking does not fail")
    });
    assert!(answers[0], "it was ready while it could write");
    // Between its last yes and its end it may say no, or nothing. It never changes its mind again.
    let first = answers.iter().position(|ready| !ready).unwrap_or(answers.len());
    assert!(answers[first..].iter().all(|ready| !ready));
    assert!(!is_ready(&address));
}

/// Whether somebody is there who says so.
fn is_ready(address: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let mut answer = String::new();
    write!(stream, "GET /readyz HTTP/1.0\r\n\r\n").is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.0 200")
}

#[test]
fn what_was_acknowledged_is_there_after_the_power_goes() {
    for store in ["sled", "sqlite"] {
        let disk = Disk::new();
        let server = disk.start(store, None);
        let acknowledged = write(&server, 100);
        assert_eq!(acknowledged, 100);
        server.kill();
        holds(&disk.path("shadow"), store, acknowledged);
    }
}

#[test]
fn a_store_that_is_not_whole_is_refused_at_the_start_and_never_served_as_empty() {
    for (store, name) in [("sled", "db"), ("sqlite", "store.sqlite")] {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let server = Server::start(folder.path(), &["--store", store]);
        write(&server, 20);
        server.terminate();
        let mut server = server;
        assert_eq!(server.wait().code(), Some(0));
        let file = folder.path().join(name);
        let whole = fs::read(&file).expect("the database is under its name");
        let path = folder.path().to_str().expect("a plain path");
        for (what, bytes) in [("garbage", vec![0xa5; 64 << 10]), ("emptied", Vec::new())] {
            fs::write(&file, bytes).expect("the file can be written");
            let output =
                run(&["serve", "--listen", "127.0.0.1:0", "--data", path, "--store", store], &[]);
            assert_eq!(output.status.code(), Some(3), "{store}, {what}");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains(path) && said.contains("backup"), "{store}, {what}: {said}");
        }
        // What was refused was that file and nothing else.
        fs::write(&file, whole).expect("the file can be written");
        holds(folder.path(), store, 20);
    }
}

#[test]
fn a_disk_that_is_too_small_for_a_backup_is_named_and_nothing_is_left_on_it() {
    for store in ["sled", "sqlite"] {
        let data = tempfile::tempdir().expect("there is room for a folder");
        let server = Server::start(data.path(), &["--store", store]);
        let mut client = Client::join(&server, "writer", &document());
        client.pull();
        let mut bytes = vec![0; 4 << 20];
        SmallRng::seed_from_u64(3).fill_bytes(&mut bytes);
        client.doc.put(ROOT, "bytes", ScalarValue::Bytes(bytes)).expect("maps take bytes");
        client.put("key", 1);
        client.acknowledged();

        let disk = Disk::new();
        let paths = ["disk.so", "live", "shadow", "pending"].map(|name| disk.path(name));
        let [library, live, shadow, pending] =
            paths.each_ref().map(|path| path.to_str().expect("a plain path"));
        let variables = [
            ("LD_PRELOAD", library),
            ("POWER_LOSS_LIVE", live),
            ("POWER_LOSS_SHADOW", shadow),
            ("POWER_LOSS_PENDING", pending),
            ("POWER_LOSS_SPACE", "1500000"),
        ];
        let url = format!("http://{}", server.address());
        let output = run(&["backup", "--url", &url, "--to", live], &variables);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{store}: {said}");
        assert!(said.contains("no space left") && said.contains("make room"), "{said}");
        assert_eq!(fs::read_dir(live).expect("it is there").count(), 0, "{store}");
        // The server has not noticed.
        client.put("key", 2);
        client.acknowledged();
    }
}
