//! One document as its change graph: chunks, log, operation directory, structural check.
//!
//! Nothing here opens a document. A change is read as far as its own bytes go ([`chunk`]), checked
//! against what the document is known to hold ([`check`], [`directory`]) and put into the log of its
//! document ([`History`]), which answers every question of the sync protocol from the change graph
//! ([`graph`]).

mod bits;
pub mod check;
pub mod chunk;
pub mod directory;
mod frontier;
pub mod graph;
pub mod index;
mod log;
pub mod planted;
pub mod varint;

pub use chunk::{
    Action, Change, Chunk, ChunkError, Key, Limits, Malformed, ObjectKind, OpRef, Operation,
    Operations, read_change, read_chunks,
};
pub use index::IndexError;
pub use log::{
    Door, History, OPERATION_GAP_MAX, Offer, PENDING_BYTES_MAX, PENDING_CHANGES_MAX, REFUSED_MAX,
    Refusal, Resolved, RestoreError,
};
