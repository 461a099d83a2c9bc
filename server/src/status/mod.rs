//! What an operator wants to know of a region at one glance: `GET /v1/status`, which the status page
//! and `tributary top` show.

mod gather;
pub mod latency;
pub mod lines;
pub mod traffic;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use gather::{Gather, Parts};
pub use lines::{Line, Lines};

/// How a region is at the moment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Status {
    /// The version of the server.
    pub version: String,
    /// The name of the region.
    pub region: String,
    /// What it calls itself when it talks to clients.
    pub peer: String,
    /// Since when it runs, in seconds.
    pub uptime_seconds: f64,
    /// What time it is by its clock, in milliseconds since 1970.
    pub now: u64,
    /// Who is connected.
    pub sessions: Sessions,
    /// What there is of documents.
    pub documents: Documents,
    /// What has come and gone since the start.
    pub totals: Totals,
    /// What comes and goes each second, over the last five.
    pub per_second: Rates,
    /// How long it takes until what came in is durable.
    pub commits: Commits,
    /// Links to other regions, by name.
    pub links: Vec<Link>,
    /// What was refused, set aside, or could not be done, since the start.
    pub quarantine: Quarantine,
    /// The last warnings and errors of the log, the newest first.
    pub errors: Vec<Line>,
    /// How many errors there have been since the start.
    pub errors_total: u64,
    /// How many warnings there have been since the start.
    pub warnings_total: u64,
    /// The last minute second by second, the oldest first.
    pub minute: Minute,
}

/// Connections of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Sessions {
    /// At the moment.
    pub connected: u64,
    /// How many there may be.
    pub max: u64,
    /// Peers that joined since the start.
    pub opened: u64,
    /// Those of them that have gone.
    pub closed: u64,
    /// Connections that the server closed because of what the peer did.
    pub closed_for_cause: u64,
}

/// Documents.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Documents {
    /// In memory, or with sessions.
    pub open: u64,
    /// About how many bytes those take in memory.
    pub memory_bytes: u64,
    /// In the store, as counted a moment ago, at most half a minute. Null if they cannot be counted.
    pub stored: Option<u64>,
    /// There are more of them than were counted.
    pub stored_more: bool,
    /// The last ones that changed here since the start, the newest first.
    pub recent: Vec<String>,
}

/// What has come and gone since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Totals {
    /// Changes appended to logs.
    pub changes_in: u64,
    /// Changes sent to clients, once for each; a snapshot counts what it holds.
    pub changes_out: u64,
    /// Bytes of frames received from clients.
    pub bytes_in: u64,
    /// Bytes of frames sent to clients.
    pub bytes_out: u64,
    /// Presence passed on, once for each receiver.
    pub presence_out: u64,
}

/// What comes and goes each second.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Rates {
    /// Changes appended to logs.
    pub changes_in: f64,
    /// Changes sent to clients.
    pub changes_out: f64,
    /// Bytes received from clients.
    pub bytes_in: f64,
    /// Bytes sent to clients.
    pub bytes_out: f64,
}

/// Commits of the last minute.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Commits {
    /// How many.
    pub count: u64,
    /// Half of them took no longer, in milliseconds; null without commits.
    pub p50_ms: Option<f64>,
    /// 99 of 100 took no longer, in milliseconds; null without commits.
    pub p99_ms: Option<f64>,
    /// How long the last one since the start took, in milliseconds; null before the first.
    pub last_ms: Option<f64>,
}

/// A link to another region.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Link {
    /// The other region.
    pub region: String,
    /// `up`, `half`, `opening`, `down`; `busy` when it had no time to say.
    pub state: String,
    /// Since when it is up, in seconds.
    pub up_seconds: Option<f64>,
    /// There and back, in milliseconds.
    pub round_trip_ms: Option<f64>,
    /// Changes handed in here that are not known to be durable there.
    pub lag_changes: u64,
    /// For how long the oldest of them has been waiting, in seconds.
    pub lag_seconds: f64,
    /// Bytes of frames received.
    pub bytes_in: u64,
    /// Bytes of frames sent.
    pub bytes_out: u64,
    /// What went wrong last; it stays when the link is up again.
    pub last_error: Option<String>,
}

/// What was refused, set aside, or could not be done, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Quarantine {
    /// Changes refused at the door: nothing of them is stored.
    pub refused: u64,
    /// Changes set aside after they had been stored: kept, and not served any more.
    pub set_aside: u64,
    /// Reads of documents that failed.
    pub unreadable: u64,
    /// Jobs of the archive that came to no answer.
    pub archive_failures: u64,
    /// Jobs that the archive has not finished, at the moment.
    pub archive_queue: u64,
}

/// Up to a minute, second by second.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Minute {
    /// Changes appended to logs.
    pub changes_in: Vec<f64>,
    /// Changes sent to clients.
    pub changes_out: Vec<f64>,
    /// Bytes received from clients.
    pub bytes_in: Vec<f64>,
    /// Bytes sent to clients.
    pub bytes_out: Vec<f64>,
    /// The 99th percentile of the commits of each second, in milliseconds; null without commits.
    pub commit_p99_ms: Vec<Option<f64>>,
}

/// How a document is here at the moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct DocumentStatus {
    /// The id, base58 with a checksum.
    pub id: String,
    /// The id as clients write it.
    pub url: String,
    /// The heads, in hexadecimal.
    pub heads: Vec<String>,
    /// How many changes there are.
    pub changes: u32,
    /// How many bytes are stored: the snapshot and the changes that are kept one by one.
    pub bytes: u64,
    /// When the document came here, in milliseconds since 1970 by this server's clock.
    pub created: u64,
    /// When it last changed here, in the same way; null when that is longer ago than changes are kept
    /// one by one.
    pub changed: Option<u64>,
    /// Who is connected to this region with the document open, by name; not more than a thousand.
    pub peers: Vec<Peer>,
    /// How many there are.
    pub peers_total: u64,
}

/// Somebody who has a document open.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, ToSchema,
)]
#[serde(default)]
#[schema(as = ConnectedPeer)]
pub struct Peer {
    /// How it calls itself. Nothing proves it.
    pub peer: String,
    /// The store that it says it keeps its documents in, if it has one that lasts.
    pub storage: Option<String>,
    /// The connection: its number since the server started, as the log names it.
    pub session: u64,
    /// Whether it has said that it holds exactly the heads above.
    pub level: bool,
}
