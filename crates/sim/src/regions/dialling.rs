//! Connections between regions: dialled, proved, broken, dialled again.

use std::collections::VecDeque;
use std::time::Duration;

use mesh::handshake::Handshake;
use mesh::{Lane, link};

use super::{Socket, index, socket};
use crate::judge::Law;
use crate::network::{Dialler, Link, LinkId, Pipe, Toward};
use crate::plan::Fault;
use crate::world::{Due, World};

/// How long a dialler waits at first, and at most.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MOST: Duration = Duration::from_secs(5);
/// How long it takes to find out that nobody answers.
const UNANSWERED: Duration = Duration::from_secs(3);
/// How long a connection may take to prove who is there.
const PROVED_WITHIN: Duration = Duration::from_secs(10);

const LANES: [Lane; 2] = [Lane::Live, Lane::Bulk];

impl World {
    /// A node has started: it dials whom it is configured to dial.
    pub(crate) fn dial_regions(&mut self, node: usize) {
        let Some(mesh) = self.mesh(node) else { return };
        let dialled: Vec<usize> = (mesh.peers.iter())
            .filter_map(|(number, peer)| peer.dials.is_some().then_some(*number))
            .collect();
        for peer in dialled {
            for lane in LANES {
                let after = self.rng.millis(0, 100);
                self.dial_after(node, peer, lane, after);
            }
        }
    }

    fn dial_after(&mut self, node: usize, peer: usize, lane: Lane, after: Duration) {
        let life = self.nodes[node].life;
        let Some(mesh) = self.mesh(node) else { return };
        let dial = mesh.peers.get_mut(&peer).and_then(|peer| peer.dials.as_mut());
        if let Some(dial) = dial.map(|dials| &mut dials[index(lane)])
            && !std::mem::replace(&mut dial.under_way, true)
        {
            self.due(after, Due::RegionDials { node, life, peer, lane });
        }
    }

    /// After a failure: twice as long as the last time, and not at the same moment as others.
    fn dial_again(&mut self, node: usize, peer: usize, lane: Lane) {
        let Some(mesh) = self.mesh(node) else { return };
        let dial = mesh.peers.get_mut(&peer).and_then(|peer| peer.dials.as_mut());
        let Some(dial) = dial.map(|dials| &mut dials[index(lane)]) else { return };
        let wait = RETRY_MOST.min(RETRY_FIRST * (1 << dial.failures.min(8)));
        dial.failures += 1;
        let wait = wait.mul_f64(0.5 + self.rng.below(1000) as f64 / 2000.0);
        self.dial_after(node, peer, lane, wait);
    }

    pub(crate) fn region_dials(&mut self, node: usize, peer: usize, lane: Lane) {
        let Some(mesh) = self.mesh(node) else { return };
        let has = mesh.lanes.values().any(|s| s.peer == Some(peer) && s.lane == Some(lane));
        if has {
            mesh.undial(peer, lane);
            return;
        }
        let life = self.nodes[node].life;
        let Some(regions) = &self.regions else { return };
        let cut = regions.open_at(node, peer).max(regions.open_at(peer, node)) > self.now;
        let after = if cut { UNANSWERED } else { regions.one_way(node, peer) * 2 };
        self.due(after, Due::RegionAnswers { node, life, peer, lane, cut });
    }

    /// A dialler hears whether anybody is there.
    pub(crate) fn region_answers(&mut self, node: usize, peer: usize, lane: Lane, cut: bool) {
        let now = self.now;
        if let Some(mesh) = self.mesh(node) {
            mesh.undial(peer, lane);
        }
        let listens = self.nodes[peer].process.as_ref().is_some_and(|process| !process.draining);
        let leaves = self.nodes[node].process.as_ref().is_none_or(|process| process.draining);
        if leaves {
            return;
        }
        if cut || !listens {
            return self.dial_again(node, peer, lane);
        }
        let Some(regions) = &self.regions else { return };
        let (latency, jitter) = (regions.one_way(node, peer), regions.plan.jitter_ms);
        let (there, back) = (regions.open_at(node, peer), regions.open_at(peer, node));
        let jitter = if self.chaos { jitter } else { 0 };
        let id = self.next_link();
        let mut link = Link {
            dialler: Dialler::Region(node),
            node: peer,
            dialler_open: true,
            node_open: true,
            broken: false,
            to_node: Pipe::new(latency, jitter),
            to_dialler: Pipe::new(latency, jitter),
        };
        link.to_node.hold(there);
        link.to_dialler.hold(back);
        self.links.insert(id, link);
        for (at, dialled) in [(peer, false), (node, true)] {
            let nonce: [u8; 32] = self.rng.bytes(32).try_into().expect("32 bytes");
            let Some(mesh) = self.mesh(at) else { continue };
            let proving = if dialled {
                Handshake::dial(&mesh.me, &mesh.key, lane, nonce)
            } else {
                Handshake::accept(&mesh.me, &mesh.key, nonce)
            };
            let first = proving.first();
            let new = Socket {
                peer: dialled.then_some(peer),
                lane: dialled.then_some(lane),
                dialled,
                proving: Some(Box::new(proving)),
                outbox: VecDeque::new(),
                in_flight: 0,
                in_pieces: None,
                since: now,
            };
            mesh.lanes.insert(id, new);
            if let Some(first) = first {
                self.lane_sends(at, id, first);
            }
            let life = self.nodes[at].life;
            self.due(PROVED_WITHIN, Due::LaneProves { node: at, life, link: id });
        }
    }

