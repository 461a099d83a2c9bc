//! Between links and shards: what each says is carried to the other.

use std::time::Duration;

use mesh::link::{self, CloseReason, To};
use mesh::{FromShard, ToShard};
use model::RegionName;
use node::Event;

use super::{Mesh, index, number, short};
use crate::judge::Law;
use crate::network::LinkId;
use crate::plan::Fault;
use crate::planted::Planted;
use crate::world::{Due, World};

impl World {
    pub(crate) fn mesh(&mut self, node: usize) -> Option<&mut Mesh> {
        self.nodes[node].process.as_mut().and_then(|process| process.mesh.as_mut())
    }

    /// Gives an event to a link, which takes it in a little later.
    pub(super) fn tell_link(&mut self, node: usize, peer: usize, event: link::Event) {
        let after = Duration::from_micros(self.rng.next() % 300);
        if let Some(peer) = self.mesh(node).and_then(|mesh| mesh.peers.get_mut(&peer)) {
            peer.inbox.push_back(event);
        }
        self.wake_link(node, peer, self.now + after);
    }

    fn wake_link(&mut self, node: usize, number: usize, at: Duration) {
        let life = self.nodes[node].life;
        let Some(peer) = self.mesh(node).and_then(|mesh| mesh.peers.get_mut(&number)) else {
            return;
        };
        if peer.wakes_at.is_none_or(|before| at < before) {
            peer.wakes_at = Some(at);
            self.due_at(at, Due::LinkRuns { node, life, peer: number });
        }
    }

    /// One turn of a link's task.
    pub(crate) fn run_link(&mut self, node: usize, number: usize) {
        let (now, clock) = (self.now, self.nodes[node].clock(self.now).running);
        let started = now - clock;
        let Some(peer) = self.mesh(node).and_then(|mesh| mesh.peers.get_mut(&number)) else {
            return;
        };
        if peer.wakes_at != Some(now) {
            return;
        }
        peer.wakes_at = None;
        while let Some(event) = peer.inbox.pop_front() {
            peer.link.handle(clock, event);
        }
        peer.link.tick(clock);
        let mut effects = Vec::new();
        while let Some(effect) = peer.link.poll_effect() {
            effects.push(effect);
        }
        let next = peer.link.poll_timeout().map(|at| started + at);
        let up = peer.link.is_up();
        let turned = std::mem::replace(&mut peer.up, up) != up;
        for effect in effects {
            self.link_wants(node, number, effect);
        }
        if turned {
            self.reachable(node, number, up);
        }
        if let Some(next) = next {
            self.wake_link(node, number, next.max(now + Duration::from_micros(1)));
        }
    }

    /// A link went up or down: the others may be asked for what it brought.
    fn reachable(&mut self, node: usize, number: usize, up: bool) {
        self.trace.note(self.now, "link", &[node as u64, number as u64], &[], || {
            if up { "up" } else { "down" }.to_owned()
        });
        self.count(if up { "links up" } else { "links down" });
        let Some(mesh) = self.mesh(node) else { return };
        let others: Vec<usize> = mesh.peers.keys().copied().filter(|o| *o != number).collect();
        for other in others {
            let event = link::Event::Reachable { region: super::name(number), up };
            self.tell_link(node, other, event);
        }
    }

