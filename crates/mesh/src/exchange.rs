//! What links and shards say to each other. The shell carries it: each [`ToShard`] with the name of
//! the region that the link leads to, each [`FromShard`] to one link, or to all of them where said.

use std::sync::Arc;

use model::{ChangeHash, DocumentId, Heads, PeerId, StorageId};

use crate::origin::{Digest, Entry, LogId, Mark};

/// Which of the two connections of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// For what people wait for: keystrokes, presence, questions.
    Live,
    /// For what is much: logs after an outage, snapshots, repair.
    Bulk,
}

/// What a link tells a shard.
#[derive(Debug, Clone)]
pub enum ToShard {
    /// The link is up. Told to every shard; each answers with [`FromShard::Vector`].
    Up,
    /// The link is down. Told to every shard.
    Down,
    /// Entries of a log of this shard. Answered by [`FromShard::Taken`] once they are durable, or
    /// once it is clear that they need not be.
    Take {
        /// The lane they came on.
        lane: Lane,
        /// The log.
        log: LogId,
        /// The number of the first of them.
        first: u64,
        /// The entries, gap-free.
        entries: Vec<Entry>,
        /// What they cost of the lane's credit.
        credit: usize,
    },
    /// Give entries of a log from `from` on. Answered by [`FromShard::Entries`],
    /// [`FromShard::Trimmed`] or [`FromShard::Diverged`].
    Read {
        /// The lane they are for.
        lane: Lane,
        /// The log.
        log: LogId,
        /// The number of the first one that is wanted; at least 1.
        from: u64,
        /// About how many bytes at most; at least one entry is given if there is one.
        bytes_max: usize,
        /// The digest that the peer has for the entries before `from`, to be compared.
        digest: Option<Digest>,
    },
    /// The peer holds a log durably up to here.
    Holds {
        /// The log.
        log: LogId,
        /// The number of the last entry it holds.
        sequence: u64,
    },
    /// The peer has let go of the entries of a log up to here; what was in them is found by the audit.
    Skip {
        /// The log.
        log: LogId,
        /// Where the peer's log starts, with the digest of what was before.
        to: Mark,
    },
    /// Everybody has held a log up to here, its process is no more, and the peer has forgotten it: so
    /// may we. What of it is not here the audit finds.
    Forgotten {
        /// The log.
        log: LogId,
        /// Its last entry.
        last: Mark,
    },
    /// Start to repair a document with the peer: the audit found that it differs.
    Repair {
        /// The document.
        document: DocumentId,
    },
    /// A sync message of the peer about a document under repair.
    Sync {
        /// The document.
        document: DocumentId,
        /// Its bytes.
        data: Vec<u8>,
    },
    /// So many bytes of what [`FromShard::Sync`] brought are no longer ours: they are with the socket, or
    /// it is gone.
    Written {
        /// Bytes of data, as the shard gave them.
        bytes: usize,
    },
    /// The peer sees nothing left to repair.
    Repaired {
        /// The document.
        document: DocumentId,
    },
    /// The peer was asked for a document that it does not have.
    Unavailable {
        /// The document.
        document: DocumentId,
    },
    /// Presence from a client in the other region.
    Presence {
        /// The document.
        document: DocumentId,
        /// The message.
        presence: Presence,
    },
    /// What stores in the other region hold of a document.
    Heads {
        /// The document.
        document: DocumentId,
        /// One for each store.
        heads: Vec<StoreHeads>,
    },
    /// Whether clients of the other region have the document open.
    Interest {
        /// The document.
        document: DocumentId,
        /// Whether.
        open: bool,
    },
    /// Which stores' heads clients of the other region want to hear of. Told to every shard.
    Subscribe {
        /// From now on.
        add: Vec<StorageId>,
        /// Not any more.
        remove: Vec<StorageId>,
    },
    /// How many documents there are, and the sum of their items. Answered by [`FromShard::Root`].
    Root {
        /// To tell answers apart.
        round: u64,
    },
    /// Symbols of the sketch. Answered by [`FromShard::Symbols`].
    Symbols {
        /// To tell answers apart.
        round: u64,
        /// The first symbol.
        from: usize,
        /// The one after the last.
        to: usize,
    },
    /// The items in a range. Answered by [`FromShard::Items`], not before this shard has room for
    /// more repairs: that sets the pace at which two regions that differ much are walked through.
    Items {
        /// To tell answers apart.
        round: u64,
        /// The smallest item that is wanted.
        from: u64,
        /// The largest.
        to: u64,
    },
    /// Start to repair the documents that have these items, as far as they are of this shard. Told
    /// to every shard.
    RepairItems {
        /// The items.
        items: Vec<u64>,
    },
}

