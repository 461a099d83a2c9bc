//! Stories of one shard: what it does not take in, or only when the CRDT has judged it.

#[allow(dead_code, reason = "each file of stories uses a part of the rig")]
mod rig;

#[allow(dead_code, reason = "the table of misfits uses more of it")]
#[path = "../../history/tests/structural/raw.rs"]
mod raw;

use std::time::Duration;

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::Transactable;
use automerge::{ObjType, ROOT, ReadDoc};
use history::Refusal;
use raw::Raw;
use rig::{Client, Rig};
use tributary_node::planted::{Bug, plant};
use tributary_node::{CloseReason, Limits, Report};

#[test]
fn formatting_arrives_without_the_slow_lane() {
    let mut rig = Rig::new(Limits::default());
    let (mut ann, mut bob) = (Client::join(&mut rig, "ann"), Client::join(&mut rig, "bob"));
    let text = ann.doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    ann.doc.splice_text(&text, 0, 0, "formatted words").unwrap();
    ann.sync(&mut rig);
    for round in 0..5 {
        let mark = Mark::new("bold".to_owned(), true, round, round + 4);
        ann.doc.mark(&text, mark, ExpandMark::Both).unwrap();
        ann.doc.splice_text(&text, round, 0, "x").unwrap();
        ann.doc.commit();
    }
    ann.sync(&mut rig);
    bob.sync(&mut rig);
    assert_eq!(bob.heads(), ann.heads());
    assert!(rig.closed.is_empty(), "{:?}", rig.closed);
    assert_eq!(rig.shard.counters().slow_lane, 0);
}

const DRAFTS: u64 = 12;

/// Two who are level on a document, and the first change of somebody new on top of it.
fn two_and_a_stranger(rig: &mut Rig) -> (Client, Client, Client, Raw) {
    let (mut ann, mut bob) = (Client::join(rig, "ann"), Client::join(rig, "bob"));
    // A client whose next change is a good part of all there is sends the whole document.
    (0..DRAFTS).for_each(|n| ann.put("title", &format!("draft {n}")));
    ann.sync(rig);
    bob.sync(rig);
    let eve = Client::join(rig, "eve");
    let raw = on_top_of(&mut ann, b"eve");
    (ann, bob, eve, raw)
}

fn on_top_of(client: &mut Client, actor: &[u8]) -> Raw {
    let deps = client.heads().as_slice().iter().map(|hash| hash.0).collect();
    let last = client.doc.get_changes(&[]).iter().map(automerge::Change::max_op).max();
    Raw::put(actor, 1, last.unwrap_or(0) + 1, deps)
}

fn hash(bytes: &[u8]) -> model::ChangeHash {
    history::read_change(bytes).unwrap().hash()
}

#[test]
fn what_only_the_crdt_can_judge_is_told_to_nobody_before_it_is_judged_and_then_to_all() {
    let mut rig = Rig::new(Limits::default());
    let (mut ann, mut bob, eve, raw) = two_and_a_stranger(&mut rig);
    let (before, odd) = (ann.heads(), raw.with_expand().bytes());
    let on_disk = rig.disk_bytes();
    rig.hold_archive = true;
    rig.upload(&eve, &[&odd]);
    rig.pass(Duration::from_millis(500));
    assert_eq!(rig.shard.counters().slow_lane, 1);
    assert_eq!((rig.shard.counters().changes_in, rig.disk_bytes()), (DRAFTS, on_disk));
    assert_eq!((rig.waiting_for(&bob), rig.waiting_for(&eve)), (0, 0));
    let mut newcomer = Client::join(&mut rig, "newcomer");
    newcomer.sync(&mut rig);
    assert_eq!(newcomer.heads(), before);
    rig.hold_archive = false;
    rig.run();
    rig.pass(Duration::from_millis(100));
    assert!(rig.waiting_for(&eve) > 0, "it is acknowledged");
    rig.restart();
    let mut late = Client::join(&mut rig, "late");
    for client in [&mut ann, &mut bob, &mut newcomer] {
        client.reconnect(&mut rig);
    }
    for client in [&mut ann, &mut bob, &mut newcomer, &mut late] {
        client.sync(&mut rig);
        assert_eq!(client.heads().as_slice(), [hash(&odd)]);
        assert_eq!(client.doc.get(ROOT, "x").unwrap().unwrap().0.as_i64(), Some(5));
    }
    assert!(rig.closed.is_empty(), "{:?}", rig.closed);
}

