//! Bugs that tests put in, to see that a law catches them.

use crate::plan::{Fault, Plan};
use crate::rng::Rng;

/// A bug around the shards: in the disk, the network or the shell. Bugs inside the sync protocol
/// are planted with `sync::planted::plant`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// The disk says that a commit is durable and it is not.
    DiskLies,
    /// Shards hear that a batch is durable when it is handed over.
    SpeaksBeforeCommit,
    /// After a crash the disk holds less than what was durable.
    LosesTail,
    /// A message gets lost between a socket and its shard.
    LosesFrames,
    /// A message is passed on twice.
    PresenceTwice,
    /// Shards hear that a frame is written while it waits.
    ForgetsRoom,
    /// Shards never hear that a frame is written.
    NeverGivesRoom,
    /// Another session is closed than the one that did wrong.
    ClosesAnother,
    /// What a restart finds on the disk is thrown away.
    StartsEmpty,
    /// Nobody is told that a document is nowhere.
    SwallowsDenials,
    /// A byte of a sync message is another one when it arrives.
    FlipsBits,
    /// A process that starts goes on under the epoch of the one before.
    KeepsEpoch,
    /// Entries get lost between a link and its shard.
    LosesEntries,
    /// Presence overtakes presence between a shard and a link.
    ShufflesPresence,
}

impl Planted {
    /// Every one that can be put in where there is one region.
    pub const ALL: [Self; 11] = [
        Self::DiskLies,
        Self::SpeaksBeforeCommit,
        Self::LosesTail,
        Self::LosesFrames,
        Self::PresenceTwice,
        Self::ForgetsRoom,
        Self::NeverGivesRoom,
        Self::ClosesAnother,
        Self::StartsEmpty,
        Self::SwallowsDenials,
        Self::FlipsBits,
    ];

    /// Those that need several regions.
    pub const BETWEEN: [Self; 3] = [Self::KeepsEpoch, Self::LosesEntries, Self::ShufflesPresence];

    /// Some bugs need certain things to happen at all.
    pub(crate) fn adapt(self, plan: &mut Plan) {
        match self {
            Self::LosesTail | Self::StartsEmpty => plan.faults.push(Fault::Crash),
            Self::PresenceTwice | Self::ShufflesPresence => plan.habits.presence = true,
            Self::KeepsEpoch => plan.faults.extend([Fault::Restore; 3]),
            Self::ClosesAnother => plan.hostiles = plan.hostiles.max(1),
            Self::ForgetsRoom => {
                plan.faults.push(Fault::SlowReader);
                plan.limits.session_bytes_in_flight = plan.limits.session_bytes_in_flight.min(4096);
                plan.kernel_bytes = 500;
            }
            Self::NeverGivesRoom => {
                plan.limits.session_bytes_in_flight = plan.limits.session_bytes_in_flight.min(4096);
            }
            Self::DiskLies
            | Self::SpeaksBeforeCommit
            | Self::LosesFrames
            | Self::LosesEntries
            | Self::SwallowsDenials
            | Self::FlipsBits => {}
        }
    }
}

/// Says when the planted bug strikes. Without one, nothing here draws a number.
#[derive(Debug)]
pub(crate) struct Planter {
    planted: Option<Planted>,
}

impl Planter {
    pub(crate) fn new(planted: Option<Planted>) -> Self {
        Self { planted }
    }

    pub(crate) fn is(&self, planted: Planted) -> bool {
        self.planted == Some(planted)
    }

    pub(crate) fn strikes(&self, planted: Planted, rng: &mut Rng, percent: u64) -> bool {
        self.is(planted) && rng.percent(percent)
    }
}
