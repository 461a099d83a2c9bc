//! Three regions, each of which writes as the others do, and everybody reads along everywhere.

use std::time::{Duration, Instant};

use super::{DRAIN_LIMIT, LATENCY, READERS, SETUP_LIMIT, check, typing::Typing};
use crate::bench::{Bench, Typist};
use crate::net::ConnId;
use crate::regions::{Regions, Watch, wait};
use crate::report::{Measured, short};
use crate::rows::grouped;
use crate::server::own_cpu;
use crate::session::Start;
use crate::world::{Duty, World};

const BEGUN: usize = 20;
const NAMES: [&str; 3] = ["a", "b", "c"];

pub(in crate::rows) fn measure(
    bench: &Bench,
    documents: usize,
    rate: usize,
) -> Result<Measured, String> {
    let regions = Regions::start(bench, &NAMES, LATENCY)?;
    let mut world = World::new(regions.address(0))?;
    let seconds = bench.size(20, 4);
    let total = rate * NAMES.len();
    let each = BEGUN + total * (seconds + 2) / (documents * NAMES.len()) + 2;
    // Typists take turns among regions, too.
    let (mut typists, mut writers) = (Vec::<Typist>::new(), Vec::new());
    for document in 0..documents * NAMES.len() {
        let typist = bench.typist(document, each, rate as f64 / documents as f64)?;
        let session = bench.client(&typist, document, document, Start::Typist);
        let duty = Duty::Write { to: BEGUN, batch: BEGUN, window: BEGUN };
        let server = regions.address(document % NAMES.len());
        writers.push(world.connect_to(server, session, document, duty, BEGUN)?);
        typists.push(typist);
    }
    if !world.run_until_all_done(Instant::now() + SETUP_LIMIT)? {
        return Err("the regions have not taken the documents in time".to_owned());
    }
    wait(&mut world, "level regions", SETUP_LIMIT, || regions.are_level())?;
    let mut readers = [Vec::new(), Vec::new()];
    for (document, typist) in typists.iter().enumerate() {
        world.stop(writers[document]);
        for (other, readers) in readers.iter_mut().enumerate() {
            let server = regions.address((document + other + 1) % NAMES.len());
            let session = bench.client(typist, document, READERS + document, Start::Reader);
            readers.push(world.connect_to(server, session, document, Duty::Read, BEGUN)?);
        }
    }
    if !world.run_until_all_done(Instant::now() + SETUP_LIMIT)? {
        return Err("the other regions do not serve the documents".to_owned());
    }

    let mut typing = Typing::new(writers, BEGUN);
    typing.run(&mut world, total, total)?;
    let watch = regions.watch(Duration::from_millis(100));
    let mut lag = Lag::default();
    world.measure(typing.edits(0), Duration::from_secs(seconds as u64));
    let (before, own_before, began) = (regions.usage(), own_cpu(), Instant::now());
    let count = total * seconds;
    let end = typing.typed() + count;
    typing.run_while(&mut world, total, |typed| {
        lag.look(&watch)?;
        Ok(typed < end)
    })?;
    let (stopped, usage, own) = (Instant::now(), regions.usage(), own_cpu());
    for readers in &readers {
        typing.aim(&mut world, readers);
    }
    let complete = world.run_until_all_done(stopped + DRAIN_LIMIT)?;
    let read = stopped.elapsed();
    wait(&mut world, "level regions", DRAIN_LIMIT, || regions.are_level())?;
    let level = stopped.elapsed();
    let missing = missing(&mut world, &typing, &readers);
    let meter = world.measured();

    let result = format!("all alike {} ms after the end", short(read.as_secs_f64() * 1e3));
    let mut measured = Measured { result, ..Measured::default() };
    measured.latency(&meter.latency);
    let typed_in = stopped - began;
    let cpu = (usage.cpu - before.cpu).as_secs_f64();
    measured.cpu = format!("{} µs a change, all regions", short(cpu * 1e6 / count as f64));
    measured.memory(&usage);
    measured.remark(format!(
        "the latencies are those from a typist to readers in both other regions; at most {} \
         changes and {} s were not known to be durable in another region",
        grouped(lag.changes),
        short(lag.seconds)
    ));
    let achieved = count as f64 / typed_in.as_secs_f64() / NAMES.len() as f64;
    measured.remark(format!(
        "{} changes/s typed in each; the regions used {:.0} % of a core together, and knew {} ms \
         after the end that they were level",
        grouped(achieved.round() as u64),
        cpu * 100.0 / typed_in.as_secs_f64(),
        short(level.as_secs_f64() * 1e3)
    ));
    let busy = (own - own_before).as_secs_f64() / typed_in.as_secs_f64();
    if busy > 0.9 {
        measured.remark(format!("the load generator used {:.0} % of a core", busy * 100.0));
    }
    measured.number("converged_ms", read.as_secs_f64() * 1e3);
    measured.number("known_level_ms", level.as_secs_f64() * 1e3);
    measured.number("lag_changes_max", lag.changes as f64);
    measured.number("lag_seconds_max", lag.seconds);
    measured.number("changes_per_s_each", achieved);
    measured.number("cpu_us_per_change", cpu * 1e6 / count as f64);
    measured.number("generator_cpu_share", busy);
    measured.number("deliveries", meter.deliveries as f64);
    measured.number("writer_late_p99_ms", typing.lateness.quantile(0.99).as_secs_f64() * 1e3);
    if !complete {
        measured.at_least = true;
        let limit = DRAIN_LIMIT.as_secs();
        measured.remark(format!("{missing} changes were not read {limit} s after the end"));
        return Ok(measured);
    }
    for at in 0..NAMES.len() {
        // Of another region each.
        let document = (at + 1) % NAMES.len();
        let length = typing.edits(document);
        check(bench, &mut world, regions.address(at), &typists[document], document, length)?;
    }
    Ok(measured)
}

/// The most that any region lacked of any other.
#[derive(Default)]
struct Lag {
    changes: u64,
    seconds: f64,
}

impl Lag {
    fn look(&mut self, watch: &Watch) -> Result<(), String> {
        for link in watch.heard()?.iter().flat_map(|sample| &sample.links) {
            self.changes = self.changes.max(link.lag_changes);
            self.seconds = self.seconds.max(link.lag_seconds);
        }
        Ok(())
    }
}

fn missing(world: &mut World, typing: &Typing, readers: &[Vec<ConnId>; 2]) -> u64 {
    let mut missing = 0;
    for readers in readers {
        for (document, reader) in readers.iter().enumerate() {
            let held = world.standing(*reader).held;
            missing += world.missing(document, held, typing.edits(document));
        }
    }
    missing
}
