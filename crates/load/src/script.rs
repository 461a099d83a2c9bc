//! What the typists type, encoded before the clock starts.
//!
//! Every document of every row is a prefix of one recording: a person writing a paper, 259,778
//! single-character edits. One edit is one Automerge change and one Yjs update. All are made once
//! with the real libraries and kept in a cache, so that typing costs the load generator a copy.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, AutoCommit, Automerge, ObjType, ROOT};
use sha2::{Digest, Sha256};
use yrs::updates::decoder::Decode;
use yrs::{Doc, GetString, ID, IdSet, ReadTxn, StateVector, Text, Transact, Update};

use crate::sync_message::{Hash, hash_of};

/// The text's key at the root of the documents.
const TEXT: &str = "text";
/// Any number that takes as many bytes as those that Yjs draws at random.
const YJS_CLIENT: u64 = 2_718_281_828;

/// One keystroke.
#[derive(Clone, Copy)]
pub enum Edit {
    /// A character at a position.
    Insert(usize, char),
    /// The character at a position is deleted.
    Delete(usize),
}

/// Reads a recording in which each transaction inserts or deletes a single character.
///
/// # Errors
/// If the file is missing or records something else.
pub fn read_trace(path: &Path) -> Result<Vec<Edit>, String> {
    let file = fs::File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut json = String::new();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut json)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let trace: serde_json::Value = serde_json::from_str(&json).map_err(|it| it.to_string())?;
    let transactions = trace["txns"].as_array().ok_or("a trace without transactions")?;
    transactions
        .iter()
        .map(|it| edit(&it["patches"][0]).ok_or("an edit of another kind".into()))
        .collect()
}

fn edit(patch: &serde_json::Value) -> Option<Edit> {
    let position = patch[0].as_u64()? as usize;
    let mut inserted = patch[2].as_str()?.chars();
    match (patch[1].as_u64()?, inserted.next(), inserted.next()) {
        (0, Some(letter), None) => Some(Edit::Insert(position, letter)),
        (1, None, None) => Some(Edit::Delete(position)),
        _ => None,
    }
}

/// `count` edits of the recording for typist number `number`: a stretch that begins somewhere else for
/// each, moved to where the text of the typist is.
pub fn elsewhere(edits: &[Edit], number: usize, count: usize) -> Vec<Edit> {
    // Far apart for few typists, and never the same for up to as many as there are edits.
    const STRIDE: usize = 104_729;
    let first = number.wrapping_mul(STRIDE) % edits.len();
    let stretch = edits.iter().cycle().skip(first).take(count);
    let place = |edit: &Edit| match *edit {
        Edit::Insert(position, _) | Edit::Delete(position) => position,
    };
    let base = place(&edits[first]);
    let mut length = 0_usize;
    let moved = stretch.map(|edit| {
        let position = place(edit).saturating_sub(base);
        match *edit {
            Edit::Delete(_) if length > 0 => {
                length -= 1;
                Edit::Delete(position.min(length))
            }
            // Of what was there before the stretch, nothing is here to be deleted.
            Edit::Delete(_) => {
                length += 1;
                Edit::Insert(0, ' ')
            }
            Edit::Insert(_, letter) => {
                length += 1;
                Edit::Insert(position.min(length - 1), letter)
            }
        }
    });
    moved.collect()
}

/// The id of a typist's actor: as random as those of stock clients, and the same in every run.
pub fn actor(number: usize) -> [u8; 16] {
    let digest = Sha256::digest((number as u64).to_be_bytes());
    digest[..16].try_into().expect("a digest is longer")
}

/// The text after the given edits.
pub fn text_after(edits: &[Edit]) -> String {
    let mut text = Vec::new();
    for edit in edits {
        match *edit {
            Edit::Insert(position, letter) => text.insert(position, letter),
            Edit::Delete(position) => drop(text.remove(position)),
        }
    }
    text.into_iter().collect()
}

/// The recording as Automerge changes, in order, each depending on the one before.
pub struct AutomergeScript {
    chunks: Chunks,
    /// The name of each change.
    pub hashes: Vec<Hash>,
    index: HashMap<Hash, u32>,
}

