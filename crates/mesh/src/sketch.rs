//! The sketch: a set of items as a stream of symbols, of which a receiver needs about 1.4 for each
//! item in which the two sets differ, however large the sets are.
//!
//! This is a rateless invertible Bloom lookup table (Yang, Gilad, Alizadeh: *Practical Rateless Set
//! Reconciliation*, 2024). Symbol `i` holds each item with the chance 1 / (1 + i/2), so symbol 0 holds
//! all of them and later ones ever fewer. What two regions have in common cancels out when one
//! region's symbols are taken from the other's; a symbol in which one item is left gives that item
//! away, and taking it out of all symbols that it is in leaves others with one item, and so on.
//!
//! Symbols are sums: those of the shards of a region, added up, are those of the region.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use history::varint::{self, Malformed, Reader};

/// How many symbols a shard keeps, and the most that are ever sent: enough for about 5,900 items in
/// which two regions differ.
pub const LENGTH: usize = 8_192;

/// The longest sketch that there can be: the arithmetic of the places of an item is in 64 bits.
pub const LENGTH_MAX: usize = 1 << 14;

/// Bytes of a check on the wire. That something else than an item passes for one has the chance of
/// 2^-48 for each symbol looked at.
const CHECK_BYTES: usize = 6;

/// The most bytes of a symbol on the wire; most take 15 or 16.
pub const SYMBOL_BYTES_MAX: usize = 8 + CHECK_BYTES + 10;

/// One coded symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Symbol {
    /// The exclusive or of the items in it.
    pub items: u64,
    /// The exclusive or of their checks, each below 2^48.
    pub checks: u64,
    /// How many there are. In a difference, those only here less those only there.
    pub count: i64,
}

impl Symbol {
    /// The symbol of both sets together, if they have nothing in common.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let count = self.count.wrapping_add(other.count);
        Self { items: self.items ^ other.items, checks: self.checks ^ other.checks, count }
    }

    /// What is left when everything that is in `other` as well is taken away.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.plus(Self { count: other.count.wrapping_neg(), ..other })
    }

    /// Appends the symbol at `index` of a sketch of `total` items, in at most
    /// [`SYMBOL_BYTES_MAX`] bytes: of the count only by how much it differs from what is likely.
    pub fn put(self, out: &mut Vec<u8>, index: usize, total: u64) {
        out.extend_from_slice(&self.items.to_le_bytes());
        out.extend_from_slice(&self.checks.to_le_bytes()[..CHECK_BYTES]);
        let more = self.count.wrapping_sub(likely(index, total));
        varint::put(out, ((more << 1) ^ (more >> 63)) as u64);
    }

    /// Takes one off the front, as [`Symbol::put`] wrote it.
    ///
    /// # Errors
    /// When the bytes end too early.
    pub fn take(reader: &mut Reader<'_>, index: usize, total: u64) -> Result<Self, Malformed> {
        let items = u64::from_le_bytes(reader.array()?);
        let mut checks = [0; 8];
        checks[..CHECK_BYTES].copy_from_slice(reader.bytes(CHECK_BYTES)?);
        let more = reader.number()?;
        let more = (more >> 1) as i64 ^ -((more & 1) as i64);
        let count = likely(index, total).wrapping_add(more);
        Ok(Self { items, checks: u64::from_le_bytes(checks), count })
    }

    fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// The symbols of a set that changes, and a sum that tells whether two sets are the same.
#[derive(Debug, Clone)]
pub struct Sketch {
    symbols: Vec<Symbol>,
    count: u64,
    sum: u128,
}

impl Default for Sketch {
    fn default() -> Self {
        Self::new(LENGTH)
    }
}

impl Sketch {
    /// The sketch of nothing, with so many symbols (24 bytes each).
    ///
    /// # Panics
    /// If `length` is 0 or more than [`LENGTH_MAX`].
    pub fn new(length: usize) -> Self {
        assert!((1..=LENGTH_MAX).contains(&length), "a sketch of {length} symbols");
        Self { symbols: vec![Symbol::default(); length], count: 0, sum: 0 }
    }

    /// Puts an item in. It must not be in already.
    pub fn add(&mut self, item: u64) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(weight(item));
        apply(&mut self.symbols, item, 1);
    }

    /// Takes an item out. It must be in.
    pub fn remove(&mut self, item: u64) {
        self.count = self.count.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(weight(item));
        apply(&mut self.symbols, item, -1);
    }

    /// How many items are in.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The wrapping sum of their [weights](weight).
    pub fn sum(&self) -> u128 {
        self.sum
    }

    /// Some of the symbols: of the range, what lies within the length.
    pub fn symbols(&self, range: Range<usize>) -> &[Symbol] {
        let to = range.end.min(self.symbols.len());
        &self.symbols[range.start.min(to)..to]
    }

    /// Adds the sketch of a set that has nothing in common with this one. The shorter of the two
    /// gives the length.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.wrapping_add(other.count);
        self.sum = self.sum.wrapping_add(other.sum);
        merge(&mut self.symbols, &other.symbols);
    }
}

