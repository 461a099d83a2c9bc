//! The change graph: who depends on whom, by log position.
//!
//! A position is a change's place in the log of one document. The log is in causal order, so every
//! dependency of a change has a smaller position. That one fact makes every question here a walk
//! from the top of the log downward that can stop early.

use std::collections::BTreeMap;

use hashbrown::HashTable;
use model::{ActorId, ChangeHash, Heads};

use crate::bits::Bits;

/// The place of a change in the log of its document, counted from 0.
pub type Position = u32;

const NO_CHILD: Position = Position::MAX;

/// What the graph has to know of a change.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    /// Its name.
    pub hash: ChangeHash,
    /// Who made it.
    pub actor: &'a ActorId,
    /// The number of its first operation.
    pub start_op: u64,
    /// How many operations it has.
    pub operations: u64,
}

/// The changes of one document and their dependencies. About 70 bytes a change.
#[derive(Default)]
pub struct Graph {
    hashes: Vec<ChangeHash>,
    by_hash: HashTable<Position>,
    /// `deps[deps_end[p - 1]..deps_end[p]]` are the dependencies of `p`.
    deps: Vec<Position>,
    deps_end: Vec<u32>,
    /// The smallest position that depends on this one, or `NO_CHILD`. Below that position this
    /// change is a head, which is what lets [`Graph::beyond`] stop early.
    first_child: Vec<Position>,
    author: Vec<u32>,
    start_op: Vec<u32>,
    operations: Vec<u32>,
    actors: Vec<ActorId>,
    actor_index: BTreeMap<ActorId, u32>,
    /// Per actor the positions of its changes; the one with sequence number `n` is at `n - 1`.
    by_actor: Vec<Vec<Position>>,
    heads: Heads,
    max_op: u64,
}

impl Graph {
    /// How many changes there are.
    pub fn len(&self) -> Position {
        self.hashes.len() as Position
    }

    /// Whether there is no change at all.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The heads of everything in the graph.
    pub fn heads(&self) -> &Heads {
        &self.heads
    }

    /// The largest operation number in the graph.
    pub fn max_op(&self) -> u64 {
        self.max_op
    }

    /// The actors that made changes, in order of appearance.
    pub fn actors(&self) -> &[ActorId] {
        &self.actors
    }

    /// Where a change is.
    pub fn position(&self, hash: &ChangeHash) -> Option<Position> {
        self.by_hash
            .find(hash.prefix(), |position| self.hashes[*position as usize] == *hash)
            .copied()
    }

    /// The name of the change at `position`.
    pub fn hash(&self, position: Position) -> ChangeHash {
        self.hashes[position as usize]
    }

    /// The dependencies of the change at `position`.
    pub fn deps(&self, position: Position) -> &[Position] {
        let end = self.deps_end[position as usize] as usize;
        let start =
            position.checked_sub(1).map_or(0, |before| self.deps_end[before as usize] as usize);
        &self.deps[start..end]
    }

