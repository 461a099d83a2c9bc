//! The value of a document straight from the columns of its chunk, where that is simple.
//!
//! Opening a document means to take every change apart and hash it, because whoever opens it may want
//! to write. Somebody who only wants to see what is there does not need that: the columns list the
//! operations object by object, in the order of keys and elements, and say of each which operations
//! came after it. What none came after is there. For a text of 260,000 edits that is 20 ms and 5 MB
//! in place of 500 ms and 300 MB.
//!
//! Only for maps, lists, texts and plain values, which is what nearly all documents are made of.
//! Marks, blocks, counters that were counted, and whatever looks odd: `None`, and the document is
//! opened. The layout is that of the Automerge binary format, version 1.

use std::collections::HashMap;
use std::io::Read;

use automerge::ScalarValue;
use serde_json::{Map, Value as Json};

use crate::json::index;
use crate::question::Form;
use crate::read::DEPTH_MAX;
use crate::value::{scalar, write_key};

/// How many bytes a compressed column may inflate to. More than that is opened under the limits of
/// the worker instead.
const COLUMN_BYTES_MAX: u64 = 256 << 20;

/// A document without its history.
pub(crate) struct Glance {
    objects: HashMap<Id, Object>,
}

/// An operation or object: its number and the index of its actor. The root is (0, 0).
type Id = (u64, u64);
const ROOT: Id = (0, 0);

/// What is at a place.
pub(crate) enum Seen<'a> {
    /// A value.
    Scalar(&'a ScalarValue),
    /// A text.
    Text(&'a str),
    /// A map or a list.
    Object(Id),
}

enum Object {
    Map(Vec<(String, Value)>),
    List(Vec<Value>),
    Text(String),
}

enum Value {
    Scalar(ScalarValue),
    Object(Id),
}

impl Glance {
    /// Reads a document chunk. `None`: it has to be opened.
    pub(crate) fn at(chunk: &[u8]) -> Option<Self> {
        let columns = Columns::find(chunk)?;
        let mut rows = Rows::new(&columns)?;
        let mut objects = HashMap::from([(ROOT, Object::Map(Vec::new()))]);
        let mut current = ROOT;
        let mut row = rows.next()?;
        while let Some(first) = row.take() {
            if first.object != current {
                current = first.object;
            }
            // All operations on one key, or on one element, stand together; the last that nothing
            // came after is what readers see.
            let (place, mut winner) = (first.place.clone(), None);
            let mut candidate = Some(first);
            while let Some(operation) = candidate.take() {
                if operation.is_there
                    && let Some(made) = operation.value.as_ref()
                    && let Value::Object(id) = made
                {
                    let empty = match operation.action {
                        0 => Object::Map(Vec::new()),
                        2 => Object::List(Vec::new()),
                        4 => Object::Text(String::new()),
                        _ => return None,
                    };
                    objects.insert(*id, empty);
                }
                if operation.is_there {
                    winner = operation.value;
                }
                row = rows.next()?;
                candidate = row.take_if(|next| {
                    next.object == current
                        && match (&next.place, &place) {
                            (Place::Key(next), Place::Key(key)) => next == key,
                            (Place::Element { begins }, Place::Element { .. }) => !begins,
                            _ => false,
                        }
                });
            }
            // Objects that nobody sees are listed, too, and are of no interest.
            let (Some(object), Some(value)) = (objects.get_mut(&current), winner) else { continue };
            match (object, place, value) {
                (Object::Map(members), Place::Key(key), value) => members.push((key, value)),
                (Object::List(items), Place::Element { .. }, value) => items.push(value),
                (
                    Object::Text(text),
                    Place::Element { .. },
                    Value::Scalar(ScalarValue::Str(more)),
                ) => text.push_str(&more),
                _ => return None,
            }
        }
        Some(Self { objects })
    }

    /// What is at a place; `None` if nothing is.
    pub(crate) fn find(&self, tokens: &[String]) -> Option<Seen<'_>> {
        let mut seen = Seen::Object(ROOT);
        for token in tokens {
            let Seen::Object(id) = seen else { return None };
            let value = match self.objects.get(&id)? {
                Object::Map(members) => {
                    &members.iter().find(|(key, _)| key == token).map(|(_, value)| value)?
                }
                Object::List(items) => &items.get(index(token)?)?,
                Object::Text(_) => return None,
            };
            seen = self.seen(value);
        }
        Some(seen)
    }

    /// A value with everything in it; `None` if that is nested too deep.
    pub(crate) fn json(&self, seen: &Seen<'_>, form: Form) -> Option<Json> {
        self.json_at(seen, form, 0)
    }

    fn json_at(&self, seen: &Seen<'_>, form: Form, depth: usize) -> Option<Json> {
        if depth > DEPTH_MAX {
            return None;
        }
        let id = match seen {
            Seen::Scalar(value) => return Some(scalar(value, form)),
            Seen::Text(text) => return Some(Json::from(*text)),
            Seen::Object(id) => id,
        };
        match self.objects.get(id)? {
            Object::Map(members) => {
                let members = members.iter().map(|(key, value)| {
                    let json = self.json_at(&self.seen(value), form, depth + 1)?;
                    Some((write_key(key, form), json))
                });
                Some(Json::Object(members.collect::<Option<Map<_, _>>>()?))
            }
            Object::List(items) => {
                let items = items.iter();
                items.map(|value| self.json_at(&self.seen(value), form, depth + 1)).collect()
            }
            Object::Text(text) => Some(Json::from(text.as_str())),
        }
    }

    fn seen<'a>(&'a self, value: &'a Value) -> Seen<'a> {
        match value {
            Value::Scalar(value) => Seen::Scalar(value),
            Value::Object(id) => match self.objects.get(id) {
                Some(Object::Text(text)) => Seen::Text(text),
                _ => Seen::Object(*id),
            },
        }
    }
}

