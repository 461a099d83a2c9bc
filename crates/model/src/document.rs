use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The id of a document: bytes, written as base58 with a checksum.
///
/// `automerge-repo` makes 16 random bytes (a v4 UUID); other id factories make longer ones (32), so
/// any length from 1 to [`DocumentId::BYTES_MAX`] is accepted. The text form is the one on the wire.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentId(Arc<[u8]>);

impl DocumentId {
    /// How many streams there are: a part of what regions agree on, so it never changes.
    pub const STREAMS: u8 = 16;

    /// The longest document id that is accepted.
    pub const BYTES_MAX: usize = 64;

    /// An id from its bytes.
    ///
    /// # Errors
    /// When there are none, or more than [`DocumentId::BYTES_MAX`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParseDocumentIdError> {
        match bytes.len() {
            0 => Err(ParseDocumentIdError::Empty),
            n if n > Self::BYTES_MAX => Err(ParseDocumentIdError::TooLong),
            _ => Ok(Self(bytes.into())),
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Which of [`STREAMS`](Self::STREAMS) streams the document belongs to, the same everywhere.
    pub fn stream(&self) -> u8 {
        // FNV-1a: ids are random already, but an id factory may put the randomness anywhere.
        let hash = self.0.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        (hash % u64::from(Self::STREAMS)) as u8
    }

    /// Which of `shards` shards owns the document. All documents of a stream have the same.
    pub fn shard(&self, shards: usize) -> usize {
        usize::from(self.stream()) % shards
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(&self.0).with_check().into_string())
    }
}

impl fmt::Debug for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for DocumentId {
    type Err = ParseDocumentIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Twice the bound in characters is more than base58 needs, and keeps decoding cheap.
        if text.len() > 2 * Self::BYTES_MAX {
            return Err(ParseDocumentIdError::TooLong);
        }
        if let Some(uuid) = uuid_bytes(text) {
            return Self::from_bytes(&uuid);
        }
        let bytes = bs58::decode(text)
            .with_check(None)
            .into_vec()
            .map_err(|_| ParseDocumentIdError::NotBase58Check)?;
        Self::from_bytes(&bytes)
    }
}

/// The legacy form that clients before 1.0 used: a UUID as text.
fn uuid_bytes(text: &str) -> Option<[u8; 16]> {
    let dashes = [8, 13, 18, 23];
    if text.len() != 36 || !text.is_ascii() {
        return None;
    }
    let mut digits = Vec::with_capacity(32);
    for (at, character) in text.chars().enumerate() {
        match (dashes.contains(&at), character) {
            (true, '-') => {}
            (false, character) => digits.push(character.to_digit(16)? as u8),
            (true, _) => return None,
        }
    }
    Some(std::array::from_fn(|i| digits[2 * i] << 4 | digits[2 * i + 1]))
}

/// Why a text is not a document id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseDocumentIdError {
    /// No bytes at all.
    #[error("a document id cannot be empty")]
    Empty,
    /// More than [`DocumentId::BYTES_MAX`] bytes.
    #[error("a document id has at most {} bytes", DocumentId::BYTES_MAX)]
    TooLong,
    /// Not base58, or the checksum does not match.
    #[error("a document id is base58 with a checksum, or a UUID")]
    NotBase58Check,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_from_its_text_at_any_accepted_length() {
        for length in [1, 16, 32, DocumentId::BYTES_MAX] {
            let id = DocumentId::from_bytes(&vec![0xa5; length]).unwrap();
            assert_eq!(id.to_string().parse(), Ok(id));
        }
    }

    #[test]
    fn sixteen_bytes_of_one_have_the_text_that_automerge_repo_gives_them() {
        let id = DocumentId::from_bytes(&[1; 16]).unwrap();
        assert_eq!(id.to_string(), "p3u5PhN9wrNpsGCwfkeef2LzF9");
    }

    #[test]
    fn the_legacy_uuid_form_names_the_same_document() {
        let id = "01010101-0101-0101-0101-010101010101".parse::<DocumentId>().unwrap();
        assert_eq!(id.as_bytes(), [1; 16]);
    }

    #[test]
    fn texts_that_are_no_id_say_why() {
        assert_eq!("".parse::<DocumentId>(), Err(ParseDocumentIdError::NotBase58Check));
        assert_eq!("nonsense".parse::<DocumentId>(), Err(ParseDocumentIdError::NotBase58Check));
        assert_eq!("1".repeat(200).parse::<DocumentId>(), Err(ParseDocumentIdError::TooLong));
    }
}
