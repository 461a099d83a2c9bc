//! JSON Patch (RFC 6902) and merge patches (RFC 7396), on a document.

use automerge::transaction::Transactable;
use automerge::{ObjId, ObjType, Prop, ROOT, ReadDoc, Value};
use json_patch::jsonptr::Pointer;
use json_patch::{Patch, PatchOperation};
use serde_json::Value as Json;

use crate::edit::{Slot, assign, assign_map, parse, put};
use crate::guard::brief;
use crate::json::{Unread, blocks, find, index, json, pointer};
use crate::question::{Declined, Form};
use crate::value::New;

/// Does the operations one after the other. After an error some are done: throw the edits away.
pub(crate) fn json_patch<T: Transactable>(
    edits: &mut T,
    bytes: &[u8],
    form: Form,
) -> Result<(), Unread> {
    let patch: Patch = serde_json::from_slice(bytes)
        .map_err(|error| Declined::NotJson(brief(&format!("not a JSON Patch: {error}"))))?;
    for operation in patch.0 {
        match operation {
            PatchOperation::Add(add) => {
                insert(edits, &parts(&add.path), New::read(add.value, form)?, form)?;
            }
            PatchOperation::Remove(remove) => take_away(edits, &parts(&remove.path))?,
            PatchOperation::Replace(replace) => {
                let path = parts(&replace.path);
                find(edits, &path)?;
                set(edits, &path, &New::read(replace.value, form)?, form)?;
            }
            PatchOperation::Move(step) => {
                let (from, to) = (parts(&step.from), parts(&step.path));
                let moved = copy(edits, &from)?;
                if from == to {
                    continue;
                }
                if to.starts_with(&from) {
                    let why = format!("'{}' cannot be moved into itself", step.from);
                    return Err(Declined::CannotApply(why).into());
                }
                take_away(edits, &from)?;
                insert(edits, &to, moved, Form::Typed)?;
            }
            PatchOperation::Copy(step) => {
                let copied = copy(edits, &parts(&step.from))?;
                insert(edits, &parts(&step.path), copied, Form::Typed)?;
            }
            PatchOperation::Test(test) => {
                let (value, id) = find(edits, &parts(&test.path))?;
                if !is_equal(&json(edits, &value, &id, form)?, &test.value) {
                    return Err(Declined::TestFailed(test.path.to_string()).into());
                }
            }
        }
    }
    Ok(())
}

/// Merges: `null` removes, an object goes into an object, anything else takes the place of what was.
pub(crate) fn merge_patch<T: Transactable>(
    edits: &mut T,
    bytes: &[u8],
    form: Form,
) -> Result<(), Unread> {
    let Json::Object(members) = parse(bytes)? else {
        return Err(root_is_an_object());
    };
    merge_into(edits, &ROOT, members, form)
}

fn merge_into<T: Transactable>(
    edits: &mut T,
    map: &ObjId,
    members: serde_json::Map<String, Json>,
    form: Form,
) -> Result<(), Unread> {
    for (written, value) in members {
        // Typed keys are escaped, and so is a key by itself.
        let key = match form {
            Form::Typed if written.starts_with("$$") => written[1..].to_owned(),
            _ => written,
        };
        let old = edits.get(map, key.as_str())?.map(|(value, id)| (value.into_owned(), id));
        match (old, value) {
            (Some(_), Json::Null) => edits.delete(map, key.as_str())?,
            (None, Json::Null) => {}
            (Some((Value::Object(ObjType::Map), id)), Json::Object(inner))
                if !is_tagged(&inner, form) =>
            {
                merge_into(edits, &id, inner, form)?;
            }
            (_, value) => {
                let new = New::read(without_nulls(value, form), form)?;
                assign(edits, map, Prop::Map(key), &new, form)?;
            }
        }
    }
    Ok(())
}

/// An object that is put where none was is merged into an empty one, so its nulls vanish.
fn without_nulls(value: Json, form: Form) -> Json {
    match value {
        Json::Object(members) if !is_tagged(&members, form) => Json::Object(
            members
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, without_nulls(value, form)))
                .collect(),
        ),
        other => other,
    }
}

fn is_tagged(members: &serde_json::Map<String, Json>, form: Form) -> bool {
    form == Form::Typed && members.keys().any(|key| key.starts_with('$') && !key.starts_with("$$"))
}

/// The `add` of RFC 6902: inserts into a list, sets the member of an object.
fn insert<T: Transactable>(
    edits: &mut T,
    path: &[String],
    new: New,
    form: Form,
) -> Result<(), Unread> {
    let Some((last, parent)) = path.split_last() else { return set(edits, path, &new, form) };
    match find(edits, parent)? {
        (Value::Object(ObjType::List), id) => {
            let length = edits.length(&id);
            let at = if last == "-" { Some(length) } else { index(last) };
            match at.filter(|at| *at <= length) {
                Some(at) => put(edits, &id, &Slot::Before(at), &new),
                None => Err(nothing_at(path)),
            }
        }
        _ => set(edits, path, &new, form),
    }
}

