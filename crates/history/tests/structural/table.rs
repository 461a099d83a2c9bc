//! Every way to misfit that was found by crafting changes against Automerge 0.12, one by one: what
//! the check says, and what Automerge does. Where both are fine with a change it may pass; where
//! Automerge is not, it must not.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, Change, ExpandedChange, ObjType, ROOT, ScalarValue, legacy};
use tributary_history::check::{Fault, Misfit, Verdict};
use tributary_history::directory::Directory;
use tributary_history::{Chunk, Door, History, Limits, Offer, Refusal, read_chunks};

use crate::craft::{A, B, C, D, Head, With, act, begin, change, end, letter, object, op, put};
use crate::crdt::{OWN_PANIC, silence_panics, survives, text_of};
use crate::graph::{Document, Refused};
use crate::raw::Raw;

/// What we say.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ours {
    Fits,
    /// To be verified first.
    Slow,
    Fault(Fault),
    /// A misfit of the change as a whole.
    Misfit(&'static str),
    /// Against a rule of the graph, which are not the check's.
    Graph(&'static str),
    /// Not even readable.
    Unread,
}

/// What Automerge does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Theirs {
    /// All is well in every causal order.
    Well,
    /// It panics, or errs on applying, loading or reading.
    Breaks,
    /// `Change::from_bytes` refuses it.
    Unread,
    /// It takes the whole process with it, by memory or stack: not run here.
    Aborts,
}

/// The document that crafted changes are made for.
struct Base {
    a: Change,
    b: Change,
    c: Change,
    /// Rows that came out otherwise.
    wrong: RefCell<Vec<String>>,
}

impl Drop for Base {
    fn drop(&mut self) {
        let wrong = self.wrong.borrow();
        assert!(wrong.is_empty() || std::thread::panicking(), "{}", wrong.join("\n"));
    }
}

const NESTED: u64 = 14;
const MARK: u64 = 15;

impl Base {
    /// `a` makes one of each kind; `b` and `c` were made on top of it, apart from each other.
    fn new() -> Self {
        let (list, text) = (object(2, A), object(3, A));
        let root = legacy::ObjectId::Root;
        let make = legacy::OpType::Make;
        let a = Change::from(change(
            A,
            1,
            1,
            &[],
            vec![
                act(root.clone(), "map", make(ObjType::Map)),
                act(root.clone(), "list", make(ObjType::List)),
                act(root.clone(), "text", make(ObjType::Text)),
                act(list.clone(), Head, put()).insert(),
                act(list.clone(), op(4, A), put()).insert(),
                act(text.clone(), Head, letter()).insert(),
                act(text.clone(), op(6, A), letter()).insert(),
                act(text.clone(), op(7, A), letter()).insert(),
                act(root.clone(), "key", put()),
                act(root.clone(), "count", legacy::OpType::Put(ScalarValue::counter(1))),
                act(object(1, A), "inner", put()),
                act(list.clone(), op(5, A), legacy::OpType::Delete).pred([op(5, A)]),
                act(root.clone(), "table", make(ObjType::Table)),
                act(list, op(4, A), make(ObjType::Map)).insert(),
                act(text.clone(), op(6, A), begin()).insert(),
                act(text.clone(), op(8, A), end()).insert(),
            ],
        ));
        let b = Change::from(change(
            B,
            1,
            17,
            &[&a],
            vec![
                act(root.clone(), "of b", make(ObjType::Map)),
                act(root.clone(), "key", put()).pred([op(9, A)]),
                act(text, op(8, A), letter()).insert(),
                act(root.clone(), "count", legacy::OpType::Increment(2)).pred([op(10, A)]),
            ],
        ));
        let c =
            Change::from(change(C, 1, 17, &[&a], vec![act(root, "key", put()).pred([op(9, A)])]));
        Self { a, b, c, wrong: RefCell::default() }
    }

    /// A change by D on top of everything.
    fn on_top(&self, operations: Vec<legacy::Op>) -> ExpandedChange {
        change(D, 1, 30, &[&self.b, &self.c], operations)
    }

    /// One that puts a number at a key of the root, on top of everything, column by column.
    fn raw(&self) -> Raw {
        Raw::put(D, 1, 30, vec![self.b.hash().0, self.c.hash().0])
    }

