//! Logs of third regions, from whoever has them: while we do not reach a region ourselves, the peer is
//! asked for what it holds of that region's logs. So is it for logs of our own region that we have lost.

use std::time::Duration;

use model::RegionName;

use super::lanes::CloseReason;
use super::{Link, Phase, index};
use crate::exchange::Lane;
use crate::frame::Frame;
use crate::origin::LogId;
use crate::planted::{Bug, planted};

/// How many logs are fetched at once over one link.
const FETCHES_MAX: usize = 64;

impl Link {
    pub(super) fn reachable(&mut self, now: Duration, region: RegionName, up: bool) {
        let known = self.reach.entry(region).or_insert((up, now));
        if known.0 != up {
            *known = (up, now);
        }
        if !up && self.phase == Phase::Running {
            let at = now + self.config.limits.relay_after;
            self.relay_due = Some(self.relay_due.map_or(at, |due| due.min(at)));
        }
    }

    /// Asks the peer for what we lack and nobody else brings.
    pub(super) fn fetch(&mut self, now: Duration) {
        if self.phase != Phase::Running {
            return;
        }
        let Some(bulk) = self.lines[index(Lane::Bulk)].as_ref() else { return };
        if !bulk.inn.is_sound() {
            return;
        }
        let mut wanted = Vec::new();
        let mut later: Option<Duration> = None;
        for (log, sequence) in &self.theirs {
            let held = self.position(log);
            // What has come and is not durable yet need not come again.
            let came = bulk.inn.expected.get(log).map_or(0, |next| next - 1);
            let from = held.sequence.max(came) + 1;
            let lacks = *sequence >= from && !self.diverged.contains(log);
            if !lacks || bulk.inn.fetches.contains(log) {
                continue;
            }
            match self.fetch_at(log) {
                Some(at) if at <= now => {
                    let digest =
                        held.digest.filter(|_| held.sequence > 0 && held.sequence + 1 == from);
                    wanted.push((log.clone(), from, digest));
                }
                Some(at) => later = Some(later.map_or(at, |known| known.min(at))),
                None => {}
            }
        }
        if let Some(at) = later {
            self.relay_due = Some(self.relay_due.map_or(at, |due| due.min(at)));
        }
        for (log, from, digest) in wanted {
            let Some(bulk) = self.line(Lane::Bulk) else { return };
            if bulk.inn.fetches.len() >= FETCHES_MAX {
                return;
            }
            bulk.inn.fetches.insert(log.clone());
            bulk.inn.expected.insert(log.clone(), from);
            if !planted(Bug::DropsFetch) {
                self.send(Lane::Bulk, &Frame::Fetch { log, from, digest });
            }
        }
    }

    /// From when on a log is fetched from this peer; never, if somebody else brings it.
    fn fetch_at(&self, log: &LogId) -> Option<Duration> {
        let region = &log.origin.region;
        if *region == self.config.peer {
            return None;
        }
        if *region == self.config.me {
            // Another life of ours, which this store knows less of: a backup was restored.
            return (log.origin.epoch != self.config.epoch).then_some(Duration::ZERO);
        }
        let (up, since) = self.reach.get(region).copied().unwrap_or((false, self.running_since));
        (!up).then_some(since + self.config.limits.relay_after)
    }

    /// That was all that the peer has of a log.
    pub(super) fn served(
        &mut self,
        now: Duration,
        lane: Lane,
        log: &LogId,
        through: u64,
    ) -> Result<(), CloseReason> {
        let Some(line) = self.line(lane) else { return Ok(()) };
        if !line.inn.is_sound() {
            return Ok(());
        }
        if !line.inn.fetches.remove(log) {
            return Err(CloseReason::OutOfPlace { frame: "served" });
        }
        // It may have claimed more than it has; the next word of what it holds will tell.
        if let Some(claimed) = self.theirs.get_mut(log) {
            *claimed = (*claimed).min(through);
        }
        self.fetch(now);
        Ok(())
    }
}
