//! Many documents, each with a typist who never waits for more than his window, and a reader.

use std::time::{Duration, Instant};

use crate::bench::{Bench, Upload};
use crate::report::{Measured, short};
use crate::rows::grouped;
use crate::server::{Kind, own_cpu};
use crate::session::Start;
use crate::world::{Duty, World};

/// Changes, each in a message of its own, that a typist sends ahead of the acknowledgement.
const WINDOW: usize = 64;
const SETUP_LIMIT: Duration = Duration::from_secs(60);
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

pub(super) fn measure(bench: &Bench, kind: Kind, documents: usize) -> Result<Measured, String> {
    let server = bench.fresh(kind)?;
    let mut world = World::new(server.address)?;
    let begun = 10;
    let mut writers = Vec::new();
    for document in 0..documents {
        writers.push(bench.upload(&mut world, kind, document, begun, Upload::Whole)?);
    }
    if !world.run_until_all_done(Instant::now() + SETUP_LIMIT)? {
        return Err(format!("it has not taken the documents after {} s", SETUP_LIMIT.as_secs()));
    }
    let mut readers = Vec::new();
    for document in 0..documents {
        let session = bench.session(kind, document, document, Start::Reader);
        readers.push(world.connect(session, document, Duty::Read, begun)?);
    }
    if !world.run_until_all_done(Instant::now() + SETUP_LIMIT)? {
        return Err(format!("readers have not the documents after {} s", SETUP_LIMIT.as_secs()));
    }

    let window = Duration::from_secs(bench.size(10, 3) as u64);
    let (server_before, own_before) = (server.usage(), own_cpu());
    world.measure(begun, window);
    let began = Instant::now();
    for writer in &writers {
        world.let_write(*writer, bench.edits(), 1, WINDOW);
    }
    world.run_until(began + window)?;
    let (usage, own) = (server.usage(), own_cpu());
    for writer in &writers {
        world.stop(*writer);
    }
    for (writer, reader) in writers.iter().zip(&readers) {
        let sent = world.standing(*writer).sent;
        world.aim(*writer, sent);
        world.aim(*reader, sent);
    }
    let complete = world.run_until_all_done(Instant::now() + DRAIN_LIMIT)?;
    let meter = world.measured();

    let mut measured = Measured::default();
    let per_second = meter.acked_in_window as f64 / window.as_secs_f64();
    measured.result = format!("{} acknowledged changes/s", grouped(per_second.round() as u64));
    measured.latency(&meter.latency);
    let cpu = usage.cpu - server_before.cpu;
    let each = cpu.as_secs_f64() * 1e6 / meter.acked_in_window.max(1) as f64;
    measured.cpu = format!("{} µs a change", short(each));
    measured.memory(&usage);
    let busy = (own - own_before).as_secs_f64() / window.as_secs_f64();
    measured.number("acked_per_s", per_second);
    measured.number("cpu_us_per_change", each);
    measured.number("generator_cpu_share", busy);
    measured.number("deliveries", meter.deliveries as f64);
    if busy > 0.9 {
        measured.remark(format!("the load generator used {:.0} % of a core", busy * 100.0));
    }
    if kind != Kind::Tributary {
        measured.remark("acknowledges before it is on disk");
    }
    if complete {
        let sent = world.standing(writers[0]).sent;
        bench.check(&mut world, kind, 0, sent, SETUP_LIMIT)?;
    } else {
        measured.at_least = true;
        let limit = DRAIN_LIMIT.as_secs();
        measured.remark(format!(
            "{} of {} clients were not level {limit} s after the typists stopped",
            world.waiting(),
            2 * documents
        ));
    }
    Ok(measured)
}
