//! Measures this backend: `measure-sled DIRECTORY [ROWS [ROW_BYTES]]`, see `store::measure`.

use std::path::Path;

use tributary_store_sled::{SledOptions, SledStore};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("usage: measure-sled DIRECTORY [ROWS [ROW_BYTES]]")?;
    let rows = arguments.next().map_or(Ok(400_000), |rows| rows.parse())?;
    let row_bytes = arguments.next().map_or(Ok(600), |bytes| bytes.parse())?;
    store::measure::measure(Path::new(&directory), rows, row_bytes, |path| {
        SledStore::open(path, &SledOptions::default())
    })?;
    Ok(())
}
