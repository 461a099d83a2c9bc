//! Reading bytes that somebody else wrote: never past the end, never more than there is.

use super::Malformed;

/// A place in a slice of bytes. Every read either moves on or says what is wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What has not been read yet.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(Malformed::EndsEarly)?;
        self.rest = rest;
        Ok(head)
    }

    /// Bytes with their length in front.
    pub(super) fn take_prefixed(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.length()?;
        self.take(length)
    }

    /// An unsigned number, and whether it was written as short as possible.
    ///
    /// Headers insist on the short form ([`Cursor::strict`]); columns do not, and a long form in them
    /// only means that re-encoding the change gives other bytes.
    #[inline]
    pub(super) fn unsigned(&mut self) -> Result<(u64, bool), Malformed> {
        if let Some((&byte, rest)) = self.rest.split_first()
            && byte < 0x80
        {
            self.rest = rest;
            return Ok((u64::from(byte), true));
        }
        let mut value = 0;
        for (at, &byte) in self.rest.iter().enumerate() {
            if at == 9 && byte > 1 {
                return Err(Malformed::NumberTooLarge);
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return Ok((value, byte != 0));
            }
        }
        Err(Malformed::EndsEarly)
    }

    /// A signed number, and whether it was written as short as possible.
    #[inline]
    pub(super) fn signed(&mut self) -> Result<(i64, bool), Malformed> {
        if let Some((&byte, rest)) = self.rest.split_first()
            && byte < 0x80
        {
            self.rest = rest;
            return Ok((i64::from(byte << 1) << 56 >> 57, true));
        }
        let (mut value, mut before) = (0_i64, 0);
        for (at, &byte) in self.rest.iter().enumerate() {
            if at == 9 && byte != 0 && byte != 0x7f {
                return Err(Malformed::NumberTooLarge);
            }
            value |= i64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                if at < 9 && byte & 0x40 != 0 {
                    value |= -1 << (7 * (at + 1));
                }
                self.rest = &self.rest[at + 1..];
                let padded = if before & 0x40 == 0 { byte == 0 } else { byte == 0x7f };
                return Ok((value, !padded));
            }
            before = byte;
        }
        Err(Malformed::EndsEarly)
    }

    /// An unsigned number in its shortest form.
    #[inline]
    pub(super) fn strict(&mut self) -> Result<u64, Malformed> {
        match self.unsigned()? {
            (value, true) => Ok(value),
            (_, false) => Err(Malformed::PaddedNumber),
        }
    }

    /// A signed number in its shortest form.
    pub(super) fn strict_signed(&mut self) -> Result<i64, Malformed> {
        match self.signed()? {
            (value, true) => Ok(value),
            (_, false) => Err(Malformed::PaddedNumber),
        }
    }

    /// A count of bytes or things, in its shortest form.
    pub(super) fn length(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.strict()?).map_err(|_| Malformed::EndsEarly)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unsigned(bytes: &[u8]) -> Result<(u64, bool), Malformed> {
        Cursor::new(bytes).unsigned()
    }

    #[test]
    fn numbers_at_the_edges_read_as_the_format_says() {
        assert_eq!(unsigned(&[0x7f]), Ok((127, true)));
        assert_eq!(unsigned(&[0x80, 0x01]), Ok((128, true)));
        assert_eq!(unsigned(&[0x81, 0x00]), Ok((1, false)));
        let mut max = [0xff; 10];
        max[9] = 1;
        assert_eq!(unsigned(&max), Ok((u64::MAX, true)));
        max[9] = 2;
        assert_eq!(unsigned(&max), Err(Malformed::NumberTooLarge));
        assert_eq!(unsigned(&[0x80]), Err(Malformed::EndsEarly));
        for (bytes, value) in [
            (&[0x7f][..], Ok((-1, true))),
            (&[0x3f], Ok((63, true))),
            (&[0x40], Ok((-64, true))),
            (&[0x80, 0x40], Ok((-8192, true))),
            (&[0xbf, 0x00], Ok((63, false))),
            (&[0xff, 0x7f], Ok((-1, false))),
            (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f], Ok((i64::MIN, true))),
        ] {
            assert_eq!(Cursor::new(bytes).signed(), value);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..16)) {
            let _ = Cursor::new(&bytes).unsigned();
            let _ = Cursor::new(&bytes).signed();
            let _ = Cursor::new(&bytes).take_prefixed();
        }
    }
}
