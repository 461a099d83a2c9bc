//! What SQLite's errors mean in the contract's words.

use std::path::{Path, PathBuf};

use rusqlite::{Error, ErrorCode};
use store::StoreError;

/// Names the failures of one store.
pub(crate) struct Failures {
    path: PathBuf,
}

impl Failures {
    pub fn of(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Runs something of SQLite's and says in the contract's words what went wrong with it.
    pub fn name<T>(
        &self,
        operation: &'static str,
        run: impl FnOnce() -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        run().map_err(|error| self.translate(operation, &error))
    }

    fn translate(&self, operation: &'static str, error: &Error) -> StoreError {
        let path = self.path.display().to_string();
        let reason = error.to_string();
        match error {
            Error::SqliteFailure(failure, _) => match failure.code {
                ErrorCode::DiskFull => StoreError::Full { path },
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                    StoreError::Corrupt { path, what: reason }
                }
                // A table that is missing or has other columns: the schema is not what we created.
                ErrorCode::Unknown => StoreError::Corrupt { path, what: reason },
                _ => StoreError::Io { operation, path, reason },
            },
            // A column of another type or size than we wrote.
            _ => StoreError::Corrupt { path, what: reason },
        }
    }
}
