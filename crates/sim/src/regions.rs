//! Several regions: who dials whom, what lies between them, and the part of a node's shell that
//! holds its links.
//!
//! Each node has one [`mesh::link::Link`] for each other region that it is configured for, and up to
//! two connections under it. What a link wants and what shards say to it is carried here, as
//! `server` carries it.

mod dialling;
mod linking;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mesh::handshake::{Handshake, Key, Me};
use mesh::link::{self, Link, SocketId};
use mesh::{Lane, LogId};
use model::{RegionName, StorageId};

use crate::network::LinkId;
use crate::plan::MeshPlan;
use crate::rng::Rng;

/// The regions of a run, by number.
const NAMES: [&str; 8] = ["ams", "iad", "gru", "nrt", "syd", "jnb", "bom", "yyz"];

/// What a region is called.
pub(crate) fn name(node: usize) -> RegionName {
    RegionName::new(NAMES[node]).expect("a short name")
}

/// Which region is called so.
pub(crate) fn number(name: &RegionName) -> Option<usize> {
    NAMES.iter().position(|known| *known == name.as_str())
}

/// What lies between the regions.
#[derive(Debug)]
pub(crate) struct Regions {
    pub(crate) plan: MeshPlan,
    /// How many there are by now.
    pub(crate) members: usize,
    /// What the items of the audit are salted with.
    pub(crate) salt: u64,
    limits: link::Limits,
    one_way: Vec<Vec<Duration>>,
    dials: Vec<Vec<bool>>,
    /// Nothing passes from one to another before this.
    cut_until: Vec<Vec<Duration>>,
    /// Frames between regions, and their bytes.
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    /// How many bytes the last vector took that a region told another.
    pub(crate) vectors: BTreeMap<(usize, usize), usize>,
    /// When a shard and a link last spoke of something else than whether all is well.
    pub(crate) last_news_at: Duration,
}

impl Regions {
    pub(crate) fn new(plan: &MeshPlan, nodes: usize, rng: &mut Rng) -> Self {
        let none = || vec![vec![Duration::ZERO; nodes]; nodes];
        let (mut one_way, mut dials) = (none(), vec![vec![false; nodes]; nodes]);
        let (least, most) = plan.one_way_ms;
        for a in 0..nodes {
            for b in 0..a {
                one_way[a][b] = rng.millis(least, most.max(least));
                one_way[b][a] = one_way[a][b];
                let (both, first) = (rng.percent(plan.both_dial_percent), rng.percent(50));
                dials[a][b] = both || first;
                dials[b][a] = both || !first;
            }
        }
        let limits = link::Limits::default();
        let limits = link::Limits {
            // Frames are small here: with the usual bounds hardly one would go in pieces.
            piece_bytes: (plan.kernel_bytes / 2).min(limits.piece_bytes),
            at_socket_bytes: (plan.kernel_bytes * 2).min(limits.at_socket_bytes),
            ..limits
        };
        Self {
            plan: plan.clone(),
            limits,
            members: nodes - usize::from(plan.one_comes_later),
            salt: rng.next(),
            one_way,
            dials,
            cut_until: none(),
            frames: 0,
            bytes: 0,
            vectors: BTreeMap::new(),
            last_news_at: Duration::ZERO,
        }
    }

    pub(crate) fn one_way(&self, from: usize, to: usize) -> Duration {
        self.one_way[from][to]
    }

    fn dials(&self, from: usize, to: usize) -> bool {
        self.dials[from][to]
    }

    /// When something sent now gets through, if it was sent into nothing.
    fn open_at(&self, from: usize, to: usize) -> Duration {
        self.cut_until[from][to]
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize, until: Duration) {
        let before = &mut self.cut_until[from][to];
        *before = until.max(*before);
    }

    /// Everything passes.
    pub(crate) fn mend(&mut self) {
        self.cut_until.iter_mut().flatten().for_each(|until| *until = Duration::ZERO);
    }
}

/// What a process has of the mesh.
pub(crate) struct Mesh {
    me: Me,
    key: Key,
    /// By the number of the other region.
    pub(crate) peers: BTreeMap<usize, Peer>,
    lanes: BTreeMap<LinkId, Socket>,
}

