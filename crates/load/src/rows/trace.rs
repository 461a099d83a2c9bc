//! A long document: what it takes on disk, and to fetch.

use std::time::{Duration, Instant};

use crate::bench::{Bench, Upload};
use crate::histogram::Histogram;
use crate::report::{Measured, short};
use crate::rows::grouped;
use crate::server::{Kind, Server, disk_bytes};
use crate::session::Start;
use crate::world::{Duty, World};

const UPLOAD_LIMIT: Duration = Duration::from_secs(240);
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(60);
/// A store that has not changed in size for so long has been compacted, and has given back what it will.
const STILL: Duration = Duration::from_secs(40);
const STILL_LIMIT: Duration = Duration::from_secs(240);
const DOWNLOADS: usize = 10;

pub(super) fn measure(bench: &Bench, kind: Kind, edits: usize) -> Result<Measured, String> {
    let server = bench.fresh(kind)?;
    let mut world = World::new(server.address)?;
    let began = Instant::now();
    let writer = bench.upload(&mut world, kind, 0, edits, Upload::Typed)?;
    let uploaded = world.run_until_all_done(began + UPLOAD_LIMIT)?;
    let took = began.elapsed();
    if !uploaded {
        return Err(format!(
            "{} of {} edits in {} s",
            grouped(world.standing(writer).acked as u64),
            grouped(edits as u64),
            UPLOAD_LIMIT.as_secs()
        ));
    }
    world.close(writer);
    let uploading = server.usage();
    let disk = still_disk(bench, kind, &mut world)?;
    let compacted = server.usage();

    let mut downloads = Histogram::new();
    for number in 0..DOWNLOADS {
        let session = bench.session(kind, 0, number, Start::Reader);
        let began = Instant::now();
        let reader = world.connect(session, 0, Duty::Read, edits)?;
        if !world.run_until_all_done(began + DOWNLOAD_LIMIT)? {
            let limit = DOWNLOAD_LIMIT.as_secs();
            return Err(format!("a client has not the document after {limit} s"));
        }
        downloads.record(began.elapsed());
        world.close(reader);
    }
    let usage = server.usage();
    bench.check(&mut world, kind, 0, edits, DOWNLOAD_LIMIT)?;

    let mut measured = Measured::default();
    let millis = downloads.quantile(0.5).as_secs_f64() * 1e3;
    measured.result = format!("downloaded in {} ms", short(millis));
    measured.latency(&downloads);
    let cpu = (usage.cpu - compacted.cpu).as_secs_f64() * 1e3 / DOWNLOADS as f64;
    measured.cpu = format!("{} ms a download", short(cpu));
    measured.memory(&usage);
    let file = bench.whole(kind, edits)?.len() as f64;
    measured.remark(format!(
        "{} MB on disk, {} times the saved file",
        short(disk as f64 / 1e6),
        short(disk as f64 / file)
    ));
    let beyond = (disk as f64 - 2.0 * file) / edits as f64;
    if !kind.is_yjs() {
        measured.remark(format!("{beyond:.0} B a change beyond 2 files"));
    }
    if kind == Kind::Tributary {
        drop(world);
        let disk = after_retention(bench, kind, server, edits)?;
        let beyond = (disk as f64 - 2.0 * file) / edits as f64;
        // What a store has once, however many documents are in it, is told apart.
        let document = disk_bytes(&bench.data(kind).join("values"));
        measured.remark(format!(
            "{} MB without retention, {beyond:.0} B a change beyond 2 files; {} MB of it are the document's \
             own, {:.0} B a change beyond 2 files, and the rest sled's file, of which a store has one",
            short(disk as f64 / 1e6),
            short(document as f64 / 1e6),
            (document as f64 - 2.0 * file) / edits as f64,
        ));
        measured.number("disk_bytes_of_large_values", document as f64);
        measured.number("disk_bytes_without_retention", disk as f64);
        measured.number("bytes_per_change_beyond_two_files_without_retention", beyond);
    }
    let rate = grouped((edits as f64 / took.as_secs_f64()).round() as u64);
    measured.remark(format!("took {rate} changes/s in"));
    measured.number("download_ms", millis);
    measured.number("cpu_ms_per_download", cpu);
    measured.number("disk_bytes", disk as f64);
    measured.number("saved_file_bytes", file);
    measured.number("bytes_per_change_beyond_two_files", beyond);
    measured.number("uploaded_per_s", edits as f64 / took.as_secs_f64());
    measured.number("upload_cpu_s", uploading.cpu.as_secs_f64());
    measured.number("compaction_cpu_s", (compacted.cpu - uploading.cpu).as_secs_f64());
    Ok(measured)
}

/// What stays on disk when the changes behind the snapshot are no longer kept one by one.
fn after_retention(bench: &Bench, kind: Kind, server: Server, edits: usize) -> Result<u64, String> {
    bench.stop(server)?;
    let settings = [("TRIBUTARY_RETENTION__HOURS", "0"), ("TRIBUTARY_RETENTION__KIB", "0")];
    let server = bench.restart_with(kind, &settings, DOWNLOAD_LIMIT)?;
    let mut world = World::new(server.address)?;
    let session = bench.session(kind, 0, 0, Start::Reader);
    let reader = world.connect(session, 0, Duty::Read, edits)?;
    if !world.run_until_all_done(Instant::now() + DOWNLOAD_LIMIT)? {
        return Err("the document does not come after a restart".to_owned());
    }
    world.close(reader);
    let disk = still_disk(bench, kind, &mut world)?;
    bench.check(&mut world, kind, 0, edits, DOWNLOAD_LIMIT)?;
    bench.stop(server)?;
    Ok(disk)
}

/// Waits until the server has put the document into the form in which it will stay.
fn still_disk(bench: &Bench, kind: Kind, world: &mut World) -> Result<u64, String> {
    let deadline = Instant::now() + STILL_LIMIT;
    let (mut size, mut since) = (disk_bytes(&bench.data(kind)), Instant::now());
    while since.elapsed() < STILL && Instant::now() < deadline {
        world.run_until(Instant::now() + Duration::from_millis(500))?;
        let now = disk_bytes(&bench.data(kind));
        if now != size {
            (size, since) = (now, Instant::now());
        }
    }
    Ok(size)
}
