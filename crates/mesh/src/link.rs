//! The link to one other region, as a value: frames and shard messages in, frames and shard messages
//! out, no socket and no clock.
//!
//! A link has up to two sockets, one for each [`Lane`]; it is up when the live one is and both sides
//! have told each other their vectors. The steps of its life:
//!
//! ```text
//! Down ──live socket──► Asking ──all shards' vectors──► Told ──the peer's vector──► Running
//!   ▲                                                                                   │
//!   └──────────────────────────── the live socket is gone ──────────────────────────────┘
//! ```
//!
//! What is sent is made when there is room for it, never queued when there is news: a log of which the
//! peer lacks entries is *behind*, and read when the lane has credit and its socket has room (see
//! `sending`). What is received goes to the shards, and its credit is given back when it is durable
//! there (see `receiving`). Logs of third regions are fetched from the peer while we do not reach those
//! regions ourselves (see `relaying`).
//!
//! Whatever a peer does that no honest one would closes the socket with a [`CloseReason`] that says
//! what.

mod forgetting;
mod interface;
mod lanes;
mod receiving;
mod relaying;
mod sending;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use model::{DocumentId, RegionName, StorageId};

use crate::audit::{self, Audit};
use crate::exchange::{FromShard, Lane, ToShard};
use crate::frame::{Frame, Row};
use crate::origin::{Digest, LogId, Mark};
use crate::planted::{Bug, planted};
pub use interface::{Config, Effect, Event, Limits, Report, SocketId, To};
pub use lanes::CloseReason;
use lanes::Line;
pub use sending::window;
use status::Account;
pub use status::{LaneBytes, State, Status};

/// A link that is up tells and is told; one that is not waits for sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Down,
    /// The live lane is open; shards are asked for their vectors.
    Asking,
    /// Ours is said, the peer's is not here.
    Told,
    Running,
}

/// How many logs a peer may claim to hold: sixteen for each life of each region.
const CLAIMS_MAX: usize = 1 << 16;

/// How far we hold a log.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    sequence: u64,
    /// Not known right after an entry of our own was published.
    digest: Option<Digest>,
}

/// A claim of the peer to hold more of a log of ours than we have.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    sequence: u64,
    digest: Option<Digest>,
    since: Duration,
}

/// The link to one other region.
pub struct Link {
    config: Config,
    phase: Phase,
    lines: [Option<Line>; 2],
    /// For each shard, how many vectors it was asked for and has not given. What else it says before
    /// it has given the last one belongs to a life of the link that is over.
    unanswered: Vec<u32>,
    /// What we hold, without what is forgotten.
    ours: BTreeMap<LogId, Held>,
    /// The last entries of logs that we have forgotten (see `forgetting`).
    forgotten: BTreeMap<LogId, Mark>,
    /// What of it the peer is to be told, and when.
    forgotten_due: Vec<Row>,
    forgotten_at: Option<Duration>,
    /// Whether the peer has said which of the logs that we named it has forgotten.
    answered: bool,
    /// What the peer was told that we hold when this life began.
    told: BTreeMap<LogId, u64>,
    /// The peer's vector, until ours is told.
    their_vector: Option<Vec<Row>>,
    /// What the peer holds.
    theirs: BTreeMap<LogId, u64>,
    /// Its digests of our logs, as of its vector.
    their_digests: BTreeMap<LogId, (u64, Digest)>,
    doubts: BTreeMap<LogId, Doubt>,
    /// Logs of which the two regions have different entries under the same numbers.
    diverged: BTreeSet<LogId>,
    /// Logs of which the peer was told to go on after a gap, and where: what was in it is brought by the
    /// audit, so until that finds both regions alike the peer's word for it means nothing.
    skipped: BTreeMap<LogId, u64>,
    /// The peer came back with less than it had said to hold, and the audit has not found both regions
    /// alike since.
    went_back: bool,
    /// The audit has found both regions alike, and nothing speaks against it since.
    alike: bool,
    /// The peer's store, when it was last there.
    storage: Option<StorageId>,
    /// What the peer is to be told that we hold: of its logs, and of those of others.
    holds_due: [BTreeMap<LogId, u64>; 2],
    holds_sent: [Option<Duration>; 2],
    /// Whether we reach a third region, and since when that is so.
    reach: BTreeMap<RegionName, (bool, Duration)>,
    running_since: Duration,
    /// When to look whether there is something to be fetched.
    relay_due: Option<Duration>,
    audit: Audit,
    account: Account,
    effects: VecDeque<Effect>,
}

