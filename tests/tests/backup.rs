//! Backups of running regions, and regions that begin again from one.
//!
//! The same under a stock JavaScript client is in `interop/stories/restore.test.js`.

#[allow(dead_code, reason = "no link is cut here")]
#[path = "support/regions.rs"]
mod regions;
mod support;
#[allow(dead_code, reason = "no link is encrypted here")]
#[path = "support/tls.rs"]
mod tls;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{ROOT, ScalarValue};
use model::DocumentId;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use regions::{World, until, until_within};
use support::Client;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tributary_tests::{PATIENCE, Server, run};
use wan::{Conditions, Wan, Way};

/// How many changes they send before they wait.
const BURST: i64 = 5;
/// How many clients write while a backup is made.
const WRITERS: u8 = 4;
/// Documents that make a backup take some time, and how large each is.
const LARGE: u8 = 16;
const LARGE_BYTES: usize = 1 << 20;
/// How fast a backup is taken in, where it should take longer than a few writes do.
const BYTES_PER_SECOND: u64 = 6 << 20;
/// An audit comes every 30 s and finds a difference that is there twice; then it is repaired.
const AUDITED_WITHIN: Duration = Duration::from_secs(150);

fn document(n: u8) -> DocumentId {
    DocumentId::from_bytes(&[n; 16]).expect("16 bytes")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("there is room for a folder")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}

/// Runs a command that has to end with this code; gives what it said.
fn ends_with(code: i32, args: &[&str]) -> String {
    let output = run(args, &[]);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    said
}

fn back_up(server: &Server, to: &Path) -> String {
    let url = format!("http://{}", server.address());
    ends_with(0, &["backup", "--url", &url, "--to", text(to)])
}

/// What writer `n` writes to. Stores are read in the order of ids, so some of these are read before the large
/// documents and some after them.
fn written_by(n: u8) -> DocumentId {
    document(if n.is_multiple_of(2) { n } else { 200 + n })
}

/// A wire to a server that takes its time.
struct SlowWire {
    url: String,
    _wan: Wan,
    _runtime: Runtime,
}

impl SlowWire {
    fn to(server: &Server) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let _inside = runtime.enter();
        let wan = Wan::new(1);
        let (anywhere, target) =
            ("127.0.0.1:0".parse().unwrap(), server.address().parse().unwrap());
        let wire = wan.link("slow", anywhere, target).expect("a new wire");
        let bytes_per_second = NonZeroU64::new(BYTES_PER_SECOND);
        let conditions = Conditions::both(Way { bytes_per_second, ..Way::default() });
        wire.set(conditions).expect("they are possible");
        let url = format!("http://{}", wire.listen());
        drop(_inside);
        Self { url, _wan: wan, _runtime: runtime }
    }
}

/// Documents of bytes that cannot be made smaller.
fn fill(server: &Server) {
    let mut random = SmallRng::seed_from_u64(7);
    for n in 0..LARGE {
        let mut client = Client::join(server, "filler", &document(100 + n));
        client.pull();
        let mut bytes = vec![0; LARGE_BYTES];
        random.fill_bytes(&mut bytes);
        client.doc.put(ROOT, "bytes", ScalarValue::Bytes(bytes)).expect("maps take bytes");
        client.put("filled", 1);
        client.acknowledged();
    }
}

/// Clients that write without a pause, one key after the other.
struct Writers {
    threads: Vec<thread::JoinHandle<Client>>,
    acknowledged: Vec<Arc<AtomicI64>>,
    stop: Arc<AtomicBool>,
}

