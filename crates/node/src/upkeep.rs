//! What a document needs besides its peers: to be verified, compacted, and to leave memory.
//!
//! One job of the archive does the first two: it puts the tail on top of the snapshot, saves, loads
//! what it saved and reads it. If the tail is long enough, what it saved becomes the snapshot. If
//! something does not fit, that change and all that builds on it are buried: set aside for the
//! operator, and never spoken of again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use archive::{Answer, ExpandLimits, Failure, Job};
use history::chunk::{Change, read_change};
use history::graph::Position;
use history::{History, Refusal, index};
use model::{ChangeHash, Heads};
use store::Write;

use crate::abroad::death_of;
use crate::context::Context;
use crate::document::Document;
use crate::mesh_state::dead_entry;
use crate::rows::{self, LoadError, Meta};
use crate::{ArchiveFailure, ArchiveResult, JobId, Limits, Now, Report};

/// With more index segments than this, the next compaction writes one that replaces them all.
const INDEX_SEGMENTS_MAX: usize = 8;
/// How long to leave a document alone after the archive could not look at it.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// When it is looked whether the archive has room for a document.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Where a document stands with the archive.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    work: Option<Work>,
    /// The CRDT has taken everything below this and given it back.
    verified: Position,
    not_before: Duration,
    /// After a burial has failed. Zero: none has.
    no_burial_before: Duration,
    /// An upload that has been verified as a whole: the snapshot that the first so many changes are.
    uploaded: Option<(Position, Vec<u8>)>,
}

#[derive(Debug)]
enum Work {
    /// The archive is at it.
    Verifying { job: JobId, covers: Position, heads: Heads, directory: Option<Vec<u8>> },
    /// The snapshot is on its way to the store.
    Compacting { meta: Meta },
    /// What has to go is in the snapshot, or was built on what is: the archive takes that apart.
    Unpacking { job: JobId, culprits: BTreeMap<ChangeHash, Refusal> },
    /// What does not fit is being set aside; nothing else happens meanwhile.
    Burying,
    /// The archive takes the snapshot apart for the copy of a losing branch.
    Copying { job: JobId },
}

impl Upkeep {
    pub(crate) fn loaded(&mut self, history: &History) {
        // What a snapshot covers was verified when the snapshot was made.
        self.verified = self.verified.max(history.base());
    }

    /// The archive has proven all of the document, up to here, as this snapshot: it need not be
    /// verified and saved a second time.
    pub(crate) fn uploaded(&mut self, covers: Position, snapshot: Vec<u8>) {
        self.verified = covers;
        self.uploaded = Some((covers, snapshot));
    }

    /// The snapshot, if it is exactly what is about to be stored.
    pub(crate) fn take_whole(&mut self, from: Position, to: Position) -> Option<Vec<u8>> {
        let (covers, snapshot) = self.uploaded.take()?;
        (from == 0 && covers == to).then_some(snapshot)
    }

    pub(crate) fn is_burying(&self) -> bool {
        matches!(self.work, Some(Work::Burying | Work::Unpacking { .. }))
    }

    fn is_idle(&self) -> bool {
        self.work.is_none()
    }
}

/// A batch that upkeep asked for, told apart from batches of new changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpkeepBatch {
    Compaction,
    Burial,
}

impl Document {
    /// When upkeep has something to do next, if nothing else happens.
    pub(crate) fn upkeep_due(&self, limits: &Limits) -> Option<Duration> {
        if !self.awake || !self.upkeep.is_idle() {
            return None;
        }
        if !self.abroad.condemned.is_empty() {
            return Some(self.touched.max(self.upkeep.no_burial_before));
        }
        if self.abroad.copy_due {
            return Some(self.touched);
        }
        if self.upkeep.verified < self.history.len() {
            return Some((self.touched + limits.verify_after).max(self.upkeep.not_before));
        }
        self.peers.is_empty().then_some(self.touched + limits.idle_after)
    }

