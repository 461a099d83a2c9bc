//! What no honest peer does, and what becomes of it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rig::{BULK, Kept, LIVE, Lone, World, document, entries, entry, kept, log, name};
use crate::codec::{CodecError, Encoder, Group};
use crate::exchange::{Lane, ToShard};
use crate::frame::{Frame, Row};
use crate::link::{CloseReason, Event, Report, SocketId, window};
use crate::origin::{Entry, LogId, Mark};

fn row(log: LogId, sequence: u64) -> Row {
    Row { log, sequence, digest: Some([9; 16]) }
}

fn batch(encoder: &mut Encoder, log: LogId, first: u64, entries: &[Entry]) -> Frame {
    Frame::Entries(encoder.encode(&[Group { log, first, entries }]).bytes)
}

/// The reason for which the live socket is closed after the peer has said something.
fn closed_after(say: impl FnOnce(&mut Lone)) -> CloseReason {
    let mut lone = Lone::new(BTreeMap::from([(log("here", 1, 3), kept(3, 10))]), Vec::new());
    assert!(lone.region.link.is_up());
    say(&mut lone);
    let reasons = std::mem::take(&mut lone.region.closed);
    let reason = reasons.first().expect("the link is to be closed").clone();
    assert!(reason.blames_peer());
    assert_eq!(lone.region.link.status(lone.now).last_error, Some(reason.to_string()));
    reason
}

#[test]
fn a_claim_to_hold_what_we_never_wrote_closes_the_link() {
    let reason = closed_after(|lone| {
        lone.say(LIVE, &Frame::Holds(vec![row(log("here", 1, 3), 11)]));
        assert!(lone.region.closed.is_empty(), "our own shard may be a little late");
        lone.wait(Duration::from_secs(2));
    });
    assert_eq!(reason, CloseReason::FalseVector { log: log("here", 1, 3) });
}

#[test]
fn claims_of_logs_without_number_close_the_link() {
    let reason = closed_after(|lone| {
        for lives in 0..200 {
            let logs = (0..1_024).map(|n| log("elsewhere", 64 * lives + n / 16, (n % 16) as u8));
            lone.say(LIVE, &Frame::Holds(logs.map(|log| row(log, 1)).collect()));
            if !lone.region.closed.is_empty() {
                return;
            }
        }
    });
    assert_eq!(reason, CloseReason::TooManyLogs);
}

#[test]
fn a_peer_that_does_not_say_what_it_holds_is_not_waited_for_for_ever() {
    let mut lone = Lone::silent();
    for _ in 0..35 {
        lone.wait(Duration::from_secs(1));
        lone.answer_pings();
    }
    assert_eq!(lone.region.closed.first(), Some(&CloseReason::NoVector));
}

#[test]
fn a_peer_that_takes_nothing_in_is_not_waited_for_for_ever() {
    let logs = BTreeMap::from([(log("here", 1, 3), kept(3, 20))]);
    let mut lone = Lone::new(logs, Vec::new());
    for _ in 0..65 {
        lone.wait(Duration::from_secs(1));
        lone.answer_pings();
    }
    assert_eq!(lone.region.closed.first(), Some(&CloseReason::NoCredit));
}

#[test]
fn a_false_vector_is_found_out_once_and_harmless_after_that() {
    let mut lone = Lone::new(BTreeMap::new(), vec![row(log("here", 1, 3), 11)]);
    lone.wait(Duration::from_secs(2));
    assert_eq!(lone.region.closed[0], CloseReason::FalseVector { log: log("here", 1, 3) });
    let (agreed, socket) = (lone.peer(2, Lane::Live), SocketId(3));
    lone.tell(Event::Up { socket, lane: Lane::Live, agreed, dialled: true });
    lone.say(socket, &Frame::Vector(vec![row(log("here", 1, 3), 11)]));
    lone.wait(Duration::from_secs(2));
    assert!(lone.region.link.is_up());
}

