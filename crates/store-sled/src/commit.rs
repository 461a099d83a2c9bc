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
//! Values that have files of their own (`files.rs`) are written and synced before that, and the files of
//! those that are replaced are removed after it.
//!
//! The log of sled keeps batches in order, so after a crash the last batch is there only with all the
//! others. Without it, what is left is marked as orphaned, and is swept when the store is opened. The same
//! mark serves a large value that is replaced or deleted: the last batch orphans its parts, and they are
//! removed afterwards, again in small batches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use store::directory::Witness;

use super::{
    Content, File, Path, PathBuf, Pointer, SledOptions, StoreError, ValueFiles, Write, files,
    guarded, rows, sled_error,
};
use crate::tidy::Notes;
use rows::{INLINE_BYTES_MAX, PART_BYTES, PARTS_BYTES_MAX};

/// Rows of parts in one of sled's batches: 1 MiB, a few milliseconds.
const PARTS_PER_BATCH: usize = 256;

/// What only the committing thread needs.
pub(crate) struct Committer {
    db: sled::Db,
    /// Our own handle of sled's file, from right after it was opened: the kernel tells each handle once of
    /// a write-back that failed, and sled does not ask.
    file: File,
    witness: Witness,
    files: Arc<ValueFiles>,
    tidier: Notes,
    path: PathBuf,
    skip_sync: bool,
    stopped: bool,
    next_generation: u64,
}

/// What a batch replaces or deletes.
#[derive(Default)]
struct Replaced {
    parts: Vec<Pointer>,
    files: Vec<u64>,
    /// Bytes of rows, also of parts.
    bytes: u64,
}

impl Committer {
    /// Sweeps what an earlier process left unfinished. With `loss_accepted`, files that are missing are
    /// no reason to refuse.
    pub fn start(
        db: sled::Db,
        file: File,
        (witness, files, tidier): (Witness, Arc<ValueFiles>, Notes),
        path: &Path,
        options: &SledOptions,
        loss_accepted: bool,
    ) -> Result<Self, StoreError> {
        let mut committer = Self {
            db,
            file,
            witness,
            files,
            tidier,
            path: path.to_owned(),
            skip_sync: options.skip_sync,
            stopped: false,
            next_generation: 0,
        };
        // What is seen here may be in the kernel's memory only, if the process that wrote it was killed. It
        // must not go back after this: the files that it replaced are removed now, and what is read from
        // now on is spoken of.
        committer.make_durable()?;
        committer.sweep()?;
        let last_file = committer.sweep_files(loss_accepted)?;
        let last_part = committer.db.range(rows::part_key(0, 0)..b"q".to_vec()).next_back();
        let last_part = last_part.transpose().map_err(|e| committer.error("open", e))?;
        let last_part = last_part.and_then(|(key, _)| rows::generation_of_part(&key));
        committer.next_generation = last_part.max(last_file).map_or(0, |last| last + 1);
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
        let mut replaced = Replaced::default();
        let mut wrote_files = false;
        for (key, value) in writes {
            let key = rows::row_key(key);
            self.look_at_old(&key, &mut replaced)?;
            let Some(value) = value else {
                last.remove(key);
                continue;
            };
            let row = if value.len() <= INLINE_BYTES_MAX {
                rows::seal_inline(&key, value)
            } else if value.len() <= PARTS_BYTES_MAX {
                rows::seal_pointer(&key, self.put_parts(value, ahead, &mut last)?)
            } else {
                let generation = self.generation();
                let file = self.files.write(generation, value)?;
                let mark = rows::file_key(file.generation);
                last.insert(mark.as_slice(), rows::seal(&mark, &[]));
                wrote_files = true;
                rows::seal_file(&key, file)
            };
            last.insert(key, row);
        }
        let later = replaced.parts.iter().map(|old| old.parts()).sum::<usize>() > PARTS_PER_BATCH;
        for old in &replaced.parts {
            if later {
                let orphan = rows::orphan_key(old.generation);
                let row = rows::seal(&orphan, &[]);
                last.insert(orphan, row);
            } else {
                part_keys(*old).for_each(|key| last.remove(key));
            }
        }
        replaced.files.iter().for_each(|old| last.remove(rows::file_key(*old)));
        if wrote_files {
            self.files.sync_names()?;
        }
        self.apply(last)?;
        self.make_durable()?;
        replaced.files.iter().try_for_each(|old| self.files.remove(*old))?;
        if later {
            for old in replaced.parts {
                self.remove_orphan(old.generation)?;
            }
        }
        self.tidier.committed(replaced.bytes);
        Ok(())
    }

