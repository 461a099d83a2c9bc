//! Chunks: the pieces that Automerge cuts its data into, read without Automerge.
//!
//! A list item of a sync message is a concatenation of chunks, each `magic ‖ checksum ‖ type ‖
//! length ‖ body`: a change (type 1, or 2 when its body is deflated), a whole document (0), a bundle
//! of changes (3). The checksum is the first four bytes of the SHA-256 over type, length and body,
//! which for a change is its hash and name.
//!
//! What passes [`read_chunks`] as a change is accepted by `automerge::Change::from_bytes` with the
//! same hash. Nothing here panics or spends memory on what the bytes merely claim.

mod body;
mod column;
mod cursor;
mod inflate;
mod operations;
mod scan;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use model::{ActorId, ChangeHash};
use sha2::{Digest, Sha256};

use body::Body;
use column::TooMany;
use cursor::Cursor;
pub use operations::{Action, Key, ObjectKind, OpRef, Operation, Operations};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];

/// How much a message may make us, and later everybody who reads the document, spend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that all deflated parts of one call may inflate to, together, however few were received.
    pub inflated_bytes_max: usize,
    /// Bytes that each received byte adds to [`Limits::inflated_bytes_max`]. Documents deflate to a
    /// fifth or so; a bomb, to a thousandth.
    pub inflated_bytes_per_byte: usize,
    /// Operations of one change that are free. A run-length makes a million of them out of twenty
    /// bytes, so this bounds what a tiny change costs; a long change earns more, see the next.
    pub operations_max: u64,
    /// Operations that each received byte adds to [`Limits::operations_max`]. Text is one operation
    /// per character and deflates about threefold, so a pasted book passes and a bomb does not.
    pub operations_per_byte: u64,
    /// Actors that one change may refer to, besides its author.
    pub actors_max: usize,
    /// Direct dependencies of one change.
    pub dependencies_max: usize,
    /// Bytes of a commit message.
    pub message_bytes_max: usize,
    /// Operations in a document or bundle chunk, and the items of any of its columns.
    pub document_operations_max: u64,
    /// Actors in a document or bundle chunk.
    pub document_actors_max: usize,
}

impl Limits {
    /// [`Limits::inflated_bytes_max`] unless configured: as much as a frame may hold, 64 MiB.
    pub const INFLATED_BYTES: usize = 64 << 20;
    /// [`Limits::inflated_bytes_per_byte`] unless configured.
    pub const INFLATED_BYTES_PER_BYTE: usize = 16;
    /// [`Limits::operations_max`] unless configured.
    pub const OPERATIONS: u64 = 1_000_000;
    /// [`Limits::operations_per_byte`] unless configured.
    pub const OPERATIONS_PER_BYTE: u64 = 4;
    /// [`Limits::actors_max`] unless configured. A change refers to few actors, except one that
    /// deletes what very many wrote.
    pub const ACTORS: usize = 65_536;
    /// [`Limits::dependencies_max`] unless configured. Every concurrent head is one.
    pub const DEPENDENCIES: usize = 65_536;
    /// [`Limits::message_bytes_max`] unless configured.
    pub const MESSAGE_BYTES: usize = 1 << 20;
    /// [`Limits::document_operations_max`] unless configured: a book of fifty million keystrokes.
    pub const DOCUMENT_OPERATIONS: u64 = 50_000_000;
    /// [`Limits::document_actors_max`] unless configured. Each session of a client is an actor.
    pub const DOCUMENT_ACTORS: usize = 1_000_000;

    /// No limits but those of the format, for what our own store wrote.
    fn trusted() -> Self {
        Self {
            inflated_bytes_max: u32::MAX as usize,
            inflated_bytes_per_byte: 0,
            operations_max: u64::from(u32::MAX),
            operations_per_byte: 0,
            actors_max: usize::MAX,
            dependencies_max: usize::MAX,
            message_bytes_max: usize::MAX,
            document_operations_max: u64::from(u32::MAX),
            document_actors_max: usize::MAX,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            inflated_bytes_max: Self::INFLATED_BYTES,
            inflated_bytes_per_byte: Self::INFLATED_BYTES_PER_BYTE,
            operations_max: Self::OPERATIONS,
            operations_per_byte: Self::OPERATIONS_PER_BYTE,
            actors_max: Self::ACTORS,
            dependencies_max: Self::DEPENDENCIES,
            message_bytes_max: Self::MESSAGE_BYTES,
            document_operations_max: Self::DOCUMENT_OPERATIONS,
            document_actors_max: Self::DOCUMENT_ACTORS,
        }
    }
}

