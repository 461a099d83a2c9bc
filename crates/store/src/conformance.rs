//! The contract as tests: every backend runs every one of them.
//!
//! A backend's test file says `store::conformance_suite!(subject)`, where `subject()` makes a new
//! [`Subject`] for each test. Each function panics when the contract is broken.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::seeded::Seeded;
use crate::{KEY_BYTES_MAX, Store, Write};

/// A place where a store can be opened again and again. At most one store of it is open at a time.
pub trait Subject {
    /// Opens what is there; the first time, an empty store.
    fn open(&self) -> Box<dyn Store>;
}

/// Makes one test per rule of the suite, each on a new [`Subject`] from the given function.
#[macro_export]
macro_rules! conformance_suite {
    ($subject:path) => {
        $crate::conformance_suite!(@tests $subject:
            what_is_put_is_got_and_what_is_not_is_absent,
            a_scan_is_ordered_and_half_open,
            a_scan_ends_at_break,
            a_scan_may_read_the_store,
            smaller_and_larger_values_replace_each_other_whole,
            the_last_write_of_a_key_in_a_batch_counts,
            deleting_leaves_nothing_behind,
            doing_it_twice_is_doing_it_once,
            a_store_shows_nothing_of_its_own,
            empty_values_and_empty_batches_are_allowed,
            values_around_every_power_of_two_come_back,
            large_values_come_back_whole,
            keys_may_be_as_long_as_allowed,
            a_reopened_store_holds_everything,
            readers_beside_a_committer_see_whole_values,
            random_work_equals_a_map,
        );
    };
    (@tests $subject:path: $($name:ident,)+) => {
        $(
            #[test]
            fn $name() {
                $crate::conformance::$name(&$subject());
            }
        )+
    };
}

