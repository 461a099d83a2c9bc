//! Logs of processes that are no more, and that every region has held.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rig::{Kept, World, kept, log, name, streams};
use crate::exchange::{FromShard, Lane};
use crate::frame::{Ends, Frame, Row};
use crate::link::{CloseReason, Event, Report};
use crate::origin::{LogId, Mark, Origin};

const SECOND: Duration = Duration::from_secs(1);

/// A log with all of its entries let go.
fn emptied(stream: u8, entries: u64) -> Kept {
    let mut kept = kept(stream, entries);
    kept.trim(entries);
    kept
}

/// The bytes of the vectors that were told since, by region.
fn vectors(world: &World, since: [usize; 2]) -> [usize; 2] {
    [0, 1].map(|at| {
        let sent = world.sent[at][since[at]..].iter();
        sent.filter(|(_, frame)| frame[0] == 0).map(|(_, frame)| frame.len()).sum()
    })
}

fn forgets(world: &mut World, at: usize, log: &LogId) {
    let last = world.regions[at].logs.remove(log).unwrap().end;
    world.regions[at].forgotten.insert(log.clone(), last);
    let shard = usize::from(log.stream) % super::rig::SHARDS;
    let message = FromShard::Forgotten { log: log.clone(), last };
    world.tell(at, Event::Shard { shard, message });
}

#[test]
fn what_a_region_forgets_its_peers_forget_and_nobody_names_it_again() {
    let old = log("here", 7, 3);
    let logs = || BTreeMap::from([(old.clone(), emptied(3, 5))]);
    let mut world = World::with(logs(), logs());
    world.connect();
    world.run_for(SECOND);
    assert!(world.regions[1].logs.contains_key(&old), "nobody has forgotten it yet");
    forgets(&mut world, 0, &old);
    world.run_for(SECOND);
    assert_eq!(world.regions[1].forgotten, world.regions[0].forgotten);
    assert_eq!(world.status(0).holds, BTreeMap::new());
    assert_eq!(world.status(0).forgotten, BTreeMap::from([(3, 5)]));
    assert!(!world.status(0).behind);
    world.cut_all();
    let before = [world.sent[0].len(), world.sent[1].len()];
    world.connect();
    world.run_for(SECOND);
    assert_eq!(vectors(&world, before), [2, 2], "a vector that names nothing");
    assert!(world.regions.iter().all(|region| region.came.is_empty()));
    let blamed = |at: usize| world.regions[at].closed.iter().any(CloseReason::blames_peer);
    assert!(!blamed(0) && !blamed(1));
}

#[test]
fn a_peer_that_was_away_when_a_log_was_forgotten_hears_of_it_when_it_names_it() {
    let old = log("here", 7, 3);
    let mut world = World::with(BTreeMap::new(), BTreeMap::from([(old.clone(), kept(3, 5))]));
    world.regions[0].forgotten.insert(old.clone(), kept(3, 5).end);
    world.connect();
    world.run_for(SECOND);
    assert_eq!(world.regions[1].forgotten, world.regions[0].forgotten);
    assert!(world.regions.iter().all(|region| region.came.is_empty() && region.reports.is_empty()));
}

#[test]
fn a_restored_peer_is_sent_nothing_of_a_forgotten_log_and_left_to_the_audit() {
    let old = log("here", 7, 3);
    let mut world = World::with(BTreeMap::new(), BTreeMap::from([(old.clone(), kept(3, 2))]));
    world.regions[0].forgotten.insert(old.clone(), kept(3, 5).end);
    world.connect();
    world.run_for(SECOND);
    assert_eq!(world.regions[1].forgotten, world.regions[0].forgotten);
    assert!(world.regions.iter().all(|region| region.came.is_empty() && region.closed.is_empty()));
    let skipped = Report::Skipped { log: old, to: 5, inbound: true };
    assert_eq!(world.regions[1].reports, [skipped]);
    assert!(world.status(0).behind, "what it lost is not known to be there again");
    world.run_for(40 * SECOND);
    assert!(!world.status(0).behind && world.status(0).alike, "the audit has looked");
}

