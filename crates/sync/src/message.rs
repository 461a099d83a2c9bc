//! Sync messages as bytes: the format of `automerge::sync::Message`, both versions.
//!
//! `version ‖ heads ‖ need ‖ have… ‖ items… ‖ flags`, where each list has its length before it. Old
//! peers end before the flags; that they are there at all says that a peer reads version 2.

use std::ops::Range;

use history::varint::{Malformed, Reader, put};
use model::{ChangeHash, Heads};

use crate::bloom::{Bloom, BloomError};
use crate::planted::{Bug, planted};

/// The most hashes in one list of a message.
pub const HASHES_MAX: usize = 100_000;
/// The most `have` entries in a message. Stock clients send one.
pub const HAVES_MAX: usize = 16;
/// The most items (chunks, in version 1) in a message.
pub const ITEMS_MAX: usize = 1_000_000;

const VERSION_1: u8 = 0x42;
const VERSION_2: u8 = 0x43;
/// Tells old peers "version 2 is understood"; new ones take it from the flags being there.
const LEGACY_VERSION_2: u8 = 0x02;
const BITFIELD: u8 = 0x80;

/// What a peer says it holds: the ancestors of `last_sync`, and what is in the filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Have {
    /// Heads that both had the last time they were level.
    pub last_sync: Vec<ChangeHash>,
    /// The changes since.
    pub bloom: Bloom,
}

impl Have {
    /// "Nothing since the beginning": what a reset carries.
    pub fn nothing() -> Self {
        Self { last_sync: Vec::new(), bloom: Bloom::empty() }
    }

    /// Whether this is [`Have::nothing`].
    pub fn is_nothing(&self) -> bool {
        self.last_sync.is_empty() && self.bloom.is_empty()
    }
}

/// The flags at the end of a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// The receiver should forget what it has sent and start over.
    pub const SYNC_RESET: Self = Self(1);
    /// The sender will not apply changes.
    pub const READ_ONLY: Self = Self(2);
    /// The sender understands [`Flags::SYNC_RESET`].
    pub const SUPPORTS_SYNC_RESET: Self = Self(4);

    /// Whether all of `flags` are set.
    pub fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Both sets of flags.
    pub fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }
}

/// A message that was received. The items stay where they are in the frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The sender's heads.
    pub heads: Heads,
    /// Changes that the sender asks for.
    pub need: Vec<ChangeHash>,
    /// What the sender holds.
    pub have: Vec<Have>,
    /// Where in the bytes each item (one or more chunks) is.
    pub items: Vec<Range<usize>>,
    /// The flags; absent from peers that only know version 1.
    pub flags: Option<Flags>,
}

impl Message {
    /// Reads a message.
    ///
    /// # Errors
    /// When the bytes are no message or exceed a bound. Nothing is allocated for what is not there.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut reader = Reader::new(bytes);
        match reader.byte()? {
            VERSION_1 | VERSION_2 => {}
            other => return Err(MessageError::Version(other)),
        }
        let heads = Heads::from(hashes(&mut reader)?);
        let need = hashes(&mut reader)?;
        let haves = bounded(&mut reader, HAVES_MAX, "have entries")?;
        let mut have = Vec::with_capacity(haves);
        for _ in 0..haves {
            let last_sync = hashes(&mut reader)?;
            let length = reader.count()?;
            have.push(Have { last_sync, bloom: Bloom::decode(reader.bytes(length)?)? });
        }
        let count = bounded(&mut reader, ITEMS_MAX, "items")?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            let length = reader.count()?;
            let start = bytes.len() - reader.left();
            reader.bytes(length)?;
            items.push(start..start + length);
        }
        let flags = if reader.is_empty() {
            None
        } else {
            let length = reader.count()?;
            let bits = reader.bytes(length)?.iter().filter(|byte| **byte & BITFIELD != 0);
            Some(Flags(bits.fold(0, |flags, byte| flags | (byte & !BITFIELD))))
        };
        Ok(Self { heads, need, have, items, flags })
    }

    /// Whether this is the crate's reset: "something you said is unknown to me, start over".
    ///
    /// A reset carries no read-only flag and no need, whatever its sender is and needs (rule R6).
    pub fn is_reset(&self) -> bool {
        !self.heads.is_empty()
            && self.items.is_empty()
            && self.need.is_empty()
            && matches!(self.have.as_slice(), [have] if have.is_nothing())
    }
}

