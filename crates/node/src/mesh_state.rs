//! What a shard knows of the mesh: the logs of its streams, the regions, the sketch of its documents.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow, RangeInclusive};
use std::sync::Arc;

use mesh::exchange::{FromShard, Lane};
use mesh::origin::Item as EntryItem;
use mesh::sketch::Sketch;
use mesh::{Entry, LogId, Mark, Origin};
use model::{DocumentId, RegionName};
use store::{Store, Write};

use crate::mesh_rows::{self, Forgotten, Held, Item};
use crate::planted::{Bug, planted};
use crate::rows::{self, LoadError};
use crate::{BatchId, Effect, SessionId};

/// How many entries of one log may be held beyond a gap, so that keystrokes need not wait for what
/// was missed. What is beyond that is not taken, and comes again.
const AHEAD_MAX: usize = 1 << 16;
/// How many logs are remembered as forgotten, by all shards together: sixteen for each of a thousand
/// processes. One that is not remembered any more and that somebody names, after a backup is restored,
/// is taken in once more.
const FORGOTTEN_MAX: usize = 1 << 14;

/// A node's place in the mesh.
#[derive(Debug, Clone)]
pub struct MeshSetup {
    /// The name of this region.
    pub region: RegionName,
    /// Drawn at random when the process started; never 0.
    pub epoch: u64,
    /// The other regions that are configured: a log is kept until all of them hold it.
    pub regions: Vec<RegionName>,
    /// The same in all regions, and known to nobody else.
    pub salt: u64,
    /// Which shard this is.
    pub shard: usize,
    /// How many shards there are: at most [`mesh::STREAMS`].
    pub shards: usize,
}

/// The mesh as one shard sees it.
pub(crate) struct Mesh {
    pub(crate) setup: MeshSetup,
    origin: Origin,
    pub(crate) logs: BTreeMap<LogId, Log>,
    /// Logs of processes that are no more, which every region has held: they are named to nobody.
    forgotten: BTreeMap<LogId, Forgotten>,
    pub(crate) regions: BTreeMap<RegionName, Region>,
    pub(crate) sketch: Sketch,
    /// Which document an item is of: about 80 bytes for each document.
    pub(crate) items: BTreeMap<u64, DocumentId>,
    /// Questions for items that wait until there is room for more repairs.
    pub(crate) asked_items: Vec<(RegionName, u64, RangeInclusive<u64>)>,
    /// New entries for our own logs, to be numbered with the next batch.
    pub(crate) entries: Vec<Entry>,
    /// What else goes with the next batch.
    pub(crate) staged: Staged,
    /// What is said when a batch is durable.
    batches: BTreeMap<BatchId, Staged>,
    /// Documents whose item has to be made anew.
    pub(crate) changed: BTreeSet<DocumentId>,
    /// The log that was trimmed last.
    trimmed: Option<LogId>,
    last_region: u64,
}

/// One origin log.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// What is durable.
    pub(crate) held: Held,
    /// What was received without a gap.
    pub(crate) received: Mark,
    /// What was received beyond a gap.
    ahead: BTreeMap<u64, Entry>,
    /// Another region has forgotten it, so every one has held it. Its rows go, and then it does.
    finished: bool,
}

/// Another region.
#[derive(Debug)]
pub(crate) struct Region {
    /// Stands for its link among the sessions of this shard.
    pub(crate) session: SessionId,
    pub(crate) up: bool,
    /// How far it holds each log.
    pub(crate) holds: BTreeMap<LogId, u64>,
    /// Documents that clients there have open.
    pub(crate) interest: BTreeSet<DocumentId>,
}

/// What belongs to one batch.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    pub(crate) writes: Vec<Write>,
    published: Vec<(LogId, u64, Arc<[Entry]>)>,
    marks: BTreeMap<LogId, Held>,
    pub(crate) taken: Vec<(RegionName, Lane, usize)>,
    items: Vec<(DocumentId, Option<Item>, Item)>,
    forgotten: Vec<(LogId, Mark)>,
}

