use std::convert::Infallible;

use minicbor::Encoder;
use model::{DocumentId, PeerId, StorageId};

use crate::cbor::FLOAT_EXACT_MAX;
use crate::message::{Message, PeerMetadata, RemoteHeads};

/// Appends the frame of `message` to `out`.
///
/// Maps and lengths are minimal, fields that are not there are left out, and whole numbers above 32
/// bits are float64 as cbor-x writes them (it reads larger integers as `BigInt`).
///
/// # Panics
/// When a `sync`, `request` or `ephemeral` message has empty `data`: stock clients throw on it.
/// [`decode`](crate::decode) never returns such a message.
pub fn encode(message: &Message<'_>, out: &mut Vec<u8>) {
    match message {
        Message::Sync { sender, target, document, data } => {
            Tail::sync(document, data).write_frame(sender, target, out);
        }
        Message::Request { sender, target, document, data } => {
            Tail { kind: "request", ..Tail::sync(document, data) }.write_frame(sender, target, out);
        }
        Message::Ephemeral { sender, target, document, session, count, data } => {
            Tail::ephemeral(document, session, *count, data).write_frame(sender, target, out);
        }
        _ => write(out, |e| small_message(e, message)),
    }
}

/// The part of a frame that is the same for every receiver: all that follows `targetId`.
///
/// Made once per payload; [`Tail::frame`] then costs one short prefix and one copy per receiver.
/// Shells that can write two slices at once need no copy: [`Tail::head`] and [`Tail::as_bytes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    kind: &'static str,
    /// How many entries the whole map has.
    fields: u64,
    bytes: Vec<u8>,
}

impl Tail {
    /// The tail of a `sync` message.
    ///
    /// # Panics
    /// When `data` is empty.
    pub fn sync(document: &DocumentId, data: &[u8]) -> Self {
        assert!(!data.is_empty(), "a sync message is never empty");
        let mut bytes = Vec::with_capacity(data.len() + 128);
        write(&mut bytes, |e| {
            e.str("documentId")?.str(&document.to_string())?.str("data")?.bytes(data)?;
            Ok(())
        });
        Self { kind: "sync", fields: 5, bytes }
    }

    /// The tail of an `ephemeral` message: what the author sent, untouched.
    ///
    /// # Panics
    /// When `data` is empty.
    pub fn ephemeral(document: &DocumentId, session: &str, count: u64, data: &[u8]) -> Self {
        assert!(!data.is_empty(), "stock clients throw on an empty ephemeral message");
        let mut bytes = Vec::with_capacity(data.len() + session.len() + 160);
        write(&mut bytes, |e| {
            e.str("documentId")?.str(&document.to_string())?.str("sessionId")?.str(session)?;
            e.str("count")?;
            number(e, count)?;
            e.str("data")?.bytes(data)?;
            Ok(())
        });
        Self { kind: "ephemeral", fields: 7, bytes }
    }

    /// The whole frame for one receiver.
    pub fn frame(&self, sender: &PeerId, target: &PeerId) -> Vec<u8> {
        let names = sender.as_str().len() + target.as_str().len();
        let mut out = Vec::with_capacity(self.bytes.len() + names + 64);
        self.write_frame(sender, target, &mut out);
        out
    }

    /// What comes before [`Tail::as_bytes`] in the frame for one receiver; appended to `out`.
    pub fn head(&self, sender: &PeerId, target: &PeerId, out: &mut Vec<u8>) {
        write(out, |e| {
            e.map(self.fields)?.str("type")?.str(self.kind)?;
            e.str("senderId")?.str(sender.as_str())?.str("targetId")?.str(target.as_str())?;
            Ok(())
        });
    }

    /// The bytes that every receiver's frame ends with.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn write_frame(&self, sender: &PeerId, target: &PeerId, out: &mut Vec<u8>) {
        self.head(sender, target, out);
        out.extend_from_slice(&self.bytes);
    }
}

type Writer<'a> = Encoder<&'a mut Vec<u8>>;
type Written = Result<(), minicbor::encode::Error<Infallible>>;

