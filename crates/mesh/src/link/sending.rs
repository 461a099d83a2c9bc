//! What is sent: which log a lane goes on with, as its credit and its socket allow.
//!
//! For each log that it brings to the peer, a lane has a [`Course`]. A log of ours of which the peer
//! lacks little goes on where the peer is, on the live lane. If it lacks much, the live lane starts at
//! our end, and the bulk lane brings what was before: a keystroke does not wait for a backfill.
//!
//! New entries go out as they are published only if they are exactly the next ones of their log for
//! this peer and nothing is in the way. Otherwise the log is behind, and read when there is room.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::lanes::CloseReason;
use super::{Effect, Held, Link, Phase, Report, index};
use crate::codec::{Encoder, Group, cost};
use crate::exchange::{Lane, ToShard};
use crate::frame::{Frame, Row};
use crate::origin::{Digest, Entry, LogId, Mark};
use crate::planted::{Bug, planted};

/// If the peer lacks no more entries of a log than these, the live lane brings them. Both sides know it.
pub(super) const FEW: u64 = 256;
/// How far the live lane may be ahead of the bulk lane in one log, in entries: what the peer's shards
/// keep beyond a gap.
const AHEAD_MAX: u64 = 32_768;
/// How many reads a lane has under way.
const READS_MAX: usize = 4;
/// No less is read at once while anything is under way.
const READ_BYTES_MIN: u64 = 16 << 10;
/// How many logs a peer may be fetching from us.
pub(super) const FETCHED_MAX: usize = 1_024;
/// How many logs one lane may know of: so many as a region may name, and those that were fetched.
const COURSES_MAX: usize = u16::MAX as usize + FETCHED_MAX;
/// How often a socket may fail to bring a batch over.
pub(super) const RESENDS_MAX: u8 = 16;

/// What may be under way on a lane, in bytes as the codec counts them, until the receiver has it
/// durably. Part of the protocol: both sides count.
///
/// What is under way on the bulk lane, and no longer on the wire, is in front of somebody's keystroke in
/// the receiving shard: more than this brings a region up to date faster, and what people type in it
/// meanwhile later.
pub const fn window(lane: Lane) -> u64 {
    match lane {
        Lane::Live => 1 << 20,
        Lane::Bulk => 2 << 20,
    }
}

/// How one lane brings one log.
struct Course {
    /// The first entry that it is to bring.
    start: u64,
    /// The next one.
    next: u64,
    /// The last one; none for a log that goes on.
    until: Option<u64>,
    /// The peer's digest of what is before `next`, until it is compared.
    digest: Option<Digest>,
    /// It has to be compared though there is nothing to bring.
    suspect: bool,
    /// The peer asked for it; it ends where the log does.
    fetched: bool,
    done: bool,
    reading: Option<Reading>,
}

/// What a shard is reading.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// From this entry on.
    from: u64,
    /// The credit that is set aside for it.
    reserved: u64,
}

impl Course {
    fn new(start: u64, until: Option<u64>, digest: Option<Digest>) -> Self {
        Self {
            start,
            next: start,
            until,
            digest,
            suspect: false,
            fetched: false,
            done: false,
            reading: None,
        }
    }

    /// Whether there is more to read, in a log that ends at `end`.
    fn wants(&self, end: u64) -> bool {
        let more = self.fetched || self.suspect || self.next <= self.until.unwrap_or(end).min(end);
        more && !self.done && self.reading.is_none()
    }
}

/// The sending side of one socket.
pub(super) struct Outbound {
    encoder: Encoder,
    courses: BTreeMap<LogId, Course>,
    /// The log that was read last.
    turn: Option<LogId>,
    /// What was sent, and what of it was given back.
    sent: u64,
    freed: u64,
    /// What is set aside for reads.
    reserved: u64,
    /// A log whose next entry needs the whole window.
    big: Option<LogId>,
    /// New entries that wait for the end of the batch window. They count as sent.
    gathered: Vec<Group<Arc<[Entry]>>>,
    gathered_bytes: u64,
    last_batch: Option<Duration>,
    resends: u8,
}

