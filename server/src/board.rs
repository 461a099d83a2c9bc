//! What the rest of the process may know of documents without asking their shards: heads, the news
//! that a document has changed, and which documents changed in which order.
//!
//! A shard's task shows every batch to the board when it is on its way ([`Board::notice`]) and again
//! when it is durable ([`Board::committed`]); nothing is said of it before that. The heads of a
//! document that somebody has asked for are kept up to date from the rows of the batches, without
//! reading the document again, and are forgotten, longest unused first, when there are too many.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use model::{ChangeHash, DocumentId, Heads};
use moka::sync::Cache;
use node::rows::{self, LoadError, RowKind};
use store::{Store, StoreError, Visit, Write};
use tokio::sync::{broadcast, watch};

/// How many documents' heads are kept, if nobody has an interest in more.
const KNOWN_MAX: u64 = 50_000;
/// How many documents the feed remembers the last change of.
pub const FEED_DOCUMENTS_MAX: usize = 20_000;
/// How many times a document is read again because it changed while it was read.
const READS_MAX: usize = 8;
/// How much news of one document may wait for one that watches it, before it has to look itself.
const NEWS_MAX: usize = 64;

/// Where a document is: its durable heads, and how long its log is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The heads.
    pub heads: Heads,
    /// How many changes.
    pub changes: u32,
}

/// A document has changed.
#[derive(Debug, Clone)]
pub struct News {
    /// What has come. Empty: more than that is different.
    pub hashes: Vec<ChangeHash>,
}

/// What a batch does to one document.
#[derive(Debug)]
pub struct Noticed {
    document: DocumentId,
    /// The heads are not what they were.
    new: bool,
    /// New changes with their positions; `None` if they are not in the rows, or positions moved.
    appended: Option<Vec<Appended>>,
}

/// A change in the log.
#[derive(Debug, Clone)]
struct Appended {
    position: u32,
    hash: ChangeHash,
    deps: Vec<ChangeHash>,
}

/// See the module.
pub struct Board {
    known: Cache<DocumentId, Arc<Entry>>,
    watched: Mutex<HashMap<DocumentId, broadcast::Sender<Arc<News>>>>,
    feed: Mutex<Feed>,
    fed: watch::Sender<u64>,
    started_ms: u64,
}

#[derive(Default)]
struct Entry {
    /// Held by the one who reads the document, so that others wait for it and do not read as well.
    reading: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
enum State {
    /// Nobody knows.
    #[default]
    Unknown,
    /// Somebody reads, and what becomes durable meanwhile is noted.
    Reading(Vec<Option<Vec<Appended>>>),
    Known(Arc<Known>),
}

impl Board {
    /// A board of a process that has started at this time, in milliseconds since 1970.
    pub fn new(started_ms: u64) -> Self {
        Self {
            known: Cache::new(KNOWN_MAX),
            watched: Mutex::default(),
            feed: Mutex::default(),
            fed: watch::channel(0).0,
            started_ms,
        }
    }

    /// The heads of a document, if they are at hand.
    pub fn known(&self, id: &DocumentId) -> Option<Arc<Known>> {
        match &*lock(&self.known.get(id)?.state) {
            State::Known(known) => Some(known.clone()),
            State::Unknown | State::Reading(_) => None,
        }
    }

    /// The heads of a document, read from the store if they are not at hand. `None`: there is no such
    /// document. Blocks; the time it takes grows with the number of changes.
    ///
    /// # Errors
    /// When the document cannot be read.
    pub fn read(
        &self,
        store: &dyn Store,
        id: &DocumentId,
    ) -> Result<Option<Arc<Known>>, LoadError> {
        let entry = self.known.get_with(id.clone(), Arc::default);
        let _reading = lock(&entry.reading);
        for attempt in 0.. {
            {
                let mut state = lock(&entry.state);
                if let State::Known(known) = &*state {
                    return Ok(Some(known.clone()));
                }
                *state = State::Reading(Vec::new());
            }
            let loaded = match rows::load(store, id) {
                // A scan may see half of a batch. That is over when the batch is.
                Err(error) if attempt < READS_MAX && !matches!(error, LoadError::Store(_)) => {
                    std::thread::yield_now();
                    continue;
                }
                loaded => loaded?,
            };
            let mut state = lock(&entry.state);
            let State::Reading(meanwhile) = std::mem::take(&mut *state) else { continue };
            let Some(loaded) = loaded else {
                if meanwhile.is_empty() {
                    drop(state);
                    self.known.invalidate(id);
                    return Ok(None);
                }
                continue;
            };
            let history = loaded.history;
            let first = Known { heads: history.heads().clone(), changes: history.len() };
            let now =
                meanwhile.into_iter().try_fold(first, |known, appended| known.and(&appended?));
            match now {
                Some(known) => {
                    let known = Arc::new(known);
                    *state = State::Known(known.clone());
                    return Ok(Some(known));
                }
                None if attempt < READS_MAX => {}
                None => {
                    return Ok(Some(Arc::new(Known {
                        heads: history.heads().clone(),
                        changes: history.len(),
                    })));
                }
            }
        }
        unreachable!("the loop ends by returning")
    }

