//! Regions with what they say to each other carried by hand.
//!
//! The carrier knows no network and no codec: those are the links' (`mesh::link`). It does what a link
//! does with a log: what is published goes to who is connected, and who was away gets the rest.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use mesh::sketch::Decoder;
use mesh::{FromShard, Lane, LogId, ToShard};
use tributary_node::Limits;

use super::Rig;

/// Regions and who is connected with whom.
pub struct World {
    pub names: Vec<&'static str>,
    pub rigs: Vec<Rig>,
    pub up: BTreeSet<(usize, usize)>,
    pub on_the_way: VecDeque<(usize, usize, FromShard)>,
    /// How often each change has crossed to each region, from a log.
    pub crossed: BTreeMap<(usize, model::ChangeHash), usize>,
    /// Sockets take nothing of what is given for repair.
    pub stuck: bool,
    pub unwritten: Vec<(usize, usize, usize)>,
    /// How large each message of a repair was.
    pub repairs: Vec<usize>,
}

impl World {
    pub fn new(names: &[&'static str]) -> Self {
        Self::with(names, &Limits::default())
    }

    pub fn with(names: &[&'static str], limits: &Limits) -> Self {
        let others = |name: &str| -> Vec<&str> {
            names.iter().copied().filter(|other| *other != name).collect()
        };
        let rigs = names.iter().map(|name| Rig::in_region(name, &others(name), limits.clone()));
        Self {
            names: names.to_vec(),
            rigs: rigs.collect(),
            up: BTreeSet::new(),
            on_the_way: VecDeque::new(),
            crossed: BTreeMap::new(),
            stuck: false,
            unwritten: Vec::new(),
            repairs: Vec::new(),
        }
    }

    pub fn connect(&mut self, a: usize, b: usize) {
        self.carry();
        for (from, to) in [(a, b), (b, a)] {
            self.up.insert((from, to));
        }
        for (from, to) in [(a, b), (b, a)] {
            self.rigs[to].hear(self.names[from], ToShard::Up);
        }
        self.settle();
    }

    /// As [`World::connect`], but logs bring nothing: it is as if they had been trimmed.
    pub fn connect_without_logs(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            self.up.insert((from, to));
            self.rigs[to].hear(self.names[from], ToShard::Up);
            self.rigs[to].said.clear();
        }
    }

    pub fn cut(&mut self, a: usize, b: usize) {
        self.settle();
        for (from, to) in [(a, b), (b, a)] {
            self.up.remove(&(from, to));
            self.rigs[to].hear(self.names[from], ToShard::Down);
        }
    }

    /// Everything is said and heard, and what takes time happens.
    pub fn settle(&mut self) {
        for _ in 0..200 {
            for rig in &mut self.rigs {
                rig.pass(Duration::from_millis(20));
            }
            if !self.carry() {
                return;
            }
        }
        panic!("the regions do not fall silent");
    }

    pub fn carry(&mut self) -> bool {
        for from in 0..self.rigs.len() {
            for (to, message) in std::mem::take(&mut self.rigs[from].said) {
                for other in 0..self.rigs.len() {
                    let meant = to.as_ref().is_none_or(|name| name.as_str() == self.names[other]);
                    if meant && other != from && self.up.contains(&(from, other)) {
                        self.on_the_way.push_back((from, other, message.clone()));
                    }
                }
            }
        }
        let moved = !self.on_the_way.is_empty();
        while let Some((from, to, message)) = self.on_the_way.pop_front() {
            if std::env::var_os("CARRY").is_some() {
                eprintln!("{from} → {to}: {message:?}");
            }
            self.deliver(from, to, message);
        }
        moved
    }

    /// Sockets take what they were given for repair.
    pub fn write(&mut self) {
        for (from, to, bytes) in std::mem::take(&mut self.unwritten) {
            self.rigs[from].hear(self.names[to], ToShard::Written { bytes });
        }
    }

    pub fn deliver(&mut self, from: usize, to: usize, message: FromShard) {
        let name = self.names[from];
        let lane = Lane::Live;
        let message = match message {
            FromShard::Vector { held: vector, .. } => {
                // `to` is told what `from` holds, and gives what it lacks.
                for (log, mark) in vector {
                    let message = ToShard::Holds { log, sequence: mark.sequence };
                    self.rigs[to].hear(name, message);
                }
                return self.catch_up(to, from);
            }
            FromShard::Published { log, first, entries }
            | FromShard::Entries { log, first, entries, .. } => {
                for entry in entries.iter() {
                    *self.crossed.entry((to, entry.hash())).or_default() += 1;
                }
                let (entries, credit) = (entries.to_vec(), 1);
                ToShard::Take { lane, log, first, entries, credit }
            }
            FromShard::Held { log, mark } => ToShard::Holds { log, sequence: mark.sequence },
            FromShard::Trimmed { log, to, .. } => ToShard::Skip { log, to },
            FromShard::Forgotten { log, last } => ToShard::Forgotten { log, last },
            FromShard::Sync { document, data } => {
                self.repairs.push(data.len());
                self.unwritten.push((from, to, data.len()));
                if !self.stuck {
                    self.write();
                }
                ToShard::Sync { document, data }
            }
            FromShard::Repaired { document } => ToShard::Repaired { document },
            FromShard::Unavailable { document } => ToShard::Unavailable { document },
            FromShard::Presence { document, presence } => ToShard::Presence { document, presence },
            FromShard::Heads { document, heads } => ToShard::Heads { document, heads },
            FromShard::Interest { document, open } => ToShard::Interest { document, open },
            FromShard::Subscribe { add, remove } => ToShard::Subscribe { add, remove },
            FromShard::Taken { .. }
            | FromShard::Diverged { .. }
            | FromShard::Root { .. }
            | FromShard::Items { .. }
            | FromShard::Symbols { .. } => return,
        };
        self.rigs[to].hear(name, message);
    }

    /// Reads what `giver` has written and `taker` lacks.
    pub fn catch_up(&mut self, giver: usize, taker: usize) {
        let held: BTreeMap<LogId, mesh::Mark> = logs(&self.rigs[taker]);
        for (log, mark) in logs(&self.rigs[giver]) {
            let has = held.get(&log).copied().unwrap_or_default();
            if has.sequence < mark.sequence && log.origin.region.as_str() == self.names[giver] {
                let message = ToShard::Read {
                    lane: Lane::Bulk,
                    log,
                    from: has.sequence + 1,
                    bytes_max: 1 << 30,
                    digest: Some(has.digest),
                };
                self.rigs[giver].hear(self.names[taker], message);
            }
        }
    }

    /// What the audit does: finds the documents that differ, and has them repaired.
    pub fn audit(&mut self, a: usize, b: usize) -> usize {
        let mut decoder = Decoder::new();
        let ask = |rig: &mut Rig, name| {
            rig.said.clear();
            rig.hear(name, ToShard::Symbols { round: 1, from: 0, to: 512 });
            let symbols = rig.said.iter().find_map(|(_, message)| match message {
                FromShard::Symbols { symbols, .. } => Some(symbols.clone()),
                _ => None,
            });
            symbols.unwrap()
        };
        let (of_a, of_b) =
            (ask(&mut self.rigs[a], self.names[b]), ask(&mut self.rigs[b], self.names[a]));
        for (a, b) in of_a.iter().zip(of_b) {
            decoder.push(a.minus(b));
        }
        assert!(decoder.is_complete());
        let items: Vec<u64> = decoder.here().iter().chain(decoder.there()).copied().collect();
        let differ = items.len();
        self.rigs[a].hear(self.names[b], ToShard::RepairItems { items: items.clone() });
        self.rigs[b].hear(self.names[a], ToShard::RepairItems { items });
        self.settle();
        differ
    }

    pub fn assert_same(&mut self) {
        for at in 1..self.rigs.len() {
            assert_eq!(self.audit(0, at), 0, "{} differs", self.names[at]);
        }
    }
}

pub fn logs(rig: &Rig) -> BTreeMap<LogId, mesh::Mark> {
    let logs = tributary_node::mesh_rows::logs(&*rig.store).unwrap();
    logs.into_iter().map(|(log, held)| (log, held.end)).collect()
}
