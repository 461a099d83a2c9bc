//! Frames: what the two ends of a link say to each other, each one binary WebSocket message.
//!
//! The first byte is the kind, then follow the fields in the order of their declaration: numbers as
//! LEB128, bytes and texts with their length in front, lists with their count. The region and the
//! epoch of a log take one byte when they are those of either end, which both know.

use history::varint::{self, Malformed, Reader};
use model::{ChangeHash, DocumentId, Heads, PeerId, RegionName, StorageId};

use crate::audit;
use crate::codec::{put_bytes, take_bytes};
use crate::exchange::{Presence, StoreHeads};
use crate::origin::{Digest, LogId, Mark, Origin, STREAMS};

/// The largest frame, in bytes, whatever a shell is configured to take from clients: a change or a
/// snapshot of 64 MiB and what is around it.
pub const FRAME_BYTES_MAX: usize = 72 << 20;
/// The most bytes of a frame that cross in one WebSocket message. What is larger comes in pieces, so
/// that something is heard all the time, however slow the wire, and a ping does not wait for the end.
pub const PIECE_BYTES_MAX: usize = 64 << 10;

/// The most origins in one frame.
const ORIGINS_MAX: usize = 16_384;
/// The most stores in one frame.
const STORES_MAX: usize = 4_096;
/// The most heads of one document in one frame.
const HEADS_MAX: usize = 65_536;

/// How far a log is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The log.
    pub log: LogId,
    /// The number of the last entry.
    pub sequence: u64,
    /// The digest up to there, where the receiver has use for it.
    pub digest: Option<Digest>,
}

/// One message between regions.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// How far the sender holds each log, durably: once, when a link comes up. With digests for the
    /// logs of the receiver, who compares them.
    Vector(Vec<Row>),
    /// A batch of entries, as the codec of this lane and direction makes it.
    Entries(Vec<u8>),
    /// The batches from some point of this generation on could not be read: begin a new one.
    Resend {
        /// The generation.
        generation: u8,
        /// What all entries cost that could be read on this lane since it is open.
        received: u64,
        /// How far each log came on this lane.
        logs: Vec<Row>,
    },
    /// The answer: what follows on this lane is of this generation.
    Anew {
        /// The generation.
        generation: u8,
    },
    /// How far the sender holds logs durably by now.
    Holds(Vec<Row>),
    /// So much of this lane's credit is free again.
    Credit {
        /// As the codec counts it.
        bytes: u64,
    },
    /// Give the entries of a log that is not your own.
    Fetch {
        /// The log.
        log: LogId,
        /// From this number on.
        from: u64,
        /// The sender's digest of what is before.
        digest: Option<Digest>,
    },
    /// That was all of a log that was fetched.
    Served {
        /// The log.
        log: LogId,
        /// The number of the last entry.
        through: u64,
    },
    /// The entries of a log up to here are not kept any more; what was in them the audit finds.
    Skip {
        /// The log.
        log: LogId,
        /// Where it starts.
        to: Mark,
    },
    /// These logs are forgotten here, with their last entries and digests: every region held them. The
    /// first such frame answers the vector, and comes even if it is empty.
    Forgotten(Vec<Row>),
    /// Our entries of a log are not those that you have.
    Diverged {
        /// The log.
        log: LogId,
    },
    /// A sync message about a document that is asked for, or under repair.
    Sync {
        /// The document.
        document: DocumentId,
        /// The message.
        data: Vec<u8>,
    },
    /// Nothing is left to repair.
    Repaired {
        /// The document.
        document: DocumentId,
    },
    /// The document that was asked for is not here.
    Unavailable {
        /// The document.
        document: DocumentId,
    },
    /// Presence of a client.
    Presence {
        /// The document.
        document: DocumentId,
        /// The message.
        presence: Presence,
    },
    /// What stores hold of a document.
    Heads {
        /// The document.
        document: DocumentId,
        /// One for each store.
        heads: Vec<StoreHeads>,
    },
    /// Whether clients have a document open.
    Interest {
        /// The document.
        document: DocumentId,
        /// Whether.
        open: bool,
    },
    /// Which stores clients want to hear of.
    Subscribe {
        /// From now on.
        add: Vec<StorageId>,
        /// Not any more.
        remove: Vec<StorageId>,
    },
    /// A message of the audit.
    Audit(audit::Message),
    /// A piece of a larger frame, in order, on one lane.
    Piece {
        /// Its bytes.
        data: Vec<u8>,
        /// Whether it is the last one.
        last: bool,
    },
    /// Are you there?
    Ping {
        /// To be sent back.
        id: u64,
    },
    /// Yes.
    Pong {
        /// From the ping.
        id: u64,
    },
}

