//! The one writer: how a batch becomes rows, and rows become durable.
//!
//! A small batch is one batch of sled's. A batch with large values would hold sled's lock for too long as
//! one, so its parts go ahead:
//!
//! ```text
//! orphan(g), part(g, 0) … part(g, 255)      one small batch after the other:
//! part(g, 256) …                            nothing refers to them yet
//! row(key) -> pointer(g), no orphan(g)      the last batch, with the commit's number; it makes
//!                                           everything visible at once
//! flush, fdatasync                          and durable; then `commit` returns
//! ```
//!
//! The log of sled keeps batches in order, so after a crash the last batch is there only with all the
//! others. Without it, what is left is marked as orphaned, and is swept when the store is opened. The same
//! mark serves a large value that is replaced or deleted: the last batch orphans its parts, and they are
//! removed afterwards, again in small batches.

use std::collections::BTreeMap;

use store::directory::Witness;

use super::{
    Content, File, Path, PathBuf, Pointer, SledOptions, StoreError, Write, guarded, rows,
    sled_error,
};
use rows::{INLINE_BYTES_MAX, PART_BYTES};

/// Rows of parts in one of sled's batches: 1 MiB, a few milliseconds.
const PARTS_PER_BATCH: usize = 256;

/// What only the committing thread needs.
pub(crate) struct Committer {
    db: sled::Db,
    /// Our own handle of sled's file, from right after it was opened: the kernel tells each handle once of
    /// a write-back that failed, and sled does not ask.
    file: File,
    witness: Witness,
    path: PathBuf,
    skip_sync: bool,
    stopped: bool,
    next_generation: u64,
}

impl Committer {
    /// Sweeps what an earlier process left unfinished.
    pub fn start(
        db: sled::Db,
        file: File,
        witness: Witness,
        path: &Path,
        options: &SledOptions,
    ) -> Result<Self, StoreError> {
        let mut committer = Self {
            db,
            file,
            witness,
            path: path.to_owned(),
            skip_sync: options.skip_sync,
            stopped: false,
            next_generation: 0,
        };
        committer.sweep()?;
        let last_part = committer.db.range(..b"q".as_slice()).next_back().transpose();
        let last_part = last_part.map_err(|e| committer.error("open", e))?;
        let last = last_part.and_then(|(key, _)| rows::generation_of_part(&key));
        committer.next_generation = last.map_or(0, |generation| generation + 1);
        Ok(committer)
    }

    /// Writes a batch and makes it durable. An error, or a panic of sled's, is the end.
    pub fn commit(&mut self, batch: &[Write]) -> Result<(), StoreError> {
        if self.stopped {
            return Err(StoreError::Stopped);
        }
        if batch.is_empty() {
            return Ok(());
        }
        // Set before and not after, so that it holds whatever way this ends.
        self.stopped = true;
        let path = self.path.clone();
        let number = self.witness.next_number()?;
        guarded(&path, || self.write(batch, number))?;
        self.witness.durable(number);
        self.stopped = false;
        Ok(())
    }

    fn write(&mut self, batch: &[Write], number: u64) -> Result<(), StoreError> {
        let writes = last_writes(batch);
        let parts: usize = writes.values().flatten().map(|value| parts_of(value)).sum();
        let ahead = parts > PARTS_PER_BATCH;
        let mut last = sled::Batch::default();
        last.insert(rows::COMMIT, rows::seal_commit(number));
        let mut replaced = Vec::new();
        for (key, value) in writes {
            let key = rows::row_key(key);
            replaced.extend(self.pointer(&key)?);
            match value {
                None => last.remove(key),
                Some(value) if parts_of(value) == 0 => {
                    let row = rows::seal_inline(&key, value);
                    last.insert(key, row);
                }
                Some(value) => {
                    let pointer = self.put_parts(value, ahead, &mut last)?;
                    let row = rows::seal_pointer(&key, pointer);
                    last.insert(key, row);
                }
            }
        }
        let later = replaced.iter().map(|old| old.parts()).sum::<usize>() > PARTS_PER_BATCH;
        for old in &replaced {
            if later {
                let orphan = rows::orphan_key(old.generation);
                let row = rows::seal(&orphan, &[]);
                last.insert(orphan, row);
            } else {
                part_keys(*old).for_each(|key| last.remove(key));
            }
        }
        self.apply(last)?;
        self.make_durable()?;
        if later {
            for old in replaced {
                self.remove_orphan(old.generation)?;
            }
        }
        Ok(())
    }

    /// Where a large value is that is about to be replaced.
    fn pointer(&self, key: &[u8]) -> Result<Option<Pointer>, StoreError> {
        let Some(row) = self.db.get(key).map_err(|e| self.error("read", e))? else {
            return Ok(None);
        };
        // A row that is damaged can still be written anew; should it have been a pointer, its parts stay
        // until the store is rebuilt.
        match rows::unseal_content(key, &row) {
            Ok(Content::Pointer(pointer)) => Ok(Some(pointer)),
            Ok(Content::Inline(_)) | Err(_) => Ok(None),
        }
    }

