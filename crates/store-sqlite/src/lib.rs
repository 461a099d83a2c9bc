//! The storage contract, kept by SQLite.
//!
//! A write-ahead log with `synchronous=FULL`: each commit ends with a sync of the log. Readers have
//! connections of their own and wait for nobody. SQLite survived the same power-loss test as it comes, and
//! it is the answer for an operator who distrusts sled, and what sled is compared with in tests.
//!
//! Large values live in a table of their own, in parts of up to 1 MiB. Partly because SQLite's limit for
//! one value is 1,000,000,000 bytes, below that of the contract, and partly for speed: to compare a key
//! that shares its row with a value of more than a kilobyte, SQLite reads all of that row, so a few large
//! ones beside the small made every search read megabytes. SQLite does not check its pages, so each row
//! carries a checksum here too.
//!
//! What SQLite cannot tell: a log (`store.sqlite-wal`) that is removed, or damaged, looks to it like one that
//! was empty, or that a crash cut short, and it opens without what was in it. So each batch carries the
//! number of its commit, and what is opened is compared with the [witness](store::directory::Witness) beside
//! it: with less than that it is refused, and the log is left as it is, for whoever looks into it. What the
//! witness does not see are commits of the last second before a kill.

mod errors;

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crc32fast::Hasher;
use rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, Statement, params};
use store::directory::{StoreDirectory, WITNESS_INTERVAL, Witness};
use store::{Store, StoreError, Visit, Write};

use errors::Failures;

/// The database in the store's directory; SQLite puts its log beside it.
const DATABASE: &str = "store.sqlite";
/// Says in the file's header whose it is: "Trib".
const APPLICATION_ID: i32 = 0x5472_6962;
/// The version of the tables below.
const FORMAT_VERSION: i32 = 1;
/// Above this, a value is not in its key's row. With the longest key it still fits into the 1,002 bytes of
/// a row that SQLite compares without reading on.
const INLINE_BYTES_MAX: usize = 800;
/// Bytes of a large value in one row.
const PART_BYTES: usize = 1 << 20;
/// Connections that wait for the next reader. More are opened when more threads read at once.
const IDLE_READERS_MAX: usize = 4;
/// Cache of the writing connection, in KiB.
const WRITER_CACHE_KIB: i32 = 16 << 10;
/// Cache of each reading connection, in KiB.
const READER_CACHE_KIB: i32 = 4 << 10;
/// What is left of the log on disk after a large batch went through it, in bytes.
const LOG_BYTES_MAX: i32 = 64 << 20;
/// SQLite's locks are held by this process alone, and briefly; longer than this is a fault.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(5);

/// A value of `parts` 0 is in its row. That of a larger one is in the parts `first..first + parts`, and the
/// row holds length and checksum of the whole.
const TABLES: &str = "
    CREATE TABLE rows (
        key BLOB NOT NULL PRIMARY KEY,
        first INTEGER NOT NULL,
        parts INTEGER NOT NULL,
        value BLOB NOT NULL,
        checksum INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE parts (
        id INTEGER NOT NULL PRIMARY KEY,
        value BLOB NOT NULL
    );
";
/// The row of the number of the last commit: the one key that no caller can have. A store that an older
/// version wrote may not have it.
const COMMIT: &[u8] = b"";
/// The smallest key of a caller's.
const FIRST_KEY: &[u8] = b"\x00";
const PUT_ROW: &str = "INSERT OR REPLACE INTO rows (key, first, parts, value, checksum)
    VALUES (?1, ?2, ?3, ?4, ?5)";
const PUT_PART: &str = "INSERT INTO parts (id, value) VALUES (?1, ?2)";
const NEXT_PART: &str = "SELECT coalesce(max(id), 0) + 1 FROM parts";
const DELETE_ROW: &str = "DELETE FROM rows WHERE key = ?1";
const DELETE_PARTS: &str = "DELETE FROM parts WHERE id >= ?1 AND id < ?1 + ?2";
const PARTS_OF: &str = "SELECT first, parts FROM rows WHERE key = ?1";
const GET: &str = "SELECT key, first, parts, value, checksum FROM rows WHERE key = ?1";
const SCAN: &str = "SELECT key, first, parts, value, checksum FROM rows
    WHERE key >= ?1 AND key < ?2 ORDER BY key";
const PARTS: &str = "SELECT value FROM parts WHERE id >= ?1 AND id < ?1 + ?2 ORDER BY id";

/// How a SQLite store is opened.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Leaves out the syncs, and breaks the contract: a planted bug, to show that the power-loss test
    /// notices.
    #[doc(hidden)]
    pub skip_sync: bool,
    /// How often the witness is written at most: for tests.
    #[doc(hidden)]
    pub witness_interval: Duration,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { skip_sync: false, witness_interval: WITNESS_INTERVAL }
    }
}