/// A frame is not one: unknown, cut off, too much of something, or with something after its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame cannot be read")]
pub struct FrameError;

impl From<Malformed> for FrameError {
    fn from(_: Malformed) -> Self {
        Self
    }
}

/// The two ends of a link: the origins that need not be spelled out.
#[derive(Debug, Clone)]
pub struct Ends {
    /// Who encodes.
    pub sender: Origin,
    /// Who decodes.
    pub receiver: Origin,
}

impl Frame {
    /// The bytes of the frame.
    pub fn encode(&self, ends: &Ends) -> Vec<u8> {
        let mut out = vec![self.kind()];
        match self {
            Self::Vector(rows) | Self::Holds(rows) | Self::Forgotten(rows) => {
                put_rows(&mut out, rows, ends);
            }
            Self::Entries(batch) => out.extend_from_slice(batch),
            Self::Resend { generation, received, logs } => {
                out.push(*generation);
                varint::put(&mut out, *received);
                put_rows(&mut out, logs, ends);
            }
            Self::Anew { generation } => out.push(*generation),
            Self::Credit { bytes } => varint::put(&mut out, *bytes),
            Self::Fetch { log, from, digest } => {
                put_log(&mut out, log, ends);
                varint::put(&mut out, *from);
                out.push(u8::from(digest.is_some()));
                out.extend_from_slice(digest.as_ref().map_or(&[], |digest| &digest[..]));
            }
            Self::Served { log, through } => {
                put_log(&mut out, log, ends);
                varint::put(&mut out, *through);
            }
            Self::Skip { log, to } => {
                put_log(&mut out, log, ends);
                varint::put(&mut out, to.sequence);
                out.extend_from_slice(&to.digest);
            }
            Self::Diverged { log } => put_log(&mut out, log, ends),
            Self::Sync { document, data } => {
                put_bytes(&mut out, document.as_bytes());
                out.extend_from_slice(data);
            }
            Self::Repaired { document } | Self::Unavailable { document } => {
                put_bytes(&mut out, document.as_bytes());
            }
            Self::Presence { document, presence } => {
                put_bytes(&mut out, document.as_bytes());
                put_bytes(&mut out, presence.author.as_str().as_bytes());
                put_bytes(&mut out, presence.stream.as_bytes());
                varint::put(&mut out, presence.count);
                out.extend_from_slice(&presence.data);
            }
            Self::Heads { document, heads } => {
                put_bytes(&mut out, document.as_bytes());
                varint::put(&mut out, heads.len() as u64);
                for store in heads {
                    put_bytes(&mut out, store.storage.as_str().as_bytes());
                    varint::put(&mut out, store.timestamp_ms);
                    varint::put(&mut out, store.heads.len() as u64);
                    for head in &store.heads {
                        out.extend_from_slice(head.as_bytes());
                    }
                }
            }
            Self::Interest { document, open } => {
                put_bytes(&mut out, document.as_bytes());
                out.push(u8::from(*open));
            }
            Self::Subscribe { add, remove } => {
                for list in [add, remove] {
                    varint::put(&mut out, list.len() as u64);
                    for storage in list {
                        put_bytes(&mut out, storage.as_str().as_bytes());
                    }
                }
            }
            Self::Audit(message) => message.encode(&mut out),
            Self::Piece { data, .. } => out.extend_from_slice(data),
            Self::Ping { id } | Self::Pong { id } => varint::put(&mut out, *id),
        }
        out
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// When it is none. Memory was spent on what is there, not on what is claimed.
    pub fn decode(bytes: &[u8], ends: &Ends) -> Result<Self, FrameError> {
        let mut reader = Reader::new(bytes);
        let reader = &mut reader;
        let frame = match reader.byte()? {
            0 => Self::Vector(rows(reader, ends)?),
            1 => Self::Entries(rest(reader)?),
            2 => Self::Resend {
                generation: reader.byte()?,
                received: reader.number()?,
                logs: rows(reader, ends)?,
            },
            3 => Self::Holds(rows(reader, ends)?),
            4 => Self::Credit { bytes: reader.number()? },
            5 => Self::Fetch {
                log: log(reader, ends)?,
                from: reader.number()?,
                digest: if flag(reader)? { Some(reader.array()?) } else { None },
            },
            6 => Self::Served { log: log(reader, ends)?, through: reader.number()? },
            7 => {
                let log = log(reader, ends)?;
                let to = Mark { sequence: reader.number()?, digest: reader.array()? };
                Self::Skip { log, to }
            }
            8 => Self::Diverged { log: log(reader, ends)? },
            9 => Self::Sync { document: document(reader)?, data: rest(reader)? },
            10 => Self::Repaired { document: document(reader)? },
            11 => Self::Unavailable { document: document(reader)? },
            12 => {
                let document = document(reader)?;
                let author = PeerId::new(text(reader)?).map_err(|_| FrameError)?;
                let stream = text(reader)?.to_owned();
                let count = reader.number()?;
                let presence = Presence { author, stream, count, data: rest(reader)? };
                Self::Presence { document, presence }
            }
            13 => Self::Heads { document: document(reader)?, heads: stores(reader)? },
            14 => Self::Interest { document: document(reader)?, open: flag(reader)? },
            15 => Self::Subscribe { add: storages(reader)?, remove: storages(reader)? },
            16 => {
                let message = reader.bytes(reader.left())?;
                Self::Audit(audit::Message::decode(message).map_err(|_| FrameError)?)
            }
            17 => Self::Ping { id: reader.number()? },
            18 => Self::Pong { id: reader.number()? },
            19 => Self::Anew { generation: reader.byte()? },
            20 => Self::Forgotten(rows(reader, ends)?),
            21 => Self::Piece { data: rest(reader)?, last: false },
            22 => Self::Piece { data: rest(reader)?, last: true },
            _ => return Err(FrameError),
        };
        if reader.is_empty() { Ok(frame) } else { Err(FrameError) }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Vector(_) => 0,
            Self::Entries(_) => 1,
            Self::Resend { .. } => 2,
            Self::Holds(_) => 3,
            Self::Credit { .. } => 4,
            Self::Fetch { .. } => 5,
            Self::Served { .. } => 6,
            Self::Skip { .. } => 7,
            Self::Diverged { .. } => 8,
            Self::Sync { .. } => 9,
            Self::Repaired { .. } => 10,
            Self::Unavailable { .. } => 11,
            Self::Presence { .. } => 12,
            Self::Heads { .. } => 13,
            Self::Interest { .. } => 14,
            Self::Subscribe { .. } => 15,
            Self::Audit(_) => 16,
            Self::Ping { .. } => 17,
            Self::Pong { .. } => 18,
            Self::Anew { .. } => 19,
            Self::Forgotten(_) => 20,
            Self::Piece { last: false, .. } => 21,
            Self::Piece { last: true, .. } => 22,
        }
    }
}

