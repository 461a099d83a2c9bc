//! Copies of losing branches.
//!
//! When one actor has written two histories, the changes with the larger hashes are dead
//! (docs/mesh.md: of two changes in one slot, that is of one actor with one number, the one with the
//! smaller hash stays). A branch that lost is a valid document by itself, and is kept as one: a *copy* of
//! the *original*.
//!
//! Which copies there are and what they hold follows from the set of changes alone, and both only grow
//! with it, so that every region makes the same ones in whatever order it hears of what:
//!
//! - There is a copy for each change that is the first of its branch to lose to another branch.
//! - It holds that change, all that builds on it, and what those build on.
//! - A change that a region found not to fit the original is dead in its copies, too.
//! - Inside a copy histories may fork again. What loses there is kept in a copy of the same original:
//!   there are never copies of copies, so there are no more copies than changes that lost, and no
//!   more than [`COPIES_MAX`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use history::chunk::Change;
use model::{ActorId, ChangeHash, DocumentId};

use crate::context::Context;
use crate::document::Document;
use crate::rows::{self, Death, LoadError};
use crate::{Effect, Now, Report};

/// Of how many changes in one slot branches are copied, those with the smallest hashes. Honest regions
/// have one each at most.
const RIVALS_MAX: usize = 64;
/// At how many changes before one it is looked for the one that its actor made before. That is among
/// the nearest, unless whoever made it left it out.
const PREVIOUS_LOOKED_AT_MAX: usize = 1_000;

/// How many copies are made of one document, those of the losers with the smallest hashes. Each has all
/// that its branch builds on, so whoever forks on purpose could make a large document many times over.
/// What has no copy is kept with the dead.
const COPIES_MAX: usize = 64;

/// A branch that lost, as the document that it is by itself.
#[derive(Debug, Clone)]
pub struct Branch {
    /// The id it has as a document.
    pub copy: DocumentId,
    /// The document in which it lost.
    pub original: DocumentId,
    /// Its changes.
    pub changes: Vec<Change>,
    /// Which of them were found not to fit, and why.
    pub misfits: Vec<(ChangeHash, String)>,
}

impl Document {
    /// Makes the copies of losing branches, or makes them longer. `living`: the changes of the log.
    pub(crate) fn copy_losers(
        &self,
        ctx: &mut Context,
        living: &[Change],
        dead: &[rows::Dead],
    ) -> Result<(), LoadError> {
        let original = rows::original(&*ctx.store, &self.id)?.unwrap_or_else(|| self.id.clone());
        let known =
            Known::new(living.iter().chain(dead.iter().filter_map(|it| it.change.as_ref())));
        for loser in known.first_losers().into_iter().take(COPIES_MAX) {
            let copy = copy_id(&original, &loser);
            // In its own copy a loser may lose once more, to a rival that somebody has merged with it.
            if copy == self.id {
                continue;
            }
            let changes = known.branch(&loser);
            let hashes: BTreeSet<ChangeHash> = changes.iter().map(Change::hash).collect();
            let misfits = (dead.iter())
                .filter(|it| it.death == Death::Misfit && hashes.contains(&it.hash))
                .map(|it| (it.hash, it.reason.clone()))
                .collect();
            let (document, change) = (self.id.clone(), loser);
            ctx.report(Report::Copied { document, change, copy: copy.clone() });
            let original = original.clone();
            ctx.effects.push_back(Effect::Adopt(Branch { copy, original, changes, misfits }));
        }
        Ok(())
    }

    /// This document is a copy, and holds this.
    pub(crate) fn adopt(&mut self, ctx: &mut Context, branch: &Branch, now: Now) {
        match rows::original(&*ctx.store, &self.id) {
            Ok(Some(_)) => {}
            Ok(None) => ctx.write(rows::put_original(&self.id, &branch.original)),
            Err(error) => return self.unreadable(ctx, error),
        }
        for (hash, reason) in &branch.misfits {
            self.doom(ctx, *hash, reason);
        }
        for change in &branch.changes {
            self.take_from_log(ctx, change, now);
        }
    }
}

/// All changes of a document that are known, the living and the dead.
struct Known<'a> {
    by_hash: BTreeMap<ChangeHash, &'a Change>,
    /// What builds on a change.
    heirs: BTreeMap<ChangeHash, Vec<ChangeHash>>,
}

