//! Figures of a backend: each has an `examples/measure-*.rs` that calls [`measure`].
//!
//! Twice: the first run fills the directory, the second measures a fresh process.
//!
//! `cargo run --release -p tributary-store-sled --example measure-sled -- DIRECTORY [ROWS [ROW_BYTES]]`

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use crate::seeded::Seeded;
use crate::{Store, StoreError, Write};

/// Rows of one document in the stored data.
const ROWS_PER_DOCUMENT: u64 = 40;
/// Single batches whose latency is taken.
const COMMITS: usize = 5_000;

/// Fills a store with `rows` rows of `row_bytes` bytes, opens it again, and prints times and memory.
///
/// # Errors
/// When the store fails.
pub fn measure<S: Store>(
    directory: &Path,
    rows: u64,
    row_bytes: usize,
    open: impl Fn(&Path) -> Result<S, StoreError>,
) -> Result<(), StoreError> {
    if !directory.exists() {
        let store = open(directory)?;
        let began = Instant::now();
        fill(&store, rows, row_bytes)?;
        println!("filled {rows} rows of {row_bytes} B in {:.1?}", began.elapsed());
        drop(store);
        println!("run it again on the same directory for the figures of a fresh process");
        return Ok(());
    }
    let began = Instant::now();
    let store = open(directory)?;
    println!("open: {:.1?}, RSS {} MB", began.elapsed(), resident_mb());

    // Other values in each run: sled does not write what is there already.
    let run = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_nanos() as u64);
    let small = latencies(COMMITS, |n| {
        let mut generator = Seeded::new(n ^ run);
        let document = generator.next() % (rows / ROWS_PER_DOCUMENT);
        // As a change does: itself, an index row, a cursor.
        let batch: Vec<Write> = (0..3)
            .map(|part| Write::Put {
                key: key(document, 1_000_000 + n * 3 + part),
                value: generator.bytes(150),
            })
            .collect();
        store.commit(&batch)
    })?;
    println!("commit of 3 rows of 150 B: {small}, RSS {} MB", resident_mb());
    let gets = latencies(20_000, |n| {
        let row = Seeded::new(n).next() % rows;
        let found = store.get(&key(row / ROWS_PER_DOCUMENT, row % ROWS_PER_DOCUMENT))?;
        assert!(found.is_some(), "row {row} is there");
        Ok(())
    })?;
    println!("get of a random row: {gets}, RSS {} MB", resident_mb());
    let scans = latencies(2_000, |n| {
        let document = Seeded::new(n).next() % (rows / ROWS_PER_DOCUMENT);
        let mut visit = |_: &[u8], _: &[u8]| std::ops::ControlFlow::Continue(());
        store.scan(&key(document, 0), &key(document, u64::MAX), &mut visit)
    })?;
    println!("scan of a document ({ROWS_PER_DOCUMENT} rows): {scans}, RSS {} MB", resident_mb());
    for mebibytes in [1, 20, 50] {
        let value = Seeded::new(mebibytes).bytes((mebibytes as usize) << 20);
        let batch = [Write::Put { key: b"large".to_vec(), value }];
        let put = latencies(3, |_| store.commit(&batch))?;
        let get = latencies(3, |_| store.get(b"large").map(|_| ()))?;
        println!("{mebibytes} MiB: put {put}; get {get}; RSS {} MB", resident_mb());
    }
    Ok(())
}

fn fill(store: &dyn Store, rows: u64, row_bytes: usize) -> Result<(), StoreError> {
    let mut generator = Seeded::new(0);
    let mut batch = Vec::new();
    for row in 0..rows {
        // Documents grow side by side, as they do in life, not one after the other.
        let documents = rows / ROWS_PER_DOCUMENT;
        let key = key(row % documents, row / documents);
        batch.push(Write::Put { key, value: generator.bytes(row_bytes) });
        if batch.len() == 200 || row + 1 == rows {
            store.commit(&batch)?;
            batch.clear();
        }
    }
    Ok(())
}

fn key(document: u64, row: u64) -> Vec<u8> {
    // Documents have random ids of 16 bytes.
    let mut key = Seeded::new(document).bytes(8);
    key.extend_from_slice(&document.to_be_bytes());
    key.extend_from_slice(&row.to_be_bytes());
    key
}

struct Latencies(Vec<Duration>);

impl std::fmt::Display for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = |share: usize| self.0[(self.0.len() * share / 1000).min(self.0.len() - 1)];
        write!(f, "p50 {:.2?} p99 {:.2?} max {:.2?}", at(500), at(990), at(1000))
    }
}

fn latencies(
    count: usize,
    mut run: impl FnMut(u64) -> Result<(), StoreError>,
) -> Result<Latencies, StoreError> {
    let mut taken = Vec::with_capacity(count);
    for n in 0..count as u64 {
        let began = Instant::now();
        run(n)?;
        taken.push(began.elapsed());
    }
    taken.sort();
    Ok(Latencies(taken))
}

/// Resident memory of this process, or 0 where that is not known.
fn resident_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}
