//! Replays a seed of the simulator:
//! `cargo run -p tributary-sim -- SEED [COUNT] [--regions] [--with MISHAP] [--trace]`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use tributary_sim::{Options, run};

const USAGE: &str = "usage: tributary-sim SEED [COUNT] [--regions] [--with MISHAP] [--trace]";

fn main() -> ExitCode {
    let mut numbers = Vec::new();
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--trace" => options.log = true,
            "--regions" => options.regions = true,
            "--with" => match arguments.next().and_then(|name| name.parse().ok()) {
                Some(mishap) => options.mishap = Some(mishap),
                None => {
                    eprintln!("--with: no such mishap\n{USAGE}");
                    return ExitCode::from(2);
                }
            },
            text => match text.parse::<u64>() {
                Ok(number) => numbers.push(number),
                Err(_) => {
                    eprintln!("{text}: not a number\n{USAGE}");
                    return ExitCode::from(2);
                }
            },
        }
    }
    let (seed, count) = match numbers[..] {
        [seed] => (seed, 1),
        [seed, count] => (seed, count),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
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
