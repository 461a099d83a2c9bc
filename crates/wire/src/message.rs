use std::borrow::Cow;

use model::{DocumentId, Heads, PeerId, StorageId};

/// The only version of the protocol there is (`supportedProtocolVersions`, `selectedProtocolVersion`).
pub const PROTOCOL_VERSION: &str = "1";

/// One message of the automerge-repo network protocol.
///
/// Payloads borrow from the frame they were read from; [`Message::into_owned`] cuts that tie.
/// `sender` and `target` are `senderId` and `targetId` on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// `join`: the first message of a client.
    Join {
        /// How the client calls itself.
        sender: PeerId,
        /// What the client says of its storage.
        metadata: PeerMetadata,
        /// The protocol versions it speaks; `["1"]` where it does not say.
        versions: Vec<String>,
    },
    /// `peer`: the server's answer to `join`.
    Peer {
        /// How the server calls itself.
        sender: PeerId,
        /// The client that joined.
        target: PeerId,
        /// What the server says of its storage.
        metadata: PeerMetadata,
        /// The protocol version that the server chose.
        version: String,
    },
    /// `sync`: an Automerge sync message.
    Sync {
        /// Who sends.
        sender: PeerId,
        /// Who is meant.
        target: PeerId,
        /// The document.
        document: DocumentId,
        /// The sync message; never empty.
        data: Cow<'a, [u8]>,
    },
    /// `request`: a sync message from a peer that has nothing of the document and wants to be told
    /// if nobody else has anything either.
    Request {
        /// Who sends.
        sender: PeerId,
        /// Who is meant.
        target: PeerId,
        /// The document.
        document: DocumentId,
        /// The sync message; never empty.
        data: Cow<'a, [u8]>,
    },
    /// `doc-unavailable`: the sender has nothing of the document, or will not show it.
    DocUnavailable {
        /// Who sends.
        sender: PeerId,
        /// Who is meant.
        target: PeerId,
        /// The document.
        document: DocumentId,
    },
    /// `ephemeral`: presence and other things that are never stored.
    Ephemeral {
        /// The author, not the relay: it stays the same on every hop.
        sender: PeerId,
        /// Who is meant on this hop.
        target: PeerId,
        /// The document.
        document: DocumentId,
        /// The author's stream (`sessionId`); it says nothing about a connection.
        session: String,
        /// The place in the stream. Receivers drop what does not count upwards.
        count: u64,
        /// CBOR of the application; never empty.
        data: Cow<'a, [u8]>,
    },
    /// `remote-subscription-change`: which stores' heads the sender wants to hear of.
    RemoteSubscriptionChange {
        /// Who sends.
        sender: PeerId,
        /// Who is meant.
        target: PeerId,
        /// Stores to tell about from now on.
        add: Vec<StorageId>,
        /// Stores to fall silent about.
        remove: Vec<StorageId>,
    },
    /// `remote-heads-changed`: what stores are known to hold of a document.
    RemoteHeadsChanged {
        /// Who sends.
        sender: PeerId,
        /// Who is meant.
        target: PeerId,
        /// The document.
        document: DocumentId,
        /// One entry per store, in the order of the frame (`newHeads`).
        heads: Vec<RemoteHeads>,
    },
    /// `error`: said before a connection is closed.
    Error {
        /// Who sends; samod does not say.
        sender: Option<PeerId>,
        /// Who is meant; samod does not say.
        target: Option<PeerId>,
        /// The reason, for people.
        message: String,
    },
    /// `leave`: a 1.x client, or samod, goes away.
    Leave {
        /// Who goes.
        sender: PeerId,
    },
    /// A type that this protocol does not have, to be ignored. Also an `ephemeral` without data,
    /// which stock clients cannot read.
    Unknown {
        /// The `type` of the message, cut to [`TEXT_BYTES_MAX`](crate::TEXT_BYTES_MAX) bytes.
        kind: String,
    },
}

impl Message<'_> {
    /// The same message with its payload copied, so that the frame can go.
    pub fn into_owned(self) -> Message<'static> {
        let own = |data: Cow<'_, [u8]>| Cow::Owned(data.into_owned());
        match self {
            Message::Sync { sender, target, document, data } => {
                Message::Sync { sender, target, document, data: own(data) }
            }
            Message::Request { sender, target, document, data } => {
                Message::Request { sender, target, document, data: own(data) }
            }
            Message::Ephemeral { sender, target, document, session, count, data } => {
                Message::Ephemeral { sender, target, document, session, count, data: own(data) }
            }
            Message::Join { sender, metadata, versions } => {
                Message::Join { sender, metadata, versions }
            }
            Message::Peer { sender, target, metadata, version } => {
                Message::Peer { sender, target, metadata, version }
            }
            Message::DocUnavailable { sender, target, document } => {
                Message::DocUnavailable { sender, target, document }
            }
            Message::RemoteSubscriptionChange { sender, target, add, remove } => {
                Message::RemoteSubscriptionChange { sender, target, add, remove }
            }
            Message::RemoteHeadsChanged { sender, target, document, heads } => {
                Message::RemoteHeadsChanged { sender, target, document, heads }
            }
            Message::Error { sender, target, message } => {
                Message::Error { sender, target, message }
            }
            Message::Leave { sender } => Message::Leave { sender },
            Message::Unknown { kind } => Message::Unknown { kind },
        }
    }

    /// The `senderId`, where the message has one.
    pub fn sender(&self) -> Option<&PeerId> {
        match self {
            Message::Join { sender, .. }
            | Message::Peer { sender, .. }
            | Message::Sync { sender, .. }
            | Message::Request { sender, .. }
            | Message::DocUnavailable { sender, .. }
            | Message::Ephemeral { sender, .. }
            | Message::RemoteSubscriptionChange { sender, .. }
            | Message::RemoteHeadsChanged { sender, .. }
            | Message::Leave { sender } => Some(sender),
            Message::Error { sender, .. } => sender.as_ref(),
            Message::Unknown { .. } => None,
        }
    }

    /// The document that the message is about, if it is about one.
    pub fn document(&self) -> Option<&DocumentId> {
        match self {
            Message::Sync { document, .. }
            | Message::Request { document, .. }
            | Message::DocUnavailable { document, .. }
            | Message::Ephemeral { document, .. }
            | Message::RemoteHeadsChanged { document, .. } => Some(document),
            _ => None,
        }
    }
}

/// What a peer says of its storage in the handshake (`peerMetadata`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerMetadata {
    /// The store that outlives the connection; none for a client that keeps nothing.
    pub storage_id: Option<StorageId>,
    /// Whether the peer asks that no sync state is kept for it.
    pub is_ephemeral: bool,
}

/// What one store is known to hold of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteHeads {
    /// The store.
    pub storage: StorageId,
    /// The heads it holds.
    pub heads: Heads,
    /// When it said so: milliseconds since 1970 by its own clock. The newest wins.
    pub timestamp_ms: u64,
}
