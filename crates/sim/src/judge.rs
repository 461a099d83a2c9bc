//! The laws, judged from outside: from what the disk holds and what is said on connections.
//!
//! The judge does not ask a node what it believes. It reads batches as they become durable, images
//! of the disk after crashes, frames with the reader of the `automerge` crate, and what clients end
//! up with.

mod logs;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use automerge::{Automerge, ChangeHash};
use mesh::LogId;
use model::DocumentId;
use node::rows;
use store::{DiskImage, MemoryDisk, Store, Write};

/// What must hold in every run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Law {
    /// What a client was told is here, is on the disk, and stays there.
    AcknowledgedIsDurable,
    /// No hash is told to anyone before its change is on the disk.
    NothingBeforeItIsDurable,
    /// When faults have stopped, everybody soon has the same.
    HealedConverges,
    /// When everybody has the same, nobody says anything any more.
    ConvergedIsSilent,
    /// A session that does not read costs a bounded amount of memory.
    MemoryIsBounded,
    /// What one peer does wrong ends its own session, and no other.
    OnlyItsOwnSession,
    /// Whoever asks for a document hears about it.
    EveryRequestIsAnswered,
    /// One author's presence arrives in order and once.
    PresenceInOrder,
    /// What an honest client receives, it can apply.
    HonestClientsNeverFail,
    /// What an honest client made is neither refused nor set aside.
    HonestChangesAreTaken,
    /// A client hears only of documents that it has spoken of.
    NothingUnasked,
    /// The rows on the disk make whole documents at every crash.
    TheStoreIsWhole,
    /// What stood at a place of an origin log once, stands there for ever, in every region.
    LogsNeverChange,
    /// Nobody lets go of entries of a log before every region holds them.
    LogsAreKept,
    /// A vector names logs of processes that run, and of those that ended lately.
    VectorsStaySmall,
    /// Each entry crosses each link once, and enters a region once where nothing goes wrong.
    EachChangeCrossesOnce,
    /// Two regions of one mesh have nothing to complain of in each other.
    RegionsUnderstand,
}

/// A law that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Virtual time since the start of the run.
    pub at: Duration,
    /// Which law.
    pub law: Law,
    /// What was seen.
    pub what: String,
}

/// A set of changes per document.
type Hashes = BTreeMap<DocumentId, BTreeSet<ChangeHash>>;

/// What a node serves of a document, and what it has set aside of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) heads: Vec<ChangeHash>,
    pub(crate) dead: BTreeSet<ChangeHash>,
}

/// What is known of one node's disk and promises.
#[derive(Debug, Default)]
struct Facts {
    /// Changes of documents, the dead among them.
    durable: Hashes,
    dead: Hashes,
    acknowledged: Hashes,
    logs: BTreeMap<LogId, logs::Stored>,
    /// The last entries of logs that it has forgotten.
    forgotten: BTreeMap<LogId, mesh::Mark>,
    /// The epoch of the process that started last.
    epoch: u64,
    /// The payload that was found good last: most receivers get the same.
    good: Vec<u8>,
}

/// Keeps the books and remembers the first violation.
#[derive(Debug)]
pub(crate) struct Judge {
    nodes: Vec<Facts>,
    /// What any region has acknowledged, and any disk has kept since.
    promised: Hashes,
    logs: logs::Logs,
    /// In this run links send again what was garbled on the way.
    pub(crate) resends: bool,
    /// In this run every region knows of every other one from the start.
    pub(crate) all_known: bool,
    /// In this run a region may lose what it held, and be given logs that others have forgotten.
    pub(crate) losses: bool,
    /// So many entries of a log are kept whoever lacks them, and those before only as long as somebody does.
    pub(crate) log_entries_max: u64,
    /// In this run a region may forget that there are two histories of an actor, and which one lost.
    /// Then its door is open to either, and closed to the other, which no log has: who holds that one
    /// is left behind, and may meet the first.
    pub(crate) forgotten_deaths: bool,
    /// In this run changes may be dead: acknowledged, stored, and not served.
    pub(crate) deaths: bool,
    pub(crate) violation: Option<Violation>,
    pub(crate) now: Duration,
}

impl Judge {
    pub(crate) fn new(nodes: usize) -> Self {
        let nodes = (0..nodes).map(|_| Facts::default()).collect();
        Self {
            nodes,
            promised: Hashes::new(),
            logs: logs::Logs::default(),
            resends: false,
            all_known: false,
            losses: false,
            log_entries_max: u64::MAX,
            forgotten_deaths: false,
            deaths: false,
            violation: None,
            now: Duration::ZERO,
        }
    }