/// A store in a directory of its own, kept by SQLite.
pub struct SqliteStore {
    writer: Mutex<Writer>,
    idle_readers: Mutex<Vec<Connection>>,
    failures: Failures,
    directory: StoreDirectory,
}

struct Writer {
    connection: Connection,
    witness: Witness,
    stopped: bool,
}

impl SqliteStore {
    /// Opens the store in a directory; creates it when the directory is empty or missing.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the directory holds something else, a database that SQLite cannot
    /// read, one of a format that this program does not know, or one that has lost commits that were
    /// acknowledged. [`StoreError::Io`] and [`StoreError::Full`] when the system refuses, among others
    /// because another process has it open.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(path, &SqliteOptions::default())
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, options: &SqliteOptions) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let mut directory = StoreDirectory::claim(path, DATABASE)?;
        let failures = Failures::of(path);
        let connection = failures.name("open", || {
            let connection = connect(path, directory.is_new())?;
            // Or a store that is refused below would have its log worked in, and removed.
            connection.set_db_config(SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            prepare_writer(&connection)?;
            if directory.is_new() {
                create(&connection)?;
            }
            Ok(connection)
        })?;
        if directory.is_new() {
            File::open(path.join(DATABASE))
                .and_then(|file| file.sync_all())
                .map_err(|e| StoreError::from_io("create", path, &e))?;
            directory.created()?;
        }
        check_header(&connection, &failures, path)?;
        let committed = last_commit(&connection, &failures, path)?;
        let witness = directory.witness(committed, options.witness_interval)?;
        failures
            .name("open", || connection.set_db_config(SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false))?;
        if options.skip_sync {
            failures.name("open", || connection.pragma_update(None, "synchronous", "OFF"))?;
        }
        Ok(Self {
            writer: Mutex::new(Writer { connection, witness, stopped: false }),
            idle_readers: Mutex::default(),
            failures,
            directory,
        })
    }

    /// The store's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Lends a connection that sees every commit that has returned. One per reading thread at a time,
    /// and one more for a visitor that reads.
    fn read<T>(
        &self,
        operation: &'static str,
        run: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let idle = self.idle_readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.failures.name(operation, || {
                let connection = connect(self.path(), false)?;
                connection.pragma_update(None, "query_only", true)?;
                connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
                Ok(connection)
            })?,
        };
        let done = run(&connection);
        let mut idle = self.idle_readers.lock().unwrap_or_else(PoisonError::into_inner);
        // One that failed is not lent again.
        if done.is_ok() && idle.len() < IDLE_READERS_MAX {
            idle.push(connection);
        }
        done
    }

    /// The key and the value of a row, put together from its parts. The statement that found the row is
    /// still open, so the parts are of the same moment.
    fn whole(&self, row: &Row<'_>, parts: &mut Statement<'_>) -> Result<Found, StoreError> {
        let found = self.failures.name("read", || {
            Ok(Found {
                key: row.get("key")?,
                first: row.get("first")?,
                parts: row.get("parts")?,
                value: row.get("value")?,
                checksum: row.get("checksum")?,
            })
        })?;
        let damaged =
            |what: &str| StoreError::corrupt(self.path(), format!("row {:02x?} {what}", found.key));
        if row_checksum(&found.key, found.first, found.parts, &found.value) != found.checksum {
            return Err(damaged("does not match its checksum"));
        }
        if found.parts == 0 {
            return Ok(found);
        }
        let (length, checksum) =
            read_summary(&found.value).ok_or_else(|| damaged("has no summary of its parts"))?;
        let value = self.failures.name("read", || {
            let mut value = Vec::with_capacity(length);
            let mut rows = parts.query(params![found.first, found.parts])?;
            while let Some(part) = rows.next()? {
                value.extend_from_slice(part.get_ref(0)?.as_blob()?);
            }
            Ok(value)
        })?;
        if value.len() != length || crc32fast::hash(&value) != checksum {
            return Err(damaged("has parts that do not match their checksum"));
        }
        Ok(Found { value, ..found })
    }
}

