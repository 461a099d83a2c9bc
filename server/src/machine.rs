//! The running machine: shards in tasks, and the way to them.
//!
//! A socket's task decodes the envelope and hands the message to the shard of its document. A shard
//! handles what has come, then sends what is to be stored to the committer, what needs the CRDT to
//! the archive, and frames to the sockets. Every channel here has a bound, or something that bounds
//! it is named beside it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mesh::ToShard;
use model::{DocumentId, Heads, PeerId, RegionName, StorageId};
use node::rows::LoadError;
use node::{
    BatchId, CloseReason, Counters, Effect, Event, Identity, Inbox, Limits, Lobby, MeshSetup, Now,
    Present, Report, SessionId, Shard,
};
use store::Store;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::board::{Board, Noticed};
use crate::metrics::Metrics;
use crate::regions::doors::LinkDoors;
use crate::{archive_pool, committer};

/// How many events may wait for a shard. A socket whose event does not fit waits, and does not read.
const EVENTS_MAX: usize = 4096;
/// How many events a shard takes in before it lets go of what they led to.
const EVENTS_AT_ONCE: usize = 256;
/// How many bytes of messages may wait for shards, in KiB. Sockets wait for their share.
const INBOUND_KIB_MAX: usize = 256 << 10;
/// How many batches of one shard may be on their way to the disk before it takes nothing more in.
pub const BATCHES_UNDER_WAY_MAX: usize = 4;
/// How many frames may wait for one socket. What a shard makes is bounded in bytes by its limits;
/// this bounds the number of tiny frames. 16 shards have 256 KiB each, and every frame is
/// longer than 64 bytes.
pub const FRAMES_MAX: usize = 64 << 10;
/// How many frames may come before the answer to what was handed in: presence of others, mostly.
const HANDED_IN_FRAMES_MAX: usize = 256;
/// How many questions may wait for a shard.
const QUESTIONS_MAX: usize = 16;

/// What a socket is to do.
#[derive(Debug)]
pub enum Outgoing {
    /// Send a frame, and give the shard its room back.
    Frame {
        /// The shard it is from.
        shard: usize,
        /// The frame.
        frame: Vec<u8>,
    },
    /// Close the connection.
    Close {
        /// The WebSocket close code.
        code: u16,
        /// For people: what the peer is told.
        reason: String,
    },
}

/// The way to one socket.
#[derive(Debug, Clone)]
pub struct Outbox {
    /// For what the socket is to do.
    pub frames: mpsc::Sender<Outgoing>,
    /// Set when something did not fit: without it the rest would make no sense.
    pub overrun: CancellationToken,
}

/// An event on its way to a shard, with what it holds of the inbound budget.
struct Inbound {
    event: Event,
    outbox: Option<Outbox>,
    _budget: Option<OwnedSemaphorePermit>,
    /// Dropped when everything that the event led to is on its way.
    done: Option<oneshot::Sender<()>>,
}

impl Inbound {
    fn new(event: Event) -> Self {
        Self { event, outbox: None, _budget: None, done: None }
    }
}

/// The presence that a session sent last: to which shard, and whether it has been passed on.
///
/// Receivers drop presence of an author that does not count upwards, over all documents, so what
/// goes through another shard must not overtake it.
#[derive(Debug, Default)]
pub struct PresenceOrder {
    last: Option<(usize, oneshot::Receiver<()>)>,
}

/// Who has a document open? Answered between events, and never by one.
struct Question {
    document: DocumentId,
    answer: oneshot::Sender<Vec<Present>>,
}

struct ShardWay {
    events: mpsc::Sender<Inbound>,
    questions: mpsc::Sender<Question>,
    counters: Arc<Mutex<Counters>>,
}

/// The machine, as sockets and pages see it.
pub struct Machine {
    me: Identity,
    shards: Vec<ShardWay>,
    lobby: Mutex<Lobby>,
    outboxes: Mutex<HashMap<SessionId, Outbox>>,
    last_session: AtomicU64,
    sessions: AtomicUsize,
    sessions_max: usize,
    inbound: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    started: Instant,
}