impl<'a> Known<'a> {
    fn new(changes: impl Iterator<Item = &'a Change>) -> Self {
        let mut known = Self { by_hash: BTreeMap::new(), heirs: BTreeMap::new() };
        for change in changes {
            if known.by_hash.insert(change.hash(), change).is_none() {
                for dep in change.deps() {
                    known.heirs.entry(*dep).or_default().push(change.hash());
                }
            }
        }
        known
    }

    /// The changes that lose their slot to a branch to which theirs has not lost before.
    fn first_losers(&self) -> BTreeSet<ChangeHash> {
        let mut slots: BTreeMap<(&ActorId, u64), Vec<ChangeHash>> = BTreeMap::new();
        for (hash, change) in &self.by_hash {
            slots.entry((change.actor(), change.seq())).or_default().push(*hash);
        }
        let mut losers = BTreeSet::new();
        // Pairs in one slot of which the first one's branch has won all slots before against the
        // other's. Slots come in the order of their numbers.
        let mut leads: BTreeSet<(ChangeHash, ChangeHash)> = BTreeSet::new();
        for rivals in slots.values_mut().filter(|rivals| rivals.len() > 1) {
            rivals.truncate(RIVALS_MAX);
            let before: Vec<_> = rivals.iter().map(|hash| self.previous(hash)).collect();
            for (a, a_before) in rivals.iter().zip(&before) {
                for (b, b_before) in rivals.iter().zip(&before).filter(|(b, _)| *b != a) {
                    let leading = match (a_before, b_before) {
                        (Some(mine), Some(theirs)) => {
                            mine == theirs || (mine < theirs && leads.contains(&(*mine, *theirs)))
                        }
                        _ => true,
                    };
                    if leading {
                        leads.insert((*a, *b));
                        if b < a {
                            losers.insert(*a);
                        }
                    }
                }
            }
        }
        losers
    }

    /// The change that the same actor had made before this one.
    fn previous(&self, of: &ChangeHash) -> Option<ChangeHash> {
        let change = self.by_hash.get(of)?;
        let slot = (change.actor(), change.seq().checked_sub(1)?);
        self.reachable(change.deps(), |it| it.deps())
            .take(PREVIOUS_LOOKED_AT_MAX)
            .find(|hash| (self.by_hash[hash].actor(), self.by_hash[hash].seq()) == slot)
    }

    /// A loser with all that builds on it, and with what those build on, roughly in causal order.
    fn branch(&self, loser: &ChangeHash) -> Vec<Change> {
        let heirs = |it: &Change| self.heirs.get(&it.hash()).map_or(&[][..], Vec::as_slice);
        let own: Vec<ChangeHash> = self.reachable(&[*loser], heirs).collect();
        let mut changes: Vec<Change> = (self.reachable(&own, |it| it.deps()))
            .map(|hash| self.by_hash[&hash].clone())
            .collect();
        changes.sort_by_key(|change| (change.start_op(), change.hash()));
        changes
    }

    /// Known changes, each once, from some of them along `edges`, nearer ones first.
    fn reachable<'s, 'e: 's>(
        &'s self,
        from: &[ChangeHash],
        edges: impl Fn(&'s Change) -> &'e [ChangeHash] + 's,
    ) -> impl Iterator<Item = ChangeHash> + 's {
        let mut seen: BTreeSet<ChangeHash> = from.iter().copied().collect();
        let mut open: VecDeque<ChangeHash> = seen.iter().copied().collect();
        std::iter::from_fn(move || {
            loop {
                let hash = open.pop_front()?;
                let Some(change) = self.by_hash.get(&hash) else { continue };
                open.extend(edges(change).iter().copied().filter(|next| seen.insert(*next)));
                return Some(hash);
            }
        })
    }
}

/// The id of the copy that keeps a losing branch. It follows from the original and the change that
/// lost, so that every region makes the same one.
pub fn copy_id(original: &DocumentId, loser: &ChangeHash) -> DocumentId {
    let mut id = [0; 16];
    for (at, byte) in loser.as_bytes().iter().enumerate() {
        id[at % 16] ^= byte;
    }
    for (at, byte) in original.as_bytes().iter().enumerate() {
        id[at % 16] ^= byte.rotate_left(3);
    }
    DocumentId::from_bytes(&id).expect("sixteen bytes are an id")
}