/// One chunk of a list item.
#[derive(Debug, Clone)]
pub enum Chunk {
    /// A change, checked as far as its own bytes go.
    Change(Change),
    /// A whole document: the bytes of the chunk. Its framing, checksum, inflated size and
    /// run-lengths are checked; only the CRDT can read it.
    Document(Arc<[u8]>),
    /// A bundle of changes: the same.
    Bundle(Arc<[u8]>),
}

/// A change: its bytes, its name and what its header says. Cloning is cheap.
#[derive(Clone)]
pub struct Change(Arc<Inner>);

struct Inner {
    hash: ChangeHash,
    bytes: Box<[u8]>,
    /// Where the body begins in `bytes`.
    body_at: usize,
    deflated: bool,
    dependencies: Vec<ChangeHash>,
    actor: ActorId,
    seq: u64,
    start_op: u64,
    operations: u64,
    time: i64,
    has_author: bool,
}

impl Change {
    /// Its name: the SHA-256 of its body, as Automerge takes it.
    pub fn hash(&self) -> ChangeHash {
        self.0.hash
    }

    /// The changes it was made on top of, in the order of the chunk (ascending when canonical).
    pub fn deps(&self) -> &[ChangeHash] {
        &self.0.dependencies
    }

    /// Who made it.
    pub fn actor(&self) -> &ActorId {
        &self.0.actor
    }

    /// Its number among the changes of its actor. Honest ones count from 1; this may be anything.
    pub fn seq(&self) -> u64 {
        self.0.seq
    }

    /// The counter of its first operation: 1 to `u32::MAX`.
    pub fn start_op(&self) -> u64 {
        self.0.start_op
    }

    /// How many operations it has.
    pub fn operations(&self) -> u64 {
        self.0.operations
    }

    /// The counter of its last operation; one less than [`Change::start_op`] when there are none.
    pub fn max_op(&self) -> u64 {
        self.0.start_op + self.0.operations - 1
    }

    /// When its author says it was made, in the author's unit (seconds since 1970 at stock clients).
    pub fn time(&self) -> i64 {
        self.0.time
    }

    /// The chunk as it was received: what is stored and forwarded.
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// Whether its footer names an author, which Automerge bears in an actor's first change only.
    pub fn has_author_footer(&self) -> bool {
        self.0.has_author
    }

    /// Reads its operations, one after the other. `body` holds the inflated body while they are
    /// read: get it from [`Change::body`].
    ///
    /// # Errors
    /// Never for a change that came out of [`read_chunks`].
    pub fn read_operations<'a>(&self, body: &'a [u8]) -> Result<Operations<'a>, ChunkError> {
        // As many as it was let in with: limits may have been lowered since.
        Operations::new(Body::parse(body)?, u64::from(u32::MAX))
    }

    /// The body of the chunk, inflated if need be.
    ///
    /// # Errors
    /// Never for a change that was read by this module: it has been inflated once before.
    pub fn body(&self) -> Result<Cow<'_, [u8]>, ChunkError> {
        let body = &self.0.bytes[self.0.body_at..];
        if self.0.deflated {
            inflate::inflate(body, &mut Budget::new(&Limits::trusted(), 0)).map(Cow::Owned)
        } else {
            Ok(Cow::Borrowed(body))
        }
    }
}

impl PartialEq for Change {
    fn eq(&self, other: &Self) -> bool {
        self.0.hash == other.0.hash
    }
}

impl Eq for Change {}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "change {:?} ({:?} seq {})", self.hash(), self.actor(), self.seq())
    }
}

/// Reads a list item of a sync message: all chunks in it, or why not.
///
/// # Errors
/// The first thing that is wrong with it. Nothing of a list item with an error should be used: an
/// honest sender makes none, so the rest says nothing.
pub fn read_chunks(bytes: &[u8], limits: &Limits) -> Result<Vec<Chunk>, ChunkError> {
    let mut budget = Budget::new(limits, bytes.len());
    let mut rest = bytes;
    let mut chunks = Vec::with_capacity(1);
    while !rest.is_empty() {
        let frame = Frame::parse(rest)?;
        rest = &rest[frame.bytes.len()..];
        chunks.push(match frame.kind {
            Kind::Change | Kind::Deflated => {
                Chunk::Change(change(&frame, limits, &mut budget, Depth::EveryOperation)?)
            }
            Kind::Document => {
                frame.check(hash_of(frame.kind, frame.body))?;
                scan::document(frame.body, limits, &mut budget)?;
                Chunk::Document(frame.bytes.into())
            }
            Kind::Bundle => {
                frame.check(hash_of(frame.kind, frame.body))?;
                scan::bundle(frame.body, limits, &mut budget)?;
                Chunk::Bundle(frame.bytes.into())
            }
        });
    }
    Ok(chunks)
}