#[test]
fn a_digest_of_our_log_that_is_not_ours_closes_the_link() {
    let logs = || BTreeMap::from([(log("here", 1, 3), kept(3, 10))]);
    for sequence in [4, 10] {
        let lone = Lone::new(logs(), vec![row(log("here", 1, 3), sequence)]);
        let reason = CloseReason::FalseVector { log: log("here", 1, 3) };
        assert_eq!(lone.region.closed.first(), Some(&reason), "{sequence}");
        assert!(!lone.sent.iter().any(|(_, frame)| matches!(frame, Frame::Entries(_))));
    }
    let honest = kept(3, 4).end.digest;
    let row = Row { digest: Some(honest), ..row(log("here", 1, 3), 4) };
    assert!(Lone::new(logs(), vec![row]).region.link.is_up());
}

#[test]
fn an_old_log_of_ours_that_differs_there_is_left_to_the_audit() {
    let logs = BTreeMap::from([(log("here", 77, 3), kept(3, 10))]);
    let lone = Lone::new(logs, vec![row(log("here", 77, 3), 4)]);
    assert!(lone.region.link.is_up());
    let diverged = Frame::Diverged { log: log("here", 77, 3) };
    assert!(lone.sent.iter().any(|(_, frame)| *frame == diverged));
    assert_eq!(lone.region.reports, [Report::Diverged { log: log("here", 77, 3) }]);
}

#[test]
fn entries_with_a_gap_close_the_link() {
    let theirs = log("there", 2, 3);
    let reason = closed_after(|lone| {
        let mut encoder = Encoder::new();
        lone.say(LIVE, &batch(&mut encoder, theirs.clone(), 1, &entries(3, 1..3)));
        lone.say(LIVE, &batch(&mut encoder, theirs.clone(), 4, &entries(3, 4..6)));
        assert_eq!(lone.region.end(&theirs), 2);
    });
    assert_eq!(reason, CloseReason::Gap { log: theirs.clone(), expected: 3, found: 4 });
    let reason = closed_after(|lone| {
        lone.say(LIVE, &batch(&mut Encoder::new(), theirs.clone(), 7, &entries(3, 7..9)));
    });
    assert_eq!(reason, CloseReason::Gap { log: theirs.clone(), expected: 1, found: 7 });
    let reason = closed_after(|lone| {
        lone.say(BULK, &batch(&mut Encoder::new(), theirs.clone(), 500, &entries(3, 500..501)));
    });
    assert!(matches!(reason, CloseReason::Gap { expected: 1, found: 500, .. }));
}

#[test]
fn more_credit_than_there_is_closes_the_link() {
    let reason = closed_after(|lone| lone.say(LIVE, &Frame::Credit { bytes: 1 << 40 }));
    assert_eq!(reason, CloseReason::EndlessCredit);
}

#[test]
fn more_entries_than_there_is_credit_for_close_the_link() {
    let reason = closed_after(|lone| {
        lone.region.slow = true;
        let mut encoder = Encoder::new();
        for seq in 1..40 {
            let theirs = log("there", 2, 3);
            lone.say(LIVE, &batch(&mut encoder, theirs, seq, &[entry(3, seq, 100_000)]));
        }
        let owed: usize = lone.region.owed.iter().map(|(_, _, credit)| *credit).sum();
        assert!(owed as u64 <= window(Lane::Live));
    });
    assert_eq!(reason, CloseReason::CreditExceeded);
}

#[test]
fn logs_that_nobody_asked_for_close_the_link() {
    for region in ["third", "here"] {
        let reason = closed_after(|lone| {
            let others = log(region, 5, 3);
            lone.say(BULK, &batch(&mut Encoder::new(), others, 1, &entries(3, 1..3)));
        });
        assert_eq!(reason, CloseReason::Unasked { log: log(region, 5, 3) });
    }
}

#[test]
fn frames_that_cannot_be_read_close_the_link() {
    for bytes in [vec![], vec![99], vec![4], vec![0, 0xff, 0xff, 0xff], vec![7; 30]] {
        let reason = closed_after(|lone| lone.tell(Event::Frame { socket: LIVE, bytes }));
        assert_eq!(reason, CloseReason::Undecodable);
    }
}