    /// Hears of everything that becomes durable in a document from now on.
    pub fn watch(self: &Arc<Self>, id: &DocumentId) -> Watch {
        let mut watched = lock(&self.watched);
        let sender = watched.entry(id.clone()).or_insert_with(|| broadcast::channel(NEWS_MAX).0);
        Watch { board: self.clone(), document: id.clone(), news: Some(sender.subscribe()) }
    }

    /// What a batch that is on its way will do.
    pub fn notice(&self, writes: &[Write]) -> Vec<Noticed> {
        let mut touched: BTreeMap<DocumentId, Touched> = BTreeMap::new();
        for write in writes {
            let Some((kind, document)) = rows::read_key(write.key()) else { continue };
            let put = matches!(write, Write::Put { .. });
            let touched = touched.entry(document).or_default();
            match kind {
                RowKind::Log => touched.log |= put,
                RowKind::Snapshot => touched.snapshot |= put,
                RowKind::Dead | RowKind::Verdict => touched.dead |= put,
                RowKind::Meta | RowKind::Directory | RowKind::Index | RowKind::Original => {}
            }
        }
        let all = touched.into_iter();
        all.filter_map(|(document, touched)| self.noticed(document, touched, writes)).collect()
    }

    /// A batch is durable.
    pub fn committed(&self, noticed: Vec<Noticed>) {
        for noticed in &noticed {
            if let Some(entry) = self.known.get(&noticed.document) {
                let mut state = lock(&entry.state);
                match &mut *state {
                    State::Unknown => {}
                    State::Reading(meanwhile) => meanwhile.push(noticed.appended.clone()),
                    State::Known(known) => {
                        let known = (**known).clone();
                        let next = noticed.appended.as_ref().and_then(|rows| known.and(rows));
                        *state = next.map_or(State::Unknown, |known| State::Known(Arc::new(known)));
                    }
                }
            }
            if let Some(sender) = lock(&self.watched).get(&noticed.document) {
                let hashes = noticed.appended.iter().flatten().map(|change| change.hash).collect();
                // Nobody may be left; then the last of them is about to say so.
                let _ = sender.send(Arc::new(News { hashes }));
            }
        }
        let mut feed = lock(&self.feed);
        for noticed in noticed.into_iter().filter(|noticed| noticed.new) {
            feed.push(noticed.document);
        }
        self.fed.send_replace(feed.last);
    }

    /// The number of the last change in the feed; 0 before the first.
    pub fn last(&self) -> u64 {
        lock(&self.feed).last
    }

    /// Up to `max` documents that have changed after `since`, each with the number of its last
    /// change, ascending. `None`: the feed does not go back that far.
    pub fn changed_since(&self, since: u64, max: usize) -> Option<Vec<(u64, DocumentId)>> {
        let feed = lock(&self.feed);
        if since < feed.floor || since > feed.last {
            return None;
        }
        let after = feed.order.range(since + 1..).take(max);
        Some(after.map(|(number, id)| (*number, id.clone())).collect())
    }

    /// The documents that changed last, the newest first; up to `max`.
    pub fn latest(&self, max: usize) -> Vec<DocumentId> {
        lock(&self.feed).order.values().rev().take(max).cloned().collect()
    }

    /// Hears when the feed grows: its value is the number of the last change.
    pub fn feed(&self) -> watch::Receiver<u64> {
        self.fed.subscribe()
    }

