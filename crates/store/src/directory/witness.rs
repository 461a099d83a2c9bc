//! What was durable once, written where the engine's own log cannot lose it.
//!
//! To an engine, a log whose end is damaged looks like one that a crash cut short: it opens with the last
//! batches missing, and all that is left is sound. So every commit has a number, which is in its batch,
//! and the file `witness` beside the database names a commit that is known to be durable. An engine that
//! holds less than that has lost something that was acknowledged, and is not opened.
//!
//! The file is written by a thread of its own, so that no commit waits for it: at once after a commit, but
//! at most once per interval, and when the store is closed. It names only what was durable before the
//! write began, so it is never ahead, whenever the power goes.
//!
//! It consists of two blocks that are written in turn, in place: that needs no space on the disk and
//! no new name, and a write that is torn leaves the other block. One damaged block is therefore taken for
//! a torn write; two are damage. A close leaves both naming the last commit.
//!
//! | block | bytes |
//! |---|---|
//! | name and version of the format | 8 |
//! | number of a commit, little-endian | 8 |
//! | CRC-32 of the block with zeros in this place, little-endian | 4 |
//! | zeros | to 4,096 |

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::sync;
use crate::StoreError;

/// The file's name in the store's directory.
pub(super) const WITNESS: &str = "witness";
/// Its name while it is created.
const WITNESS_NEW: &str = "witness.new";
/// How often it is written at most: a loss of what was committed within this time may go unnoticed.
pub const WITNESS_INTERVAL: Duration = Duration::from_secs(1);

const FORMAT: &[u8; 8] = b"TribWit1";
/// What a disk or a file system writes at once; so a torn write does not reach the other block.
const BLOCK_BYTES: usize = 4096;
const CHECKSUM_AT: std::ops::Range<usize> = 16..20;

/// Numbers the commits of an open store and has its witness written.
#[derive(Debug)]
pub struct Witness {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// The last commit that the engine holds; durable or, after a crash, perhaps not.
    last: u64,
    /// The last commit of this process that is durable.
    durable: Option<u64>,
    /// Whether the thread waits for a commit. Otherwise it looks by itself, and to wake it for each commit
    /// would cost more than all it does.
    idle: bool,
    closing: bool,
    failure: Option<StoreError>,
}

impl Witness {
    /// Goes on after commit `last` with the file in a directory.
    pub(super) fn start(
        directory: &Path,
        last: u64,
        interval: Duration,
    ) -> Result<Self, StoreError> {
        let file = WitnessFile::open(directory)?;
        let state = State { last, durable: None, idle: false, closing: false, failure: None };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let run = {
            let shared = Arc::clone(&shared);
            move || watch(&shared, file, interval)
        };
        let thread = std::thread::Builder::new()
            .name("witness".to_owned())
            .spawn(run)
            .map_err(|e| StoreError::from_io("start the witness of", directory, &e))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The number that belongs into the next batch: one more than that of the last commit.
    ///
    /// # Errors
    /// What went wrong when the file was written. As for any write, that is final: the store stops.
    pub fn next_number(&self) -> Result<u64, StoreError> {
        let state = self.shared.lock();
        match &state.failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(state.last + 1),
        }
    }

    /// Takes note that the batch with this number, from [`next_number`](Self::next_number), is durable.
    /// Does not wait for anything.
    pub fn durable(&self, number: u64) {
        let mut state = self.shared.lock();
        assert_eq!(number, state.last + 1, "commits are numbered without gaps");
        state.last = number;
        state.durable = Some(number);
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        if idle {
            self.shared.changed.notify_one();
        }
    }
}

impl Drop for Witness {
    /// Writes what is not written yet. Should that fail, the file names an earlier commit: less is
    /// watched, nothing is wrong.
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // It does not panic; and if it did, there is nothing left to do for it.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The commit that the witness of a store names, or `None` when it has none.
///
/// The store need not be open here. Two blocks that name different commits are no damage: the later counts.
///
/// # Errors
/// [`StoreError::Corrupt`], with the path of the file, when it is damaged; [`StoreError::Io`] when it
/// cannot be read.
pub fn witnessed(directory: &Path) -> Result<Option<u64>, StoreError> {
    let path = directory.join(WITNESS);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(StoreError::from_io("read", &path, &e)),
    };
    let newest = blocks_of(&bytes).and_then(|blocks| blocks.into_iter().flatten().max());
    newest.map(Some).ok_or_else(|| {
        let what = format!(
            "it does not match its checksum, so nobody can tell whether the store still has all that \
             was acknowledged. {}",
            super::REMEDY
        );
        StoreError::corrupt(&path, what)
    })
}

/// Puts a new file in place that names no commit, whole or not at all.
pub(super) fn begin(directory: &Path) -> io::Result<()> {
    let new = directory.join(WITNESS_NEW);
    let mut file = File::create(&new)?;
    file.write_all(&[block(0), block(0)].concat())?;
    file.sync_all()?;
    fs::rename(&new, directory.join(WITNESS))?;
    sync(directory)
}

/// The thread: writes when there is something new, and then not for `interval`.
fn watch(shared: &Shared, mut file: WitnessFile, interval: Duration) {
    let mut state = shared.lock();
    loop {
        let nothing_new = |state: &mut State| {
            state.idle = !state.closing && state.durable <= file.newest();
            state.idle
        };
        state =
            shared.changed.wait_while(state, nothing_new).unwrap_or_else(PoisonError::into_inner);
        let (durable, closing) = (state.durable, state.closing);
        drop(state);
        let written = match durable {
            // Only read from: left as it was.
            None => Ok(()),
            Some(number) if closing => file.name_twice(number),
            Some(number) => file.name(number),
        };
        state = shared.lock();
        if let Err(e) = written {
            state.failure = Some(StoreError::from_io("write", &file.path, &e));
            return;
        }
        if closing {
            return;
        }
        (state, _) = shared
            .changed
            .wait_timeout_while(state, interval, |state| !state.closing)
            .unwrap_or_else(PoisonError::into_inner);
    }
}

