//! What goes wrong, and how it is put right.

mod between;

use std::time::Duration;

use crate::network::{LinkId, Toward};
use crate::plan::Fault;
use crate::planted::Planted;
use crate::world::{Due, World};

/// How many backups an operator keeps.
const BACKUPS_MAX: usize = 4;

impl World {
    /// One of the faults that this run has.
    pub(crate) fn strikes(&mut self) {
        if !self.chaos {
            return;
        }
        let wait = self.rng.around(self.plan.fault_every);
        self.due(wait, Due::Strikes);
        let node = self.rng.below(self.members());
        if self.rng.percent(20) {
            let image = self.nodes[node].disk.snapshot();
            let backups = &mut self.nodes[node].backups;
            backups.push(image);
            if backups.len() > BACKUPS_MAX {
                backups.remove(0);
            }
        }
        let fault = self.rng.pick(&self.plan.faults.clone());
        self.trace.note(self.now, "fault", &[node as u64], &[], || format!("{fault:?}"));
        let for_a_while = self.now + self.rng.millis(300, 20_000);
        match fault {
            Fault::Reset => {
                if let Some(link) = self.some_link() {
                    self.reset(link);
                }
            }
            Fault::Cut => {
                if let Some(link) = self.some_link().and_then(|id| self.links.get_mut(&id)) {
                    link.to_node.hold(for_a_while);
                    link.to_dialler.hold(for_a_while);
                }
            }
            Fault::Stall => {
                let toward = if self.rng.percent(50) { Toward::Node } else { Toward::Dialler };
                if let Some(link) = self.some_link().and_then(|id| self.links.get_mut(&id)) {
                    link.pipe(toward).hold(for_a_while);
                }
            }
            Fault::SlowReader => {
                let pace = self.rng.millis(50, 900);
                if let Some(link) = self.some_link().and_then(|id| self.links.get_mut(&id)) {
                    link.to_dialler.pace =
                        if link.to_dialler.pace.is_zero() { pace } else { Duration::ZERO };
                }
            }
            Fault::Crash => self.crash(node),
            Fault::Drain => self.drain(node),
            Fault::DiskFull => self.arm(node, store::Fault::Full),
            Fault::DiskIo => self.arm(node, store::Fault::Io),
            Fault::SyncLost => self.arm(node, store::Fault::SyncLost),
            Fault::SyncDone => self.arm(node, store::Fault::SyncDone),
            Fault::SlowDisk => self.nodes[node].slow_until = for_a_while,
            Fault::Restore => self.restore(node),
            Fault::Skew => {
                let most = if self.regions.is_some() { 20 } else { 1 } * 3_600_000;
                self.nodes[node].skew_ms = self.rng.below(2 * most) as i64 - most as i64;
            }
            Fault::ArchiveAway => self.nodes[node].archive_away_until = for_a_while,
            Fault::ClientRestart => {
                let client = self.rng.below(self.clients.len());
                self.client_restarts(client);
            }
            // Done by the hostile peers of this run themselves.
            Fault::Impostor => {}
            Fault::RegionsCut
            | Fault::OneWay
            | Fault::Isolated
            | Fault::Split
            | Fault::Garbled
            | Fault::Wiped
            | Fault::Cloned
            | Fault::Rolling
            | Fault::Roams
            | Fault::Forks => self.strikes_between(fault, node, for_a_while),
        }
    }

    fn some_link(&mut self) -> Option<LinkId> {
        let ids: Vec<LinkId> = self.links.keys().copied().collect();
        (!ids.is_empty()).then(|| self.rng.pick(&ids))
    }

    /// Everything on its way is lost, in the middle of a frame or not. One end notices soon, the
    /// other late.
    fn reset(&mut self, id: LinkId) {
        let (soon, late) = (self.rng.millis(0, 50), self.rng.millis(100, 20_000));
        let Some(link) = self.links.get_mut(&id) else { return };
        link.broken = true;
        link.to_node.lose();
        link.to_dialler.lose();
        let node_first = self.rng.percent(50);
        let (node, dialler) = if node_first { (soon, late) } else { (late, soon) };
        self.due(node, Due::Notices { link: id, toward: Toward::Node });
        self.due(dialler, Due::Notices { link: id, toward: Toward::Dialler });
    }

    fn arm(&mut self, node: usize, fault: store::Fault) {
        self.nodes[node].armed = true;
        self.nodes[node].disk.fail_next_commit(fault);
    }

    /// The process is gone, and so is everything that was not durable.
    pub(crate) fn crash(&mut self, node: usize) {
        self.stop(node);
        let after =
            if self.chaos { self.rng.millis(100, 5000) } else { Duration::from_millis(100) };
        self.due(after, Due::NodeStarts { node });
    }