    fn judge(&self, bytes: &[u8]) -> Ours {
        let mut document = Document::default();
        for known in [&self.a, &self.b, &self.c] {
            assert_eq!(document.offer(known.raw_bytes(), false), Ok(Verdict::Fits));
        }
        match document.offer(bytes, false) {
            Ok(Verdict::Fits) => Ours::Fits,
            Ok(Verdict::NeedsCrdt(_)) => Ours::Slow,
            Err(Refused::Chunk(_)) => Ours::Unread,
            Err(Refused::Graph(why)) => Ours::Graph(why),
            Err(Refused::Misfit(Misfit::Operation { fault, .. })) => Ours::Fault(fault),
            Err(Refused::Misfit(misfit)) => Ours::Misfit(match misfit {
                Misfit::SequenceZero => "sequence zero",
                Misfit::LateAuthor { .. } => "late author",
                Misfit::CounterTooLarge { .. } => "counter too large",
                Misfit::UnusedActor => "unused actor",
                Misfit::Operation { .. } | Misfit::Unreadable(_) => "unreadable",
            }),
        }
    }

    /// What the log of the server does with it: its own rules for the graph, and the same check.
    fn log_agrees(&self, bytes: &[u8], judged: Ours) -> bool {
        let mut log = History::default();
        log.install_directory(Directory::default());
        let mut said = None;
        for bytes in [self.a.raw_bytes(), self.b.raw_bytes(), self.c.raw_bytes(), bytes] {
            let Ok(chunks) = read_chunks(bytes, &Limits::default()) else {
                return judged == Ours::Unread;
            };
            for chunk in chunks {
                let Chunk::Change(change) = chunk else { return judged == Ours::Unread };
                log.offer(change, Door::Client, &mut |_, offer| said = Some(offer));
            }
        }
        match said {
            Some(Offer::Appended(3)) => judged == Ours::Fits,
            Some(Offer::NeedsCrdt(_)) => judged == Ours::Slow,
            Some(Offer::Refused(Refusal::Misfit { misfit, .. })) => match misfit {
                Misfit::Operation { fault, .. } => judged == Ours::Fault(fault),
                _ => matches!(judged, Ours::Misfit(_)),
            },
            // Numbers far past everything known are refused before the check sees them.
            Some(Offer::Refused(Refusal::OperationNumbers { .. })) => {
                matches!(judged, Ours::Graph(_) | Ours::Misfit("counter too large"))
            }
            Some(Offer::Refused(Refusal::Forked { .. } | Refusal::SequenceGap { .. })) => {
                matches!(judged, Ours::Graph(_))
            }
            _ => false,
        }
    }

    /// One row of the table.
    fn row(&self, what: &str, bytes: &[u8], ours: Ours, theirs: Theirs) {
        let mut error = String::new();
        let seen = match Change::from_bytes(bytes.to_vec()) {
            _ if theirs == Theirs::Aborts => Theirs::Aborts,
            Err(_) => Theirs::Unread,
            Ok(crafted) => {
                let known = [&self.a, &self.b, &self.c, &crafted].map(Change::clone);
                match survives(&known, 1, 12) {
                    Ok(()) => Theirs::Well,
                    Err(why) => {
                        error = why;
                        Theirs::Breaks
                    }
                }
            }
        };
        let judged = self.judge(bytes);
        if (judged, seen) != (ours, theirs) {
            let row = format!("{what}: {judged:?}, {seen:?}, not {ours:?}, {theirs:?}: {error}");
            self.wrong.borrow_mut().push(row);
        }
        if !self.log_agrees(bytes, judged) {
            self.wrong.borrow_mut().push(format!("{what}: the log does not say {judged:?}"));
        }
        assert!(ours != Ours::Fits || theirs == Theirs::Well, "let in what breaks: {what}");
    }

    fn crafted(&self, what: &str, operations: Vec<legacy::Op>, ours: Ours, theirs: Theirs) {
        let change = Change::from(self.on_top(operations));
        self.row(what, change.raw_bytes(), ours, theirs);
    }

    /// One operation on top of everything.
    fn one(&self, what: &str, operation: legacy::Op, fault: Fault, theirs: Theirs) {
        self.crafted(what, vec![operation], Ours::Fault(fault), theirs);
    }

    fn fine(&self, what: &str, operation: legacy::Op) {
        self.crafted(what, vec![operation], Ours::Fits, Theirs::Well);
    }
}

fn root() -> legacy::ObjectId {
    legacy::ObjectId::Root
}

fn map() -> legacy::ObjectId {
    object(1, A)
}

fn list() -> legacy::ObjectId {
    object(2, A)
}

fn text() -> legacy::ObjectId {
    object(3, A)
}

