//! The storage contract, kept by sled.
//!
//! sled 0.34.7 keeps the contract only if it is used in one particular way; each rule was measured.
//!
//! - **`flush()` does not make anything durable on Linux**: it calls `sync_file_range`, never `fsync`.
//!   After each flush, `fdatasync` is called on a handle of our own, opened when the store is opened and
//!   kept, so that a failed write-back cannot go by unseen. Without it, a loss of power took nearly every
//!   acknowledged write.
//! - **Rows stay under 3 KiB**, or sled puts them into files that it never syncs at all. Larger values are
//!   split (`rows.rs`), and those above 64 KiB have files of ours, which are synced before a row names them
//!   (`files.rs`): as rows they took several times their size for good.
//! - **Space comes back only where something is written**: after much was deleted, a thread writes a little
//!   until sled has made its file shorter (`tidy.rs`).
//! - **One tree**: a batch is atomic within a tree.
//! - **Batches hold a lock on every sled database of the process**, and readers wait for it. So the parts
//!   of a batch with very many are written ahead in small batches that nothing refers to yet, and the last
//!   batch, with the pointers, makes all of it visible at once.
//! - **The flush thread stays on** (every 250 ms): it also collects garbage.
//! - **Any error is final**, and sled may panic on a damaged file: a panic is caught and is an error.
//!
//! What sled cannot tell: a log whose end is damaged looks to it like one that a crash cut short. It opens
//! with the last batches missing. So each batch carries the number of its commit, and what is opened is
//! compared with the [witness](store::directory::Witness) beside it: with less than that it is refused. By
//! then sled has already cut its log where it took it to end; what was damaged is not there any more for
//! anyone to look at. What the witness does not see are commits of the last second before a kill.

mod commit;
mod files;
mod rows;
mod tidy;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use store::directory::{ACCEPT_LOSS, StoreDirectory, WITNESS_INTERVAL};
use store::{Store, StoreError, Visit, Write};

use commit::Committer;
use files::ValueFiles;
use rows::{Content, Damage, OLDER_SEGMENT_BYTES, Pointer, SEGMENT_BYTES};
use tidy::Tidier;

/// sled's file of data.
const DATABASE: &str = "db";
/// sled's file of settings, which it writes once and does not sync.
const SETTINGS: &str = "conf";
/// sled's directory of values that are too large for it. Ours are not.
const BLOBS: &str = "blobs";
/// How often sled's own thread flushes and collects garbage.
const FLUSH_EVERY_MS: u64 = 250;
/// How long the files of a store that this process has just dropped may still be locked: sled's threads
/// let go of them a little later.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(5);

/// How a sled store is opened.
#[derive(Debug, Clone)]
pub struct SledOptions {
    /// Bytes of pages that sled keeps in memory, in use. That is a wish: sled looks at its cache only after
    /// 64 accesses in each of 256 shards, so up to 16,384 pages may be there besides, whatever this says
    /// (measured after random reads: 90 MB in all with rows of 600 B, 240 MB with rows of 4 KiB; after
    /// opening, and while nothing is read, 20 MB for 400,000 rows).
    pub cache_bytes: u64,
    /// Leaves out the `fdatasync`, and breaks the contract: a planted bug, to show that the power-loss
    /// test notices.
    #[doc(hidden)]
    pub skip_sync: bool,
    /// How often the witness is written at most: for tests.
    #[doc(hidden)]
    pub witness_interval: Duration,
}

impl Default for SledOptions {
    fn default() -> Self {
        Self { cache_bytes: 32 << 20, skip_sync: false, witness_interval: WITNESS_INTERVAL }
    }
}

/// A store in a directory of its own, kept by sled.
pub struct SledStore {
    // Dropped in this order: the thread writes no more, and the directory's lock ends after sled has let
    // go of it.
    _tidier: Tidier,
    db: sled::Db,
    committer: Mutex<Committer>,
    files: Arc<ValueFiles>,
    directory: StoreDirectory,
}

