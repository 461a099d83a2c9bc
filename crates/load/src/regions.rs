//! Several regions of this project's server as processes, linked with each other through a network
//! of our own, whose bytes are counted and whose distance is known.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::runtime::{Builder, Runtime};
use wan::{Conditions, LinkHandle, Wan, Way};

use crate::bench::Bench;
use crate::server::{Server, Usage};
use crate::world::World;

/// The secret of all regions of the bench, which nobody else can reach.
const KEY: &str = "a secret that all regions of the bench share";
/// How long links may take to come up for the first time.
const UP_LIMIT: Duration = Duration::from_secs(30);
/// How often a condition is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A network in a thread of this process.
pub struct Network {
    wan: Wan,
    runtime: Runtime,
}

impl Network {
    /// A network without links.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn new() -> Result<Self, String> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        // Nothing here is left to chance: there is no jitter.
        Ok(Self { wan: Wan::new(0), runtime })
    }

    /// A way to `target` whose bytes are counted.
    ///
    /// # Errors
    /// If there is no socket to be had, or one of that name.
    pub fn link(
        &self,
        name: &str,
        target: SocketAddr,
        latency: Duration,
    ) -> Result<LinkHandle, String> {
        let _inside = self.runtime.enter();
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let link = self.wan.link(name, anywhere, target).map_err(|error| error.to_string())?;
        let latency_ms = u32::try_from(latency.as_millis()).map_err(|error| error.to_string())?;
        let conditions = Conditions::both(Way { latency_ms, ..Way::default() });
        link.set(conditions).map_err(|error| error.to_string())?;
        Ok(link)
    }
}

/// The regions. Dropped in this order: processes first.
pub struct Regions {
    servers: Vec<Server>,
    names: Vec<&'static str>,
    /// By `(who dials, who is dialled)`.
    wires: Vec<((usize, usize), LinkHandle)>,
    network: Network,
}

