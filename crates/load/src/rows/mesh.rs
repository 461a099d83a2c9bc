//! Several regions: what a link between them costs, in time and in bytes.
//!
//! Every typist types something else here ([`Bench::typist`]): what one has typed says nothing about
//! what another will, so that a link saves no bytes that it would not save with people.

mod audit;
mod catch_up;
mod discovery;
mod egress;
mod keystroke;
mod three;
mod typing;

pub(super) use audit::measure as audit;
pub(super) use catch_up::measure as catch_up;
pub(super) use discovery::measure as discovery;
pub(super) use egress::{Work as Egress, measure as egress, measure_stock as egress_of_stock};
pub(super) use keystroke::measure as keystroke;
pub(super) use three::measure as three;

use std::time::{Duration, Instant};

use crate::bench::{Bench, Typist};
use crate::session::Start;
use crate::world::{Duty, World};

/// One way between any two regions.
pub(super) const LATENCY: Duration = Duration::from_millis(70);
/// For documents to get in, and for readers to have them.
const SETUP_LIMIT: Duration = Duration::from_secs(60);
/// For what is still on its way when typists stop.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);
/// Readers are numbered from here on, apart from typists.
const READERS: usize = 500_000;

/// Lets a real client, with the real library, download a document from a region, and compares its
/// text with what was typed.
fn check(
    bench: &Bench,
    world: &mut World,
    server: std::net::SocketAddr,
    typist: &Typist,
    document: usize,
    length: usize,
) -> Result<(), String> {
    let session = bench.client(typist, document, 999_999, Start::Checker);
    let id = world.connect_to(server, session, document, Duty::Read, length)?;
    if !world.run_until_all_done(Instant::now() + SETUP_LIMIT)? {
        let held = world.standing(id).held;
        return Err(format!("a real client had {held} of {length} edits of a document"));
    }
    world.check(id, &typist.script.text(length)?)?;
    world.close(id);
    Ok(())
}
