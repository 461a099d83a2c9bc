//! What clients of earlier versions have written: bytes that the crate of this version did not make.
//! `fixtures/make.js` says how they came to be.

use std::collections::BTreeSet;

use automerge::{AutoCommit, Change, ObjType, ROOT, ReadDoc};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tributary_history::check::{Fault, Misfit, Verdict};
use tributary_history::{Chunk, Limits, read_chunks};

use crate::crdt::{shuffled, survives};
use crate::graph::{Document, Refused};

/// Version, its changes, its saved document.
const CLIENTS: [(&str, &[u8], &[u8]); 4] = [
    ("2.1", include_bytes!("../fixtures/2.1.changes"), include_bytes!("../fixtures/2.1.saved")),
    ("2.2", include_bytes!("../fixtures/2.2.changes"), include_bytes!("../fixtures/2.2.saved")),
    ("3.2", include_bytes!("../fixtures/3.2.changes"), include_bytes!("../fixtures/3.2.saved")),
    ("3.5", include_bytes!("../fixtures/3.5.changes"), include_bytes!("../fixtures/3.5.saved")),
];

/// The time of the last change, by `changeAt` into the text.
const LAST: i64 = 41;

fn changes(bytes: &[u8]) -> Vec<Change> {
    let chunks = read_chunks(bytes, &Limits::default()).unwrap();
    let change = |chunk: &Chunk| match chunk {
        Chunk::Change(change) => Change::from_bytes(change.bytes().to_vec()).unwrap(),
        other => panic!("{other:?} among changes"),
    };
    chunks.iter().map(change).collect()
}

/// Accepted in any causal order, and without the CRDT: what old clients write is canonical.
fn accepted(version: &str, changes: &[Change]) {
    let mut random = SmallRng::seed_from_u64(5);
    for _ in 0..5 {
        let mut document = Document::default();
        for change in shuffled(changes, &mut random) {
            let verdict = document.offer(change.raw_bytes(), false);
            assert_eq!(verdict, Ok(Verdict::Fits), "{version}: {:?}", change.decode());
        }
    }
}

#[test]
fn the_changes_of_older_clients_are_accepted_and_live_on_in_any_causal_order() {
    for (version, bytes, _) in CLIENTS {
        let changes = changes(bytes);
        assert_eq!(changes.len(), 41, "{version}");
        let honest = without_the_last(changes);
        accepted(version, &honest);
        survives(&honest, 5, 6).unwrap_or_else(|why| panic!("{version}: {why}"));
    }
}

#[test]
fn the_documents_that_older_clients_saved_hold_the_same_changes() {
    for (version, bytes, saved) in CLIENTS {
        let chunks = read_chunks(saved, &Limits::default()).unwrap();
        assert!(matches!(chunks.as_slice(), [Chunk::Document(chunk)] if &chunk[..] == saved));
        let mut doc = AutoCommit::load(saved).unwrap();
        let expanded = doc.get_changes(&[]);
        let hashes = |changes: &[Change]| changes.iter().map(Change::hash).collect::<BTreeSet<_>>();
        assert_eq!(hashes(&expanded), hashes(&changes(bytes)), "{version}");
        accepted(version, &without_the_last(expanded));
    }
}

/// `changeAt` of every version inserts behind a mark that came later than what it writes on, if there is
/// one, and does not depend on the change with the mark. Who has not got that one yet panics.
#[test]
fn what_is_written_on_an_older_state_behind_a_later_mark_is_refused_as_automerge_panics_on_it() {
    for (version, bytes, _) in CLIENTS {
        let changes = changes(bytes);
        let mut document = Document::default();
        for change in without_the_last(changes.clone()) {
            assert_eq!(document.offer(change.raw_bytes(), false), Ok(Verdict::Fits));
        }
        let last = changes.iter().find(|change| change.timestamp() == LAST).unwrap();
        match document.offer(last.raw_bytes(), false) {
            Err(Refused::Misfit(Misfit::Operation { fault, .. })) => {
                assert_eq!(fault, Fault::ElementNotAncestor, "{version}");
            }
            other => panic!("{version}: {other:?}"),
        }
        let survived = survives(&changes, 5, 6);
        assert!(survived.as_ref().is_err_and(|why| why.starts_with("panic")), "{survived:?}");
    }
}

fn without_the_last(mut changes: Vec<Change>) -> Vec<Change> {
    let last = changes.iter().rposition(|change| change.timestamp() == LAST);
    changes.remove(last.expect("it is there"));
    changes
}

/// That the fixtures hold what they are for.
#[test]
fn the_documents_of_older_clients_have_something_of_every_kind() {
    for (version, _, saved) in CLIENTS {
        let doc = AutoCommit::load(saved).unwrap();
        let (_, text) = doc.get(ROOT, "text").unwrap().unwrap();
        assert_eq!(doc.object_type(&text).unwrap(), ObjType::Text, "{version}");
        let marks: BTreeSet<String> =
            doc.marks(&text).unwrap().iter().map(|mark| mark.name().to_owned()).collect();
        assert!(marks.contains("bold") && marks.contains("link"), "{version}: {marks:?}");
        let (count, _) = doc.get(ROOT, "count").unwrap().unwrap();
        // 10 and 5, all branches' numbers, and 1 at the end.
        let sum = 10 + 5 + (0..12).sum::<i64>() + 1;
        assert_eq!(count.as_i64(), Some(sum), "{version}");
        assert!(doc.get(ROOT, "bytes").unwrap().unwrap().0.is_bytes(), "{version}");
        assert_eq!(doc.get_all(ROOT, "title").unwrap().len(), 1, "{version}");
        let merges = doc.clone().get_changes(&[]);
        let merges = merges.iter().filter(|change| change.deps().len() > 1).count();
        assert!(merges > 6, "{version}: {merges}");
    }
}