/// One other region.
pub(crate) struct Peer {
    pub(crate) link: Link,
    inbox: VecDeque<link::Event>,
    wakes_at: Option<Duration>,
    up: bool,
    /// By lane; none if the other side dials.
    dials: Option<[Dial; 2]>,
    /// What came in of each lane and is not durable yet.
    credit: [usize; 2],
}

/// How it goes with one lane that is dialled from here.
#[derive(Debug, Default, Clone, Copy)]
struct Dial {
    failures: u32,
    /// It will be tried at a time that has been fixed, or is being tried.
    under_way: bool,
}

/// One connection.
struct Socket {
    /// The region that it leads to, if it is known who that is.
    peer: Option<usize>,
    /// Which lane, as soon as that is known.
    lane: Option<Lane>,
    dialled: bool,
    /// None: both sides have proved who they are.
    proving: Option<Box<Handshake>>,
    outbox: VecDeque<Vec<u8>>,
    /// Sent by the link and not yet told to be written.
    in_flight: usize,
    /// How the frame begins that goes in pieces, and how many bytes of it have gone.
    in_pieces: Option<(u8, usize)>,
    since: Duration,
}

impl Socket {
    /// A message of the link: how the frame begins that ends with it, and how long that is.
    fn note(&mut self, message: &[u8]) -> Option<(u8, usize)> {
        let (kind, rest) = message.split_first()?;
        if *kind != PIECE && *kind != LAST_PIECE {
            return Some((*kind, message.len()));
        }
        let (begins, bytes) = self.in_pieces.take().or(Some((*rest.first()?, 0)))?;
        let bytes = bytes + rest.len();
        if *kind == LAST_PIECE {
            return Some((begins, bytes));
        }
        self.in_pieces = Some((begins, bytes));
        None
    }
}

/// How messages begin that are pieces of a frame.
const PIECE: u8 = 21;
const LAST_PIECE: u8 = 22;

impl Mesh {
    /// The part of a process that starts: links to every region that it is configured for.
    pub(crate) fn new(
        node: usize,
        epoch: u64,
        storage: StorageId,
        shards: usize,
        regions: &Regions,
    ) -> Self {
        let me = Me { region: name(node), epoch, storage };
        let key = "the secret of all regions of this world".parse().expect("a long key");
        let others = (0..regions.members).filter(|other| *other != node);
        let peers = others.map(|other| {
            let config = link::Config {
                me: me.region.clone(),
                epoch,
                peer: name(other),
                shards,
                salt: regions.salt,
                limits: regions.limits.clone(),
            };
            let peer = Peer {
                link: Link::new(config),
                inbox: VecDeque::new(),
                wakes_at: None,
                up: false,
                dials: regions.dials(node, other).then(Default::default),
                credit: [0; 2],
            };
            (other, peer)
        });
        Self { peers: peers.collect(), me, key, lanes: BTreeMap::new() }
    }

    pub(crate) fn lanes(&self) -> impl Iterator<Item = LinkId> {
        self.lanes.keys().copied()
    }

    /// The connections in words.
    pub(crate) fn describe(&self) -> String {
        let lanes = self.lanes.iter().map(|(id, socket)| {
            let proved = if socket.proving.is_none() { "" } else { "?" };
            format!("{} {:?} to {:?}{proved}", id.0, socket.lane, socket.peer)
        });
        lanes.collect::<Vec<_>>().join(", ")
    }

    /// Whether every link has both of its lanes.
    pub(crate) fn is_whole(&self) -> bool {
        self.peers.iter().all(|(number, peer)| {
            let lanes = self.lanes.values();
            peer.up && lanes.filter(|s| s.proving.is_none() && s.peer == Some(*number)).count() == 2
        })
    }
}

fn socket(id: LinkId) -> SocketId {
    SocketId(id.0)
}

fn index(lane: Lane) -> usize {
    match lane {
        Lane::Live => 0,
        Lane::Bulk => 1,
    }
}

/// What a log is called in traces.
fn short(log: &LogId) -> String {
    format!("{}/{:04x}/{}", log.origin.region, log.origin.epoch >> 48, log.stream)
}
