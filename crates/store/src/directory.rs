//! The directory of a store on a real disk: who has it, whether it is new, and that its names are durable.
//!
//! The dangerous moment of a store's life is its creation. A directory that holds half a store and one
//! that lost its store look alike, and one of them must never be opened as an empty store. So a creation
//! is marked: the file `creating` is durable before anything else is written and its removal is durable
//! before the first commit. With the mark, nothing was ever acknowledged and the rest may be wiped;
//! without it, whatever is missing was lost.
//!
//! The other danger is a store that has lost only its end: see [`Witness`]. An operator who takes such a loss
//! knowingly says so with an empty file [`ACCEPT_LOSS`] in the directory; it counts for one opening.

mod witness;

pub use witness::{WITNESS_INTERVAL, Witness, witnessed};

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::StoreError;
use witness::WITNESS;

const LOCK: &str = "lock";
const CREATING: &str = "creating";
/// The file by which an operator accepts that a store has lost commits, or that nobody can tell.
pub const ACCEPT_LOSS: &str = "accept-loss";
/// The file in the directory of a store that is being filled from another one, from before it is created
/// until all of it is there. To refuse such a store is up to whoever opens it to use it.
pub const INCOMPLETE: &str = "incomplete";
/// What to do about a loss.
const REMEDY: &str = "Restore a backup of the whole directory; or, to go on without what is lost, create \
     an empty file named 'accept-loss' in the directory and open the store again";

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
        let stranger = names.iter().any(|n| n != LOCK && n != INCOMPLETE);
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
        witness::begin(&self.path)
            .and_then(|()| sync(&self.path))
            .and_then(|()| fs::remove_file(self.path.join(CREATING)))
            .and_then(|()| sync(&self.path))
            .map_err(|e| StoreError::from_io("finish the creation", &self.path, &e))?;
        self.new = false;
        Ok(())
    }

    /// Compares what the engine holds with what its witness names, and starts the witness of this process.
    ///
    /// `committed` is the number of the last commit in the engine, `None` when none has a number. To be called
    /// once, after the engine has recovered and before anything is written to it. The witness is to be
    /// dropped before the directory, whose lock guards it. `interval` is [`WITNESS_INTERVAL`], except in
    /// tests.
    ///
    /// An engine without a number and a directory without a witness are a store from before there were
    /// witnesses, and are taken as they are. So is whatever [`ACCEPT_LOSS`] was put beside; the file is removed.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the engine has less than the witness names, or when the witness is
    /// missing or damaged. [`StoreError::Io`] when the system refuses.
    pub fn witness(
        &self,
        committed: Option<u64>,
        interval: Duration,
    ) -> Result<Witness, StoreError> {
        let refused = |e| StoreError::from_io("begin the witness of", &self.path, &e);
        let accepted = self.path.join(ACCEPT_LOSS);
        if accepted.try_exists().map_err(refused)? {
            // The witness first: a crash in between must not leave the loss unaccepted and unknown.
            witness::begin(&self.path)
                .and_then(|()| fs::remove_file(accepted))
                .and_then(|()| sync(&self.path))
                .map_err(refused)?;
        }
        let last = committed.unwrap_or(0);
        match witnessed(&self.path)? {
            None if committed.is_none() => witness::begin(&self.path).map_err(refused)?,
            None => {
                let what = format!(
                    "the file {WITNESS:?} is missing, so nobody can tell whether the store still has \
                     all that was acknowledged. It has commits up to number {last}. {REMEDY}"
                );
                return Err(StoreError::corrupt(&self.path, what));
            }
            Some(named) if named > last => {
                let what = format!(
                    "commits {} to {named} were acknowledged and are lost: the store ends with commit \
                     {last}, so the end of its log is damaged or missing. {REMEDY}",
                    last + 1
                );
                return Err(StoreError::corrupt(&self.path, what));
            }
            Some(_) => {}
        }
        Witness::start(&self.path, last, interval)
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

/// Removes everything but the lock and the marks: they must outlive the rest.
fn wipe(path: &Path) -> io::Result<()> {
    let kept = [LOCK, CREATING, INCOMPLETE];
    for name in names_in(path)?.iter().filter(|n| !kept.contains(&n.as_str())) {
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
    fn a_store_that_is_created_to_be_filled_keeps_its_mark() {
        let temp = tempfile::tempdir().unwrap();
        File::create(temp.path().join(INCOMPLETE)).unwrap();
        let mut claimed = StoreDirectory::claim(temp.path(), "main").unwrap();
        assert!(claimed.is_new());
        fs::write(temp.path().join("main"), b"whole").unwrap();
        claimed.created().unwrap();
        assert!(temp.path().join(INCOMPLETE).exists());
    }

    #[test]
    fn a_store_that_lost_its_main_file_is_refused_and_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("rest"), b"of a store").unwrap();
        let refused = StoreDirectory::claim(temp.path(), "main").unwrap_err();
        assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
        assert_eq!(names_in(temp.path()).unwrap(), ["rest"]);
    }

    /// A directory with a store in it that the witness saw `commits` of.
    fn created(path: &Path, commits: u64) -> StoreDirectory {
        let mut claimed = StoreDirectory::claim(path, "main").unwrap();
        fs::write(path.join("main"), b"whole").unwrap();
        claimed.created().unwrap();
        let witness = claimed.witness(None, WITNESS_INTERVAL).unwrap();
        (1..=commits).for_each(|number| witness.durable(number));
        claimed
    }

    #[test]
    fn an_engine_with_less_than_its_witness_names_is_refused_until_the_loss_is_accepted() {
        let temp = tempfile::tempdir().unwrap();
        let claimed = created(temp.path(), 42);
        let open = |committed| claimed.witness(committed, WITNESS_INTERVAL);
        for committed in [None, Some(0), Some(41)] {
            let refused = open(committed).unwrap_err();
            assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
            let lost = format!("commits {} to 42 were", committed.unwrap_or(0) + 1);
            assert!(refused.to_string().contains(&lost), "{refused}");
            assert!(refused.to_string().contains(ACCEPT_LOSS), "{refused}");
        }
        assert_eq!(open(Some(42)).unwrap().next_number(), Ok(43));
        // A batch that was under way may be there as well.
        assert_eq!(open(Some(43)).unwrap().next_number(), Ok(44));

        File::create(temp.path().join(ACCEPT_LOSS)).unwrap();
        let witness = open(Some(40)).unwrap();
        assert_eq!(witness.next_number(), Ok(41));
        witness.durable(41);
        drop(witness);
        // It was for that loss, not for the next one.
        assert!(open(Some(40)).is_err());
        assert!(open(Some(41)).is_ok());
    }

    #[test]
    fn a_witness_that_is_missing_or_damaged_is_named_until_that_is_accepted() {
        for damaged in [false, true] {
            let temp = tempfile::tempdir().unwrap();
            let claimed = created(temp.path(), 5);
            let witness = temp.path().join(WITNESS);
            if damaged {
                fs::write(&witness, b"Dear").unwrap();
            } else {
                fs::remove_file(&witness).unwrap();
            }
            let open = || claimed.witness(Some(5), WITNESS_INTERVAL).map(|_| ());
            let refused = open().unwrap_err();
            assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
            assert!(refused.to_string().contains("witness"), "{refused}");
            File::create(temp.path().join(ACCEPT_LOSS)).unwrap();
            assert_eq!(open(), Ok(()));
            assert_eq!(open(), Ok(()));
        }
    }

    #[test]
    fn a_store_from_before_there_were_witnesses_gets_one() {
        let temp = tempfile::tempdir().unwrap();
        let claimed = created(temp.path(), 0);
        fs::remove_file(temp.path().join(WITNESS)).unwrap();
        let witness = claimed.witness(None, WITNESS_INTERVAL).unwrap();
        assert_eq!(witnessed(temp.path()), Ok(Some(0)));
        witness.durable(1);
        drop(witness);
        assert!(claimed.witness(None, WITNESS_INTERVAL).is_err());
    }

    #[test]
    fn a_store_is_open_once() {
        let temp = tempfile::tempdir().unwrap();
        let _first = StoreDirectory::claim(temp.path(), "main").unwrap();
        let second = StoreDirectory::claim(temp.path(), "main").unwrap_err();
        assert!(second.to_string().contains("another process"), "{second}");
    }
}
