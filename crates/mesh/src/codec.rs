//! The codec: entries of origin logs as few bytes as may be.
//!
//! One lane of a link carries *batches* in each direction, each made from all that the batches before
//! it have left in both sides' minds:
//!
//! ```text
//! batch   := generation (1) · number (1) · cost · digest (8) · zstd, flushed
//! in zstd := group*
//! group   := log, or 0 and a new one · count and whether it goes on where the log was · [first] · entry*
//! entry   := document, or 0 and a new one · kind · …
//! ```
//!
//! What the receiver knows or can compute is left out of a change (see `change`), what is left is
//! compressed as one stream over all batches, and eight bytes of a digest over what was put in guard
//! each batch: the receiver rebuilds the exact bytes of every change, so the digest agrees or something
//! went wrong. Then the receiver says so, and the sender begins a new *generation*: both sides forget
//! everything, and the first batch leaves nothing out.
//!
//! The *cost* of a batch is what its entries take as they are. It bounds what the receiver spends
//! before a byte is inflated, and it is what the lane's credit is counted in.

mod change;
mod context;
mod logs;

use std::borrow::Cow;
use std::mem;

use history::chunk::Limits;
use history::varint::{self, Reader};
use sha2::{Digest as _, Sha256};
use zstd::stream::raw::{CParameter, DParameter, InBuffer, Operation, OutBuffer};

use crate::origin::{Entry, Item, LogId};
use crate::planted::{Bug, planted};
use change::Elided;
use context::Context;
use logs::Logs;

/// Compression level: 3 is what the figures in `docs/benchmarks.md` were measured with.
const LEVEL: i32 = 3;
/// The window, 1 MiB: what both sides keep of the stream.
const WINDOW_LOG: u32 = 20;
/// How many bytes go through the compression at once.
const CHUNK_BYTES: usize = 16 << 10;
/// How many bytes of a batch's digest are sent.
const DIGEST_BYTES: usize = 8;

/// What an entry takes of the lane's credit, in bytes.
pub fn cost(entry: &Entry) -> u64 {
    entry.bytes() as u64
}

/// A stretch of one log.
#[derive(Debug, Clone)]
pub struct Group<E> {
    /// The log.
    pub log: LogId,
    /// The number of the first entry.
    pub first: u64,
    /// The entries, gap-free.
    pub entries: E,
}

/// An encoded batch.
#[derive(Debug, Clone)]
pub struct Batch {
    /// What goes over the wire.
    pub bytes: Vec<u8>,
    /// What it takes of the lane's credit.
    pub cost: u64,
}

/// The front of a batch, which is not compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// How often everything was forgotten before.
    pub generation: u8,
    /// The number of the batch in its generation, modulo 256.
    pub number: u8,
    /// What the sender says that it costs. Checked when it is decoded.
    pub cost: u64,
}

impl Header {
    /// Reads the front of a batch.
    ///
    /// # Errors
    /// When there is none.
    pub fn read(batch: &[u8]) -> Result<Self, CodecError> {
        Self::split(&mut Reader::new(batch)).map(|(header, _)| header)
    }

    fn split(reader: &mut Reader<'_>) -> Result<(Self, [u8; DIGEST_BYTES]), CodecError> {
        let (generation, number, cost) = (reader.byte()?, reader.byte()?, reader.number()?);
        Ok((Self { generation, number, cost }, reader.array()?))
    }
}

/// Why a batch cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// It is not the one that comes next.
    #[error("a batch is missing or out of order")]
    Order,
    /// The compressed part does not inflate.
    #[error("a batch does not inflate")]
    Inflate,
    /// It inflates to more than its entries may take.
    #[error("a batch inflates to more than it says")]
    TooLarge,
    /// Its entries end early, or name what was never introduced.
    #[error("a batch is malformed")]
    Malformed,
    /// A change in it is none.
    #[error("a change in a batch is not valid")]
    Change,
    /// A document in it does not belong into the log.
    #[error("a document is in the log of another stream")]
    Stream,
    /// What was rebuilt is not what was put in.
    #[error("the digest of a batch is wrong")]
    Digest,
}

impl From<varint::Malformed> for CodecError {
    fn from(_: varint::Malformed) -> Self {
        Self::Malformed
    }
}

/// The sending side of one lane.
pub struct Encoder {
    zstd: zstd::stream::raw::Encoder<'static>,
    context: Context,
    logs: Logs,
    generation: u8,
    number: u8,
    /// The next batch leaves nothing out.
    whole: bool,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// The beginning of a lane: generation 0.
    pub fn new() -> Self {
        Self {
            zstd: compressor(),
            context: Context::default(),
            logs: Logs::default(),
            generation: 0,
            number: 0,
            whole: false,
        }
    }

    /// Which generation it is in.
    pub fn generation(&self) -> u8 {
        self.generation
    }

    /// Forgets everything: the receiver could not read a batch. The next one is sent whole.
    pub fn restart(&mut self) {
        let generation = self.generation.wrapping_add(1);
        *self = Self { generation, whole: true, ..Self::new() };
    }

