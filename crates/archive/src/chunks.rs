//! Chunks as they stand one after the other: four bytes of magic, four of checksum, a type, a length,
//! the contents. What is inside is Automerge's to read.

use std::io::Read;

use automerge::{Automerge, Bundle, Change};
use sha2::{Digest, Sha256};

use crate::guard::{brief, guarded};
use crate::job::{ExpandLimits, Limit, Reason, Stage};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Document,
    Change,
    Compressed,
    Bundle,
}

/// One chunk of an upload, whole, its checksum not yet looked at.
#[derive(Debug)]
pub(crate) struct Chunk<'a> {
    kind: Kind,
    checksum: [u8; 4],
    /// Header and contents.
    bytes: &'a [u8],
    contents: &'a [u8],
}

/// What a chunk held.
pub(crate) enum Contents {
    /// A document, loaded by Automerge with its heads checked.
    Document(Box<Automerge>),
    /// Changes, in the order of the chunk.
    Changes(Vec<Change>),
}

impl<'a> Chunk<'a> {
    /// The first chunk of `input`, and what follows it.
    pub(crate) fn split(input: &'a [u8]) -> Result<(Self, &'a [u8]), Reason> {
        let short = || malformed("the bytes end inside a chunk");
        let (header, rest) = input.split_first_chunk::<9>().ok_or_else(short)?;
        if header[..4] != MAGIC {
            return Err(malformed("a chunk begins with other bytes"));
        }
        let kind = match header[8] {
            0 => Kind::Document,
            1 => Kind::Change,
            2 => Kind::Compressed,
            3 => Kind::Bundle,
            _ => return Err(malformed("a chunk of an unknown type")),
        };
        let (length, rest) = length(rest).ok_or_else(short)?;
        let (contents, after) = rest.split_at_checked(length).ok_or_else(short)?;
        let bytes = &input[..input.len() - after.len()];
        let checksum = [header[4], header[5], header[6], header[7]];
        Ok((Self { kind, checksum, bytes, contents }, after))
    }

    /// Reads it, with a panic on the way made into a reason.
    pub(crate) fn open(&self, limits: &ExpandLimits) -> Result<Contents, Reason> {
        guarded(Stage::Parse, || match self.kind {
            Kind::Document => {
                self.check_own_checksum()?;
                let doc = Automerge::load(self.bytes).map_err(|e| malformed(&e.to_string()))?;
                Ok(Contents::Document(Box::new(doc)))
            }
            Kind::Bundle => {
                self.check_own_checksum()?;
                let bundle = Bundle::try_from(self.bytes).map_err(|e| malformed(&e.to_string()))?;
                if bundle.iter_changes().count() as u64 > limits.changes_max {
                    return Err(Reason::OverLimit(Limit::Changes));
                }
                let changes = bundle.to_changes().map_err(|e| malformed(&e.to_string()))?;
                Ok(Contents::Changes(changes))
            }
            Kind::Change | Kind::Compressed => {
                self.check_inflated_length(limits.change_bytes_max)?;
                let change = parse_change(self.bytes)?;
                Ok(Contents::Changes(vec![change]))
            }
        })
    }

    /// Bundles and documents carry the checksum of their bytes as they stand.
    fn check_own_checksum(&self) -> Result<(), Reason> {
        let mut hasher = Sha256::new();
        hasher.update([self.bytes[8]]);
        let mut left = self.contents.len();
        while left >= 0x80 {
            hasher.update([left as u8 | 0x80]);
            left >>= 7;
        }
        hasher.update([left as u8]);
        hasher.update(self.contents);
        if hasher.finalize()[..4] == self.checksum {
            Ok(())
        } else {
            Err(malformed("a checksum does not match"))
        }
    }

    /// A few bytes can inflate to gigabytes, and Automerge inflates without a bound.
    fn check_inflated_length(&self, bytes_max: u64) -> Result<(), Reason> {
        let length = if self.kind == Kind::Compressed {
            let inflating = flate2::bufread::DeflateDecoder::new(self.contents);
            let mut bounded = inflating.take(bytes_max.saturating_add(1));
            std::io::copy(&mut bounded, &mut std::io::sink())
                .map_err(|e| malformed(&e.to_string()))?
        } else {
            self.contents.len() as u64
        };
        if length > bytes_max {
            return Err(Reason::OverLimit(Limit::ChangeBytes));
        }
        Ok(())
    }
}

/// One change chunk, compressed or not, alone in `bytes`. Automerge parses a change without comparing
/// its checksum, so that is done here. May panic: call it guarded.
pub(crate) fn parse_change(bytes: &[u8]) -> Result<Change, Reason> {
    let change = Change::try_from(bytes).map_err(|e| malformed(&e.to_string()))?;
    if bytes.get(4..8) != Some(&change.hash().0[..4]) {
        return Err(malformed("a checksum does not match"));
    }
    Ok(change)
}

fn malformed(message: &str) -> Reason {
    Reason::Malformed(brief(message))
}

/// An unsigned LEB128 number that fits the address space, and what follows it.
fn length(input: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0_u64;
    for (at, byte) in input.iter().take(9).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, &input[at + 1..]));
        }
    }
    None
}
