//! Sessions that do nothing: what each costs in memory.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::bench::{Bench, Upload};
use crate::net::ConnId;
use crate::report::{Measured, short};
use crate::server::Kind;
use crate::session::Start;
use crate::world::{Duty, World};

const DOCUMENTS: usize = 100;
const EDITS: usize = 10;
const LIMIT: Duration = Duration::from_secs(120);
const CONNECTING_MAX: usize = 100;
/// The kernel has some 28,000 ports for each source address.
const SESSIONS_PER_ADDRESS: usize = 4_000;
/// For the server to come to rest: keep-alives included, which some send every five seconds.
const REST: Duration = Duration::from_secs(6);

pub(super) fn measure(bench: &Bench, kind: Kind, sessions: usize) -> Result<Measured, String> {
    let server = bench.fresh(kind)?;
    let mut world = World::new(server.address)?;
    let deadline = Instant::now() + LIMIT;
    let done = bench.upload_all(&mut world, kind, DOCUMENTS, EDITS, Upload::Whole, deadline)?;
    if done < DOCUMENTS {
        return Err(format!("{done} of {DOCUMENTS} documents in {} s", LIMIT.as_secs()));
    }
    // One reader of each document first, so that the documents themselves are not counted.
    open(bench, &mut world, kind, 0..DOCUMENTS)?;
    world.run_until(Instant::now() + REST)?;
    let before = server.usage();

    open(bench, &mut world, kind, DOCUMENTS..DOCUMENTS + sessions)?;
    world.run_until(Instant::now() + REST)?;
    let rested = server.usage();
    world.run_until(Instant::now() + REST)?;
    let after = server.usage();

    let mut measured = Measured::default();
    let kilobytes = after.rss.saturating_sub(before.rss) as f64 / 1e3 / sessions as f64;
    measured.result = format!("{} KB a session", short(kilobytes));
    let share = (after.cpu - rested.cpu).as_secs_f64() / REST.as_secs_f64();
    measured.cpu = format!("{} % of a core at rest", short(share * 100.0));
    measured.memory(&after);
    measured.number("kb_per_session", kilobytes);
    measured.number("rss_before_bytes", before.rss as f64);
    measured.number("idle_cpu_share", share);
    Ok(measured)
}

fn open(
    bench: &Bench,
    world: &mut World,
    kind: Kind,
    clients: std::ops::Range<usize>,
) -> Result<Vec<ConnId>, String> {
    let deadline = Instant::now() + LIMIT;
    let count = clients.len();
    let mut ids = Vec::with_capacity(count);
    for client in clients {
        while world.connecting() >= CONNECTING_MAX && Instant::now() < deadline {
            world.turn(deadline)?;
        }
        let from = Ipv4Addr::new(127, 0, 0, 2 + (client / SESSIONS_PER_ADDRESS) as u8);
        let document = client % DOCUMENTS;
        let session = bench.session(kind, document, client, Start::Reader);
        ids.push(world.connect_from(from, session, document, Duty::Read, Some(EDITS))?);
    }
    match world.run_until_all_done(deadline)? {
        true => Ok(ids),
        false => Err(format!(
            "{} of {count} sessions had not opened their documents after {} s",
            world.waiting(),
            LIMIT.as_secs()
        )),
    }
}
