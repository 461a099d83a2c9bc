//! The sketch: a set of items as a stream of symbols, of which a receiver needs about 1.4 for each
//! item in which the two sets differ, however large the sets are.

/// One coded symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Symbol {
    /// The exclusive or of the items in it.
    pub items: u64,
    /// The exclusive or of their checks.
    pub checks: u64,
    /// How many there are.
    pub count: i64,
}