    /// Starts what is due.
    pub(crate) fn keep_up(&mut self, ctx: &mut Context, now: Now) {
        if !self.awake || !self.upkeep.is_idle() || self.history.durable() < self.history.len() {
            return;
        }
        // Sentences wait while the archive is at work on the document.
        if !self.abroad.condemned.is_empty() && now.running >= self.upkeep.no_burial_before {
            self.upkeep.no_burial_before = Duration::ZERO;
            return self.carry_out_sentences(ctx);
        }
        // Someone types without a pause: verified all the same, but rarely, for it costs the typist.
        let long = self.history.resident_bytes() >= 128 * self.compact_at(&ctx.limits);
        let quiet = now.running >= self.touched + ctx.limits.verify_after;
        let due = self.upkeep.verified < self.history.durable()
            && now.running >= self.upkeep.not_before
            && (quiet || long);
        if self.abroad.copy_due {
            self.abroad.copy_due = false;
            if let Err(error) = self.start_copy(ctx) {
                ctx.report(Report::Unreadable { document: self.id.clone(), error });
            }
            return;
        }
        if due && ctx.jobs_under_way() >= ctx.limits.verify_jobs_max {
            self.upkeep.not_before = now.running + AGAIN_AFTER;
        } else if due && let Err(error) = self.verify(ctx) {
            self.upkeep.not_before = now.running + RETRY_AFTER;
            ctx.report(Report::Unreadable { document: self.id.clone(), error });
        }
    }

    /// Changes behind the snapshot that are older than they need to be are deleted.
    pub(crate) fn trim(&mut self, ctx: &mut Context, now: Now) {
        if !self.awake || !self.may_rest() {
            return;
        }
        if let Err(error) = self.try_trim(ctx, now) {
            ctx.report(Report::Unreadable { document: self.id.clone(), error });
        }
    }

    fn try_trim(&mut self, ctx: &mut Context, now: Now) -> Result<(), LoadError> {
        let old = self.meta.unwrap_or_default();
        let raw_from = self.retain(ctx, old.base, now)?;
        if raw_from <= old.raw_from {
            return Ok(());
        }
        let rows = rows::log_rows(&*ctx.store, &self.id, old.raw_from, raw_from)?;
        let mut writes: Vec<Write> =
            rows.iter().map(|row| rows::delete_log(&self.id, row.position)).collect();
        let meta = Meta { raw_from, ..old };
        writes.push(rows::put_meta(&self.id, meta));
        self.upkeep.work = Some(Work::Compacting { meta });
        ctx.commit_upkeep(&self.id, UpkeepBatch::Compaction, writes);
        Ok(())
    }

    /// Whether the document may leave memory altogether.
    pub(crate) fn may_go(&self, limits: &Limits, now: Now) -> bool {
        self.peers.is_empty() && self.may_rest() && now.running >= self.touched + limits.idle_after
    }

    /// Whether the log may leave memory, to be read again when it is needed.
    pub(crate) fn may_rest(&self) -> bool {
        self.may_rest_unverified() && (self.upkeep.verified >= self.history.len() || !self.awake)
    }

    /// The same when memory is short: what has not been verified is when it has been read again.
    pub(crate) fn may_rest_unverified(&self) -> bool {
        self.upkeep.is_idle()
            && self.abroad.condemned.is_empty()
            && !self.waits_to_copy()
            && !self.waits_to_tell()
            && self.abroad.asking.is_none()
            && !self.waits_for_archive()
            && !self.owes_acknowledgements()
            && (self.peers.is_empty() || !self.history.has_pending())
            && self.history.durable() == self.history.len()
    }

    /// The log leaves memory; standings stay, because positions stay.
    pub(crate) fn rest(&mut self) {
        self.history = History::default();
        self.abroad.foreign.clear();
        self.awake = false;
    }

    /// The archive has finished verifying.
    pub(crate) fn upkeep_done(
        &mut self,
        ctx: &mut Context,
        job: JobId,
        result: ArchiveResult,
        took: Duration,
        now: Now,
    ) {
        match &self.upkeep.work {
            Some(Work::Unpacking { job: this, .. }) if *this == job => {
                return self.unpacked(ctx, result, now);
            }
            Some(Work::Copying { job: this }) if *this == job => {
                self.upkeep.work = None;
                return self.copy_unpacked(ctx, result);
            }
            _ => {}
        }
        let work = self
            .upkeep
            .work
            .take_if(|work| matches!(work, Work::Verifying { job: this, .. } if *this == job));
        let Some(Work::Verifying { covers, heads, directory, .. }) = work else { return };
        self.upkeep.not_before = now.running + took * ctx.limits.verify_share;
        match result {
            Ok(Answer::Compacted(compacted)) if compacted.heads == heads => {
                self.upkeep.verified = covers;
                if let Some(directory) = directory {
                    let done = self.compact(ctx, covers, directory, compacted.snapshot, now);
                    if let Err(error) = done {
                        ctx.report(Report::Unreadable { document: self.id.clone(), error });
                    }
                }
            }
            Ok(_) => self.not_verified(ctx, now, "it came back with other heads".to_owned()),
            Err(ArchiveFailure::Job(Failure::Change { index, reason, .. })) => {
                let culprit = self.history.base() + index as Position;
                let hash = self.history.graph().hash(culprit);
                let reason = reason.to_string();
                ctx.publish(dead_entry(&self.id, hash, reason.clone()));
                self.abroad.condemned.insert(hash, Refusal::Dead { hash, reason });
                self.carry_out_sentences(ctx);
            }
            Err(failure) => self.not_verified(ctx, now, failure.to_string()),
        }
    }