/// The origin is the one of the frame's sender.
const SENDERS: u8 = 0;
/// The origin is the one of the frame's receiver.
const RECEIVERS: u8 = 1;
/// The origin is spelled out.
const SPELLED: u8 = 2;
/// Digests follow the sequence numbers.
const DIGESTS: u8 = 4;

/// Rows of one origin go together: the origin, a bit for each of its streams, then their marks.
fn put_rows(out: &mut Vec<u8>, rows: &[Row], ends: &Ends) {
    let together = |one: &Row, next: &Row| {
        one.log.origin == next.log.origin
            && one.log.stream < next.log.stream
            && one.digest.is_some() == next.digest.is_some()
    };
    varint::put(out, rows.chunk_by(together).count() as u64);
    for rows in rows.chunk_by(together) {
        let digests = if rows[0].digest.is_some() { DIGESTS } else { 0 };
        put_origin(out, &rows[0].log.origin, digests, ends);
        let streams = rows.iter().fold(0, |streams, row| streams | 1_u16 << row.log.stream);
        out.extend_from_slice(&streams.to_le_bytes());
        for row in rows {
            varint::put(out, row.sequence);
            out.extend_from_slice(row.digest.as_ref().map_or(&[], |digest| &digest[..]));
        }
    }
}

fn rows(reader: &mut Reader<'_>, ends: &Ends) -> Result<Vec<Row>, FrameError> {
    let origins = reader.count()?;
    if origins > ORIGINS_MAX {
        return Err(FrameError);
    }
    let mut rows = Vec::new();
    for _ in 0..origins {
        let (origin, flags) = origin(reader, ends)?;
        let streams = u16::from_le_bytes(reader.array()?);
        for stream in (0..STREAMS).filter(|stream| streams >> stream & 1 == 1) {
            let sequence = reader.number()?;
            let digest = if flags & DIGESTS != 0 { Some(reader.array()?) } else { None };
            rows.push(Row { log: LogId { origin: origin.clone(), stream }, sequence, digest });
        }
    }
    Ok(rows)
}

