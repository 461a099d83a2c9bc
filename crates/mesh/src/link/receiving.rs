//! What is received: every frame is judged before anything is done with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use history::chunk::Limits;

use super::lanes::CloseReason;
use super::sending::{FEW, RESENDS_MAX, window};
use super::{Effect, Held, Link, Phase, Report, index};
use crate::codec::{CodecError, Decoder, Header, cost};
use crate::exchange::{Lane, ToShard};
use crate::frame::{FRAME_BYTES_MAX, Frame, Row};
use crate::origin::{LogId, Mark};
use crate::planted::{Bug, planted};

/// Less credit than this is not worth a frame, unless nothing else happens.
const GRANT_MIN: u64 = 64 << 10;
/// After how long any credit is given back.
const GRANT_AFTER: Duration = Duration::from_secs(1);

/// The receiving side of one socket.
pub(super) struct Inbound {
    /// What has come of a frame that comes in pieces: at most [`FRAME_BYTES_MAX`].
    pieces: Vec<u8>,
    decoder: Decoder,
    /// Since when a batch could not be read; all that was on its way after it is left out.
    waits: Option<Duration>,
    resends: u8,
    /// What was received, what of it the shards have let go of, and what of that the peer was told.
    received: u64,
    freed: u64,
    granted: u64,
    /// When credit that is little is given back.
    grant_due: Option<Duration>,
    /// The next entry of each log that came on this lane.
    pub(super) expected: BTreeMap<LogId, u64>,
    /// Logs that the peer was asked for.
    pub(super) fetches: BTreeSet<LogId>,
}

impl Inbound {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            pieces: Vec::new(),
            decoder: Decoder::new(limits),
            waits: None,
            resends: 0,
            received: 0,
            freed: 0,
            granted: 0,
            grant_due: None,
            expected: BTreeMap::new(),
            fetches: BTreeSet::new(),
        }
    }

    /// Since when the peer owes an answer to the question for a batch that could not be read.
    pub(super) fn waits_since(&self) -> Option<Duration> {
        self.waits
    }

    /// Whether it can take something that begins now.
    pub(super) fn is_sound(&self) -> bool {
        self.waits.is_none()
    }
}

impl Link {
    /// A binary message has come.
    pub(super) fn received(&mut self, now: Duration, lane: Lane, bytes: &[u8]) {
        self.heard(now, lane, bytes.len());
        let Some(ends) = self.ends(lane, false) else { return };
        let taken = match Frame::decode(bytes, &ends) {
            Ok(Frame::Piece { data, last }) => self.piece(now, lane, data, last),
            Ok(frame) => self.take(now, lane, frame),
            Err(_) => Err(CloseReason::Undecodable),
        };
        if let Err(reason) = taken {
            self.fail(lane, reason);
        }
    }

    /// Keeps a piece of a frame, and takes the frame in with the last one.
    fn piece(
        &mut self,
        now: Duration,
        lane: Lane,
        data: Vec<u8>,
        last: bool,
    ) -> Result<(), CloseReason> {
        let Some(line) = self.line(lane) else { return Ok(()) };
        if line.inn.pieces.len() + data.len() > FRAME_BYTES_MAX {
            return Err(CloseReason::TooLarge);
        }
        line.inn.pieces.extend(data);
        if !last {
            return Ok(());
        }
        let bytes = std::mem::take(&mut line.inn.pieces);
        let Some(ends) = self.ends(lane, false) else { return Ok(()) };
        let frame = Frame::decode(&bytes, &ends).map_err(|_| CloseReason::Undecodable)?;
        self.take(now, lane, frame)
    }

