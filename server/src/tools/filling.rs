//! A store that is being filled from another one, and counts as a store only when all of it is there.
//!
//! From before it is created until all rows are in it, the file [`INCOMPLETE`] lies in its directory, and
//! nothing opens a store beside that: half a copy is never served, and never taken for a backup.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use store::directory::INCOMPLETE;
use store::{Store, StoreError, Write};

use super::main_file;
use crate::backup::stream::About;
use crate::config::{Config, StoreKind};
use crate::exit::Failure;
use crate::stores;

/// So many bytes of rows go into one commit.
const COMMIT_BYTES: usize = 4 << 20;
/// And no more than so many rows.
const COMMIT_WRITES: usize = 4096;
/// Says beside the store what it is a copy of.
pub const ABOUT: &str = "backup.json";

/// A place for a store.
pub struct Place {
    path: PathBuf,
    /// The directories that are not there yet, from the inside out.
    missing: Vec<PathBuf>,
}

impl Place {
    /// Looks whether there is room for a store: a directory that is new or empty. Nothing is written.
    ///
    /// # Errors
    /// [`Failure::Usage`] when it is taken; `flag` is how the command line names it.
    pub fn free(path: &Path, flag: &str) -> Result<Self, Failure> {
        let shown = path.display();
        let mut names = match fs::read_dir(path) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let missing = path
                    .ancestors()
                    .take_while(|above| !above.as_os_str().is_empty() && !above.exists());
                let missing = missing.map(Path::to_owned).collect();
                return Ok(Self { path: path.to_owned(), missing });
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                let text = format!(
                    "{shown} is not a directory; name one that is new or empty with {flag}"
                );
                return Err(Failure::Usage(text));
            }
            Err(error) => {
                let text = format!(
                    "{shown} cannot be looked into: {error}; name another with {flag}, or run this as \
                     a user who may"
                );
                return Err(Failure::Usage(text));
            }
        };
        if path.join(INCOMPLETE).exists() {
            return Err(Failure::Usage(format!(
                "{shown} holds what a backup or restore has left that was not finished (or is under \
                 way); if none is running, remove the directory"
            )));
        }
        match names.next() {
            None => Ok(Self { path: path.to_owned(), missing: Vec::new() }),
            Some(_) => Err(Failure::Usage(format!(
                "{shown} is not empty; name a directory with {flag} that is new or empty (to put \
                 another store in the place of this one, move it aside first)"
            ))),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it lies within a directory.
    pub fn is_within(&self, directory: &Path) -> bool {
        let absolute = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        // What is not there yet has no canonical name, but something above it has.
        let above = absolute.ancestors().find_map(|above| fs::canonicalize(above).ok());
        let directory = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
        above.is_some_and(|above| above.starts_with(&directory))
    }

    /// Begins a store here.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(self, kind: StoreKind) -> Result<Filling, Failure> {
        let unwritable = |error: io::Error| failed(&self.path, &from_io(&self.path, &error));
        fs::create_dir_all(&self.path).map_err(unwritable)?;
        let mark = File::create(self.path.join(INCOMPLETE)).and_then(|mark| mark.sync_all());
        mark.and_then(|()| sync(&self.path)).map_err(|error| {
            let _ = fs::remove_file(self.path.join(INCOMPLETE));
            self.remove_directories();
            unwritable(error)
        })?;
        let mut filling = Filling {
            place: self,
            store: None,
            waiting: Vec::new(),
            waiting_bytes: 0,
            bytes: 0,
            finished: false,
        };
        let config = Config { data: filling.place.path.clone(), store: kind, ..Config::default() };
        let opened = stores::open_engine(&config);
        filling.store = Some(opened.map_err(|error| failed(&config.data, &error))?);
        Ok(filling)
    }
}

