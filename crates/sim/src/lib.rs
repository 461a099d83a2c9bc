//! The world in one thread: nodes, their disks, a network, clients, faults, and laws that hold.
//!
//! The code of a node is the code that runs in production ([`node::Shard`], [`node::Lobby`]); around
//! it stand a virtual clock, a disk that can be crashed, connections that break, clients that
//! behave as automerge-repo does (with the real `automerge` inside), and peers that do not. There is
//! one region, or three to seven of them with links between. One number is a run: [`run`] with the
//! same seed does the same things in the same order.
//!
//! What must hold is judged from outside, see [`Law`]. `docs/testing.md` says how to replay a seed.

mod client;
mod edits;
mod ending;
mod faults;
mod hostile;
mod judge;
mod network;
mod node_host;
mod plan;
mod planted;
mod regions;
mod rng;
mod shell;
mod trace;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

pub use judge::{Law, Violation};
pub use planted::Planted;

use world::World;

/// How to run a seed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Three to seven regions and links between them, not one region.
    pub regions: bool,
    /// Print everything that happens.
    pub log: bool,
    /// A bug to put in.
    pub planted: Option<Planted>,
    /// Something that happens in this run, whatever the seed says.
    pub mishap: Option<Mishap>,
}

/// What a bug between regions may need to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mishap {
    /// Nothing goes wrong by itself.
    None,
    /// Nodes lose their power.
    Crashes,
    /// Regions are cut off from each other.
    Cuts,
    /// Connections break, and disks are slow.
    Resets,
    /// Regions start with an empty disk.
    Wipes,
    /// One actor writes two histories in two regions.
    Forks,
    /// The same, and regions start with an empty disk.
    ForksAndWipes,
    /// Bits are turned on the way between regions.
    Garbles,
    /// Regions are started again and again.
    Restarts,
    /// Regions are cut off from each other, and logs are so short that they do not bridge it.
    ShortLogs,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The first law that was broken.
    pub violation: Option<Violation>,
    /// Everything that happened, as one number: the same for the same seed.
    pub trace: u64,
    /// How many things happened.
    pub events: u64,
    /// How much time went by in the world.
    pub virtual_time: Duration,
    /// How often things happened, by name: to see that a run did something.
    pub tally: BTreeMap<&'static str, u64>,
}

/// Runs a seed to its end, or to the first law that is broken.
///
/// A panic inside the node or a client counts as [`Law::HonestClientsNeverFail`]: neither may.
pub fn run(seed: u64, options: Options) -> Outcome {
    let mut world = World::new(seed, options);
    let played = catch_unwind(AssertUnwindSafe(|| world.play()));
    if let Err(panic) = played {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        world.broken(Law::HonestClientsNeverFail, format!("panicked: {text}"));
    }
    world.tally.insert("frames", world.frames);
    if let Some(regions) = &world.regions {
        world.tally.insert("frames between regions", regions.frames);
    }
    Outcome {
        violation: world.judge.violation.clone(),
        trace: world.trace.digest(),
        events: world.trace.events,
        virtual_time: world.now,
        tally: world.tally,
    }
}
