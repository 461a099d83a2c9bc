//! What a damaged store answers: an error that names it. Never a panic, never a wrong value, never "empty".

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use store::directory::{ACCEPT_LOSS, witnessed};
use store::{Store, StoreError, Write};
use tempfile::TempDir;
use tributary_store_sqlite::{SqliteOptions, SqliteStore};

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
            "missing" => fs::remove_file(&database).unwrap(),
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
            Ok(rows) => assert_eq!(rows, ROWS, "damaged at {at}"),
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

/// What a process left that was killed after `ROWS` commits, half of them in the log alone, when the
/// witness had seen them.
fn killed() -> TempDir {
    let live = tempfile::tempdir().unwrap();
    let interval =
        |witness_interval| SqliteOptions { witness_interval, ..SqliteOptions::default() };
    let commit = |store: &SqliteStore, n: u32| {
        let write = Write::Put { key: n.to_be_bytes().to_vec(), value: value(n) };
        store.commit(&[write]).unwrap();
    };
    let half = SqliteStore::open(live.path()).unwrap();
    (0..ROWS / 2).for_each(|n| commit(&half, n));
    drop(half);
    let store = SqliteStore::open_with(live.path(), &interval(Duration::ZERO)).unwrap();
    (ROWS / 2..ROWS).for_each(|n| commit(&store, n));
    while witnessed(live.path()).unwrap() < Some(u64::from(ROWS)) {
        std::thread::yield_now();
    }
    let left = copy(live.path());
    assert!(left.path().join("store.sqlite-wal").metadata().unwrap().len() > 100_000);
    left
}

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

#[test]
fn a_log_that_was_removed_or_damaged_after_a_kill_is_refused() {
    let left = killed();
    assert_eq!(read(copy(left.path()).path()), Ok(ROWS));
    let whole = fs::read(left.path().join("store.sqlite-wal")).unwrap();
    for case in ["removed", "empty", "header", "cut", "one bit", "near the end"] {
        let damaged = copy(left.path());
        let log = damaged.path().join("store.sqlite-wal");
        let mut bytes = whole.clone();
        match case {
            "removed" => fs::remove_file(&log).unwrap(),
            "empty" => fs::write(&log, b"").unwrap(),
            "header" => {
                bytes[9] ^= 1;
                fs::write(&log, bytes).unwrap();
            }
            "cut" => fs::write(&log, &whole[..whole.len() / 2]).unwrap(),
            "one bit" => {
                bytes[whole.len() / 3] ^= 1;
                fs::write(&log, bytes).unwrap();
            }
            _ => {
                bytes[whole.len() - 2_000] ^= 1;
                fs::write(&log, bytes).unwrap();
            }
        }
        // The index of the log is memory that a process shares; after a loss of power it is not there.
        let _ = fs::remove_file(damaged.path().join("store.sqlite-shm"));
        let refused = read(damaged.path()).unwrap_err();
        assert!(matches!(refused, StoreError::Corrupt { .. }), "{case}: {refused}");
        let text = refused.to_string();
        assert!(text.contains("to 300 were acknowledged and are lost"), "{case}: {text}");
        assert_corrupt(damaged.path(), &format!("{case}, opened again"));
        if case == "one bit" {
            // Most of what is behind it could still be read by hand.
            assert_eq!(fs::metadata(&log).unwrap().len(), whole.len() as u64);
        }

        fs::write(damaged.path().join(ACCEPT_LOSS), b"").unwrap();
        let rows = read(damaged.path()).unwrap();
        assert!((ROWS / 2..ROWS).contains(&rows), "{case}: {rows} rows");
        assert_eq!(read(damaged.path()), Ok(rows), "{case}, accepted");
    }
}

#[test]
fn a_store_from_before_there_were_witnesses_opens_and_is_watched_from_then_on() {
    let sound = stored();
    fs::remove_file(sound.path().join("witness")).unwrap();
    assert_corrupt(sound.path(), "no witness");
    let database = Connection::open(sound.path().join("store.sqlite")).unwrap();
    assert_eq!(database.execute("DELETE FROM rows WHERE key = x''", ()), Ok(1));
    drop(database);
    assert_eq!(read(sound.path()), Ok(ROWS));
    let store = SqliteStore::open(sound.path()).unwrap();
    store.commit(&[Write::Delete { key: vec![9] }]).unwrap();
    drop(store);
    fs::remove_file(sound.path().join("witness")).unwrap();
    assert_corrupt(sound.path(), "no witness any more");
}
