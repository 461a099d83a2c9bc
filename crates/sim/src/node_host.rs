//! One node: its disk, and the process on it while it runs.
//!
//! This is the shell of `server`, on a virtual clock: shards take events in and let go of effects,
//! one committer gathers batches in the order they came, the archive does its jobs elsewhere, and
//! each socket has frames waiting and gives room back in pieces.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use model::{PeerId, StorageId};
use node::{BatchId, Event, Identity, Inbox, Limits, Lobby, MeshSetup, Now, SessionId, Shard};
use store::{DiskImage, MemoryDisk, MemoryStore, Write};

use crate::network::LinkId;
use crate::regions::{self, Mesh, Regions};

/// How many batches of one shard may be on their way before it takes nothing more in.
pub(crate) const BATCHES_UNDER_WAY_MAX: usize = 4;
/// How many writes are gathered into one commit.
const WRITES_MAX: usize = 64;
/// How many frames may wait for one socket.
pub(crate) const FRAMES_MAX: usize = 8192;

/// A machine in a rack: what is left when the process is gone.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) disk: MemoryDisk,
    /// Counts processes, so that what was meant for an earlier one is dropped.
    pub(crate) life: u64,
    pub(crate) process: Option<Process>,
    /// Taken now and then, as an operator does.
    pub(crate) backups: Vec<DiskImage>,
    /// What the clock shows more, or less, than the true time. In milliseconds.
    pub(crate) skew_ms: i64,
    /// What is drawn anew for each process that starts.
    pub(crate) epoch: u64,
    /// A fault waits for the next commit.
    pub(crate) armed: bool,
    /// The disk has lied, and will until the next crash.
    pub(crate) lying: bool,
    /// Commits take this much longer until then.
    pub(crate) slow_until: Duration,
    /// The archive has no process for anyone until then.
    pub(crate) archive_away_until: Duration,
}

/// A running server.
pub(crate) struct Process {
    pub(crate) me: Identity,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) started: Duration,
    pub(crate) lobby: Lobby,
    pub(crate) shards: Vec<Host>,
    pub(crate) seats: BTreeMap<LinkId, Seat>,
    pub(crate) links: BTreeMap<SessionId, LinkId>,
    pub(crate) last_session: u64,
    pub(crate) committer: Committer,
    pub(crate) mesh: Option<Mesh>,
    /// It ends when everything taken in is durable, and lets nobody in any more.
    pub(crate) draining: bool,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Process({} seats)", self.seats.len())
    }
}

/// One shard and what waits for it.
pub(crate) struct Host {
    pub(crate) shard: Shard,
    pub(crate) inbox: Inbox,
    /// Answers of the committer and the archive come first, however full the inbox is.
    pub(crate) answered: VecDeque<Event>,
    pub(crate) under_way: usize,
    pub(crate) wakes_at: Option<Duration>,
}

/// A connection as the process sees it.
#[derive(Debug)]
pub(crate) struct Seat {
    /// Before `join` there is neither.
    pub(crate) session: Option<(SessionId, PeerId)>,
    pub(crate) outbox: VecDeque<Outgoing>,
    /// Written to the network and not yet told to the shard, per shard.
    pub(crate) written: Vec<usize>,
    /// Given by the shard and not yet told to be written: what the judge counts, per shard.
    pub(crate) in_flight: Vec<usize>,
    /// When the peer was last known to be alive, and when a write last went on.
    pub(crate) heard_at: Duration,
    pub(crate) wrote_at: Duration,
    /// It said something that no honest peer says, and is to be closed because of it by then.
    pub(crate) guilty_by: Option<Duration>,
}

/// What a socket is to do.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Frame { shard: usize, frame: Vec<u8> },
    Close { reason: String, peers_fault: bool },
}

/// Gathers batches and has at most one commit under way.
#[derive(Debug, Default)]
pub(crate) struct Committer {
    pub(crate) waiting: VecDeque<Submission>,
    pub(crate) under_way: Vec<(usize, BatchId)>,
    pub(crate) writes: Vec<Write>,
}

#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) shard: usize,
    pub(crate) batch: BatchId,
    pub(crate) writes: Vec<Write>,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self {
            disk: MemoryDisk::new(),
            life: 0,
            process: None,
            backups: Vec::new(),
            skew_ms: 0,
            epoch: 0,
            armed: false,
            lying: false,
            slow_until: Duration::ZERO,
            archive_away_until: Duration::ZERO,
        }
    }

    /// Starts the process on whatever the disk holds, with an epoch that has been drawn for it.
    pub(crate) fn start(
        &mut self,
        index: usize,
        shards: usize,
        limits: &Limits,
        regions: Option<&Regions>,
        now: Duration,
    ) {
        self.life += 1;
        let me = Identity {
            peer: PeerId::new(&format!("node-{index}")).expect("a short name"),
            storage: StorageId::new(&format!("store-{index}")).expect("a short name"),
        };
        let store = Arc::new(self.disk.open());
        let setup = |shard| {
            let members = 0..regions?.members;
            Some(MeshSetup {
                region: regions::name(index),
                epoch: self.epoch,
                regions: members.filter(|other| *other != index).map(regions::name).collect(),
                salt: regions?.salt,
                shard,
                shards,
            })
        };
        let mesh = regions
            .map(|regions| Mesh::new(index, self.epoch, me.storage.clone(), shards, regions));
        let shard = |shard: usize| {
            let (me, limits, store) = (me.clone(), limits.clone(), store.clone());
            match setup(shard) {
                // Opening reads what no fault of this world damages.
                Some(setup) => Shard::in_mesh(me, limits, store, setup).expect("rows of a mesh"),
                None => Shard::new(me, limits, store),
            }
        };
        let shards = (0..shards).map(|index| Host {
            shard: shard(index),
            inbox: Inbox::default(),
            answered: VecDeque::new(),
            under_way: 0,
            wakes_at: None,
        });
        self.process = Some(Process {
            shards: shards.collect(),
            me,
            store,
            started: now,
            lobby: Lobby::default(),
            seats: BTreeMap::new(),
            links: BTreeMap::new(),
            last_session: 0,
            committer: Committer::default(),
            mesh,
            draining: false,
        });
    }

    /// What the node's clocks show at a moment of the world's time.
    pub(crate) fn clock(&self, now: Duration) -> Now {
        let started = self.process.as_ref().map_or(now, |process| process.started);
        let wall_ms = 1_700_000_000_000 + now.as_millis() as i64 + self.skew_ms;
        Now { running: now - started, wall_ms: wall_ms.max(0) as u64 }
    }
}

impl Committer {
    /// Takes what goes into the next commit, unless one is under way.
    pub(crate) fn begin(&mut self) -> bool {
        if !self.under_way.is_empty() {
            return false;
        }
        while self.writes.len() < WRITES_MAX || self.under_way.is_empty() {
            let Some(next) = self.waiting.pop_front() else { break };
            self.writes.extend(next.writes);
            self.under_way.push((next.shard, next.batch));
        }
        !self.under_way.is_empty()
    }
}

impl Seat {
    pub(crate) fn new(shards: usize, now: Duration) -> Self {
        Self {
            session: None,
            outbox: VecDeque::new(),
            written: vec![0; shards],
            in_flight: vec![0; shards],
            heard_at: now,
            wrote_at: now,
            guilty_by: None,
        }
    }
}
