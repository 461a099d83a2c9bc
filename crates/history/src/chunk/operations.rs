//! The operations of a change, decoded one at a time from its columns.
//!
//! This reads what `automerge::Change::from_bytes` reads, without its costs: nothing is allocated
//! per operation, a run-length that claims more than the bound ends the reading, an actor index
//! outside the table is an error and not a panic.

use super::body::{Body, Column};
use super::column::{Booleans, Delta, Rle};
use super::cursor::Cursor;
use super::{ChunkError, Malformed};

/// The id of an operation inside one change: its counter, and the number of its actor in the
/// change's own table (0 is the author of the change).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpRef {
    /// The Lamport counter; never 0.
    pub counter: u32,
    /// An index into [`Operations::actors`]; never outside.
    pub actor: u32,
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Makes an object.
    Make(ObjectKind),
    /// Sets a value.
    Put,
    /// Deletes what its predecessors set.
    Delete,
    /// Adds to a counter.
    Increment,
    /// Begins a mark of rich text.
    MarkBegin,
    /// Ends the mark that the operation before it began.
    MarkEnd,
}

/// The kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// A map. The root is one.
    Map,
    /// A list.
    List,
    /// A text.
    Text,
    /// A table: a kind that Automerge never finished. Empty ones exist.
    Table,
}

/// Where in its object an operation acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key<'a> {
    /// A key of a map.
    Map(&'a str),
    /// Before the first element of a sequence.
    Head,
    /// An element of a sequence: after it (insert) or on it (update).
    Element(OpRef),
}

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation<'a, 'p> {
    /// Its Lamport counter. With the author of the change it is the operation's id.
    pub counter: u64,
    /// The object that it changes; `None` is the root map.
    pub object: Option<OpRef>,
    /// Where in the object.
    pub key: Key<'a>,
    /// Whether it makes a new element of a sequence.
    pub insert: bool,
    /// What it does.
    pub action: Action,
    /// What it replaces, in the order of the chunk.
    pub predecessors: &'p [OpRef],
}

/// Reads the operations of one change.
pub struct Operations<'a> {
    body: Body<'a>,
    next: u64,
    end: u64,
    predecessors: Vec<OpRef>,
    predecessors_left: u64,
    columns: Columns<'a>,
    used_actors: Vec<bool>,
    canonical: bool,
}

struct Columns<'a> {
    object_actor: Rle<'a, u64>,
    object_counter: Rle<'a, u64>,
    key_actor: Rle<'a, u64>,
    key_counter: Delta<'a>,
    key_text: Rle<'a, &'a str>,
    insert: Booleans<'a>,
    action: Rle<'a, u64>,
    value_meta: Rle<'a, u64>,
    value: Cursor<'a>,
    predecessor_count: Rle<'a, u64>,
    predecessor_actor: Rle<'a, u64>,
    predecessor_counter: Delta<'a>,
    expand: Booleans<'a>,
    mark_name: Rle<'a, &'a str>,
}

impl<'a> Operations<'a> {
    /// A reader of at most `operations_max` operations with as many predecessors.
    pub(super) fn new(body: Body<'a>, operations_max: u64) -> Result<Self, ChunkError> {
        let count = Rle::<u64>::new(body.column(Column::Action)).count(operations_max)?;
        let (mut object_actor, mut object_counter) =
            (body.column(Column::ObjectActor), body.column(Column::ObjectCounter));
        // With one of the pair missing Automerge takes the root everywhere.
        let object_half = object_actor.is_empty() != object_counter.is_empty();
        if object_half {
            (object_actor, object_counter) = (&[], &[]);
        }
        let columns = Columns {
            object_actor: Rle::new(object_actor),
            object_counter: Rle::new(object_counter),
            key_actor: Rle::new(body.column(Column::KeyActor)),
            key_counter: Delta::new(body.column(Column::KeyCounter)),
            key_text: Rle::new(body.column(Column::KeyText)),
            insert: Booleans::new(body.column(Column::Insert)),
            action: Rle::new(body.column(Column::Action)),
            value_meta: Rle::new(body.column(Column::ValueMeta)),
            value: Cursor::new(body.column(Column::Value)),
            predecessor_count: Rle::new(body.column(Column::PredecessorCount)),
            predecessor_actor: Rle::new(body.column(Column::PredecessorActor)),
            predecessor_counter: Delta::new(body.column(Column::PredecessorCounter)),
            expand: Booleans::new(body.column(Column::Expand)),
            mark_name: Rle::new(body.column(Column::MarkName)),
        };
        Ok(Self {
            next: body.start_op,
            end: body.start_op + count,
            predecessors: Vec::new(),
            predecessors_left: operations_max,
            columns,
            used_actors: vec![false; body.other_actors.len()],
            canonical: body.columns_canonical && !object_half,
            body,
        })
    }