/// A message to send: everything but the changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Our heads, all of them durable.
    pub heads: Heads,
    /// What we ask for, ascending.
    pub need: Vec<ChangeHash>,
    /// What we say we hold: nothing, or one entry.
    pub have: Option<Have>,
    /// [`Flags::SUPPORTS_SYNC_RESET`] is always among them.
    pub flags: Flags,
}

impl Reply {
    /// Encodes a message whose items are whole chunks.
    pub fn encode<'a>(&self, chunks: impl ExactSizeIterator<Item = &'a [u8]> + Clone) -> Vec<u8> {
        let bytes: usize = chunks.clone().map(|chunk| chunk.len() + 5).sum();
        let mut out = self.start(VERSION_1, bytes);
        put(&mut out, chunks.len() as u64);
        for chunk in chunks {
            put(&mut out, chunk.len() as u64);
            out.extend_from_slice(chunk);
        }
        self.finish(out)
    }

    /// Encodes a version 2 message: one item that is the concatenation of `parts`.
    pub fn encode_joined<'a>(
        &self,
        parts: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
    ) -> Vec<u8> {
        let bytes: usize = parts.clone().map(<[u8]>::len).sum();
        let mut out = self.start(VERSION_2, bytes + 10);
        put(&mut out, 1);
        put(&mut out, bytes as u64);
        parts.for_each(|part| out.extend_from_slice(part));
        self.finish(out)
    }

    fn start(&self, version: u8, room: usize) -> Vec<u8> {
        let hashes = self.heads.len() + self.need.len() + 2;
        let mut out = Vec::with_capacity(room + hashes * 32 + 32);
        out.push(version);
        if planted(Bug::HeadsUnsorted) {
            let reversed: Vec<ChangeHash> = self.heads.as_slice().iter().rev().copied().collect();
            put_hashes(&mut out, &reversed);
        } else {
            put_hashes(&mut out, self.heads.as_slice());
        }
        put_hashes(&mut out, &self.need);
        put(&mut out, u64::from(self.have.is_some()));
        if let Some(have) = &self.have {
            put_hashes(&mut out, &have.last_sync);
            let mut bloom = Vec::new();
            have.bloom.encode(&mut bloom);
            put(&mut out, bloom.len() as u64);
            out.extend_from_slice(&bloom);
        }
        out
    }

    fn finish(&self, mut out: Vec<u8>) -> Vec<u8> {
        let flags = self.flags.with(Flags::SUPPORTS_SYNC_RESET);
        out.extend_from_slice(&[2, LEGACY_VERSION_2, BITFIELD | flags.0]);
        out
    }
}

/// Why bytes are not a sync message that is acted on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The first byte names no version of the protocol.
    #[error("sync message of unknown version {0:#04x}")]
    Version(u8),
    /// The bytes end too early, or a length is larger than what follows.
    #[error("sync message is truncated or malformed")]
    Malformed,
    /// A list is longer than its bound.
    #[error("sync message with {count} {what}; at most {max} are accepted")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many were announced.
        count: usize,
        /// The bound.
        max: usize,
    },
    /// The Bloom filter cannot be used.
    #[error(transparent)]
    Bloom(#[from] BloomError),
}

impl From<Malformed> for MessageError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

fn bounded(reader: &mut Reader<'_>, max: usize, what: &'static str) -> Result<usize, MessageError> {
    let count = reader.count()?;
    if count > max {
        return Err(MessageError::TooMany { what, count, max });
    }
    Ok(count)
}

fn hashes(reader: &mut Reader<'_>) -> Result<Vec<ChangeHash>, MessageError> {
    let count = bounded(reader, HASHES_MAX, "hashes")?;
    if count > reader.left() / 32 {
        return Err(MessageError::Malformed);
    }
    (0..count).map(|_| Ok(ChangeHash(reader.array()?))).collect()
}

