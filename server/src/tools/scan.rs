//! Reading all of a store, past the rows that cannot be read.

use std::ops::ControlFlow;

use store::{KEY_BYTES_MAX, Store, StoreError};

/// After so many rows that cannot be read, the rest of the store is not looked for any more.
const UNREADABLE_MAX: usize = 1_000;

/// A row, or a place where one should be.
pub enum Found<'a> {
    /// A row with its key and its value.
    Row(&'a [u8], &'a [u8]),
    /// What is stored under this key cannot be read.
    Unreadable(Vec<u8>, StoreError),
    /// So much cannot be read that the search was ended after this key.
    GaveUp(Vec<u8>),
}

/// Visits every row with `from <= key < to`, ascending, and goes on behind one that cannot be read.
///
/// A store ends a scan at the first such row and does not say which it is. It is found by asking for
/// ever longer beginnings of what is left: a scan succeeds exactly if it ends before the bad row.
pub fn scan_all(store: &dyn Store, from: &[u8], to: &[u8], visit: &mut dyn FnMut(Found<'_>)) {
    let mut start = from.to_vec();
    for _ in 0..UNREADABLE_MAX {
        let mut last = None;
        let scanned = store.scan(&start, to, &mut |key, value| {
            visit(Found::Row(key, value));
            last = Some(key.to_vec());
            ControlFlow::Continue(())
        });
        let Err(error) = scanned else { return };
        if let Some(last) = last {
            start = after(last);
        }
        let bad = first_unreadable(store, &start);
        visit(Found::Unreadable(bad.clone(), error));
        start = after(bad);
        if start.as_slice() >= to {
            return;
        }
    }
    visit(Found::GaveUp(start));
}

/// The smallest key behind this one.
fn after(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

/// The key of the first row at or after `start`, which cannot be read: the greatest end up to which a
/// scan succeeds, found byte by byte.
fn first_unreadable(store: &dyn Store, start: &[u8]) -> Vec<u8> {
    let succeeds =
        |end: &[u8]| store.scan(start, end, &mut |_, _| ControlFlow::Continue(())).is_ok();
    let mut key = Vec::new();
    while key.len() < KEY_BYTES_MAX {
        let (mut low, mut high) = (0_u16, 256_u16);
        while low < high {
            let middle = low.midpoint(high);
            key.push(middle as u8);
            if succeeds(&key) {
                low = middle + 1;
            } else {
                high = middle;
            }
            key.pop();
        }
        match low.checked_sub(1) {
            Some(byte) => key.push(byte as u8),
            None => break,
        }
    }
    // Only if the store contradicts itself does this lie before the start.
    key.max(start.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Write;

    /// A store in which some rows cannot be read.
    struct Damaged {
        rows: Vec<Vec<u8>>,
        bad: Vec<Vec<u8>>,
    }

    impl Store for Damaged {
        fn commit(&self, _: &[Write]) -> Result<(), StoreError> {
            Err(StoreError::Stopped)
        }

        fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            Err(StoreError::Stopped)
        }

        fn scan(
            &self,
            from: &[u8],
            to: &[u8],
            visit: &mut store::Visit<'_>,
        ) -> Result<(), StoreError> {
            for row in self.rows.iter().filter(|row| from <= row.as_slice() && row.as_slice() < to)
            {
                if self.bad.contains(row) {
                    return Err(StoreError::Stopped);
                }
                if visit(row, b"").is_break() {
                    break;
                }
            }
            Ok(())
        }
    }

    #[test]
    fn every_readable_row_is_seen_and_every_other_is_named() {
        let rows: Vec<Vec<u8>> = (0..40_u8)
            .map(|n| [&[n / 8, 0xff, 0][..], &vec![n; usize::from(n % 5) + 1]].concat())
            .collect();
        for bad in
            [vec![], vec![0], vec![39], vec![3, 4, 5], vec![0, 17, 38, 39], (0..40).collect()]
        {
            let bad: Vec<Vec<u8>> = bad.iter().map(|n: &usize| rows[*n].clone()).collect();
            let mut sorted = rows.clone();
            sorted.sort();
            let store = Damaged { rows: sorted.clone(), bad: bad.clone() };
            let (mut good, mut named) = (Vec::new(), Vec::new());
            scan_all(&store, &[], &[0xff; 8], &mut |found| match found {
                Found::Row(key, _) => good.push(key.to_vec()),
                Found::Unreadable(key, _) => named.push(key),
                Found::GaveUp(_) => panic!("gave up"),
            });
            let mut bad = bad;
            bad.sort();
            assert_eq!(named, bad);
            sorted.retain(|row| !bad.contains(row));
            assert_eq!(good, sorted);
        }
    }
}
