//! The directory of a store on a real disk: who has it, whether it is new, and that its names are durable.
//!
//! The dangerous moment of a store's life is its creation. A directory that holds half a store and one
//! that lost its store look alike, and one of them must never be opened as an empty store. So a creation
//! is marked: the file `creating` is durable before anything else is written and its removal is durable
//! before the first commit. With the mark, nothing was ever acknowledged and the rest may be wiped;
//! without it, whatever is missing was lost.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::StoreError;

const LOCK: &str = "lock";
const CREATING: &str = "creating";

/// A directory that this process, and no other, has open as a store.
#[derive(Debug)]
pub struct StoreDirectory {
    path: PathBuf,
    new: bool,
    /// Held for its lock, which ends with the process however that ends.
    _lock: File,
}

impl StoreDirectory {
    /// Takes a directory for a store whose main file is `main`, creating the directory if need be.
    ///
    /// A new store (see [`is_new`](Self::is_new)) has an empty directory and its creation is marked.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the directory holds something, but not `main`: it is not a store, or
    /// one that lost its data; nothing in it is touched. [`StoreError::Io`] when another process has the
    /// store open, or the system refuses.
    pub fn claim(path: &Path, main: &str) -> Result<Self, StoreError> {
        let refused = |operation| move |e: io::Error| StoreError::from_io(operation, path, &e);
        create_durably(path).map_err(refused("create the directory"))?;
        let names = names_in(path).map_err(refused("list the directory"))?;
        let has = |name: &str| names.iter().any(|n| n == name);
        let stranger = names.iter().any(|n| n != LOCK);
        if stranger && !has(CREATING) && !has(main) {
            return Err(StoreError::corrupt(
                path,
                format!(
                    "the directory is not empty, yet holds no store (there is no file {main:?})"
                ),
            ));
        }
        let lock = take_lock(path)?;
        // Looked at again under the lock: another process may just have finished creating it.
        let has = |name: &str| path.join(name).exists();
        let new = has(CREATING) || !has(main);
        if new {
            wipe(path).map_err(refused("clear what a crash left of a creation"))?;
            File::create(path.join(CREATING))
                .and_then(|mark| mark.sync_all())
                .and_then(|()| sync(path))
                .map_err(refused("mark the creation"))?;
        }
        Ok(Self { path: path.to_owned(), new, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is no store here yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.new
    }

    /// Ends a creation: makes the names durable, and the removal of the mark after them. The files'
    /// contents are the backend's to sync, before this.
    ///
    /// # Errors
    /// When the system refuses; the store then counts as not created.
    pub fn created(&mut self) -> Result<(), StoreError> {
        sync(&self.path)
            .and_then(|()| fs::remove_file(self.path.join(CREATING)))
            .and_then(|()| sync(&self.path))
            .map_err(|e| StoreError::from_io("finish the creation", &self.path, &e))?;
        self.new = false;
        Ok(())
    }

    /// Makes durable which names the directory holds.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn sync_names(&self) -> Result<(), StoreError> {
        sync(&self.path).map_err(|e| StoreError::from_io("sync the directory", &self.path, &e))
    }
}

/// Creates a directory and its missing parents, each one's name made durable in the one above it.
fn create_durably(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(io::Error::from(io::ErrorKind::InvalidInput)),
    };
    create_durably(parent)?;
    match fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    sync(parent)
}

fn names_in(path: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(path)?.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect()
}

fn take_lock(path: &Path) -> Result<File, StoreError> {
    let refused = |reason: String| StoreError::Io {
        operation: "lock",
        path: path.display().to_string(),
        reason,
    };
    let lock = File::create(path.join(LOCK)).map_err(|e| StoreError::from_io("lock", path, &e))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(refused("another process has this store open".into())),
        Err(TryLockError::Error(e)) => Err(refused(e.to_string())),
    }
}

/// Removes everything but the lock and the mark: the mark must outlive the rest.
fn wipe(path: &Path) -> io::Result<()> {
    for name in names_in(path)?.iter().filter(|n| *n != LOCK && *n != CREATING) {
        let entry = path.join(name);
        if entry.is_dir() {
            fs::remove_dir_all(entry)?;
        } else {
            fs::remove_file(entry)?;
        }
    }
    Ok(())
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_creation_that_was_cut_short_begins_again() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        let claimed = StoreDirectory::claim(&path, "main").unwrap();
        assert!(claimed.is_new());
        fs::write(path.join("main"), b"half").unwrap();
        drop(claimed);

        let mut claimed = StoreDirectory::claim(&path, "main").unwrap();
        assert!(claimed.is_new());
        assert!(!path.join("main").exists());
        fs::write(path.join("main"), b"whole").unwrap();
        claimed.created().unwrap();
        drop(claimed);

        assert!(!StoreDirectory::claim(&path, "main").unwrap().is_new());
        assert_eq!(fs::read(path.join("main")).unwrap(), b"whole");
    }

    #[test]
    fn a_store_that_lost_its_main_file_is_refused_and_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("rest"), b"of a store").unwrap();
        let refused = StoreDirectory::claim(temp.path(), "main").unwrap_err();
        assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
        assert_eq!(names_in(temp.path()).unwrap(), ["rest"]);
    }

    #[test]
    fn a_store_is_open_once() {
        let temp = tempfile::tempdir().unwrap();
        let _first = StoreDirectory::claim(temp.path(), "main").unwrap();
        let second = StoreDirectory::claim(temp.path(), "main").unwrap_err();
        assert!(second.to_string().contains("another process"), "{second}");
    }
}
