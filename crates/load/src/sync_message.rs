//! Automerge sync messages and change chunks, read by their bytes.
//!
//! A subscriber of the load generator holds no document. To acknowledge truthfully it needs only
//! the hashes of what it was sent, and those are in the bytes: a change's hash is the SHA-256 of
//! its chunk's type, length and body.

use sha2::{Digest, Sha256};

/// The name of a change.
pub type Hash = [u8; 32];

/// A sync message, its parts still where they arrived.
pub struct Incoming<'a> {
    /// The sender's heads.
    pub heads: &'a [Hash],
    /// The list of chunks: a count, then each with its length before it.
    pub changes: &'a [u8],
    /// The sender asks to be sent again what it was sent before.
    pub reset: bool,
}

impl<'a> Incoming<'a> {
    /// Reads a V1 or V2 message.
    ///
    /// # Errors
    /// If it is cut short or of another version.
    pub fn read(data: &'a [u8]) -> Result<Self, String> {
        let mut reader = Reader { rest: data };
        let version = reader.take(1)?[0];
        if version != 0x42 && version != 0x43 {
            return Err(format!("a sync message of version {version:#x}"));
        }
        let heads = reader.hashes()?;
        // What is needed of us: as in the crate, not a reason to send again what was sent, and what
        // was not sent yet goes out anyway.
        reader.hashes()?;
        for _ in 0..reader.number()? {
            reader.hashes()?;
            let bloom = reader.number()?;
            reader.take(bloom)?;
        }
        let before = reader.rest;
        for _ in 0..reader.number()? {
            let length = reader.number()?;
            reader.take(length)?;
        }
        let changes = &before[..before.len() - reader.rest.len()];
        let flags = match reader.rest {
            [] => &[][..],
            _ => {
                let length = reader.number()?;
                reader.take(length)?
            }
        };
        let reset = flags.iter().any(|byte| byte & 0x81 == 0x81);
        Ok(Self { heads, changes, reset })
    }

    /// Whether the message carries changes at all.
    pub fn has_changes(&self) -> bool {
        self.changes != [0]
    }
}

/// One chunk of a message.
pub enum Chunk {
    /// A change.
    Change(Hash),
    /// A whole document; its heads are not in its name but in the message.
    Document,
}

/// Calls `each` for every chunk in the list of a message, checking the checksum of each.
///
/// # Errors
/// If a chunk is damaged, cut short or of an unknown type.
pub fn each_chunk(changes: &[u8], mut each: impl FnMut(Chunk)) -> Result<(), String> {
    let mut list = Reader { rest: changes };
    for _ in 0..list.number()? {
        let length = list.number()?;
        // One item may be several chunks, one after the other.
        let mut item = Reader { rest: list.take(length)? };
        while !item.rest.is_empty() {
            each(item.chunk()?);
        }
    }
    Ok(())
}

/// The hash of a change chunk.
///
/// # Errors
/// If it is not exactly one whole change chunk.
pub fn hash_of(chunk: &[u8]) -> Result<Hash, String> {
    let mut reader = Reader { rest: chunk };
    match reader.chunk()? {
        Chunk::Change(hash) if reader.rest.is_empty() => Ok(hash),
        _ => Err("not one change chunk".to_owned()),
    }
}

/// The changes of an outgoing message.
#[derive(Clone, Copy)]
pub enum Sent<'a> {
    /// None.
    Nothing,
    /// Single change chunks, framed as V1 does.
    Changes(&'a [&'a [u8]]),
    /// A whole document as one chunk, framed as V2 does.
    Document(&'a [u8]),
}

/// Appends a sync message with the flags that a stock client sends.
///
/// `heads` and `need` are ascending. `have` is what the sender has after `last_sync`.
pub fn write(
    out: &mut Vec<u8>,
    heads: &[Hash],
    need: &[Hash],
    last_sync: &[Hash],
    have: &[Hash],
    sent: Sent<'_>,
) {
    out.push(if matches!(sent, Sent::Document(_)) { 0x43 } else { 0x42 });
    hashes(out, heads);
    hashes(out, need);
    out.push(1);
    hashes(out, last_sync);
    let bloom = bloom(have);
    number(out, bloom.len());
    out.extend_from_slice(&bloom);
    match sent {
        Sent::Nothing => out.push(0),
        Sent::Changes(chunks) => {
            number(out, chunks.len());
            for chunk in chunks {
                number(out, chunk.len());
                out.extend_from_slice(chunk);
            }
        }
        Sent::Document(document) => {
            out.push(1);
            number(out, document.len());
            out.extend_from_slice(document);
        }
    }
    // Two flag bytes: understands V2, understands SYNC_RESET.
    out.extend_from_slice(&[2, 0x02, 0x84]);
}

/// The filter that stock clients send: 10 bits an entry, 7 probes; nothing for an empty set.
fn bloom(entries: &[Hash]) -> Vec<u8> {
    const BITS_PER_ENTRY: usize = 10;
    const PROBES: usize = 7;
    let mut out = Vec::new();
    if entries.is_empty() {
        return out;
    }
    number(&mut out, entries.len());
    number(&mut out, BITS_PER_ENTRY);
    number(&mut out, PROBES);
    let start = out.len();
    let bytes = (entries.len() * BITS_PER_ENTRY).div_ceil(8);
    out.resize(start + bytes, 0);
    let modulo = 8 * bytes as u32;
    let word = |hash: &Hash, at: usize| {
        u32::from_le_bytes(hash[at..at + 4].try_into().expect("four bytes")) % modulo
    };
    for hash in entries {
        let (mut x, mut y, z) = (word(hash, 0), word(hash, 4), word(hash, 8));
        for _ in 0..PROBES {
            out[start + (x >> 3) as usize] |= 1 << (x & 7);
            x = (x + y) % modulo;
            y = (y + z) % modulo;
        }
    }
    out
}