    pub(crate) fn broken(&mut self, law: Law, what: String) {
        let at = self.now;
        self.violation.get_or_insert(Violation { at, law, what });
    }

    /// A batch has become durable.
    pub(crate) fn written(&mut self, node: usize, writes: &[Write]) {
        // A disk with nothing but this batch on it: which rows hold changes is not for us to know.
        let disk = MemoryDisk::new().open();
        let puts: Vec<Write> =
            writes.iter().filter(|write| matches!(write, Write::Put { .. })).cloned().collect();
        if disk.commit(&puts).is_err() {
            return;
        }
        let ids: BTreeSet<DocumentId> =
            puts.iter().filter_map(|put| document_of(put.key())).collect();
        for id in ids {
            let durable = self.nodes[node].durable.entry(id.clone()).or_default();
            let read = rows::scan_log(&disk, &id, 0, &mut |row| {
                durable.extend(row.changes.iter().map(|change| hash(&change.hash())));
                ControlFlow::Continue(())
            });
            // A document that was uploaded whole is stored whole: its changes are in the snapshot.
            let some = rows::Meta { base: 1, ..rows::Meta::default() };
            let read = match rows::snapshot(&disk, &id, some) {
                Ok(Some(snapshot)) => match Automerge::load(&snapshot) {
                    Ok(doc) => {
                        durable.extend(doc.get_changes_meta(&[]).iter().map(|change| change.hash));
                        read.map_err(|error| error.to_string())
                    }
                    Err(error) => Err(format!("the snapshot: {error}")),
                },
                // Most batches have none.
                _ => read.map_err(|error| error.to_string()),
            };
            let read = read.and_then(|()| {
                let dead = rows::dead(&disk, &id).map_err(|error| error.to_string())?;
                durable.extend(dead.iter().map(|dead| hash(&dead.hash)));
                Ok(())
            });
            if let Err(error) = read {
                self.broken(Law::TheStoreIsWhole, format!("a batch for {id}: {error}"));
            }
        }
        self.logs_written(node, &disk);
    }

    /// What the disk holds after a crash is all there is. It must be sound, hold every change that
    /// was durable, and so everything that was promised.
    pub(crate) fn crashed(&mut self, node: usize, image: &DiskImage, thorough: bool) {
        let held = self.read(node, image, thorough);
        let facts = &mut self.nodes[node];
        let lost = missing(&facts.acknowledged, &held)
            .map(|lost| (Law::AcknowledgedIsDurable, lost))
            .or_else(|| missing(&facts.durable, &held).map(|lost| (Law::TheStoreIsWhole, lost)));
        facts.durable = held;
        facts.good.clear();
        if let Some((law, (id, hash))) = lost {
            self.broken(law, format!("after a crash, {hash} of {id} is not on the disk"));
        }
    }

    /// An older backup was put in place, or nothing: promises about what it lacks are void, until a
    /// client that has it brings it back, unless another region's disk has it.
    pub(crate) fn restored(&mut self, node: usize, image: &DiskImage) {
        let held = self.read(node, image, false);
        let facts = &mut self.nodes[node];
        keep(&mut facts.acknowledged, |id, hash| contains(&held, id, hash));
        facts.durable = held;
        facts.good.clear();
        let nodes = &self.nodes;
        keep(&mut self.promised, |id, hash| {
            nodes.iter().any(|facts| contains(&facts.durable, id, hash))
        });
    }

    /// A client has been told that these changes of its own are here.
    pub(crate) fn acknowledged(
        &mut self,
        node: usize,
        id: &DocumentId,
        hashes: impl IntoIterator<Item = ChangeHash>,
        client: usize,
    ) {
        let facts = &mut self.nodes[node];
        let durable = facts.durable.get(id);
        let promised = facts.acknowledged.entry(id.clone()).or_default();
        let anywhere = self.promised.entry(id.clone()).or_default();
        let mut lost = None;
        for hash in hashes {
            promised.insert(hash);
            anywhere.insert(hash);
            if !durable.is_some_and(|durable| durable.contains(&hash)) {
                lost = Some(hash);
            }
        }
        if let Some(hash) = lost {
            let what = format!(
                "client {client} was told that {hash} of {id} is here; it is not on the disk"
            );
            self.broken(Law::AcknowledgedIsDurable, what);
        }
    }

    /// A client has got these changes out of a message.
    pub(crate) fn received(
        &mut self,
        node: usize,
        id: &DocumentId,
        hashes: impl IntoIterator<Item = ChangeHash>,
        client: usize,
    ) {
        let durable = self.nodes[node].durable.get(id);
        let lost =
            hashes.into_iter().find(|hash| !durable.is_some_and(|durable| durable.contains(hash)));
        if let Some(hash) = lost {
            let what = format!("client {client} was sent {hash} of {id}, which is not on the disk");
            self.broken(Law::NothingBeforeItIsDurable, what);
        }
    }

