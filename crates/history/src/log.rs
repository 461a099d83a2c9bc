//! The log of one document: what it holds, what it takes in, what it refuses.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::{ActorId, ChangeHash, Heads};

use crate::check::{Misfit, Verdict};
use crate::chunk::Change;
use crate::directory::Directory;
use crate::frontier::{Ancestors, Frontiers};
use crate::graph::{Graph, Node, Position};
use crate::index::{self, IndexError};
use crate::planted::{Bug, planted};

/// How many changes may wait for a dependency, per document.
pub const PENDING_CHANGES_MAX: usize = 10_000;
/// How many bytes such changes may have together, per document.
pub const PENDING_BYTES_MAX: usize = 16 << 20;
/// How many refused changes are remembered, per document. The oldest are forgotten first, and are
/// refused again when they come again.
pub const REFUSED_MAX: usize = 10_000;
/// How far above the largest operation number known a change may start. Honest clients start at the
/// next one; the gap that is left is for branches that are not here yet. Browsers pay for each
/// number in the gap when they load the document, so it is not generous.
pub const OPERATION_GAP_MAX: u64 = 1 << 16;

/// One document as its change graph.
///
/// `0..base` is covered by a snapshot in the store, `raw_from..` is stored change by change, and
/// `resident_from..` is also here in memory. `0..durable` has been committed: nothing beyond is ever
/// shown to anyone.
#[derive(Default)]
pub struct History {
    graph: Graph,
    frontiers: Frontiers,
    base: Position,
    raw_from: Position,
    resident: VecDeque<Change>,
    resident_bytes: usize,
    durable: Position,
    durable_heads: Heads,
    directory: Option<Directory>,
    refused: Refused,
    dead: Dead,
    pending: Pending,
}

/// Through which door a change comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Door {
    /// A client's: whoever is first in a slot keeps it, and all checks are made.
    #[default]
    Client,
    /// A client's, and the CRDT has judged that it fits.
    Judged,
    /// Another region's: it passed a client's door there. Which of two changes in one slot stays is
    /// decided by their hashes, so that every region decides the same, in whatever order they come.
    Region,
}

/// What became of a change that was offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// It was appended at this position, not durable yet.
    Appended(Position),
    /// It was here before.
    Known(Position),
    /// A dependency is missing; the change is kept until that arrives.
    Pending,
    /// Only the CRDT can tell whether it fits; nothing was done.
    NeedsCrdt(&'static str),
    /// It was refused now or earlier, and is remembered as such.
    Refused(Refusal),
    /// It came from another region, and the change at this position has to give way to it (see
    /// [`Door::Region`]); nothing was done.
    Outranks(Position),
}

/// Why a change is not taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another change has its actor and sequence number: two histories under one actor id.
    #[error("change {hash}: actor {actor} has already made another change number {seq}")]
    Forked {
        /// The change.
        hash: ChangeHash,
        /// Its actor, in hexadecimal.
        actor: String,
        /// Its sequence number.
        seq: u64,
    },
    /// The change does not build on its actor's previous one.
    #[error("change {hash}: number {seq} of actor {actor} does not build on the one before it")]
    SequenceGap {
        /// The change.
        hash: ChangeHash,
        /// Its actor, in hexadecimal.
        actor: String,
        /// Its sequence number.
        seq: u64,
    },
    /// Its operations are numbered below its dependencies', or far above everything known.
    #[error("change {hash}: operations start at {start_op}, expected {least} to {most}")]
    OperationNumbers {
        /// The change.
        hash: ChangeHash,
        /// Where its operations start.
        start_op: u64,
        /// The smallest number that it may start at.
        least: u64,
        /// The largest.
        most: u64,
    },
    /// An operation does not fit the document.
    #[error("change {hash}: {misfit}")]
    Misfit {
        /// The change.
        hash: ChangeHash,
        /// What does not fit.
        misfit: Misfit,
    },
    /// It builds on a change that was refused.
    #[error("change {hash} builds on {on}, which was refused")]
    Descendant {
        /// The change.
        hash: ChangeHash,
        /// The refused dependency.
        on: ChangeHash,
    },
    /// Some region found that it does not fit.
    #[error("change {hash} is dead: {reason}")]
    Dead {
        /// The change.
        hash: ChangeHash,
        /// Why, in the words of whoever found out.
        reason: String,
    },
    /// The CRDT itself refuses it.
    #[error("change {hash}: automerge cannot apply it: {reason}")]
    Crdt {
        /// The change.
        hash: ChangeHash,
        /// Its words.
        reason: String,
    },
    /// Too many changes wait for dependencies that do not come.
    #[error("change {hash}: too many changes of this document wait for their dependencies")]
    TooManyPending {
        /// The change.
        hash: ChangeHash,
    },
}

