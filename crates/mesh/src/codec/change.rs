//! A change without what the receiver knows: the checksum and the frame of its chunk, a dependency on
//! what this lane carried last for its document, its actor, the numbers that follow from those before.
//!
//! ```text
//! elided := flags · [dependencies] · [actor] · [seq] · [start] · [time] · [message] · [others] · tail
//! ```
//!
//! Each part in brackets is there only if its flag is not set. The tail is the rest of the chunk's
//! body as it is: the columns of the operations and whatever follows them.

use std::borrow::Cow;

use history::chunk::{Change, Chunk, Limits, read_chunks};
use history::varint::{self, Reader};
use model::{ActorId, ChangeHash};
use sha2::{Digest as _, Sha256};

use super::context::{Context, RECENT};
use super::{CodecError, put_bytes, take_bytes};

/// An entry that is a change as it is.
pub(super) const RAW: u8 = 0x80;
/// An entry that is a death record.
pub(super) const DEAD: u8 = 0x81;

/// It depends on the last change that was carried for its document, and on nothing else.
const DEPENDS_ON_LAST: u8 = 1;
/// Its actor is the one of that change.
const SAME_ACTOR: u8 = 1 << 1;
/// Its sequence number is the next of its actor.
const NEXT_SEQ: u8 = 1 << 2;
/// Its operations go on where those of the document were.
const NEXT_OP: u8 = 1 << 3;
/// Its time is the one of the last change that was carried at all.
const SAME_TIME: u8 = 1 << 4;
/// It has no commit message.
const NO_MESSAGE: u8 = 1 << 5;
/// It names the same other actors as the last elided change of its document.
const SAME_OTHERS: u8 = 1 << 6;

/// More other actors than these are not worth a table.
const OTHERS_MAX: usize = 256;

/// The parts of a change, from which its chunk can be built.
pub(super) struct Elided<'a> {
    dependencies: Vec<ChangeHash>,
    actor: ActorId,
    seq: u64,
    start_op: u64,
    time: i64,
    message: Cow<'a, [u8]>,
    others: Vec<ActorId>,
    tail: Cow<'a, [u8]>,
}

impl<'a> Elided<'a> {
    /// The parts of a change, if its chunk is exactly what is built from them: not when it is
    /// deflated, and never when something in it is written in an odd way.
    pub(super) fn of(change: &Change, body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        let dependencies = reader.count().ok()?.checked_mul(32)?;
        reader.bytes(dependencies).ok()?;
        take_bytes(&mut reader).ok()?;
        reader.number().ok()?;
        reader.number().ok()?;
        skip_signed(&mut reader)?;
        let message = take_bytes(&mut reader).ok()?;
        let count = reader.count().ok()?;
        if count > OTHERS_MAX {
            return None;
        }
        let mut others = Vec::with_capacity(count);
        for _ in 0..count {
            others.push(ActorId::new(take_bytes(&mut reader).ok()?).ok()?);
        }
        let parts = Self {
            dependencies: change.deps().to_vec(),
            actor: change.actor().clone(),
            seq: change.seq(),
            start_op: change.start_op(),
            time: change.time(),
            message: Cow::Borrowed(message),
            others,
            tail: Cow::Borrowed(reader.bytes(reader.left()).ok()?),
        };
        // The proof that the receiver will build the same.
        (parts.build(change.hash()) == change.bytes()).then_some(parts)
    }

    pub(super) fn put(&self, out: &mut Vec<u8>, context: &mut Context, document: usize) {
        let flags_at = out.len();
        let mut flags = 0;
        out.push(0);

        let traits = context.traits(document);
        let recent = traits.recent;
        if recent[0].is_some_and(|last| self.dependencies == [last]) {
            flags |= DEPENDS_ON_LAST;
        } else {
            varint::put(out, self.dependencies.len() as u64);
            for hash in &self.dependencies {
                let at = recent.iter().position(|recent| recent.as_ref() == Some(hash));
                out.push(at.unwrap_or(RECENT) as u8);
                if at.is_none() {
                    out.extend_from_slice(hash.as_bytes());
                }
            }
        }
        let (last_actor, next_op) = (traits.actor(), traits.max_op.wrapping_add(1));
        let known = context.known_actor(self.actor.as_bytes());
        let actor = match known {
            Some(actor) if last_actor == Some(actor) => {
                flags |= SAME_ACTOR;
                actor
            }
            _ => context.put_actor(out, &self.actor),
        };
        let next_seq = context.traits(document).next_seq(actor);
        flags |= put_delta(out, self.seq, next_seq, NEXT_SEQ);
        flags |= put_delta(out, self.start_op, next_op, NEXT_OP);
        flags |= put_delta(out, self.time as u64, context.time as u64, SAME_TIME);
        if self.message.is_empty() {
            flags |= NO_MESSAGE;
        } else {
            put_bytes(out, &self.message);
        }
        let known: Option<Vec<u64>> =
            self.others.iter().map(|other| context.known_actor(other.as_bytes())).collect();
        if known.as_ref() == Some(&context.traits(document).others) {
            flags |= SAME_OTHERS;
        } else {
            varint::put(out, self.others.len() as u64);
            let others = self.others.iter().map(|other| context.put_actor(out, other)).collect();
            context.traits(document).others = others;
        }
        put_bytes(out, &self.tail);
        out[flags_at] = flags;
    }

