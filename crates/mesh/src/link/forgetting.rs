//! Logs that are forgotten: those of processes that are no more, once every region has held them to the
//! end. They are named in no vector, so that a vector does not grow with every start of every region.
//!
//! A shard decides that a log of its region is forgotten, and its links say so to whoever has named it:
//! at once if the link is up, else when the next vector names it. Whoever hears that forgets it, too, and
//! says so in turn. Nobody concludes anything from a log *not* being named, for that may be because it
//! was lost.
//!
//! The first [`Frame::Forgotten`] after the vectors answers them, and always comes. Until then a log of
//! ours of an earlier process that the peer has not named is not sent: if ours is a store that was
//! restored, the peer may have forgotten it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Held, Link, Phase, Report};
use crate::exchange::{Lane, ToShard};
use crate::frame::{Frame, Row};
use crate::link::CloseReason;
use crate::origin::{LogId, Mark};

/// How many forgotten logs a link remembers. Whoever names another one is served as if it were not.
const FORGOTTEN_MAX: usize = 1 << 14;

impl Link {
    /// A log is forgotten, here.
    pub(super) fn remember_forgotten(&mut self, log: LogId, last: Mark) {
        if self.forgotten.len() >= FORGOTTEN_MAX {
            self.forgotten.pop_first();
        }
        self.forgotten.insert(log, last);
    }

    /// A shard has forgotten a log.
    pub(super) fn forgot(&mut self, now: Duration, log: &LogId, last: Mark) {
        self.ours.remove(log);
        for line in self.lines.iter_mut().flatten() {
            line.out.drop_course(log);
        }
        self.holds_due.iter_mut().for_each(|due| {
            due.remove(log);
        });
        self.account.forgot(log);
        let named = self.theirs.get(log).copied().unwrap_or(0);
        if named <= last.sequence {
            self.theirs.remove(log);
        }
        self.remember_forgotten(log.clone(), last);
        if self.phase == Phase::Running && (1..=last.sequence).contains(&named) {
            let (sequence, digest) = (last.sequence, Some(last.digest));
            self.forgotten_due.push(Row { log: log.clone(), sequence, digest });
            self.forgotten_at.get_or_insert(now + self.config.limits.holds_every);
        }
    }

    /// Tells the peer what is forgotten, if it is time.
    pub(super) fn tell_forgotten(&mut self, now: Duration) {
        if self.forgotten_at.is_none_or(|at| at > now) {
            return;
        }
        self.forgotten_at = None;
        let rows = std::mem::take(&mut self.forgotten_due);
        if self.phase == Phase::Running {
            self.send(Lane::Live, &Frame::Forgotten(rows));
        }
    }

    /// What of that which the peer names is forgotten here.
    pub(super) fn forgotten_of(&mut self, now: Duration, rows: &[Row]) -> Vec<Row> {
        let mut forgotten = Vec::new();
        for row in rows {
            let Some(last) = self.forgotten.get(&row.log) else { continue };
            if row.sequence > last.sequence {
                continue;
            }
            if row.sequence < last.sequence {
                // It held more once; what it lost is not kept any more.
                self.skipped.insert(row.log.clone(), last.sequence);
                self.alike = false;
                self.audit.soon(now);
            }
            let (sequence, digest) = (last.sequence, Some(last.digest));
            forgotten.push(Row { log: row.log.clone(), sequence, digest });
        }
        forgotten
    }

    /// The peer has forgotten logs.
    pub(super) fn their_forgotten(
        &mut self,
        now: Duration,
        rows: Vec<Row>,
    ) -> Result<(), CloseReason> {
        if self.phase != Phase::Running {
            return Err(CloseReason::OutOfPlace { frame: "forgotten log" });
        }
        for Row { log, sequence, digest } in rows {
            let Some(digest) = digest.filter(|_| sequence < u64::MAX) else {
                return Err(CloseReason::OutOfPlace { frame: "forgotten log" });
            };
            let living =
                log.origin.region == self.config.me && log.origin.epoch == self.config.epoch;
            let Some(Held { sequence: held, .. }) = self.ours.get(&log).copied() else { continue };
            if living {
                continue;
            }
            // It wants nothing of it up to there. Whether it holds all that itself, it does not say.
            for line in self.lines.iter_mut().flatten() {
                line.out.drop_course(&log);
            }
            let known = self.theirs.entry(log.clone()).or_default();
            *known = sequence.min(held).max(*known);
            if held < sequence {
                let skipped = Report::Skipped { log: log.clone(), to: sequence, inbound: true };
                self.effects.push_back(super::Effect::Report(skipped));
                self.audit.soon(now);
            }
            if log.origin.region != self.config.me {
                self.theirs.remove(&log);
            }
            let last = Mark { sequence, digest };
            self.tell_shard(log.stream, ToShard::Forgotten { log, last });
        }
        if !self.answered {
            self.answered = true;
            self.open_own_courses();
        }
        Ok(())
    }

    /// Begins to bring the peer our own logs, those of earlier processes only if it is known how far it
    /// holds them.
    pub(super) fn open_own_courses(&mut self) {
        let own: Vec<LogId> = (self.ours.keys())
            .filter(|log| log.origin.region == self.config.me && self.is_known(log))
            .cloned()
            .collect();
        for log in own {
            self.open_course(&log);
        }
        self.open_bulk_courses();
    }

    /// Whether it is known how far the peer holds a log of ours.
    pub(super) fn is_known(&self, log: &LogId) -> bool {
        self.answered || log.origin.epoch == self.config.epoch || self.theirs.contains_key(log)
    }

    /// The peer names what it holds. If that is less than it was, its store is another one or an older
    /// one, and what it once said of logs that are forgotten is true no more.
    pub(super) fn note_going_back(&mut self, rows: &[Row]) {
        let named: BTreeMap<&LogId, u64> =
            rows.iter().map(|row| (&row.log, row.sequence)).collect();
        let went_back = (self.theirs.iter())
            .filter(|(log, _)| log.origin.region == self.config.me && self.ours.contains_key(log))
            .any(|(log, held)| named.get(log).copied().unwrap_or(0) < *held);
        if went_back {
            self.goes_back();
        }
    }

    pub(super) fn goes_back(&mut self) {
        self.went_back = true;
        self.alike = false;
    }
}