    /// A batch that upkeep asked for is durable.
    pub(crate) fn upkeep_committed(&mut self, ctx: &mut Context, batch: UpkeepBatch, now: Now) {
        match (batch, self.upkeep.work.take()) {
            (UpkeepBatch::Compaction, Some(Work::Compacting { meta })) => {
                self.history.compacted(meta.base, meta.raw_from);
                self.meta = Some(meta);
                ctx.report(Report::Compacted {
                    document: self.id.clone(),
                    changes: meta.base,
                    bytes: meta.snapshot_bytes as usize,
                });
            }
            (UpkeepBatch::Burial, Some(Work::Burying)) => self.reopen(ctx, now),
            (_, work) => self.upkeep.work = work,
        }
        self.tick(ctx, now);
    }

    fn compact_at(&self, limits: &Limits) -> usize {
        let snapshot = self.meta.map_or(0, |meta| meta.snapshot_bytes);
        Limits::compact_at(limits.compact_tail_bytes, snapshot as usize)
    }

    fn verify(&mut self, ctx: &mut Context) -> Result<(), LoadError> {
        let covers = self.history.durable();
        let directory = if self.history.resident_bytes() >= self.compact_at(&ctx.limits) {
            if self.history.directory().is_none() {
                let meta = self.meta.unwrap_or_default();
                self.history.install_directory(rows::directory(&*ctx.store, &self.id, meta)?);
            }
            // As it is now: what is added while the archive works belongs to the tail.
            self.history.directory().map(|directory| directory.encode())
        } else {
            None
        };
        let changes = (self.history.base()..covers)
            .filter_map(|position| self.history.resident(position))
            .map(|change| change.bytes().to_vec())
            .collect();
        let snapshot = self.snapshot(ctx)?;
        let job = ctx.archive(&self.id, Job::Compact { snapshot, changes });
        let heads = self.history.heads().clone();
        self.upkeep.work = Some(Work::Verifying { job, covers, heads, directory });
        Ok(())
    }

    fn not_verified(&mut self, ctx: &mut Context, now: Now, reason: String) {
        self.upkeep.not_before = now.running + RETRY_AFTER;
        ctx.report(Report::Unverified { document: self.id.clone(), reason });
    }

    /// Writes the snapshot with all that belongs to it, and deletes exactly what it replaces and
    /// retention does not hold.
    fn compact(
        &mut self,
        ctx: &mut Context,
        covers: Position,
        directory: Vec<u8>,
        snapshot: Vec<u8>,
        now: Now,
    ) -> Result<(), LoadError> {
        let old = self.meta.unwrap_or_default();
        let (id, store) = (&self.id, ctx.store.clone());
        let mut writes = Vec::new();

        let segments = rows::index_segments(&*store, id)?;
        let from = if segments.len() >= INDEX_SEGMENTS_MAX {
            writes.extend(segments.iter().skip(1).map(|start| rows::delete_index(id, *start)));
            0
        } else {
            old.base
        };
        writes.push(rows::put_index(id, from, index::encode(self.history.graph(), from, covers)));
        writes.push(rows::put_directory(id, directory));

        let raw_from = self.retain(ctx, covers, now)?;
        let kept = old.base.max(raw_from)..covers;
        for row in rows::log_rows(&*store, id, old.raw_from, covers)? {
            // Old rows go or stay as they are; new ones are written again, many changes to a row.
            if row.position < raw_from || (row.position >= old.base && row.position != kept.start) {
                writes.push(rows::delete_log(id, row.position));
            }
        }
        let resident: Vec<Change> =
            kept.clone().filter_map(|at| self.history.resident(at)).cloned().collect();
        rows::put_log(id, kept.start, now.wall_ms, &resident, &mut writes);

        let meta = Meta { base: covers, raw_from, snapshot_bytes: snapshot.len() as u64, ..old };
        writes.push(rows::put_snapshot(id, snapshot));
        writes.push(rows::put_meta(id, meta));
        self.upkeep.work = Some(Work::Compacting { meta });
        ctx.commit_upkeep(&self.id, UpkeepBatch::Compaction, writes);
        Ok(())
    }