    /// How many operations the change has.
    pub fn count(&self) -> u64 {
        self.end - self.body.start_op
    }

    /// The actors that [`OpRef::actor`] counts: the author of the change, then the others.
    pub fn actors(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        std::iter::once(self.body.actor).chain(self.body.other_actors.iter().copied())
    }

    /// The next operation, `None` after the last.
    ///
    /// # Errors
    /// When the columns do not hold one. A change that came out of
    /// [`read_chunks`](super::read_chunks) never errs here.
    #[expect(clippy::should_implement_trait, reason = "it lends its predecessors")]
    pub fn next(&mut self) -> Result<Option<Operation<'a, '_>>, ChunkError> {
        if self.next == self.end {
            return Ok(None);
        }
        let counter = self.next;
        self.next += 1;
        let object = self.object()?;
        let key = self.key()?;
        let insert = self.columns.insert.next()?.ok_or(Malformed::NullIn("insert"))?;
        let action = self.columns.action.next_or_null()?.ok_or(Malformed::NullIn("action"))?;
        let value = self.value()?;
        self.read_predecessors()?;
        let expand = self.columns.expand.next()?.unwrap_or(false);
        let mark_name = self.columns.mark_name.next_or_null()?;

        let is_null = matches!(value, Value::Null);
        // What the encoder would have written with such an operation.
        let (action, canonical) = match action {
            0 => (Action::Make(ObjectKind::Map), is_null),
            1 => (Action::Put, true),
            2 => (Action::Make(ObjectKind::List), is_null),
            3 => (Action::Delete, is_null),
            4 => (Action::Make(ObjectKind::Text), is_null),
            5 => match value {
                Value::Signed => (Action::Increment, true),
                Value::Unsigned => (Action::Increment, false),
                _ => return Err(Malformed::IncrementByNoNumber.into()),
            },
            6 => (Action::Make(ObjectKind::Table), is_null),
            7 if mark_name.is_some() => (Action::MarkBegin, true),
            7 => (Action::MarkEnd, is_null),
            unknown => return Err(Malformed::UnknownAction(unknown).into()),
        };
        let is_mark = matches!(action, Action::MarkBegin | Action::MarkEnd);
        self.canonical &= canonical && (is_mark || !expand && mark_name.is_none());
        Ok(Some(Operation {
            counter,
            object,
            key,
            insert,
            action,
            predecessors: &self.predecessors,
        }))
    }

    /// Whether Automerge, encoding what it decoded, writes the very same bytes.
    ///
    /// It does so whenever it saves a document, and the hash is of the bytes: a change in any other
    /// form may make the saved document unreadable. Says nothing before all operations are read.
    pub fn is_canonical(&self) -> bool {
        let columns = &self.columns;
        debug_assert_eq!(self.next, self.end, "asked before all operations were read");
        self.canonical
            && columns.object_actor.ends_canonically()
            && columns.object_counter.ends_canonically()
            && columns.key_actor.ends_canonically()
            && columns.key_counter.ends_canonically()
            && columns.key_text.ends_canonically()
            && columns.insert.ends_canonically()
            && columns.action.ends_canonically()
            && columns.value_meta.ends_canonically()
            && columns.value.is_empty()
            && columns.predecessor_count.ends_canonically()
            && columns.predecessor_actor.ends_canonically()
            && columns.predecessor_counter.ends_canonically()
            && columns.expand.ends_canonically_or_absent()
            && columns.mark_name.ends_canonically()
            && self.body.dependencies.is_sorted()
            && self.used_actors.iter().all(|used| *used)
            && self.body.other_actors.is_sorted_by(|a, b| a < b)
            && !self.body.other_actors.contains(&self.body.actor)
    }