fn delete() -> legacy::OpType {
    legacy::OpType::Delete
}

fn make(kind: ObjType) -> legacy::OpType {
    legacy::OpType::Make(kind)
}

use Theirs::{Aborts, Breaks, Unread, Well};

/// What only Automerge's own assertions would notice, which the workspace builds without.
const CHECKED: Theirs = Well;

#[test]
fn an_object_must_be_one_made_before_by_an_ancestor() {
    let base = Base::new();
    base.fine("the nested map", act(object(NESTED, A), "x", put()));
    base.one("a missing object", act(object(22, A), "x", put()), Fault::ObjectNotAncestor, Breaks);
    base.one("a scalar", act(object(9, A), "x", put()), Fault::ObjectUnknown, Breaks);
    base.one(
        "an actor never heard of",
        act(object(9, &[9]), "x", put()),
        Fault::ActorUnknown,
        Breaks,
    );
    base.one("itself", act(object(30, D), "x", make(ObjType::Map)), Fault::RefersForward, Aborts);
    let later = vec![act(object(31, D), "x", put()), act(root(), "later", make(ObjType::Map))];
    base.crafted("made later in the change", later, Ours::Fault(Fault::RefersForward), Well);
    let earlier = vec![act(root(), "new", make(ObjType::Map)), act(object(30, D), "x", put())];
    base.crafted("made earlier in the change", earlier, Ours::Fits, Well);
    // B's map is there, but whoever has only what this change depends on does not have it.
    let apart = Change::from(change(D, 1, 30, &[&base.c], vec![act(object(17, B), "x", put())]));
    let fault = Ours::Fault(Fault::ObjectNotAncestor);
    base.row("made apart, though present", apart.raw_bytes(), fault, Breaks);
    let apart = change(D, 1, 30, &[&base.c], vec![act(root(), "key", put()).pred([op(18, B)])]);
    let fault = Ours::Fault(Fault::PredecessorNotAncestor);
    base.row("a predecessor apart", Change::from(apart).raw_bytes(), fault, Breaks);
    for operation in [act(object(17, B), "x", put()), act(root(), "key", put()).pred([op(18, B)])] {
        // Whoever has B's change already notices nothing, which is why it has to be refused.
        let apart = Change::from(change(D, 1, 30, &[&base.c], vec![operation]));
        let there = [&base.a, &base.b, &base.c, &apart].map(Change::clone);
        assert_eq!(survives(&there, 1, 1), Ok(()));
        let absent = [&base.a, &base.c, &apart, &base.b].map(Change::clone);
        assert!(survives(&absent, 1, 2).is_err());
    }
    base.one("in a table", act(object(13, A), "x", put()), Fault::InTable, Breaks);
    base.fine("an empty table", act(root(), "another table", make(ObjType::Table)));
}

#[test]
fn an_element_must_be_an_insert_of_the_same_object() {
    let base = Base::new();
    base.fine("after an element", act(list(), op(4, A), put()).insert());
    base.fine("after a deleted element", act(list(), op(5, A), put()).insert());
    base.fine("after a mark", act(text(), op(MARK, A), letter()).insert());
    base.fine("delete a deleted element", act(list(), op(5, A), delete()).pred([op(5, A)]));
    base.fine("update without predecessor", act(list(), op(4, A), put()));
    let after = |element| act(list(), element, put()).insert();
    base.one("after a missing element", after(op(22, A)), Fault::ElementNotAncestor, Breaks);
    base.one("after another object's", after(op(6, A)), Fault::ElementUnknown, Breaks);
    base.one("after a deletion", after(op(12, A)), Fault::ElementUnknown, Breaks);
    let updated = vec![act(list(), op(4, A), put()).pred([op(4, A)]), after(op(30, D))];
    base.crafted("after an update", updated, Ours::Fault(Fault::ElementUnknown), Breaks);
    base.one("after itself", after(op(30, D)), Fault::RefersForward, Breaks);
    base.one("after a later one", after(op(31, D)), Fault::RefersForward, Breaks);
    let update = |element| act(list(), element, put());
    base.one("update of a missing element", update(op(22, A)), Fault::ElementNotAncestor, Breaks);
    base.one("update of another object's", update(op(6, A)), Fault::ElementUnknown, Breaks);
    let deletion = |element: legacy::OpId| act(list(), element.clone(), delete()).pred([element]);
    base.one("delete a missing element", deletion(op(22, A)), Fault::ElementNotAncestor, Breaks);
    base.one("delete another object's", deletion(op(6, A)), Fault::ElementUnknown, Breaks);
    let at_head = act(list(), Head, delete()).pred([op(4, A)]);
    base.one("delete the head", at_head, Fault::UpdatesHead, Breaks);
    base.one("update at the head", act(list(), Head, put()), Fault::UpdatesHead, Breaks);
    base.one("a key in a list", act(list(), "x", put()), Fault::KeyInSequence, Breaks);
    let keyed_by_update = vec![
        act(list(), op(4, A), put()).pred([op(4, A)]),
        act(list(), op(30, D), put()).pred([op(30, D)]),
    ];
    base.crafted(
        "update keyed by an update",
        keyed_by_update,
        Ours::Fault(Fault::ElementUnknown),
        Breaks,
    );
    base.one("insert in a map", act(map(), "x", put()).insert(), Fault::InsertInMap, Well);
    base.one("head in a map", act(map(), Head, put()), Fault::ElementInMap, CHECKED);
    base.one("element in a map", act(map(), op(4, A), put()), Fault::ElementInMap, CHECKED);
    base.fine("the empty key", act(map(), "", put()));
}