impl SledStore {
    /// Opens the store in a directory; creates it when the directory is empty or missing.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the directory holds something else, a store that sled cannot open, one
    /// of a format that this program does not know, or one that has lost commits that were acknowledged.
    /// [`StoreError::Io`] and [`StoreError::Full`] when the system refuses, among others because another
    /// process has the store open.
    pub fn open(path: impl AsRef<Path>, options: &SledOptions) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let mut directory = StoreDirectory::claim(path, DATABASE)?;
        let loss_accepted = path.join(ACCEPT_LOSS).exists();
        let files = Arc::new(ValueFiles::open(path, options.skip_sync)?);
        let db = open_sled(path, options)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path.join(DATABASE))
            .map_err(|e| StoreError::from_io("open", path, &e))?;
        if directory.is_new() {
            create(&db, &file, path)?;
            directory.created()?;
        } else {
            directory.sync_names()?;
        }
        let version = guarded(path, || check_version(&db, path))?;
        // Compared before the committer writes anything.
        let committed = guarded(path, || last_commit(&db, path))?;
        let witness = directory.witness(committed, options.witness_interval)?;
        if version != rows::FORMAT_VERSION {
            write_version(&db, &file, path)?;
        }
        let tidier = Tidier::start(db.clone(), path)?;
        let besides = (witness, Arc::clone(&files), tidier.notes());
        let start = || Committer::start(db.clone(), file, besides, path, options, loss_accepted);
        let committer = Mutex::new(guarded(path, start)?);
        Ok(Self { _tidier: tidier, db, committer, files, directory })
    }

    /// How many values sled keeps in files of their own, which it does not sync: they would not survive a
    /// loss of power. It must always be 0; anything else is an alarm.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn oversized_blobs(&self) -> Result<usize, StoreError> {
        match fs::read_dir(self.path().join(BLOBS)) {
            Ok(entries) => Ok(entries.count()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(StoreError::from_io("list the blobs", self.path(), &e)),
        }
    }

    /// Bytes that the store takes on disk.
    ///
    /// # Errors
    /// When sled's files cannot be read.
    pub fn disk_bytes(&self) -> Result<u64, StoreError> {
        let sled = self.db.size_on_disk().map_err(|e| sled_error("measure", self.path(), e))?;
        Ok(sled + self.files.bytes()?)
    }

    /// The store's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The value behind a row, or `None` when the row is gone by now.
    ///
    /// A pointer is read before its parts or its file. When the value is replaced in between, those are
    /// gone and the row tells a newer story: read it again. When the row says the same as before, they
    /// are lost.
    fn value(&self, key: &[u8], mut row: sled::IVec) -> Result<Option<Vec<u8>>, StoreError> {
        let damaged = |damage: Damage| StoreError::corrupt(self.path(), damage);
        loop {
            let (value, place) = match rows::unseal_content(key, &row).map_err(damaged)? {
                Content::Inline(value) => return Ok(Some(value.to_vec())),
                Content::Pointer(pointer) => (self.assemble(pointer)?, "parts".to_owned()),
                Content::File(file) => (self.files.read(file)?, files::name(file.generation)),
            };
            if value.is_some() {
                return Ok(value);
            }
            match self.db.get(key).map_err(|e| sled_error("read", self.path(), e))? {
                Some(same) if same == row => {
                    let what = format!("of the value of row {key:02x?}, {place} is missing");
                    return Err(damaged(what));
                }
                Some(newer) => row = newer,
                None => return Ok(None),
            }
        }
    }

    /// A value from its parts, or `None` when not all of them are there.
    fn assemble(&self, pointer: Pointer) -> Result<Option<Vec<u8>>, StoreError> {
        let Pointer { generation, length } = pointer;
        let length = usize::try_from(length).expect("checked by the checksum of the pointer");
        let mut value = Vec::with_capacity(length);
        let range = rows::part_key(generation, 0)..=rows::part_key(generation, u32::MAX);
        for (part, row) in (0..).zip(self.db.range(range)) {
            let (key, row) = row.map_err(|e| sled_error("read", self.path(), e))?;
            if *key != rows::part_key(generation, part) {
                return Ok(None);
            }
            let content = rows::unseal(&key, &row)
                .map_err(|damage| StoreError::corrupt(self.path(), damage))?;
            value.extend_from_slice(content);
        }
        Ok((value.len() == length).then_some(value))
    }
}

