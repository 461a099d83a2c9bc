//! What two audits say to each other, as bytes.

use history::varint::{self, Malformed, Reader};

use crate::sketch::{LENGTH, Symbol};

/// The most items that one message names: 128 KiB.
pub const ITEMS_MAX: usize = 16_384;

/// How many documents there are, and the wrapping sum of what their items weigh
/// ([`weight`](crate::sketch::weight)). Regions with equal roots hold the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Root {
    /// How many.
    pub documents: u64,
    /// The sum.
    pub sum: u128,
}

/// One message of the audit. The region whose name is smaller asks, the other one answers.
///
/// `round` is the asker's number of a look; an answer repeats it, and what belongs to an older look
/// is ignored. Encoded, a message is one byte for its kind, then its fields in the order given here:
/// numbers as LEB128, items and sums as fixed little-endian bytes, symbols as
/// [`Symbol::put`] writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Asks: is this what you have? Answered by `RootSame`, `Symbols` or `Busy`.
    Root {
        /// The look.
        round: u64,
        /// What the asker has.
        root: Root,
        /// What the answerer has if exactly the items that differed at the last look still do.
        expected: Option<Root>,
    },
    /// Answers: yes.
    RootSame {
        /// The look.
        round: u64,
        /// It is `expected` that is the same.
        as_expected: bool,
    },
    /// Answers: no. A stretch of the answerer's symbols, all of one moment for one look.
    Symbols {
        /// The look.
        round: u64,
        /// How many items there are in them altogether.
        documents: u64,
        /// The place of the first; where the last message of this look ended.
        first: usize,
        /// They.
        symbols: Vec<Symbol>,
    },
    /// Asks for the symbols from where the last message ended to here.
    More {
        /// The look.
        round: u64,
        /// The place after the last that is wanted, at most [`LENGTH`].
        to: usize,
    },
    /// Tells the answerer which items only it has; it is to repair those documents. The asker
    /// repairs those that only it has.
    Differ {
        /// The look.
        round: u64,
        /// The items.
        items: Vec<u64>,
    },
    /// Tells the answerer that items which only it has stay different, however often they are
    /// repaired. For its operator.
    Stuck {
        /// The look.
        round: u64,
        /// The items.
        items: Vec<u64>,
    },
    /// Asks for the items in a range; for when symbols do not suffice. Answered by `Items`.
    Page {
        /// The look.
        round: u64,
        /// The smallest item of the range.
        from: u64,
        /// The largest one.
        to: u64,
    },
    /// Answers with all items from where the page starts to `to`.
    Items {
        /// The look.
        round: u64,
        /// The end of the range that they are all of: that of the page, or earlier.
        to: u64,
        /// They, ascending.
        items: Vec<u64>,
    },
    /// Answers: not now. Changes are being caught up with, and whatever differs may yet arrive.
    Busy {
        /// The look.
        round: u64,
    },
}

impl Message {
    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = |out: &mut Vec<u8>, kind: u8, round: &u64| {
            out.push(kind);
            varint::put(out, *round);
        };
        match self {
            Self::Root { round, root, expected: None } => {
                start(out, 0, round);
                put_root(out, root);
            }
            Self::Root { round, root, expected: Some(expected) } => {
                start(out, 1, round);
                put_root(out, root);
                put_root(out, expected);
            }
            Self::RootSame { round, as_expected } => {
                start(out, if *as_expected { 3 } else { 2 }, round);
            }
            Self::Symbols { round, documents, first, symbols } => {
                start(out, 4, round);
                varint::put(out, *documents);
                varint::put(out, *first as u64);
                varint::put(out, symbols.len() as u64);
                for (index, symbol) in (*first..).zip(symbols) {
                    symbol.put(out, index, *documents);
                }
            }
            Self::More { round, to } => {
                start(out, 5, round);
                varint::put(out, *to as u64);
            }
            Self::Differ { round, items } => {
                start(out, 6, round);
                put_items(out, items);
            }
            Self::Stuck { round, items } => {
                start(out, 7, round);
                put_items(out, items);
            }
            Self::Page { round, from, to } => {
                start(out, 8, round);
                out.extend_from_slice(&from.to_le_bytes());
                out.extend_from_slice(&to.to_le_bytes());
            }
            Self::Items { round, to, items } => {
                start(out, 9, round);
                out.extend_from_slice(&to.to_le_bytes());
                put_items(out, items);
            }
            Self::Busy { round } => start(out, 10, round),
        }
    }

    /// Reads one message, which is all there is.
    ///
    /// # Errors
    /// When it is not one, or names more than [`LENGTH`] symbols or [`ITEMS_MAX`] items, before
    /// memory is spent on them.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let kind = reader.byte()?;
        let round = reader.number()?;
        let message = match kind {
            0 => Self::Root { round, root: take_root(&mut reader)?, expected: None },
            1 => {
                let root = take_root(&mut reader)?;
                Self::Root { round, root, expected: Some(take_root(&mut reader)?) }
            }
            2 | 3 => Self::RootSame { round, as_expected: kind == 3 },
            4 => {
                let documents = reader.number()?;
                let first = place(&mut reader)?;
                let count = reader.count()?;
                if count > LENGTH - first {
                    return Err(Malformed);
                }
                let symbols = (first..first + count)
                    .map(|index| Symbol::take(&mut reader, index, documents))
                    .collect::<Result<_, _>>()?;
                Self::Symbols { round, documents, first, symbols }
            }
            5 => Self::More { round, to: place(&mut reader)? },
            6 => Self::Differ { round, items: take_items(&mut reader)? },
            7 => Self::Stuck { round, items: take_items(&mut reader)? },
            8 => {
                let from = u64::from_le_bytes(reader.array()?);
                Self::Page { round, from, to: u64::from_le_bytes(reader.array()?) }
            }
            9 => {
                let to = u64::from_le_bytes(reader.array()?);
                Self::Items { round, to, items: take_items(&mut reader)? }
            }
            10 => Self::Busy { round },
            _ => return Err(Malformed),
        };
        if reader.is_empty() { Ok(message) } else { Err(Malformed) }
    }

    /// Whether it may be long, and is better sent where it keeps nobody waiting.
    pub fn is_bulk(&self) -> bool {
        match self {
            Self::Symbols { symbols, .. } => symbols.len() > 1_024,
            Self::Differ { items, .. } | Self::Stuck { items, .. } => items.len() > 2_048,
            Self::Page { .. } | Self::Items { .. } => true,
            Self::Root { .. } | Self::RootSame { .. } | Self::More { .. } | Self::Busy { .. } => {
                false
            }
        }
    }
}

