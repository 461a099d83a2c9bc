//! Changes made by hand: what no client makes, in the words of the format.

use automerge::{Change, ExpandedChange, ScalarValue, legacy};

/// Actors of the base document, in the order of their bytes.
pub const A: &[u8] = &[1];
pub const B: &[u8] = &[2];
pub const C: &[u8] = &[3];
/// The one who makes the change that is judged.
pub const D: &[u8] = &[4];

pub fn op(counter: u64, actor: &[u8]) -> legacy::OpId {
    legacy::OpId::new(counter, &actor.into())
}

pub fn object(counter: u64, actor: &[u8]) -> legacy::ObjectId {
    legacy::ObjectId::Id(op(counter, actor))
}

/// An operation; the rest is set by the methods below.
pub fn act(object: legacy::ObjectId, key: impl Into<Place>, action: legacy::OpType) -> legacy::Op {
    let pred = Vec::new().into();
    legacy::Op { action, obj: object, key: key.into().0, pred, insert: false }
}

/// A key or an element.
pub struct Place(pub legacy::Key);

impl From<&str> for Place {
    fn from(key: &str) -> Self {
        Self(legacy::Key::Map(key.into()))
    }
}

impl From<legacy::OpId> for Place {
    fn from(element: legacy::OpId) -> Self {
        Self(legacy::Key::Seq(legacy::ElementId::Id(element)))
    }
}

/// The head of a sequence.
pub struct Head;

impl From<Head> for Place {
    fn from(_: Head) -> Self {
        Self(legacy::Key::Seq(legacy::ElementId::Head))
    }
}

pub trait With {
    fn insert(self) -> Self;
    fn pred<const N: usize>(self, preds: [legacy::OpId; N]) -> Self;
}

impl With for legacy::Op {
    fn insert(mut self) -> Self {
        self.insert = true;
        self
    }

    fn pred<const N: usize>(mut self, preds: [legacy::OpId; N]) -> Self {
        self.pred = preds.to_vec().into();
        self
    }
}

pub fn put() -> legacy::OpType {
    legacy::OpType::Put(ScalarValue::Int(1))
}

pub fn letter() -> legacy::OpType {
    legacy::OpType::Put("x".into())
}

pub fn begin() -> legacy::OpType {
    let (name, value) = ("bold".into(), true.into());
    legacy::OpType::MarkBegin(legacy::MarkData { name, value, expand: false })
}

pub fn end() -> legacy::OpType {
    legacy::OpType::MarkEnd(false)
}

/// A change by `actor` with these operations.
pub fn change(
    actor: &[u8],
    seq: u64,
    start: u64,
    deps: &[&Change],
    operations: Vec<legacy::Op>,
) -> ExpandedChange {
    ExpandedChange {
        operations,
        actor_id: actor.into(),
        hash: None,
        seq,
        start_op: start.try_into().unwrap(),
        time: 0,
        message: None,
        deps: deps.iter().map(|dep| dep.hash()).collect(),
        extra_bytes: Vec::new(),
        author: None,
    }
}
