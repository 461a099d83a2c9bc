use std::sync::LazyLock;

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, AutoCommit, ObjType, ROOT, ReadDoc};
use history::chunk::read_change;
use model::{ChangeHash, DocumentId, RegionName};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::origin::{Origin, STREAMS};

/// Changes as clients make them, of several documents: typing by turns and at once, merges, marks,
/// counters, nested objects, commit messages, and some that are large enough to be deflated.
static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(|| (0..6).flat_map(entries_of).collect());

fn entries_of(number: u8) -> Vec<Entry> {
    let id = DocumentId::from_bytes(&[number * 37 + 1; 16]).unwrap();
    let actor = |n: u8| ActorId::from(vec![number * 10 + n; if n == 2 { 3 } else { 16 }]);
    let mut one = AutoCommit::new().with_actor(actor(1));
    let text = one.put_object(ROOT, "text", ObjType::Text).unwrap();
    one.put(ROOT, "count", automerge::ScalarValue::counter(1)).unwrap();
    one.commit_with(
        CommitOptions::default().with_message("the beginning").with_time(1_700_000_000),
    );
    let mut two = one.fork().with_actor(actor(2));
    for turn in 0..30_usize {
        let (writer, reader) =
            if turn % 3 == 0 { (&mut two, &mut one) } else { (&mut one, &mut two) };
        let length = writer.length(&text);
        match turn % 10 {
            4 => writer.splice_text(&text, 0, (length / 2) as isize, "").unwrap(),
            5 => writer.increment(ROOT, "count", -3).unwrap(),
            6 if length > 4 => {
                let mark = Mark::new("bold".into(), true, 1, 3);
                writer.mark(&text, mark, ExpandMark::After).unwrap();
            }
            7 => {
                let list = writer.put_object(ROOT, "list", ObjType::List).unwrap();
                writer.insert(&list, 0, "much ".repeat(200)).unwrap();
            }
            _ => writer.splice_text(&text, length, 0, "x").unwrap(),
        }
        writer.commit_with(CommitOptions::default().with_time(1_700_000_000 + (turn as i64) / 4));
        if turn % 4 == 0 {
            reader.merge(writer).unwrap();
        }
    }
    one.merge(&mut two).unwrap();
    one.put(ROOT, "merged", true).unwrap();
    let mut entries: Vec<Entry> = one
        .get_changes(&[])
        .into_iter()
        .map(|change| change.clone().bytes().into_owned())
        .map(|bytes| Item::Change(read_change(&bytes).unwrap()))
        .map(|item| Entry { document: id.clone(), item })
        .collect();
    let dead = Item::Dead { hash: ChangeHash([number; 32]), reason: "it does not fit".to_owned() };
    entries.push(Entry { document: id, item: dead });
    entries
}

fn log(stream: u8) -> LogId {
    let origin = Origin { region: RegionName::new("somewhere").unwrap(), epoch: 7 };
    LogId { origin, stream }
}

/// Each entry in the log of its stream, numbered from where `first` says.
fn groups(entries: &[Entry], first: u64) -> Vec<Group<Vec<Entry>>> {
    let streams = entries.chunk_by(|one, next| one.document.stream() == next.document.stream());
    streams
        .enumerate()
        .map(|(at, run)| Group {
            log: log(run[0].document.stream()),
            first: first + 1000 * at as u64,
            entries: run.to_vec(),
        })
        .collect()
}

fn flat(groups: &[Group<Vec<Entry>>]) -> Vec<(LogId, u64, DocumentId, Vec<u8>)> {
    let bytes = |entry: &Entry| match &entry.item {
        Item::Change(change) => change.bytes().to_vec(),
        Item::Dead { hash, reason } => [hash.as_bytes(), reason.as_bytes()].concat(),
    };
    let numbered = |group: &Group<Vec<Entry>>| {
        let (log, first) = (group.log.clone(), group.first);
        let entries = group.entries.iter().enumerate();
        let flat = entries.map(move |(at, entry)| {
            (log.clone(), first + at as u64, entry.document.clone(), bytes(entry))
        });
        flat.collect::<Vec<_>>()
    };
    groups.iter().flat_map(numbered).collect()
}

fn decoder() -> Decoder {
    Decoder::new(Limits::default())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, fork: false, ..ProptestConfig::default() })]

    #[test]
    fn any_changes_in_any_order_come_out_as_the_same_bytes(
        batches in prop::collection::vec(
            (prop::collection::vec(any::<Index>(), 0..20), any::<u32>()), 0..12),
        restart_at in prop::option::of(0..12_usize),
    ) {
        let (mut encoder, mut decoder) = (Encoder::new(), decoder());
        for (number, (picks, first)) in batches.iter().enumerate() {
            if restart_at == Some(number) {
                encoder.restart();
                decoder.restart();
            }
            let entries: Vec<Entry> =
                picks.iter().map(|pick| pick.get(&ENTRIES).clone()).collect();
            let groups = groups(&entries, u64::from(*first) + 1);
            let batch = encoder.encode(&groups);
            prop_assert_eq!(Header::read(&batch.bytes).unwrap().cost, batch.cost);
            let decoded = decoder.decode(&batch.bytes).unwrap();
            prop_assert_eq!(flat(&decoded), flat(&groups));
        }
    }

    #[test]
    fn a_changed_byte_anywhere_is_found(
        picks in prop::collection::vec(any::<Index>(), 1..20),
        at in any::<Index>(),
        change in 1..=255_u8,
    ) {
        let entries: Vec<Entry> = picks.iter().map(|pick| pick.get(&ENTRIES).clone()).collect();
        let (mut encoder, mut decoder) = (Encoder::new(), decoder());
        let before = groups(&ENTRIES[..20], 1);
        decoder.decode(&encoder.encode(&before).bytes).unwrap();
        let honest = groups(&entries, 5000);
        let mut batch = encoder.encode(&honest);
        let at = at.index(batch.bytes.len());
        batch.bytes[at] ^= change;
        // A stray bit of the compressed stream may mean nothing: then nothing is lost either.
        if let Ok(decoded) = decoder.decode(&batch.bytes) {
            prop_assert!(at > 10);
            prop_assert_eq!(flat(&decoded), flat(&honest));
        }
    }

    #[test]
    fn any_bytes_are_a_batch_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decoder().decode(&bytes);
        let batch = [&[0, 0, 100][..], &[0; 8], &bytes].concat();
        let _ = decoder().decode(&batch);
        // As if it were what inflated.
        let mut encoder = Encoder::new();
        let mut batch = vec![0, 0, 200, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        encoder.compress(&bytes, &mut batch);
        let _ = decoder().decode(&batch);
    }
}

