//! The structural check: does a change fit the document, as far as Automerge will ever notice?
//!
//! `automerge::Change::from_bytes` takes a change that edits an object which does not exist;
//! applying it panics, in a server and in every browser that is sent it. Other misfits apply, and
//! then no saved copy of the document loads any more. So each operation is held against the
//! [`Directory`] before the change is stored or told to anybody. The cost depends on the size of
//! the change only (and, for marks, on how often the cursor jumped; see the bound in `order`).

mod misfit;
mod order;

use crate::chunk::{Action, Change, Key, ObjectKind, OpRef, Operation};
use crate::directory::{At, Directory, Draft, Entry, OpId, ROOT};

pub use misfit::{Fault, Misfit};
use model::ActorId;

/// What the change being checked was made on top of.
pub trait Ancestry {
    /// Whether the operation that `actor` made with this counter, if there is one, belongs to an
    /// ancestor of the change. Present is not enough: Automerge applies a change when its
    /// dependencies are there, and panics when what it refers to then is not.
    fn covers(&self, actor: &ActorId, counter: u64) -> bool;
}

/// What the check says about a change that is not a [`Misfit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It applies, saves, loads and reads, wherever its ancestors are.
    Fits,
    /// Only the CRDT can tell, for this reason ([`NOT_CANONICAL`] or [`MARK_ORDER`]); to be verified
    /// before anybody hears of it.
    NeedsCrdt(&'static str),
}

/// Automerge would encode the change differently, which changes its hash whenever it saves.
pub const NOT_CANONICAL: &str = "the change is not in canonical form";

/// Whether a mark ends after it begins would take too long to find out here.
pub const MARK_ORDER: &str = "the change marks a text that was edited in very many places";

/// How deep objects may lie in each other.
///
/// Reading a document recurses once per level: in clients, in their WebAssembly stack of 1 MiB.
/// Automerge 0.12 took 8 KB a level when measured. People nest by tens.
pub const OBJECT_DEPTH_MAX: u32 = 100;

/// The greatest counter that an operation may have. Automerge counts in 32 bits, and every honest
/// edit panics when they are used up.
pub const COUNTER_MAX: u64 = 1 << 31;

impl Directory {
    /// Whether `change` fits what is recorded here.
    ///
    /// What concerns the graph is taken for granted: dependencies present, the slot of its sequence
    /// number free and the one before it an ancestor, its first counter above those of all
    /// ancestors. `ancestry` must know all ancestors, and all of them must be recorded.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn check(&self, change: &Change, ancestry: &impl Ancestry) -> Result<Verdict, Misfit> {
        if change.seq() == 0 {
            return Err(Misfit::SequenceZero);
        }
        if change.has_author_footer() && change.seq() > 1 {
            return Err(Misfit::LateAuthor { seq: change.seq() });
        }
        if change.max_op().max(change.start_op()) > COUNTER_MAX {
            return Err(Misfit::CounterTooLarge { max_op: change.max_op() });
        }
        let body = change.body()?;
        let mut operations = change.read_operations(&body)?;
        let mut check = Check {
            draft: Draft::new(self, operations.actors(), change.start_op()),
            actors: operations.actors().map(Actor::Unread).collect(),
            ancestry,
            covered: None,
            object: None,
            doubt: None,
        };
        while let Some(operation) = operations.next()? {
            check
                .operation(&operation)
                .map_err(|fault| Misfit::Operation { counter: operation.counter, fault })?;
        }
        let doubt = check.doubt;
        if operations.unused_actors().next().is_some() {
            return Err(Misfit::UnusedActor);
        }
        Ok(match doubt {
            _ if !operations.is_canonical() => Verdict::NeedsCrdt(NOT_CANONICAL),
            Some(doubt) => Verdict::NeedsCrdt(doubt),
            None => Verdict::Fits,
        })
    }
}

/// An actor of the change's table, looked at when it is first needed.
enum Actor<'a> {
    Unread(&'a [u8]),
    Read(ActorId),
}

/// The check of one change, operation by operation.
struct Check<'d, 'a, A> {
    draft: Draft<'d, 'a>,
    actors: Vec<Actor<'a>>,
    ancestry: &'d A,
    /// The last reference that was found covered: neighbours tend to share it.
    covered: Option<OpRef>,
    /// The last object that was looked up, and its number.
    object: Option<(Option<OpRef>, u32)>,
    doubt: Option<&'static str>,
}

