//! What a node in a mesh keeps besides its documents.
//!
//! | row | key | value |
//! |---|---|---|
//! | log | log, first sequence | entries of an origin log, in order |
//! | mark | log | [`Held`]: from where and up to where this node holds the log |
//! | item | document | [`Item`]: what the audit compares, and where the document's last change is |
//! | waiting | document, hash | a change of another region whose dependencies are not here yet |
//! | forgotten | log | [`Forgotten`]: what is left of a log of a process that is no more |
//!
//! The mark is in the same batch as the entries that it covers.

use std::ops::ControlFlow;

use history::chunk::{Change, read_change};
use history::varint::{Malformed, Reader, put};
use mesh::{Entry, LogId, Mark, Origin, origin};
use model::{ChangeHash, DocumentId, RegionName};
use store::{Store, Write};

use crate::rows::{LoadError, RowError};

const LOG: u8 = 0x20;
const MARK: u8 = 0x21;
const ITEM: u8 = 0x22;
const WAITING: u8 = 0x23;
const FORGOTTEN: u8 = 0x24;

/// How many bytes of entries go into one row; a longer entry has a row of its own.
const ROW_BYTES: usize = 2_800;

/// Whether a key is of one of these rows, and if so whether the row makes sense.
pub fn check(key: &[u8], value: &[u8]) -> Option<bool> {
    let read = || -> Result<(), Malformed> {
        match key[0] {
            LOG => {
                read_log(key)?;
                let mut reader = Reader::new(value);
                while !reader.is_empty() {
                    decode_entry(&mut reader)?;
                }
            }
            MARK => {
                read_log(key)?;
                decode_held(value)?;
            }
            ITEM => {
                read_document(key)?;
                decode_item(value)?;
            }
            FORGOTTEN => {
                read_log(key)?;
                decode_forgotten(value)?;
            }
            _ => {
                read_document(key)?;
                read_change(value).map_err(|_| Malformed)?;
            }
        }
        Ok(())
    };
    (LOG..=FORGOTTEN).contains(key.first()?).then(|| read().is_ok())
}

/// Which part of a log a node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// Everything up to here is not kept any more.
    pub start: Mark,
    /// Everything up to here was received.
    pub end: Mark,
}

/// What is left of a log whose process is no more and which every region has held.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forgotten {
    /// Its last entry.
    pub last: Mark,
    /// Counts what was forgotten: so many forgotten logs are remembered, and the oldest go first.
    pub number: u64,
    /// For a log of our own region, who has said to hold it.
    pub held_by: Vec<RegionName>,
}

/// What the audit compares of a document, and where its last change of this region is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Item {
    /// See [`mesh::exchange::item`].
    pub item: u64,
    /// The epoch of the log that has the last change that a client handed in here; 0: none has.
    pub epoch: u64,
    /// Its place in the log.
    pub sequence: u64,
}

/// The writes that append entries to a log, the first one at `first`.
pub fn put_entries(log: &LogId, first: u64, entries: &[Entry], out: &mut Vec<Write>) {
    let (mut row, mut row_first) = (Vec::new(), first);
    for (sequence, entry) in (first..).zip(entries) {
        if !row.is_empty() && row.len() + entry.bytes() > ROW_BYTES {
            let value = std::mem::take(&mut row);
            out.push(Write::Put { key: at(log, row_first), value });
            row_first = sequence;
        }
        encode_entry(entry, &mut row);
    }
    if !row.is_empty() {
        out.push(Write::Put { key: at(log, row_first), value: row });
    }
}

/// The write that says how far a log is held.
pub fn put_held(log: &LogId, held: Held) -> Write {
    let mut value = Vec::with_capacity(52);
    for mark in [held.start, held.end] {
        put(&mut value, mark.sequence);
        value.extend_from_slice(&mark.digest);
    }
    Write::Put { key: log_key(MARK, log), value }
}

/// The writes that forget a log of which no entries are kept.
pub fn forget(log: &LogId, forgotten: &Forgotten) -> [Write; 2] {
    let mut value = Vec::with_capacity(32);
    put(&mut value, forgotten.number);
    put(&mut value, forgotten.last.sequence);
    value.extend_from_slice(&forgotten.last.digest);
    put(&mut value, forgotten.held_by.len() as u64);
    for region in &forgotten.held_by {
        value.push(region.as_str().len() as u8);
        value.extend_from_slice(region.as_str().as_bytes());
    }
    let put = Write::Put { key: log_key(FORGOTTEN, log), value };
    [Write::Delete { key: log_key(MARK, log) }, put]
}

/// The write after which nothing says that a log is forgotten.
pub fn delete_forgotten(log: &LogId) -> Write {
    Write::Delete { key: log_key(FORGOTTEN, log) }
}

