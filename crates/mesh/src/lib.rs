//! Links between regions: what one region tells another, as a value without sockets or clocks.
//!
//! A change gets a place in the *origin log* of the process that a client first handed it to, in the
//! same batch as the change itself. A [`Link`](link::Link) ships the entries of those logs to one
//! other region, each once, and resumes after any outage by comparing *vectors*: how far each side
//! holds each log durably. What logs cannot bring (a new region, a restored backup, a trimmed log) the
//! *audit* finds and *repair* mends, with the same sync messages that clients speak.
//!
//! A link knows no documents: shards hold them, and [`exchange`] is all that the two say to each other.

pub mod audit;
pub mod codec;
pub mod exchange;
pub mod frame;
pub mod handshake;
pub mod link;
pub mod origin;
pub mod planted;
pub mod sketch;

pub use exchange::{FromShard, Lane, ToShard};
pub use origin::{Entry, Item, LogId, Mark, Origin, STREAMS, Vector};