impl AutomergeScript {
    /// Takes the changes from the cache, or makes them and fills it.
    ///
    /// # Errors
    /// If the cache cannot be written, or holds something else.
    pub fn prepare(edits: &[Edit], cache: &Path) -> Result<Self, String> {
        let chunks = Chunks::cached(&cache.join("automerge.chunks"), edits.len(), || {
            changes(edits, &[0x2A; 16], 5.0)
        })?;
        Self::of(chunks)
    }

    /// The changes of an actor who types so many of these edits a second.
    ///
    /// # Errors
    /// If one of the edits is out of place.
    pub fn typed(edits: &[Edit], actor: &[u8; 16], per_second: f64) -> Result<Self, String> {
        Self::of(Chunks::of(&changes(edits, actor, per_second)?))
    }

    fn of(chunks: Chunks) -> Result<Self, String> {
        let hashes: Vec<Hash> =
            (0..chunks.ends.len()).map(|at| hash_of(chunks.get(at))).collect::<Result<_, _>>()?;
        let index = hashes.iter().zip(0..).map(|(hash, at)| (*hash, at)).collect();
        Ok(Self { chunks, hashes, index })
    }

    /// The chunk of a change.
    pub fn chunk(&self, at: usize) -> &[u8] {
        self.chunks.get(at)
    }

    /// Which change that is, if it is one of these.
    pub fn position(&self, hash: &Hash) -> Option<usize> {
        self.index.get(hash).map(|at| *at as usize)
    }

    /// The text of the first `length` edits.
    ///
    /// # Errors
    /// Only if the script is damaged.
    pub fn text(&self, length: usize) -> Result<String, String> {
        automerge_text(&self.applied(length)?)
    }

    /// The document of the first `length` edits, saved as one chunk.
    ///
    /// # Errors
    /// Only if the script is damaged.
    pub fn document(&self, length: usize) -> Result<Vec<u8>, String> {
        Ok(self.applied(length)?.save())
    }

    fn applied(&self, length: usize) -> Result<Automerge, String> {
        let mut document = Automerge::new();
        let raw: Vec<u8> = (0..length).flat_map(|at| self.chunk(at).iter().copied()).collect();
        document.load_incremental(&raw).map_err(|error| error.to_string())?;
        if document.get_heads().first().map(|head| head.0) != Some(self.hashes[length - 1]) {
            return Err("the script does not apply".to_owned());
        }
        Ok(document)
    }
}

fn changes(edits: &[Edit], actor: &[u8; 16], per_second: f64) -> Result<Vec<Vec<u8>>, String> {
    let mut document = AutoCommit::new().with_actor(ActorId::from(*actor));
    let text = document.put_object(ROOT, TEXT, ObjType::Text).map_err(|it| it.to_string())?;
    for (number, edit) in edits.iter().enumerate() {
        let (position, deleted, inserted) = match *edit {
            Edit::Insert(position, letter) => (position, 0, letter.to_string()),
            Edit::Delete(position) => (position, 1, String::new()),
        };
        document
            .splice_text(&text, position, deleted, &inserted)
            .map_err(|error| error.to_string())?;
        // Stock clients stamp their changes.
        let stamp = 1_618_898_818 + (number as f64 / per_second) as i64;
        document.commit_with(CommitOptions::default().with_time(stamp));
    }
    Ok(document.get_changes(&[]).iter().map(|it| it.raw_bytes().to_vec()).collect())
}

/// The text that a downloaded Automerge document holds.
///
/// # Errors
/// If it has none.
pub fn automerge_text(document: &Automerge) -> Result<String, String> {
    use automerge::ReadDoc;
    let found = document.get(ROOT, TEXT).map_err(|error| error.to_string())?;
    let (_, text) = found.ok_or("a document without its text")?;
    document.text(&text).map_err(|error| error.to_string())
}

/// The recording as Yjs updates, in order.
pub struct YjsScript {
    chunks: Chunks,
    /// What each update adds: one inserted or one deleted character.
    effects: Vec<Effect>,
}

#[derive(Clone, Copy)]
struct Effect {
    deletes: bool,
    id: ID,
}

/// What one Yjs message carries: several updates may have been merged into it.
pub struct Coverage {
    inserted: IdSet,
    deleted: IdSet,
}

impl Coverage {
    /// Reads an update.
    ///
    /// # Errors
    /// If it is none.
    pub fn of(update: &[u8]) -> Result<Self, String> {
        let update = Update::decode_v1(update).map_err(|error| error.to_string())?;
        Ok(Self { inserted: update.insertions(true), deleted: update.delete_set().clone() })
    }
}