#[test]
fn frames_out_of_place_close_the_link() {
    let third = || log("third", 5, 3);
    let resend = Frame::Resend { generation: 3, received: 0, logs: Vec::new() };
    let ahead =
        Frame::Resend { generation: 0, received: 0, logs: vec![row(log("here", 1, 3), 99)] };
    for (socket, frame) in [
        (LIVE, Frame::Vector(Vec::new())),
        (LIVE, Frame::Fetch { log: third(), from: 1, digest: None }),
        (BULK, Frame::Fetch { log: log("here", 1, 3), from: 1, digest: None }),
        (BULK, Frame::Fetch { log: third(), from: 0, digest: None }),
        (BULK, Frame::Served { log: third(), through: 5 }),
        (BULK, Frame::Skip { log: third(), to: Mark { sequence: 5, digest: [0; 16] } }),
        (LIVE, Frame::Anew { generation: 1 }),
        (LIVE, resend),
        (LIVE, ahead),
    ] {
        let reason = closed_after(|lone| lone.say(socket, &frame));
        assert!(matches!(reason, CloseReason::OutOfPlace { .. }), "{frame:?}: {reason}");
    }
}

#[test]
fn a_batch_that_cannot_be_read_is_asked_for_once_and_whole() {
    let mut lone = Lone::new(BTreeMap::new(), Vec::new());
    let (mut encoder, theirs) = (Encoder::new(), log("there", 2, 3));
    lone.say(LIVE, &batch(&mut encoder, theirs.clone(), 1, &entries(3, 1..3)));
    lone.say(LIVE, &Frame::Entries(vec![0, 1, 50, 1, 2, 3, 4, 5, 6, 7, 8, 9]));
    let (socket, asked) = lone.sent.last().unwrap();
    assert_eq!(*socket, LIVE);
    let came = Row { log: theirs.clone(), sequence: 2, digest: None };
    assert!(matches!(asked, Frame::Resend { generation: 0, logs, .. } if *logs == [came]));
    // What was on its way before it heard of that.
    lone.say(LIVE, &batch(&mut encoder, theirs.clone(), 5, &entries(3, 5..6)));
    assert!(lone.region.closed.is_empty());
    lone.say(LIVE, &Frame::Anew { generation: 1 });
    lone.say(LIVE, &Frame::Entries(vec![1, 0, 50, 1, 2, 3, 4, 5, 6, 7, 8, 9]));
    assert!(matches!(lone.region.closed[0], CloseReason::Batch(_)));
    assert_eq!(lone.region.end(&theirs), 2);
}

#[test]
fn a_batch_that_is_not_sent_again_is_not_waited_for_for_ever() {
    let mut lone = Lone::new(BTreeMap::new(), Vec::new());
    lone.say(LIVE, &Frame::Entries(vec![0, 0, 50, 1, 2, 3, 4, 5, 6, 7, 8, 9]));
    assert!(matches!(lone.sent.last(), Some((LIVE, Frame::Resend { .. }))));
    for _ in 0..29 {
        lone.wait(Duration::from_secs(1));
        lone.answer_pings();
    }
    assert!(lone.region.closed.is_empty());
    for _ in 0..5 {
        lone.wait(Duration::from_secs(1));
        lone.answer_pings();
    }
    assert_eq!(lone.region.closed.first(), Some(&CloseReason::NotAnew));
}

#[test]
fn a_peer_that_does_not_answer_the_vector_is_not_waited_for_for_ever() {
    let mut lone = Lone::silent();
    lone.say(LIVE, &Frame::Vector(Vec::new()));
    for _ in 0..35 {
        lone.wait(Duration::from_secs(1));
        lone.answer_pings();
    }
    assert_eq!(lone.region.closed.first(), Some(&CloseReason::NoVector));
}

#[test]
fn a_bomb_and_a_change_that_is_none_are_never_taken() {
    // A death record of a change in the log of another stream.
    let mut lone = Lone::new(BTreeMap::new(), Vec::new());
    let theirs = log("there", 2, 5);
    let wrong =
        Encoder::new().encode(&[Group { log: theirs, first: 1, entries: entries(3, 1..2) }]);
    lone.say(LIVE, &Frame::Entries(wrong.bytes.clone()));
    lone.say(LIVE, &Frame::Anew { generation: 1 });
    lone.say(LIVE, &Frame::Entries([&[1], &wrong.bytes[1..]].concat()));
    assert!(matches!(
        lone.region.closed[0],
        CloseReason::Batch(CodecError::Stream | CodecError::Digest)
    ));
    assert!(lone.region.came.is_empty());
}