    /// Encodes stretches of logs. Two of the same log that follow each other should be neighbours.
    pub fn encode<'a, E>(&mut self, groups: &'a [Group<E>]) -> Batch
    where
        E: AsRef<[Entry]> + 'a,
    {
        let entries = groups.iter().flat_map(|group| group.entries.as_ref());
        let header = Header {
            generation: self.generation,
            number: self.number,
            cost: entries.map(cost).sum(),
        };
        self.number = self.number.wrapping_add(1);
        let whole = mem::take(&mut self.whole);

        let mut plain = Vec::with_capacity(1024);
        let mut guard = Guard::new(header);
        let mut rest = groups;
        while let Some(group) = rest.first() {
            // Neighbours of one log that are one stretch are one group.
            let mut end = group.first;
            let follows = |next: &&Group<E>| {
                let joined = next.log == group.log && next.first == end;
                end += next.entries.as_ref().len() as u64;
                joined
            };
            let joined = rest.iter().take_while(follows).count();
            let (run, others) = rest.split_at(joined);
            rest = others;
            let count = run.iter().map(|group| group.entries.as_ref().len()).sum::<usize>();
            if count == 0 {
                continue;
            }
            self.logs.put(&mut plain, &group.log, group.first, count as u64);
            guard.group(&group.log, group.first);
            for entry in run.iter().flat_map(|group| group.entries.as_ref()) {
                self.put_entry(&mut plain, entry, whole);
                guard.entry(entry);
            }
        }

        let mut bytes = vec![header.generation, header.number];
        varint::put(&mut bytes, header.cost);
        bytes.extend_from_slice(&guard.finish());
        self.compress(&plain, &mut bytes);
        Batch { bytes, cost: header.cost }
    }

    fn put_entry(&mut self, out: &mut Vec<u8>, entry: &Entry, whole: bool) {
        let document = self.context.put_document(out, &entry.document);
        match &entry.item {
            Item::Dead { hash, reason } => {
                out.push(change::DEAD);
                out.extend_from_slice(hash.as_bytes());
                put_bytes(out, reason.as_bytes());
            }
            Item::Change(change) => {
                let body = change.body();
                let elided = match &body {
                    Ok(Cow::Borrowed(body)) if !whole => Elided::of(change, body),
                    _ => None,
                };
                if let Some(elided) = elided {
                    elided.put(out, &mut self.context, document);
                } else {
                    out.push(change::RAW);
                    put_bytes(out, change.bytes());
                }
                self.context.note(document, change);
            }
        }
    }

    fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        const REASON: &str = "compression needs nothing but memory";
        let mut chunk = [0; CHUNK_BYTES];
        let mut input = InBuffer::around(plain);
        while input.pos() < plain.len() {
            let mut output = OutBuffer::around(&mut chunk[..]);
            self.zstd.run(&mut input, &mut output).expect(REASON);
            out.extend_from_slice(output.as_slice());
        }
        loop {
            let mut output = OutBuffer::around(&mut chunk[..]);
            let left = self.zstd.flush(&mut output).expect(REASON);
            out.extend_from_slice(output.as_slice());
            if left == 0 {
                return;
            }
        }
    }
}

/// The receiving side of one lane.
pub struct Decoder {
    zstd: zstd::stream::raw::Decoder<'static>,
    context: Context,
    logs: Logs,
    generation: u8,
    number: u8,
    limits: Limits,
}

impl Decoder {
    /// The beginning of a lane: generation 0. `limits`: for what is in changes.
    pub fn new(limits: Limits) -> Self {
        Self {
            zstd: decompressor(),
            context: Context::default(),
            logs: Logs::default(),
            generation: 0,
            number: 0,
            limits,
        }
    }

    /// Which generation it is in.
    pub fn generation(&self) -> u8 {
        self.generation
    }

    /// Forgets everything and waits for the first batch of the next generation.
    pub fn restart(&mut self) {
        let (generation, limits) = (self.generation.wrapping_add(1), self.limits.clone());
        *self = Self { generation, ..Self::new(limits) };
    }

    /// Decodes a batch.
    ///
    /// # Errors
    /// When it is not what an [`Encoder`] made, or not the next one. Nothing of it may be used then,
    /// and nothing that follows can be decoded before [`Decoder::restart`].
    pub fn decode(&mut self, batch: &[u8]) -> Result<Vec<Group<Vec<Entry>>>, CodecError> {
        let mut reader = Reader::new(batch);
        let (header, digest) = Header::split(&mut reader)?;
        if (header.generation, header.number) != (self.generation, self.number) {
            return Err(CodecError::Order);
        }
        self.number = self.number.wrapping_add(1);
        let coded = reader.bytes(reader.left())?;
        let plain = self.decompress(coded, inflated_max(header.cost))?;

        let mut guard = Guard::new(header);
        let mut groups = Vec::new();
        let mut total = 0;
        let mut reader = Reader::new(&plain);
        while !reader.is_empty() {
            let (log, first, count) = self.logs.take(&mut reader)?;
            guard.group(&log, first);
            let mut entries = Vec::with_capacity(count.min(1024));
            for _ in 0..count {
                let entry = self.take_entry(&mut reader)?;
                if entry.document.stream() != log.stream {
                    return Err(CodecError::Stream);
                }
                total += cost(&entry);
                if total > header.cost {
                    return Err(CodecError::TooLarge);
                }
                guard.entry(&entry);
                entries.push(entry);
            }
            groups.push(Group { log, first, entries });
        }
        let differs = guard.finish() != digest && !planted(Bug::DigestOff);
        if differs || total != header.cost {
            return Err(CodecError::Digest);
        }
        Ok(groups)
    }