/// The open file, and what its blocks name.
struct WitnessFile {
    path: PathBuf,
    file: File,
    blocks: [Option<u64>; 2],
}

impl WitnessFile {
    fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(WITNESS);
        let read = || {
            let bytes = fs::read(&path)?;
            let file = OpenOptions::new().write(true).open(&path)?;
            let blocks = blocks_of(&bytes).ok_or(io::ErrorKind::InvalidData)?;
            Ok(Self { path: path.clone(), file, blocks })
        };
        read().map_err(|e: io::Error| StoreError::from_io("open", &path, &e))
    }

    fn newest(&self) -> Option<u64> {
        self.blocks.into_iter().flatten().max()
    }

    /// Writes over the damaged or the older block.
    fn name(&mut self, number: u64) -> io::Result<()> {
        let older = usize::from(self.blocks[1] < self.blocks[0]);
        self.file.seek(SeekFrom::Start((older * BLOCK_BYTES) as u64))?;
        self.file.write_all(&block(number))?;
        self.file.sync_data()?;
        self.blocks[older] = Some(number);
        Ok(())
    }

    /// One after the other, so that one of them is whole at any time.
    fn name_twice(&mut self, number: u64) -> io::Result<()> {
        while self.blocks != [Some(number); 2] {
            self.name(number)?;
        }
        Ok(())
    }
}

fn block(number: u64) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    block[..8].copy_from_slice(FORMAT);
    block[8..16].copy_from_slice(&number.to_le_bytes());
    let checksum = crc32fast::hash(&block).to_le_bytes();
    block[CHECKSUM_AT].copy_from_slice(&checksum);
    block
}

/// What each block names, `None` for a damaged one; nothing when the file has another size than we gave it.
fn blocks_of(bytes: &[u8]) -> Option<[Option<u64>; 2]> {
    let (first, second) = bytes.split_at_checked(BLOCK_BYTES)?;
    (second.len() == BLOCK_BYTES).then(|| [number_of(first), number_of(second)])
}

fn number_of(found: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(found[8..16].try_into().expect("8 bytes"));
    (found == block(number)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(directory: &Path, last: u64, interval: Duration) -> Witness {
        Witness::start(directory, last, interval).unwrap()
    }

    fn commit(witness: &Witness) -> u64 {
        let number = witness.next_number().unwrap();
        witness.durable(number);
        number
    }

    fn wait_until(condition: impl Fn() -> bool) {
        while !condition() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_first_commit_is_named_at_once_and_the_last_one_at_the_close_and_the_rest_only_in_time() {
        let temp = tempfile::tempdir().unwrap();
        begin(temp.path()).unwrap();
        let named = || witnessed(temp.path()).unwrap();
        let witness = started(temp.path(), 0, Duration::from_secs(3600));
        assert_eq!(named(), Some(0));
        commit(&witness);
        wait_until(|| named() == Some(1));
        (2..=50).for_each(|_| {
            commit(&witness);
        });
        assert_eq!(named(), Some(1));
        drop(witness);
        let bytes = fs::read(temp.path().join(WITNESS)).unwrap();
        assert_eq!(blocks_of(&bytes), Some([Some(50); 2]));
    }

    #[test]
    fn what_was_only_read_from_is_left_as_it_was() {
        let temp = tempfile::tempdir().unwrap();
        begin(temp.path()).unwrap();
        // Recovered after a crash, and perhaps not durable: it must not be named.
        drop(started(temp.path(), 7, Duration::ZERO));
        assert_eq!(witnessed(temp.path()), Ok(Some(0)));
        let witness = started(temp.path(), 7, Duration::ZERO);
        assert_eq!(commit(&witness), 8);
        drop(witness);
        assert_eq!(witnessed(temp.path()), Ok(Some(8)));
    }

    #[test]
    fn a_torn_write_leaves_the_other_block_and_damage_to_both_is_named() {
        let temp = tempfile::tempdir().unwrap();
        begin(temp.path()).unwrap();
        let mut file = WitnessFile::open(temp.path()).unwrap();
        file.name(5).unwrap();
        file.name(9).unwrap();
        let path = temp.path().join(WITNESS);
        let whole = fs::read(&path).unwrap();
        assert_eq!(blocks_of(&whole), Some([Some(5), Some(9)]));
        for at in [0, 8, 16, 20, 4095] {
            let mut torn = whole.clone();
            torn[BLOCK_BYTES + at] ^= 4;
            fs::write(&path, &torn).unwrap();
            assert_eq!(witnessed(temp.path()), Ok(Some(5)), "{at}");
            torn[at] ^= 4;
            fs::write(&path, &torn).unwrap();
            let refused = witnessed(temp.path()).unwrap_err();
            let named = path.display().to_string();
            assert!(
                matches!(&refused, StoreError::Corrupt { path, .. } if *path == named),
                "{refused}"
            );
        }
        for length in [0, 20, BLOCK_BYTES, 2 * BLOCK_BYTES - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(witnessed(temp.path()).is_err(), "{length} bytes");
        }
        // The next write goes over the torn block, not over the one that is whole.
        let mut torn = whole;
        torn[BLOCK_BYTES + 8] ^= 4;
        fs::write(&path, &torn).unwrap();
        WitnessFile::open(temp.path()).unwrap().name(11).unwrap();
        assert_eq!(blocks_of(&fs::read(&path).unwrap()), Some([Some(5), Some(11)]));
    }
}
