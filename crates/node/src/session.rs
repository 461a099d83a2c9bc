//! What a shard knows of one connection.

use std::collections::BTreeSet;

use model::{DocumentId, PeerId, StorageId};

/// One connection as one shard sees it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) peer: PeerId,
    pub(crate) storage: Option<StorageId>,
    /// The documents of this shard that the peer has spoken of.
    pub(crate) documents: BTreeSet<DocumentId>,
    /// Documents with something to tell, which waits for room on the way to the socket.
    pub(crate) waiting: BTreeSet<DocumentId>,
    /// Bytes on the way to the socket.
    pub(crate) in_flight: usize,
    /// Stores whose heads the peer wants to hear of.
    pub(crate) subscriptions: BTreeSet<StorageId>,
    /// We have asked for the connection to be ended; nothing more is done for it.
    pub(crate) closing: bool,
}

impl Session {
    pub(crate) fn new(peer: PeerId, storage: Option<StorageId>) -> Self {
        Self {
            peer,
            storage,
            documents: BTreeSet::new(),
            waiting: BTreeSet::new(),
            in_flight: 0,
            subscriptions: BTreeSet::new(),
            closing: false,
        }
    }
}
