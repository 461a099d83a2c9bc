//! One person types in one region, another reads along in the next.

use std::time::{Duration, Instant};

use super::{DRAIN_LIMIT, LATENCY, READERS, SETUP_LIMIT, check, typing::Typing};
use crate::bench::Bench;
use crate::regions::{Regions, wait};
use crate::report::{Measured, short};
use crate::rows::grouped;
use crate::session::Start;
use crate::world::{Duty, World};

pub(in crate::rows) fn measure(
    bench: &Bench,
    edits: usize,
    rate: usize,
    seconds: usize,
) -> Result<Measured, String> {
    let regions = Regions::start(bench, &["a", "b"], LATENCY)?;
    let mut world = World::new(regions.address(0))?;
    let count = rate * seconds;
    let typist = bench.typist(0, edits + rate + count, rate as f64)?;
    let duty = Duty::Write { to: edits, batch: 250, window: 4_000 };
    let writer = world.connect(bench.client(&typist, 0, 0, Start::Typist), 0, duty, edits)?;
    if !world.run_until_all_done(Instant::now() + SETUP_LIMIT)? {
        return Err(format!("it has not taken the document after {} s", SETUP_LIMIT.as_secs()));
    }
    world.stop(writer);
    wait(&mut world, "the document in the other region", SETUP_LIMIT, || regions.are_level())?;
    let session = bench.client(&typist, 0, READERS, Start::Reader);
    let reader = world.connect_to(regions.address(1), session, 0, Duty::Read, edits)?;
    if !world.run_until_all_done(Instant::now() + SETUP_LIMIT)? {
        return Err("the other region does not serve the document".to_owned());
    }
    // What comes after an upload (verification, compaction) is not what is measured.
    world.run_until(Instant::now() + Duration::from_secs(4))?;

    let mut typing = Typing::new(vec![writer], edits);
    typing.run(&mut world, rate, rate)?;
    world.measure(typing.edits(0), Duration::from_secs(seconds as u64));
    let before = regions.usage();
    typing.run(&mut world, rate, count)?;
    typing.aim(&mut world, &[reader]);
    let complete = world.run_until_all_done(Instant::now() + DRAIN_LIMIT)?;
    let usage = regions.usage();
    let held = world.standing(reader).held;
    let missing = world.missing(0, held, typing.edits(0));
    let meter = world.measured();

    let mut measured = Measured::default();
    measured.latency(&meter.latency);
    let distance = LATENCY.as_secs_f64() * 1e3;
    let own = measured.p50_ms.unwrap_or_default() - distance;
    measured.result = format!("the link's {distance:.0} ms and {} ms", short(own));
    let each = (usage.cpu - before.cpu).as_secs_f64() * 1e6 / count as f64;
    measured.cpu = format!("{} µs a keystroke, both regions", short(each));
    measured.memory(&usage);
    measured.number("cpu_us_per_keystroke", each);
    measured.number("missing", missing as f64);
    measured.number("writer_late_p99_ms", typing.lateness.quantile(0.99).as_secs_f64() * 1e3);
    measured.remark(format!("{} keystrokes", grouped(count as u64)));
    if missing > 0 {
        measured.at_least = true;
        measured.remark(format!("{missing} of {count} keystrokes did not arrive"));
    }
    if complete {
        check(bench, &mut world, regions.address(1), &typist, 0, typing.edits(0))?;
    }
    Ok(measured)
}