#[test]
fn predecessors_must_have_set_the_same_place() {
    let base = Base::new();
    let key = |preds: &[legacy::OpId]| {
        let mut operation = act(root(), "key", put());
        operation.pred = preds.to_vec().into();
        operation
    };
    base.fine("both that are there", key(&[op(17, C), op(18, B)]));
    base.fine("one of two", key(&[op(17, C)]));
    base.fine("one that was replaced", key(&[op(9, A)]));
    let twice = vec![key(&[op(17, C)]), key(&[op(17, C)])];
    base.crafted("two puts on one key", twice, Ours::Fits, Well);
    let twice = || act(list(), op(4, A), put()).pred([op(4, A)]);
    base.crafted("two puts on one element", vec![twice(), twice()], Ours::Fits, Well);
    let blind = vec![act(list(), op(4, A), put()), act(list(), op(4, A), put())];
    base.crafted("two that replace nothing", blind, Ours::Fits, Well);
    let fault = Fault::DeletesNothing;
    base.one("delete nothing in a map", act(root(), "key", delete()), fault, Breaks);
    base.one("delete nothing in a list", act(list(), op(4, A), delete()), fault, Breaks);
    let fault = Fault::PredecessorNotAncestor;
    base.one(
        "delete what is missing",
        act(root(), "key", delete()).pred([op(22, A)]),
        fault,
        Breaks,
    );
    base.one("a missing predecessor", key(&[op(22, A)]), fault, Breaks);
    let increment = || legacy::OpType::Increment(1);
    base.one(
        "increment what is missing",
        act(root(), "count", increment()).pred([op(22, A)]),
        fault,
        Breaks,
    );
    base.one("another key's", key(&[op(10, A)]), Fault::PredecessorElsewhere, Breaks);
    base.one("another object's", key(&[op(11, A)]), Fault::PredecessorElsewhere, Breaks);
    base.one(
        "a deletion",
        act(list(), op(5, A), put()).pred([op(12, A)]),
        Fault::PredecessorUnknown,
        Breaks,
    );
    let deleted = act(root(), "key", delete()).pred([op(17, C), op(18, B)]);
    let deleted = vec![deleted, key(&[op(30, D)])];
    let fault = Ours::Fault(Fault::PredecessorUnknown);
    base.crafted("a deletion in a map", deleted, fault, Breaks);
    base.one(
        "an increment",
        act(root(), "count", put()).pred([op(20, B)]),
        Fault::PredecessorUnknown,
        Well,
    );
    base.one(
        "a mark elsewhere",
        act(list(), op(4, A), put()).pred([op(MARK, A)]),
        Fault::PredecessorElsewhere,
        Breaks,
    );
    base.one(
        "another element's",
        act(list(), op(4, A), put()).pred([op(5, A)]),
        Fault::PredecessorElsewhere,
        Breaks,
    );
    base.one("itself", key(&[op(30, D)]), Fault::RefersForward, Breaks);
    base.crafted(
        "a later one",
        vec![key(&[op(31, D)]), key(&[])],
        Ours::Fault(Fault::RefersForward),
        Breaks,
    );
    let replaces = act(list(), op(4, A), put()).insert().pred([op(4, A)]);
    base.one("an insert that replaces", replaces, Fault::InsertReplaces, Breaks);
    let mark = act(text(), op(6, A), begin()).insert().pred([op(6, A)]);
    base.one("a mark that replaces", mark, Fault::InsertReplaces, Breaks);
    base.one(
        "an increment that inserts",
        act(list(), op(4, A), increment()).insert(),
        Fault::InsertsNothing,
        Well,
    );
    let both = act(list(), op(4, A), delete()).insert().pred([op(4, A)]);
    base.one("a deletion that inserts", both, Fault::InsertsNothing, Breaks);
    let nothing = act(list(), op(4, A), delete()).insert();
    base.one("an inserted deletion of nothing", nothing, Fault::InsertsNothing, Breaks);
    base.one("twice the same", key(&[op(17, C), op(17, C)]), Fault::PredecessorsUnordered, Well);
    let unsorted = base.raw().others(&[B, C]).column(21, b"\x7f\x03key");
    let unsorted =
        unsorted.column(112, &[0x7f, 2]).column(113, &[0x7e, 1, 2]).column(115, &[0x7e, 18, 0x7f]);
    base.row("out of order", &unsorted.bytes(), Ours::Fault(Fault::PredecessorsUnordered), Breaks);
    let sorted = base.raw().others(&[B, C]).column(21, b"\x7f\x03key");
    let sorted =
        sorted.column(112, &[0x7f, 2]).column(113, &[0x7e, 2, 1]).column(115, &[0x7e, 17, 1]);
    base.row("the same in order", &sorted.bytes(), Ours::Fits, Well);
}

