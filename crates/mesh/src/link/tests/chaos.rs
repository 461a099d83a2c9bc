//! Everything at once, by seed: cuts of either lane, damaged frames, slow shards, stuck sockets, two
//! regions that write all the time, a third one's logs with both of them.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::rig::{World, kept, log};
use crate::exchange::Lane;

/// What happens next.
#[derive(Debug, Clone)]
enum Deed {
    Type { at: usize, stream: u8, count: u64 },
    Wait { millis: u64 },
    CutAll,
    CutBulk,
    Slow { at: usize },
    GiveBack { at: usize },
    Stick { at: usize },
    Write { at: usize },
    Damage { nth: u32 },
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        8 => (0..2_usize, 0..4_u8, 1..50_u64).prop_map(|(at, stream, count)| Deed::Type { at, stream, count }),
        2 => (0..2_usize, 0..4_u8, 300..900_u64).prop_map(|(at, stream, count)| Deed::Type { at, stream, count }),
        8 => (1..200_u64).prop_map(|millis| Deed::Wait { millis }),
        1 => (1000..5000_u64).prop_map(|millis| Deed::Wait { millis }),
        2 => Just(Deed::CutAll),
        2 => Just(Deed::CutBulk),
        1 => (0..2_usize).prop_map(|at| Deed::Slow { at }),
        1 => (0..2_usize).prop_map(|at| Deed::GiveBack { at }),
        1 => (0..2_usize).prop_map(|at| Deed::Stick { at }),
        1 => (0..2_usize).prop_map(|at| Deed::Write { at }),
        2 => (1..20_u32).prop_map(|nth| Deed::Damage { nth }),
    ]
}

/// Opens what is not open, as a shell that dials does.
fn dial(world: &mut World, dialler: usize) {
    for lane in [Lane::Live, Lane::Bulk] {
        if !world.is_open(lane) {
            world.cut(lane);
            world.open(lane, dialler);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, fork: false, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_both_regions_end_with_the_same_logs_and_nobody_is_blamed(
        deeds in prop::collection::vec(deed(), 1..60),
        dialler in 0..2_usize,
    ) {
        let third = log("third", 5, 1);
        let here = BTreeMap::from([
            (third.clone(), kept(1, 700)),
            (log("here", 77, 2), kept(2, 100)),
        ]);
        let there = BTreeMap::from([(third, kept(1, 300)), (log("here", 77, 2), kept(2, 400))]);
        let mut world = World::with(here, there);
        for deed in &deeds {
            dial(&mut world, dialler);
            match *deed {
                Deed::Type { at, stream, count } => world.type_in(at, stream, count),
                Deed::Wait { millis } => world.run_for(Duration::from_millis(millis)),
                Deed::CutAll => world.cut_all(),
                Deed::CutBulk => world.cut(Lane::Bulk),
                Deed::Slow { at } => world.regions[at].slow = true,
                Deed::GiveBack { at } => {
                    world.regions[at].slow = false;
                    world.give_back(at);
                }
                Deed::Stick { at } => world.regions[at].stuck = true,
                Deed::Write { at } => world.write(at),
                Deed::Damage { nth } => {
                    let mut left = nth;
                    world.tamper = Some(Box::new(move |_, _, frame| {
                        if frame[0] == 1 {
                            left = left.wrapping_sub(1);
                            if left == 0 {
                                // Not the first bytes, which say what the peer is to blame for.
                                let at = frame.len() - 1 - frame.len() / 3;
                                frame[at] ^= 0x10;
                            }
                        }
                        true
                    }));
                }
            }
        }
        world.tamper = None;
        for at in [0, 1] {
            world.regions[at].slow = false;
            world.give_back(at);
            world.write(at);
        }
        for _ in 0..60 {
            dial(&mut world, dialler);
            world.run_for(Duration::from_secs(1));
        }
        prop_assert!(world.is_level());
        prop_assert!(world.regions.iter().all(|region| region.link.is_up()));
        for at in [0, 1] {
            prop_assert_eq!(world.status(at).lag_changes, 0);
            let blamed: Vec<_> =
                world.regions[at].closed.iter().filter(|reason| reason.blames_peer()).collect();
            // Damage to what is sent whole is the network's, and looks like the peer's.
            let batches = |reason: &&&crate::link::CloseReason| {
                matches!(reason, crate::link::CloseReason::Batch(_))
            };
            prop_assert_eq!(blamed.iter().filter(batches).count(), blamed.len(), "{:?}", blamed);
        }
    }
}
