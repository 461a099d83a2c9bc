//! The operation directory: as much of a document's operations as judging the next change takes.
//!
//! Of each operation: the object, and the key, element or place in it. Of each object: kind and
//! depth. No values, and nothing of deletions and increments, to which nothing may refer. Alike
//! operations of one actor with successive counters are one entry (a run), so typing costs an
//! entry per jump of the cursor, and a deletion costs nothing.

mod draft;
mod encoding;
mod run;

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, Equivalent, HashMap, HashTable};
use model::ActorId;

use crate::chunk::{Change, ChunkError, ObjectKind};

pub(crate) use draft::Draft;
pub use encoding::DirectoryError;
use run::Run;
pub(crate) use run::{At, Entry, OpId};

/// An object of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Object {
    /// The operation that made it; the root has [`OpId::HEAD`].
    pub(crate) id: OpId,
    /// Its kind.
    pub(crate) kind: ObjectKind,
    /// How many objects it is inside of; the root is in none.
    pub(crate) depth: u32,
}

/// The number of the root map.
pub(crate) const ROOT: u32 = 0;

/// The operation directory of one document.
///
/// It holds what all recorded changes did. [`Directory::check`] judges a change against it, and
/// [`Directory::record`] adds one that was accepted.
#[derive(Debug, Clone)]
pub struct Directory {
    actors: Vec<ActorId>,
    actor_numbers: HashMap<ActorId, u32>,
    keys: Vec<Box<str>>,
    /// Numbers of keys by the hash of their text, which is stored once.
    key_numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
    objects: Vec<Object>,
    object_numbers: HashMap<OpId, u32>,
    /// Per actor, by counter.
    runs: Vec<Vec<Run>>,
}

impl Default for Directory {
    fn default() -> Self {
        Self::new()
    }
}

impl Directory {
    /// The directory of the empty document: nothing but the root map.
    pub fn new() -> Self {
        let root = Object { id: OpId::HEAD, kind: ObjectKind::Map, depth: 0 };
        Self {
            actors: Vec::new(),
            actor_numbers: HashMap::new(),
            keys: Vec::new(),
            key_numbers: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            objects: vec![root],
            object_numbers: HashMap::new(),
            runs: Vec::new(),
        }
    }

    /// Adds an accepted change. Changes may come in any causal order, each once.
    ///
    /// An operation that does not fit (possible only in a change that was neither checked nor
    /// verified) is left out, so that nothing later can refer to it.
    pub fn record(&mut self, change: &Change) {
        let recorded = self.try_record(change);
        // Every change has been read once before, with this very code.
        debug_assert_eq!(recorded, Ok(()));
    }

    fn try_record(&mut self, change: &Change) -> Result<(), ChunkError> {
        let body = change.body()?;
        let mut operations = change.read_operations(&body)?;
        let mut draft = Draft::new(self, operations.actors(), change.start_op());
        let mut last = (None, ROOT);
        while let Some(operation) = operations.next()? {
            if operation.object != last.0 {
                let number = match operation.object {
                    None => Some(ROOT),
                    Some(made) => draft.id(made).and_then(|id| draft.object_number(id)),
                };
                let Some(number) = number else { continue };
                last = (operation.object, number);
            }
            draft.place(&operation, last.1);
        }
        let (runs, objects, keys) = (draft.runs, draft.objects, draft.keys);
        let author = self.add_actor(change.actor()) as usize;
        keys.into_iter().for_each(|key| self.add_key(key));
        objects.into_iter().for_each(|object| self.add_object(object));
        for run in runs {
            self.add_run(author, run);
        }
        Ok(())
    }

    /// The memory that the directory holds, in bytes, nearly.
    pub fn memory_bytes(&self) -> usize {
        let runs: usize = self.runs.iter().map(Vec::capacity).sum();
        let actors: usize = self.actors.iter().map(|actor| actor.as_bytes().len() + 16).sum();
        size_of::<Self>()
            + runs * size_of::<Run>()
            + self.runs.capacity() * size_of::<Vec<Run>>()
            + actors
            + self.actors.capacity() * size_of::<ActorId>()
            + self.actor_numbers.allocation_size()
            + self.keys.iter().map(|key| key.len()).sum::<usize>()
            + self.keys.capacity() * size_of::<Box<str>>()
            + self.key_numbers.allocation_size()
            + self.objects.capacity() * size_of::<Object>()
            + self.object_numbers.allocation_size()
    }

    /// How many entries the operations compressed to.
    pub fn entries(&self) -> usize {
        self.runs.iter().map(Vec::len).sum()
    }

    fn actor_number(&self, actor: &[u8]) -> Option<u32> {
        self.actor_numbers.get(&ActorBytes(actor)).copied()
    }

    fn add_actor(&mut self, actor: &ActorId) -> u32 {
        let next = self.actors.len() as u32;
        let number = *self.actor_numbers.entry_ref(actor).or_insert(next);
        if number == next {
            self.actors.push(actor.clone());
            self.runs.push(Vec::new());
        }
        number
    }

    fn key_number(&self, key: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        self.key_numbers.find(hash, |number| &*self.keys[*number as usize] == key).copied()
    }

    fn add_key(&mut self, key: &str) {
        let Self { keys, key_numbers, hasher, .. } = self;
        let number = keys.len() as u32;
        keys.push(key.into());
        let hash = |number: &u32| hasher.hash_one(&*keys[*number as usize]);
        key_numbers.insert_unique(hasher.hash_one(key), number, hash);
    }

    fn add_object(&mut self, object: Object) {
        self.object_numbers.insert(object.id, self.objects.len() as u32);
        self.objects.push(object);
    }

    fn add_run(&mut self, actor: usize, run: Run) {
        let runs = &mut self.runs[actor];
        if runs.last().is_some_and(|last| run.start < last.end()) {
            // Not in causal order: left out, like all that does not fit.
            return;
        }
        if !runs.last_mut().is_some_and(|last| last.join(&run, actor as u32)) {
            runs.push(run);
        }
    }
}

impl PartialEq for Directory {
    fn eq(&self, other: &Self) -> bool {
        // The rest are indexes over these.
        (&self.actors, &self.keys, &self.objects, &self.runs)
            == (&other.actors, &other.keys, &other.objects, &other.runs)
    }
}

impl Eq for Directory {}

/// The bytes of an actor id that nobody has made an [`ActorId`] of; hashes as one.
#[derive(Hash)]
struct ActorBytes<'a>(&'a [u8]);

impl Equivalent<ActorId> for ActorBytes<'_> {
    fn equivalent(&self, actor: &ActorId) -> bool {
        self.0 == actor.as_bytes()
    }
}