    /// Whoever is not known by now is sent away.
    pub(crate) fn lane_proves(&mut self, node: usize, id: LinkId) {
        let (now, Some(mesh)) = (self.now, self.mesh(node)) else { return };
        let late = mesh
            .lanes
            .get(&id)
            .is_some_and(|socket| socket.proving.is_some() && now >= socket.since + PROVED_WITHIN);
        if late {
            self.end_lane(node, id);
        }
    }

    /// A frame has come in from another region.
    pub(crate) fn lane_hears(&mut self, node: usize, id: LinkId, frame: Vec<u8>) {
        let Some(mesh) = self.mesh(node) else { return };
        let Some(lane) = mesh.lanes.get_mut(&id) else { return };
        if let Some(proving) = &mut lane.proving {
            let step = proving.handle(&frame);
            return match step {
                Ok(step) => {
                    if let Some(frame) = step.send {
                        self.lane_sends(node, id, frame);
                    }
                    if let Some(agreed) = step.agreed {
                        self.lane_is_proved(node, id, agreed);
                    }
                }
                Err(error) => {
                    self.count("handshakes refused");
                    if !self.plan.has(Fault::Garbled) {
                        let what = format!("region {node} refuses another: {error}");
                        self.broken(Law::RegionsUnderstand, what);
                    }
                    self.end_lane(node, id);
                }
            };
        }
        if let Some(peer) = lane.peer {
            self.tell_link(node, peer, link::Event::Frame { socket: socket(id), bytes: frame });
        }
    }

    fn lane_is_proved(&mut self, node: usize, id: LinkId, agreed: mesh::handshake::Agreed) {
        let Some(number) = super::number(&agreed.region) else { return };
        let Some(mesh) = self.mesh(node) else { return };
        let Some(peer) = mesh.peers.get_mut(&number) else {
            // It is configured for us, and we are not yet for it.
            return self.end_lane(node, id);
        };
        if let Some(dials) = &mut peer.dials {
            dials[index(agreed.lane)].failures = 0;
        }
        let Some(lane) = mesh.lanes.get_mut(&id) else { return };
        lane.proving = None;
        lane.peer = Some(number);
        lane.lane = Some(agreed.lane);
        let (lane, dialled) = (agreed.lane, lane.dialled);
        self.count("lanes up");
        self.judge.lane_changed(number, node);
        let event = link::Event::Up { socket: socket(id), lane, agreed, dialled };
        self.tell_link(node, number, event);
    }

    /// Puts a frame into a connection's queue.
    pub(crate) fn lane_sends(&mut self, node: usize, id: LinkId, frame: Vec<u8>) {
        if let Some(lane) = self.mesh(node).and_then(|mesh| mesh.lanes.get_mut(&id)) {
            lane.outbox.push_back(frame);
            self.pump_lane(node, id);
        }
    }

    /// Writes what waits, as far as the network takes it.
    pub(crate) fn pump_lane(&mut self, node: usize, id: LinkId) {
        let most = self.regions.as_ref().map_or(0, |regions| regions.plan.kernel_bytes);
        let mut written = 0;
        while let Some(link) = self.links.get_mut(&id) {
            let toward =
                if link.toward(node) == Toward::Node { Toward::Dialler } else { Toward::Node };
            if link.pipe(toward).bytes() >= most {
                break;
            }
            let lane = self.mesh(node).and_then(|mesh| mesh.lanes.get_mut(&id));
            let Some(frame) = lane.and_then(|lane| lane.outbox.pop_front()) else { break };
            written += frame.len();
            self.transmit(id, toward, frame);
        }
        let Some(mesh) = self.mesh(node) else { return };
        let Some(lane) = mesh.lanes.get_mut(&id) else { return };
        if written > 0
            && lane.proving.is_none()
            && let Some(peer) = lane.peer
        {
            lane.in_flight = lane.in_flight.saturating_sub(written);
            let event = link::Event::Written { socket: socket(id), bytes: written };
            self.tell_link(node, peer, event);
        }
    }

    /// One end lets go of a connection.
    pub(crate) fn end_lane(&mut self, node: usize, id: LinkId) {
        match self.links.get(&id).map(|link| link.toward(node)) {
            // What is at this end is told by the network.
            Some(Toward::Dialler) => self.hang_up(id),
            Some(Toward::Node) => {
                self.lane_lost(node, id);
                self.let_go(id, true);
            }
            None => {}
        }
    }

    /// A connection is gone at this end.
    pub(crate) fn lane_lost(&mut self, node: usize, id: LinkId) {
        let Some(mesh) = self.mesh(node) else { return };
        let Some(lost) = mesh.lanes.remove(&id) else { return };
        self.trace.note(self.now, "lane lost", &[node as u64, id.0], &[], || {
            format!("to {:?}, {:?}", lost.peer, lost.lane)
        });
        let Some(peer) = lost.peer else { return };
        if lost.proving.is_none() {
            self.judge.lane_changed(peer, node);
            self.tell_link(node, peer, link::Event::Closed { socket: socket(id) });
        }
        if let Some(lane) = lost.lane {
            self.dial_again(node, peer, lane);
        }
    }
}

impl super::Mesh {
    fn undial(&mut self, peer: usize, lane: Lane) {
        if let Some(dials) = self.peers.get_mut(&peer).and_then(|peer| peer.dials.as_mut()) {
            dials[index(lane)].under_way = false;
        }
    }
}