    /// From where on changes stay one by one: the newest, up to a size and an age, in whole rows.
    fn retain(&self, ctx: &Context, covers: Position, now: Now) -> Result<Position, LoadError> {
        let old = self.meta.unwrap_or_default();
        let oldest = now.wall_ms.saturating_sub(ctx.limits.retain_age.as_millis() as u64);
        let mut left = ctx.limits.retain_bytes;
        let mut raw_from = covers;
        if ctx.limits.retain_age.is_zero() || left == 0 {
            return Ok(raw_from);
        }
        for position in (old.base..covers).rev() {
            let bytes = self.history.resident(position).map_or(0, |change| change.bytes().len());
            match left.checked_sub(bytes) {
                Some(rest) => left = rest,
                None => return Ok(raw_from),
            }
            raw_from = position;
        }
        for row in rows::log_rows(&*ctx.store, &self.id, old.raw_from, old.base)?.iter().rev() {
            match left.checked_sub(row.bytes) {
                Some(rest) if row.written_ms >= oldest => left = rest,
                _ => break,
            }
            raw_from = row.position;
        }
        Ok(raw_from)
    }

    /// Whether changes can be taken out of the log now. If not, it is tried again when they can.
    pub(crate) fn may_bury(&self) -> bool {
        self.awake
            && self.upkeep.is_idle()
            && self.upkeep.no_burial_before.is_zero()
            && self.history.durable() == self.history.len()
    }

    /// A burial could not be done: it is tried again later.
    pub(crate) fn put_off_sentences(&mut self, now: Duration) {
        self.upkeep.no_burial_before = now + RETRY_AFTER;
    }

    /// Takes changes out of the log, and all that builds on them.
    pub(crate) fn bury(
        &mut self,
        ctx: &mut Context,
        mut culprits: BTreeMap<ChangeHash, Refusal>,
    ) -> Result<(), LoadError> {
        culprits.retain(|hash, _| self.history.graph().position(hash).is_some());
        let base = self.history.base();
        let inside = culprits
            .keys()
            .filter_map(|hash| self.history.graph().position(hash))
            .any(|position| position < base);
        if culprits.is_empty() {
            return Ok(());
        }
        if inside {
            let chunks = self.snapshot(ctx)?.unwrap_or_default();
            let limits = ExpandLimits::default();
            let job = ctx.archive(&self.id, Job::Expand { chunks, limits });
            self.upkeep.work = Some(Work::Unpacking { job, culprits });
            return Ok(());
        }
        let tail: Vec<Change> = (base..self.history.len())
            .filter_map(|position| self.history.resident(position).cloned())
            .collect();
        self.write_without(ctx, base, tail, &culprits)
    }

    fn unpacked(&mut self, ctx: &mut Context, result: ArchiveResult, now: Now) {
        let Some(Work::Unpacking { culprits, .. }) = self.upkeep.work.take() else { return };
        let written = match read_expanded(result) {
            Ok(mut all) => {
                let tail = self.history.base()..self.history.len();
                all.extend(tail.filter_map(|position| self.history.resident(position).cloned()));
                self.write_without(ctx, 0, all, &culprits)
            }
            Err(reason) => {
                self.abroad.condemned.extend(culprits);
                self.put_off_sentences(now.running);
                self.not_verified(ctx, now, reason);
                return self.go_on_with_all(ctx, now);
            }
        };
        if let Err(error) = written {
            self.abroad.condemned.extend(culprits);
            self.put_off_sentences(now.running);
            ctx.report(Report::Unreadable { document: self.id.clone(), error });
            self.go_on_with_all(ctx, now);
        }
    }

