//! How a link is, for metrics and for people.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use model::RegionName;

use super::lanes::CloseReason;
use super::{Link, Phase, index};
use crate::exchange::Lane;
use crate::origin::LogId;

/// Between so many moments the age of what the peer lacks is told apart, for each log.
const POINTS_MAX: usize = 64;
/// Entries that were published within this time of each other count as one moment.
const POINT: Duration = Duration::from_millis(10);

/// Where a link is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The live lane has no socket.
    Down,
    /// Vectors are being told.
    Opening,
    /// All is told.
    Up,
}

/// Bytes of frames on one lane, of all its sockets together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LaneBytes {
    /// Received.
    pub received: u64,
    /// Sent.
    pub sent: u64,
}

/// How a link is. Everything is counted since the process started.
#[derive(Debug, Clone)]
pub struct Status {
    /// Where it is in its life.
    pub state: State,
    /// There and back on the live lane, as measured last.
    pub round_trip: Option<Duration>,
    /// How many of our own entries the peer is not known to hold durably.
    pub lag_changes: u64,
    /// For how long the oldest of them has been waiting.
    pub lag: Duration,
    /// Frames of the live lane.
    pub live: LaneBytes,
    /// Frames of the bulk lane.
    pub bulk: LaneBytes,
    /// Whether the live lane and the bulk lane have a socket.
    pub sockets: [bool; 2],
    /// Entries received, those that came again included.
    pub entries_in: u64,
    /// Entries sent.
    pub entries_out: u64,
    /// What the entries sent have as bytes.
    pub raw_bytes: u64,
    /// What was sent for them.
    pub coded_bytes: u64,
    /// Presence received.
    pub presence_in: u64,
    /// Presence sent.
    pub presence_out: u64,
    /// Documents given to repair by the audit; more than once if repaired more than once.
    pub repairs: u64,
    /// Looks of the audit.
    pub audits: u64,
    /// Those that ended with a difference.
    pub mismatches: u64,
    /// How far the peer holds each log of our region, durably. Without those that it only skipped to
    /// where it says.
    pub holds: BTreeMap<LogId, u64>,
    /// How many entries the logs of our region have that are forgotten, by stream. The peer has held
    /// them all, unless it is new.
    pub forgotten: BTreeMap<u8, u64>,
    /// The peer has lost something of what it held, as far as is known, and the audit has not found both
    /// regions alike since.
    pub behind: bool,
    /// The audit has found both regions alike since the process started, and the peer has lost nothing
    /// since.
    pub alike: bool,
    /// How often we closed a socket, by [`CloseReason::label`].
    pub closes: BTreeMap<&'static str, u64>,
    /// Why we closed a socket last, unless that was nobody's mistake.
    pub last_error: Option<String>,
}

impl Status {
    /// Whether vectors are told.
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }
}

/// What is counted.
#[derive(Default)]
pub(super) struct Account {
    bytes: [LaneBytes; 2],
    pub(super) round_trip: [Option<Duration>; 2],
    pub(super) entries_in: u64,
    entries_out: u64,
    raw_bytes: u64,
    coded_bytes: u64,
    pub(super) presence_in: u64,
    pub(super) presence_out: u64,
    closes: BTreeMap<&'static str, u64>,
    last_error: Option<String>,
    /// For each log of our region, what the peer lacks.
    lag: BTreeMap<LogId, Lag>,
}

/// What the peer lacks of one log.
#[derive(Default)]
struct Lag {
    end: u64,
    held: u64,
    /// Up to which entry, and when that was published; ascending.
    points: VecDeque<(u64, Duration)>,
}

impl Account {
    pub(super) fn bytes(&mut self, lane: Lane) -> &mut LaneBytes {
        &mut self.bytes[index(lane)]
    }

    pub(super) fn entries(&mut self, count: usize, cost: u64, coded: usize) {
        self.entries_out += count as u64;
        self.raw_bytes += cost;
        self.coded_bytes += coded as u64;
    }

    pub(super) fn closed(&mut self, reason: &CloseReason) {
        *self.closes.entry(reason.label()).or_default() += 1;
        if !matches!(reason, CloseReason::Double | CloseReason::Replaced | CloseReason::Anew) {
            self.last_error = Some(reason.to_string());
        }
    }

    /// A log is not spoken of any more.
    pub(super) fn forgot(&mut self, log: &LogId) {
        self.lag.remove(log);
    }

    /// A log goes up to here now.
    pub(super) fn note_end(&mut self, now: Duration, me: &RegionName, log: &LogId, end: u64) {
        if log.origin.region != *me {
            return;
        }
        let lag = self.lag.entry(log.clone()).or_default();
        if end <= lag.end {
            return;
        }
        lag.end = end;
        if end <= lag.held {
            return;
        }
        let full = lag.points.len() >= POINTS_MAX;
        match lag.points.back_mut() {
            // What is newer is taken to be as old as what it is put to.
            Some((upto, at)) if full || now < *at + POINT => *upto = end,
            _ => lag.points.push_back((end, now)),
        }
    }

    /// The peer holds a log up to here.
    pub(super) fn note_held(&mut self, now: Duration, log: &LogId, held: u64) {
        let Some(lag) = self.lag.get_mut(log) else { return };
        lag.held = held;
        while lag.points.front().is_some_and(|(upto, _)| *upto <= held) {
            lag.points.pop_front();
        }
        // It held more before.
        if lag.points.is_empty() && held < lag.end {
            lag.points.push_back((lag.end, now));
        }
    }
}

impl Link {
    fn forgotten_entries(&self) -> BTreeMap<u8, u64> {
        let mut entries = BTreeMap::new();
        for (log, last) in &self.forgotten {
            if log.origin.region == self.config.me {
                *entries.entry(log.stream).or_default() += last.sequence;
            }
        }
        entries
    }

    pub(super) fn make_status(&self, now: Duration) -> Status {
        let account = &self.account;
        let lags = account.lag.values();
        let oldest = lags.clone().filter_map(|lag| lag.points.front()).map(|(_, at)| *at).min();
        let audit = self.audit.counts();
        let [live, bulk] = account.bytes;
        Status {
            state: match self.phase {
                Phase::Down => State::Down,
                Phase::Asking | Phase::Told => State::Opening,
                Phase::Running => State::Up,
            },
            round_trip: account.round_trip[0].or(account.round_trip[1]),
            lag_changes: lags.map(|lag| lag.end.saturating_sub(lag.held)).sum(),
            lag: oldest.map_or(Duration::ZERO, |at| now.saturating_sub(at)),
            live,
            bulk,
            sockets: [self.has_socket(Lane::Live), self.has_socket(Lane::Bulk)],
            entries_in: account.entries_in,
            entries_out: account.entries_out,
            raw_bytes: account.raw_bytes,
            coded_bytes: account.coded_bytes,
            presence_in: account.presence_in,
            presence_out: account.presence_out,
            repairs: audit.repaired,
            audits: audit.looks,
            mismatches: audit.different,
            holds: (account.lag.iter())
                .filter(|(log, lag)| self.skipped.get(log).is_none_or(|to| lag.held > *to))
                .map(|(log, lag)| (log.clone(), lag.held))
                .collect(),
            forgotten: self.forgotten_entries(),
            behind: self.went_back || !self.skipped.is_empty(),
            alike: self.alike,
            closes: account.closes.clone(),
            last_error: account.last_error.clone(),
        }
    }
}
