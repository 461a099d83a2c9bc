//! Hundreds of runs in which everything goes wrong, and nothing may be lost by it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tributary_sim::{Mishap, Options, Outcome, run};

/// How many seeds a test run tries in the world of one region, and in that of several.
/// `TRIBUTARY_SIM_SEEDS` and `TRIBUTARY_SIM_FROM` say otherwise for both.
const SEEDS: u64 = 600;
const SEEDS_BETWEEN: u64 = 2000;
const THREADS: usize = 2;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs seeds on a few threads and returns what came of them, by seed.
fn run_all(from: u64, count: u64, options: Options) -> BTreeMap<u64, Outcome> {
    let (next, outcomes) = (AtomicU64::new(from), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        return;
                    }
                    let outcome = run(seed, options);
                    outcomes.lock().unwrap().insert(seed, outcome);
                }
            });
        }
    });
    outcomes.into_inner().unwrap()
}

/// Runs seeds, and shows which failed and how to see them again.
fn no_law_is_broken(default: u64, options: Options, things: &[&str]) {
    let (from, count) = (number("TRIBUTARY_SIM_FROM", 1), number("TRIBUTARY_SIM_SEEDS", default));
    let outcomes = run_all(from, count, options);
    let mut failed = Vec::new();
    let mut happened: BTreeMap<&str, u64> = BTreeMap::new();
    for (seed, outcome) in &outcomes {
        for (what, times) in &outcome.tally {
            *happened.entry(what).or_default() += times;
        }
        if let Some(violation) = &outcome.violation {
            let world = if options.regions { " --regions" } else { "" };
            failed.push(format!(
                "seed {seed}: {:?} after {:?}: {}\n  replay: cargo run -p tributary-sim -- {seed}{world} --trace",
                violation.law, violation.at, violation.what
            ));
        }
    }
    println!("{count} seeds from {from}: {happened:?}");
    assert!(failed.is_empty(), "{} of {count} seeds failed\n{}", failed.len(), failed.join("\n"));
    // A simulator that does nothing breaks no law either.
    if count >= default {
        for what in things {
            let times = happened.get(what).copied().unwrap_or(0);
            assert!(times >= count / 20, "{what} happened only {times} times in {count} seeds");
        }
    }
}

#[test]
fn whatever_goes_wrong_no_law_is_broken() {
    no_law_is_broken(SEEDS, Options::default(), &THINGS_THAT_HAPPEN);
}

#[test]
fn whatever_goes_wrong_between_regions_no_law_is_broken() {
    let options = Options { regions: true, ..Options::default() };
    no_law_is_broken(SEEDS_BETWEEN, options, &THINGS_THAT_HAPPEN_BETWEEN);
}

#[test]
fn however_often_regions_are_started_vectors_stay_small() {
    let mishap = Some(Mishap::Restarts);
    let options = Options { regions: true, mishap, ..Options::default() };
    for (seed, outcome) in run_all(1, 3, options) {
        assert_eq!(outcome.violation, None, "seed {seed}");
        let (starts, bytes) =
            (outcome.tally["starts"], outcome.tally["bytes of the largest vector"]);
        println!("seed {seed}: {starts} processes of three regions, a vector of {bytes} bytes");
        assert!(starts > 75 && outcome.tally["logs forgotten"] > 30, "seed {seed}");
        assert!(bytes < 1024, "seed {seed}");
    }
}

/// What a few hundred seeds have to have seen, by its name in [`Outcome::tally`].
const THINGS_THAT_HAPPEN: [&str; 14] = [
    "archive jobs",
    "client restarts",
    "commits",
    "compactions",
    "edits",
    "failed commits",
    "malformed frames",
    "presence",
    "refused",
    "reopened",
    "restores",
    "sessions closed for cause",
    "sessions given up",
    "stops",
];

/// The same of a few hundred seeds of several regions.
const THINGS_THAT_HAPPEN_BETWEEN: [&str; 20] = [
    "cloned",
    "compactions",
    "conflict copies",
    "cuts between regions",
    "died",
    "edits",
    "entries arrived",
    "entries published",
    "failed commits",
    "garbled",
    "lanes closed",
    "links down",
    "logs forgotten",
    "presence between regions",
    "regions added",
    "repairs",
    "restores",
    "roamed",
    "rolling restarts",
    "wiped",
];

#[test]
fn the_same_seed_is_the_same_run() {
    for regions in [false, true] {
        let options = Options { regions, ..Options::default() };
        let mut different = BTreeSet::new();
        for seed in 1..=12 {
            let (first, second) = (run(seed, options), run(seed, options));
            assert_eq!(first, second, "seed {seed} is not the same twice");
            assert!(first.events > 0);
            different.insert(first.trace);
        }
        assert_eq!(different.len(), 12, "different seeds are different runs");
    }
}
