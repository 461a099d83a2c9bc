//! What a seed turns on: each run has other faults, other sizes and other limits (swarm testing).

use std::time::Duration;

use node::Limits;

use crate::Mishap;
use crate::rng::Rng;

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A connection is gone with all that was on its way; both ends notice, one of them late.
    Reset,
    /// Nothing passes in either direction for a while.
    Cut,
    /// Nothing passes in one direction for a while.
    Stall,
    /// A client reads slowly for a while.
    SlowReader,
    /// The node is gone; what was not durable is lost.
    Crash,
    /// The node ends in order, after committing what it has.
    Drain,
    /// A commit finds no space.
    DiskFull,
    /// A commit is refused.
    DiskIo,
    /// A commit fails in its sync and a crash loses it.
    SyncLost,
    /// A commit fails in its sync and is there all the same.
    SyncDone,
    /// Commits take long for a while.
    SlowDisk,
    /// An older backup of the whole store is put in place.
    Restore,
    /// The wall clock jumps.
    Skew,
    /// The archive cannot do its jobs for a while.
    ArchiveAway,
    /// A client's process ends and starts again from what it had saved.
    ClientRestart,
    /// Somebody joins under an honest client's name.
    Impostor,
    /// Nothing passes between two regions for a while, whoever dials.
    RegionsCut,
    /// Nothing passes from one region to another for a while; the other way all is well.
    OneWay,
    /// Nothing passes between one region and all others for a while.
    Isolated,
    /// The regions fall into two groups for a while.
    Split,
    /// A bit of what is on its way between two regions is turned.
    Garbled,
    /// A region starts again with an empty disk.
    Wiped,
    /// A region starts again with a copy of another region's disk.
    Cloned,
    /// One region after the other ends in order and starts again.
    Rolling,
    /// A client goes to another region.
    Roams,
    /// Somebody goes on with a copy of a client's document in another region, under the same actor.
    Forks,
}

impl Fault {
    /// What goes wrong where there is one region.
    const ALL: [Self; 16] = [
        Self::Reset,
        Self::Cut,
        Self::Stall,
        Self::SlowReader,
        Self::Crash,
        Self::Drain,
        Self::DiskFull,
        Self::DiskIo,
        Self::SyncLost,
        Self::SyncDone,
        Self::SlowDisk,
        Self::Restore,
        Self::Skew,
        Self::ArchiveAway,
        Self::ClientRestart,
        Self::Impostor,
    ];

    /// What goes wrong between regions on top of that.
    const BETWEEN: [Self; 9] = [
        Self::RegionsCut,
        Self::OneWay,
        Self::Isolated,
        Self::Split,
        Self::Garbled,
        Self::Wiped,
        Self::Cloned,
        Self::Rolling,
        Self::Roams,
    ];
}

/// What one run is made of.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    pub(crate) shards: usize,
    pub(crate) clients: usize,
    pub(crate) hostiles: usize,
    pub(crate) documents: usize,
    /// How long things go wrong.
    pub(crate) chaos: Duration,
    pub(crate) faults: Vec<Fault>,
    pub(crate) fault_every: Duration,
    pub(crate) limits: Limits,
    /// Room is given back to a shard in pieces of this many bytes.
    pub(crate) written_bytes: usize,
    /// How many bytes the network takes before a socket's writer has to wait.
    pub(crate) kernel_bytes: usize,
    pub(crate) latency_ms: u64,
    pub(crate) jitter_ms: u64,
    pub(crate) commit_ms: (u64, u64),
    pub(crate) archive_ms: (u64, u64),
    pub(crate) habits: Habits,
    /// None: there is one region, and nobody links to it.
    pub(crate) mesh: Option<MeshPlan>,
}

/// What lies between the regions of a run.
#[derive(Debug, Clone)]
pub(crate) struct MeshPlan {
    /// The last region is set up while the others run.
    pub(crate) one_comes_later: bool,
    /// How long a frame travels between two regions; each pair has its own in this range.
    pub(crate) one_way_ms: (u64, u64),
    pub(crate) jitter_ms: u64,
    /// In this many of 100 pairs both dial, in the others one does.
    pub(crate) both_dial_percent: u64,
    /// How many bytes the network takes before a lane's writer has to wait.
    pub(crate) kernel_bytes: usize,
}