#[test]
fn counters_and_values_may_be_what_they_like() {
    let base = Base::new();
    let increment = |by| legacy::OpType::Increment(by);
    base.fine("increment no counter", act(root(), "key", increment(1)).pred([op(17, C)]));
    base.fine("increment nothing", act(root(), "nothing", increment(1)));
    let overflow = act(root(), "count", increment(i64::MAX)).pred([op(10, A)]);
    if cfg!(debug_assertions) {
        // Only here: what is shipped wraps around.
        let overflow = Change::from(base.on_top(vec![overflow]));
        assert_eq!(base.judge(overflow.raw_bytes()), Ours::Fits);
    } else {
        base.fine("overflow", overflow);
    }
    for value in [ScalarValue::Int(5), ScalarValue::Str("".into()), ScalarValue::counter(2)] {
        base.fine("in a text", act(text(), op(6, A), legacy::OpType::Put(value)).insert());
    }
    let long = ScalarValue::Str("longer than one".into());
    base.fine("long in a text", act(text(), op(6, A), legacy::OpType::Put(long)).insert());
    base.fine("update of a letter", act(text(), op(6, A), letter()).pred([op(6, A)]));
    let counter = legacy::OpType::Put(ScalarValue::counter(2));
    let counter = act(text(), op(6, A), counter).insert();
    let add = |element: legacy::OpId| act(text(), element, increment(1));
    let in_text = Ours::Fault(Fault::IncrementInText);
    base.crafted(
        "increment in a text",
        vec![counter, add(op(30, D)).pred([op(30, D)])],
        in_text,
        Breaks,
    );
    let letter = vec![add(op(6, A)).pred([op(6, A)])];
    base.crafted("increment a letter", letter, in_text, Well);
    base.crafted("increment nothing in a text", vec![add(op(6, A))], in_text, Breaks);
    base.fine("increment nothing in a list", act(list(), op(4, A), increment(1)));
    base.fine("a list in a text", act(text(), op(6, A), make(ObjType::List)).insert());
}

#[test]
fn marks_begin_and_end_in_order_in_one_text() {
    let base = Base::new();
    let pair = |b: u64, e: legacy::OpId| {
        vec![act(text(), op(b, A), begin()).insert(), act(text(), e, end()).insert()]
    };
    base.crafted("around a letter", pair(6, op(7, A)), Ours::Fits, Well);
    base.crafted("around nothing", pair(6, op(30, D)), Ours::Fits, Well);
    let late = Ours::Fault(Fault::EndBeforeBegin);
    base.crafted("both after one element", pair(6, op(6, A)), late, Breaks);
    base.crafted("the wrong way round", pair(8, op(6, A)), late, Breaks);
    base.crafted(
        "an end at the head",
        vec![act(text(), Head, begin()).insert(), act(text(), Head, end()).insert()],
        late,
        Breaks,
    );
    let none = Fault::EndWithoutBegin;
    base.one("no beginning", act(text(), op(7, A), end()).insert(), none, Breaks);
    let far = vec![
        act(text(), op(6, A), begin()).insert(),
        act(root(), "x", put()),
        act(text(), op(7, A), end()).insert(),
    ];
    base.crafted("a beginning two before", far, Ours::Fault(none), Breaks);
    let other = vec![
        act(root(), "other", make(ObjType::Text)),
        act(text(), op(6, A), begin()).insert(),
        act(object(30, D), Head, end()).insert(),
    ];
    base.crafted("an end in another text", other, Ours::Fault(none), Breaks);
    base.fine("a beginning without end", act(text(), op(6, A), begin()).insert());
    let outside = Fault::MarkOutsideText;
    base.one("a mark in a list", act(list(), op(4, A), begin()).insert(), outside, Breaks);
    base.one("a mark in a map", act(map(), "x", begin()), outside, Breaks);
    base.one("a mark that does not insert", act(text(), op(6, A), begin()), outside, Breaks);
    base.one("update of a mark", act(text(), op(MARK, A), letter()), Fault::UpdatesMark, Breaks);
}

