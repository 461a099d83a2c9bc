//! Chunks are read as Automerge reads them: what passes here passes there, with the same meaning.

#[path = "structural/honest.rs"]
mod honest;

use automerge::legacy;
use honest::Habits;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use tributary_history::{
    Action, Change, Chunk, ChunkError, Key, Limits, Malformed, ObjectKind, OpRef, read_change,
    read_chunks,
};

const HABITS: Habits = Habits { clients: 3, steps: 40, marks: true };

fn one_change(bytes: &[u8]) -> Result<Change, ChunkError> {
    match read_chunks(bytes, &Limits::default())?.as_slice() {
        [Chunk::Change(change)] => Ok(change.clone()),
        other => panic!("one change was given, {other:?} read"),
    }
}

/// The parts of an operation that both readers know, in one form.
#[derive(Debug, PartialEq)]
struct Seen {
    object: Option<(u64, Vec<u8>)>,
    key: String,
    insert: bool,
    action: String,
    predecessors: Vec<(u64, Vec<u8>)>,
}

/// Our reading of a change: its operations, and whether its bytes are canonical.
fn ours(change: &Change) -> (Vec<Seen>, bool) {
    let body = change.body().unwrap();
    let mut operations = change.read_operations(&body).unwrap();
    let actors: Vec<Vec<u8>> = operations.actors().map(<[u8]>::to_vec).collect();
    let id = |op: OpRef| (u64::from(op.counter), actors[op.actor as usize].clone());
    let mut seen = Vec::new();
    while let Some(operation) = operations.next().unwrap() {
        seen.push(Seen {
            object: operation.object.map(id),
            key: match operation.key {
                Key::Map(key) => format!("key {key}"),
                Key::Head => "head".into(),
                Key::Element(element) => format!("element {:?}", id(element)),
            },
            insert: operation.insert,
            action: format!("{:?}", operation.action),
            predecessors: operation.predecessors.iter().map(|p| id(*p)).collect(),
        });
    }
    (seen, operations.is_canonical())
}

/// Automerge's reading of the same.
fn theirs(change: &automerge::Change) -> (Vec<Seen>, bool) {
    let id = |op: &legacy::OpId| (op.counter(), op.actor().to_bytes().to_vec());
    let expanded = change.decode();
    let seen = expanded.operations.iter().map(|operation| Seen {
        object: match &operation.obj {
            legacy::ObjectId::Root => None,
            legacy::ObjectId::Id(object) => Some(id(object)),
        },
        key: match &operation.key {
            legacy::Key::Map(key) => format!("key {key}"),
            legacy::Key::Seq(legacy::ElementId::Head) => "head".into(),
            legacy::Key::Seq(legacy::ElementId::Id(element)) => {
                format!("element {:?}", id(element))
            }
        },
        insert: operation.insert,
        action: match &operation.action {
            legacy::OpType::Make(kind) => {
                let kind = match kind {
                    automerge::ObjType::Map => ObjectKind::Map,
                    automerge::ObjType::List => ObjectKind::List,
                    automerge::ObjType::Text => ObjectKind::Text,
                    automerge::ObjType::Table => ObjectKind::Table,
                };
                format!("{:?}", Action::Make(kind))
            }
            legacy::OpType::Put(_) => "Put".into(),
            legacy::OpType::Delete => "Delete".into(),
            legacy::OpType::Increment(_) => "Increment".into(),
            legacy::OpType::MarkBegin(_) => "MarkBegin".into(),
            legacy::OpType::MarkEnd(_) => "MarkEnd".into(),
        },
        predecessors: operation.pred.iter().map(id).collect(),
    });
    let seen = seen.collect();
    (seen, automerge::Change::from(expanded).raw_bytes() == change.raw_bytes())
}