/// What a shard's task is built from.
pub struct Parts {
    /// What the server calls itself.
    pub me: Identity,
    /// How many shards.
    pub shards: usize,
    /// What each of them may spend.
    pub limits: Limits,
    /// What they need to know of other regions, if there are any; each gets its own place in it.
    pub mesh: Option<node::MeshSetup>,
    /// The ways to the links.
    pub links: Arc<LinkDoors>,
    /// How many sessions are accepted at once.
    pub sessions_max: usize,
    /// The store, to read from.
    pub store: Arc<dyn Store>,
    /// The way to the committer.
    pub committer: committer::Submit,
    /// The way to the archive.
    pub archive: archive_pool::Submit,
    /// Where figures go.
    pub metrics: Arc<Metrics>,
    /// Where it is written which documents have changed.
    pub board: Arc<Board>,
    /// Set when the machine is to finish what it has and end.
    pub stop: watch::Receiver<bool>,
}

/// A machine that runs, and the tasks of its shards.
pub type Started = (Arc<Machine>, Vec<tokio::task::JoinHandle<()>>);

impl Machine {
    /// Starts the shards. The tasks end when `stop` is set and everything taken in is durable.
    ///
    /// # Errors
    /// When the store does not give what shards need to know of the mesh.
    pub fn start(parts: Parts) -> Result<Started, LoadError> {
        let started = Instant::now();
        let (mut shards, mut tasks) = (Vec::new(), Vec::new());
        let ways: Vec<_> = (0..parts.shards).map(|_| mpsc::channel(EVENTS_MAX)).collect();
        let doors: Vec<_> =
            ways.iter().map(|(events, _)| ShardDoor { events: events.clone() }).collect();
        for (index, (events, inbox)) in ways.into_iter().enumerate() {
            let (answers, answered) = mpsc::unbounded_channel();
            let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
            let counters = Arc::new(Mutex::new(Counters::default()));
            let (me, limits, store) = (parts.me.clone(), parts.limits.clone(), parts.store.clone());
            let shard = match parts.mesh.clone() {
                Some(mesh) => {
                    let mesh = MeshSetup { shard: index, shards: parts.shards, ..mesh };
                    Shard::in_mesh(me, limits, store, mesh)?
                }
                None => Shard::new(me, limits, store),
            };
            let task = ShardTask {
                index,
                shard,
                started,
                doors: doors.clone(),
                links: parts.links.clone(),
                outboxes: HashMap::new(),
                answers,
                committer: Some(parts.committer.clone()),
                archive: parts.archive.clone(),
                batches_under_way: 0,
                limits: parts.limits.clone(),
                counters: counters.clone(),
                metrics: parts.metrics.clone(),
                board: parts.board.clone(),
                noticed: HashMap::new(),
            };
            tasks.push(tokio::spawn(task.run(inbox, answered, asked, parts.stop.clone())));
            shards.push(ShardWay { events, questions, counters });
        }
        let machine = Self {
            me: parts.me,
            shards,
            lobby: Mutex::new(Lobby::default()),
            outboxes: Mutex::new(HashMap::new()),
            last_session: AtomicU64::new(0),
            sessions: AtomicUsize::new(0),
            sessions_max: parts.sessions_max,
            inbound: Arc::new(Semaphore::new(INBOUND_KIB_MAX)),
            metrics: parts.metrics,
            started,
        };
        Ok((Arc::new(machine), tasks))
    }

    /// The ways to the shards, for links.
    pub fn shard_doors(&self) -> Vec<ShardDoor> {
        self.shards.iter().map(|shard| ShardDoor { events: shard.events.clone() }).collect()
    }

    /// What the server calls itself.
    pub fn me(&self) -> &Identity {
        &self.me
    }

    /// How long the machine has run.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// What the shards have done, added up.
    pub fn counters(&self) -> Counters {
        self.shards.iter().fold(Counters::default(), |sum, shard| {
            let counters = *shard.counters.lock().unwrap_or_else(PoisonError::into_inner);
            sum.plus(&counters)
        })
    }

    /// Who is connected with a document open, in no order. Changes that REST hands in have nobody.
    pub async fn peers(&self, document: DocumentId) -> Vec<Present> {
        let (answer, present) = oneshot::channel();
        let shard = &self.shards[document.shard(self.shards.len())];
        // A shard that has ended has nobody left.
        let _ = shard.questions.send(Question { document, answer }).await;
        let mut present = present.await.unwrap_or_default();
        let joined = lock(&self.outboxes);
        present.retain(|present| joined.contains_key(&present.session));
        present
    }

