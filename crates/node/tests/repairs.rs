//! Stories of regions that are brought level by repair.

#[allow(dead_code, reason = "each file of stories uses a part of the rig")]
mod rig;

use std::time::Duration;

use mesh::ToShard;
use rig::world::World;
use rig::{Client, document};
use tributary_node::Limits;

/// Somebody in the second region gets all that a client of the first has.
fn is_read_in_the_other(world: &mut World, ann: &mut Client) {
    let mut bob = Client::join(&mut world.rigs[1], "bob");
    bob.sync(&mut world.rigs[1]);
    assert_eq!(bob.heads(), ann.heads());
}

#[test]
fn a_new_region_gets_everything_by_audit_and_repair() {
    let mut world = World::with(
        &["eu", "us"],
        &Limits { compact_tail_bytes: 500, retain_bytes: 0, ..Limits::default() },
    );
    let mut ann = Client::join(&mut world.rigs[0], "ann");
    for round in 0..30 {
        ann.put("title", &format!("{round}"));
        ann.sync(&mut world.rigs[0]);
    }
    world.rigs[0].pass(Duration::from_secs(10));
    world.connect_without_logs(0, 1);
    assert_eq!(world.audit(0, 1), 1);
    world.assert_same();
    is_read_in_the_other(&mut world, &mut ann);
}

#[test]
fn what_a_repair_brings_waits_until_the_socket_has_room() {
    let limits = Limits {
        session_bytes_in_flight: 1,
        repair_within: Duration::from_secs(3600),
        ..Limits::default()
    };
    let mut world = World::with(&["eu", "us"], &limits);
    let mut ann = Client::join(&mut world.rigs[0], "ann");
    ann.put("title", "new");
    ann.sync(&mut world.rigs[0]);
    world.connect_without_logs(0, 1);
    world.stuck = true;
    assert_eq!(world.audit(0, 1), 1);
    assert_eq!(world.audit(0, 1), 1, "the greetings wait, and nothing comes after them");
    world.stuck = false;
    world.write();
    world.settle();
    world.assert_same();
}

#[test]
fn a_region_restored_from_an_old_backup_gets_back_what_the_others_have() {
    let mut world = World::new(&["eu", "us"]);
    world.connect(0, 1);
    let mut ann = Client::join(&mut world.rigs[0], "ann");
    ann.put("title", "before");
    ann.sync(&mut world.rigs[0]);
    world.settle();
    let backup = world.rigs[0].backup();
    ann.put("title", "after");
    ann.sync(&mut world.rigs[0]);
    world.settle();
    world.cut(0, 1);
    world.rigs[0].restore(&backup);
    let mut cas = Client::join(&mut world.rigs[0], "cas");
    cas.sync(&mut world.rigs[0]);
    cas.put("cas", "new, in the restored region");
    cas.sync(&mut world.rigs[0]);
    world.connect(0, 1);
    world.audit(0, 1);
    world.assert_same();
    cas.sync(&mut world.rigs[0]);
    let mut bob = Client::join(&mut world.rigs[1], "bob");
    bob.sync(&mut world.rigs[1]);
    assert_eq!(bob.heads(), cas.heads());
    assert!(bob.heads().as_slice().len() == 2, "both branches are there");
}

/// Somebody in a region writes so many changes of 200 bytes.
fn writes_much(world: &mut World, at: usize, name: &'static str, changes: usize) -> Client {
    let mut client = Client::join(&mut world.rigs[at], name);
    client.sync(&mut world.rigs[at]);
    for round in 0..changes {
        client.put(&format!("{name} {}", round % 7), &format!("{round:>100}"));
        if round % 10 == 9 {
            client.sync(&mut world.rigs[at]);
        }
    }
    client.sync(&mut world.rigs[at]);
    client
}

/// A tenth of what [`writes_much`] writes goes into one message, and no snapshot.
fn in_parts() -> Limits {
    Limits { repair_part_bytes: 1_200, repair_snapshot_bytes: 100, ..Limits::default() }
}

#[test]
fn what_is_too_much_for_one_message_of_a_repair_goes_in_several_and_each_change_once() {
    let mut world = World::with(&["eu", "us"], &in_parts());
    let mut ann = writes_much(&mut world, 0, "ann", 60);
    world.connect_without_logs(0, 1);
    assert_eq!(world.audit(0, 1), 1);
    let parts: Vec<usize> = world.repairs.iter().copied().filter(|size| *size > 1_000).collect();
    assert!(parts.len() >= 8, "{:?}", world.repairs);
    assert!(parts.iter().all(|size| *size < 2_000), "{:?}", world.repairs);
    let changes: usize = ann.doc.get_changes(&[]).iter().map(|it| it.raw_bytes().len()).sum();
    let sent: usize = world.repairs.iter().sum();
    assert!(sent < changes * 5 / 4, "{sent} bytes for changes of {changes}");
    world.assert_same();
    is_read_in_the_other(&mut world, &mut ann);
}

