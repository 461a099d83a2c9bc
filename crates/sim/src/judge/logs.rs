//! The judge's own books of the origin logs: what was said once about a place in a log stays true.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use automerge::ChangeHash;
use mesh::{Entry, Item, LogId, Mark};
use model::DocumentId;
use node::mesh_rows;
use store::Store;

use super::{Hashes, Judge, Law, hash};

/// What is known of all logs, and of what went over which link.
#[derive(Debug, Default)]
pub(super) struct Logs {
    known: BTreeMap<LogId, Vec<Line>>,
    /// From where, to where.
    crossed: BTreeMap<(usize, usize), Crossed>,
    /// In which log a change is.
    numbered: BTreeMap<ChangeHash, LogId>,
    /// How far a region has ever held a log durably.
    ever: BTreeMap<(usize, LogId), u64>,
    /// Into which region, over whichever link.
    entered: BTreeMap<(usize, LogId, u64), usize>,
}

/// One entry of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    document: DocumentId,
    hash: ChangeHash,
    dead: bool,
    /// With all before it.
    mark: Mark,
}

/// One direction of a link.
#[derive(Debug, Default)]
struct Crossed {
    /// Counts the connections under it: what was on its way in one is sent again in the next.
    session: u64,
    /// What the receiver said that it holds when the link came up.
    told: BTreeMap<LogId, u64>,
    /// In which session an entry went over it.
    by: BTreeMap<(LogId, u64), u64>,
}

impl Judge {
    /// A region says that these are new entries of a log of its own, durable. `quiet`: nothing goes
    /// wrong in this run, so nobody hands the same change to two regions.
    pub(crate) fn published(
        &mut self,
        node: usize,
        log: &LogId,
        first: u64,
        entries: &[Entry],
        quiet: bool,
    ) {
        if log.origin.region != crate::regions::name(node) {
            let what = format!("region {node} publishes entries of {log}");
            self.broken(Law::LogsNeverChange, what);
        }
        for entry in entries {
            if let Item::Change(change) = &entry.item {
                let hash = hash(&change.hash());
                let numbered = self.logs.numbered.entry(hash).or_insert_with(|| log.clone());
                if quiet && *numbered != *log {
                    let what =
                        format!("{hash} is in {numbered}, and region {node} numbers it again");
                    self.broken(Law::EachChangeCrossesOnce, what);
                }
                let durable = self.nodes[node].durable.get(&entry.document);
                if !durable.is_some_and(|durable| durable.contains(&hash)) {
                    let what = format!("{hash} of {} goes out and is not durable", entry.document);
                    self.broken(Law::NothingBeforeItIsDurable, what);
                }
            }
        }
        self.given(node, log, first, entries);
    }

    /// A region gives entries of a log to another.
    pub(crate) fn given(&mut self, node: usize, log: &LogId, first: u64, entries: &[Entry]) {
        let known = self.logs.known.entry(log.clone()).or_default();
        for (sequence, entry) in (first..).zip(entries) {
            let at = sequence as usize;
            let before = if at > 1 { known.get(at - 2).map(|line| line.mark) } else { None };
            let mark = match (at, before) {
                (1, _) => Mark::default(),
                (_, Some(mark)) => mark,
                _ => {
                    let what =
                        format!("region {node} has entry {at} of {log}, whose end is before");
                    return self.broken(Law::LogsNeverChange, what);
                }
            };
            let line = Line {
                document: entry.document.clone(),
                hash: hash(&entry.hash()),
                dead: matches!(entry.item, Item::Dead { .. }),
                mark: mark.then(entry),
            };
            match known.get(at - 1) {
                None => known.push(line),
                Some(known) if *known == line => {}
                Some(known) => {
                    let what = format!(
                        "region {node} says that entry {at} of {log} is {}, and it was {}",
                        line.hash, known.hash
                    );
                    return self.broken(Law::LogsNeverChange, what);
                }
            }
        }
    }

