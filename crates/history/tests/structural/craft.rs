//! Changes made by hand: what no client makes, in the words of the format.

use automerge::{Change, ExpandedChange, ScalarValue, legacy};
use sha2::{Digest, Sha256};

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

/// A change whose every column is written by hand.
#[derive(Clone)]
pub struct Raw {
    pub deps: Vec<[u8; 32]>,
    pub actor: Vec<u8>,
    pub seq: u64,
    pub start: u64,
    pub others: Vec<Vec<u8>>,
    /// Number and bytes, as listed.
    pub columns: Vec<(u64, Vec<u8>)>,
    pub extra: Vec<u8>,
}

impl Raw {
    /// With a column replaced, or added at its place.
    pub fn column(mut self, number: u64, bytes: &[u8]) -> Self {
        self.columns.retain(|(other, _)| *other != number);
        self.columns.push((number, bytes.to_vec()));
        self.columns.sort();
        self
    }

    pub fn others(mut self, others: &[&[u8]]) -> Self {
        self.others = others.iter().map(|other| other.to_vec()).collect();
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        number(&mut body, self.deps.len() as u64);
        self.deps.iter().for_each(|dep| body.extend(dep));
        prefixed(&mut body, &self.actor);
        number(&mut body, self.seq);
        number(&mut body, self.start);
        body.extend([0, 0]);
        number(&mut body, self.others.len() as u64);
        self.others.iter().for_each(|other| prefixed(&mut body, other));
        number(&mut body, self.columns.len() as u64);
        for (column, bytes) in &self.columns {
            number(&mut body, *column);
            number(&mut body, bytes.len() as u64);
        }
        self.columns.iter().for_each(|(_, bytes)| body.extend(bytes));
        body.extend(&self.extra);
        chunk(&body)
    }
}

/// A change chunk around a body.
fn chunk(body: &[u8]) -> Vec<u8> {
    let mut head = vec![1];
    number(&mut head, body.len() as u64);
    let hash = Sha256::new().chain_update(&head).chain_update(body).finalize();
    [&[0x85, 0x6f, 0x4a, 0x83], &hash[..4], &head, body].concat()
}

fn prefixed(bytes: &mut Vec<u8>, text: &[u8]) {
    number(bytes, text.len() as u64);
    bytes.extend(text);
}

fn number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}
