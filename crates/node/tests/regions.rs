//! Stories of several regions.

#[allow(dead_code, reason = "each file of stories uses a part of the rig")]
mod rig;

use std::collections::BTreeSet;
use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ROOT};
use mesh::{FromShard, Lane, ToShard};
use rig::world::{World, logs};
use rig::{Client, Rig, document};
use tributary_node::{Limits, Report, copy_id, rows};
use wire::Message;

#[test]
fn a_change_reaches_a_client_of_another_region_and_crosses_once() {
    let mut world = World::new(&["eu", "us", "asia"]);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        world.connect(a, b);
    }
    let mut ann = Client::join(&mut world.rigs[0], "ann");
    let mut bob = Client::join(&mut world.rigs[1], "bob");
    for round in 0..10 {
        ann.put("title", &format!("round {round}"));
        ann.sync(&mut world.rigs[0]);
        world.settle();
    }
    bob.sync(&mut world.rigs[1]);
    world.settle();
    assert_eq!(bob.heads(), ann.heads());
    assert_eq!(world.crossed.len(), 20, "ten changes to two regions");
    assert!(world.crossed.values().all(|times| *times == 1), "{:?}", world.crossed);
    world.assert_same();
}

#[test]
fn a_region_that_was_cut_off_gets_exactly_what_it_missed() {
    let mut world = World::new(&["eu", "us"]);
    world.connect(0, 1);
    let mut ann = Client::join(&mut world.rigs[0], "ann");
    let mut bob = Client::join(&mut world.rigs[1], "bob");
    ann.put("title", "before");
    ann.sync(&mut world.rigs[0]);
    world.settle();
    bob.sync(&mut world.rigs[1]);
    world.cut(0, 1);
    for round in 0..5 {
        ann.put("ann", &format!("{round}"));
        ann.sync(&mut world.rigs[0]);
        bob.put("bob", &format!("{round}"));
        bob.sync(&mut world.rigs[1]);
    }
    world.connect(0, 1);
    ann.sync(&mut world.rigs[0]);
    bob.sync(&mut world.rigs[1]);
    world.settle();
    assert_eq!(ann.heads(), bob.heads());
    assert_eq!(world.crossed.len(), 11);
    assert!(world.crossed.values().all(|times| *times == 1), "{:?}", world.crossed);
    world.assert_same();
}

#[test]
fn a_document_is_asked_of_the_other_regions_before_it_is_said_to_be_nowhere() {
    let mut world = World::new(&["eu", "us"]);
    let mut ann = Client::join(&mut world.rigs[0], "ann");
    ann.put("title", "here");
    ann.sync(&mut world.rigs[0]);
    world.connect_without_logs(0, 1);
    let mut bob = Client::join(&mut world.rigs[1], "bob");
    bob.say(&mut world.rigs[1]);
    world.settle();
    let others = bob.read(&mut world.rigs[1]);
    assert!(others.is_empty(), "{others:?}");
    bob.sync(&mut world.rigs[1]);
    assert_eq!(bob.heads(), ann.heads());
}

#[test]
fn a_document_that_no_region_has_is_said_to_be_nowhere_as_soon_as_all_have_answered() {
    let mut world = World::new(&["eu", "us", "asia"]);
    world.connect(0, 1);
    world.connect(1, 2);
    let mut bob = Client::join(&mut world.rigs[1], "bob");
    bob.say(&mut world.rigs[1]);
    world.settle();
    let others = bob.read(&mut world.rigs[1]);
    assert!(matches!(others.as_slice(), [Message::DocUnavailable { .. }]), "{others:?}");
}

#[test]
fn a_region_that_does_not_answer_delays_that_by_the_deadline_only() {
    let mut world = World::new(&["eu", "us"]);
    world.connect(0, 1);
    let mut bob = Client::join(&mut world.rigs[1], "bob");
    bob.say(&mut world.rigs[1]);
    world.rigs[1].pass(Duration::from_secs(2));
    assert!(bob.read(&mut world.rigs[1]).is_empty());
    world.rigs[1].pass(Duration::from_secs(2));
    let others = bob.read(&mut world.rigs[1]);
    assert!(matches!(others.as_slice(), [Message::DocUnavailable { .. }]), "{others:?}");
}

