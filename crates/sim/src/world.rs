//! The world: everything there is, one clock, one list of what comes next.

use std::collections::BTreeMap;
use std::time::Duration;

use model::DocumentId;

use crate::Options;
use crate::client::Client;
use crate::hostile::Hostile;
use crate::judge::{Judge, Law};
use crate::network::{Dialler, Link, LinkId, Pipe, Toward};
use crate::node_host::Node;
use crate::plan::{Fault, Plan};
use crate::planted::Planter;
use crate::regions::Regions;
use crate::rng::Rng;
use crate::trace::{Trace, describe, describe_lane};

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Due {
    /// The next frame of a connection arrives.
    Arrives {
        link: LinkId,
        toward: Toward,
    },
    /// One end learns that the connection is gone.
    Notices {
        link: LinkId,
        toward: Toward,
    },
    /// The node looks whether a peer is alive and reads.
    Pings {
        link: LinkId,
    },
    ShardRuns {
        node: usize,
        life: u64,
        shard: usize,
    },
    /// A commit is on the disk.
    CommitReaches {
        node: usize,
        life: u64,
    },
    /// The committer hears so.
    CommitReturns {
        node: usize,
        life: u64,
    },
    ArchiveIsDone {
        node: usize,
        life: u64,
        shard: usize,
        job: node::JobId,
        result: Box<node::ArchiveResult>,
        took: Duration,
    },
    NodeStarts {
        node: usize,
    },
    Dials {
        client: usize,
    },
    Acts {
        client: usize,
    },
    Speaks {
        client: usize,
        document: usize,
    },
    HostileDials {
        hostile: usize,
    },
    HostileActs {
        hostile: usize,
        link: LinkId,
    },
    Strikes,
    /// A node tries to open a lane to another region.
    RegionDials {
        node: usize,
        life: u64,
        peer: usize,
        lane: mesh::Lane,
    },
    /// It hears whether somebody is there. `cut`: nothing passed when it asked.
    RegionAnswers {
        node: usize,
        life: u64,
        peer: usize,
        lane: mesh::Lane,
        cut: bool,
    },
    /// A connection between regions has to be proved by now.
    LaneProves {
        node: usize,
        life: u64,
        link: LinkId,
    },
    /// A node's link to another region looks around.
    LinkRuns {
        node: usize,
        life: u64,
        peer: usize,
    },
    /// The last region is set up.
    RegionComes,
    /// Two clients under one actor write at the same time.
    Diverge {
        clients: [usize; 2],
        document: usize,
    },
    /// An operator ends a node's process in order.
    Drains {
        node: usize,
    },
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) rng: Rng,
    pub(crate) now: Duration,
    agenda: BTreeMap<(Duration, u64), Due>,
    order: u64,
    pub(crate) trace: Trace,
    pub(crate) judge: Judge,
    pub(crate) planted: Planter,
    pub(crate) nodes: Vec<Node>,
    /// None: there is one region.
    pub(crate) regions: Option<Regions>,
    /// A planted bug holds this back.
    pub(crate) overtaken: Vec<(usize, usize, Option<usize>, mesh::FromShard)>,
    pub(crate) links: BTreeMap<LinkId, Link>,
    last_link: u64,
    pub(crate) clients: Vec<Client>,
    pub(crate) hostiles: Vec<Hostile>,
    pub(crate) documents: Vec<DocumentId>,
    /// Things go wrong, and clients do things of their own accord.
    pub(crate) chaos: bool,
    /// Frames put on their way by anyone, `join` and `peer` apart.
    pub(crate) frames: u64,
    pub(crate) last_frame_at: Duration,
    pub(crate) tally: BTreeMap<&'static str, u64>,
}

