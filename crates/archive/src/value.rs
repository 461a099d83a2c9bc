//! Values on their way from JSON into a document, and the words for what JSON has no word for.
//!
//! The rules are in `docs/decisions/0014-values-as-json.md`.

use automerge::{ScalarValue, marks::Mark};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json};

use crate::question::{Declined, Form};
use crate::read::DEPTH_MAX;

/// A value that is not in a document yet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum New {
    Scalar(ScalarValue),
    Text { text: String, marks: Vec<Mark> },
    Map(Vec<(String, New)>),
    List(Vec<New>),
}

impl New {
    /// Reads JSON. A string becomes a text that people can edit together, as with Automerge's own
    /// clients.
    pub(crate) fn read(json: Json, form: Form) -> Result<Self, Declined> {
        Self::read_at(json, form, 0)
    }

    fn read_at(json: Json, form: Form, depth: usize) -> Result<Self, Declined> {
        if depth > DEPTH_MAX {
            return Err(Declined::NotJson(format!("values are nested deeper than {DEPTH_MAX}")));
        }
        Ok(match json {
            Json::Null => Self::Scalar(ScalarValue::Null),
            Json::Bool(value) => Self::Scalar(ScalarValue::Boolean(value)),
            Json::Number(number) => Self::Scalar(match (number.as_i64(), number.as_u64()) {
                (Some(int), _) => ScalarValue::Int(int),
                (None, Some(uint)) => ScalarValue::Uint(uint),
                (None, None) => ScalarValue::F64(number.as_f64().unwrap_or(f64::NAN)),
            }),
            Json::String(text) => Self::Text { text, marks: Vec::new() },
            Json::Array(items) => Self::List(
                items
                    .into_iter()
                    .map(|item| Self::read_at(item, form, depth + 1))
                    .collect::<Result<_, _>>()?,
            ),
            Json::Object(members) => {
                if form == Form::Typed && members.keys().any(|key| is_tag(key)) {
                    return read_tagged(&members);
                }
                let members = members.into_iter().map(|(key, value)| {
                    Ok((read_key(key, form), Self::read_at(value, form, depth + 1)?))
                });
                Self::Map(members.collect::<Result<_, _>>()?)
            }
        })
    }
}

/// A scalar as JSON.
pub(crate) fn scalar(value: &ScalarValue, form: Form) -> Json {
    let tagged = |tag: &str, value: Json| Json::Object(Map::from_iter([(tag.to_owned(), value)]));
    match (value, form) {
        (ScalarValue::Null, _) => Json::Null,
        (ScalarValue::Boolean(value), _) => Json::Bool(*value),
        (ScalarValue::Int(int), _) => Json::from(*int),
        (ScalarValue::Uint(uint), Form::Plain) => Json::from(*uint),
        (ScalarValue::Uint(uint), Form::Typed) => tagged("$uint", Json::from(*uint)),
        (ScalarValue::F64(float), _) if float.is_finite() => Json::from(*float),
        (ScalarValue::F64(_), Form::Plain) => Json::Null,
        (ScalarValue::F64(float), Form::Typed) => tagged("$float", Json::from(name_of(*float))),
        (ScalarValue::Counter(counter), Form::Plain) => Json::from(i64::from(counter)),
        (ScalarValue::Counter(counter), Form::Typed) => {
            tagged("$counter", Json::from(i64::from(counter)))
        }
        (ScalarValue::Timestamp(ms), Form::Plain) => {
            date(*ms).map_or_else(|| Json::from(*ms), Json::from)
        }
        (ScalarValue::Timestamp(ms), Form::Typed) => tagged("$timestamp", Json::from(*ms)),
        (ScalarValue::Bytes(bytes), Form::Plain) => Json::from(STANDARD.encode(bytes)),
        (ScalarValue::Bytes(bytes), Form::Typed) => {
            tagged("$bytes", Json::from(STANDARD.encode(bytes)))
        }
        (ScalarValue::Str(text), Form::Plain) => Json::from(text.as_str()),
        (ScalarValue::Str(text), Form::Typed) => tagged("$string", Json::from(text.as_str())),
        (ScalarValue::Unknown { .. }, Form::Plain) => Json::Null,
        (ScalarValue::Unknown { type_code, bytes }, Form::Typed) => {
            let inner = [
                ("bytes".to_owned(), Json::from(STANDARD.encode(bytes))),
                ("type".to_owned(), Json::from(*type_code)),
            ];
            tagged("$unknown", Json::Object(Map::from_iter(inner)))
        }
    }
}

