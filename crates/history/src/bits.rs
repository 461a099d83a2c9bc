//! A set of positions that costs nothing for the part of the log that a walk never reaches.

use crate::graph::Position;

/// A bit set over the positions below a bound, stored from the top down and grown on demand.
pub(crate) struct Bits {
    top: Position,
    words: Vec<u64>,
}

impl Bits {
    pub(crate) fn new(top: Position) -> Self {
        Self { top, words: Vec::new() }
    }

    /// Adds a position; whether it was new.
    pub(crate) fn set(&mut self, position: Position) -> bool {
        let (word, bit) = self.place(position);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        new
    }

    pub(crate) fn get(&self, position: Position) -> bool {
        let (word, bit) = self.place(position);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    fn place(&self, position: Position) -> (usize, u64) {
        let from_top = self.top - 1 - position;
        ((from_top / 64) as usize, 1 << (from_top % 64))
    }
}
