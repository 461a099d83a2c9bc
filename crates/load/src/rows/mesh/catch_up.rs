//! A region that was cut off gets what it missed, while people go on typing.

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

/// Keystrokes a second of the one who goes on typing.
const RATE: usize = 20;
const BEGUN: usize = 100;
const MISSED_LIMIT: Duration = Duration::from_secs(900);
/// For the archive to be done with what was typed.
const REST_LIMIT: Duration = Duration::from_secs(900);
const CATCH_UP_LIMIT: Duration = Duration::from_secs(300);
/// Documents of which a real client compares the text afterwards.
const CHECKED: usize = 5;

pub(in crate::rows) fn measure(
    bench: &Bench,
    documents: usize,
    edits: usize,
) -> Result<Measured, String> {
    let regions = Regions::start(bench, &["a", "b"], LATENCY)?;
    let mut world = World::new(regions.address(0))?;
    let usual_seconds = bench.size(20, 4);
    let longest = BEGUN + RATE * (usual_seconds + 1 + CATCH_UP_LIMIT.as_secs() as usize);
    let mut live = Live::start(bench, &mut world, &regions, documents, longest)?;
    live.typing.run(&mut world, RATE, RATE)?;
    world.measure(live.typing.edits(0), Duration::ZERO);
    live.typing.run(&mut world, RATE, RATE * usual_seconds)?;
    live.drain(&mut world)?;
    let usual = world.measured().latency;

    regions.cut(0, 1);
    let typing_took = miss(bench, &mut world, documents, edits)?;
    let rested = rest(&mut world, &regions)?;

    let before = regions.link(0, 1)?;
    let (wire_before, usage_before, own_before) =
        (regions.wire_bytes(0, 1), regions.usage(), own_cpu());
    let watch = regions.watch(Duration::from_millis(20));
    regions.heal(0, 1);
    let (mut up, mut level) = (None, None);
    let goal = before.entries_out + (documents * edits) as u64;
    let deadline = Instant::now() + CATCH_UP_LIMIT;
    // Nobody types before the link is up: how long it is until that is tried again is not the matter.
    while up.is_none() {
        if Instant::now() > deadline {
            return Err("the link does not come up again".to_owned());
        }
        look(&watch, goal, &mut up, &mut level)?;
        world.run_until(Instant::now() + Duration::from_millis(1))?;
    }
    world.measure(live.typing.edits(0), Duration::ZERO);
    live.typing.run_while(&mut world, RATE, |_| {
        look(&watch, goal, &mut up, &mut level)?;
        if Instant::now() > deadline {
            let limit = CATCH_UP_LIMIT.as_secs();
            return Err(format!("the other region has not everything after {limit} s"));
        }
        Ok(level.is_none())
    })?;
    let (usage, own, wire) = (regions.usage(), own_cpu(), regions.wire_bytes(0, 1));
    live.drain(&mut world)?;
    let meanwhile = world.measured().latency;
    let took = level.zip(up).map(|(level, up)| level - up).unwrap_or_default();

    let missed = (documents * edits) as f64;
    let mut measured = Measured::default();
    let per_second = missed / took.as_secs_f64();
    measured.result = format!("{} changes/s", grouped(per_second.round() as u64));
    measured.latency(&meanwhile);
    let cpu = (usage.cpu - usage_before.cpu).as_secs_f64() * 1e6 / missed;
    measured.cpu = format!("{} µs a change, both regions", short(cpu));
    measured.memory(&usage);
    let millis = |quantile: f64| usual.quantile(quantile).as_secs_f64() * 1e3;
    measured.remark(format!(
        "the latencies are those of live keystrokes meanwhile; usually p50 {} ms, p99 {} ms",
        short(millis(0.5)),
        short(millis(0.99))
    ));
    measured.remark(format!("{} s from the link being up", short(took.as_secs_f64())));
    let bytes = (wire - wire_before) as f64 / missed;
    measured.remark(format!("{} B a change on the link", short(bytes)));
    measured.number("changes_per_s", per_second);
    measured.number("seconds", took.as_secs_f64());
    measured.number("bytes_per_change", bytes);
    measured.number("cpu_us_per_change", cpu);
    measured.number("usual_p50_ms", millis(0.5));
    measured.number("usual_p99_ms", millis(0.99));
    measured.number("generator_cpu_share", (own - own_before).as_secs_f64() / took.as_secs_f64());
    measured.number("typing_s", typing_took.as_secs_f64());
    measured.number("rested_s", rested.as_secs_f64());
    for number in 0..CHECKED {
        let document = number * (documents - 1) / (CHECKED - 1);
        let typist = bench.typist(document, edits, RATE as f64)?;
        check(bench, &mut world, regions.address(1), &typist, document, edits)?;
    }
    Ok(measured)
}