impl World {
    pub(crate) fn new(seed: u64, options: Options) -> Self {
        let Options { regions, log, planted, mishap } = options;
        let mut rng = Rng::new(seed);
        let mut plan = if regions { Plan::of_regions(&mut rng) } else { Plan::of(&mut rng) };
        if let Some(planted) = planted {
            planted.adapt(&mut plan);
        }
        if let Some(mishap) = mishap {
            plan.suffer(mishap);
        }
        let documents = (0..plan.documents).map(|index| {
            let mut bytes = rng.bytes(16);
            // So that logs can name a document by one byte.
            bytes[0] = index as u8;
            DocumentId::from_bytes(&bytes).expect("16 bytes are an id")
        });
        let documents = documents.collect();
        let nodes = plan.nodes;
        let regions = plan.mesh.as_ref().map(|mesh| Regions::new(mesh, nodes, &mut rng));
        let mut world = Self {
            regions,
            overtaken: Vec::new(),
            judge: Judge::new(plan.nodes),
            planted: Planter::new(planted),
            nodes: (0..plan.nodes).map(|_| Node::new()).collect(),
            clients: Vec::new(),
            hostiles: Vec::new(),
            links: BTreeMap::new(),
            last_link: 0,
            now: Duration::ZERO,
            agenda: BTreeMap::new(),
            order: 0,
            trace: Trace::new(log),
            chaos: true,
            frames: 0,
            last_frame_at: Duration::ZERO,
            tally: BTreeMap::new(),
            documents,
            rng,
            plan,
        };
        if log {
            println!("{:#?}", world.plan);
        }
        world.judge.resends = world.plan.has(Fault::Garbled);
        world.judge.all_known = world.members() == world.nodes.len();
        world.judge.log_entries_max = world.plan.limits.log_entries_max;
        world.judge.deaths = world.plan.has(Fault::Forks);
        let losses = [Fault::Restore, Fault::Wiped, Fault::Cloned];
        world.judge.losses = losses.iter().any(|fault| world.plan.has(*fault));
        world.judge.forgotten_deaths = world.judge.deaths && world.judge.losses;
        world.begin();
        world
    }

    fn begin(&mut self) {
        let members = self.members();
        for node in 0..members {
            self.start_node(node);
        }
        if members < self.nodes.len() {
            let after = self.rng.millis(2000, 8000);
            self.due(after, Due::RegionComes);
        }
        for index in 0..self.plan.clients {
            let client = Client::new(index, index % members, &mut self.rng);
            self.clients.push(client);
            let after = self.rng.millis(0, 3000);
            self.due(after, Due::Dials { client: index });
            self.due(after, Due::Acts { client: index });
        }
        for index in 0..self.plan.hostiles {
            self.hostiles.push(Hostile::new(index, &mut self.rng));
            let after = self.rng.millis(0, 5000);
            self.due(after, Due::HostileDials { hostile: index });
        }
        if !self.plan.faults.is_empty() {
            self.due(self.plan.fault_every, Due::Strikes);
        }
    }

    /// How many nodes there are by now.
    pub(crate) fn members(&self) -> usize {
        self.regions.as_ref().map_or(self.nodes.len(), |regions| regions.members)
    }

    /// Puts something on the list; what is due at the same moment happens in the order of these calls.
    pub(crate) fn due(&mut self, after: Duration, due: Due) {
        self.due_at(self.now + after, due);
    }