#[test]
fn what_the_crdt_refuses_ends_its_session_and_reaches_nobody() {
    let kinds: [fn(Raw) -> Raw; 2] = [Raw::with_run_of_one, Raw::with_padded_number];
    for kind in kinds {
        let mut rig = Rig::new(Limits::default());
        let (mut ann, mut bob, eve, raw) = two_and_a_stranger(&mut rig);
        let (before, bad) = (ann.heads(), kind(raw).bytes());
        let on_disk = rig.disk_bytes();
        rig.upload(&eve, &[&bad]);
        rig.pass(Duration::from_millis(500));
        let [(session, why)] = rig.closed.as_slice() else { panic!("{:?}", rig.closed) };
        assert_eq!(*session, eve.session);
        assert!(
            matches!(why, CloseReason::Refused { why: Refusal::Crdt { hash: it, .. }, .. }
                if *it == hash(&bad)),
            "{why:?}"
        );
        assert_eq!((rig.waiting_for(&bob), rig.disk_bytes()), (0, on_disk));
        rig.leave(&eve);
        // It is remembered, and not judged again.
        let again = Client::join(&mut rig, "again");
        rig.upload(&again, &[&bad]);
        assert_eq!((rig.closed.len(), rig.shard.counters().slow_lane), (2, 1));
        rig.leave(&again);
        // Everybody else goes on, and nobody is ever sent it.
        for restarted in [false, true] {
            let mut late = Client::join(&mut rig, "late");
            late.sync(&mut rig);
            assert_eq!(late.heads(), before, "restarted: {restarted}");
            rig.restart();
        }
        ann.reconnect(&mut rig);
        bob.reconnect(&mut rig);
        ann.put("title", "better");
        ann.sync(&mut rig);
        bob.sync(&mut rig);
        assert_eq!(bob.heads(), ann.heads());
    }
}

#[test]
fn of_one_message_the_good_is_kept_and_the_bad_goes_with_what_builds_on_it() {
    let mut rig = Rig::new(Limits::default());
    let (mut ann, mut bob, eve, good) = two_and_a_stranger(&mut rig);
    let good = good.with_expand().bytes();
    let bad = on_top_of(&mut ann, b"fay").with_run_of_one();
    let (last, bad) = (bad.start, bad.bytes());
    let on_the_bad = Raw::put(b"gus", 1, last + 1, vec![hash(&bad).0]).bytes();
    let on_the_good = Raw::put(b"hal", 1, last + 1, vec![hash(&good).0]).bytes();
    let ordinary = on_top_of(&mut ann, b"ivy").bytes();
    let message = [&good, &bad, &on_the_bad, &on_the_good, &ordinary].map(Vec::as_slice);
    rig.upload(&eve, &message);
    rig.pass(Duration::from_millis(500));
    assert!(matches!(rig.closed.as_slice(), [(session, _)] if *session == eve.session));
    bob.sync(&mut rig);
    let mut kept = [hash(&on_the_good), hash(&ordinary)];
    kept.sort();
    assert_eq!(bob.heads().as_slice(), kept);
    assert_eq!(rig.shard.counters().refused, 2);
}

#[test]
fn who_waits_for_the_archive_is_told_nothing_meanwhile_and_others_go_on() {
    let mut rig = Rig::new(Limits::default());
    let (mut ann, mut bob, eve, odd) = two_and_a_stranger(&mut rig);
    let (last, odd) = (odd.start, odd.with_expand().bytes());
    let next = Raw::put(b"eve", 2, last + 1, vec![hash(&odd).0]).bytes();
    rig.hold_archive = true;
    rig.upload(&eve, &[&odd]);
    rig.upload(&eve, &[&next]);
    ann.put("title", "meanwhile");
    ann.sync(&mut rig);
    bob.sync(&mut rig);
    assert_eq!(bob.heads(), ann.heads());
    assert_eq!(rig.waiting_for(&eve), 0, "it would be asked for what it has sent");
    rig.hold_archive = false;
    rig.run();
    rig.pass(Duration::from_millis(500));
    bob.sync(&mut rig);
    assert!(bob.heads().as_slice().contains(&hash(&next)));
    assert_eq!((rig.shard.counters().slow_lane, rig.closed.len()), (1, 0));
}

