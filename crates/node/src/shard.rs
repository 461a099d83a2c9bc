//! One shard: the documents whose ids hash to it, and the part of each session that concerns them.

use std::collections::{BTreeMap, btree_map};
use std::sync::Arc;
use std::time::Duration;

use history::graph::Position;
use model::{DocumentId, Heads, PeerId, StorageId};
use store::Store;
use wire::Tail;

use mesh::exchange::FromShard;

use crate::context::Context;
use crate::document::{Document, Peer};
use crate::mesh_state::{Mesh, MeshSetup};
use crate::planted::{Bug, planted};
use crate::rows::LoadError;
use crate::session::Session;
use crate::{
    ArchiveResult, BatchId, CloseReason, DocumentMessage, Effect, Event, JobId, Limits, Now,
    SessionId,
};

/// How often a shard looks whether its documents take more memory than they may.
const MEMORY_CHECK_EVERY: Duration = Duration::from_secs(1);
/// About what a document takes in memory beside its log, and what each session does that has it open,
/// with their places in trees and what the allocator needs.
const DOCUMENT_BYTES: usize = size_of::<Document>() + 1_024;
const OPENING_BYTES: usize = size_of::<Peer>() + 256;
/// How long others have the shard to themselves while entries of logs are let go of.
const TRIM_EVERY: Duration = Duration::from_millis(40);

/// What a server calls itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `senderId` of everything it sends; the same for the life of the process.
    pub peer: PeerId,
    /// `storageId`: names the store, so it is the same as long as that lives.
    pub storage: StorageId,
}

/// What a shard has done so far, and has now. Counts only ever grow, except where said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Messages about documents that came in.
    pub messages_in: u64,
    /// Changes that were appended to a log.
    pub changes_in: u64,
    /// Changes that were sent one by one, counted once per receiver; snapshots count what they hold.
    pub changes_out: u64,
    /// Messages that carried a snapshot.
    pub snapshots_out: u64,
    /// Frames sent.
    pub frames_out: u64,
    /// Bytes of those.
    pub bytes_out: u64,
    /// Presence messages passed on, once per receiver.
    pub presence_out: u64,
    /// Presence messages not passed on because the receiver was behind.
    pub presence_dropped: u64,
    /// Changes refused.
    pub refused: u64,
    /// Changes set aside after they had been taken in.
    pub died: u64,
    /// Changes that only the CRDT could judge.
    pub slow_lane: u64,
    /// Jobs given to the archive.
    pub archive_jobs: u64,
    /// Jobs the archive has not finished (goes up and down).
    pub archive_queue: u64,
    /// Logs read from the store.
    pub documents_loaded: u64,
    /// Logs that left memory before they were verified, because it was short.
    pub left_unverified: u64,
    /// Documents known here at the moment (goes up and down).
    pub documents: u64,
    /// About how many bytes they and their logs take in memory, as of the last check (goes up and down).
    pub memory_bytes: u64,
}

impl Counters {
    /// The counters of two shards, added up.
    pub fn plus(self, other: &Self) -> Self {
        Self {
            messages_in: self.messages_in + other.messages_in,
            changes_in: self.changes_in + other.changes_in,
            changes_out: self.changes_out + other.changes_out,
            snapshots_out: self.snapshots_out + other.snapshots_out,
            frames_out: self.frames_out + other.frames_out,
            bytes_out: self.bytes_out + other.bytes_out,
            presence_out: self.presence_out + other.presence_out,
            presence_dropped: self.presence_dropped + other.presence_dropped,
            refused: self.refused + other.refused,
            died: self.died + other.died,
            slow_lane: self.slow_lane + other.slow_lane,
            archive_jobs: self.archive_jobs + other.archive_jobs,
            archive_queue: self.archive_queue + other.archive_queue,
            documents_loaded: self.documents_loaded + other.documents_loaded,
            left_unverified: self.left_unverified + other.left_unverified,
            documents: self.documents + other.documents,
            memory_bytes: self.memory_bytes + other.memory_bytes,
        }
    }
}