    pub(crate) fn due_at(&mut self, at: Duration, due: Due) {
        self.order += 1;
        self.agenda.insert((at.max(self.now), self.order), due);
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    /// Lets everything happen that is due before a moment; stops at the first violation.
    pub(crate) fn run_until(&mut self, until: Duration) {
        while self.judge.violation.is_none()
            && let Some(entry) = self.agenda.first_entry()
            && entry.key().0 <= until
        {
            let ((at, _), due) = entry.remove_entry();
            self.now = at;
            self.judge.now = at;
            self.happens(due);
        }
        self.now = until;
        self.judge.now = until;
    }

    fn happens(&mut self, due: Due) {
        match due {
            Due::Arrives { link, toward } => self.arrives(link, toward),
            Due::Notices { link, toward } => match toward {
                Toward::Node => self.node_notices(link),
                Toward::Dialler => self.hang_up(link),
            },
            Due::Pings { link } => self.ping(link),
            Due::ShardRuns { node, life, shard } if self.lives(node, life) => {
                self.run_shard(node, shard);
            }
            Due::CommitReaches { node, life } if self.lives(node, life) => {
                self.commit_reaches(node)
            }
            Due::CommitReturns { node, life } if self.lives(node, life) => {
                self.commit_returns(node)
            }
            Due::ArchiveIsDone { node, life, shard, job, result, took }
                if self.lives(node, life) =>
            {
                self.archive_is_done(node, shard, job, result, took);
            }
            Due::RegionDials { node, life, peer, lane } if self.lives(node, life) => {
                self.region_dials(node, peer, lane);
            }
            Due::RegionAnswers { node, life, peer, lane, cut } if self.lives(node, life) => {
                self.region_answers(node, peer, lane, cut);
            }
            Due::LaneProves { node, life, link } if self.lives(node, life) => {
                self.lane_proves(node, link);
            }
            Due::LinkRuns { node, life, peer } if self.lives(node, life) => {
                self.run_link(node, peer);
            }
            // Meant for a process that is no more.
            Due::ShardRuns { .. }
            | Due::CommitReaches { .. }
            | Due::CommitReturns { .. }
            | Due::ArchiveIsDone { .. }
            | Due::RegionDials { .. }
            | Due::RegionAnswers { .. }
            | Due::LaneProves { .. }
            | Due::LinkRuns { .. } => {}
            Due::RegionComes => self.region_comes(),
            Due::Diverge { clients, document } => self.diverge(clients, document),
            Due::Drains { node } => self.drain(node),
            Due::NodeStarts { node } => {
                if self.nodes[node].process.is_none() && node < self.members() {
                    self.start_node(node);
                }
            }
            Due::Dials { client } => self.client_dials(client),
            Due::Acts { client } => self.client_acts(client),
            Due::Speaks { client, document } => self.client_speaks(client, document),
            Due::HostileDials { hostile } => self.hostile_dials(hostile),
            Due::HostileActs { hostile, link } => self.hostile_acts(hostile, link),
            Due::Strikes => self.strikes(),
        }
    }

    fn lives(&self, node: usize, life: u64) -> bool {
        self.nodes[node].process.is_some() && self.nodes[node].life == life
    }

    /// Opens a connection, if somebody listens.
    pub(crate) fn dial(&mut self, dialler: Dialler, node: usize) -> Option<LinkId> {
        if self.nodes[node].process.as_ref().is_none_or(|process| process.draining) {
            return None;
        }
        let id = self.next_link();
        let (latency, jitter) = if self.chaos {
            let far = self.plan.latency_ms;
            (self.rng.millis(far / 2, far), self.plan.jitter_ms)
        } else {
            (Duration::from_millis(1), 0)
        };
        let link = Link {
            dialler,
            node,
            dialler_open: true,
            node_open: true,
            broken: false,
            to_node: Pipe::new(latency, jitter),
            to_dialler: Pipe::new(latency, jitter),
        };
        self.links.insert(id, link);
        self.seat(node, id);
        self.due(PING_EVERY, Due::Pings { link: id });
        Some(id)
    }

    pub(crate) fn next_link(&mut self) -> LinkId {
        self.last_link += 1;
        LinkId(self.last_link)
    }

    /// The node's end of a connection notices that it is gone.
    pub(crate) fn node_notices(&mut self, id: LinkId) {
        match self.links.get(&id) {
            Some(link) if link.is_lane() => self.end_lane(link.node, id),
            _ => self.unseat(id),
        }
    }

    /// Puts a frame on its way. False if this end has let go of the connection.
    pub(crate) fn transmit(&mut self, id: LinkId, toward: Toward, frame: Vec<u8>) -> bool {
        let now = self.now;
        let Some(link) = self.links.get_mut(&id) else { return false };
        let (sender_open, receiver_open) = match toward {
            Toward::Node => (link.dialler_open, link.node_open),
            Toward::Dialler => (link.node_open, link.dialler_open),
        };
        if !sender_open {
            return false;
        }
        let way = if toward == Toward::Node { "up" } else { "down" };
        if let Some((from, to)) = link.regions() {
            if let Some(regions) = &mut self.regions {
                regions.frames += 1;
                regions.bytes += frame.len() as u64;
            }
            let ends = [id.0, from as u64, to as u64];
            self.trace.note(now, way, &ends, &frame, || describe_lane(&frame));
        } else {
            self.frames += 1;
            self.last_frame_at = now;
            if self.frames > FRAMES_MAX {
                let what = format!("{FRAMES_MAX} frames and no end");
                self.judge.broken(Law::ConvergedIsSilent, what);
            }
            self.trace.note(now, way, &[id.0], &frame, || describe(&frame));
        }
        // The other end is gone and this one has not noticed: the frame goes nowhere.
        if receiver_open && !link.broken {
            let at = link.pipe(toward).push(now, frame, &mut self.rng);
            self.due_at(at, Due::Arrives { link: id, toward });
        }
        true
    }

    fn arrives(&mut self, id: LinkId, toward: Toward) {
        let now = self.now;
        let Some(link) = self.links.get_mut(&id) else { return };
        let (dialler, node) = (link.dialler, link.node);
        match link.pipe(toward).pop(now) {
            Err(later) => self.due_at(later, Due::Arrives { link: id, toward }),
            Ok(None) => {}
            Ok(Some(frame)) => {
                self.trace.note(now, "arrives", &[id.0, frame.len() as u64], &[], String::new);
                match (toward, dialler) {
                    (Toward::Node, Dialler::Region(other)) => {
                        self.lane_hears(node, id, frame);
                        self.pump_lane(other, id);
                    }
                    (Toward::Dialler, Dialler::Region(other)) => {
                        self.lane_hears(other, id, frame);
                        self.pump_lane(node, id);
                    }
                    (Toward::Node, _) => self.node_hears(node, id, &frame),
                    (Toward::Dialler, Dialler::Client(client)) => self.client_hears(client, &frame),
                    (Toward::Dialler, Dialler::Hostile(hostile)) => {
                        self.hostile_hears(hostile, &frame)
                    }
                }
                if toward == Toward::Dialler && !matches!(dialler, Dialler::Region(_)) {
                    self.pump(id);
                }
            }
        }
    }

    /// The dialler lets go. What it had on its way is lost; the node notices later.
    pub(crate) fn hang_up(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if !std::mem::replace(&mut link.dialler_open, false) {
            return;
        }
        link.to_node.lose();
        link.to_dialler.lose();
        let (dialler, node_open) = (link.dialler, link.node_open);
        self.trace.note(self.now, "hung up", &[id.0], &[], String::new);
        if node_open {
            let after =
                if self.chaos { self.rng.millis(0, 4000) } else { Duration::from_millis(1) };
            self.due(after, Due::Notices { link: id, toward: Toward::Node });
        } else {
            self.links.remove(&id);
        }
        match dialler {
            Dialler::Client(client) => self.client_lost_link(client, id),
            Dialler::Hostile(hostile) => self.hostile_lost_link(hostile, id),
            Dialler::Region(node) => self.lane_lost(node, id),
        }
    }

    /// The node lets go. Frames that it sent before may still arrive; then the dialler notices.
    pub(crate) fn let_go(&mut self, id: LinkId, arrives: bool) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if !std::mem::replace(&mut link.node_open, false) {
            return;
        }
        link.to_node.lose();
        if !arrives {
            link.to_dialler.lose();
        }
        let (open, held) = (link.dialler_open, link.to_dialler.held_until());
        self.trace.note(self.now, "let go", &[id.0], &[], String::new);
        if open {
            let at = self.now.max(if arrives { held } else { Duration::ZERO });
            let after =
                if self.chaos { self.rng.millis(1, 3000) } else { Duration::from_millis(1) };
            self.due_at(at + after, Due::Notices { link: id, toward: Toward::Dialler });
        } else {
            self.links.remove(&id);
        }
    }

    pub(crate) fn broken(&mut self, law: Law, what: String) {
        self.judge.broken(law, what);
    }
}

/// More frames than any run has that does not go round in circles.
const FRAMES_MAX: u64 = 30_000;
/// How often a node looks whether its peers are alive.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(5);
