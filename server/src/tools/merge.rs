//! Puts changes into a stored document, as the server would, and only if Automerge takes the result.

use std::collections::{HashMap, HashSet, VecDeque};

use archive::{Answer, ExpandLimits, Failure as Bad, Job};
use history::chunk::{Change, Chunk, Limits, read_change, read_chunks};
use history::graph::Position;
use history::{Door, History, Offer, Refusal, index};
use model::{ChangeHash, DocumentId};
use node::ArchiveFailure;
use node::rows::{self, Meta};
use store::{Store, Write};

use super::archive::Archive;

/// How every chunk begins.
const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
/// How many changes are judged by Automerge in one job.
const JUDGED_AT_ONCE: usize = 10_000;
/// So many changes that only Automerge finds bad are looked for in one document; each costs a job.
const UNFIT_MAX: usize = 32;

/// The changes that were found in files, and what could not be read.
#[derive(Default)]
pub struct Source {
    /// The changes, each once or more often, in any order.
    pub changes: Vec<Change>,
    /// What could not be read, in words.
    pub problems: Vec<String>,
}

impl Source {
    /// Adds what is in a file. A file is used whole or not at all.
    pub fn read(&mut self, name: &str, bytes: &[u8], limits: &Limits, archive: &mut Archive) {
        match read_file(bytes, limits, archive) {
            Ok(changes) => self.changes.extend(changes),
            Err(why) => self.problems.push(format!("{name}: {why}")),
        }
    }
}

fn read_file(bytes: &[u8], limits: &Limits, archive: &mut Archive) -> Result<Vec<Change>, String> {
    if !bytes.starts_with(&MAGIC) {
        return Err("this is not an Automerge file".to_owned());
    }
    let chunks = read_chunks(bytes, limits)
        .map_err(|error| format!("this is a damaged Automerge file: {error}"))?;
    let (mut changes, mut uploads) = (Vec::new(), Vec::new());
    for chunk in chunks {
        match chunk {
            Chunk::Change(change) => changes.push(change),
            Chunk::Document(bytes) | Chunk::Bundle(bytes) => uploads.extend_from_slice(&bytes),
        }
    }
    if uploads.is_empty() {
        return Ok(changes);
    }
    match archive.ask(Job::Expand { chunks: uploads, limits: ExpandLimits::default() }) {
        Ok(Answer::Expanded(expanded)) => {
            let opened = expanded.changes.iter().chain(&expanded.orphans);
            let mut all = opened
                .map(|bytes| read_change(bytes).map_err(|error| error.to_string()))
                .collect::<Result<Vec<_>, _>>()?;
            all.append(&mut changes);
            Ok(all)
        }
        Ok(_) => unreachable!("the archive answers what it was asked"),
        Err(failure) => Err(format!("Automerge cannot open it: {failure}")),
    }
}

/// What has come of a merge.
pub struct Merged {
    /// How many changes are new.
    pub appended: usize,
    /// How many were here already.
    pub known: usize,
    /// Why each other one is left out.
    pub refused: Vec<String>,
    /// What makes it so, to be committed as one batch.
    pub writes: Vec<Write>,
}

/// How a merge writes.
#[derive(Debug, Clone, Copy)]
pub struct Writing {
    /// A new document with at least this many bytes of changes is stored as a snapshot.
    pub compact_bytes: usize,
    /// Milliseconds since 1970.
    pub now_ms: u64,
}

/// Takes changes into a document. What is stored is read afresh, so earlier writes must be durable.
///
/// # Errors
/// Why nothing was done, in words.
pub fn merge(
    store: &dyn Store,
    archive: &mut Archive,
    id: &DocumentId,
    changes: &[Change],
    writing: Writing,
) -> Result<Merged, String> {
    let mut unfit: Vec<(Change, String)> = Vec::new();
    loop {
        let mut document = Document::open(store, archive, id)?;
        for (change, reason) in &unfit {
            let why = Refusal::Crdt { hash: change.hash(), reason: reason.clone() };
            document.history.refuse(change, why);
        }
        document.offer_all(changes)?;
        if document.appended == 0 {
            let Document { known, refused, .. } = document;
            return Ok(Merged { appended: 0, known, refused, writes: Vec::new() });
        }
        match document.prove()? {
            Proof::Holds(snapshot) => return Ok(document.finish(snapshot, writing)),
            Proof::DoesNotFit(..) if unfit.len() >= UNFIT_MAX => {
                return Err(format!("more than {UNFIT_MAX} of its changes do not fit"));
            }
            Proof::DoesNotFit(change, reason) => unfit.push((change, reason)),
        }
    }
}