    /// Entries have come over a link. `quiet`: nothing goes wrong in this run, so each comes once.
    pub(crate) fn arrived(
        &mut self,
        from: usize,
        to: usize,
        log: &LogId,
        first: u64,
        entries: &[Entry],
        quiet: bool,
    ) {
        let known = self.logs.known.get(log).map_or(&[][..], Vec::as_slice);
        let altered = (first..).zip(entries).find(|(sequence, entry)| {
            let line = known.get(*sequence as usize - 1);
            line.is_none_or(|line| line.hash != hash(&entry.hash()))
        });
        if let Some((sequence, entry)) = altered {
            let what = format!(
                "entry {sequence} of {log} is {} when it comes from region {from}",
                entry.hash()
            );
            return self.broken(Law::LogsNeverChange, what);
        }
        let crossed = self.logs.crossed.entry((from, to)).or_default();
        let told = crossed.told.get(log).copied().unwrap_or(0);
        let mut again = None;
        for (sequence, _) in (first..).zip(entries) {
            let key = (log.clone(), sequence);
            if crossed.by.insert(key, crossed.session) == Some(crossed.session) {
                again = Some(format!("entry {sequence} of {log} came twice from {from} to {to}"));
            } else if sequence <= told {
                again =
                    Some(format!("{to} said that it holds {sequence} of {log}; {from} sent it"));
            }
            let entered = self.logs.entered.entry((to, log.clone(), sequence)).or_default();
            *entered += 1;
            if quiet && *entered > 1 {
                again = Some(format!("entry {sequence} of {log} came to {to} over two links"));
            }
        }
        if let Some(what) = again.filter(|_| !self.resends) {
            self.broken(Law::EachChangeCrossesOnce, what);
        }
    }

    /// A link came up at one end: `to` will say what it holds.
    pub(crate) fn link_came_up(&mut self, from: usize, to: usize) {
        let crossed = self.logs.crossed.entry((from, to)).or_default();
        crossed.session += 1;
        crossed.told.clear();
    }

    /// A connection between two regions came or went: what was under way in it is sent again.
    pub(crate) fn lane_changed(&mut self, from: usize, to: usize) {
        self.logs.crossed.entry((from, to)).or_default().session += 1;
    }

    /// `to` tells `from` how far it holds logs, as the link between them comes up.
    pub(crate) fn vector_told(
        &mut self,
        from: usize,
        to: usize,
        marks: &[(LogId, Mark)],
        forgotten: &[(LogId, Mark)],
    ) {
        for (log, mark) in marks {
            self.held(to, log, mark);
        }
        // What is forgotten was held. But who had forgotten a log does not say so to a region that has
        // just got it from a third one, having lost it.
        let forgotten = forgotten.iter().filter(|_| !self.losses);
        for (log, mark) in marks.iter().chain(forgotten) {
            let crossed = self.logs.crossed.entry((from, to)).or_default();
            crossed.told.insert(log.clone(), mark.sequence);
        }
    }

    /// A region says that it holds a log up to here.
    pub(crate) fn held(&mut self, node: usize, log: &LogId, mark: &Mark) {
        let Some(last) = (mark.sequence as usize).checked_sub(1) else { return };
        let known = self.logs.known.get(log).map_or(&[][..], Vec::as_slice);
        // What a process wrote before it died was told to nobody and is in no book yet.
        if let Some(line) = known.get(last)
            && line.mark.digest != mark.digest
        {
            let what = format!("region {node} holds another {log} up to {}", mark.sequence);
            return self.broken(Law::LogsNeverChange, what);
        }
        let stored = self.nodes[node].logs.entry(log.clone()).or_default();
        let lost = (stored.sound.max(stored.start) + 1..=mark.sequence)
            .find(|sequence| !stored.entries.contains(sequence));
        stored.sound = stored.sound.max(mark.sequence);
        if let Some(sequence) = lost {
            let what = format!(
                "region {node} says that it holds {log} up to {}, and {sequence} is not on its disk",
                mark.sequence
            );
            self.broken(Law::NothingBeforeItIsDurable, what);
        }
    }

    /// A link hears that a region holds a log durably up to here.
    pub(crate) fn claimed(&mut self, node: usize, log: &LogId, sequence: u64) {
        let ever = self.logs.ever.get(&(node, log.clone())).copied().unwrap_or(0);
        if sequence > ever {
            let what = format!("region {node} is said to hold {log} up to {sequence}, not {ever}");
            self.broken(Law::NothingBeforeItIsDurable, what);
        }
    }