impl Writers {
    fn start(server: &Server) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let acknowledged: Vec<_> = (0..WRITERS).map(|_| Arc::<AtomicI64>::default()).collect();
        let threads = (0..WRITERS).zip(&acknowledged).map(|(n, acknowledged)| {
            let mut client = Client::join(server, &format!("writer-{n}"), &written_by(n));
            let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
            thread::spawn(move || {
                client.pull();
                while !stop.load(Ordering::Relaxed) {
                    let number = acknowledged.load(Ordering::Relaxed);
                    for number in number..number + BURST {
                        client.put(&format!("key {number}"), number);
                    }
                    client.acknowledged();
                    acknowledged.store(number + BURST, Ordering::Relaxed);
                }
                client
            })
        });
        let threads = threads.collect();
        Self { threads, acknowledged, stop }
    }

    /// How many writes of each were acknowledged so far.
    fn acknowledged(&self) -> Vec<i64> {
        self.acknowledged.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// The clients, still connected.
    fn stop(self) -> Vec<Client> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|thread| thread.join().expect("it wrote")).collect()
    }
}

/// A document holds at least so many keys, all of them without a gap; gives how many.
fn holds(server: &Server, n: u8, least: i64) -> i64 {
    let mut reader = Client::join(server, "reader", &written_by(n));
    reader.pull();
    let count = (0..).find(|number| reader.get(&format!("key {number}")).is_none());
    let count = count.expect("numbers do not end");
    assert!(count >= least, "document {n} has {count} keys, {least} were acknowledged");
    let after = (count..count + 50).find(|number| reader.get(&format!("key {number}")).is_some());
    assert_eq!(after, None, "document {n} lacks key {count}");
    count
}

fn is_whole_and_restores(store: &str) {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    // Documents are compacted all the time, so that rows which belong together change together: without
    // what is committed meanwhile, a copy would have some of them from before and some from after.
    let config = path("config.toml");
    let often =
        "archive.verify_after_seconds = 0.0\narchive.compact_tail_kib = 1\nretention.hours = 0\n";
    fs::write(&config, often).unwrap();
    let server = Server::start(&path("data"), &["--store", store, "--config", text(&config)]);
    fill(&server);
    let wire = SlowWire::to(&server);
    let writers = Writers::start(&server);
    let mut before = Vec::new();
    for n in 0..2 {
        until("clients to write", || {
            let now = writers.acknowledged();
            now.iter().zip(before.last().unwrap_or(&vec![0; 4])).all(|(now, then)| *now > then + 10)
        });
        before.push(writers.acknowledged());
        let backup = path(&format!("backup-{n}"));
        let said = ends_with(0, &["backup", "--url", &wire.url, "--to", text(&backup)]);
        assert!(said.contains("writes of the meantime"), "{said}");
    }
    let written = writers.acknowledged();
    let mut clients = writers.stop();

    // Each is a sound store with all that was acknowledged before, and no hole in what came after.
    for (n, before) in before.iter().enumerate() {
        let backup = path(&format!("backup-{n}"));
        let said = ends_with(0, &["verify", "--data", text(&backup), "--store", store]);
        assert!(said.contains("all is well"), "{said}");
        let restored = path(&format!("restored-{n}"));
        let said = ends_with(
            0,
            &["restore", "--from", text(&backup), "--data", text(&restored), "--store", store],
        );
        assert!(said.contains("next: start the server"), "{said}");
        let copy = Server::start(&restored, &["--store", store]);
        for (document, least) in (0..).zip(before) {
            holds(&copy, document, *least);
        }
        let mut filled = Client::join(&copy, "reader", &document(100));
        filled.pull();
        assert_eq!(filled.get("filled"), Some(1));
    }

    // The disk is lost. The region begins again from the oldest backup, at its address; its clients come
    // back and bring what the backup does not have.
    let address = server.address().to_owned();
    server.kill();
    fs::rename(path("data"), path("lost")).unwrap();
    let (oldest, data) = (path("backup-0"), path("data"));
    ends_with(0, &["restore", "--from", text(&oldest), "--data", text(&data), "--store", store]);
    let server = Server::start_at(&address, &data, &["--store", store], &[]);
    for (n, client) in (0..).zip(&mut clients) {
        client.come_back(&server);
        client.pull();
        client.put("after", 1);
        client.acknowledged();
        assert!(holds(&server, n, written[usize::from(n)]) >= written[usize::from(n)]);
        let mut reader = Client::join(&server, "reader", &written_by(n));
        reader.pull();
        assert_eq!(reader.doc.get_heads(), client.doc.get_heads());
    }
}