/// A document that changes are offered to.
struct Document<'a> {
    archive: &'a mut Archive,
    id: &'a DocumentId,
    meta: Option<Meta>,
    snapshot: Option<Vec<u8>>,
    history: History,
    appended: usize,
    known: usize,
    refused: Vec<String>,
}

enum Proof {
    /// The document as one chunk.
    Holds(Vec<u8>),
    /// This change makes it unsound, for this reason.
    DoesNotFit(Change, String),
}

impl<'a> Document<'a> {
    fn open(
        store: &dyn Store,
        archive: &'a mut Archive,
        id: &'a DocumentId,
    ) -> Result<Self, String> {
        let damaged =
            |error: rows::LoadError| format!("what is stored of it cannot be read: {error}");
        let (mut history, meta) = match rows::load(store, id).map_err(damaged)? {
            Some(loaded) => (loaded.history, Some(loaded.meta)),
            None => (History::default(), None),
        };
        let stored = meta.unwrap_or_default();
        history.install_directory(rows::directory(store, id, stored).map_err(damaged)?);
        for dead in rows::dead(store, id).map_err(damaged)? {
            let (hash, reason) = (dead.hash, dead.reason);
            match &dead.change {
                Some(change) => {
                    history.bury(change, Refusal::Dead { hash, reason }, &mut |_, _| {});
                }
                None => {
                    history.doom(hash, reason);
                }
            }
        }
        let snapshot = rows::snapshot(store, id, stored).map_err(damaged)?;
        let (appended, known, refused) = (0, 0, Vec::new());
        Ok(Self { archive, id, meta, snapshot, history, appended, known, refused })
    }

    fn offer_all(&mut self, changes: &[Change]) -> Result<(), String> {
        let history = &self.history;
        // A refused dependency counts as there, so that the refusal is what is told.
        let there = |hash: &ChangeHash| {
            history.graph().position(hash).is_some() || history.refusal(hash).is_some()
        };
        let (ordered, orphans) = causal_order(changes, there);
        let mut waiting = VecDeque::from(ordered);
        while let Some(change) = waiting.pop_front() {
            let mut needs_crdt = false;
            self.history.offer(change.clone(), Door::Client, &mut |_, offer| match offer {
                Offer::NeedsCrdt(_) => needs_crdt = true,
                Offer::Appended(_) => self.appended += 1,
                Offer::Known(_) => self.known += 1,
                Offer::Refused(why) => self.refused.push(why.to_string()),
                // It follows what it depends on, so that was refused, and so many were since that
                // the history has forgotten it.
                Offer::Pending => self.refused.push(builds_on_refused(change.hash())),
                Offer::Outranks(_) => unreachable!("only regions outrank"),
            });
            if needs_crdt {
                let with = waiting.len().min(JUDGED_AT_ONCE - 1);
                let batch = std::iter::once(change).chain(waiting.drain(..with)).collect();
                self.judge(batch)?;
            }
        }
        for change in orphans {
            let lacks = change
                .deps()
                .iter()
                .find(|dep| self.history.graph().position(dep).is_none())
                .map_or_else(String::new, |dep| format!(": it depends on {dep}, which is nowhere"));
            self.refused.push(format!("change {} cannot be placed{lacks}", change.hash()));
        }
        Ok(())
    }

    /// Has Automerge say which changes fit, in causal order, and takes those.
    fn judge(&mut self, batch: Vec<Change>) -> Result<(), String> {
        let job = Job::Judge {
            snapshot: self.snapshot.clone(),
            changes: self.tail(),
            candidates: batch.iter().map(|change| change.bytes().to_vec()).collect(),
        };
        let verdicts = match self.archive.ask(job) {
            Ok(Answer::Judged(verdicts)) => verdicts,
            Ok(_) => unreachable!("the archive answers what it was asked"),
            Err(failure) => return Err(format!("Automerge cannot judge its changes: {failure}")),
        };
        for (change, verdict) in batch.into_iter().zip(verdicts) {
            match verdict {
                Ok(()) => {
                    self.history.offer(change, Door::Judged, &mut |change, offer| match offer {
                        Offer::Appended(_) => self.appended += 1,
                        Offer::Known(_) => self.known += 1,
                        Offer::Refused(why) => self.refused.push(why.to_string()),
                        Offer::Pending => self.refused.push(builds_on_refused(change.hash())),
                        Offer::NeedsCrdt(_) | Offer::Outranks(_) => {
                            unreachable!("it has been judged, and is no region's")
                        }
                    })
                }
                Err(reason) => {
                    let why = Refusal::Crdt { hash: change.hash(), reason: reason.to_string() };
                    self.refused.push(why.to_string());
                    self.history.refuse(&change, why);
                }
            }
        }
        Ok(())
    }