impl Refusal {
    /// Whether an honest client can have sent this. One that cannot has its session closed.
    pub fn is_hostile(&self) -> bool {
        matches!(
            self,
            Self::Misfit { .. }
                | Self::OperationNumbers { .. }
                | Self::SequenceGap { .. }
                | Self::TooManyPending { .. }
        )
    }
}

/// Hashes looked up in a history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Where the known ones are. A refused change counts as the changes it builds on.
    pub known: Vec<Position>,
    /// The ones that are not known.
    pub unknown: Vec<ChangeHash>,
    /// One of them, or an ancestor, lost its actor's sequence number to another change that is
    /// here. Automerge cannot hold both, so whoever holds the one must not be sent the other.
    pub forked: bool,
}

impl History {
    /// Continues a history that is in a store: index segments first, then [`History::restore`] each
    /// change from the snapshot's end on.
    pub fn from_index<'a>(
        base: Position,
        raw_from: Position,
        segments: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, IndexError> {
        let mut history = Self { base, raw_from, ..Self::default() };
        for segment in segments {
            index::decode(&mut history.graph, segment)?;
        }
        if history.graph.len() != base {
            return Err(IndexError::Gap {
                starts_at: u64::from(base),
                expected: u64::from(history.graph.len()),
            });
        }
        history.settle(base);
        Ok(history)
    }

    /// Appends a change that was read from the store.
    ///
    /// # Errors
    /// When it does not continue this log: the store is not as it was written.
    pub fn restore(&mut self, change: Change) -> Result<Position, RestoreError> {
        if self.graph.position(&change.hash()).is_some() {
            return Err(RestoreError::Twice(change.hash()));
        }
        if let Some(dep) = change.deps().iter().find(|dep| self.graph.position(dep).is_none()) {
            return Err(RestoreError::Missing { change: change.hash(), dependency: *dep });
        }
        let position = self.append(change);
        self.settle(position + 1);
        Ok(position)
    }

    /// The graph, with changes that are not durable yet.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// How many changes there are, durable or not.
    pub fn len(&self) -> Position {
        self.graph.len()
    }

    /// Whether there is no change, durable or not.
    pub fn is_empty(&self) -> bool {
        self.graph.is_empty()
    }

    /// How many changes are durable: the part that may be spoken of.
    pub fn durable(&self) -> Position {
        self.durable
    }

    /// The heads of the durable part.
    pub fn heads(&self) -> &Heads {
        &self.durable_heads
    }

    /// How many changes the snapshot covers.
    pub fn base(&self) -> Position {
        self.base
    }

    /// From where on changes are stored one by one.
    pub fn raw_from(&self) -> Position {
        self.raw_from
    }

    /// From where on changes are in memory.
    pub fn resident_from(&self) -> Position {
        self.len() - self.resident.len() as Position
    }

    /// A change that is in memory.
    pub fn resident(&self, position: Position) -> Option<&Change> {
        self.resident.get(position.checked_sub(self.resident_from())? as usize)
    }

    /// How many bytes the changes from `resident_from` on have.
    pub fn resident_bytes(&self) -> usize {
        self.resident_bytes
    }

