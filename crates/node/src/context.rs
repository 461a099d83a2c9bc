//! What the documents of one shard share.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mesh::exchange::FromShard;
use model::{DocumentId, StorageId};
use store::{Store, Write};

use crate::mesh_state::Mesh;
use crate::session::Session;
use crate::upkeep::UpkeepBatch;
use crate::{BatchId, CloseReason, Counters, Effect, Identity, JobId, Limits, Report, SessionId};

/// Sessions above this stand for links; those below are connections.
const REGION_SESSIONS_FROM: u64 = u64::MAX / 2;

/// Everything a document may touch besides itself.
pub(crate) struct Context {
    pub(crate) me: Identity,
    pub(crate) limits: Limits,
    /// Only ever read from here; writes are effects.
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    /// How many documents at least one client has open.
    pub(crate) open_documents: usize,
    /// The document whose snapshot is taken apart for other regions: one at a time.
    pub(crate) taken_apart: Option<DocumentId>,
    pub(crate) effects: VecDeque<Effect>,
    /// Documents with changes that are not on their way to the store yet.
    pub(crate) staged: BTreeSet<DocumentId>,
    pub(crate) counters: Counters,
    jobs: BTreeMap<JobId, DocumentId>,
    next_job: u64,
    last_batch: u64,
    pub(crate) upkeep_batches: BTreeMap<BatchId, (DocumentId, UpkeepBatch)>,
    alarms: BTreeSet<(Duration, DocumentId)>,
    /// The mesh, if this node is in one.
    pub(crate) mesh: Option<Mesh>,
}

impl Context {
    pub(crate) fn new(me: Identity, limits: Limits, store: Arc<dyn Store>) -> Self {
        Self {
            me,
            limits,
            store,
            sessions: BTreeMap::new(),
            open_documents: 0,
            taken_apart: None,
            effects: VecDeque::new(),
            staged: BTreeSet::new(),
            counters: Counters::default(),
            jobs: BTreeMap::new(),
            next_job: 0,
            last_batch: 0,
            upkeep_batches: BTreeMap::new(),
            alarms: BTreeSet::new(),
            mesh: None,
        }
    }

    /// Puts a frame on its way to a client, which uses up some of the session's room.
    pub(crate) fn send(&mut self, session: SessionId, frame: Vec<u8>) {
        debug_assert!(!self.is_region(session), "a region is told with `send_sync`");
        if let Some(known) = self.sessions.get_mut(&session) {
            known.in_flight += frame.len();
            self.counters.frames_out += 1;
            self.counters.bytes_out += frame.len() as u64;
            self.effects.push_back(Effect::Send { session, frame });
        }
    }

    /// Whether a session stands for the link to another region.
    pub(crate) fn is_region(&self, session: SessionId) -> bool {
        session.0 > REGION_SESSIONS_FROM
    }

    /// Goes with the next batch. Only a node in a mesh has such writes.
    pub(crate) fn write(&mut self, write: Write) {
        if let Some(mesh) = &mut self.mesh {
            mesh.staged.writes.push(write);
        }
    }

    /// What was to go with the next batch goes with this one, which is before it.
    pub(crate) fn take_writes(&mut self) -> Vec<Write> {
        self.mesh.as_mut().map_or_else(Vec::new, |mesh| std::mem::take(&mut mesh.staged.writes))
    }

    /// Gets a place in one of our own logs with the next batch.
    pub(crate) fn publish(&mut self, entry: mesh::Entry) {
        if let Some(mesh) = &mut self.mesh {
            mesh.entries.push(entry);
        }
    }

    /// What the audit compares of a document has to be made anew.
    pub(crate) fn item_changed(&mut self, document: &DocumentId) {
        if let Some(mesh) = &mut self.mesh {
            mesh.changed.insert(document.clone());
        }
    }

    /// Sends a part of a repair to the region that a session stands for, which uses up some of the
    /// session's room.
    pub(crate) fn send_sync(&mut self, session: SessionId, document: DocumentId, data: Vec<u8>) {
        if let Some(known) = self.sessions.get_mut(&session) {
            known.in_flight += data.len();
        }
        self.tell_region(session, FromShard::Sync { document, data });
    }