    fn take(&mut self, now: Duration, lane: Lane, frame: Frame) -> Result<(), CloseReason> {
        match frame {
            Frame::Piece { .. } => {
                return Err(CloseReason::OutOfPlace { frame: "piece in a piece" });
            }
            Frame::Ping { id } => self.send(lane, &Frame::Pong { id }),
            Frame::Pong { id } => self.pong(now, lane, id),
            // The live socket broke, and the peer has not noticed yet when the bulk one is back: what
            // it says there belongs to the life that is over.
            _ if lane == Lane::Bulk && self.phase < Phase::Told => {
                return Err(CloseReason::Anew);
            }
            Frame::Vector(rows) => self.take_vector(now, lane, rows)?,
            Frame::Entries(batch) => self.take_batch(now, lane, &batch)?,
            Frame::Sync { document, data } => {
                self.tell_document(&document.clone(), ToShard::Sync { document, data });
            }
            Frame::Repaired { document } => {
                self.tell_document(&document.clone(), ToShard::Repaired { document });
            }
            Frame::Unavailable { document } => {
                self.tell_document(&document.clone(), ToShard::Unavailable { document });
            }
            Frame::Presence { document, presence } => {
                self.account.presence_in += 1;
                self.tell_document(&document.clone(), ToShard::Presence { document, presence });
            }
            Frame::Heads { document, heads } => {
                self.tell_document(&document.clone(), ToShard::Heads { document, heads });
            }
            Frame::Interest { document, open } => {
                self.tell_document(&document.clone(), ToShard::Interest { document, open });
            }
            Frame::Subscribe { add, remove } => self.tell_all(ToShard::Subscribe { add, remove }),
            // What follows belongs to a life of the link that both sides have begun. On the bulk
            // lane it may overtake the peer's vector.
            _ if self.phase < Phase::Told => {
                return Err(CloseReason::OutOfPlace { frame: "frame before the vector" });
            }
            Frame::Resend { generation, received, logs } => {
                self.resend(lane, generation, received, &logs)?;
            }
            Frame::Anew { generation } => self.anew(now, lane, generation)?,
            Frame::Forgotten(rows) => {
                self.their_forgotten(now, rows)?;
                self.fetch(now);
            }
            Frame::Holds(rows) => {
                self.admit_claims(&rows)?;
                let answer = self.forgotten_of(now, &rows);
                if !answer.is_empty() {
                    self.send(Lane::Live, &Frame::Forgotten(answer));
                }
                for row in &rows {
                    self.their_claim(now, row);
                }
                self.fetch(now);
            }
            Frame::Credit { bytes } => self.credited(lane, bytes)?,
            Frame::Fetch { log, from, digest } => self.fetched(lane, log, from, digest)?,
            Frame::Served { log, through } => self.served(now, lane, &log, through)?,
            Frame::Skip { log, to } => self.skip(now, lane, log, to)?,
            Frame::Diverged { log } => self.their_diverged(now, log),
            Frame::Audit(message) => {
                let catching_up = self.is_catching_up(now);
                self.audit.hold(now, catching_up);
                self.audit.heard(now, message).map_err(CloseReason::Audit)?;
            }
        }
        Ok(())
    }

    fn take_vector(
        &mut self,
        now: Duration,
        lane: Lane,
        rows: Vec<Row>,
    ) -> Result<(), CloseReason> {
        let again = self.phase == Phase::Running || self.their_vector.is_some();
        if lane != Lane::Live || again {
            return Err(CloseReason::OutOfPlace { frame: "vector" });
        }
        if self.phase == Phase::Told {
            self.run(now, rows);
        } else {
            self.their_vector = Some(rows);
        }
        Ok(())
    }

    fn take_batch(&mut self, now: Duration, lane: Lane, batch: &[u8]) -> Result<(), CloseReason> {
        let Some(line) = self.line(lane) else { return Ok(()) };
        let inn = &mut line.inn;
        let header = Header::read(batch);
        let groups = match header {
            // What was on its way when we asked for it to be sent again.
            Ok(_) if inn.waits.is_some() => return Ok(()),
            Ok(header) => {
                let under_way = inn.received - inn.granted;
                let fits = under_way.saturating_add(header.cost) <= window(lane);
                // One entry may be larger than the window, alone.
                let alone = under_way == 0 && header.cost <= FRAME_BYTES_MAX as u64;
                if !fits && !alone {
                    return Err(CloseReason::CreditExceeded);
                }
                inn.decoder.decode(batch).and_then(|groups| {
                    let entries: usize = groups.iter().map(|group| group.entries.len()).sum();
                    if fits || entries == 1 {
                        Ok((header, groups))
                    } else {
                        Err(CodecError::TooLarge)
                    }
                })
            }
            Err(error) => Err(error),
        };
        let (header, groups) = match groups {
            Ok(read) => read,
            Err(error) => return self.unreadable(now, lane, header.ok(), error),
        };
        inn.received += header.cost;
        for group in groups {
            let (log, first) = (group.log, group.first);
            self.admit(lane, &log, first, group.entries.len() as u64)?;
            self.account.entries_in += group.entries.len() as u64;
            let credit = group.entries.iter().map(cost).sum::<u64>() as usize;
            let stream = log.stream;
            let entries = group.entries;
            if planted(Bug::HoldsEarly) {
                let sequence = first + entries.len() as u64 - 1;
                self.held(log.clone(), Mark { sequence, ..Mark::default() });
            }
            self.tell_shard(stream, ToShard::Take { lane, log, first, entries, credit });
        }
        Ok(())
    }