/// What a shard tells links.
#[derive(Debug, Clone)]
pub enum FromShard {
    /// To one: the logs of its streams, its own included.
    Vector {
        /// How far this shard holds them.
        held: Vec<(LogId, Mark)>,
        /// Those that it has forgotten, with the last entry: they are not named to the peer, and it is
        /// told so if it names one.
        forgotten: Vec<(LogId, Mark)>,
    },
    /// To all: new entries of one of our own logs are durable.
    Published {
        /// The log.
        log: LogId,
        /// The number of the first of them.
        first: u64,
        /// The entries.
        entries: Arc<[Entry]>,
    },
    /// To one: what it asked for. Empty when the log has no more at the moment.
    Entries {
        /// The lane they are for.
        lane: Lane,
        /// The log.
        log: LogId,
        /// The number of the first of them.
        first: u64,
        /// The entries.
        entries: Arc<[Entry]>,
    },
    /// To one: what it asked for is not kept any more.
    Trimmed {
        /// The lane they were for.
        lane: Lane,
        /// The log.
        log: LogId,
        /// The number of the first entry that it asked for.
        from: u64,
        /// Where the log starts now.
        to: Mark,
    },
    /// To one: the peer's digest is not ours. One of the two logs is not what it was.
    Diverged {
        /// The log.
        log: LogId,
    },
    /// To one: what it delivered is durable, and its credit free.
    Taken {
        /// The lane.
        lane: Lane,
        /// The credit.
        credit: usize,
    },
    /// To all: a log is durably held up to here.
    Held {
        /// The log.
        log: LogId,
        /// How far.
        mark: Mark,
    },
    /// To all: a log is forgotten. Everybody held it, and its process is no more.
    Forgotten {
        /// The log.
        log: LogId,
        /// Its last entry.
        last: Mark,
    },
    /// To one: a sync message about a document under repair.
    Sync {
        /// The document.
        document: DocumentId,
        /// Its bytes.
        data: Vec<u8>,
    },
    /// To one: nothing is left to repair here.
    Repaired {
        /// The document.
        document: DocumentId,
    },
    /// To one: the document that it asked for is not here.
    Unavailable {
        /// The document.
        document: DocumentId,
    },
    /// To one: presence for a document in which the other region has an interest.
    Presence {
        /// The document.
        document: DocumentId,
        /// The message.
        presence: Presence,
    },
    /// To one: what stores hold of a document in which the other region has an interest.
    Heads {
        /// The document.
        document: DocumentId,
        /// One for each store.
        heads: Vec<StoreHeads>,
    },
    /// To all: whether clients here have the document open.
    Interest {
        /// The document.
        document: DocumentId,
        /// Whether.
        open: bool,
    },
    /// To all: which stores' heads clients here want to hear of.
    Subscribe {
        /// From now on.
        add: Vec<StorageId>,
        /// Not any more.
        remove: Vec<StorageId>,
    },
    /// To one: see [`ToShard::Root`].
    Root {
        /// Which question.
        round: u64,
        /// How many documents this shard has.
        documents: u64,
        /// The wrapping sum of their items.
        sum: u128,
    },
    /// To one: see [`ToShard::Items`].
    Items {
        /// Which question.
        round: u64,
        /// The items of this shard in the range, ascending.
        items: Vec<u64>,
    },
    /// To one: see [`ToShard::Symbols`].
    Symbols {
        /// Which question.
        round: u64,
        /// The first symbol.
        from: usize,
        /// The symbols.
        symbols: Vec<crate::sketch::Symbol>,
    },
}

/// A presence message, as its author sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// The author.
    pub author: PeerId,
    /// The author's stream.
    pub stream: String,
    /// The place in the stream.
    pub count: u64,
    /// The content.
    pub data: Vec<u8>,
}

/// What one store holds of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreHeads {
    /// The store.
    pub storage: StorageId,
    /// Its heads.
    pub heads: Heads,
    /// When it said so, in milliseconds since 1970 by its own clock.
    pub timestamp_ms: u64,
}

/// What a change hash and a document make as an item of the audit.
///
/// An item stands for one document as it is: its heads, and the changes that are dead here. Two
/// regions that serve the same have the same item. `salt` keeps others from choosing ids whose items
/// collide; it is derived from the key of the mesh.
pub fn item(salt: u64, document: &DocumentId, heads: &Heads, dead: &[ChangeHash]) -> u64 {
    use sha2::{Digest as _, Sha256};
    let mut hash = Sha256::new()
        .chain_update(salt.to_le_bytes())
        .chain_update((document.as_bytes().len() as u64).to_le_bytes())
        .chain_update(document.as_bytes())
        .chain_update((heads.len() as u64).to_le_bytes());
    for head in heads.iter().chain(dead) {
        hash.update(head.as_bytes());
    }
    let digest = hash.finalize();
    u64::from_le_bytes(digest[..8].try_into().expect("eight bytes"))
}
