//! Origin logs: whose they are, what is in them, how far somebody holds them.

use std::collections::BTreeMap;
use std::fmt;

use history::chunk::Change;
use model::{ChangeHash, DocumentId, RegionName};
use sha2::{Digest as _, Sha256};

/// How many logs each process writes. A document belongs to one of them in every region, so every
/// log belongs to one shard in every region, however many shards each has: at most this many.
pub const STREAMS: u8 = DocumentId::STREAMS;

/// One life of one region: a process that takes changes in from clients.
///
/// The epoch is drawn at random when the process starts, so that a region that was wiped, restored
/// or cloned cannot give out a position of its log a second time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The region.
    pub region: RegionName,
    /// Which process.
    pub epoch: u64,
}

/// One gap-free log: the entries of one origin about the documents of one stream.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// Whose it is.
    pub origin: Origin,
    /// Below [`STREAMS`].
    pub stream: u8,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:016x}/{}", self.origin.region, self.origin.epoch, self.stream)
    }
}

/// How far somebody holds a log: everything up to and with `sequence`, durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// The number of the last entry; the first one is 1, so 0 is nothing.
    pub sequence: u64,
    /// The running digest of the entries up to there: two logs that differ anywhere before differ here.
    pub digest: Digest,
}

/// The running digest of a log.
pub type Digest = [u8; 16];

impl Mark {
    /// One entry further.
    #[must_use]
    pub fn then(self, entry: &Entry) -> Self {
        let digest = Sha256::new()
            .chain_update(self.digest)
            .chain_update(entry.document.as_bytes())
            .chain_update(entry.hash().as_bytes())
            .chain_update([u8::from(matches!(entry.item, Item::Dead { .. }))])
            .finalize();
        let mut short = Digest::default();
        short.copy_from_slice(&digest[..16]);
        Self { sequence: self.sequence + 1, digest: short }
    }
}

/// How far one region holds each log.
pub type Vector = BTreeMap<LogId, Mark>;

/// One entry of an origin log.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The document.
    pub document: DocumentId,
    /// What is new about it.
    pub item: Item,
}

/// What an entry says about its document.
#[derive(Debug, Clone)]
pub enum Item {
    /// A change that a client handed in.
    Change(Change),
    /// A change that does not fit, found by a check or a verification in that region: no region
    /// serves it, nor what builds on it, from then on.
    Dead {
        /// The change.
        hash: ChangeHash,
        /// Why, in the words of whoever found out.
        reason: String,
    },
}

impl Entry {
    /// The change that it is about.
    pub fn hash(&self) -> ChangeHash {
        match &self.item {
            Item::Change(change) => change.hash(),
            Item::Dead { hash, .. } => *hash,
        }
    }

    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.document.as_bytes().len()
            + match &self.item {
                Item::Change(change) => change.bytes().len(),
                Item::Dead { reason, .. } => 32 + reason.len(),
            }
    }
}