impl<'a, A: Ancestry> Check<'_, 'a, A> {
    fn operation(&mut self, operation: &Operation<'a, '_>) -> Result<(), Fault> {
        let object = self.find_object(operation)?;
        let (kind, depth) = {
            let object = self.draft.object(object);
            (object.kind, object.depth)
        };
        match kind {
            ObjectKind::Map => self.in_map(operation)?,
            ObjectKind::List | ObjectKind::Text => self.in_sequence(operation, object)?,
            ObjectKind::Table => return Err(Fault::InTable),
        }
        match operation.action {
            Action::Make(_) if depth >= OBJECT_DEPTH_MAX => return Err(Fault::TooDeep),
            Action::MarkBegin | Action::MarkEnd
                if kind != ObjectKind::Text || !operation.insert =>
            {
                return Err(Fault::MarkOutsideText);
            }
            Action::Delete | Action::Increment if operation.insert => {
                return Err(Fault::InsertsNothing);
            }
            Action::Increment if kind == ObjectKind::Text => return Err(Fault::IncrementInText),
            Action::Delete if operation.predecessors.is_empty() => {
                return Err(Fault::DeletesNothing);
            }
            _ => {}
        }
        if operation.insert && !operation.predecessors.is_empty() {
            return Err(Fault::InsertReplaces);
        }
        self.predecessors(operation, object)?;
        self.draft.place(operation, object);
        if operation.action == Action::MarkEnd {
            self.mark_end(operation, object)?;
        }
        Ok(())
    }

    fn find_object(&mut self, operation: &Operation<'_, '_>) -> Result<u32, Fault> {
        if let Some((object, number)) = self.object
            && object == operation.object
        {
            return Ok(number);
        }
        let number = match operation.object {
            None => ROOT,
            Some(made) => {
                let id = self.reference(made, operation.counter, Fault::ObjectNotAncestor)?;
                self.draft.object_number(id).ok_or(Fault::ObjectUnknown)?
            }
        };
        self.object = Some((operation.object, number));
        Ok(number)
    }

    fn in_map(&mut self, operation: &Operation<'_, '_>) -> Result<(), Fault> {
        match operation.key {
            Key::Map(_) if operation.insert => Err(Fault::InsertInMap),
            Key::Map(_) => Ok(()),
            Key::Head | Key::Element(_) => Err(Fault::ElementInMap),
        }
    }

    fn in_sequence(&mut self, operation: &Operation<'_, '_>, object: u32) -> Result<(), Fault> {
        match operation.key {
            Key::Map(_) => Err(Fault::KeyInSequence),
            Key::Head if operation.insert => Ok(()),
            Key::Head => Err(Fault::UpdatesHead),
            Key::Element(element) => {
                let id = self.reference(element, operation.counter, Fault::ElementNotAncestor)?;
                match self.draft.entry(id) {
                    Some(entry) if entry.run.object == object && entry.is_insert() => {
                        match (operation.insert, is_mark(&entry)) {
                            (false, true) => Err(Fault::UpdatesMark),
                            _ => Ok(()),
                        }
                    }
                    _ => Err(Fault::ElementUnknown),
                }
            }
        }
    }

    fn predecessors(&mut self, operation: &Operation<'_, '_>, object: u32) -> Result<(), Fault> {
        let mut before: Option<OpId> = None;
        for &predecessor in operation.predecessors {
            let fault = Fault::PredecessorNotAncestor;
            let id = self.reference(predecessor, operation.counter, fault)?;
            if before.is_some_and(|before| self.draft.compare(before, id).is_ge()) {
                return Err(Fault::PredecessorsUnordered);
            }
            before = Some(id);
            let entry = self.draft.entry(id).ok_or(Fault::PredecessorUnknown)?;
            if entry.run.object != object || !self.is_same_place(operation, id, &entry) {
                return Err(Fault::PredecessorElsewhere);
            }
        }
        Ok(())
    }

    /// Whether a predecessor set the key or element that the operation sets.
    fn is_same_place(&self, operation: &Operation<'_, '_>, id: OpId, entry: &Entry<'_>) -> bool {
        match operation.key {
            Key::Map(key) => {
                matches!(entry.run.at, At::Key(number) if self.draft.key(number) == key)
            }
            Key::Head => false,
            Key::Element(element) => {
                let element = self.draft.id(element);
                element == entry.updated_element() || entry.is_insert() && element == Some(id)
            }
        }
    }

    /// A mark ends what the operation before it began, in the same text and after it.
    fn mark_end(&mut self, operation: &Operation<'_, '_>, object: u32) -> Result<(), Fault> {
        let end = OpId { counter: operation.counter as u32, actor: self.draft.author() };
        let begin = OpId { counter: end.counter - 1, ..end };
        match self.draft.entry(begin) {
            Some(entry)
                if entry.run.object == object && matches!(entry.run.at, At::MarkBegin(_)) => {}
            _ => return Err(Fault::EndWithoutBegin),
        }
        match order::compare(&self.draft, begin, end) {
            Some(std::cmp::Ordering::Less) => {}
            Some(_) => return Err(Fault::EndBeforeBegin),
            None => self.doubt = Some(MARK_ORDER),
        }
        Ok(())
    }

    /// The id that a reference means, if it is one of an ancestor or of this change so far.
    fn reference(&mut self, op: OpRef, counter: u64, fault: Fault) -> Result<OpId, Fault> {
        if u64::from(op.counter) >= counter {
            return Err(Fault::RefersForward);
        }
        let id = self.draft.id(op).ok_or(Fault::ActorUnknown)?;
        if self.draft.is_own(op) || self.covered == Some(op) {
            return Ok(id);
        }
        let actor = &mut self.actors[op.actor as usize];
        if let Actor::Unread(bytes) = actor {
            *actor = Actor::Read(ActorId::new(bytes).map_err(|_| Fault::ActorUnknown)?);
        }
        let Actor::Read(actor) = actor else { return Err(Fault::ActorUnknown) };
        if !self.ancestry.covers(actor, u64::from(op.counter)) {
            return Err(fault);
        }
        self.covered = Some(op);
        Ok(id)
    }
}

fn is_mark(entry: &Entry<'_>) -> bool {
    matches!(entry.run.at, At::MarkBegin(_) | At::MarkEnd(_))
}