    /// Writes the log from `base` on as `changes` without the culprits and what builds on them,
    /// which are kept for the operator and for other regions.
    fn write_without(
        &mut self,
        ctx: &mut Context,
        base: Position,
        changes: Vec<Change>,
        culprits: &BTreeMap<ChangeHash, Refusal>,
    ) -> Result<(), LoadError> {
        let old = self.meta.unwrap_or_default();
        let from = if base == 0 { old.raw_from.min(old.base) } else { base };
        // The log is read again when this is durable, and what is dead or waits by then has to be
        // there, too.
        let mut writes = ctx.take_writes();
        writes.extend(
            rows::log_rows(&*ctx.store, &self.id, from, self.history.len())?
                .iter()
                .map(|row| rows::delete_log(&self.id, row.position)),
        );
        // Each dead change with the one that brought it down.
        let mut dead: BTreeMap<ChangeHash, ChangeHash> = BTreeMap::new();
        let mut reasons = BTreeMap::new();
        let mut living = Vec::with_capacity(changes.len());
        for change in changes {
            let hash = change.hash();
            let killed = match culprits.get(&hash) {
                Some(why) => Some(why.clone()),
                None => {
                    let on = change.deps().iter().find(|dep| dead.contains_key(dep)).copied();
                    on.map(|on| Refusal::Descendant { hash, on })
                }
            };
            let Some(why) = killed else {
                living.push(change);
                continue;
            };
            let (death, reason) = (death_of(&why), why.to_string());
            let root = match &why {
                Refusal::Descendant { on, .. } => dead.get(on).copied().unwrap_or(*on),
                _ => {
                    reasons.insert(hash, reason.clone());
                    hash
                }
            };
            dead.insert(hash, root);
            self.abroad.copy_due = true;
            writes.push(rows::put_dead(&self.id, death, &reason, &change));
        }
        for (change, reason) in reasons {
            let descendants = dead.values().filter(|root| **root == change).count() - 1;
            let document = self.id.clone();
            ctx.report(Report::Died { document, change, descendants, reason });
        }
        ctx.counters.died += dead.len() as u64;
        if base == 0 && old.base > 0 {
            let segments = rows::index_segments(&*ctx.store, &self.id)?;
            rows::delete_snapshot(&self.id, &segments, &mut writes);
            let meta = Meta { base: 0, raw_from: 0, snapshot_bytes: 0, ..old };
            writes.push(rows::put_meta(&self.id, meta));
            self.meta = Some(meta);
        }
        // What is deleted and put again in one batch stays: writes are applied in order.
        rows::put_log(&self.id, base, 0, &living, &mut writes);
        self.upkeep.work = Some(Work::Burying);
        ctx.commit_upkeep(&self.id, UpkeepBatch::Burial, writes);
        Ok(())
    }

    /// Starts to make the copies of losing branches.
    fn start_copy(&mut self, ctx: &mut Context) -> Result<(), LoadError> {
        let dead = rows::dead(&*ctx.store, &self.id)?;
        if !self.has_rivals(&dead) {
            return Ok(());
        }
        if self.history.base() > 0 {
            let chunks = self.snapshot(ctx)?.unwrap_or_default();
            let limits = ExpandLimits::default();
            let job = ctx.archive(&self.id, Job::Expand { chunks, limits });
            self.upkeep.work = Some(Work::Copying { job });
            return Ok(());
        }
        let all: Vec<Change> = (0..self.history.len())
            .filter_map(|position| self.history.resident(position).cloned())
            .collect();
        self.copy_losers(ctx, &all, &dead)
    }

    /// Whether two changes are known of one actor with one number.
    fn has_rivals(&self, dead: &[rows::Dead]) -> bool {
        let mut slots = BTreeSet::new();
        dead.iter().filter_map(|it| it.change.as_ref()).any(|change| {
            self.history.graph().slot(change.actor(), change.seq()).is_some()
                || !slots.insert((change.actor(), change.seq()))
        })
    }

    fn copy_unpacked(&mut self, ctx: &mut Context, result: ArchiveResult) {
        let mut all = match read_expanded(result) {
            Ok(all) => all,
            Err(reason) => {
                return ctx.report(Report::Unverified { document: self.id.clone(), reason });
            }
        };
        let tail = self.history.base()..self.history.len();
        all.extend(tail.filter_map(|position| self.history.resident(position).cloned()));
        let copied =
            rows::dead(&*ctx.store, &self.id).and_then(|dead| self.copy_losers(ctx, &all, &dead));
        if let Err(error) = copied {
            ctx.report(Report::Unreadable { document: self.id.clone(), error });
        }
    }

    /// Reads the log again after a burial. Positions have changed, so every standing starts over.
    fn reopen(&mut self, ctx: &mut Context, now: Now) {
        // What was found out during the burial is perhaps not in the store yet.
        let verdicts = self.history.doomed();
        self.rest();
        self.upkeep = Upkeep::default();
        if let Err(error) = self.wake(ctx) {
            return self.unreadable(ctx, error);
        }
        for (hash, reason) in verdicts {
            self.doom(ctx, hash, &reason);
        }
        self.start_over();
        ctx.item_changed(&self.id);
        self.go_on_with_all(ctx, now);
        self.tell(ctx, now);
    }
}

/// The changes that the archive took out of a snapshot, in causal order.
fn read_expanded(result: ArchiveResult) -> Result<Vec<Change>, String> {
    match result {
        Ok(Answer::Expanded(expanded)) => (expanded.changes.iter())
            .map(|bytes| read_change(bytes).map_err(|error| error.to_string()))
            .collect(),
        Ok(_) => Err("the archive answered something else".to_owned()),
        Err(failure) => Err(failure.to_string()),
    }
}