/// A document that somebody types in here and somebody reads there.
struct Live {
    typing: Typing,
    reader: ConnId,
}

impl Live {
    fn start(
        bench: &Bench,
        world: &mut World,
        regions: &Regions,
        document: usize,
        longest: usize,
    ) -> Result<Self, String> {
        let typist = bench.typist(document, longest, RATE as f64)?;
        let session = bench.client(&typist, document, document, Start::Typist);
        let duty = Duty::Write { to: BEGUN, batch: BEGUN, window: BEGUN };
        let writer = world.connect(session, document, duty, BEGUN)?;
        let session = bench.client(&typist, document, READERS + document, Start::Reader);
        let reader = world.connect_to(regions.address(1), session, document, Duty::Read, BEGUN)?;
        if !world.run_until_all_done(Instant::now() + SETUP_LIMIT)? {
            return Err("the other region does not serve a document".to_owned());
        }
        world.stop(writer);
        Ok(Self { typing: Typing::new(vec![writer], BEGUN), reader })
    }

    /// Waits until all that was typed is read.
    fn drain(&self, world: &mut World) -> Result<(), String> {
        self.typing.aim(world, &[self.reader]);
        match world.run_until_all_done(Instant::now() + DRAIN_LIMIT)? {
            true => Ok(()),
            false => Err("live keystrokes do not arrive".to_owned()),
        }
    }
}

/// Types what the other region misses: every document its own text, which is made when its turn
/// comes. Returns how long that took.
fn miss(
    bench: &Bench,
    world: &mut World,
    documents: usize,
    edits: usize,
) -> Result<Duration, String> {
    const AT_ONCE: usize = 16;
    let began = Instant::now();
    let deadline = began + MISSED_LIMIT;
    let mut open: Vec<ConnId> = Vec::new();
    let (mut next, mut done) = (0, 0);
    while done < documents {
        if Instant::now() > deadline {
            return Err(format!("{done} of {documents} documents were taken in time"));
        }
        while next < documents && open.len() < AT_ONCE {
            let typist: Typist = bench.typist(next, edits, RATE as f64)?;
            let session = bench.client(&typist, next, next, Start::Typist);
            let duty = Duty::Write { to: edits, batch: edits, window: edits };
            open.push(world.connect(session, next, duty, edits)?);
            next += 1;
        }
        world.turn(deadline)?;
        for at in (0..open.len()).rev() {
            if world.done(open[at]) {
                world.close(open.swap_remove(at));
                done += 1;
            }
        }
    }
    Ok(began.elapsed())
}

/// Waits until the archive of the region has verified what was typed: it does that in the background
/// with what the processors have left, and would be measured, too.
fn rest(world: &mut World, regions: &Regions) -> Result<Duration, String> {
    // What was typed last is verified when it has been quiet for two seconds.
    world.run_until(Instant::now() + Duration::from_secs(3))?;
    wait(world, "an archive at rest", REST_LIMIT, || {
        Ok(regions.figure(0, "tributary_archive_queue")? == 0)
    })
}

/// When the link came up, and when everything that was missed was known to be durable there.
fn look(
    watch: &Watch,
    goal: u64,
    up: &mut Option<Instant>,
    level: &mut Option<Instant>,
) -> Result<(), String> {
    for sample in watch.heard()?.iter().filter(|sample| sample.at == 0) {
        let Some(link) = sample.links.first() else { continue };
        if link.is_up() {
            up.get_or_insert(sample.when);
            // A keystroke is always on its way.
            if link.entries_out >= goal && link.lag_changes < 2 * RATE as u64 {
                level.get_or_insert(sample.when);
            }
        }
    }
    Ok(())
}
