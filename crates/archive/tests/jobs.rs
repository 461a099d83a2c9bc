//! Jobs done in place, as a simulator does them.

mod common;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, Automerge, Change, ObjType, ROOT};
use common::*;
use tributary_archive::{
    Answer, Compacted, ExpandLimits, Expanded, Failure, Job, Limit, Progress, Reason, Stage,
    Verdict, Verified, run,
};

fn expand(chunks: Vec<u8>) -> Result<Expanded, Failure> {
    expand_within(chunks, ExpandLimits::default())
}

fn expand_within(chunks: Vec<u8>, limits: ExpandLimits) -> Result<Expanded, Failure> {
    match run(Job::Expand { chunks, limits }, &mut |_| {})? {
        Answer::Expanded(expanded) => Ok(expanded),
        other => panic!("{other:?}"),
    }
}

fn compact(snapshot: Option<Vec<u8>>, changes: &[Vec<u8>]) -> Result<Compacted, Failure> {
    match run(Job::Compact { snapshot, changes: changes.to_vec() }, &mut |_| {})? {
        Answer::Compacted(compacted) => Ok(compacted),
        other => panic!("{other:?}"),
    }
}

fn verify(snapshot: Option<Vec<u8>>, changes: &[Vec<u8>]) -> Result<Verified, Failure> {
    match run(Job::Verify { snapshot, changes: changes.to_vec() }, &mut |_| {})? {
        Answer::Verified(verified) => Ok(verified),
        other => panic!("{other:?}"),
    }
}

fn judge(
    snapshot: Option<Vec<u8>>,
    changes: &[Vec<u8>],
    candidates: &[Vec<u8>],
) -> Result<Vec<Verdict>, Failure> {
    let (changes, candidates) = (changes.to_vec(), candidates.to_vec());
    match run(Job::Judge { snapshot, changes, candidates }, &mut |_| {})? {
        Answer::Judged(verdicts) => Ok(verdicts),
        other => panic!("{other:?}"),
    }
}

fn raw_of(change: &Change) -> Vec<u8> {
    change.raw_bytes().to_vec()
}

#[test]
fn honest_documents_expand_to_the_changes_they_were_made_of() {
    for seed in 0..12 {
        let mut doc = honest_document(seed, 1 + (seed % 5) as u8, 60);
        let expanded = expand(doc.save()).unwrap();
        let mut expected = hashes(&raw(&mut doc));
        let mut got = hashes(&expanded.changes);
        expected.sort();
        got.sort();
        assert_eq!(got, expected, "seed {seed}");
        assert_eq!(expanded.heads, heads(&mut doc));
        assert_eq!(expanded.orphans, Vec::<Vec<u8>>::new());
        let mut again = AutoCommit::load(&expanded.snapshot).unwrap();
        assert_eq!(heads(&mut again), expanded.heads);
    }
}

#[test]
fn expanded_changes_come_in_causal_order() {
    let mut doc = honest_document(3, 4, 80);
    // Change chunks backwards: the worst order an upload can have.
    let mut backwards = raw(&mut doc);
    backwards.reverse();
    let expanded = expand(backwards.concat()).unwrap();
    let mut seen = std::collections::HashSet::new();
    for bytes in &expanded.changes {
        let change = Change::from_bytes(bytes.clone()).unwrap();
        assert!(change.deps().iter().all(|dep| seen.contains(dep)));
        seen.insert(change.hash());
    }
    assert_eq!(expanded.heads, heads(&mut doc));
}

#[test]
fn every_type_of_chunk_expands_alone_and_mixed() {
    let mut early = honest_document(7, 3, 30);
    let mut late = early.fork().with_actor(actor(50));
    late.put(ROOT, "long", "x".repeat(3_000)).unwrap();
    let hash = late.commit().unwrap();
    let mut last = late.get_change_by_hash(&hash).unwrap();
    let compressed = last.bytes().into_owned();
    assert!(compressed.len() < 1_000, "that it is compressed is the point");
    let bundle = late.bundle([hash]).unwrap().bytes().to_vec();

    for tail in [raw_of(&last), compressed, bundle, late.save()] {
        for upload in [[early.save(), tail.clone()].concat(), [tail, early.save()].concat()] {
            let expanded = expand(upload).unwrap();
            assert_eq!(expanded.heads, heads(&mut late));
            assert_eq!(expanded.changes.len(), raw(&mut late).len());
            assert!(expanded.changes.contains(&raw_of(&last)), "raw, not compressed");
        }
    }
    let expanded = expand([early.save(), early.save()].concat()).unwrap();
    assert_eq!(expanded.heads, heads(&mut early));
}

