//! Stock clients against a server on the change graph, at random, beside the same run against the
//! crate as server.
//!
//! Two to four `automerge` clients edit, sync, disconnect, lose and roll back their documents, open
//! them again and become read-only, with every message delivered at a random time. Afterwards
//! everyone must have the same document, and nobody may have anything left to say. No message of the
//! server may be a reset, name what it does not hold, or list heads out of order.
//!
//! One number replays a run: `SEED=17 cargo test -p tributary-sync --test differential`.

mod client;
mod runs;
mod server;
mod world;

use runs::{Scenario, run};
use tributary_sync::planted::{Bug, plant};

const SEEDS: u64 = 150;

fn seeds(count: u64) -> std::ops::Range<u64> {
    match std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..count,
    }
}

fn converges(scenario: Scenario) {
    for seed in seeds(SEEDS) {
        if let Err(wrong) = run(scenario, seed) {
            panic!("seed {seed} of {scenario:?}: {wrong}");
        }
    }
}

#[test]
fn plain_clients_converge_and_fall_silent() {
    converges(Scenario::plain());
}

#[test]
fn clients_that_only_read_version_1_converge() {
    converges(Scenario { version_1: true, ..Scenario::plain() });
}

#[test]
fn clients_with_stale_or_lost_sync_states_converge() {
    converges(Scenario { stale_states: true, ..Scenario::plain() });
}

#[test]
fn clients_that_lose_or_roll_back_their_document_converge() {
    converges(Scenario { stale_states: true, lost_documents: true, ..Scenario::plain() });
}

#[test]
fn a_server_restored_to_an_older_prefix_gets_everything_back() {
    converges(Scenario { restored_server: true, stale_states: true, ..Scenario::plain() });
}

#[test]
fn a_document_opened_again_on_the_same_connection_converges() {
    converges(Scenario { reopened: true, ..Scenario::plain() });
}

#[test]
fn clients_that_become_read_only_and_writers_again_converge() {
    converges(Scenario { read_only: true, ..Scenario::plain() });
}

#[test]
fn a_server_that_refuses_some_changes_converges_with_the_rest_and_does_not_loop() {
    converges(Scenario { refusals: true, ..Scenario::plain() });
}

#[test]
fn everything_at_once_converges() {
    converges(Scenario::everything());
}

#[test]
fn everything_at_once_with_refusals_converges() {
    converges(Scenario { refusals: true, read_only: false, ..Scenario::everything() });
}

/// Rules that a convergence test can see: without them some seed fails. The others have tests of
/// their own in `rules.rs`, because what they save is a round trip or a message.
#[test]
fn every_rule_that_is_left_out_is_noticed() {
    let bugs = [
        Bug::AlwaysAnswer,
        Bug::PresumeAlways,
        Bug::NeverGoBack,
        Bug::HeadsUnsorted,
        Bug::SendsReset,
    ];
    for bug in bugs {
        let scenarios = [
            Scenario::everything(),
            Scenario { read_only: true, ..Scenario::plain() },
            Scenario { reopened: true, ..Scenario::plain() },
            Scenario {
                read_only: true,
                restored_server: true,
                stale_states: true,
                lost_documents: true,
                ..Scenario::plain()
            },
        ];
        plant(Some(bug));
        let caught = (0..400).find_map(|seed| {
            scenarios.iter().find_map(|scenario| run(*scenario, seed).err().map(|why| (seed, why)))
        });
        plant(None);
        let (seed, why) = caught.unwrap_or_else(|| panic!("{bug:?} was not noticed"));
        println!("{bug:?}: seed {seed}: {why}");
    }
}

/// The crate as the server is no clean oracle (it loops in some cases), so the comparison is of sums
/// over plain runs, where it converges.
#[test]
fn it_says_about_as_much_as_the_crate_would() {
    let (mut ours, mut theirs) = (world::Traffic::default(), world::Traffic::default());
    for seed in 0..100 {
        ours += run(Scenario::plain(), seed).unwrap();
        theirs += run(Scenario { crate_as_server: true, ..Scenario::plain() }, seed).unwrap();
    }
    println!("ours {ours:?}\nthe crate {theirs:?}");
    assert!(ours.messages as f64 <= 1.1 * theirs.messages as f64, "{ours:?} {theirs:?}");
    assert!(ours.bytes_up as f64 <= 1.2 * theirs.bytes_up as f64, "{ours:?} {theirs:?}");
    assert!(ours.bytes_down as f64 <= 1.8 * theirs.bytes_down as f64, "{ours:?} {theirs:?}");
}