    /// A batch cannot be read: once more, and whole.
    fn unreadable(
        &mut self,
        now: Duration,
        lane: Lane,
        header: Option<Header>,
        error: CodecError,
    ) -> Result<(), CloseReason> {
        let Some(line) = self.line(lane) else { return Ok(()) };
        let inn = &mut line.inn;
        let generation = inn.decoder.generation();
        if inn.waits.is_some() {
            return Ok(());
        }
        let whole = generation > 0 && header.is_some_and(|header| header.number == 0);
        inn.resends += 1;
        if whole || inn.resends > RESENDS_MAX {
            return Err(CloseReason::Batch(error));
        }
        let came = |(log, next): (&LogId, &u64)| Row {
            log: log.clone(),
            sequence: next - 1,
            digest: None,
        };
        let fetches = std::mem::take(&mut inn.fetches);
        inn.expected.retain(|log, _| !fetches.contains(log));
        let logs = inn.expected.iter().map(came).collect();
        inn.decoder.restart();
        inn.waits = Some(now);
        let received = inn.received;
        self.effects.push_back(Effect::Report(Report::Resend { lane, inbound: true }));
        self.send(lane, &Frame::Resend { generation, received, logs });
        Ok(())
    }

    /// What follows is of the generation that we asked for.
    fn anew(&mut self, now: Duration, lane: Lane, generation: u8) -> Result<(), CloseReason> {
        let Some(line) = self.line(lane) else { return Ok(()) };
        if line.inn.waits.is_none() || generation != line.inn.decoder.generation() {
            return Err(CloseReason::OutOfPlace { frame: "new generation" });
        }
        line.inn.waits = None;
        self.fetch(now);
        Ok(())
    }

    /// Whether these entries may come on this lane.
    fn admit(
        &mut self,
        lane: Lane,
        log: &LogId,
        first: u64,
        count: u64,
    ) -> Result<(), CloseReason> {
        let peers = log.origin.region == self.config.peer;
        let ours = self.position(log).sequence;
        let told = self.told.get(log).copied().unwrap_or(0);
        let Some(line) = self.line(lane) else { return Ok(()) };
        if !peers && !line.inn.fetches.contains(log) {
            return Err(CloseReason::Unasked { log: log.clone() });
        }
        let expected = match line.inn.expected.get(log) {
            Some(next) => *next,
            // Much is missing, which the bulk lane brings: the live lane is ahead.
            None if lane == Lane::Live && first > told + 1 + FEW => first,
            None => first.min(ours + 1),
        };
        if first != expected {
            return Err(CloseReason::Gap { log: log.clone(), expected, found: first });
        }
        line.inn.expected.insert(log.clone(), first + count);
        Ok(())
    }

    /// The peer does not keep the entries of a log up to here.
    fn skip(&mut self, now: Duration, lane: Lane, log: LogId, to: Mark) -> Result<(), CloseReason> {
        let peers = log.origin.region == self.config.peer;
        let Some(line) = self.line(lane) else { return Ok(()) };
        if line.inn.waits.is_some() {
            return Ok(());
        }
        if to.sequence == u64::MAX || !peers && !line.inn.fetches.contains(&log) {
            return Err(CloseReason::OutOfPlace { frame: "skip" });
        }
        line.inn.expected.insert(log.clone(), to.sequence + 1);
        let skipped = Report::Skipped { log: log.clone(), to: to.sequence, inbound: true };
        self.effects.push_back(Effect::Report(skipped));
        self.tell_shard(log.stream, ToShard::Skip { log, to });
        self.audit.soon(now);
        Ok(())
    }

