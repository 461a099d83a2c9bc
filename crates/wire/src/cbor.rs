//! Reading CBOR that a stranger wrote: no recursion, nothing reserved ahead of the bytes that are there.

use std::borrow::Cow;

use minicbor::Decoder;
use minicbor::data::Type;

use crate::decode::{DEPTH_MAX, DecodeError};

/// Whole numbers up to here survive as JavaScript numbers (float64).
pub(crate) const FLOAT_EXACT_MAX: u64 = 1 << 53;

/// Calls `take` once for each entry of the map at the decoder, with its key, the decoder at its
/// value. `take` must read exactly the value. Entries whose key is no text are passed over.
/// `None` when there is no map.
pub(crate) fn each_entry<'a>(
    decoder: &mut Decoder<'a>,
    mut take: impl FnMut(Cow<'a, str>, &mut Decoder<'a>) -> Result<(), DecodeError>,
) -> Result<Option<()>, DecodeError> {
    skip_tags(decoder)?;
    if !matches!(kind(decoder)?, Type::Map | Type::MapIndef) {
        return Ok(None);
    }
    let mut left = decoder.map()?;
    while more(decoder, &mut left)? {
        match text(decoder)? {
            Some(key) => take(key, decoder)?,
            None => {
                skip(decoder)?;
                skip(decoder)?;
            }
        }
    }
    Ok(Some(()))
}

/// Calls `take` once for each item of the array at the decoder; it must read exactly the item.
/// `None` when there is no array.
pub(crate) fn each_item<'a>(
    decoder: &mut Decoder<'a>,
    mut take: impl FnMut(&mut Decoder<'a>) -> Result<(), DecodeError>,
) -> Result<Option<()>, DecodeError> {
    skip_tags(decoder)?;
    if !matches!(kind(decoder)?, Type::Array | Type::ArrayIndef) {
        return Ok(None);
    }
    let mut left = decoder.array()?;
    while more(decoder, &mut left)? {
        take(decoder)?;
    }
    Ok(Some(()))
}

/// The text at the decoder; `None`, and nothing read but tags, when something else is there.
pub(crate) fn text<'a>(decoder: &mut Decoder<'a>) -> Result<Option<Cow<'a, str>>, DecodeError> {
    skip_tags(decoder)?;
    match kind(decoder)? {
        Type::String => Ok(Some(Cow::Borrowed(decoder.str()?))),
        Type::StringIndef => {
            let mut whole = String::new();
            for chunk in decoder.str_iter()? {
                whole.push_str(chunk?);
            }
            Ok(Some(Cow::Owned(whole)))
        }
        _ => Ok(None),
    }
}

/// The bytes at the decoder; `None`, and nothing read but tags, when something else is there.
///
/// Some encoders mark a `Uint8Array` with tag 64; all tags are passed over.
pub(crate) fn bytes<'a>(decoder: &mut Decoder<'a>) -> Result<Option<Cow<'a, [u8]>>, DecodeError> {
    skip_tags(decoder)?;
    match kind(decoder)? {
        Type::Bytes => Ok(Some(Cow::Borrowed(decoder.bytes()?))),
        Type::BytesIndef => {
            let mut whole = Vec::new();
            for chunk in decoder.bytes_iter()? {
                whole.extend_from_slice(chunk?);
            }
            Ok(Some(Cow::Owned(whole)))
        }
        _ => Ok(None),
    }
}

/// The number at the decoder, if it is a whole one of 0 or more.
///
/// JavaScript clients write numbers above 32 bits as float64.
pub(crate) fn uint(decoder: &mut Decoder<'_>) -> Result<Option<u64>, DecodeError> {
    skip_tags(decoder)?;
    match kind(decoder)? {
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => Ok(Some(decoder.u64()?)),
        Type::F16 => Ok(whole(f64::from(decoder.f16()?))),
        Type::F32 => Ok(whole(f64::from(decoder.f32()?))),
        Type::F64 => Ok(whole(decoder.f64()?)),
        _ => Ok(None),
    }
}

fn whole(number: f64) -> Option<u64> {
    let fits = number >= 0.0 && number <= FLOAT_EXACT_MAX as f64 && number.fract() == 0.0;
    fits.then_some(number as u64)
}

/// The boolean at the decoder; `None`, and nothing read but tags, when something else is there.
pub(crate) fn boolean(decoder: &mut Decoder<'_>) -> Result<Option<bool>, DecodeError> {
    skip_tags(decoder)?;
    match kind(decoder)? {
        Type::Bool => Ok(Some(decoder.bool()?)),
        _ => Ok(None),
    }
}

/// Whether null or undefined is at the decoder: JavaScript's ways to send a field that is not there.
pub(crate) fn is_absent(decoder: &Decoder<'_>) -> Result<bool, DecodeError> {
    Ok(matches!(kind(decoder)?, Type::Null | Type::Undefined))
}

