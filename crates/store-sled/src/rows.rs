//! How things lie in the tree: keys, kinds and checksums of rows.
//!
//! One tree holds seven kinds of keys, told apart by their first byte:
//!
//! | key | value |
//! |---|---|
//! | `c` | the number of the last commit; a store that an older version wrote may not have it |
//! | `f` generation | nothing: the file of this generation belongs to the store |
//! | `m` | the version of this format |
//! | `o` generation | nothing: parts of this generation may exist that nothing refers to |
//! | `p` generation, part | a part of a value that is too large for a row |
//! | `r` key of the caller | a small value itself, or a pointer to the parts or the file of a larger one |
//! | `t` number | nothing that means anything (`tidy.rs`) |
//!
//! Numbers in keys are big-endian, so that parts lie in order. A *generation* is one large value as it
//! was once written. It is never used again while the store is open, so a reader that follows a pointer
//! finds the parts of exactly that value or finds that some are gone: never a mixture.
//!
//! Every row begins with a CRC-32 of its key and its content. The key is in it so that a row that turns up
//! under another key does not pass either.

use crc32fast::Hasher;

/// The version of everything in this file.
pub(crate) const FORMAT_VERSION: u32 = 2;
/// The version before there were files. Its stores are read as they are, and become the newer one.
pub(crate) const FORMAT_WITHOUT_FILES: u32 = 1;
/// Key of the version.
pub(crate) const META: &[u8] = b"m";
/// Key of the number of the last commit.
pub(crate) const COMMIT: &[u8] = b"c";

/// Bytes of sled's segments in a new store. Its file has eight of them or so at the least, once for a
/// store, so half of what sled takes by itself.
pub(crate) const SEGMENT_BYTES: usize = 256 << 10;
/// What sled takes by itself, and older stores have.
pub(crate) const OLDER_SEGMENT_BYTES: usize = 512 << 10;
/// Above this, a value is split. With the longest key and the checksum it stays under 3 KiB: sled
/// rewrites whole leaves, and puts one of more than a quarter of a segment into a file that it never
/// syncs (with rows of 20 KB the database did not open after a loss of power). A leaf has up to 17 rows,
/// and up to 20 when another was just merged into it.
pub(crate) const INLINE_BYTES_MAX: usize = 2900;
/// Bytes of a larger value in one row.
pub(crate) const PART_BYTES: usize = 3040;
/// Above this, a value has a file of its own: a sync more for its commit, and the space of it back when
/// it is replaced. (An older store has parts of larger values, too.)
pub(crate) const PARTS_BYTES_MAX: usize = 64 << 10;

const CHECKSUM_BYTES: usize = 4;
const KIND_INLINE: u8 = 0;
const KIND_POINTER: u8 = 1;
const KIND_FILE: u8 = 2;

/// What a row of the caller holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    Inline(&'a [u8]),
    Pointer(Pointer),
    File(ValueFile),
}

/// The file of a large value, and what it has to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ValueFile {
    pub generation: u64,
    /// Bytes of the value.
    pub length: u64,
    /// CRC-32 of generation and value.
    pub checksum: u32,
}

/// Where the parts of a value are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pointer {
    pub generation: u64,
    /// Bytes of the value.
    pub length: u64,
}

impl Pointer {
    pub fn parts(self) -> usize {
        usize::try_from(self.length).expect("at most VALUE_BYTES_MAX").div_ceil(PART_BYTES)
    }
}

/// A row whose checksum or shape is wrong: what is wrong with it.
pub(crate) type Damage = String;

pub(crate) fn row_key(key: &[u8]) -> Vec<u8> {
    [b"r", key].concat()
}

/// The caller's key in a row's key.
pub(crate) fn caller_key(row_key: &[u8]) -> &[u8] {
    &row_key[1..]
}

pub(crate) fn part_key(generation: u64, part: u32) -> Vec<u8> {
    [b"p".as_slice(), &generation.to_be_bytes(), &part.to_be_bytes()].concat()
}

pub(crate) fn generation_of_part(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.strip_prefix(b"p")?.get(..8)?.try_into().ok()?))
}

pub(crate) fn file_key(generation: u64) -> Vec<u8> {
    [b"f".as_slice(), &generation.to_be_bytes()].concat()
}

pub(crate) fn generation_of_file(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.strip_prefix(b"f")?.try_into().ok()?))
}

pub(crate) fn filler_key(number: u16) -> Vec<u8> {
    [b"t".as_slice(), &number.to_be_bytes()].concat()
}

pub(crate) fn orphan_key(generation: u64) -> Vec<u8> {
    [b"o".as_slice(), &generation.to_be_bytes()].concat()
}