    fn their_diverged(&mut self, now: Duration, log: LogId) {
        for line in self.lines.iter_mut().flatten() {
            line.inn.fetches.remove(&log);
        }
        if self.diverged.insert(log.clone()) {
            self.effects.push_back(Effect::Report(Report::Diverged { log }));
        }
        self.audit.soon(now);
    }

    /// Shards have let go of what they were given.
    pub(super) fn taken(&mut self, now: Duration, lane: Lane, credit: usize) {
        let Some(line) = self.line(lane) else { return };
        let inn = &mut line.inn;
        // Answers to what came on a socket before this one are not to give this one too much.
        inn.freed += (credit as u64).min(inn.received - inn.freed);
        let little = inn.freed - inn.granted;
        if little >= window(lane) / 4 {
            self.grant(lane);
        } else if little > 0 {
            inn.grant_due.get_or_insert(now + GRANT_AFTER);
        }
    }

    fn grant(&mut self, lane: Lane) {
        let Some(line) = self.line(lane) else { return };
        let inn = &mut line.inn;
        inn.grant_due = None;
        let bytes = inn.freed - inn.granted;
        inn.granted = inn.freed;
        if bytes > 0 {
            self.send(lane, &Frame::Credit { bytes });
        }
    }

    pub(super) fn grant_due(&mut self, now: Duration) {
        for lane in [Lane::Live, Lane::Bulk] {
            if self.line(lane).is_some_and(|line| line.inn.grant_due.is_some_and(|at| at <= now)) {
                self.grant(lane);
            }
        }
    }

    pub(super) fn grants_at(&self) -> Option<Duration> {
        self.lines.iter().flatten().filter_map(|line| line.inn.grant_due).min()
    }

    /// A log is held durably up to here.
    pub(super) fn held(&mut self, log: LogId, mark: Mark) {
        let held = Held { sequence: mark.sequence, digest: Some(mark.digest) };
        self.forgotten.remove(&log);
        let known = self.ours.entry(log.clone()).or_default();
        let before = known.sequence;
        if held.sequence >= known.sequence {
            *known = held;
        }
        // The peer has said so before we held as much, when the shard could make nothing of it.
        if let Some(claimed) = self.theirs.get(&log).copied().filter(|claimed| *claimed > before) {
            self.tell_shard(log.stream, ToShard::Holds { log: log.clone(), sequence: claimed });
        }
        let others = log.origin.region != self.config.peer;
        // The peer has our own entries from ourselves.
        let own = log.origin.region == self.config.me && log.origin.epoch == self.config.epoch;
        // What another region has given back to us of a life that we had lost, this peer may lack.
        let given_back =
            self.phase == Phase::Running && !own && log.origin.region == self.config.me;
        if given_back && self.is_known(&log) {
            self.open_course(&log);
            self.open_bulk_courses();
        }
        if self.phase >= Phase::Told && !own {
            self.holds_due[usize::from(others)].insert(log, mark.sequence);
        }
    }

    /// Tells the peer what we hold, if it is time.
    pub(super) fn tell_holds(&mut self, now: Duration) {
        if self.phase != Phase::Running {
            return;
        }
        for which in [0, 1] {
            if self.holds_at_of(which).is_none_or(|at| at > now) {
                continue;
            }
            self.holds_sent[which] = Some(now);
            let row = |(log, sequence)| Row { log, sequence, digest: None };
            let rows = std::mem::take(&mut self.holds_due[which]).into_iter().map(row).collect();
            self.send(Lane::Live, &Frame::Holds(rows));
            for lane in [Lane::Live, Lane::Bulk] {
                let much =
                    |inn: &Inbound| inn.grant_due.is_some() && inn.freed - inn.granted >= GRANT_MIN;
                if self.lines[index(lane)].as_ref().is_some_and(|line| much(&line.inn)) {
                    self.grant(lane);
                }
            }
        }
    }

    fn holds_at_of(&self, which: usize) -> Option<Duration> {
        let every = [self.config.limits.holds_every, self.config.limits.others_every][which];
        let at = self.holds_sent[which].map_or(Duration::ZERO, |at| at + every);
        (!self.holds_due[which].is_empty() && self.phase == Phase::Running).then_some(at)
    }

    pub(super) fn holds_at(&self) -> Option<Duration> {
        [self.holds_at_of(0), self.holds_at_of(1)].into_iter().flatten().min()
    }
}