/// Adds symbols to symbols of the same places. The shorter list gives the length.
pub fn merge(symbols: &mut Vec<Symbol>, other: &[Symbol]) {
    symbols.truncate(other.len());
    for (symbol, other) in symbols.iter_mut().zip(other) {
        *symbol = symbol.plus(*other);
    }
}

/// What an item adds to the sum of its set: 128 bits, so that sets with the same sum are the same.
pub fn weight(item: u64) -> u128 {
    let high = mix(item ^ 0x243f_6a88_85a3_08d3);
    let low = mix(item ^ 0x1319_8a2e_0370_7344);
    u128::from(high) << 64 | u128::from(low)
}

/// Takes symbols of a difference, one after the other from the first on, and finds the items.
///
/// Memory is bounded by the symbols given: 24 bytes for each, and about 40 for each item found.
#[derive(Debug, Default)]
pub struct Decoder {
    symbols: Vec<Symbol>,
    /// How many of them are not empty.
    open: usize,
    here: Vec<u64>,
    there: Vec<u64>,
    /// Of each item found, the next place beyond the symbols so far.
    ahead: BinaryHeap<Reverse<(u64, u64, u64, i64)>>,
    /// Items only here less items only there.
    surplus: i64,
    /// The sum of squares by which counts are off, each divided by its variance for one item.
    spread: f64,
    /// More items were found than there can be: somebody's symbols are no symbols.
    broken: bool,
}

impl Decoder {
    /// One that knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next symbol: ours less theirs.
    pub fn push(&mut self, mut symbol: Symbol) {
        let index = self.symbols.len();
        if index == 0 {
            self.surplus = symbol.count;
        } else {
            let chance = 2.0 / (2.0 + index as f64);
            let off = symbol.count as f64 - self.surplus as f64 * chance;
            self.spread += off * off / (chance * (1.0 - chance));
        }
        while let Some(Reverse((at, state, item, count))) = self.ahead.peek().copied()
            && at == index as u64
        {
            self.ahead.pop();
            symbol = symbol.minus(Symbol { items: item, checks: check(item), count });
            let mut places = Places { at, state };
            places.forward();
            self.ahead.push(Reverse((places.at, places.state, item, count)));
        }
        self.open += usize::from(!symbol.is_empty());
        self.symbols.push(symbol);
        self.peel(index);
    }

    /// How many symbols there have been.
    pub fn len(&self) -> usize {
        self.symbols.len()
    }

    /// Whether there has been none.
    pub fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }

    /// How many more items there are here than there, by the first symbol.
    pub fn surplus(&self) -> i64 {
        self.surplus
    }

    /// Whether the items found are all there are.
    pub fn is_complete(&self) -> bool {
        !self.symbols.is_empty() && self.open == 0 && !self.broken
    }

    /// The items found that are only here.
    pub fn here(&self) -> &[u64] {
        &self.here
    }

    /// The items found that are only there.
    pub fn there(&self) -> &[u64] {
        &self.there
    }

    /// In how many items the sets probably differ.
    ///
    /// The counts say so before anything can be decoded: the more items there are on both sides, the
    /// further they stray from where the surplus alone would put them. With n symbols the estimate
    /// is off by about the square root of 2/n, as a share.
    pub fn estimate(&self) -> usize {
        let mean = self.spread / (self.symbols.len().max(2) - 1) as f64;
        // The conversion saturates, and makes 0 of what is not a number.
        (mean.ceil() as usize)
            .max(usize::try_from(self.surplus.unsigned_abs()).unwrap_or(usize::MAX))
    }

    /// Takes out the item of the symbol at `index`, if it is one item, and of those that it leaves.
    fn peel(&mut self, index: usize) {
        let mut look = vec![index];
        while let Some(index) = look.pop() {
            let Symbol { items: item, checks, count } = self.symbols[index];
            if !(count == 1 || count == -1) || checks != check(item) || !is_at(item, index) {
                continue;
            }
            // Honest symbols never give more items than symbols. Crafted ones could give one item
            // here and there in turn for ever.
            if self.here.len() + self.there.len() >= self.symbols.len() {
                self.broken = true;
                return;
            }
            let found = if count == 1 { &mut self.here } else { &mut self.there };
            found.push(item);
            let mut places = Places::of(item);
            while let Some(symbol) = self.symbols.get_mut(places.at as usize) {
                let before = symbol.is_empty();
                *symbol = symbol.minus(Symbol { items: item, checks, count });
                self.open = self.open + usize::from(before) - usize::from(symbol.is_empty());
                look.push(places.at as usize);
                places.forward();
            }
            self.ahead.push(Reverse((places.at, places.state, item, count)));
        }
    }
}

