//! What is remembered of one operation, and of many alike at once.

/// The id of an operation in a document: its counter and the directory's number of its actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct OpId {
    /// The Lamport counter; 0 for the head of a sequence, which no operation made.
    pub(crate) counter: u32,
    /// The directory's number of the actor.
    pub(crate) actor: u32,
}

impl OpId {
    /// The place before the first element of any sequence.
    pub(crate) const HEAD: Self = Self { counter: 0, actor: 0 };

    fn later(self, by: u32) -> Self {
        Self { counter: self.counter.wrapping_add(by), actor: self.actor }
    }
}

/// Where in its object an operation acted. In a run it is the first operation's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// At a key of a map, given by its number; all of a run at the same.
    Key(u32),
    /// Inserted into a list. Where does not matter.
    List,
    /// Inserted into a text after this element, and each of a run after the one before it.
    Text(OpId),
    /// The beginning of a mark, inserted into a text after this element. Runs of one.
    MarkBegin(OpId),
    /// The end of a mark, likewise.
    MarkEnd(OpId),
    /// An update of this element of a sequence; all of a run of the same.
    Element(OpId),
    /// Updates of this element and of those with the counters after it.
    Elements(OpId),
}

/// Operations of one actor with successive counters that a later change may refer to.
///
/// Deletions and increments are not here: nothing may refer to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// The counter of the first.
    pub(crate) start: u32,
    /// How many; at least one.
    pub(crate) length: u32,
    /// The number of the object they are in.
    pub(crate) object: u32,
    /// Where they are.
    pub(crate) at: At,
}

impl Run {
    /// One past the counter of the last.
    pub(crate) fn end(&self) -> u32 {
        self.start + self.length
    }

    /// Takes `next`, made by the same `actor`, into this run, if it goes on with it.
    pub(crate) fn join(&mut self, next: &Self, actor: u32) -> bool {
        if self.end() != next.start || self.object != next.object {
            return false;
        }
        let last = OpId { counter: self.end() - 1, actor };
        let joined = match (self.at, next.at) {
            (At::Key(key), At::Key(next)) if key == next => self.at,
            (At::List, At::List) => self.at,
            (At::Text(_), At::Text(after)) if after == last => self.at,
            (At::Element(element), At::Element(next)) if element == next => self.at,
            (At::Element(first), At::Element(second) | At::Elements(second))
                if self.length == 1 && second == first.later(1) =>
            {
                At::Elements(first)
            }
            (At::Elements(first), At::Element(second))
                if next.length == 1 && second == first.later(self.length) =>
            {
                self.at
            }
            (At::Elements(first), At::Elements(second)) if second == first.later(self.length) => {
                self.at
            }
            _ => return false,
        };
        self.at = joined;
        self.length += next.length;
        true
    }
}

/// One operation, as a run tells it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    /// The run it is in.
    pub(crate) run: &'a Run,
    /// Its place in the run.
    pub(crate) offset: u32,
}

impl Entry<'_> {
    /// Whether it made an element of a sequence.
    pub(crate) fn is_insert(&self) -> bool {
        matches!(self.run.at, At::List | At::Text(_) | At::MarkBegin(_) | At::MarkEnd(_))
    }

    /// The element that it updated, if it did.
    pub(crate) fn updated_element(&self) -> Option<OpId> {
        match self.run.at {
            At::Element(element) => Some(element),
            At::Elements(first) => Some(first.later(self.offset)),
            _ => None,
        }
    }
}

/// The operation with this counter in runs that are sorted by theirs.
pub(crate) fn find(runs: &[Run], counter: u32) -> Option<Entry<'_>> {
    // The newest are asked for most.
    let run = match runs.last() {
        Some(last) if last.start <= counter => last,
        _ => &runs[runs.partition_point(|run| run.start <= counter).checked_sub(1)?],
    };
    let offset = counter - run.start;
    (offset < run.length).then_some(Entry { run, offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(start: u32, at: At) -> Run {
        Run { start, length: 1, object: 1, at }
    }

    #[test]
    fn typing_and_filling_are_one_run_and_jumping_is_another() {
        let op = |counter| OpId { counter, actor: 4 };
        let mut typing = run(10, At::Text(op(3)));
        assert!(typing.join(&run(11, At::Text(op(10))), 4));
        assert!(!typing.join(&run(12, At::Text(op(10))), 4));
        assert!(!typing.join(&run(13, At::Text(op(12))), 4));
        assert_eq!(typing.length, 2);

        let mut filling = run(10, At::Element(op(1)));
        assert!(filling.join(&run(11, At::Element(op(2))), 4));
        assert!(filling.join(&run(12, At::Element(op(3))), 4));
        assert!(!filling.join(&run(13, At::Element(op(3))), 4));
        let runs = [filling];
        let entry = find(&runs, 12).unwrap();
        assert_eq!(entry.updated_element(), Some(op(3)));
        assert!(find(&runs, 13).is_none() && find(&runs, 9).is_none());
    }
}