#[test]
fn what_is_likely_is_left_out() {
    let text = |from: usize, to: usize| {
        let mut document = AutoCommit::new().with_actor(ActorId::from(vec![5; 16]));
        let text = document.put_object(ROOT, "text", ObjType::Text).unwrap();
        document.commit();
        for at in 0..to {
            document.splice_text(&text, at, 0, "a").unwrap();
            document.commit_with(CommitOptions::default().with_time(1_700_000_000));
        }
        let id = DocumentId::from_bytes(&[5; 16]).unwrap();
        let changes = document.get_changes(&[]).into_iter().skip(from);
        changes
            .map(|change| Item::Change(read_change(change.clone().bytes().as_ref()).unwrap()))
            .map(|item| Entry { document: id.clone(), item })
            .collect::<Vec<_>>()
    };
    let entries = text(0, 300);
    let mut encoder = Encoder::new();
    encoder.encode(&groups(&entries[..200], 1));
    let batch = encoder.encode(&groups(&entries[200..232], 201));
    let each = batch.bytes.len() as f64 / 32.0;
    assert!(each < 8.0, "{each} bytes for each change");
    assert!(batch.cost / 32 > 100, "which have {} as they are", batch.cost / 32);
}

#[test]
fn a_batch_that_inflates_to_more_than_it_costs_is_refused() {
    let mut encoder = Encoder::new();
    let mut bomb = vec![0, 0, 100];
    bomb.extend_from_slice(&[0; 8]);
    encoder.compress(&vec![0; 100 << 20], &mut bomb);
    assert!(bomb.len() < 20_000);
    assert_eq!(decoder().decode(&bomb).unwrap_err(), CodecError::TooLarge);
}

#[test]
fn a_batch_that_costs_more_than_it_says_is_refused() {
    let honest = groups(&ENTRIES[..10], 1);
    let mut encoder = Encoder::new();
    let batch = encoder.encode(&honest);
    let mut reader = Reader::new(&batch.bytes);
    let (header, digest) = Header::split(&mut reader).unwrap();
    let mut cheap = vec![0, 0];
    varint::put(&mut cheap, header.cost - 1);
    cheap.extend_from_slice(&digest);
    cheap.extend_from_slice(reader.bytes(reader.left()).unwrap());
    assert_eq!(decoder().decode(&cheap).unwrap_err(), CodecError::TooLarge);
}

#[test]
fn a_batch_that_is_missing_is_noticed() {
    let mut encoder = Encoder::new();
    encoder.encode(&groups(&ENTRIES[..5], 1));
    let second = encoder.encode(&groups(&ENTRIES[5..10], 6));
    assert_eq!(decoder().decode(&second.bytes).unwrap_err(), CodecError::Order);
}

#[test]
fn a_document_in_the_log_of_another_stream_is_refused() {
    let mut groups = groups(&ENTRIES[..1], 1);
    groups[0].log.stream = (groups[0].log.stream + 1) % STREAMS;
    let batch = Encoder::new().encode(&groups);
    assert_eq!(decoder().decode(&batch.bytes).unwrap_err(), CodecError::Stream);
}

#[test]
fn after_a_restart_both_sides_understand_each_other_whatever_was_lost() {
    let (mut encoder, mut decoder) = (Encoder::new(), decoder());
    for part in ENTRIES.chunks(7) {
        encoder.encode(&groups(part, 1));
    }
    encoder.restart();
    decoder.restart();
    for part in ENTRIES.chunks(7) {
        let groups = groups(part, 1);
        let decoded = decoder.decode(&encoder.encode(&groups).bytes).unwrap();
        assert_eq!(flat(&decoded), flat(&groups));
    }
}

#[test]
fn a_full_table_is_forgotten_on_both_sides_alike() {
    let (mut encoder, mut decoder) = (Encoder::new(), decoder());
    let change = ENTRIES[0].item.clone();
    for part in 0..40_u32 {
        let entry = |n: u32| {
            let id = [&n.to_le_bytes()[..], &[9; 12]].concat();
            Entry { document: DocumentId::from_bytes(&id).unwrap(), item: change.clone() }
        };
        let mut entries: Vec<Entry> = (part * 1000..(part + 1) * 1000).map(entry).collect();
        entries.sort_by_key(|entry| entry.document.stream());
        let groups = groups(&entries, 1);
        let decoded = decoder.decode(&encoder.encode(&groups).bytes).unwrap();
        assert_eq!(flat(&decoded), flat(&groups));
    }
}
