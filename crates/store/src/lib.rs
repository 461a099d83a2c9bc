//! The storage contract, a memory store, the conformance suite.
//!
//! A store is an ordered map from keys to values that is written in atomic, durable batches.
//! What the keys mean is not its business.
//!
//! # The contract
//!
//! 1. **Durable.** [`Store::commit`] returns `Ok` only when the whole batch survives a loss of power.
//! 2. **All or nothing.** After a crash either every write of a batch is there or none is.
//! 3. **In order.** A later batch is never there without an earlier one.
//! 4. **Idempotent.** Putting a thing twice is putting it once; deleting what is not there is nothing.
//! 5. **Errors are final.** After an error from `commit` nothing is known about that batch, and every
//!    later `commit` fails too: the process stops acknowledging and exits. An fsync is never retried.
//! 6. **Checked.** Every row carries a checksum; a row that does not match is [`StoreError::Corrupt`],
//!    never a wrong value and never a missing one.
//! 7. **Any size.** A value has up to [`VALUE_BYTES_MAX`] bytes. How it is split is the store's business.
//! 8. **Reads see commits.** A read sees every batch whose `commit` has returned. It may or may not see
//!    one that is under way, and a scan may see some of its writes without the others: a single value is
//!    always whole, old or new. Callers that care keep what is under way in memory.
//! 9. **Never empty by accident.** A backend that finds a store it cannot read refuses to open it. It
//!    creates a store only where there is nothing, and what a crash left of a creation it begins again.
//!    **Nor less than it acknowledged:** damage to the end of an engine's log looks to the engine like a
//!    write that a crash cut short, and it opens with the last batches missing. So on a disk every batch
//!    carries the number of its commit, and a [witness](directory::Witness) outside of the engine names
//!    one that was durable. An engine that has less is refused with the numbers of what is lost, and
//!    so is a witness that is missing or damaged; stores that never had one are taken as they are. An
//!    operator who goes on without what is lost puts an empty file
//!    [`accept-loss`](directory::ACCEPT_LOSS) into the directory, for one opening. Not covered: commits of
//!    the last second ([`WITNESS_INTERVAL`](directory::WITNESS_INTERVAL)) before a process that was not
//!    closed ended, and a directory that goes back to an earlier moment as a whole.
//!
//! One thread commits at a time (others wait); any number may read meanwhile. Within a batch the last
//! write of a key counts. After an error reads go on, but what they show of the failed batch means nothing.
//!
//! # What is here
//!
//! [`MemoryStore`] keeps the contract on a [`MemoryDisk`] that a simulator can crash. The feature
//! `conformance` adds the suite that every backend runs, and a harness that takes its power away.

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod directory;
#[cfg(feature = "conformance")]
pub mod measure;
mod memory;
#[cfg(feature = "conformance")]
pub mod power_loss;
#[cfg(feature = "conformance")]
mod seeded;

pub use memory::{DiskImage, Fault, MemoryDisk, MemoryStore};

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 160;
/// The longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 30;

/// One write of a batch.
#[derive(Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets the value of a key.
    Put {
        /// 1 to [`KEY_BYTES_MAX`] bytes.
        key: Vec<u8>,
        /// Up to [`VALUE_BYTES_MAX`] bytes.
        value: Vec<u8>,
    },
    /// Removes a key.
    Delete {
        /// 1 to [`KEY_BYTES_MAX`] bytes.
        key: Vec<u8>,
    },
}

impl Write {
    /// The key that is put or removed.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    /// Checks the limits, which are the caller's to keep: every backend calls this for every write.
    ///
    /// # Panics
    /// When a key is empty or longer than [`KEY_BYTES_MAX`], or a value longer than [`VALUE_BYTES_MAX`].
    pub fn assert_within_limits(&self) {
        let key = self.key();
        assert!(!key.is_empty(), "a key has at least one byte");
        assert!(key.len() <= KEY_BYTES_MAX, "a key of {} bytes is too long", key.len());
        if let Self::Put { value, .. } = self {
            assert!(value.len() <= VALUE_BYTES_MAX, "a value of {} bytes is too long", value.len());
        }
    }
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { key, value } => write!(f, "put {key:02x?} ({} bytes)", value.len()),
            Self::Delete { key } => write!(f, "delete {key:02x?}"),
        }
    }
}

/// What [`Store::scan`] calls for each row; `Break` ends the scan. It may read the store; it must not commit.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// An ordered map with atomic, durable batches. The contract is the text of this crate.
///
/// Keys are prefix-free: no key that is put may be a proper prefix of another one. (A store may
/// append to keys to split values; this rule keeps the order without escaping.)
pub trait Store: Send + Sync {
    /// Writes a batch; `Ok` means that all of it is durable.
    ///
    /// # Errors
    /// Any error is final, see the contract.
    ///
    /// # Panics
    /// When a key or a value is outside the limits.
    fn commit(&self, batch: &[Write]) -> Result<(), StoreError>;

    /// The value of a key.
    ///
    /// # Errors
    /// When the row cannot be read or does not match its checksum.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Visits every row with `from <= key < to`, ascending; nothing when `from >= to`.
    ///
    /// # Errors
    /// When a row cannot be read or does not match its checksum.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError>;
}

/// What went wrong in a store: always the disk's fault, never a peer's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No space is left on the device.
    #[error("no space left on the device that holds {path}")]
    Full {
        /// The store's directory.
        path: String,
    },
    /// The operating system refused a read or write.
    #[error("{operation} failed on {path}: {reason}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The store's directory or file.
        path: String,
        /// The system's words.
        reason: String,
    },
    /// Something that was written cannot be read back as it was.
    #[error("{path} is corrupt: {what}")]
    Corrupt {
        /// The store's directory or file.
        path: String,
        /// What does not match, and where.
        what: String,
    },
    /// An earlier commit failed, so this one was not tried.
    #[error("the store has stopped after an earlier error")]
    Stopped,
}

impl StoreError {
    /// A refusal of the operating system, with "no space left" told apart from the rest.
    #[must_use]
    pub fn from_io(operation: &'static str, path: &Path, error: &io::Error) -> Self {
        let path = path.display().to_string();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path },
            _ => Self::Io { operation, path, reason: error.to_string() },
        }
    }

    /// Something at `path` that cannot be what was written there.
    #[must_use]
    pub fn corrupt(path: &Path, what: impl Into<String>) -> Self {
        Self::Corrupt { path: path.display().to_string(), what: what.into() }
    }
}
