//! The CRDT: verify, compact, load.