#[test]
fn a_backup_under_writing_clients_is_whole_and_a_region_begins_again_from_it_on_sled() {
    is_whole_and_restores("sled");
}

#[test]
fn a_backup_under_writing_clients_is_whole_and_a_region_begins_again_from_it_on_sqlite() {
    is_whole_and_restores("sqlite");
}

/// What a region writes, and that another reads it there.
fn crosses(world: &World, from: &str, to: &str, n: u8, key: &str) {
    let mut writer = client(world, from, n);
    writer.put(key, 1);
    writer.acknowledged();
    until_reads(world, to, n, key);
}

fn client(world: &World, region: &str, n: u8) -> Client {
    let mut client = Client::join(world.region(region).server(), "client", &document(n));
    client.pull();
    client
}

fn until_reads(world: &World, region: &str, n: u8, key: &str) {
    until_within(AUDITED_WITHIN, key, || client(world, region, n).get(key) == Some(1));
}

#[test]
fn a_region_restored_from_an_old_backup_is_level_with_the_others_without_anybodys_work() {
    let mut world = World::start(&["eu", "us", "ap"]);
    for n in 0..5 {
        crosses(&world, "eu", "us", n, "eu before");
        crosses(&world, "us", "eu", n, "us before");
    }
    world.level();
    let backup = world.region("eu").path("backup");
    back_up(world.region("eu").server(), &backup);

    // All of this is lost in eu: its own, which the others hold, and theirs, of which they have let go
    // because eu had it; in documents of the backup and in others.
    for n in 0..10 {
        crosses(&world, "eu", "us", n, "eu after");
        crosses(&world, "us", "eu", n, "us after");
        crosses(&world, "ap", "eu", n, "ap after");
    }
    world.level();
    let region = world.region_mut("eu");
    region.kill();
    let (data, lost) = (region.data().to_owned(), region.path("lost"));
    fs::rename(&data, &lost).unwrap();
    let config = region.path("config.toml");
    let said = ends_with(
        0,
        &["restore", "--config", text(&config), "--from", text(&backup), "--data", text(&data)],
    );
    assert!(said.contains("region eu as it was") && !said.contains("NOTE"), "{said}");
    // Meanwhile the others go on.
    crosses(&world, "us", "ap", 3, "us meanwhile");
    world.region_mut("eu").start_again();

    until_reads(&world, "eu", 3, "us meanwhile");
    for n in 0..10 {
        for key in ["eu after", "us after", "ap after"] {
            until_reads(&world, "eu", n, key);
        }
    }
    // New changes of eu are new to the others: no place of its old log is used again.
    for n in [3, 9, 20] {
        crosses(&world, "eu", "us", n, "eu again");
        until_reads(&world, "ap", n, "eu again");
        crosses(&world, "ap", "eu", n, "ap again");
    }
    world.linked();
    world.level();
    for n in (0..10).chain([20]) {
        until_within(AUDITED_WITHIN, "all to have the same heads", || {
            let [eu, us, ap] =
                ["eu", "us", "ap"].map(|region| client(&world, region, n).doc.get_heads());
            eu == us && us == ap
        });
    }
}

/// Something that listens and answers each request with these bytes.
fn answering(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            while lines.next().is_some_and(|line| !line.is_empty()) {}
            let _ = (&stream).write_all(bytes);
        }
    });
    format!("http://{address}")
}