impl Outbound {
    pub(super) fn new() -> Self {
        Self {
            encoder: Encoder::new(),
            courses: BTreeMap::new(),
            turn: None,
            sent: 0,
            freed: 0,
            reserved: 0,
            big: None,
            gathered: Vec::new(),
            gathered_bytes: 0,
            last_batch: None,
            resends: 0,
        }
    }

    /// A shard has read what was asked of it, from this entry on. Not so if that was asked for a socket
    /// that is no more: then another answer is under way.
    fn has_read(&mut self, log: &LogId, from: u64) -> bool {
        let course = self.courses.get_mut(log);
        let reading = course.and_then(|it| it.reading.take_if(|reading| reading.from == from));
        self.reserved -= reading.map_or(0, |reading| reading.reserved);
        reading.is_some()
    }

    pub(super) fn drop_course(&mut self, log: &LogId) {
        if let Some(course) = self.courses.remove(log) {
            self.reserved -= course.reading.map_or(0, |reading| reading.reserved);
        }
        self.big.take_if(|big| big == log);
    }

    /// Whether it is bringing ranges that will end.
    pub(super) fn is_busy(&self) -> bool {
        let busy = |course: &Course| {
            !course.done && (course.fetched || course.until.is_some_and(|end| course.next <= end))
        };
        self.courses.values().any(busy)
    }

    /// How much the peer has taken in.
    pub(super) fn freed(&self) -> u64 {
        self.freed
    }

    /// Whether anything is with the peer that it has not taken in.
    pub(super) fn is_under_way(&self) -> bool {
        self.in_flight() > 0
    }

    fn in_flight(&self) -> u64 {
        self.sent - self.freed
    }

    fn credit(&self, lane: Lane) -> u64 {
        window(lane).saturating_sub(self.in_flight() + self.reserved)
    }

    /// Whether nothing is under way, so that one entry of any size may be sent.
    fn is_idle(&self) -> bool {
        self.in_flight() == 0 && self.reserved == 0
    }

    fn reads(&self) -> usize {
        self.courses.values().filter(|course| course.reading.is_some()).count()
    }
}

impl Link {
    /// Begins to bring a log of ours on the live lane.
    pub(super) fn open_course(&mut self, log: &LogId) {
        if self.diverged.contains(log) {
            return;
        }
        let end = self.ours.get(log).copied().unwrap_or_default();
        let held = self.theirs.get(log).copied().filter(|_| !planted(Bug::IgnoresVector));
        let held = held.unwrap_or(0);
        let current = log.origin.epoch == self.config.epoch;
        let digest = self.their_digests.get(log).filter(|(at, _)| *at == held);
        let digest = digest.map(|(_, digest)| *digest);
        let same = held == end.sequence && end.digest.is_some() && digest == end.digest;
        let suspect = held == end.sequence && end.digest.is_some() && digest.is_some() && !same;
        if held >= end.sequence && !current && !suspect {
            return;
        }
        let lacks = end.sequence.saturating_sub(held);
        let mut course = if lacks <= FEW {
            Course::new(held + 1, None, digest.filter(|_| !same))
        } else {
            Course::new(end.sequence + 1, None, None)
        };
        course.suspect = suspect;
        if let Some(line) = self.line(Lane::Live) {
            line.out.courses.entry(log.clone()).or_insert(course);
        }
    }

    /// Begins to bring, on the bulk lane, what the live lane left out.
    pub(super) fn open_bulk_courses(&mut self) {
        let Some(live) = &self.lines[0] else { return };
        let mut courses = Vec::new();
        for (log, course) in &live.out.courses {
            let held = self.theirs.get(log).copied().unwrap_or(0);
            if held + 1 < course.start {
                let digest = self.their_digests.get(log).filter(|(at, _)| *at == held);
                let digest = digest.map(|(_, digest)| *digest);
                courses.push((log.clone(), Course::new(held + 1, Some(course.start - 1), digest)));
            }
        }
        if let Some(line) = self.line(Lane::Bulk) {
            for (log, course) in courses {
                line.out.courses.entry(log).or_insert(course);
            }
        }
    }

