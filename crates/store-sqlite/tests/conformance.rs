//! SQLite keeps the contract.

use store::Store;
use store::conformance::Subject;
use tempfile::TempDir;
use tributary_store_sqlite::SqliteStore;

struct Sqlite(TempDir);

impl Subject for Sqlite {
    fn open(&self) -> Box<dyn Store> {
        Box::new(SqliteStore::open(self.0.path().join("store")).unwrap())
    }
}

fn subject() -> Sqlite {
    Sqlite(tempfile::tempdir().unwrap())
}

store::conformance_suite!(subject);
