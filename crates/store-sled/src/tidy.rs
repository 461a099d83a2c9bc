//! Gets sled to give back the space of what was deleted.
//!
//! sled collects garbage only where it writes. A segment that is mostly dead is emptied page by page, and
//! is free when the segment that took the last of its pages is full; the file becomes shorter when the
//! segments at its end are free. So after a large deletion with nothing after it, the file stays as it
//! was. Measured: 27 MB of log rows that were deleted left 30 MB for good; the same store with 64 KiB
//! written every half second had 4 MB after ten seconds (with sled's segments of 512 KiB; ours are half of
//! that, and so is what is written, twice as often).
//!
//! That is what the thread here does, when much was deleted and then nobody has written for a while, and
//! once after a store was opened: the same few rows again and again, which mean nothing and need not be
//! durable, until that does not make the file shorter any more. It takes its time: sled empties one
//! segment each quarter of a second, lowest first, and to write more would only make more to be emptied.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use store::StoreError;

use super::{FLUSH_EVERY_MS, Path, guarded, rows, sled_error};
use rows::SEGMENT_BYTES;

/// After so many bytes were deleted or replaced it is worth looking.
const DELETED_BYTES_MIN: u64 = 4 << 20;
/// How long nobody has to have written.
const QUIET: Duration = Duration::from_secs(1);
/// How often it writes: when sled's own thread empties segments.
const EVERY: Duration = Duration::from_millis(FLUSH_EVERY_MS);
/// Rows that are written each time, of nearly 3 KiB.
const ROWS: u16 = 11;
const ROW_BYTES: usize = 2_900;
/// It ends when so many writes in a row have not made the file shorter, and one more for each of sled's
/// segments in it: the last one is the last to be emptied.
const IN_VAIN_MIN: u64 = 48;
/// However long the file is, so many writes in vain are enough: two minutes, 16 MB.
const IN_VAIN_MAX: u64 = 480;
/// A file of less or more than that is not looked at when it is opened: what an earlier process has left
/// to be given back is not much, or not much of it.
const LOOKED_AT_BYTES_MIN: u64 = 6 * SEGMENT_BYTES as u64;
const LOOKED_AT_BYTES_MAX: u64 = 256 << 20;

/// The thread of a store.
#[derive(Debug)]
pub(crate) struct Tidier {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the committer tells it.
#[derive(Debug, Clone)]
pub(crate) struct Notes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    closing: Condvar,
}

#[derive(Debug)]
struct State {
    deleted_bytes: u64,
    committed_at: Instant,
    closing: bool,
    /// Whether the thread sleeps until much was deleted.
    asleep: bool,
}

impl Tidier {
    /// Starts the thread.
    pub fn start(db: sled::Db, path: &Path) -> Result<Self, StoreError> {
        let file_bytes = db.size_on_disk().map_err(|e| sled_error("measure", path, e))?;
        let is_looked_at = (LOOKED_AT_BYTES_MIN..=LOOKED_AT_BYTES_MAX).contains(&file_bytes);
        let deleted_bytes = if is_looked_at { DELETED_BYTES_MIN } else { 0 };
        let committed_at = Instant::now();
        let state = State { deleted_bytes, committed_at, closing: false, asleep: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), closing: Condvar::new() });
        let run = {
            let (shared, path) = (Arc::clone(&shared), path.to_owned());
            // When sled fails here it fails in the next commit as well, and that is the end of the store.
            move || drop(Tidying { shared, db, path }.run())
        };
        let thread = std::thread::Builder::new()
            .name("tidy".to_owned())
            .spawn(run)
            .map_err(|e| StoreError::from_io("start the tidying of", path, &e))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub fn notes(&self) -> Notes {
        Notes(Arc::clone(&self.shared))
    }
}

impl Drop for Tidier {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.closing.notify_one();
        if let Some(thread) = self.thread.take() {
            // sled's panics are caught in it.
            let _ = thread.join();
        }
    }
}

impl Notes {
    /// A batch was committed that deleted or replaced rows of so many bytes.
    pub fn committed(&self, deleted_bytes: u64) {
        let mut state = self.0.lock();
        state.deleted_bytes += deleted_bytes;
        state.committed_at = Instant::now();
        if state.asleep && state.deleted_bytes >= DELETED_BYTES_MIN {
            state.asleep = false;
            drop(state);
            self.0.closing.notify_one();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The store is being closed, or fails.
struct Ended;

struct Tidying {
    shared: Arc<Shared>,
    db: sled::Db,
    path: PathBuf,
}

impl Tidying {
    fn run(&self) -> Result<(), Ended> {
        loop {
            self.until_much_was_deleted()?;
            self.until_no_shorter()?;
            self.write(None)?;
        }
    }

    /// Lets sled empty what is mostly dead.
    fn until_no_shorter(&self) -> Result<(), Ended> {
        let (mut least, mut in_vain) = (self.file_bytes()?, 0);
        for round in 0.. {
            self.until_quiet()?;
            self.write(Some(round))?;
            self.wait(EVERY)?;
            let bytes = self.file_bytes()?;
            in_vain = if bytes < least { 0 } else { in_vain + 1 };
            least = least.min(bytes);
            let enough = (IN_VAIN_MIN + least / SEGMENT_BYTES as u64).min(IN_VAIN_MAX);
            // What is written lengthens the file, too: by some segments, and shortens it again.
            if in_vain >= 2 * enough || in_vain >= enough && bytes == least {
                break;
            }
        }
        Ok(())
    }

    fn until_much_was_deleted(&self) -> Result<(), Ended> {
        let mut state = self.shared.lock();
        while state.deleted_bytes < DELETED_BYTES_MIN && !state.closing {
            state.asleep = true;
            state = self.shared.closing.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.deleted_bytes = 0;
        if state.closing { Err(Ended) } else { Ok(()) }
    }

    fn until_quiet(&self) -> Result<(), Ended> {
        loop {
            let quiet = self.shared.lock().committed_at.elapsed();
            match QUIET.checked_sub(quiet) {
                None => return Ok(()),
                Some(left) => self.wait(left)?,
            }
        }
    }

    fn wait(&self, time: Duration) -> Result<(), Ended> {
        let closes = self
            .shared
            .closing
            .wait_timeout_while(self.shared.lock(), time, |state| !state.closing);
        let (state, _) = closes.unwrap_or_else(PoisonError::into_inner);
        if state.closing { Err(Ended) } else { Ok(()) }
    }

    fn file_bytes(&self) -> Result<u64, Ended> {
        guarded(&self.path, || {
            self.db.size_on_disk().map_err(|e| sled_error("measure", &self.path, e))
        })
        .map_err(|_| Ended)
    }

    /// Writes the rows, other ones each round, or removes them.
    fn write(&self, round: Option<u64>) -> Result<(), Ended> {
        let mut batch = sled::Batch::default();
        for number in 0..ROWS {
            let key = rows::filler_key(number);
            match round {
                Some(round) => {
                    let content = round.to_le_bytes().repeat(ROW_BYTES / 8);
                    batch.insert(key.as_slice(), rows::seal(&key, &[&content]));
                }
                None => batch.remove(key),
            }
        }
        guarded(&self.path, || {
            self.db.apply_batch(batch).map_err(|e| sled_error("write", &self.path, e))
        })
        .map_err(|_| Ended)
    }
}
