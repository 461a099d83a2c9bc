//! Why a change does not fit, in the words that an operator reads.

use crate::chunk::ChunkError;

/// Why a change is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// Sequence numbers start at 1.
    #[error("the change has sequence number 0")]
    SequenceZero,
    /// An author is named once, by an actor's first change. Automerge panics on another.
    #[error("the change names an author, but is number {seq} of its actor")]
    LateAuthor {
        /// Its sequence number.
        seq: u64,
    },
    /// Counters would soon be used up for everybody.
    #[error("the operations of the change are numbered up to {max_op}, too close to the end")]
    CounterTooLarge {
        /// The counter of its last operation.
        max_op: u64,
    },
    /// The change lists an actor that it never refers to. Automerge panics when it does not know
    /// it, and forgets it otherwise, which changes the hash.
    #[error("the change lists an actor that none of its operations refers to")]
    UnusedActor,
    /// An operation does not fit the document.
    #[error("operation {counter}: {fault}")]
    Operation {
        /// Its counter; the actor is the author of the change.
        counter: u64,
        /// What is wrong with it.
        fault: Fault,
    },
    /// The chunk cannot be read. Never for a change that came out of
    /// [`read_chunks`](crate::read_chunks).
    #[error(transparent)]
    Unreadable(#[from] ChunkError),
}

/// What is wrong with an operation. "Ancestor" means: an operation of a change that this one was
/// made on top of, or an earlier one of the change itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It refers to itself or to a later operation.
    #[error("it refers to an operation that is not before it")]
    RefersForward,
    /// It refers to an operation by an actor who made none.
    #[error("it refers to an actor that the document does not know")]
    ActorUnknown,
    /// Its object was not made by an ancestor.
    #[error("its object was not made by what the change depends on")]
    ObjectNotAncestor,
    /// What it says is its object is none.
    #[error("its object does not exist")]
    ObjectUnknown,
    /// Automerge never finished tables, and panics on an operation in one.
    #[error("its object is a table")]
    InTable,
    /// It makes an object deeper than [`OBJECT_DEPTH_MAX`](super::OBJECT_DEPTH_MAX).
    #[error("it nests objects too deep")]
    TooDeep,
    /// A key of a map in a list or text.
    #[error("it uses a key in a list or text")]
    KeyInSequence,
    /// An element of a sequence in a map.
    #[error("it uses an element in a map")]
    ElementInMap,
    /// Only sequences have inserts.
    #[error("it inserts into a map")]
    InsertInMap,
    /// There is nothing at the head of a sequence to update.
    #[error("it updates or deletes the head of a list or text")]
    UpdatesHead,
    /// Marks are never updated or deleted, only overlaid.
    #[error("it updates or deletes a mark")]
    UpdatesMark,
    /// Its element was not made by an ancestor.
    #[error("its element was not made by what the change depends on")]
    ElementNotAncestor,
    /// What it says is its element is none of its object.
    #[error("its element is not in its object")]
    ElementUnknown,
    /// A mark that is not inserted, or not into a text.
    #[error("it marks something else than a text")]
    MarkOutsideText,
    /// A deletion or an increment that inserts.
    #[error("it inserts a deletion or an increment")]
    InsertsNothing,
    /// Automerge panics when it reads the spans of a text in which something was incremented.
    #[error("it increments in a text")]
    IncrementInText,
    /// A deletion without predecessors.
    #[error("it deletes nothing")]
    DeletesNothing,
    /// An insert with predecessors.
    #[error("it inserts and replaces at once")]
    InsertReplaces,
    /// Predecessors that do not ascend.
    #[error("what it replaces is listed out of order or twice")]
    PredecessorsUnordered,
    /// A predecessor was not made by an ancestor.
    #[error("it replaces what the change does not depend on")]
    PredecessorNotAncestor,
    /// A predecessor is a deletion, an increment, or nothing at all.
    #[error("it replaces something that cannot be replaced")]
    PredecessorUnknown,
    /// A predecessor is in another object, at another key or on another element.
    #[error("it replaces something in another place")]
    PredecessorElsewhere,
    /// The operation before a mark's end is no beginning of a mark in the same text.
    #[error("it ends a mark that was not begun")]
    EndWithoutBegin,
    /// A mark's end lies before its beginning.
    #[error("it ends a mark before its beginning")]
    EndBeforeBegin,
}