#[test]
fn presence_crosses_only_to_where_somebody_has_the_document_open() {
    let mut world = World::new(&["eu", "us"]);
    world.connect(0, 1);
    let mut ann = Client::join(&mut world.rigs[0], "ann");
    ann.put("title", "here");
    ann.sync(&mut world.rigs[0]);
    world.settle();
    world.rigs[0].presence(&ann, 1, b"hello");
    let said = world.rigs[0].said.iter();
    let crossed = said.filter(|(_, message)| matches!(message, FromShard::Presence { .. }));
    assert_eq!(crossed.count(), 0);
    let mut bob = Client::join(&mut world.rigs[1], "bob");
    bob.sync(&mut world.rigs[1]);
    world.settle();
    for count in 2..5 {
        world.rigs[0].presence(&ann, count, b"hello");
    }
    world.settle();
    let heard: Vec<u64> = (bob.read(&mut world.rigs[1]).iter())
        .filter_map(|message| match message {
            Message::Ephemeral { count, sender, .. } if sender.as_str() == "ann" => Some(*count),
            _ => None,
        })
        .collect();
    assert_eq!(heard, [2, 3, 4]);
}

#[test]
fn a_change_whose_dependency_comes_by_another_way_waits_for_it_durably() {
    let mut world = World::new(&["eu", "us", "asia"]);
    world.connect(0, 1);
    world.connect(1, 2);
    // Ann's change reaches us but not asia; bob builds on it, and his reaches asia first.
    let mut ann = Client::join(&mut world.rigs[0], "ann");
    ann.put("title", "ann's");
    ann.sync(&mut world.rigs[0]);
    world.settle();
    let mut bob = Client::join(&mut world.rigs[1], "bob");
    bob.sync(&mut world.rigs[1]);
    bob.put("title", "bob's");
    bob.sync(&mut world.rigs[1]);
    world.settle();
    world.rigs[2].restart();
    world.up.clear();
    world.connect(0, 2);
    let mut cas = Client::join(&mut world.rigs[2], "cas");
    cas.sync(&mut world.rigs[2]);
    assert_eq!(cas.heads(), bob.heads());
}

/// What a client has last heard of a store that it subscribes to.
fn heard_of(client: &mut Client, rig: &mut Rig, store: &str) -> Option<model::Heads> {
    let frames = client.read(rig).into_iter().filter_map(|frame| match frame {
        Message::RemoteHeadsChanged { heads, .. } => Some(heads),
        _ => None,
    });
    frames.flatten().filter(|it| it.storage.as_str() == store).last().map(|it| it.heads)
}

#[test]
fn what_a_store_holds_is_heard_in_other_regions_also_when_its_owner_moves_and_clocks_are_wrong() {
    let mut world = World::new(&["eu", "us"]);
    world.rigs[0].now.wall_ms += 5 * 3_600_000;
    world.connect(0, 1);
    let mut ann = Client::join_with_storage(&mut world.rigs[0], "ann", "store-of-ann");
    ann.put("title", "first");
    ann.sync(&mut world.rigs[0]);
    world.settle();
    let mut others = Vec::new();
    for (at, name) in [(0, "bob"), (1, "cas")] {
        let mut other = Client::join(&mut world.rigs[at], name);
        other.sync(&mut world.rigs[at]);
        world.settle();
        world.rigs[at].subscribe(&other, &["store-of-ann"]);
        others.push(other);
    }
    world.settle();
    ann.put("title", "second");
    ann.sync(&mut world.rigs[0]);
    world.settle();
    let heard = heard_of(&mut others[1], &mut world.rigs[1], "store-of-ann");
    assert_eq!(heard, Some(ann.heads()), "in the other region");
    // Its owner goes to the region whose clock is five hours behind that of the first one.
    let mut ann = Client::join_with_storage(&mut world.rigs[1], "ann-elsewhere", "store-of-ann");
    ann.sync(&mut world.rigs[1]);
    ann.put("title", "third");
    ann.sync(&mut world.rigs[1]);
    world.settle();
    for (at, other) in others.iter_mut().enumerate() {
        let heard = heard_of(other, &mut world.rigs[at], "store-of-ann");
        assert_eq!(heard, Some(ann.heads()), "region {at}");
    }
}

/// One actor that wrote two histories, in two regions that did not hear of each other.
fn forked() -> (AutoCommit, AutoCommit) {
    let mut base = AutoCommit::new().with_actor(ActorId::from(b"eve"));
    base.put(ROOT, "title", "common").unwrap();
    base.commit();
    let mut other = base.fork().with_actor(ActorId::from(b"eve"));
    for round in 0..3 {
        base.put(ROOT, "here", round).unwrap();
        base.commit();
        other.put(ROOT, "there", round).unwrap();
        other.commit();
    }
    (base, other)
}

fn changes_of(doc: &mut AutoCommit) -> Vec<Vec<u8>> {
    doc.get_changes(&[]).iter().map(|change| change.raw_bytes().to_vec()).collect()
}

