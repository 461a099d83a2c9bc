//! What surrounds the check in the server, written down as plainly as possible: who is whose
//! ancestor, by walking the graph, and the rules that concern the graph alone.

use std::collections::{BTreeMap, BTreeSet};

use model::{ActorId, ChangeHash};
use tributary_history::check::{Ancestry, Misfit, Verdict};
use tributary_history::directory::Directory;
use tributary_history::{Change, Chunk, Limits, read_chunks};

/// A document as the server keeps it.
#[derive(Clone, Default)]
pub struct Document {
    pub directory: Directory,
    changes: BTreeMap<ChangeHash, Change>,
}

/// Why a change was not taken.
#[derive(Debug, Clone, PartialEq)]
pub enum Refused {
    /// Not a readable change.
    Chunk(String),
    /// A rule of the graph, which the log of the server checks.
    Graph(&'static str),
    /// The structural check.
    Misfit(Misfit),
}

/// The operations of ancestors, each as actor and range.
pub struct Ancestors(Vec<(ActorId, u64, u64)>);

impl Ancestry for Ancestors {
    fn covers(&self, actor: &ActorId, counter: u64) -> bool {
        self.0.iter().any(|(by, first, last)| by == actor && (*first..=*last).contains(&counter))
    }
}

impl Document {
    /// What the server says to a change, without taking it.
    pub fn judge(&self, bytes: &[u8]) -> Result<(Change, Verdict), Refused> {
        let chunks = read_chunks(bytes, &Limits::default())
            .map_err(|error| Refused::Chunk(error.to_string()))?;
        let [Chunk::Change(change)] = chunks.as_slice() else {
            return Err(Refused::Chunk("not one change".into()));
        };
        let ancestors = self.ancestors(change)?;
        let own = ancestors.iter().filter(|ancestor| ancestor.actor() == change.actor());
        if own.map(|ancestor| ancestor.seq()).max().unwrap_or(0) + 1 != change.seq() {
            return Err(Refused::Graph("its predecessor is no ancestor"));
        }
        let slot = |other: &&Change| {
            other.actor() == change.actor() && other.seq() == change.seq() && *other != change
        };
        if self.changes.values().any(|other| slot(&other)) {
            return Err(Refused::Graph("its slot is taken"));
        }
        let least = ancestors.iter().map(|ancestor| ancestor.max_op()).max().unwrap_or(0) + 1;
        if change.start_op() < least {
            return Err(Refused::Graph("it starts before an ancestor ends"));
        }
        // Automerge gives up a saved document in which numbers are missing and no operation shows it.
        if change.operations() == 0 && change.start_op() != least {
            return Err(Refused::Graph("it is empty and leaves a gap"));
        }
        let range = |a: &&Change| (a.actor().clone(), a.start_op(), a.max_op());
        let ancestry = Ancestors(ancestors.iter().map(range).collect());
        let verdict = self.directory.check(change, &ancestry).map_err(Refused::Misfit)?;
        Ok((change.clone(), verdict))
    }

    /// Takes a change, if the server would; those that need the CRDT only with `crdt`.
    pub fn offer(&mut self, bytes: &[u8], crdt: bool) -> Result<Verdict, Refused> {
        let (change, verdict) = self.judge(bytes)?;
        if verdict == Verdict::Fits || crdt {
            self.directory.record(&change);
            self.changes.insert(change.hash(), change);
        }
        Ok(verdict)
    }

    fn ancestors(&self, change: &Change) -> Result<Vec<&Change>, Refused> {
        let mut found = BTreeSet::new();
        let mut ancestors = Vec::new();
        let mut next: Vec<ChangeHash> = change.deps().to_vec();
        while let Some(hash) = next.pop() {
            if found.insert(hash) {
                let ancestor = self.changes.get(&hash).ok_or(Refused::Graph("it misses some"))?;
                next.extend(ancestor.deps());
                ancestors.push(ancestor);
            }
        }
        Ok(ancestors)
    }
}
