//! Some regions as processes, linked by wires that a test can cut.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::tls::Authority;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tributary_tests::{PATIENCE, Server};
use wan::{Conditions, LinkHandle, Wan, Way};

/// The secret of every region that a test does not give another one.
pub const KEY: &str = "a secret that all regions of the test share";
/// Of the wires' jitter, if they have any.
const SEED: u64 = 1;
/// Where a process starts that never ran.
const ANYWHERE: &str = "127.0.0.1:0";
/// How often a condition is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until something holds.
///
/// # Panics
/// When it does not within [`PATIENCE`]; `what` says what it is.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    until_within(PATIENCE, what, &mut holds);
}

/// The same with a limit of its own; gives how long it took.
pub fn until_within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < limit, "waited {limit:?} for {what}");
        thread::sleep(LOOK_EVERY);
    }
    started.elapsed()
}

/// Another region, as a config file has it.
#[derive(Clone)]
pub struct Other {
    /// Its name.
    pub name: String,
    /// Where it is dialled; empty if it dials.
    pub url: String,
}

impl Other {
    /// One that is dialled.
    pub fn dialled(name: &str, url: &str) -> Self {
        Self { name: name.to_owned(), url: url.to_owned() }
    }

    /// One that dials.
    pub fn dials(name: &str) -> Self {
        Self::dialled(name, "")
    }
}

/// One region: its folder stays, its process comes and goes.
pub struct Region {
    name: String,
    folder: TempDir,
    config: PathBuf,
    data: PathBuf,
    address: String,
    server: Option<Server>,
}

impl Region {
    /// Starts a region on an empty store. `more` is put at the top of its config file.
    pub fn start(name: &str, key: &str, others: &[Other], more: &str) -> Self {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let config = folder.path().join("config.toml");
        let key_file = folder.path().join("mesh.key");
        fs::write(&key_file, key).expect("it can be written");
        let mut text = format!("region = '{name}'\n{more}\nmesh.key_file = {key_file:?}\n");
        for Other { name, url } in others {
            writeln!(text, "[[link]]\nname = '{name}'\nurl = '{url}'").expect("a string grows");
        }
        fs::write(&config, text).expect("it can be written");
        let data = folder.path().join("data");
        let mut region = Self {
            name: name.to_owned(),
            folder,
            config,
            data,
            address: ANYWHERE.to_owned(),
            server: None,
        };
        region.start_again();
        region
    }

    /// A copy of its disk in another folder, with the same config file. It does not run yet; nor should
    /// this one, or the copy is not what it was at one moment.
    pub fn copy(&self) -> Self {
        assert!(self.server.is_none(), "it is to be stopped first");
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let data = folder.path().join("data");
        copy_folder(&self.data, &data);
        let (name, config) = (self.name.clone(), self.config.clone());
        Self { name, folder, config, data, address: ANYWHERE.to_owned(), server: None }
    }

    /// Starts the process where it was before, if it was.
    pub fn start_again(&mut self) {
        let config = self.config.to_str().expect("a path of ours");
        let server = Server::start_at(&self.address, &self.data, &["--config", config], &[]);
        self.address = server.address().to_owned();
        self.server = Some(server);
    }

    /// The running process.
    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("it runs")
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Host and port, also while it does not run.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A file beside its store.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Its store.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Ends it as a loss of power ends the process.
    pub fn kill(&mut self) {
        self.server.take().expect("it runs").kill();
    }

    /// Ends it in order.
    pub fn stop(&mut self) {
        let mut server = self.server.take().expect("it runs");
        server.terminate();
        let status = server.wait();
        assert_eq!(status.code(), Some(0), "{}", server.log());
    }

    /// Waits until its log has a line with all these parts.
    pub fn says(&self, parts: &[&str]) {
        let found = |log: &str| log.lines().any(|line| parts.iter().all(|p| line.contains(p)));
        let end = Instant::now() + PATIENCE;
        while !found(&self.server().log()) {
            let log = self.server().log();
            assert!(Instant::now() < end, "{} does not say {parts:?} but\n{log}", self.name);
            thread::sleep(LOOK_EVERY);
        }
    }