/// Makes what is at a path, or is to be, into `new`.
fn set<T: Transactable>(
    edits: &mut T,
    path: &[String],
    new: &New,
    form: Form,
) -> Result<(), Unread> {
    let Some((last, parent)) = path.split_last() else {
        return match new {
            New::Map(members) => assign_map(edits, &ROOT, members, form),
            _ => Err(root_is_an_object()),
        };
    };
    match find(edits, parent)? {
        (Value::Object(ObjType::Map | ObjType::Table), id) => {
            assign(edits, &id, Prop::Map(last.clone()), new, form)
        }
        (Value::Object(ObjType::List), id) => match index(last) {
            Some(at) if at < edits.length(&id) => assign(edits, &id, Prop::Seq(at), new, form),
            _ => Err(nothing_at(path)),
        },
        (Value::Object(ObjType::Text), _) => Err(inside_a_text(parent)),
        (Value::Scalar(_), _) => Err(nothing_at(path)),
    }
}

fn take_away<T: Transactable>(edits: &mut T, path: &[String]) -> Result<(), Unread> {
    let Some((last, parent)) = path.split_last() else {
        let why = "the root of a document cannot be removed".to_owned();
        return Err(Declined::CannotApply(why).into());
    };
    find(edits, path)?;
    match find(edits, parent)? {
        (Value::Object(ObjType::List), id) => {
            let at = index(last).ok_or_else(|| nothing_at(path))?;
            edits.delete(&id, at)?;
        }
        (_, id) => edits.delete(&id, last.as_str())?,
    }
    Ok(())
}

/// What is at a path, to be put somewhere else: with its types, but as a new thing. A document has
/// no way to say that an object has moved.
fn copy<T: ReadDoc>(doc: &T, path: &[String]) -> Result<New, Unread> {
    let (value, id) = find(doc, path)?;
    copy_of(doc, &value, &id)
}

fn copy_of<T: ReadDoc>(doc: &T, value: &Value<'_>, id: &ObjId) -> Result<New, Unread> {
    Ok(match value {
        Value::Scalar(value) => New::Scalar(value.clone().into_owned()),
        Value::Object(ObjType::Map | ObjType::Table) => {
            let items: Vec<_> = (doc.map_range(id, ..))
                .map(|item| (item.key.to_string(), item.value.clone().into_value(), item.id()))
                .collect();
            let members = items
                .into_iter()
                .map(|(key, value, id)| Ok((key, copy_of(doc, &value, &id)?)))
                .collect::<Result<_, Unread>>()?;
            New::Map(members)
        }
        Value::Object(ObjType::List) => {
            let items: Vec<_> = (doc.list_range(id, ..))
                .map(|item| (item.value.clone().into_value(), item.id()))
                .collect();
            let items = items.into_iter().map(|(value, id)| copy_of(doc, &value, &id));
            New::List(items.collect::<Result<_, Unread>>()?)
        }
        Value::Object(ObjType::Text) => {
            if !blocks(doc, id)?.is_empty() {
                let why = "a text with blocks cannot be copied or moved".to_owned();
                return Err(Declined::CannotApply(why).into());
            }
            New::Text { text: doc.text(id)?, marks: doc.marks(id)? }
        }
    })
}

/// Equality as RFC 6902 has it: numbers by their value.
fn is_equal(one: &Json, other: &Json) -> bool {
    match (one, other) {
        (Json::Number(one), Json::Number(other)) => {
            one == other || (one.is_f64() != other.is_f64() && one.as_f64() == other.as_f64())
        }
        (Json::Array(one), Json::Array(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| is_equal(one, other))
        }
        (Json::Object(one), Json::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(key, value)| other.get(key).is_some_and(|other| is_equal(value, other)))
        }
        _ => one == other,
    }
}

fn parts(path: &Pointer) -> Vec<String> {
    path.tokens().map(|token| token.decoded().into_owned()).collect()
}

fn nothing_at(path: &[String]) -> Unread {
    Declined::NoSuchPlace(pointer(path.iter().map(String::as_str))).into()
}

fn inside_a_text(path: &[String]) -> Unread {
    let place = pointer(path.iter().map(String::as_str));
    let why = format!("'{place}' is a text, which is one value: replace it, and it is spliced");
    Declined::CannotApply(why).into()
}

fn root_is_an_object() -> Unread {
    Declined::CannotApply("the root of a document is an object".to_owned()).into()
}