/// Adds an item to all symbols that it is in, `count` times: 1 or -1.
fn apply(symbols: &mut [Symbol], item: u64, count: i64) {
    let one = Symbol { items: item, checks: check(item), count };
    let mut places = Places::of(item);
    while let Some(symbol) = symbols.get_mut(places.at as usize) {
        *symbol = symbol.plus(one);
        places.forward();
    }
}

fn is_at(item: u64, index: usize) -> bool {
    let mut places = Places::of(item);
    while places.at < index as u64 {
        places.forward();
    }
    places.at == index as u64
}

/// The symbols that an item is in, in rising order.
struct Places {
    at: u64,
    state: u64,
}

impl Places {
    /// At the first, which is 0 for every item.
    fn of(item: u64) -> Self {
        Self { at: 0, state: item }
    }

    /// To the next one.
    ///
    /// From place `i`, the chance that an item is in none of the places up to `n` is the product of
    /// k / (k + 2) for all k between, which is (i + 1)(i + 2) / ((n + 1)(n + 2)). So the next place
    /// is the first one where that is not above a number drawn from 0 to 1.
    fn forward(&mut self) {
        debug_assert!(self.at < LENGTH_MAX as u64, "nobody asks for the one after the end");
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let drawn = (mix(self.state) >> 32) + 1;
        let least = (((self.at + 1) * (self.at + 2)) << 32).div_ceil(drawn);
        let mut next = (self.at + 1).max(least.isqrt().saturating_sub(2));
        while (next + 1) * (next + 2) < least {
            next += 1;
        }
        self.at = next;
    }
}

fn check(item: u64) -> u64 {
    mix(item ^ 0xa409_3822_299f_31d0) >> (64 - 8 * CHECK_BYTES)
}

/// How many of `total` items are likely to be in the symbol at `index`.
fn likely(index: usize, total: u64) -> i64 {
    let likely = u128::from(total) * 2 / (index as u128 + 2);
    likely as i64
}