    fn take_entry(&mut self, reader: &mut Reader<'_>) -> Result<Entry, CodecError> {
        let (document, id) = self.context.take_document(reader)?;
        let item = match reader.byte()? {
            change::DEAD => {
                let hash = model::ChangeHash(reader.array()?);
                let reason = std::str::from_utf8(take_bytes(reader)?);
                let reason = reason.map_err(|_| CodecError::Malformed)?.to_owned();
                Item::Dead { hash, reason }
            }
            kind => {
                let rebuilt;
                let bytes = if kind == change::RAW {
                    take_bytes(reader)?
                } else {
                    rebuilt = Elided::take(kind, reader, &mut self.context, document)?.rebuild();
                    &rebuilt
                };
                let change = change::read(bytes, &self.limits).ok_or(CodecError::Change)?;
                self.context.note(document, &change);
                Item::Change(change)
            }
        };
        Ok(Entry { document: id, item })
    }

    fn decompress(&mut self, coded: &[u8], max: usize) -> Result<Vec<u8>, CodecError> {
        let mut plain = Vec::new();
        let mut chunk = [0; CHUNK_BYTES];
        let mut input = InBuffer::around(coded);
        loop {
            let before = input.pos();
            let mut output = OutBuffer::around(&mut chunk[..]);
            self.zstd.run(&mut input, &mut output).map_err(|_| CodecError::Inflate)?;
            let written = output.as_slice();
            if plain.len() + written.len() > max {
                return Err(CodecError::TooLarge);
            }
            plain.extend_from_slice(written);
            let (full, idle) = (written.len() == CHUNK_BYTES, written.is_empty());
            if input.pos() == coded.len() && !full {
                return Ok(plain);
            }
            if idle && input.pos() == before {
                return Err(CodecError::Inflate);
            }
        }
    }
}

/// To how much a batch may inflate. An entry that is sent as it is has about a dozen bytes around it,
/// and a new log at most a hundred; no entry costs less than twenty.
fn inflated_max(cost: u64) -> usize {
    let cost = usize::try_from(cost).unwrap_or(usize::MAX);
    let much = cost.saturating_mul(2).saturating_add(4 << 20);
    cost.saturating_mul(8).min(much).saturating_add(1024)
}

fn compressor() -> zstd::stream::raw::Encoder<'static> {
    let set = || {
        let mut zstd = zstd::stream::raw::Encoder::new(LEVEL)?;
        zstd.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
        std::io::Result::Ok(zstd)
    };
    set().expect("these parameters are valid")
}

fn decompressor() -> zstd::stream::raw::Decoder<'static> {
    let set = || {
        let mut zstd = zstd::stream::raw::Decoder::new()?;
        zstd.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))?;
        std::io::Result::Ok(zstd)
    };
    set().expect("these parameters are valid")
}

/// The digest over what a batch holds.
struct Guard(Sha256);

impl Guard {
    fn new(header: Header) -> Self {
        let hash = Sha256::new()
            .chain_update([header.generation, header.number])
            .chain_update(header.cost.to_le_bytes());
        Self(hash)
    }

    fn group(&mut self, log: &LogId, first: u64) {
        let region = log.origin.region.as_str().as_bytes();
        self.0.update([0, log.stream, region.len() as u8]);
        self.0.update(region);
        self.0.update(log.origin.epoch.to_le_bytes());
        self.0.update(first.to_le_bytes());
    }

    fn entry(&mut self, entry: &Entry) {
        let (kind, bytes) = match &entry.item {
            Item::Change(change) => (1, change.bytes()),
            Item::Dead { hash, reason } => {
                self.0.update(hash.as_bytes());
                (2, reason.as_bytes())
            }
        };
        let document = entry.document.as_bytes();
        self.0.update([kind, document.len() as u8]);
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(document);
        self.0.update(bytes);
    }

    fn finish(self) -> [u8; DIGEST_BYTES] {
        let digest = self.0.finalize();
        let mut short = [0; DIGEST_BYTES];
        short.copy_from_slice(&digest[..DIGEST_BYTES]);
        short
    }
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) fn take_bytes<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], varint::Malformed> {
    let length = reader.count()?;
    reader.bytes(length)
}

#[cfg(test)]
mod tests;