#[test]
fn a_backup_that_cannot_be_made_says_why_and_what_to_do_and_leaves_nothing() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let data = path("data");
    let server = Server::start(&data, &[]);
    Client::join(&server, "one", &document(1)).pull();
    let url = format!("http://{}", server.address());
    fs::create_dir(path("full")).unwrap();
    fs::write(path("full/file"), "of somebody").unwrap();
    let inside = data.join("backup");
    let to = path("backup");

    let nobody = "http://127.0.0.1:1";
    let other = answering(b"SSH-2.0-OpenSSH_9.6\r\n");
    let page = answering(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>");
    let old = answering(b"HTTP/1.1 404 Not Found\r\n\r\n");
    let broken = answering(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.tributary.backup\r\n\r\n\
          tributary-backup 1\n\
          {\"region\":\"eu\",\"store\":\"sled\",\"data\":\"/nowhere\",\"taken\":1,\"version\":\"0\"}\n\
          \x01\x00\x01k\x00\x00\x00\x01v",
    );
    let cases: [(&str, &Path, i32, &[&str]); 11] = [
        (nobody, &to, 1, &["cannot be reached", "Is it running", "--data"]),
        (&other, &to, 1, &["does not speak HTTP"]),
        (&page, &to, 1, &["no backup", "Tributary?"]),
        (&old, &to, 1, &["not a Tributary", "older version"]),
        (&broken, &to, 1, &["broke off", "ask again"]),
        ("https://127.0.0.1:1", &to, 1, &["no TLS", "ssh -L"]),
        ("ftp://127.0.0.1:1", &to, 1, &["expected http://host:port"]),
        ("nonsense", &to, 1, &["expected http://host:port"]),
        (&url, &path("full"), 2, &["not empty", "new or empty"]),
        (&url, &path("full/file"), 2, &["not a directory", "--to"]),
        (&url, &inside, 2, &["lies in the data directory", "outside"]),
    ];
    for (url, to, code, words) in cases {
        let said = ends_with(code, &["backup", "--url", url, "--to", text(to)]);
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
    }
    let said = ends_with(3, &["backup", "--data", text(&data), "--to", text(&to)]);
    assert!(said.contains("without --data"), "{said}");
    let said = ends_with(3, &["backup", "--data", text(&path("none")), "--to", text(&to)]);
    assert!(said.contains("no such directory"), "{said}");
    assert!(!to.exists() && !inside.exists());
    assert_eq!(fs::read_dir(path("full")).unwrap().count(), 1);
    back_up(&server, &to);
}

#[test]
fn whoever_is_elsewhere_or_behind_a_proxy_needs_the_key() {
    let folder = folder();
    let ask = |server: &Server, more: &str| {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "POST /v1/backup HTTP/1.0\r\nHost: here\r\n{more}\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let server = Server::start(&folder.path().join("data"), &[]);
    assert!(ask(&server, "").starts_with("HTTP/1.0 200"));
    let refused = ask(&server, "X-Forwarded-For: 10.1.2.3\r\n");
    assert!(refused.starts_with("HTTP/1.0 403"), "{refused}");
    assert!(refused.contains("problem+json") && refused.contains("backup.key_file"), "{refused}");
    server.kill();

    let (key, wrong, config) =
        (folder.path().join("key"), folder.path().join("wrong"), folder.path().join("config.toml"));
    fs::write(&key, "a-secret-of-the-operator\n").unwrap();
    fs::write(&wrong, "another-secret-of-nobody\n").unwrap();
    fs::write(&config, format!("backup.key_file = {key:?}\n")).unwrap();
    let server =
        Server::start(&folder.path().join("data"), &["--config", config.to_str().unwrap()]);
    let (url, to) = (format!("http://{}", server.address()), folder.path().join("backup"));
    let backup = ["backup", "--url", &url, "--to", text(&to)];
    assert!(ends_with(1, &backup).contains("--key-file"));
    let said = ends_with(1, &[&backup[..], &["--key-file", text(&wrong)]].concat());
    assert!(said.contains("not the one"), "{said}");
    fs::write(&wrong, "short").unwrap();
    let said = ends_with(2, &[&backup[..], &["--key-file", text(&wrong)]].concat());
    assert!(said.contains("holds no key"), "{said}");
    let said = ends_with(2, &[&backup[..], &["--key-file", "/no/such/file"]].concat());
    assert!(said.contains("cannot be read"), "{said}");
    ends_with(0, &[&backup[..], &["--config", text(&config)]].concat());
}

#[test]
fn two_backups_of_one_region_at_once_are_one_and_a_refusal() {
    let folder = folder();
    let server = Server::start(&folder.path().join("data"), &[]);
    fill(&server);
    // Asks and does not read on, so that the backup stays under way.
    let mut first = TcpStream::connect(server.address()).unwrap();
    first.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(first, "POST /v1/backup HTTP/1.0\r\nHost: here\r\n\r\n").unwrap();
    first.read_exact(&mut [0; 12]).unwrap();
    let (url, to) = (format!("http://{}", server.address()), folder.path().join("backup"));
    let said = ends_with(1, &["backup", "--url", &url, "--to", text(&to)]);
    assert!(said.contains("another backup"), "{said}");
    // Clients do not notice it, and when whoever asked has gone there can be another.
    let mut client = Client::join(&server, "one", &document(1));
    client.pull();
    client.put("key", 1);
    client.acknowledged();
    drop(first);
    until("the first to be given up", || {
        run(&["backup", "--url", &url, "--to", text(&to)], &[]).status.success()
    });
    ends_with(0, &["verify", "--data", text(&to)]);
}

#[test]
fn a_server_that_is_asked_to_stop_does_not_wait_for_a_backup() {
    let folder = folder();
    let mut server = Server::start(&folder.path().join("data"), &[]);
    fill(&server);
    let mut stalled = TcpStream::connect(server.address()).unwrap();
    write!(stalled, "POST /v1/backup HTTP/1.0\r\nHost: here\r\n\r\n").unwrap();
    stalled.read_exact(&mut [0; 12]).unwrap();
    server.terminate();
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
}

#[test]
fn a_restore_that_cannot_be_made_says_why_and_what_to_do_and_leaves_nothing() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let server = Server::start(&path("data"), &[]);
    fill(&server);
    let backup = path("backup");
    back_up(&server, &backup);
    fs::create_dir(path("empty")).unwrap();
    fs::create_dir(path("export")).unwrap();
    fs::write(path("export/file"), "of something").unwrap();
    // As a kill in the middle would leave it.
    copy_directory(&backup, &path("half"));
    fs::write(path("half/incomplete"), "").unwrap();
    // Damage all over it.
    copy_directory(&backup, &path("damaged"));
    let mut bytes = fs::read(path("damaged/db")).unwrap();
    bytes.chunks_mut(64 << 10).for_each(|chunk| chunk[..64].fill(0xa5));
    fs::write(path("damaged/db"), bytes).unwrap();

    let new = path("new");
    let cases: [(&Path, &Path, i32, &[&str]); 9] = [
        (&path("none"), &new, 3, &["no such directory", "backup"]),
        (&path("empty"), &new, 3, &["holds no store", "import"]),
        (&path("export"), &new, 3, &["holds no store", "import"]),
        (&path("data"), &new, 3, &["locked", "Stop"]),
        (&path("half"), &new, 3, &["not finished", "again"]),
        (&path("damaged"), &new, 3, &["damage"]),
        (&backup, &path("data"), 2, &["not empty", "move it aside"]),
        (&backup, &path("half"), 2, &["not finished", "remove"]),
        (&backup, &backup.join("inner"), 2, &["lies in the backup", "outside"]),
    ];
    for (from, data, code, words) in cases {
        let said = ends_with(code, &["restore", "--from", text(from), "--data", text(data)]);
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
        assert!(!new.exists(), "{words:?}");
    }
    let half = path("half");
    for (command, more) in [
        ("serve", &["--listen", "127.0.0.1:0"][..]),
        ("verify", &[]),
        ("export", &["--to", text(&new)]),
    ] {
        let said = ends_with(3, &[&[command, "--data", text(&half)], more].concat());
        assert!(said.contains("only a part of a store"), "{command}: {said}");
    }
    // A store of another kind may be made of it.
    let args = ["--from", text(&backup), "--data", text(&new), "--store", "sqlite"];
    ends_with(0, &[&["restore"], &args[..]].concat());
    ends_with(0, &["verify", "--data", text(&new), "--store", "sqlite"]);
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_directory(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
