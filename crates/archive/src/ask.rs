//! Answers about a document.

use automerge::{Automerge, ChangeHash, LoadOptions, PatchLog, TextEncoding};
use model::Heads;
use serde_json::{Value as Json, json};

use crate::conflicts::conflicts;
use crate::diff::diff;
use crate::edit::edit;
use crate::glance::{Glance, Seen};
use crate::guard::{brief, guarded, refused};
use crate::job::{Failure, Progress, Reason, Stage};
use crate::json::{Unread, find, json as as_json, text, tokens};
use crate::question::{Declined, Question, Told};

/// Opens the document and answers.
pub(crate) fn ask(
    snapshot: Option<Vec<u8>>,
    changes: &[Vec<u8>],
    question: Question,
    progress: &mut dyn FnMut(Progress),
) -> Result<Told, Failure> {
    progress(Progress { stage: Stage::Load, from: 0, to: changes.len() });
    let failed = |reason| Failure::Snapshot { reason };
    if changes.is_empty()
        && let Some(snapshot) = &snapshot
        && let Ok(Some(told)) = guarded(Stage::Ask, || Ok(at_a_glance(snapshot, &question)))
    {
        return Ok(told);
    }
    let mut doc = guarded(Stage::Load, || open(snapshot, changes)).map_err(failed)?;
    progress(Progress { stage: Stage::Ask, from: 0, to: 0 });
    // A question that Automerge panics over is answered with the panic; what else is wrong with the
    // question is not an error of the job.
    let mut declined = None;
    let told = guarded(Stage::Ask, || match answer(&mut doc, &question) {
        Ok(told) => Ok(told),
        Err(Unread::Declined(why)) => {
            declined = Some(why.clone());
            Ok(Told::Declined(why))
        }
        Err(Unread::Reason(reason)) => Err(reason),
    });
    told.map_err(failed)
}

/// The answer to a question about what is there now, if it can be seen without opening the document.
/// What is not there is left to an open one to say.
fn at_a_glance(snapshot: &[u8], question: &Question) -> Option<Told> {
    match question {
        Question::Json { heads: None, pointer, form } => {
            let tokens = tokens(pointer).ok()?;
            let glance = Glance::at(snapshot)?;
            let json = glance.json(&glance.find(&tokens)?, *form)?;
            Some(Told::Bytes(serde_json::to_vec(&json).ok()?))
        }
        Question::Text { heads: None, pointer } => {
            let tokens = tokens(pointer).ok()?;
            match Glance::at(snapshot)?.find(&tokens)? {
                Seen::Text(text) => Some(Told::Bytes(text.as_bytes().to_vec())),
                Seen::Scalar(_) | Seen::Object(_) => None,
            }
        }
        _ => None,
    }
}

/// Loads everything in one go. Positions in texts count as in JavaScript, where most readers are.
///
/// The hashes of the heads are not computed again: the snapshot was proven when it was made, its row
/// carries a checksum, and its chunk another.
fn open(snapshot: Option<Vec<u8>>, changes: &[Vec<u8>]) -> Result<Automerge, Reason> {
    let mut bytes = snapshot.unwrap_or_default();
    for change in changes {
        bytes.extend_from_slice(change);
    }
    let options = LoadOptions::new()
        .text_encoding(TextEncoding::Utf16CodeUnit)
        .verification_mode(automerge::VerificationMode::DontCheck);
    Automerge::load_with_options(&bytes, options).map_err(refused(Stage::Load))
}

