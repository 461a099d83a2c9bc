//! A document as it lies in the store, in the form that Automerge loads.

use std::ops::ControlFlow;

use model::DocumentId;
use node::Limits;
use node::rows::{self, LoadError, META_KEYS, Meta};
use store::{Store, StoreError, Visit, Write};

use crate::board::Known;

/// A snapshot and the changes after it: together a document, and one after the other a file.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// A document chunk.
    pub snapshot: Option<Vec<u8>>,
    /// Change chunks in causal order.
    pub changes: Vec<Vec<u8>>,
}

impl Source {
    /// Reads exactly what is known, from the store and without the document's graph. `None`: it has
    /// been compacted beyond that meanwhile, or is being compacted; look again what is known.
    ///
    /// # Errors
    /// When the store fails or its rows make no sense.
    pub fn read(
        store: &dyn Store,
        id: &DocumentId,
        known: &Known,
    ) -> Result<Option<Self>, LoadError> {
        let Some(before) = meta(store, id)? else { return Ok(None) };
        let snapshot = match rows::snapshot(store, id, before) {
            Ok(snapshot) => snapshot,
            Err(LoadError::Row(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        if snapshot.as_ref().map_or(0, Vec::len) as u64 != before.snapshot_bytes {
            return Ok(None);
        }
        let mut changes = Vec::new();
        let mut next = before.base;
        rows::scan_log(store, id, before.base, &mut |row| {
            for (position, change) in (row.position..).zip(row.changes) {
                if position >= known.changes {
                    return ControlFlow::Break(());
                }
                if position != next {
                    // Rows that a compaction is moving.
                    continue;
                }
                changes.push(change.bytes().to_vec());
                next += 1;
            }
            ControlFlow::Continue(())
        })?;
        let whole = next == known.changes && meta(store, id)? == Some(before);
        Ok(whole.then_some(Self { snapshot, changes }))
    }

    /// Whether there is so much beside the snapshot that it should be put into it: a change that is
    /// put in its place costs Automerge many times what one does that is loaded with the snapshot.
    pub fn is_long(&self, compact_tail_bytes: usize) -> bool {
        let tail: usize = self.changes.iter().map(Vec::len).sum();
        let snapshot = self.snapshot.as_ref().map_or(0, Vec::len);
        tail >= Limits::compact_at(compact_tail_bytes, snapshot)
    }

    /// One file, as clients load it.
    pub fn into_file(self) -> Vec<u8> {
        let mut file = self.snapshot.unwrap_or_default();
        self.changes.iter().for_each(|change| file.extend_from_slice(change));
        file
    }
}

/// Where the row is that says what else there is of a document.
pub fn meta_key(id: &DocumentId) -> Vec<u8> {
    let mut key = vec![META_KEYS.0, id.as_bytes().len() as u8];
    key.extend_from_slice(id.as_bytes());
    key
}

/// That row. `None`: there is no such document.
///
/// # Errors
/// When the store fails or the row makes no sense.
pub fn meta(store: &dyn Store, id: &DocumentId) -> Result<Option<Meta>, LoadError> {
    let mut found = None;
    rows::documents(&OneRow { store, key: meta_key(id) }, &mut |_, meta| {
        found = Some(meta);
        ControlFlow::Break(())
    })?;
    Ok(found)
}

/// A store in which there is one row.
struct OneRow<'a> {
    store: &'a dyn Store,
    key: Vec<u8>,
}

impl Store for OneRow<'_> {
    fn commit(&self, _: &[Write]) -> Result<(), StoreError> {
        Err(StoreError::Stopped)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if key == self.key { self.store.get(key) } else { Ok(None) }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        if (from..to).contains(&self.key.as_slice())
            && let Some(value) = self.store.get(&self.key)?
        {
            let _ = visit(&self.key, &value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use store::{MemoryDisk, MemoryStore};

    use super::*;

    #[test]
    fn the_row_of_a_document_is_found_and_that_of_another_is_not() {
        let store = MemoryDisk::new().open();
        let id = |n: u8| DocumentId::from_bytes(&[n; 16]).unwrap();
        let meta_1 = Meta { created_ms: 7, ..Meta::default() };
        store.commit(&[rows::put_meta(&id(1), meta_1)]).unwrap();
        assert_eq!(meta(&store as &MemoryStore, &id(1)), Ok(Some(meta_1)));
        assert_eq!(meta(&store, &id(2)), Ok(None));
    }
}
