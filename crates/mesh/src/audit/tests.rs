//! Stories of two audits.

mod world;

use std::collections::BTreeSet;

use super::*;
use crate::sketch::Sketch;
use world::{Region, World, item, seconds, weight_of};

#[test]
fn equal_regions_say_two_short_messages_every_thirty_seconds() {
    let mut world = World::new([2, 3], 1_000);
    world.until(seconds(100));
    let looks = world.found(|finding| *finding == Finding::Equal);
    let starts: Vec<u64> = looks.iter().map(Duration::as_secs).collect();
    assert_eq!(starts, [3, 33, 63, 93]);
    assert_eq!(world.sent.len(), 8);
    assert!(world.bytes() <= 4 * 40, "{} bytes", world.bytes());
    assert!(world.regions.iter().all(|region| region.repaired.is_empty()));
}

/// How many bytes and round trips until both know which documents differ.
fn measure(documents: u64, differ: u64, seed: u64) -> (usize, usize) {
    let mut world = World::new([2, 2], documents);
    // Nobody mends anything, so that what was found can be compared.
    world.repairable = |_| false;
    let mut changed = BTreeSet::new();
    let mut number = seed;
    while (changed.len() as u64) < differ {
        number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
        changed.insert(weight_of(number) % documents);
    }
    for (index, document) in changed.iter().enumerate() {
        world.regions[index % 2].set(*document, seed + 1);
    }
    let start = world.now;
    world.until(start + seconds(8) - Duration::from_millis(1));
    let known = world.found(|finding| matches!(finding, Finding::Differs { .. }))[0];
    let asked = |message: &Message| matches!(message, Message::Root { .. } | Message::More { .. });
    let asks = world.sent.iter().filter(|(at, message, _)| *at < known && asked(message)).count();
    let items: Vec<u64> = world.regions[0].repaired.clone();
    let want: BTreeSet<u64> = changed
        .iter()
        .map(|document| item(*document, world.regions[0].documents[document]))
        .collect();
    assert_eq!(items.iter().copied().collect::<BTreeSet<_>>(), want, "seed {seed}");
    assert_eq!(world.regions[1].repaired.len(), differ as usize, "seed {seed}");
    (world.bytes(), asks)
}

#[test]
fn which_100_of_many_documents_differ_is_known_in_8_kb_and_3_round_trips() {
    for (differ, seeds, bytes_max) in [(1, 20, 1_200), (10, 20, 1_500), (100, 100, 8_192)] {
        let seed = |seed: u64| measure(3_000, differ, seed * 7 + 1);
        let (mut bytes, mut trips): (Vec<_>, Vec<_>) = (0..seeds).map(seed).unzip();
        bytes.sort_unstable();
        trips.sort_unstable();
        let (half, most, last) = (bytes.len() / 2, bytes.len() * 49 / 50, bytes.len() - 1);
        println!(
            "{differ} of 3,000: {} B and {} round trips half of the time, {} B and {} at most",
            bytes[half], trips[half], bytes[last], trips[last],
        );
        // The sketch works by chance: one time in fifty it may take some more.
        assert!(bytes[most] <= bytes_max && trips[most] <= 3);
    }
}

#[test]
fn which_100_of_200_000_documents_differ_is_known_in_8_kb_and_3_round_trips() {
    let (bytes, trips) = measure(200_000, 100, 3);
    println!("100 of 200,000: {bytes} B and {trips} round trips");
    assert!(bytes <= 8_192 && trips <= 3);
}

#[test]
fn what_is_merely_under_way_is_not_repaired() {
    let mut world = World::new([1, 2], 500);
    for round in 1..200 {
        // One side has it 500 ms before the other.
        for document in 0..20 {
            world.regions[0].set(document, round);
        }
        world.until(world.now + Duration::from_millis(500));
        for document in 0..20 {
            world.regions[1].set(document, round);
        }
        world.until(world.now + Duration::from_millis(500));
    }
    assert!(!world.found(|finding| matches!(finding, Finding::Differs { .. })).is_empty());
    assert!(world.regions.iter().all(|region| region.repaired.is_empty()));
}

