//! What a region sends to another for each change, while people type; and what a stock server sends
//! to a stock client for the same changes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use wan::{LinkHandle, Stats};

use super::{DRAIN_LIMIT, LATENCY, READERS, SETUP_LIMIT, check, typing::Typing};
use crate::bench::{Bench, Typist};
use crate::net::ConnId;
use crate::regions::{Network, Regions, wait};
use crate::report::{Measured, short};
use crate::rows::grouped;
use crate::server::{Kind, own_cpu};
use crate::session::Start;
use crate::world::{Duty, World};

/// Edits of each document before the clock starts.
const BEGUN: usize = 20;

/// Documents, each with a typist, and a reader whose way goes through the network.
struct Scene {
    typists: Vec<Typist>,
    typing: Typing,
    readers: Vec<ConnId>,
    front: LinkHandle,
}

impl Scene {
    /// Brings the documents in and opens them.
    fn start(
        bench: &Bench,
        world: &mut World,
        network: &Network,
        server: SocketAddr,
        work: &Work,
    ) -> Result<Self, String> {
        let mut typists = Vec::new();
        let mut writers = Vec::new();
        let each = BEGUN + (work.warm_up() + work.count()) / work.documents + 1;
        let per_second = work.rate as f64 / work.documents as f64;
        for document in 0..work.documents {
            let typist = bench.typist(document, each, per_second)?;
            let session = bench.client(&typist, document, document, Start::Typist);
            let duty = Duty::Write { to: BEGUN, batch: BEGUN, window: BEGUN };
            writers.push(world.connect(session, document, duty, BEGUN)?);
            typists.push(typist);
        }
        if !world.run_until_all_done(Instant::now() + SETUP_LIMIT)? {
            let limit = SETUP_LIMIT.as_secs();
            return Err(format!("it has not taken the documents after {limit} s"));
        }
        let front = network.link("readers", server, Duration::ZERO)?;
        let mut readers = Vec::new();
        for (document, typist) in typists.iter().enumerate() {
            world.stop(writers[document]);
            let session = bench.client(typist, document, READERS + document, Start::Reader);
            let way = front.listen();
            readers.push(world.connect_to(way, session, document, Duty::Read, BEGUN)?);
        }
        if !world.run_until_all_done(Instant::now() + SETUP_LIMIT)? {
            return Err(format!(
                "{} of {} readers have not their documents",
                world.waiting(),
                work.documents
            ));
        }
        Ok(Self { typists, typing: Typing::new(writers, BEGUN), readers, front })
    }

    /// Types at the row's rate, and waits until all of it is read.
    fn type_for(&mut self, world: &mut World, rate: usize, count: usize) -> Result<(), String> {
        self.typing.run(world, rate, count)?;
        self.typing.aim(world, &self.readers);
        match world.run_until_all_done(Instant::now() + DRAIN_LIMIT)? {
            true => Ok(()),
            false => Err(format!(
                "{} readers were not level {} s after the typists stopped",
                world.waiting(),
                DRAIN_LIMIT.as_secs()
            )),
        }
    }

    /// Bytes a change to readers, and from them.
    fn session_bytes(&self, before: &Stats, count: usize) -> (f64, f64) {
        let now = self.front.stats();
        let to = now.back.taken_bytes - before.back.taken_bytes;
        let from = now.there.taken_bytes - before.there.taken_bytes;
        (to as f64 / count as f64, from as f64 / count as f64)
    }
}

/// What is typed.
#[derive(Clone, Copy)]
pub(in crate::rows) struct Work {
    /// In how many documents, in turns.
    pub documents: usize,
    /// Changes a second, in all.
    pub rate: usize,
    /// For how long.
    pub seconds: usize,
}

impl Work {
    fn count(&self) -> usize {
        self.rate * self.seconds
    }

    /// Every document has its turn, and a second passes.
    fn warm_up(&self) -> usize {
        self.rate.max(self.documents)
    }
}