/// A text with its marks as the typed form has it.
pub(crate) fn tagged_text(text: String, marks: &[Mark], blocks: Vec<Json>) -> Json {
    let mut members = Map::new();
    members.insert("$text".to_owned(), Json::from(text));
    if !marks.is_empty() {
        members.insert("$marks".to_owned(), marks.iter().map(mark).collect());
    }
    if !blocks.is_empty() {
        members.insert("$blocks".to_owned(), Json::from(blocks));
    }
    Json::Object(members)
}

/// A mark, its ends counted in UTF-16 code units.
pub(crate) fn mark(mark: &Mark) -> Json {
    serde_json::json!({
        "name": mark.name.as_str(),
        "value": scalar(&mark.value, Form::Typed),
        "start": mark.start,
        "end": mark.end,
    })
}

/// The key of a map as a form writes it: in the typed form a `$` at the beginning is doubled.
pub(crate) fn write_key(key: &str, form: Form) -> String {
    match form {
        Form::Typed if key.starts_with('$') => format!("${key}"),
        _ => key.to_owned(),
    }
}

fn read_key(key: String, form: Form) -> String {
    match form {
        Form::Typed if key.starts_with("$$") => key[1..].to_owned(),
        _ => key,
    }
}

/// What plain JSON means where a value of some type already stands: that type, if it can be. So a
/// client that reads, changes something else and writes back changes nothing else.
pub(crate) fn keep_type(old: &ScalarValue, new: &New) -> Option<ScalarValue> {
    match (old, new) {
        (ScalarValue::Str(_), New::Text { text, marks }) if marks.is_empty() => {
            Some(ScalarValue::Str(text.into()))
        }
        (ScalarValue::Timestamp(_), New::Text { text, .. }) => {
            milliseconds(text).map(ScalarValue::Timestamp)
        }
        (ScalarValue::Bytes(_), New::Text { text, .. }) => {
            STANDARD.decode(text).ok().map(ScalarValue::Bytes)
        }
        (ScalarValue::F64(_), New::Scalar(ScalarValue::Int(int))) => {
            Some(ScalarValue::F64(*int as f64))
        }
        (ScalarValue::F64(float), New::Scalar(ScalarValue::Null)) if !float.is_finite() => {
            Some(old.clone())
        }
        (ScalarValue::Uint(_), New::Scalar(ScalarValue::Int(int))) => {
            u64::try_from(*int).ok().map(ScalarValue::Uint)
        }
        (ScalarValue::Unknown { .. }, New::Scalar(ScalarValue::Null)) => Some(old.clone()),
        _ => None,
    }
}

/// A key of the typed form that is no key of the document.
fn is_tag(key: &str) -> bool {
    key.starts_with('$') && !key.starts_with("$$")
}

fn read_tagged(members: &Map<String, Json>) -> Result<New, Declined> {
    let no = || {
        let keys: Vec<_> = members.keys().map(String::as_str).collect();
        Declined::NotJson(format!(
            "an object with the keys {keys:?} is no value of the typed form; a key that begins with \
             '$' is written with two"
        ))
    };
    if let Some(Json::String(text)) = members.get("$text") {
        let known = members.keys().all(|key| key == "$text" || key == "$marks");
        let marks = match members.get("$marks") {
            _ if !known => return Err(no()),
            Some(Json::Array(marks)) => {
                marks.iter().map(|mark| read_mark(mark).ok_or_else(no)).collect::<Result<_, _>>()?
            }
            Some(_) => return Err(no()),
            None => Vec::new(),
        };
        let units = text.encode_utf16().count();
        if marks.iter().any(|mark: &Mark| mark.start >= mark.end || mark.end > units) {
            return Err(Declined::NotJson("a mark lies outside of its text".to_owned()));
        }
        return Ok(New::Text { text: text.clone(), marks });
    }
    let (1, Some((tag, value))) = (members.len(), members.iter().next()) else { return Err(no()) };
    let scalar = match tag.as_str() {
        "$counter" => value.as_i64().map(ScalarValue::counter),
        "$timestamp" => value.as_i64().map(ScalarValue::Timestamp),
        "$uint" => value.as_u64().map(ScalarValue::Uint),
        "$string" => value.as_str().map(|text| ScalarValue::Str(text.into())),
        "$bytes" => {
            value.as_str().and_then(|text| STANDARD.decode(text).ok()).map(ScalarValue::Bytes)
        }
        "$float" => value.as_str().and_then(float_of).map(ScalarValue::F64),
        _ => None,
    };
    scalar.map(New::Scalar).ok_or_else(no)
}

