//! What goes wrong between regions, and what operators of several do.

use std::time::Duration;

use store::DiskImage;

use crate::client::Client;
use crate::plan::Fault;
use crate::world::{Due, World};

/// How long a rolling restart waits between two regions.
const ROLLING_EVERY: Duration = Duration::from_millis(1500);

impl World {
    /// One of the faults that need several regions.
    pub(super) fn strikes_between(&mut self, fault: Fault, node: usize, until: Duration) {
        let members = self.members();
        let other = (node + 1 + self.rng.below(members - 1)) % members;
        match fault {
            Fault::RegionsCut => self.cut(&[(node, other), (other, node)], until),
            Fault::OneWay => self.cut(&[(node, other)], until),
            Fault::Isolated => {
                let all = (0..members).filter(|other| *other != node);
                let pairs: Vec<_> = all.flat_map(|to| [(node, to), (to, node)]).collect();
                self.cut(&pairs, until);
            }
            Fault::Split => {
                let side: Vec<bool> = (0..members).map(|_| self.rng.percent(50)).collect();
                let all = (0..members).flat_map(|from| (0..members).map(move |to| (from, to)));
                let pairs: Vec<_> = all.filter(|(from, to)| side[*from] != side[*to]).collect();
                self.cut(&pairs, until);
            }
            Fault::Garbled => {
                let lanes: Vec<_> = (self.links.iter())
                    .filter_map(|(id, link)| link.is_lane().then_some(*id))
                    .collect();
                for _ in 0..lanes.len().min(4) {
                    let id = self.rng.pick(&lanes);
                    if let Some(link) = self.links.get_mut(&id) {
                        let garbled = link.to_node.garble(&mut self.rng)
                            || link.to_dialler.garble(&mut self.rng);
                        if garbled {
                            self.count("garbled");
                        }
                    }
                }
            }
            Fault::Wiped => {
                self.count("wiped");
                self.replace_disk(node, &DiskImage::default());
            }
            Fault::Cloned => {
                self.count("cloned");
                let image = self.nodes[other].disk.snapshot();
                self.replace_disk(node, &image);
            }
            Fault::Rolling => self.roll(),
            Fault::Roams => {
                let index = self.rng.below(self.clients.len());
                self.client_roams(index, node);
            }
            Fault::Forks => self.forks(node),
            _ => {}
        }
    }

    /// Nothing passes from the first to the second of each pair for a while.
    fn cut(&mut self, pairs: &[(usize, usize)], until: Duration) {
        self.count("cuts between regions");
        let Some(regions) = &mut self.regions else { return };
        for (from, to) in pairs {
            regions.cut(*from, *to, until);
            for link in self.links.values_mut() {
                let ends = link.regions();
                if ends == Some((*from, *to)) {
                    link.to_node.hold(until);
                }
                if ends == Some((*to, *from)) {
                    link.to_dialler.hold(until);
                }
            }
        }
    }

    /// One region after the other ends in order and starts with the configuration of now.
    fn roll(&mut self) {
        self.count("rolling restarts");
        for node in 0..self.members() {
            self.due(ROLLING_EVERY * node as u32, Due::Drains { node });
        }
    }

    /// The last region is set up: its machine starts, now and then with a copy of another's disk, and
    /// the others are restarted with its name in their configuration.
    pub(crate) fn region_comes(&mut self) {
        let Some(regions) = &mut self.regions else { return };
        let node = regions.members;
        if node >= self.nodes.len() {
            return;
        }
        regions.members += 1;
        self.count("regions added");
        if self.rng.percent(30) {
            let image = self.nodes[0].disk.snapshot();
            self.nodes[node].disk.restore(&image);
            self.judge.restored(node, &image);
        }
        self.start_node(node);
        self.roll();
    }

    /// Somebody travels: the client's process is the same, and its region is another.
    fn client_roams(&mut self, index: usize, node: usize) {
        if self.clients[index].node == node {
            return;
        }
        self.count("roamed");
        // Its presence before may still be on its way between the regions: its place in one stream
        // is not compared with that.
        self.clients[index].moves_to(node);
        if let Some(link) = self.clients[index].link {
            self.hang_up(link);
        }
    }

    /// Somebody copies the storage of a client to a machine in another region, actor and all, and both
    /// go on writing.
    fn forks(&mut self, node: usize) {
        if self.clients.iter().filter(|client| client.forked).count() >= 4 {
            return;
        }
        let all: Vec<usize> = (0..self.clients.len())
            .filter(|at| !self.clients[*at].forked && self.clients[*at].node != node)
            .collect();
        let Some(original) = (!all.is_empty()).then(|| self.rng.pick(&all)) else { return };
        let index = self.clients.len();
        let mut twin = Client::new(index, node, &mut self.rng);
        if let Some(document) = twin.takes_after(&mut self.clients[original]) {
            self.count("twins");
            self.trace.note(self.now, "twin", &[original as u64, index as u64], &[], String::new);
            self.clients.push(twin);
            self.due(Duration::ZERO, Due::Dials { client: index });
            let after = self.rng.millis(300, 2000);
            self.due(after, Due::Diverge { clients: [original, index], document });
        }
    }

    /// Both write under the one actor before either can have heard of the other.
    pub(crate) fn diverge(&mut self, clients: [usize; 2], document: usize) {
        if !self.chaos {
            return;
        }
        let copy = clients.map(|at| {
            let held = self.clients[at].documents.get(&document);
            held.filter(|held| held.talk.as_ref().is_some_and(|talk| talk.answered))
                .map(|held| held.doc.get_heads())
        });
        self.due(Duration::from_millis(200), Due::Acts { client: clients[1] });
        if let [Some(one), Some(other)] = copy
            && one == other
        {
            self.count("forks");
            let habits = self.plan.habits.clone();
            for client in clients {
                self.client_edits(client, document, &habits);
            }
        }
    }
}
