//! The memory store keeps the contract, and breaks exactly as it is told to.

use tributary_store as store;

use store::conformance::Subject;
use store::{Fault, MemoryDisk, Store, StoreError, Write};

struct Memory(MemoryDisk);

impl Subject for Memory {
    fn open(&self) -> Box<dyn Store> {
        Box::new(self.0.open())
    }
}

fn subject() -> Memory {
    Memory(MemoryDisk::new())
}

store::conformance_suite!(subject);

fn put(key: &str, value: &str) -> Vec<Write> {
    vec![Write::Put { key: key.into(), value: value.into() }]
}

fn value(disk: &MemoryDisk, key: &str) -> Option<String> {
    disk.open().get(key.as_bytes()).unwrap().map(|v| String::from_utf8(v).unwrap())
}

#[test]
fn a_crash_leaves_every_commit_that_returned() {
    let disk = MemoryDisk::new();
    disk.open().commit(&put("a", "1")).unwrap();
    disk.crash();
    assert_eq!(value(&disk, "a").as_deref(), Some("1"));
    assert_eq!((disk.durable_bytes(), disk.live_bytes(), disk.commits()), (2, 2, 1));
}

#[test]
fn every_fault_is_final_for_the_process_and_not_for_the_disk() {
    // What is read of the failed batch: before the crash, and after it.
    let cases = [
        (Fault::Full, None, None),
        (Fault::Io, None, None),
        (Fault::SyncLost, Some("2"), None),
        (Fault::SyncDone, Some("2"), Some("2")),
    ];
    for (fault, before, after) in cases {
        let disk = MemoryDisk::new();
        let store = disk.open();
        disk.fail_commit_after(1, fault);
        store.commit(&put("a", "1")).unwrap();
        let error = store.commit(&put("b", "2")).unwrap_err();
        assert_eq!(matches!(error, StoreError::Full { .. }), fault == Fault::Full, "{error}");
        assert_eq!(value(&disk, "b").as_deref(), before, "{fault:?}");
        store::conformance::after_an_error_commits_are_stopped(&store);
        disk.crash();
        assert_eq!(value(&disk, "a").as_deref(), Some("1"));
        assert_eq!(value(&disk, "b").as_deref(), after, "{fault:?}");
        disk.open().commit(&put("c", "3")).unwrap();
    }
}

#[test]
fn a_lying_disk_loses_what_it_acknowledged_and_keeps_the_order() {
    let disk = MemoryDisk::new();
    let store = disk.open();
    store.commit(&put("a", "1")).unwrap();
    disk.fail_next_commit(Fault::Lie);
    store.commit(&put("b", "2")).unwrap();
    store.commit(&put("c", "3")).unwrap();
    assert_eq!(value(&disk, "c").as_deref(), Some("3"));
    assert!(disk.durable_bytes() < disk.live_bytes());
    disk.crash();
    let left = ["a", "b", "c"].map(|key| value(&disk, key).is_some());
    assert_eq!(left, [true, false, false]);
    disk.open().commit(&put("d", "4")).unwrap();
    disk.crash();
    assert!(value(&disk, "d").is_some(), "the lie ends with the crash");
}

#[test]
fn a_store_of_a_dead_process_can_do_nothing() {
    let disk = MemoryDisk::new();
    let old = disk.open();
    old.commit(&put("a", "1")).unwrap();
    disk.crash();
    assert_eq!(old.commit(&put("a", "2")), Err(StoreError::Stopped));
    assert_eq!(old.get(b"a"), Err(StoreError::Stopped));
    assert_eq!(value(&disk, "a").as_deref(), Some("1"));
}

#[test]
fn a_restored_backup_is_the_disk_of_that_day() {
    let disk = MemoryDisk::new();
    disk.open().commit(&put("a", "1")).unwrap();
    let backup = disk.snapshot();
    let store = disk.open();
    store.commit(&put("a", "2")).unwrap();
    store.commit(&put("b", "3")).unwrap();
    disk.restore(&backup);
    assert_eq!(store.get(b"a"), Err(StoreError::Stopped));
    assert_eq!((value(&disk, "a").as_deref(), value(&disk, "b")), (Some("1"), None));
    assert_eq!(disk.snapshot(), backup);
    assert_eq!(backup.rows().collect::<Vec<_>>(), [(&b"a"[..], &b"1"[..])]);
}

#[test]
fn a_rotten_row_is_an_error_and_never_an_absence() {
    let disk = MemoryDisk::new();
    let store = disk.open();
    for key in ["a", "b", "c"] {
        store.commit(&put(key, "1")).unwrap();
    }
    disk.corrupt(b"b");
    assert!(matches!(store.get(b"b"), Err(StoreError::Corrupt { .. })));
    let mut seen = 0;
    let mut visit = |_: &[u8], _: &[u8]| {
        seen += 1;
        std::ops::ControlFlow::Continue(())
    };
    assert!(matches!(store.scan(b"a", b"d", &mut visit), Err(StoreError::Corrupt { .. })));
    assert_eq!(seen, 1);
    store.commit(&put("b", "2")).unwrap();
    assert_eq!(value(&disk, "b").as_deref(), Some("2"));
}
