//! Frames that are too large to cross in one message.

use std::time::Duration;

use super::rig::{BULK, Lone, World, document};
use crate::exchange::{FromShard, ToShard};
use crate::frame::{Frame, PIECE_BYTES_MAX};
use crate::link::{CloseReason, Event, Limits};

const SECOND: Duration = Duration::from_secs(1);
const PING: u8 = 17;

/// A shard of the first region gives a message for repair.
fn give(world: &mut World, data: Vec<u8>) {
    let message = FromShard::Sync { document: document(7), data };
    world.tell(0, Event::Shard { shard: usize::from(document(7).stream()) % 2, message });
}

/// The messages for repair that the second region has got.
fn got(world: &World) -> Vec<Vec<u8>> {
    let told = world.regions[1].told.iter();
    told.filter_map(
        |it| if let ToShard::Sync { data, .. } = it { Some(data.clone()) } else { None },
    )
    .collect()
}

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn a_large_frame_goes_in_pieces_as_the_socket_takes_them_and_arrives_whole_and_in_order() {
    let mut world = World::connected();
    world.regions[0].stuck = true;
    let before = world.sent[0].len();
    let messages = [noise(3 << 20), noise(10), noise(PIECE_BYTES_MAX)];
    messages.iter().for_each(|message| give(&mut world, message.clone()));
    let sizes: Vec<usize> = world.sent[0][before..].iter().map(|(_, frame)| frame.len()).collect();
    assert!(sizes.iter().all(|size| *size <= PIECE_BYTES_MAX + 1), "{sizes:?}");
    let most = Limits::default().at_socket_bytes + PIECE_BYTES_MAX;
    assert!(sizes.iter().sum::<usize>() <= most, "{sizes:?}");
    assert!(got(&world).is_empty());
    world.write(0);
    world.run_for(SECOND);
    assert!(got(&world) == messages, "{:?}", got(&world).iter().map(Vec::len).collect::<Vec<_>>());
}

#[test]
fn a_ping_does_not_wait_for_the_end_of_a_large_frame() {
    let mut world = World::connected();
    world.regions[0].stuck = true;
    give(&mut world, noise(3 << 20));
    let before = world.sent[0].len();
    world.run_for(4 * SECOND);
    assert!(world.sent[0][before..].iter().any(|(_, frame)| frame[0] == PING));
    world.write(0);
    world.run_for(SECOND);
    assert_eq!(got(&world).len(), 1);
    assert!(world.regions.iter().all(|region| region.closed.is_empty()));
}

/// The reason for which the bulk socket is closed after these.
fn closed_after(frames: impl IntoIterator<Item = Frame>) -> CloseReason {
    let mut lone = Lone::new(Default::default(), Vec::new());
    for frame in frames {
        lone.say(BULK, &frame);
        if let Some(reason) = lone.region.closed.first() {
            assert!(reason.blames_peer());
            return reason.clone();
        }
    }
    panic!("the link is to be closed");
}

#[test]
fn a_frame_without_an_end_closes_the_link() {
    let endless = (0..100).map(|_| Frame::Piece { data: vec![0; 1 << 20], last: false });
    assert_eq!(closed_after(endless), CloseReason::TooLarge);
}

#[test]
fn pieces_that_make_no_frame_close_the_link() {
    let pieces = [vec![77; 10], vec![9; 10]];
    let garbage =
        pieces.into_iter().zip([false, true]).map(|(data, last)| Frame::Piece { data, last });
    assert_eq!(closed_after(garbage), CloseReason::Undecodable);
    let inner = Frame::Piece { data: vec![1], last: true }.encode(&Lone::ends());
    let nested = [Frame::Piece { data: inner, last: true }];
    assert_eq!(closed_after(nested), CloseReason::OutOfPlace { frame: "piece in a piece" });
    let nothing = [Frame::Piece { data: Vec::new(), last: true }];
    assert_eq!(closed_after(nothing), CloseReason::Undecodable);
}

#[test]
fn what_is_sent_for_repair_is_not_held_against_the_lane() {
    let mut world = World::connected();
    world.regions[0].stuck = true;
    give(&mut world, noise(70 << 20));
    world.type_in(0, 3, 10);
    world.run_for(4 * SECOND);
    assert!(world.regions[0].closed.is_empty(), "{:?}", world.regions[0].closed);
    world.write(0);
    world.run_until("level", World::is_level);
    world.run_for(SECOND);
    assert_eq!(got(&world).len(), 1);
}