    fn link_wants(&mut self, node: usize, number: usize, effect: link::Effect) {
        match effect {
            link::Effect::Send { socket, frame } => {
                let id = LinkId(socket.0);
                let Some(lane) = self.mesh(node).and_then(|mesh| mesh.lanes.get_mut(&id)) else {
                    return;
                };
                if lane.in_flight > LANE_BYTES_MAX {
                    let what = format!("{} bytes wait for {id:?}, and more", lane.in_flight);
                    return self.broken(Law::MemoryIsBounded, what);
                }
                lane.in_flight += frame.len();
                if let Some((VECTOR, bytes)) = lane.note(&frame)
                    && let Some(regions) = &mut self.regions
                {
                    regions.vectors.insert((node, number), bytes);
                }
                self.lane_sends(node, id, frame);
            }
            link::Effect::Close { socket, reason } => self.link_closes(node, socket, &reason),
            link::Effect::ToShard { to, message } => self.link_says(node, number, to, message),
            link::Effect::Report(report) => {
                self.trace.note(
                    self.now,
                    "link reports",
                    &[node as u64, number as u64],
                    &[],
                    || format!("{report:?}"),
                );
                if let link::Report::Skipped { inbound: true, .. } = report {
                    self.count("entries let go of before they came");
                }
            }
        }
    }

    fn link_closes(&mut self, node: usize, socket: link::SocketId, reason: &CloseReason) {
        let id = LinkId(socket.0);
        self.trace.note(self.now, "link closes", &[node as u64, id.0], &[], || reason.to_string());
        self.count("lanes closed");
        // Two honest regions have no reason to complain, unless the network lies.
        if !self.plan.has(Fault::Garbled) && reason.blames_peer() {
            let what = format!("region {node} complains of another: {reason}");
            self.broken(Law::RegionsUnderstand, what);
        }
        self.end_lane(node, id);
    }

    /// A link has something for shards.
    fn link_says(&mut self, node: usize, number: usize, to: To, message: ToShard) {
        self.trace.note(self.now, "to shard", &[node as u64, number as u64], &[], || {
            format!("{to:?} {}", describe_to(&message))
        });
        self.note_news(!matches!(message, ToShard::Root { .. } | ToShard::Holds { .. }));
        match &message {
            ToShard::Up => self.judge.link_came_up(number, node),
            ToShard::Holds { log, sequence } => self.judge.claimed(number, log, *sequence),
            ToShard::Take { lane, log, first, entries, credit } => {
                if let Some(peer) = self.mesh(node).and_then(|mesh| mesh.peers.get_mut(&number)) {
                    let held = &mut peer.credit[index(*lane)];
                    *held += credit;
                    if *held > CREDIT_MAX[index(*lane)] {
                        let what = format!("{held} bytes of a link wait for shards, and more come");
                        self.broken(Law::MemoryIsBounded, what);
                    }
                }
                let quiet = self.plan.faults.is_empty();
                self.judge.arrived(number, node, log, *first, entries, quiet);
                self.count("entries arrived");
                if self.planted.strikes(Planted::LosesEntries, &mut self.rng, 10) {
                    return;
                }
            }
            _ => {}
        }
        let shards = match to {
            To::Every => 0..self.plan.shards,
            To::Shard(shard) => shard..shard + 1,
        };
        for shard in shards {
            let (region, message) = (super::name(number), message.clone());
            self.tell_shard(node, shard, Event::Region { region, message });
        }
    }

    /// A shard has something for one link, or for all.
    pub(crate) fn shard_says(
        &mut self,
        node: usize,
        shard: usize,
        to: Option<RegionName>,
        message: FromShard,
    ) {
        self.trace.note(self.now, "from shard", &[node as u64, shard as u64], &[], || {
            format!("to {to:?}: {}", describe_from(&message))
        });
        let news = !matches!(message, FromShard::Root { .. } | FromShard::Held { .. });
        self.note_news(news);
        let to = to.as_ref().and_then(number);
        match &message {
            FromShard::Published { log, first, entries } => {
                let quiet = self.plan.faults.is_empty();
                self.judge.published(node, log, *first, entries, quiet);
                self.count("entries published");
            }
            FromShard::Entries { log, first, entries, .. } => {
                self.judge.given(node, log, *first, entries);
            }
            FromShard::Vector { held, forgotten } => {
                if let Some(peer) = to {
                    self.judge.vector_told(peer, node, held, forgotten);
                }
            }
            FromShard::Forgotten { .. } => self.count("logs forgotten"),
            FromShard::Held { log, mark } => self.judge.held(node, log, mark),
            FromShard::Taken { lane, credit } => {
                if let Some(peer) =
                    to.and_then(|to| self.mesh(node).and_then(|mesh| mesh.peers.get_mut(&to)))
                {
                    let held = &mut peer.credit[index(*lane)];
                    *held = held.saturating_sub(*credit);
                }
            }
            FromShard::Trimmed { .. } => self.count("trimmed"),
            FromShard::Diverged { .. } => self.count("diverged"),
            FromShard::Sync { .. } => self.count("repairs"),
            FromShard::Presence { .. } => self.count("presence between regions"),
            _ => {}
        }
        let presence = matches!(message, FromShard::Presence { .. });
        if presence && self.planted.strikes(Planted::ShufflesPresence, &mut self.rng, 20) {
            self.overtaken.push((node, shard, to, message));
            return;
        }
        self.shard_tells(node, shard, to, &message);
        if presence {
            for (node, shard, to, message) in std::mem::take(&mut self.overtaken) {
                self.shard_tells(node, shard, to, &message);
            }
        }
    }

