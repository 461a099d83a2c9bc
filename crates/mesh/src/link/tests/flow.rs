//! What honest regions do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::rig::{Kept, World, document, entry, kept, log, name, streams};
use crate::codec::cost;
use crate::exchange::{FromShard, Lane, Presence, ToShard};
use crate::link::{CloseReason, Event, Report, window};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn what_is_typed_arrives_once_and_is_known_to_be_durable_there() {
    let mut world = World::connected();
    for _ in 0..20 {
        world.type_in(0, 3, 2);
        world.type_in(1, 4, 1);
        world.run_for(Duration::from_millis(5));
    }
    world.run_until("level", World::is_level);
    assert_eq!((world.most_often(0), world.most_often(1)), (1, 1));
    world.run_until("known", |world| world.status(0).lag_changes == 0);
    assert_eq!(world.status(0).holds, BTreeMap::from([(log("here", 1, 3), 40)]));
    assert_eq!(world.status(0).entries_out, 40);
    assert_eq!(world.status(0).lag, Duration::ZERO);
}

#[test]
fn a_link_without_traffic_sends_at_once_and_gathers_only_while_busy() {
    let mut world = World::connected();
    world.run_for(10 * SECOND);
    let entries = |world: &World| {
        world.sent[0].iter().filter(|(_, frame)| frame[0] == 1).map(|(at, _)| *at).collect()
    };
    let started = world.now;
    world.type_in(0, 0, 1);
    let sent: Vec<Duration> = entries(&world);
    assert_eq!(sent, [started], "at once");
    for _ in 0..100 {
        world.type_in(0, 0, 1);
        world.run_for(Duration::from_millis(1));
    }
    world.run_until("level", World::is_level);
    let sent: Vec<Duration> = entries(&world);
    assert!((10..=16).contains(&sent.len()), "{} batches in 100 ms", sent.len());
}

#[test]
fn a_link_at_rest_says_nothing_but_heartbeats_and_root_checks() {
    let mut world = World::connected();
    world.type_in(0, 5, 10);
    world.run_for(10 * SECOND);
    let before = [world.sent[0].len(), world.sent[1].len()];
    world.run_for(60 * SECOND);
    for at in [0, 1] {
        let kinds: BTreeSet<u8> =
            world.sent[at][before[at]..].iter().map(|(_, it)| it[0]).collect();
        assert!(kinds.is_subset(&BTreeSet::from([16, 17, 18])), "{kinds:?}");
        let bytes: usize = world.sent[at][before[at]..].iter().map(|(_, it)| it.len()).sum();
        assert!(bytes < 2000, "{bytes} bytes in a minute");
    }
    assert!(world.status(0).audits >= 2);
    assert!(world.status(0).round_trip.is_some());
}

#[test]
fn after_a_cut_each_side_brings_what_the_other_missed_and_nothing_twice() {
    let mut world = World::connected();
    world.type_in(0, 3, 10);
    world.run_for(SECOND);
    world.cut_all();
    world.type_in(0, 3, 100);
    world.type_in(1, 7, 50);
    assert_eq!(world.status(0).lag_changes, 100);
    world.run_for(5 * SECOND);
    assert!(world.status(0).lag >= 5 * SECOND);
    let before = [world.sent[0].len(), world.sent[1].len()];
    world.connect();
    world.run_until("level", World::is_level);
    assert_eq!((world.most_often(0), world.most_often(1)), (1, 1));
    let vectors: usize = [0, 1]
        .map(|at| &world.sent[at][before[at]..])
        .iter()
        .flat_map(|sent| sent.iter().filter(|(_, frame)| frame[0] == 0))
        .map(|(_, frame)| frame.len())
        .sum();
    assert!(vectors < 1024, "{vectors} bytes to find out");
}