    /// How many connections there are, joined or not.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// A place for one more connection, if there is one.
    pub fn admit(self: &Arc<Self>) -> Option<Admission> {
        let count = self.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        let admission = Admission { machine: self.clone() };
        (count <= self.sessions_max).then_some(admission)
    }

    /// The first message of a connection. On success the session is open in every shard, and
    /// `outbox` is where its frames go.
    ///
    /// # Errors
    /// When the peer cannot join.
    pub async fn join(
        &self,
        message: &wire::Message<'_>,
        outbox: Outbox,
    ) -> Result<(SessionId, Vec<u8>), node::Refused> {
        let session = SessionId(self.last_session.fetch_add(1, Ordering::Relaxed) + 1);
        let joined = lock(&self.lobby).join(&self.me, session, message)?;
        let wire::Message::Join { sender, metadata, .. } = message else {
            return Err(node::Refused::NotJoin);
        };
        lock(&self.outboxes).insert(session, outbox.clone());
        if let Some(replaced) = joined.replaces {
            self.close(replaced, 1000, "the same peer has joined again");
        }
        let storage = metadata.storage_id.clone().filter(|_| !metadata.is_ephemeral);
        for shard in &self.shards {
            let event = Event::Opened { session, peer: sender.clone(), storage: storage.clone() };
            let inbound = Inbound { outbox: Some(outbox.clone()), ..Inbound::new(event) };
            // A shard that has ended needs no sessions.
            let _ = shard.events.send(inbound).await;
        }
        self.metrics.session_opened();
        Ok((session, joined.answer))
    }

    /// A connection has ended.
    pub async fn leave(&self, session: SessionId, peer: &PeerId) {
        lock(&self.lobby).left(peer, session);
        lock(&self.outboxes).remove(&session);
        for shard in &self.shards {
            let event = Event::Closed { session };
            let _ = shard.events.send(Inbound::new(event)).await;
        }
        self.metrics.session_closed();
    }

    /// Hands a message to the shard of its document, and waits while there is no room for it.
    pub async fn deliver(
        &self,
        session: SessionId,
        document: DocumentId,
        message: node::DocumentMessage,
        bytes: usize,
        order: &mut PresenceOrder,
    ) {
        let kib = (bytes >> 10) + 1;
        let permits = kib.min(INBOUND_KIB_MAX) as u32;
        let budget = self.inbound.clone().acquire_many_owned(permits).await.ok();
        let shard = document.shard(self.shards.len());
        let done = if matches!(message, node::DocumentMessage::Ephemeral { .. }) {
            let (done, passed_on) = oneshot::channel();
            if let Some((before, before_it)) = order.last.replace((shard, passed_on))
                && before != shard
            {
                // It ends either way; there is nothing to be read from it.
                let _ = before_it.await;
            }
            Some(done)
        } else {
            None
        };
        let event = Event::Message { session, document, message };
        let inbound = Inbound { event, outbox: None, _budget: budget, done };
        let _ = self.shards[shard].events.send(inbound).await;
    }

    /// Hands in changes, in a sync message, as a peer would who comes, says this and goes; and waits
    /// until they are durable. Gives the heads that the document has then.
    ///
    /// # Errors
    /// When the message is not taken in.
    pub async fn hand_in(&self, document: DocumentId, data: Vec<u8>) -> Result<Heads, HandedBack> {
        let session = SessionId(self.last_session.fetch_add(1, Ordering::Relaxed) + 1);
        let (frames, mut outbox) = mpsc::channel(HANDED_IN_FRAMES_MAX);
        let events = self.shards[document.shard(self.shards.len())].events.clone();
        let peer = PeerId::new("rest").expect("a short name");
        let opened = Event::Opened { session, peer, storage: None };
        // If the answer is lost, so is the only way to here, and that is an answer, too.
        let way = Outbox { frames, overrun: CancellationToken::new() };
        let opened = Inbound { outbox: Some(way), ..Inbound::new(opened) };
        events.send(opened).await.map_err(|_| HandedBack::Stopped)?;
        // Also when nobody waits for the answer any more.
        let _leave = Leaves { session, events };
        let (bytes, message) = (data.len(), node::DocumentMessage::Sync { data });
        self.deliver(session, document, message, bytes, &mut PresenceOrder::default()).await;
        loop {
            match outbox.recv().await {
                Some(Outgoing::Frame { frame, .. }) => {
                    // The first message is the answer, and it says what is durable.
                    if let Ok(wire::Message::Sync { data, .. }) = wire::decode(&frame)
                        && let Ok(message) = sync::Message::decode(&data)
                    {
                        return Ok(message.heads);
                    }
                }
                Some(Outgoing::Close { code, reason }) => {
                    return Err(HandedBack::Refused { code, reason });
                }
                None => return Err(HandedBack::Stopped),
            }
        }
    }