/// Somebody who has a document open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// The connection.
    pub session: SessionId,
    /// How the peer calls itself.
    pub peer: PeerId,
    /// Its store, if it has one that outlives the connection.
    pub storage: Option<StorageId>,
    /// The heads that it said last.
    pub holds: Option<Heads>,
}

/// The documents of one shard and everything about them.
pub struct Shard {
    pub(crate) ctx: Context,
    pub(crate) documents: BTreeMap<DocumentId, Document>,
    /// Batches of new changes on their way, with how far they take each log.
    committing: BTreeMap<BatchId, Vec<(DocumentId, Position)>>,
    /// Since when new changes wait for others to go into one batch, if they do.
    gathering_since: Option<Duration>,
    /// When that batch goes, if nothing else sends it on its way.
    flush_at: Option<Duration>,
    /// How many documents all sessions together have open; one that two have open counts twice.
    openings: usize,
    memory_checked: Duration,
    /// When to let go of more entries of logs; never, if nothing is left to be let go of for now.
    trim_at: Duration,
}

impl Shard {
    /// A shard over a store. It reads from the store; what it wants written are effects.
    pub fn new(me: Identity, limits: Limits, store: Arc<dyn Store>) -> Self {
        Self {
            ctx: Context::new(me, limits, store),
            documents: BTreeMap::new(),
            committing: BTreeMap::new(),
            gathering_since: None,
            flush_at: None,
            openings: 0,
            memory_checked: Duration::ZERO,
            trim_at: Duration::MAX,
        }
    }

    /// A shard of a node in a mesh.
    ///
    /// # Errors
    /// When the store does not give what the node knows of the mesh.
    pub fn in_mesh(
        me: Identity,
        limits: Limits,
        store: Arc<dyn Store>,
        setup: MeshSetup,
    ) -> Result<Self, LoadError> {
        let mut shard = Self::new(me, limits, store.clone());
        shard.ctx.mesh = Some(Mesh::open(setup, &*store)?);
        shard.seat_regions();
        Ok(shard)
    }

    /// Takes in something that happened. Effects may be waiting afterwards.
    ///
    /// New changes stay here until [`Shard::flush`], so that many events make one batch.
    pub fn handle(&mut self, now: Now, event: Event) {
        match event {
            Event::Opened { session, peer, storage } => {
                self.ctx.sessions.insert(session, Session::new(peer, storage));
            }
            Event::Closed { session } => self.closed(now, session),
            Event::Message { session, document, message } => {
                self.message(now, session, document, message);
            }
            Event::Subscribed { session, add, remove } => {
                self.subscribed(now, session, &add, &remove);
            }
            Event::Region { region, message } => self.region(now, &region, message),
            Event::Adopt(branch) => self.adopt(now, &branch),
            Event::Tend { document } => self.tend(now, document),
            Event::Written { session, bytes } => self.written(now, session, bytes),
            Event::Committed { batch } => self.committed(now, batch),
            Event::Archived { job, result, took } => self.archived(now, job, *result, took),
        }
    }

    /// Sends all new changes on their way to the store, as one batch; or leaves them for a later call,
    /// while their documents rest and nobody would be told of them anyway.
    pub fn flush(&mut self, now: Now) {
        let mesh = self.ctx.mesh.as_ref().is_some_and(Mesh::has_staged);
        if self.ctx.staged.is_empty() && !mesh {
            return;
        }
        self.flush_at = self.may_gather_until(now).filter(|at| !mesh && *at > now.running);
        if self.flush_at.is_some() {
            return;
        }
        self.gathering_since = None;
        let (mut writes, mut ends) = (Vec::new(), Vec::new());
        for id in std::mem::take(&mut self.ctx.staged) {
            let Some(document) = self.documents.get_mut(&id) else { continue };
            let (from, to) = (document.submitted, document.history.len());
            document.submit(&mut self.ctx, now, &mut writes);
            self.ctx.counters.changes_in += u64::from(to - from);
            // Positions of a document that submits nothing may mean others by then, after a burial.
            ends.push((id, if to > from { to } else { 0 }));
        }
        let batch = self.ctx.next_batch();
        self.submit_mesh(now, batch, &mut writes);
        if planted(Bug::PublishesEarly)
            && let Some(mesh) = &mut self.ctx.mesh
        {
            mesh.committed(batch, &mut self.ctx.effects);
        }
        self.committing.insert(batch, ends);
        self.ctx.effects.push_back(Effect::Commit { batch, writes });
    }