    fn shard_tells(&mut self, node: usize, shard: usize, to: Option<usize>, message: &FromShard) {
        let peers: Vec<usize> = match (to, self.mesh(node)) {
            (Some(peer), _) => vec![peer],
            (None, Some(mesh)) => mesh.peers.keys().copied().collect(),
            (None, None) => Vec::new(),
        };
        for peer in peers {
            self.tell_link(node, peer, link::Event::Shard { shard, message: message.clone() });
        }
    }

    fn note_news(&mut self, news: bool) {
        if let Some(regions) = &mut self.regions
            && news
        {
            regions.last_news_at = self.now;
        }
    }

    /// What keeps the links of the world from being whole, if anything does.
    pub(crate) fn links_are_whole(&mut self) -> Result<(), String> {
        let members = self.regions.as_ref().map_or(0, |regions| regions.members);
        for node in 0..members {
            match self.mesh(node) {
                Some(mesh) if mesh.peers.len() + 1 == members && mesh.is_whole() => {}
                Some(mesh) => return Err(format!("region {node} has only {}", mesh.describe())),
                None => return Err(format!("region {node} is down")),
            }
        }
        Ok(())
    }
}

/// How a frame begins that tells a vector.
const VECTOR: u8 = 0;
/// What a link may have on its way to a socket: its own bound, and one frame more.
const LANE_BYTES_MAX: usize = 4 << 20;
/// What may wait for shards: the credit that a link gives, by lane.
const CREDIT_MAX: [usize; 2] =
    [link::window(mesh::Lane::Live) as usize, link::window(mesh::Lane::Bulk) as usize];

fn describe_to(message: &ToShard) -> String {
    match message {
        ToShard::Take { log, first, entries, lane, .. } => {
            format!("take {} from {first}: {} ({lane:?})", short(log), entries.len())
        }
        ToShard::Read { log, from, lane, .. } => {
            format!("read {} from {from} ({lane:?})", short(log))
        }
        ToShard::Holds { log, sequence } => format!("peer holds {} to {sequence}", short(log)),
        other => format!("{other:?}"),
    }
}

fn describe_from(message: &FromShard) -> String {
    match message {
        FromShard::Published { log, first, entries } => {
            format!("published {} from {first}: {}", short(log), entries.len())
        }
        FromShard::Entries { log, first, entries, .. } => {
            format!("entries {} from {first}: {}", short(log), entries.len())
        }
        FromShard::Held { log, mark } => format!("held {} to {}", short(log), mark.sequence),
        FromShard::Vector { held, forgotten } => {
            let marks: Vec<String> = held
                .iter()
                .map(|(log, mark)| format!("{} {}", short(log), mark.sequence))
                .collect();
            format!("vector {marks:?}, {} forgotten", forgotten.len())
        }
        other => format!("{other:?}"),
    }
}
