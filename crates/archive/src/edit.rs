//! One change out of what somebody wants.
//!
//! The least that leads there: an object that stays an object keeps its identity, a text is spliced
//! where it differs, a counter is incremented, what is equal is not touched. Whoever edits the same
//! document meanwhile loses nothing that was not asked to be changed.

use automerge::marks::ExpandMark;
use automerge::transaction::{CommitOptions, Transactable};
use automerge::{
    ActorId, Automerge, ChangeHash, ObjId, ObjType, PatchLog, Prop, ROOT, ReadDoc, ScalarValue,
    Value,
};
use model::Heads;
use serde_json::Value as Json;

use crate::guard::brief;
use crate::job::{Reason, Stage};
use crate::json::Unread;
use crate::patch::{json_patch, merge_patch};
use crate::question::{Declined, Edit, Form, Made, Signature};
use crate::value::{New, keep_type};

/// Makes the change. `heads`, if given, are in the document.
pub(crate) fn edit(
    doc: &mut Automerge,
    heads: Option<&Heads>,
    edit: &Edit,
    form: Form,
    by: &Signature,
) -> Result<Option<Made>, Unread> {
    doc.set_actor(ActorId::from(by.actor.as_bytes()));
    let base: Option<Vec<ChangeHash>> =
        heads.map(|heads| heads.iter().map(|hash| ChangeHash(hash.0)).collect());
    let mut options = CommitOptions::default().with_time(by.time_seconds);
    if let Some(message) = &by.message {
        options.set_message(message);
    }
    let mut edits = match base.filter(|base| *base != doc.get_heads()) {
        // Isolated: the past is what it sees, and an actor that has written since is told apart.
        Some(base) => doc.transaction_at(PatchLog::inactive(), &base).map_err(|error| {
            Reason::Refused { stage: Stage::Ask, message: brief(&error.to_string()) }
        })?,
        None => doc.transaction(),
    };
    let outcome = match edit {
        Edit::Create(json) => create(&mut edits, json, form),
        Edit::JsonPatch(json) => json_patch(&mut edits, json, form),
        Edit::MergePatch(json) => merge_patch(&mut edits, json, form),
    };
    if let Err(unread) = outcome {
        edits.rollback();
        return Err(unread);
    }
    let hash = match (edits.pending_ops(), edit) {
        (0, Edit::Create(_)) => {
            // A document is its changes, so an empty one is one empty change.
            edits.rollback();
            Some(doc.empty_commit(options))
        }
        (0, _) => {
            edits.rollback();
            None
        }
        _ => edits.commit_with(options).0,
    };
    let change = hash.and_then(|hash| doc.get_change_by_hash(&hash));
    Ok(change.map(|change| Made {
        hash: model::ChangeHash(change.hash().0),
        change: change.raw_bytes().to_vec(),
    }))
}

/// JSON out of bytes, with the words of the parser for whoever wrote it.
pub(crate) fn parse(json: &[u8]) -> Result<Json, Declined> {
    serde_json::from_slice(json).map_err(|error| Declined::NotJson(brief(&error.to_string())))
}

/// Where in an object something is put.
#[derive(Debug, Clone)]
pub(crate) enum Slot {
    /// Over what is there.
    At(Prop),
    /// Before what is there.
    Before(usize),
}

/// Puts a value that is new in every part of it.
pub(crate) fn put<T: Transactable>(
    edits: &mut T,
    parent: &ObjId,
    slot: &Slot,
    new: &New,
) -> Result<(), Unread> {
    match new {
        New::Scalar(value) => match slot {
            Slot::At(prop) => edits.put(parent, prop.clone(), value.clone())?,
            Slot::Before(index) => edits.insert(parent, *index, value.clone())?,
        },
        New::Text { text, marks } => {
            let id = put_object(edits, parent, slot, ObjType::Text)?;
            edits.splice_text(&id, 0, 0, text)?;
            for mark in marks {
                // As Automerge's own clients do unless they are told otherwise.
                edits.mark(&id, mark.clone(), ExpandMark::After)?;
            }
        }
        New::Map(members) => {
            let id = put_object(edits, parent, slot, ObjType::Map)?;
            for (key, value) in members {
                put(edits, &id, &Slot::At(Prop::Map(key.clone())), value)?;
            }
        }
        New::List(items) => {
            let id = put_object(edits, parent, slot, ObjType::List)?;
            for (index, item) in items.iter().enumerate() {
                put(edits, &id, &Slot::Before(index), item)?;
            }
        }
    }
    Ok(())
}

/// Makes what stands at `prop` into `new`, by as little as possible.
pub(crate) fn assign<T: Transactable>(
    edits: &mut T,
    parent: &ObjId,
    prop: Prop,
    new: &New,
    form: Form,
) -> Result<(), Unread> {
    let old = edits.get(parent, prop.clone())?.map(|(value, id)| (value.into_owned(), id));
    let Some((old, id)) = old else { return put(edits, parent, &Slot::At(prop), new) };
    match (&old, new) {
        (Value::Object(ObjType::Map), New::Map(members)) => assign_map(edits, &id, members, form),
        (Value::Object(ObjType::List), New::List(items)) => assign_list(edits, &id, items, form),
        (Value::Object(ObjType::Text), New::Text { text, marks }) if marks.is_empty() => {
            if edits.text(&id)? != *text {
                edits.update_text(&id, text)?;
            }
            Ok(())
        }
        (Value::Object(ObjType::Text), New::Text { .. })
            if is_same(edits, &old, &id, new, form)? =>
        {
            Ok(())
        }
        (Value::Object(ObjType::Text), New::Text { .. }) => Err(Declined::CannotApply(
            "a text that is there is edited as a string; '$marks' are for new ones".to_owned(),
        )
        .into()),
        (Value::Scalar(value), _) => {
            let counted = match (value.as_ref(), new, form) {
                (ScalarValue::Counter(_), New::Scalar(ScalarValue::Int(to)), Form::Plain) => {
                    Some(*to)
                }
                (ScalarValue::Counter(_), New::Scalar(ScalarValue::Counter(to)), _) => {
                    Some(i64::from(to))
                }
                _ => None,
            };
            if let (Some(to), ScalarValue::Counter(from)) = (counted, value.as_ref()) {
                return match to.checked_sub(i64::from(from)) {
                    Some(0) => Ok(()),
                    Some(by) => Ok(edits.increment(parent, prop, by)?),
                    None => Err(Declined::CannotApply("a counter overflows".to_owned()).into()),
                };
            }
            let kept = if form == Form::Plain { keep_type(value, new) } else { None };
            let new = kept.map_or_else(|| new.clone(), New::Scalar);
            match &new {
                New::Scalar(new) if is_same_scalar(value, new) => Ok(()),
                new => put(edits, parent, &Slot::At(prop), new),
            }
        }
        _ => put(edits, parent, &Slot::At(prop), new),
    }
}