impl Regions {
    /// Starts regions with empty stores, each linked with all others, `latency` from each other one
    /// way; waits until all links are up.
    ///
    /// # Errors
    /// If one does not start, or a link does not come up.
    pub fn start(bench: &Bench, names: &[&'static str], latency: Duration) -> Result<Self, String> {
        let key = bench.directory().join("mesh.key");
        std::fs::write(&key, KEY).map_err(|error| format!("{}: {error}", key.display()))?;
        let mut regions = Self {
            servers: Vec::new(),
            names: names.to_vec(),
            wires: Vec::new(),
            network: Network::new()?,
        };
        for (at, name) in names.iter().enumerate() {
            let mut config = format!("mesh.key_file = {:?}\n", key.display().to_string());
            for (other, other_name) in names.iter().enumerate().filter(|(other, _)| *other != at) {
                let _ = write!(config, "[[link]]\nname = \"{other_name}\"\n");
                // Each dials those before it.
                if other < at {
                    let target = regions.servers[other].address;
                    let wire_name = format!("{name} {other_name}");
                    let wire = regions.network.link(&wire_name, target, latency)?;
                    let _ = writeln!(config, "url = \"ws://{}\"", wire.listen());
                    regions.wires.push(((at, other), wire));
                }
            }
            let server = bench.region(name, &config).map_err(|why| format!("{name}: {why}"))?;
            regions.servers.push(server);
        }
        let until = Instant::now() + UP_LIMIT;
        while !regions.all_up()? {
            if Instant::now() > until {
                return Err(format!("links are not up after {} s", UP_LIMIT.as_secs()));
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(regions)
    }

    /// Where clients of a region go.
    pub fn address(&self, at: usize) -> SocketAddr {
        self.servers[at].address
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.servers.len()
    }

    /// The network, for more ways through it.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Cuts two regions off from each other, so that both notice at once.
    pub fn cut(&self, one: usize, other: usize) {
        let wire = self.wire(one, other);
        wire.cut();
        wire.reset();
    }

    /// Undoes it.
    pub fn heal(&self, one: usize, other: usize) {
        self.wire(one, other).heal();
    }

    /// How many bytes one region has put on the wire to another, in all: everything that is said in
    /// TCP, so WebSocket frames and upgrades too.
    pub fn wire_bytes(&self, from: usize, to: usize) -> u64 {
        let stats = self.wire(from, to).stats();
        // The later one has dialled.
        if from > to { stats.there.taken_bytes } else { stats.back.taken_bytes }
    }

    fn wire(&self, one: usize, other: usize) -> &LinkHandle {
        let ends = (one.max(other), one.min(other));
        let wire = self.wires.iter().find(|(wire, _)| *wire == ends);
        &wire.expect("all regions are linked with each other").1
    }

    /// What a region says of its link to another.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn link(&self, at: usize, other: usize) -> Result<LinkFigures, String> {
        let links = mesh_view(self.address(at))?;
        let name = self.names[other];
        links.into_iter().find(|link| link.region == name).ok_or(format!("no link to {name}"))
    }

    /// One of the figures that a region has for Prometheus, without labels.
    ///
    /// # Errors
    /// If it does not answer, or has no such figure.
    pub fn figure(&self, at: usize, name: &str) -> Result<u64, String> {
        let text = get(self.address(at), "/metrics")?;
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        let mut values = lines.filter(|(found, _)| *found == name).map(|(_, value)| value);
        let value = values.next().and_then(|value| value.trim().parse::<f64>().ok());
        value.map(|value| value as u64).ok_or(format!("there is no figure {name}"))
    }

    /// What all processes together have used.
    pub fn usage(&self) -> Usage {
        let mut total = Usage::default();
        for usage in self.servers.iter().map(Server::usage) {
            total.cpu += usage.cpu;
            total.rss += usage.rss;
            total.children_rss += usage.children_rss;
        }
        total
    }

    /// Whether every region holds what was handed in at every other, and every link is up.
    ///
    /// # Errors
    /// If one does not answer.
    pub fn are_level(&self) -> Result<bool, String> {
        self.all_links(|link| link.is_up() && link.lag_changes == 0)
    }

    /// Asks all regions, again and again, how their links are, from a thread of its own: asking takes
    /// time that clients do not have.
    pub fn watch(&self, every: Duration) -> Watch {
        let addresses: Vec<_> = self.servers.iter().map(|server| server.address).collect();
        let (samples, received) = channel();
        thread::spawn(move || {
            loop {
                let began = Instant::now();
                for (at, address) in addresses.iter().enumerate() {
                    let Ok(links) = mesh_view(*address) else { continue };
                    let sample = Sample { when: Instant::now(), at, links };
                    // Nobody listens any more.
                    if samples.send(sample).is_err() {
                        return;
                    }
                }
                thread::sleep(every.saturating_sub(began.elapsed()));
            }
        });
        Watch { received }
    }

    fn all_up(&self) -> Result<bool, String> {
        self.all_links(LinkFigures::is_up)
    }

    fn all_links(&self, holds: impl Fn(&LinkFigures) -> bool) -> Result<bool, String> {
        for at in 0..self.count() {
            let links = mesh_view(self.address(at))?;
            if links.len() + 1 < self.count() || !links.iter().all(&holds) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What a region says of one of its links; more is said than is read here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct LinkFigures {
    /// The region at the other end.
    pub region: String,
    /// Since when it is up.
    pub up_seconds: Option<f64>,
    /// How many changes of here are not known to be durable there.
    pub lag_changes: u64,
    /// For how long the oldest of them waits.
    pub lag_seconds: f64,
    /// The lane for what people wait for.
    pub live: LaneFigures,
    /// The other one.
    pub bulk: LaneFigures,
    /// Changes sent.
    pub entries_out: u64,
    /// What those have as bytes.
    pub raw_bytes_out: u64,
    /// What was sent for them.
    pub coded_bytes_out: u64,
    /// Documents repaired.
    pub repairs: u64,
}

/// One lane of a link.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct LaneFigures {
    /// How many sockets it has.
    pub sockets: usize,
    /// Bytes of frames received.
    pub bytes_in: u64,
    /// Bytes of frames sent.
    pub bytes_out: u64,
}

impl LinkFigures {
    /// Whether both lanes are there and vectors are told.
    pub fn is_up(&self) -> bool {
        self.up_seconds.is_some() && self.live.sockets > 0 && self.bulk.sockets > 0
    }

    /// Bytes of frames, both ways, on both lanes.
    pub fn frame_bytes(&self) -> u64 {
        self.live.bytes_in + self.live.bytes_out + self.bulk.bytes_in + self.bulk.bytes_out
    }
}

/// What a watcher was told.
pub struct Sample {
    /// When the answer was there.
    pub when: Instant,
    /// Which region.
    pub at: usize,
    /// Its links.
    pub links: Vec<LinkFigures>,
}

/// A thread that asks; it ends when this is dropped.
pub struct Watch {
    received: Receiver<Sample>,
}

impl Watch {
    /// What was heard since the last call.
    ///
    /// # Errors
    /// If the thread has died.
    pub fn heard(&self) -> Result<Vec<Sample>, String> {
        let mut samples = Vec::new();
        loop {
            match self.received.try_recv() {
                Ok(sample) => samples.push(sample),
                Err(TryRecvError::Empty) => return Ok(samples),
                Err(TryRecvError::Disconnected) => return Err("the watcher has died".to_owned()),
            }
        }
    }
}

/// Serves clients until something holds.
///
/// # Errors
/// If it does not within `limit`; `what` says what it is. If a client failed.
pub fn wait(
    world: &mut World,
    what: &str,
    limit: Duration,
    mut holds: impl FnMut() -> Result<bool, String>,
) -> Result<Duration, String> {
    let began = Instant::now();
    while !holds()? {
        if began.elapsed() > limit {
            return Err(format!("{what}: not after {} s", limit.as_secs()));
        }
        world.run_until(Instant::now() + LOOK_EVERY)?;
    }
    Ok(began.elapsed())
}

fn mesh_view(address: SocketAddr) -> Result<Vec<LinkFigures>, String> {
    #[derive(Deserialize)]
    struct View {
        links: Vec<LinkFigures>,
    }
    let body = get(address, "/v1/mesh")?;
    let view: View = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
    Ok(view.links)
}

fn get(address: SocketAddr, path: &str) -> Result<String, String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| format!("GET {path}: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(format!("GET {path}: no answer"))?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(format!("GET {path}: {}", head.lines().next().unwrap_or_default())),
    }
}