/// Both readings of `bytes` agree; `sorted` when predecessors may be compared in order.
fn assert_read_alike(bytes: &[u8], change: &Change) {
    let crate_change = automerge::Change::from_bytes(bytes.to_vec())
        .unwrap_or_else(|error| panic!("we take what Automerge refuses ({error}): {bytes:02x?}"));
    assert_eq!(crate_change.hash().0, change.hash().0);
    assert_eq!(crate_change.seq(), change.seq());
    assert_eq!(crate_change.start_op().get(), change.start_op());
    assert_eq!(crate_change.len() as u64, change.operations());
    assert_eq!(crate_change.timestamp(), change.time());
    assert_eq!(crate_change.actor_id().to_bytes(), change.actor().as_bytes());
    assert_eq!(crate_change.author().is_some(), change.has_author_footer());
    assert!(crate_change.deps().iter().map(|dep| dep.0).eq(change.deps().iter().map(|dep| dep.0)));
    if change.max_op() > 0 {
        assert_eq!(crate_change.max_op(), change.max_op());
    }
    let ((mut our_ops, our_canonical), (their_ops, canonical)) =
        (ours(change), theirs(&crate_change));
    assert_eq!(our_canonical, canonical, "canonical or not: {bytes:02x?}");
    // Automerge's decoding sorts predecessors.
    if !canonical {
        our_ops.iter_mut().for_each(|seen| seen.predecessors.sort());
    }
    assert_eq!(our_ops, their_ops);
}

/// A chunk of `kind` around `body`, with the right checksum.
fn chunk(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut head = vec![kind];
    let mut length = body.len();
    loop {
        let more = length >= 0x80;
        head.push(length as u8 & 0x7f | if more { 0x80 } else { 0 });
        length >>= 7;
        if !more {
            break;
        }
    }
    let hash = Sha256::new().chain_update(&head).chain_update(body).finalize();
    [&[0x85, 0x6f, 0x4a, 0x83], &hash[..4], &head, body].concat()
}

fn body_of(change: &automerge::Change) -> Vec<u8> {
    let change = one_change(change.raw_bytes()).unwrap();
    change.body().unwrap().into_owned()
}

#[test]
fn honest_changes_read_as_automerge_reads_them_deflated_or_not() {
    for seed in 0..60 {
        let habits = Habits { marks: seed % 2 == 0, ..HABITS };
        for mut change in honest::history(seed, habits) {
            let read = one_change(change.raw_bytes()).expect("an honest change is read");
            assert_read_alike(change.raw_bytes(), &read);
            assert!(ours(&read).1, "an honest change is canonical");
            let deflated = one_change(&change.bytes()).expect("an honest change is read");
            assert_eq!((deflated.hash(), ours(&deflated)), (read.hash(), ours(&read)));
            let stored = read_change(&change.bytes()).unwrap();
            assert_eq!((stored.hash(), stored.operations()), (read.hash(), read.operations()));
        }
    }
}

