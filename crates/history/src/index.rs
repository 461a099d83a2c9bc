//! The index on disk: the graph of a stretch of the log, without the changes themselves.
//!
//! A segment holds consecutive positions. A typist's change costs its hash and one byte.

use model::{ActorId, ChangeHash};

use crate::graph::{Graph, Node, Position};
use crate::varint::{Reader, put};

const VERSION: u8 = 1;

/// The change depends on exactly the one before it in the log.
const DEPENDS_ON_PREVIOUS: u8 = 1;
/// It has the actor of the one before it in the segment.
const SAME_ACTOR: u8 = 2;
/// Its operations follow those of the one before it in the segment.
const NEXT_OPERATION: u8 = 4;
/// It has one operation.
const ONE_OPERATION: u8 = 8;

/// Writes the graph of the positions `from..to`.
pub fn encode(graph: &Graph, from: Position, to: Position) -> Vec<u8> {
    let mut out = Vec::with_capacity((to - from) as usize * 34 + 16);
    out.push(VERSION);
    put(&mut out, u64::from(from));
    put(&mut out, u64::from(to - from));
    let mut last: Option<Node<'_>> = None;
    for position in from..to {
        let node = graph.node(position);
        let deps = graph.deps(position);
        let depends_on_previous = position > 0 && deps == [position - 1];
        let same_actor = last.is_some_and(|last| last.actor == node.actor);
        let next_operation =
            last.is_some_and(|last| last.start_op + last.operations == node.start_op);
        let flag = |set, bit| if set { bit } else { 0 };
        out.push(
            flag(depends_on_previous, DEPENDS_ON_PREVIOUS)
                | flag(same_actor, SAME_ACTOR)
                | flag(next_operation, NEXT_OPERATION)
                | flag(node.operations == 1, ONE_OPERATION),
        );
        out.extend_from_slice(node.hash.as_bytes());
        if !depends_on_previous {
            put(&mut out, deps.len() as u64);
            for dep in deps {
                put(&mut out, u64::from(position - dep));
            }
        }
        if !same_actor {
            put(&mut out, node.actor.as_bytes().len() as u64);
            out.extend_from_slice(node.actor.as_bytes());
        }
        if !next_operation {
            put(&mut out, node.start_op);
        }
        if node.operations != 1 {
            put(&mut out, node.operations);
        }
        last = Some(node);
    }
    out
}

/// Reads a segment onto the end of a graph.
///
/// # Errors
/// When the bytes are not a segment that continues this graph. The graph may hold part of it then.
pub fn decode(graph: &mut Graph, bytes: &[u8]) -> Result<(), IndexError> {
    let mut reader = Reader::new(bytes);
    match reader.byte()? {
        VERSION => {}
        version => return Err(IndexError::Version(version)),
    }
    let from = reader.number()?;
    if from != u64::from(graph.len()) {
        return Err(IndexError::Gap { starts_at: from, expected: u64::from(graph.len()) });
    }
    let count = reader.number()?;
    let mut last: Option<(ActorId, u64)> = None;
    for _ in 0..count {
        let position = graph.len();
        let flags = reader.byte()?;
        let hash = ChangeHash(reader.array()?);
        let deps: Vec<Position> = if flags & DEPENDS_ON_PREVIOUS != 0 {
            vec![position.checked_sub(1).ok_or(IndexError::Malformed)?]
        } else {
            (0..reader.count()?)
                .map(|_| {
                    let back = Position::try_from(reader.number()?).ok().filter(|back| *back > 0);
                    back.and_then(|back| position.checked_sub(back)).ok_or(IndexError::Malformed)
                })
                .collect::<Result<_, _>>()?
        };
        let actor = match (&last, flags & SAME_ACTOR != 0) {
            (Some((actor, _)), true) => actor.clone(),
            (None, true) => return Err(IndexError::Malformed),
            (_, false) => {
                let length = reader.count()?;
                ActorId::new(reader.bytes(length)?).map_err(|_| IndexError::Malformed)?
            }
        };
        let start_op = match (&last, flags & NEXT_OPERATION != 0) {
            (Some((_, next)), true) => *next,
            (None, true) => return Err(IndexError::Malformed),
            (_, false) => reader.number()?,
        };
        let operations = if flags & ONE_OPERATION != 0 { 1 } else { reader.number()? };
        if start_op > u64::from(u32::MAX) || operations > u64::from(u32::MAX) {
            return Err(IndexError::Malformed);
        }
        if graph.position(&hash).is_some() {
            return Err(IndexError::Twice(hash));
        }
        graph.push_at(Node { hash, actor: &actor, start_op, operations }, &deps);
        last = Some((actor, start_op + operations));
    }
    if reader.is_empty() { Ok(()) } else { Err(IndexError::Malformed) }
}