/// The logs that are forgotten.
///
/// # Errors
/// When the store fails or a row makes no sense.
pub fn forgotten(store: &dyn Store) -> Result<Vec<(LogId, Forgotten)>, LoadError> {
    let mut logs = Vec::new();
    each(store, &[FORGOTTEN], &[FORGOTTEN + 1], &mut |key, value| {
        let (log, _) = read_log(key)?;
        logs.push((log, decode_forgotten(value)?));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(logs)
}

/// The writes that remove rows of a log, whatever is in them, but no more than so many.
///
/// # Errors
/// When the store fails or a row makes no sense.
pub fn delete_rows(
    store: &dyn Store,
    log: &LogId,
    rows_max: usize,
) -> Result<Vec<Write>, LoadError> {
    let mut writes = Vec::new();
    each(store, &at(log, 0), &end(log), &mut |key, _| {
        if writes.len() >= rows_max {
            return Ok(ControlFlow::Break(()));
        }
        writes.push(Write::Delete { key: key.to_vec() });
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(writes)
}

/// Every log that this node holds something of.
///
/// # Errors
/// When the store fails or a row makes no sense.
pub fn logs(store: &dyn Store) -> Result<Vec<(LogId, Held)>, LoadError> {
    let mut logs = Vec::new();
    each(store, &[MARK], &[MARK + 1], &mut |key, value| {
        let (log, _) = read_log(key)?;
        logs.push((log, decode_held(value)?));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(logs)
}

/// Visits a log's rows that may hold entries from `from` on: with the number of each row's first.
///
/// # Errors
/// When the store fails or a row makes no sense.
pub fn entries(
    store: &dyn Store,
    log: &LogId,
    from: u64,
    visit: &mut dyn FnMut(u64, Vec<Entry>) -> ControlFlow<()>,
) -> Result<(), LoadError> {
    // The row that holds `from` starts at or before it; no row holds more entries than fit into it.
    let most = (ROW_BYTES / ENTRY_BYTES_MIN) as u64;
    let start = at(log, from.saturating_sub(most));
    each(store, &start, &end(log), &mut |key, value| {
        let (_, first) = read_log(key)?;
        let mut reader = Reader::new(value);
        let mut row = Vec::new();
        while !reader.is_empty() {
            row.push(decode_entry(&mut reader)?);
        }
        if first + row.len() as u64 <= from {
            return Ok(ControlFlow::Continue(()));
        }
        Ok(visit(first, row))
    })
}

/// The write that removes the row of a log that starts at `first`.
pub fn delete_entries(log: &LogId, first: u64) -> Write {
    Write::Delete { key: at(log, first) }
}

/// The write that says what the audit compares.
pub fn put_item(document: &DocumentId, item: Item) -> Write {
    let mut value = item.item.to_le_bytes().to_vec();
    value.extend_from_slice(&item.epoch.to_le_bytes());
    put(&mut value, item.sequence);
    Write::Put { key: document_key(ITEM, document), value }
}

/// The write that forgets what the audit compares; a node in a mesh makes it anew when it starts.
/// Whoever changes a document behind a node's back does this.
pub fn delete_item(document: &DocumentId) -> Write {
    Write::Delete { key: document_key(ITEM, document) }
}

/// What the audit compares of one document.
///
/// # Errors
/// When the store fails or the row makes no sense.
pub fn item(store: &dyn Store, document: &DocumentId) -> Result<Option<Item>, LoadError> {
    let Some(value) = store.get(&document_key(ITEM, document))? else { return Ok(None) };
    Ok(Some(decode_item(&value)?))
}

/// Visits what the audit compares of every document.
///
/// # Errors
/// When the store fails or a row makes no sense.
pub fn items(
    store: &dyn Store,
    visit: &mut dyn FnMut(DocumentId, Item) -> ControlFlow<()>,
) -> Result<(), LoadError> {
    each(store, &[ITEM], &[ITEM + 1], &mut |key, value| {
        let (document, _) = read_document(key)?;
        Ok(visit(document, decode_item(value)?))
    })
}

/// The write that keeps a change until what it builds on is here.
pub fn put_waiting(document: &DocumentId, change: &Change) -> Write {
    Write::Put { key: waiting_key(document, &change.hash()), value: change.bytes().to_vec() }
}

/// The write that lets go of it.
pub fn delete_waiting(document: &DocumentId, hash: &ChangeHash) -> Write {
    Write::Delete { key: waiting_key(document, hash) }
}

/// The changes of a document that wait.
///
/// # Errors
/// When the store fails or a row makes no sense.
pub fn waiting(store: &dyn Store, document: &DocumentId) -> Result<Vec<Change>, LoadError> {
    let mut changes = Vec::new();
    let start = document_key(WAITING, document);
    let mut end = start.clone();
    end.extend_from_slice(&[0xff; 33]);
    each(store, &start, &end, &mut |_, value| {
        changes.push(read_change(value).map_err(|_| Malformed)?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(changes)
}

/// The least that an entry takes: a document id of one byte, a kind, a hash and an empty reason.
const ENTRY_BYTES_MIN: usize = 36;

fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    out.push(entry.document.as_bytes().len() as u8);
    out.extend_from_slice(entry.document.as_bytes());
    match &entry.item {
        origin::Item::Change(change) => {
            out.push(0);
            put(out, change.bytes().len() as u64);
            out.extend_from_slice(change.bytes());
        }
        origin::Item::Dead { hash, reason } => {
            out.push(1);
            out.extend_from_slice(hash.as_bytes());
            put(out, reason.len() as u64);
            out.extend_from_slice(reason.as_bytes());
        }
    }
}

fn decode_entry(reader: &mut Reader<'_>) -> Result<Entry, Malformed> {
    let length = reader.byte()?;
    let document = DocumentId::from_bytes(reader.bytes(length.into())?).map_err(|_| Malformed)?;
    let item = match reader.byte()? {
        0 => {
            let length = reader.count()?;
            let change = read_change(reader.bytes(length)?).map_err(|_| Malformed)?;
            origin::Item::Change(change)
        }
        1 => {
            let hash = ChangeHash(reader.array()?);
            let length = reader.count()?;
            let reason = String::from_utf8_lossy(reader.bytes(length)?).into_owned();
            origin::Item::Dead { hash, reason }
        }
        _ => return Err(Malformed),
    };
    Ok(Entry { document, item })
}

fn decode_held(value: &[u8]) -> Result<Held, Malformed> {
    let mut reader = Reader::new(value);
    let mut mark =
        || Ok::<_, Malformed>(Mark { sequence: reader.number()?, digest: reader.array()? });
    Ok(Held { start: mark()?, end: mark()? })
}

fn decode_forgotten(value: &[u8]) -> Result<Forgotten, Malformed> {
    let mut reader = Reader::new(value);
    let number = reader.number()?;
    let last = Mark { sequence: reader.number()?, digest: reader.array()? };
    let mut held_by = Vec::new();
    for _ in 0..reader.count()? {
        let length = reader.byte()?;
        let name = std::str::from_utf8(reader.bytes(length.into())?).map_err(|_| Malformed)?;
        held_by.push(RegionName::new(name).map_err(|_| Malformed)?);
    }
    Ok(Forgotten { last, number, held_by })
}

fn decode_item(value: &[u8]) -> Result<Item, Malformed> {
    let mut reader = Reader::new(value);
    let item = u64::from_le_bytes(reader.array()?);
    let epoch = u64::from_le_bytes(reader.array()?);
    Ok(Item { item, epoch, sequence: reader.number()? })
}

/// Looks at one row.
type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Malformed> + 'a;

/// Visits rows, and stops at the first that makes no sense.
fn each(
    store: &dyn Store,
    start: &[u8],
    end: &[u8],
    visit: &mut Visit<'_>,
) -> Result<(), LoadError> {
    let mut broken = false;
    store.scan(start, end, &mut |key, value| {
        visit(key, value).unwrap_or_else(|Malformed| {
            broken = true;
            ControlFlow::Break(())
        })
    })?;
    if broken { Err(RowError::Malformed.into()) } else { Ok(()) }
}

fn log_key(kind: u8, log: &LogId) -> Vec<u8> {
    let name = log.origin.region.as_str().as_bytes();
    let mut key = Vec::with_capacity(name.len() + 19);
    key.push(kind);
    key.push(name.len() as u8);
    key.extend_from_slice(name);
    key.extend_from_slice(&log.origin.epoch.to_be_bytes());
    key.push(log.stream);
    key
}

fn at(log: &LogId, sequence: u64) -> Vec<u8> {
    let mut key = log_key(LOG, log);
    key.extend_from_slice(&sequence.to_be_bytes());
    key
}

fn end(log: &LogId) -> Vec<u8> {
    let mut key = log_key(LOG, log);
    key.extend_from_slice(&[0xff; 9]);
    key
}

fn read_log(key: &[u8]) -> Result<(LogId, u64), Malformed> {
    let mut reader = Reader::new(&key[1..]);
    let length = reader.byte()?;
    let name = std::str::from_utf8(reader.bytes(length.into())?).map_err(|_| Malformed)?;
    let region = RegionName::new(name).map_err(|_| Malformed)?;
    let epoch = u64::from_be_bytes(reader.array()?);
    let stream = reader.byte()?;
    let sequence = if reader.is_empty() { 0 } else { u64::from_be_bytes(reader.array()?) };
    Ok((LogId { origin: Origin { region, epoch }, stream }, sequence))
}

fn document_key(kind: u8, document: &DocumentId) -> Vec<u8> {
    let mut key = Vec::with_capacity(document.as_bytes().len() + 34);
    key.push(kind);
    key.push(document.as_bytes().len() as u8);
    key.extend_from_slice(document.as_bytes());
    key
}

fn waiting_key(document: &DocumentId, hash: &ChangeHash) -> Vec<u8> {
    let mut key = document_key(WAITING, document);
    key.extend_from_slice(hash.as_bytes());
    key
}

fn read_document(key: &[u8]) -> Result<(DocumentId, usize), Malformed> {
    let mut reader = Reader::new(&key[1..]);
    let length = reader.byte()?;
    let id = DocumentId::from_bytes(reader.bytes(length.into())?).map_err(|_| Malformed)?;
    Ok((id, reader.left()))
}