#[test]
fn a_keystroke_does_not_wait_for_a_backfill() {
    let mut backlog = Kept::default();
    (1..801).for_each(|seq| backlog.push(entry(2, seq, 10_000)));
    let mut world = World::with(BTreeMap::from([(log("here", 1, 2), backlog)]), BTreeMap::new());
    world.connect();
    world.type_in(0, 2, 1);
    let typed = (Lane::Live, log("here", 1, 2), 801);
    world.run_until("the keystroke", |world| world.regions[1].order.contains(&typed));
    assert!(world.regions[1].came.len() < 801, "the backfill was over before");
    world.run_until("level", World::is_level);
    let lanes: BTreeSet<Lane> = world.regions[1].order.iter().map(|(lane, ..)| *lane).collect();
    assert_eq!(lanes, BTreeSet::from([Lane::Live, Lane::Bulk]));
    assert_eq!(world.most_often(1), 1);
}

#[test]
fn a_backfill_that_is_cut_goes_on_about_where_it_was() {
    let logs = streams().map(|stream| (log("here", 1, stream), kept(stream, 3_000))).collect();
    let mut world = World::with(logs, BTreeMap::new());
    world.connect();
    world.run_until("half of it", |world| world.regions[1].came.len() > 24_000);
    world.cut_all();
    world.connect();
    world.run_until("level", World::is_level);
    let again: u64 = world.again(1) as u64;
    let each = cost(&entry(0, 1, 60));
    assert!(again * each <= window(Lane::Bulk), "{again} entries came again");
}

#[test]
fn a_bulk_lane_that_is_lost_alone_goes_on_when_it_is_back() {
    let mut world =
        World::with(BTreeMap::from([(log("here", 1, 2), kept(2, 40_000))]), BTreeMap::new());
    world.connect();
    world.run_until("some of it", |world| world.regions[1].came.len() > 10_000);
    world.cut(Lane::Bulk);
    assert!(world.regions.iter().all(|region| region.link.is_up()));
    world.type_in(0, 2, 5);
    world.run_for(SECOND);
    assert!(!world.is_level());
    world.open(Lane::Bulk, 0);
    world.run_until("level", World::is_level);
    assert!(world.regions.iter().all(|region| region.closed.is_empty()));
}

#[test]
fn slow_shards_are_given_no_more_than_their_credit() {
    let logs = streams().map(|stream| (log("here", 1, stream), kept(stream, 8_000))).collect();
    let mut world = World::with(logs, BTreeMap::new());
    world.regions[1].slow = true;
    world.connect();
    world.run_for(5 * SECOND);
    let owed = |world: &World| -> u64 {
        world.regions[1].owed.iter().map(|(_, _, credit)| *credit as u64).sum()
    };
    let full = owed(&world);
    assert!(full <= window(Lane::Bulk) && full > window(Lane::Bulk) / 2, "{full}");
    let came = world.regions[1].came.len();
    world.run_for(5 * SECOND);
    assert_eq!(world.regions[1].came.len(), came, "more came without credit");
    while !world.is_level() {
        world.give_back(1);
        world.run_for(Duration::from_millis(100));
        assert!(owed(&world) <= window(Lane::Bulk));
    }
    assert_eq!(world.most_often(1), 1);
}

#[test]
fn live_changes_that_find_no_credit_are_read_when_there_is_some() {
    let mut world = World::connected();
    world.regions[1].slow = true;
    for _ in 0..300 {
        world.publish(0, 1, vec![entry(1, world.regions[0].end(&log("here", 1, 1)) + 1, 10_000)]);
        world.run_for(Duration::from_millis(10));
    }
    let owed: usize = world.regions[1].owed.iter().map(|(_, _, credit)| *credit).sum();
    assert!(owed as u64 <= window(Lane::Live));
    world.regions[1].slow = false;
    world.give_back(1);
    world.run_until("level", World::is_level);
    assert_eq!(world.most_often(1), 1);
}

#[test]
fn nothing_is_made_for_a_socket_that_takes_nothing() {
    let mut world = World::connected();
    world.regions[0].stuck = true;
    for _ in 0..1000 {
        world.publish(0, 1, vec![entry(1, world.regions[0].end(&log("here", 1, 1)) + 1, 4_000)]);
    }
    let sent: usize = world.sent[0].iter().map(|(_, frame)| frame.len()).sum();
    assert!(sent < 300_000, "{sent} bytes were made");
    world.write(0);
    world.run_until("level", World::is_level);
    assert_eq!(world.most_often(1), 1);
}

