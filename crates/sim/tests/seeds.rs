//! Hundreds of runs in which everything goes wrong, and nothing may be lost by it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tributary_sim::{Options, Outcome, run};

/// How many seeds a test run tries. `TRIBUTARY_SIM_SEEDS` and `TRIBUTARY_SIM_FROM` say otherwise.
const SEEDS: u64 = 500;
const THREADS: usize = 2;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs seeds on a few threads and returns what came of them, by seed.
fn run_all(from: u64, count: u64) -> BTreeMap<u64, Outcome> {
    let (next, outcomes) = (AtomicU64::new(from), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        return;
                    }
                    let outcome = run(seed, Options::default());
                    outcomes.lock().unwrap().insert(seed, outcome);
                }
            });
        }
    });
    outcomes.into_inner().unwrap()
}

#[test]
fn whatever_goes_wrong_no_law_is_broken() {
    let (from, count) = (number("TRIBUTARY_SIM_FROM", 1), number("TRIBUTARY_SIM_SEEDS", SEEDS));
    let outcomes = run_all(from, count);
    let mut failed = Vec::new();
    let mut happened: BTreeMap<&str, u64> = BTreeMap::new();
    for (seed, outcome) in &outcomes {
        for (what, times) in &outcome.tally {
            *happened.entry(what).or_default() += times;
        }
        if let Some(violation) = &outcome.violation {
            failed.push(format!(
                "seed {seed}: {:?} after {:?}: {}\n  replay: cargo run -p tributary-sim -- {seed} --trace",
                violation.law, violation.at, violation.what
            ));
        }
    }
    println!("{count} seeds from {from}: {happened:?}");
    assert!(failed.is_empty(), "{} of {count} seeds failed\n{}", failed.len(), failed.join("\n"));
    // A simulator that does nothing breaks no law either.
    if count >= SEEDS {
        for what in THINGS_THAT_HAPPEN {
            let times = happened.get(what).copied().unwrap_or(0);
            assert!(times >= count / 20, "{what} happened only {times} times in {count} seeds");
        }
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

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 1..=12 {
        let (first, second) = (run(seed, Options::default()), run(seed, Options::default()));
        assert_eq!(first, second, "seed {seed} is not the same twice");
        assert!(first.events > 0);
    }
    let traces: Vec<u64> = (1..=12).map(|seed| run(seed, Options::default()).trace).collect();
    let different: std::collections::BTreeSet<_> = traces.iter().collect();
    assert_eq!(different.len(), traces.len(), "different seeds are different runs");
}