/// Get after put, in the same and in later batches.
pub fn what_is_put_is_got_and_what_is_not_is_absent(subject: &impl Subject) {
    let store = subject.open();
    assert_eq!(store.get(b"a").unwrap(), None);
    store.commit(&[put(b"a", b"1"), put(b"c", b"3")]).unwrap();
    assert_eq!(store.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(store.get(b"b").unwrap(), None);
    assert_eq!(store.get(b"").unwrap(), None);
    assert_eq!(store.get(&[b'c'; KEY_BYTES_MAX + 1]).unwrap(), None);
    store.commit(&[put(b"b", b"2")]).unwrap();
    assert_eq!(all(&*store), rows(&[(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]));
}

/// Bytewise order, `from` included, `to` excluded, whatever lies outside left out.
pub fn a_scan_is_ordered_and_half_open(subject: &impl Subject) {
    let store = subject.open();
    let keys: [&[u8]; 7] =
        [b"\x00", b"\x01\x00", b"\x01\x01", b"\x7f", b"\x80", b"\xfe\xff", b"\xff\xff\xff"];
    let batch: Vec<_> = keys.iter().rev().map(|k| put(k, k)).collect();
    store.commit(&batch).unwrap();
    let found = |from: &[u8], to: &[u8]| -> Vec<Vec<u8>> {
        scanned(&*store, from, to).into_iter().map(|(k, _)| k).collect()
    };
    let owned = |keys: &[&[u8]]| -> Vec<Vec<u8>> { keys.iter().map(|k| k.to_vec()).collect() };
    assert_eq!(found(b"", b"\xff\xff\xff\xff"), owned(&keys));
    assert_eq!(found(b"", b"\xff\xff\xff"), owned(&keys[..6]));
    assert_eq!(found(b"\x01\x01", b"\x80"), owned(&keys[2..4]));
    assert_eq!(found(b"\x01", b"\x02"), owned(&keys[1..3]));
    assert_eq!(found(b"\x02", b"\x03"), owned(&[]));
    assert_eq!(found(b"\x80", b"\x80"), owned(&[]));
    assert_eq!(found(b"\x80", b"\x01"), owned(&[]), "a range the wrong way round is empty");
    assert_eq!(found(b"", b""), owned(&[]));
}

/// `Break` is obeyed at once.
pub fn a_scan_ends_at_break(subject: &impl Subject) {
    let store = subject.open();
    let batch: Vec<_> = (0..1000_u32).map(|n| put(&n.to_be_bytes(), b"v")).collect();
    store.commit(&batch).unwrap();
    for wanted in [1, 2, 300, 999] {
        let mut visits = 0;
        let mut visit = |_: &[u8], _: &[u8]| {
            visits += 1;
            if visits == wanted { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        store.scan(b"", END, &mut visit).unwrap();
        assert_eq!(visits, wanted);
    }
}

/// A visitor may get and scan.
pub fn a_scan_may_read_the_store(subject: &impl Subject) {
    let store = subject.open();
    let large = Seeded::new(5).bytes(100_000);
    store.commit(&[put(b"a", b"b"), put(b"b", &large), put(b"c", b"a")]).unwrap();
    let mut seen = 0;
    let mut visit = |key: &[u8], _: &[u8]| {
        assert!(store.get(key).unwrap().is_some());
        assert_eq!(scanned(&*store, key, b"d").len(), 3 - seen);
        seen += 1;
        ControlFlow::Continue(())
    };
    store.scan(b"", END, &mut visit).unwrap();
    assert_eq!(seen, 3);
}

/// No part of an old value shows through a new one, whichever is longer.
pub fn smaller_and_larger_values_replace_each_other_whole(subject: &impl Subject) {
    let mut store = subject.open();
    let mut generator = Seeded::new(1);
    let lengths = [0, 10, 5000, 300, 70_000, 4096, 3_000_000, 8192, 1, 2_000_000, 2_500_000, 12, 0];
    for (turn, length) in lengths.into_iter().enumerate() {
        let value = generator.bytes(length);
        store.commit(&[put(b"key", &value), put(b"kez", b"neighbour")]).unwrap();
        assert!(store.get(b"key").unwrap() == Some(value.clone()), "{length} bytes");
        if turn % 4 == 3 {
            drop(store);
            store = subject.open();
        }
        let expected = vec![(b"key".to_vec(), value), (b"kez".to_vec(), b"neighbour".to_vec())];
        assert!(all(&*store) == expected, "{length} bytes");
    }
}

/// Writes of one batch apply in their order.
pub fn the_last_write_of_a_key_in_a_batch_counts(subject: &impl Subject) {
    let store = subject.open();
    let large = Seeded::new(2).bytes(50_000);
    store
        .commit(&[
            put(b"a", b"1"),
            delete(b"a"),
            put(b"b", b"1"),
            put(b"b", &large),
            delete(b"c"),
            put(b"c", &large),
            put(b"c", b"3"),
            put(b"d", &large),
            delete(b"d"),
            put(b"e", b"1"),
            delete(b"e"),
            put(b"e", b"2"),
        ])
        .unwrap();
    assert!(all(&*store) == rows(&[(b"b", &large), (b"c", b"3"), (b"e", b"2")]));
}

/// A deleted key is gone, large or small, also after reopening; its neighbours are not.
pub fn deleting_leaves_nothing_behind(subject: &impl Subject) {
    let store = subject.open();
    let large = Seeded::new(3).bytes(5_000_000);
    store.commit(&[put(b"a", &large), put(b"b", b"2"), put(b"c", &large)]).unwrap();
    store.commit(&[delete(b"a"), delete(b"b"), delete(b"never there")]).unwrap();
    assert!(all(&*store) == rows(&[(b"c", &large)]));
    drop(store);
    let store = subject.open();
    assert!(all(&*store) == rows(&[(b"c", &large)]));
    store.commit(&[put(b"a", b"again")]).unwrap();
    assert!(all(&*store) == rows(&[(b"a", b"again"), (b"c", &large)]));
}

/// The same batch again changes nothing.
pub fn doing_it_twice_is_doing_it_once(subject: &impl Subject) {
    let store = subject.open();
    let large = Seeded::new(4).bytes(40_000);
    let batch = [put(b"a", b"1"), put(b"b", &large), delete(b"c")];
    for _ in 0..3 {
        store.commit(&batch).unwrap();
        assert!(all(&*store) == rows(&[(b"a", b"1"), (b"b", &large)]));
    }
}

/// What a store keeps for itself, a new one and one that was written to, is not in any answer.
pub fn a_store_shows_nothing_of_its_own(subject: &impl Subject) {
    let end = [0xff; KEY_BYTES_MAX + 1];
    for _ in 0..2 {
        let store = subject.open();
        assert_eq!(scanned(&*store, b"", &end), rows(&[]));
        store.commit(&[delete(b"a")]).unwrap();
        assert_eq!(scanned(&*store, b"", &end), rows(&[]));
        assert_eq!(scanned(&*store, b"", b"\x00"), rows(&[]));
        for byte in 0..=u8::MAX {
            assert_eq!(store.get(&[byte]).unwrap(), None);
        }
        assert_eq!(store.get(b"").unwrap(), None);
    }
}

/// Nothing is a value too, and not the same as absence.
pub fn empty_values_and_empty_batches_are_allowed(subject: &impl Subject) {
    let store = subject.open();
    store.commit(&[]).unwrap();
    store.commit(&[put(b"a", b"")]).unwrap();
    store.commit(&[]).unwrap();
    assert_eq!(store.get(b"a").unwrap(), Some(Vec::new()));
    drop(store);
    assert_eq!(all(&*subject.open()), rows(&[(b"a", b"")]));
}

/// The lengths at which a backend may begin to split.
pub fn values_around_every_power_of_two_come_back(subject: &impl Subject) {
    let mut generator = Seeded::new(6);
    let mut expected = Vec::new();
    for power in 6..=21 {
        for length in [(1 << power) - 100, (1 << power) - 1, 1 << power, (1 << power) + 1]
            .into_iter()
            .filter(|&n: &i32| n > 0)
        {
            let length = usize::try_from(length).unwrap();
            expected.push((format!("{length:010}").into_bytes(), generator.bytes(length)));
        }
    }
    expected.sort();
    expected.dedup_by(|a, b| a.0 == b.0);
    let store = subject.open();
    for rows in expected.chunks(7) {
        let batch: Vec<_> = rows.iter().map(|(k, v)| put(k, v)).collect();
        store.commit(&batch).unwrap();
    }
    for (key, value) in &expected {
        assert!(store.get(key).unwrap().as_ref() == Some(value), "{key:?}");
    }
    drop(store);
    assert!(all(&*subject.open()) == expected);
}

/// 1 MiB and 20 MiB, in one batch with small ones.
pub fn large_values_come_back_whole(subject: &impl Subject) {
    let store = subject.open();
    let mut generator = Seeded::new(7);
    let (one, twenty) = (generator.bytes(1 << 20), generator.bytes(20 << 20));
    let batch = [put(b"a", b"small"), put(b"one", &one), put(b"twenty", &twenty), put(b"z", b"")];
    store.commit(&batch).unwrap();
    assert!(store.get(b"twenty").unwrap().as_ref() == Some(&twenty));
    drop(store);
    let store = subject.open();
    assert!(store.get(b"one").unwrap().as_ref() == Some(&one));
    let whole = rows(&[(b"a", b"small"), (b"one", &one), (b"twenty", &twenty), (b"z", b"")]);
    assert!(all(&*store) == whole);
}

/// The longest keys, ordered among shorter ones, with small and split values.
pub fn keys_may_be_as_long_as_allowed(subject: &impl Subject) {
    let store = subject.open();
    let large = Seeded::new(8).bytes(30_000);
    let mut keys = Vec::new();
    for first in [0x00, 0x61, 0xff] {
        for last in [0x00, 0x01, 0xff] {
            let mut key = vec![first; KEY_BYTES_MAX];
            key[KEY_BYTES_MAX - 1] = last;
            keys.push(key);
        }
    }
    keys.push(vec![0x62]);
    keys.sort();
    let expected: Vec<_> = keys
        .iter()
        .enumerate()
        .map(|(i, key)| (key.clone(), if i % 2 == 0 { large.clone() } else { b"v".to_vec() }))
        .collect();
    let batch: Vec<_> = expected.iter().map(|(k, v)| put(k, v)).collect();
    store.commit(&batch).unwrap();
    let mut end = vec![0xff; KEY_BYTES_MAX];
    end.push(0);
    assert!(scanned(&*store, b"", &end) == expected);
}

/// Many batches, then a new process.
pub fn a_reopened_store_holds_everything(subject: &impl Subject) {
    let mut expected = Vec::new();
    for life in 0..4_u32 {
        let store = subject.open();
        assert!(all(&*store) == expected);
        for n in 0..50_u32 {
            let key = (life * 1000 + n).to_be_bytes().to_vec();
            let value = Seeded::new(u64::from(life * 1000 + n)).bytes(n as usize * 150);
            store.commit(&[put(&key, &value)]).unwrap();
            expected.push((key, value));
        }
    }
    assert!(all(&*subject.open()) == expected);
}

/// Each value is whole, and no reader sees one go back, while values of all sizes are replaced.
pub fn readers_beside_a_committer_see_whole_values(subject: &impl Subject) {
    const TURNS: u64 = 40;
    let store = subject.open();
    let store = &*store;
    let value = |turn: u64, key: u64| -> Vec<u8> {
        let length = Seeded::new(turn * 7 + key).below(40_000) + 8;
        [turn.to_be_bytes().as_slice(), &vec![(turn % 251) as u8; length]].concat()
    };
    let batch = |turn| -> Vec<Write> {
        (0..4).map(|key| put(&[b'k', key as u8], &value(turn, key))).collect()
    };
    store.commit(&batch(0)).unwrap();
    let (returned, done) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for reader in 0..3_u8 {
            let (returned, done) = (&returned, &done);
            scope.spawn(move || {
                let check = |key: &[u8], found: &[u8], at_least: u64| {
                    let turn = u64::from_be_bytes(found[..8].try_into().unwrap());
                    assert!(turn >= at_least, "{turn} after {at_least} had returned");
                    assert!(found == value(turn, u64::from(key[1])), "a mixture at turn {turn}");
                };
                while !done.load(Ordering::Acquire) {
                    let at_least = returned.load(Ordering::Acquire);
                    let key = [b'k', reader];
                    check(&key, &store.get(&key).unwrap().expect("never deleted"), at_least);
                    let mut seen = 0;
                    let mut visit = |key: &[u8], found: &[u8]| {
                        check(key, found, at_least);
                        seen += 1;
                        ControlFlow::Continue(())
                    };
                    store.scan(b"k", b"l", &mut visit).unwrap();
                    assert_eq!(seen, 4);
                }
            });
        }
        // The readers must end also when a commit fails, or the scope would wait for ever.
        let worked = (1..=TURNS).try_for_each(|turn| {
            store.commit(&batch(turn))?;
            returned.store(turn, Ordering::Release);
            Ok::<(), crate::StoreError>(())
        });
        done.store(true, Ordering::Release);
        worked.unwrap();
    });
}

/// Batches of random puts and deletes, reads and reopenings, beside a map.
pub fn random_work_equals_a_map(subject: &impl Subject) {
    for seed in 0..3 {
        let mut generator = Seeded::new(seed);
        let mut store = subject.open();
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = all(&*store).into_iter().collect();
        for turn in 0..150 {
            let batch = random_batch(&mut generator);
            for write in &batch {
                match write {
                    Write::Put { key, value } => model.insert(key.clone(), value.clone()),
                    Write::Delete { key } => model.remove(key),
                };
            }
            store.commit(&batch).unwrap();
            let (a, b) = (random_key(&mut generator), random_key(&mut generator));
            assert!(store.get(&a).unwrap() == model.get(&a).cloned(), "seed {seed} turn {turn}");
            let (from, to) = if a < b { (a, b) } else { (b, a) };
            let expected: Vec<_> = model
                .range(from.clone()..to.clone())
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
            assert!(scanned(&*store, &from, &to) == expected, "seed {seed} turn {turn}");
            if generator.one_in(40) {
                drop(store);
                store = subject.open();
            }
        }
        assert!(all(&*store) == model.into_iter().collect::<Vec<_>>(), "seed {seed}");
    }
}

/// After `broken` failed once, nothing is tried any more, and reading goes on. Called by each backend with
/// its own way to make a commit fail.
pub fn after_an_error_commits_are_stopped(broken: &dyn Store) {
    for _ in 0..3 {
        assert_eq!(broken.commit(&[put(b"late", b"v")]), Err(crate::StoreError::Stopped));
        assert_eq!(broken.commit(&[]), Err(crate::StoreError::Stopped));
    }
    assert_eq!(broken.get(b"late").unwrap(), None);
}

/// Above every key that the suite uses with [`all`].
const END: &[u8] = &[0xff; 8];

fn put(key: &[u8], value: &[u8]) -> Write {
    Write::Put { key: key.to_vec(), value: value.to_vec() }
}

fn delete(key: &[u8]) -> Write {
    Write::Delete { key: key.to_vec() }
}

fn rows(rows: &[(&[u8], &[u8])]) -> Vec<(Vec<u8>, Vec<u8>)> {
    rows.iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect()
}

fn scanned(store: &dyn Store, from: &[u8], to: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        found.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    store.scan(from, to, &mut visit).unwrap();
    found
}

fn all(store: &dyn Store) -> Vec<(Vec<u8>, Vec<u8>)> {
    scanned(store, b"", END)
}

/// Few keys, so that they meet; none is the beginning of another, as the contract asks.
fn random_key(generator: &mut Seeded) -> Vec<u8> {
    let n = generator.below(60);
    let mut key = format!("{n:02}").into_bytes();
    key.resize(2 + n, b'x');
    key
}

fn random_batch(generator: &mut Seeded) -> Vec<Write> {
    (0..generator.below(9))
        .map(|_| {
            let key = random_key(generator);
            if generator.one_in(3) {
                return Write::Delete { key };
            }
            let length_max = [1, 50, 5000, 20_000][generator.below(4)];
            let length = if generator.one_in(60) { 1_500_000 } else { generator.below(length_max) };
            Write::Put { key, value: generator.bytes(length) }
        })
        .collect()
}