/// One operation.
struct Row {
    object: Id,
    place: Place,
    action: u64,
    /// What it puts there.
    value: Option<Value>,
    /// Nothing came after it.
    is_there: bool,
}

#[derive(Clone)]
enum Place {
    Key(String),
    /// `begins`: this is the insertion of the element.
    Element {
        begins: bool,
    },
}

/// The operation columns of a document, inflated, by their specification.
struct Columns(HashMap<u64, Vec<u8>>);

const OBJECT_ACTOR: u64 = 1;
const OBJECT_COUNTER: u64 = 2;
const KEY_STRING: u64 = 21;
const ID_ACTOR: u64 = 33;
const ID_COUNTER: u64 = 35;
const INSERT: u64 = 52;
const ACTION: u64 = 66;
const VALUE_META: u64 = 86;
const VALUE_RAW: u64 = 87;
const SUCCESSOR_GROUP: u64 = 128;
/// Says that a column is compressed.
const DEFLATED: u64 = 8;

impl Columns {
    fn find(chunk: &[u8]) -> Option<Self> {
        // Four bytes of magic, four of checksum, and the kind, which is 0 for a document.
        let mut input = chunk.get(9..).filter(|_| chunk[8] == 0)?;
        if uleb(&mut input)? != input.len() as u64 {
            return None;
        }
        for _ in 0..uleb(&mut input)? {
            let length = usize::try_from(uleb(&mut input)?).ok()?;
            take(&mut input, length)?;
        }
        let heads = usize::try_from(uleb(&mut input)?).ok()?;
        take(&mut input, heads.checked_mul(32)?)?;
        let changes = Self::layout(&mut input)?;
        let operations = Self::layout(&mut input)?;
        for (_, length) in changes {
            take(&mut input, length)?;
        }
        let mut columns = HashMap::new();
        for (kind, length) in operations {
            let bytes = take(&mut input, length)?;
            if kind & DEFLATED == 0 {
                columns.insert(kind, bytes.to_vec());
                continue;
            }
            let mut inflated = Vec::new();
            let inflating = flate2::bufread::DeflateDecoder::new(bytes);
            inflating.take(COLUMN_BYTES_MAX + 1).read_to_end(&mut inflated).ok()?;
            if inflated.len() as u64 > COLUMN_BYTES_MAX {
                return None;
            }
            columns.insert(kind & !DEFLATED, inflated);
        }
        Some(Self(columns))
    }

    fn layout(input: &mut &[u8]) -> Option<Vec<(u64, usize)>> {
        let count = uleb(input)?;
        let column = |_| Some((uleb(input)?, usize::try_from(uleb(input)?).ok()?));
        (0..count).map(column).collect()
    }