#[test]
fn a_difference_among_documents_that_change_all_the_time_is_found_and_repaired() {
    let mut world = World::new([2, 2], 500);
    world.regions[0].set(400, 1);
    world.regions[1].set(600, 0);
    for round in 1..20 {
        for document in 0..20 {
            world.regions[0].set(document, round);
        }
        world.until(world.now + Duration::from_millis(900));
        for document in 0..20 {
            world.regions[1].set(document, round);
        }
        world.until(world.now + Duration::from_millis(100));
    }
    assert!(world.are_equal());
    let repaired: Vec<u64> =
        world.regions.iter().flat_map(|region| region.repaired.clone()).collect();
    let want = BTreeSet::from([item(400, 0), item(400, 1), item(600, 0)]);
    assert_eq!(repaired.iter().copied().collect::<BTreeSet<_>>(), want);
}

#[test]
fn a_document_that_differs_and_is_never_at_rest_is_repaired_in_the_end() {
    let mut world = World::new([1, 1], 10);
    let mut round = 0;
    while world.regions[0].repaired.is_empty() && world.regions[1].repaired.is_empty() {
        round += 1;
        assert!(round < 800, "it is not repaired");
        world.regions[0].set(3, 2 * round);
        world.regions[1].set(3, 2 * round + 1);
        world.until(world.now + seconds(1));
    }
    assert!(world.are_equal());
    assert!(world.now > seconds(300), "it was repaired at {:?}", world.now);
}

#[test]
fn a_difference_is_repaired_after_three_seconds_and_looked_at_again_after_five() {
    let mut world = World::new([3, 1], 300);
    world.regions[0].set(7, 1);
    world.regions[1].set(900, 1);
    world.until(seconds(60));
    assert!(world.are_equal());
    let repairs = world.found(|finding| matches!(finding, Finding::Repairing { .. }));
    assert_eq!(repairs.iter().map(Duration::as_secs).collect::<Vec<_>>(), [6]);
    let equal = world.found(|finding| *finding == Finding::Equal);
    assert_eq!(equal.iter().map(Duration::as_secs).collect::<Vec<_>>(), [11, 41]);
    // That the same difference is still there is said with two roots, not with symbols.
    let symbols =
        world.sent.iter().filter(|(_, message, _)| matches!(message, Message::Symbols { .. }));
    assert_eq!(symbols.count(), 1);
}