    /// Tells every shard which stores' heads a session wants to hear of.
    pub async fn subscribe(&self, session: SessionId, add: &[StorageId], remove: &[StorageId]) {
        for shard in &self.shards {
            let event = Event::Subscribed { session, add: add.to_vec(), remove: remove.to_vec() };
            let _ = shard.events.send(Inbound::new(event)).await;
        }
    }

    /// Asks the shard of a document to look after it, whether or not anybody has it open: to put what
    /// is long into a snapshot, and to delete what is kept for longer than it should be.
    pub async fn tend(&self, document: DocumentId) {
        let shard = &self.shards[document.shard(self.shards.len())];
        let event = Event::Tend { document };
        let _ = shard.events.send(Inbound::new(event)).await;
    }

    /// Bytes of a shard's frames have reached a socket.
    pub async fn written(&self, session: SessionId, shard: usize, bytes: usize) {
        let event = Event::Written { session, bytes };
        let _ = self.shards[shard].events.send(Inbound::new(event)).await;
    }

    /// Asks for a connection to be closed.
    pub fn close(&self, session: SessionId, code: u16, reason: &str) {
        if let Some(outbox) = lock(&self.outboxes).get(&session) {
            // If there is no room, the socket is stuck, and its write timeout ends it.
            let _ = outbox.frames.try_send(Outgoing::Close { code, reason: reason.to_owned() });
        }
    }

    /// Every session there is.
    pub fn open_sessions(&self) -> Vec<SessionId> {
        lock(&self.outboxes).keys().copied().collect()
    }
}

/// The way of links to one shard.
#[derive(Clone)]
pub struct ShardDoor {
    events: mpsc::Sender<Inbound>,
}

/// Room for one message in the way to a shard.
pub struct ShardRoom(mpsc::OwnedPermit<Inbound>);

impl ShardDoor {
    /// Hands over what a link says, if there is room; otherwise it comes back.
    pub fn pass(&self, region: &RegionName, message: ToShard) -> Result<(), ToShard> {
        match self.events.try_reserve() {
            Ok(room) => {
                let event = Event::Region { region: region.clone(), message };
                room.send(Inbound::new(event));
                Ok(())
            }
            Err(mpsc::error::TrySendError::Full(())) => Err(message),
            // A shard that has ended needs to hear nothing.
            Err(mpsc::error::TrySendError::Closed(())) => Ok(()),
        }
    }

    /// Waits for room; there is none for ever in a shard that has ended.
    pub async fn room(&self) -> Option<ShardRoom> {
        self.events.clone().reserve_owned().await.ok().map(ShardRoom)
    }
}

impl ShardRoom {
    /// Hands over what a link says.
    pub fn pass(self, region: &RegionName, message: ToShard) {
        self.0.send(Inbound::new(Event::Region { region: region.clone(), message }));
    }
}

/// Why changes were not taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandedBack {
    /// The message, or something in it, was refused.
    Refused {
        /// The close code that a connection would get.
        code: u16,
        /// The reason that it would get.
        reason: String,
    },
    /// The machine is stopping.
    Stopped,
}

/// Takes leave of a shard when it is dropped.
struct Leaves {
    session: SessionId,
    events: mpsc::Sender<Inbound>,
}

