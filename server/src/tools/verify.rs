//! `tributary verify`: is everything in the store what it should be?
//!
//! First every row is read, so that its checksum is compared, and with it goes which documents there
//! are. Then each document is put together: the graph from its index and log, every change by its
//! hash, the directory, the snapshot; and Automerge applies all of it in a worker process. What a
//! snapshot holds is taken apart again and held against the index and the directory, because they
//! were written beside it and never compared since.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use archive::{Answer, ExpandLimits, Failure as Bad, Job};
use history::History;
use history::chunk::{Change, read_change};
use history::directory::Directory;
use history::graph::Position;
use model::{ChangeHash, DocumentId, StorageId};
use node::ArchiveFailure;
use node::rows::{self, LoadError, Loaded, RowKind};
use store::Store;

use super::archive::Archive;
use super::progress::Progress;
use super::scan::{Found, scan_all};
use super::{StoreFlags, open_existing};
use crate::config::Config;
use crate::exit::Failure;

/// The key of the row that names the store.
const IDENTITY: &[u8] = &[0x01];

/// Reads all of a store and reports what is wrong with it.
///
/// # Errors
/// [`Failure::Found`] when something is wrong, [`Failure::Store`] when it cannot be opened at all.
pub fn run(flags: &StoreFlags) -> Result<(), Failure> {
    let config = flags.load()?;
    check(&open_existing(&config)?, &config)
}

/// Reads all of an open store and reports what is wrong with it.
///
/// # Errors
/// [`Failure::Found`] when something is wrong.
pub fn check(store: &Arc<dyn Store>, config: &Config) -> Result<(), Failure> {
    let mut archive = Archive::start(config)?;
    let began = Instant::now();

    let survey = survey(&**store);
    let mut progress = Progress::start("verifying documents", Some(survey.documents.len() as u64));
    let mut damage = survey.nobodys_damage;
    let (mut bad_documents, mut changes, mut dead) = (0_u64, 0_u64, 0_u64);
    for (id, seen) in &survey.documents {
        let mut check = Check { store: &**store, archive: &mut archive, id, problems: Vec::new() };
        let checked = check.document(seen);
        for row in &checked.dead {
            let hash = row.hash;
            progress.say(&format!("automerge:{id}: change {hash} is set aside: {}", row.reason));
        }
        for problem in &check.problems {
            progress.say(&format!("automerge:{id}: DAMAGED: {problem}"));
        }
        changes += u64::from(checked.changes);
        dead += checked.dead.len() as u64;
        if !check.problems.is_empty() || seen.unreadable > 0 {
            bad_documents += 1;
        }
        damage += check.problems.len() as u64 + seen.unreadable;
        progress.step();
    }
    progress.say(&format!(
        "verified {} documents with {changes} changes in {} rows in {:.1} s: {}{}",
        survey.documents.len(),
        survey.rows,
        began.elapsed().as_secs_f64(),
        if damage == 0 { "all is well" } else { "there is damage" },
        match dead {
            0 => String::new(),
            dead => format!(" ({dead} changes are set aside as unfit)"),
        },
    ));
    drop(progress);
    match damage {
        0 => Ok(()),
        _ => Err(Failure::Found(format!(
            "damage in {}: {damage} problems, in {bad_documents} documents",
            config.data.display()
        ))),
    }
}

/// What reading every row has shown.
#[derive(Default)]
struct Survey {
    documents: BTreeMap<DocumentId, Seen>,
    rows: u64,
    /// What is wrong with rows that belong to no document.
    nobodys_damage: u64,
}

/// The rows of one document.
#[derive(Default)]
struct Seen {
    meta: bool,
    snapshot: bool,
    directory: bool,
    /// There are rows of its changes.
    changes: bool,
    /// How many rows of it cannot be read; they have been reported.
    unreadable: u64,
}

