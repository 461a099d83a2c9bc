//! What one change adds to a directory, before it is added.

use hashbrown::HashMap;

use super::run::{At, Entry, OpId, Run, find};
use super::{Directory, Object};
use crate::chunk::{Action, Key, ObjectKind, OpRef, Operation};

/// The operations of a change on top of a directory. What is new has the numbers that it will have.
pub(crate) struct Draft<'d, 'a> {
    directory: &'d Directory,
    start: u64,
    author: &'a [u8],
    /// The directory's numbers for the actors of the change; the author always has one.
    actors: Vec<Option<u32>>,
    pub(super) runs: Vec<Run>,
    pub(super) objects: Vec<Object>,
    pub(super) keys: Vec<&'a str>,
    key_numbers: HashMap<&'a str, u32>,
}

impl<'d, 'a> Draft<'d, 'a> {
    /// Nothing yet, for a change with these actors (its author first) that starts at `start`.
    pub(crate) fn new(
        directory: &'d Directory,
        actors: impl Iterator<Item = &'a [u8]>,
        start: u64,
    ) -> Self {
        let mut author = None;
        let mut numbers = Vec::with_capacity(actors.size_hint().0);
        for actor in actors {
            author.get_or_insert(actor);
            numbers.push(directory.actor_number(actor));
        }
        numbers[0].get_or_insert(directory.actors.len() as u32);
        Self {
            directory,
            start,
            author: author.expect("the author comes first"),
            actors: numbers,
            runs: Vec::new(),
            objects: Vec::new(),
            keys: Vec::new(),
            key_numbers: HashMap::new(),
        }
    }

    /// The number of the author.
    pub(crate) fn author(&self) -> u32 {
        self.actors[0].expect("set in new")
    }

    /// Whether a reference is to an operation of the change itself, or would be if there were one.
    pub(crate) fn is_own(&self, op: OpRef) -> bool {
        op.actor == 0 && u64::from(op.counter) >= self.start
    }

    /// The id that a reference means, unless the directory never heard of the actor.
    pub(crate) fn id(&self, op: OpRef) -> Option<OpId> {
        let actor = self.actors[op.actor as usize]?;
        Some(OpId { counter: op.counter, actor })
    }

    /// An operation of the change so far, or of the directory.
    pub(crate) fn entry(&self, id: OpId) -> Option<Entry<'_>> {
        if id.actor == self.author() && u64::from(id.counter) >= self.start {
            find(&self.runs, id.counter)
        } else {
            find(self.directory.runs.get(id.actor as usize)?, id.counter)
        }
    }

    /// The number of the object that this operation made.
    pub(crate) fn object_number(&self, id: OpId) -> Option<u32> {
        if id.actor == self.author() && u64::from(id.counter) >= self.start {
            let at = self.objects.binary_search_by_key(&id.counter, |object| object.id.counter);
            Some((self.directory.objects.len() + at.ok()?) as u32)
        } else {
            self.directory.object_numbers.get(&id).copied()
        }
    }

    /// An object by its number.
    pub(crate) fn object(&self, number: u32) -> &Object {
        let number = number as usize;
        let old = &self.directory.objects;
        old.get(number).unwrap_or_else(|| &self.objects[number - old.len()])
    }

    /// The text of a key.
    pub(crate) fn key(&self, number: u32) -> &str {
        let number = number as usize;
        match self.directory.keys.get(number) {
            Some(key) => key,
            None => self.keys[number - self.directory.keys.len()],
        }
    }

    /// Which of two operations Automerge sorts first: by counter, then by the bytes of the actor.
    pub(crate) fn compare(&self, a: OpId, b: OpId) -> std::cmp::Ordering {
        a.counter.cmp(&b.counter).then_with(|| self.actor(a.actor).cmp(self.actor(b.actor)))
    }

    fn actor(&self, number: u32) -> &[u8] {
        // Only the author can be unknown so far.
        self.directory.actors.get(number as usize).map_or(self.author, |actor| actor.as_bytes())
    }

    /// Remembers an operation in an object. What does not belong there is not remembered, so that
    /// nothing can refer to it.
    pub(crate) fn place(&mut self, operation: &Operation<'a, '_>, object: u32) {
        let Ok(start) = u32::try_from(operation.counter) else { return };
        let Object { kind, depth, .. } = *self.object(object);
        let Some(at) = self.at(operation, kind) else { return };
        if let Action::Make(kind) = operation.action {
            let id = OpId { counter: start, actor: self.author() };
            self.objects.push(Object { id, kind, depth: depth.saturating_add(1) });
        }
        let run = Run { start, length: 1, object, at };
        let author = self.author();
        if !self.runs.last_mut().is_some_and(|last| last.join(&run, author)) {
            self.runs.push(run);
        }
    }

    fn at(&mut self, operation: &Operation<'a, '_>, kind: ObjectKind) -> Option<At> {
        match operation.action {
            Action::Delete | Action::Increment => return None,
            Action::MarkBegin | Action::MarkEnd if kind != ObjectKind::Text => return None,
            _ => {}
        }
        let element = match operation.key {
            Key::Map(key) => {
                return (kind == ObjectKind::Map).then(|| At::Key(self.key_number(key)));
            }
            Key::Head => OpId::HEAD,
            Key::Element(element) => self.id(element)?,
        };
        Some(match (operation.insert, operation.action, kind) {
            (true, Action::MarkBegin, ObjectKind::Text) => At::MarkBegin(element),
            (true, Action::MarkEnd, ObjectKind::Text) => At::MarkEnd(element),
            (true, _, ObjectKind::Text) => At::Text(element),
            (true, _, ObjectKind::List) => At::List,
            (false, Action::Put | Action::Make(_), ObjectKind::List | ObjectKind::Text) => {
                At::Element(element)
            }
            _ => return None,
        })
    }

    fn key_number(&mut self, key: &'a str) -> u32 {
        if let Some(number) = self.directory.key_number(key) {
            return number;
        }
        let next = (self.directory.keys.len() + self.keys.len()) as u32;
        let number = *self.key_numbers.entry(key).or_insert(next);
        if number == next {
            self.keys.push(key);
        }
        number
    }
}
