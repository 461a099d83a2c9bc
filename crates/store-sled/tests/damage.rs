//! What a damaged store answers: an error that names it. Never a panic, never a wrong value, never "empty".

use std::fs;
use std::ops::ControlFlow;
use std::panic::catch_unwind;
use std::path::Path;

use store::directory::ACCEPT_LOSS;
use store::{Store, StoreError, Write};
use tempfile::TempDir;
use tributary_store_sled::{SledOptions, SledStore};

fn open(path: &Path) -> Result<SledStore, StoreError> {
    SledStore::open(path, &SledOptions::default())
}

fn value(n: u32) -> Vec<u8> {
    n.to_be_bytes().repeat(20 + n as usize * 24)
}

const ROWS: u32 = 60;

/// A store of some rows, small to 6 KB, cleanly closed. They are so few that what sled wrote last is at
/// the end of its file: with more, sled uses segments again that lie before it.
fn stored() -> TempDir {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path()).unwrap();
    for n in 0..ROWS {
        let write = Write::Put { key: n.to_be_bytes().to_vec(), value: value(n) };
        store.commit(&[write]).unwrap();
    }
    drop(store);
    temp
}

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
        }
    }
    to
}

/// How many rows are read, all of them right.
fn read(path: &Path) -> Result<u32, StoreError> {
    let store = open(path)?;
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

/// sled as the store opens it.
fn database(path: &Path) -> sled::Result<sled::Db> {
    sled::Config::new().path(path).segment_size(256 << 10).open()
}

/// The database without what is around it.
fn open_sled(path: &Path) -> sled::Db {
    loop {
        // sled lets go of its lock a little after it is dropped.
        if let Ok(opened) = database(path) {
            return opened;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_store_with_the_longer_segments_of_an_older_version_opens_and_goes_on() {
    let temp = stored();
    // The same rows in a database as older versions made them.
    let rows: Vec<_> = open_sled(temp.path()).iter().map(Result::unwrap).collect();
    let older = copy(temp.path());
    for name in ["db", "conf"] {
        fs::remove_file(older.path().join(name)).unwrap();
    }
    for entry in fs::read_dir(older.path()).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().starts_with("snap.") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let database = sled::open(older.path()).unwrap();
    for (key, row) in rows {
        database.insert(key, row).unwrap();
    }
    drop(database);
    for round in 0..3 {
        let store = open(older.path()).unwrap();
        let write =
            Write::Put { key: (ROWS + round).to_be_bytes().to_vec(), value: value(ROWS + round) };
        store.commit(&[write]).unwrap();
        assert_eq!(store.oversized_blobs().unwrap(), 0);
        drop(store);
        assert_eq!(read(older.path()).unwrap(), ROWS + round + 1);
    }
}

fn assert_corrupt(path: &Path, case: &str) {
    match open(path).map(|_| ()) {
        Err(StoreError::Corrupt { path: named, .. }) => {
            assert_eq!(named, path.display().to_string(), "{case}");
        }
        other => panic!("{case}: {other:?}"),
    }
}

#[test]
fn a_store_that_lost_its_file_is_refused() {
    let sound = stored();
    assert_eq!(read(sound.path()), Ok(ROWS));
    for case in ["missing", "empty", "zeros"] {
        let damaged = copy(sound.path());
        let database = damaged.path().join("db");
        match case {
            "missing" => fs::remove_file(&database).unwrap(),
            "empty" => fs::write(&database, b"").unwrap(),
            _ => fs::write(&database, vec![0; 1 << 20]).unwrap(),
        }
        assert_corrupt(damaged.path(), case);
        assert_corrupt(damaged.path(), &format!("{case}, opened again"));
    }
}

#[test]
fn a_directory_of_something_else_is_refused_and_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("letter"), b"Dear").unwrap();
    assert_corrupt(temp.path(), "letter");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
}

#[test]
fn a_sled_database_of_something_else_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let other = sled::open(temp.path()).unwrap();
    other.insert(b"theirs", b"data").unwrap();
    other.flush().unwrap();
    drop(other);
    assert_corrupt(temp.path(), "no version");
}

#[test]
fn a_format_that_is_not_known_is_refused_with_its_number() {
    let temp = tempfile::tempdir().unwrap();
    drop(open(temp.path()).unwrap());
    let database = open_sled(temp.path());
    let version = 9_u32.to_le_bytes();
    let checksum = crc32fast::hash(&[b"m".as_slice(), &version].concat()).to_le_bytes();
    database.insert(b"m", [checksum, version].concat()).unwrap();
    database.flush().unwrap();
    drop(database);
    let refused = open(temp.path()).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("version is 9"), "{refused}");
}

