//! A store in memory, on a disk that outlives the process: for tests and the simulator.
//!
//! The disk has two images. `live` is what a running process reads; `durable` is what is left after a
//! crash. A commit that returns `Ok` is in both. They differ only by faults, and those are asked for:
//! nothing here is random and nothing depends on a clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Store, StoreError, Visit, Write};

/// What the disk calls itself in errors.
const PATH: &str = "memory";
/// How many rows a scan copies out at a time, so that the disk is not locked while they are visited.
const SCAN_ROWS: usize = 256;

type Rows = BTreeMap<Vec<u8>, Arc<[u8]>>;
/// Some rows of a scan, and what ended it early.
type Page = (Vec<(Vec<u8>, Arc<[u8]>)>, Option<StoreError>);

/// What goes wrong with one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// No space: [`StoreError::Full`], and nothing is written.
    Full,
    /// The write is refused: [`StoreError::Io`], and nothing is written.
    Io,
    /// The write is done and its sync fails: an error, and a crash will lose the batch.
    SyncLost,
    /// The write is done, is durable, and an error is reported all the same.
    SyncDone,
    /// The disk lies: `Ok`, and a crash loses the batch with all that follows. **Breaks the contract**: it is a
    /// planted bug, to show that a checker notices.
    Lie,
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    live: Rows,
    durable: Rows,
    /// Set by a lie: from then on nothing reaches `durable` before the next crash, so that a later batch
    /// is never there without an earlier one.
    lying: bool,
    /// One entry per commit to come; `None` is a commit that goes well.
    faults: VecDeque<Option<Fault>>,
    unreadable: BTreeSet<Vec<u8>>,
    /// Counts the crashes, so that a store of a process that is dead can do nothing any more.
    life: u64,
    commits: u64,
    written_bytes: u64,
}

/// Everything that a disk held durably at one moment: a backup.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct DiskImage {
    rows: Rows,
}

/// A store on a [`MemoryDisk`]: what one process has open.
pub struct MemoryStore {
    disk: MemoryDisk,
    life: u64,
    stopped: Mutex<bool>,
}

impl MemoryDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the disk, as a process does when it starts. Opening cannot fail.
    #[must_use]
    pub fn open(&self) -> MemoryStore {
        MemoryStore { disk: self.clone(), life: self.inner().life, stopped: Mutex::new(false) }
    }

    /// Takes the power away: what is not durable is gone, and so are the faults that were still to come.
    /// Stores that were open answer every call with [`StoreError::Stopped`]; open the disk again.
    pub fn crash(&self) {
        let mut inner = self.inner();
        inner.live = inner.durable.clone();
        inner.lying = false;
        inner.faults.clear();
        inner.life += 1;
    }

    /// The next commit (after those that already have a fault waiting) goes wrong.
    pub fn fail_next_commit(&self, fault: Fault) {
        self.inner().faults.push_back(Some(fault));
    }

    /// The commit after `skip` good ones goes wrong.
    pub fn fail_commit_after(&self, skip: usize, fault: Fault) {
        let mut inner = self.inner();
        inner.faults.extend(std::iter::repeat_n(None, skip));
        inner.faults.push_back(Some(fault));
    }

    /// Rots a row: it reads as [`StoreError::Corrupt`] until it is written again.
    pub fn corrupt(&self, key: &[u8]) {
        self.inner().unreadable.insert(key.to_vec());
    }

    /// A backup of what is durable. It shares the values, so it costs little.
    #[must_use]
    pub fn snapshot(&self) -> DiskImage {
        DiskImage { rows: self.inner().durable.clone() }
    }

    /// Puts a backup in place of everything, as an operator does with the process stopped: stores that
    /// were open are dead, as after [`crash`](Self::crash).
    pub fn restore(&self, image: &DiskImage) {
        let mut inner = self.inner();
        inner.durable = image.rows.clone();
        inner.unreadable.clear();
        drop(inner);
        self.crash();
    }

    /// Bytes of keys and values that a crash would leave.
    #[must_use]
    pub fn durable_bytes(&self) -> u64 {
        bytes(&self.inner().durable)
    }

    /// Bytes of keys and values that a running process reads.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        bytes(&self.inner().live)
    }

    /// Bytes of keys and values that commits have written so far, faulty ones included.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.inner().written_bytes
    }

    /// How many commits were tried so far.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.inner().commits
    }

    /// A thread that panicked in between cannot have left the images half written: each step of a commit
    /// is a plain map operation. So a poisoned lock is taken as it is.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiskImage {
    /// Bytes of keys and values.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        bytes(&self.rows)
    }

    /// Every row, ascending.
    pub fn rows(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.rows.iter().map(|(k, v)| (k.as_slice(), &**v))
    }
}