    /// Until when new changes may wait for others to share a commit with them (decision 23).
    fn may_gather_until(&mut self, now: Now) -> Option<Duration> {
        let since = *self.gathering_since.get_or_insert(now.running);
        let documents = self.ctx.staged.iter().map(|id| self.documents.get(id));
        let until =
            documents.map(|it| it.map_or(Duration::ZERO, Document::may_gather_until)).min()?;
        Some(until.min(since + self.ctx.limits.gather_max))
    }

    /// Does what has become due by the passing of time.
    pub fn tick(&mut self, now: Now) {
        while let Some(id) = self.ctx.take_alarm(now.running) {
            let btree_map::Entry::Occupied(mut entry) = self.documents.entry(id) else { continue };
            let document = entry.get_mut();
            document.alarm_rang();
            document.tick(&mut self.ctx, now);
            if document.may_go(&self.ctx.limits, now) {
                document.disarm(&mut self.ctx);
                entry.remove();
            }
        }
        if now.running >= self.memory_checked + MEMORY_CHECK_EVERY {
            self.memory_checked = now.running;
            self.save_memory(now);
            self.trim_at = now.running;
            self.answer_items();
        }
        if now.running >= self.trim_at {
            let more = self.trim_logs();
            self.trim_at = if more { now.running + TRIM_EVERY } else { Duration::MAX };
        }
    }

