//! The Bloom filter of the sync protocol, with its parameters checked.

use history::varint::{Malformed, Reader, put};
use model::ChangeHash;

/// The most probes per hash that a filter may ask for. Automerge uses 7; more than this only burns
/// time.
pub const BLOOM_PROBES_MAX: u32 = 32;

const BITS_PER_ENTRY: u32 = 10;
const PROBES: u32 = 7;

/// A set of change hashes with false positives (1 % at Automerge's parameters).
///
/// The layout and the probe sequence are those of `automerge::sync::BloomFilter`: three little-endian
/// words of the hash, each modulo the number of bits, stepped triangularly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bloom {
    entries: u32,
    bits_per_entry: u32,
    probes: u32,
    bits: Vec<u8>,
}

impl Bloom {
    /// The filter that holds nothing.
    pub const fn empty() -> Self {
        Self { entries: 0, bits_per_entry: BITS_PER_ENTRY, probes: PROBES, bits: Vec::new() }
    }

    /// A filter that holds these hashes.
    pub fn of(hashes: impl ExactSizeIterator<Item = ChangeHash>) -> Self {
        let entries = hashes.len() as u32;
        let bits = vec![0; bit_bytes(entries, BITS_PER_ENTRY)];
        let mut bloom = Self { entries, bits_per_entry: BITS_PER_ENTRY, probes: PROBES, bits };
        for hash in hashes {
            let probes: Vec<u32> = bloom.probes(&hash).collect();
            for probe in probes {
                bloom.bits[probe as usize >> 3] |= 1 << (probe & 7);
            }
        }
        bloom
    }

    /// Whether the filter holds nothing at all.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Whether the filter may hold the hash; `false` is certain.
    pub fn contains(&self, hash: &ChangeHash) -> bool {
        self.entries > 0
            && self
                .probes(hash)
                .all(|probe| self.bits[probe as usize >> 3] & (1 << (probe & 7)) != 0)
    }

    /// Appends the encoded filter; nothing if it is empty.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        if self.entries > 0 {
            put(out, u64::from(self.entries));
            put(out, u64::from(self.bits_per_entry));
            put(out, u64::from(self.probes));
            out.extend_from_slice(&self.bits);
        }
    }

    /// Reads an encoded filter. The bits must be there, so a filter is never larger than its message.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BloomError> {
        if bytes.is_empty() {
            return Ok(Self::empty());
        }
        let mut reader = Reader::new(bytes);
        let mut number = || -> Result<u32, BloomError> {
            u32::try_from(reader.number()?).map_err(|_| BloomError::Truncated)
        };
        let (entries, bits_per_entry, probes) = (number()?, number()?, number()?);
        if entries == 0 {
            return Ok(Self::empty());
        }
        if bits_per_entry == 0 || probes == 0 || probes > BLOOM_PROBES_MAX {
            return Err(BloomError::Parameters { entries, bits_per_entry, probes });
        }
        let needed = u64::from(entries) * u64::from(bits_per_entry);
        if needed.div_ceil(8) > reader.left() as u64 {
            return Err(BloomError::Truncated);
        }
        let bits = reader.bytes(bit_bytes(entries, bits_per_entry))?.to_vec();
        // The probe sequence counts bits in 32 bits.
        if bits.len() as u64 * 8 > u64::from(u32::MAX) {
            return Err(BloomError::Parameters { entries, bits_per_entry, probes });
        }
        Ok(Self { entries, bits_per_entry, probes, bits })
    }

    fn probes(&self, hash: &ChangeHash) -> impl Iterator<Item = u32> + use<> {
        let modulo = 8 * self.bits.len() as u64;
        let word = |at: usize| {
            let bytes = &hash.as_bytes()[at..at + 4];
            u64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])) % modulo
        };
        let (mut x, mut y, z) = (word(0), word(4), word(8));
        (0..self.probes).map(move |_| {
            let probe = x as u32;
            x = (x + y) % modulo;
            y = (y + z) % modulo;
            probe
        })
    }
}

fn bit_bytes(entries: u32, bits_per_entry: u32) -> usize {
    (u64::from(entries) * u64::from(bits_per_entry)).div_ceil(8) as usize
}

/// Why a Bloom filter is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BloomError {
    /// The bits that the parameters claim are not there.
    #[error("Bloom filter is truncated")]
    Truncated,
    /// Parameters with which a filter would divide by zero or probe without end.
    #[error(
        "Bloom filter of {entries} entries with {bits_per_entry} bits each and {probes} probes"
    )]
    Parameters {
        /// Entries claimed.
        entries: u32,
        /// Bits per entry claimed.
        bits_per_entry: u32,
        /// Probes per entry asked for.
        probes: u32,
    },
}

impl From<Malformed> for BloomError {
    fn from(_: Malformed) -> Self {
        Self::Truncated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(count: u32) -> Vec<ChangeHash> {
        (0..count)
            .map(|n| {
                let mut seed = u64::from(n) + 1;
                ChangeHash(std::array::from_fn(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                    (seed >> 40) as u8
                }))
            })
            .collect()
    }

    #[test]
    fn the_filter_is_the_one_that_automerge_makes() {
        for count in [0, 1, 7, 100] {
            let ours = Bloom::of(hashes(count).into_iter());
            let theirs = automerge::sync::BloomFilter::from_hashes(
                hashes(count).iter().map(|hash| automerge::ChangeHash(hash.0)),
            );
            let mut bytes = Vec::new();
            ours.encode(&mut bytes);
            assert_eq!(bytes, theirs.to_bytes());
            assert_eq!(Bloom::decode(&bytes), Ok(ours.clone()));
            for hash in hashes(3 * count) {
                let hash_of_theirs = automerge::ChangeHash(hash.0);
                assert_eq!(ours.contains(&hash), theirs.contains_hash(&hash_of_theirs));
            }
        }
    }

    #[test]
    fn absurd_parameters_are_refused_before_they_cost_anything() {
        let encoded = |entries: u64, bits: u64, probes: u64, length: usize| {
            let mut bytes = Vec::new();
            [entries, bits, probes].iter().for_each(|number| put(&mut bytes, *number));
            bytes.resize(bytes.len() + length, 0xff);
            bytes
        };
        for bytes in [
            encoded(1, 0, 7, 8),
            encoded(10, 10, 0, 13),
            encoded(10, 10, 1_000_000, 13),
            encoded(u64::from(u32::MAX), u64::from(u32::MAX), 7, 100),
            encoded(1 << 40, 10, 7, 100),
            encoded(10, 10, 7, 5),
            vec![0x80; 40],
        ] {
            assert!(Bloom::decode(&bytes).is_err(), "{bytes:?}");
        }
        assert_eq!(Bloom::decode(&encoded(0, 0, 0, 0)), Ok(Bloom::empty()));
    }
}