#[test]
fn a_peer_that_answers_no_ping_though_it_talks_is_closed() {
    let mut lone = Lone::new(BTreeMap::new(), Vec::new());
    for _ in 0..40 {
        lone.say(LIVE, &Frame::Ping { id: 1 });
        lone.say(BULK, &Frame::Ping { id: 1 });
        lone.wait(Duration::from_secs(1));
    }
    assert_eq!(lone.region.closed[0], CloseReason::Stalled);
}

#[test]
fn a_second_process_with_a_name_that_is_in_use_is_turned_away() {
    let mut lone = Lone::new(BTreeMap::new(), Vec::new());
    for (socket, lane) in [(SocketId(3), Lane::Live), (SocketId(4), Lane::Bulk)] {
        let agreed = lone.peer(55, lane);
        lone.tell(Event::Up { socket, lane, agreed, dialled: false });
    }
    assert_eq!(lone.region.closed, vec![CloseReason::Taken { region: name("there") }; 2]);
    assert!(lone.region.link.is_up());
    // The first one is slow, but its sockets are there.
    lone.wait(Duration::from_secs(8));
    let agreed = lone.peer(55, Lane::Live);
    lone.tell(Event::Up { socket: SocketId(5), lane: Lane::Live, agreed, dialled: false });
    assert_eq!(lone.region.closed[2..], [CloseReason::Taken { region: name("there") }]);
    // They are silent for so long that they are closed: then the name is free.
    lone.wait(Duration::from_secs(2));
    assert!(lone.region.closed[3..].contains(&CloseReason::Silent));
    assert!(!lone.region.link.has_socket(Lane::Live));
    let agreed = lone.peer(55, Lane::Live);
    lone.tell(Event::Up { socket: SocketId(6), lane: Lane::Live, agreed, dialled: false });
    assert!(lone.region.told.iter().any(|message| matches!(message, ToShard::Down)));
    assert!(lone.region.link.has_socket(Lane::Live));
}

#[test]
fn a_relay_that_claims_more_than_it_has_is_not_asked_for_ever() {
    let third = log("third", 5, 3);
    let mut world = World::with(BTreeMap::from([(third.clone(), kept(3, 10))]), BTreeMap::new());
    world.connect();
    let false_claim = Frame::Holds(vec![Row { log: third.clone(), sequence: 500, digest: None }]);
    let ends = crate::frame::Ends {
        sender: log("here", 1, 0).origin,
        receiver: log("there", 2, 0).origin,
    };
    let bytes = false_claim.encode(&ends);
    world.tell(1, Event::Frame { socket: SocketId(1), bytes });
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.regions[1].end(&third), 10);
    let fetches = world.sent[1].iter().filter(|(_, frame)| frame[0] == 5).count();
    assert!(fetches <= 3, "{fetches} fetches");
}

#[test]
fn a_fetched_log_that_differs_is_given_up() {
    let third = log("third", 5, 3);
    let mut other = Kept::default();
    (1..8).for_each(|seq| other.push(entry(3, seq, 90)));
    let here = BTreeMap::from([(third.clone(), kept(3, 10))]);
    let mut world = World::with(here, BTreeMap::from([(third.clone(), other)]));
    world.connect();
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.regions[1].end(&third), 7);
    assert!(world.regions[1].reports.contains(&Report::Diverged { log: third }));
    assert!(world.regions.iter().all(|region| region.closed.is_empty()));
    let fetches = world.sent[1].iter().filter(|(_, frame)| frame[0] == 5).count();
    assert_eq!(fetches, 1);
}

#[test]
fn what_shards_say_of_a_life_that_is_over_is_left_out() {
    let mut lone = Lone::new(BTreeMap::from([(log("here", 1, 3), kept(3, 10))]), Vec::new());
    let (agreed, socket) = (lone.peer(2, Lane::Live), SocketId(3));
    lone.tell(Event::Closed { socket: LIVE });
    assert_eq!(lone.region.closed, [CloseReason::Anew], "the bulk socket goes with it");
    // The shards have not answered yet.
    lone.region
        .link
        .handle(lone.now, Event::Up { socket, lane: Lane::Live, agreed, dialled: true });
    let sent = lone.sent.len();
    let message = crate::FromShard::Unavailable { document: document(3) };
    lone.region.link.handle(lone.now, Event::Shard { shard: 1, message });
    assert_eq!(lone.sent.len(), sent);
    assert!(!matches!(lone.region.link.poll_effect(), Some(crate::link::Effect::Send { .. })));
}
