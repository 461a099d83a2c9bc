//! How two regions find out what each of them missed while they were cut off.

use std::time::{Duration, Instant};

use super::{LATENCY, READERS, SETUP_LIMIT, typing::Typing};
use crate::bench::Bench;
use crate::net::ConnId;
use crate::regions::{Regions, wait};
use crate::report::{Measured, short};
use crate::rows::grouped;
use crate::session::Start;
use crate::world::{Duty, World};

/// Edits of each document.
const EDITS: usize = 10;
/// Documents that are typed in, in each region, while the link is cut.
const TYPED: usize = 100;
const FILL_LIMIT: Duration = Duration::from_secs(300);
/// What a link says by itself comes later than this after it is up: the audit after 3 s.
const SAID: Duration = Duration::from_millis(1_000);

/// What the archives and the shards of both regions had done, before or after.
#[derive(Clone, Copy)]
struct Opened {
    jobs: u64,
    logs: u64,
}

pub(in crate::rows) fn measure(bench: &Bench, documents: usize) -> Result<Measured, String> {
    let regions = Regions::start(bench, &["a", "b"], LATENCY)?;
    let mut world = World::new(regions.address(0))?;
    let writers = fill(bench, &mut world, documents)?;
    let others = elsewhere(bench, &mut world, &regions, documents)?;
    wait(&mut world, "level regions", FILL_LIMIT, || regions.are_level())?;
    rest(&mut world, &regions)?;

    // Everybody goes on typing, and nothing gets through.
    regions.cut(0, 1);
    for writers in [writers.clone(), others.clone()] {
        Typing::new(writers, EDITS).run(&mut world, 1_000, TYPED)?;
    }
    rest(&mut world, &regions)?;
    let before = opened(&regions)?;
    let missed = reconnect(&mut world, &regions)?;
    wait(&mut world, "level regions", SETUP_LIMIT, || regions.are_level())?;
    let after = opened(&regions)?;
    // Nothing was missed, and nobody has a document open of which a link would have to tell: what is
    // said then is what finding out always costs.
    for id in writers.into_iter().chain(others) {
        world.close(id);
    }
    rest(&mut world, &regions)?;
    let quiet = reconnect(&mut world, &regions)?;
    let usage = regions.usage();

    let mut measured = Measured::default();
    let crdts = after.jobs - before.jobs;
    measured.result = format!("{} B of vectors, {crdts} documents opened", grouped(quiet.said));
    measured.cpu = format!("{} ms until level", short(missed.cpu.as_secs_f64() * 1e3));
    measured.memory(&usage);
    measured.remark(format!(
        "{} B with everything that opens two WebSockets and proves the key",
        grouped(quiet.wire)
    ));
    measured.remark(format!(
        "level {} ms after the link was up, with {TYPED} changes on each side",
        short(missed.level.as_secs_f64() * 1e3)
    ));
    measured.remark(format!(
        "logs of {} documents read, for those {} changes",
        after.logs - before.logs,
        2 * TYPED
    ));
    measured.number("vector_bytes", quiet.said as f64);
    measured.number("wire_bytes", quiet.wire as f64);
    measured.number("archive_jobs", crdts as f64);
    measured.number("logs_read", (after.logs - before.logs) as f64);
    measured.number("level_ms", missed.level.as_secs_f64() * 1e3);
    Ok(measured)
}

/// Brings the documents in. The typists of some of them stay.
fn fill(bench: &Bench, world: &mut World, documents: usize) -> Result<Vec<ConnId>, String> {
    const AT_ONCE: usize = 16;
    let deadline = Instant::now() + FILL_LIMIT;
    let (mut staying, mut open) = (Vec::new(), Vec::<ConnId>::new());
    let mut next = 0;
    while next < documents || !open.is_empty() {
        if Instant::now() > deadline {
            return Err(format!("{next} of {documents} documents were taken in time"));
        }
        while next < documents && open.len() < AT_ONCE {
            let typist = bench.typist(next, EDITS + 1, 1.0)?;
            let session = bench.client(&typist, next, next, Start::Typist);
            let duty = Duty::Write { to: EDITS, batch: EDITS, window: EDITS };
            let id = world.connect(session, next, duty, EDITS)?;
            if next < TYPED {
                staying.push(id);
            }
            open.push(id);
            next += 1;
        }
        world.turn(deadline)?;
        for at in (0..open.len()).rev() {
            if world.done(open[at]) {
                let id = open.swap_remove(at);
                world.stop(id);
                if !staying.contains(&id) {
                    world.close(id);
                }
            }
        }
    }
    Ok(staying)
}

/// Brings documents of its own into the second region.
fn elsewhere(
    bench: &Bench,
    world: &mut World,
    regions: &Regions,
    documents: usize,
) -> Result<Vec<ConnId>, String> {
    let mut ids = Vec::new();
    for document in documents..documents + TYPED {
        let typist = bench.typist(document, EDITS + 1, 1.0)?;
        let session = bench.client(&typist, document, READERS + document, Start::Typist);
        let duty = Duty::Write { to: EDITS, batch: EDITS, window: EDITS };
        ids.push(world.connect_to(regions.address(1), session, document, duty, EDITS)?);
    }
    if !world.run_until_all_done(Instant::now() + SETUP_LIMIT)? {
        return Err("the second region does not take its documents".to_owned());
    }
    for id in &ids {
        world.stop(*id);
    }
    Ok(ids)
}

/// Waits until both archives have verified what was typed, so that they open nothing for that.
fn rest(world: &mut World, regions: &Regions) -> Result<(), String> {
    world.run_until(Instant::now() + Duration::from_secs(3))?;
    let still = || {
        let queues = (0..2).map(|at| regions.figure(at, "tributary_archive_queue"));
        Ok(queues.sum::<Result<u64, String>>()? == 0)
    };
    wait(world, "archives at rest", FILL_LIMIT, still).map(drop)
}

fn opened(regions: &Regions) -> Result<Opened, String> {
    let both = |name: &str| (0..2).map(|at| regions.figure(at, name)).sum::<Result<u64, String>>();
    Ok(Opened {
        jobs: both("tributary_archive_job_seconds_count")?,
        logs: both("tributary_documents_loaded_total")?,
    })
}

/// What was said until the regions were level again.
struct Reconnected {
    /// Bytes of frames, both ways.
    said: u64,
    /// Bytes in all, both ways.
    wire: u64,
    /// From the link being up.
    level: Duration,
    /// Of both regions.
    cpu: Duration,
}

/// Cuts the link if it is not cut, and lets it come up again.
fn reconnect(world: &mut World, regions: &Regions) -> Result<Reconnected, String> {
    regions.cut(0, 1);
    let down = || Ok(!regions.link(0, 1)?.is_up() && !regions.link(1, 0)?.is_up());
    wait(world, "the link to be down", SETUP_LIMIT, down)?;
    let wire = || regions.wire_bytes(0, 1) + regions.wire_bytes(1, 0);
    let (said_before, wire_before) = (regions.link(0, 1)?.frame_bytes(), wire());
    let cpu_before = regions.usage().cpu;
    regions.heal(0, 1);
    let up = || Ok(regions.link(0, 1)?.is_up() && regions.link(1, 0)?.is_up());
    wait(world, "the link to be up again", SETUP_LIMIT, up)?;
    let level = wait(world, "level regions", SETUP_LIMIT, || regions.are_level())?;
    let cpu = regions.usage().cpu - cpu_before;
    world.run_until(Instant::now() + SAID)?;
    let said = regions.link(0, 1)?.frame_bytes() - said_before;
    Ok(Reconnected { said, wire: wire() - wire_before, level, cpu })
}
