//! What honest clients do, at random: several documents of the same origin that edit, merge, fork,
//! go back and isolate, by the public API of Automerge only.

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::{CommitOptions, Transactable};
use automerge::{
    ActorId, AutoCommit, Change, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, TextEncoding, Value,
};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// What kinds of edits a history has.
#[derive(Clone, Copy)]
pub struct Habits {
    pub clients: usize,
    pub steps: usize,
    pub marks: bool,
}

/// The changes of one random history, in one causal order.
pub fn history(seed: u64, habits: Habits) -> Vec<Change> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut first = AutoCommit::new_with_encoding(TextEncoding::UnicodeCodePoint)
        .with_actor(actor(&mut random));
    if random.random_bool(0.3) {
        first.set_author(Some(automerge::Author::from(&b"somebody"[..]).into_owned()));
    }
    let mut objects = vec![ROOT];
    for kind in [ObjType::Map, ObjType::List, ObjType::Text] {
        objects.push(first.put_object(ROOT, format!("{kind:?}"), kind).unwrap());
    }
    first.put(ROOT, "count", ScalarValue::counter(1)).unwrap();
    first.commit();
    let mut clients = vec![first];
    while clients.len() < habits.clients {
        let fork = clients[0].fork().with_actor(actor(&mut random));
        clients.push(fork);
    }
    for _ in 0..habits.steps {
        let at = random.random_range(0..clients.len());
        match random.random_range(0..20) {
            0..4 => {
                let other = random.random_range(0..clients.len());
                if other != at {
                    let mut other = clients[other].clone();
                    clients[at].merge(&mut other).unwrap();
                }
            }
            // Two things that Automerge 0.12 does wrong itself, with a change of which others panic:
            // isolated from an own empty change, it makes one whose predecessor is no ancestor;
            // isolated from a mark, it inserts after that mark. So isolation has its own histories.
            4 if !habits.marks => {
                let client = &mut clients[at];
                client.commit();
                let changes = client.get_changes(&[]);
                let change = changes.choose(&mut random).unwrap().hash();
                client.isolate(&[change]);
                for _ in 0..random.random_range(1..3) {
                    edit(client, &mut objects, &mut random, false);
                }
                client.integrate();
            }
            5 => {
                let changed = clients[at].clone().with_actor(actor(&mut random));
                clients[at] = changed;
            }
            6 if habits.marks => {
                clients[at].empty_change(CommitOptions::default().with_time(7));
            }
            7 => {
                let saved = clients[at].save();
                let id = clients[at].get_actor().clone();
                clients[at] = AutoCommit::load(&saved).unwrap().with_actor(id);
            }
            _ => {
                for _ in 0..random.random_range(1..6) {
                    edit(&mut clients[at], &mut objects, &mut random, habits.marks);
                }
                clients[at].commit_with(CommitOptions::default().with_message("edited"));
            }
        }
    }
    let mut all = clients.remove(0);
    for client in &mut clients {
        all.merge(client).unwrap();
    }
    all.put(ROOT, "end", true).unwrap();
    all.commit();
    all.get_changes(&[])
}

fn actor(random: &mut SmallRng) -> ActorId {
    let length = *[16, 16, 16, 3, 32].choose(random).unwrap();
    let bytes: Vec<u8> = (0..length).map(|_| random.random()).collect();
    ActorId::from(bytes)
}

fn edit(doc: &mut AutoCommit, objects: &mut Vec<ObjId>, random: &mut SmallRng, marks: bool) {
    // An object may be unknown to this client or deleted there; then the edit does not happen.
    let object = objects.choose(random).unwrap().clone();
    let Ok(kind) = doc.object_type(&object) else { return };
    let _ = match kind {
        ObjType::Map | ObjType::Table => edit_map(doc, &object, objects, random),
        ObjType::List => edit_list(doc, &object, objects, random),
        ObjType::Text => edit_text(doc, &object, random, marks),
    };
}

type Edited = Result<(), automerge::AutomergeError>;