impl YjsScript {
    /// Takes the updates from the cache, or makes them and fills it.
    ///
    /// # Errors
    /// If the cache cannot be written, or holds something else.
    pub fn prepare(edits: &[Edit], cache: &Path) -> Result<Self, String> {
        let chunks = Chunks::cached(&cache.join("yjs.updates"), edits.len(), || {
            let document = Doc::with_client_id(YJS_CLIENT);
            let text = document.get_or_insert_text(TEXT);
            let typed = edits.iter().map(|edit| {
                let mut transaction = document.transact_mut();
                match *edit {
                    Edit::Insert(position, letter) => {
                        text.insert(&mut transaction, position as u32, &letter.to_string());
                    }
                    Edit::Delete(position) => {
                        text.remove_range(&mut transaction, position as u32, 1);
                    }
                }
                transaction.encode_update_v1()
            });
            Ok(typed.collect())
        })?;
        let effects =
            (0..edits.len()).map(|at| effect(chunks.get(at))).collect::<Result<_, _>>()?;
        Ok(Self { chunks, effects })
    }

    /// One update.
    pub fn update(&self, at: usize) -> &[u8] {
        self.chunks.get(at)
    }

    /// Of a reader that holds the first `held` updates: how many it holds with that message.
    pub fn advance(&self, held: usize, coverage: &Coverage) -> usize {
        let covered = |effect: &&Effect| {
            let set = if effect.deletes { &coverage.deleted } else { &coverage.inserted };
            set.contains(&effect.id)
        };
        held + self.effects[held..].iter().take_while(covered).count()
    }

    /// The state vector of the first `length` updates, encoded.
    pub fn state_vector(&self, length: usize) -> Vec<u8> {
        use yrs::updates::encoder::Encode;
        let mut vector = StateVector::default();
        if let Some(last) = self.effects[..length].iter().rfind(|effect| !effect.deletes) {
            vector.set_max(last.id.client, last.id.clock + 1);
        }
        vector.encode_v1()
    }

    /// The first `length` updates as one.
    ///
    /// # Errors
    /// Only if the script is damaged.
    pub fn state(&self, length: usize) -> Result<Vec<u8>, String> {
        let document = Doc::new();
        // The text has to be known as one, or its parts are kept as of an unknown kind.
        document.get_or_insert_text(TEXT);
        let mut transaction = document.transact_mut();
        for at in 0..length {
            let update = Update::decode_v1(self.update(at)).map_err(|error| error.to_string())?;
            transaction.apply_update(update).map_err(|error| error.to_string())?;
        }
        drop(transaction);
        Ok(document.transact().encode_state_as_update_v1(&StateVector::default()))
    }
}

/// The text that a downloaded Yjs document holds.
pub fn yjs_text(document: &Doc) -> String {
    document.get_or_insert_text(TEXT).get_string(&document.transact())
}

fn effect(update: &[u8]) -> Result<Effect, String> {
    let coverage = Coverage::of(update)?;
    let single = |set: &IdSet| -> Option<ID> {
        let (client, ranges) = set.iter().next()?;
        Some(ID::new(*client, ranges.iter().next()?.start))
    };
    match (single(&coverage.inserted), single(&coverage.deleted)) {
        (Some(id), None) => Ok(Effect { deletes: false, id }),
        (None, Some(id)) => Ok(Effect { deletes: true, id }),
        _ => Err("an update that is not one keystroke".to_owned()),
    }
}

/// Many small byte strings in one.
struct Chunks {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Chunks {
    fn get(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[start..self.ends[at]]
    }

    fn of(made: &[Vec<u8>]) -> Self {
        let mut ends = Vec::with_capacity(made.len());
        let mut end = 0;
        for chunk in made {
            end += chunk.len();
            ends.push(end);
        }
        Self { bytes: made.concat(), ends }
    }