impl MemoryStore {
    /// A store on a new disk of its own.
    #[must_use]
    pub fn new() -> Self {
        MemoryDisk::new().open()
    }

    /// The disk that it is on.
    #[must_use]
    pub fn disk(&self) -> &MemoryDisk {
        &self.disk
    }

    /// The disk, if the process that opened this store is still alive.
    fn alive(&self) -> Result<MutexGuard<'_, Inner>, StoreError> {
        let inner = self.disk.inner();
        if inner.life == self.life { Ok(inner) } else { Err(StoreError::Stopped) }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Store for MemoryStore {
    fn commit(&self, batch: &[Write]) -> Result<(), StoreError> {
        batch.iter().for_each(Write::assert_within_limits);
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        if *stopped {
            return Err(StoreError::Stopped);
        }
        let done = self.alive()?.commit(batch);
        *stopped = done.is_err();
        done
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let inner = self.alive()?;
        inner.check(key)?;
        Ok(inner.live.get(key).map(|value| value.to_vec()))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let mut after = Bound::Included(from.to_vec());
        loop {
            let (rows, rotten) = self.alive()?.some_rows(&after, to);
            for (key, value) in &rows {
                if visit(key, value) == ControlFlow::Break(()) {
                    return Ok(());
                }
            }
            if let Some(rotten) = rotten {
                return Err(rotten);
            }
            match rows.into_iter().next_back() {
                Some((last, _)) => after = Bound::Excluded(last),
                None => return Ok(()),
            }
        }
    }
}

impl Inner {
    fn commit(&mut self, batch: &[Write]) -> Result<(), StoreError> {
        self.commits += 1;
        let fault = self.faults.pop_front().flatten();
        let io = |operation, reason: &str| {
            Err(StoreError::Io { operation, path: PATH.into(), reason: reason.into() })
        };
        match fault {
            Some(Fault::Full) => return Err(StoreError::Full { path: PATH.into() }),
            Some(Fault::Io) => return io("write", "injected"),
            Some(Fault::Lie) => self.lying = true,
            Some(Fault::SyncLost | Fault::SyncDone) | None => {}
        }
        for write in batch {
            self.unreadable.remove(write.key());
            let written = match write {
                Write::Put { key, value } => key.len() + value.len(),
                Write::Delete { key } => key.len(),
            };
            self.written_bytes += written as u64;
            apply(&mut self.live, write);
        }
        if !self.lying && fault != Some(Fault::SyncLost) {
            self.durable = mirror(std::mem::take(&mut self.durable), batch, &self.live);
        }
        match fault {
            Some(Fault::SyncLost | Fault::SyncDone) => io("sync", "injected"),
            _ => Ok(()),
        }
    }

    fn check(&self, key: &[u8]) -> Result<(), StoreError> {
        if self.unreadable.contains(key) {
            return Err(StoreError::corrupt(Path::new(PATH), format!("row {key:02x?}")));
        }
        Ok(())
    }

    /// The next rows of a scan, up to the first that cannot be read.
    fn some_rows(&self, after: &Bound<Vec<u8>>, to: &[u8]) -> Page {
        let mut rows = Vec::new();
        for (key, value) in self.live.range((after.clone(), Bound::Unbounded)).take(SCAN_ROWS) {
            if key.as_slice() >= to {
                break;
            }
            if let Err(rotten) = self.check(key) {
                return (rows, Some(rotten));
            }
            rows.push((key.clone(), value.clone()));
        }
        (rows, None)
    }
}

fn apply(rows: &mut Rows, write: &Write) {
    match write {
        Write::Put { key, value } => rows.insert(key.clone(), value.as_slice().into()),
        Write::Delete { key } => rows.remove(key),
    };
}

/// Brings what a batch touched from `live` to `durable`; the values are shared, not copied.
fn mirror(mut durable: Rows, batch: &[Write], live: &Rows) -> Rows {
    for key in batch.iter().map(Write::key) {
        match live.get(key) {
            Some(value) => durable.insert(key.to_vec(), value.clone()),
            None => durable.remove(key),
        };
    }
    durable
}

fn bytes(rows: &Rows) -> u64 {
    rows.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner();
        write!(f, "MemoryDisk({} rows, {} commits)", inner.live.len(), inner.commits)
    }
}

impl fmt::Debug for DiskImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiskImage({} rows, {} bytes)", self.rows.len(), self.bytes())
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryStore on {:?}", self.disk)
    }
}