#[test]
fn a_snapshot_that_is_too_large_for_a_repair_is_taken_apart_once() {
    let compact = Limits { compact_tail_bytes: 500, retain_bytes: 0, ..in_parts() };
    let mut world = World::with(&["eu", "us"], &compact);
    let mut ann = writes_much(&mut world, 0, "ann", 60);
    world.rigs[0].pass(Duration::from_secs(10));
    let jobs = world.rigs[0].archive_jobs;
    world.connect_without_logs(0, 1);
    assert_eq!(world.audit(0, 1), 1);
    let parts = world.repairs.iter().filter(|size| **size > 1_000).count();
    assert!(parts >= 8, "{:?}", world.repairs);
    assert_eq!(world.rigs[0].archive_jobs, jobs + 1);
    world.assert_same();
    is_read_in_the_other(&mut world, &mut ann);
}

#[test]
fn a_snapshot_that_fits_goes_first_and_what_follows_it_in_parts() {
    let limits = Limits { repair_snapshot_bytes: 1 << 20, ..in_parts() };
    let mut world = World::with(&["eu", "us"], &limits);
    let mut ann = writes_much(&mut world, 0, "ann", 30);
    world.rigs[0].trim(document());
    world.rigs[0].pass(Duration::from_secs(10));
    for round in 0..30 {
        ann.put("more", &format!("{round:>100}"));
    }
    ann.sync(&mut world.rigs[0]);
    world.rigs[0].pass(Duration::from_secs(10));
    let jobs = world.rigs[0].archive_jobs;
    world.connect_without_logs(0, 1);
    assert_eq!(world.audit(0, 1), 1);
    assert!(world.repairs.iter().filter(|size| **size > 1_000).count() >= 3, "{:?}", world.repairs);
    assert_eq!(world.rigs[0].archive_jobs, jobs, "nothing is taken apart");
    world.assert_same();
    is_read_in_the_other(&mut world, &mut ann);
}

#[test]
fn two_regions_that_both_lack_much_repair_each_other_in_parts_while_people_write() {
    let mut world = World::with(&["eu", "us"], &in_parts());
    world.connect(0, 1);
    let mut ann = writes_much(&mut world, 0, "ann", 20);
    world.settle();
    world.cut(0, 1);
    writes_much(&mut world, 0, "cas", 60);
    let mut bob = writes_much(&mut world, 1, "bob", 60);
    world.connect_without_logs(0, 1);
    world.repairs.clear();
    let differ = world.audit(0, 1);
    assert!(differ > 0);
    ann.put("ann", "meanwhile");
    ann.sync(&mut world.rigs[0]);
    world.settle();
    world.audit(0, 1);
    world.assert_same();
    assert!(world.repairs.iter().all(|size| *size < 2_000), "{:?}", world.repairs);
    ann.sync(&mut world.rigs[0]);
    bob.sync(&mut world.rigs[1]);
    assert_eq!(bob.heads(), ann.heads());
}

#[test]
fn a_region_under_repair_is_not_told_what_stores_hold_as_a_client_is() {
    let mut world = World::with(&["eu", "us"], &in_parts());
    world.connect_without_logs(0, 1);
    let mut ann = Client::join_with_storage(&mut world.rigs[0], "ann", "store of ann");
    let bob = Client::join(&mut world.rigs[1], "bob");
    world.rigs[1].subscribe(&bob, &["store of ann"]);
    world.settle();
    for round in 0..10 {
        world.rigs[0].hear("us", ToShard::Repair { document: document() });
        // While that is under way, the other region has the document open as clients have.
        ann.put("round", &format!("{round}"));
        ann.sync(&mut world.rigs[0]);
        world.settle();
    }
    world.audit(0, 1);
    world.assert_same();
}

#[test]
fn a_snapshot_that_the_archive_takes_long_for_is_neither_lost_nor_sent_again() {
    let mut world = World::with(&["eu", "us"], &rig::small());
    let mut ann = writes_much(&mut world, 0, "ann", 30);
    world.rigs[0].pass(Duration::from_secs(10));
    world.connect_without_logs(0, 1);
    world.rigs[1].hold_archive = true;
    assert_eq!(world.audit(0, 1), 1);
    let snapshots = |world: &World| world.repairs.iter().filter(|size| **size > 300).count();
    assert_eq!(snapshots(&world), 1, "{:?}", world.repairs);
    // Both sides would have given up by then, and the audit comes again.
    for _ in 0..4 {
        for rig in &mut world.rigs {
            rig.pass(Duration::from_secs(20));
        }
        world.settle();
        assert_eq!(world.audit(0, 1), 1);
    }
    world.rigs[1].hold_archive = false;
    world.rigs[1].run();
    world.settle();
    world.assert_same();
    assert_eq!(snapshots(&world), 1, "{:?}", world.repairs);
    is_read_in_the_other(&mut world, &mut ann);
}