    fn get(&self, kind: u64) -> &[u8] {
        self.0.get(&kind).map_or(&[], Vec::as_slice)
    }
}

/// The columns side by side.
struct Rows<'a> {
    object_actor: Runs<'a, u64>,
    object_counter: Runs<'a, u64>,
    key: Runs<'a, &'a str>,
    id_actor: Runs<'a, u64>,
    id_counter: Runs<'a, i64>,
    id_counter_now: i64,
    insert: Booleans<'a>,
    action: Runs<'a, u64>,
    value: Runs<'a, u64>,
    raw: &'a [u8],
    successors: Runs<'a, u64>,
}

impl<'a> Rows<'a> {
    fn new(columns: &'a Columns) -> Option<Self> {
        Some(Self {
            object_actor: Runs::new(columns.get(OBJECT_ACTOR), uleb),
            object_counter: Runs::new(columns.get(OBJECT_COUNTER), uleb),
            key: Runs::new(columns.get(KEY_STRING), string),
            id_actor: Runs::new(columns.get(ID_ACTOR), uleb),
            id_counter: Runs::new(columns.get(ID_COUNTER), sleb),
            id_counter_now: 0,
            insert: Booleans { input: columns.get(INSERT), left: 0, value: true },
            action: Runs::new(columns.get(ACTION), uleb),
            value: Runs::new(columns.get(VALUE_META), uleb),
            raw: columns.get(VALUE_RAW),
            successors: Runs::new(columns.get(SUCCESSOR_GROUP), uleb),
        })
    }

    /// The next operation, `Some(None)` at the end; `None` when it is not one that is read here.
    fn next(&mut self) -> Option<Option<Row>> {
        let Some(action) = self.action.next()? else {
            return self.action.is_at_its_end().then_some(None);
        };
        let object = match (self.object_counter.next()?, self.object_actor.next()?) {
            (Some(counter), Some(actor)) => (counter, actor),
            (None, None) => ROOT,
            _ => return None,
        };
        let begins = self.insert.next()?;
        let place = match self.key.next()? {
            Some(key) if !begins => Place::Key(key.to_owned()),
            Some(_) => return None,
            None => Place::Element { begins },
        };
        self.id_counter_now = self.id_counter_now.checked_add(self.id_counter.next()??)?;
        let id = (u64::try_from(self.id_counter_now).ok()?, self.id_actor.next()??);
        let meta = self.value.next()?.unwrap_or(0);
        let raw = take(&mut self.raw, usize::try_from(meta >> 4).ok()?)?;
        let is_there = self.successors.next()?.unwrap_or(0) == 0;
        let value = match action {
            0 | 2 | 4 => Some(Value::Object(id)),
            // One that something came after may be of any type: nobody sees it. But a counter is
            // seen still when all that came after it was counting.
            1 if !is_there && meta & 0xf == 8 => return None,
            1 if !is_there => None,
            1 => Some(Value::Scalar(plain(meta & 0xf, raw)?)),
            _ => return None,
        };
        Some(Some(Row { object, place, action, value, is_there }))
    }
}

fn plain(kind: u64, mut raw: &[u8]) -> Option<ScalarValue> {
    Some(match kind {
        0 => ScalarValue::Null,
        1 => ScalarValue::Boolean(false),
        2 => ScalarValue::Boolean(true),
        3 => ScalarValue::Uint(uleb(&mut raw)?),
        4 => ScalarValue::Int(sleb(&mut raw)?),
        5 => ScalarValue::F64(f64::from_le_bytes(raw.try_into().ok()?)),
        6 => ScalarValue::Str(std::str::from_utf8(raw).ok()?.into()),
        7 => ScalarValue::Bytes(raw.to_vec()),
        8 => ScalarValue::counter(sleb(&mut raw)?),
        9 => ScalarValue::Timestamp(sleb(&mut raw)?),
        _ => return None,
    })
}

/// A run-length encoded column. Past its end, and in one that is left out, everything is null.
struct Runs<'a, T> {
    input: &'a [u8],
    read: fn(&mut &'a [u8]) -> Option<T>,
    run: Run<T>,
}

enum Run<T> {
    Same(u64, T),
    Literal(u64),
    Nulls(u64),
}

