//! A server with many documents that nobody has open: how it starts and what it takes.

use std::time::{Duration, Instant};

use crate::bench::{Bench, Upload};
use crate::report::{Measured, short};
use crate::rows::grouped;
use crate::server::{Kind, disk_bytes};
use crate::world::World;

const EDITS: usize = 1_000;
const START_LIMIT: Duration = Duration::from_secs(120);

pub(super) fn measure(bench: &Bench, kind: Kind, documents: usize) -> Result<Measured, String> {
    let limit = Duration::from_secs(bench.size(300, 60) as u64);
    let server = bench.fresh(kind)?;
    let mut world = World::new(server.address)?;
    let began = Instant::now();
    let done =
        bench.upload_all(&mut world, kind, documents, EDITS, Upload::Whole, began + limit)?;
    let took = began.elapsed();
    if done == 0 {
        return Err(format!("no document in {} s", limit.as_secs()));
    }
    world.run_until(Instant::now() + Duration::from_secs(5))?;
    let filled = server.usage();
    drop(world);
    bench.stop(server)?;

    let server = bench.restart(kind, START_LIMIT)?;
    let mut world = World::new(server.address)?;
    world.run_until(Instant::now() + Duration::from_secs(2))?;
    let usage = server.usage();
    let disk = disk_bytes(&bench.data(kind));
    // The last one is there after all that.
    bench.check(&mut world, kind, done - 1, EDITS, START_LIMIT)?;

    let mut measured = Measured::default();
    let start = server.start_time.as_secs_f64() * 1e3;
    measured.result = format!("listens after {} ms", short(start));
    measured.cpu = format!("{} s until at rest", short(usage.cpu.as_secs_f64()));
    measured.memory(&usage);
    measured.number("start_ms", start);
    measured.number("rss_after_upload_bytes", filled.rss as f64);
    measured.number("disk_bytes", disk as f64);
    measured.number("uploads_per_s", done as f64 / took.as_secs_f64());
    measured.remark(format!("{} MB on disk", short(disk as f64 / 1e6)));
    let rate = grouped((done as f64 / took.as_secs_f64()).round() as u64);
    measured.remark(format!("took {rate} documents/s in"));
    measured.remark(format!("{} MB RSS after that", short(filled.rss as f64 / 1e6)));
    if done < documents {
        measured.remark(format!("only {done} documents in {} s", limit.as_secs()));
    }
    Ok(measured)
}