/// What the honest clients of a run do.
#[derive(Debug, Clone)]
pub(crate) struct Habits {
    pub(crate) act_every: Duration,
    /// Local edits are spoken of at most this often, as automerge-repo does.
    pub(crate) debounce_ms: u64,
    pub(crate) presence: bool,
    pub(crate) marks: bool,
    /// Some edits are bursts of many changes, made before anyone is told.
    pub(crate) bursts: bool,
    pub(crate) read_only: bool,
    /// A document is closed and opened again inside one connection, older or empty.
    pub(crate) reopen: bool,
    /// A restarted client may have an older copy of its documents, or none.
    pub(crate) forget: bool,
    /// A reconnecting client may have an older sync state, or none.
    pub(crate) stale_state: bool,
    pub(crate) remote_heads: bool,
}

impl Plan {
    pub(crate) fn of(rng: &mut Rng) -> Self {
        let mut faults: Vec<Fault> = Fault::ALL.into_iter().filter(|_| rng.percent(40)).collect();
        // One run in eight is quiet: what goes wrong there goes wrong by itself.
        if rng.percent(12) {
            faults.clear();
        }
        let session_bytes = rng.pick(&[600, 4 << 10, 64 << 10, 256 << 10]);
        let mut limits = Limits {
            session_bytes_in_flight: session_bytes,
            presence_bytes_in_flight: session_bytes / 2,
            acknowledge_after: rng.pick(&[Duration::ZERO, ms(50), ms(400)]),
            rest_per_session: rng.pick(&[Duration::ZERO, Duration::from_micros(40), ms(5)]),
            verify_after: rng.pick(&[ms(100), ms(500), ms(2000)]),
            verify_share: rng.pick(&[1, 20]),
            compact_tail_bytes: rng.pick(&[300, 1500, 64 << 10]),
            retain_bytes: rng.pick(&[0, 600, 4000, 1 << 20]),
            retain_age: rng.pick(&[Duration::ZERO, ms(8000), ms(7 * 24 * 3600 * 1000)]),
            idle_after: rng.pick(&[ms(300), ms(3000), ms(10_000)]),
            memory_bytes: rng.pick(&[0, 20 << 10, 128 << 20]),
            ..Limits::default()
        };
        if limits.memory_bytes == 0 {
            // The archive is behind, too, and logs leave before it has got to them.
            limits.verify_jobs_max = 1;
        }
        Self {
            nodes: 1,
            shards: rng.pick(&[1, 2, 3]),
            clients: 2 + rng.below(4),
            hostiles: if rng.percent(50) { 1 + rng.below(2) } else { 0 },
            documents: 1 + rng.below(4),
            mesh: None,
            chaos: rng.millis(10_000, 35_000),
            faults,
            fault_every: rng.pick(&[ms(1000), ms(3000), ms(8000)]),
            limits,
            written_bytes: session_bytes / 8,
            kernel_bytes: rng.pick(&[500, 4 << 10, 64 << 10]),
            latency_ms: rng.pick(&[0, 1, 20, 120]),
            jitter_ms: rng.pick(&[0, 5, 200]),
            commit_ms: rng.pick(&[(0, 0), (1, 8), (5, 60)]),
            archive_ms: rng.pick(&[(0, 1), (2, 40), (100, 900)]),
            habits: Habits {
                act_every: rng.pick(&[ms(150), ms(300), ms(900)]),
                debounce_ms: rng.pick(&[0, 10, 100]),
                presence: rng.percent(50),
                marks: rng.percent(40),
                bursts: rng.percent(40),
                read_only: rng.percent(25),
                reopen: rng.percent(35),
                forget: rng.percent(50),
                stale_state: rng.percent(50),
                remote_heads: rng.percent(40),
            },
        }
    }