    /// A node has put a frame on its way.
    pub(crate) fn spoken(&mut self, node: usize, me: &model::StorageId, frame: &[u8]) {
        match wire::decode(frame) {
            Ok(wire::Message::Sync { document, data, .. }) => {
                if self.nodes[node].good == *data {
                    return;
                }
                match hashes_in(&data) {
                    Ok(hashes) => {
                        if self.all_durable(node, &document, hashes) {
                            self.nodes[node].good = data.into_owned();
                        }
                    }
                    Err(error) => {
                        let what = format!("a sync message about {document}: {error}");
                        self.broken(Law::HonestClientsNeverFail, what);
                    }
                }
            }
            Ok(wire::Message::RemoteHeadsChanged { document, heads, .. }) => {
                let ours = heads.iter().filter(|entry| entry.storage == *me);
                let hashes: Vec<_> = ours.flat_map(|entry| entry.heads.iter().map(hash)).collect();
                self.all_durable(node, &document, hashes);
            }
            Ok(_) => {}
            Err(error) => {
                self.broken(Law::HonestClientsNeverFail, format!("a node's frame: {error}"));
            }
        }
    }

    fn all_durable(&mut self, node: usize, id: &DocumentId, hashes: Vec<ChangeHash>) -> bool {
        let durable = self.nodes[node].durable.get(id);
        let lost =
            hashes.iter().find(|hash| !durable.is_some_and(|durable| durable.contains(hash)));
        if let Some(hash) = lost {
            let what = format!("{hash} of {id} is spoken of and not on the disk");
            self.broken(Law::NothingBeforeItIsDurable, what);
            return false;
        }
        true
    }

    /// Everything that was promised, in whichever region, is in what a client of this one holds in the
    /// end. What is dead is only stored.
    pub(crate) fn still_served(&mut self, node: usize, id: &DocumentId, doc: &Automerge) {
        let empty = BTreeSet::new();
        let promised = self.promised.get(id).unwrap_or(&empty);
        let mut held: BTreeSet<ChangeHash> =
            doc.get_changes_meta(&[]).into_iter().map(|change| change.hash).collect();
        if self.deaths {
            held.extend(self.nodes[node].dead.get(id).unwrap_or(&empty));
        }
        if let Some(lost) = promised.difference(&held).next() {
            let what = format!("{lost} of {id} was acknowledged and is not served by {node}");
            self.broken(Law::AcknowledgedIsDurable, what);
        }
    }

    /// The heads of a document as the disk has them.
    pub(crate) fn heads(&mut self, image: &MemoryDisk, id: &DocumentId) -> Vec<ChangeHash> {
        match rows::load(&image.open(), id) {
            Ok(Some(loaded)) => loaded.history.heads().iter().map(hash).collect(),
            Ok(None) => Vec::new(),
            Err(error) => {
                self.broken(Law::TheStoreIsWhole, format!("document {id}: {error}"));
                Vec::new()
            }
        }
    }

    /// Whether some region's disk has a change, dead or not.
    pub(crate) fn is_anywhere(&self, id: &DocumentId, hash: &ChangeHash) -> bool {
        self.nodes.iter().any(|facts| contains(&facts.durable, id, hash))
    }

    /// What a disk serves and what is dead on it, per document.
    pub(crate) fn outcome(&mut self, disk: &MemoryDisk) -> BTreeMap<DocumentId, Standing> {
        let store = disk.open();
        let mut ids = Vec::new();
        let listed = rows::documents(&store, &mut |id, _| {
            ids.push(id);
            ControlFlow::Continue(())
        });
        if let Err(error) = listed {
            self.broken(Law::TheStoreIsWhole, format!("the documents: {error}"));
        }
        let mut outcome = BTreeMap::new();
        for id in ids {
            let mut heads = self.heads(disk, &id);
            heads.sort_unstable();
            let dead = rows::dead(&store, &id).unwrap_or_default();
            let dead = dead.iter().map(|dead| hash(&dead.hash)).collect();
            if !heads.is_empty() {
                outcome.insert(id, Standing { heads, dead });
            }
        }
        outcome
    }

