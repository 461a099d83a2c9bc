//! The handshake: what comes before a session.

use std::collections::BTreeMap;

use model::PeerId;
use wire::{Message, PROTOCOL_VERSION};

use crate::{Identity, SessionId};

/// Who is connected under which name.
#[derive(Debug, Default)]
pub struct Lobby {
    peers: BTreeMap<PeerId, SessionId>,
}

/// A peer has joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The frame to answer with.
    pub answer: Vec<u8>,
    /// The connection that had this name until now; it is to be closed. A client that lost its
    /// connection comes back before the server has noticed.
    pub replaces: Option<SessionId>,
}

/// A peer cannot join.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The first message was something else.
    #[error("expected a join message first")]
    NotJoin,
    /// It speaks no version of the protocol that we do.
    #[error("unsupported protocol version")]
    Version,
}

impl Lobby {
    /// The first message of a connection.
    ///
    /// # Errors
    /// When the peer cannot join; the connection is closed after saying so.
    pub fn join(
        &mut self,
        me: &Identity,
        session: SessionId,
        message: &Message<'_>,
    ) -> Result<Joined, Refused> {
        let Message::Join { sender, versions, .. } = message else { return Err(Refused::NotJoin) };
        if !versions.iter().any(|version| version == PROTOCOL_VERSION) {
            return Err(Refused::Version);
        }
        let mut answer = Vec::new();
        let metadata =
            wire::PeerMetadata { storage_id: Some(me.storage.clone()), is_ephemeral: false };
        let peer = Message::Peer {
            sender: me.peer.clone(),
            target: sender.clone(),
            metadata,
            version: PROTOCOL_VERSION.to_owned(),
        };
        wire::encode(&peer, &mut answer);
        Ok(Joined { answer, replaces: self.peers.insert(sender.clone(), session) })
    }

    /// A connection has ended.
    pub fn left(&mut self, peer: &PeerId, session: SessionId) {
        if self.peers.get(peer) == Some(&session) {
            self.peers.remove(peer);
        }
    }

    /// How many peers are connected.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::StorageId;

    fn me() -> Identity {
        Identity {
            peer: PeerId::new("server").unwrap(),
            storage: StorageId::new("the-store").unwrap(),
        }
    }

    fn join(name: &str, version: &str) -> Message<'static> {
        Message::Join {
            sender: PeerId::new(name).unwrap(),
            metadata: wire::PeerMetadata::default(),
            versions: vec![version.to_owned()],
        }
    }

    #[test]
    fn a_peer_that_joins_again_takes_over_from_its_old_connection() {
        let (mut lobby, me) = (Lobby::default(), me());
        let first = lobby.join(&me, SessionId(1), &join("ann", "1")).unwrap();
        assert_eq!(first.replaces, None);
        let second = lobby.join(&me, SessionId(2), &join("ann", "1")).unwrap();
        assert_eq!(second.replaces, Some(SessionId(1)));
        lobby.left(&PeerId::new("ann").unwrap(), SessionId(1));
        assert_eq!(lobby.len(), 1, "the old connection's end does not remove the new one");
        lobby.left(&PeerId::new("ann").unwrap(), SessionId(2));
        assert!(lobby.is_empty());
    }

    #[test]
    fn the_answer_names_a_store_that_outlives_the_connection() {
        let joined = Lobby::default().join(&me(), SessionId(1), &join("ann", "1")).unwrap();
        let Message::Peer { target, metadata, version, .. } = wire::decode(&joined.answer).unwrap()
        else {
            panic!("not a peer message")
        };
        assert_eq!((target.as_str(), version.as_str()), ("ann", "1"));
        assert_eq!(metadata.storage_id, Some(me().storage));
        assert!(!metadata.is_ephemeral);
    }

    #[test]
    fn who_does_not_join_first_or_speaks_another_version_is_refused() {
        let (mut lobby, me) = (Lobby::default(), me());
        let refused = lobby.join(&me, SessionId(1), &join("ann", "2"));
        assert_eq!(refused, Err(Refused::Version));
        let leave = Message::Leave { sender: PeerId::new("ann").unwrap() };
        assert_eq!(lobby.join(&me, SessionId(1), &leave), Err(Refused::NotJoin));
    }
}
