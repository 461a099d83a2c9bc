use std::borrow::Cow;

use minicbor::Decoder;
use model::{
    ChangeHash, DocumentId, Heads, NameTooLong, ParseDocumentIdError, ParseHashError, PeerId,
    StorageId,
};

use crate::cbor;
use crate::message::{Message, PROTOCOL_VERSION, PeerMetadata, RemoteHeads};

/// How deep an unknown field may nest.
pub const DEPTH_MAX: usize = 32;
/// How many protocol versions a `join` may list.
pub const VERSIONS_MAX: usize = 16;
/// How many stores one subscription or gossip message may name, in each of its lists.
pub const STORAGE_IDS_MAX: usize = 4_096;
/// How many heads a store may be said to have of one document.
pub const HEADS_MAX: usize = 65_536;
/// The longest `sessionId`; `type`, versions and error messages are cut to this length. In bytes.
pub const TEXT_BYTES_MAX: usize = 1_024;

/// Reads one frame.
///
/// Accepts what stock clients of every version send: lengths that are not minimal, containers of
/// indefinite length, null and undefined for a field that is not there, whole numbers as floats,
/// unknown keys, keys in any order (of two equal ones the last counts), tags, and `metadata` for
/// `peerMetadata`. Only the fields of the message's own type are looked at.
///
/// Spends time and memory in proportion to the frame, whatever lengths it claims.
///
/// # Errors
/// What is wrong with the frame. The fault is always the sender's.
pub fn decode(bytes: &[u8]) -> Result<Message<'_>, DecodeError> {
    let fields = Fields::read(bytes)?;
    let kind = fields.required_text("type")?;
    Ok(match &*kind {
        "join" => Message::Join {
            sender: fields.sender()?,
            metadata: fields.metadata()?,
            versions: fields.versions()?,
        },
        "peer" => Message::Peer {
            sender: fields.sender()?,
            target: fields.target()?,
            metadata: fields.metadata()?,
            version: cut(&fields.required_text("selectedProtocolVersion")?),
        },
        "sync" => Message::Sync {
            sender: fields.sender()?,
            target: fields.target()?,
            document: fields.document()?,
            data: fields.filled_data()?,
        },
        "request" => Message::Request {
            sender: fields.sender()?,
            target: fields.target()?,
            document: fields.document()?,
            data: fields.filled_data()?,
        },
        "doc-unavailable" => Message::DocUnavailable {
            sender: fields.sender()?,
            target: fields.target()?,
            document: fields.document()?,
        },
        "ephemeral" => fields.ephemeral()?,
        "remote-subscription-change" => Message::RemoteSubscriptionChange {
            sender: fields.sender()?,
            target: fields.target()?,
            add: fields.storage_ids("add")?,
            remove: fields.storage_ids("remove")?,
        },
        "remote-heads-changed" => Message::RemoteHeadsChanged {
            sender: fields.sender()?,
            target: fields.target()?,
            document: fields.document()?,
            heads: fields.remote_heads()?,
        },
        "error" => Message::Error {
            sender: fields.peer("senderId")?,
            target: fields.peer("targetId")?,
            message: fields.text("message")?.map(|text| cut(&text)).unwrap_or_default(),
        },
        "leave" => Message::Leave { sender: fields.sender()? },
        other => Message::Unknown { kind: cut(other) },
    })
}