impl<'a, T: Copy> Runs<'a, T> {
    fn new(input: &'a [u8], read: fn(&mut &'a [u8]) -> Option<T>) -> Self {
        Self { input, read, run: Run::Nulls(0) }
    }

    fn is_at_its_end(&self) -> bool {
        self.input.is_empty()
            && matches!(self.run, Run::Same(0, _) | Run::Literal(0) | Run::Nulls(0))
    }

    /// The next item; the outer `None` when the bytes are not a column.
    fn next(&mut self) -> Option<Option<T>> {
        loop {
            match &mut self.run {
                Run::Same(left @ 1.., value) => {
                    *left -= 1;
                    return Some(Some(*value));
                }
                Run::Literal(left @ 1..) => {
                    *left -= 1;
                    return Some(Some((self.read)(&mut self.input)?));
                }
                Run::Nulls(left @ 1..) => {
                    *left -= 1;
                    return Some(None);
                }
                _ if self.input.is_empty() => return Some(None),
                _ => {}
            }
            self.run = match sleb(&mut self.input)? {
                0 => Run::Nulls(uleb(&mut self.input)?),
                count @ 1.. => Run::Same(count.unsigned_abs(), (self.read)(&mut self.input)?),
                count => Run::Literal(count.unsigned_abs()),
            };
        }
    }
}

/// A column of booleans: how many are false, how many then are true, and so on.
struct Booleans<'a> {
    input: &'a [u8],
    left: u64,
    value: bool,
}

impl Booleans<'_> {
    fn next(&mut self) -> Option<bool> {
        while self.left == 0 {
            if self.input.is_empty() {
                return Some(false);
            }
            self.value = !self.value;
            self.left = uleb(&mut self.input)?;
        }
        self.left -= 1;
        Some(self.value)
    }
}

fn take<'a>(input: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (bytes, rest) = input.split_at_checked(length)?;
    *input = rest;
    Some(bytes)
}

fn string<'a>(input: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::try_from(uleb(input)?).ok()?;
    std::str::from_utf8(take(input, length)?).ok()
}

