//! What a document is in the store: which keys it has, and what their values say.
//!
//! | row | key | value |
//! |---|---|---|
//! | meta | document | [`Meta`]: what the other rows are |
//! | snapshot | document | an Automerge document: the changes `0..base` |
//! | directory | document | the operation directory of the changes `0..base` |
//! | index | document, position | the graph of a stretch of `0..base`, from that position on |
//! | log | document, position | changes with their lengths, the first one at that position |
//! | dead | document, hash | a change that is set aside for ever, with the reason |
//! | verdict | document, hash | why a region found that this change does not fit; it is dead, too |
//! | original | document | if it keeps a branch that lost in another document: the id of that one |
//!
//! Everything a commit changes of one document is in one batch, so the rows always agree.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use history::chunk::{Change, read_change};
use history::directory::Directory;
use history::graph::Position;
use history::varint::{Malformed, Reader, put};
use history::{History, IndexError, RestoreError};
use model::{ChangeHash, DocumentId};
use store::{Store, StoreError, Write};

const META: u8 = 0x10;
const SNAPSHOT: u8 = 0x11;
const DIRECTORY: u8 = 0x12;
const INDEX: u8 = 0x13;
const LOG: u8 = 0x14;
const DEAD: u8 = 0x15;
const ORIGINAL: u8 = 0x16;
const VERDICT: u8 = 0x17;

const META_VERSION: u8 = 1;

/// How many bytes of changes go into one log row; a longer change has a row of its own. Chosen so
/// that a row with its header stays one row in sled (3 KiB).
pub const LOG_ROW_BYTES: usize = 2_800;
/// How many changes a row seldom has more of.
const ROW_CHANGES: Position = 64;

/// What a row of a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowKind {
    /// What the other rows are.
    Meta,
    /// An Automerge document.
    Snapshot,
    /// The operation directory.
    Directory,
    /// The graph of a stretch of changes.
    Index,
    /// Changes.
    Log,
    /// A change that turned out not to fit.
    Dead,
    /// Which document it is a copy of.
    Original,
    /// What a region found out about a change.
    Verdict,
}

impl std::fmt::Display for RowKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Meta => "meta",
            Self::Snapshot => "snapshot",
            Self::Directory => "directory",
            Self::Index => "index",
            Self::Log => "log",
            Self::Dead => "dead",
            Self::Original => "original",
            Self::Verdict => "verdict",
        })
    }
}

/// The first bytes of the keys of all meta rows: from the one to below the other. There is one such row
/// for each document.
pub const META_KEYS: (u8, u8) = (META, META + 1);

/// Reads the key of a row: which kind, and of which document. `None`: not a row of a document.
pub fn read_key(key: &[u8]) -> Option<(RowKind, DocumentId)> {
    let (kind, rest) = key.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (id, rest) = rest.split_at_checked(usize::from(*length))?;
    let (kind, rest_bytes) = match *kind {
        META => (RowKind::Meta, 0),
        SNAPSHOT => (RowKind::Snapshot, 0),
        DIRECTORY => (RowKind::Directory, 0),
        INDEX => (RowKind::Index, 4),
        LOG => (RowKind::Log, 4),
        DEAD => (RowKind::Dead, 32),
        ORIGINAL => (RowKind::Original, 0),
        VERDICT => (RowKind::Verdict, 32),
        _ => return None,
    };
    let id = DocumentId::from_bytes(id).ok()?;
    (rest.len() == rest_bytes).then_some((kind, id))
}

/// The row that says what the others are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meta {
    /// How many changes the snapshot, the index and the directory cover.
    pub base: Position,
    /// From where on changes are kept one by one.
    pub raw_from: Position,
    /// How many bytes the snapshot has; 0 if there is none.
    pub snapshot_bytes: u64,
    /// When the document came here, in milliseconds since 1970 by this server's clock.
    pub created_ms: u64,
}