pub(crate) fn generation_of_orphan(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.strip_prefix(b"o")?.try_into().ok()?))
}

/// A row: the checksum, then `content`.
pub(crate) fn seal(key: &[u8], content: &[&[u8]]) -> Vec<u8> {
    let length: usize = content.iter().map(|c| c.len()).sum();
    let mut row = Vec::with_capacity(CHECKSUM_BYTES + length);
    row.extend_from_slice(&[0; CHECKSUM_BYTES]);
    content.iter().for_each(|c| row.extend_from_slice(c));
    let checksum = checksum(key, &row[CHECKSUM_BYTES..]);
    row[..CHECKSUM_BYTES].copy_from_slice(&checksum);
    row
}

/// The content of a row.
pub(crate) fn unseal<'a>(key: &[u8], row: &'a [u8]) -> Result<&'a [u8], Damage> {
    match row.split_at_checked(CHECKSUM_BYTES) {
        Some((sum, content)) if sum == checksum(key, content) => Ok(content),
        _ => Err(format!("row {key:02x?} does not match its checksum")),
    }
}

pub(crate) fn seal_commit(number: u64) -> Vec<u8> {
    seal(COMMIT, &[&number.to_le_bytes()])
}

pub(crate) fn unseal_commit(row: &[u8]) -> Result<u64, Damage> {
    let number = unseal(COMMIT, row)?.try_into();
    number.map(u64::from_le_bytes).map_err(|_| "the number of the last commit is no number".into())
}

pub(crate) fn seal_inline(key: &[u8], value: &[u8]) -> Vec<u8> {
    seal(key, &[&[KIND_INLINE], value])
}

pub(crate) fn seal_pointer(key: &[u8], pointer: Pointer) -> Vec<u8> {
    let Pointer { generation, length } = pointer;
    seal(key, &[&[KIND_POINTER], &generation.to_le_bytes(), &length.to_le_bytes()])
}

pub(crate) fn seal_file(key: &[u8], file: ValueFile) -> Vec<u8> {
    let ValueFile { generation, length, checksum } = file;
    let numbers = [generation.to_le_bytes(), length.to_le_bytes()].concat();
    seal(key, &[&[KIND_FILE], &numbers, &checksum.to_le_bytes()])
}

pub(crate) fn unseal_content<'a>(key: &[u8], row: &'a [u8]) -> Result<Content<'a>, Damage> {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
    match unseal(key, row)?.split_first() {
        Some((&KIND_INLINE, value)) => Ok(Content::Inline(value)),
        Some((&KIND_POINTER, numbers)) if numbers.len() == 16 => Ok(Content::Pointer(Pointer {
            generation: number(&numbers[..8]),
            length: number(&numbers[8..]),
        })),
        Some((&KIND_FILE, numbers)) if numbers.len() == 20 => Ok(Content::File(ValueFile {
            generation: number(&numbers[..8]),
            length: number(&numbers[8..16]),
            checksum: u32::from_le_bytes(numbers[16..].try_into().expect("4 bytes of 20")),
        })),
        _ => Err(format!("row {key:02x?} is of no known kind")),
    }
}

fn checksum(key: &[u8], content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = Hasher::new();
    hasher.update(key);
    hasher.update(content);
    hasher.finalize().to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::KEY_BYTES_MAX;

    #[test]
    fn no_row_is_larger_than_sled_can_sync() {
        // As sled has it: a quarter of a segment without its header, for the leaf and a header of its own.
        let leaf_bytes_max = SEGMENT_BYTES / 4 - 20 - 32;
        let row_bytes_max = leaf_bytes_max / 21;
        let key = row_key(&[7; KEY_BYTES_MAX]);
        assert!(key.len() + seal_inline(&key, &[0; INLINE_BYTES_MAX]).len() <= row_bytes_max);
        let key = part_key(u64::MAX, u32::MAX);
        assert!(key.len() + seal(&key, &[&[0; PART_BYTES]]).len() <= row_bytes_max);
    }

    #[test]
    fn a_changed_bit_anywhere_in_key_or_row_is_noticed() {
        let key = row_key(b"key");
        let row = seal_inline(&key, b"value");
        assert_eq!(unseal_content(&key, &row), Ok(Content::Inline(b"value")));
        for bit in 0..row.len() * 8 {
            let mut row = row.clone();
            row[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal_content(&key, &row).is_err(), "bit {bit}");
        }
        assert!(unseal_content(&row_key(b"kez"), &row).is_err());
        assert!(unseal_content(&key, &row[..3]).is_err());
    }
}
