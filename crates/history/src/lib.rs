//! One document as its change graph: chunks, log, operation directory, structural check.

mod chunk;

pub use chunk::{
    Action, Change, Chunk, ChunkError, Key, Limits, Malformed, ObjectKind, OpRef, Operation,
    Operations, read_change, read_chunks,
};