fn write(out: &mut Vec<u8>, what: impl FnOnce(&mut Writer<'_>) -> Written) {
    what(&mut Encoder::new(out)).expect("a vector takes every byte");
}

/// The messages that are short and go to one receiver.
fn small_message(e: &mut Writer<'_>, message: &Message<'_>) -> Written {
    match message {
        Message::Join { sender, metadata, versions } => {
            e.map(4)?.str("type")?.str("join")?.str("senderId")?.str(sender.as_str())?;
            peer_metadata(e, metadata)?;
            e.str("supportedProtocolVersions")?.array(versions.len() as u64)?;
            for version in versions {
                e.str(version)?;
            }
        }
        Message::Peer { sender, target, metadata, version } => {
            between(e, 5, "peer", sender, target)?;
            peer_metadata(e, metadata)?;
            e.str("selectedProtocolVersion")?.str(version)?;
        }
        Message::DocUnavailable { sender, target, document } => {
            between(e, 4, "doc-unavailable", sender, target)?;
            e.str("documentId")?.str(&document.to_string())?;
        }
        Message::RemoteSubscriptionChange { sender, target, add, remove } => {
            let lists = [("add", add), ("remove", remove)];
            let filled = lists.iter().filter(|(_, ids)| !ids.is_empty());
            let fields = 3 + filled.clone().count() as u64;
            between(e, fields, "remote-subscription-change", sender, target)?;
            for (name, ids) in filled {
                e.str(name)?;
                storage_ids(e, ids)?;
            }
        }
        Message::RemoteHeadsChanged { sender, target, document, heads } => {
            between(e, 5, "remote-heads-changed", sender, target)?;
            e.str("documentId")?.str(&document.to_string())?;
            e.str("newHeads")?.map(heads.len() as u64)?;
            for entry in heads {
                remote_heads(e, entry)?;
            }
        }
        Message::Error { sender, target, message } => {
            let peers = [("senderId", sender), ("targetId", target)];
            let named = peers.iter().filter_map(|(name, id)| id.as_ref().map(|id| (name, id)));
            e.map(2 + named.clone().count() as u64)?.str("type")?.str("error")?;
            for (name, id) in named {
                e.str(name)?.str(id.as_str())?;
            }
            e.str("message")?.str(message)?;
        }
        Message::Leave { sender } => {
            e.map(2)?.str("type")?.str("leave")?.str("senderId")?.str(sender.as_str())?;
        }
        Message::Unknown { kind } => {
            e.map(1)?.str("type")?.str(kind)?;
        }
        Message::Sync { .. } | Message::Request { .. } | Message::Ephemeral { .. } => {
            unreachable!("written by way of a tail")
        }
    }
    Ok(())
}

fn between(
    e: &mut Writer<'_>,
    fields: u64,
    kind: &str,
    sender: &PeerId,
    target: &PeerId,
) -> Written {
    e.map(fields)?.str("type")?.str(kind)?;
    e.str("senderId")?.str(sender.as_str())?.str("targetId")?.str(target.as_str())?;
    Ok(())
}

fn peer_metadata(e: &mut Writer<'_>, metadata: &PeerMetadata) -> Written {
    e.str("peerMetadata")?.map(1 + u64::from(metadata.storage_id.is_some()))?;
    if let Some(id) = &metadata.storage_id {
        e.str("storageId")?.str(id.as_str())?;
    }
    e.str("isEphemeral")?.bool(metadata.is_ephemeral)?;
    Ok(())
}

fn storage_ids(e: &mut Writer<'_>, ids: &[StorageId]) -> Written {
    e.array(ids.len() as u64)?;
    for id in ids {
        e.str(id.as_str())?;
    }
    Ok(())
}

fn remote_heads(e: &mut Writer<'_>, entry: &RemoteHeads) -> Written {
    e.str(entry.storage.as_str())?.map(2)?.str("heads")?.array(entry.heads.len() as u64)?;
    for head in &entry.heads {
        e.str(&head.to_base58check())?;
    }
    e.str("timestamp")?;
    number(e, entry.timestamp_ms)
}

fn number(e: &mut Writer<'_>, number: u64) -> Written {
    match number {
        0..=0xffff_ffff => e.u64(number)?,
        0x1_0000_0000..=FLOAT_EXACT_MAX => e.f64(number as f64)?,
        _ => e.u64(number)?,
    };
    Ok(())
}