    /// About how much memory this history takes, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.graph.memory_bytes()
            + self.resident_bytes
            + self.resident.len() * 256
            + self.directory.as_ref().map_or(0, Directory::memory_bytes)
            + self.pending.bytes
            + self.refused.by_hash.len() * 200
            + self.dead.hashes.len() * 100
    }

    /// The operation directory, if it is in memory. [`History::offer`] needs it.
    pub fn directory(&self) -> Option<&Directory> {
        self.directory.as_ref()
    }

    /// Puts the directory of the first `base` changes in place; the resident ones are added.
    pub fn install_directory(&mut self, mut directory: Directory) {
        let skip = self.base.saturating_sub(self.resident_from()) as usize;
        for change in self.resident.iter().skip(skip) {
            directory.record(change);
        }
        self.directory = Some(directory);
    }

    /// Everything below `position` is durable now.
    pub fn settle(&mut self, position: Position) {
        while self.durable < position {
            let at = self.durable;
            let deps: Vec<_> =
                self.graph.deps(at).iter().map(|dep| self.graph.hash(*dep)).collect();
            self.durable_heads.advance(self.graph.hash(at), &deps);
            self.durable += 1;
        }
    }

    /// A snapshot now covers the changes below `base`; those below `raw_from` are no longer stored
    /// one by one. Changes below `base` leave memory.
    pub fn compacted(&mut self, base: Position, raw_from: Position) {
        self.base = base;
        self.raw_from = raw_from;
        while self.resident_from() < base {
            let change = self.resident.pop_front().expect("resident changes end at the log's end");
            self.resident_bytes -= change.bytes().len();
        }
    }

    /// Whether changes wait for dependencies.
    pub fn has_pending(&self) -> bool {
        !self.pending.by_hash.is_empty()
    }

    /// Looks hashes up. A hash that was refused counts as what it builds on (rule R8): whoever
    /// holds a refused change holds its ancestors.
    pub fn resolve<'a>(&self, hashes: impl IntoIterator<Item = &'a ChangeHash>) -> Resolved {
        let mut resolved = Resolved::default();
        let mut stack: Vec<ChangeHash> = hashes.into_iter().copied().collect();
        let mut seen = BTreeSet::new();
        while let Some(hash) = stack.pop() {
            if let Some(position) = self.graph.position(&hash) {
                resolved.known.push(position);
            } else if let Some(refused) = self.refused.by_hash.get(&hash)
                && !planted(Bug::ForgetsRefused)
            {
                if seen.insert(hash) {
                    resolved.forked |= matches!(refused.why, Refusal::Forked { .. });
                    stack.extend(&refused.deps);
                }
            } else {
                resolved.unknown.push(hash);
            }
        }
        resolved.known.sort_unstable();
        resolved.known.dedup();
        resolved.unknown.sort_unstable();
        resolved.unknown.dedup();
        resolved
    }

    /// What has to be asked for to get to `unknown` hashes: themselves, or what they wait for.
    pub fn missing(&self, unknown: &[ChangeHash]) -> Vec<ChangeHash> {
        let mut missing = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut stack = unknown.to_vec();
        while let Some(hash) = stack.pop() {
            let refused = self.refused.by_hash.contains_key(&hash) && !planted(Bug::ForgetsRefused);
            let known = self.graph.position(&hash).is_some() || refused;
            if known || !seen.insert(hash) {
                continue;
            }
            match self.pending.by_hash.get(&hash) {
                Some((change, _)) => stack.extend(change.deps()),
                None => {
                    missing.insert(hash);
                }
            }
        }
        missing.into_iter().collect()
    }

    /// Durable changes that are neither in `held` nor an ancestor of it, ascending.
    pub fn beyond(&self, held: &[Position]) -> Vec<Position> {
        let mut beyond = self.graph.beyond(held);
        beyond.truncate(beyond.partition_point(|position| *position < self.durable));
        beyond
    }

    /// Why a change is refused, if it is.
    pub fn refusal(&self, hash: &ChangeHash) -> Option<&Refusal> {
        self.refused.by_hash.get(hash).map(|refused| &refused.why)
    }

    /// Checks a change and appends it. What waited for it is appended too, reported by `each`.
    ///
    /// # Panics
    /// When the directory is not in place.
    pub fn offer(&mut self, change: Change, door: Door, each: &mut dyn FnMut(&Change, Offer)) {
        let offer = self.take(&change, door);
        let taken = matches!(offer, Offer::Appended(_) | Offer::Refused(_));
        let hash = change.hash();
        each(&change, offer);
        if taken {
            self.retry(hash, each);
        }
    }

    /// Remembers that a change is not wanted here; what waits for it is refused with it.
    pub fn refuse(&mut self, change: &Change, why: Refusal) {
        let hash = change.hash();
        self.pending.remove(&hash);
        self.refused.remember(change, why);
        self.retry(hash, &mut |_, _| {});
    }

    /// Whether some actor's second history has been seen here, so that somebody may hold it.
    pub fn has_forks(&self) -> bool {
        self.refused.forks
    }

    /// Whether a change is dead: set aside for ever, in every region.
    pub fn is_dead(&self, hash: &ChangeHash) -> bool {
        self.dead.hashes.contains(hash) || self.dead.doomed.contains_key(hash)
    }

    /// Whether a change is known to be dead by name only.
    pub fn is_doomed(&self, hash: &ChangeHash) -> bool {
        self.dead.doomed.contains_key(hash)
    }

    /// How many dead changes there are of this one's actor with its number.
    pub fn dead_rivals(&self, change: &Change) -> u32 {
        let slot = (change.actor().clone(), change.seq());
        self.dead.slots.get(&slot).map_or(0, |slot| slot.count)
    }

    /// A change that is dead already, because of another, does not fit either.
    pub fn convict(&mut self, hash: &ChangeHash, reason: String) {
        if let Some(refused) = self.refused.by_hash.get_mut(hash) {
            refused.why = Refusal::Dead { hash: *hash, reason };
        }
    }

    /// The changes that are known to be dead by name only, and why they are.
    pub fn doomed(&self) -> BTreeMap<ChangeHash, String> {
        self.dead.doomed.clone()
    }

    /// Whether a change is dead and has been seen here.
    pub fn has_buried(&self, hash: &ChangeHash) -> bool {
        self.dead.hashes.contains(hash)
    }

    /// The dead changes, ascending, also those that have not been seen here.
    pub fn dead(&self) -> Vec<ChangeHash> {
        let mut dead: BTreeSet<ChangeHash> = self.dead.hashes.clone();
        dead.extend(self.dead.doomed.keys());
        dead.into_iter().collect()
    }

    /// Whether this change, which is in the log, has the slot of a dead one, or a dead one builds on it.
    pub fn concerns_dead(&self, change: &Change) -> bool {
        !self.dead.hashes.is_empty()
            && (self.dead.build_on.contains(&change.hash())
                || self.dead.slots.contains_key(&(change.actor().clone(), change.seq())))
    }

    /// Remembers a dead change. It is not in the log, or about to leave it.
    ///
    /// A dead change keeps its actor's slot: returns who has it now and must give way, because its
    /// hash is larger. (Whether the smaller one is alive does not matter: else two slots could depend
    /// on each other in a circle.) `each` hears what became of changes that waited for it.
    pub fn bury(
        &mut self,
        change: &Change,
        why: Refusal,
        each: &mut dyn FnMut(&Change, Offer),
    ) -> Option<Position> {
        let hash = change.hash();
        self.pending.remove(&hash);
        let new = self.dead.hashes.insert(hash);
        self.dead.doomed.remove(&hash);
        let slot = (change.actor().clone(), change.seq());
        let slot = self.dead.slots.entry(slot).or_insert(DeadSlot { least: hash, count: 0 });
        slot.least = hash.min(slot.least);
        slot.count += u32::from(new);
        self.dead.build_on.extend(change.deps());
        self.refused.forks |= matches!(why, Refusal::Forked { .. });
        self.refused
            .by_hash
            .insert(hash, RefusedChange { deps: change.deps().to_vec(), why, dead: true });
        self.retry(hash, each);
        let occupant = self.graph.slot(change.actor(), change.seq())?;
        (self.graph.hash(occupant) > hash).then_some(occupant)
    }

    /// Remembers that a change is dead that has not been seen here. Returns where it is, if it is in
    /// the log after all.
    pub fn doom(&mut self, hash: ChangeHash, reason: String) -> Option<Position> {
        if !self.dead.hashes.contains(&hash) {
            self.dead.doomed.insert(hash, reason);
        }
        self.graph.position(&hash)
    }

    /// The directory as it stands before a change is offered is all that the check may look at, so
    /// the order is: what is known, what is missing, the actor's slot, the numbers, the operations.
    fn take(&mut self, change: &Change, door: Door) -> Offer {
        let hash = change.hash();
        if let Some(position) = self.graph.position(&hash) {
            return Offer::Known(position);
        }
        if let Some(reason) = self.dead.doomed.get(&hash) {
            return Offer::Refused(Refusal::Dead { hash, reason: reason.clone() });
        }
        if let Some(refused) = self.refused.by_hash.get(&hash) {
            if door != Door::Region || self.dead.hashes.contains(&hash) {
                return Offer::Refused(refused.why.clone());
            }
            // A client's door was closed to it here, but another region has taken it in.
            self.refused.by_hash.remove(&hash);
        }
        let mut deps = Vec::with_capacity(change.deps().len());
        for dep in change.deps() {
            if let Some(position) = self.graph.position(dep) {
                deps.push(position);
            } else if self.dead.hashes.contains(dep)
                || (door != Door::Region
                    && self.refused.by_hash.contains_key(dep)
                    && !planted(Bug::AwaitsRefused))
            {
                return self.refused.remember(change, Refusal::Descendant { hash, on: *dep });
            } else {
                return self.keep_pending(change, door);
            }
        }
        deps.sort_unstable();
        deps.dedup();

        let concurrent = self.frontiers.concurrent_to(&self.graph, &deps);
        let ancestors = Ancestors { graph: &self.graph, concurrent: &concurrent };
        let (actor, seq) = (change.actor(), change.seq());
        let taken = self.graph.sequence(actor);
        let buried = self.dead.slots.get(&(actor.clone(), seq)).map(|slot| slot.least);
        if (seq <= taken && seq > 0) || buried.is_some_and(|buried| buried != hash) {
            let occupant = self.graph.slot(actor, seq);
            let stays = door != Door::Region
                || buried.is_some_and(|buried| buried < hash)
                || occupant.is_some_and(|occupant| self.graph.hash(occupant) < hash);
            if stays {
                let why = Refusal::Forked { hash, actor: actor.to_string(), seq };
                return self.refused.remember(change, why);
            }
            if let Some(occupant) = occupant {
                return Offer::Outranks(occupant);
            }
        }
        let builds_on_previous = seq == taken + 1
            && (seq == 1
                || self.graph.slot(actor, seq - 1).is_some_and(|slot| ancestors.contain(slot)));
        if !builds_on_previous {
            let why = Refusal::SequenceGap { hash, actor: actor.to_string(), seq };
            return self.refused.remember(change, why);
        }
        let least = deps.iter().map(|dep| self.graph.max_op_of(*dep)).max().unwrap_or(0) + 1;
        // A gap before a change without operations makes Automerge lose the saved document.
        let most = match change.operations() {
            // What is far above us was not far above what that region had.
            _ if door == Door::Region => u64::MAX,
            0 => least,
            _ => self.graph.max_op() + OPERATION_GAP_MAX,
        };
        if !(least..=most).contains(&change.start_op()) {
            let start_op = change.start_op();
            let why = Refusal::OperationNumbers { hash, start_op, least, most };
            return self.refused.remember(change, why);
        }
        let directory = self.directory.as_ref().expect("the directory is loaded before a write");
        match directory.check(change, &ancestors) {
            Ok(Verdict::Fits) => {}
            Ok(Verdict::NeedsCrdt(_)) if door != Door::Client => {}
            Ok(Verdict::NeedsCrdt(why)) => return Offer::NeedsCrdt(why),
            Err(misfit) => return self.refused.remember(change, Refusal::Misfit { hash, misfit }),
        }
        if let Some(directory) = &mut self.directory {
            directory.record(change);
        }
        let position = self.append(change.clone());
        self.frontiers.appended(position, &deps, concurrent);
        Offer::Appended(position)
    }

    fn append(&mut self, change: Change) -> Position {
        let node = Node {
            hash: change.hash(),
            actor: change.actor(),
            start_op: change.start_op(),
            operations: change.operations(),
        };
        let position = self.graph.push(node, change.deps());
        self.resident_bytes += change.bytes().len();
        self.resident.push_back(change);
        position
    }

    fn keep_pending(&mut self, change: &Change, door: Door) -> Offer {
        let hash = change.hash();
        if let Some((_, waits_at)) = self.pending.by_hash.get_mut(&hash) {
            if door == Door::Region {
                *waits_at = door;
            }
            return Offer::Pending;
        }
        if self.pending.by_hash.len() >= PENDING_CHANGES_MAX
            || self.pending.bytes + change.bytes().len() > PENDING_BYTES_MAX
        {
            // Not remembered: once there is room the same change is welcome.
            return Offer::Refused(Refusal::TooManyPending { hash });
        }
        for dep in change.deps() {
            if self.graph.position(dep).is_none() {
                self.pending.waiting.entry(*dep).or_default().insert(hash);
            }
        }
        self.pending.bytes += change.bytes().len();
        self.pending.by_hash.insert(hash, (change.clone(), door));
        Offer::Pending
    }

    fn retry(&mut self, settled: ChangeHash, each: &mut dyn FnMut(&Change, Offer)) {
        let mut settled = vec![settled];
        while let Some(hash) = settled.pop() {
            for waiter in self.pending.waiting.remove(&hash).unwrap_or_default() {
                let Some((change, door)) = self.pending.remove(&waiter) else { continue };
                let offer =
                    self.take(&change, if door == Door::Region { door } else { Door::Client });
                if matches!(offer, Offer::Appended(_) | Offer::Refused(_)) {
                    settled.push(waiter);
                }
                if offer != Offer::Pending {
                    each(&change, offer);
                }
            }
        }
    }
}