    pub(super) fn take(
        flags: u8,
        reader: &mut Reader<'a>,
        context: &mut Context,
        document: usize,
    ) -> Result<Self, CodecError> {
        if flags & RAW != 0 {
            return Err(CodecError::Malformed);
        }
        let has = |flag| flags & flag != 0;
        let traits = context.traits(document);
        let recent = traits.recent;
        let dependencies = if has(DEPENDS_ON_LAST) {
            vec![recent[0].ok_or(CodecError::Malformed)?]
        } else {
            let mut dependencies = Vec::new();
            for _ in 0..reader.count()? {
                let at = usize::from(reader.byte()?);
                dependencies.push(if at == RECENT {
                    ChangeHash(reader.array()?)
                } else {
                    recent.get(at).copied().flatten().ok_or(CodecError::Malformed)?
                });
            }
            dependencies
        };
        let (last_actor, next_op) = (traits.actor(), traits.max_op.wrapping_add(1));
        let actor = if has(SAME_ACTOR) {
            last_actor.ok_or(CodecError::Malformed)?
        } else {
            context.take_actor(reader)?
        };
        let next_seq = context.traits(document).next_seq(actor);
        let seq = take_delta(reader, next_seq, has(NEXT_SEQ))?;
        let start_op = take_delta(reader, next_op, has(NEXT_OP))?;
        let time = take_delta(reader, context.time as u64, has(SAME_TIME))? as i64;
        let message = if has(NO_MESSAGE) { &[][..] } else { take_bytes(reader)? };
        if !has(SAME_OTHERS) {
            let count = reader.count()?;
            if count > OTHERS_MAX {
                return Err(CodecError::Malformed);
            }
            let mut others = Vec::with_capacity(count);
            for _ in 0..count {
                others.push(context.take_actor(reader)?);
            }
            context.traits(document).others = others;
        }
        let others = context.traits(document).others.clone();
        let actor_of = |number| context.actor(number).ok_or(CodecError::Malformed);
        Ok(Self {
            dependencies,
            actor: actor_of(actor)?,
            seq,
            start_op,
            time,
            message: Cow::Borrowed(message),
            others: others.into_iter().map(actor_of).collect::<Result<_, _>>()?,
            tail: Cow::Borrowed(take_bytes(reader)?),
        })
    }

    /// The chunk. Its hash is computed.
    pub(super) fn rebuild(&self) -> Vec<u8> {
        let (body, mut head) = (self.body(), vec![CHANGE]);
        varint::put(&mut head, body.len() as u64);
        let hash = Sha256::new().chain_update(&head).chain_update(&body).finalize();
        chunk(&ChangeHash(hash.into()), &body)
    }

    /// The chunk with a hash that is known.
    fn build(&self, hash: ChangeHash) -> Vec<u8> {
        chunk(&hash, &self.body())
    }

    fn body(&self) -> Vec<u8> {
        let size = 64 + 32 * self.dependencies.len() + self.message.len() + self.tail.len();
        let mut body = Vec::with_capacity(size);
        varint::put(&mut body, self.dependencies.len() as u64);
        for hash in &self.dependencies {
            body.extend_from_slice(hash.as_bytes());
        }
        put_bytes(&mut body, self.actor.as_bytes());
        varint::put(&mut body, self.seq);
        varint::put(&mut body, self.start_op);
        put_signed(&mut body, self.time);
        put_bytes(&mut body, &self.message);
        varint::put(&mut body, self.others.len() as u64);
        for other in &self.others {
            put_bytes(&mut body, other.as_bytes());
        }
        body.extend_from_slice(&self.tail);
        body
    }
}

/// Reads the bytes of one change as strictly as if a client had sent them.
pub(super) fn read(bytes: &[u8], limits: &Limits) -> Option<Change> {
    match read_chunks(bytes, limits).ok()?.as_slice() {
        [Chunk::Change(change)] => Some(change.clone()),
        _ => None,
    }
}

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
/// The type of a chunk that is a change, not deflated.
const CHANGE: u8 = 1;

fn chunk(hash: &ChangeHash, body: &[u8]) -> Vec<u8> {
    let mut chunk = Vec::with_capacity(body.len() + 16);
    chunk.extend_from_slice(&MAGIC);
    chunk.extend_from_slice(&hash.as_bytes()[..4]);
    chunk.push(CHANGE);
    put_bytes(&mut chunk, body);
    chunk
}

/// Writes a number as its distance from the one that is likely, unless it is that one.
fn put_delta(out: &mut Vec<u8>, number: u64, likely: u64, flag: u8) -> u8 {
    if number == likely {
        return flag;
    }
    let distance = number.wrapping_sub(likely) as i64;
    varint::put(out, (distance << 1 ^ distance >> 63) as u64);
    0
}

fn take_delta(reader: &mut Reader<'_>, likely: u64, is_likely: bool) -> Result<u64, CodecError> {
    if is_likely {
        return Ok(likely);
    }
    let folded = reader.number()?;
    Ok(likely.wrapping_add(folded >> 1 ^ (folded & 1).wrapping_neg()))
}

/// Signed LEB128, as chunks have it.
fn put_signed(out: &mut Vec<u8>, mut number: i64) {
    loop {
        let byte = number as u8 & 0x7f;
        number >>= 7;
        if number == i64::from(byte & 0x40 != 0).wrapping_neg() {
            return out.push(byte);
        }
        out.push(byte | 0x80);
    }
}

fn skip_signed(reader: &mut Reader<'_>) -> Option<()> {
    while reader.byte().ok()? & 0x80 != 0 {}
    Some(())
}