    /// Opens the whole with Automerge before any of it is stored.
    fn prove(&mut self) -> Result<Proof, String> {
        let job = Job::Compact { snapshot: self.snapshot.clone(), changes: self.tail() };
        match self.archive.ask(job) {
            Ok(Answer::Compacted(compacted)) => {
                let graph = self.history.graph();
                if compacted.heads == *graph.heads() && compacted.changes == u64::from(graph.len())
                {
                    Ok(Proof::Holds(compacted.snapshot))
                } else {
                    Err("Automerge finds other changes in it than the graph".to_owned())
                }
            }
            Ok(_) => unreachable!("the archive answers what it was asked"),
            Err(ArchiveFailure::Job(Bad::Change { index, reason, .. })) => {
                let position = self.history.base() + index as Position;
                match self.history.resident(position) {
                    Some(change) if position >= self.history.durable() => {
                        Ok(Proof::DoesNotFit(change.clone(), reason.to_string()))
                    }
                    _ => Err(format!("what is stored of it does not hold: {reason}")),
                }
            }
            Err(failure) => Err(format!("Automerge cannot open it: {failure}")),
        }
    }

    fn tail(&self) -> Vec<Vec<u8>> {
        (self.history.base()..self.history.len())
            .filter_map(|position| self.history.resident(position))
            .map(|change| change.bytes().to_vec())
            .collect()
    }

    /// The writes. A document that was here is appended to, and compacted by the server when it next
    /// has it open; a new one is stored compact at once if it is of some size.
    fn finish(self, snapshot: Vec<u8>, writing: Writing) -> Merged {
        let Self { id, meta, history, appended, known, refused, .. } = self;
        let (from, to) = (history.durable(), history.len());
        let mut writes = Vec::new();
        let new = Meta { created_ms: writing.now_ms, ..Meta::default() };
        if meta.is_none() && history.resident_bytes() >= writing.compact_bytes {
            let directory = history.directory().expect("it was put in place").encode();
            let snapshot_bytes = snapshot.len() as u64;
            writes.push(rows::put_index(id, 0, index::encode(history.graph(), 0, to)));
            writes.push(rows::put_directory(id, directory));
            writes.push(rows::put_snapshot(id, snapshot));
            writes.push(rows::put_meta(id, Meta { base: to, raw_from: to, snapshot_bytes, ..new }));
        } else {
            let changes = (from..to).filter_map(|position| history.resident(position));
            rows::put_log(id, from, writing.now_ms, changes, &mut writes);
            if meta.is_none() {
                writes.push(rows::put_meta(id, new));
            }
        }
        // A region of a mesh makes it anew, and the audit tells the others of what is new here.
        writes.push(node::mesh_rows::delete_item(id));
        Merged { appended, known, refused, writes }
    }
}

fn builds_on_refused(hash: ChangeHash) -> String {
    format!("change {hash} builds on one that was refused")
}

/// Puts changes into an order in which each comes after what it depends on, each once; what depends
/// on something that is nowhere comes second.
fn causal_order(
    changes: &[Change],
    there: impl Fn(&ChangeHash) -> bool,
) -> (Vec<Change>, Vec<Change>) {
    let mut seen = HashSet::new();
    let changes: Vec<&Change> =
        changes.iter().filter(|change| seen.insert(change.hash())).collect();
    let mut waiting: HashMap<ChangeHash, Vec<usize>> = HashMap::new();
    let mut lacking = vec![0_usize; changes.len()];
    let mut placed = HashSet::new();
    let mut ordered = Vec::with_capacity(changes.len());
    let mut ready = Vec::new();
    // What is in order already stays as it is: a graph with long runs takes less room.
    for (at, change) in changes.iter().enumerate() {
        let deps: HashSet<&ChangeHash> = change.deps().iter().collect();
        for dep in deps.into_iter().filter(|dep| !there(dep) && !placed.contains(*dep)) {
            lacking[at] += 1;
            waiting.entry(*dep).or_default().push(at);
        }
        if lacking[at] == 0 {
            ready.push(at);
        }
        while let Some(at) = ready.pop() {
            let change = changes[at];
            for follower in waiting.remove(&change.hash()).unwrap_or_default() {
                lacking[follower] -= 1;
                if lacking[follower] == 0 {
                    ready.push(follower);
                }
            }
            placed.insert(change.hash());
            ordered.push(change.clone());
        }
    }
    let orphans = (changes.iter().zip(&lacking))
        .filter(|(_, lacking)| **lacking > 0)
        .map(|(change, _)| (*change).clone())
        .collect();
    (ordered, orphans)
}
