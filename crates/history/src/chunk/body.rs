//! The body of a change chunk: who, when, after what, and where its columns lie.

use super::Malformed;
use super::cursor::Cursor;

/// The columns that operations of a change have, in the order in which they are listed.
///
/// A column's number is its id shifted by four, its type in the low three bits, and a bit that says
/// that it is deflated, which inside a change it may not be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    ObjectActor,
    ObjectCounter,
    KeyActor,
    KeyCounter,
    KeyText,
    Insert,
    Action,
    ValueMeta,
    Value,
    PredecessorCount,
    PredecessorActor,
    PredecessorCounter,
    Expand,
    MarkName,
}

const NUMBERS: [u64; 14] = [1, 2, 17, 19, 21, 52, 66, 86, 87, 112, 113, 115, 148, 165];

/// The bit of a column's number that says that its bytes are deflated.
pub(super) const DEFLATED: u64 = 0b1000;

/// A change chunk's body, taken apart but not yet read operation by operation.
pub(super) struct Body<'a> {
    pub(super) dependencies: &'a [[u8; 32]],
    pub(super) actor: &'a [u8],
    pub(super) seq: u64,
    pub(super) start_op: u64,
    pub(super) time: i64,
    pub(super) message: &'a str,
    pub(super) other_actors: Vec<&'a [u8]>,
    columns: [&'a [u8]; NUMBERS.len()],
    /// What follows the columns: an author, or what a newer version put there.
    pub(super) extra: &'a [u8],
    /// Whether columns are listed as the encoder lists them: none that is empty.
    pub(super) columns_canonical: bool,
}

impl<'a> Body<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let dependencies = hashes(&mut cursor)?;
        let actor = cursor.take_prefixed()?;
        let seq = cursor.strict()?;
        let start_op = cursor.strict()?;
        // Automerge refuses zero and what does not fit 32 bits.
        if start_op == 0 || start_op > u64::from(u32::MAX) {
            return Err(Malformed::StartOp(start_op));
        }
        let time = cursor.strict_signed()?;
        let message =
            std::str::from_utf8(cursor.take_prefixed()?).map_err(|_| Malformed::NotUtf8)?;
        let other_actors = actors(&mut cursor)?;
        let (columns, columns_canonical) = columns(&mut cursor)?;
        Ok(Self {
            dependencies,
            actor,
            seq,
            start_op,
            time,
            message,
            other_actors,
            columns,
            extra: cursor.rest(),
            columns_canonical,
        })
    }

    pub(super) fn column(&self, column: Column) -> &'a [u8] {
        self.columns[column as usize]
    }

    /// Whether what follows the columns names an author, read as leniently as Automerge does.
    pub(super) fn has_author(&self) -> bool {
        const AUTHOR: u64 = 1;
        let mut cursor = Cursor::new(self.extra);
        let (Ok((kind, _)), Ok((length, _))) = (cursor.unsigned(), cursor.unsigned()) else {
            return false;
        };
        kind == AUTHOR && usize::try_from(length).is_ok_and(|length| cursor.take(length).is_ok())
    }
}

/// A list of hashes with its length in front.
pub(super) fn hashes<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [[u8; 32]], Malformed> {
    let bytes = cursor.length()?.checked_mul(32).ok_or(Malformed::EndsEarly)?;
    Ok(cursor.take(bytes)?.as_chunks().0)
}

/// A list of actor ids with its length in front.
pub(super) fn actors<'a>(cursor: &mut Cursor<'a>) -> Result<Vec<&'a [u8]>, Malformed> {
    let count = cursor.length()?;
    // Each takes a byte at least, so a count that memory is reserved for has been paid for.
    if count > cursor.rest().len() {
        return Err(Malformed::EndsEarly);
    }
    let mut actors = Vec::with_capacity(count.min(64));
    for _ in 0..count {
        actors.push(cursor.take_prefixed()?);
    }
    Ok(actors)
}

fn columns<'a>(cursor: &mut Cursor<'a>) -> Result<([&'a [u8]; NUMBERS.len()], bool), Malformed> {
    let count = cursor.length()?;
    let mut lengths = [0; NUMBERS.len()];
    let mut listed = [false; NUMBERS.len()];
    let mut next = 0;
    let mut canonical = true;
    for _ in 0..count {
        let number = cursor.strict()?;
        let length = cursor.length()?;
        if number & DEFLATED != 0 {
            return Err(Malformed::DeflatedColumn);
        }
        let at = NUMBERS[next..].iter().position(|known| *known == number);
        // Automerge reads past columns that it does not know, and loses them when it saves.
        let at = next + at.ok_or(Malformed::ColumnList(number))?;
        lengths[at] = length;
        listed[at] = true;
        canonical &= length > 0;
        next = at + 1;
    }
    let has = |column: Column| listed[column as usize];
    let predecessors = (
        has(Column::PredecessorActor),
        has(Column::PredecessorCounter),
        has(Column::PredecessorCount),
    );
    if has(Column::Value) && !has(Column::ValueMeta)
        || !matches!(predecessors, (false, false, _) | (true, true, true))
    {
        return Err(Malformed::ColumnWithoutPartner);
    }
    let mut columns = [&[][..]; NUMBERS.len()];
    for (column, length) in columns.iter_mut().zip(lengths) {
        *column = cursor.take(length)?;
    }
    Ok((columns, canonical))
}