impl Drop for Leaves {
    fn drop(&mut self) {
        let closed = Inbound::new(Event::Closed { session: self.session });
        if let Err(mpsc::error::TrySendError::Full(closed)) = self.events.try_send(closed) {
            let events = self.events.clone();
            tokio::spawn(async move { events.send(closed).await.is_ok() });
        }
    }
}

/// A place for one connection; given back when this is dropped.
pub struct Admission {
    machine: Arc<Machine>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.machine.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One shard and its ways out.
struct ShardTask {
    index: usize,
    shard: Shard,
    started: Instant,
    /// The ways to all shards.
    doors: Vec<ShardDoor>,
    links: Arc<LinkDoors>,
    outboxes: HashMap<SessionId, Outbox>,
    /// Bounded by what is under way: few batches, one job per waiting message or document.
    answers: UnboundedSender<Event>,
    committer: Option<committer::Submit>,
    archive: archive_pool::Submit,
    batches_under_way: usize,
    limits: Limits,
    counters: Arc<Mutex<Counters>>,
    metrics: Arc<Metrics>,
    board: Arc<Board>,
    /// What the batches on their way do to documents.
    noticed: HashMap<BatchId, Vec<Noticed>>,
}

impl ShardTask {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Inbound>,
        mut answered: UnboundedReceiver<Event>,
        mut asked: mpsc::Receiver<Question>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut events = Vec::with_capacity(EVENTS_AT_ONCE);
        let mut done = Vec::new();
        let mut waiting = Inbox::default();
        let mut stopping = *stop.borrow();
        while !(stopping && inbox.is_empty() && waiting.is_empty() && self.shard.is_settled()) {
            let timeout = self.shard.poll_timeout().map(|at| self.started + at);
            // Credit bounds the bytes of bulk lanes, and this the number of tiny events.
            let has_room = self.batches_under_way < BATCHES_UNDER_WAY_MAX
                && waiting.bulk_events() < EVENTS_MAX;
            tokio::select! {
                biased;
                Some(event) = answered.recv() => self.handle(event),
                count = inbox.recv_many(&mut events, EVENTS_AT_ONCE), if has_room => {
                    if count == 0 { stopping = true; }
                    for inbound in events.drain(..) {
                        self.route(&inbound.event, inbound.outbox);
                        waiting.push(inbound.event);
                        done.extend(inbound.done);
                    }
                }
                Some(question) = asked.recv() => self.answer(question),
                // A little more of what is much, after everybody else has had a turn.
                () = tokio::task::yield_now(), if waiting.has_bulk() && self.has_room_for_bulk() => {}
                changed = stop.changed(), if !stopping => stopping = changed.is_err() || *stop.borrow(),
                () = sleep_until(timeout) => {}
            }
            while let Ok(event) = answered.try_recv() {
                self.handle(event);
            }
            let mut bulk_bytes = Inbox::bulk_bytes(&self.limits, self.batches_under_way);
            while let Some(event) = waiting.next(&mut bulk_bytes) {
                self.handle(event);
            }
            // Events come first, and with many of them nothing else would ever have its turn.
            while let Ok(question) = asked.try_recv() {
                self.answer(question);
            }
            self.shard.tick(self.now());
            self.shard.flush(self.now());
            while let Some(effect) = self.shard.poll_effect() {
                self.perform(effect);
            }
            done.clear();
            *lock(&self.counters) = self.shard.counters();
        }
    }

    fn has_room_for_bulk(&self) -> bool {
        Inbox::bulk_bytes(&self.limits, self.batches_under_way) > 0
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { running: self.started.elapsed(), wall_ms: wall.as_millis() as u64 }
    }

    fn answer(&self, question: Question) {
        // Whoever asked may have gone.
        let _ = question.answer.send(self.shard.present(&question.document));
    }

    fn handle(&mut self, event: Event) {
        if let Event::Committed { batch } = &event {
            self.batches_under_way -= 1;
            if let Some(noticed) = self.noticed.remove(batch) {
                self.board.committed(noticed);
            }
        }
        let now = self.now();
        self.shard.handle(now, event);
    }