#[test]
fn a_mark_may_end_in_the_next_change_of_its_actor() {
    let base = Base::new();
    let first = Change::from(base.on_top(vec![act(text(), op(6, A), begin()).insert()]));
    let second = change(D, 2, 31, &[&first], vec![act(text(), op(7, A), end()).insert()]);
    let second = Change::from(second);
    let mut document = Document::default();
    for known in [&base.a, &base.b, &base.c, &first, &second] {
        assert_eq!(document.offer(known.raw_bytes(), false), Ok(Verdict::Fits));
    }
    let known = [&base.a, &base.b, &base.c, &first, &second].map(Change::clone);
    survives(&known, 3, 8).unwrap();
}

#[test]
fn operation_numbers_stay_in_their_range() {
    let base = Base::new();
    let at = |start, operations| {
        Change::from(change(D, 1, start, &[&base.b, &base.c], operations)).raw_bytes().to_vec()
    };
    let one = || vec![act(root(), "x", put())];
    let early = Ours::Graph("it starts before an ancestor ends");
    base.row("begins before an ancestor ends", &at(20, one()), early, Breaks);
    base.row("the same, empty", &at(20, vec![]), early, Breaks);
    base.row("a gap", &at(1000, one()), Ours::Fits, Well);
    let gone = vec![act(root(), "key", delete()).pred([op(17, C)])];
    base.row("a gap before a deletion", &at(1000, gone), Ours::Fits, Well);
    // 16 is A's own last one, 10 in the middle of them.
    for start in [10, 16] {
        let own = Change::from(change(A, 2, start, &[&base.a], one())).raw_bytes().to_vec();
        base.row("over its actor's own", &own, early, Breaks);
        let own = Change::from(change(A, 2, start, &[&base.c], one())).raw_bytes().to_vec();
        base.row("over its actor's own, indirectly", &own, early, Breaks);
    }
    let own = Change::from(change(A, 2, 17, &[&base.a], one())).raw_bytes().to_vec();
    base.row("right behind its actor's own", &own, Ours::Fits, Well);
    // A few missing numbers break it, many do not; in browsers any do.
    let gap = Ours::Graph("it is empty and leaves a gap");
    base.row("a gap in an empty change", &at(22, vec![]), gap, Breaks);
    base.row("a long one", &at(100_000, vec![]), gap, Well);
    base.row("an empty change", &at(21, vec![]), Ours::Fits, Well);
    let large = Ours::Misfit("counter too large");
    base.row("at the end of 32 bits", &at(u64::from(u32::MAX) - 1, one()), large, Breaks);
    base.row("past 31 bits", &at((1 << 31) + 1, one()), large, Well);
    let two = vec![act(root(), "x", put()), act(root(), "y", put())];
    base.row("over the end of 32 bits", &at(u64::from(u32::MAX), two), large, Breaks);
    let mut raw = base.raw();
    raw.start = 1 << 32;
    base.row("beginning past 32 bits", &raw.bytes(), Ours::Unread, Unread);
}

