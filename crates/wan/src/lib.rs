//! A wide-area network in user space, for tests and demonstrations: TCP connections through it take
//! their time, and break when told to.
//!
//! A [`Wan`] has links. Each listens on an address and forwards every connection to a target; the way
//! *there* is from whoever connects to the target, the way *back* is from the target. Each way has
//! its own [`Conditions`], which can be changed at any time, for connections that are open as well:
//!
//! - *latency* and *jitter*: a byte is delivered so much later, never before one that came earlier;
//! - *bandwidth*, which all connections of a link share. What waits for its turn is not taken in
//!   before its turn is near, so a connection with little to say is not stuck behind one with much;
//! - *stalled*: bytes are taken in until the [buffer](BUFFER_BYTES) is full, and nothing is delivered;
//! - *cut*: nothing is taken in and nothing is delivered, not even that a process at the other end
//!   has died. As with a real cable, whoever waits long enough goes on where it was.
//!
//! [`LinkHandle::reset`] ends all open connections as a reset does, in the middle of whatever it is.
//!
//! What it cannot do, because it sees streams and not packets: lose or reorder single packets, or
//! delay the handshake of TCP itself. A connection through a link that is cut or stalled is accepted,
//! and the target is dialled when it is open again.
//!
//! Memory is bounded by [`BUFFER_BYTES`] per way and connection, and [`CONNECTIONS_MAX`] per link;
//! more than that waits in the kernels of both sides.

mod conditions;
pub mod control;
mod link;
mod pipe;

pub use conditions::{Conditions, Flow, LATENCY_MS_MAX, OutOfBounds, Way};
pub use link::{CONNECTIONS_MAX, LinkError, LinkHandle, Stats, Wan, WayStats};
pub use pipe::BUFFER_BYTES;