impl Store for SledStore {
    fn commit(&self, batch: &[Write]) -> Result<(), StoreError> {
        batch.iter().for_each(Write::assert_within_limits);
        let mut committer = self.committer.lock().unwrap_or_else(PoisonError::into_inner);
        committer.commit(batch)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let key = rows::row_key(key);
        guarded(self.path(), || match self.db.get(&key) {
            Ok(Some(row)) => self.value(&key, row),
            Ok(None) => Ok(None),
            Err(e) => Err(sled_error("read", self.path(), e)),
        })
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        let mut rows = self.db.range(rows::row_key(from)..rows::row_key(to));
        // Only sled's own steps are guarded: a panic of the visitor is the caller's.
        let mut next = || {
            guarded(self.path(), || match rows.next() {
                None => Ok(None),
                Some(Err(e)) => Err(sled_error("scan", self.path(), e)),
                Some(Ok((key, row))) => Ok(Some((self.value(&key, row)?, key))),
            })
        };
        while let Some((value, key)) = next()? {
            let Some(value) = value else { continue };
            if visit(rows::caller_key(&key), &value) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
}

fn open_sled(path: &Path, options: &SledOptions) -> Result<sled::Db, StoreError> {
    let mut config = sled::Config::new()
        .path(path)
        .cache_capacity(options.cache_bytes)
        .segment_size(SEGMENT_BYTES)
        .flush_every_ms(Some(FLUSH_EVERY_MS));
    let began = Instant::now();
    loop {
        let opened = guarded(path, || Ok(config.clone().open()))?;
        match opened {
            Ok(db) => return Ok(db),
            // Segments stay as they were when the store was made.
            Err(sled::Error::Unsupported(_)) if config.segment_size == SEGMENT_BYTES => {
                config = config.segment_size(OLDER_SEGMENT_BYTES);
            }
            // The directory is locked by us, so this can only be sled's threads of a store just dropped.
            Err(sled::Error::Io(e))
                if e.to_string().contains("acquire lock") && began.elapsed() < LOCK_WAIT_MAX =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(e) => return Err(sled_error("open", path, e)),
        }
    }
}

/// Makes durable all that sled has written so far, and that it is of this version.
fn create(db: &sled::Db, file: &File, path: &Path) -> Result<(), StoreError> {
    write_version(db, file, path)?;
    File::open(path.join(SETTINGS))
        .and_then(|settings| settings.sync_all())
        .map_err(|e| StoreError::from_io("create", path, &e))
}

fn write_version(db: &sled::Db, file: &File, path: &Path) -> Result<(), StoreError> {
    let version = rows::seal(rows::META, &[&rows::FORMAT_VERSION.to_le_bytes()]);
    guarded(path, || {
        db.insert(rows::META, version)
            .and_then(|_| db.flush())
            .map_err(|e| sled_error("create", path, e))
    })?;
    file.sync_all().map_err(|e| StoreError::from_io("create", path, &e))
}

/// The version of the store, which is one that can be read.
fn check_version(db: &sled::Db, path: &Path) -> Result<u32, StoreError> {
    let corrupt = |what: String| StoreError::corrupt(path, what);
    let row = db.get(rows::META).map_err(|e| sled_error("open", path, e))?;
    let row = row.ok_or_else(|| {
        corrupt("it has no format version: not a Tributary store, or one that lost its data".into())
    })?;
    let known = rows::FORMAT_WITHOUT_FILES..=rows::FORMAT_VERSION;
    match rows::unseal(rows::META, &row).map_err(corrupt)?.try_into().map(u32::from_le_bytes) {
        Ok(version) if known.contains(&version) => Ok(version),
        Ok(version) => Err(corrupt(format!(
            "its format version is {version}; this program knows {} and {}",
            known.start(),
            known.end()
        ))),
        Err(_) => Err(corrupt("its format version is not a number".into())),
    }
}

/// The number of the last commit, `None` when there never was one with a number.
fn last_commit(db: &sled::Db, path: &Path) -> Result<Option<u64>, StoreError> {
    let row = db.get(rows::COMMIT).map_err(|e| sled_error("open", path, e))?;
    let number = row.map(|row| rows::unseal_commit(&row)).transpose();
    number.map_err(|damage| StoreError::corrupt(path, damage))
}

/// Runs something of sled's, which panics on some damaged files; that is an error here.
fn guarded<T>(path: &Path, run: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let words = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("without words");
        Err(StoreError::corrupt(path, format!("sled panicked: {words}")))
    })
}

fn sled_error(operation: &'static str, path: &Path, error: sled::Error) -> StoreError {
    match error {
        // The file ends, or reads, where sled's own records say that it does not.
        sled::Error::Io(e)
            if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) =>
        {
            StoreError::corrupt(path, format!("{operation}: {e}"))
        }
        sled::Error::Io(e) => StoreError::from_io(operation, path, &e),
        other => StoreError::corrupt(path, format!("{operation}: {other}")),
    }
}
