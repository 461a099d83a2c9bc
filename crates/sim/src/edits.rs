//! Edits of every kind that people make.

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::{CommitOptions, Transactable};
use automerge::{Automerge, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value};

use crate::rng::Rng;

/// One change of one to a few operations. `marks`: also such as only the CRDT can judge.
pub(crate) fn edit(doc: &mut Automerge, rng: &mut Rng, marks: bool) {
    let text = object(doc, "text");
    let list = object(doc, "list");
    let kind = rng.below(if marks { 13 } else { 11 });
    let mut tx = doc.transaction();
    let done = match (kind, text, list) {
        (_, None, _) => begin(&mut tx),
        (0..5, Some(text), _) => {
            let length = tx.length(&text);
            let at = rng.below(length + 1);
            let delete = if rng.percent(25) { rng.below(3).min(length - at) } else { 0 };
            let words = ["a", "b ", "the ", "wörd", "…"];
            tx.splice_text(&text, at, delete as isize, rng.pick(&words))
        }
        (5 | 6, _, Some(list)) => {
            let length = tx.length(&list);
            if length > 6 && rng.percent(50) {
                tx.delete(&list, rng.below(length))
            } else if length > 0 && rng.percent(30) {
                tx.put(&list, rng.below(length), rng.next() as i64 % 1000)
            } else {
                tx.insert(&list, rng.below(length + 1), rng.next() as i64 % 1000)
            }
        }
        (7, ..) => {
            let key = rng.pick(&["k0", "k1", "k2"]);
            if rng.percent(30) {
                tx.delete(ROOT, key)
            } else {
                tx.put(ROOT, key, rng.next() as i64)
            }
        }
        (8, ..) => match tx.get(ROOT, "count") {
            Ok(Some((Value::Scalar(value), _))) if value.is_counter() => {
                tx.increment(ROOT, "count", 1)
            }
            _ => tx.put(ROOT, "count", ScalarValue::counter(0)),
        },
        (9, ..) => {
            let made = tx.put_object(ROOT, rng.pick(&["m0", "m1"]), ObjType::Map);
            made.and_then(|map| tx.put(&map, "inside", "value"))
        }
        (10, ..) => tx.put(ROOT, "blob", "x".repeat(20 + rng.below(300))),
        (_, Some(text), _) => {
            let length = tx.length(&text);
            if length < 2 {
                tx.splice_text(&text, 0, 0, "more text")
            } else {
                let start = rng.below(length - 1);
                let end = start + 1 + rng.below(length - start - 1).min(4);
                let mark = Mark::new("bold".to_owned(), rng.percent(50), start, end);
                tx.mark(&text, mark, rng.pick(&[ExpandMark::Both, ExpandMark::None]))
            }
        }
    };
    done.expect("an edit of what is there");
    tx.commit_with(CommitOptions::default().with_time(1_700_000_000));
}

fn begin(tx: &mut impl Transactable) -> Result<(), automerge::AutomergeError> {
    let text = tx.put_object(ROOT, "text", ObjType::Text)?;
    tx.splice_text(&text, 0, 0, "hello")?;
    tx.put_object(ROOT, "list", ObjType::List)?;
    tx.put(ROOT, "count", ScalarValue::counter(0))
}

fn object(doc: &Automerge, key: &str) -> Option<ObjId> {
    match doc.get(ROOT, key) {
        Ok(Some((Value::Object(_), id))) => Some(id),
        _ => None,
    }
}