fn put_origin(out: &mut Vec<u8>, origin: &Origin, flags: u8, ends: &Ends) {
    if *origin == ends.sender {
        out.push(flags | SENDERS);
    } else if *origin == ends.receiver {
        out.push(flags | RECEIVERS);
    } else {
        out.push(flags | SPELLED);
        put_bytes(out, origin.region.as_str().as_bytes());
        out.extend_from_slice(&origin.epoch.to_le_bytes());
    }
}

fn origin(reader: &mut Reader<'_>, ends: &Ends) -> Result<(Origin, u8), FrameError> {
    let byte = reader.byte()?;
    let origin = match byte & !DIGESTS {
        SENDERS => ends.sender.clone(),
        RECEIVERS => ends.receiver.clone(),
        SPELLED => {
            let region = RegionName::new(text(reader)?).map_err(|_| FrameError)?;
            Origin { region, epoch: u64::from_le_bytes(reader.array()?) }
        }
        _ => return Err(FrameError),
    };
    Ok((origin, byte & DIGESTS))
}

fn put_log(out: &mut Vec<u8>, log: &LogId, ends: &Ends) {
    put_origin(out, &log.origin, 0, ends);
    out.push(log.stream);
}

fn log(reader: &mut Reader<'_>, ends: &Ends) -> Result<LogId, FrameError> {
    let (origin, flags) = origin(reader, ends)?;
    let stream = reader.byte()?;
    if flags != 0 || stream >= STREAMS {
        return Err(FrameError);
    }
    Ok(LogId { origin, stream })
}

fn document(reader: &mut Reader<'_>) -> Result<DocumentId, FrameError> {
    DocumentId::from_bytes(take_bytes(reader)?).map_err(|_| FrameError)
}

fn text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, FrameError> {
    std::str::from_utf8(take_bytes(reader)?).map_err(|_| FrameError)
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, FrameError> {
    match reader.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(FrameError),
    }
}

fn rest(reader: &mut Reader<'_>) -> Result<Vec<u8>, FrameError> {
    Ok(reader.bytes(reader.left())?.to_vec())
}

fn storages(reader: &mut Reader<'_>) -> Result<Vec<StorageId>, FrameError> {
    let count = reader.count()?;
    if count > STORES_MAX {
        return Err(FrameError);
    }
    (0..count).map(|_| StorageId::new(text(reader)?).map_err(|_| FrameError)).collect()
}

fn stores(reader: &mut Reader<'_>) -> Result<Vec<StoreHeads>, FrameError> {
    let count = reader.count()?;
    if count > STORES_MAX {
        return Err(FrameError);
    }
    let mut stores = Vec::new();
    for _ in 0..count {
        let storage = StorageId::new(text(reader)?).map_err(|_| FrameError)?;
        let timestamp_ms = reader.number()?;
        let count = reader.count()?;
        if count > HEADS_MAX {
            return Err(FrameError);
        }
        let heads = (0..count).map(|_| Ok(ChangeHash(reader.array()?)));
        let heads = heads.collect::<Result<Heads, Malformed>>()?;
        stores.push(StoreHeads { storage, heads, timestamp_ms });
    }
    Ok(stores)
}

#[cfg(test)]
mod tests;