    /// What is about to be replaced or deleted with a row.
    fn look_at_old(&self, key: &[u8], replaced: &mut Replaced) -> Result<(), StoreError> {
        let Some(row) = self.db.get(key).map_err(|e| self.error("read", e))? else {
            return Ok(());
        };
        replaced.bytes += row.len() as u64;
        // A row that is damaged can still be written anew; should it have been a pointer, what it pointed
        // to stays until the store is rebuilt.
        match rows::unseal_content(key, &row) {
            Ok(Content::Pointer(pointer)) => {
                replaced.bytes += pointer.length;
                replaced.parts.push(pointer);
            }
            Ok(Content::File(file)) => replaced.files.push(file.generation),
            Ok(Content::Inline(_)) | Err(_) => {}
        }
        Ok(())
    }

    /// A number that no large value had since the store was opened.
    fn generation(&mut self) -> u64 {
        let generation = self.next_generation;
        self.next_generation += 1;
        generation
    }

    /// Writes the parts of a large value, ahead of `last` or in it.
    fn put_parts(
        &mut self,
        value: &[u8],
        ahead: bool,
        last: &mut sled::Batch,
    ) -> Result<Pointer, StoreError> {
        let generation = self.generation();
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

    /// Removes the files that no row names, and looks whether the others are there. Returns the last
    /// generation.
    fn sweep_files(&self, loss_accepted: bool) -> Result<Option<u64>, StoreError> {
        let mut ours = BTreeSet::new();
        for row in self.db.range(rows::file_key(0)..=rows::file_key(u64::MAX)) {
            let (key, _) = row.map_err(|e| self.error("open", e))?;
            let generation = rows::generation_of_file(&key).ok_or_else(|| {
                StoreError::corrupt(&self.path, format!("row {key:02x?} is no file's"))
            })?;
            ours.insert(generation);
        }
        let found: BTreeSet<u64> = self.files.generations()?.into_iter().collect();
        for unknown in found.difference(&ours) {
            self.files.remove(*unknown)?;
        }
        for lost in ours.difference(&found) {
            if !loss_accepted {
                let what = format!("the file {} is missing", files::name(*lost));
                return Err(StoreError::corrupt(&self.path, what));
            }
            // Its row is still there, and whoever reads that is told.
            self.db.remove(rows::file_key(*lost)).map_err(|e| self.error("open", e))?;
        }
        Ok(found.last().max(ours.last()).copied())
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

/// Rows of parts that a value needs; none when it fits into its own row, or has a file.
fn parts_of(value: &[u8]) -> usize {
    match value.len() {
        0..=INLINE_BYTES_MAX => 0,
        length @ ..=PARTS_BYTES_MAX => length.div_ceil(PART_BYTES),
        _ => 0,
    }
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

    /// Generations of the files.
    fn files(store: &SledStore) -> Vec<u64> {
        store.files.generations().unwrap()
    }

    #[test]
    fn parts_and_files_that_no_batch_completed_are_swept_when_the_store_is_opened() {
        let temp = tempfile::tempdir().unwrap();
        let open = || SledStore::open(temp.path(), &SledOptions::default()).unwrap();
        let store = open();
        store.commit(&[put(b"kept", 2_000_000), put(b"small", 50_000)]).unwrap();
        let kept = (count(&store, b"p"), files(&store));
        // All of a commit but its last batch, as if the process had been killed there.
        let mut last = sled::Batch::default();
        let value = vec![8; 3_000_000];
        {
            let mut committer = store.committer.lock().unwrap();
            committer.put_parts(&value, true, &mut last).unwrap();
            let generation = committer.generation();
            committer.files.write(generation, &value).unwrap();
        }
        assert!(count(&store, b"p") > 2 * kept.0);
        assert_eq!((count(&store, b"o"), files(&store).len()), (1, 2));
        drop(store);

        let store = open();
        assert_eq!((count(&store, b"p"), files(&store)), kept);
        assert_eq!(count(&store, b"o"), 0);
        assert_eq!(store.get(b"kept").unwrap(), Some(vec![7; 2_000_000]));
        store.commit(&[put(b"new", 2_000_000)]).unwrap();
        assert_eq!(store.get(b"kept").unwrap(), Some(vec![7; 2_000_000]));
    }

    #[test]
    fn replaced_values_leave_nothing_behind_whatever_their_size() {
        let temp = tempfile::tempdir().unwrap();
        let store = SledStore::open(temp.path(), &SledOptions::default()).unwrap();
        for length in [5_000, 3_000_000, 10, 65_536, 65_537, 4_000_000, 20_000] {
            store.commit(&[put(b"a", length), put(b"b", length)]).unwrap();
            assert_eq!(count(&store, b"p"), 2 * parts_of(&vec![0; length]), "{length} bytes");
            let expected = if length > PARTS_BYTES_MAX { 2 } else { 0 };
            assert_eq!(files(&store).len(), expected, "{length} bytes");
            assert_eq!(count(&store, b"f"), expected, "{length} bytes");
            assert_eq!(count(&store, b"o"), 0, "{length} bytes");
        }
        let deletes = [b"a", b"b"].map(|key| Write::Delete { key: key.to_vec() });
        store.commit(&deletes).unwrap();
        assert_eq!(count(&store, b"p") + count(&store, b"r"), 0);
    }

    #[test]
    fn many_parts_at_once_go_ahead_of_their_batch_and_are_removed_after_it() {
        let temp = tempfile::tempdir().unwrap();
        let store = SledStore::open(temp.path(), &SledOptions::default()).unwrap();
        for length in [60_000, 50_000] {
            let batch: Vec<Write> = (0..40).map(|n| put(&[b'k', n], length)).collect();
            store.commit(&batch).unwrap();
            assert_eq!(count(&store, b"p"), 40 * parts_of(&vec![0; length]));
            assert_eq!(count(&store, b"o"), 0);
            assert_eq!(store.get(b"k\x11").unwrap(), Some(vec![7; length]));
        }
    }

    #[test]
    fn a_store_from_before_there_were_files_is_read_and_written_on() {
        let temp = tempfile::tempdir().unwrap();
        let open = || SledStore::open(temp.path(), &SledOptions::default()).unwrap();
        let store = open();
        let version = rows::seal(rows::META, &[&rows::FORMAT_WITHOUT_FILES.to_le_bytes()]);
        store.db.insert(rows::META, version).unwrap();
        // As it wrote a large value.
        {
            let mut committer = store.committer.lock().unwrap();
            let mut last = sled::Batch::default();
            let pointer = committer.put_parts(&vec![9; 2_000_000], true, &mut last).unwrap();
            let key = rows::row_key(b"old");
            last.insert(key.as_slice(), rows::seal_pointer(&key, pointer));
            committer.apply(last).unwrap();
        }
        drop(store);
        std::fs::remove_dir(temp.path().join("values")).unwrap();

        let store = open();
        assert_eq!(store.get(b"old").unwrap(), Some(vec![9; 2_000_000]));
        store.commit(&[put(b"old", 3_000_000)]).unwrap();
        assert_eq!((count(&store, b"p"), files(&store).len()), (0, 1));
        drop(store);
        assert_eq!(open().get(b"old").unwrap(), Some(vec![7; 3_000_000]));
    }

    #[test]
    fn the_space_of_what_was_deleted_comes_back_although_nobody_writes() {
        let temp = tempfile::tempdir().unwrap();
        let store = SledStore::open(temp.path(), &SledOptions::default()).unwrap();
        let mut generator = 0_u32;
        let mut row = |n: u32| {
            let words = std::iter::repeat_with(|| {
                generator = generator.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                generator.to_le_bytes()
            });
            Write::Put { key: n.to_be_bytes().to_vec(), value: words.take(900).flatten().collect() }
        };
        for first in (0..1_600).step_by(20) {
            let batch: Vec<Write> = (first..first + 20).map(&mut row).collect();
            store.commit(&batch).unwrap();
        }
        let before = store.disk_bytes().unwrap();
        for first in (0..1_600_u32).step_by(200) {
            let keys = (first..first + 200).map(|n| n.to_be_bytes().to_vec());
            let batch: Vec<Write> = keys.map(|key| Write::Delete { key }).collect();
            store.commit(&batch).unwrap();
        }
        let began = std::time::Instant::now();
        while store.disk_bytes().unwrap() > before / 2 {
            assert!(began.elapsed().as_secs() < 120, "still {:?} bytes", store.disk_bytes());
            std::thread::park_timeout(std::time::Duration::from_millis(50));
        }
    }
}
