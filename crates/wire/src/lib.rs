//! automerge-repo messages to CBOR and back; nothing but bytes.
//!
//! One binary WebSocket message is one CBOR map (`docs/protocol.md`). [`decode`] takes what stock
//! clients send, in every shape they are known to send it; [`encode`] writes what stock clients and
//! samod read. [`Tail`] is for fan-out: the part of a frame that is the same for every receiver.
//!
//! What is absent: any knowledge of what is inside `data`, and any memory of earlier messages.

mod cbor;
mod decode;
mod encode;
mod message;

pub use decode::{
    DEPTH_MAX, DecodeError, HEADS_MAX, STORAGE_IDS_MAX, TEXT_BYTES_MAX, VERSIONS_MAX, decode,
};
pub use encode::{Tail, encode};
pub use message::{Message, PROTOCOL_VERSION, PeerMetadata, RemoteHeads};
