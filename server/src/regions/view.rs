//! How links are, as people and programs see it: `GET /v1/mesh`, `tributary links`, the figures.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use mesh::link::{self, LaneBytes, State};
use serde::{Deserialize, Serialize};

use crate::regions::socket::{Closing, Ended, code};
use crate::regions::{LinkWay, Regions};

/// All links of a region.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct MeshView {
    /// This region.
    pub region: String,
    /// Which life of it, as 16 hexadecimal digits; nothing if the region has no mesh.
    pub epoch: Option<String>,
    /// One for each other region.
    pub links: Vec<LinkView>,
    /// Sockets that were turned away before they belonged to a link, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// One link.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LinkView {
    /// The region at its other end.
    pub region: String,
    /// Where it is dialled, if we dial it.
    pub url: Option<String>,
    /// `up`, `opening`, `down`; `half` when the link is up without its bulk lane; `busy` when it had no
    /// time to say.
    pub state: String,
    /// Since when it is up, in seconds.
    pub up_seconds: Option<f64>,
    /// There and back, in milliseconds.
    pub round_trip_ms: Option<f64>,
    /// How many changes that clients handed in here are not known to be durable there.
    pub lag_changes: u64,
    /// For how long the oldest of them has been waiting, in seconds.
    pub lag_seconds: f64,
    /// The connection for what people wait for.
    pub live: LaneView,
    /// The connection for what is much.
    pub bulk: LaneView,
    /// Entries of logs received.
    pub entries_in: u64,
    /// Entries of logs sent.
    pub entries_out: u64,
    /// What those sent have as bytes.
    pub raw_bytes_out: u64,
    /// What was sent for them.
    pub coded_bytes_out: u64,
    /// The one through the other.
    pub compression_ratio: Option<f64>,
    /// Presence received.
    pub presence_in: u64,
    /// Presence sent.
    pub presence_out: u64,
    /// Comparisons of all documents.
    pub audits: u64,
    /// Those that found a difference.
    pub mismatches: u64,
    /// Documents that were repaired.
    pub repairs: u64,
    /// How far the region holds each of our logs, durably.
    pub holds: Vec<HoldView>,
    /// How many entries there were in those of our logs that are forgotten, by stream.
    #[serde(skip)]
    pub forgotten: BTreeMap<u8, u64>,
    /// It has lost something of what it held, and the audit has not found both regions alike since.
    #[serde(skip)]
    pub behind: bool,
    /// The audit has found both regions alike since this process started, and nothing was lost since.
    #[serde(skip)]
    pub alike: bool,
    /// How often sockets ended, by reason.
    pub closes: BTreeMap<String, u64>,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// One lane of a link.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct LaneView {
    /// How many sockets it has; one, when all is well.
    pub sockets: usize,
    /// Bytes of frames received.
    pub bytes_in: u64,
    /// Bytes of frames sent.
    pub bytes_out: u64,
}

/// How far a region holds one log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HoldView {
    /// Whose log: region, life, stream.
    pub log: String,
    /// The stream.
    pub stream: u8,
    /// The number of the last entry that it holds.
    pub sequence: u64,
}

/// What is known of a link beside what it knows itself.
#[derive(Debug, Default)]
pub struct Account(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    up_since: Option<Instant>,
    closes: BTreeMap<&'static str, u64>,
    last_error: Option<String>,
}