fn survey(store: &dyn Store) -> Survey {
    let mut survey = Survey::default();
    let mut progress = Progress::start("reading rows", None);
    // Keys are shorter than this one is, and none begins with it.
    let end = [0xff; store::KEY_BYTES_MAX];
    scan_all(store, &[], &end, &mut |found| match found {
        Found::Row(key, value) => {
            survey.rows += 1;
            progress.step();
            let Some((kind, id)) = rows::read_key(key) else {
                let known = key == IDENTITY && is_a_name(value);
                if !(known || node::mesh_rows::check(key, value) == Some(true)) {
                    survey.nobodys_damage += 1;
                    let key = hex(key);
                    progress.say(&format!("DAMAGED: row {key} is none that this program writes"));
                }
                return;
            };
            let seen = survey.documents.entry(id).or_default();
            match kind {
                RowKind::Meta => seen.meta = true,
                RowKind::Snapshot => seen.snapshot = true,
                RowKind::Directory => seen.directory = true,
                RowKind::Index | RowKind::Log => seen.changes = true,
                // Of a document that has not come yet it may be known what is dead.
                RowKind::Dead | RowKind::Verdict | RowKind::Original => {}
            }
        }
        Found::Unreadable(key, error) => match rows::read_key(&key) {
            Some((kind, id)) => {
                progress.say(&format!("automerge:{id}: DAMAGED: a {kind} row: {error}"));
                survey.documents.entry(id).or_default().unreadable += 1;
            }
            None => {
                survey.nobodys_damage += 1;
                progress.say(&format!("DAMAGED: row {}: {error}", hex(&key)));
            }
        },
        Found::GaveUp(key) => {
            survey.nobodys_damage += 1;
            let key = hex(&key);
            progress.say(&format!("DAMAGED: too much cannot be read; not looked at behind {key}"));
        }
    });
    survey
}

fn is_a_name(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|name| StorageId::new(name).is_ok())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The check of one document.
struct Check<'a> {
    store: &'a dyn Store,
    archive: &'a mut Archive,
    id: &'a DocumentId,
    problems: Vec<String>,
}

/// What a document was found to hold.
#[derive(Default)]
struct Checked {
    changes: Position,
    dead: Vec<rows::Dead>,
}

