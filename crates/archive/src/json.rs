//! A document, or a part of it, as JSON.

use automerge::{ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Span, Value, ValueRef};
use serde_json::{Map, Value as Json};

use crate::guard::refused;
use crate::job::{Reason, Stage};
use crate::question::{Declined, Form};
use crate::read::DEPTH_MAX;
use crate::value::{scalar, tagged_text, write_key};

/// Why something cannot be read: it was asked for wrongly, or the document is at fault.
#[derive(Debug)]
pub(crate) enum Unread {
    Declined(Declined),
    Reason(Reason),
}

impl From<Declined> for Unread {
    fn from(declined: Declined) -> Self {
        Self::Declined(declined)
    }
}

impl From<Reason> for Unread {
    fn from(reason: Reason) -> Self {
        Self::Reason(reason)
    }
}

impl From<automerge::AutomergeError> for Unread {
    fn from(error: automerge::AutomergeError) -> Self {
        Self::Reason(refused(Stage::Ask)(error))
    }
}

/// The parts of a JSON Pointer, decoded.
pub(crate) fn tokens(pointer: &str) -> Result<Vec<String>, Declined> {
    let parsed = json_patch::jsonptr::Pointer::parse(pointer)
        .map_err(|_| Declined::NotAPointer(pointer.to_owned()))?;
    Ok(parsed.tokens().map(|token| token.decoded().into_owned()).collect())
}

/// A pointer out of its parts.
pub(crate) fn pointer<'a>(tokens: impl IntoIterator<Item = &'a str>) -> String {
    let escaped = tokens.into_iter().map(|token| token.replace('~', "~0").replace('/', "~1"));
    escaped.fold(String::new(), |pointer, token| pointer + "/" + &token)
}

/// What is at a place: the value that a reader sees, and the object if it is one.
pub(crate) fn find<D: ReadDoc>(
    doc: &D,
    tokens: &[String],
) -> Result<(Value<'static>, ObjId), Unread> {
    let mut found = (Value::Object(ObjType::Map), ROOT);
    for (depth, token) in tokens.iter().enumerate() {
        let nothing = || {
            let way = tokens[..=depth].iter().map(String::as_str);
            Unread::Declined(Declined::NoSuchPlace(pointer(way)))
        };
        let next = match found.0 {
            Value::Object(ObjType::Map | ObjType::Table) => doc.get(&found.1, token.as_str())?,
            Value::Object(ObjType::List) => {
                let index = index(token).ok_or_else(nothing)?;
                doc.get(&found.1, index)?
            }
            Value::Object(ObjType::Text) | Value::Scalar(_) => None,
        };
        let (value, id) = next.ok_or_else(nothing)?;
        found = (value.into_owned(), id);
    }
    Ok(found)
}

/// An index as JSON Pointers write it: digits without a zero in front.
pub(crate) fn index(token: &str) -> Option<usize> {
    let digits = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit());
    let plain = digits && (token == "0" || !token.starts_with('0'));
    plain.then(|| token.parse().ok())?
}

/// A value with everything in it.
pub(crate) fn json<D: ReadDoc>(
    doc: &D,
    value: &Value<'_>,
    id: &ObjId,
    form: Form,
) -> Result<Json, Unread> {
    match value {
        Value::Object(kind) => object(doc, id, *kind, form, 0),
        Value::Scalar(value) => Ok(scalar(value, form)),
    }
}

/// The text or string at a place.
pub(crate) fn text<D: ReadDoc>(doc: &D, place: &str) -> Result<String, Unread> {
    match find(doc, &tokens(place)?)? {
        (Value::Object(ObjType::Text), id) => Ok(doc.text(&id)?),
        (Value::Scalar(value), _) => match value.as_ref() {
            ScalarValue::Str(text) => Ok(text.to_string()),
            _ => Err(Declined::NotText(place.to_owned()).into()),
        },
        (Value::Object(_), _) => Err(Declined::NotText(place.to_owned()).into()),
    }
}

fn object<D: ReadDoc>(
    doc: &D,
    id: &ObjId,
    kind: ObjType,
    form: Form,
    depth: usize,
) -> Result<Json, Unread> {
    if depth > DEPTH_MAX {
        return Err(Reason::TooDeep.into());
    }
    match kind {
        ObjType::Map | ObjType::Table => {
            let mut members = Map::new();
            for item in doc.map_range(id, ..) {
                let value = member(doc, &item.value, || item.id(), form, depth)?;
                members.insert(write_key(&item.key, form), value);
            }
            Ok(Json::Object(members))
        }
        ObjType::List => {
            let mut items = Vec::new();
            for item in doc.list_range(id, ..) {
                items.push(member(doc, &item.value, || item.id(), form, depth)?);
            }
            Ok(Json::Array(items))
        }
        ObjType::Text => {
            let text = doc.text(id)?;
            if form == Form::Plain {
                return Ok(Json::String(text));
            }
            let (marks, blocks) = (doc.marks(id)?, blocks(doc, id)?);
            let bare = marks.is_empty() && blocks.is_empty();
            Ok(if bare { Json::String(text) } else { tagged_text(text, &marks, blocks) })
        }
    }
}

fn member<D: ReadDoc>(
    doc: &D,
    value: &ValueRef<'_>,
    id: impl FnOnce() -> ObjId,
    form: Form,
    depth: usize,
) -> Result<Json, Unread> {
    match value {
        ValueRef::Object(kind) => object(doc, &id(), *kind, form, depth + 1),
        ValueRef::Scalar(value) => Ok(scalar(&value.into(), form)),
    }
}

/// The blocks of a text with where they stand; each takes one position in it.
pub(crate) fn blocks<D: ReadDoc>(doc: &D, id: &ObjId) -> Result<Vec<Json>, Unread> {
    // Texts without blocks are the rule, and much cheaper to recognise than to take apart.
    if !doc.text(id)?.contains('\u{fffc}') {
        return Ok(Vec::new());
    }
    let (mut blocks, mut at) = (Vec::new(), 0);
    for span in doc.spans(id)? {
        match span {
            Span::Text { text, .. } => at += text.encode_utf16().count(),
            Span::Block(map) => {
                let value = hydrated(&automerge::hydrate::Value::Map(map));
                blocks.push(serde_json::json!({ "at": at, "value": value }));
                at += 1;
            }
        }
    }
    Ok(blocks)
}

fn hydrated(value: &automerge::hydrate::Value) -> Json {
    use automerge::hydrate::Value;
    match value {
        Value::Scalar(value) => scalar(value, Form::Typed),
        Value::Map(map) => Json::Object(
            map.iter()
                .map(|(key, item)| (write_key(key, Form::Typed), hydrated(&item.value)))
                .collect(),
        ),
        Value::List(list) => list.iter().map(|item| hydrated(&item.value)).collect(),
        Value::Text(text) => Json::String(text.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_read_as_their_standard_has_it() {
        assert_eq!(tokens("").unwrap(), Vec::<String>::new());
        assert_eq!(tokens("/a~1b/~0/").unwrap(), ["a/b", "~", ""]);
        assert_eq!(pointer(["a/b", "~", ""]), "/a~1b/~0/");
        assert!(tokens("a").is_err() && tokens("/~2").is_err());
        assert_eq!((index("0"), index("10"), index("01"), index("-"), index("")), {
            (Some(0), Some(10), None, None, None)
        });
    }
}