impl Link {
    /// A link without sockets.
    pub fn new(config: Config) -> Self {
        let asks = config.me < config.peer;
        Self {
            phase: Phase::Down,
            lines: [None, None],
            unanswered: vec![0; config.shards],
            ours: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            forgotten_due: Vec::new(),
            forgotten_at: None,
            answered: false,
            told: BTreeMap::new(),
            their_vector: None,
            theirs: BTreeMap::new(),
            their_digests: BTreeMap::new(),
            doubts: BTreeMap::new(),
            diverged: BTreeSet::new(),
            skipped: BTreeMap::new(),
            went_back: false,
            alike: false,
            storage: None,
            holds_due: [BTreeMap::new(), BTreeMap::new()],
            holds_sent: [None, None],
            reach: BTreeMap::new(),
            running_since: Duration::ZERO,
            relay_due: None,
            audit: Audit::new(asks, config.shards, config.limits.audit),
            account: Account::default(),
            effects: VecDeque::new(),
            config,
        }
    }

    /// Takes in what has happened. `now`: since some fixed moment, never going back.
    pub fn handle(&mut self, now: Duration, event: Event) {
        match event {
            Event::Up { socket, lane, agreed, dialled } => {
                self.socket_up(now, socket, lane, agreed, dialled);
            }
            Event::Frame { socket, bytes } => {
                if let Some(lane) = self.lane_of(socket) {
                    self.received(now, lane, &bytes);
                }
            }
            Event::Written { socket, bytes } => {
                if let Some(lane) = self.lane_of(socket) {
                    self.written(lane, bytes);
                }
            }
            Event::Closed { socket } => {
                if let Some(lane) = self.lane_of(socket) {
                    self.forget(lane);
                }
            }
            Event::Shard { shard, message } => self.shard(now, shard, message),
            Event::Reachable { region, up } => self.reachable(now, region, up),
        }
        self.settle(now);
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Duration) {
        self.heartbeat(now);
        if self.gathering_until().is_some_and(|at| at <= now) {
            self.send_gathered(now);
        }
        self.tell_holds(now);
        self.tell_forgotten(now);
        self.grant_due(now);
        self.judge_doubts(now);
        if self.relay_due.is_some_and(|at| at <= now) {
            self.relay_due = None;
            self.fetch(now);
        }
        if self.audit.poll_timeout().is_some_and(|at| at <= now) {
            let catching_up = self.is_catching_up(now);
            self.audit.hold(now, catching_up);
            self.audit.tick(now);
        }
        self.settle(now);
    }