/// Every bit of what comes out depends on every bit of what goes in; no two give the same.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Items as they are in life: the front of a hash.
    fn item(number: u64) -> u64 {
        mix(number ^ 0x5bd1_e995)
    }

    fn sketch(items: impl IntoIterator<Item = u64>) -> Sketch {
        let mut sketch = Sketch::default();
        items.into_iter().for_each(|item| sketch.add(item));
        sketch
    }

    /// Decodes as far as it needs; the number of symbols that it took.
    fn decode(here: &Sketch, there: &Sketch) -> (Decoder, usize) {
        let mut decoder = Decoder::new();
        for (ours, theirs) in here.symbols(0..LENGTH).iter().zip(there.symbols(0..LENGTH)) {
            decoder.push(ours.minus(*theirs));
            if decoder.is_complete() {
                break;
            }
        }
        let length = decoder.len();
        (decoder, length)
    }

    fn sorted(items: &[u64]) -> Vec<u64> {
        let mut items = items.to_vec();
        items.sort_unstable();
        items
    }

    #[test]
    fn symbol_i_holds_an_item_with_the_chance_of_one_in_one_and_a_half_i() {
        let all = 200_000;
        let sketch = sketch((0..all).map(item));
        for index in [0, 1, 2, 3, 10, 100, 1_000] {
            let count = sketch.symbols(index..index + 1)[0].count as f64;
            let likely = likely(index, all) as f64;
            assert!((count - likely).abs() <= 5.0 * likely.sqrt(), "{index}: {count}, {likely}");
        }
    }

    #[test]
    fn what_is_only_here_and_only_there_is_found_in_about_one_and_a_half_symbols_each() {
        for differ in [0_u64, 1, 2, 10, 100, 1_000] {
            let here = sketch((0..20_000).map(item));
            let there = sketch((differ..20_000 + differ).map(item));
            let (decoder, symbols) = decode(&here, &there);
            assert!(decoder.is_complete());
            let want: Vec<u64> = (0..differ).map(item).collect();
            assert_eq!(sorted(decoder.here()), sorted(&want));
            let want: Vec<u64> = (20_000..20_000 + differ).map(item).collect();
            assert_eq!(sorted(decoder.there()), sorted(&want));
            println!("{} items differ: {symbols} symbols", 2 * differ);
            assert!(
                symbols as u64 <= 3 * differ + 12,
                "{symbols} symbols for {differ} and {differ}"
            );
        }
    }

    #[test]
    fn a_sketch_is_the_sum_of_its_shards_and_forgets_what_is_removed() {
        let mut sum = sketch((0..100).map(item));
        sum.merge(&sketch((100..300).map(item)));
        sum.add(item(1_000));
        sum.remove(item(1_000));
        let whole = sketch((0..300).map(item));
        assert_eq!((sum.count(), sum.sum()), (whole.count(), whole.sum()));
        assert_eq!(sum.symbols(0..LENGTH), whole.symbols(0..LENGTH));
        assert_eq!(sum.symbols(LENGTH - 1..LENGTH + 5).len(), 1);
        assert!(sum.symbols(LENGTH + 1..LENGTH + 5).is_empty());
    }

    #[test]
    fn how_much_differs_is_known_roughly_before_it_can_be_decoded() {
        for (here, there) in
            [(200, 200), (1_000, 1_000), (4_000, 100), (50_000, 50_000), (0, 3_000)]
        {
            let ours = sketch((0..here).map(item));
            let theirs = sketch((100_000..100_000 + there).map(item));
            let mut decoder = Decoder::new();
            for index in 0..64 {
                let [ours] = ours.symbols(index..index + 1) else { panic!() };
                let [theirs] = theirs.symbols(index..index + 1) else { panic!() };
                decoder.push(ours.minus(*theirs));
            }
            let differ = (here + there) as f64;
            let estimate = decoder.estimate() as f64;
            assert!((estimate / differ - 1.0).abs() < 0.6, "{estimate} instead of {differ}");
        }
    }

    #[test]
    fn symbols_read_back_and_take_sixteen_bytes_in_a_set_of_a_million() {
        let total = 1_000_000;
        let mut out = Vec::new();
        let symbols: Vec<Symbol> = (0..500)
            .map(|index| Symbol {
                items: item(index),
                checks: check(index),
                // As far off as they are in life: the square root of what is likely.
                count: likely(index as usize, total)
                    + (likely(index as usize, total) as f64).sqrt() as i64,
            })
            .collect();
        for (index, symbol) in symbols.iter().enumerate() {
            symbol.put(&mut out, index, total);
        }
        assert!(out.len() <= symbols.len() * 16 + 16, "{} bytes", out.len());
        let mut reader = Reader::new(&out);
        for (index, symbol) in symbols.iter().enumerate() {
            assert_eq!(Symbol::take(&mut reader, index, total), Ok(*symbol));
        }
        assert!(reader.is_empty());
    }

    proptest! {
        #[test]
        fn any_symbol_reads_back(items: u64, checks in 0_u64..1 << 48, count: i64, index in 0..LENGTH, total: u64) {
            let symbol = Symbol { items, checks, count };
            let mut out = Vec::new();
            symbol.put(&mut out, index, total);
            prop_assert!(out.len() <= SYMBOL_BYTES_MAX);
            prop_assert_eq!(Symbol::take(&mut Reader::new(&out), index, total), Ok(symbol));
        }

        /// Crafted symbols give one item here and there in turn for ever, if nothing stops it.
        #[test]
        fn symbols_that_are_none_neither_panic_nor_go_on_for_ever(
            seeds in prop::collection::vec((0_u64..4, -2_i64..3), 1..200),
        ) {
            let mut decoder = Decoder::new();
            for (number, count) in seeds {
                decoder.push(Symbol { items: item(number), checks: check(item(number)), count });
            }
            prop_assert!(decoder.here().len() + decoder.there().len() <= decoder.len());
            decoder.estimate();
        }

        #[test]
        fn small_sets_are_told_apart(
            here in prop::collection::btree_set(0_u64..60, 0..40),
            there in prop::collection::btree_set(0_u64..60, 0..40),
        ) {
            let ours = sketch(here.iter().copied().map(item));
            let theirs = sketch(there.iter().copied().map(item));
            let (decoder, _) = decode(&ours, &theirs);
            prop_assert!(decoder.is_complete());
            let want: Vec<u64> = here.difference(&there).copied().map(item).collect();
            prop_assert_eq!(sorted(decoder.here()), sorted(&want));
            let want: Vec<u64> = there.difference(&here).copied().map(item).collect();
            prop_assert_eq!(sorted(decoder.there()), sorted(&want));
            prop_assert_eq!(ours.sum() == theirs.sum(), here == there);
        }
    }
}
