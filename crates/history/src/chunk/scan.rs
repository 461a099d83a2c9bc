//! Document and bundle chunks: what can be said about them without the CRDT.
//!
//! Such a chunk is read by a worker process with limits of its own. This scan makes sure that the
//! worker is not handed a bomb: every column is inflated within a bound, every run-length counted.

use super::body::{DEFLATED, actors, hashes};
use super::column::{Booleans, Rle, TooMany};
use super::cursor::Cursor;
use super::inflate::{inflate, measure};
use super::{Budget, ChunkError, Limits, Malformed};

/// The type of a column of values, in the low three bits of its number.
const VALUE: u64 = 7;

/// Scans the body of a document chunk.
pub(super) fn document(
    body: &[u8],
    limits: &Limits,
    budget: &mut Budget,
) -> Result<(), ChunkError> {
    let mut cursor = Cursor::new(body);
    check_actors(&actors(&mut cursor)?, limits)?;
    let heads = hashes(&mut cursor)?.len();
    let changes = listed(&mut cursor)?;
    let operations = listed(&mut cursor)?;
    scan(&mut cursor, &changes, limits, budget)?;
    scan(&mut cursor, &operations, limits, budget)?;
    // Old JavaScript wrote no index of the heads behind the columns.
    if !cursor.is_empty() {
        for _ in 0..heads {
            cursor.strict()?;
        }
    }
    if cursor.is_empty() { Ok(()) } else { Err(ChunkError::TrailingData) }
}

/// Scans the body of a bundle chunk.
pub(super) fn bundle(body: &[u8], limits: &Limits, budget: &mut Budget) -> Result<(), ChunkError> {
    let mut cursor = Cursor::new(body);
    hashes(&mut cursor)?;
    check_actors(&actors(&mut cursor)?, limits)?;
    for _ in 0..2 {
        let columns = listed(&mut cursor)?;
        scan(&mut cursor, &columns, limits, budget)?;
    }
    if cursor.is_empty() { Ok(()) } else { Err(ChunkError::TrailingData) }
}

fn check_actors(actors: &[&[u8]], limits: &Limits) -> Result<(), ChunkError> {
    if actors.len() > limits.document_actors_max {
        return Err(ChunkError::TooManyActors { count: actors.len() });
    }
    let long = actors.iter().find(|actor| actor.len() > model::ActorId::BYTES_MAX);
    long.map_or(Ok(()), |actor| Err(ChunkError::ActorTooLong { bytes: actor.len() }))
}

/// A list of columns: number and length of each.
fn listed(cursor: &mut Cursor<'_>) -> Result<Vec<(u64, usize)>, Malformed> {
    let count = cursor.length()?;
    if count > cursor.rest().len() {
        return Err(Malformed::EndsEarly);
    }
    let mut columns: Vec<(u64, usize)> = Vec::with_capacity(count.min(32));
    for _ in 0..count {
        let number = cursor.strict()?;
        let after = columns.last().is_none_or(|(last, _)| last & !DEFLATED < number & !DEFLATED);
        if !after || number > u64::from(u32::MAX) {
            return Err(Malformed::ColumnList(number));
        }
        columns.push((number, cursor.length()?));
    }
    Ok(columns)
}

fn scan(
    cursor: &mut Cursor<'_>,
    columns: &[(u64, usize)],
    limits: &Limits,
    budget: &mut Budget,
) -> Result<(), ChunkError> {
    // A value column's meta comes just before it, with the sum of the lengths it claims.
    let mut claimed = None;
    for &(number, length) in columns {
        let bytes = cursor.take(length)?;
        if number & 0b111 == VALUE {
            let length = match number & DEFLATED {
                0 => bytes.len() as u64,
                _ => measure(bytes, budget)?,
            };
            check_values(number >> 4, length, claimed.take())?;
            continue;
        }
        let inflated;
        let bytes = if number & DEFLATED == 0 {
            bytes
        } else {
            inflated = inflate(bytes, budget)?;
            &inflated
        };
        claimed = scan_column(number & !DEFLATED, bytes, limits.document_operations_max)?;
    }
    Ok(())
}

fn scan_column(number: u64, bytes: &[u8], max: u64) -> Result<Option<(u64, u64)>, ChunkError> {
    let id = number >> 4;
    match number & 0b111 {
        // How many there are in each group: the sum counts, too.
        0 => {
            let mut sum = 0_u64;
            Rle::<u64>::new(bytes).runs(|value, times| {
                let items = value.unwrap_or(0).saturating_mul(times).saturating_add(times);
                sum = sum.saturating_add(items);
                if sum > max.saturating_mul(2) { Err(TooMany::Items(sum)) } else { Ok(()) }
            })?;
        }
        1 | 2 => drop(Rle::<u64>::new(bytes).count(max)?),
        3 => drop(Rle::<i64>::new(bytes).count(max)?),
        4 => drop(Booleans::new(bytes).count(max)?),
        5 => drop(Rle::<&str>::new(bytes).count(max)?),
        // The lengths and kinds of values: a column with the values follows.
        _ => {
            let (mut items, mut length) = (0_u64, 0_u64);
            Rle::<u64>::new(bytes).runs(|meta, times| {
                items = items.saturating_add(times);
                let meta = meta.unwrap_or(0);
                // The three kinds without a value take no bytes, whatever length they claim.
                let each = if meta & 0xf <= 2 { 0 } else { meta >> 4 };
                length = length.saturating_add(each.saturating_mul(times));
                if items > max { Err(TooMany::Items(items)) } else { Ok(()) }
            })?;
            return Ok(Some((id, length)));
        }
    }
    Ok(None)
}

/// Values must be as long as the lengths in the column before them claim. Without lengths all are
/// null, and the column is empty but may be listed.
fn check_values(id: u64, length: u64, claimed: Option<(u64, u64)>) -> Result<(), Malformed> {
    match claimed {
        Some((meta_id, claimed)) if meta_id == id && claimed > length => {
            Err(Malformed::ValueLength)
        }
        _ => Ok(()),
    }
}