impl Place {
    /// Removes what was not there before, as far as it is empty again.
    fn remove_directories(&self) {
        for directory in &self.missing {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// A store that is being filled. Dropped before it is finished, it disappears.
pub struct Filling {
    place: Place,
    store: Option<Arc<dyn Store>>,
    waiting: Vec<Write>,
    waiting_bytes: usize,
    bytes: u64,
    finished: bool,
}

impl Filling {
    /// Writes or removes a row, soon.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn write(&mut self, write: Write) -> Result<(), Failure> {
        let value = match &write {
            Write::Put { value, .. } => value.len(),
            Write::Delete { .. } => 0,
        };
        self.waiting_bytes += write.key().len() + value;
        self.waiting.push(write);
        if self.waiting_bytes < COMMIT_BYTES && self.waiting.len() < COMMIT_WRITES {
            return Ok(());
        }
        self.commit()
    }

    /// The store, with everything that has been written.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn store(&mut self) -> Result<&Arc<dyn Store>, Failure> {
        self.commit()?;
        Ok(self.store.as_ref().expect("it is open until it is finished"))
    }

    /// How many bytes of rows were written.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn commit(&mut self) -> Result<(), Failure> {
        let store = self.store.as_ref().expect("it is open until it is finished");
        store.commit(&self.waiting).map_err(|error| failed(&self.place.path, &error))?;
        self.bytes += self.waiting_bytes as u64;
        self.waiting.clear();
        self.waiting_bytes = 0;
        Ok(())
    }

    /// Makes it a store. `about` is put beside it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self, about: Option<&About>) -> Result<(), Failure> {
        self.commit()?;
        // Closed first, so that what the engine writes when it ends is there as well.
        self.store = None;
        let path = &self.place.path;
        let written = about.map_or(Ok(()), |about| {
            let text = serde_json::to_vec_pretty(about).expect("plain data can be written as JSON");
            super::files::write_whole(&path.join(ABOUT), &text)
        });
        written
            .and_then(|()| fs::remove_file(path.join(INCOMPLETE)))
            .and_then(|()| sync(path))
            .map_err(|error| failed(path, &from_io(path, &error)))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        self.store = None;
        let path = &self.place.path;
        // The mark goes last: whatever a kill leaves of this is still marked.
        for name in fs::read_dir(path).into_iter().flatten().flatten() {
            if name.file_name() != INCOMPLETE {
                let _ = match name.path().is_dir() {
                    true => fs::remove_dir_all(name.path()),
                    false => fs::remove_file(name.path()),
                };
            }
        }
        let _ = fs::remove_file(path.join(INCOMPLETE));
        self.place.remove_directories();
    }
}

/// What a copy says of itself, if it does.
pub fn read_about(path: &Path) -> Option<About> {
    serde_json::from_slice(&fs::read(path.join(ABOUT)).ok()?).ok()
}

/// Which kind of store a directory holds.
pub fn kind_of(path: &Path) -> Option<StoreKind> {
    [StoreKind::Sled, StoreKind::Sqlite]
        .into_iter()
        .find(|kind| path.join(main_file(*kind)).exists())
}

/// Whether the files of a new store belong to somebody else than its directory, or the one above it,
/// does: made by root for a server that is not.
pub fn belongs_to_somebody_else(path: &Path, kind: StoreKind) -> Option<u32> {
    let owner = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.uid());
    let (file, directory) = (owner(&path.join(main_file(kind)))?, owner(path)?);
    (file != directory).then_some(directory)
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn from_io(path: &Path, error: &io::Error) -> StoreError {
    StoreError::from_io("write", path, error)
}

fn failed(path: &Path, error: &StoreError) -> Failure {
    let hint = match error {
        StoreError::Full { .. } => "make room there, or name a directory on another disk",
        StoreError::Io { reason, .. } if reason.contains("ermission denied") => {
            "run this as a user who may write there"
        }
        StoreError::Io { reason, .. } if reason.contains("ead-only") => {
            "name a directory that can be written"
        }
        _ => "look at that disk, or name a directory on another one",
    };
    let path = path.display();
    Failure::StoreFailed(format!(
        "the copy cannot be written to {path}: {error}. What was begun there is removed; {hint}."
    ))
}