    /// A batch has become durable: which entries of which logs are in it.
    pub(super) fn logs_written(&mut self, node: usize, disk: &dyn Store) {
        // Entries behind a gap are written without a mark.
        let known: Vec<LogId> = self.logs.known.keys().cloned().collect();
        match read_logs(disk, known) {
            Ok(logs) => {
                for (log, (held, entries)) in logs {
                    let ever = self.logs.ever.entry((node, log.clone())).or_default();
                    *ever = held.end.sequence.max(*ever);
                    let stored = self.nodes[node].logs.entry(log.clone()).or_default();
                    let trims = held.start.sequence > stored.start;
                    stored.start = stored.start.max(held.start.sequence);
                    if held.end.sequence > 0 {
                        stored.end = held.end.sequence;
                    }
                    stored.entries.extend(entries.into_iter().map(|(sequence, _)| sequence));
                    if trims {
                        self.trims(node, &log, held.start.sequence);
                    }
                    if held.end.sequence > 0 {
                        self.nodes[node].forgotten.remove(&log);
                    }
                }
            }
            Err(error) => self.broken(Law::TheStoreIsWhole, format!("a batch of logs: {error}")),
        }
        match (mesh_rows::forgotten(disk), mesh_rows::logs(disk)) {
            (Ok(forgotten), Ok(held)) => {
                for (log, it) in forgotten {
                    // It may be taken up again in the same batch.
                    if !held.iter().any(|(held, _)| *held == log) {
                        self.forgets(node, log, it.last);
                    }
                }
            }
            _ => self.broken(Law::TheStoreIsWhole, "what is forgotten cannot be read".to_owned()),
        }
    }

    /// The rows of a mesh on a disk agree with each other, with the documents and with the books.
    pub(super) fn check_logs(&mut self, node: usize, disk: &dyn Store, held: &Hashes) {
        self.nodes[node].logs.clear();
        match mesh_rows::forgotten(disk) {
            Ok(logs) => {
                let logs = logs.into_iter().map(|(log, forgotten)| (log, forgotten.last));
                self.nodes[node].forgotten = logs.collect();
            }
            Err(error) => self.broken(Law::TheStoreIsWhole, format!("forgotten logs: {error}")),
        }
        let forgotten = self.nodes[node].forgotten.clone();
        for (log, last) in forgotten {
            let known = self.logs.known.get(&log).map_or(&[][..], Vec::as_slice);
            if known.get(last.sequence as usize - 1).is_none_or(|line| line.mark != last) {
                let what =
                    format!("region {node} has forgotten {log} to {}, not this", last.sequence);
                self.broken(Law::LogsNeverChange, what);
            }
            let left = mesh_rows::delete_rows(disk, &log, 1).map_or(1, |rows| rows.len());
            if left > 0 {
                let what = format!("region {node} has forgotten {log}, and has entries of it");
                self.broken(Law::TheStoreIsWhole, what);
            }
        }
        let logs = match read_logs(disk, Vec::new()) {
            Ok(logs) => logs,
            Err(error) => return self.broken(Law::TheStoreIsWhole, format!("the logs: {error}")),
        };
        for (log, (mark, entries)) in logs {
            if self.nodes[node].forgotten.contains_key(&log) {
                let what = format!("region {node} has forgotten {log}, and holds it");
                return self.broken(Law::TheStoreIsWhole, what);
            }
            for (sequence, entry) in &entries {
                // What a process wrote and told nobody is news to the books.
                self.given(node, &log, *sequence, std::slice::from_ref(entry));
            }
            let known = self.logs.known.get(&log).map_or(&[][..], Vec::as_slice);
            let end = mark.end.sequence;
            if end > 0
                && known.get(end as usize - 1).is_none_or(|l| l.mark.digest != mark.end.digest)
            {
                let what =
                    format!("on the disk of region {node}, {log} up to {end} is another one");
                return self.broken(Law::LogsNeverChange, what);
            }
            let ever = self.logs.ever.entry((node, log.clone())).or_default();
            *ever = end.max(*ever);
            let stored = self.nodes[node].logs.entry(log.clone()).or_default();
            stored.start = mark.start.sequence;
            (stored.end, stored.sound) = (end, end);
            stored.entries.extend(entries.iter().map(|(sequence, _)| *sequence));
            let gap = (mark.start.sequence + 1..=end).find(|at| !stored.entries.contains(at));
            if let Some(sequence) = gap {
                let what = format!("region {node} has {log} up to {end}, but not {sequence}");
                return self.broken(Law::TheStoreIsWhole, what);
            }
            for (sequence, entry) in entries {
                let Item::Change(change) = &entry.item else { continue };
                let waits = || {
                    mesh_rows::waiting(disk, &entry.document)
                        .is_ok_and(|waiting| waiting.iter().any(|w| w.hash() == change.hash()))
                };
                let here = held.get(&entry.document);
                if !here.is_some_and(|here| here.contains(&hash(&change.hash()))) && !waits() {
                    let what = format!(
                        "region {node} has {sequence} of {log}, but {} of {} nowhere else",
                        change.hash(),
                        entry.document
                    );
                    return self.broken(Law::TheStoreIsWhole, what);
                }
            }
        }
    }