/// A row as it was read.
struct Found {
    key: Vec<u8>,
    first: i64,
    parts: i64,
    value: Vec<u8>,
    checksum: u32,
}

impl Store for SqliteStore {
    fn commit(&self, batch: &[Write]) -> Result<(), StoreError> {
        batch.iter().for_each(Write::assert_within_limits);
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.stopped {
            return Err(StoreError::Stopped);
        }
        if batch.is_empty() {
            return Ok(());
        }
        // Set before and not after, so that it holds whatever way this ends.
        writer.stopped = true;
        let number = writer.witness.next_number()?;
        self.failures.name("commit", || write(&mut writer.connection, batch, number))?;
        writer.witness.durable(number);
        writer.stopped = false;
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if key == COMMIT {
            return Ok(None);
        }
        self.read("get", |connection| {
            let (mut get, mut parts) = self.failures.name("get", || {
                Ok((connection.prepare_cached(GET)?, connection.prepare_cached(PARTS)?))
            })?;
            let mut rows = self.failures.name("get", || get.query(params![key]))?;
            match self.failures.name("get", || rows.next())? {
                Some(row) => Ok(Some(self.whole(row, &mut parts)?.value)),
                None => Ok(None),
            }
        })
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let from = from.max(FIRST_KEY);
        self.read("scan", |connection| {
            let (mut scan, mut parts) = self.failures.name("scan", || {
                Ok((connection.prepare_cached(SCAN)?, connection.prepare_cached(PARTS)?))
            })?;
            let mut rows = self.failures.name("scan", || scan.query(params![from, to]))?;
            while let Some(row) = self.failures.name("scan", || rows.next())? {
                let found = self.whole(row, &mut parts)?;
                if visit(&found.key, &found.value) == ControlFlow::Break(()) {
                    break;
                }
            }
            Ok(())
        })
    }
}

fn connect(path: &Path, new: bool) -> rusqlite::Result<Connection> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, new);
    let connection = Connection::open_with_flags(path.join(DATABASE), flags)?;
    connection.busy_timeout(LOCK_WAIT_MAX)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

fn prepare_writer(connection: &Connection) -> rusqlite::Result<()> {
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        // A file system without shared memory: SQLite would go on with a journal of another kind.
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
            Some(format!("no write-ahead log is possible here; the journal is {mode:?}")),
        ));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES_MAX, |_| Ok(()))?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)
}

/// Tables and header in one transaction.
fn create(connection: &Connection) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", FORMAT_VERSION)?;
    transaction.commit()
}

fn check_header(
    connection: &Connection,
    failures: &Failures,
    path: &Path,
) -> Result<(), StoreError> {
    let number = |name| -> Result<i32, StoreError> {
        failures.name("open", || connection.pragma_query_value(None, name, |row| row.get(0)))
    };
    if number("application_id")? != APPLICATION_ID {
        return Err(StoreError::corrupt(
            path,
            format!("{DATABASE} is not a Tributary store, or one that lost its data"),
        ));
    }
    let version = number("user_version")?;
    if version != FORMAT_VERSION {
        return Err(StoreError::corrupt(
            path,
            format!("its format version is {version}; this program knows {FORMAT_VERSION}"),
        ));
    }
    Ok(())
}

