use std::collections::{HashMap, HashSet, VecDeque};

use automerge::{Automerge, Change, ChangeHash, ReadDoc};

use crate::chunks::{Chunk, Contents};
use crate::guard::guarded;
use crate::job::{ExpandLimits, Expanded, Failure, Limit, Progress, Reason, Stage};
use crate::proof::{Numbered, hashes};
use crate::settle::settle_on;

/// Opens an upload: every change in it, raw and in causal order, and a snapshot of them, proven.
pub(crate) fn expand(
    upload: &[u8],
    limits: &ExpandLimits,
    progress: &mut dyn FnMut(Progress),
) -> Result<Expanded, Failure> {
    progress(Progress { stage: Stage::Parse, from: 0, to: 0 });
    let (base, loose) = open_all(upload, limits)?;
    let whole = |reason| Failure::Snapshot { reason };

    let (base_bytes, base) = match base {
        Some((bytes, doc)) => (Some(bytes), *doc),
        None => (None, Automerge::new()),
    };
    let held = hashes(&base).map_err(whole)?;
    let (ready, orphans) = causal_order(loose, &held);
    let numbered: Vec<Numbered> =
        ready.into_iter().enumerate().map(|(index, change)| Numbered { index, change }).collect();
    let afresh = || crate::proof::load(base_bytes, &mut |_| {});
    let proven = settle_on(base, afresh, &numbered, progress)?;

    progress(Progress { stage: Stage::TakeApart, from: 0, to: numbered.len() });
    let changes = guarded(Stage::TakeApart, || Ok(proven.doc.get_changes(&[]))).map_err(whole)?;
    // Automerge gives them in the order in which it took them in, which is a causal one; to lean on
    // that would be to lean on the order of the columns in a stranger's file.
    let (changes, lost) = causal_order(changes, &HashSet::new());
    if !lost.is_empty() || changes.len() as u64 != proven.changes {
        return Err(whole(Reason::ComesBackDifferent));
    }
    let mut total_bytes = 0;
    let mut raw = |change: Change| {
        total_bytes += change.raw_bytes().len() as u64;
        match total_bytes > limits.total_bytes_max {
            true => Err(whole(Reason::OverLimit(Limit::TotalBytes))),
            false => Ok(change.raw_bytes().to_vec()),
        }
    };
    Ok(Expanded {
        heads: proven.heads(),
        changes: changes.into_iter().map(&mut raw).collect::<Result<_, _>>()?,
        orphans: orphans.into_iter().map(&mut raw).collect::<Result<_, _>>()?,
        snapshot: proven.bytes,
    })
}

/// A document with the bytes of its chunk.
type Base<'a> = (&'a [u8], Box<Automerge>);

/// Opens every chunk. The first document is kept as the one to build on, because loading it is many
/// times cheaper than applying its changes; of any further one only the changes are taken.
fn open_all<'a>(
    upload: &'a [u8],
    limits: &ExpandLimits,
) -> Result<(Option<Base<'a>>, Vec<Change>), Failure> {
    let mut base: Option<Base<'a>> = None;
    let mut loose = Vec::new();
    let mut count = 0;
    let mut rest = upload;
    while !rest.is_empty() {
        let at_bytes = upload.len() - rest.len();
        let failed = |reason| Failure::Chunk { at_bytes, reason };
        let (chunk, after) = Chunk::split(rest).map_err(failed)?;
        let contents = chunk.open(limits).map_err(failed)?;
        count += match &contents {
            Contents::Document(doc) => doc.stats().num_changes,
            Contents::Changes(changes) => changes.len() as u64,
        };
        if count > limits.changes_max {
            return Err(failed(Reason::OverLimit(Limit::Changes)));
        }
        match contents {
            Contents::Document(doc) if doc.stats().num_ops > limits.operations_max => {
                return Err(failed(Reason::OverLimit(Limit::Operations)));
            }
            Contents::Document(doc) if base.is_none() => {
                base = Some((&rest[..rest.len() - after.len()], doc));
            }
            Contents::Document(doc) => {
                let changes = guarded(Stage::TakeApart, || Ok(doc.get_changes(&[])));
                loose.extend(changes.map_err(failed)?);
            }
            Contents::Changes(changes) => loose.extend(changes),
        }
        rest = after;
    }
    Ok((base, loose))
}

/// Splits changes into those that can follow `held`, each after what it depends on and otherwise in
/// the order given, and the orphans. Doubles, and what is held already, are left out.
fn causal_order(changes: Vec<Change>, held: &HashSet<ChangeHash>) -> (Vec<Change>, Vec<Change>) {
    let mut seen = HashSet::new();
    let mut slots: Vec<Option<Change>> = changes
        .into_iter()
        .filter(|change| !held.contains(&change.hash()) && seen.insert(change.hash()))
        .map(Some)
        .collect();

    let mut lacking = vec![0_usize; slots.len()];
    let mut waiting: HashMap<ChangeHash, Vec<usize>> = HashMap::new();
    let mut done: HashSet<ChangeHash> = HashSet::new();
    let mut ready = Vec::with_capacity(slots.len());
    let mut released = VecDeque::new();
    for at in 0..slots.len() {
        let change = slots[at].as_ref().expect("only slots before this one were emptied");
        let deps: HashSet<&ChangeHash> = change.deps().iter().collect();
        for dep in deps {
            if !held.contains(dep) && !done.contains(dep) {
                lacking[at] += 1;
                waiting.entry(*dep).or_default().push(at);
            }
        }
        if lacking[at] == 0 {
            released.push_back(at);
        }
        while let Some(at) = released.pop_front() {
            let change = slots[at].take().expect("a change is released once");
            for follower in waiting.remove(&change.hash()).into_iter().flatten() {
                lacking[follower] -= 1;
                if lacking[follower] == 0 {
                    released.push_back(follower);
                }
            }
            done.insert(change.hash());
            ready.push(change);
        }
    }
    (ready, slots.into_iter().flatten().collect())
}