fn read_mark(json: &Json) -> Option<Mark> {
    let position = |key: &str| usize::try_from(json.get(key)?.as_u64()?).ok();
    let value = match New::read(json.get("value")?.clone(), Form::Typed).ok()? {
        New::Scalar(value) => value,
        // The values of marks are scalars, so a bare string can only be one.
        New::Text { text, .. } => ScalarValue::Str(text.into()),
        New::Map(_) | New::List(_) => return None,
    };
    let name = json.get("name")?.as_str()?.to_owned();
    Some(Mark::new(name, value, position("start")?, position("end")?))
}

fn name_of(float: f64) -> &'static str {
    match float {
        _ if float.is_nan() => "NaN",
        _ if float > 0.0 => "Infinity",
        _ => "-Infinity",
    }
}

fn float_of(name: &str) -> Option<f64> {
    match name {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

const DAY_MS: i64 = 86_400_000;

/// RFC 3339 in UTC with milliseconds; `None` outside of the years 0 to 9999.
pub(crate) fn date(ms: i64) -> Option<String> {
    let (days, of_day) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS));
    // Days are counted from the first of March, so that the leap day is the last of its year.
    let from_march = days + 719_468;
    let (era, of_era) = (from_march.div_euclid(146_097), from_march.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    if !(0..=9999).contains(&year) {
        return None;
    }
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, milli) = (of_day / 1_000 % 60, of_day % 1_000);
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"))
}

/// The reverse of [`date`], for exactly what that writes.
fn milliseconds(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| {
        let digits = text.get(range)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<i64>().ok())?
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute) = (number(11..13)?, number(14..16)?);
    let (second, milli) = (number(17..19)?, number(20..23)?);
    let year_from_march = year - i64::from(month <= 2);
    let (era, of_era) = (year_from_march.div_euclid(400), year_from_march.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let ms = days * DAY_MS + hour * 3_600_000 + minute * 60_000 + second * 1_000 + milli;
    // Whatever is written otherwise, or is no date, does not come back as itself.
    (date(ms).as_deref() == Some(text)).then_some(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_come_back_from_their_texts() {
        let texts = [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
            (-62_167_219_200_000, "0000-01-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ];
        for (ms, text) in texts {
            assert_eq!(date(ms).as_deref(), Some(text));
            assert_eq!(milliseconds(text), Some(ms));
        }
        assert_eq!(date(253_402_300_800_000), None);
        assert_eq!((date(i64::MAX), date(i64::MIN)), (None, None));
        for text in ["2023-02-29T00:00:00.000Z", "2023-02-28", "2023-02-28T24:00:00.000Z", "é"] {
            assert_eq!(milliseconds(text), None, "{text}");
        }
    }

    #[test]
    fn every_scalar_comes_back_from_its_typed_form() {
        let scalars = [
            ScalarValue::Null,
            ScalarValue::Boolean(true),
            ScalarValue::Int(i64::MIN),
            ScalarValue::Uint(u64::MAX),
            ScalarValue::Uint(1),
            ScalarValue::F64(1.0),
            ScalarValue::F64(f64::NEG_INFINITY),
            ScalarValue::counter(-4),
            ScalarValue::Timestamp(i64::MAX),
            ScalarValue::Bytes(vec![0, 255]),
            ScalarValue::Str("a string".into()),
        ];
        for value in scalars {
            let json = scalar(&value, Form::Typed).to_string();
            let read = New::read(serde_json::from_str(&json).unwrap(), Form::Typed);
            assert_eq!(read, Ok(New::Scalar(value)), "{json}");
        }
    }

    #[test]
    fn a_key_that_looks_like_a_tag_is_escaped_in_the_typed_form_only() {
        let json = serde_json::json!({ "$$counter": 1, "$$$x": 2 });
        let New::Map(members) = New::read(json, Form::Typed).unwrap() else { panic!("a map") };
        let keys: Vec<_> = members.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["$$x", "$counter"]);
        assert_eq!(write_key("$counter", Form::Typed), "$$counter");
        let plain = New::read(serde_json::json!({ "$counter": 1 }), Form::Plain).unwrap();
        assert_eq!(plain, New::Map(vec![("$counter".into(), New::Scalar(ScalarValue::Int(1)))]));
        let odd = New::read(serde_json::json!({ "$counter": 1, "other": 2 }), Form::Typed);
        assert!(matches!(odd, Err(Declined::NotJson(_))));
    }
}
