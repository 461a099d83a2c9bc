use automerge::Automerge;

use crate::job::{Failure, Progress, Reason};
use crate::proof::{Numbered, Proven, hashes, load, parse_next, prove};

/// Proves a snapshot with changes on top, or names the first change with which it does not hold.
pub(crate) fn settle(
    snapshot: Option<&[u8]>,
    changes: &[Vec<u8>],
    progress: &mut dyn FnMut(Progress),
) -> Result<Proven, Failure> {
    let doc = load(snapshot, progress)?;
    let numbered = parse_all(&doc, changes)?;
    settle_on(doc, || load(snapshot, &mut |_| {}), &numbered, progress)
}

/// The changes that `doc` does not hold yet, in the order given.
pub(crate) fn parse_all(doc: &Automerge, changes: &[Vec<u8>]) -> Result<Vec<Numbered>, Failure> {
    let mut known = hashes(doc).map_err(|reason| Failure::Snapshot { reason })?;
    let mut numbered = Vec::with_capacity(changes.len());
    for (index, bytes) in changes.iter().enumerate() {
        match parse_next(bytes, &known) {
            Ok(change) if !known.insert(change.hash()) => {}
            Ok(change) => numbered.push(Numbered { index, change }),
            Err(reason) => return Err(Failure::Change { index, hash: hash_of(bytes), reason }),
        }
    }
    Ok(numbered)
}

/// [`settle`] for a document that is open already; `afresh` opens it once more.
pub(crate) fn settle_on(
    doc: Automerge,
    afresh: impl FnOnce() -> Result<Automerge, Failure>,
    changes: &[Numbered],
    progress: &mut dyn FnMut(Progress),
) -> Result<Proven, Failure> {
    match prove(doc, changes, progress) {
        Ok(proven) => Ok(proven),
        Err(reason) if changes.is_empty() => Err(Failure::Snapshot { reason }),
        Err(_) => {
            let base =
                prove(afresh()?, &[], progress).map_err(|reason| Failure::Snapshot { reason })?;
            search(base, changes, progress)
        }
    }
}

/// `changes` do not hold together: halves them until a prefix holds and the same with one more does
/// not. Everything is proven by doing, so the change that is named was seen to break the document.
fn search(
    mut good: Proven,
    changes: &[Numbered],
    progress: &mut dyn FnMut(Progress),
) -> Result<Proven, Failure> {
    // `changes[..held]` hold and are in `good`; `changes[..broken]` do not, or so it is thought: what
    // broke in one large batch need not break in smaller ones.
    let mut held = 0;
    let mut broken = changes.len();
    while held < changes.len() {
        let middle = if broken - held > 1 { held + (broken - held) / 2 } else { broken };
        match prove(good.doc.clone(), &changes[held..middle], progress) {
            Ok(proven) => {
                good = proven;
                held = middle;
                if held == broken {
                    broken = changes.len();
                }
            }
            Err(reason) if middle == held + 1 => {
                return Err(failed(&changes[held], reason));
            }
            Err(_) => broken = middle,
        }
    }
    Ok(good)
}

fn failed(culprit: &Numbered, reason: Reason) -> Failure {
    let hash = Some(model::ChangeHash(culprit.change.hash().0));
    Failure::Change { index: culprit.index, hash, reason }
}

fn hash_of(bytes: &[u8]) -> Option<model::ChangeHash> {
    let parsed =
        crate::guard::guarded(crate::job::Stage::Parse, || crate::chunks::parse_change(bytes));
    parsed.ok().map(|change| model::ChangeHash(change.hash().0))
}
