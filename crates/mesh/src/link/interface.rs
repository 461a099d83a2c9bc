//! What a shell and a link say to each other.

use std::fmt;
use std::time::Duration;

use model::RegionName;

use super::lanes::CloseReason;
use crate::audit;
use crate::exchange::{FromShard, Lane, ToShard};
use crate::handshake::Agreed;
use crate::origin::LogId;

/// A socket, named by the shell. Names are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// What a link is built from.
#[derive(Debug, Clone)]
pub struct Config {
    /// Our region.
    pub me: RegionName,
    /// Our process.
    pub epoch: u64,
    /// The region at the other end.
    pub peer: RegionName,
    /// How many shards we have: at most [`STREAMS`](crate::STREAMS).
    pub shards: usize,
    /// What the shards salt the items of the audit with.
    pub salt: u64,
    /// How much and how often.
    pub limits: Limits,
}

/// How much and how often. What both sides have to agree on is not here.
#[derive(Debug, Clone)]
pub struct Limits {
    /// While there is much to say, batches of the live lane are so far apart.
    pub batch_window: Duration,
    /// Or hold so many bytes of entries.
    pub batch_bytes: usize,
    /// How many bytes of entries are asked of a shard at once.
    pub read_bytes: usize,
    /// How many bytes may wait in the live socket before no more entries are read for it.
    pub live_room_bytes: usize,
    /// The same for the bulk socket.
    pub bulk_room_bytes: usize,
    /// How many bytes may wait in a socket before presence and heads are left out.
    pub passing_bytes_max: usize,
    /// How many bytes may wait in a socket at all before the next frame.
    pub socket_bytes_max: usize,
    /// Frames with more bytes go in pieces: at most [`PIECE_BYTES_MAX`](crate::frame::PIECE_BYTES_MAX).
    pub piece_bytes: usize,
    /// How many bytes a socket is handed before it has written some. What waits beyond that waits here,
    /// where a ping overtakes it.
    pub at_socket_bytes: usize,
    /// How often the peer is told what we hold of its logs.
    pub holds_every: Duration,
    /// How often it is told what we hold of the logs of others.
    pub others_every: Duration,
    /// From one ping to the next, on each lane.
    pub ping_every: Duration,
    /// A socket on which nothing was heard for so long is closed.
    pub silent_after: Duration,
    /// So is one on which a ping was not answered for so long.
    pub stalled_after: Duration,
    /// A process that was heard of within this time has its name for itself: as long as a socket that
    /// says nothing is kept, so that one that is slow does not lose its name.
    pub taken_within: Duration,
    /// The peer's vector has to be here so long after the socket.
    pub vector_within: Duration,
    /// Something of what is under way has to be taken in by the peer within this time.
    pub credit_within: Duration,
    /// A batch that could not be read has to be sent again within this time.
    pub anew_within: Duration,
    /// A region that we have not reached for so long is asked about at others.
    pub relay_after: Duration,
    /// What the peer claims to hold of our logs, and we have not published, is a lie after so long.
    pub doubt: Duration,
    /// While the peer lacks what only the bulk lane brings, the audit waits so long for that lane.
    pub bulk_within: Duration,
    /// For what is in changes.
    pub changes: history::chunk::Limits,
    /// For the audit.
    pub audit: audit::Pace,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_window: Duration::from_millis(8),
            batch_bytes: 16 << 10,
            read_bytes: 64 << 10,
            live_room_bytes: 128 << 10,
            bulk_room_bytes: 512 << 10,
            passing_bytes_max: 1 << 20,
            socket_bytes_max: 64 << 20,
            piece_bytes: crate::frame::PIECE_BYTES_MAX,
            at_socket_bytes: 256 << 10,
            holds_every: Duration::from_millis(100),
            others_every: Duration::from_secs(2),
            ping_every: Duration::from_secs(3),
            silent_after: Duration::from_secs(9),
            stalled_after: Duration::from_secs(30),
            taken_within: Duration::from_secs(9),
            vector_within: Duration::from_secs(30),
            credit_within: Duration::from_secs(60),
            anew_within: Duration::from_secs(30),
            relay_after: Duration::from_secs(2),
            doubt: Duration::from_secs(1),
            bulk_within: Duration::from_secs(30),
            changes: history::chunk::Limits::default(),
            audit: audit::Pace::default(),
        }
    }
}

/// Everything that can happen to a link.
#[derive(Debug, Clone)]
pub enum Event {
    /// A socket has ended its handshake.
    Up {
        /// Which.
        socket: SocketId,
        /// What it is for.
        lane: Lane,
        /// With whom.
        agreed: Agreed,
        /// Whether we dialled.
        dialled: bool,
    },
    /// A socket has received a binary message.
    Frame {
        /// Which.
        socket: SocketId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// So many bytes of what was sent are out of our hands.
    Written {
        /// Which.
        socket: SocketId,
        /// How many.
        bytes: usize,
    },
    /// A socket is gone.
    Closed {
        /// Which.
        socket: SocketId,
    },
    /// A shard says this.
    Shard {
        /// Which.
        shard: usize,
        /// What.
        message: FromShard,
    },
    /// Whether our own link to a third region is up. What was never said is no.
    Reachable {
        /// The region.
        region: RegionName,
        /// Whether.
        up: bool,
    },
}

/// Which shards something is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// All of them.
    Every,
    /// One.
    Shard(usize),
}

/// What a link wants done, in this order.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Send a binary message.
    Send {
        /// Where.
        socket: SocketId,
        /// The message.
        frame: Vec<u8>,
    },
    /// Close a socket, with the reason in the close frame. The link has forgotten it already.
    Close {
        /// Which.
        socket: SocketId,
        /// Why.
        reason: CloseReason,
    },
    /// Tell shards.
    ToShard {
        /// Which.
        to: To,
        /// What.
        message: ToShard,
    },
    /// Log this.
    Report(Report),
}

/// What an operator may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A batch could not be read, on our side or the other, and is sent again.
    Resend {
        /// On which lane.
        lane: Lane,
        /// Whether we were to read it.
        inbound: bool,
    },
    /// The two regions have different entries under the same numbers.
    Diverged {
        /// Of which log.
        log: LogId,
    },
    /// Entries that one side lacks are not kept any more; the audit finds what was in them.
    Skipped {
        /// Of which log.
        log: LogId,
        /// The last one.
        to: u64,
        /// Whether it is we that lack them.
        inbound: bool,
    },
    /// The audit has found something.
    Audit(audit::Finding),
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = |inbound| if inbound { "here" } else { "there" };
        match self {
            Self::Resend { lane, inbound } => {
                let side = whose(*inbound);
                write!(f, "a batch of the {lane:?} lane could not be read {side}; it is sent again")
            }
            Self::Diverged { log } => {
                write!(f, "the regions have different entries in log {log}; the audit mends it")
            }
            Self::Skipped { log, to, inbound } => {
                let side = whose(*inbound);
                write!(f, "entries up to {to} of log {log}, not held {side}, are not kept any more")
            }
            Self::Audit(finding) => write!(f, "audit: {finding:?}"),
        }
    }
}