    /// Whether the live lane leaves something to the bulk lane that the peer does not hold yet.
    pub(super) fn leaves_out(&self) -> bool {
        let Some(live) = &self.lines[index(Lane::Live)] else { return false };
        (live.out.courses.iter())
            .any(|(log, course)| self.theirs.get(log).copied().unwrap_or(0) + 1 < course.start)
    }

    /// The peer wants a log that is not ours.
    pub(super) fn fetched(
        &mut self,
        lane: Lane,
        log: LogId,
        from: u64,
        digest: Option<Digest>,
    ) -> Result<(), CloseReason> {
        let own = log.origin.region == self.config.me;
        let Some(line) = self.line(lane) else { return Ok(()) };
        let courses = &line.out.courses;
        let fetching = courses.values().filter(|it| it.fetched && !it.done).count();
        let many = fetching >= FETCHED_MAX || courses.len() >= COURSES_MAX;
        if lane != Lane::Bulk || own || from == 0 || many {
            return Err(CloseReason::OutOfPlace { frame: "fetch" });
        }
        line.out.drop_course(&log);
        let course = Course { fetched: true, ..Course::new(from, None, digest) };
        line.out.courses.insert(log, course);
        Ok(())
    }

    /// New entries of one of our logs are durable.
    pub(super) fn published(
        &mut self,
        now: Duration,
        log: LogId,
        first: u64,
        entries: Arc<[Entry]>,
    ) {
        let Some(more) = (entries.len() as u64).checked_sub(1) else { return };
        let last = first + more;
        let held = self.ours.entry(log.clone()).or_default();
        if held.sequence < last {
            *held = Held { sequence: last, digest: None };
        }
        self.account.note_end(now, &self.config.me, &log, last);
        if self.phase != Phase::Running {
            return;
        }
        if !self.lines[0].as_ref().is_some_and(|line| line.out.courses.contains_key(&log)) {
            self.open_course(&log);
            self.open_bulk_courses();
        }
        let ahead = self.is_too_far_ahead(&log);
        let limits = &self.config.limits;
        let (room, batch_bytes) = (limits.live_room_bytes, limits.batch_bytes as u64);
        let Some(line) = self.lines[0].as_mut() else { return };
        let out = &mut line.out;
        let credit = out.credit(Lane::Live);
        let Some(course) = out.courses.get_mut(&log) else { return };
        let cost: u64 = entries.iter().map(cost).sum();
        let is_next = course.next == first && course.digest.is_none() && course.reading.is_none();
        let is_free = out.big.is_none() && line.queued < room && cost <= credit && !ahead;
        if !is_next || !is_free {
            return;
        }
        if !planted(Bug::SendsTwice) {
            course.next = last + 1;
        }
        out.sent += cost;
        out.gathered_bytes += cost;
        out.gathered.push(Group { log, first, entries });
        if out.gathered_bytes >= batch_bytes || self.gathering_until().is_some_and(|at| at <= now) {
            self.send_gathered(now);
        }
    }

    /// When what is gathered is to be sent: at once after a pause.
    pub(super) fn gathering_until(&self) -> Option<Duration> {
        let out = &self.lines[0].as_ref()?.out;
        let last = out.last_batch.map_or(Duration::ZERO, |at| at + self.config.limits.batch_window);
        (!out.gathered.is_empty()).then_some(last)
    }