#[test]
fn bytes_that_change_on_disk_are_never_served_and_never_a_panic() {
    let sound = stored();
    // Opened once more, so that nothing is left at the log's end that sled may take for a torn write.
    assert_eq!(read(sound.path()), Ok(ROWS));
    let whole = fs::read(sound.path().join("db")).unwrap();
    // Every value's first bytes are looked for, so that rows are hit and not only free space.
    let mut refused = 0;
    for n in (1..ROWS).step_by(3) {
        let needle = &value(n)[..40];
        let Some(at) = whole.windows(40).rposition(|window| window == needle) else { continue };
        let damaged = copy(sound.path());
        let mut bytes = whole.clone();
        bytes[at + 13] ^= 0x10;
        fs::write(damaged.path().join("db"), bytes).unwrap();
        match read(damaged.path()) {
            Ok(rows) => assert_eq!(rows, ROWS, "row {n}"),
            Err(StoreError::Corrupt { .. }) => refused += 1,
            Err(other) => panic!("row {n}: {other}"),
        }
    }
    assert!(refused > 0, "no damage was noticed");
}

#[test]
fn no_file_that_was_cut_and_no_damage_outside_of_the_log_makes_it_serve_less() {
    let sound = stored();
    for entry in fs::read_dir(sound.path()).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        if !entry.file_type().unwrap().is_file() || name == "lock" {
            continue;
        }
        let whole = fs::read(entry.path()).unwrap();
        for share in 0..8 {
            for cut in [true, false] {
                let damaged = copy(sound.path());
                let mut bytes = whole.clone();
                let at = whole.len() * share / 8;
                if cut {
                    bytes.truncate(at);
                } else {
                    let end = (at + 64).min(bytes.len());
                    bytes[at..end].fill(0xa5);
                }
                fs::write(damaged.path().join(&name), bytes).unwrap();
                match read(damaged.path()) {
                    // sled skips what is damaged inside of its log and goes on with the next segment:
                    // older versions of some leaves come back, and nothing shows it at the start
                    // (docs/assumptions.md). What it then serves is right, and may be less.
                    Ok(rows) if name == "db" && !cut => assert!(rows <= ROWS),
                    Ok(rows) => assert_eq!(rows, ROWS, "{name:?} {share}/8 cut {cut}"),
                    Err(StoreError::Corrupt { .. }) => {}
                    Err(other) => panic!("{name:?} {share}/8 cut {cut}: {other}"),
                }
            }
        }
    }
}

/// How many rows sled itself finds, if it opens.
fn rows_for_sled(path: &Path) -> Option<usize> {
    let path = path.to_owned();
    // It panics on some damage.
    catch_unwind(move || Some(database(&path).ok()?.scan_prefix(b"r").flatten().count()))
        .ok()
        .flatten()
}

/// Copies of a store with damage at many places of the last 30 KB that sled wrote, which are in one segment.
fn with_a_damaged_end(sound: &Path) -> impl Iterator<Item = (String, TempDir)> {
    let whole = fs::read(sound.join("db")).unwrap();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let places = [1, 2, 20, 150, 700, 3_000, 8_000, 14_000, 20_000, 30_000];
    let kinds = ["cut", "one bit", "zeros"];
    let sound = sound.to_owned();
    places.into_iter().flat_map(move |back| kinds.map(|kind| (back, kind))).map(
        move |(back, kind)| {
            let damaged = copy(&sound);
            let mut bytes = whole.clone();
            let at = end - back;
            match kind {
                "cut" => bytes.truncate(at),
                "one bit" => bytes[at] ^= 0x10,
                _ => bytes[at..end].fill(0),
            }
            fs::write(damaged.path().join("db"), bytes).unwrap();
            (format!("{kind}, {back} bytes before the end"), damaged)
        },
    )
}

#[test]
fn a_log_whose_end_is_damaged_is_refused_wherever_sled_opens_it_with_less() {
    let sound = stored();
    let mut less = 0;
    for (case, damaged) in with_a_damaged_end(sound.path()) {
        let for_sled = copy(damaged.path());
        let silent = rows_for_sled(for_sled.path()).is_some_and(|rows| rows < ROWS as usize);
        match read(damaged.path()) {
            Ok(rows) => assert!(rows == ROWS && !silent, "{case}: {rows} rows"),
            Err(refused @ StoreError::Corrupt { .. }) if silent => {
                less += 1;
                let text = refused.to_string();
                let words = format!("to {ROWS} were acknowledged and are lost");
                assert!(text.contains(&words), "{case}: {text}");
                assert_corrupt(damaged.path(), &format!("{case}, opened again"));
            }
            Err(StoreError::Corrupt { .. }) => {}
            Err(other) => panic!("{case}: {other}"),
        }
    }
    println!("sled opened {less} of 30 with less");
    assert!(less >= 5, "sled opened with less only {less} times: the test shows little");
}