    /// Tells the region that a session stands for.
    pub(crate) fn tell_region(&mut self, session: SessionId, message: FromShard) {
        if let Some(to) = self.mesh.as_ref().and_then(|mesh| mesh.region_of(session)).cloned() {
            self.effects.push_back(Effect::Region { to: Some(to), message });
        }
    }

    /// Tells every region.
    pub(crate) fn tell_all_regions(&mut self, message: FromShard) {
        if self.mesh.is_some() {
            self.effects.push_back(Effect::Region { to: None, message });
        }
    }

    /// The sessions that stand for regions whose links are up.
    pub(crate) fn regions_up(&self) -> Vec<SessionId> {
        self.mesh.as_ref().map_or_else(Vec::new, Mesh::up)
    }

    /// Regions with clients that have the document open and want to hear of a store.
    pub(crate) fn subscribed_regions(
        &self,
        document: &DocumentId,
        storage: &StorageId,
    ) -> Vec<SessionId> {
        let Some(mesh) = &self.mesh else { return Vec::new() };
        let regions = mesh.regions.values();
        regions
            .filter(|it| it.up && it.interest.contains(document))
            .map(|it| it.session)
            .filter(|session| self.subscribes(*session, storage))
            .collect()
    }

    /// Whether a session has room for a frame. If not, it is noted that it waits for one.
    pub(crate) fn has_room(&mut self, session: SessionId, document: &DocumentId) -> bool {
        let Some(known) = self.sessions.get_mut(&session) else { return false };
        if known.closing {
            return false;
        }
        let room = known.in_flight < self.limits.session_bytes_in_flight;
        if !room {
            known.waiting.insert(document.clone());
        }
        room
    }

    /// Ends a client's session. What stands for a region has no end.
    pub(crate) fn close(&mut self, session: SessionId, reason: CloseReason) {
        debug_assert!(!self.is_region(session), "{reason}");
        if let Some(known) = self.sessions.get_mut(&session)
            && !std::mem::replace(&mut known.closing, true)
        {
            self.effects.push_back(Effect::Close { session, reason });
        }
    }

    pub(crate) fn report(&mut self, report: Report) {
        self.effects.push_back(Effect::Report(report));
    }

    pub(crate) fn archive(&mut self, document: &DocumentId, task: archive::Job) -> JobId {
        self.next_job += 1;
        let job = JobId(self.next_job);
        self.jobs.insert(job, document.clone());
        self.counters.archive_jobs += 1;
        self.effects.push_back(Effect::Archive { job, task: Box::new(task) });
        job
    }

    /// Asks for a batch that is not about new changes.
    pub(crate) fn commit_upkeep(
        &mut self,
        document: &DocumentId,
        kind: UpkeepBatch,
        writes: Vec<Write>,
    ) {
        let batch = self.next_batch();
        self.effects.push_back(Effect::Commit { batch, writes });
        self.upkeep_batches.insert(batch, (document.clone(), kind));
    }

    pub(crate) fn next_batch(&mut self) -> BatchId {
        self.last_batch += 1;
        BatchId(self.last_batch)
    }

    pub(crate) fn job_done(&mut self, job: JobId) -> Option<DocumentId> {
        self.jobs.remove(&job)
    }

    pub(crate) fn jobs_under_way(&self) -> usize {
        self.jobs.len()
    }

    pub(crate) fn subscribes(&self, session: SessionId, storage: &StorageId) -> bool {
        self.sessions.get(&session).is_some_and(|known| known.subscriptions.contains(storage))
    }

    /// Moves a document's alarm.
    pub(crate) fn set_alarm(
        &mut self,
        document: &DocumentId,
        old: Option<Duration>,
        new: Option<Duration>,
    ) {
        if let Some(old) = old {
            self.alarms.remove(&(old, document.clone()));
        }
        if let Some(new) = new {
            self.alarms.insert((new, document.clone()));
        }
    }

    pub(crate) fn next_alarm(&self) -> Option<Duration> {
        self.alarms.first().map(|(at, _)| *at)
    }

    pub(crate) fn take_alarm(&mut self, now: Duration) -> Option<DocumentId> {
        if self.next_alarm()? > now {
            return None;
        }
        self.alarms.pop_first().map(|(_, document)| document)
    }
}