fn edit_map(
    doc: &mut AutoCommit,
    object: &ObjId,
    objects: &mut Vec<ObjId>,
    random: &mut SmallRng,
) -> Edited {
    let key = *["a", "b", "c", "a longer key", "count", "\u{e9}"].choose(random).unwrap();
    match random.random_range(0..8) {
        0 if key != "count" => objects.push(doc.put_object(object, key, kind(random))?),
        1 => doc.delete(object, key)?,
        2 => doc.increment(object, "count", random.random_range(-3..9))?,
        3 => doc.put(object, "count", ScalarValue::counter(4))?,
        _ => doc.put(object, key, scalar(random))?,
    }
    Ok(())
}

fn edit_list(
    doc: &mut AutoCommit,
    object: &ObjId,
    objects: &mut Vec<ObjId>,
    random: &mut SmallRng,
) -> Edited {
    let length = doc.length(object);
    let at = random.random_range(0..=length);
    match random.random_range(0..9) {
        0 => objects.push(doc.insert_object(object, at, kind(random))?),
        1 => doc.delete(object, at)?,
        2 => doc.put(object, at, scalar(random))?,
        3 => objects.push(doc.put_object(object, at, kind(random))?),
        4 => doc.insert(object, at, ScalarValue::counter(2))?,
        5 if matches!(doc.get(object, at)?, Some((Value::Scalar(value), _)) if value.is_counter()) =>
        {
            doc.increment(object, at, 5)?;
        }
        6 => {
            let deleted = random.random_range(0..3).min(length - at) as isize;
            let values: Vec<automerge::hydrate::Value> =
                (0..random.random_range(0..4)).map(|_| scalar(random).into()).collect();
            doc.splice(object, at, deleted, values)?;
        }
        _ => doc.insert(object, at, scalar(random))?,
    }
    Ok(())
}

fn edit_text(doc: &mut AutoCommit, object: &ObjId, random: &mut SmallRng, marks: bool) -> Edited {
    let length = doc.length(object);
    let at = random.random_range(0..=length);
    match random.random_range(0..14) {
        0..3 => {
            let deleted = random.random_range(0..4).min(length - at) as isize;
            doc.splice_text(object, at, deleted, "")?;
        }
        3 => {
            let deleted = random.random_range(0..3).min(length - at) as isize;
            doc.splice_text(object, at, deleted, "over")?;
        }
        4 => {
            let mut text = doc.text(object)?;
            if !text.contains('\u{fffc}') {
                text.push_str(" and more");
                doc.update_text(object, text.replacen('o', "0", 1))?;
            }
        }
        5 => drop(doc.split_block(object, at)?),
        6 | 7 if marks && length > 1 => {
            let start = random.random_range(0..length);
            let end = random.random_range(start..=length);
            let expand =
                *[ExpandMark::Both, ExpandMark::None, ExpandMark::After].choose(random).unwrap();
            if random.random_bool(0.3) {
                doc.unmark(object, "bold", start, end, expand)?;
            } else {
                let name = *["bold", "link"].choose(random).unwrap();
                doc.mark(object, Mark::new(name.into(), scalar(random), start, end), expand)?;
            }
        }
        _ => {
            let text = *["a", "b", "typed ", "\u{1f600}"].choose(random).unwrap();
            doc.splice_text(object, at, 0, text)?;
        }
    }
    Ok(())
}

fn kind(random: &mut SmallRng) -> ObjType {
    *[ObjType::Map, ObjType::List, ObjType::Text, ObjType::Table].choose(random).unwrap()
}

fn scalar(random: &mut SmallRng) -> ScalarValue {
    match random.random_range(0..9) {
        0 => ScalarValue::Null,
        1 => ScalarValue::Boolean(random.random()),
        2 => ScalarValue::Int(random.random()),
        3 => ScalarValue::Uint(random.random_range(0..1000)),
        4 => ScalarValue::F64(random.random_range(-1.0..1.0)),
        5 => ScalarValue::Bytes(vec![1; random.random_range(0..300)]),
        6 => ScalarValue::Timestamp(random.random()),
        7 => ScalarValue::counter(random.random_range(-9..9)),
        _ => ScalarValue::Str("a text value".into()),
    }
}