/// Why a change from the store does not continue the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The change is in the log already.
    #[error("change {0} is in the log twice")]
    Twice(ChangeHash),
    /// A dependency does not come before it.
    #[error("change {change} depends on {dependency}, which is not before it in the log")]
    Missing {
        /// The change.
        change: ChangeHash,
        /// What it depends on.
        dependency: ChangeHash,
    },
}

/// Refused changes, by name, with what they build on.
#[derive(Default)]
struct Refused {
    by_hash: BTreeMap<ChangeHash, RefusedChange>,
    in_order: VecDeque<ChangeHash>,
    /// One of them, at some time, was an actor's second history.
    forks: bool,
}

struct RefusedChange {
    deps: Vec<ChangeHash>,
    why: Refusal,
    /// It is dead, and not forgotten.
    dead: bool,
}

impl Refused {
    fn remember(&mut self, change: &Change, why: Refusal) -> Offer {
        let hash = change.hash();
        self.forks |= matches!(why, Refusal::Forked { .. });
        let refused = RefusedChange { deps: change.deps().to_vec(), why: why.clone(), dead: false };
        if self.by_hash.insert(hash, refused).is_none() {
            self.in_order.push_back(hash);
        }
        if self.in_order.len() > REFUSED_MAX
            && let Some(oldest) = self.in_order.pop_front()
            && self.by_hash.get(&oldest).is_some_and(|refused| !refused.dead)
        {
            self.by_hash.remove(&oldest);
        }
        Offer::Refused(why)
    }
}

