//! Large values, each in a file of its own beside sled.
//!
//! sled gives back space slowly: a segment of its file is used again when half of it is dead, and the
//! file ends after the last segment that holds anything. Measured with an index of 8.6 MB that was
//! written as rows, and again and again as it grew: 77 MB on disk for 9.8 MB of rows. A file has the size
//! of its value, and is gone when the value is.
//!
//! sled would put large values into files, too, and never sync them. Here a file is written and synced,
//! and then the name of it, before the batch with the pointer begins; it is removed after the batch that
//! replaces the pointer is durable. So a crash leaves a file too many, never one too few; what no row
//! names is removed when the store is opened.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use crc32fast::Hasher;
use store::StoreError;

use super::rows::ValueFile;

/// The directory of the files, in the store's.
const DIRECTORY: &str = "values";

/// The files of a store.
#[derive(Debug)]
pub(crate) struct ValueFiles {
    store: PathBuf,
    directory: PathBuf,
    skip_sync: bool,
}

impl ValueFiles {
    /// The files in a store's directory. Older stores have none yet.
    pub fn open(store: &Path, skip_sync: bool) -> Result<Self, StoreError> {
        let directory = store.join(DIRECTORY);
        let create = || match fs::create_dir(&directory) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(e),
            Ok(()) => File::open(store)?.sync_all(),
        };
        create()
            .map_err(|e| StoreError::from_io("create the directory of values in", store, &e))?;
        Ok(Self { store: store.to_owned(), directory, skip_sync })
    }

    /// Writes a value and makes it durable, except for its name: see [`sync_names`](Self::sync_names).
    pub fn write(&self, generation: u64, value: &[u8]) -> Result<ValueFile, StoreError> {
        let write = || {
            let mut file = File::create(self.path(generation))?;
            file.write_all(value)?;
            if self.skip_sync { Ok(()) } else { file.sync_all() }
        };
        write().map_err(|e| StoreError::from_io("write a value of", &self.store, &e))?;
        let checksum = checksum(generation, value);
        Ok(ValueFile { generation, length: value.len() as u64, checksum })
    }

    /// Makes durable which files there are.
    pub fn sync_names(&self) -> Result<(), StoreError> {
        if self.skip_sync {
            return Ok(());
        }
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|e| StoreError::from_io("sync the values of", &self.store, &e))
    }

    /// A value, or `None` when its file is not there.
    pub fn read(&self, file: ValueFile) -> Result<Option<Vec<u8>>, StoreError> {
        let ValueFile { generation, length, .. } = file;
        let mut value = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        // No further than it should be: a file that grew must not take memory.
        let read = File::open(self.path(generation))
            .and_then(|found| found.take(length + 1).read_to_end(&mut value));
        match read {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StoreError::from_io("read a value of", &self.store, &e)),
            Ok(_) => {}
        }
        if value.len() as u64 != length || checksum(generation, &value) != file.checksum {
            let what = format!("the file {} does not match its checksum", name(generation));
            return Err(StoreError::corrupt(&self.store, what));
        }
        Ok(Some(value))
    }

    /// Removes a file. Not synced: should it come back, no row names it.
    pub fn remove(&self, generation: u64) -> Result<(), StoreError> {
        match fs::remove_file(self.path(generation)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::from_io("remove a value of", &self.store, &e))
            }
            _ => Ok(()),
        }
    }

    /// The generations of all files, ascending. Files with other names are not ours.
    pub fn generations(&self) -> Result<Vec<u64>, StoreError> {
        let mut found = Vec::new();
        self.each(|entry| {
            if let Some(generation) = entry.file_name().to_str().and_then(generation_of) {
                found.push(generation);
            }
            Ok(())
        })?;
        found.sort_unstable();
        Ok(found)
    }

    /// Bytes in all files.
    pub fn bytes(&self) -> Result<u64, StoreError> {
        let mut bytes = 0;
        self.each(|entry| {
            match entry.metadata() {
                Ok(metadata) => bytes += metadata.len(),
                // Removed in the meantime.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
            Ok(())
        })?;
        Ok(bytes)
    }

    fn each(
        &self,
        mut visit: impl FnMut(fs::DirEntry) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let mut list = || fs::read_dir(&self.directory)?.try_for_each(|entry| visit(entry?));
        list().map_err(|e| StoreError::from_io("list the values of", &self.store, &e))
    }

    fn path(&self, generation: u64) -> PathBuf {
        self.directory.join(file_name(generation))
    }
}

/// What an operator calls a file.
pub(crate) fn name(generation: u64) -> String {
    format!("{DIRECTORY}/{}", file_name(generation))
}

fn file_name(generation: u64) -> String {
    format!("{generation:016x}")
}

fn generation_of(name: &str) -> Option<u64> {
    let generation = u64::from_str_radix(name, 16).ok()?;
    (file_name(generation) == name).then_some(generation)
}

/// The generation is in it so that a file under another's name does not pass.
fn checksum(generation: u64, value: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&generation.to_le_bytes());
    hasher.update(value);
    hasher.finalize()
}