impl Mesh {
    /// Reads what the store has.
    pub(crate) fn open(setup: MeshSetup, store: &dyn Store) -> Result<Self, LoadError> {
        let origin = Origin { region: setup.region.clone(), epoch: setup.epoch };
        let mine = |stream: u8| usize::from(stream) % setup.shards == setup.shard;
        let mut logs = BTreeMap::new();
        for (log, held) in mesh_rows::logs(store)? {
            if mine(log.stream) {
                logs.insert(log, Log::at(held));
            }
        }
        let mut forgotten = mesh_rows::forgotten(store)?;
        forgotten.retain(|(log, _)| mine(log.stream));
        let (mut sketch, mut items) = (Sketch::default(), BTreeMap::new());
        mesh_rows::items(store, &mut |document, item| {
            if document.shard(setup.shards) == setup.shard {
                sketch.add(item.item);
                items.insert(item.item, document);
            }
            ControlFlow::Continue(())
        })?;
        let mut mesh = Self {
            origin,
            logs,
            forgotten: forgotten.into_iter().collect(),
            regions: BTreeMap::new(),
            sketch,
            items,
            asked_items: Vec::new(),
            entries: Vec::new(),
            staged: Staged::default(),
            batches: BTreeMap::new(),
            changed: BTreeSet::new(),
            trimmed: None,
            last_region: 0,
            setup,
        };
        for region in mesh.setup.regions.clone() {
            mesh.region(&region);
        }
        mesh.adopt_documents(store)?;
        Ok(mesh)
    }

    /// Documents from before this node was in a mesh have no item yet.
    fn adopt_documents(&mut self, store: &dyn Store) -> Result<(), LoadError> {
        let known: BTreeSet<DocumentId> = self.items.values().cloned().collect();
        let setup = self.setup.clone();
        rows::documents(store, &mut |document, _| {
            if document.shard(setup.shards) == setup.shard && !known.contains(&document) {
                self.changed.insert(document);
            }
            ControlFlow::Continue(())
        })
    }

    /// A region, known from now on if it was not.
    pub(crate) fn region(&mut self, name: &RegionName) -> &mut Region {
        let last = &mut self.last_region;
        self.regions.entry(name.clone()).or_insert_with(|| {
            *last += 1;
            Region {
                session: SessionId(u64::MAX - *last),
                up: false,
                holds: BTreeMap::new(),
                interest: BTreeSet::new(),
            }
        })
    }

    /// Which region a session stands for, if it stands for one.
    pub(crate) fn region_of(&self, session: SessionId) -> Option<&RegionName> {
        self.regions.iter().find(|(_, it)| it.session == session).map(|(name, _)| name)
    }

    /// The sessions that stand for regions whose links are up.
    pub(crate) fn up(&self) -> Vec<SessionId> {
        self.regions.values().filter(|it| it.up).map(|it| it.session).collect()
    }