#[test]
fn shards_are_told_when_what_they_gave_for_repair_has_left_or_cannot() {
    let written = |world: &World| {
        let told = world.regions[0].told.iter();
        told.map(|it| if let ToShard::Written { bytes } = it { *bytes } else { 0 }).sum::<usize>()
    };
    let give = |world: &mut World, bytes: usize| {
        let message = FromShard::Sync { document: document(7), data: vec![1; bytes] };
        world.tell(0, Event::Shard { shard: usize::from(document(7).stream()) % 2, message });
    };
    let mut world = World::connected();
    world.regions[0].stuck = true;
    give(&mut world, 1_000);
    give(&mut world, 500);
    assert_eq!(written(&world), 0);
    world.write(0);
    assert_eq!(written(&world), 1_500);
    world.regions[0].stuck = true;
    give(&mut world, 200);
    world.cut(Lane::Bulk);
    world.run_for(SECOND);
    assert_eq!(written(&world), 1_700, "its socket is gone");
    world.cut_all();
    world.run_for(SECOND);
    give(&mut world, 30);
    assert_eq!(written(&world), 1_730, "there is no socket");
}

#[test]
fn the_audit_does_not_bring_what_waits_for_the_bulk_lane() {
    let logs = streams().map(|stream| (log("here", 1, stream), kept(stream, 1_000))).collect();
    let mut world = World::with(logs, BTreeMap::new());
    world.open(Lane::Live, 0);
    world.run_for(20 * SECOND);
    let audits =
        |world: &World| world.sent.iter().flatten().filter(|(_, frame)| frame[0] == 16).count();
    assert_eq!(audits(&world), 0, "the bulk lane is not up yet");
    world.open(Lane::Bulk, 0);
    world.run_until("level", World::is_level);
    assert_eq!(world.most_often(1), 1);
    world.run_for(10 * SECOND);
    assert!(audits(&world) > 0);
}

#[test]
fn a_bulk_lane_that_never_comes_does_not_end_the_audit() {
    let logs = streams().map(|stream| (log("here", 1, stream), kept(stream, 1_000))).collect();
    let mut world = World::with(logs, BTreeMap::new());
    world.open(Lane::Live, 0);
    world.run_for(60 * SECOND);
    assert!(world.sent[0].iter().any(|(_, frame)| frame[0] == 16));
}

#[test]
fn the_audit_goes_on_after_a_region_was_catching_up() {
    let logs = streams().map(|stream| (log("here", 1, stream), kept(stream, 4_000))).collect();
    let mut world = World::with(logs, BTreeMap::new());
    world.regions[1].slow = true;
    world.connect();
    // The first look is due meanwhile.
    world.run_for(10 * SECOND);
    assert!(!world.is_level());
    assert!(world.sent[0].iter().all(|(_, frame)| frame[0] != 16));
    world.regions[1].slow = false;
    world.give_back(1);
    world.run_until("level", World::is_level);
    world.run_for(10 * SECOND);
    assert!(world.sent[0].iter().any(|(_, frame)| frame[0] == 16), "no look any more");
}

#[test]
fn an_entry_larger_than_the_window_goes_alone() {
    let mut world = World::connected();
    for (stream, size) in [(1, 100), (1, 3 << 20), (2, 200), (1, 100)] {
        let seq = world.regions[0].end(&log("here", 1, stream)) + 1;
        world.publish(0, stream, vec![entry(stream, seq, size)]);
    }
    world.run_until("level", World::is_level);
    let mut backlog = Kept::default();
    (1..400).for_each(|seq| backlog.push(entry(5, seq, 60)));
    backlog.push(entry(5, 400, 6 << 20));
    (401..500).for_each(|seq| backlog.push(entry(5, seq, 60)));
    let mut world = World::with(BTreeMap::from([(log("here", 1, 5), backlog)]), BTreeMap::new());
    world.connect();
    world.run_until("level", World::is_level);
    assert!(world.regions.iter().all(|region| region.closed.is_empty()));
}

