//! Everybody comes back at once after a restart.

use std::time::{Duration, Instant};

use crate::bench::{Bench, Upload};
use crate::report::{Measured, short};
use crate::rows::grouped;
use crate::server::Kind;
use crate::session::Start;
use crate::world::{Duty, World};

const EDITS: usize = 1_000;
const UPLOAD_LIMIT: Duration = Duration::from_secs(120);
const OPEN_LIMIT: Duration = Duration::from_secs(90);
/// More at once would overflow the listen queue, and the kernel's retry of one second would be
/// measured instead of the server.
const CONNECTING_MAX: usize = 100;

pub(super) fn measure(
    bench: &Bench,
    kind: Kind,
    clients: usize,
    documents: usize,
) -> Result<Measured, String> {
    let server = bench.fresh(kind)?;
    let mut world = World::new(server.address)?;
    let upload = if kind.is_yjs() { Upload::Whole } else { Upload::Typed };
    let deadline = Instant::now() + UPLOAD_LIMIT;
    let done = bench.upload_all(&mut world, kind, documents, EDITS, upload, deadline)?;
    if done < documents {
        return Err(format!("{done} of {documents} documents in {} s", UPLOAD_LIMIT.as_secs()));
    }
    // Those that write later than they acknowledge are given the time to.
    world.run_until(Instant::now() + Duration::from_secs(3))?;
    drop(world);
    bench.stop(server)?;

    let server = bench.restart(kind, OPEN_LIMIT)?;
    let mut world = World::new(server.address)?;
    let (before, began) = (server.usage(), Instant::now());
    let deadline = began + OPEN_LIMIT;
    let mut started = 0;
    while started < clients || world.waiting() > 0 {
        if Instant::now() > deadline {
            break;
        }
        while started < clients && world.connecting() < CONNECTING_MAX {
            let document = started % documents;
            let session = bench.session(kind, document, started, Start::Reader);
            world.connect(session, document, Duty::Read, EDITS)?;
            started += 1;
        }
        world.turn(deadline)?;
    }
    let (took, usage) = (began.elapsed(), server.usage());
    let opened = world.opens().total();
    if opened == 0 {
        return Err(format!("nobody had a document after {} s", OPEN_LIMIT.as_secs()));
    }

    let mut measured = Measured::default();
    let per_second = opened as f64 / took.as_secs_f64();
    measured.result = format!("{} opens/s", grouped(per_second.round() as u64));
    measured.latency(world.opens());
    let cpu = (usage.cpu - before.cpu).as_secs_f64();
    measured.cpu = format!("{} ms an open", short(cpu * 1e3 / opened as f64));
    measured.memory(&usage);
    measured.number("opens_per_s", per_second);
    measured.number("seconds", took.as_secs_f64());
    measured.number("cpu_ms_per_open", cpu * 1e3 / opened as f64);
    if (opened as usize) < clients {
        measured.at_least = true;
        measured.remark(format!("{opened} of {clients} in {} s", OPEN_LIMIT.as_secs()));
    } else {
        bench.check(&mut world, kind, 0, EDITS, OPEN_LIMIT)?;
    }
    Ok(measured)
}