    fn cached(
        path: &Path,
        count: usize,
        make: impl FnOnce() -> Result<Vec<Vec<u8>>, String>,
    ) -> Result<Self, String> {
        if let Some(cached) = fs::read(path).ok().and_then(|file| Self::parse(&file, count)) {
            return Ok(cached);
        }
        let made = make()?;
        if made.len() != count {
            return Err(format!("{} changes came of {count} edits", made.len()));
        }
        let mut file = Vec::new();
        for chunk in &made {
            file.extend_from_slice(&(chunk.len() as u32).to_le_bytes());
            file.extend_from_slice(chunk);
        }
        let directory = path.parent().expect("the cache is in a directory");
        fs::create_dir_all(directory)
            .and_then(|()| fs::write(path, &file))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(&file, count).ok_or("what was written does not read".to_owned())
    }

    fn parse(file: &[u8], count: usize) -> Option<Self> {
        let mut chunks =
            Self { bytes: Vec::with_capacity(file.len()), ends: Vec::with_capacity(count) };
        let mut rest = file;
        while !rest.is_empty() {
            let (length, after) = rest.split_first_chunk()?;
            let (chunk, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            chunks.bytes.extend_from_slice(chunk);
            chunks.ends.push(chunks.bytes.len());
            rest = after;
        }
        (chunks.ends.len() == count).then_some(chunks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types and deletes at changing places, deterministic.
    fn edits(count: usize) -> Vec<Edit> {
        let mut length = 0_usize;
        let step = |number: usize| {
            if number % 5 == 4 && length > 0 {
                length -= 1;
                Edit::Delete((number * 7) % (length + 1))
            } else {
                length += 1;
                Edit::Insert((number * 13) % length, char::from(b'a' + (number % 26) as u8))
            }
        };
        (0..count).map(step).collect()
    }

    #[test]
    fn every_prefix_as_a_document_holds_the_text_of_its_edits() {
        let (edits, cache) = (edits(300), std::env::temp_dir().join("tributary-load-script"));
        let _ = fs::remove_dir_all(&cache);
        let (automerge, yjs) = (
            AutomergeScript::prepare(&edits, &cache).expect("changes"),
            YjsScript::prepare(&edits, &cache).expect("updates"),
        );
        for length in [1, 4, 5, 120, 300] {
            let text = text_after(&edits[..length]);
            let saved = automerge.document(length).expect("a document");
            let document = Automerge::load(&saved).expect("a document");
            assert_eq!(automerge_text(&document).as_ref(), Ok(&text));
            assert_eq!(automerge.position(&document.get_heads()[0].0), Some(length - 1));

            let state = yjs.state(length).expect("a state");
            let document = Doc::new();
            let text_of = document.get_or_insert_text(TEXT);
            let update = Update::decode_v1(&state).expect("an update");
            document.transact_mut().apply_update(update).expect("it applies");
            assert_eq!(text_of.get_string(&document.transact()), text);
            let coverage = Coverage::of(&state).expect("an update");
            assert_eq!(yjs.advance(0, &coverage), length, "the state covers exactly the prefix");
        }
        let from_cache = AutomergeScript::prepare(&edits, &cache).expect("the cache");
        assert_eq!(from_cache.hashes, automerge.hashes);
        let _ = fs::remove_dir_all(&cache);
    }

    #[test]
    fn typists_type_different_things_that_apply() {
        let edits = edits(500);
        let script = |number| {
            let typed = elsewhere(&edits, number, 120);
            AutomergeScript::typed(&typed, &actor(number), 0.2).expect("changes")
        };
        let (one, other) = (script(1), script(2));
        assert_eq!(one.hashes.len(), 120);
        assert_ne!(one.text(120), other.text(120));
        assert!(one.hashes.iter().all(|hash| other.position(hash).is_none()));
        assert_eq!(one.text(120).map(|text| text.is_empty()), Ok(false));
    }

    #[test]
    fn merged_updates_count_as_each_of_them() {
        let (edits, cache) = (edits(60), std::env::temp_dir().join("tributary-load-merged"));
        let _ = fs::remove_dir_all(&cache);
        let script = YjsScript::prepare(&edits, &cache).expect("updates");
        let part: Vec<&[u8]> = (20..45).map(|at| script.update(at)).collect();
        let merged = yrs::merge_updates_v1(part).expect("a merged update");
        let coverage = Coverage::of(&merged).expect("an update");
        assert_eq!(script.advance(20, &coverage), 45);
        assert_eq!(script.advance(19, &coverage), 19, "a gap is not skipped");
        let _ = fs::remove_dir_all(&cache);
    }
}