    /// As [`Plan::of`], with three to seven regions.
    pub(crate) fn of_regions(rng: &mut Rng) -> Self {
        let mut plan = Self::of(rng);
        plan.nodes = rng.pick(&[3, 3, 3, 3, 3, 3, 4, 4, 5, 7]);
        plan.clients = plan.nodes + rng.below(3);
        plan.documents = 1 + rng.below(3);
        plan.hostiles = usize::from(rng.percent(20));
        plan.chaos = rng.millis(8_000, 25_000);
        plan.habits.act_every = rng.pick(&[ms(150), ms(300), ms(800)]);
        plan.habits.read_only &= rng.percent(40);
        if !plan.faults.is_empty() {
            // Fewer of those that the other world has, so that there is time for these.
            plan.faults.retain(|_| rng.percent(60));
            plan.faults.extend(Fault::BETWEEN.into_iter().filter(|_| rng.percent(35)));
            // One actor with two histories takes clients that know what they do: only sometimes,
            // and then nobody goes from one region to the other with either of them.
            if rng.percent(15) {
                plan.faults.push(Fault::Forks);
                plan.faults.retain(|fault| !matches!(fault, Fault::Roams | Fault::ClientRestart));
                plan.habits.forget = false;
                plan.habits.reopen = false;
                plan.hostiles = 0;
            }
        }
        if plan.hostiles > 0 {
            // Whether they may show a second history depends on whether a region forgets the first.
            plan.faults.retain(|fault| !matches!(fault, Fault::Wiped | Fault::Cloned));
        }
        let from = rng.pick(&[5, 20, 60]);
        let mesh = MeshPlan {
            one_comes_later: !plan.faults.is_empty() && rng.percent(25),
            one_way_ms: (from, rng.pick(&[from, 150])),
            jitter_ms: rng.pick(&[0, 2, 30]),
            both_dial_percent: rng.pick(&[0, 50, 100]),
            kernel_bytes: rng.pick(&[2 << 10, 64 << 10]),
        };
        // Logs are short here: with the usual bound they would always go in at once.
        plan.limits.bulk_bytes_at_once = mesh.kernel_bytes / 8;
        // And documents small: with the usual bounds each would be repaired with one message.
        plan.limits.repair_part_bytes = mesh.kernel_bytes / 8;
        plan.limits.repair_snapshot_bytes = mesh.kernel_bytes / 2;
        plan.mesh = Some(mesh);
        plan
    }

    /// Makes sure that something happens, and that it is not lost among other things.
    pub(crate) fn suffer(&mut self, mishap: Mishap) {
        self.faults = match mishap {
            Mishap::None => Vec::new(),
            Mishap::Crashes => vec![Fault::Crash],
            Mishap::Cuts | Mishap::ShortLogs => vec![Fault::RegionsCut, Fault::Isolated],
            Mishap::Resets => vec![Fault::Reset, Fault::Reset, Fault::SlowDisk],
            Mishap::Wipes => vec![Fault::Wiped],
            Mishap::Forks => vec![Fault::Forks],
            Mishap::ForksAndWipes => vec![Fault::Forks, Fault::Forks, Fault::Wiped],
            Mishap::Garbles => vec![Fault::Garbled],
            Mishap::Restarts => vec![Fault::Drain, Fault::Crash],
        };
        if mishap == Mishap::ShortLogs {
            self.limits.log_entries_max = SHORT_LOG;
        }
        self.fault_every = ms(700);
        self.hostiles = 0;
        if let Some(mesh) = &mut self.mesh {
            mesh.one_comes_later = false;
        }
        if mishap == Mishap::Restarts {
            // Long enough for some thirty processes of each region, and documents of most streams.
            (self.nodes, self.clients) = (3, 6);
            (self.chaos, self.documents) = (Duration::from_secs(120), 16);
        }
        if self.has(Fault::Forks) {
            (self.habits.forget, self.habits.reopen) = (false, false);
        }
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }
}

/// The entries of a log that is to be too short for whoever is away.
const SHORT_LOG: u64 = 4;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