fn answer(doc: &mut Automerge, question: &Question) -> Result<Told, Unread> {
    match question {
        Question::Json { heads, pointer, form } => {
            let way = tokens(pointer)?;
            let value = at(doc, heads.as_ref(), |view| match view {
                View::Now(doc) => {
                    let (value, id) = find(*doc, &way)?;
                    as_json(*doc, &value, &id, *form)
                }
                View::Then(past) => {
                    let (value, id) = find(*past, &way)?;
                    as_json(*past, &value, &id, *form)
                }
            })?;
            written(&value)
        }
        Question::Text { heads, pointer } => {
            let text = at(doc, heads.as_ref(), |view| match view {
                View::Now(doc) => text(*doc, pointer),
                View::Then(past) => text(*past, pointer),
            })?;
            Ok(Told::Bytes(text.into_bytes()))
        }
        Question::File { heads } => {
            let heads = known(doc, heads)?;
            Ok(Told::Bytes(doc.fork_at(&heads)?.save()))
        }
        Question::Changes { since } => {
            let since = known(doc, since)?;
            let mut bytes = Vec::new();
            for change in doc.get_changes(&since) {
                bytes.extend_from_slice(change.raw_bytes());
            }
            Ok(Told::Bytes(bytes))
        }
        Question::History { hashes } => written(&history(doc, hashes)?),
        Question::Diff { from, to, form } => {
            known(doc, from)?;
            known(doc, to)?;
            written(&diff(doc, from, to, *form))
        }
        Question::Conflicts { heads, form } => {
            // Who wrote what is the same whenever it is asked; only what is there is not.
            let authors = doc.clone();
            let found = at(doc, heads.as_ref(), |view| match view {
                View::Now(doc) => conflicts(&authors, *doc, *form),
                View::Then(past) => conflicts(&authors, *past, *form),
            })?;
            written(&found)
        }
        Question::Edit { heads, edit: wanted, form, by } => {
            if let Some(heads) = heads {
                known(doc, heads)?;
            }
            Ok(Told::Edited(edit(doc, heads.as_ref(), wanted, *form, by)?))
        }
    }
}

/// The document as it is, or as it was.
enum View<'a, 'doc> {
    Now(&'a Automerge),
    Then(&'a automerge::transaction::Transaction<'doc>),
}

/// Looks at the document as of `heads`.
///
/// The past is looked at through a transaction there, which is rolled back: it finds out once what
/// belongs to the past, where Automerge's functions for it do so in every call.
fn at<T>(
    doc: &mut Automerge,
    heads: Option<&Heads>,
    look: impl FnOnce(&View<'_, '_>) -> Result<T, Unread>,
) -> Result<T, Unread> {
    let Some(heads) = heads else { return look(&View::Now(doc)) };
    let heads = known(doc, heads)?;
    if heads == doc.get_heads() {
        return look(&View::Now(doc));
    }
    let past = doc.transaction_at(PatchLog::inactive(), &heads).map_err(|error| {
        Reason::Refused { stage: Stage::Ask, message: brief(&error.to_string()) }
    })?;
    let seen = look(&View::Then(&past));
    past.rollback();
    seen
}

/// The heads as Automerge has them, if the document holds them.
fn known(doc: &Automerge, heads: &Heads) -> Result<Vec<ChangeHash>, Unread> {
    let hashes = heads.iter().map(|hash| {
        let there = doc.get_change_meta_by_hash(&ChangeHash(hash.0)).is_some();
        there.then_some(ChangeHash(hash.0)).ok_or(Declined::NoSuchHead(*hash))
    });
    Ok(hashes.collect::<Result<_, _>>()?)
}

fn history(doc: &Automerge, hashes: &[model::ChangeHash]) -> Result<Json, Unread> {
    let mut entries = Vec::with_capacity(hashes.len());
    for hash in hashes {
        let change =
            doc.get_change_meta_by_hash(&ChangeHash(hash.0)).ok_or(Declined::NoSuchHead(*hash))?;
        entries.push(json!({
            "time": change.timestamp,
            "message": change.message.as_deref(),
            "author": change.author.as_ref().map(ToString::to_string),
        }));
    }
    Ok(Json::Array(entries))
}

fn written(json: &Json) -> Result<Told, Unread> {
    Ok(Told::Bytes(serde_json::to_vec(json).expect("JSON can be written")))
}
