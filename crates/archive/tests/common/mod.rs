//! Honest documents, and changes that no honest client makes.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::num::NonZeroU64;

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId, OpType};
use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::Transactable;
use automerge::{
    ActorId, AutoCommit, Change, ChangeHash, ExpandedChange, ObjType, ROOT, ReadDoc, ScalarValue,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

pub fn actor(n: u8) -> ActorId {
    ActorId::from([n; 16])
}

/// Several writers on maps, lists, text, marks, blocks and counters, with merges and conflicts.
pub fn honest_document(seed: u64, writers: u8, steps: usize) -> AutoCommit {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut first = AutoCommit::new().with_actor(actor(1));
    let text = first.put_object(ROOT, "text", ObjType::Text).unwrap();
    let list = first.put_object(ROOT, "list", ObjType::List).unwrap();
    let map = first.put_object(ROOT, "map", ObjType::Map).unwrap();
    first.put(ROOT, "count", ScalarValue::counter(10)).unwrap();
    first.splice_text(&text, 0, 0, "hello, world").unwrap();
    first.commit();
    let mut docs: Vec<AutoCommit> =
        (2..=writers).map(|n| first.fork().with_actor(actor(n))).collect();
    docs.insert(0, first);

    for _ in 0..steps {
        let at = random.random_range(0..docs.len());
        let doc = &mut docs[at];
        let length = doc.length(&text);
        let place = random.random_range(0..=length);
        match random.random_range(0..10) {
            0..3 => doc.splice_text(&text, place, 0, "aé ").unwrap(),
            3 if length > 0 => doc.splice_text(&text, length / 2, 1, "").unwrap(),
            4 if length > 3 => {
                let mark = Mark::new("bold".into(), true, 1, length / 2 + 1);
                doc.mark(&text, mark, ExpandMark::Both).unwrap();
            }
            5 => {
                doc.split_block(&text, place).unwrap();
            }
            6 => {
                let key = format!("key {}", random.random_range(0..4));
                doc.put(&map, key, random.random_range(0..100_i64)).unwrap();
            }
            7 => {
                let inner = doc.insert_object(&list, 0, ObjType::Map).unwrap();
                doc.put(&inner, "deep", "value").unwrap();
            }
            8 => doc.increment(ROOT, "count", 3).unwrap(),
            _ => {
                let _ = doc.delete(&list, 0_usize);
                let _ = doc.put_object(&map, "contested", ObjType::List).unwrap();
            }
        }
        doc.commit();
        if random.random_range(0..3) == 0 {
            let from = random.random_range(0..docs.len());
            if from != at {
                let mut other = docs[from].clone();
                docs[at].merge(&mut other).unwrap();
            }
        }
    }
    let mut all = docs.remove(0);
    for other in &mut docs {
        all.merge(other).unwrap();
    }
    all
}

/// One writer typing, a change per character.
pub fn typed(characters: usize) -> AutoCommit {
    let mut doc = AutoCommit::new().with_actor(actor(1));
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    doc.commit();
    for n in 0..characters {
        doc.splice_text(&text, n, 0, if n % 6 == 5 { " " } else { "a" }).unwrap();
        doc.commit();
    }
    doc
}

pub fn raw(doc: &mut AutoCommit) -> Vec<Vec<u8>> {
    doc.get_changes(&[]).iter().map(|change| change.raw_bytes().to_vec()).collect()
}

pub fn heads(doc: &mut AutoCommit) -> model::Heads {
    doc.get_heads().into_iter().map(|hash| model::ChangeHash(hash.0)).collect()
}

pub fn hashes(changes: &[Vec<u8>]) -> Vec<ChangeHash> {
    changes.iter().map(|bytes| Change::from_bytes(bytes.clone()).unwrap().hash()).collect()
}

/// The first change of a new writer, on top of everything in `doc`.
pub fn crafted(doc: &mut AutoCommit, who: u8, operations: Vec<Op>) -> Change {
    let start = doc.get_changes(&[]).iter().map(Change::max_op).max().unwrap_or(0) + 1;
    crafted_at(doc, who, start, operations)
}

pub fn crafted_at(doc: &mut AutoCommit, who: u8, start_op: u64, operations: Vec<Op>) -> Change {
    Change::from(ExpandedChange {
        operations,
        actor_id: actor(who),
        hash: None,
        seq: 1,
        start_op: NonZeroU64::new(start_op).unwrap(),
        time: 0,
        message: None,
        deps: doc.get_heads(),
        extra_bytes: Vec::new(),
        author: None,
    })
}

pub fn op(obj: ObjectId, key: &str, action: OpType) -> Op {
    Op { action, obj, key: Key::Map(key.into()), pred: Vec::new().into(), insert: false }
}

/// An edit of an object that nobody made. Automerge panics when it applies it.
pub fn edit_of_a_missing_object(doc: &mut AutoCommit, who: u8) -> Change {
    let missing = ObjectId::Id(OpId::new(7_777, &actor(99)));
    crafted(doc, who, vec![op(missing, "key", OpType::Put(1.into()))])
}

/// A deletion of nothing. It applies, and what is saved after it does not load.
pub fn deletion_of_nothing(doc: &mut AutoCommit, who: u8) -> Change {
    crafted(doc, who, vec![op(ObjectId::Root, "never there", OpType::Delete)])
}

/// Maps in maps, each the only thing in the one around it.
pub fn nested_maps(doc: &mut AutoCommit, who: u8, depth: u64) -> Change {
    let start = doc.get_changes(&[]).iter().map(Change::max_op).max().unwrap_or(0) + 1;
    let operations = (0..depth)
        .map(|n| {
            let outer = match n {
                0 => ObjectId::Root,
                n => ObjectId::Id(OpId::new(start + n - 1, &actor(who))),
            };
            op(outer, "in", OpType::Make(ObjType::Map))
        })
        .collect();
    crafted(doc, who, operations)
}

/// An object inside itself. Automerge runs out of memory when it applies it.
pub fn object_in_itself(doc: &mut AutoCommit, who: u8) -> Change {
    let start = doc.get_changes(&[]).iter().map(Change::max_op).max().unwrap_or(0) + 1;
    let itself = ObjectId::Id(OpId::new(start, &actor(who)));
    crafted(doc, who, vec![op(itself, "in", OpType::Make(ObjType::Map))])
}

/// A mark in a map: it applies, saves, loads, and panics when it is read.
pub fn mark_in_a_map(doc: &mut AutoCommit, who: u8) -> Change {
    let mark = OpType::MarkBegin(automerge::legacy::MarkData {
        name: "bold".into(),
        value: true.into(),
        expand: false,
    });
    crafted(doc, who, vec![op(ObjectId::Root, "marked", mark)])
}

/// Uses up the operation numbers: every edit after it panics.
pub fn last_operation_number(doc: &mut AutoCommit, who: u8) -> Change {
    let last = u64::from(u32::MAX) - 1;
    crafted_at(doc, who, last, vec![op(ObjectId::Root, "last", OpType::Put(1.into()))])
}

/// A list element made after an element that is nowhere.
pub fn insertion_after_nothing(doc: &mut AutoCommit, who: u8) -> Change {
    let start = doc.get_changes(&[]).iter().map(Change::max_op).max().unwrap_or(0) + 1;
    let list = ObjectId::Id(OpId::new(start, &actor(who)));
    let after = Key::Seq(ElementId::Id(OpId::new(3, &actor(98))));
    let insert = Op {
        action: OpType::Put(1.into()),
        obj: list,
        key: after,
        pred: Vec::new().into(),
        insert: true,
    };
    let make = op(ObjectId::Root, "a list", OpType::Make(ObjType::List));
    crafted(doc, who, vec![make, insert])
}