/// Reads one change that our own store wrote, after it passed [`read_chunks`] once.
///
/// # Errors
/// When the bytes are not those that were written: the hash is computed and compared, the
/// operations are counted but not decoded.
pub fn read_change(bytes: &[u8]) -> Result<Change, ChunkError> {
    let frame = Frame::parse(bytes)?;
    if frame.bytes.len() < bytes.len() {
        return Err(ChunkError::TrailingData);
    }
    let limits = Limits::trusted();
    match frame.kind {
        Kind::Change | Kind::Deflated => {
            change(&frame, &limits, &mut Budget::new(&limits, 0), Depth::Header)
        }
        Kind::Document | Kind::Bundle => Err(ChunkError::NotAChange),
    }
}

/// How closely a change is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Header,
    EveryOperation,
}

fn change(
    frame: &Frame<'_>,
    limits: &Limits,
    budget: &mut Budget,
    depth: Depth,
) -> Result<Change, ChunkError> {
    let inflated;
    let body = if frame.kind == Kind::Deflated {
        inflated = inflate::inflate(frame.body, budget)?;
        &inflated
    } else {
        frame.body
    };
    let hash = frame.check(hash_of(Kind::Change, body))?;
    let body = Body::parse(body)?;
    check_size(&body, limits)?;
    let actor = ActorId::new(body.actor)
        .map_err(|too_long| ChunkError::ActorTooLong { bytes: too_long.bytes })?;
    let (seq, start_op, time) = (body.seq, body.start_op, body.time);
    let has_author = body.has_author();
    let dependencies = body.dependencies.iter().copied().map(ChangeHash).collect();

    let earned = limits.operations_per_byte.saturating_mul(frame.bytes.len() as u64);
    let mut operations = Operations::new(body, limits.operations_max.saturating_add(earned))?;
    if depth == Depth::EveryOperation {
        while operations.next()?.is_some() {}
    }
    Ok(Change(Arc::new(Inner {
        hash,
        bytes: frame.bytes.into(),
        body_at: frame.bytes.len() - frame.body.len(),
        deflated: frame.kind == Kind::Deflated,
        dependencies,
        actor,
        seq,
        start_op,
        operations: operations.count(),
        time,
        has_author,
    })))
}

fn check_size(body: &Body<'_>, limits: &Limits) -> Result<(), ChunkError> {
    if body.dependencies.len() > limits.dependencies_max {
        return Err(ChunkError::TooManyDependencies { count: body.dependencies.len() });
    }
    if body.other_actors.len() > limits.actors_max {
        return Err(ChunkError::TooManyActors { count: body.other_actors.len() });
    }
    if body.message.len() > limits.message_bytes_max {
        return Err(ChunkError::MessageTooLong { bytes: body.message.len() });
    }
    let long = body.other_actors.iter().find(|actor| actor.len() > ActorId::BYTES_MAX);
    long.map_or(Ok(()), |actor| Err(ChunkError::ActorTooLong { bytes: actor.len() }))
}

/// What one call may still spend.
struct Budget {
    inflated_bytes: usize,
    inflated_bytes_max: usize,
}

impl Budget {
    fn new(limits: &Limits, received: usize) -> Self {
        let earned = limits.inflated_bytes_per_byte.saturating_mul(received);
        let inflated_bytes_max = limits.inflated_bytes_max.saturating_add(earned);
        Self { inflated_bytes: inflated_bytes_max, inflated_bytes_max }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Document = 0,
    Change = 1,
    Deflated = 2,
    Bundle = 3,
}

/// A chunk, framed but not opened.
struct Frame<'a> {
    kind: Kind,
    checksum: [u8; 4],
    bytes: &'a [u8],
    body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame at the beginning of `bytes`.
    fn parse(bytes: &'a [u8]) -> Result<Self, ChunkError> {
        let truncated = |_| ChunkError::Truncated;
        let mut cursor = Cursor::new(bytes);
        if cursor.take(MAGIC.len()).map_err(truncated)? != MAGIC {
            return Err(ChunkError::BadMagic);
        }
        let checksum = cursor.take(4).map_err(truncated)?;
        let checksum = checksum.try_into().expect("four bytes were taken");
        let kind = match cursor.take(1).map_err(truncated)?[0] {
            0 => Kind::Document,
            1 => Kind::Change,
            2 => Kind::Deflated,
            3 => Kind::Bundle,
            unknown => return Err(ChunkError::UnknownType(unknown)),
        };
        let body = cursor.take_prefixed().map_err(|malformed| match malformed {
            Malformed::EndsEarly => ChunkError::Truncated,
            other => ChunkError::Malformed(other),
        })?;
        Ok(Self { kind, checksum, bytes: &bytes[..bytes.len() - cursor.rest().len()], body })
    }

    fn check(&self, hash: ChangeHash) -> Result<ChangeHash, ChunkError> {
        if hash.0[..4] == self.checksum { Ok(hash) } else { Err(ChunkError::BadChecksum) }
    }
}

