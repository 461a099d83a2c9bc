//! What a damaged store answers: an error that names it. Never a panic, never a wrong value, never "empty".

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use rusqlite::Connection;
use store::{Store, StoreError, Write};
use tempfile::TempDir;
use tributary_store_sqlite::SqliteStore;

const ROWS: u32 = 300;

fn value(n: u32) -> Vec<u8> {
    n.to_be_bytes().repeat(20 + n as usize * 7)
}

/// A store of 300 rows, small to 8 KB, cleanly closed.
fn stored() -> TempDir {
    let temp = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(temp.path()).unwrap();
    for n in 0..ROWS {
        let write = Write::Put { key: n.to_be_bytes().to_vec(), value: value(n) };
        store.commit(&[write]).unwrap();
    }
    temp
}

/// How many rows are read, all of them right.
fn read(path: &Path) -> Result<u32, StoreError> {
    let store = SqliteStore::open(path)?;
    let mut rows = 0;
    let mut visit = |key: &[u8], found: &[u8]| {
        let n = u32::from_be_bytes(key.try_into().expect("a key that was put"));
        assert!(found == value(n), "a wrong value of row {n}");
        rows += 1;
        ControlFlow::Continue(())
    };
    store.scan(b"\x00", b"\xff", &mut visit)?;
    Ok(rows)
}

fn assert_corrupt(path: &Path, case: &str) {
    match SqliteStore::open(path).map(|_| ()) {
        Err(StoreError::Corrupt { path: named, .. }) => {
            assert_eq!(named, path.display().to_string(), "{case}");
        }
        other => panic!("{case}: {other:?}"),
    }
}

#[test]
fn a_store_that_lost_its_file_is_refused() {
    for case in ["missing", "empty", "text"] {
        let damaged = stored();
        assert_eq!(read(damaged.path()), Ok(ROWS));
        let database = damaged.path().join("store.sqlite");
        match case {
            "missing" => {
                fs::remove_file(&database).unwrap();
                // The lock alone is an empty directory; something must be left that tells.
                fs::write(damaged.path().join("store.sqlite-wal"), b"").unwrap();
            }
            "empty" => fs::write(&database, b"").unwrap(),
            _ => fs::write(&database, b"Dear ".repeat(5000)).unwrap(),
        }
        assert_corrupt(damaged.path(), case);
        assert_corrupt(damaged.path(), &format!("{case}, opened again"));
    }
}

#[test]
fn a_database_of_something_else_or_of_another_format_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let database = temp.path().join("store.sqlite");
    Connection::open(&database).unwrap().execute_batch("CREATE TABLE theirs (a)").unwrap();
    assert_corrupt(temp.path(), "theirs");

    let ours = stored();
    let database = Connection::open(ours.path().join("store.sqlite")).unwrap();
    database.pragma_update(None, "user_version", 9).unwrap();
    drop(database);
    let refused = SqliteStore::open(ours.path()).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("version is 9"), "{refused}");
}

#[test]
fn bytes_that_change_on_disk_are_never_served_and_never_a_panic() {
    let sound = stored();
    let file = sound.path().join("store.sqlite");
    let whole = fs::read(&file).unwrap();
    let mut refused = 0;
    for n in 0..120 {
        let mut bytes = whole.clone();
        let at = whole.len() * n / 120 + n * 13 % 4096;
        let end = (at + 16).min(bytes.len());
        bytes[at.min(end)..end].iter_mut().for_each(|byte| *byte ^= 0x10);
        fs::write(&file, &bytes).unwrap();
        match read(sound.path()) {
            Ok(rows) => assert!(rows > 0, "served as empty, damaged at {at}"),
            Err(StoreError::Corrupt { .. }) => refused += 1,
            Err(other) => panic!("damaged at {at}: {other}"),
        }
    }
    assert!(refused > 50, "damage was noticed {refused} times of 120");
}

#[test]
fn a_file_that_was_cut_is_refused_or_right() {
    let sound = stored();
    let file = sound.path().join("store.sqlite");
    let whole = fs::read(&file).unwrap();
    for eighth in 1..8 {
        fs::write(&file, &whole[..whole.len() * eighth / 8]).unwrap();
        match read(sound.path()) {
            Ok(rows) => assert_eq!(rows, ROWS, "{eighth}/8"),
            Err(StoreError::Corrupt { .. } | StoreError::Io { .. }) => {}
            Err(other) => panic!("{eighth}/8: {other}"),
        }
    }
}