    /// Every change of every document on a disk, the dead ones too. `thorough`: Automerge makes the
    /// same of it.
    fn read(&mut self, node: usize, image: &DiskImage, thorough: bool) -> Hashes {
        let disk = MemoryDisk::new();
        disk.restore(image);
        let store = disk.open();
        let mut ids = Vec::new();
        let listed = rows::documents(&store, &mut |id, meta| {
            ids.push((id, meta));
            ControlFlow::Continue(())
        });
        if let Err(error) = listed {
            self.broken(Law::TheStoreIsWhole, format!("the documents: {error}"));
        }
        let mut held = Hashes::new();
        for (id, meta) in ids {
            match read_document(&store, &id, meta, thorough) {
                Ok(hashes) => {
                    held.insert(id, hashes);
                }
                Err(error) => self.broken(Law::TheStoreIsWhole, format!("document {id}: {error}")),
            }
        }
        self.nodes[node].dead.clear();
        for (id, held) in &mut held {
            match rows::dead(&store, id) {
                Ok(dead) if dead.is_empty() => {}
                Ok(dead) => {
                    let dead: BTreeSet<ChangeHash> =
                        dead.iter().map(|dead| hash(&dead.hash)).collect();
                    held.extend(&dead);
                    self.nodes[node].dead.insert(id.clone(), dead);
                }
                Err(error) => self.broken(Law::TheStoreIsWhole, format!("document {id}: {error}")),
            }
        }
        self.check_logs(node, &store, &held);
        held
    }
}

fn read_document(
    store: &dyn Store,
    id: &DocumentId,
    meta: rows::Meta,
    thorough: bool,
) -> Result<BTreeSet<ChangeHash>, String> {
    let text = |error: rows::LoadError| error.to_string();
    let loaded = rows::load(store, id).map_err(text)?.ok_or("no such document")?;
    rows::directory(store, id, meta).map_err(text)?;
    let history = &loaded.history;
    let hashes: BTreeSet<ChangeHash> =
        (0..history.len()).map(|position| hash(&history.graph().hash(position))).collect();
    if thorough {
        let snapshot = rows::snapshot(store, id, meta).map_err(text)?.unwrap_or_default();
        let mut doc = if snapshot.is_empty() {
            Automerge::new()
        } else {
            Automerge::load(&snapshot).map_err(|error| format!("the snapshot: {error}"))?
        };
        for position in history.base()..history.len() {
            let change = history.resident(position).ok_or("a change of the tail is not there")?;
            doc.load_incremental(change.bytes())
                .map_err(|error| format!("change {position}: {error}"))?;
        }
        let mut heads: Vec<ChangeHash> = history.heads().iter().map(hash).collect();
        heads.sort_unstable();
        if doc.get_heads() != heads || doc.get_changes_meta(&[]).len() != hashes.len() {
            return Err("snapshot and tail make another document than the index says".to_owned());
        }
        if meta.raw_from < meta.base {
            let kept =
                rows::changes(store, id, meta.raw_from, meta.raw_from, meta.base, usize::MAX)
                    .map_err(text)?;
            for (position, change) in (meta.raw_from..).zip(kept) {
                if change.hash() != history.graph().hash(position) {
                    return Err(format!("the change kept at {position} is another one"));
                }
            }
        }
    }
    Ok(hashes)
}

/// Every hash that a sync message claims to be there: heads, common ground, changes one by one.
fn hashes_in(data: &[u8]) -> Result<Vec<ChangeHash>, String> {
    let message = automerge::sync::Message::decode(data).map_err(|error| error.to_string())?;
    let mut hashes = message.heads.clone();
    hashes.extend(message.have.iter().flat_map(|have| have.last_sync.iter().copied()));
    for chunk in message.changes.iter() {
        // Where a document comes first, what it holds is judged when a client has loaded it.
        if chunk.get(8) == Some(&1) {
            let change =
                automerge::Change::from_bytes(chunk.to_vec()).map_err(|error| error.to_string())?;
            hashes.push(change.hash());
        }
    }
    Ok(hashes)
}

fn missing(promised: &Hashes, held: &Hashes) -> Option<(DocumentId, ChangeHash)> {
    let empty = BTreeSet::new();
    promised.iter().find_map(|(id, hashes)| {
        let lost = hashes.difference(held.get(id).unwrap_or(&empty)).next()?;
        Some((id.clone(), *lost))
    })
}

fn contains(hashes: &Hashes, id: &DocumentId, hash: &ChangeHash) -> bool {
    hashes.get(id).is_some_and(|hashes| hashes.contains(hash))
}

fn keep(hashes: &mut Hashes, keeps: impl Fn(&DocumentId, &ChangeHash) -> bool) {
    for (id, hashes) in hashes {
        hashes.retain(|hash| keeps(id, hash));
    }
}

/// The document that a row belongs to, if it belongs to one.
fn document_of(key: &[u8]) -> Option<DocumentId> {
    rows::read_key(key).map(|(_, id)| id)
}

fn hash(hash: &model::ChangeHash) -> ChangeHash {
    ChangeHash(*hash.as_bytes())
}