#[test]
fn one_actor_with_two_histories_ends_with_the_same_documents_everywhere_in_any_order() {
    let orders = [[(0, 1), (1, 2), (0, 2)], [(0, 2), (1, 2), (0, 1)], [(1, 2), (0, 1), (0, 2)]];
    let compacted = Limits { compact_tail_bytes: 100, retain_bytes: 0, ..Limits::default() };
    let mut ends = BTreeSet::new();
    let (mut here, mut there) = forked();
    for order in orders {
        for limits in [&Limits::default(), &compacted] {
            let mut world = World::with(&["eu", "us", "asia"], limits);
            for (at, doc) in [(0, &mut here), (1, &mut there)] {
                let client = Client::join(&mut world.rigs[at], "eve");
                let changes = changes_of(doc);
                let changes: Vec<&[u8]> = changes.iter().map(Vec::as_slice).collect();
                world.rigs[at].upload(&client, &changes);
                // Long enough for the one limit to have it in a snapshot.
                world.rigs[at].pass(Duration::from_secs(5));
            }
            for (a, b) in order {
                world.connect(a, b);
                for rig in &mut world.rigs {
                    rig.pass(Duration::from_secs(5));
                }
                world.settle();
            }
            for (a, b) in [(0, 1), (1, 2), (0, 2), (0, 1)] {
                world.audit(a, b);
            }
            world.assert_same();
            let mut readers: Vec<Client> =
                world.rigs.iter_mut().map(|rig| Client::join(rig, "reader")).collect();
            for (reader, rig) in readers.iter_mut().zip(&mut world.rigs) {
                reader.sync(rig);
                assert_eq!(rig.copies.len(), 1, "the losing branch is kept as a copy");
                ends.insert((reader.heads(), rig.copies.iter().next().cloned()));
            }
        }
    }
    assert_eq!(ends.len(), 1, "{ends:?}");
    let heads = ends.first().unwrap().0.clone();
    let second = |doc: &mut AutoCommit| doc.get_changes(&[])[1].hash();
    let (a, b) = (second(&mut here), second(&mut there));
    let (winner, loser) = if a < b { (&mut here, b) } else { (&mut there, a) };
    let expected = winner.get_heads().iter().map(|hash| model::ChangeHash(hash.0)).collect();
    assert_eq!(heads, expected, "the smaller hash wins");
    let copy = copy_id(&document(), &model::ChangeHash(loser.0));
    assert_eq!(ends.first().unwrap().1, Some(copy));
}

#[test]
fn who_goes_on_with_a_dead_branch_makes_few_copies_of_it() {
    let (mut here, mut there) = forked();
    let mut world = World::new(&["eu", "us"]);
    for (at, doc) in [(0, &mut here), (1, &mut there)] {
        let client = Client::join(&mut world.rigs[at], "eve");
        let changes = changes_of(doc);
        let changes: Vec<&[u8]> = changes.iter().map(Vec::as_slice).collect();
        world.rigs[at].upload(&client, &changes);
    }
    world.connect(0, 1);
    world.settle();
    let second = |doc: &mut AutoCommit| doc.get_changes(&[])[1].hash();
    let loser = if second(&mut here) < second(&mut there) { &mut there } else { &mut here };
    let before = rows::dead(&*world.rigs[0].store, &document()).unwrap().len();
    assert!(before > 0);
    // One actor with a hundred changes of one number, and a hundred actors with two.
    for round in 0..300 {
        let actor = if round < 100 { 0 } else { round / 2 };
        let mut other = loser.fork().with_actor(ActorId::from(vec![7, actor as u8]));
        other.put(ROOT, "noise", round).unwrap();
        other.commit();
        let change = other.get_last_local_change().unwrap().raw_bytes().to_vec();
        let client = Client::join(&mut world.rigs[0], format!("mallory-{round}").leak());
        world.rigs[0].upload(&client, &[&change]);
    }
    for rig in &mut world.rigs {
        rig.pass(Duration::from_secs(5));
    }
    world.settle();
    world.assert_same();
    let after = rows::dead(&*world.rigs[0].store, &document()).unwrap().len();
    assert_eq!(after, before + 8 + 200, "so many of one actor with one number are kept");
    for (rig, name) in world.rigs.iter_mut().zip(["first", "second"]) {
        let due = |report: &Report| matches!(report, Report::Copied { .. });
        rig.reports.clear();
        rig.restart();
        let mut reader = Client::join(rig, name);
        reader.sync(rig);
        rig.pass(Duration::from_secs(5));
        let copies = rig.reports.iter().filter(|it| due(it)).count();
        assert!((1..=64).contains(&copies), "{copies} copies");
    }
}