#[test]
fn changes_whose_dependencies_are_missing_come_back_as_orphans() {
    let mut doc = typed(10);
    let changes = raw(&mut doc);
    let upload = [&changes[..4], &changes[6..]].concat().concat();
    let expanded = expand(upload).unwrap();
    assert_eq!(expanded.changes, changes[..4]);
    assert_eq!(expanded.orphans, changes[6..]);
    assert_eq!(hashes(&changes)[3].0, expanded.heads.as_slice()[0].0);

    let only_orphans = expand(changes[5].clone()).unwrap();
    assert_eq!((only_orphans.changes.len(), only_orphans.orphans.len()), (0, 1));
    assert!(only_orphans.heads.is_empty());
}

#[test]
fn damaged_uploads_name_the_chunk() {
    let mut doc = honest_document(2, 3, 40);
    let saved = doc.save();
    let change = raw(&mut doc).remove(0);
    let hash = doc.get_heads()[0];
    let bundle = doc.bundle([hash]).unwrap().bytes().to_vec();
    for chunk in [saved.clone(), change, bundle] {
        for at in (0..chunk.len()).step_by(1 + chunk.len() / 150) {
            let mut damaged = chunk.clone();
            damaged[at] ^= 0x41;
            let upload = [saved.clone(), damaged].concat();
            let failure = expand(upload).unwrap_err();
            assert!(
                matches!(failure, Failure::Chunk { at_bytes, .. } if at_bytes >= saved.len()),
                "byte {at}: {failure}"
            );
            assert!(expand(chunk[..at].to_vec()).is_err() || at == 0, "cut at {at}");
        }
    }
}

#[test]
fn uploads_over_a_limit_are_refused() {
    let mut doc = typed(100);
    let ample = ExpandLimits::default();
    let upload = doc.save();
    let over = |limits| match expand_within(upload.clone(), limits).unwrap_err().reason() {
        Reason::OverLimit(limit) => *limit,
        other => panic!("{other}"),
    };
    assert_eq!(over(ExpandLimits { changes_max: 100, ..ample }), Limit::Changes);
    assert_eq!(over(ExpandLimits { operations_max: 50, ..ample }), Limit::Operations);
    assert_eq!(over(ExpandLimits { total_bytes_max: 1_000, ..ample }), Limit::TotalBytes);

    doc.put(ROOT, "long", "x".repeat(100_000)).unwrap();
    let hash = doc.commit().unwrap();
    let bomb = doc.get_change_by_hash(&hash).unwrap().bytes().into_owned();
    let failure = expand_within(bomb, ExpandLimits { change_bytes_max: 50_000, ..ample });
    assert_eq!(failure.unwrap_err().reason(), &Reason::OverLimit(Limit::ChangeBytes));
}

#[test]
fn compacting_in_steps_keeps_heads_and_hashes() {
    for seed in 20..28 {
        let mut doc = honest_document(seed, 4, 60);
        let changes = raw(&mut doc);
        let middle = changes.len() / 2;
        let first = compact(None, &changes[..middle]).unwrap();
        assert_eq!(first.changes, middle as u64);
        // Overlapping on purpose: raw changes outlive the snapshot that covers them.
        let second = compact(Some(first.snapshot), &changes[middle / 2..]).unwrap();
        assert_eq!(second.changes, changes.len() as u64);
        assert_eq!(second.heads, heads(&mut doc));
        let expanded = expand(second.snapshot.clone()).unwrap();
        let (mut got, mut expected) = (hashes(&expanded.changes), hashes(&changes));
        got.sort();
        expected.sort();
        assert_eq!(got, expected);
        let verified = verify(Some(second.snapshot), &[]).unwrap();
        assert_eq!(verified, Verified { heads: second.heads, changes: second.changes });
    }
}

#[test]
fn nothing_compacts_to_an_empty_snapshot() {
    let empty = compact(None, &[]).unwrap();
    assert_eq!((empty.changes, empty.heads.len()), (0, 0));
    assert!(Automerge::load(&empty.snapshot).unwrap().get_heads().is_empty());
}

type Craft = fn(&mut AutoCommit, u8) -> Change;

const BAD: [(&str, Craft, Stage); 6] = [
    ("edit of a missing object", edit_of_a_missing_object, Stage::Apply),
    ("insertion after nothing", insertion_after_nothing, Stage::Apply),
    ("deletion of nothing", deletion_of_nothing, Stage::Reload),
    ("mark in a map", mark_in_a_map, Stage::Read),
    ("last operation number", last_operation_number, Stage::Edit),
    ("10,000 nested maps", |doc, who| nested_maps(doc, who, 10_000), Stage::Read),
];