/// The number of the last commit, `None` when there never was one with a number. Reads the table from its
/// root on, so that a file with a sound header and nothing behind it does not pass.
fn last_commit(
    connection: &Connection,
    failures: &Failures,
    path: &Path,
) -> Result<Option<u64>, StoreError> {
    let read = |row: &Row<'_>| Ok((row.get("value")?, row.get("checksum")?));
    let row: Option<(Vec<u8>, u32)> =
        failures.name("open", || connection.query_row(GET, params![COMMIT], read).optional())?;
    let Some((value, checksum)) = row else { return Ok(None) };
    match value.as_slice().try_into() {
        Ok(number) if row_checksum(COMMIT, 0, 0, &value) == checksum => {
            Ok(Some(u64::from_le_bytes(number)))
        }
        _ => Err(StoreError::corrupt(
            path,
            "the row of the last commit's number does not match its checksum",
        )),
    }
}

fn write(connection: &mut Connection, batch: &[Write], number: u64) -> rusqlite::Result<()> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for write in batch {
        let key = write.key();
        let mut parts_of = transaction.prepare_cached(PARTS_OF)?;
        let replaced = parts_of.query_row(params![key], |row| Ok((row.get(0)?, row.get(1)?)));
        if let Some((first, parts @ 1_i64..)) = replaced.optional()? {
            let first: i64 = first;
            transaction.prepare_cached(DELETE_PARTS)?.execute(params![first, parts])?;
        }
        match write {
            Write::Delete { .. } => {
                transaction.prepare_cached(DELETE_ROW)?.execute(params![key])?;
            }
            Write::Put { value, .. } => put(&transaction, key, value)?,
        }
    }
    put(&transaction, COMMIT, &number.to_le_bytes())?;
    transaction.commit()
}

fn put(connection: &Connection, key: &[u8], value: &[u8]) -> rusqlite::Result<()> {
    let mut put_row = connection.prepare_cached(PUT_ROW)?;
    if value.len() <= INLINE_BYTES_MAX {
        put_row.execute(params![key, 0, 0, value, row_checksum(key, 0, 0, value)])?;
        return Ok(());
    }
    let first: i64 = connection.prepare_cached(NEXT_PART)?.query_row((), |row| row.get(0))?;
    let mut put_part = connection.prepare_cached(PUT_PART)?;
    let mut parts = 0;
    for part in value.chunks(PART_BYTES) {
        put_part.execute(params![first + parts, part])?;
        parts += 1;
    }
    let summary = summary(value);
    let checksum = row_checksum(key, first, parts, &summary);
    put_row.execute(params![key, first, parts, summary, checksum])?;
    Ok(())
}

/// The key is in it so that a row that turns up under another key does not pass.
fn row_checksum(key: &[u8], first: i64, parts: i64, value: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(key);
    hasher.update(&first.to_le_bytes());
    hasher.update(&parts.to_le_bytes());
    hasher.update(value);
    hasher.finalize()
}

/// What the row of a large value holds: length and checksum of the whole.
fn summary(value: &[u8]) -> [u8; 12] {
    let mut summary = [0; 12];
    summary[..8].copy_from_slice(&(value.len() as u64).to_le_bytes());
    summary[8..].copy_from_slice(&crc32fast::hash(value).to_le_bytes());
    summary
}

fn read_summary(summary: &[u8]) -> Option<(usize, u32)> {
    let summary: &[u8; 12] = summary.try_into().ok()?;
    let (length, checksum) = summary.split_at(8);
    let length = u64::from_le_bytes(length.try_into().ok()?);
    Some((usize::try_from(length).ok()?, u32::from_le_bytes(checksum.try_into().ok()?)))
}