/// Why a frame is not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not well-formed CBOR, or end too early.
    #[error("not CBOR")]
    NotCbor,
    /// CBOR, but not a map.
    #[error("not a map")]
    NotAMap,
    /// Bytes follow the map.
    #[error("bytes after the message")]
    TrailingBytes,
    /// Containers nest deeper than [`DEPTH_MAX`].
    #[error("nested deeper than {DEPTH_MAX}")]
    TooDeep,
    /// The message's type needs this field.
    #[error("'{0}' is missing")]
    MissingField(&'static str),
    /// The field is there and is something else than it should be.
    #[error("'{field}' has the wrong type")]
    WrongType {
        /// The field, or the one that holds it.
        field: &'static str,
    },
    /// A list is longer than its bound.
    #[error("more than {max} entries in '{field}'")]
    TooMany {
        /// The list.
        field: &'static str,
        /// The bound.
        max: usize,
    },
    /// A text is longer than its bound in bytes.
    #[error("'{field}' is longer than {max} bytes")]
    TooLong {
        /// The text.
        field: &'static str,
        /// The bound.
        max: usize,
    },
    /// A peer id or storage id is empty or too long.
    #[error("in '{field}': {reason}")]
    BadName {
        /// The field.
        field: &'static str,
        /// What is wrong.
        reason: NameTooLong,
    },
    /// The document id is none.
    #[error("in 'documentId': {0}")]
    BadDocumentId(#[from] ParseDocumentIdError),
    /// A head is no change hash.
    #[error("in 'heads': {0}")]
    BadHead(#[from] ParseHashError),
    /// A sync message of no bytes.
    #[error("'data' is empty")]
    EmptyData,
}

// Types are asked for before a value is read, so an error of the crate can only mean bad bytes.
impl From<minicbor::decode::Error> for DecodeError {
    fn from(_: minicbor::decode::Error) -> Self {
        Self::NotCbor
    }
}

/// Every field that any message has.
const FIELDS: [&str; 15] = [
    "type",
    "senderId",
    "targetId",
    "documentId",
    "data",
    "sessionId",
    "count",
    "peerMetadata",
    "metadata",
    "supportedProtocolVersions",
    "selectedProtocolVersion",
    "add",
    "remove",
    "newHeads",
    "message",
];

/// Where the values of a frame are. The type may come last, so nothing is read before all are found.
struct Fields<'a> {
    bytes: &'a [u8],
    positions: [Option<usize>; FIELDS.len()],
}

impl<'a> Fields<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut positions = [None; FIELDS.len()];
        let mut decoder = Decoder::new(bytes);
        cbor::each_entry(&mut decoder, |key, decoder| {
            if let Some(field) = FIELDS.iter().position(|name| *name == key) {
                positions[field] = Some(decoder.position()).filter(|_| !absent(decoder));
            }
            cbor::skip(decoder)
        })?
        .ok_or(DecodeError::NotAMap)?;
        if decoder.position() < bytes.len() {
            return Err(DecodeError::TrailingBytes);
        }
        Ok(Self { bytes, positions })
    }

    /// A decoder at the value of `field`, if the frame has one.
    fn at(&self, field: &'static str) -> Option<Decoder<'a>> {
        let position =
            FIELDS.iter().position(|name| *name == field).and_then(|i| self.positions[i]);
        position.map(|position| {
            let mut decoder = Decoder::new(self.bytes);
            decoder.set_position(position);
            decoder
        })
    }

    fn text(&self, field: &'static str) -> Result<Option<Cow<'a, str>>, DecodeError> {
        let Some(mut decoder) = self.at(field) else { return Ok(None) };
        cbor::text(&mut decoder)?.ok_or(DecodeError::WrongType { field }).map(Some)
    }

    fn required_text(&self, field: &'static str) -> Result<Cow<'a, str>, DecodeError> {
        self.text(field)?.ok_or(DecodeError::MissingField(field))
    }

    fn peer(&self, field: &'static str) -> Result<Option<PeerId>, DecodeError> {
        let Some(text) = self.text(field)? else { return Ok(None) };
        PeerId::new(&text).map(Some).map_err(|reason| DecodeError::BadName { field, reason })
    }

    fn sender(&self) -> Result<PeerId, DecodeError> {
        self.peer("senderId")?.ok_or(DecodeError::MissingField("senderId"))
    }

    fn target(&self) -> Result<PeerId, DecodeError> {
        self.peer("targetId")?.ok_or(DecodeError::MissingField("targetId"))
    }

    fn document(&self) -> Result<DocumentId, DecodeError> {
        Ok(self.required_text("documentId")?.parse()?)
    }

    fn data(&self) -> Result<Cow<'a, [u8]>, DecodeError> {
        let mut decoder = self.at("data").ok_or(DecodeError::MissingField("data"))?;
        cbor::bytes(&mut decoder)?.ok_or(DecodeError::WrongType { field: "data" })
    }

    fn filled_data(&self) -> Result<Cow<'a, [u8]>, DecodeError> {
        self.data()
            .and_then(|data| if data.is_empty() { Err(DecodeError::EmptyData) } else { Ok(data) })
    }

    fn ephemeral(&self) -> Result<Message<'a>, DecodeError> {
        let field = "sessionId";
        let session = self.required_text(field)?;
        if session.len() > TEXT_BYTES_MAX {
            return Err(DecodeError::TooLong { field, max: TEXT_BYTES_MAX });
        }
        let mut count = self.at("count").ok_or(DecodeError::MissingField("count"))?;
        let count = cbor::uint(&mut count)?.ok_or(DecodeError::WrongType { field: "count" })?;
        let data = self.data()?;
        // samod lets an application broadcast nothing; a JavaScript client throws when it gets that.
        if data.is_empty() {
            return Ok(Message::Unknown { kind: "ephemeral".to_owned() });
        }
        Ok(Message::Ephemeral {
            sender: self.sender()?,
            target: self.target()?,
            document: self.document()?,
            session: session.into_owned(),
            count,
            data,
        })
    }

    /// A client that says nothing of its storage has none to speak of.
    fn metadata(&self) -> Result<PeerMetadata, DecodeError> {
        let Some((field, mut decoder)) = ["peerMetadata", "metadata"]
            .into_iter()
            .find_map(|field| self.at(field).map(|decoder| (field, decoder)))
        else {
            return Ok(PeerMetadata::default());
        };
        let mut metadata = PeerMetadata::default();
        cbor::each_entry(&mut decoder, |key, decoder| match &*key {
            "storageId" | "isEphemeral" if absent(decoder) => cbor::skip(decoder),
            "storageId" => {
                metadata.storage_id = Some(storage_id(decoder, "storageId")?);
                Ok(())
            }
            "isEphemeral" => {
                let wrong = DecodeError::WrongType { field: "isEphemeral" };
                metadata.is_ephemeral = cbor::boolean(decoder)?.ok_or(wrong)?;
                Ok(())
            }
            _ => cbor::skip(decoder),
        })?
        .ok_or(DecodeError::WrongType { field })?;
        Ok(metadata)
    }

    fn versions(&self) -> Result<Vec<String>, DecodeError> {
        let field = "supportedProtocolVersions";
        let mut decoder = match self.at(field) {
            Some(decoder) => decoder,
            None => return Ok(vec![PROTOCOL_VERSION.to_owned()]),
        };
        list(&mut decoder, field, VERSIONS_MAX, |decoder| {
            Ok(cut(&cbor::text(decoder)?.ok_or(DecodeError::WrongType { field })?))
        })
    }

    fn storage_ids(&self, field: &'static str) -> Result<Vec<StorageId>, DecodeError> {
        let Some(mut decoder) = self.at(field) else { return Ok(Vec::new()) };
        list(&mut decoder, field, STORAGE_IDS_MAX, |decoder| storage_id(decoder, field))
    }

    fn remote_heads(&self) -> Result<Vec<RemoteHeads>, DecodeError> {
        let field = "newHeads";
        let mut decoder = self.at(field).ok_or(DecodeError::MissingField(field))?;
        let mut all = Vec::new();
        cbor::each_entry(&mut decoder, |key, decoder| {
            if all.len() == STORAGE_IDS_MAX {
                return Err(DecodeError::TooMany { field, max: STORAGE_IDS_MAX });
            }
            let storage =
                StorageId::new(&key).map_err(|reason| DecodeError::BadName { field, reason })?;
            let (heads, timestamp_ms) = heads_and_timestamp(decoder)?;
            all.push(RemoteHeads { storage, heads, timestamp_ms });
            Ok(())
        })?
        .ok_or(DecodeError::WrongType { field })?;
        Ok(all)
    }
}