#[test]
fn a_bad_change_is_named_and_the_rest_is_still_usable() {
    let mut doc = honest_document(31, 3, 50);
    let before = raw(&mut doc);
    for (name, craft, stage) in BAD {
        let mut copy = doc.clone();
        let bad = craft(&mut copy, 200);
        // Honest changes after the bad one, by a client that never saw it.
        let mut after = doc.fork().with_actor(actor(60));
        for n in 0..9 {
            after.put(ROOT, "later", n).unwrap();
            after.commit();
        }
        let mut changes = before.clone();
        changes.push(raw_of(&bad));
        changes.extend(raw(&mut after).split_off(before.len()));

        let failure = compact(None, &changes).unwrap_err();
        let Failure::Change { index, hash, reason } = failure else { panic!("{name}: {failure}") };
        assert_eq!(index, before.len(), "{name}: {reason}");
        assert_eq!(hash, Some(model::ChangeHash(bad.hash().0)));
        match reason {
            Reason::Panicked { stage: at, .. } | Reason::Refused { stage: at, .. } => {
                assert_eq!(at, stage, "{name}");
            }
            Reason::NoRoomToEdit => assert_eq!(stage, Stage::Edit, "{name}"),
            Reason::TooDeep => assert_eq!(stage, Stage::Read, "{name}"),
            other => panic!("{name}: {other}"),
        }

        changes.remove(index);
        assert_eq!(compact(None, &changes).unwrap().heads, heads(&mut after), "{name}");
    }
}

#[test]
fn a_document_as_deep_as_allowed_is_read_on_a_common_stack() {
    let mut doc = typed(3);
    let deep = nested_maps(&mut doc, 9, tributary_archive::DEPTH_MAX as u64);
    let mut changes = raw(&mut doc);
    changes.push(raw_of(&deep));
    assert_eq!(compact(None, &changes).unwrap().changes, 5);
}

#[test]
fn a_bad_snapshot_is_not_blamed_on_the_changes_after_it() {
    let mut doc = typed(5);
    let mut bad = AutoCommit::load(&doc.save()).unwrap();
    let mark = mark_in_a_map(&mut doc, 200);
    bad.apply_changes([mark]).unwrap();
    let saved = bad.save();
    bad.put(ROOT, "after", 1).unwrap();
    bad.commit();
    let after = bad.get_last_local_change().unwrap();
    let failure = compact(Some(saved), &[raw_of(&after)]).unwrap_err();
    assert!(
        matches!(
            failure,
            Failure::Snapshot { reason: Reason::Panicked { stage: Stage::Read, .. } }
        ),
        "{failure}"
    );

    for snapshot in [vec![], b"no document".to_vec(), doc.save()[..40].to_vec()] {
        let empty = snapshot.is_empty();
        let outcome = compact(Some(snapshot), &[]);
        assert!(empty || matches!(outcome, Err(Failure::Snapshot { .. })), "{outcome:?}");
    }
}

#[test]
fn a_change_without_its_dependency_or_out_of_its_slot_is_named() {
    let mut doc = typed(6);
    let changes = raw(&mut doc);
    let gap = [&changes[..3], &changes[4..]].concat();
    let missing = model::ChangeHash(hashes(&changes)[3].0);
    let failure = verify(None, &gap).unwrap_err();
    assert!(
        matches!(&failure, Failure::Change { index: 3, reason, .. }
            if *reason == Reason::MissingDependency(missing)),
        "{failure}"
    );

    // Two changes of one writer with the same sequence number.
    let mut fork = AutoCommit::load(&doc.save()).unwrap().with_actor(actor(1));
    doc.put(ROOT, "branch", 1).unwrap();
    fork.put(ROOT, "branch", 2).unwrap();
    doc.commit();
    fork.commit();
    let mut forked = raw(&mut doc);
    forked.push(raw_of(&fork.get_last_local_change().unwrap()));
    let failure = verify(None, &forked).unwrap_err();
    assert!(matches!(failure, Failure::Change { index, reason: Reason::Refused { .. }, .. }
            if index == forked.len() - 1),);

    let mut garbled = changes.clone();
    garbled[4][5] ^= 1;
    let failure = verify(None, &garbled).unwrap_err();
    assert!(matches!(failure, Failure::Change { index: 4, reason: Reason::Malformed(_), .. }));
}

