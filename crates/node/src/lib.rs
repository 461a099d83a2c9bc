//! The machine: sessions and documents; events in, effects out.
//!
//! A [`Shard`] owns the documents whose ids hash to it and everything about them. It has no socket,
//! no clock, no thread and no randomness: the caller says what happened and when
//! ([`Shard::handle`], [`Shard::tick`]), and takes away what is to be done
//! ([`Shard::poll_effect`]). The server and the simulator drive the same code.
//!
//! The direction is one: a message goes into a document's log, the log is committed, and only what
//! is committed is spoken of. Nothing is queued for a session; its next message is made from the log
//! when it has room for one.
//!
//! [`Lobby`] is what comes before: the handshake, and who is who.

mod abroad;
mod context;
mod copies;
mod document;
mod inbox;
pub mod limits;
mod lobby;
pub mod mesh_rows;
mod mesh_state;
pub mod planted;
mod region;
pub mod rows;
mod session;
mod shard;
mod upkeep;

use std::time::Duration;

use model::{DocumentId, PeerId, StorageId};

pub use copies::{Branch, copy_id};
pub use inbox::Inbox;
pub use limits::Limits;
pub use lobby::{Joined, Lobby, Refused};
pub use mesh_state::MeshSetup;
pub use shard::{Counters, Identity, Present, Shard};

/// One connection. Never used twice in the life of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// One batch of writes on its way to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub u64);

/// One job on its way through the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// When something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now {
    /// Since the process started; never goes back. All waiting is counted in this.
    pub running: Duration,
    /// Milliseconds since 1970 by this machine's clock: only ever shown, stored and passed on.
    pub wall_ms: u64,
}

/// Everything that can happen to a shard.
#[derive(Debug)]
pub enum Event {
    /// A peer has joined. Told to every shard.
    Opened {
        /// Its connection.
        session: SessionId,
        /// How it calls itself.
        peer: PeerId,
        /// Its store, if it has one that outlives the connection.
        storage: Option<StorageId>,
    },
    /// A connection has ended, whoever ended it. Told to every shard.
    Closed {
        /// The connection.
        session: SessionId,
    },
    /// A message about a document of this shard.
    Message {
        /// The connection it came on.
        session: SessionId,
        /// The document.
        document: DocumentId,
        /// What it says.
        message: DocumentMessage,
    },
    /// Which stores' heads a peer wants to hear of. Told to every shard.
    Subscribed {
        /// The connection.
        session: SessionId,
        /// Stores to tell about from now on.
        add: Vec<StorageId>,
        /// Stores to fall silent about.
        remove: Vec<StorageId>,
    },
    /// The link to another region says something.
    Region {
        /// The region.
        region: model::RegionName,
        /// What it says.
        message: mesh::ToShard,
    },
    /// A document of this shard is the copy of a branch that lost: see [`Effect::Adopt`].
    Adopt(Branch),
    /// Look after a document that perhaps nobody has open: whether its newest changes are to be
    /// verified and put into a snapshot, and whether it keeps changes behind that for longer than it
    /// should.
    Tend {
        /// The document.
        document: DocumentId,
    },
    /// Bytes of a session have reached its socket.
    Written {
        /// The connection.
        session: SessionId,
        /// How many, counting each frame as [`Effect::Send`] gave it.
        bytes: usize,
    },
    /// A batch is durable. Batches of one shard become durable in the order they were asked for.
    Committed {
        /// Which.
        batch: BatchId,
    },
    /// The archive has finished a job.
    Archived {
        /// Which.
        job: JobId,
        /// What came of it.
        result: Box<ArchiveResult>,
        /// How long it took.
        took: Duration,
    },
}

/// What the archive says to a job: its own answer, or that its process did not survive it.
pub type ArchiveResult = Result<archive::Answer, ArchiveFailure>;

/// Why the archive has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveFailure {
    /// Something in the job is bad.
    #[error(transparent)]
    Job(#[from] archive::Failure),
    /// The archive could not do the job, whatever is in it: no process, no time, no memory.
    #[error("the archive could not do it: {0}")]
    Unavailable(String),
}

/// What a peer says about a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentMessage {
    /// An Automerge sync message. `request` or `sync`: the answer is the same.
    Sync {
        /// Its bytes.
        data: Vec<u8>,
    },
    /// Something for the other peers on the document, never stored.
    Ephemeral {
        /// The author as the message names it.
        author: PeerId,
        /// The author's stream.
        stream: String,
        /// The place in the stream.
        count: u64,
        /// The content.
        data: Vec<u8>,
    },
    /// The peer does not have the document.
    Unavailable,
}