    fn stop(&mut self, node: usize) {
        let Some(process) = self.nodes[node].process.take() else { return };
        self.trace.note(self.now, "node stops", &[node as u64], &[], String::new);
        self.count("stops");
        // What the system has already taken of a process may still go out.
        let arrives = self.rng.percent(50);
        for link in process.seats.keys() {
            self.let_go(*link, arrives);
        }
        for link in process.mesh.iter().flat_map(crate::regions::Mesh::lanes) {
            match self.links.get(&link).map(|link| link.toward(node)) {
                Some(Toward::Node) => self.let_go(link, arrives),
                Some(Toward::Dialler) => self.hang_up(link),
                None => {}
            }
        }
        self.nodes[node].disk.crash();
        self.nodes[node].armed = false;
        self.nodes[node].lying = false;
        let loses = self.planted.strikes(Planted::LosesTail, &mut self.rng, 50);
        if loses && let Some(older) = self.nodes[node].backups.first().cloned() {
            self.nodes[node].disk.restore(&older);
        }
        if self.planted.is(Planted::StartsEmpty) {
            self.nodes[node].disk.restore(&store::DiskImage::default());
        }
        let image = self.nodes[node].disk.snapshot();
        let thorough = self.rng.percent(40);
        self.judge.crashed(node, &image, thorough);
    }

    /// The operator asks the process to end.
    pub(crate) fn drain(&mut self, node: usize) {
        let Some(process) = &mut self.nodes[node].process else { return };
        if std::mem::replace(&mut process.draining, true) {
            return;
        }
        let links: Vec<LinkId> = process.seats.keys().copied().collect();
        for link in links {
            self.unseat(link);
        }
        for shard in 0..self.plan.shards {
            self.nudge(node, shard);
        }
    }

    fn restore(&mut self, node: usize) {
        let backups = self.nodes[node].backups.clone();
        if backups.is_empty() {
            return;
        }
        let image = self.rng.pick(&backups);
        self.count("restores");
        self.replace_disk(node, &image);
    }

    /// The machine is off for a while, and what is on its disk is another thing when it starts.
    fn replace_disk(&mut self, node: usize, image: &store::DiskImage) {
        self.stop(node);
        // Frames of the old process speak of what is gone now: the machine was off for longer.
        let ids: Vec<LinkId> = self.links.keys().copied().collect();
        for id in ids {
            if let Some(link) = self.links.get_mut(&id)
                && link.node == node
            {
                link.to_dialler.lose();
            }
        }
        self.nodes[node].disk.restore(image);
        self.judge.restored(node, image);
        let after = self.rng.millis(500, 6000);
        self.due(after, Due::NodeStarts { node });
    }

    /// From now on nothing goes wrong any more: everybody is there, everything passes.
    pub(crate) fn heal(&mut self) {
        self.chaos = false;
        for index in 0..self.hostiles.len() {
            if let Some(link) = self.hostiles[index].link.take() {
                self.hang_up(link);
            }
        }
        if let Some(regions) = &mut self.regions {
            regions.mend();
        }
        self.region_comes();
        let (mut gone, mut released) = (Vec::new(), Vec::new());
        for (id, link) in &mut self.links {
            if link.broken {
                gone.push(*id);
            }
            for toward in [Toward::Node, Toward::Dialler] {
                let pipe = link.pipe(toward);
                released.extend(std::iter::repeat_n((*id, toward), pipe.release()));
                pipe.jitter_ms = 0;
            }
            // Regions stay as far from each other as they are.
            if !link.is_lane() {
                link.to_node.latency = Duration::from_millis(1);
                link.to_dialler.latency = Duration::from_millis(1);
            }
        }
        for (link, toward) in released {
            self.due(Duration::ZERO, Due::Arrives { link, toward });
        }
        for link in gone {
            self.node_notices(link);
            self.hang_up(link);
        }
        for node in 0..self.members() {
            let draining =
                self.nodes[node].process.as_ref().is_some_and(|process| process.draining);
            if self.nodes[node].armed || draining {
                self.crash(node);
            }
            self.nodes[node].slow_until = Duration::ZERO;
            self.nodes[node].archive_away_until = Duration::ZERO;
            self.due(Duration::from_millis(100), Due::NodeStarts { node });
        }
        for index in 0..self.clients.len() {
            for document in 0..self.documents.len() {
                if !self.clients[index].documents.contains_key(&document) {
                    self.clients[index].hold(document);
                    self.client_opens(index, document);
                }
            }
            self.due(Duration::from_millis(200), Due::Dials { client: index });
        }
        self.trace.note(self.now, "healed", &[], &[], String::new);
    }
}
