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
///
/// Where a whole page of a file is bad, that is not so, and every key in it fails with the same
/// words, which name no row. Such a failure is reported once, and its end is looked for the same way.
pub fn scan_all(store: &dyn Store, from: &[u8], to: &[u8], visit: &mut dyn FnMut(Found<'_>)) {
    let mut start = from.to_vec();
    let mut before: Option<StoreError> = None;
    for _ in 0..UNREADABLE_MAX {
        let mut last = None;
        let scanned = store.scan(&start, to, &mut |key, value| {
            visit(Found::Row(key, value));
            last = Some(key.to_vec());
            ControlFlow::Continue(())
        });
        let Err(error) = scanned else { return };
        let moved = last.is_some();
        if let Some(last) = last {
            start = after(last);
        }
        let bad = first_unreadable(store, &start);
        if !moved && before.as_ref() == Some(&error) {
            start = after(last_unreadable(store, &start, to));
        } else {
            visit(Found::Unreadable(bad.clone(), error.clone()));
            start = after(bad);
        }
        before = Some(error);
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
/// scan succeeds.
fn first_unreadable(store: &dyn Store, start: &[u8]) -> Vec<u8> {
    greatest(start, &|end| store.scan(start, end, &mut |_, _| ControlFlow::Continue(())).is_ok())
}

/// The key where a stretch that cannot be read ends: the greatest start from which not even one row
/// can be read.
fn last_unreadable(store: &dyn Store, start: &[u8], to: &[u8]) -> Vec<u8> {
    greatest(start, &|from| {
        from < to && store.scan(from, to, &mut |_, _| ControlFlow::Break(())).is_err()
    })
}

/// The greatest key of which `holds` is true, given that it is true of all smaller ones from `start`
/// on, found byte by byte.
fn greatest(start: &[u8], holds: &dyn Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut key = Vec::new();
    while key.len() < KEY_BYTES_MAX {
        let (mut low, mut high) = (0_u16, 256_u16);
        while low < high {
            let middle = low.midpoint(high);
            key.push(middle as u8);
            if key.as_slice() <= start || holds(&key) {
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
    key.max(start.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
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
                    return Err(StoreError::corrupt(Path::new("here"), format!("row {row:?}")));
                }
                if visit(row, b"").is_break() {
                    break;
                }
            }
            Ok(())
        }
    }

    /// A store on one page of which nothing can be read or even passed.
    struct DamagedPage {
        rows: Vec<Vec<u8>>,
        page: std::ops::Range<Vec<u8>>,
    }

    impl Store for DamagedPage {
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
                if *row >= self.page.start {
                    break;
                }
                let _ = visit(row, b"");
            }
            if from < self.page.end.as_slice() && to > self.page.start.as_slice() {
                return Err(StoreError::corrupt(Path::new("here"), "malformed"));
            }
            for row in self.rows.iter().filter(|row| from <= row.as_slice() && row.as_slice() < to)
            {
                if *row >= self.page.end {
                    let _ = visit(row, b"");
                }
            }
            Ok(())
        }
    }

    #[test]
    fn a_bad_page_is_reported_once_and_left_behind() {
        let row = |document: u8, position: u8| {
            [&[0x14, 16][..], &[document; 16], &[0, 0, position, 0]].concat()
        };
        let rows: Vec<Vec<u8>> =
            (0..5).flat_map(|document| (0..50).map(move |at| row(document, at))).collect();
        let store = DamagedPage { rows, page: row(1, 40)..row(2, 10) };
        let (mut good, mut reported) = (0, 0);
        let mut last = Vec::new();
        scan_all(&store, &[], &[0xff; 8], &mut |found| match found {
            Found::Row(key, _) => {
                assert!(last.as_slice() < key);
                last = key.to_vec();
                good += 1;
            }
            Found::Unreadable(..) => reported += 1,
            Found::GaveUp(_) => panic!("gave up"),
        });
        // All before the page and all documents behind it.
        assert!(good >= 90 + 100, "{good}");
        assert_eq!((reported, last), (1, row(4, 49)));
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