#[test]
fn what_repair_does_not_mend_is_reported_once_on_both_sides_and_then_left_to_the_slow_pace() {
    let mut world = World::new([1, 1], 100);
    world.repairable = |document| document != 5;
    world.regions[0].set(5, 1);
    world.regions[0].set(6, 1);
    world.until(seconds(60));
    let stuck = Finding::Stuck { here: vec![item(5, 1)], there: vec![item(5, 0)] };
    let reported = |region: &Region| {
        region.found.iter().filter(|(_, found)| matches!(found, Finding::Stuck { .. })).count()
    };
    assert!(world.regions[0].found.iter().any(|(_, found)| *found == stuck));
    assert_eq!(world.regions.iter().map(reported).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(world.regions[0].audit.counts().stuck, 2);
    let before = world.regions[0].audit.counts().looks;
    world.until(seconds(360));
    assert_eq!(world.regions[0].audit.counts().looks, before + 10);
    assert_eq!(world.regions.iter().map(reported).collect::<Vec<_>>(), [1, 1]);
    // It was not for ever: what is mended by other means is equal again.
    world.regions[1].set(5, 1);
    world.until(seconds(400));
    assert!(world.regions[0].found.last().is_some_and(|(_, found)| *found == Finding::Equal));
}

#[test]
fn a_new_region_is_too_different_for_the_sketch_and_gets_all_by_walking() {
    for empty in [0, 1] {
        let mut world = World::new([2, 3], 0);
        for document in 0..20_000 {
            world.regions[1 - empty].set(document, 0);
        }
        // The new one has something, too.
        world.regions[empty].set(50_000, 0);
        world.until(seconds(40));
        assert!(world.are_equal());
        assert_eq!(world.regions[0].audit.counts().walks, 1);
        assert!(world.regions[0].found.iter().any(|(_, found)| *found == Finding::Equal));
    }
}

#[test]
fn much_that_differs_on_both_sides_is_too_much_as_well() {
    let mut world = World::new([2, 2], 20_000);
    for document in 0..10_000 {
        world.regions[document as usize % 2].set(document, 1);
    }
    world.until(seconds(40));
    assert!(world.are_equal());
    assert_eq!(world.regions[0].audit.counts().walks, 1);
}

#[test]
fn three_thousand_documents_are_repaired_a_thousand_at_a_time() {
    let mut world = World::new([2, 2], 0);
    for document in 0..3_000 {
        world.regions[0].set(document, 0);
    }
    world.until(seconds(30));
    assert!(world.are_equal());
    assert_eq!(world.regions[0].audit.counts().walks, 0);
    assert_eq!(world.regions[0].audit.counts().repaired, 3_000);
}

#[test]
fn a_walk_that_is_cut_off_goes_on_where_it_was() {
    let mut world = World::new([1, 1], 0);
    for document in 0..40_000 {
        world.regions[1].set(document, 0);
    }
    world.until(Duration::from_millis(6_800));
    let walked = world.regions[1].repaired.len();
    assert!(walked > 2_000 && walked < 35_000, "{walked} items");
    world.cut = true;
    world.network.clear();
    world.regions.iter_mut().for_each(|region| region.audit.down());
    world.until(seconds(20));
    world.cut = false;
    let now = world.now;
    world.regions.iter_mut().for_each(|region| region.audit.up(now));
    world.until(seconds(60));
    assert!(world.are_equal());
    let pages: Vec<u64> = world
        .sent
        .iter()
        .filter_map(|(_, message, _)| match message {
            Message::Page { from, .. } => Some(*from),
            _ => None,
        })
        .collect();
    let anew = pages.iter().filter(|from| **from == 0).count();
    assert_eq!(anew, 1, "it began anew: {pages:?}");
    assert_eq!(world.regions[0].audit.counts().walks, 1);
}

#[test]
fn without_an_answer_the_look_is_given_up_and_repeated_later() {
    let mut world = World::new([1, 1], 10);
    world.cut = true;
    world.until(seconds(50));
    assert_eq!(world.found(|finding| *finding == Finding::NoAnswer), [seconds(23)]);
    world.cut = false;
    world.until(seconds(60));
    assert_eq!(world.found(|finding| *finding == Finding::Equal).len(), 1);
}

#[test]
fn while_either_side_catches_up_nobody_looks() {
    for catches_up in [0, 1] {
        let mut world = World::new([1, 1], 10);
        world.regions[1].set(3, 1);
        world.regions[catches_up].audit.hold(Duration::ZERO, true);
        world.until(seconds(60));
        assert!(world.found(|finding| !matches!(finding, Finding::Equal)).is_empty());
        world.regions[catches_up].audit.hold(seconds(60), false);
        world.until(seconds(80));
        assert!(world.are_equal());
    }
}

#[test]
fn something_skipped_is_looked_for_within_three_seconds() {
    let mut world = World::new([1, 1], 10);
    world.until(seconds(10));
    world.regions[0].audit.soon(seconds(10));
    world.regions[0].audit.soon(seconds(11));
    world.until(seconds(14));
    assert_eq!(world.found(|finding| *finding == Finding::Equal).len(), 2);
}

#[test]
fn words_of_the_wrong_side_and_symbols_out_of_order_are_errors() {
    let now = seconds(0);
    let mut asker = Audit::new(true, 1, Pace::default());
    let mut answerer = Audit::new(false, 1, Pace::default());
    let root = Message::Root { round: 1, root: Root::default(), expected: None };
    assert_eq!(asker.heard(now, root.clone()), Err(Wrong::Side));
    assert_eq!(answerer.heard(now, Message::Busy { round: 1 }), Err(Wrong::Side));

    asker.up(now);
    asker.tick(seconds(3));
    asker.answered(seconds(3), 0, Answer::Root { round: 1, root: Root::default() });
    let symbols = |first| Message::Symbols { round: 1, documents: 9, first, symbols: vec![] };
    assert_eq!(asker.heard(seconds(3), symbols(4)), Err(Wrong::Order));
    assert_eq!(asker.heard(seconds(3), symbols(0)), Ok(()));

    answerer.heard(now, root).expect("a question");
    let own = Root { documents: 1, sum: 5 };
    answerer.answered(now, 0, Answer::Root { round: 1, root: own });
    let mut sketch = Sketch::default();
    sketch.add(5);
    let all = sketch.symbols(0..crate::sketch::LENGTH).to_vec();
    answerer.answered(now, 0, Answer::Symbols { round: 2, symbols: all });
    assert_eq!(answerer.heard(now, Message::More { round: 1, to: 20 }), Err(Wrong::Order));
    assert_eq!(answerer.heard(now, Message::More { round: 1, to: 200 }), Ok(()));
    // Of a look that is over: nothing.
    assert_eq!(answerer.heard(now, Message::More { round: 7, to: 20 }), Ok(()));
}

/// Answers for a region of one shard without documents.
fn of_nothing(ask: &Ask) -> Option<Answer> {
    Region::new(true, 1, 0).shard_answers(0, ask)
}

#[test]
fn symbols_that_are_noise_come_to_an_end_and_items_out_of_range_are_an_error() {
    let mut asker = Audit::new(true, 1, Pace::default());
    asker.up(seconds(0));
    let (mut now, mut noise, mut questions) = (seconds(0), 0, 0);
    let mut symbols = |count: usize| {
        let symbol = |_| {
            noise += 1;
            let bits = weight_of(noise);
            Symbol { items: bits, checks: bits >> 16, count: (bits % 3) as i64 - 1 }
        };
        (0..count).map(symbol).collect::<Vec<_>>()
    };
    let mut sent = 0;
    let (round, page) = loop {
        assert!(questions < 100, "it goes on and on");
        let Some(effect) = asker.poll_effect() else {
            now = asker.poll_timeout().expect("it has plans");
            asker.tick(now);
            continue;
        };
        let (round, count) = match effect {
            Effect::Ask(ask) => {
                let answer = of_nothing(&ask).expect("no repairs");
                asker.answered(now, 0, answer);
                continue;
            }
            Effect::Send(Message::Root { round, .. }) => {
                sent = 0;
                (round, 64)
            }
            Effect::Send(Message::More { round, to }) => (round, to - sent),
            Effect::Send(Message::Page { round, from, to }) => break (round, (from, to)),
            _ => continue,
        };
        questions += 1;
        let symbols = symbols(count);
        let message = Message::Symbols { round, documents: 3_000, first: sent, symbols };
        asker.heard(now, message).expect("noise is no error");
        sent += count;
    };
    assert_eq!(page, (0, u64::MAX));
    let items = |round, to, items| Message::Items { round, to, items };
    assert_eq!(asker.heard(now, items(round, 9, vec![10])), Err(Wrong::Range));
    assert_eq!(asker.heard(now, items(round, 9, vec![8])), Ok(()));
    while let Some(effect) = asker.poll_effect() {
        if let Effect::Ask(ask) = effect
            && let Some(answer) = of_nothing(&ask)
        {
            asker.answered(now, 0, answer);
        }
    }
    // The next page starts at 10. An end before it would make a walk without an end.
    assert_eq!(asker.heard(now, items(round + 1, 9, vec![])), Err(Wrong::Range));
    assert_eq!(asker.heard(now, items(round + 1, 10, vec![])), Ok(()));
}