    /// The actors of the table that no operation refers to. Says nothing before all are read.
    pub fn unused_actors(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        let unused = self.used_actors.iter().map(|used| !used);
        self.body
            .other_actors
            .iter()
            .zip(unused)
            .filter_map(|(actor, unused)| unused.then_some(*actor))
    }

    fn object(&mut self) -> Result<Option<OpRef>, Malformed> {
        let actor = self.columns.object_actor.next_or_null()?;
        match (actor, self.columns.object_counter.next_or_null()?) {
            (None, None) => Ok(None),
            // Automerge reads counter 0 as the root, and writes nulls for it.
            (_, Some(0)) => {
                self.canonical = false;
                Ok(None)
            }
            (Some(actor), Some(counter)) => Ok(Some(self.op_ref(counter, actor)?)),
            _ => Err(Malformed::NullIn("object")),
        }
    }

    fn key(&mut self) -> Result<Key<'a>, Malformed> {
        let actor = self.columns.key_actor.next_or_null()?;
        let counter = self.columns.key_counter.next_or_null()?;
        let text = self.columns.key_text.next_or_null()?;
        match (actor, counter, text) {
            (None, None, Some(text)) => Ok(Key::Map(text)),
            (None, Some(0), None) => Ok(Key::Head),
            (Some(actor), Some(counter), None) => {
                let counter = u64::try_from(counter).map_err(|_| Malformed::Counter)?;
                Ok(Key::Element(self.op_ref(counter, actor)?))
            }
            _ => Err(Malformed::Key),
        }
    }

    fn read_predecessors(&mut self) -> Result<(), ChunkError> {
        self.predecessors.clear();
        let count = self.columns.predecessor_count.next_or_null()?;
        let count = count.ok_or(Malformed::NullIn("predecessor count"))?;
        self.predecessors_left = self
            .predecessors_left
            .checked_sub(count)
            .ok_or(ChunkError::TooManyOperations { at_least: count })?;
        for _ in 0..count {
            let actor = self.columns.predecessor_actor.next_or_null()?;
            let counter = self.columns.predecessor_counter.next_or_null()?;
            let (Some(actor), Some(counter)) = (actor, counter) else {
                return Err(Malformed::NullIn("predecessor").into());
            };
            let counter = u64::try_from(counter).map_err(|_| Malformed::Counter)?;
            let predecessor = self.op_ref(counter, actor)?;
            self.predecessors.push(predecessor);
        }
        Ok(())
    }

    fn op_ref(&mut self, counter: u64, actor: u64) -> Result<OpRef, Malformed> {
        let counter = u32::try_from(counter).map_err(|_| Malformed::Counter)?;
        let index = usize::try_from(actor).map_err(|_| Malformed::ActorIndex)?;
        if counter == 0 {
            return Err(Malformed::Counter);
        }
        if index > 0 {
            *self.used_actors.get_mut(index - 1).ok_or(Malformed::ActorIndex)? = true;
        }
        Ok(OpRef { counter, actor: index as u32 })
    }

    /// Reads a value, as strictly as Automerge does.
    fn value(&mut self) -> Result<Value, Malformed> {
        let meta = self.columns.value_meta.next_or_null()?.ok_or(Malformed::NullIn("value"))?;
        let kind = meta & 0xf;
        let length = usize::try_from(meta >> 4).map_err(|_| Malformed::EndsEarly)?;
        if kind <= 2 {
            // Null, false and true: Automerge ignores their length, and writes none.
            self.canonical &= length == 0;
            return Ok(if kind == 0 { Value::Null } else { Value::Other });
        }
        let mut value = Cursor::new(self.columns.value.take(length)?);
        let kind = match kind {
            3 => {
                value.strict()?;
                Value::Unsigned
            }
            4 | 8 | 9 => {
                value.strict_signed()?;
                if kind == 4 { Value::Signed } else { Value::Other }
            }
            5 if length != 8 => return Err(Malformed::Float),
            6 if std::str::from_utf8(value.rest()).is_err() => return Err(Malformed::NotUtf8),
            _ => return Ok(Value::Other),
        };
        if value.is_empty() { Ok(kind) } else { Err(Malformed::ValueLength) }
    }
}

/// As much of a value as matters here.
enum Value {
    Null,
    Unsigned,
    Signed,
    Other,
}
