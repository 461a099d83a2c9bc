//! Measures this backend: `measure-sqlite DIRECTORY [ROWS [ROW_BYTES]]`, see `store::measure`.

use std::path::Path;

use tributary_store_sqlite::SqliteStore;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("usage: measure-sqlite DIRECTORY [ROWS [ROW_BYTES]]")?;
    let rows = arguments.next().map_or(Ok(400_000), |rows| rows.parse())?;
    let row_bytes = arguments.next().map_or(Ok(600), |bytes| bytes.parse())?;
    store::measure::measure(Path::new(&directory), rows, row_bytes, |path| {
        SqliteStore::open(path)
    })?;
    Ok(())
}