fn uleb(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *take(input, 1)?.first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn sleb(input: &mut &[u8]) -> Option<i64> {
    let mut value = 0_i64;
    for shift in (0..64).step_by(7) {
        let byte = *take(input, 1)?.first()?;
        value |= i64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let negative = byte & 0x40 != 0 && shift < 57;
            return Some(if negative { value | (-1_i64 << (shift + 7)) } else { value });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use automerge::marks::{ExpandMark, Mark};
    use automerge::transaction::Transactable;
    use automerge::{ActorId, AutoCommit, Automerge, ObjType, ReadDoc};
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::json::json;

    fn opened(doc: &Automerge, form: Form) -> Json {
        json(doc, &automerge::Value::Object(ObjType::Map), &automerge::ROOT, form).unwrap()
    }

    fn glanced(chunk: &[u8], form: Form) -> Option<Json> {
        let glance = Glance::at(chunk)?;
        glance.json(&glance.find(&[])?, form)
    }

    /// Several writers on nested maps, lists and texts, with conflicts, deletions and merges.
    fn plain_document(seed: u64) -> AutoCommit {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut first = AutoCommit::new().with_actor(ActorId::from([200; 4]));
        let text = first.put_object(automerge::ROOT, "text", ObjType::Text).unwrap();
        let list = first.put_object(automerge::ROOT, "list", ObjType::List).unwrap();
        let map = first.put_object(automerge::ROOT, "map", ObjType::Map).unwrap();
        first.commit();
        let mut fork = |n: u8| first.fork().with_actor(ActorId::from([n, 3]));
        let mut docs = vec![fork(250), fork(7), fork(90)];
        for step in 0..random.random_range(1..80) {
            let at = random.random_range(0..docs.len());
            let doc = &mut docs[at];
            let (letters, items) = (doc.length(&text), doc.length(&list));
            match random.random_range(0..12) {
                0..3 => {
                    let place = random.random_range(0..=letters);
                    let gone = random.random_range(0..=(letters - place).min(2)) as isize;
                    doc.splice_text(&text, place, gone, "aé😀").unwrap();
                }
                3 => {
                    let values = [
                        ScalarValue::Null,
                        ScalarValue::Boolean(step % 2 == 0),
                        ScalarValue::Int(-step),
                        ScalarValue::Uint(u64::MAX),
                        ScalarValue::F64(0.5),
                        ScalarValue::Bytes(vec![1, 2]),
                        ScalarValue::counter(4),
                        ScalarValue::Timestamp(step * 1_000),
                        ScalarValue::Str("scalar".into()),
                    ];
                    let value = values[random.random_range(0..values.len())].clone();
                    if !matches!(value, ScalarValue::Counter(_)) || step < 5 {
                        doc.put(&map, format!("$key {step}"), value).unwrap();
                    }
                }
                4 => doc.put(&map, "contested", step).unwrap(),
                5 => {
                    let inner = doc.put_object(&map, "object", ObjType::Map).unwrap();
                    doc.put(&inner, "deep", step).unwrap();
                    let deeper = doc.put_object(&inner, "text", ObjType::Text).unwrap();
                    doc.splice_text(&deeper, 0, 0, "deeper").unwrap();
                }
                6 => drop(doc.delete(&map, "contested")),
                7 | 8 => {
                    let place = random.random_range(0..=items);
                    let inner = doc.insert_object(&list, place, ObjType::List).unwrap();
                    doc.insert(&inner, 0, "x").unwrap();
                }
                9 if items > 0 => doc.put(&list, items / 2, step).unwrap(),
                10 if items > 0 => doc.delete(&list, items - 1).unwrap(),
                _ => {
                    let mut other = docs[(at + 1) % 3].fork();
                    docs[at].merge(&mut other).unwrap();
                }
            }
        }
        let [mut all, mut two, mut three] = <[AutoCommit; 3]>::try_from(docs).ok().unwrap();
        all.merge(&mut two).unwrap();
        all.merge(&mut three).unwrap();
        all
    }

    #[test]
    fn what_is_seen_at_a_glance_is_what_is_read_in_an_open_document() {
        for seed in 0..500 {
            let mut doc = plain_document(seed);
            let chunk = if seed % 2 == 0 { doc.save() } else { doc.save_nocompress() };
            for form in [Form::Plain, Form::Typed] {
                let expected = opened(doc.document(), form);
                assert_eq!(glanced(&chunk, form), Some(expected), "seed {seed}");
            }
        }
    }

    #[test]
    fn places_are_found_and_what_is_not_simple_is_left_to_who_can_open_it() {
        let mut doc = AutoCommit::new();
        let list = doc.put_object(automerge::ROOT, "list", ObjType::List).unwrap();
        doc.insert(&list, 0, 7).unwrap();
        let text = doc.put_object(automerge::ROOT, "text", ObjType::Text).unwrap();
        doc.splice_text(&text, 0, 0, "hello").unwrap();
        let glance = Glance::at(&doc.save()).unwrap();
        let find = |tokens: &[&str]| {
            let tokens: Vec<String> = tokens.iter().map(|token| (*token).to_owned()).collect();
            glance.find(&tokens).and_then(|seen| glance.json(&seen, Form::Plain))
        };
        assert_eq!(find(&["list", "0"]), Some(Json::from(7)));
        assert_eq!(find(&["text"]), Some(Json::from("hello")));
        assert_eq!([find(&["list", "1"]), find(&["text", "0"]), find(&["x"])], [None, None, None]);

        let odd: [fn(&mut AutoCommit); 3] = [
            |doc| {
                let text = doc.get(automerge::ROOT, "text").unwrap().unwrap().1;
                let mark = Mark::new("bold".into(), true, 0, 2);
                doc.mark(&text, mark, ExpandMark::After).unwrap();
            },
            |doc| {
                let text = doc.get(automerge::ROOT, "text").unwrap().unwrap().1;
                doc.split_block(&text, 1).unwrap();
            },
            |doc| {
                doc.put(automerge::ROOT, "n", ScalarValue::counter(1)).unwrap();
                doc.increment(automerge::ROOT, "n", 1).unwrap();
            },
        ];
        for make_odd in odd {
            let mut doc = doc.fork();
            make_odd(&mut doc);
            assert!(Glance::at(&doc.save()).is_none());
        }
    }

    #[test]
    fn damaged_chunks_are_looked_at_without_a_panic() {
        let chunk = plain_document(3).save_nocompress();
        for at in 0..chunk.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bad = chunk.clone();
                bad[at] ^= flip;
                let _ = glanced(&bad, Form::Plain);
            }
            let _ = glanced(&chunk[..at], Form::Plain);
        }
    }
}