fn put_hashes(out: &mut Vec<u8>, hashes: &[ChangeHash]) {
    put(out, hashes.len() as u64);
    hashes.iter().for_each(|hash| out.extend_from_slice(hash.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use automerge::sync::{self, SyncDoc};
    use automerge::transaction::Transactable;

    fn message_from_a_client(version: &str) -> (Vec<u8>, sync::Message) {
        let mut doc = automerge::AutoCommit::new();
        doc.put(automerge::ROOT, "key", version).unwrap();
        doc.commit();
        let mut other = automerge::Automerge::new();
        let (mut ours, mut theirs) = (sync::State::new(), sync::State::new());
        let first = other.generate_sync_message(&mut theirs).unwrap();
        doc.sync().receive_sync_message(&mut ours, first).unwrap();
        let message = doc.sync().generate_sync_message(&mut ours).unwrap();
        other.receive_sync_message(&mut theirs, message.clone()).unwrap();
        (message.clone().encode(), message)
    }

    #[test]
    fn a_message_from_the_crate_reads_as_the_crate_meant_it() {
        let (bytes, message) = message_from_a_client("x");
        let read = Message::decode(&bytes).unwrap();
        let theirs: Vec<_> = message.heads.iter().map(|hash| ChangeHash(hash.0)).collect();
        assert_eq!(read.heads.as_slice(), theirs);
        assert_eq!(read.items.len(), message.changes.len());
        for (range, chunk) in read.items.iter().zip(message.changes.iter()) {
            assert_eq!(&bytes[range.clone()], chunk);
        }
        assert!(read.flags.unwrap().contains(Flags::SUPPORTS_SYNC_RESET));
        assert!(!read.is_reset());
    }

    #[test]
    fn what_we_encode_the_crate_reads() {
        let hash = |n| ChangeHash([n; 32]);
        let reply = Reply {
            heads: Heads::from(vec![hash(2), hash(1)]),
            need: vec![hash(3)],
            have: Some(Have {
                last_sync: vec![hash(1)],
                bloom: Bloom::of([hash(4), hash(5)].into_iter()),
            }),
            flags: Flags::SYNC_RESET,
        };
        let chunks: [&[u8]; 2] = [b"one", b"three"];
        let apart = sync::Message::decode(&reply.encode(chunks.into_iter())).unwrap();
        assert_eq!(apart.version, sync::MessageVersion::V1);
        assert_eq!(apart.changes.iter().collect::<Vec<_>>(), chunks);
        assert_eq!(apart.heads.iter().map(|hash| hash.0[0]).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(apart.need.iter().map(|hash| hash.0[0]).collect::<Vec<_>>(), [3]);
        assert!(apart.have[0].bloom.contains_hash(&automerge::ChangeHash([5; 32])));
        let flags = apart.flags.unwrap();
        assert!(flags.contains(sync::MessageFlags::SYNC_RESET));
        assert!(!flags.contains(sync::MessageFlags::READ_ONLY));
        let joined = sync::Message::decode(&reply.encode_joined(chunks.into_iter())).unwrap();
        assert_eq!(joined.version, sync::MessageVersion::V2);
        assert_eq!(joined.changes.iter().collect::<Vec<_>>(), [b"onethree"]);
    }

    #[test]
    fn truncated_and_damaged_messages_are_refused_and_never_panic() {
        let (bytes, _) = message_from_a_client(&"long ".repeat(50));
        for cut in 0..bytes.len() {
            let _ = Message::decode(&bytes[..cut]);
        }
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bad = bytes.clone();
                bad[at] ^= flip;
                let _ = Message::decode(&bad);
            }
        }
        assert_eq!(Message::decode(&[0x41]), Err(MessageError::Version(0x41)));
        assert_eq!(Message::decode(&[0x42, 0xff, 0xff, 0x7f]), Err(MessageError::Malformed));
        assert_eq!(Message::decode(&[]), Err(MessageError::Malformed));
    }
}
