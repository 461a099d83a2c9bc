use automerge::{Automerge, ObjId, ObjType, ROOT, ReadDoc, Value, ValueRef};

use crate::guard::{guarded, refused};
use crate::job::{Reason, Stage};

/// How deep objects may be nested.
///
/// Automerge and its clients read documents by recursion: `hydrate` of automerge 0.12 takes some 8 KiB
/// of stack a level, so 200 levels fit the 2 MiB of a common thread and 300 do not. (Parsers of JSON
/// commonly stop at 128.) The structural check at the door must not let through what is refused here.
pub const DEPTH_MAX: usize = 200;

/// Reads every object once: also what lost a conflict, also marks and blocks, because reading some
/// bad changes panics although they applied, saved and loaded.
pub(crate) fn read_everything(doc: &Automerge) -> Result<(), Reason> {
    guarded(Stage::Read, || {
        // First without recursion: it finds out whether recursion is safe.
        let texts = walk(doc)?;
        for text in texts {
            doc.text(&text).map_err(refused(Stage::Read))?;
            doc.marks(&text).map_err(refused(Stage::Read))?;
            doc.spans(&text).map_err(refused(Stage::Read))?.for_each(drop);
        }
        drop(doc.hydrate(None));
        Ok(())
    })
}

/// Visits every object that can be reached, and gives the texts among them.
fn walk(doc: &Automerge) -> Result<Vec<ObjId>, Reason> {
    let mut texts = Vec::new();
    let mut waiting = vec![(ROOT, ObjType::Map, 0)];
    while let Some((object, kind, depth)) = waiting.pop() {
        if depth > DEPTH_MAX {
            return Err(Reason::TooDeep);
        }
        let mut children = Vec::new();
        match kind {
            ObjType::Map | ObjType::Table => {
                for item in doc.map_range(&object, ..) {
                    if item.conflict {
                        all_at(doc, &object, item.key.to_string(), &mut children)?;
                    } else if let ValueRef::Object(kind) = item.value {
                        children.push((item.id(), kind));
                    }
                }
            }
            ObjType::List | ObjType::Text => {
                for item in doc.list_range(&object, ..) {
                    if item.conflict {
                        all_at(doc, &object, item.index, &mut children)?;
                    } else if let ValueRef::Object(kind) = item.value {
                        children.push((item.id(), kind));
                    }
                }
            }
        }
        waiting.extend(children.into_iter().map(|(child, kind)| (child, kind, depth + 1)));
        if kind == ObjType::Text {
            texts.push(object);
        }
    }
    Ok(texts)
}

/// The objects among all values that concurrent writers left in one place.
fn all_at(
    doc: &Automerge,
    object: &ObjId,
    place: impl Into<automerge::Prop>,
    children: &mut Vec<(ObjId, ObjType)>,
) -> Result<(), Reason> {
    for (value, id) in doc.get_all(object, place).map_err(refused(Stage::Read))? {
        if let Value::Object(kind) = value {
            children.push((id, kind));
        }
    }
    Ok(())
}