    /// What it says of its links.
    pub fn mesh(&self) -> Value {
        let answer = http(&self.address, "/v1/mesh");
        let (_, body) = answer.split_once("\r\n\r\n").expect("an answer has a body");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// What it says of the link to one other region.
    pub fn link(&self, other: &str) -> Option<Value> {
        let mesh = self.mesh();
        let links = mesh["links"].as_array().expect("a list");
        links.iter().find(|link| link["region"] == other).cloned()
    }

    /// Whether the link to a region is up.
    pub fn reaches(&self, other: &str) -> bool {
        self.link(other).is_some_and(|link| link["up_seconds"].is_number())
    }

    /// Whether the other region is known to hold everything that was handed in here.
    pub fn is_level_with(&self, other: &str) -> bool {
        self.link(other).is_some_and(|link| link["lag_changes"] == 0)
    }
}

/// One request by hand.
pub fn http(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").expect("it can be asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

/// Regions that are all linked with each other, each pair by a wire of its own.
///
/// Dropped in this order: the wires outlive the processes, and the runtime outlives both.
pub struct World {
    regions: BTreeMap<String, Region>,
    wan: Wan,
    runtime: Runtime,
}

impl World {
    /// Regions with these names. Each dials those before it.
    pub fn start(names: &[&str]) -> Self {
        Self::start_with(names, "")
    }

    /// The same, with more in every config file.
    pub fn start_with(names: &[&str], more: &str) -> Self {
        let mut world = Self::unlinked();
        for (at, name) in names.iter().enumerate() {
            let mut others = world.wires_to(name, &names[..at]);
            others.extend(names[at + 1..].iter().map(|other| Other::dials(other)));
            world.add(Region::start(name, KEY, &others, more));
        }
        world.linked();
        world
    }

    /// No regions yet.
    pub fn unlinked() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self {
            regions: BTreeMap::new(),
            wan: Wan::new(SEED),
            runtime: runtime.expect("a runtime starts"),
        }
    }

    /// Lays wires from a region that does not run yet to some that do.
    pub fn wires_to(&self, name: &str, others: &[&str]) -> Vec<Other> {
        let _inside = self.runtime.enter();
        let lay = |other: &&str| {
            let target = self.regions[*other].address().parse().expect("an address");
            let anywhere = "127.0.0.1:0".parse().expect("an address");
            let wire = self.wan.link(&pair(name, other), anywhere, target).expect("a new wire");
            wire.set(conditions()).expect("they are possible");
            Other::dialled(other, &format!("ws://{}", wire.listen()))
        };
        others.iter().map(lay).collect()
    }

    /// A TLS front before a region, with a certificate for `name`.
    pub fn tls_front(&self, authority: &Authority, name: &str, region: &str) -> SocketAddr {
        let target = self.regions[region].address().parse().expect("an address");
        self.runtime.block_on(authority.front(name, target))
    }

    /// Takes a region in.
    pub fn add(&mut self, region: Region) {
        self.regions.insert(region.name().to_owned(), region);
    }

    /// A region.
    pub fn region(&self, name: &str) -> &Region {
        &self.regions[name]
    }

    /// A region, to end it or start it again.
    pub fn region_mut(&mut self, name: &str) -> &mut Region {
        self.regions.get_mut(name).expect("there is one")
    }

    /// The wire between two regions.
    pub fn wire(&self, one: &str, other: &str) -> LinkHandle {
        self.wan.get(&pair(one, other)).expect("there is a wire")
    }

    /// Cuts a region off so that both sides notice at once.
    pub fn cut_off(&self, name: &str) {
        for wire in self.wires_of(name) {
            wire.cut();
            wire.reset();
        }
    }

    /// Lets everything through again.
    pub fn heal(&self, name: &str) {
        for wire in self.wires_of(name) {
            wire.heal();
        }
    }

    fn wires_of(&self, name: &str) -> Vec<LinkHandle> {
        let of = |wire: &LinkHandle| wire.name().split(' ').any(|end| end == name);
        self.wan.links().into_iter().filter(of).collect()
    }

    /// Waits until every region reaches every other.
    pub fn linked(&self) {
        self.each_pair("all links to be up", |region, other| region.reaches(other));
    }

    /// Waits until every region knows that every other holds everything.
    pub fn level(&self) {
        self.each_pair("all regions to be level", |region, other| {
            region.reaches(other) && region.is_level_with(other)
        });
    }

    fn each_pair(&self, what: &str, holds: impl Fn(&Region, &str) -> bool) {
        until(what, || {
            self.regions.values().all(|region| {
                let mut others = self.regions.keys().filter(|name| *name != region.name());
                others.all(|other| holds(region, other))
            })
        });
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).expect("it can be made");
    for entry in fs::read_dir(from).expect("it can be listed") {
        let entry = entry.expect("it can be listed");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("it is there").is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("it can be copied");
        }
    }
}

fn pair(one: &str, other: &str) -> String {
    let (one, other) = if one < other { (one, other) } else { (other, one) };
    format!("{one} {other}")
}

/// Regions that are not far from each other: tests are about what happens, not about how long it takes.
fn conditions() -> Conditions {
    Conditions::both(Way { latency_ms: 10, ..Way::default() })
}