impl Check<'_> {
    fn document(&mut self, seen: &Seen) -> Checked {
        let mut checked = Checked::default();
        match rows::dead(self.store, self.id) {
            Ok(dead) => checked.dead = dead,
            Err(error) => self.failed("what was set aside", &error, seen),
        }
        if let Err(error) = rows::original(self.store, self.id) {
            self.failed("which document it is a copy of", &error, seen);
        }
        let loaded = match rows::load(self.store, self.id) {
            Ok(Some(loaded)) => loaded,
            Ok(None) => {
                let some = seen.snapshot || seen.directory || seen.changes;
                if seen.unreadable == 0 && !seen.meta && some {
                    self.wrong("it has rows, but not the one that says what they are");
                }
                return checked;
            }
            Err(error) => {
                self.failed("index and log", &error, seen);
                return checked;
            }
        };
        checked.changes = loaded.history.len();
        self.log(&loaded, seen);
        self.leftovers(&loaded, seen);
        let snapshot = match rows::snapshot(self.store, self.id, loaded.meta) {
            Ok(snapshot) => snapshot,
            Err(error) => {
                self.failed("snapshot", &error, seen);
                return checked;
            }
        };
        let length = snapshot.as_ref().map_or(0, |bytes| bytes.len() as u64);
        if length != loaded.meta.snapshot_bytes {
            let promised = loaded.meta.snapshot_bytes;
            self.wrong(format!("the snapshot has {length} bytes and should have {promised}"));
        }
        let directory = match rows::directory(self.store, self.id, loaded.meta) {
            Ok(directory) => Some(directory),
            Err(error) => {
                self.failed("operation directory", &error, seen);
                None
            }
        };
        if self.applies(&loaded.history, snapshot.clone())
            && let Some(snapshot) = snapshot
        {
            self.index(&loaded.history, snapshot, directory);
        }
        checked
    }

    /// Every change that is kept one by one: without gaps, and where the graph has it.
    fn log(&mut self, loaded: &Loaded, seen: &Seen) {
        let history = &loaded.history;
        let mut next = loaded.meta.raw_from;
        let mut wrong = None;
        let scanned = rows::scan_log(self.store, self.id, 0, &mut |row| {
            if row.position != next {
                wrong = Some(format!("the log has a row at {}, expected at {next}", row.position));
                return ControlFlow::Break(());
            }
            for change in row.changes {
                if next >= history.len() || history.graph().hash(next) != change.hash() {
                    wrong = Some(format!("change {next} of the log is not the one of the index"));
                    return ControlFlow::Break(());
                }
                next += 1;
            }
            ControlFlow::Continue(())
        });
        match (scanned, wrong) {
            (Err(error), _) => self.failed("log", &error, seen),
            (Ok(()), Some(wrong)) => self.wrong(wrong),
            (Ok(()), None) if next < history.len() => {
                self.wrong(format!("the log ends at change {next} of {}", history.len()));
            }
            (Ok(()), None) => {}
        }
    }

    /// Rows that the meta row does not speak of.
    fn leftovers(&mut self, loaded: &Loaded, seen: &Seen) {
        if loaded.meta.base == 0 && (seen.snapshot || seen.directory) {
            self.wrong("there is a snapshot or a directory that covers nothing");
        }
    }

    /// Whether Automerge takes the document, and finds in it what the graph says.
    fn applies(&mut self, history: &History, snapshot: Option<Vec<u8>>) -> bool {
        let changes = (history.base()..history.len())
            .filter_map(|at| history.resident(at).map(|change| change.bytes().to_vec()))
            .collect();
        match self.archive.ask(Job::Verify { snapshot, changes }) {
            Ok(Answer::Verified(verified)) => {
                let (heads, count) = (history.heads(), u64::from(history.len()));
                if verified.changes != count {
                    let opened = verified.changes;
                    self.wrong(format!("Automerge finds {opened} changes, the graph has {count}"));
                } else if verified.heads != *heads {
                    self.wrong(format!(
                        "Automerge finds the heads {:?}, the graph has {heads:?}",
                        verified.heads
                    ));
                } else {
                    return true;
                }
            }
            Ok(_) => unreachable!("the archive answers what it was asked"),
            Err(ArchiveFailure::Job(Bad::Change { index, reason, .. })) => {
                let position = history.base() + index as Position;
                match history.resident(position).map(Change::hash) {
                    Some(hash) => self.wrong(format!("change {hash} does not fit: {reason}")),
                    None => self.wrong(format!("change {position} does not fit: {reason}")),
                }
            }
            Err(failure) => self.wrong(format!("Automerge cannot open it: {failure}")),
        }
        false
    }

    /// The index and the directory against what the snapshot holds.
    fn index(&mut self, history: &History, snapshot: Vec<u8>, stored: Option<Directory>) {
        let base = history.base();
        let job = Job::Expand { chunks: snapshot, limits: ExpandLimits::default() };
        let expanded = match self.archive.ask(job) {
            Ok(Answer::Expanded(expanded)) => expanded,
            Ok(_) => unreachable!("the archive answers what it was asked"),
            Err(failure) => {
                return self.wrong(format!("the snapshot cannot be taken apart: {failure}"));
            }
        };
        let mut by_position: BTreeMap<Position, Change> = BTreeMap::new();
        for bytes in &expanded.changes {
            let Ok(change) = read_change(bytes) else {
                return self.wrong("the snapshot holds a change that cannot be read");
            };
            match history.graph().position(&change.hash()).filter(|at| *at < base) {
                Some(position) => by_position.insert(position, change),
                None => {
                    let hash = change.hash();
                    return self.wrong(format!(
                        "the snapshot holds change {hash}, which is not in the index"
                    ));
                }
            };
        }
        if by_position.len() != base as usize {
            let held = by_position.len();
            return self.wrong(format!("the snapshot holds {held} changes, the index {base}"));
        }
        let mut fresh = Directory::default();
        for (position, change) in &by_position {
            if !says_the_same(history, *position, change) {
                let hash = change.hash();
                return self.wrong(format!("the index is wrong about change {hash}"));
            }
            fresh.record(change);
        }
        // Written and read once, as the stored one was.
        let fresh = Directory::decode(&fresh.encode()).ok();
        if stored.is_some() && stored != fresh {
            self.wrong("the operation directory does not describe what the snapshot holds");
        }
    }

    fn failed(&mut self, what: &str, error: &LoadError, seen: &Seen) {
        // A row that cannot be read has been reported when all rows were read.
        if !(matches!(error, LoadError::Store(_)) && seen.unreadable > 0) {
            self.wrong(format!("{what}: {error}"));
        }
    }

    fn wrong(&mut self, what: impl Into<String>) {
        self.problems.push(what.into());
    }
}

/// Whether the graph has of a change what the change itself says.
fn says_the_same(history: &History, position: Position, change: &Change) -> bool {
    let graph = history.graph();
    let node = graph.node(position);
    let deps: BTreeSet<ChangeHash> =
        graph.deps(position).iter().map(|dep| graph.hash(*dep)).collect();
    deps == change.deps().iter().copied().collect()
        && node.actor == change.actor()
        && node.start_op == change.start_op()
        && node.operations == change.operations()
        && graph.slot(change.actor(), change.seq()) == Some(position)
}
