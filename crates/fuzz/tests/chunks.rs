//! Chunks inside a sync message.

use bolero::check;
use history::{Chunk, Limits, read_chunks};
use tributary_fuzz::{Damage, chunks, damaged, repair_checksum};

fn small() -> Limits {
    Limits { inflated_bytes_max: 1 << 20, operations_max: 10_000, ..Limits::default() }
}

#[test]
fn samples_are_chunks() {
    assert!(chunks().iter().all(|chunk| read_chunks(chunk, &Limits::default()).is_ok()));
}

#[test]
fn any_bytes_are_chunks_or_refused() {
    check!().for_each(|bytes: &[u8]| {
        let _ = read_chunks(bytes, &small());
    });
}

#[test]
fn what_is_taken_for_a_change_automerge_takes_for_the_same_change() {
    let chunks = chunks();
    check!().with_type::<Damage>().for_each(|damage| {
        let mut bytes = damaged(&chunks, damage);
        repair_checksum(&mut bytes);
        for chunk in read_chunks(&bytes, &small()).unwrap_or_default() {
            if let Chunk::Change(change) = chunk {
                let theirs = automerge::Change::from_bytes(change.bytes().to_vec());
                let theirs = theirs.expect("automerge reads what we read");
                assert_eq!(theirs.hash().0, change.hash().0);
                assert_eq!(
                    (theirs.seq(), theirs.len() as u64),
                    (change.seq(), change.operations())
                );
            }
        }
    });
}
