//! What requests say: ids, heads, types, and parameters, parsed at the edge.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use model::{ChangeHash, DocumentId, DocumentUrl, Heads};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use crate::rest::Rest;
use crate::rest::problem::Problem;

/// JSON.
pub const JSON: &str = "application/json";
/// An Automerge file, or change chunks.
pub const AUTOMERGE: &str = "application/vnd.automerge";
/// Text.
pub const TEXT: &str = "text/plain";
/// RFC 6902.
pub const JSON_PATCH: &str = "application/json-patch+json";
/// RFC 7396.
pub const MERGE_PATCH: &str = "application/merge-patch+json";

/// How many heads may be named in one place.
const HEADS_MAX: usize = 1_000;
/// An `ETag` of more heads than this is their digest: headers have to fit.
const TAG_HEADS_MAX: usize = 50;

/// The document of the path: an id or an `automerge:` URL, with a path and heads if it has some.
#[derive(Debug, Clone)]
pub struct Target {
    /// The document.
    pub id: DocumentId,
    /// A place in it, as a JSON Pointer.
    pub pointer: Option<String>,
    /// A version of it.
    pub heads: Option<Heads>,
}

impl Target {
    /// Reads an id or URL.
    ///
    /// # Errors
    /// The problem to answer with.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let url: DocumentUrl = text.parse().map_err(|error| Problem::bad_id(format!("{error}")))?;
        let segments = url.path.iter().filter(|segment| !segment.is_empty());
        let pointer = segments.fold(String::new(), |pointer, segment| {
            let decoded = percent_encoding::percent_decode_str(segment).decode_utf8_lossy();
            // Places in lists are written with an at sign in these URLs.
            let token = match decoded.strip_prefix('@') {
                Some(index) if index.bytes().all(|byte| byte.is_ascii_digit()) => index.to_owned(),
                _ => decoded.replace('~', "~0").replace('/', "~1"),
            };
            pointer + "/" + &token
        });
        Ok(Self { id: url.id, pointer: Some(pointer).filter(|p| !p.is_empty()), heads: url.heads })
    }

    /// The id, where nothing but an id means anything.
    ///
    /// # Errors
    /// When there is more.
    pub fn bare(self) -> Result<DocumentId, Problem> {
        if self.pointer.is_some() || self.heads.is_some() {
            return Err(Problem::bad_id("here the id stands alone, without a path and heads"));
        }
        Ok(self.id)
    }

    /// The heads of the URL or of a parameter, not both.
    ///
    /// # Errors
    /// When there are both, or the parameter makes no sense.
    pub fn heads(&self, parameter: Option<&str>) -> Result<Option<Heads>, Problem> {
        match (&self.heads, parameter) {
            (Some(_), Some(_)) => Err(Problem::bad_request("heads are in the URL and in 'heads'")),
            (Some(heads), None) => Ok(Some(heads.clone())),
            (None, Some(text)) => parse_heads("heads", text).map(Some),
            (None, None) => Ok(None),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|error| Problem::bad_id(error.to_string()))?;
        Self::parse(&text)
    }
}

/// The parameters behind the `?`; one that is not known is an error, not ignored.
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Query(params) = Query::try_from_uri(&parts.uri)
            .map_err(|error| Problem::bad_request(error.body_text()))?;
        Ok(Self(params))
    }
}

/// The body of a request, no longer than it may be and no longer on its way.
pub struct Body(pub Bytes);

impl FromRequest<Arc<Rest>> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, rest: &Arc<Rest>) -> Result<Self, Problem> {
        let (seconds, max) = (rest.config.seconds, rest.config.body_bytes_max);
        let body = Bytes::from_request(request, rest);
        match timeout(Duration::from_secs(seconds.into()), body).await {
            Ok(Ok(bytes)) => Ok(Self(bytes)),
            Ok(Err(error)) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                let why = format!("the body has more than {max} bytes");
                Err(Problem::too_large("rest.body_bytes_max", max, why))
            }
            Ok(Err(error)) => Err(Problem::bad_body(error.body_text())),
            Err(_) => Err(Problem::slow_body(seconds)),
        }
    }
}

