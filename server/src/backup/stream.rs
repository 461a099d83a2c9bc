//! A store on its way: what a region answers to `POST /v1/backup`, and what `tributary backup` reads.
//!
//! ```text
//! tributary-backup 1\n
//! {"region": …}\n                    whose it is, see About
//! 1 key value                        a row is put       (2-byte length, bytes; 4-byte length, bytes)
//! 2 key                              a row is removed
//! 3 rows later                       the end: how many rows were read, how many writes came later
//! 4 text                             or the end because something went wrong
//! ```
//!
//! Numbers are big-endian. A stream without an end was broken off, and what came of it is no copy.

use std::io::{self, BufRead, Read};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use store::{KEY_BYTES_MAX, VALUE_BYTES_MAX, Write};

use crate::config::StoreKind;

/// The type of the answer.
pub const CONTENT_TYPE: &str = "application/vnd.tributary.backup";

const MAGIC: &str = "tributary-backup 1\n";
/// The line about the store has no more bytes.
const ABOUT_BYTES_MAX: u64 = 16 << 10;
/// Words about what went wrong have no more bytes.
const TEXT_BYTES_MAX: usize = 4 << 10;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const END: u8 = 3;
const FAILED: u8 = 4;

/// Whose copy it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The name of the region; empty when it is not known.
    pub region: String,
    /// What kind of store it is.
    pub store: StoreKind,
    /// Where the store is, on the machine of the server.
    pub data: PathBuf,
    /// When the copy was begun, in seconds since 1970 of the server's clock.
    pub taken: u64,
    /// The version of the server.
    pub version: String,
}

/// What comes after that.
#[derive(Debug, PartialEq, Eq)]
pub enum Record {
    /// A row is to be written or removed.
    Write(Write),
    /// The copy is whole.
    End {
        /// How many rows were read.
        rows: u64,
        /// How many writes were made meanwhile, and are in it.
        later: u64,
    },
    /// There will be no copy, and why.
    Failed(String),
}

/// The beginning.
pub fn head(about: &About) -> Vec<u8> {
    let mut out = MAGIC.as_bytes().to_vec();
    out.extend(serde_json::to_vec(about).expect("plain data can be written as JSON"));
    out.push(b'\n');
    out
}

/// A row is put.
pub fn put(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    out.push(PUT);
    push_key(out, key);
    let length = u32::try_from(value.len()).expect("at most VALUE_BYTES_MAX");
    out.extend(length.to_be_bytes());
    out.extend(value);
}

/// What a batch did.
pub fn write(out: &mut Vec<u8>, write: &Write) {
    match write {
        Write::Put { key, value } => put(out, key, value),
        Write::Delete { key } => {
            out.push(DELETE);
            push_key(out, key);
        }
    }
}

/// The end.
pub fn end(rows: u64, later: u64) -> Vec<u8> {
    [[END].as_slice(), &rows.to_be_bytes(), &later.to_be_bytes()].concat()
}

/// The end because something went wrong.
pub fn failed(text: &str) -> Vec<u8> {
    let text = &text.as_bytes()[..text.floor_char_boundary(TEXT_BYTES_MAX)];
    let length = u32::try_from(text.len()).expect("cut above");
    [[FAILED].as_slice(), &length.to_be_bytes(), text].concat()
}

fn push_key(out: &mut Vec<u8>, key: &[u8]) {
    let length = u16::try_from(key.len()).expect("at most KEY_BYTES_MAX");
    out.extend(length.to_be_bytes());
    out.extend(key);
}

/// Reads the beginning.
///
/// # Errors
/// When it is not one, or cannot be read.
pub fn read_head(from: &mut impl BufRead) -> io::Result<About> {
    let mut magic = [0; MAGIC.len()];
    from.read_exact(&mut magic)?;
    if magic != *MAGIC.as_bytes() {
        return Err(nonsense("the answer is not a backup that this version can read"));
    }
    let mut line = Vec::new();
    from.take(ABOUT_BYTES_MAX).read_until(b'\n', &mut line)?;
    serde_json::from_slice(&line).map_err(|error| nonsense(&format!("the backup: {error}")))
}

/// Reads what comes next.
///
/// # Errors
/// `UnexpectedEof` when it was broken off; others when it makes no sense or cannot be read.
pub fn read(from: &mut impl Read) -> io::Result<Record> {
    let [kind] = exactly::<1>(from)?;
    match kind {
        PUT => {
            let key = key(from)?;
            let length = u32::from_be_bytes(exactly(from)?) as usize;
            if length > VALUE_BYTES_MAX {
                return Err(nonsense("a row of the backup is longer than rows are"));
            }
            Ok(Record::Write(Write::Put { key, value: bytes(from, length)? }))
        }
        DELETE => Ok(Record::Write(Write::Delete { key: key(from)? })),
        END => {
            let (rows, later) = (exactly(from)?, exactly(from)?);
            Ok(Record::End { rows: u64::from_be_bytes(rows), later: u64::from_be_bytes(later) })
        }
        FAILED => {
            let length = u32::from_be_bytes(exactly(from)?) as usize;
            let text = bytes(from, length.min(TEXT_BYTES_MAX))?;
            Ok(Record::Failed(String::from_utf8_lossy(&text).into_owned()))
        }
        _ => Err(nonsense("the backup has a part that this version does not know")),
    }
}

fn key(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes(exactly(from)?));
    if !(1..=KEY_BYTES_MAX).contains(&length) {
        return Err(nonsense("a key of the backup is longer than keys are"));
    }
    bytes(from, length)
}

/// So many bytes; a length that is a lie takes no memory.
fn bytes(from: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(length as u64).read_to_end(&mut bytes)?;
    match bytes.len() == length {
        true => Ok(bytes),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn exactly<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn nonsense(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About {
            region: "eu".to_owned(),
            store: StoreKind::Sqlite,
            data: PathBuf::from("/somewhere"),
            taken: 1_795_500_000,
            version: "0.1.0".to_owned(),
        }
    }

    #[test]
    fn what_is_written_reads_back_as_the_same_and_every_break_is_noticed() {
        let writes = [
            Write::Put { key: vec![1], value: vec![7; 70_000] },
            Write::Delete { key: vec![2; KEY_BYTES_MAX] },
            Write::Put { key: vec![3], value: Vec::new() },
        ];
        let mut stream = head(&about());
        writes.iter().for_each(|each| write(&mut stream, each));
        stream.extend(end(2, 1));
        let read_all = |mut from: &[u8]| -> io::Result<Vec<Record>> {
            assert_eq!(read_head(&mut from)?, about());
            let mut records = Vec::new();
            while !matches!(records.last(), Some(Record::End { .. })) {
                records.push(read(&mut from)?);
            }
            Ok(records)
        };
        let mut expected: Vec<_> = writes.map(Record::Write).into();
        expected.push(Record::End { rows: 2, later: 1 });
        assert_eq!(read_all(&stream).unwrap(), expected);
        for length in (0..stream.len()).step_by(97).chain([stream.len() - 1]) {
            assert!(read_all(&stream[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn a_failure_is_told_in_its_own_words() {
        let long = "ä".repeat(TEXT_BYTES_MAX);
        for text in ["the disk is gone", long.as_str()] {
            match read(&mut failed(text).as_slice()).unwrap() {
                Record::Failed(said) => assert!(text.starts_with(&said) && said.len() > 10),
                other => panic!("{other:?}"),
            }
        }
    }
}
