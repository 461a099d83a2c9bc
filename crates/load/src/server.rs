//! The servers under measurement: how each is started, watched and stopped.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::envelope;
use crate::net::Output;

/// A server to start.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Debug,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// This project's.
    Tributary,
    /// The stock JavaScript one: the newest automerge-repo with its WebSocket and file adapters.
    AutomergeRepo,
    /// The Rust one of the same protocol.
    Samod,
    /// Yjs: Hocuspocus with its SQLite extension.
    Hocuspocus,
}

impl Kind {
    /// All, in the order of the table.
    pub const ALL: [Self; 4] =
        [Self::Tributary, Self::AutomergeRepo, Self::Samod, Self::Hocuspocus];

    /// As it is called in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tributary => "tributary",
            Self::AutomergeRepo => "automerge-repo",
            Self::Samod => "samod",
            Self::Hocuspocus => "hocuspocus",
        }
    }

    /// Whether it speaks Yjs and not Automerge.
    pub fn is_yjs(self) -> bool {
        self == Self::Hocuspocus
    }
}

/// Where the servers' programs are.
pub struct Programs {
    /// The directory of the built binaries.
    pub binaries: PathBuf,
    /// The directory of the Node scripts.
    pub peers: PathBuf,
}

impl Programs {
    fn command(&self, kind: Kind, address: SocketAddr, data: &Path) -> Command {
        let node = |script: &str| {
            let mut command = Command::new("node");
            command.arg(self.peers.join(script)).arg(address.port().to_string()).arg(data);
            command
        };
        match kind {
            Kind::Tributary => {
                let mut command = Command::new(self.binaries.join("tributary"));
                command.args(["serve", "--listen"]).arg(address.to_string());
                command.arg("--data").arg(data);
                command
            }
            Kind::AutomergeRepo => node("automerge-repo.mjs"),
            Kind::Hocuspocus => node("hocuspocus.mjs"),
            Kind::Samod => {
                let mut command = Command::new(self.binaries.join("samod-peer"));
                command.arg(address.to_string()).arg(data);
                command
            }
        }
    }
}

/// What a server is started with beside its address and its data directory.
#[derive(Clone, Copy, Default)]
pub struct Settings<'a> {
    /// Names and values.
    pub environment: &'a [(&'a str, &'a str)],
    /// What follows on the command line.
    pub arguments: &'a [&'a str],
}

/// A running server. It is killed when this is dropped.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// From its start until it answered a client.
    pub start_time: Duration,
}

/// What a process and its children have used, or several of them together.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub rss: u64,
    /// The part of it that is the children's.
    pub children_rss: u64,
}

impl Server {
    /// Starts a server on its data directory, with some settings, and waits until it listens.
    ///
    /// # Errors
    /// If it cannot be started, exits, or does not listen within `limit`.
    pub fn start(
        programs: &Programs,
        kind: Kind,
        data: &Path,
        log: &Path,
        settings: Settings<'_>,
        limit: Duration,
    ) -> Result<Self, String> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(text)?;
        let address = free.local_addr().map_err(text)?;
        drop(free);
        let output = File::options().create(true).append(true).open(log).map_err(text)?;
        let began = Instant::now();
        let child = programs
            .command(kind, address, data)
            .args(settings.arguments)
            .envs(settings.environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(text)?)
            .stderr(output)
            .spawn()
            .map_err(|error| format!("{} does not start: {error}", kind.name()))?;
        let mut server = Self { child, address, start_time: Duration::ZERO };
        while !answers(kind, address) {
            if let Some(status) = server.child.try_wait().map_err(text)? {
                return Err(format!("it stopped at its start with {status}"));
            }
            if began.elapsed() > limit {
                return Err(format!("it does not listen after {} s", limit.as_secs()));
            }
            thread::sleep(Duration::from_millis(1));
        }
        server.start_time = began.elapsed();
        Ok(server)
    }

    /// What the server and its children have used so far.
    pub fn usage(&self) -> Usage {
        usage_of_tree(self.child.id())
    }

    /// Asks the server to stop as an operator would, and waits until it has.
    ///
    /// # Errors
    /// If it does not within `limit`; it is killed then.
    pub fn stop(mut self, limit: Duration) -> Result<(), String> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).map_err(|error| error.to_string())?;
        let began = Instant::now();
        while self.child.try_wait().map_err(text)?.is_none() {
            if began.elapsed() > limit {
                return Err(format!("it does not stop within {} s", limit.as_secs()));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The processor time that this process itself has used so far, without the servers it started.
pub fn own_cpu() -> Duration {
    Stat::read(std::process::id()).map_or(Duration::ZERO, |stat| stat.own_cpu)
}

/// Bytes that the files under a directory take on the disk.
pub fn disk_bytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        // Removed in the meantime.
        Err(_) => 0,
    });
    sizes.sum()
}

/// A server listens once it answers a WebSocket upgrade, and a `join` if its clients say that. The
/// stock JavaScript server takes connections a moment before it hears what they say, and clients of
/// that moment are never answered.
fn answers(kind: Kind, address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        write!(
            stream,
            "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") && answer.len() < 4_096 {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            answer.extend(byte);
        }
        if !answer.starts_with(b"HTTP/1.1 101") {
            return Ok(false);
        }
        if !kind.is_yjs() {
            stream.write_all(&Output::single(&envelope::join("peer-probe")))?;
            stream.read_exact(&mut [0])?;
        }
        Ok(true)
    };
    ask().unwrap_or(false)
}

fn usage_of_tree(root: u32) -> Usage {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        if let Some(stat) = Stat::read(process) {
            children.entry(stat.parent).or_default().push(process);
        }
    }
    let mut usage = Usage::default();
    let mut open = vec![root];
    while let Some(process) = open.pop() {
        if let Some(stat) = Stat::read(process) {
            usage.cpu += stat.cpu;
        }
        let resident = rss(process).unwrap_or(0);
        usage.rss += resident;
        usage.children_rss += if process == root { 0 } else { resident };
        open.extend(children.remove(&process).unwrap_or_default());
    }
    usage
}

struct Stat {
    parent: u32,
    own_cpu: Duration,
    /// Its own and that of its children that have ended.
    cpu: Duration,
}

impl Stat {
    fn read(process: u32) -> Option<Self> {
        let line = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name, in parentheses, may hold anything; the numbers come after it.
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |range: std::ops::Range<usize>| -> Option<u64> {
            fields.get(range)?.iter().map(|field| field.parse::<u64>().ok()).sum()
        };
        let time =
            |ticks| Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second());
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own_cpu: time(ticks(11..13)?),
            cpu: time(ticks(11..15)?),
        })
    }
}

fn rss(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1_024)
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}
