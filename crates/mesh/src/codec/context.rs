//! What both sides of a lane remember of the changes that it has carried.
//!
//! Both sides do the same with it in the same order, so that it is the same on both. It is bounded by
//! forgetting everything when a table is full.

use std::collections::BTreeMap;

use history::chunk::Change;
use history::varint::{self, Reader};
use model::{ActorId, ChangeHash, DocumentId};

use super::{CodecError, put_bytes, take_bytes};

/// How many documents are remembered. About 3 MiB.
const DOCUMENTS_MAX: usize = 16_384;
/// How many actors.
const ACTORS_MAX: usize = 16_384;
/// How many of the changes of a document that were carried last can be named as dependencies.
pub(super) const RECENT: usize = 4;
/// For how many writers of a document the next sequence number is foreseen.
const WRITERS: usize = 4;

#[derive(Default)]
pub(super) struct Context {
    documents: Table<DocumentId>,
    traits: Vec<Traits>,
    actors: Table<ActorId>,
    /// The time of the last change, whatever its document.
    pub(super) time: i64,
}

/// What is remembered of one document.
#[derive(Default)]
pub(super) struct Traits {
    /// The changes that were carried last, the newest first.
    pub(super) recent: [Option<ChangeHash>; RECENT],
    /// Who wrote last, the newest first, and each one's last sequence number.
    writers: Vec<(u64, u64)>,
    /// The highest operation counter so far.
    pub(super) max_op: u64,
    /// The other actors that the last elided change named.
    pub(super) others: Vec<u64>,
}

impl Traits {
    /// The number of the actor that wrote last.
    pub(super) fn actor(&self) -> Option<u64> {
        self.writers.first().map(|(actor, _)| *actor)
    }

    /// The sequence number that an actor is likely to use next.
    pub(super) fn next_seq(&self, actor: u64) -> u64 {
        let known = self.writers.iter().find(|(known, _)| *known == actor);
        known.map_or(1, |(_, seq)| seq.wrapping_add(1))
    }
}

impl Context {
    /// Writes a document's number, introducing it if need be. To be called first for each entry.
    pub(super) fn put_document(&mut self, out: &mut Vec<u8>, id: &DocumentId) -> usize {
        self.make_room();
        let at = self.documents.put(out, id, DocumentId::as_bytes);
        self.traits.resize_with(self.documents.items.len(), Traits::default);
        at as usize
    }

    /// Reads what [`Context::put_document`] wrote.
    pub(super) fn take_document(
        &mut self,
        reader: &mut Reader<'_>,
    ) -> Result<(usize, DocumentId), CodecError> {
        self.make_room();
        let parse = |bytes: &[u8]| DocumentId::from_bytes(bytes).ok();
        let at = self.documents.take(reader, parse)? as usize;
        self.traits.resize_with(self.documents.items.len(), Traits::default);
        Ok((at, self.documents.items[at].clone()))
    }

    pub(super) fn put_actor(&mut self, out: &mut Vec<u8>, id: &ActorId) -> u64 {
        self.actors.put(out, id, ActorId::as_bytes)
    }

    pub(super) fn take_actor(&mut self, reader: &mut Reader<'_>) -> Result<u64, CodecError> {
        self.actors.take(reader, |bytes| ActorId::new(bytes).ok())
    }

    /// The number of an actor that is known already.
    pub(super) fn known_actor(&self, id: &[u8]) -> Option<u64> {
        self.actors.numbers.get(id).copied()
    }

    /// The bytes of a numbered actor.
    pub(super) fn actor(&self, number: u64) -> Option<ActorId> {
        self.actors.items.get(usize::try_from(number).ok()?).cloned()
    }

    pub(super) fn traits(&mut self, document: usize) -> &mut Traits {
        &mut self.traits[document]
    }

    /// Remembers a change that was carried, in whichever form.
    pub(super) fn note(&mut self, document: usize, change: &Change) {
        let actor = self.actors.number_of(change.actor(), ActorId::as_bytes);
        self.time = change.time();
        let traits = &mut self.traits[document];
        traits.recent.rotate_right(1);
        traits.recent[0] = Some(change.hash());
        traits.writers.retain(|(known, _)| *known != actor);
        traits.writers.insert(0, (actor, change.seq()));
        traits.writers.truncate(WRITERS);
        traits.max_op = traits.max_op.max(change.max_op());
    }

    fn make_room(&mut self) {
        if self.documents.items.len() >= DOCUMENTS_MAX || self.actors.items.len() >= ACTORS_MAX {
            *self = Self { time: self.time, ..Self::default() };
        }
    }
}

/// Things with numbers, in the order in which they were met.
struct Table<T> {
    items: Vec<T>,
    numbers: BTreeMap<Box<[u8]>, u64>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { items: Vec::new(), numbers: BTreeMap::new() }
    }
}

impl<T: Clone> Table<T> {
    fn number_of(&mut self, item: &T, bytes: impl Fn(&T) -> &[u8]) -> u64 {
        if let Some(number) = self.numbers.get(bytes(item)) {
            return *number;
        }
        let number = self.items.len() as u64;
        self.numbers.insert(bytes(item).into(), number);
        self.items.push(item.clone());
        number
    }

    fn put(&mut self, out: &mut Vec<u8>, item: &T, bytes: impl Fn(&T) -> &[u8]) -> u64 {
        let known = self.items.len() as u64;
        let number = self.number_of(item, &bytes);
        if number < known {
            varint::put(out, number + 1);
        } else {
            out.push(0);
            put_bytes(out, bytes(item));
        }
        number
    }

    fn take(
        &mut self,
        reader: &mut Reader<'_>,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<u64, CodecError> {
        match reader.number()?.checked_sub(1) {
            Some(number) if number < self.items.len() as u64 => Ok(number),
            Some(_) => Err(CodecError::Malformed),
            None => {
                let bytes = take_bytes(reader)?;
                let item = parse(bytes).ok_or(CodecError::Malformed)?;
                let number = self.items.len() as u64;
                // Nobody introduces what was introduced.
                if self.numbers.insert(bytes.into(), number).is_some() {
                    return Err(CodecError::Malformed);
                }
                self.items.push(item);
                Ok(number)
            }
        }
    }
}