    /// When [`Shard::tick`] or [`Shard::flush`] has something to do next. May be earlier after any other call.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let memory = (!self.documents.is_empty() || self.ctx.mesh.is_some())
            .then(|| self.memory_checked + MEMORY_CHECK_EVERY);
        let trim = (self.trim_at < Duration::MAX).then_some(self.trim_at);
        [self.ctx.next_alarm(), memory, trim, self.flush_at].into_iter().flatten().min()
    }

    /// The next thing to be done. Call until there is none.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.ctx.effects.pop_front()
    }

    /// What the shard has done so far.
    pub fn counters(&self) -> Counters {
        Counters {
            documents: self.documents.len() as u64,
            archive_queue: self.ctx.jobs_under_way() as u64,
            ..self.ctx.counters
        }
    }

    /// Who has a document open: the sessions that have spoken of it and not ended.
    pub fn present(&self, id: &DocumentId) -> Vec<Present> {
        let peers = self.documents.get(id).into_iter().flat_map(|document| &document.peers);
        let present = peers.filter_map(|(session, peer)| {
            let known = self.ctx.sessions.get(session)?;
            Some(Present {
                session: *session,
                peer: known.peer.clone(),
                storage: known.storage.clone(),
                holds: peer.standing.their_heads().cloned(),
            })
        });
        present.collect()
    }

    /// Whether everything that was taken in has been committed.
    pub fn is_settled(&self) -> bool {
        self.ctx.staged.is_empty()
            && self.committing.is_empty()
            && !self.ctx.mesh.as_ref().is_some_and(Mesh::has_staged)
    }

    fn message(&mut self, now: Now, session: SessionId, id: DocumentId, message: DocumentMessage) {
        self.ctx.counters.messages_in += 1;
        let Some(known) = self.ctx.sessions.get_mut(&session) else { return };
        if known.closing {
            return;
        }
        match message {
            DocumentMessage::Sync { data } => {
                if !known.documents.contains(&id) && !self.open(session, &id) {
                    return;
                }
                let document =
                    self.documents.entry(id).or_insert_with_key(|id| Document::new(id.clone()));
                if let Err(error) = document.wake(&mut self.ctx) {
                    let reason = CloseReason::Unreadable { document: document.id.clone() };
                    self.ctx.close(session, reason);
                    return document.unreadable(&mut self.ctx, error);
                }
                document.receive(&mut self.ctx, session, data, now);
                document.arm(&mut self.ctx, now);
            }
            DocumentMessage::Ephemeral { author, stream, count, data } => {
                if let Some(document) = self.documents.get_mut(&id) {
                    document.touched = now.running;
                    let tail = Tail::ephemeral(&id, &stream, count, &data);
                    document.relay(&mut self.ctx, Some(session), &tail, &author);
                    self.presence_abroad(&id, author, stream, count, data);
                }
            }
            DocumentMessage::Unavailable => {}
        }
    }

    /// A session speaks of a document for the first time. Says whether it may.
    fn open(&mut self, session: SessionId, id: &DocumentId) -> bool {
        let Some(known) = self.ctx.sessions.get_mut(&session) else { return false };
        let max = self.ctx.limits.documents_per_session;
        if known.documents.len() >= max {
            let what = "documents on one connection";
            self.ctx.close(session, CloseReason::TooMany { what, max });
            return false;
        }
        known.documents.insert(id.clone());
        self.openings += 1;
        if self.open_bytes() <= self.ctx.limits.open_bytes {
            return true;
        }
        self.send_the_largest_away(session)
    }

    /// What has to be in memory because documents are open, whatever their logs do.
    fn open_bytes(&self) -> usize {
        self.ctx.open_documents * DOCUMENT_BYTES + self.openings * OPENING_BYTES
    }

    /// Open documents alone use the memory budget up: whoever has the most open has to go. With equals
    /// it is who comes last, so that they do not push each other out in turns. Says whether the one
    /// that has just opened a document may stay.
    fn send_the_largest_away(&mut self, opener: SessionId) -> bool {
        // At most that: what others have open as well stays.
        let going = self.ctx.sessions.values().filter(|known| known.closing);
        let freed: usize = going.map(|known| known.documents.len()).sum();
        let bytes = self.open_bytes().saturating_sub(freed * (DOCUMENT_BYTES + OPENING_BYTES));
        if bytes <= self.ctx.limits.open_bytes {
            return true;
        }
        let largest = (self.ctx.sessions.iter())
            .filter(|(_, known)| !known.closing)
            .max_by_key(|(session, known)| (known.documents.len(), **session == opener));
        let Some((session, known)) = largest else { return true };
        let (session, open) = (*session, known.documents.len());
        self.ctx.close(session, CloseReason::NoRoom { open });
        session != opener
    }

    fn subscribed(
        &mut self,
        now: Now,
        session: SessionId,
        add: &[StorageId],
        remove: &[StorageId],
    ) {
        let Some(known) = self.ctx.sessions.get_mut(&session) else { return };
        for storage in remove {
            known.subscriptions.remove(storage);
        }
        known.subscriptions.extend(add.iter().cloned());
        if self.ctx.mesh.as_ref().is_some_and(|mesh| mesh.setup.shard == 0) {
            // Every shard is told; one passes it on.
            let (add, remove) = (add.to_vec(), self.unwanted(remove));
            self.ctx.tell_all_regions(FromShard::Subscribe { add, remove });
        }
        let Some(known) = self.ctx.sessions.get_mut(&session) else { return };
        let max = self.ctx.limits.subscriptions_per_session;
        if known.subscriptions.len() > max {
            let what = "subscriptions to the heads of stores";
            return self.ctx.close(session, CloseReason::TooMany { what, max });
        }
        for id in known.documents.clone() {
            if let Some(document) = self.documents.get_mut(&id)
                && document.wake(&mut self.ctx).is_ok()
            {
                document.subscribed(&mut self.ctx, session, add, now);
            }
        }
    }

    fn tend(&mut self, now: Now, id: DocumentId) {
        let document = self.documents.entry(id).or_insert_with_key(|id| Document::new(id.clone()));
        match document.wake(&mut self.ctx) {
            Ok(()) => document.trim(&mut self.ctx, now),
            Err(error) => document.unreadable(&mut self.ctx, error),
        }
        document.arm(&mut self.ctx, now);
    }

    fn closed(&mut self, now: Now, session: SessionId) {
        let Some(known) = self.ctx.sessions.remove(&session) else { return };
        // Who was sent away for want of room may come back at once: what it had open is not kept for it.
        let crowded = self.open_bytes() > self.ctx.limits.open_bytes;
        self.openings -= known.documents.len();
        for id in known.documents {
            let btree_map::Entry::Occupied(mut entry) = self.documents.entry(id) else { continue };
            let document = entry.get_mut();
            document.leave(&mut self.ctx, session);
            if crowded && document.peers.is_empty() && document.may_rest() {
                document.disarm(&mut self.ctx);
                entry.remove();
            } else {
                document.arm(&mut self.ctx, now);
            }
        }
    }

    pub(crate) fn written(&mut self, now: Now, session: SessionId, bytes: usize) {
        let Some(known) = self.ctx.sessions.get_mut(&session) else { return };
        known.in_flight = known.in_flight.saturating_sub(bytes);
        if known.in_flight > self.ctx.limits.session_bytes_in_flight / 2 {
            return;
        }
        // One after the other while there is room, for they may be many.
        while let Some(known) = self.ctx.sessions.get_mut(&session)
            && known.in_flight < self.ctx.limits.session_bytes_in_flight
            && let Some(id) = known.waiting.pop_first()
        {
            if let Some(document) = self.documents.get_mut(&id) {
                match document.wake(&mut self.ctx) {
                    Ok(()) => {
                        document.speak(&mut self.ctx, session, now);
                        document.conclude(&mut self.ctx, session);
                    }
                    Err(error) => document.unreadable(&mut self.ctx, error),
                }
                document.arm(&mut self.ctx, now);
            }
        }
    }

    fn committed(&mut self, now: Now, batch: BatchId) {
        for (id, end) in self.committing.remove(&batch).unwrap_or_default() {
            if let Some(document) = self.documents.get_mut(&id) {
                document.committed(&mut self.ctx, end, now);
            }
        }
        if let Some(mesh) = &mut self.ctx.mesh {
            mesh.committed(batch, &mut self.ctx.effects);
        }
        if let Some((id, kind)) = self.ctx.upkeep_batches.remove(&batch)
            && let Some(document) = self.documents.get_mut(&id)
        {
            document.upkeep_committed(&mut self.ctx, kind, now);
        }
    }

    fn archived(&mut self, now: Now, job: JobId, result: ArchiveResult, took: Duration) {
        if let Some(id) = self.ctx.job_done(job)
            && let Some(document) = self.documents.get_mut(&id)
        {
            document.archived(&mut self.ctx, job, result, took, now);
        }
    }

    /// Logs that nobody has used for longest leave memory first; those that are not verified only when
    /// that is not enough and the archive has more than it can take, or there is twice too much. Else it
    /// will get to them, and the snapshot that it makes of a large log is what frees memory for good.
    fn save_memory(&mut self, now: Now) {
        let memory = |document: &Document| document.history.memory_bytes();
        let closed = self.documents.len().saturating_sub(self.ctx.open_documents);
        let beside = self.open_bytes() + closed * DOCUMENT_BYTES;
        let mut total = beside + self.documents.values().map(memory).sum::<usize>();
        if total > self.ctx.limits.memory_bytes {
            let behind = self.ctx.jobs_under_way() >= self.ctx.limits.verify_jobs_max
                || total / 2 > self.ctx.limits.memory_bytes;
            let quiet_since = now.running.saturating_sub(self.ctx.limits.verify_after);
            let mut resting: Vec<_> = (self.documents.values())
                .filter(|document| document.awake && document.may_rest_unverified())
                .map(|document| (!document.may_rest(), document.touched, document.id.clone()))
                .filter(|(unverified, touched, _)| !unverified || behind && *touched <= quiet_since)
                .collect();
            resting.sort_unstable();
            for (unverified, _, id) in resting {
                if total <= self.ctx.limits.memory_bytes {
                    break;
                }
                if let Some(document) = self.documents.get_mut(&id) {
                    total -= memory(document);
                    document.rest();
                    document.forget_made();
                    document.arm(&mut self.ctx, now);
                    self.ctx.counters.left_unverified += u64::from(unverified);
                }
            }
        }
        self.ctx.counters.memory_bytes = total as u64;
    }
}
