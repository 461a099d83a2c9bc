use std::fmt;
use std::str::FromStr;

/// The SHA-256 of a change: its name everywhere.
///
/// Prints as 64 hexadecimal digits, as Automerge does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeHash(pub [u8; 32]);

impl ChangeHash {
    /// The bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight bytes as a number. Hashes are uniform, so this is as good as hashing again.
    pub fn prefix(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_le_bytes(first)
    }

    /// The form that `automerge-repo` uses in URLs and in head gossip: base58 with a checksum.
    pub fn to_base58check(&self) -> String {
        bs58::encode(self.0).with_check().into_string()
    }

    /// The reverse of [`ChangeHash::to_base58check`].
    ///
    /// # Errors
    /// When the text is not base58, its checksum is wrong, or it does not hold 32 bytes.
    pub fn from_base58check(text: &str) -> Result<Self, ParseHashError> {
        let bytes = bs58::decode(text)
            .with_check(None)
            .into_vec()
            .map_err(|_| ParseHashError::NotBase58Check)?;
        let bytes: [u8; 32] =
            bytes.try_into().map_err(|bytes: Vec<u8>| ParseHashError::WrongLength(bytes.len()))?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for ChangeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChangeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}{:02x}{:02x}…", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

impl FromStr for ChangeHash {
    type Err = ParseHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 64 {
            return Err(ParseHashError::WrongLength(text.len() / 2));
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| ParseHashError::NotHex)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| ParseHashError::NotHex)?;
        }
        Ok(Self(bytes))
    }
}

/// Why a text is not a change hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseHashError {
    /// The text does not hold 32 bytes.
    #[error("a change hash has 32 bytes, this has {0}")]
    WrongLength(usize),
    /// A character is not a hexadecimal digit.
    #[error("a change hash is written in hexadecimal digits")]
    NotHex,
    /// Not base58, or the checksum does not match.
    #[error("not base58 with a valid checksum")]
    NotBase58Check,
}

/// The heads of a change graph: sorted, distinct.
///
/// Automerge compares heads as vectors, so the order is part of the protocol
/// (`automerge::sync` compares `their_heads` with its own for equality).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Heads(Vec<ChangeHash>);

impl Heads {
    /// No heads: the empty document.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// The hashes, ascending.
    pub fn as_slice(&self) -> &[ChangeHash] {
        &self.0
    }

    /// Whether this is the empty document.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many heads there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether `hash` is one of them.
    pub fn contains(&self, hash: &ChangeHash) -> bool {
        self.0.binary_search(hash).is_ok()
    }

    /// Adds a change: what it depends on is covered by it.
    pub fn advance(&mut self, hash: ChangeHash, deps: &[ChangeHash]) {
        self.0.retain(|head| !deps.contains(head));
        if let Err(at) = self.0.binary_search(&hash) {
            self.0.insert(at, hash);
        }
    }

    /// The hashes, ascending.
    pub fn iter(&self) -> std::slice::Iter<'_, ChangeHash> {
        self.0.iter()
    }
}

impl From<Vec<ChangeHash>> for Heads {
    fn from(mut hashes: Vec<ChangeHash>) -> Self {
        hashes.sort_unstable();
        hashes.dedup();
        Self(hashes)
    }
}

impl FromIterator<ChangeHash> for Heads {
    fn from_iter<I: IntoIterator<Item = ChangeHash>>(hashes: I) -> Self {
        Self::from(hashes.into_iter().collect::<Vec<_>>())
    }
}

impl<'a> IntoIterator for &'a Heads {
    type Item = &'a ChangeHash;
    type IntoIter = std::slice::Iter<'a, ChangeHash>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Debug for Heads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u8) -> ChangeHash {
        ChangeHash([n; 32])
    }

    #[test]
    fn heads_are_sorted_and_distinct_whatever_the_order_they_came_in() {
        let heads = Heads::from(vec![hash(3), hash(1), hash(3), hash(2)]);
        assert_eq!(heads.as_slice(), [hash(1), hash(2), hash(3)]);
    }

    #[test]
    fn a_change_replaces_the_heads_it_depends_on() {
        let mut heads = Heads::from(vec![hash(5), hash(7)]);
        heads.advance(hash(1), &[hash(7)]);
        assert_eq!(heads.as_slice(), [hash(1), hash(5)]);
    }

    #[test]
    fn a_hash_reads_back_from_both_of_its_printed_forms() {
        let hash = ChangeHash(std::array::from_fn(|i| i as u8 * 7));
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(ChangeHash::from_base58check(&hash.to_base58check()), Ok(hash));
    }

    #[test]
    fn texts_that_are_no_hash_say_why() {
        assert_eq!("abc".parse::<ChangeHash>(), Err(ParseHashError::WrongLength(1)));
        assert_eq!("zz".repeat(32).parse::<ChangeHash>(), Err(ParseHashError::NotHex));
        assert_eq!(ChangeHash::from_base58check("0OIl"), Err(ParseHashError::NotBase58Check));
    }
}
