//! The logs that a lane tells apart, by number.

use history::varint::{self, Reader};
use model::RegionName;

use super::{CodecError, put_bytes, take_bytes};
use crate::origin::{LogId, Origin, STREAMS};

/// How many logs a lane tells apart before it forgets all of them.
const LOGS_MAX: usize = 8_192;

/// The logs that a lane has carried, and where it is in each.
#[derive(Default)]
pub(super) struct Logs {
    known: Vec<(LogId, u64)>,
}

impl Logs {
    pub(super) fn put(&mut self, out: &mut Vec<u8>, log: &LogId, first: u64, count: u64) {
        self.make_room();
        let at = self.known.iter().position(|(known, _)| known == log);
        let at = at.unwrap_or_else(|| {
            out.push(0);
            put_bytes(out, log.origin.region.as_str().as_bytes());
            out.extend_from_slice(&log.origin.epoch.to_le_bytes());
            out.push(log.stream);
            self.known.push((log.clone(), 1));
            usize::MAX
        });
        let next = if at == usize::MAX {
            self.known.last_mut()
        } else {
            varint::put(out, at as u64 + 1);
            self.known.get_mut(at)
        };
        let (_, next) = next.expect("found or put there");
        let jumps = *next != first;
        varint::put(out, count << 1 | u64::from(jumps));
        if jumps {
            varint::put(out, first);
        }
        *next = first + count;
    }

    pub(super) fn take(
        &mut self,
        reader: &mut Reader<'_>,
    ) -> Result<(LogId, u64, usize), CodecError> {
        self.make_room();
        let at = reader.number()?;
        if at == 0 {
            let region = std::str::from_utf8(take_bytes(reader)?).ok();
            let region = region.and_then(|region| RegionName::new(region).ok());
            let region = region.ok_or(CodecError::Malformed)?;
            let epoch = u64::from_le_bytes(reader.array()?);
            let stream = reader.byte()?;
            if stream >= STREAMS {
                return Err(CodecError::Malformed);
            }
            self.known.push((LogId { origin: Origin { region, epoch }, stream }, 1));
        }
        let at = at.checked_sub(1).map_or_else(|| self.known.len() - 1, |at| at as usize);
        let (log, next) = self.known.get_mut(at).ok_or(CodecError::Malformed)?;
        let count = reader.number()?;
        let first = if count & 1 == 1 { reader.number()? } else { *next };
        // Each entry takes two bytes at least.
        let count = usize::try_from(count >> 1).map_err(|_| CodecError::Malformed)?;
        if count == 0 || count > reader.left() || first == 0 {
            return Err(CodecError::Malformed);
        }
        *next = first.checked_add(count as u64).ok_or(CodecError::Malformed)?;
        Ok((log.clone(), first, count))
    }

    fn make_room(&mut self) {
        if self.known.len() >= LOGS_MAX {
            self.known.clear();
        }
    }
}
