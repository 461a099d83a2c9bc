//! Ids, hashes, heads: parse, print, compare, nothing else.
//!
//! Every identifier that crosses an edge of the system (a socket, a store, a command line) becomes
//! one of these types there and stays one inside. None of them can be built from a bare string
//! without being checked.

mod actor;
mod document;
mod hash;
mod peer;
mod url;

pub use actor::{ActorId, ActorTooLong};
pub use document::{DocumentId, ParseDocumentIdError};
pub use hash::{ChangeHash, Heads, ParseHashError};
pub use peer::{NameTooLong, PeerId, RegionName, StorageId};
pub use url::{DocumentUrl, ParseUrlError};