fn heads_and_timestamp(decoder: &mut Decoder<'_>) -> Result<(Heads, u64), DecodeError> {
    let (mut heads, mut timestamp) = (None, None);
    cbor::each_entry(decoder, |key, decoder| match &*key {
        "heads" => {
            let field = "heads";
            let hashes = list(decoder, field, HEADS_MAX, |decoder| {
                let text = cbor::text(decoder)?.ok_or(DecodeError::WrongType { field })?;
                // Base58 takes quadratic time: look at the length first.
                if text.len() > 64 {
                    return Err(ParseHashError::WrongLength(text.len()).into());
                }
                Ok(ChangeHash::from_base58check(&text)?)
            })?;
            heads = Some(Heads::from(hashes));
            Ok(())
        }
        "timestamp" => {
            let wrong = DecodeError::WrongType { field: "timestamp" };
            timestamp = Some(cbor::uint(decoder)?.ok_or(wrong)?);
            Ok(())
        }
        _ => cbor::skip(decoder),
    })?
    .ok_or(DecodeError::WrongType { field: "newHeads" })?;
    Ok((
        heads.ok_or(DecodeError::MissingField("heads"))?,
        timestamp.ok_or(DecodeError::MissingField("timestamp"))?,
    ))
}

fn storage_id(decoder: &mut Decoder<'_>, field: &'static str) -> Result<StorageId, DecodeError> {
    let text = cbor::text(decoder)?.ok_or(DecodeError::WrongType { field })?;
    StorageId::new(&text).map_err(|reason| DecodeError::BadName { field, reason })
}

fn list<'a, T>(
    decoder: &mut Decoder<'a>,
    field: &'static str,
    max: usize,
    mut item: impl FnMut(&mut Decoder<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let mut items = Vec::new();
    cbor::each_item(decoder, |decoder| {
        if items.len() == max {
            return Err(DecodeError::TooMany { field, max });
        }
        items.push(item(decoder)?);
        Ok(())
    })?
    .ok_or(DecodeError::WrongType { field })?;
    Ok(items)
}

/// A value that cannot even be looked at is not absent: reading it will say what is wrong.
fn absent(decoder: &Decoder<'_>) -> bool {
    cbor::is_absent(decoder).unwrap_or(false)
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
