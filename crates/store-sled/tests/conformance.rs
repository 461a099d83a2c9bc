//! sled keeps the contract.

use store::Store;
use store::conformance::Subject;
use tempfile::TempDir;
use tributary_store_sled::{SledOptions, SledStore};

struct Sled(TempDir);

impl Subject for Sled {
    fn open(&self) -> Box<dyn Store> {
        let store = SledStore::open(self.0.path().join("store"), &SledOptions::default()).unwrap();
        assert_eq!(store.oversized_blobs(), Ok(0));
        Box::new(store)
    }
}

fn subject() -> Sled {
    Sled(tempfile::tempdir().unwrap())
}

store::conformance_suite!(subject);