    fn route(&mut self, event: &Event, outbox: Option<Outbox>) {
        match event {
            Event::Opened { session, .. } => {
                if let Some(outbox) = outbox {
                    self.outboxes.insert(*session, outbox);
                }
            }
            Event::Closed { session } => {
                self.outboxes.remove(session);
            }
            _ => {}
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send { session, frame } => {
                let frame = Outgoing::Frame { shard: self.index, frame };
                self.put_out(session, frame);
            }
            Effect::Close { session, reason } => {
                tracing::info!(session = session.0, %reason, "closing a session");
                self.metrics.closed_for_cause();
                let code = close_code(&reason);
                // A close reason has at most 123 bytes of text.
                let mut reason = reason.to_string();
                reason.truncate(reason.floor_char_boundary(120));
                self.put_out(session, Outgoing::Close { code, reason });
            }
            Effect::Commit { batch, writes } => {
                self.batches_under_way += 1;
                let noticed = self.board.notice(&writes);
                if !noticed.is_empty() {
                    self.noticed.insert(batch, noticed);
                }
                let done = self.answers.clone();
                if let Some(committer) = &self.committer {
                    // Fails only when the committer has stopped after an error; then so do we.
                    let _ = committer.send(committer::Submission { batch, writes, done });
                }
            }
            Effect::Archive { job, task } => {
                let done = self.answers.clone();
                let _ = self.archive.send(archive_pool::Request { job, task, done });
            }
            Effect::Region { to, message } => self.links.tell(self.index, to.as_ref(), message),
            Effect::Adopt(branch) => {
                let door = self.doors[branch.copy.shard(self.doors.len())].clone();
                // A branch that lost is rare, and no shard may wait for another.
                tokio::spawn(async move {
                    let _ = door.events.send(Inbound::new(Event::Adopt(branch))).await;
                });
            }
            Effect::Report(report) => self.report(&report),
        }
    }

    fn put_out(&mut self, session: SessionId, outgoing: Outgoing) {
        if let Some(outbox) = self.outboxes.get(&session)
            && outbox.frames.try_send(outgoing).is_err()
        {
            // A frame must not be skipped. Other shards have ways to the socket as well, so that this
            // one is dropped does not end its task.
            tracing::info!(session = session.0, "too many frames wait for a slow reader");
            outbox.overrun.cancel();
            self.outboxes.remove(&session);
        }
    }

    fn report(&self, report: &Report) {
        self.metrics.reported(report);
        match report {
            Report::Refused { document, session, why } => {
                tracing::warn!(%document, session = session.0, %why, "change refused");
            }
            Report::Died { document, change, descendants, reason } => {
                tracing::error!(%document, %change, descendants, reason, "change set aside");
            }
            Report::Unreadable { document, error } => {
                tracing::error!(%document, %error, "document cannot be read");
            }
            Report::Compacted { document, changes, bytes } => {
                tracing::debug!(%document, changes, bytes, "compacted");
            }
            Report::Copied { document, change, copy } => {
                tracing::error!(
                    %document, %change, %copy,
                    "one actor wrote two histories; the one that lost is kept as a copy"
                );
            }
            Report::NotRepaired { document, reason } => {
                tracing::warn!(%document, reason, "document could not be brought level");
            }
            Report::LogTaken { log } => {
                tracing::error!(
                    %log,
                    "another process writes a log of ours: was this region's disk cloned while it \
                     ran? New changes go to a new log"
                );
            }
            Report::LogDiffers { log, region } => {
                tracing::error!(%log, %region, "a log is not what we have of it; the audit mends it");
            }
            Report::MeshUnreadable { error } => {
                tracing::error!(%error, "the logs of the mesh cannot be read");
            }
            Report::Unverified { document, reason } => {
                tracing::warn!(%document, reason, "document could not be verified");
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// 1007 for bytes that make no sense, 1008 for what is not accepted, 1011 for what is our fault, 1013
/// for what may be accepted later.
fn close_code(reason: &CloseReason) -> u16 {
    match reason {
        CloseReason::Message { .. } | CloseReason::Chunk { .. } => 1007,
        CloseReason::Refused { .. } | CloseReason::Upload { .. } | CloseReason::TooMany { .. } => {
            1008
        }
        CloseReason::Unreadable { .. } => 1011,
        CloseReason::NoRoom { .. } => 1013,
    }
}
