//! Replays a seed of the simulator:
//! `cargo run -p tributary-sim -- SEED [COUNT] [--regions] [--with MISHAP] [--trace]`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Parser;
use tributary_sim::{Mishap, Options, run};

/// Replays seeds of the simulator.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The seed, or the first one
    seed: u64,
    /// How many seeds from there on
    #[arg(default_value_t = 1)]
    count: u64,
    /// Three to seven regions with links between them, not one region
    #[arg(long)]
    regions: bool,
    /// Lets one thing go wrong, and nothing else
    #[arg(long, value_name = "MISHAP")]
    with: Option<Mishap>,
    /// Prints everything that happens
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let Arguments { seed, count, regions, with, trace } = Arguments::parse();
    let options = Options { regions, log: trace, mishap: with, planted: None };
    let (mut failed, mut frames_most) = (0, 0);
    let mut happened = BTreeMap::<&str, u64>::new();
    for seed in seed..seed.saturating_add(count) {
        let outcome = run(seed, options);
        frames_most = frames_most.max(outcome.tally["frames"]);
        for (what, times) in &outcome.tally {
            *happened.entry(what).or_default() += times;
        }
        if let Some(violation) = &outcome.violation {
            failed += 1;
            println!(
                "seed {seed}: {:?} after {:?}: {}",
                violation.law, violation.at, violation.what
            );
        }
        if count == 1 {
            println!(
                "seed {seed}: {} events in {:?} of virtual time, trace {:016x}\n{:?}",
                outcome.events, outcome.virtual_time, outcome.trace, outcome.tally
            );
        }
    }
    if count > 1 {
        println!(
            "{failed} of {count} seeds failed: {happened:?}, at most {frames_most} frames in one"
        );
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
