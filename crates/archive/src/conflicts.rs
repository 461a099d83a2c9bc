//! Places where concurrent writers left more than one value.

use automerge::{Automerge, ObjId, ObjType, Prop, ROOT, ReadDoc, Value, ValueRef};
use serde_json::{Value as Json, json};

use crate::json::{Unread, json, pointer};
use crate::question::Form;
use crate::read::DEPTH_MAX;

/// Every such place, with all its values, the winner last and marked. `doc` tells who wrote them,
/// `view` is what is looked at.
///
/// Places inside of a value that lost are listed, too: `within` has the operations on the way to them
/// that lost, because the path alone leads somewhere else.
pub(crate) fn conflicts<D: ReadDoc>(doc: &Automerge, view: &D, form: Form) -> Result<Json, Unread> {
    let mut found = Vec::new();
    let mut waiting = vec![Place { id: ROOT, kind: ObjType::Map, path: vec![], within: vec![] }];
    while let Some(place) = waiting.pop() {
        if place.path.len() > DEPTH_MAX {
            return Err(crate::job::Reason::TooDeep.into());
        }
        let items: Vec<Item> = match place.kind {
            ObjType::Map | ObjType::Table => view
                .map_range(&place.id, ..)
                .map(|item| {
                    (
                        Prop::Map(item.key.to_string()),
                        inner(&item.value, || item.id()),
                        item.conflict,
                    )
                })
                .collect(),
            // A text has conflicts only where somebody puts a value over a character, which no client
            // does; but blocks are objects in it.
            ObjType::List | ObjType::Text => view
                .list_range(&place.id, ..)
                .filter(|item| item.conflict || matches!(item.value, ValueRef::Object(_)))
                .map(|item| {
                    (Prop::Seq(item.index), inner(&item.value, || item.id()), item.conflict)
                })
                .collect(),
        };
        for (prop, object, conflict) in items {
            let path = || {
                let mut path = place.path.clone();
                path.push(prop.to_string());
                path
            };
            if !conflict {
                if let Some((id, kind)) = object {
                    waiting.push(Place { id, kind, path: path(), within: place.within.clone() });
                }
                continue;
            }
            let all = view.get_all(&place.id, prop.clone())?;
            let count = all.len();
            let mut values = Vec::with_capacity(count);
            for (at, (value, id)) in all.into_iter().enumerate() {
                let wins = at + 1 == count;
                values.push(json!({
                    "value": json(view, &value, &id, form)?,
                    "actor": actor(&id),
                    "operation": id.to_string(),
                    "change": doc.hash_for_opid(&id).map(|hash| hash.to_string()),
                    "winner": wins,
                }));
                if let Value::Object(kind) = value {
                    let mut within = place.within.clone();
                    if !wins {
                        within.push(id.to_string());
                    }
                    waiting.push(Place { id, kind, path: path(), within });
                }
            }
            let path = path();
            let place_name = pointer(path.iter().map(String::as_str));
            found.push(json!({ "path": place_name, "within": place.within, "values": values }));
        }
    }
    found.sort_by(|one, other| order(one).cmp(&order(other)));
    Ok(Json::Array(found))
}

struct Place {
    id: ObjId,
    kind: ObjType,
    path: Vec<String>,
    within: Vec<String>,
}

/// What is in an object: where, which object if it is one, and whether there is more than one value.
type Item = (Prop, Option<(ObjId, ObjType)>, bool);

fn inner(value: &ValueRef<'_>, id: impl FnOnce() -> ObjId) -> Option<(ObjId, ObjType)> {
    match value {
        ValueRef::Object(kind) => Some((id(), *kind)),
        ValueRef::Scalar(_) => None,
    }
}

fn actor(id: &ObjId) -> Option<String> {
    match id {
        ObjId::Id(_, actor, _) => Some(actor.to_string()),
        ObjId::Root => None,
    }
}

fn order(place: &Json) -> (&str, usize) {
    (place["path"].as_str().unwrap_or_default(), place["within"].as_array().map_or(0, Vec::len))
}