impl Meta {
    fn encode(self) -> Vec<u8> {
        let mut out = vec![META_VERSION];
        put(&mut out, u64::from(self.base));
        put(&mut out, u64::from(self.raw_from));
        put(&mut out, self.snapshot_bytes);
        put(&mut out, self.created_ms);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        let mut reader = Reader::new(bytes);
        match reader.byte()? {
            META_VERSION => {}
            version => return Err(RowError::Version(version)),
        }
        let mut position = || -> Result<Position, RowError> {
            Ok(Position::try_from(reader.number()?).map_err(|_| Malformed)?)
        };
        let (base, raw_from) = (position()?, position()?);
        Ok(Self { base, raw_from, snapshot_bytes: reader.number()?, created_ms: reader.number()? })
    }
}

/// One row of the log.
#[derive(Debug, Clone)]
pub struct LogRow {
    /// The position of its first change.
    pub position: Position,
    /// When it was written, in milliseconds since 1970 by this server's clock.
    pub written_ms: u64,
    /// Its changes.
    pub changes: Vec<Change>,
}

/// A document that was read: its history and the row that says what there is.
pub struct Loaded {
    /// The history; its directory is not loaded.
    pub history: History,
    /// The meta row.
    pub meta: Meta,
}

/// Reads a document, but not its snapshot and not its directory. `None`: there is no such document.
///
/// # Errors
/// When the store fails, or its rows do not make a document.
pub fn load(store: &dyn Store, id: &DocumentId) -> Result<Option<Loaded>, LoadError> {
    let Some(meta) = store.get(&key(META, id))? else { return Ok(None) };
    let meta = Meta::decode(&meta)?;
    let mut segments = Vec::new();
    store.scan(&at(INDEX, id, 0), &end(INDEX, id), &mut |_, value| {
        segments.push(value.to_vec());
        ControlFlow::Continue(())
    })?;
    let segments = segments.iter().map(Vec::as_slice);
    let mut history = History::from_index(meta.base, meta.raw_from, segments)?;
    let mut broken = None;
    scan_log(store, id, meta.base, &mut |row| {
        for change in row.changes {
            if let Err(reason) = history.restore(change) {
                broken = Some(reason);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    match broken {
        Some(reason) => Err(reason.into()),
        None => Ok(Some(Loaded { history, meta })),
    }
}

/// The operation directory of the changes that the snapshot covers.
///
/// # Errors
/// When the store fails or the row is not a directory.
pub fn directory(store: &dyn Store, id: &DocumentId, meta: Meta) -> Result<Directory, LoadError> {
    if meta.base == 0 {
        return Ok(Directory::default());
    }
    let bytes = store.get(&key(DIRECTORY, id))?.ok_or(RowError::Missing("directory"))?;
    Directory::decode(&bytes).map_err(|_| RowError::Malformed.into())
}

/// The snapshot, if there is one.
///
/// # Errors
/// When the store fails, or a snapshot that should be there is not.
pub fn snapshot(
    store: &dyn Store,
    id: &DocumentId,
    meta: Meta,
) -> Result<Option<Vec<u8>>, LoadError> {
    if meta.base == 0 {
        return Ok(None);
    }
    Ok(Some(store.get(&key(SNAPSHOT, id))?.ok_or(RowError::Missing("snapshot"))?))
}

/// The changes `from..to` out of the log. All of them must be kept one by one.
///
/// With `bytes_max` of them there are no more: what comes after is left out.
///
/// # Errors
/// When the store fails or a change is not there.
pub fn changes(
    store: &dyn Store,
    id: &DocumentId,
    kept_from: Position,
    from: Position,
    to: Position,
    bytes_max: usize,
) -> Result<Vec<Change>, LoadError> {
    let mut changes = Vec::new();
    let mut bytes = 0;
    let first_row = log_row_of(store, id, kept_from, from)?;
    scan_log(store, id, first_row, &mut |row| {
        for (position, change) in (row.position..).zip(row.changes) {
            let next = from + changes.len() as Position;
            if position >= to || bytes >= bytes_max || position > next {
                return ControlFlow::Break(());
            }
            if position == next {
                bytes += change.bytes().len();
                changes.push(change);
            }
        }
        ControlFlow::Continue(())
    })?;
    if changes.len() == (to - from) as usize || bytes >= bytes_max {
        Ok(changes)
    } else {
        Err(RowError::Missing("log row").into())
    }
}

/// Every document in the store, ascending by id bytes, from `from` on.
///
/// # Errors
/// When the store fails or a row makes no sense.
pub fn documents(
    store: &dyn Store,
    visit: &mut dyn FnMut(DocumentId, Meta) -> ControlFlow<()>,
) -> Result<(), LoadError> {
    let mut broken = None;
    store.scan(&[META], &[META + 1], &mut |key, value| {
        let row = key
            .get(2..)
            .and_then(|id| DocumentId::from_bytes(id).ok())
            .ok_or(RowError::Malformed)
            .and_then(|id| Ok((id, Meta::decode(value)?)));
        match row {
            Ok((id, meta)) => visit(id, meta),
            Err(reason) => {
                broken = Some(reason);
                ControlFlow::Break(())
            }
        }
    })?;
    broken.map_or(Ok(()), |reason| Err(reason.into()))
}

/// Visits the rows of a document's log from a row's position on.
///
/// # Errors
/// When the store fails or a row makes no sense.
pub fn scan_log(
    store: &dyn Store,
    id: &DocumentId,
    from: Position,
    visit: &mut dyn FnMut(LogRow) -> ControlFlow<()>,
) -> Result<(), LoadError> {
    let mut broken = None;
    store.scan(&at(LOG, id, from), &end(LOG, id), &mut |key, value| match decode_log_row(
        key, value,
    ) {
        Ok(row) => visit(row),
        Err(reason) => {
            broken = Some(reason);
            ControlFlow::Break(())
        }
    })?;
    broken.map_or(Ok(()), |reason| Err(reason.into()))
}

/// The writes that put a meta row in place.
pub fn put_meta(id: &DocumentId, meta: Meta) -> Write {
    Write::Put { key: key(META, id), value: meta.encode() }
}

/// The writes that put a snapshot in place.
pub fn put_snapshot(id: &DocumentId, snapshot: Vec<u8>) -> Write {
    Write::Put { key: key(SNAPSHOT, id), value: snapshot }
}

/// The write that puts an encoded directory in place.
pub fn put_directory(id: &DocumentId, directory: Vec<u8>) -> Write {
    Write::Put { key: key(DIRECTORY, id), value: directory }
}

/// The writes that remove everything that belongs to a snapshot.
pub fn delete_snapshot(id: &DocumentId, index_segments: &[Position], out: &mut Vec<Write>) {
    out.push(Write::Delete { key: key(SNAPSHOT, id) });
    out.push(Write::Delete { key: key(DIRECTORY, id) });
    out.extend(index_segments.iter().map(|start| delete_index(id, *start)));
}

/// The write that puts an index segment in place.
pub fn put_index(id: &DocumentId, from: Position, segment: Vec<u8>) -> Write {
    Write::Put { key: at(INDEX, id, from), value: segment }
}

/// The write that removes an index segment.
pub fn delete_index(id: &DocumentId, from: Position) -> Write {
    Write::Delete { key: at(INDEX, id, from) }
}

/// The write that removes a log row.
pub fn delete_log(id: &DocumentId, position: Position) -> Write {
    Write::Delete { key: at(LOG, id, position) }
}

/// Why a change is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// It does not fit the document.
    Misfit,
    /// Its actor made another change with the same number, which has a smaller hash.
    LostItsSlot,
    /// It builds on a dead change.
    Descendant,
}

/// The write that keeps a dead change for the operator, and for other regions.
pub fn put_dead(id: &DocumentId, death: Death, reason: &str, change: &Change) -> Write {
    let bytes = change.bytes();
    let mut value = Vec::with_capacity(bytes.len() + reason.len() + 8);
    value.push(death as u8);
    put(&mut value, reason.len() as u64);
    value.extend_from_slice(reason.as_bytes());
    value.extend_from_slice(bytes);
    Write::Put { key: of_change(DEAD, id, &change.hash()), value }
}

/// The write that keeps what a region found out: that a change does not fit. The change may not have
/// been seen here, or may be dead already because of something else.
pub fn put_verdict(id: &DocumentId, hash: &ChangeHash, reason: &str) -> Write {
    Write::Put { key: of_change(VERDICT, id, hash), value: reason.as_bytes().to_vec() }
}

/// A change that is set aside for ever.
#[derive(Debug, Clone)]
pub struct Dead {
    /// Its name.
    pub hash: ChangeHash,
    /// What killed it.
    pub death: Death,
    /// Why, in the words of whoever found out.
    pub reason: String,
    /// The change, if it has been seen here.
    pub change: Option<Change>,
}

/// The dead changes of a document, ascending.
///
/// # Errors
/// When the store fails or a row makes no sense.
pub fn dead(store: &dyn Store, id: &DocumentId) -> Result<Vec<Dead>, LoadError> {
    let mut dead = BTreeMap::new();
    let mut broken = None;
    store.scan(&key(DEAD, id), &end(DEAD, id), &mut |key, value| {
        match decode_dead(key, value) {
            Ok(row) => dead.insert(row.hash, row),
            Err(reason) => {
                broken = Some(reason);
                return ControlFlow::Break(());
            }
        };
        ControlFlow::Continue(())
    })?;
    if let Some(reason) = broken {
        return Err(reason.into());
    }
    store.scan(&key(VERDICT, id), &end(VERDICT, id), &mut |key, reason| {
        let hash = change_of(key);
        let row = dead.entry(hash);
        let row =
            row.or_insert(Dead { hash, death: Death::Misfit, reason: String::new(), change: None });
        row.death = Death::Misfit;
        row.reason = String::from_utf8_lossy(reason).into_owned();
        ControlFlow::Continue(())
    })?;
    Ok(dead.into_values().collect())
}

/// The write that says which document this one keeps a losing branch of.
pub fn put_original(id: &DocumentId, original: &DocumentId) -> Write {
    Write::Put { key: key(ORIGINAL, id), value: original.as_bytes().to_vec() }
}

/// Which document this one keeps a losing branch of, if it does.
///
/// # Errors
/// When the store fails or the row is not an id.
pub fn original(store: &dyn Store, id: &DocumentId) -> Result<Option<DocumentId>, LoadError> {
    let row = store.get(&key(ORIGINAL, id))?;
    Ok(row.map(|bytes| DocumentId::from_bytes(&bytes).map_err(|_| Malformed)).transpose()?)
}

/// The writes that append changes to a log, the first one at `position`.
pub fn put_log<'a>(
    id: &DocumentId,
    mut position: Position,
    written_ms: u64,
    changes: impl IntoIterator<Item = &'a Change>,
    out: &mut Vec<Write>,
) {
    let mut row = Vec::new();
    let mut count = 0;
    for change in changes {
        if count > 0 && row.len() + change.bytes().len() > LOG_ROW_BYTES {
            out.push(Write::Put { key: at(LOG, id, position), value: std::mem::take(&mut row) });
            position += count;
            count = 0;
        }
        if count == 0 {
            put(&mut row, written_ms);
        }
        put(&mut row, change.bytes().len() as u64);
        row.extend_from_slice(change.bytes());
        count += 1;
    }
    if count > 0 {
        out.push(Write::Put { key: at(LOG, id, position), value: row });
    }
}

/// What a row of the log is, without its changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRowInfo {
    /// The position of its first change.
    pub position: Position,
    /// When it was written, in milliseconds since 1970 by this server's clock.
    pub written_ms: u64,
    /// How many bytes it has.
    pub bytes: usize,
}

/// The rows of a log that start in `from..to`.
///
/// # Errors
/// When the store fails or a row makes no sense.
pub fn log_rows(
    store: &dyn Store,
    id: &DocumentId,
    from: Position,
    to: Position,
) -> Result<Vec<LogRowInfo>, LoadError> {
    let mut rows = Vec::new();
    let mut broken = None;
    store.scan(&at(LOG, id, from), &at(LOG, id, to), &mut |key, value| {
        match Reader::new(value).number() {
            Ok(written_ms) => {
                rows.push(LogRowInfo { position: position_of(key), written_ms, bytes: value.len() })
            }
            Err(reason) => {
                broken = Some(reason);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    broken.map_or(Ok(rows), |reason| Err(reason.into()))
}

/// Where the index segments of a document start.
///
/// # Errors
/// When the store fails.
pub fn index_segments(store: &dyn Store, id: &DocumentId) -> Result<Vec<Position>, LoadError> {
    let mut starts = Vec::new();
    store.scan(&at(INDEX, id, 0), &end(INDEX, id), &mut |key, _| {
        starts.push(position_of(key));
        ControlFlow::Continue(())
    })?;
    Ok(starts)
}

/// The row that holds a position: the last one that starts at or before it.
fn log_row_of(
    store: &dyn Store,
    id: &DocumentId,
    kept_from: Position,
    position: Position,
) -> Result<Position, LoadError> {
    // Rows hold few changes, so it is close by; what is before it need not be read.
    let mut back = ROW_CHANGES;
    loop {
        let from = position.saturating_sub(back).max(kept_from);
        let rows = log_rows(store, id, from, position.saturating_add(1))?;
        match rows.last() {
            Some(row) => return Ok(row.position),
            None if from == kept_from => return Ok(position),
            None => back = back.saturating_mul(16),
        }
    }
}

fn decode_log_row(key: &[u8], value: &[u8]) -> Result<LogRow, RowError> {
    let mut reader = Reader::new(value);
    let written_ms = reader.number()?;
    let mut changes = Vec::new();
    while !reader.is_empty() {
        let length = reader.count()?;
        changes.push(read_change(reader.bytes(length)?).map_err(|_| RowError::Malformed)?);
    }
    Ok(LogRow { position: position_of(key), written_ms, changes })
}

fn decode_dead(key: &[u8], value: &[u8]) -> Result<Dead, RowError> {
    let mut reader = Reader::new(value);
    let death = match reader.byte()? {
        0 => Death::Misfit,
        1 => Death::LostItsSlot,
        2 => Death::Descendant,
        _ => return Err(RowError::Malformed),
    };
    let length = reader.count()?;
    let reason = String::from_utf8_lossy(reader.bytes(length)?).into_owned();
    let change = match reader.left() {
        0 => None,
        left => Some(read_change(reader.bytes(left)?).map_err(|_| Malformed)?),
    };
    Ok(Dead { hash: change_of(key), death, reason, change })
}

fn key(kind: u8, id: &DocumentId) -> Vec<u8> {
    let mut key = Vec::with_capacity(id.as_bytes().len() + 6);
    key.push(kind);
    key.push(id.as_bytes().len() as u8);
    key.extend_from_slice(id.as_bytes());
    key
}

fn at(kind: u8, id: &DocumentId, position: Position) -> Vec<u8> {
    let mut key = key(kind, id);
    key.extend_from_slice(&position.to_be_bytes());
    key
}

fn of_change(kind: u8, id: &DocumentId, hash: &ChangeHash) -> Vec<u8> {
    let mut key = key(kind, id);
    key.extend_from_slice(hash.as_bytes());
    key
}

fn change_of(key: &[u8]) -> ChangeHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(&key[key.len() - 32..]);
    ChangeHash(hash)
}

/// The end of all rows of one kind of a document. Ids differ somewhere or have another length, which
/// stands before them, so no other document's rows lie in between.
fn end(kind: u8, id: &DocumentId) -> Vec<u8> {
    let mut key = key(kind, id);
    key.extend_from_slice(&[0xff; 33]);
    key
}

fn position_of(key: &[u8]) -> Position {
    let mut position = [0; 4];
    position.copy_from_slice(&key[key.len() - 4..]);
    Position::from_be_bytes(position)
}

/// Why a document cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The store cannot read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A row makes no sense.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The index makes no sense.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The log does not continue the index.
    #[error(transparent)]
    Log(#[from] RestoreError),
}

impl From<Malformed> for LoadError {
    fn from(_: Malformed) -> Self {
        RowError::Malformed.into()
    }
}

/// Why a row makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// Written by a newer version of this program.
    #[error("row of version {0}, which this program does not know")]
    Version(u8),
    /// The bytes are not what they should be, though their checksum is right.
    #[error("row is malformed")]
    Malformed,
    /// The meta row promises a row that is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
}

impl From<Malformed> for RowError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}