    /// Writes the parts of a large value, ahead of `last` or in it.
    fn put_parts(
        &mut self,
        value: &[u8],
        ahead: bool,
        last: &mut sled::Batch,
    ) -> Result<Pointer, StoreError> {
        let generation = self.next_generation;
        self.next_generation += 1;
        let pointer = Pointer { generation, length: value.len() as u64 };
        let mut parts = part_keys(pointer).zip(value.chunks(PART_BYTES)).map(|(key, part)| {
            let row = rows::seal(&key, &[part]);
            (key, row)
        });
        if !ahead {
            parts.for_each(|(key, row)| last.insert(key, row));
            return Ok(pointer);
        }
        let orphan = rows::orphan_key(generation);
        let mut batch = sled::Batch::default();
        batch.insert(orphan.as_slice(), rows::seal(&orphan, &[]));
        loop {
            let mut count = 0;
            for (key, row) in parts.by_ref().take(PARTS_PER_BATCH) {
                batch.insert(key, row);
                count += 1;
            }
            if count == 0 {
                break;
            }
            self.apply(std::mem::take(&mut batch))?;
        }
        last.remove(orphan);
        Ok(pointer)
    }

    fn apply(&self, batch: sled::Batch) -> Result<(), StoreError> {
        self.db.apply_batch(batch).map_err(|e| self.error("write", e))
    }

    fn make_durable(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(|e| self.error("flush", e))?;
        if self.skip_sync {
            return Ok(());
        }
        self.file.sync_data().map_err(|e| StoreError::from_io("sync", &self.path, &e))
    }

    /// Removes all orphaned parts.
    fn sweep(&self) -> Result<(), StoreError> {
        for row in self.db.range(rows::orphan_key(0)..=rows::orphan_key(u64::MAX)) {
            let (key, _) = row.map_err(|e| self.error("open", e))?;
            let generation = rows::generation_of_orphan(&key).ok_or_else(|| {
                StoreError::corrupt(&self.path, format!("row {key:02x?} is no orphan's"))
            })?;
            self.remove_orphan(generation)?;
        }
        Ok(())
    }

    /// Removes the parts of a generation that nothing refers to, and then its mark. Not synced: whatever a
    /// crash brings back is still marked.
    fn remove_orphan(&self, generation: u64) -> Result<(), StoreError> {
        let range = rows::part_key(generation, 0)..=rows::part_key(generation, u32::MAX);
        loop {
            let mut batch = sled::Batch::default();
            let mut count = 0;
            for row in self.db.range(range.clone()).keys().take(PARTS_PER_BATCH) {
                batch.remove(row.map_err(|e| self.error("read", e))?);
                count += 1;
            }
            if count < PARTS_PER_BATCH {
                batch.remove(rows::orphan_key(generation));
                return self.apply(batch);
            }
            self.apply(batch)?;
        }
    }

    fn error(&self, operation: &'static str, error: sled::Error) -> StoreError {
        sled_error(operation, &self.path, error)
    }
}

/// What each key is in the end: the last write counts.
fn last_writes(batch: &[Write]) -> BTreeMap<&[u8], Option<&[u8]>> {
    batch
        .iter()
        .map(|write| match write {
            Write::Put { key, value } => (key.as_slice(), Some(value.as_slice())),
            Write::Delete { key } => (key.as_slice(), None),
        })
        .collect()
}

/// Rows of parts that a value needs; none when it fits into its own row.
fn parts_of(value: &[u8]) -> usize {
    if value.len() <= INLINE_BYTES_MAX { 0 } else { value.len().div_ceil(PART_BYTES) }
}

fn part_keys(pointer: Pointer) -> impl Iterator<Item = Vec<u8>> {
    let parts = u32::try_from(pointer.parts()).expect("VALUE_BYTES_MAX is 264,209 parts");
    (0..parts).map(move |part| rows::part_key(pointer.generation, part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SledStore;
    use store::Store;

    fn put(key: &[u8], length: usize) -> Write {
        Write::Put { key: key.to_vec(), value: vec![7; length] }
    }

    /// Rows of the tree by the first byte of their key.
    fn count(store: &SledStore, kind: &[u8]) -> usize {
        store.db.scan_prefix(kind).count()
    }

    #[test]
    fn parts_that_no_batch_completed_are_swept_when_the_store_is_opened() {
        let temp = tempfile::tempdir().unwrap();
        let open = || SledStore::open(temp.path(), &SledOptions::default()).unwrap();
        let store = open();
        store.commit(&[put(b"kept", 2_000_000)]).unwrap();
        let kept = count(&store, b"p");
        // All of a commit but its last batch, as if the process had been killed there.
        let mut last = sled::Batch::default();
        let value = vec![8; 3_000_000];
        store.committer.lock().unwrap().put_parts(&value, true, &mut last).unwrap();
        assert!(count(&store, b"p") > 2 * kept);
        assert_eq!(count(&store, b"o"), 1);
        drop(store);

        let store = open();
        assert_eq!((count(&store, b"p"), count(&store, b"o")), (kept, 0));
        assert_eq!(store.get(b"kept").unwrap(), Some(vec![7; 2_000_000]));
        store.commit(&[put(b"new", 2_000_000)]).unwrap();
        assert_eq!(store.get(b"kept").unwrap(), Some(vec![7; 2_000_000]));
    }

    #[test]
    fn replaced_values_leave_no_parts_behind_whatever_their_size() {
        let temp = tempfile::tempdir().unwrap();
        let store = SledStore::open(temp.path(), &SledOptions::default()).unwrap();
        for length in [5_000, 3_000_000, 10, 2_000_000, 4_000_000, 20_000] {
            store.commit(&[put(b"a", length), put(b"b", length)]).unwrap();
            assert_eq!(count(&store, b"p"), 2 * parts_of(&vec![0; length]), "{length} bytes");
            assert_eq!(count(&store, b"o"), 0, "{length} bytes");
        }
        let deletes = [b"a", b"b"].map(|key| Write::Delete { key: key.to_vec() });
        store.commit(&deletes).unwrap();
        assert_eq!(count(&store, b"p") + count(&store, b"r"), 0);
    }
}
