//! Two regions with shards, a network that takes its time, and repairs that work or do not.

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::sketch::Sketch;

/// One way over the network.
pub(super) const DELAY: Duration = Duration::from_millis(70);

pub(super) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The item of a document in its `version`th state.
pub(super) fn item(document: u64, version: u64) -> u64 {
    (weight_of(document) ^ weight_of(version << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

pub(super) fn weight_of(number: u64) -> u64 {
    crate::sketch::weight(number) as u64
}

/// A region: for each document its version.
pub(super) struct Region {
    pub(super) documents: BTreeMap<u64, u64>,
    pub(super) items: BTreeMap<u64, u64>,
    pub(super) shards: Vec<Sketch>,
    pub(super) audit: Audit,
    pub(super) found: Vec<(Duration, Finding)>,
    pub(super) repaired: Vec<u64>,
}

impl Region {
    pub(super) fn new(asks: bool, shards: usize, documents: u64) -> Self {
        let mut region = Self {
            documents: BTreeMap::new(),
            items: BTreeMap::new(),
            shards: vec![Sketch::default(); shards],
            audit: Audit::new(asks, shards, Pace::default()),
            found: Vec::new(),
            repaired: Vec::new(),
        };
        (0..documents).for_each(|document| region.set(document, 0));
        region
    }

    pub(super) fn set(&mut self, document: u64, version: u64) {
        let shard = document as usize % self.shards.len();
        if let Some(before) = self.documents.insert(document, version) {
            self.items.remove(&item(document, before));
            self.shards[shard].remove(item(document, before));
        }
        self.items.insert(item(document, version), document);
        self.shards[shard].add(item(document, version));
    }

    pub(super) fn shard_answers(&self, shard: usize, ask: &Ask) -> Option<Answer> {
        let sketch = &self.shards[shard];
        match ask {
            Ask::Root { round } => {
                let root = Root { documents: sketch.count(), sum: sketch.sum() };
                Some(Answer::Root { round: *round, root })
            }
            Ask::Symbols { round, from, to } => {
                let symbols = sketch.symbols(*from..*to).to_vec();
                Some(Answer::Symbols { round: *round, symbols })
            }
            Ask::Items { round, from, to } => {
                let ours = |document: u64| document as usize % self.shards.len() == shard;
                let range = self.items.range(*from..=*to);
                let items = range.filter(|(_, document)| ours(**document)).map(|(item, _)| *item);
                Some(Answer::Items { round: *round, items: items.collect() })
            }
            Ask::Repair { .. } => None,
        }
    }
}

/// What is on the way: when it arrives, at which region, its bytes.
pub(super) type Way = (Duration, usize, Vec<u8>);

pub(super) struct World {
    pub(super) now: Duration,
    pub(super) regions: [Region; 2],
    pub(super) network: VecDeque<Way>,
    /// Whether a document can be repaired.
    pub(super) repairable: fn(u64) -> bool,
    pub(super) sent: Vec<(Duration, Message, usize)>,
    pub(super) cut: bool,
}

impl World {
    pub(super) fn new(shards: [usize; 2], documents: u64) -> Self {
        let mut regions =
            [Region::new(true, shards[0], documents), Region::new(false, shards[1], documents)];
        regions.iter_mut().for_each(|region| region.audit.up(Duration::ZERO));
        Self {
            now: Duration::ZERO,
            regions,
            network: VecDeque::new(),
            repairable: |_| true,
            sent: Vec::new(),
            cut: false,
        }
    }

    pub(super) fn until(&mut self, end: Duration) {
        loop {
            self.effects();
            let ticks = self.regions.iter().filter_map(|region| region.audit.poll_timeout());
            let arrival = self.network.front().map(|(at, ..)| *at);
            let Some(next) = ticks.chain(arrival).min().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            while let Some((_, to, bytes)) = self.network.pop_front_if(|(at, ..)| *at <= self.now) {
                let message = Message::decode(&bytes).expect("honest bytes");
                self.regions[to].audit.heard(self.now, message).expect("honest words");
            }
            for region in &mut self.regions {
                region.audit.tick(self.now);
            }
        }
        self.now = end;
    }

    pub(super) fn effects(&mut self) {
        for me in 0..2 {
            while let Some(effect) = self.regions[me].audit.poll_effect() {
                match effect {
                    Effect::Found(finding) => self.regions[me].found.push((self.now, finding)),
                    Effect::Send(message) => {
                        let mut bytes = Vec::new();
                        message.encode(&mut bytes);
                        self.sent.push((self.now, message, bytes.len()));
                        if !self.cut {
                            self.network.push_back((self.now + DELAY, 1 - me, bytes));
                        }
                    }
                    Effect::Ask(Ask::Repair { items }) => self.repair(me, &items),
                    Effect::Ask(ask) => {
                        for shard in 0..self.regions[me].shards.len() {
                            let answer = self.regions[me].shard_answers(shard, &ask);
                            let answer = answer.expect("a question that is answered");
                            self.regions[me].audit.answered(self.now, shard, answer);
                        }
                    }
                }
            }
        }
    }

    /// The higher version wins, in both regions, at once.
    pub(super) fn repair(&mut self, me: usize, items: &[u64]) {
        self.regions[me].repaired.extend(items);
        for item in items {
            let Some(document) = self.regions[me].items.get(item).copied() else { continue };
            if (self.repairable)(document) {
                let versions =
                    self.regions.iter().filter_map(|region| region.documents.get(&document));
                let version = versions.max().copied().expect("it is here");
                self.regions.iter_mut().for_each(|region| region.set(document, version));
            }
        }
    }

    pub(super) fn are_equal(&self) -> bool {
        self.regions[0].documents == self.regions[1].documents
    }

    pub(super) fn found(&self, wanted: fn(&Finding) -> bool) -> Vec<Duration> {
        let found = self.regions[0].found.iter().filter(|(_, finding)| wanted(finding));
        found.map(|(at, _)| *at).collect()
    }

    pub(super) fn bytes(&self) -> usize {
        self.sent.iter().map(|(.., bytes)| bytes).sum()
    }
}