fn hash_of(kind: Kind, body: &[u8]) -> ChangeHash {
    let mut head = [0; 11];
    head[0] = kind as u8;
    let (mut at, mut length) = (1, body.len());
    while length >= 0x80 {
        head[at] = length as u8 | 0x80;
        length >>= 7;
        at += 1;
    }
    head[at] = length as u8;
    let hash = Sha256::new().chain_update(&head[..=at]).chain_update(body).finalize();
    ChangeHash(hash.into())
}

/// Why bytes are not chunks that we take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// A chunk does not begin with Automerge's magic bytes.
    #[error("not an Automerge chunk")]
    BadMagic,
    /// The bytes end inside a chunk.
    #[error("the chunk is cut off")]
    Truncated,
    /// The body does not have the checksum that the header gives.
    #[error("the checksum of the chunk is wrong")]
    BadChecksum,
    /// No chunk type that Automerge 0.12 knows.
    #[error("chunk type {0} is unknown")]
    UnknownType(u8),
    /// A single change was expected.
    #[error("the chunk is not a change")]
    NotAChange,
    /// Something follows where nothing may.
    #[error("the chunk has data after its end")]
    TrailingData,
    /// Deflated parts inflate to more than the limit.
    #[error("the chunk inflates to more than {inflated_bytes_max} bytes")]
    TooLarge {
        /// The limit.
        inflated_bytes_max: usize,
    },
    /// More operations, predecessors or items of a column than the limit.
    #[error("the chunk claims {at_least} operations or more")]
    TooManyOperations {
        /// As far as was counted.
        at_least: u64,
    },
    /// More actors than the limit.
    #[error("the chunk names {count} actors")]
    TooManyActors {
        /// How many.
        count: usize,
    },
    /// An actor id longer than [`ActorId::BYTES_MAX`].
    #[error("the chunk names an actor with an id of {bytes} bytes")]
    ActorTooLong {
        /// How long.
        bytes: usize,
    },
    /// More dependencies than the limit.
    #[error("the change has {count} dependencies")]
    TooManyDependencies {
        /// How many.
        count: usize,
    },
    /// A longer commit message than the limit.
    #[error("the change has a commit message of {bytes} bytes")]
    MessageTooLong {
        /// How long.
        bytes: usize,
    },
    /// The inside of the chunk breaks the format.
    #[error("the chunk is malformed: {0}")]
    Malformed(#[from] Malformed),
}

impl From<TooMany> for ChunkError {
    fn from(too_many: TooMany) -> Self {
        match too_many {
            TooMany::Items(at_least) => Self::TooManyOperations { at_least },
            TooMany::Malformed(malformed) => Self::Malformed(malformed),
        }
    }
}

/// How the inside of a chunk breaks the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A length or count points past the end.
    #[error("something in it ends early")]
    EndsEarly,
    /// A number does not fit its type.
    #[error("a number is too large")]
    NumberTooLarge,
    /// A number of the header is not in its shortest form.
    #[error("a number is written with padding")]
    PaddedNumber,
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    NotUtf8,
    /// The first operation has counter 0 or one that does not fit 32 bits.
    #[error("its operations start at {0}")]
    StartOp(u64),
    /// A column that is unknown, out of order or listed twice.
    #[error("column {0} is unknown or out of order")]
    ColumnList(u64),
    /// Values without lengths, or predecessors without counts.
    #[error("a column lacks the one that explains it")]
    ColumnWithoutPartner,
    /// A deflated column where none may be.
    #[error("a column of a change is deflated")]
    DeflatedColumn,
    /// Deflated data does not inflate.
    #[error("deflated data is corrupt")]
    Deflate,
    /// A run of no values, or of more than there can be.
    #[error("a run of an impossible length")]
    RunLength,
    /// A value is missing in a column.
    #[error("a value of the column '{0}' is missing")]
    NullIn(&'static str),
    /// An action that Automerge 0.12 does not know.
    #[error("action {0} is unknown")]
    UnknownAction(u64),
    /// An increment by something else than a number.
    #[error("an increment by something that is no integer")]
    IncrementByNoNumber,
    /// A key that is both a text and an element, or neither.
    #[error("a key is neither a text nor an element")]
    Key,
    /// An operation's counter is 0, negative, or does not fit 32 bits.
    #[error("the counter of an operation is out of range")]
    Counter,
    /// An actor's number is outside the table of the change.
    #[error("an actor's number is outside the table")]
    ActorIndex,
    /// A float that has not eight bytes.
    #[error("a float does not have eight bytes")]
    Float,
    /// A number that is shorter than the length it was given, or values longer than their column.
    #[error("a value does not have the length it was given")]
    ValueLength,
}