    /// When [`tick`](Self::tick) has something to do. Changes with every call of another method.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let doubts = self.doubts.values().map(|doubt| doubt.since + self.config.limits.doubt);
        [
            self.heartbeat_due(),
            self.gathering_until(),
            self.holds_at(),
            self.forgotten_at,
            self.grants_at(),
            doubts.min(),
            self.relay_due,
            self.audit.poll_timeout().filter(|_| self.phase == Phase::Running),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What is wanted next.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// How the link is.
    pub fn status(&self, now: Duration) -> Status {
        self.make_status(now)
    }

    /// Whether both vectors are told.
    pub fn is_up(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Whether a lane has a socket. Who finds that it has need not dial.
    pub fn has_socket(&self, lane: Lane) -> bool {
        self.lines[index(lane)].is_some()
    }

    /// A shard says this.
    fn shard(&mut self, now: Duration, shard: usize, message: FromShard) {
        match message {
            FromShard::Vector { held, forgotten } => {
                return self.vector(now, shard, held, forgotten);
            }
            FromShard::Published { log, first, entries } => {
                return self.published(now, log, first, entries);
            }
            FromShard::Held { log, mark } => return self.held(log, mark),
            FromShard::Taken { lane, credit } => return self.taken(now, lane, credit),
            FromShard::Forgotten { log, last } => return self.forgot(now, &log, last),
            _ if self.unanswered.get(shard) != Some(&0) => return,
            _ => {}
        }
        match message {
            FromShard::Entries { lane, log, first, entries } => {
                self.entries(now, lane, &log, first, &entries);
            }
            FromShard::Trimmed { lane, log, from, to } => self.trimmed(now, lane, &log, from, to),
            FromShard::Diverged { log } => self.own_diverged(now, log),
            FromShard::Sync { document, data } => self.send_sync(document, data),
            FromShard::Repaired { document } => {
                self.send(self.much(), &Frame::Repaired { document });
            }
            FromShard::Unavailable { document } => {
                self.send(self.much(), &Frame::Unavailable { document });
            }
            FromShard::Presence { document, presence } => {
                if self.has_room_for_passing() {
                    self.account.presence_out += 1;
                    self.send(Lane::Live, &Frame::Presence { document, presence });
                }
            }
            FromShard::Heads { document, heads } => {
                if self.has_room_for_passing() {
                    self.send(Lane::Live, &Frame::Heads { document, heads });
                }
            }
            FromShard::Interest { document, open } => {
                self.send(Lane::Live, &Frame::Interest { document, open });
            }
            FromShard::Subscribe { add, remove } => {
                self.send(Lane::Live, &Frame::Subscribe { add, remove });
            }
            FromShard::Root { round, documents, sum } => {
                let root = audit::Root { documents, sum };
                self.audit.answered(now, shard, audit::Answer::Root { round, root });
            }
            FromShard::Symbols { round, symbols, .. } => {
                self.audit.answered(now, shard, audit::Answer::Symbols { round, symbols });
            }
            FromShard::Items { round, items } => {
                self.audit.answered(now, shard, audit::Answer::Items { round, items });
            }
            FromShard::Vector { .. }
            | FromShard::Forgotten { .. }
            | FromShard::Published { .. }
            | FromShard::Held { .. }
            | FromShard::Taken { .. } => unreachable!("dealt with above"),
        }
    }

    /// A shard's part of our vector. When all parts are there, the peer is told.
    fn vector(
        &mut self,
        now: Duration,
        shard: usize,
        vector: Vec<(LogId, Mark)>,
        forgotten: Vec<(LogId, Mark)>,
    ) {
        let Some(unanswered) = self.unanswered.get_mut(shard) else { return };
        *unanswered = unanswered.saturating_sub(1);
        for (log, last) in forgotten {
            self.ours.remove(&log);
            self.remember_forgotten(log, last);
        }
        for (log, mark) in vector {
            self.account.note_end(now, &self.config.me, &log, mark.sequence);
            self.forgotten.remove(&log);
            self.ours.insert(log, Held { sequence: mark.sequence, digest: Some(mark.digest) });
        }
        if self.phase != Phase::Asking || self.unanswered.iter().any(|unanswered| *unanswered > 0) {
            return;
        }
        let peer = self.config.peer.clone();
        let row = |(log, held): (&LogId, &Held)| Row {
            log: log.clone(),
            sequence: held.sequence + u64::from(planted(Bug::SkipsOne)),
            digest: held.digest.filter(|_| log.origin.region == peer),
        };
        let rows: Vec<Row> =
            self.ours.iter().filter(|(_, held)| held.sequence > 0).map(row).collect();
        self.told = rows.iter().map(|row| (row.log.clone(), row.sequence)).collect();
        self.phase = Phase::Told;
        self.send(Lane::Live, &Frame::Vector(rows));
        if let Some(theirs) = self.their_vector.take() {
            self.run(now, theirs);
        }
    }

    /// Both vectors are told.
    fn run(&mut self, now: Duration, rows: Vec<Row>) {
        self.phase = Phase::Running;
        self.running_since = now;
        self.note_going_back(&rows);
        self.theirs.clear();
        self.their_digests.clear();
        if let Err(reason) = self.admit_claims(&rows) {
            return self.fail(Lane::Live, reason);
        }
        let answer = self.forgotten_of(now, &rows);
        self.send(Lane::Live, &Frame::Forgotten(answer));
        self.answered = false;
        for row in rows {
            self.their_claim(now, &row);
            if let Some(digest) = row.digest {
                self.their_digests.insert(row.log, (row.sequence, digest));
            }
        }
        self.open_own_courses();
        self.relay_due = Some(now + self.config.limits.relay_after);
        self.fetch(now);
        if !planted(Bug::NeverAudits) {
            self.audit.up(now);
        }
    }

    /// Whether what the peer claims is of no more logs than there may be: each is remembered.
    fn admit_claims(&self, rows: &[Row]) -> Result<(), CloseReason> {
        let new = rows.iter().filter(|row| !self.theirs.contains_key(&row.log)).count();
        let fits = self.theirs.len() + new <= CLAIMS_MAX;
        if fits { Ok(()) } else { Err(CloseReason::TooManyLogs) }
    }

    /// The peer says that it holds so much of a log.
    fn their_claim(&mut self, now: Duration, row: &Row) {
        let log = &row.log;
        if self.forgotten.get(log).is_some_and(|last| row.sequence <= last.sequence) {
            return;
        }
        let mut sequence = row.sequence;
        if log.origin.region == self.config.me && log.origin.epoch == self.config.epoch {
            let end = self.ours.get(log).map_or(0, |held| held.sequence);
            if sequence > end {
                if !self.diverged.contains(log) {
                    // News of an entry may reach us by other regions before our own shard's does.
                    let doubt = Doubt { sequence, digest: row.digest, since: now };
                    self.doubts.entry(log.clone()).or_insert(doubt);
                }
                sequence = end;
            }
        }
        let known = self.theirs.entry(log.clone()).or_default();
        *known = sequence.max(*known);
        let sequence = *known;
        self.account.note_held(now, log, sequence);
        let message = ToShard::Holds { log: log.clone(), sequence };
        self.tell_shard(log.stream, message);
    }

    /// What was claimed of our logs and is not true by now never was.
    fn judge_doubts(&mut self, now: Duration) {
        let ours = &self.ours;
        self.doubts
            .retain(|log, doubt| ours.get(log).is_none_or(|held| held.sequence < doubt.sequence));
        let due = |doubt: &Doubt| doubt.since + self.config.limits.doubt <= now;
        let Some((log, doubt)) = self.doubts.iter().find(|(_, doubt)| due(doubt)) else { return };
        let (log, doubt) = (log.clone(), *doubt);
        self.doubts.remove(&log);
        // If it is a clone of ours that wrote there, the shard is to know that its log is taken.
        let message = ToShard::Read {
            lane: Lane::Live,
            log: log.clone(),
            from: doubt.sequence + 1,
            bytes_max: 1,
            digest: Some(doubt.digest.unwrap_or_default()),
        };
        self.tell_shard(log.stream, message);
        self.diverged.insert(log.clone());
        self.effects.push_back(Effect::Report(Report::Diverged { log: log.clone() }));
        self.fail(Lane::Live, CloseReason::FalseVector { log });
    }

    /// A shard has compared: the peer's entries of a log are not ours.
    fn own_diverged(&mut self, now: Duration, log: LogId) {
        for line in self.lines.iter_mut().flatten() {
            line.out.drop_course(&log);
        }
        if self.phase != Phase::Running || !self.diverged.insert(log.clone()) {
            return;
        }
        self.effects.push_back(Effect::Report(Report::Diverged { log: log.clone() }));
        let own = log.origin.region == self.config.me;
        if own && log.origin.epoch == self.config.epoch {
            return self.fail(Lane::Live, CloseReason::FalseVector { log });
        }
        // A log that was fetched may match another time.
        if !own {
            self.diverged.remove(&log);
        }
        self.send(self.much(), &Frame::Diverged { log });
        self.audit.soon(now);
    }

    /// How far we hold a log, which may be forgotten.
    fn position(&self, log: &LogId) -> Held {
        let forgotten = || {
            let last = self.forgotten.get(log)?;
            Some(Held { sequence: last.sequence, digest: Some(last.digest) })
        };
        self.ours.get(log).copied().or_else(forgotten).unwrap_or_default()
    }

    /// The audit has found that both regions serve the same.
    fn are_alike(&mut self) {
        self.skipped.clear();
        self.went_back = false;
        self.alike = true;
    }

    /// Whether either side is being brought what it missed.
    ///
    /// The live lane is often up before the bulk lane is. What waits for that is not a difference: the
    /// audit would bring all of it a second time, and at many times the cost. But it is not waited for
    /// for ever. Nor is what a large repair is just bringing.
    fn is_catching_up(&self, now: Duration) -> bool {
        let brings = |line: &Line| !line.inn.fetches.is_empty() || line.repairs_much();
        self.lines.iter().flatten().any(brings)
            || match &self.lines[index(Lane::Bulk)] {
                Some(bulk) => bulk.out.is_busy(),
                None => {
                    now < self.running_since + self.config.limits.bulk_within && self.leaves_out()
                }
            }
    }

    /// What follows from whatever happened.
    fn settle(&mut self, now: Duration) {
        while let Some(effect) = self.audit.poll_effect() {
            match effect {
                audit::Effect::Send(message) => {
                    if let audit::Message::RootSame { as_expected: false, .. } = message {
                        self.are_alike();
                    }
                    self.send(self.much(), &Frame::Audit(message));
                }
                audit::Effect::Ask(ask) => self.ask(ask),
                audit::Effect::Found(finding) => self.found(finding),
            }
        }
        self.tell_holds(now);
        self.pump();
    }

    fn ask(&mut self, ask: audit::Ask) {
        let message = match ask {
            audit::Ask::Root { round } => ToShard::Root { round },
            audit::Ask::Symbols { round, from, to } => ToShard::Symbols { round, from, to },
            audit::Ask::Items { round, from, to } => ToShard::Items { round, from, to },
            audit::Ask::Repair { items } => ToShard::RepairItems { items },
        };
        self.tell_all(message);
    }

    fn found(&mut self, finding: audit::Finding) {
        use audit::Finding;
        if finding == Finding::Equal {
            self.are_alike();
        }
        // What is merely under way is no news.
        if !matches!(finding, Finding::Equal | Finding::Differs { .. }) {
            self.effects.push_back(Effect::Report(Report::Audit(finding)));
        }
    }

    fn tell_all(&mut self, message: ToShard) {
        self.effects.push_back(Effect::ToShard { to: To::Every, message });
    }

    fn tell_shard(&mut self, stream: u8, message: ToShard) {
        let shard = usize::from(stream) % self.config.shards;
        self.effects.push_back(Effect::ToShard { to: To::Shard(shard), message });
    }

    fn tell_document(&mut self, document: &DocumentId, message: ToShard) {
        self.tell_shard(document.stream(), message);
    }
}

const fn index(lane: Lane) -> usize {
    match lane {
        Lane::Live => 0,
        Lane::Bulk => 1,
    }
}
