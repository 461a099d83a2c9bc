//! The columns of a chunk: run-length, delta and boolean encodings, read one value at a time.
//!
//! No reader allocates: a run of a billion values is two numbers here. Each also notices whether its
//! bytes are the ones that Automerge's encoder would write for the same values, because Automerge
//! throws the bytes of a change away and encodes it again when it saves: other bytes, other hash,
//! and the saved document does not load ("mismatching heads").

use super::Malformed;
use super::cursor::Cursor;

/// Longer runs than this are nonsense: Automerge counts operations in 32 bits.
const RUN_MAX: u64 = u32::MAX as u64;

/// A value of a run-length column.
pub(super) trait Item<'a>: Copy + PartialEq {
    /// The value, and whether its bytes are the shortest.
    fn read(cursor: &mut Cursor<'a>) -> Result<(Self, bool), Malformed>;
}

impl<'a> Item<'a> for u64 {
    #[inline]
    fn read(cursor: &mut Cursor<'a>) -> Result<(Self, bool), Malformed> {
        cursor.unsigned()
    }
}

impl<'a> Item<'a> for i64 {
    #[inline]
    fn read(cursor: &mut Cursor<'a>) -> Result<(Self, bool), Malformed> {
        cursor.signed()
    }
}

impl<'a> Item<'a> for &'a str {
    fn read(cursor: &mut Cursor<'a>) -> Result<(Self, bool), Malformed> {
        let (length, short) = cursor.unsigned()?;
        let length = usize::try_from(length).map_err(|_| Malformed::EndsEarly)?;
        let text = std::str::from_utf8(cursor.take(length)?).map_err(|_| Malformed::NotUtf8)?;
        Ok((text, short))
    }
}

#[derive(Clone, Copy)]
enum Run<T> {
    Start,
    Literal(Option<T>),
    Repeat(T),
    Null,
}

/// A run-length column.
pub(super) struct Rle<'a, T> {
    cursor: Cursor<'a>,
    left: u64,
    run: Run<T>,
    has_value: bool,
    listed: bool,
    canonical: bool,
}

impl<'a, T: Item<'a>> Rle<'a, T> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            cursor: Cursor::new(bytes),
            left: 0,
            run: Run::Start,
            has_value: false,
            listed: !bytes.is_empty(),
            canonical: true,
        }
    }

    /// The next value: `None` at the end of the column, `Some(None)` for a null.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Option<T>>, Malformed> {
        if self.left == 0 {
            if self.cursor.is_empty() {
                // The encoder writes nulls at the end, unless there is nothing else.
                self.canonical &= !self.listed;
                return Ok(None);
            }
            self.start_run()?;
        }
        self.left -= 1;
        match self.run {
            Run::Repeat(value) => Ok(Some(Some(value))),
            Run::Null | Run::Start => Ok(Some(None)),
            Run::Literal(before) => {
                let (value, short) = T::read(&mut self.cursor)?;
                self.canonical &= short && before != Some(value);
                self.run = Run::Literal(Some(value));
                Ok(Some(Some(value)))
            }
        }
    }

    /// A value, with the end of the column and a null the same thing.
    #[inline]
    pub(super) fn next_or_null(&mut self) -> Result<Option<T>, Malformed> {
        Ok(self.next()?.flatten())
    }

    /// How many values the column claims to hold, without reading past the bound.
    pub(super) fn count(mut self, max: u64) -> Result<u64, TooMany> {
        let mut count = 0_u64;
        while !self.cursor.is_empty() {
            self.start_run()?;
            count += self.left;
            if count > max {
                return Err(TooMany::Items(count));
            }
            if matches!(self.run, Run::Literal(_)) {
                for _ in 0..self.left {
                    T::read(&mut self.cursor)?;
                }
            }
            self.left = 0;
        }
        Ok(count)
    }

    /// Calls `each` with every run: its value (`None` for nulls) and length, until one errs.
    pub(super) fn runs(
        mut self,
        mut each: impl FnMut(Option<T>, u64) -> Result<(), TooMany>,
    ) -> Result<(), TooMany> {
        while !self.cursor.is_empty() {
            self.start_run()?;
            match self.run {
                Run::Literal(_) => {
                    for _ in 0..self.left {
                        let (value, _) = T::read(&mut self.cursor)?;
                        each(Some(value), 1)?;
                    }
                }
                Run::Repeat(value) => each(Some(value), self.left)?,
                Run::Null | Run::Start => each(None, self.left)?,
            }
            self.left = 0;
        }
        Ok(())
    }

    /// Whether everything was read and the encoder would have written the same.
    pub(super) fn ends_canonically(&self) -> bool {
        self.canonical
            && self.left == 0
            && self.cursor.is_empty()
            && (self.has_value || !self.listed)
    }

    fn start_run(&mut self) -> Result<(), Malformed> {
        let (length, short) = self.cursor.signed()?;
        self.canonical &= short;
        // The value that the next run may not start with: the encoder would have joined the two.
        let before = match self.run {
            Run::Literal(before) => before,
            Run::Repeat(value) => Some(value),
            Run::Start | Run::Null => None,
        };
        match length {
            0 => {
                let (length, short) = self.cursor.unsigned()?;
                self.canonical &= short && !matches!(self.run, Run::Null);
                self.run = Run::Null;
                self.left = length;
            }
            1.. => {
                let (value, short) = T::read(&mut self.cursor)?;
                self.canonical &= short && length > 1 && before != Some(value);
                self.run = Run::Repeat(value);
                self.left = length.unsigned_abs();
                self.has_value = true;
            }
            _ => {
                self.canonical &= !matches!(self.run, Run::Literal(_));
                self.run = Run::Literal(before);
                self.left = length.unsigned_abs();
                self.has_value = true;
            }
        }
        if self.left == 0 || self.left > RUN_MAX {
            return Err(Malformed::RunLength);
        }
        Ok(())
    }
}