/// Changes that are set aside for ever. The store has them; they are never forgotten.
#[derive(Default)]
struct Dead {
    hashes: BTreeSet<ChangeHash>,
    slots: BTreeMap<(ActorId, u64), DeadSlot>,
    /// What they build on.
    build_on: BTreeSet<ChangeHash>,
    /// Known to be dead by name only.
    doomed: BTreeMap<ChangeHash, String>,
}

/// The dead of one actor with one number.
struct DeadSlot {
    least: ChangeHash,
    count: u32,
}

/// Changes whose dependencies are not here yet.
#[derive(Default)]
struct Pending {
    by_hash: BTreeMap<ChangeHash, (Change, Door)>,
    /// Missing dependency → who waits for it.
    waiting: BTreeMap<ChangeHash, BTreeSet<ChangeHash>>,
    bytes: usize,
}

impl Pending {
    fn remove(&mut self, hash: &ChangeHash) -> Option<(Change, Door)> {
        let (change, door) = self.by_hash.remove(hash)?;
        self.bytes -= change.bytes().len();
        for dep in change.deps() {
            if let Some(waiters) = self.waiting.get_mut(dep) {
                waiters.remove(hash);
                if waiters.is_empty() {
                    self.waiting.remove(dep);
                }
            }
        }
        Some((change, door))
    }
}
