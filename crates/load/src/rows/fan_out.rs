//! One typist, many readers of one document, at a fixed rate.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::bench::{Bench, Upload};
use crate::histogram::Histogram;
use crate::net::ConnId;
use crate::report::{Measured, short};
use crate::rows::grouped;
use crate::server::{Kind, own_cpu};
use crate::session::Start;
use crate::world::{Duty, World};

/// For the document to get in and for all readers to have it.
const SETUP_LIMIT: Duration = Duration::from_secs(150);
/// For what is still on its way when the typist stops.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// Starts something beside the typing, on a server, and gives what ends it and tells of it.
pub(super) type Beside = fn(SocketAddr) -> Result<End, String>;
pub(super) type End = Box<dyn FnOnce() -> Result<String, String>>;

/// How much is typed, and for whom.
#[derive(Clone, Copy)]
pub(super) struct FanOut {
    /// Of the document, before anything is measured.
    pub edits: usize,
    /// Who subscribe.
    pub readers: usize,
    /// Changes a second.
    pub rate: usize,
}

/// `beside` starts what else the server is asked meanwhile; when the typist has stopped it is told
/// so, and says what that was.
pub(super) fn measure(
    bench: &Bench,
    kind: Kind,
    FanOut { edits, readers, rate }: FanOut,
    beside: Option<Beside>,
) -> Result<Measured, String> {
    let server = bench.fresh(kind)?;
    let mut world = World::new(server.address)?;
    // A long document comes in whole: the row measures typing in it, not how it came to be.
    let upload = if edits > 10_000 || kind.is_yjs() { Upload::Whole } else { Upload::Typed };
    let writer = bench.upload(&mut world, kind, 0, edits, upload)?;
    if !world.run_until_all_done(Instant::now() + SETUP_LIMIT)? {
        return Err(format!("it has not taken the document after {} s", SETUP_LIMIT.as_secs()));
    }
    let mut ids = Vec::new();
    for number in 0..readers {
        let session = bench.session(kind, 0, number, Start::Reader);
        ids.push(world.connect(session, 0, Duty::Read, edits)?);
    }
    if !world.run_until_all_done(Instant::now() + SETUP_LIMIT)? {
        return Err(format!(
            "{} of {readers} readers have not the document after {} s",
            world.waiting(),
            SETUP_LIMIT.as_secs()
        ));
    }
    world.run_until(Instant::now() + Duration::from_millis(500))?;

    let beside = beside.map(|start| start(server.address)).transpose()?;
    let (warm_up, seconds) = (rate, bench.size(10, 3));
    let mut lateness = Histogram::new();
    let under_load = |why: String| format!("under load: {why}");
    type_at(&mut world, writer, edits, warm_up, rate, &mut lateness).map_err(under_load)?;
    let first = edits + warm_up;
    let total = first + rate * seconds;
    let window = Duration::from_secs(seconds as u64);
    world.measure(first, window);
    let (server_before, own_before, began) = (server.usage(), own_cpu(), Instant::now());
    lateness = Histogram::new();
    type_at(&mut world, writer, first, rate * seconds, rate, &mut lateness).map_err(under_load)?;
    let own = own_cpu() - own_before;
    let busy = own.as_secs_f64() / began.elapsed().as_secs_f64();
    for id in &ids {
        world.aim(*id, total);
    }
    let complete = world.run_until_all_done(Instant::now() + DRAIN_LIMIT).map_err(under_load)?;
    let usage = server.usage();
    let beside = beside.map(|end| end()).transpose()?;
    let mut missing = 0;
    for id in &ids {
        let held = world.standing(*id).held;
        missing += world.missing(0, held, total);
    }
    let meter = world.measured();

    let mut measured = Measured::default();
    let per_second = meter.deliveries_in_window as f64 / window.as_secs_f64();
    measured.result = format!("{} deliveries/s", grouped(per_second.round() as u64));
    measured.latency(&meter.latency);
    let cpu = usage.cpu - server_before.cpu;
    let each = cpu.as_secs_f64() * 1e6 / meter.deliveries.max(1) as f64;
    measured.cpu = format!("{} µs a delivery", short(each));
    measured.memory(&usage);
    measured.number("deliveries_per_s", per_second);
    measured.number("deliveries", meter.deliveries as f64);
    measured.number("missing", missing as f64);
    measured.number("cpu_us_per_delivery", each);
    measured.number("server_cpu_s", cpu.as_secs_f64());
    measured.number("generator_cpu_share", busy);
    measured.number("writer_late_p99_ms", lateness.quantile(0.99).as_secs_f64() * 1e3);
    if let Some(beside) = beside {
        measured.remark(beside);
    }
    if busy > 0.9 {
        measured.remark(format!("the load generator used {:.0} % of a core", busy * 100.0));
    }
    if missing > 0 {
        measured.at_least = true;
        let all = (meter.deliveries + missing) as f64;
        let share = missing as f64 * 100.0 / all;
        let limit = DRAIN_LIMIT.as_secs();
        measured.remark(format!("{share:.0} % not delivered {limit} s after the typist stopped"));
    }
    if complete {
        bench.check(&mut world, kind, 0, total, SETUP_LIMIT)?;
    }
    Ok(measured)
}

/// Types `count` changes from edit `from` on, each at its time.
fn type_at(
    world: &mut World,
    writer: ConnId,
    from: usize,
    count: usize,
    rate: usize,
    lateness: &mut Histogram,
) -> Result<(), String> {
    let began = Instant::now();
    let due = |number: usize| began + Duration::from_secs_f64(number as f64 / rate as f64);
    let mut typed = 0;
    while typed < count {
        let now = Instant::now();
        while typed < count && due(typed) <= now {
            lateness.record(now - due(typed));
            typed += 1;
            world.write(writer, from + typed);
        }
        world.turn(due(typed))?;
    }
    world.run_until(due(count))
}