/// Why bytes are not the next segment of an index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Written by a version of this program that is newer than this one.
    #[error("index segment of version {0}, which this program does not know")]
    Version(u8),
    /// A segment is missing, or comes twice.
    #[error("index segment starts at change {starts_at}, expected {expected}")]
    Gap {
        /// Where the segment starts.
        starts_at: u64,
        /// How many changes were known.
        expected: u64,
    },
    /// A change is in the index already.
    #[error("change {0} is in the index twice")]
    Twice(ChangeHash),
    /// The bytes make no sense.
    #[error("index segment is malformed")]
    Malformed,
}

impl From<crate::varint::Malformed> for IndexError {
    fn from(_: crate::varint::Malformed) -> Self {
        Self::Malformed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Graph {
        let mut graph = Graph::default();
        for n in 0..50_u32 {
            let mut hash = [n as u8; 32];
            hash[0] = 255 - n as u8;
            let actor = ActorId::new(&[(n / 20) as u8; 3]).unwrap();
            let deps: Vec<Position> = match n {
                0 => vec![],
                30 => vec![10, 29],
                31 => vec![5],
                _ => vec![n - 1],
            };
            let operations = u64::from(n % 7 != 3) + u64::from(n == 40) * 100_000;
            let node = Node {
                hash: ChangeHash(hash),
                actor: &actor,
                start_op: u64::from(n) + 1,
                operations,
            };
            graph.push_at(node, &deps);
        }
        graph
    }

    #[test]
    fn a_graph_reads_back_from_its_segments() {
        let graph = sample();
        let mut read = Graph::default();
        for (from, to) in [(0, 7), (7, 33), (33, 50)] {
            decode(&mut read, &encode(&graph, from, to)).unwrap();
        }
        assert_eq!(read.heads(), graph.heads());
        assert_eq!(read.max_op(), graph.max_op());
        for position in 0..graph.len() {
            assert_eq!(read.deps(position), graph.deps(position));
            assert_eq!(format!("{:?}", read.node(position)), format!("{:?}", graph.node(position)));
        }
    }

    #[test]
    fn damaged_segments_are_refused_and_never_panic() {
        let bytes = encode(&sample(), 0, 50);
        for cut in 0..bytes.len() {
            assert!(decode(&mut Graph::default(), &bytes[..cut]).is_err());
        }
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x81;
            let _ = decode(&mut Graph::default(), &bad);
        }
        assert!(matches!(
            decode(&mut Graph::default(), &encode(&sample(), 7, 20)),
            Err(IndexError::Gap { starts_at: 7, expected: 0 })
        ));
    }

    #[test]
    fn a_typists_change_costs_its_hash_and_one_byte() {
        let mut graph = Graph::default();
        let actor = ActorId::new(&[1; 16]).unwrap();
        for n in 0..1_000_u32 {
            let mut hash = [0; 32];
            hash[..4].copy_from_slice(&n.to_le_bytes());
            let node = Node {
                hash: ChangeHash(hash),
                actor: &actor,
                start_op: u64::from(n) + 1,
                operations: 1,
            };
            graph.push_at(node, &n.checked_sub(1).into_iter().collect::<Vec<_>>());
        }
        assert!(encode(&graph, 0, 1_000).len() < 33 * 1_000 + 40);
    }
}
