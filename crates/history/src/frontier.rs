//! What a change cannot see: the part of the log that is concurrent to it.

use std::collections::VecDeque;
use std::ops::Range;

use model::ActorId;

use crate::check::Ancestry;
use crate::graph::{Graph, Position};

/// How many recent tips are remembered per document: one for each person typing at once.
const TIPS_MAX: usize = 16;

/// Positions as ascending, disjoint, non-adjacent ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<Range<Position>>);

impl Ranges {
    fn from_ascending(positions: &[Position]) -> Self {
        let mut ranges = Self::default();
        for position in positions {
            ranges.append(*position..*position + 1);
        }
        ranges
    }

    fn append(&mut self, range: Range<Position>) {
        if range.is_empty() {
            return;
        }
        match self.0.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.0.push(range),
        }
    }

    fn contains(&self, position: Position) -> bool {
        let after = self.0.partition_point(|range| range.start <= position);
        after > 0 && position < self.0[after - 1].end
    }
}

/// Remembers, for the tips that are being built on, what is concurrent to them.
///
/// Someone who was away appends thousands of changes on one old tip. The first costs a walk, each
/// following one only the extension of what is known of its predecessor.
#[derive(Default)]
pub(crate) struct Frontiers {
    tips: VecDeque<Tip>,
}

struct Tip {
    position: Position,
    /// What was concurrent to the tip when the log had `len` changes.
    concurrent: Ranges,
    len: Position,
}

impl Frontiers {
    /// What is concurrent to a new change with these dependencies.
    pub(crate) fn concurrent_to(&self, graph: &Graph, deps: &[Position]) -> Ranges {
        if deps.len() == graph.heads().len()
            && deps.iter().all(|dep| graph.heads().contains(&graph.hash(*dep)))
        {
            return Ranges::default();
        }
        if let [dep] = deps
            && let Some(tip) = self.tips.iter().find(|tip| tip.position == *dep)
        {
            // Nothing that came after a change can be its ancestor.
            let mut concurrent = tip.concurrent.clone();
            concurrent.append(tip.len..graph.len());
            return concurrent;
        }
        Ranges::from_ascending(&graph.beyond(deps))
    }

    /// Remembers a change that was just appended.
    pub(crate) fn appended(&mut self, position: Position, deps: &[Position], concurrent: Ranges) {
        self.tips.retain(|tip| !deps.contains(&tip.position));
        if concurrent.0.is_empty() {
            // On top of everything there is: the walk that finds that out again is one step long.
            return;
        }
        if self.tips.len() == TIPS_MAX {
            self.tips.pop_front();
        }
        self.tips.push_back(Tip { position, concurrent, len: position + 1 });
    }
}

/// The ancestors of a change that is about to be appended.
pub(crate) struct Ancestors<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) concurrent: &'a Ranges,
}

impl Ancestors<'_> {
    pub(crate) fn contain(&self, position: Position) -> bool {
        !self.concurrent.contains(position)
    }
}

impl Ancestry for Ancestors<'_> {
    fn covers(&self, actor: &ActorId, counter: u64) -> bool {
        self.graph.operation(actor, counter).is_some_and(|position| self.contain(position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Node;
    use model::ChangeHash;

    #[test]
    fn what_is_remembered_of_a_tip_is_what_a_walk_finds() {
        let mut seed = 7_u64;
        let mut random = move |below: u32| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u32 % below
        };
        for round in 0..100 {
            let (mut graph, mut frontiers) = (Graph::default(), Frontiers::default());
            let mut tips: Vec<Option<Position>> = vec![None; 3];
            for n in 0..60_u32 {
                let who = random(3) as usize;
                let deps: Vec<Position> = match (tips[who], random(5)) {
                    (Some(tip), 1..) => vec![tip],
                    _ => graph.heads().iter().filter_map(|head| graph.position(head)).collect(),
                };
                let concurrent = frontiers.concurrent_to(&graph, &deps);
                let walked = Ranges::from_ascending(&graph.beyond(&deps));
                assert_eq!(concurrent, walked, "round {round}, change {n}");
                let mut hash = [0; 32];
                hash[..4].copy_from_slice(&n.to_le_bytes());
                let actor = ActorId::new(&n.to_le_bytes()).unwrap();
                let node =
                    Node { hash: ChangeHash(hash), actor: &actor, start_op: 1, operations: 1 };
                let position = graph.push_at(node, &deps);
                frontiers.appended(position, &deps, concurrent);
                tips[who] = Some(position);
            }
        }
    }
}