/// Makes a map hold exactly these members.
pub(crate) fn assign_map<T: Transactable>(
    edits: &mut T,
    map: &ObjId,
    members: &[(String, New)],
    form: Form,
) -> Result<(), Unread> {
    let gone: Vec<String> = edits
        .keys(map)
        .filter(|key| members.iter().all(|(member, _)| member != key))
        .map(|key| key.to_string())
        .collect();
    for key in gone {
        edits.delete(map, key)?;
    }
    for (key, new) in members {
        assign(edits, map, Prop::Map(key.clone()), new, form)?;
    }
    Ok(())
}

/// Makes a list hold exactly these items: what is equal at both ends stays, what lies between is
/// changed in place as far as there is something, and the rest is inserted or removed.
fn assign_list<T: Transactable>(
    edits: &mut T,
    list: &ObjId,
    items: &[New],
    form: Form,
) -> Result<(), Unread> {
    let length = edits.length(list);
    let shorter = length.min(items.len());
    let mut front = 0;
    while front < shorter && is_same_at(edits, list, front, &items[front], form)? {
        front += 1;
    }
    let mut back = 0;
    while back < shorter - front
        && is_same_at(edits, list, length - back - 1, &items[items.len() - back - 1], form)?
    {
        back += 1;
    }
    let (old_end, new_end) = (length - back, items.len() - back);
    let both = old_end.min(new_end);
    for (index, item) in items.iter().enumerate().take(both).skip(front) {
        assign(edits, list, Prop::Seq(index), item, form)?;
    }
    for index in (both..old_end).rev() {
        edits.delete(list, index)?;
    }
    for (index, item) in items.iter().enumerate().take(new_end).skip(both) {
        put(edits, list, &Slot::Before(index), item)?;
    }
    Ok(())
}

fn is_same_at<T: ReadDoc>(
    doc: &T,
    list: &ObjId,
    index: usize,
    new: &New,
    form: Form,
) -> Result<bool, Unread> {
    match doc.get(list, index)? {
        Some((value, id)) => is_same(doc, &value, &id, new, form),
        None => Ok(false),
    }
}

/// Whether assigning `new` would change nothing.
fn is_same<T: ReadDoc>(
    doc: &T,
    old: &Value<'_>,
    id: &ObjId,
    new: &New,
    form: Form,
) -> Result<bool, Unread> {
    Ok(match (old, new) {
        (Value::Object(ObjType::Map), New::Map(members)) => {
            if doc.length(id) != members.len() {
                return Ok(false);
            }
            for (key, new) in members {
                match doc.get(id, key.as_str())? {
                    Some((value, inner)) if is_same(doc, &value, &inner, new, form)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        (Value::Object(ObjType::List), New::List(items)) => {
            if doc.length(id) != items.len() {
                return Ok(false);
            }
            for (index, new) in items.iter().enumerate() {
                if !is_same_at(doc, id, index, new, form)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Object(ObjType::Text), New::Text { text, marks }) => {
            doc.text(id)? == *text && (marks.is_empty() || doc.marks(id)? == *marks)
        }
        (Value::Scalar(old), New::Scalar(new)) if is_same_scalar(old, new) => true,
        (Value::Scalar(old), new) if form == Form::Plain => match (old.as_ref(), new) {
            (ScalarValue::Counter(is), New::Scalar(ScalarValue::Int(to))) => i64::from(is) == *to,
            (old, new) => keep_type(old, new).is_some_and(|kept| is_same_scalar(&kept, old)),
        },
        _ => false,
    })
}

/// As `==`, but for what is not a number: that is the same as itself.
fn is_same_scalar(one: &ScalarValue, other: &ScalarValue) -> bool {
    match (one, other) {
        (ScalarValue::F64(one), ScalarValue::F64(other)) => one.to_bits() == other.to_bits(),
        _ => one == other,
    }
}

fn create<T: Transactable>(edits: &mut T, json: &[u8], form: Form) -> Result<(), Unread> {
    let New::Map(members) = New::read(parse(json)?, form)? else {
        return Err(Declined::CannotApply("the root of a document is an object".to_owned()).into());
    };
    assign_map(edits, &ROOT, &members, form)
}

fn put_object<T: Transactable>(
    edits: &mut T,
    parent: &ObjId,
    slot: &Slot,
    kind: ObjType,
) -> Result<ObjId, Unread> {
    Ok(match slot {
        Slot::At(prop) => edits.put_object(parent, prop.clone(), kind)?,
        Slot::Before(index) => edits.insert_object(parent, *index, kind)?,
    })
}
