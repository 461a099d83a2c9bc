//! Opening the store that the configuration asks for.

use std::path::Path;
use std::sync::Arc;

use model::StorageId;
use store::directory::INCOMPLETE;
use store::{Store, StoreError, Write};
use store_sled::{SledOptions, SledStore};
use store_sqlite::SqliteStore;

use crate::config::{Config, StoreKind};
use crate::exit::Failure;

/// The row that names the store. It is made once and travels with every copy of the data.
const IDENTITY: &[u8] = &[0x01];

/// Opens the store, and creates it if the directory is empty or missing.
///
/// # Errors
/// When what is there cannot be read. It is never served as empty.
pub fn open(config: &Config) -> Result<Arc<dyn Store>, Failure> {
    if config.data.join(INCOMPLETE).exists() {
        return Err(Failure::Store(format!(
            "{} holds only a part of a store: a backup or restore into it was not finished, or is under \
             way. If none is running, remove the directory and run it again",
            config.data.display()
        )));
    }
    open_engine(config).map_err(|error| {
        let data = config.data.display();
        Failure::Store(format!("the store in {data} cannot be opened: {error}{}", hint(&error)))
    })
}

/// What to do about a store that cannot be opened.
fn hint(error: &StoreError) -> &'static str {
    match error {
        StoreError::Corrupt { .. } => {
            "\nIt is left as it is. Move the directory aside and 'tributary restore' a backup, or \
             'tributary import' what was exported (docs/operations.md)."
        }
        StoreError::Full { .. } => "\nMake room there, and start again.",
        StoreError::Io { reason, .. } if reason.contains("ermission denied") => {
            "\nThe directory and all that is in it has to belong to the user who runs this: look with \
             'ls -ln', mend it with 'chown -R', or run this as that user."
        }
        StoreError::Io { reason, .. } if reason.contains("ead-only") => {
            "\nTo open a store takes writing into its directory; copy it to where that is possible."
        }
        StoreError::Io { reason, .. } if reason.contains("another process") => {
            "\nOnly one may at a time, and mostly that is a server which still runs. Stop it first."
        }
        StoreError::Io { .. } | StoreError::Stopped => "",
    }
}

/// The same, also while it is being filled from another one, and in the store's own words.
///
/// # Errors
/// As [`open`].
pub fn open_engine(config: &Config) -> Result<Arc<dyn Store>, StoreError> {
    match config.store {
        StoreKind::Sled => {
            // sled uses up to twice its cache.
            let cache_bytes = ((config.memory_budget_mib << 20) / 8).max(8 << 20);
            let options = SledOptions { cache_bytes, ..SledOptions::default() };
            SledStore::open(&config.data, &options).map(|store| Arc::new(store) as _)
        }
        StoreKind::Sqlite => SqliteStore::open(&config.data).map(|store| Arc::new(store) as _),
    }
}

/// The name of the store; made when it is asked for the first time.
///
/// # Errors
/// When the store fails.
pub fn storage_id(store: &dyn Store, path: &Path) -> Result<StorageId, Failure> {
    let failed = |error: StoreError| Failure::Store(format!("{}: {error}", path.display()));
    if let Some(name) = store.get(IDENTITY).map_err(failed)? {
        let name = String::from_utf8_lossy(&name).into_owned();
        return StorageId::new(&name).map_err(|error| {
            Failure::Store(format!("{}: the store's name: {error}", path.display()))
        });
    }
    let name = uuid::Uuid::new_v4().to_string();
    let write = Write::Put { key: IDENTITY.to_vec(), value: name.clone().into_bytes() };
    store.commit(&[write]).map_err(failed)?;
    Ok(StorageId::new(&name).expect("a UUID is a storage id"))
}
