//! What happened between two points of a history, in the words of Automerge's own clients.

use automerge::{Automerge, ChangeHash, ObjType, Patch, PatchAction, Prop, Value};
use model::Heads;
use serde_json::{Value as Json, json};

use crate::question::Form;
use crate::value::{mark, scalar};

/// The patches that lead from one state to the other. Positions in texts are counted in UTF-16 code
/// units, as JavaScript counts them. An object comes as an empty one, and patches that fill it follow.
pub(crate) fn diff(doc: &Automerge, from: &Heads, to: &Heads, form: Form) -> Json {
    let hashes = |heads: &Heads| -> Vec<ChangeHash> {
        heads.iter().map(|hash| ChangeHash(hash.0)).collect()
    };
    let patches = doc.diff(&hashes(from), &hashes(to));
    patches.into_iter().map(|patch| one(patch, form)).collect()
}

fn one(patch: Patch, form: Form) -> Json {
    let mut path: Vec<Json> = patch.path.iter().map(|(_, prop)| place(prop)).collect();
    let mut at = |last: Json| {
        path.push(last);
        Json::from(std::mem::take(&mut path))
    };
    match patch.action {
        PatchAction::PutMap { key, value, conflict } => with_conflict(
            json!({ "action": "put", "path": at(key.into()), "value": new(&value.0, form) }),
            conflict,
        ),
        PatchAction::PutSeq { index, value, conflict } => with_conflict(
            json!({ "action": "put", "path": at(index.into()), "value": new(&value.0, form) }),
            conflict,
        ),
        PatchAction::Insert { index, values } => {
            let values: Vec<Json> = values.iter().map(|(value, ..)| new(value, form)).collect();
            json!({ "action": "insert", "path": at(index.into()), "values": values })
        }
        PatchAction::SpliceText { index, value, marks } => {
            let text = value.make_string();
            let mut splice = json!({ "action": "splice", "path": at(index.into()), "value": text });
            if let Some(marks) = marks.filter(|marks| !marks.is_empty()) {
                let marks =
                    marks.iter().map(|(name, value)| (name.to_owned(), scalar(value, form)));
                splice["marks"] = Json::Object(marks.collect());
            }
            splice
        }
        PatchAction::Increment { prop, value } => {
            json!({ "action": "inc", "path": at(place(&prop)), "value": value })
        }
        PatchAction::Conflict { prop } => json!({ "action": "conflict", "path": at(place(&prop)) }),
        PatchAction::DeleteMap { key } => json!({ "action": "del", "path": at(key.into()) }),
        PatchAction::DeleteSeq { index, length } => {
            json!({ "action": "del", "path": at(index.into()), "length": length })
        }
        PatchAction::Mark { marks } => {
            let marks: Vec<Json> = marks.iter().map(mark).collect();
            json!({ "action": "mark", "path": path, "marks": marks })
        }
    }
}

fn with_conflict(mut patch: Json, conflict: bool) -> Json {
    if conflict {
        patch["conflict"] = Json::Bool(true);
    }
    patch
}

fn place(prop: &Prop) -> Json {
    match prop {
        Prop::Map(key) => Json::from(key.as_str()),
        Prop::Seq(index) => Json::from(*index),
    }
}

fn new(value: &Value<'_>, form: Form) -> Json {
    match value {
        Value::Scalar(value) => scalar(value, form),
        Value::Object(ObjType::Map | ObjType::Table) => json!({}),
        Value::Object(ObjType::List) => json!([]),
        Value::Object(ObjType::Text) => json!(""),
    }
}