#[test]
fn sequence_numbers_follow_each_other_along_the_graph() {
    let base = Base::new();
    let by = |actor, seq, deps: &[&Change]| {
        let operations = vec![act(root(), "x", put())];
        Change::from(change(actor, seq, 30, deps, operations)).raw_bytes().to_vec()
    };
    let gap = Ours::Graph("its predecessor is no ancestor");
    base.row("0", &by(D, 0, &[&base.b]), gap, Breaks);
    base.row("a taken one", &by(B, 1, &[&base.c]), Ours::Graph("its slot is taken"), Breaks);
    base.row("a taken one by a child", &by(B, 1, &[&base.b]), gap, Breaks);
    base.row("a taken one by a later child", &by(A, 1, &[&base.b, &base.c]), gap, Breaks);
    base.row("a gap", &by(B, 3, &[&base.b]), gap, Breaks);
    base.row("2 first", &by(D, 2, &[&base.b]), gap, Breaks);
    base.row("past 32 bits", &by(D, 1 << 33, &[&base.b]), gap, Breaks);
    base.row("the previous no ancestor", &by(B, 2, &[&base.c]), gap, Breaks);
    base.row("the previous an ancestor", &by(A, 2, &[&base.c]), Ours::Fits, Well);
}

#[test]
fn what_follows_the_columns_is_kept_and_an_author_comes_once() {
    let base = Base::new();
    let author = [1, 2, b'm', b'e'];
    let with = |actor, seq, deps: &[&Change], extra: &[u8]| {
        let mut change = change(actor, seq, 30, deps, vec![act(root(), "x", put())]);
        change.extra_bytes = extra.to_vec();
        Change::from(change).raw_bytes().to_vec()
    };
    base.row("an author at 1", &with(D, 1, &[&base.b], &author), Ours::Fits, Well);
    let late = Ours::Misfit("late author");
    base.row("an author at 2", &with(B, 2, &[&base.b], &author), late, Breaks);
    base.row("other bytes", &with(B, 2, &[&base.b], b"\x07anything"), Ours::Fits, Well);
    let mut twice = base.raw();
    twice.deps = vec![base.b.hash().0; 2];
    base.row("a dependency twice", &twice.bytes(), Ours::Fits, Well);
    let mut more = base.raw();
    more.deps.push(base.a.hash().0);
    more.deps.sort();
    base.row("a dependency too many", &more.bytes(), Ours::Fits, Well);
    for actor in [&[][..], &[7; 1000]] {
        let by = Change::from(change(actor, 1, 30, &[&base.b], vec![act(root(), "x", put())]));
        base.row("an odd actor", by.raw_bytes(), Ours::Fits, Well);
    }
    let long = Change::from(change(&[7; 2000], 1, 21, &[&base.b], vec![]));
    base.row("an actor past our bound", long.raw_bytes(), Ours::Unread, Well);
}

#[test]
fn other_bytes_for_the_same_operations_are_left_to_the_crdt() {
    let base = Base::new();
    base.row("canonical", &base.raw().bytes(), Ours::Fits, Well);
    let slow = |what: &str, raw: &Raw, theirs| base.row(what, &raw.bytes(), Ours::Slow, theirs);
    let increment = base.raw().column(66, &[0x7f, 5]);
    base.row("increment", &increment.bytes(), Ours::Fits, Well);
    slow("increment by an unsigned", &increment.clone().column(86, &[0x7f, 0x13]), Well);
    slow("make with a value", &base.raw().column(66, &[0x7f, 0]), Well);
    slow("expand on a put", &base.raw().with_expand(), Well);
    slow("mark name on a put", &base.raw().column(165, &[0x7f, 1, b'm']), Well);
    let mut unsorted = base.raw();
    unsorted.deps.reverse();
    slow("dependencies out of order", &unsorted, Well);
    let valueless = base.raw();
    let mut valueless = valueless.column(86, &[0x7f, 0x11]);
    slow("false of length 1", &valueless, Breaks);
    valueless.columns.retain(|(number, _)| *number != 87);
    slow("false of length 1 without a value", &valueless, Breaks);
    slow("a run of one", &base.raw().with_run_of_one(), Breaks);
    slow("an empty column", &base.raw().column(1, &[]), Breaks);
    slow("a padded number", &base.raw().with_padded_number(), Breaks);
    let deletion = base.raw().others(&[C]).column(21, b"\x7f\x03key").column(66, &[0x7f, 3]);
    let deletion =
        deletion.column(112, &[0x7f, 1]).column(113, &[0x7f, 1]).column(115, &[0x7f, 17]);
    slow("a deletion with a value", &deletion, Breaks);
    // A mark of a letter whose end has a value.
    let mut mark = base.raw().others(&[A]);
    mark.columns = vec![
        (1, vec![2, 1]),
        (2, vec![2, 3]),
        (17, vec![2, 1]),
        (19, vec![0x7e, 6, 1]),
        (52, vec![0, 2]),
        (66, vec![2, 7]),
        (86, vec![2, 2]),
        (112, vec![2, 0]),
        (165, vec![0x7f, 1, b'm', 0, 1]),
    ];
    slow("a mark's end with a value", &mark, Well);
    mark = mark.column(86, &[0x7e, 2, 0]);
    base.row("the same without", &mark.bytes(), Ours::Fits, Well);
}

