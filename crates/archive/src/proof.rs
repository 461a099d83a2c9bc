//! The steps by which a document is proven, each guarded.

use std::collections::HashSet;

use automerge::transaction::Transactable;
use automerge::{
    Automerge, Change, ChangeHash, ObjId, ObjType, PatchLog, ROOT, ReadDoc, SaveOptions,
};
use model::Heads;

use crate::chunks::parse_change;
use crate::guard::{guarded, refused};
use crate::job::{Failure, Progress, Reason, Stage};
use crate::read::read_everything;

/// How many changes are handed to Automerge at once. A batch costs one pass over the document, so
/// many small ones are slow; one that kills the process is where the search for the culprit begins.
const BATCH_CHANGES_MAX: usize = 4_096;

/// Automerge counts operations in 32 bits and panics where they end. A document past the middle was
/// brought there on purpose, and would have its next honest writer find the end.
const OPERATION_NUMBER_MAX: u64 = 1 << 31;

/// A change and where it stood in the job.
#[derive(Clone)]
pub(crate) struct Numbered {
    pub(crate) index: usize,
    pub(crate) change: Change,
}

/// A document that held.
pub(crate) struct Proven {
    /// As it was after applying.
    pub(crate) doc: Automerge,
    /// One document chunk, compressed.
    pub(crate) bytes: Vec<u8>,
    /// How many changes it holds.
    pub(crate) changes: u64,
}

impl Proven {
    pub(crate) fn heads(&self) -> Heads {
        self.doc.get_heads().into_iter().map(|hash| model::ChangeHash(hash.0)).collect()
    }
}

/// The document of a snapshot, or the empty one.
pub(crate) fn load(
    snapshot: Option<&[u8]>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Automerge, Failure> {
    let Some(bytes) = snapshot else { return Ok(Automerge::new()) };
    progress(Progress { stage: Stage::Load, from: 0, to: 0 });
    guarded(Stage::Load, || Automerge::load(bytes).map_err(refused(Stage::Load)))
        .map_err(|reason| Failure::Snapshot { reason })
}

/// The hashes of everything a document holds.
pub(crate) fn hashes(doc: &Automerge) -> Result<HashSet<ChangeHash>, Reason> {
    guarded(Stage::TakeApart, || {
        Ok(doc.get_changes_meta(&[]).into_iter().map(|change| change.hash).collect())
    })
}

/// Parses a change, and sees that what it depends on is `known`.
pub(crate) fn parse_next(bytes: &[u8], known: &HashSet<ChangeHash>) -> Result<Change, Reason> {
    let change = guarded(Stage::Parse, || parse_change(bytes))?;
    match change.deps().iter().find(|dep| !known.contains(*dep)) {
        Some(missing) => Err(Reason::MissingDependency(model::ChangeHash(missing.0))),
        None => Ok(change),
    }
}

/// Puts `changes`, none of which `doc` holds, on top of it, and proves what comes out.
pub(crate) fn prove(
    mut doc: Automerge,
    changes: &[Numbered],
    progress: &mut dyn FnMut(Progress),
) -> Result<Proven, Reason> {
    let before = doc.stats().num_changes;
    let mut patches = PatchLog::active();
    for batch in changes.chunks(BATCH_CHANGES_MAX) {
        progress(step(Stage::Apply, batch));
        guarded(Stage::Apply, || {
            let batch: Vec<Change> = batch.iter().map(|numbered| numbered.change.clone()).collect();
            doc.apply_changes_log_patches(batch, &mut patches).map_err(refused(Stage::Apply))
        })?;
    }
    let count = before + changes.len() as u64;

    progress(step(Stage::Save, changes));
    let bytes = guarded(Stage::Save, || {
        Ok(doc.save_with_options(SaveOptions { deflate: true, retain_orphans: false }))
    })?;

    progress(step(Stage::Reload, changes));
    let mut again =
        guarded(Stage::Reload, || Automerge::load(&bytes).map_err(refused(Stage::Reload)))?;
    let counts = [doc.stats().num_changes, again.stats().num_changes];
    if doc.get_heads() != again.get_heads() || counts != [count, count] {
        return Err(Reason::ComesBackDifferent);
    }

    progress(step(Stage::Read, changes));
    read_everything(&again)?;

    // Clients in browsers turn what they apply into patches: an object inside itself applies, saves,
    // loads and is never met by a reader, and here exhausts the memory. Only after reading, because
    // every patch carries its path: deep nesting, refused there, costs its square here.
    progress(step(Stage::Patch, changes));
    guarded(Stage::Patch, || {
        drop(doc.make_patches(&mut patches));
        Ok(())
    })?;

    // A change can use up the numbers of operations: it harms nobody, until somebody edits.
    progress(step(Stage::Edit, changes));
    guarded(Stage::Edit, || {
        let mut edit = again.transaction();
        let probe = edit.put_object(ROOT, "probe", ObjType::Map).map_err(refused(Stage::Edit))?;
        edit.commit();
        match probe {
            ObjId::Id(number, ..) if number > OPERATION_NUMBER_MAX => Err(Reason::NoRoomToEdit),
            _ => Ok(()),
        }
    })?;
    Ok(Proven { doc, bytes, changes: count })
}

fn step(stage: Stage, changes: &[Numbered]) -> Progress {
    let from = changes.first().map_or(0, |first| first.index);
    let to = changes.last().map_or(0, |last| last.index + 1);
    Progress { stage, from, to }
}