    /// The regions with clients that have a document open.
    pub(crate) fn interested(&self, document: &DocumentId) -> Vec<RegionName> {
        (self.regions.iter())
            .filter(|(_, it)| it.up && it.interest.contains(document))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// How far this shard holds its logs.
    pub(crate) fn vector(&self) -> FromShard {
        let named = self.logs.iter().filter(|(_, it)| !it.finished);
        let held = named.map(|(log, it)| (log.clone(), it.held.end));
        let forgotten = self.forgotten.iter().map(|(log, it)| (log.clone(), it.last));
        FromShard::Vector { held: held.collect(), forgotten: forgotten.collect() }
    }

    /// Whether a log is one that this process writes.
    pub(crate) fn is_own(&self, log: &LogId) -> bool {
        log.origin == self.origin
    }

    /// Whether a log is of a stream of this shard.
    pub(crate) fn is_here(&self, log: &LogId) -> bool {
        usize::from(log.stream) % self.setup.shards == self.setup.shard
    }

    /// Numbers received entries, and returns those that are new here.
    pub(crate) fn receive(&mut self, log: &LogId, first: u64, entries: Vec<Entry>) -> Vec<Entry> {
        if !self.recall(log, (first + entries.len() as u64).saturating_sub(1)) {
            return Vec::new();
        }
        let state = self.logs.entry(log.clone()).or_default();
        state.finished &= first.saturating_add(entries.len() as u64) <= state.received.sequence + 1;
        let mut new = Vec::with_capacity(entries.len());
        let mut run_first = first;
        let mut run: Vec<Entry> = Vec::new();
        for (sequence, entry) in (first..).zip(entries) {
            let known = sequence <= state.received.sequence || state.ahead.contains_key(&sequence);
            let gap = sequence > state.received.sequence + 1;
            if known || (gap && state.ahead.len() >= AHEAD_MAX) {
                if !run.is_empty() {
                    mesh_rows::put_entries(log, run_first, &run, &mut self.staged.writes);
                    new.append(&mut run);
                }
                continue;
            }
            if gap {
                state.ahead.insert(sequence, entry.clone());
            } else {
                state.received = state.received.then(&entry);
            }
            if run.is_empty() {
                run_first = sequence;
            }
            run.push(entry);
        }
        if !run.is_empty() {
            mesh_rows::put_entries(log, run_first, &run, &mut self.staged.writes);
            new.append(&mut run);
        }
        state.close_gap();
        let held = Held { start: state.held.start, end: state.received };
        if held.end != state.held.end {
            self.staged.marks.insert(log.clone(), held);
        }
        new
    }

    /// The entries of a log up to here are not to be had any more.
    pub(crate) fn skip(&mut self, log: &LogId, to: Mark) {
        if !self.recall(log, to.sequence) {
            return;
        }
        let state = self.logs.entry(log.clone()).or_default();
        if to.sequence <= state.received.sequence {
            return;
        }
        state.finished = false;
        state.received = to;
        state.ahead = state.ahead.split_off(&(to.sequence + 1));
        state.close_gap();
        // Nothing before is whole, so nothing before is given to anyone.
        state.held.start = to;
        let held = Held { start: to, end: state.received };
        self.staged.marks.insert(log.clone(), held);
    }

    /// There are entries up to `upto` of a log. Whether they are worth a look: if the log is forgotten,
    /// only if it goes on after what was taken to be its end, and then it is not forgotten any more.
    fn recall(&mut self, log: &LogId, upto: u64) -> bool {
        match self.forgotten.get(log) {
            None => return true,
            Some(forgotten) if upto <= forgotten.last.sequence => return false,
            Some(_) => {}
        }
        if let Some(Forgotten { last, .. }) = self.forgotten.remove(log) {
            let held = Held { start: last, end: last };
            self.logs.insert(log.clone(), Log::at(held));
            self.staged.writes.push(mesh_rows::delete_forgotten(log));
            self.staged.marks.insert(log.clone(), held);
        }
        true
    }

    /// Another region has forgotten a log, and who has forgotten it knows that every region held it up
    /// to there: nothing of it needs to be kept here. What we lack of it comes by the audit.
    pub(crate) fn finish(&mut self, log: &LogId, last: Mark) {
        if self.is_living(log) {
            return;
        }
        let Some(state) = self.logs.get_mut(log) else { return };
        let other = state.received.sequence == last.sequence && state.received != last;
        let beyond = state.ahead.keys().next_back().is_some_and(|at| *at > last.sequence);
        // Nobody has told the other region of what is here: it is kept, and the log is not forgotten.
        if state.received.sequence > last.sequence || other || beyond || state.finished {
            return;
        }
        state.received = last;
        state.ahead.clear();
        state.held.start = last;
        state.finished = true;
        self.staged.marks.insert(log.clone(), Held { start: last, end: last });
    }

    /// Forgets logs of processes that are no more: those of our own region that every other region has
    /// said to hold to the end, and those that another region says are forgotten.
    ///
    /// Only the region that wrote a log decides, for only it knows that nothing more will be written
    /// and, by having let go of every entry, that nobody will ask for one. A log that it merely does not
    /// name may be one that it has lost. Says whether there is more to do.
    pub(crate) fn forget(&mut self, store: &dyn Store) -> Result<bool, LoadError> {
        if planted(Bug::NeverForgets) {
            return Ok(false);
        }
        if planted(Bug::ForgetsEarly) {
            for (log, last) in
                self.logs.iter().map(|(log, it)| (log.clone(), it.received)).collect::<Vec<_>>()
            {
                if log.origin.region == self.setup.region {
                    self.finish(&log, last);
                }
            }
        }
        let mut room = FORGET_ROWS_AT_ONCE;
        let mut number = self.forgotten.values().map(|it| it.number).max().unwrap_or(0);
        let due: Vec<LogId> = (self.logs.iter())
            .filter(|(log, state)| self.may_forget(log, state))
            .map(|(log, _)| log.clone())
            .collect();
        for log in due {
            if room == 0 {
                break;
            }
            // What is before a gap that was skipped, and what nobody waited for to be let go.
            let mut rows = mesh_rows::delete_rows(store, &log, room)?;
            room -= rows.len();
            if !rows.is_empty() {
                self.staged.writes.append(&mut rows);
                continue;
            }
            room -= 1;
            let Some(state) = self.logs.remove(&log) else { continue };
            let last = state.held.end;
            let own = log.origin.region == self.setup.region;
            let holds =
                |region: &Region| region.holds.get(&log).is_some_and(|it| *it >= last.sequence);
            let held_by = self.regions.iter().filter(|(_, region)| own && holds(region));
            let held_by = held_by.map(|(name, _)| name.clone()).collect();
            number += 1;
            let forgotten = Forgotten { last, number, held_by };
            self.staged.writes.extend(mesh_rows::forget(&log, &forgotten));
            self.staged.forgotten.push((log.clone(), last));
            for region in self.regions.values_mut() {
                region.holds.remove(&log);
            }
            self.forgotten.insert(log, forgotten);
        }
        while self.forgotten.len() > FORGOTTEN_MAX / self.setup.shards {
            let oldest = self.forgotten.iter().min_by_key(|(_, it)| it.number);
            let Some(log) = oldest.map(|(log, _)| log.clone()) else { break };
            self.forgotten.remove(&log);
            self.staged.writes.push(mesh_rows::delete_forgotten(&log));
        }
        Ok(room < FORGET_ROWS_AT_ONCE)
    }

    fn may_forget(&self, log: &LogId, state: &Log) -> bool {
        let held = state.held;
        let empty = held.end.sequence > 0 && held.start == held.end && held.end == state.received;
        let pending = std::iter::once(&self.staged)
            .chain(self.batches.values())
            .any(|staged| staged.marks.contains_key(log));
        let held_by_all = || {
            let holds = |region: &Region| region.holds.get(log).copied().unwrap_or(0);
            self.regions.values().all(|region| holds(region) >= held.end.sequence)
        };
        let own = log.origin.region == self.setup.region && !self.is_living(log);
        empty && state.ahead.is_empty() && !pending && (state.finished || own && held_by_all())
    }

    /// Whether a log is one that this process writes, or one that links take it to write.
    fn is_living(&self, log: &LogId) -> bool {
        let epoch = log.origin.epoch;
        log.origin.region == self.setup.region
            && (epoch == self.origin.epoch || epoch == self.setup.epoch)
    }

    /// What is held of a log, which may be forgotten.
    fn held(&self, log: &LogId) -> Held {
        let forgotten = || self.forgotten.get(log).map(|it| Held { start: it.last, end: it.last });
        self.logs.get(log).map(|it| it.held).or_else(forgotten).unwrap_or_default()
    }

    /// Another log has our name on it: from now on we write to new ones. Derived from both, so that
    /// two clones of one process do not go on under the same name again.
    pub(crate) fn renew_epoch(&mut self, log: &LogId) {
        let digest = self.logs.get(log).map_or_else(Default::default, |it| it.received.digest);
        let mut fresh = [0; 8];
        fresh.copy_from_slice(&digest[..8]);
        let fresh = u64::from_le_bytes(fresh) ^ self.origin.epoch.rotate_left(17);
        self.origin.epoch = fresh.max(1);
    }

    /// Numbers the new entries of our own logs. Returns where each document's last one is.
    pub(crate) fn number(&mut self) -> BTreeMap<DocumentId, (u64, u64)> {
        let mut places = BTreeMap::new();
        let mut logs: BTreeMap<LogId, Vec<Entry>> = BTreeMap::new();
        for entry in std::mem::take(&mut self.entries) {
            let log = LogId { origin: self.origin.clone(), stream: entry.document.stream() };
            logs.entry(log).or_default().push(entry);
        }
        for (log, entries) in logs {
            let state = self.logs.entry(log.clone()).or_default();
            let first = state.received.sequence + 1;
            for entry in &entries {
                state.received = state.received.then(entry);
                let place = (log.origin.epoch, state.received.sequence);
                places.insert(entry.document.clone(), place);
            }
            mesh_rows::put_entries(&log, first, &entries, &mut self.staged.writes);
            let held = Held { start: state.held.start, end: state.received };
            self.staged.marks.insert(log.clone(), held);
            self.staged.published.push((log, first, entries.into()));
        }
        places
    }

    /// What the audit compares of a document has changed.
    pub(crate) fn put_item(&mut self, id: &DocumentId, old: Option<Item>, new: Item) {
        self.staged.writes.push(mesh_rows::put_item(id, new));
        self.staged.items.push((id.clone(), old, new));
    }

    /// The item of a document, as it is or is about to be in the store.
    pub(crate) fn item(
        &self,
        store: &dyn Store,
        id: &DocumentId,
    ) -> Result<Option<Item>, LoadError> {
        let on_their_way = std::iter::once(&self.staged).chain(self.batches.values().rev());
        let mut items = on_their_way.flat_map(|staged| staged.items.iter().rev());
        match items.find(|(document, _, _)| document == id) {
            Some((_, _, item)) => Ok(Some(*item)),
            None => mesh_rows::item(store, id),
        }
    }

    /// Whether there is anything to write.
    pub(crate) fn has_staged(&self) -> bool {
        !self.entries.is_empty()
            || !self.changed.is_empty()
            || !self.staged.writes.is_empty()
            || !self.staged.marks.is_empty()
            || !self.staged.taken.is_empty()
            || !self.staged.items.is_empty()
            || !self.staged.forgotten.is_empty()
    }

    /// The writes of the next batch, which is remembered under its name.
    pub(crate) fn submit(&mut self, batch: BatchId, writes: &mut Vec<Write>) {
        let mut staged = std::mem::take(&mut self.staged);
        if planted(Bug::MarkFirst) && !staged.marks.is_empty() {
            self.staged.writes = std::mem::take(&mut staged.writes);
        }
        writes.append(&mut staged.writes);
        writes.extend(staged.marks.iter().map(|(log, held)| mesh_rows::put_held(log, *held)));
        self.batches.insert(batch, staged);
    }

    /// A batch is durable: this is said of it.
    pub(crate) fn committed(&mut self, batch: BatchId, effects: &mut impl Extend<Effect>) {
        let Some(staged) = self.batches.remove(&batch) else { return };
        for (document, old, new) in staged.items {
            if let Some(old) = old {
                self.sketch.remove(old.item);
                self.items.remove(&old.item);
            }
            self.sketch.add(new.item);
            self.items.insert(new.item, document);
        }
        for (log, last) in staged.forgotten {
            let message = FromShard::Forgotten { log, last };
            effects.extend([Effect::Region { to: None, message }]);
        }
        for (log, first, entries) in staged.published {
            let message = FromShard::Published { log, first, entries };
            effects.extend([Effect::Region { to: None, message }]);
        }
        for (log, held) in staged.marks {
            let state = self.logs.entry(log.clone()).or_default();
            state.held.end = held.end;
            // The end of a finished log is where it was, not what is held of it.
            if !state.finished {
                let message = FromShard::Held { log, mark: held.end };
                effects.extend([Effect::Region { to: None, message }]);
            }
        }
        for (region, lane, credit) in staged.taken {
            let message = FromShard::Taken { lane, credit };
            effects.extend([Effect::Region { to: Some(region), message }]);
        }
    }

    /// Gives entries of a log to a region.
    pub(crate) fn read(
        &self,
        store: &dyn Store,
        (lane, log): (Lane, &LogId),
        from: u64,
        bytes_max: usize,
        digest: Option<mesh::origin::Digest>,
    ) -> Result<FromShard, LoadError> {
        let held = self.held(log);
        let nothing =
            FromShard::Entries { lane, log: log.clone(), first: from, entries: Arc::from([]) };
        if from <= held.start.sequence {
            return Ok(FromShard::Trimmed { lane, log: log.clone(), from, to: held.start });
        }
        let before = from - 1;
        let diverged = FromShard::Diverged { log: log.clone() };
        if before > held.end.sequence {
            return Ok(if digest.is_some() { diverged } else { nothing });
        }
        if let Some(digest) = digest
            && digest != self.digest_at(store, log, held, before)?
        {
            return Ok(diverged);
        }
        let (mut entries, mut bytes) = (Vec::new(), 0);
        mesh_rows::entries(store, log, from, &mut |first, row| {
            for (sequence, entry) in (first..).zip(row) {
                if sequence < from {
                    continue;
                }
                // Rows may lie behind a gap, or be missing because of a crash while ahead of one.
                let next = from + entries.len() as u64;
                if sequence != next || sequence > held.end.sequence || bytes >= bytes_max {
                    return ControlFlow::Break(());
                }
                bytes += entry.bytes();
                entries.push(entry);
            }
            ControlFlow::Continue(())
        })?;
        Ok(FromShard::Entries { lane, log: log.clone(), first: from, entries: entries.into() })
    }

    fn digest_at(
        &self,
        store: &dyn Store,
        log: &LogId,
        held: Held,
        sequence: u64,
    ) -> Result<mesh::origin::Digest, LoadError> {
        if sequence == held.end.sequence {
            return Ok(held.end.digest);
        }
        let mut mark = held.start;
        if sequence > mark.sequence {
            mesh_rows::entries(store, log, mark.sequence + 1, &mut |first, row| {
                for (at, entry) in (first..).zip(&row) {
                    if at == mark.sequence + 1 && mark.sequence < sequence {
                        mark = mark.then(entry);
                    }
                }
                if mark.sequence < sequence {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
        }
        Ok(mark.digest)
    }

    /// Lets go of entries that every region holds, and of more than `entries_max` of any log.
    ///
    /// Only a little at once, because entries are read for it; says whether there is more.
    pub(crate) fn trim(&mut self, store: &dyn Store, entries_max: u64) -> Result<bool, LoadError> {
        let mut trimmed = Vec::new();
        let mut room = TRIM_ENTRIES_AT_ONCE;
        // In turn: after the log that was trimmed last.
        let after = self.trimmed.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let later = self.logs.range((after.clone(), Bound::Unbounded));
        let earlier = match &after {
            Bound::Excluded(last) => Some(self.logs.range(..=last)),
            _ => None,
        };
        for (log, state) in later.chain(earlier.into_iter().flatten()) {
            if room == 0 {
                break;
            }
            let (start, end) = (state.held.start, state.held.end);
            // The log's own region holds it, or has lost it and will ask for it.
            let others = self.regions.iter().filter(|(name, _)| **name != log.origin.region);
            let held_by_all = others
                .map(|(_, region)| region.holds.get(log).copied().unwrap_or(0))
                .min()
                .unwrap_or(end.sequence)
                .max(if planted(Bug::TrimsEarly) { end.sequence } else { 0 });
            let upto = held_by_all.max(end.sequence.saturating_sub(entries_max)).min(end.sequence);
            if upto <= start.sequence {
                continue;
            }
            let mut mark = start;
            let mut writes = Vec::new();
            mesh_rows::entries(store, log, start.sequence + 1, &mut |first, row| {
                let last = first + row.len() as u64 - 1;
                // Whole rows only.
                if last > upto || room == 0 {
                    return ControlFlow::Break(());
                }
                room = room.saturating_sub(row.len());
                for (at, entry) in (first..).zip(&row) {
                    if at == mark.sequence + 1 {
                        mark = mark.then(entry);
                    }
                }
                writes.push(mesh_rows::delete_entries(log, first));
                ControlFlow::Continue(())
            })?;
            if mark.sequence > start.sequence {
                trimmed.push((log.clone(), mark, writes));
            }
        }
        for (log, mark, mut writes) in trimmed {
            self.trimmed = Some(log.clone());
            self.staged.writes.append(&mut writes);
            if let Some(state) = self.logs.get_mut(&log) {
                state.held.start = mark;
                // What is durable may be less than what is on its way, and the mark must not go back.
                let back = planted(Bug::MarkGoesBack);
                let end = if back { state.held.end } else { state.received };
                self.staged.marks.insert(log, Held { start: mark, end });
            }
        }
        Ok(room == 0)
    }
}

/// How many entries are let go of at once, and somewhat more: about two milliseconds of a shard's time.
const TRIM_ENTRIES_AT_ONCE: usize = 512;

/// How many rows are removed, and logs forgotten, at once.
const FORGET_ROWS_AT_ONCE: usize = 256;

impl Log {
    fn at(held: Held) -> Self {
        Self { held, received: held.end, ..Self::default() }
    }

    fn close_gap(&mut self) {
        while let Some(entry) = self.ahead.remove(&(self.received.sequence + 1)) {
            self.received = self.received.then(&entry);
        }
    }
}

/// An entry that says that a change is dead.
pub(crate) fn dead_entry(document: &DocumentId, hash: model::ChangeHash, reason: String) -> Entry {
    Entry { document: document.clone(), item: EntryItem::Dead { hash, reason } }
}