#[test]
fn a_loss_that_the_operator_accepts_is_served_and_the_next_one_is_not() {
    let sound = stored();
    let lost = |found: &Result<u32, StoreError>| {
        found.as_ref().is_err_and(|refused| refused.to_string().contains("are lost"))
    };
    let (_, damaged) =
        with_a_damaged_end(sound.path()).find(|(_, it)| lost(&read(it.path()))).unwrap();
    fs::write(damaged.path().join(ACCEPT_LOSS), b"").unwrap();
    let left = read(damaged.path()).unwrap();
    assert!(0 < left && left < ROWS, "{left}");
    // Numbered on from what is left, and watched again.
    let store = open(damaged.path()).unwrap();
    let new = ROWS + 1;
    let write = Write::Put { key: new.to_be_bytes().to_vec(), value: value(new) };
    store.commit(&[write]).unwrap();
    drop(store);
    assert_eq!(read(copy(damaged.path()).path()), Ok(left + 1));
    // What lies behind it in the file is of the time before.
    let mut bytes = fs::read(damaged.path().join("db")).unwrap();
    let at = bytes.windows(40).rposition(|window| window == &value(new)[..40]).unwrap();
    bytes[at] ^= 0x10;
    fs::write(damaged.path().join("db"), bytes).unwrap();
    let found = read(damaged.path());
    assert!(lost(&found), "{found:?}");
}

#[test]
fn a_store_from_before_there_were_witnesses_opens_and_is_watched_from_then_on() {
    let sound = stored();
    fs::remove_file(sound.path().join("witness")).unwrap();
    assert_corrupt(sound.path(), "no witness");
    let database = open_sled(sound.path());
    database.remove(b"c").unwrap();
    database.flush().unwrap();
    drop(database);
    assert_eq!(read(sound.path()), Ok(ROWS));
    drop(open(sound.path()).unwrap().commit(&[Write::Delete { key: vec![9] }]));
    fs::remove_file(sound.path().join("witness")).unwrap();
    assert_corrupt(sound.path(), "no witness any more");
}

/// A store with values that have files of their own, and those files.
fn with_files() -> (TempDir, Vec<std::path::PathBuf>) {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path()).unwrap();
    for n in 0..3_u8 {
        let write = Write::Put { key: vec![n], value: vec![n; 100_000 + usize::from(n)] };
        store.commit(&[write]).unwrap();
    }
    drop(store);
    let files = fs::read_dir(temp.path().join("values")).unwrap();
    let files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 3);
    (temp, files)
}

#[test]
fn a_file_of_a_value_that_is_damaged_is_named_and_never_served() {
    for damage in ["cut", "longer", "one bit", "another one's"] {
        let (temp, files) = with_files();
        let mut bytes = fs::read(&files[1]).unwrap();
        match damage {
            "cut" => bytes.truncate(50_000),
            "longer" => bytes.push(1),
            "one bit" => bytes[70_000] ^= 1,
            _ => bytes = fs::read(&files[0]).unwrap(),
        }
        fs::write(&files[1], bytes).unwrap();
        let store = open(temp.path()).unwrap();
        let refused: Vec<_> = (0..3_u8).filter_map(|n| store.get(&[n]).err()).collect();
        assert!(matches!(&refused[..], [StoreError::Corrupt { .. }]), "{damage}: {refused:?}");
        let name = files[1].file_name().unwrap().to_str().unwrap();
        assert!(refused[0].to_string().contains(name), "{damage}: {refused:?}");
    }
}

#[test]
fn a_store_that_lost_a_file_of_a_value_is_refused_until_that_is_accepted() {
    let (temp, files) = with_files();
    fs::remove_file(&files[1]).unwrap();
    assert_corrupt(temp.path(), "a file is missing");
    fs::write(temp.path().join(ACCEPT_LOSS), b"").unwrap();
    for _ in 0..2 {
        let store = open(temp.path()).unwrap();
        let found: Vec<_> = (0..3_u8).map(|n| store.get(&[n])).collect();
        assert_eq!(found.iter().filter(|it| matches!(it, Ok(Some(_)))).count(), 2);
        assert_eq!(found.iter().filter(|it| it.is_err()).count(), 1);
    }
}