    /// Every region holds every log as far as any of them does, or has forgotten it: else nobody could
    /// ever let go of it. And none is left but those that are written.
    pub(crate) fn logs_are_level(&self) -> Result<(), String> {
        for (node, facts) in self.nodes.iter().enumerate() {
            for (log, stored) in facts.logs.iter().filter(|(_, stored)| stored.end > 0) {
                let owner = crate::regions::number(&log.origin.region).map(|at| &self.nodes[at]);
                if owner.is_some_and(|owner| owner.epoch != log.origin.epoch) {
                    return Err(format!("region {node} names {log}, and its process is no more"));
                }
                let behind = self.nodes.iter().enumerate().find_map(|(other, facts)| {
                    let held = facts.logs.get(log).map_or(0, |stored| stored.end);
                    let forgotten = facts.forgotten.get(log).map_or(0, |last| last.sequence);
                    let end = held.max(forgotten);
                    (end < stored.end).then_some((other, end))
                });
                if let Some((other, end)) = behind {
                    let more = stored.end;
                    return Err(format!("{log}: region {other} holds {end}, region {node} {more}"));
                }
            }
        }
        Ok(())
    }

    /// A process of a region starts under this epoch.
    pub(crate) fn starts(&mut self, node: usize, epoch: u64) {
        self.nodes[node].epoch = epoch;
    }

    /// A region forgets a log, which has this end, as everybody has held it.
    fn forgets(&mut self, node: usize, log: LogId, last: Mark) {
        let owner = crate::regions::number(&log.origin.region);
        if owner.is_some_and(|owner| self.nodes[owner].epoch == log.origin.epoch) {
            let what = format!("region {node} forgets {log}, which is still written");
            self.broken(Law::LogsAreKept, what);
        }
        let lacks = |other: &usize| {
            let ever = self.logs.ever.get(&(*other, log.clone())).copied().unwrap_or(0);
            Some(*other) != owner && ever < last.sequence
        };
        if let Some(other) = (0..self.nodes.len()).find(lacks).filter(|_| self.all_known) {
            let what = format!("region {node} forgets {log}; region {other} never held all of it");
            self.broken(Law::LogsAreKept, what);
        }
        let known = self.logs.known.get(&log).map_or(0, Vec::len) as u64;
        if known > last.sequence && !self.losses {
            let what = format!("region {node} forgets {log} at {}; it has {known}", last.sequence);
            self.broken(Law::LogsAreKept, what);
        }
        self.nodes[node].logs.remove(&log);
        self.nodes[node].forgotten.insert(log, last);
    }

    /// A region lets go of entries of a log up to here, or never gets them because others did. Every
    /// other one holds them by then, or did; or the log is longer than it may be.
    fn trims(&mut self, node: usize, log: &LogId, start: u64) {
        let end = self.logs.known.get(log).map_or(0, |known| known.len() as u64);
        let by_bound = start.saturating_add(self.log_entries_max) <= end;
        let late = (0..self.nodes.len()).find(|other| {
            let own = crate::regions::name(*other) == log.origin.region;
            let ever = self.logs.ever.get(&(*other, log.clone())).copied().unwrap_or(0);
            *other != node && !own && ever < start
        });
        if let Some(other) = late.filter(|_| self.all_known && !by_bound) {
            let what =
                format!("region {node} lets go of {log} to {start}; region {other} lacks some");
            self.broken(Law::LogsAreKept, what);
        }
    }
}

/// Which entries of a log are on a disk.
#[derive(Debug, Default)]
pub(super) struct Stored {
    start: u64,
    /// What the mark says.
    end: u64,
    /// Up to here it has been looked at.
    sound: u64,
    entries: BTreeSet<u64>,
}

type ReadLogs = BTreeMap<LogId, (mesh_rows::Held, Vec<(u64, Entry)>)>;

/// The logs with a mark on a disk, and these others.
fn read_logs(disk: &dyn Store, others: Vec<LogId>) -> Result<ReadLogs, String> {
    let text = |error: node::rows::LoadError| error.to_string();
    let mut logs = ReadLogs::new();
    let others = others.into_iter().map(|log| (log, mesh_rows::Held::default()));
    let marked = mesh_rows::logs(disk).map_err(text)?;
    for (log, held) in others.chain(marked) {
        let mut entries = Vec::new();
        mesh_rows::entries(disk, &log, 1, &mut |first, row| {
            entries.extend((first..).zip(row));
            ControlFlow::Continue(())
        })
        .map_err(text)?;
        logs.insert(log, (held, entries));
    }
    Ok(logs)
}