#[test]
fn who_comes_back_behind_what_was_trimmed_gets_all_that_it_lacks() {
    for version_1 in [false, true] {
        let mut rig = Rig::new(rig::small());
        let (mut ann, mut bob) = (Client::join(&mut rig, "ann"), Client::join(&mut rig, "bob"));
        bob.version_1 = version_1;
        ann.put("key", "first");
        ann.sync(&mut rig);
        bob.sync(&mut rig);
        rig.leave(&bob);
        for n in 0..60 {
            ann.put("key", &n.to_string());
            ann.sync(&mut rig);
        }
        rig.pass(Duration::from_secs(5));
        assert!(rig.reports.iter().any(|report| matches!(report, Report::Compacted { .. })));
        ann.put("key", "behind the snapshot");
        ann.sync(&mut rig);
        bob.put("mine", "made meanwhile");
        bob.reconnect(&mut rig);
        let said = bob.sync(&mut rig);
        ann.sync(&mut rig);
        assert_eq!(bob.heads(), ann.heads(), "version 1: {version_1}");
        assert!(said < 10, "{said} messages");
        assert_eq!(rig.shard.counters().snapshots_out, u64::from(!version_1));
    }
}

/// Whether a story goes wrong with a bug.
fn notices(bug: Option<Bug>, story: fn()) -> bool {
    plant(bug);
    let failed = std::panic::catch_unwind(story).is_err();
    plant(None);
    failed
}

#[test]
fn every_bug_put_into_one_shard_spoils_the_story_that_is_about_it() {
    let stories: [(Bug, fn()); 5] = [
        (Bug::Overtakes, who_waits_for_the_archive_is_told_nothing_meanwhile_and_others_go_on),
        (Bug::OmitsTrimmed, who_comes_back_behind_what_was_trimmed_gets_all_that_it_lacks),
        (
            Bug::SkipsSlowLane,
            what_only_the_crdt_can_judge_is_told_to_nobody_before_it_is_judged_and_then_to_all,
        ),
        (Bug::SkipsSlowLane, what_the_crdt_refuses_ends_its_session_and_reaches_nobody),
        (
            Bug::SkipsSlowLane,
            of_one_message_the_good_is_kept_and_the_bad_goes_with_what_builds_on_it,
        ),
    ];
    for bug in Bug::WITHIN {
        assert!(stories.iter().any(|(it, _)| *it == bug), "{bug:?} is in the table");
    }
    for (bug, story) in stories {
        assert!(!notices(None, story), "the story about {bug:?} goes wrong without it");
        assert!(notices(Some(bug), story), "{bug:?} is not noticed");
    }
}

#[test]
fn a_typist_whose_words_come_all_at_once_behind_a_slow_one_is_not_sent_away() {
    let mut rig = Rig::new(Limits::default());
    let mut ann = Client::join(&mut rig, "ann");
    (0..20).for_each(|n| ann.put("title", &format!("draft {n}")));
    ann.say(&mut rig);
    rig.run();
    // Asked for what it has, it uploads the whole document, which only the archive can open.
    assert!(ann.read(&mut rig).is_empty());
    rig.hold_archive = true;
    ann.say(&mut rig);
    for n in 0..300 {
        ann.put("title", &format!("word {n}"));
        ann.say(&mut rig);
    }
    rig.hold_archive = false;
    ann.sync(&mut rig);
    assert!(rig.closed.is_empty(), "{:?}", rig.closed);
    assert_eq!(rig.shard.counters().changes_in, 320);
}

#[test]
fn a_change_that_turns_out_not_to_fit_is_buried_with_what_builds_on_it() {
    let mut rig = Rig::new(Limits::default());
    let mut ann = Client::join(&mut rig, "ann");
    ann.put("title", "good");
    ann.sync(&mut rig);
    let good = ann.heads();
    let mut eve = Client::join(&mut rig, "eve");
    eve.sync(&mut rig);
    eve.put("title", "suspect");
    let suspect = eve.heads();
    eve.sync(&mut rig);
    eve.put("title", "built on the suspect");
    eve.sync(&mut rig);
    rig.blame = Some(suspect.as_slice()[0]);
    rig.pass(Duration::from_secs(5));
    rig.blame = None;
    let died = rig.reports.iter().find_map(|report| match report {
        Report::Died { change, descendants, .. } => Some((*change, *descendants)),
        _ => None,
    });
    assert_eq!(died, Some((suspect.as_slice()[0], 1)));
    // Newcomers get the document without it, also after a restart, and so does everybody's next edit.
    for restarted in [false, true] {
        if restarted {
            rig.restart();
        }
        let mut bob = Client::join(&mut rig, "bob");
        bob.sync(&mut rig);
        assert_eq!(bob.heads(), good, "restarted: {restarted}");
    }
    // Who holds it comes back with it, is not asked for it, and nobody loops.
    eve.reconnect(&mut rig);
    let said = eve.sync(&mut rig);
    assert!(said < 10, "{said} messages");
    ann.reconnect(&mut rig);
    ann.put("title", "still good");
    ann.sync(&mut rig);
    let mut late = Client::join(&mut rig, "late");
    late.sync(&mut rig);
    assert_eq!(late.heads(), ann.heads());
}