#[test]
fn a_restored_region_gives_nothing_of_a_log_that_its_peers_have_forgotten() {
    let old = log("here", 7, 3);
    for held in [2, 5] {
        let mut world =
            World::with(BTreeMap::from([(old.clone(), kept(3, held))]), BTreeMap::new());
        world.regions[1].forgotten.insert(old.clone(), kept(3, 5).end);
        world.connect();
        world.run_for(SECOND);
        assert_eq!(world.regions[0].forgotten, world.regions[1].forgotten);
        assert!(world.regions.iter().all(|it| it.came.is_empty() && it.closed.is_empty()));
    }
}

#[test]
fn a_peer_that_never_had_a_log_of_an_earlier_process_gets_it() {
    let old = log("here", 7, 3);
    let mut world = World::with(BTreeMap::from([(old.clone(), kept(3, 400))]), BTreeMap::new());
    world.connect();
    world.run_until("level", World::is_level);
    assert_eq!((world.regions[1].end(&old), world.most_often(1)), (400, 1));
}

#[test]
fn a_log_that_goes_on_after_what_was_forgotten_is_fetched_from_there() {
    let third = log("third", 9, 4);
    let mut world = World::with(BTreeMap::new(), BTreeMap::from([(third.clone(), kept(4, 8))]));
    world.regions[0].forgotten.insert(third.clone(), kept(4, 5).end);
    // The fake shard keeps what it had forgotten in mind.
    world.regions[0].logs.insert(third.clone(), Kept::default());
    world.regions[0].logs.remove(&third);
    world.connect();
    world.run_for(4 * SECOND);
    let came: Vec<u64> = world.regions[0].order.iter().map(|(_, _, sequence)| *sequence).collect();
    assert_eq!(came, [6, 7, 8]);
    assert!(world.regions[0].order.iter().all(|(lane, ..)| *lane == Lane::Bulk));
    assert!(world.regions.iter().all(|region| region.closed.is_empty()));
}

#[test]
fn what_is_said_to_be_forgotten_of_the_log_that_is_written_is_not_listened_to() {
    let mut world = World::connected();
    world.type_in(0, 3, 5);
    world.run_until("level", World::is_level);
    forgets(&mut world, 1, &log("here", 1, 3));
    world.run_for(SECOND);
    assert_eq!(world.regions[0].end(&log("here", 1, 3)), 5);
    assert!(world.regions.iter().all(|region| region.closed.is_empty()));
}

/// How large the vector is that region `a` tells `b`, with 16 logs of each process of three regions.
fn bytes(lives: u64) -> usize {
    let origin = |region: &str, life| Origin { region: name(region), epoch: u64::MAX / 3 + life };
    let lives: Vec<u64> = (0..lives).collect();
    let rows = ["a", "b", "c"].into_iter().flat_map(|region| {
        let logs = lives.iter().flat_map(move |life| {
            streams().map(move |stream| LogId { origin: origin(region, *life), stream })
        });
        logs.map(move |log| Row {
            digest: (region == "b").then_some(Mark::default().digest),
            sequence: 100,
            log,
        })
    });
    let ends = Ends { sender: origin("a", 0), receiver: origin("b", 0) };
    Frame::Vector(rows.collect()).encode(&ends).len()
}

#[test]
fn a_vector_takes_less_than_a_kilobyte_as_long_as_it_names_what_is_written() {
    let sizes = [1, 2, 6, 26].map(bytes);
    println!("after 0, 1, 5 and 25 restarts, if nothing is forgotten: {sizes:?} bytes");
    // What runs, and with what has just ended.
    assert!(sizes[0] < 512 && sizes[1] < 1024, "{sizes:?}");
}
