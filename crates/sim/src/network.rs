//! Connections: in order, with latency, until they break.

use std::collections::VecDeque;
use std::time::Duration;

use crate::rng::Rng;

/// What a frame of a link begins with that is a batch of entries.
const BATCH: u8 = 1;

/// One connection, never used twice in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkId(pub(crate) u64);

/// Who is at the end of a connection that asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialler {
    Client(usize),
    Hostile(usize),
    /// Another node: the connection is one lane of a link between two regions.
    Region(usize),
}

/// A direction, by where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toward {
    Dialler,
    Node,
}

/// A connection between somebody and a node. Between two nodes it is the same thing: one dials.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) dialler: Dialler,
    pub(crate) node: usize,
    /// Whether each end still holds it.
    pub(crate) dialler_open: bool,
    pub(crate) node_open: bool,
    /// Nothing passes any more, whether the ends know it or not.
    pub(crate) broken: bool,
    pub(crate) to_node: Pipe,
    pub(crate) to_dialler: Pipe,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
    last_at: Duration,
    /// Nothing passes before this.
    held_until: Duration,
    /// The reader takes one frame in this long.
    pub(crate) pace: Duration,
    pub(crate) latency: Duration,
    pub(crate) jitter_ms: u64,
}

impl Pipe {
    pub(crate) fn new(latency: Duration, jitter_ms: u64) -> Self {
        Self { latency, jitter_ms, ..Self::default() }
    }

    /// Takes a frame and says when it arrives: never before the one before it.
    pub(crate) fn push(&mut self, now: Duration, frame: Vec<u8>, rng: &mut Rng) -> Duration {
        let travels = now + self.latency + rng.millis(0, self.jitter_ms);
        self.last_at = travels.max(self.last_at + self.pace).max(self.held_until);
        self.bytes += frame.len();
        self.frames.push_back(frame);
        self.last_at
    }

    /// The next frame, or when to come again because nothing passes.
    pub(crate) fn pop(&mut self, now: Duration) -> Result<Option<Vec<u8>>, Duration> {
        if now < self.held_until && !self.frames.is_empty() {
            return Err(self.held_until);
        }
        let frame = self.frames.pop_front();
        self.bytes -= frame.as_ref().map_or(0, Vec::len);
        Ok(frame)
    }

    /// Everything on its way is lost.
    pub(crate) fn lose(&mut self) {
        self.frames.clear();
        self.bytes = 0;
    }

    pub(crate) fn hold(&mut self, until: Duration) {
        self.held_until = self.held_until.max(until);
    }

    /// Lets everything pass that was held or waited for a slow reader: how many frames arrive now.
    pub(crate) fn release(&mut self) -> usize {
        self.held_until = Duration::ZERO;
        self.pace = Duration::ZERO;
        self.last_at = Duration::ZERO;
        self.frames.len()
    }

    pub(crate) fn is_held(&self, now: Duration) -> bool {
        now < self.held_until
    }

    pub(crate) fn held_until(&self) -> Duration {
        self.held_until
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Turns a bit of a batch of entries that is on its way, if there is one. Only these have a digest
    /// of their own; the others trust in TCP.
    pub(crate) fn garble(&mut self, rng: &mut Rng) -> bool {
        let batches = self.frames.iter_mut().filter(|frame| frame.len() > 1 && frame[0] == BATCH);
        let Some(frame) = batches.last() else { return false };
        let at = 1 + rng.below(frame.len() - 1);
        frame[at] ^= 1 << rng.below(8);
        true
    }
}

impl Link {
    /// Whether it is a lane between two regions.
    pub(crate) fn is_lane(&self) -> bool {
        matches!(self.dialler, Dialler::Region(_))
    }

    /// The nodes at its ends, if both are nodes: the one that dialled first.
    pub(crate) fn regions(&self) -> Option<(usize, usize)> {
        match self.dialler {
            Dialler::Region(from) => Some((from, self.node)),
            _ => None,
        }
    }

    /// Which way leads to a node.
    pub(crate) fn toward(&self, node: usize) -> Toward {
        if self.dialler == Dialler::Region(node) { Toward::Dialler } else { Toward::Node }
    }

    pub(crate) fn pipe(&mut self, toward: Toward) -> &mut Pipe {
        match toward {
            Toward::Node => &mut self.to_node,
            Toward::Dialler => &mut self.to_dialler,
        }
    }
}