/// Heads as they are written in parameters and headers: hexadecimal or base58 with a checksum, with
/// `.`, `,` or `|` between them.
///
/// # Errors
/// The problem to answer with; it names the parameter.
pub fn parse_heads(parameter: &str, text: &str) -> Result<Heads, Problem> {
    let wrong = |why: String| Problem::bad_request(format!("'{parameter}': {why}"));
    let parts: Vec<&str> = text.split(['.', ',', '|']).map(str::trim).collect();
    if parts.len() > HEADS_MAX {
        return Err(wrong(format!("{} heads; at most {HEADS_MAX} can be named", parts.len())));
    }
    let hashes = parts.into_iter().map(|part| {
        let hash = if part.len() == 64 { part.parse() } else { ChangeHash::from_base58check(part) };
        hash.map_err(|_| {
            wrong("a head is 64 hexadecimal digits, or base58 with a checksum".to_owned())
        })
    });
    hashes.collect()
}

/// Heads as they are written in answers.
pub fn write_heads(heads: &Heads) -> Vec<String> {
    heads.iter().map(ToString::to_string).collect()
}

/// The `ETag` of heads: the heads themselves, unless they are too many for a header.
pub fn etag(heads: &Heads) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{}\"", tag(heads))).expect("digits and dots")
}

fn tag(heads: &Heads) -> String {
    if heads.len() <= TAG_HEADS_MAX {
        return write_heads(heads).join(".");
    }
    let mut hasher = Sha256::new();
    heads.iter().for_each(|hash| hasher.update(hash.as_bytes()));
    let digest = ChangeHash(hasher.finalize().into());
    format!("~{digest}")
}

/// Whether a condition such as `If-None-Match` names this tag.
pub fn names(headers: &HeaderMap, condition: &HeaderName, tag: &HeaderValue) -> bool {
    let Ok(tag) = tag.to_str() else { return false };
    headers.get_all(condition).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.trim() == "*"
            || value.split(',').any(|one| one.trim().trim_start_matches("W/") == tag)
    })
}

/// What `If-Match` asks a change to be made on top of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// Whatever is there.
    Any,
    /// Exactly these.
    Heads(Heads),
}

/// Reads `If-Match`. A digest is resolved with `current`.
///
/// # Errors
/// When it makes no sense, or is a digest of other heads.
pub fn if_match(headers: &HeaderMap, current: &Heads) -> Result<Base, Problem> {
    let mut values = headers.get_all(header::IF_MATCH).iter();
    let Some(value) = values.next() else { return Ok(Base::Any) };
    let text = value.to_str().unwrap_or_default().trim();
    if values.next().is_some() || text.matches('"').count() > 2 {
        return Err(Problem::bad_request("'If-Match' takes one ETag: the heads to build on"));
    }
    let inner = text.trim_start_matches("W/").trim_matches('"');
    match inner {
        "*" => Ok(Base::Any),
        digest if digest.starts_with('~') => match tag(current) == digest {
            true => Ok(Base::Heads(current.clone())),
            false => Err(Problem::precondition(
                "the document has moved on from there, and an ETag of so many heads does not name \
                 them: GET …/heads and send them",
            )),
        },
        heads => parse_heads("If-Match", heads).map(Base::Heads),
    }
}

/// The first of `offered` that a client likes best.
///
/// # Errors
/// When it takes none of them.
pub fn negotiate<'a>(headers: &HeaderMap, offered: &[&'a str]) -> Result<&'a str, Problem> {
    let accept: Vec<&str> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    if accept.is_empty() {
        return Ok(offered[0]);
    }
    let accept = accept.join(",");
    let mut best: Option<(f32, &str)> = None;
    for kind in offered {
        let (major, _) = kind.split_once('/').unwrap_or((kind, ""));
        // The most specific range that fits counts, whatever the others say.
        let fitting = accept.split(',').filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next()?.to_ascii_lowercase();
            let specific = match name.as_str() {
                "*/*" => 0,
                other if other == *kind => 2,
                other => (other.strip_suffix("/*") == Some(major)).then_some(1)?,
            };
            let quality = parts.find_map(|part| part.strip_prefix("q=")).unwrap_or("1");
            Some((specific, quality.parse::<f32>().unwrap_or(0.0)))
        });
        let quality = fitting.max_by_key(|(specific, _)| *specific).map_or(0.0, |(_, q)| q);
        if quality > best.map_or(0.0, |(quality, _)| quality) {
            best = Some((quality, kind));
        }
    }
    best.map(|(_, kind)| kind).ok_or_else(|| {
        Problem::not_acceptable(format!("what can be had here is {}", offered.join(", ")))
    })
}

