//! The directory as bytes, for the store.
//!
//! ```text
//! version ‖ actors ‖ keys ‖ objects ‖ per actor: runs
//! ```
//! Every list has its length in front, every number is a LEB128. A run is `gap to the run before ‖
//! length · 8 + kind ‖ object ‖ place`, a reference to an operation its actor and how far its counter
//! lies from the run's.

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use model::ActorId;

use super::run::{At, OpId, Run};
use super::{Directory, Object};
use crate::chunk::ObjectKind;

/// The version of the format that this code writes, and the only one that it reads.
const VERSION: u8 = 1;

/// Why bytes are not a directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// Written by another version. A directory can be made again from the changes.
    #[error("an operation directory of version {0}; this program knows version {VERSION}")]
    Version(u8),
    /// Not what [`Directory::encode`] wrote.
    #[error("an operation directory that is damaged")]
    Damaged,
}

impl Directory {
    /// The directory as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        number(&mut bytes, self.actors.len() as u64);
        self.actors.iter().for_each(|actor| text(&mut bytes, actor.as_bytes()));
        number(&mut bytes, self.keys.len() as u64);
        self.keys.iter().for_each(|key| text(&mut bytes, key.as_bytes()));
        number(&mut bytes, self.objects.len() as u64 - 1);
        for object in &self.objects[1..] {
            number(&mut bytes, u64::from(object.id.actor));
            number(&mut bytes, u64::from(object.id.counter));
            number(&mut bytes, u64::from(object.depth) << 2 | kind_number(object.kind));
        }
        for runs in &self.runs {
            number(&mut bytes, runs.len() as u64);
            let mut end = 0;
            for run in runs {
                number(&mut bytes, u64::from(run.start - end));
                end = run.end();
                encode_run(&mut bytes, run);
            }
        }
        bytes
    }

    /// The directory that [`Directory::encode`] made these bytes of.
    ///
    /// # Errors
    /// When it did not.
    pub fn decode(bytes: &[u8]) -> Result<Self, DirectoryError> {
        let (&version, rest) = bytes.split_first().ok_or(DirectoryError::Damaged)?;
        if version != VERSION {
            return Err(DirectoryError::Version(version));
        }
        let mut reader = Reader(rest);
        reader.directory().filter(|_| reader.0.is_empty()).ok_or(DirectoryError::Damaged)
    }
}

fn encode_run(bytes: &mut Vec<u8>, run: &Run) {
    let (kind, place) = match run.at {
        At::Key(key) => (0, Err(key)),
        At::List => (1, Err(0)),
        At::Text(after) => (2, Ok(after)),
        At::MarkBegin(after) => (3, Ok(after)),
        At::MarkEnd(after) => (4, Ok(after)),
        At::Element(element) => (5, Ok(element)),
        At::Elements(element) => (6, Ok(element)),
    };
    number(bytes, u64::from(run.length) << 3 | kind);
    number(bytes, u64::from(run.object));
    match place {
        Err(_) if kind == 1 => {}
        Err(key) => number(bytes, u64::from(key)),
        // Nobody refers forward, so the difference is small; 0 instead of an actor is the head.
        Ok(OpId::HEAD) => number(bytes, 0),
        Ok(op) => {
            number(bytes, u64::from(op.actor) + 1);
            number(bytes, u64::from(run.start.wrapping_sub(op.counter)));
        }
    }
}

fn kind_number(kind: ObjectKind) -> u64 {
    match kind {
        ObjectKind::Map => 0,
        ObjectKind::List => 1,
        ObjectKind::Text => 2,
        ObjectKind::Table => 3,
    }
}

fn number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn text(bytes: &mut Vec<u8>, text: &[u8]) {
    number(bytes, text.len() as u64);
    bytes.extend_from_slice(text);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for (at, &byte) in self.0.iter().enumerate().take(9) {
            number |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.0 = &self.0[at + 1..];
                return Some(number);
            }
        }
        None
    }

    fn small(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?.try_into().ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text)
    }

    fn directory(&mut self) -> Option<Directory> {
        let mut directory = Directory {
            actors: Vec::new(),
            actor_numbers: HashMap::new(),
            keys: Vec::new(),
            key_numbers: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            ..Directory::new()
        };
        for at in 0..self.number()? {
            let actor = ActorId::new(self.text()?).ok()?;
            if u64::from(directory.add_actor(&actor)) != at {
                return None;
            }
        }
        for _ in 0..self.number()? {
            let key = std::str::from_utf8(self.text()?).ok()?;
            if directory.key_number(key).is_some() {
                return None;
            }
            directory.add_key(key);
        }
        for _ in 0..self.number()? {
            let object = self.object(&directory)?;
            directory.add_object(object);
        }
        for actor in 0..directory.actors.len() {
            let count = self.number()?;
            let mut runs: Vec<Run> = Vec::with_capacity(count.min(self.0.len() as u64) as usize);
            let mut end = 0;
            for _ in 0..count {
                let run = self.run(end, &directory)?;
                end = run.end();
                runs.push(run);
            }
            directory.runs[actor] = runs;
        }
        Some(directory)
    }

    fn object(&mut self, directory: &Directory) -> Option<Object> {
        let (actor, counter, rest) = (self.small()?, self.small()?, self.number()?);
        let id = OpId { counter, actor };
        let known = counter > 0 && (actor as usize) < directory.actors.len();
        let kind = [ObjectKind::Map, ObjectKind::List, ObjectKind::Text, ObjectKind::Table]
            [(rest & 0b11) as usize];
        let depth = (rest >> 2).try_into().ok()?;
        (known && !directory.object_numbers.contains_key(&id)).then_some(Object { id, kind, depth })
    }

    fn run(&mut self, end: u32, directory: &Directory) -> Option<Run> {
        let start = end.checked_add(self.small()?).filter(|start| *start > 0)?;
        let rest = self.number()?;
        let length: u32 = (rest >> 3).try_into().ok().filter(|length| *length > 0)?;
        start.checked_add(length)?;
        let object = self.small().filter(|object| (*object as usize) < directory.objects.len())?;
        let at = match rest & 0b111 {
            0 => At::Key(self.small().filter(|key| (*key as usize) < directory.keys.len())?),
            1 => At::List,
            2 => At::Text(self.op(start, directory)?),
            3 => At::MarkBegin(self.op(start, directory)?),
            4 => At::MarkEnd(self.op(start, directory)?),
            5 => At::Element(self.op(start, directory)?),
            6 => At::Elements(self.op(start, directory)?),
            _ => return None,
        };
        Some(Run { start, length, object, at })
    }

    fn op(&mut self, start: u32, directory: &Directory) -> Option<OpId> {
        let actor = self.small()?;
        if actor == 0 {
            return Some(OpId::HEAD);
        }
        let counter = start.wrapping_sub(self.small()?);
        let known = counter > 0 && actor as usize <= directory.actors.len();
        known.then_some(OpId { counter, actor: actor - 1 })
    }
}
