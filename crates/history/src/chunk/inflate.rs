//! Inflating within a bound.

use flate2::{Decompress, FlushDecompress, Status};

use super::{Budget, ChunkError, Malformed};

/// How many bytes `deflated` inflates to, as long as `budget` lasts, without keeping them.
pub(super) fn measure(deflated: &[u8], budget: &mut Budget) -> Result<u64, ChunkError> {
    const WINDOW_BYTES: usize = 64 << 10;
    let mut inflater = Decompress::new(false);
    let mut window = vec![0; WINDOW_BYTES];
    loop {
        let (read, written) = (inflater.total_in(), inflater.total_out());
        let status = inflater
            .decompress(&deflated[read as usize..], &mut window, FlushDecompress::None)
            .map_err(|_| Malformed::Deflate)?;
        let written = inflater.total_out() - written;
        budget.inflated_bytes = budget
            .inflated_bytes
            .checked_sub(written as usize)
            .ok_or(ChunkError::TooLarge { inflated_bytes_max: budget.inflated_bytes_max })?;
        match status {
            Status::StreamEnd if (inflater.total_in() as usize) < deflated.len() => {
                return Err(ChunkError::TrailingData);
            }
            Status::StreamEnd => return Ok(inflater.total_out()),
            _ if written == 0 && inflater.total_in() == read => {
                return Err(Malformed::Deflate.into());
            }
            _ => {}
        }
    }
}

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