#[test]
fn a_change_that_fails_verification_in_one_region_is_served_in_none() {
    let mut world = World::new(&["eu", "us"]);
    world.connect(0, 1);
    let mut ann = Client::join(&mut world.rigs[0], "ann");
    ann.put("title", "good");
    ann.sync(&mut world.rigs[0]);
    let good = ann.heads();
    ann.put("title", "bad");
    ann.sync(&mut world.rigs[0]);
    let blamed = ann.heads().as_slice()[0];
    world.rigs[1].blame = Some(blamed);
    world.settle();
    for rig in &mut world.rigs {
        rig.pass(Duration::from_secs(5));
    }
    world.settle();
    for (at, name) in [(0, "r1"), (1, "r2")] {
        let mut reader = Client::join(&mut world.rigs[at], name);
        reader.sync(&mut world.rigs[at]);
        assert_eq!(reader.heads(), good, "region {at}");
        let died = world.rigs[at].reports.iter();
        assert!(died.into_iter().any(|it| matches!(it, Report::Died { .. })));
    }
    world.assert_same();
}

#[test]
fn entries_are_let_go_when_every_region_holds_them() {
    let mut world = World::new(&["eu", "us"]);
    world.connect(0, 1);
    let mut ann = Client::join(&mut world.rigs[0], "ann");
    for round in 0..50 {
        ann.put("title", &format!("{round}"));
        ann.sync(&mut world.rigs[0]);
    }
    world.settle();
    world.rigs[0].pass(Duration::from_secs(3));
    world.settle();
    let held = tributary_node::mesh_rows::logs(&*world.rigs[0].store).unwrap();
    let (_, held) = held.iter().find(|(_, held)| held.end.sequence == 50).unwrap();
    assert_eq!(held.start, held.end);
}

/// A region ends, with everything that it took in, and starts again; the links to the others are back.
fn restarts(world: &mut World, at: usize, others: &[usize]) {
    world.settle();
    for other in others {
        world.cut(at, *other);
    }
    world.rigs[at].restart();
    for other in others {
        world.connect(at, *other);
    }
}

/// Time enough for logs to be let go of, and forgotten, everywhere.
fn time_goes_by(world: &mut World) {
    for _ in 0..4 {
        for rig in &mut world.rigs {
            rig.pass(Duration::from_secs(2));
        }
        world.settle();
    }
}

fn writes(world: &mut World, at: usize, round: usize) {
    let names = ["ann", "bob", "cas", "dan", "eve", "fay"];
    let mut ann = Client::join(&mut world.rigs[at], names[round]);
    ann.sync(&mut world.rigs[at]);
    ann.put("round", &format!("{round}"));
    ann.sync(&mut world.rigs[at]);
}

#[test]
fn logs_of_processes_that_are_no_more_are_forgotten_everywhere() {
    let mut world = World::new(&["eu", "us", "asia"]);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        world.connect(a, b);
    }
    for round in 0..6 {
        writes(&mut world, 0, round);
        if round < 5 {
            restarts(&mut world, 0, &[1, 2]);
        }
        world.settle();
    }
    time_goes_by(&mut world);
    for rig in &world.rigs {
        assert_eq!(logs(rig).len(), 1, "what runs");
        let forgotten = tributary_node::mesh_rows::forgotten(&*rig.store).unwrap();
        assert_eq!(forgotten.len(), 5);
    }
    let forgotten = tributary_node::mesh_rows::forgotten(&*world.rigs[0].store).unwrap();
    assert!(forgotten.iter().all(|(_, it)| it.held_by.len() == 2), "{forgotten:?}");
    world.assert_same();

    // Who asks for one all the same is told that nothing of it is kept.
    let (log, it) = forgotten[0].clone();
    world.rigs[0].said.clear();
    let read = ToShard::Read { lane: Lane::Bulk, log, from: 1, bytes_max: 100, digest: None };
    world.rigs[0].hear("us", read);
    let trimmed = world.rigs[0]
        .said
        .iter()
        .any(|(_, message)| matches!(message, FromShard::Trimmed { to, .. } if *to == it.last));
    assert!(trimmed, "{:?}", world.rigs[0].said);
    // It stays so over a restart.
    world.rigs[0].restart();
    assert_eq!(logs(&world.rigs[0]).len(), 1);
}

#[test]
fn nothing_is_forgotten_that_a_region_lacks_which_is_away() {
    let mut world = World::new(&["eu", "us", "asia"]);
    world.connect(0, 1);
    for round in 0..3 {
        writes(&mut world, 0, round);
        restarts(&mut world, 0, &[1]);
    }
    time_goes_by(&mut world);
    assert_eq!((logs(&world.rigs[0]).len(), logs(&world.rigs[1]).len()), (3, 3));
    world.connect(0, 2);
    world.connect(1, 2);
    time_goes_by(&mut world);
    for rig in &world.rigs {
        assert_eq!(logs(rig).len(), 0, "none of them is written any more");
        assert_eq!(tributary_node::mesh_rows::forgotten(&*rig.store).unwrap().len(), 3);
    }
    assert!(world.crossed.values().all(|times| *times == 1), "{:?}", world.crossed);
    world.assert_same();
}