/// The newest change of a client, edited by the test before it goes on its way.
fn forged(client: &mut Client, edit: impl FnOnce(&mut automerge::ExpandedChange)) -> Vec<u8> {
    let mut change = client.doc.get_last_local_change().expect("a change").decode();
    edit(&mut change);
    automerge::Change::from(change).raw_bytes().to_vec()
}

#[test]
fn a_change_that_does_not_fit_ends_its_session_and_reaches_nobody() {
    let mut rig = Rig::new(Limits::default());
    let (mut ann, mut eve) = (Client::join(&mut rig, "ann"), Client::join(&mut rig, "eve"));
    ann.put("title", "good");
    ann.sync(&mut rig);
    eve.sync(&mut rig);
    eve.put("title", "bad");
    let bad = forged(&mut eve, |change| {
        let missing = automerge::legacy::OpId::new(99, &change.actor_id);
        change.operations[0].obj = automerge::legacy::ObjectId::Id(missing);
    });
    rig.upload(&eve, &[&bad]);
    assert!(matches!(rig.closed.as_slice(), [(session, _)] if *session == eve.session));
    rig.leave(&eve);
    let mut bob = Client::join(&mut rig, "bob");
    bob.sync(&mut rig);
    ann.sync(&mut rig);
    assert_eq!(bob.heads(), ann.heads());
    assert_eq!(rig.shard.counters().refused, 1);
}

#[test]
fn a_second_history_under_one_actor_is_refused_and_everybody_goes_on() {
    let mut rig = Rig::new(Limits::default());
    let mut ann = Client::join(&mut rig, "ann");
    ann.put("title", "first history");
    ann.sync(&mut rig);
    // The same actor on another machine, from a copy of an empty disk.
    let mut copy = Client::join(&mut rig, "ann");
    copy.may_fail = true;
    copy.put("title", "second history");
    copy.sync(&mut rig);
    assert_eq!(rig.shard.counters().refused, 1);
    assert!(rig.closed.is_empty(), "nobody is to blame for certain: {:?}", rig.closed);
    let failures = copy.failures;
    for n in 0..10 {
        ann.put("title", &format!("goes on {n}"));
        ann.sync(&mut rig);
        copy.sync(&mut rig);
    }
    assert_eq!(copy.failures, failures, "what it cannot take in is not sent to it");
    let mut bob = Client::join(&mut rig, "bob");
    bob.sync(&mut rig);
    assert_eq!(bob.heads(), ann.heads());
}

#[test]
fn a_change_without_its_dependency_waits_and_the_dependency_is_asked_for() {
    let mut rig = Rig::new(Limits::default());
    let mut ann = Client::join(&mut rig, "ann");
    ann.put("title", "dependency");
    let dependency = forged(&mut ann, |_| {});
    ann.put("title", "dependent");
    let dependent = forged(&mut ann, |_| {});
    let heads = ann.heads();
    let missing = history::read_change(&dependency).unwrap().hash();
    let asked = rig.upload_and_read(&ann, &heads, &[&dependent]);
    assert_eq!(asked.need, [missing]);
    assert_eq!(rig.shard.counters().changes_in, 0);
    rig.upload(&ann, &[&dependency]);
    assert_eq!(rig.shard.counters().changes_in, 2);
}

#[test]
fn bytes_that_are_no_change_end_their_session_and_nothing_is_stored() {
    let mut rig = Rig::new(Limits::default());
    let mut ann = Client::join(&mut rig, "ann");
    ann.put("title", "good");
    let good = forged(&mut ann, |_| {});
    for damage in [4, 8, 20, good.len() - 1] {
        let eve = Client::join(&mut rig, "eve");
        let mut bad = good.clone();
        bad[damage] ^= 0x40;
        rig.upload(&eve, &[&bad]);
        let cut = Client::join(&mut rig, "cut");
        rig.upload(&cut, &[&good[..damage]]);
        for session in [eve.session, cut.session] {
            assert!(rig.closed.iter().any(|(closed, _)| *closed == session), "byte {damage}");
        }
    }
    assert_eq!((rig.shard.counters().changes_in, rig.disk_bytes()), (0, 0));
}