fn put_root(out: &mut Vec<u8>, root: &Root) {
    varint::put(out, root.documents);
    out.extend_from_slice(&root.sum.to_le_bytes());
}

fn take_root(reader: &mut Reader<'_>) -> Result<Root, Malformed> {
    let documents = reader.number()?;
    Ok(Root { documents, sum: u128::from_le_bytes(reader.array()?) })
}

fn put_items(out: &mut Vec<u8>, items: &[u64]) {
    varint::put(out, items.len() as u64);
    items.iter().for_each(|item| out.extend_from_slice(&item.to_le_bytes()));
}

fn take_items(reader: &mut Reader<'_>) -> Result<Vec<u64>, Malformed> {
    let count = reader.count()?;
    if count > ITEMS_MAX {
        return Err(Malformed);
    }
    (0..count).map(|_| Ok(u64::from_le_bytes(reader.array()?))).collect()
}

/// A place in a sketch, or the one after its end.
fn place(reader: &mut Reader<'_>) -> Result<usize, Malformed> {
    let place = reader.number()?;
    usize::try_from(place).ok().filter(|place| *place <= LENGTH).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(message: &Message) -> Vec<u8> {
        let mut out = Vec::new();
        message.encode(&mut out);
        out
    }

    #[test]
    fn every_message_reads_back() {
        let root = Root { documents: 1_000_000, sum: u128::MAX - 7 };
        let symbol = Symbol { items: 1, checks: 2, count: -3 };
        let messages = [
            Message::Root { round: 1, root, expected: None },
            Message::Root { round: 2, root, expected: Some(Root::default()) },
            Message::RootSame { round: 3, as_expected: false },
            Message::RootSame { round: 4, as_expected: true },
            Message::Symbols { round: 5, documents: 77, first: 40, symbols: vec![symbol; 3] },
            Message::Symbols { round: 5, documents: 0, first: LENGTH, symbols: vec![] },
            Message::More { round: 6, to: LENGTH },
            Message::Differ { round: 7, items: vec![1, u64::MAX] },
            Message::Stuck { round: 8, items: vec![] },
            Message::Page { round: 9, from: 0, to: u64::MAX },
            Message::Items { round: 10, to: 12, items: vec![3, 4] },
            Message::Busy { round: u64::MAX },
        ];
        for message in messages {
            let mut out = bytes(&message);
            assert_eq!(Message::decode(&out), Ok(message));
            out.push(0);
            assert_eq!(Message::decode(&out), Err(Malformed));
            out.truncate(out.len() - 2);
            assert_eq!(Message::decode(&out), Err(Malformed));
        }
    }

    #[test]
    fn what_is_more_than_its_bound_is_refused() {
        let symbols = vec![Symbol::default(); 2];
        let long = Message::Symbols { round: 0, documents: 0, first: LENGTH - 1, symbols };
        assert_eq!(Message::decode(&bytes(&long)), Err(Malformed));
        let far = Message::More { round: 0, to: LENGTH + 1 };
        assert_eq!(Message::decode(&bytes(&far)), Err(Malformed));
        let many = Message::Differ { round: 0, items: vec![0; ITEMS_MAX + 1] };
        assert_eq!(Message::decode(&bytes(&many)), Err(Malformed));
        assert_eq!(Message::decode(&[6, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]), Err(Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(noise in prop::collection::vec(any::<u8>(), 0..200), kind in 0_u8..12) {
            let _ = Message::decode(&noise);
            let mut framed = vec![kind, 1];
            framed.extend_from_slice(&noise);
            if let Ok(message) = Message::decode(&framed) {
                // Numbers may have been padded, so bytes may differ; the meaning must not.
                prop_assert_eq!(Message::decode(&bytes(&message)), Ok(message));
            }
        }
    }
}