/// A run-length column of differences.
pub(super) struct Delta<'a> {
    differences: Rle<'a, i64>,
    value: i64,
}

impl<'a> Delta<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { differences: Rle::new(bytes), value: 0 }
    }

    #[inline]
    pub(super) fn next_or_null(&mut self) -> Result<Option<i64>, Malformed> {
        let Some(difference) = self.differences.next_or_null()? else { return Ok(None) };
        // Automerge saturates here. No honest column comes near, so near is refused.
        self.value = self.value.checked_add(difference).ok_or(Malformed::NumberTooLarge)?;
        Ok(Some(self.value))
    }

    pub(super) fn ends_canonically(&self) -> bool {
        self.differences.ends_canonically()
    }
}

/// A column of booleans: lengths of alternating runs, false first.
pub(super) struct Booleans<'a> {
    cursor: Cursor<'a>,
    left: u64,
    value: bool,
    started: bool,
    has_true: bool,
    listed: bool,
    canonical: bool,
}

impl<'a> Booleans<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            cursor: Cursor::new(bytes),
            left: 0,
            value: true,
            started: false,
            has_true: false,
            listed: !bytes.is_empty(),
            canonical: true,
        }
    }

    /// The next value, `None` at the end of the column.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<bool>, Malformed> {
        while self.left == 0 {
            if self.cursor.is_empty() {
                self.canonical &= !self.listed;
                return Ok(None);
            }
            let (length, short) = self.cursor.unsigned()?;
            if length > RUN_MAX {
                return Err(Malformed::RunLength);
            }
            // Only the first run may be empty, and then not the last.
            self.canonical &= short && (length > 0 || !(self.started || self.cursor.is_empty()));
            self.started = true;
            self.left = length;
            self.value = !self.value;
            self.has_true |= self.value && length > 0;
        }
        self.left -= 1;
        Ok(Some(self.value))
    }

    /// Whether everything was read and the encoder would have written the same.
    pub(super) fn ends_canonically(&self) -> bool {
        self.canonical && self.left == 0 && self.cursor.is_empty()
    }

    /// The same for a column that is left out when it holds no `true`.
    pub(super) fn ends_canonically_or_absent(&self) -> bool {
        self.ends_canonically() && (self.has_true || !self.listed)
    }

    /// How many values the column claims to hold, without reading past the bound.
    pub(super) fn count(mut self, max: u64) -> Result<u64, TooMany> {
        let mut count = 0_u64;
        while !self.cursor.is_empty() {
            let (length, _) = self.cursor.unsigned()?;
            count = count.saturating_add(length);
            if count > max {
                return Err(TooMany::Items(count));
            }
        }
        Ok(count)
    }
}

/// Why counting stopped.
pub(super) enum TooMany {
    /// At least so many values: over the bound.
    Items(u64),
    Malformed(Malformed),
}

impl From<Malformed> for TooMany {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<(Vec<Option<u64>>, bool), Malformed> {
        let mut column = Rle::<u64>::new(bytes);
        let mut values = Vec::new();
        while column.left > 0 || !column.cursor.is_empty() {
            values.push(column.next()?.unwrap());
        }
        let canonical = column.ends_canonically();
        assert!(column.next()?.is_none() && (bytes.is_empty() || !column.ends_canonically()));
        Ok((values, canonical))
    }

    #[test]
    fn runs_literals_and_nulls_read_in_order() {
        let column = [2, 7, 0x7e, 8, 9, 0, 1];
        let values = vec![Some(7), Some(7), Some(8), Some(9), None];
        assert_eq!(read(&column), Ok((values, true)));
    }

    #[test]
    fn every_way_to_write_a_column_that_the_encoder_does_not_use_is_noticed() {
        let other_ways: &[&[u8]] = &[
            &[1, 7],                // a run of one
            &[0x7f, 7, 0x7f, 8],    // two literal runs
            &[0x7e, 7, 7],          // a repetition inside a literal
            &[2, 7, 3, 7],          // two runs of the same value
            &[0x7f, 7, 2, 7],       // a run that goes on from a literal
            &[2, 7, 0x7f, 7],       // a literal that goes on from a run
            &[0, 1, 0, 1, 0x7f, 7], // two runs of nulls
            &[0, 2],                // nothing but nulls
            &[0x7f, 0x87, 0],       // a padded number
            &[0x82, 0, 7],          // a padded length
        ];
        for bytes in other_ways {
            assert!(!read(bytes).unwrap().1, "{bytes:?}");
        }
        assert_eq!(read(&[0, 0]), Err(Malformed::RunLength));
        assert_eq!(read(&[0x7e, 7]), Err(Malformed::EndsEarly));
    }

    #[test]
    fn a_run_that_claims_more_than_the_bound_is_counted_without_being_read() {
        let column = [0xff, 0xff, 0xff, 0xff, 0x07, 1];
        assert!(matches!(Rle::<u64>::new(&column).count(1000), Err(TooMany::Items(n)) if n > 1000));
    }
}