    fn noticed(&self, document: DocumentId, touched: Touched, writes: &[Write]) -> Option<Noticed> {
        if touched.dead {
            // A burial: the log is another one from here on.
            return Some(Noticed { document, new: true, appended: None });
        }
        if touched.snapshot {
            // A compaction changes nothing that can be seen here; an upload is stored in the same
            // way, and what tells them apart is that nobody has heard of the document yet.
            let mut created_ms = 0;
            let found = rows::documents(&OneBatch(writes), &mut |id, meta| {
                if id == document {
                    created_ms = meta.created_ms;
                }
                ControlFlow::Continue(())
            });
            let is_upload = found.is_ok()
                && created_ms >= self.started_ms
                && !lock(&self.feed).latest.contains_key(&document);
            return is_upload.then_some(Noticed { document, new: true, appended: None });
        }
        if !touched.log {
            return None;
        }
        let wanted =
            self.known.contains_key(&document) || lock(&self.watched).contains_key(&document);
        let appended = if wanted { appended(writes, &document) } else { None };
        Some(Noticed { document, new: true, appended })
    }
}

impl Known {
    /// With these changes on top; `None` if some before them are missing.
    fn and(mut self, appended: &Vec<Appended>) -> Option<Self> {
        for change in appended {
            if change.position > self.changes {
                return None;
            }
            // What a read has seen already comes again when its batch is announced.
            if change.position == self.changes {
                self.heads.advance(change.hash, &change.deps);
                self.changes += 1;
            }
        }
        Some(self)
    }
}

/// Somebody who hears of what happens to a document.
pub struct Watch {
    board: Arc<Board>,
    document: DocumentId,
    news: Option<broadcast::Receiver<Arc<News>>>,
}

impl Watch {
    /// The next news; `None` when some were missed, so that one has to look.
    pub async fn next(&mut self) -> Option<Arc<News>> {
        let news = self.news.as_mut().expect("it is there until this is dropped");
        // The sender lives as long as somebody watches.
        news.recv().await.ok()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = lock(&self.board.watched);
        self.news = None;
        if watched.get(&self.document).is_some_and(|sender| sender.receiver_count() == 0) {
            watched.remove(&self.document);
        }
    }
}

/// Which documents changed last, in order: of each only its last change. So whoever reads on from
/// where it was gets every document that changed meanwhile once, however often it did.
#[derive(Default)]
struct Feed {
    last: u64,
    /// What came up to here has been forgotten in part.
    floor: u64,
    order: BTreeMap<u64, DocumentId>,
    latest: HashMap<DocumentId, u64>,
}

impl Feed {
    fn push(&mut self, document: DocumentId) {
        self.last += 1;
        if let Some(before) = self.latest.insert(document.clone(), self.last) {
            self.order.remove(&before);
        }
        self.order.insert(self.last, document);
        if self.order.len() > FEED_DOCUMENTS_MAX
            && let Some((number, forgotten)) = self.order.pop_first()
        {
            self.latest.remove(&forgotten);
            self.floor = number;
        }
    }
}

/// Which rows of a document a batch puts.
#[derive(Debug, Default)]
struct Touched {
    log: bool,
    snapshot: bool,
    dead: bool,
}

fn appended(writes: &[Write], document: &DocumentId) -> Option<Vec<Appended>> {
    let mut appended = Vec::new();
    let scanned = rows::scan_log(&OneBatch(writes), document, 0, &mut |row| {
        appended.extend((row.position..).zip(row.changes).map(|(position, change)| Appended {
            position,
            hash: change.hash(),
            deps: change.deps().to_vec(),
        }));
        ControlFlow::Continue(())
    });
    scanned.ok().map(|()| appended)
}

/// A batch, read as if it were a store.
struct OneBatch<'a>(&'a [Write]);