impl Account {
    fn with<T>(&self, f: impl FnOnce(&mut Entries) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The link has come up, or gone down.
    pub fn up(&self, up: bool) {
        self.with(|entries| entries.up_since = up.then(Instant::now));
    }

    /// The region could not be reached; `kind`, if it was, and the connection came to nothing.
    pub fn dial_failed(&self, kind: Option<&'static str>, error: &str) {
        self.with(|entries| {
            if let Some(kind) = kind {
                *entries.closes.entry(kind).or_default() += 1;
            }
            entries.last_error = Some(error.to_owned());
        });
    }

    /// A socket of the link has ended.
    pub fn ended(&self, ended: &Ended) {
        let (kind, error) = match ended {
            Ended::Ours(Closing { kind, reason, .. }) => (*kind, format!("we closed it: {reason}")),
            Ended::Told { code: code::SPARE, .. } => ("spare", String::new()),
            Ended::Told { code: code::RESTART, reason } => ("restart", reason.clone()),
            Ended::Told { reason, .. } => ("told", format!("the other side closed it: {reason}")),
            Ended::Lost(error) => ("lost", format!("the connection was lost: {error}")),
        };
        let harmless = matches!(
            ended,
            Ended::Ours(Closing { code: code::SPARE, .. }) | Ended::Told { code: code::SPARE, .. }
        );
        self.with(|entries| {
            *entries.closes.entry(kind).or_default() += 1;
            if !harmless {
                entries.last_error = Some(error);
            }
        });
    }
}

impl Regions {
    /// How all links are. `regions` is nothing where there is no mesh.
    pub async fn view(regions: Option<&Self>, region: &str) -> MeshView {
        let region = region.to_owned();
        let Some(regions) = regions else { return MeshView { region, ..MeshView::default() } };
        let links = regions.statuses().await;
        let refused = regions.account.counts();
        MeshView {
            region,
            epoch: Some(format!("{:016x}", regions.me().epoch)),
            links: links.into_iter().map(|(link, status)| view(&link, status.as_ref())).collect(),
            refused: refused.into_iter().map(|(kind, n)| (kind.to_owned(), n)).collect(),
        }
    }
}

fn view(link: &LinkWay, status: Option<&link::Status>) -> LinkView {
    let [live, bulk] = *link.lanes.borrow();
    let (up_since, closes, shells_error) = link
        .account
        .with(|entries| (entries.up_since, entries.closes.clone(), entries.last_error.clone()));
    let mut view = LinkView {
        region: link.region.to_string(),
        url: link.url.as_ref().map(|url| url.to_string()),
        state: "busy".to_owned(),
        up_seconds: up_since.map(|since| since.elapsed().as_secs_f64()),
        live: LaneView { sockets: live, ..LaneView::default() },
        bulk: LaneView { sockets: bulk, ..LaneView::default() },
        closes: closes.into_iter().map(|(kind, n)| (kind.to_owned(), n)).collect(),
        last_error: shells_error,
        ..LinkView::default()
    };
    if let Some(status) = status {
        view.fill(status);
    }
    view
}

impl LinkView {
    /// What the link says of itself.
    fn fill(&mut self, status: &link::Status) {
        let state = match status.state {
            State::Up if status.sockets == [true, true] => "up",
            State::Up => "half",
            State::Opening => "opening",
            State::Down => "down",
        };
        self.state = state.to_owned();
        self.round_trip_ms =
            status.round_trip.filter(|_| status.is_up()).map(|it| it.as_secs_f64() * 1e3);
        self.lag_changes = status.lag_changes;
        self.lag_seconds = status.lag.as_secs_f64();
        self.live.fill(status.live);
        self.bulk.fill(status.bulk);
        self.entries_in = status.entries_in;
        self.entries_out = status.entries_out;
        self.raw_bytes_out = status.raw_bytes;
        self.coded_bytes_out = status.coded_bytes;
        self.compression_ratio =
            (status.coded_bytes > 0).then(|| status.raw_bytes as f64 / status.coded_bytes as f64);
        self.presence_in = status.presence_in;
        self.presence_out = status.presence_out;
        self.audits = status.audits;
        self.mismatches = status.mismatches;
        self.repairs = status.repairs;
        self.forgotten.clone_from(&status.forgotten);
        (self.behind, self.alike) = (status.behind, status.alike);
        let holds = status.holds.iter();
        self.holds = holds
            .map(|(log, sequence)| HoldView {
                log: log.to_string(),
                stream: log.stream,
                sequence: *sequence,
            })
            .collect();
    }
}

impl LaneView {
    fn fill(&mut self, bytes: LaneBytes) {
        self.bytes_in = bytes.received;
        self.bytes_out = bytes.sent;
    }
}
