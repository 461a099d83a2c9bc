//! Which of two elements of a text comes first, from the directory alone.
//!
//! A text is a tree: each element hangs on the one that it was inserted after, and the text is the
//! tree in preorder, children with the later operation first. Elements that others insert, now or
//! later, do not change the order of two that are there, so the answer holds everywhere for ever.

use std::cmp::Ordering;

use crate::directory::{At, Draft, OpId};

/// How many jumps of the cursor are followed up the tree before the question is left to the CRDT.
/// A step takes about 50 ns: half a millisecond in all.
const STEPS_MAX: usize = 10_000;

/// A place in the tree: an element of a run, and the child it was reached from on the way up.
#[derive(Clone, Copy)]
struct Place {
    /// The first element of the run; the head is a run by itself.
    run: OpId,
    after: OpId,
    offset: u32,
    length: u32,
    from: Option<OpId>,
}

/// Whether `a` comes before `b` in the text that both are in; `None` when it would take too long,
/// or one of them is no element of a text.
pub(super) fn compare(draft: &Draft<'_, '_>, a: OpId, b: OpId) -> Option<Ordering> {
    let (mut a, mut b) = (place(draft, a, None)?, place(draft, b, None)?);
    for _ in 0..STEPS_MAX {
        // A run that began later holds no ancestor of the other: go up from it.
        match draft.compare(a.run, b.run) {
            Ordering::Equal => return Some(within(draft, &a, &b)),
            Ordering::Greater => a = place(draft, a.after, Some(a.run))?,
            Ordering::Less => b = place(draft, b.after, Some(b.run))?,
        }
    }
    None
}

fn place(draft: &Draft<'_, '_>, element: OpId, from: Option<OpId>) -> Option<Place> {
    if element == OpId::HEAD {
        let head = OpId::HEAD;
        return Some(Place { run: head, after: head, offset: 0, length: 1, from });
    }
    let entry = draft.entry(element)?;
    let (At::Text(after) | At::MarkBegin(after) | At::MarkEnd(after)) = entry.run.at else {
        return None;
    };
    let run = OpId { counter: entry.run.start, ..element };
    Some(Place { run, after, offset: entry.offset, length: entry.run.length, from })
}

/// The order of two places in the same run.
fn within(draft: &Draft<'_, '_>, a: &Place, b: &Place) -> Ordering {
    // The way down from the element that both ways share: to the side, along the run, or no further.
    let down = |place: &Place, other: &Place| {
        if place.offset > other.offset {
            debug_assert!(other.offset + 1 < place.length);
            let counter = place.run.counter + other.offset + 1;
            Some(OpId { counter, ..place.run })
        } else {
            place.from
        }
    };
    match (down(a, b), down(b, a)) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(a), Some(b)) => draft.compare(b, a),
    }
}