#[test]
fn a_link_on_which_nothing_is_heard_is_closed_within_ten_seconds() {
    let mut world = World::connected();
    world.run_for(20 * SECOND);
    assert!(world.regions.iter().all(|region| region.link.is_up()));
    let started = world.now;
    world.tamper = Some(Box::new(|_, _, _| false));
    world.run_until("down", |world| world.regions.iter().all(|region| !region.link.is_up()));
    assert!(world.now - started <= 10 * SECOND);
    assert!(world.regions[0].closed.contains(&CloseReason::Silent));
}

#[test]
fn what_was_read_for_a_socket_that_is_gone_does_not_end_what_goes_over_the_next() {
    let third = log("third", 9, 6);
    let mut trimmed = kept(6, 100);
    trimmed.trim(62);
    let mut world = World::with(BTreeMap::from([(third.clone(), trimmed)]), BTreeMap::new());
    world.regions[0].repeats = true;
    world.tell(1, Event::Reachable { region: name("third"), up: false });
    world.connect();
    world.run_until("level", World::is_level);
    assert_eq!(world.regions[1].end(&third), 100);
    assert_eq!(world.most_often(1), 1);
}

#[test]
fn a_log_of_a_third_region_comes_from_who_has_it_while_that_region_is_out_of_reach() {
    let third = log("third", 9, 6);
    let mut world = World::with(BTreeMap::from([(third.clone(), kept(6, 5_000))]), BTreeMap::new());
    world.tell(1, Event::Reachable { region: name("third"), up: true });
    world.connect();
    world.run_for(10 * SECOND);
    assert_eq!(world.regions[1].end(&third), 0, "it is to come from the third region itself");
    world.tell(1, Event::Reachable { region: name("third"), up: false });
    world.run_for(SECOND);
    assert_eq!(world.regions[1].end(&third), 0, "it may be back in a moment");
    world.run_until("level", World::is_level);
    assert_eq!(world.most_often(1), 1);

    // The log goes on over there.
    let kept = world.regions[0].logs.get_mut(&third).unwrap();
    (5_001..5_011).for_each(|seq| kept.push(entry(6, seq, 60)));
    let (log, mark) = (third, kept.end);
    world.tell(0, Event::Shard { shard: 0, message: FromShard::Held { log, mark } });
    world.run_until("level", World::is_level);
    assert_eq!(world.most_often(1), 1);
}

#[test]
fn a_region_that_was_restored_from_a_backup_gets_its_own_log_back() {
    let old = log("here", 77, 4);
    let backup = BTreeMap::from([(old.clone(), kept(4, 100))]);
    let mut world = World::with(backup, BTreeMap::from([(old.clone(), kept(4, 700))]));
    world.connect();
    world.run_until("level", World::is_level);
    assert_eq!(world.regions[0].came.len(), 600);
    world.type_in(0, 4, 3);
    world.run_until("level", World::is_level);
    assert!(world.regions.iter().all(|region| region.closed.is_empty()));
}

#[test]
fn what_is_not_kept_any_more_is_skipped_and_the_audit_looks_soon() {
    let mut trimmed = kept(4, 1_000);
    trimmed.trim(600);
    let logs = BTreeMap::from([(log("here", 1, 4), trimmed)]);
    let mut world = World::with(logs, BTreeMap::from([(log("here", 1, 4), kept(4, 30))]));
    world.connect();
    world.run_until("level", World::is_level);
    let skipped = |inbound| Report::Skipped { log: log("here", 1, 4), to: 600, inbound };
    assert!(world.regions[0].reports.contains(&skipped(false)));
    assert!(world.regions[1].reports.contains(&skipped(true)));
    let audits = world.status(0).audits;
    world.run_for(4 * SECOND);
    assert!(world.status(0).audits > audits);
}