    /// What the graph knows of the change at `position`.
    pub fn node(&self, position: Position) -> Node<'_> {
        let at = position as usize;
        Node {
            hash: self.hashes[at],
            actor: &self.actors[self.author[at] as usize],
            start_op: u64::from(self.start_op[at]),
            operations: u64::from(self.operations[at]),
        }
    }

    /// The largest operation number that the change at `position` or its ancestors may have used.
    pub fn max_op_of(&self, position: Position) -> u64 {
        let at = position as usize;
        (u64::from(self.start_op[at]) + u64::from(self.operations[at])).saturating_sub(1)
    }

    /// How many changes of `actor` there are: its sequence numbers are 1 to this.
    pub fn sequence(&self, actor: &ActorId) -> u64 {
        self.actor_index.get(actor).map_or(0, |index| self.by_actor[*index as usize].len() as u64)
    }

    /// Where the change of `actor` with sequence number `seq` is.
    pub fn slot(&self, actor: &ActorId, seq: u64) -> Option<Position> {
        let index = *self.actor_index.get(actor)?;
        let at = usize::try_from(seq.checked_sub(1)?).ok()?;
        self.by_actor[index as usize].get(at).copied()
    }

    /// Which change of `actor` made the operation with this number.
    pub fn operation(&self, actor: &ActorId, counter: u64) -> Option<Position> {
        let index = *self.actor_index.get(actor)?;
        let changes = &self.by_actor[index as usize];
        let after = changes.partition_point(|at| u64::from(self.start_op[*at as usize]) <= counter);
        let at = changes[after.checked_sub(1)?];
        let made = counter - u64::from(self.start_op[at as usize])
            < u64::from(self.operations[at as usize]);
        made.then_some(at)
    }

    /// Appends a change. The caller has checked everything that can be wrong with it.
    ///
    /// # Panics
    /// When a dependency is not in the graph, or the change already is: both are our mistakes.
    pub fn push(&mut self, node: Node<'_>, deps: &[ChangeHash]) -> Position {
        let deps: Vec<Position> =
            deps.iter().map(|dep| self.position(dep).expect("dependencies are present")).collect();
        self.push_at(node, &deps)
    }

    /// Appends a change whose dependencies are given by position.
    ///
    /// # Panics
    /// When the change is in the graph already, or a dependency does not come before it.
    pub fn push_at(&mut self, node: Node<'_>, deps: &[Position]) -> Position {
        let position = self.len();
        assert!(self.position(&node.hash).is_none(), "a change is in a log once");
        assert!(deps.iter().all(|dep| *dep < position), "the log is in causal order");
        let hashes = &self.hashes;
        self.by_hash
            .insert_unique(node.hash.prefix(), position, |at| hashes[*at as usize].prefix());
        self.hashes.push(node.hash);
        for dep in deps {
            let child = &mut self.first_child[*dep as usize];
            *child = (*child).min(position);
        }
        self.deps.extend_from_slice(deps);
        self.deps_end.push(self.deps.len() as u32);
        self.first_child.push(NO_CHILD);
        let author = self.intern(node.actor);
        self.author.push(author);
        self.by_actor[author as usize].push(position);
        self.start_op.push(node.start_op as u32);
        self.operations.push(node.operations as u32);
        self.max_op = self.max_op.max(self.max_op_of(position));
        let dep_hashes: Vec<ChangeHash> = deps.iter().map(|dep| self.hash(*dep)).collect();
        self.heads.advance(node.hash, &dep_hashes);
        position
    }

    /// Every change that is neither in `held` nor an ancestor of it, ascending.
    ///
    /// Costs what lies above the point where everything is known to be held, not the whole log.
    pub fn beyond(&self, held: &[Position]) -> Vec<Position> {
        let mut beyond = Vec::new();
        // Going down, `open` are the heads of the part of the log that is still below, and
        // `covered` what is held. Once every open head is covered, all that is left is.
        let mut covered = Bits::new(self.len());
        let mut open = Bits::new(self.len());
        let mut uncovered = 0_usize;
        for head in &self.heads {
            open.set(self.position(head).expect("heads are in the graph"));
            uncovered += 1;
        }
        for position in held {
            if covered.set(*position) && open.get(*position) {
                uncovered -= 1;
            }
        }
        let mut position = self.len();
        while uncovered > 0 {
            position -= 1;
            let held = covered.get(position);
            if !held {
                beyond.push(position);
                uncovered -= 1;
            }
            for dep in self.deps(position) {
                if held && covered.set(*dep) && open.get(*dep) {
                    uncovered -= 1;
                }
                // Below its first child a change is a head again.
                if self.first_child[*dep as usize] == position
                    && open.set(*dep)
                    && !covered.get(*dep)
                {
                    uncovered += 1;
                }
            }
        }
        beyond.reverse();
        beyond
    }

    /// Whether every one of `old` is in `new` or an ancestor of it.
    pub fn covers(&self, new: &[Position], old: &[Position]) -> bool {
        let Some(lowest) = old.iter().copied().min() else { return true };
        let mut seen = Bits::new(self.len());
        let mut stack = Vec::new();
        for position in new {
            if *position >= lowest && seen.set(*position) {
                stack.push(*position);
            }
        }
        while let Some(position) = stack.pop() {
            for dep in self.deps(position) {
                if *dep >= lowest && seen.set(*dep) {
                    stack.push(*dep);
                }
            }
        }
        old.iter().all(|position| seen.get(*position))
    }

    /// About how much memory this takes, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.hashes.capacity() * 32
            + self.by_hash.capacity() * 5
            + (self.deps.capacity() + self.deps_end.capacity() + self.first_child.capacity()) * 4
            + (self.author.capacity() + self.start_op.capacity() + self.operations.capacity()) * 4
            + self.by_actor.iter().map(|changes| changes.capacity() * 4 + 48).sum::<usize>()
            + self.actors.len() * 96
    }

    fn intern(&mut self, actor: &ActorId) -> u32 {
        if let Some(index) = self.actor_index.get(actor) {
            return *index;
        }
        let index = self.actors.len() as u32;
        self.actors.push(actor.clone());
        self.actor_index.insert(actor.clone(), index);
        self.by_actor.push(Vec::new());
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u32) -> ChangeHash {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.wrapping_mul(0x9e37_79b9).to_le_bytes());
        bytes[4..8].copy_from_slice(&n.to_le_bytes());
        ChangeHash(bytes)
    }

    /// A graph in which the n-th change has the given dependencies and its own actor.
    fn graph(deps: &[&[Position]]) -> Graph {
        let mut graph = Graph::default();
        for (n, deps) in deps.iter().enumerate() {
            let actor = ActorId::new(&[n as u8]).unwrap();
            let node =
                Node { hash: hash(n as u32), actor: &actor, start_op: n as u64 + 1, operations: 1 };
            graph.push_at(node, deps);
        }
        graph
    }

    fn slow_beyond(graph: &Graph, held: &[Position]) -> Vec<Position> {
        let mut covered = vec![false; graph.len() as usize];
        let mut stack = held.to_vec();
        while let Some(position) = stack.pop() {
            if !std::mem::replace(&mut covered[position as usize], true) {
                stack.extend(graph.deps(position));
            }
        }
        (0..graph.len()).filter(|position| !covered[*position as usize]).collect()
    }

    #[test]
    fn what_lies_beyond_some_heads_is_what_a_full_walk_finds() {
        let mut seed = 1_u64;
        let mut random = move |below: u32| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u32 % below
        };
        for _ in 0..300 {
            let mut deps: Vec<Vec<Position>> = vec![vec![]];
            for n in 1..1 + random(40) {
                let mut some: Vec<_> =
                    (0..random(4)).map(|_| n - 1 - random(n).min(random(6))).collect();
                some.sort_unstable();
                some.dedup();
                deps.push(some);
            }
            let graph = graph(&deps.iter().map(Vec::as_slice).collect::<Vec<_>>());
            for _ in 0..10 {
                let held: Vec<_> = (0..random(4)).map(|_| random(graph.len())).collect();
                assert_eq!(graph.beyond(&held), slow_beyond(&graph, &held), "{deps:?} {held:?}");
                let other: Vec<_> = (0..random(3)).map(|_| random(graph.len())).collect();
                let missing = slow_beyond(&graph, &held);
                let covers = other.iter().all(|position| !missing.contains(position));
                assert_eq!(graph.covers(&held, &other), covers, "{deps:?} {held:?} {other:?}");
            }
        }
    }

    #[test]
    fn the_maker_of_an_operation_is_found_by_its_number() {
        let mut graph = Graph::default();
        let actor = ActorId::new(b"a").unwrap();
        graph.push(Node { hash: hash(0), actor: &actor, start_op: 1, operations: 3 }, &[]);
        graph.push(Node { hash: hash(1), actor: &actor, start_op: 10, operations: 2 }, &[hash(0)]);
        let made = |counter| graph.operation(&actor, counter);
        assert_eq!((made(1), made(3), made(4)), (Some(0), Some(0), None));
        assert_eq!((made(10), made(11), made(12), made(0)), (Some(1), Some(1), None, None));
        assert_eq!((graph.slot(&actor, 2), graph.slot(&actor, 0)), (Some(1), None));
        assert_eq!(graph.sequence(&actor), 2);
    }
}