/// Passes over one item of any kind, however many items are inside it.
///
/// The crate's own `skip` keeps a stack as deep as the nesting; this one is bounded.
pub(crate) fn skip(decoder: &mut Decoder<'_>) -> Result<(), DecodeError> {
    // What is still to come in each open container; `None` where only a break ends it.
    let mut open = [None; DEPTH_MAX];
    let mut depth = 0;
    loop {
        let container = match kind(decoder)? {
            Type::Tag => {
                decoder.tag()?;
                continue;
            }
            Type::Array | Type::ArrayIndef => Some(decoder.array()?),
            Type::Map | Type::MapIndef => Some(match decoder.map()? {
                Some(entries) => Some(entries.checked_mul(2).ok_or(DecodeError::NotCbor)?),
                None => None,
            }),
            Type::Break if depth > 0 && open[depth - 1].is_none() => {
                decoder.set_position(decoder.position() + 1);
                depth -= 1;
                None
            }
            Type::Break | Type::Unknown(_) => return Err(DecodeError::NotCbor),
            scalar => {
                skip_scalar(decoder, scalar)?;
                None
            }
        };
        match container {
            Some(items) if items != Some(0) => {
                *open.get_mut(depth).ok_or(DecodeError::TooDeep)? = items;
                depth += 1;
                continue;
            }
            _ => {}
        }
        // An item is complete: so is every container that it was the last item of.
        loop {
            let Some(innermost) = depth.checked_sub(1) else { return Ok(()) };
            match &mut open[innermost] {
                Some(1) => depth -= 1,
                Some(items) => {
                    *items -= 1;
                    break;
                }
                None => break,
            }
        }
    }
}

fn skip_scalar(decoder: &mut Decoder<'_>, scalar: Type) -> Result<(), DecodeError> {
    match scalar {
        Type::Bool => decoder.bool().map(drop)?,
        Type::Null => decoder.null()?,
        Type::Undefined => decoder.undefined()?,
        Type::F16 => decoder.f16().map(drop)?,
        Type::F32 => decoder.f32().map(drop)?,
        Type::F64 => decoder.f64().map(drop)?,
        Type::Simple => decoder.simple().map(drop)?,
        Type::Bytes | Type::BytesIndef => {
            for chunk in decoder.bytes_iter()? {
                chunk?;
            }
        }
        Type::String | Type::StringIndef => {
            for chunk in decoder.str_iter()? {
                chunk?;
            }
        }
        _ => decoder.int().map(drop)?,
    }
    Ok(())
}

fn skip_tags(decoder: &mut Decoder<'_>) -> Result<(), DecodeError> {
    while kind(decoder)? == Type::Tag {
        decoder.tag()?;
    }
    Ok(())
}

fn kind(decoder: &Decoder<'_>) -> Result<Type, DecodeError> {
    Ok(decoder.datatype()?)
}

/// Whether another entry or item follows; reads the break that ends an indefinite container.
fn more(decoder: &mut Decoder<'_>, left: &mut Option<u64>) -> Result<bool, DecodeError> {
    match left {
        Some(0) => Ok(false),
        Some(items) => {
            *items -= 1;
            Ok(true)
        }
        None if kind(decoder)? == Type::Break => {
            decoder.set_position(decoder.position() + 1);
            Ok(false)
        }
        None => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(bytes: &[u8]) -> Result<usize, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        skip(&mut decoder).map(|()| decoder.position())
    }

    #[test]
    fn skipping_ends_exactly_after_one_item_of_every_kind() {
        for item in [
            &[0x00][..],
            &[0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x43, 1, 2, 3],
            &[0x5f, 0x41, 1, 0x40, 0x42, 2, 3, 0xff],
            &[0x7f, 0x61, b'a', 0xff],
            &[0x80],
            &[0x83, 1, 0x82, 2, 3, 4],
            &[0x9f, 1, 0x9f, 0xff, 0x80, 0xff],
            &[0xa2, 1, 2, 0x61, b'a', 0xa0],
            &[0xbf, 1, 2, 0xff],
            &[0xd8, 0x40, 0xc1, 0x41, 7],
            &[0xf4],
            &[0xf6],
            &[0xf7],
            &[0xf8, 0x20],
            &[0xf9, 0x3c, 0x00],
            &[0xfb, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            let mut bytes = item.to_vec();
            bytes.push(0x01);
            assert_eq!(skipped(&bytes), Ok(item.len()), "{item:02x?}");
        }
    }

    #[test]
    fn nesting_is_skipped_up_to_the_bound_and_refused_beyond_it() {
        for (depth, result) in
            [(DEPTH_MAX, Ok(DEPTH_MAX + 1)), (100_000, Err(DecodeError::TooDeep))]
        {
            let mut bytes = vec![0x81; depth];
            bytes.push(0x00);
            assert_eq!(skipped(&bytes), result);
        }
        assert_eq!(skipped(&vec![0x9f; 100_000]), Err(DecodeError::TooDeep));
        assert_eq!(skipped(&vec![0xc1; 100_000]), Err(DecodeError::NotCbor));
    }

    #[test]
    fn breaks_in_the_wrong_place_and_reserved_bytes_are_no_cbor() {
        for bytes in [&[0xff][..], &[0x81, 0xff], &[0x1c], &[0xfc], &[0x5f, 0x61, b'a', 0xff]] {
            assert_eq!(skipped(bytes), Err(DecodeError::NotCbor), "{bytes:02x?}");
        }
    }
}