fn hashes(out: &mut Vec<u8>, hashes: &[Hash]) {
    number(out, hashes.len());
    for hash in hashes {
        out.extend_from_slice(hash);
    }
}

fn number(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) =
            self.rest.split_at_checked(count).ok_or("a sync message that ends early")?;
        self.rest = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<usize, String> {
        let mut value = 0;
        for shift in (0..56).step_by(7) {
            let byte = self.take(1)?[0];
            value |= ((byte & 0x7F) as usize) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number that does not end".to_owned())
    }

    fn hashes(&mut self) -> Result<&'a [Hash], String> {
        let count = self.number()?;
        let bytes = self.take(count.checked_mul(32).ok_or("an absurd count of hashes")?)?;
        Ok(bytes.as_chunks().0)
    }

    fn chunk(&mut self) -> Result<Chunk, String> {
        const MAGIC: [u8; 4] = [0x85, 0x6F, 0x4A, 0x83];
        if self.take(4)? != MAGIC {
            return Err("a chunk without the magic bytes".to_owned());
        }
        let checksum = self.take(4)?;
        let hashed = self.rest;
        let kind = self.take(1)?[0];
        let length = self.number()?;
        let body = self.take(length)?;
        let hash: Hash = match kind {
            0 | 1 => Sha256::digest(&hashed[..hashed.len() - self.rest.len()]).into(),
            2 => compressed_hash(body)?,
            _ => return Err(format!("a chunk of type {kind}")),
        };
        if hash[..4] != *checksum {
            return Err("a chunk with a wrong checksum".to_owned());
        }
        Ok(if kind == 0 { Chunk::Document } else { Chunk::Change(hash) })
    }
}

/// A compressed change is named after what it was before it was compressed.
fn compressed_hash(body: &[u8]) -> Result<Hash, String> {
    use std::io::Read;
    const BODY_BYTES_MAX: u64 = 64 * 1024 * 1024;
    let mut plain = Vec::new();
    flate2::read::DeflateDecoder::new(body)
        .take(BODY_BYTES_MAX)
        .read_to_end(&mut plain)
        .map_err(|error| format!("a chunk that does not inflate: {error}"))?;
    let mut prefix = vec![1];
    number(&mut prefix, plain.len());
    Ok(Sha256::new().chain_update(prefix).chain_update(plain).finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use automerge::sync::{Message, State, SyncDoc};
    use automerge::transaction::Transactable;
    use automerge::{AutoCommit, Automerge, ROOT};

    fn typed() -> Automerge {
        let mut document = AutoCommit::new();
        for number in 0..40_i64 {
            document.put(ROOT, "number", number).expect("a put");
            document.commit();
        }
        // Long enough that the crate compresses the change.
        document.put(ROOT, "long", "repetitive ".repeat(100)).expect("a put");
        document.commit();
        document.document().clone()
    }

    #[test]
    fn what_we_write_is_what_the_crate_reads() {
        let document = typed();
        let changes = document.get_changes(&[]);
        let chunks: Vec<_> = changes.iter().map(|change| change.raw_bytes()).collect();
        let hashes: Vec<Hash> = changes.iter().map(|change| change.hash().0).collect();
        let mut out = Vec::new();
        let head = &hashes[40..];
        write(&mut out, head, &[], &hashes[..1], &hashes[1..], Sent::Changes(&chunks));
        let message = Message::decode(&out).expect("a message");
        assert_eq!(message.heads, document.get_heads());
        assert_eq!(message.have[0].last_sync[0].0, hashes[0]);
        assert!(changes[1..].iter().all(|it| message.have[0].bloom.contains_hash(&it.hash())));
        assert!(message.flags.is_some());
        assert_eq!(message.encode(), out, "the crate writes the same bytes");
        let incoming = Incoming::read(&out).expect("a message");
        let mut read = Vec::new();
        each_chunk(incoming.changes, |chunk| match chunk {
            Chunk::Change(hash) => read.push(hash),
            Chunk::Document => panic!("no document was sent"),
        })
        .expect("whole chunks");
        assert_eq!(read, hashes);
    }

    #[test]
    fn a_compressed_change_has_the_hash_of_the_plain_one() {
        let document = typed();
        let mut last = document.get_changes(&[]).pop().expect("a change");
        let hash = last.hash().0;
        assert_eq!(last.bytes()[8], 2, "the crate compressed it");
        assert_eq!(hash_of(&last.bytes()), Ok(hash));
    }

    #[test]
    fn the_crate_s_whole_document_is_recognised() {
        let (server, mut state) = (typed(), State::new());
        let mut client = Automerge::new();
        let mut theirs = State::new();
        let ask = client.generate_sync_message(&mut theirs).expect("a first message");
        let mut server = server;
        server.receive_sync_message(&mut state, ask).expect("it is taken");
        let answer = server.generate_sync_message(&mut state).expect("an answer").encode();
        let incoming = Incoming::read(&answer).expect("a message");
        let mut documents = 0;
        each_chunk(incoming.changes, |chunk| {
            documents += usize::from(matches!(chunk, Chunk::Document));
        })
        .expect("whole chunks");
        assert_eq!(documents, 1);
        assert_eq!(incoming.heads[0], server.get_heads()[0].0);
        client
            .receive_sync_message(&mut theirs, Message::decode(&answer).expect("it"))
            .expect("ok");
        assert_eq!(client.get_heads(), server.get_heads());
    }
}