#[test]
fn the_table_of_actors_holds_what_is_used_and_nothing_else() {
    let base = Base::new();
    let unused = Ours::Misfit("unused actor");
    base.row("one that is not used", &base.raw().others(&[B]).bytes(), unused, Breaks);
    base.row("one that is unknown", &base.raw().others(&[&[9]]).bytes(), unused, Breaks);
    let key = base.raw().column(21, b"\x7f\x03key");
    let pred = |index: u8, counter: u8| {
        let raw = key.clone().column(112, &[0x7f, 1]);
        raw.column(113, &[0x7f, index]).column(115, &[0x7f, counter])
    };
    base.row("as it should be", &pred(1, 17).others(&[C]).bytes(), Ours::Fits, Well);
    base.row("one twice", &pred(1, 17).others(&[C, C]).bytes(), unused, Breaks);
    base.row("the author", &pred(1, 17).others(&[C, D]).bytes(), unused, Breaks);
    let both = key.clone().column(112, &[0x7f, 2]).column(113, &[0x7e, 1, 2]);
    let both = both.column(115, &[0x7e, 17, 1]).others(&[C, B]);
    base.row("out of order", &both.bytes(), Ours::Slow, Breaks);
    base.row("a number outside", &pred(2, 17).others(&[C]).bytes(), Ours::Unread, Breaks);
}

#[test]
fn what_automerge_does_not_read_is_not_read_here() {
    let base = Base::new();
    let unread = |what: &str, raw: &Raw| base.row(what, &raw.bytes(), Ours::Unread, Unread);
    unread("action 8", &base.raw().column(66, &[0x7f, 8]));
    unread("no text", &base.raw().column(86, &[0x7f, 0x16]).column(87, &[0xff]));
    unread("a padded integer", &base.raw().column(86, &[0x7f, 0x24]).column(87, &[0x85, 0]));
    let unknown = base.raw().column(0x122, &[0x7f, 1]);
    base.row("an unknown column", &unknown.bytes(), Ours::Unread, Unread);
}

#[test]
fn objects_lie_in_each_other_only_so_deep() {
    let base = Base::new();
    let nested = |depth: u64| {
        let mut operations = vec![act(root(), "deep", make(ObjType::Map))];
        for level in 1..depth {
            operations.push(act(object(29 + level, D), "deep", make(ObjType::Map)));
        }
        operations
    };
    base.crafted("100 levels", nested(100), Ours::Fits, Well);
    base.crafted("101 levels", nested(101), Ours::Fault(Fault::TooDeep), Well);
    base.crafted("10,000 levels", nested(10_000), Ours::Fault(Fault::TooDeep), Aborts);
}

/// Not to be refused, as it is honest; here to tell when an upgrade mends it.
#[test]
fn automerge_panics_on_a_conflict_in_a_text_by_itself() {
    silence_panics();
    let mut doc = AutoCommit::new().with_actor(ActorId::from(A));
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    doc.splice_text(&text, 0, 0, "abc").unwrap();
    let mut other = doc.fork().with_actor(ActorId::from(B));
    doc.put(&text, 1, "x").unwrap();
    other.put(&text, 1, "y").unwrap();
    let mut third = doc.fork().with_actor(ActorId::from(C));
    third.delete(&text, 1).unwrap();
    doc.merge(&mut other).unwrap();
    doc.update_diff_cursor();
    let merged = catch_unwind(AssertUnwindSafe(|| doc.merge(&mut third).map(drop)));
    assert_eq!(text_of(&*merged.unwrap_err()), OWN_PANIC);
}

#[test]
fn a_document_of_100_levels_reads_in_a_stack_as_small_as_webassembly_has() {
    const STACK_BYTES: usize = 1 << 20;
    let mut doc = AutoCommit::new();
    let mut inner = ROOT;
    for _ in 0..100 {
        inner = doc.put_object(inner, "deep", ObjType::Map).unwrap();
    }
    doc.put(inner, "bottom", true).unwrap();
    doc.commit();
    let saved = doc.save();
    let read = move || {
        let doc = automerge::Automerge::load(&saved).unwrap();
        let _ = doc.hydrate(None);
    };
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(read).unwrap().join().unwrap();
}