#[test]
fn whatever_passes_is_taken_by_automerge_with_the_same_hash_and_meaning() {
    let (mut taken, mut canonical, mut refused) = (0, 0, 0);
    for seed in 0..25 {
        let mut random = SmallRng::seed_from_u64(seed);
        for change in honest::history(seed, HABITS) {
            let body = body_of(&change);
            for _ in 0..12 {
                let mut body = body.clone();
                for _ in 0..random.random_range(1..4) {
                    mutate(&mut body, &mut random);
                }
                let bytes = chunk(1, &body);
                match one_change(&bytes) {
                    Ok(read) => {
                        assert_read_alike(&bytes, &read);
                        taken += 1;
                        canonical += usize::from(ours(&read).1);
                    }
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(taken > 1000 && canonical > 100 && refused > 1000, "{taken} {canonical} {refused}");
}

fn mutate(bytes: &mut Vec<u8>, random: &mut SmallRng) {
    let at = random.random_range(0..bytes.len());
    match random.random_range(0..6) {
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        1 => bytes[at] = random.random_range(0..8),
        2 => bytes[at] = 0x80 - random.random_range(0..4),
        3 => bytes.insert(at, random.random_range(0..4)),
        4 if bytes.len() > 8 => drop(bytes.remove(at)),
        _ => bytes[at] = bytes[at].wrapping_add(1),
    }
}

#[test]
fn bytes_that_are_no_chunks_say_why() {
    let change = honest::history(1, HABITS).remove(0);
    let good = change.raw_bytes().to_vec();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        read_chunks(&bytes, &Limits::default()).unwrap_err()
    };
    assert_eq!(with(0, 0), ChunkError::BadMagic);
    assert_eq!(with(4, good[4] ^ 1), ChunkError::BadChecksum);
    assert_eq!(with(8, 9), ChunkError::UnknownType(9));
    assert_eq!(with(20, good[20] ^ 1), ChunkError::BadChecksum);
    for length in 1..good.len() {
        let cut = read_chunks(&good[..length], &Limits::default());
        assert_eq!(cut.unwrap_err(), ChunkError::Truncated);
    }
    let twice = [&good[..], &good].concat();
    assert_eq!(read_chunks(&twice, &Limits::default()).unwrap().len(), 2);
    assert_eq!(read_change(&twice), Err(ChunkError::TrailingData));
    assert!(read_chunks(&[], &Limits::default()).unwrap().is_empty());
}

#[test]
fn random_bytes_in_a_frame_never_panic() {
    let mut random = SmallRng::seed_from_u64(7);
    for _ in 0..20_000 {
        let body: Vec<u8> = (0..random.random_range(0..90)).map(|_| random.random()).collect();
        let _ = read_chunks(&chunk(random.random_range(0..5), &body), &Limits::default());
        let _ = read_chunks(&body, &Limits::default());
    }
}

#[test]
fn a_deflated_change_may_not_inflate_past_the_bound_nor_trail_data() {
    let mut doc = automerge::AutoCommit::new();
    use automerge::transaction::Transactable;
    doc.put(automerge::ROOT, "zeros", vec![0_u8; 1 << 20]).unwrap();
    doc.commit();
    let mut change = doc.get_changes(&[]).remove(0);
    let bytes = change.bytes().into_owned();
    assert!(bytes.len() < 4000);
    one_change(&bytes).unwrap();
    let limits =
        Limits { inflated_bytes_max: 1 << 20, inflated_bytes_per_byte: 0, ..Limits::default() };
    let refused = read_chunks(&bytes, &limits).unwrap_err();
    assert_eq!(refused, ChunkError::TooLarge { inflated_bytes_max: 1 << 20 });
    // All chunks of one list item share the budget.
    let limits = Limits { inflated_bytes_max: 3 << 19, ..limits };
    read_chunks(&bytes, &limits).unwrap();
    let refused = read_chunks(&[&bytes[..], &bytes].concat(), &limits).unwrap_err();
    assert_eq!(refused, ChunkError::TooLarge { inflated_bytes_max: 3 << 19 });

    let frame = 11;
    let deflated = [&bytes[frame..], b"trailing"].concat();
    let mut trailing = bytes[..9].to_vec();
    trailing.extend([deflated.len() as u8 & 0x7f | 0x80, (deflated.len() >> 7) as u8]);
    trailing.extend(deflated);
    assert_eq!(read_chunks(&trailing, &Limits::default()).unwrap_err(), ChunkError::TrailingData);
    let mut cut = bytes[..9].to_vec();
    let short = &bytes[frame..bytes.len() - 9];
    cut.extend([short.len() as u8 & 0x7f | 0x80, (short.len() >> 7) as u8]);
    cut.extend(short);
    let refused = read_chunks(&cut, &Limits::default()).unwrap_err();
    assert_eq!(refused, ChunkError::Malformed(Malformed::Deflate));
}

/// The body of a change by actor `a` with the given columns.
fn body_with(columns: &[(u8, &[u8])]) -> Vec<u8> {
    let mut body = vec![0, 1, b'a', 1, 1, 0, 0, 0, columns.len() as u8];
    for (number, bytes) in columns {
        // Numbers from 128 take two bytes.
        match number {
            0..0x80 => body.push(*number),
            _ => body.extend([*number, 1]),
        }
        body.push(bytes.len() as u8);
    }
    columns.iter().for_each(|(_, bytes)| body.extend(*bytes));
    body
}

#[test]
fn run_lengths_that_claim_more_than_the_bound_are_refused_before_anything_is_read() {
    let billion = [0x80, 0x94, 0xeb, 0xdc, 0x03];
    let run = |value: u8| [&billion[..], &[value]].concat();
    let nulls = body_with(&[
        (21, &[&billion[..], &[1, b'k']].concat()),
        (52, &billion),
        (66, &run(1)),
        (86, &run(0)),
        (112, &run(0)),
    ]);
    let refused = one_change(&chunk(1, &nulls)).unwrap_err();
    assert_eq!(refused, ChunkError::TooManyOperations { at_least: 1_000_000_000 });
    // One operation with a billion predecessors.
    let predecessors = body_with(&[
        (21, &[0x7f, 1, b'k']),
        (52, &[1]),
        (66, &[0x7f, 1]),
        (86, &[0x7f, 0]),
        (112, &[&[0x7f], &billion[..]].concat()),
        (113, &run(0)),
        (115, &run(1)),
    ]);
    let refused = one_change(&chunk(1, &predecessors)).unwrap_err();
    assert_eq!(refused, ChunkError::TooManyOperations { at_least: 1_000_000_000 });
    // A million are free, and each byte received earns four more.
    let limits = Limits { operations_max: 2, operations_per_byte: 0, ..Limits::default() };
    let three =
        body_with(&[(21, &[3, 1, b'k']), (52, &[3]), (66, &[3, 1]), (86, &[3, 0]), (112, &[3, 0])]);
    one_change(&chunk(1, &three)).unwrap();
    assert_eq!(
        read_chunks(&chunk(1, &three), &limits).unwrap_err(),
        ChunkError::TooManyOperations { at_least: 3 }
    );
}

#[test]
fn counters_and_actor_numbers_that_panic_in_automerge_are_refused() {
    let with_key = |actor: &[u8], counter: &[u8]| {
        let body = body_with(&[
            (17, actor),
            (19, counter),
            (52, &[1]),
            (66, &[0x7f, 1]),
            (86, &[0x7f, 0]),
            (112, &[0x7f, 0]),
        ]);
        one_change(&chunk(1, &body))
    };
    with_key(&[0x7f, 0], &[0x7f, 5]).unwrap();
    let refused = with_key(&[0x7f, 1], &[0x7f, 5]).unwrap_err();
    assert_eq!(refused, ChunkError::Malformed(Malformed::ActorIndex));
    let refused = with_key(&[0x7f, 0], &[0x7f, 0x80, 0x80, 0x80, 0x80, 0x10]).unwrap_err();
    assert_eq!(refused, ChunkError::Malformed(Malformed::Counter));
}

#[test]
fn columns_of_a_change_may_be_neither_deflated_nor_unknown_nor_unordered() {
    let column = |numbers: &[u8]| {
        let columns: Vec<(u8, &[u8])> = numbers.iter().map(|n| (*n, &[][..])).collect();
        one_change(&chunk(1, &body_with(&columns))).unwrap_err()
    };
    assert_eq!(column(&[66 | 8]), ChunkError::Malformed(Malformed::DeflatedColumn));
    assert_eq!(column(&[67]), ChunkError::Malformed(Malformed::ColumnList(67)));
    assert_eq!(column(&[66, 52]), ChunkError::Malformed(Malformed::ColumnList(52)));
    assert_eq!(column(&[52, 52]), ChunkError::Malformed(Malformed::ColumnList(52)));
    assert_eq!(column(&[87]), ChunkError::Malformed(Malformed::ColumnWithoutPartner));
    assert_eq!(column(&[112, 113]), ChunkError::Malformed(Malformed::ColumnWithoutPartner));
}

#[test]
fn documents_and_bundles_pass_whole_and_bombs_in_them_do_not() {
    for seed in 0..20 {
        let changes = honest::history(seed, HABITS);
        let mut doc = automerge::Automerge::new();
        doc.apply_changes(changes.clone()).unwrap();
        let bundle = doc.bundle(changes.iter().map(automerge::Change::hash)).unwrap();
        let item = [&doc.save()[..], changes[0].raw_bytes(), bundle.bytes()].concat();
        let read = read_chunks(&item, &Limits::default()).unwrap();
        assert!(matches!(
            read.as_slice(),
            [Chunk::Document(document), Chunk::Change(_), Chunk::Bundle(_)]
                if document[..] == doc.save()
        ));
        read_chunks(&doc.save_nocompress(), &Limits::default()).unwrap();
        let few = Limits { document_operations_max: 20, ..Limits::default() };
        assert!(matches!(
            read_chunks(&doc.save(), &few),
            Err(ChunkError::TooManyOperations { at_least: 21.. })
        ));
    }
    let mut doc = automerge::AutoCommit::new();
    use automerge::transaction::Transactable;
    doc.put(automerge::ROOT, "zeros", vec![0_u8; 1 << 20]).unwrap();
    let saved = doc.save();
    let limits =
        Limits { inflated_bytes_max: 1 << 19, inflated_bytes_per_byte: 0, ..Limits::default() };
    assert!(matches!(read_chunks(&saved, &limits), Err(ChunkError::TooLarge { .. })));
}