#[test]
fn candidates_are_judged_one_by_one_and_with_what_depends_on_them() {
    let mut doc = honest_document(40, 3, 40);
    let changes = raw(&mut doc);
    let snapshot = doc.save();
    let mut good = doc.fork().with_actor(actor(70));
    good.put(ROOT, "good", 1).unwrap();
    good.commit();
    good.put(ROOT, "good", 2).unwrap();
    good.commit();
    let honest = raw(&mut good).split_off(changes.len());

    let bad: Vec<Change> = BAD
        .iter()
        .enumerate()
        .map(|(n, (_, craft, _))| craft(&mut doc.clone(), 210 + n as u8))
        .collect();
    let mut child_of_bad = AutoCommit::load(&snapshot).unwrap();
    child_of_bad.apply_changes([bad[2].clone()]).unwrap();
    child_of_bad.put(ROOT, "child", 1).unwrap();
    child_of_bad.commit();
    let child = child_of_bad.get_last_local_change().unwrap();

    let mut candidates = vec![honest[0].clone()];
    candidates.extend(bad.iter().map(raw_of));
    candidates.push(raw_of(&child));
    candidates.push(b"nonsense".to_vec());
    candidates.push(honest[1].clone());
    candidates.push(changes[0].clone());

    for (snapshot, changes) in [(None, &changes[..]), (Some(snapshot), &[][..])] {
        let verdicts = judge(snapshot, changes, &candidates).unwrap();
        let good: Vec<usize> = (0..verdicts.len()).filter(|at| verdicts[*at].is_ok()).collect();
        assert_eq!(good, [0, BAD.len() + 3, BAD.len() + 4], "{verdicts:?}");
        let missing = model::ChangeHash(bad[2].hash().0);
        assert_eq!(verdicts[BAD.len() + 1], Err(Reason::MissingDependency(missing)));
    }
}

#[test]
fn honest_candidates_all_pass() {
    let mut doc = honest_document(41, 4, 60);
    let changes = raw(&mut doc);
    let (base, candidates) = changes.split_at(changes.len() / 3);
    let verdicts = judge(None, base, candidates).unwrap();
    assert_eq!(verdicts, vec![Ok(()); candidates.len()]);
    assert_eq!(judge(None, base, &[]).unwrap(), vec![]);
}

#[test]
fn what_was_bad_before_is_not_blamed_on_a_candidate() {
    let mut doc = typed(5);
    let mut changes = raw(&mut doc);
    let mut good = doc.fork().with_actor(actor(70));
    good.put(ROOT, "good", 1).unwrap();
    good.commit();
    changes.push(raw_of(&deletion_of_nothing(&mut doc, 200)));
    let candidate = raw_of(&good.get_last_local_change().unwrap());
    let failure = judge(None, &changes, &[candidate]).unwrap_err();
    assert!(matches!(failure, Failure::Change { index: 6, .. }), "{failure}");
}

#[test]
fn a_mark_that_ends_before_it_begins_is_found_by_judging_only() {
    use automerge::legacy::{ElementId, Key, MarkData, ObjectId, Op, OpId, OpType};
    let mut doc = AutoCommit::new().with_actor(actor(1));
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    doc.splice_text(&text, 0, 0, "abcdef").unwrap();
    doc.commit();
    let object = ObjectId::Id(OpId::new(1, &actor(1)));
    let mark = |after: u64, action| Op {
        action,
        obj: object.clone(),
        key: Key::Seq(ElementId::Id(OpId::new(after, &actor(1)))),
        pred: Vec::new().into(),
        insert: true,
    };
    let begin =
        OpType::MarkBegin(MarkData { name: "bold".into(), value: true.into(), expand: false });
    let honest =
        crafted(&mut doc, 8, vec![mark(3, begin.clone()), mark(5, OpType::MarkEnd(false))]);
    let bad = crafted(&mut doc, 9, vec![mark(5, begin), mark(3, OpType::MarkEnd(false))]);
    let verdicts = judge(Some(doc.save()), &[], &[raw_of(&honest), raw_of(&bad)]).unwrap();
    assert_eq!(verdicts[0], Ok(()));
    let Err(Reason::Refused { stage: Stage::Reload, message }) = &verdicts[1] else {
        panic!("{:?}", verdicts[1])
    };
    assert!(message.contains("mark"), "{message}");
}

#[test]
fn progress_says_what_is_tried_before_it_is_tried() {
    let mut doc = typed(10);
    let mut heard = Vec::new();
    let job = Job::Compact { snapshot: Some(doc.save()), changes: raw(&mut doc) };
    run(job, &mut |progress| heard.push(progress)).unwrap();
    let stages: Vec<Stage> = heard.iter().map(|progress| progress.stage).collect();
    // All changes are in the snapshot, so none is applied.
    let proof = [Stage::Save, Stage::Reload, Stage::Read, Stage::Patch, Stage::Edit];
    assert_eq!(stages, [&[Stage::Load][..], &proof].concat());

    let changes = raw(&mut doc);
    let mut heard = Vec::new();
    run(Job::Verify { snapshot: None, changes }, &mut |progress| heard.push(progress)).unwrap();
    assert_eq!(heard[0], Progress { stage: Stage::Apply, from: 0, to: 11 });
}
