//! Inflating within a bound.

use flate2::{Decompress, FlushDecompress, Status};

use super::{Budget, ChunkError, Malformed};

/// Inflates all of `deflated`, as long as `budget` lasts.
///
/// Memory is asked for as bytes come out, never because a header promises them.
pub(super) fn inflate(deflated: &[u8], budget: &mut Budget) -> Result<Vec<u8>, ChunkError> {
    let mut inflater = Decompress::new(false);
    let mut inflated =
        Vec::with_capacity(deflated.len().saturating_mul(3).min(budget.inflated_bytes));
    loop {
        let (read, written) = (inflater.total_in() as usize, inflated.len());
        let status = inflater
            .decompress_vec(&deflated[read..], &mut inflated, FlushDecompress::Finish)
            .map_err(|_| Malformed::Deflate)?;
        if inflated.len() > budget.inflated_bytes {
            return Err(ChunkError::TooLarge { inflated_bytes_max: budget.inflated_bytes_max });
        }
        let stalled = inflater.total_in() as usize == read && inflated.len() == written;
        match status {
            Status::StreamEnd if (inflater.total_in() as usize) < deflated.len() => {
                return Err(ChunkError::TrailingData);
            }
            Status::StreamEnd => break,
            _ if inflated.len() < inflated.capacity() && stalled => {
                return Err(Malformed::Deflate.into());
            }
            // Out of room: make some, but only as much as is still allowed and one byte more, so that
            // a stream that goes on past the bound shows.
            _ => {
                let allowed = budget.inflated_bytes.saturating_sub(inflated.len()) + 1;
                inflated.reserve_exact(inflated.len().clamp(4096, 1 << 22).min(allowed));
            }
        }
    }
    budget.inflated_bytes -= inflated.len();
    Ok(inflated)
}
