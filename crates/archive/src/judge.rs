use std::collections::HashSet;
use std::ops::Range;

use automerge::ChangeHash;

use crate::job::{Failure, Progress, Reason, Verdict};
use crate::proof::{Numbered, hashes, load, parse_next, prove};
use crate::settle::{parse_all, settle};

/// One verdict per candidate. A refused candidate is left out, and so is whatever depends on it.
///
/// Honest candidates cost one proof together; every bad one costs a few more.
pub(crate) fn judge(
    snapshot: Option<&[u8]>,
    changes: &[Vec<u8>],
    candidates: &[Vec<u8>],
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Verdict>, Failure> {
    let doc = load(snapshot, progress)?;
    let mut all = parse_all(&doc, changes)?;
    let mut known = hashes(&doc).map_err(|reason| Failure::Snapshot { reason })?;
    known.extend(all.iter().map(|numbered| numbered.change.hash()));

    let mut verdicts = vec![Ok(()); candidates.len()];
    let mut open = Vec::new();
    for (at, bytes) in candidates.iter().enumerate() {
        match parse_next(bytes, &known) {
            Ok(change) if !known.insert(change.hash()) => {}
            Ok(change) => open.push(Numbered { index: changes.len() + at, change }),
            Err(reason) => verdicts[at] = Err(reason),
        }
    }
    if open.is_empty() {
        return Ok(verdicts);
    }
    all.extend(open.iter().cloned());
    if prove(doc, &all, progress).is_ok() {
        return Ok(verdicts);
    }

    // Something is bad. It is not to be blamed on a candidate if it was there before.
    let mut good = settle(snapshot, changes, progress)?;
    let mut refused = HashSet::new();
    // The last is looked at first: of two halves the earlier one goes on top.
    let mut waiting: Vec<Range<usize>> = Vec::new();
    waiting.push(0..open.len());
    while let Some(range) = waiting.pop() {
        let mut tried = Vec::new();
        for candidate in &open[range.clone()] {
            match lost_dependency(candidate, &refused) {
                Some(reason) => {
                    refused.insert(candidate.change.hash());
                    verdicts[candidate.index - changes.len()] = Err(reason);
                }
                None => tried.push(candidate.clone()),
            }
        }
        if tried.is_empty() {
            continue;
        }
        match prove(good.doc.clone(), &tried, progress) {
            Ok(proven) => good = proven,
            Err(reason) if tried.len() == 1 => {
                refused.insert(tried[0].change.hash());
                verdicts[tried[0].index - changes.len()] = Err(reason);
            }
            Err(_) => {
                let middle = range.start + range.len() / 2;
                waiting.push(middle..range.end);
                waiting.push(range.start..middle);
            }
        }
    }
    Ok(verdicts)
}

fn lost_dependency(candidate: &Numbered, refused: &HashSet<ChangeHash>) -> Option<Reason> {
    let lost = candidate.change.deps().iter().find(|dep| refused.contains(*dep))?;
    Some(Reason::MissingDependency(model::ChangeHash(lost.0)))
}