impl Store for OneBatch<'_> {
    fn commit(&self, _: &[Write]) -> Result<(), StoreError> {
        Err(StoreError::Stopped)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let mut found = None;
        for write in self.0.iter().filter(|write| write.key() == key) {
            found = match write {
                Write::Put { value, .. } => Some(value.clone()),
                Write::Delete { .. } => None,
            };
        }
        Ok(found)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let mut rows: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
        for write in self.0.iter().filter(|write| (from..to).contains(&write.key())) {
            match write {
                Write::Put { key, value } => drop(rows.insert(key, value)),
                Write::Delete { key } => drop(rows.remove(key.as_slice())),
            }
        }
        for (key, value) in rows {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use automerge::transaction::Transactable;
    use automerge::{AutoCommit, ROOT};
    use history::chunk::{Change, read_change};
    use node::rows::{Meta, put_log, put_meta};
    use store::MemoryDisk;

    use super::*;

    fn id(n: u8) -> DocumentId {
        DocumentId::from_bytes(&[n; 16]).unwrap()
    }

    fn changes(count: usize) -> (Vec<Change>, Heads) {
        let mut doc = AutoCommit::new();
        for n in 0..count {
            doc.put(ROOT, "n", n as i64).unwrap();
            doc.commit();
        }
        let all = doc.get_changes(&[]);
        let changes = all.iter().map(|change| read_change(change.raw_bytes()).unwrap()).collect();
        let heads = doc.get_heads().iter().map(|hash| ChangeHash(hash.0)).collect();
        (changes, heads)
    }

    fn writes(id: &DocumentId, from: usize, changes: &[Change]) -> Vec<Write> {
        let mut writes = Vec::new();
        if from == 0 {
            writes.push(put_meta(id, Meta { created_ms: 5, ..Meta::default() }));
        }
        put_log(id, from as u32, 1, changes, &mut writes);
        writes
    }

    fn commit(board: &Board, store: &dyn Store, writes: &[Write]) {
        let noticed = board.notice(writes);
        store.commit(writes).unwrap();
        board.committed(noticed);
    }

    #[test]
    fn heads_that_were_asked_for_follow_what_is_committed() {
        let (board, store) = (Board::new(1), MemoryDisk::new().open());
        let (changes, heads) = changes(5);
        assert_eq!(board.read(&store, &id(1)), Ok(None));
        commit(&board, &store, &writes(&id(1), 0, &changes[..2]));
        assert_eq!(board.known(&id(1)), None, "nobody has asked");
        assert_eq!(board.read(&store, &id(1)).unwrap().unwrap().changes, 2);
        let batch = writes(&id(1), 2, &changes[2..]);
        let noticed = board.notice(&batch);
        assert_eq!(board.known(&id(1)).unwrap().changes, 2, "not before it is durable");
        board.committed(noticed);
        let known = board.known(&id(1)).unwrap();
        assert_eq!((known.changes, &known.heads), (5, &heads));
    }

    #[test]
    fn what_a_read_has_seen_already_does_not_count_twice() {
        let (changes, heads) = changes(4);
        let rows = |from: usize, to: usize| {
            appended(&writes(&id(1), from, &changes[from..to]), &id(1)).unwrap()
        };
        let none = Known { heads: Heads::none(), changes: 0 };
        let two = none.and(&rows(0, 2)).unwrap();
        let all = two.clone().and(&rows(0, 4)).unwrap();
        assert_eq!((all.changes, all.heads), (4, heads));
        assert_eq!(two.clone().and(&rows(1, 2)), Some(two.clone()));
        assert_eq!(two.and(&rows(3, 4)), None, "one is missing in between");
    }

    #[test]
    fn the_feed_has_each_document_once_and_says_when_it_does_not_go_back_far_enough() {
        let (board, store) = (Board::new(1), MemoryDisk::new().open());
        let (changes, _) = changes(2);
        commit(&board, &store, &writes(&id(1), 0, &changes[..1]));
        commit(&board, &store, &writes(&id(2), 0, &changes));
        commit(&board, &store, &writes(&id(1), 1, &changes[1..]));
        assert_eq!(board.changed_since(0, 9), Some(vec![(2, id(2)), (3, id(1))]));
        assert_eq!(board.changed_since(2, 9), Some(vec![(3, id(1))]));
        assert_eq!((board.latest(9), board.latest(1)), (vec![id(1), id(2)], vec![id(1)]));
        assert_eq!((board.changed_since(3, 9), board.changed_since(4, 9)), (Some(vec![]), None));
        let mut feed = lock(&board.feed);
        for n in 0..FEED_DOCUMENTS_MAX as u32 {
            feed.push(DocumentId::from_bytes(&n.to_be_bytes()).unwrap());
        }
        drop(feed);
        assert_eq!(board.changed_since(2, 9), None);
        assert_eq!(board.changed_since(3, 1).unwrap().len(), 1);
    }

    #[test]
    fn who_watches_hears_of_each_change_when_it_is_durable() {
        let (board, store) = (Arc::new(Board::new(1)), MemoryDisk::new().open());
        let (changes, _) = changes(1);
        let mut watch = board.watch(&id(1));
        commit(&board, &store, &writes(&id(1), 0, &changes));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let news = runtime.block_on(watch.next()).unwrap();
        assert_eq!(news.hashes, [changes[0].hash()]);
        drop(watch);
        assert!(lock(&board.watched).is_empty());
    }
}