pub(in crate::rows) fn measure(bench: &Bench, work: Work) -> Result<Measured, String> {
    let regions = Regions::start(bench, &["a", "b"], LATENCY)?;
    let mut world = World::new(regions.address(0))?;
    let server = regions.address(0);
    let mut scene = Scene::start(bench, &mut world, regions.network(), server, &work)?;
    scene.type_for(&mut world, work.rate, work.warm_up())?;
    wait(&mut world, "level regions", DRAIN_LIMIT, || regions.are_level())?;

    let count = work.count();
    let wire = || (regions.wire_bytes(0, 1), regions.wire_bytes(1, 0));
    let (link_before, wire_before) = (regions.link(0, 1)?, wire());
    let (front_before, usage_before, own_before) =
        (scene.front.stats(), regions.usage(), own_cpu());
    let began = Instant::now();
    scene.type_for(&mut world, work.rate, count)?;
    let busy = (own_cpu() - own_before).as_secs_f64() / began.elapsed().as_secs_f64();
    wait(&mut world, "level regions", DRAIN_LIMIT, || regions.are_level())?;
    let (wire_after, usage, link) = (wire(), regions.usage(), regions.link(0, 1)?);

    let mut measured = Measured::default();
    let per_change = |bytes: u64| bytes as f64 / count as f64;
    let there = per_change(wire_after.0 - wire_before.0);
    let back = per_change(wire_after.1 - wire_before.1);
    let raw = per_change(link.raw_bytes_out - link_before.raw_bytes_out);
    let coded = per_change(link.coded_bytes_out - link_before.coded_bytes_out);
    let (to, from) = scene.session_bytes(&front_before, count);
    measured.result = format!("{} B a change", short(there));
    let each = (usage.cpu - usage_before.cpu).as_secs_f64() * 1e6 / count as f64;
    measured.cpu = format!("{} µs a change, both regions", short(each));
    measured.memory(&usage);
    measured.remark(format!(
        "{} B of these are the changes themselves, which have {} B; {} B a change come back \
         (acknowledgements, credit, heartbeats)",
        short(coded),
        short(raw),
        short(back)
    ));
    measured.remark(format!(
        "a client's session gets {} B for each of the same changes, and sends {} B",
        short(to),
        short(from)
    ));
    measured.number("bytes_per_change", there);
    measured.number("coded_bytes_per_change", coded);
    measured.number("raw_bytes_per_change", raw);
    measured.number("bytes_back_per_change", back);
    measured.number("session_bytes_out_per_change", to);
    measured.number("session_bytes_in_per_change", from);
    measured.number("entries", (link.entries_out - link_before.entries_out) as f64);
    measured.number("generator_cpu_share", busy);
    let sent = link.entries_out - link_before.entries_out;
    if sent != count as u64 {
        measured.remark(format!(
            "{} entries were sent for {} changes",
            grouped(sent),
            grouped(count as u64)
        ));
    }
    let last = work.documents - 1;
    let length = scene.typing.edits(last);
    check(bench, &mut world, regions.address(1), &scene.typists[last], last, length)?;
    Ok(measured)
}

/// What a stock server sends to a stock client. Two stock servers that are connected with each other
/// speak the same protocol.
pub(in crate::rows) fn measure_stock(
    bench: &Bench,
    kind: Kind,
    work: Work,
) -> Result<Measured, String> {
    let server = bench.fresh(kind)?;
    let network = Network::new()?;
    let mut world = World::new(server.address)?;
    let mut scene = Scene::start(bench, &mut world, &network, server.address, &work)?;
    scene.type_for(&mut world, work.rate, work.warm_up())?;
    let (before, usage_before) = (scene.front.stats(), server.usage());
    scene.type_for(&mut world, work.rate, work.count())?;
    let usage = server.usage();
    let (to, from) = scene.session_bytes(&before, work.count());

    let result = format!("{} B a change", short(to));
    let mut measured = Measured { result, ..Measured::default() };
    let each = (usage.cpu - usage_before.cpu).as_secs_f64() * 1e6 / work.count() as f64;
    measured.cpu = format!("{} µs a change", short(each));
    measured.memory(&usage);
    measured.remark(format!("to a client, which sends {} B for each", short(from)));
    measured.number("session_bytes_out_per_change", to);
    measured.number("session_bytes_in_per_change", from);
    Ok(measured)
}