    pub(super) fn send_gathered(&mut self, now: Duration) {
        let Some(line) = self.line(Lane::Live) else { return };
        let mut groups = std::mem::take(&mut line.out.gathered);
        if groups.is_empty() {
            return;
        }
        line.out.gathered_bytes = 0;
        line.out.last_batch = Some(now);
        // Stretches of one log follow each other, in their order.
        groups.sort_by(|one, other| one.log.cmp(&other.log));
        let batch = line.out.encoder.encode(&groups);
        let count = groups.iter().map(|group| group.entries.len()).sum::<usize>();
        self.account.entries(count, batch.cost, batch.bytes.len());
        self.send(Lane::Live, &Frame::Entries(batch.bytes));
    }

    /// A shard has read entries.
    pub(super) fn entries(
        &mut self,
        now: Duration,
        lane: Lane,
        log: &LogId,
        first: u64,
        entries: &[Entry],
    ) {
        let Some(line) = self.lines[index(lane)].as_mut() else { return };
        let out = &mut line.out;
        if !out.has_read(log, first) {
            return;
        }
        let Some(course) = out.courses.get_mut(log) else { return };
        if first != course.next || course.done {
            return;
        }
        course.digest = None;
        course.suspect = false;
        if entries.is_empty() {
            let through = course.next - 1;
            if course.fetched {
                course.done = true;
                return self.send(lane, &Frame::Served { log: log.clone(), through });
            }
            // The shard knows best where its log ends.
            let held = self.ours.entry(log.clone()).or_default();
            held.sequence = held.sequence.min(through);
            return;
        }
        let wanted = course.until.map_or(u64::MAX, |until| (until + 1).saturating_sub(first));
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX).min(entries.len());
        let credit = out.credit(lane);
        let mut total = 0;
        let fit = entries[..wanted].iter().take_while(|entry| {
            total += cost(entry);
            total <= credit
        });
        let mut fit = fit.count();
        if fit == 0 {
            if !out.is_idle() {
                out.big = Some(log.clone());
                return;
            }
            fit = 1;
        }
        out.big.take_if(|big| big == log);
        let Some(course) = out.courses.get_mut(log) else { return };
        course.next = first + fit as u64;
        if lane == Lane::Live {
            // What was gathered is older.
            self.send_gathered(now);
        }
        let Some(line) = self.line(lane) else { return };
        let group = Group { log: log.clone(), first, entries: &entries[..fit] };
        let batch = line.out.encoder.encode(&[group]);
        line.out.sent += batch.cost;
        self.account.entries(fit, batch.cost, batch.bytes.len());
        self.send(lane, &Frame::Entries(batch.bytes));
    }

    /// What a shard was to read is not kept any more.
    pub(super) fn trimmed(&mut self, now: Duration, lane: Lane, log: &LogId, from: u64, to: Mark) {
        let Some(line) = self.line(lane) else { return };
        let out = &mut line.out;
        if !out.has_read(log, from) {
            return;
        }
        let Some(course) = out.courses.get_mut(log) else { return };
        if to.sequence < course.next {
            // Nothing that helps: a later vector will.
            course.done = true;
            return;
        }
        course.next = to.sequence + 1;
        (course.digest, course.suspect) = (None, false);
        let skipped = Report::Skipped { log: log.clone(), to: to.sequence, inbound: false };
        self.effects.push_back(Effect::Report(skipped));
        self.send(lane, &Frame::Skip { log: log.clone(), to });
        self.skipped.insert(log.clone(), to.sequence);
        self.alike = false;
        self.audit.soon(now);
    }

    /// The peer gives credit back.
    pub(super) fn credited(&mut self, lane: Lane, bytes: u64) -> Result<(), CloseReason> {
        let Some(line) = self.line(lane) else { return Ok(()) };
        if bytes > line.out.in_flight() {
            return Err(CloseReason::EndlessCredit);
        }
        line.out.freed += bytes;
        Ok(())
    }

    /// The peer could not read a batch: the lane begins anew where it came to.
    pub(super) fn resend(
        &mut self,
        lane: Lane,
        generation: u8,
        received: u64,
        rows: &[Row],
    ) -> Result<(), CloseReason> {
        let wrong = CloseReason::OutOfPlace { frame: "resend" };
        let Some(line) = self.line(lane) else { return Ok(()) };
        let out = &mut line.out;
        out.resends += 1;
        let sound = generation == out.encoder.generation()
            && (out.freed..=out.sent).contains(&received)
            && out.resends <= RESENDS_MAX;
        if !sound {
            return Err(wrong);
        }
        out.encoder.restart();
        out.gathered.clear();
        out.gathered_bytes = 0;
        out.sent = received;
        // What was fetched is fetched again.
        let fetched: Vec<LogId> = (out.courses.iter())
            .filter(|(_, course)| course.fetched)
            .map(|(log, _)| log.clone())
            .collect();
        for log in fetched {
            out.drop_course(&log);
        }
        let came: BTreeMap<&LogId, u64> = rows.iter().map(|row| (&row.log, row.sequence)).collect();
        for (log, course) in &mut out.courses {
            let next = came.get(log).map_or(course.start, |sequence| sequence.saturating_add(1));
            if next > course.next {
                return Err(wrong);
            }
            course.next = next.max(1);
            course.done = false;
        }
        let generation = out.encoder.generation();
        self.effects.push_back(Effect::Report(Report::Resend { lane, inbound: false }));
        self.send(lane, &Frame::Anew { generation });
        Ok(())
    }

    /// Reads what is behind, as far as there is room.
    pub(super) fn pump(&mut self) {
        if self.phase != Phase::Running {
            return;
        }
        for lane in [Lane::Live, Lane::Bulk] {
            while let Some((log, bytes)) = self.next_read(lane) {
                let Some(line) = self.line(lane) else { break };
                let out = &mut line.out;
                let Some(course) = out.courses.get_mut(&log) else { break };
                let (from, digest) = (course.next, course.digest);
                course.reading = Some(Reading { from, reserved: bytes });
                out.reserved += bytes;
                out.turn = Some(log.clone());
                let (stream, bytes_max) = (log.stream, bytes as usize);
                self.tell_shard(stream, ToShard::Read { lane, log, from, bytes_max, digest });
            }
        }
    }

    /// Which log to read next, and how much of it.
    fn next_read(&self, lane: Lane) -> Option<(LogId, u64)> {
        let limits = &self.config.limits;
        let line = self.lines[index(lane)].as_ref()?;
        let room = match lane {
            Lane::Live => limits.live_room_bytes,
            Lane::Bulk => limits.bulk_room_bytes,
        };
        let (out, credit) = (&line.out, line.out.credit(lane));
        let reads = out.reads();
        if line.queued >= room || reads >= READS_MAX {
            return None;
        }
        if let Some(big) = &out.big {
            return out.is_idle().then(|| (big.clone(), 1));
        }
        if credit < READ_BYTES_MIN && !out.is_idle() {
            return None;
        }
        let bytes = credit.min(limits.read_bytes as u64).max(1);
        let wants = |(log, course): &(&LogId, &Course)| {
            let end = self.ours.get(*log).map_or(0, |held| held.sequence);
            course.wants(end) && (lane == Lane::Bulk || !self.is_too_far_ahead(log))
        };
        // In turn: after the one that was read last.
        let after = out.turn.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let later = out.courses.range((after, Bound::Unbounded)).find(wants);
        let (log, _) = later.or_else(|| out.courses.iter().find(wants))?;
        Some((log.clone(), bytes))
    }

    /// Whether the live lane has to wait for the bulk lane in a log.
    fn is_too_far_ahead(&self, log: &LogId) -> bool {
        let course = self.lines[0].as_ref().and_then(|line| line.out.courses.get(log));
        course.is_some_and(|course| {
            let held = self.theirs.get(log).copied().unwrap_or(0);
            held + 1 < course.start && course.next - course.start >= AHEAD_MAX
        })
    }
}