#[test]
fn a_batch_that_is_damaged_on_its_way_is_sent_again_whole() {
    let mut world = World::connected();
    let mut batches = 0;
    world.tamper = Some(Box::new(move |at, _, frame| {
        if at == 0 && frame[0] == 1 {
            batches += 1;
            if batches == 5 {
                let middle = frame.len() / 2;
                frame[middle] ^= 0x40;
            }
        }
        true
    }));
    for _ in 0..200 {
        world.type_in(0, 3, 1);
        world.type_in(0, 8, 1);
        world.run_for(Duration::from_millis(2));
    }
    world.run_until("level", World::is_level);
    assert_eq!(world.most_often(1), 1);
    assert!(world.regions.iter().all(|region| region.closed.is_empty()));
    let resend = |inbound| Report::Resend { lane: Lane::Live, inbound };
    assert_eq!(world.regions[0].reports, [resend(false)]);
    assert_eq!(world.regions[1].reports, [resend(true)]);
}

#[test]
fn damage_to_a_backfill_is_mended_as_well() {
    let logs = streams().map(|stream| (log("here", 1, stream), kept(stream, 2_000))).collect();
    let relayed = BTreeMap::from([(log("third", 5, 1), kept(1, 3_000))]);
    let mut world = World::with(logs, relayed);
    let mut batches = 0;
    world.tamper = Some(Box::new(move |_, _, frame| {
        if frame[0] == 1 {
            batches += 1;
            if batches % 17 == 0 {
                let at = frame.len() - 3;
                frame[at] ^= 1;
            }
        }
        true
    }));
    world.connect();
    world.run_until("level", World::is_level);
    assert!(world.regions.iter().all(|region| region.closed.is_empty()));
    assert_eq!(world.most_often(1), 1, "only what could not be read comes again");
}

#[test]
fn presence_and_interest_cross_in_order() {
    let mut world = World::connected();
    let say = |world: &mut World, message| world.tell(0, Event::Shard { shard: 0, message });
    say(&mut world, FromShard::Interest { document: document(2), open: true });
    for count in 0..10 {
        let presence = Presence {
            author: model::PeerId::new("author").unwrap(),
            stream: "s".to_owned(),
            count,
            data: vec![1, 2, 3],
        };
        say(&mut world, FromShard::Presence { document: document(2), presence });
    }
    world.run_for(SECOND);
    let told = &world.regions[1].told;
    assert!(told.iter().any(|message| matches!(message, ToShard::Interest { open: true, .. })));
    let counts: Vec<u64> = told
        .iter()
        .filter_map(|message| match message {
            ToShard::Presence { presence, .. } => Some(presence.count),
            _ => None,
        })
        .collect();
    assert_eq!(counts, (0..10).collect::<Vec<_>>());
    assert_eq!(world.status(1).presence_in, 10);
}

#[test]
fn of_two_sockets_both_sides_keep_the_one_that_the_smaller_name_dialled() {
    for first in [0, 1] {
        let mut world = World::new();
        world.open(Lane::Live, first);
        world.open(Lane::Live, 1 - first);
        world.open(Lane::Bulk, first);
        world.open(Lane::Bulk, 1 - first);
        world.type_in(0, 1, 5);
        world.run_until("level", World::is_level);
        world.run_for(20 * SECOND);
        assert!(world.regions.iter().all(|region| region.link.is_up()));
        assert!(world.is_open(Lane::Live) && world.is_open(Lane::Bulk));
        for region in &world.regions {
            let honest = |reason: &CloseReason| !reason.blames_peer();
            assert!(region.closed.iter().all(honest), "{:?}", region.closed);
        }
    }
}

#[test]
fn a_socket_that_is_dialled_anew_replaces_the_old_one() {
    let mut world = World::connected();
    world.type_in(0, 1, 5);
    world.run_until("level", World::is_level);
    // The other side has not noticed that the old ones are gone.
    world.connect();
    world.type_in(0, 1, 5);
    world.type_in(1, 1, 5);
    world.run_for(SECOND);
    if !world.is_open(Lane::Bulk) {
        world.open(Lane::Bulk, 0);
    }
    world.run_until("level", World::is_level);
    assert_eq!((world.most_often(0), world.most_often(1)), (1, 1));
}