/// Everything that a shard can want.
#[derive(Debug)]
pub enum Effect {
    /// Send a frame to a session's socket.
    Send {
        /// The connection.
        session: SessionId,
        /// The frame.
        frame: Vec<u8>,
    },
    /// End a connection. The shard goes on when [`Event::Closed`] says that it has ended.
    Close {
        /// The connection.
        session: SessionId,
        /// Why.
        reason: CloseReason,
    },
    /// Make these writes durable, all or nothing, after the batches before it.
    Commit {
        /// Its name.
        batch: BatchId,
        /// The writes.
        writes: Vec<store::Write>,
    },
    /// Do a job, somewhere where it may fail.
    Archive {
        /// Its name.
        job: JobId,
        /// The job.
        task: Box<archive::Job>,
    },
    /// Tell the link to a region, or all links.
    Region {
        /// Which; `None` is all.
        to: Option<model::RegionName>,
        /// What.
        message: mesh::FromShard,
    },
    /// Tell the shard of the copy ([`Event::Adopt`]): a branch that lost is kept there. Every region
    /// makes the same copies.
    Adopt(Branch),
    /// Something that an operator should know.
    Report(Report),
}

/// Something that an operator should know. Nothing here ever stops the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A change was refused.
    Refused {
        /// The document.
        document: DocumentId,
        /// Who sent it.
        session: SessionId,
        /// Why.
        why: history::Refusal,
    },
    /// A change that was taken in turned out not to fit; it and what builds on it are set aside.
    Died {
        /// The document.
        document: DocumentId,
        /// The change.
        change: model::ChangeHash,
        /// How many changes were set aside with it.
        descendants: usize,
        /// Why.
        reason: String,
    },
    /// A document could not be read from the store.
    Unreadable {
        /// The document.
        document: DocumentId,
        /// Why.
        error: rows::LoadError,
    },
    /// A document was compacted.
    Compacted {
        /// The document.
        document: DocumentId,
        /// How many changes the snapshot covers.
        changes: u32,
        /// How many bytes it has.
        bytes: usize,
    },
    /// One actor made two histories; the one that lost is kept as a document of its own.
    Copied {
        /// The document.
        document: DocumentId,
        /// The first change of the branch that lost.
        change: model::ChangeHash,
        /// The copy.
        copy: DocumentId,
    },
    /// A document could not be brought level with another region.
    NotRepaired {
        /// The document.
        document: DocumentId,
        /// Why.
        reason: String,
    },
    /// Another log has the name of one of ours: this region was cloned, or its process was. Our
    /// changes go to a new log from now on.
    LogTaken {
        /// The log.
        log: mesh::LogId,
    },
    /// A log of another region is not what we have of it.
    LogDiffers {
        /// The log.
        log: mesh::LogId,
        /// The region that has another one.
        region: model::RegionName,
    },
    /// The mesh's part of the store cannot be read.
    MeshUnreadable {
        /// Why.
        error: rows::LoadError,
    },
    /// The archive could not check a document; it is tried again later.
    Unverified {
        /// The document.
        document: DocumentId,
        /// Why.
        reason: String,
    },
}

/// Why a connection is ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The bytes of a sync message make no sense.
    #[error("document {document}: {error}")]
    Message {
        /// The document.
        document: DocumentId,
        /// What is wrong.
        error: sync::MessageError,
    },
    /// The bytes of a change make no sense.
    #[error("document {document}: {error}")]
    Chunk {
        /// The document.
        document: DocumentId,
        /// What is wrong.
        error: history::chunk::ChunkError,
    },
    /// A change was refused that no honest client sends.
    #[error("document {document}: {why}")]
    Refused {
        /// The document.
        document: DocumentId,
        /// Why.
        why: history::Refusal,
    },
    /// An uploaded document cannot be opened.
    #[error("document {document}: {reason}")]
    Upload {
        /// The document.
        document: DocumentId,
        /// Why.
        reason: String,
    },
    /// A bound was reached.
    #[error("too many {what}; at most {max} are accepted")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// Open documents use up the memory that there is for documents, and this session has the most.
    #[error(
        "no room: the memory budget is used up by open documents, and {open} of them are this connection's"
    )]
    NoRoom {
        /// How many it has open, on this shard.
        open: usize,
    },
    /// A document cannot be read from our store, and pretending that it is not here would be a lie.
    #[error("document {document} cannot be read here")]
    Unreadable {
        /// The document.
        document: DocumentId,
    },
}