/// The type of the body, without parameters.
pub fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = value.unwrap_or_default().split(';').next().unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}

/// How deep JSON is nested, without reading more of it than its brackets.
pub fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    fn heads(count: u8) -> Heads {
        (0..count).map(|n| ChangeHash([n; 32])).collect()
    }

    #[test]
    fn every_form_of_an_id_is_understood() {
        let id = "p3u5PhN9wrNpsGCwfkeef2LzF9";
        let head = ChangeHash([9; 32]);
        let url = format!("automerge:{id}/notes/@0/a%2Fb#{}", head.to_base58check());
        let target = Target::parse(&url).unwrap();
        assert_eq!(target.id.to_string(), id);
        assert_eq!(target.pointer.as_deref(), Some("/notes/0/a~1b"));
        assert_eq!(target.heads, Some(Heads::from(vec![head])));
        assert!(target.bare().is_err());
        assert!(Target::parse(id).unwrap().bare().is_ok());
        assert_eq!(Target::parse("nonsense").unwrap_err().status, 400);
    }

    #[test]
    fn heads_read_back_from_their_tag_and_from_both_of_their_forms() {
        let three = heads(3);
        let tag = etag(&three);
        let inner = tag.to_str().unwrap().trim_matches('"');
        assert_eq!(parse_heads("heads", inner).unwrap(), three);
        let base58: Vec<_> = three.iter().map(ChangeHash::to_base58check).collect();
        assert_eq!(parse_heads("heads", &base58.join("|")).unwrap(), three);
        assert!(parse_heads("heads", "").is_err() && parse_heads("heads", "x.y").is_err());
        assert!(etag(&heads(200)).len() < 100);
    }

    #[test]
    fn conditions_are_read() {
        let (now, many) = (heads(2), heads(200));
        let tag = etag(&now);
        let none = header::IF_NONE_MATCH;
        let text = tag.to_str().unwrap();
        for value in [text.to_owned(), format!("W/{text}"), format!("\"x\", {text}"), "*".into()] {
            assert!(names(&headers(none.clone(), &value), &none, &tag), "{value}");
        }
        assert!(!names(&headers(none.clone(), "\"x\""), &none, &tag));
        let base = |value: &str, now: &Heads| if_match(&headers(header::IF_MATCH, value), now);
        assert_eq!(base(text, &now), Ok(Base::Heads(now.clone())));
        assert_eq!(base("*", &now), Ok(Base::Any));
        assert_eq!(if_match(&HeaderMap::new(), &now), Ok(Base::Any));
        let digest = etag(&many);
        assert_eq!(base(digest.to_str().unwrap(), &many), Ok(Base::Heads(many)));
        assert_eq!(base(digest.to_str().unwrap(), &now).unwrap_err().status, 412);
        assert_eq!(base("\"nonsense\"", &now).unwrap_err().status, 400);
    }

    #[test]
    fn the_type_is_the_one_that_is_liked_best() {
        let offered = [JSON, AUTOMERGE, TEXT];
        let choose = |accept: &str| negotiate(&headers(header::ACCEPT, accept), &offered);
        assert_eq!(negotiate(&HeaderMap::new(), &offered), Ok(JSON));
        assert_eq!(choose("*/*"), Ok(JSON));
        assert_eq!(choose("text/html, text/*;q=0.5"), Ok(TEXT));
        assert_eq!(choose("application/json;q=0.1, application/vnd.automerge"), Ok(AUTOMERGE));
        assert_eq!(choose("*/*, application/json;q=0"), Ok(AUTOMERGE));
        assert_eq!(choose("image/png").unwrap_err().status, 406);
    }

    #[test]
    fn the_depth_of_json_is_found_without_parsing_it() {
        assert_eq!(depth(br#"{"a":[{"b":"[[[\"{"}],"c":[]}"#), 3);
        assert_eq!(depth(&b"[".repeat(1_000)), 1_000);
        assert_eq!(depth(b"1"), 0);
    }
}
