//! The structural check is held to Automerge in both directions: what it accepts applies, saves,
//! loads and reads in any causal order; what honest clients make it accepts.

mod craft;
mod crdt;
mod graph;
mod honest;
mod older;
mod properties;
mod raw;
mod table;
