//! The sync protocol on a history: one peer's standing on one document.
//!
//! This speaks the protocol of `automerge::sync` without a document: all that it asks is which
//! changes exist and who depends on whom. [`Message`] is the bytes, [`Standing`] what is known of
//! one peer. The rules R1 to R11 that the comments name are in `docs/protocol.md`.

mod bloom;
mod message;
pub mod planted;
mod standing;

pub use bloom::{BLOOM_PROBES_MAX, Bloom, BloomError};
pub use message::{Flags, HASHES_MAX, HAVES_MAX, Have, ITEMS_MAX, Message, MessageError, Reply};
pub use standing::{Answer, Changes, Standing, Urgency};
