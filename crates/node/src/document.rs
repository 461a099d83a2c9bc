//! One document and everybody who has it open: what is in memory of it, and when something is due.
//!
//! What peers say goes into the log ([`intake`]), the log into the store, and what is durable is told
//! to them ([`speech`]). Beside that they hear what other stores hold ([`gossip`]).

mod gossip;
mod intake;
mod speech;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use history::chunk::Change;
use history::graph::Position;
use history::{History, Refusal};
use model::{ChangeHash, DocumentId, StorageId};
use store::Write;
use sync::{Answer, Message, Standing};
use wire::Tail;

use crate::abroad::{Abroad, refusal_of};
use crate::context::Context;
use crate::planted::{Bug, planted};
use crate::rows::{self, LoadError, Meta};
use crate::upkeep::Upkeep;
use crate::{ArchiveResult, CloseReason, JobId, Now, Report, SessionId};

/// One document and everybody who has it open.
pub(crate) struct Document {
    pub(crate) id: DocumentId,
    /// What is stored; `None` before anything is.
    pub(crate) meta: Option<Meta>,
    /// The log. At rest it is only in the store, see [`Document::wake`].
    pub(crate) history: History,
    pub(crate) awake: bool,
    /// Boxed, because a node of the tree has room for eleven, and most documents have one.
    pub(crate) peers: BTreeMap<SessionId, Box<Peer>>,
    /// Changes below this are on their way to the store, or there.
    pub(crate) submitted: Position,
    /// A whole upload is on its way to the store as a snapshot: what the meta row will say.
    importing: Option<Meta>,
    pub(crate) upkeep: Upkeep,
    /// The last time that anybody did anything with the document.
    pub(crate) touched: Duration,
    /// When to tell the peers about new durable changes.
    tell_at: Option<Duration>,
    /// Not before this, so that what happens meanwhile goes out together.
    rest_until: Duration,
    acknowledge_at: BTreeSet<(Duration, SessionId)>,
    alarm: Option<Duration>,
    /// The message that was made last: most peers get the same.
    last_made: Option<(Answer, Tail)>,
    /// Taking the snapshot apart, which covers so many changes, for peers that cannot be sent it.
    expanding: Option<(JobId, Position)>,
    /// What came of that, as long as a repair may go on with it: by hash, because where they are in the
    /// log may change.
    taken_apart: BTreeMap<ChangeHash, Change>,
    /// What stores are known to hold, as far as peers have said.
    gossip: BTreeMap<StorageId, wire::RemoteHeads>,
    /// What there is because of other regions.
    pub(crate) abroad: Abroad,
}

/// One session on this document.
#[derive(Default)]
pub(crate) struct Peer {
    pub(crate) standing: Standing,
    /// A mere acknowledgement waits until then.
    quiet_until: Duration,
    /// A message that waits for the archive; later ones wait behind it (rule R1). Boxed, as the next but
    /// one, because most of ten thousand sessions never have one.
    blocked: Option<Box<Blocked>>,
    waiting: VecDeque<Vec<u8>>,
    /// A message whose changes are being taken out of the snapshot, because they are not kept as such
    /// any more, and the peer reads only single changes or is a region that cannot be sent so large a one.
    held: Option<Box<Answer>>,
    /// It asked for the document, and is to be told that nobody has it when there is room.
    declined: bool,
    /// Stores whose heads are news to this peer.
    gossip_due: BTreeSet<StorageId>,
    /// For a region under repair: it has until then to go on.
    pub(crate) leaves_at: Option<Duration>,
    /// For a region: we spoke first.
    pub(crate) began: bool,
    /// For a region: nothing is said to it while this message is taken in.
    pub(crate) quiet: bool,
}

impl Peer {
    pub(crate) fn of_region() -> Self {
        Self { standing: Standing::of_region(), ..Self::default() }
    }

    /// Whether it has said that it has some of the document.
    pub(crate) fn has_some(&self) -> bool {
        self.standing.their_heads().is_some_and(|heads| !heads.is_empty())
    }

    /// Whether something of this peer waits for the archive.
    pub(crate) fn is_waiting(&self) -> bool {
        self.blocked.is_some() || !self.waiting.is_empty() || self.held.is_some()
    }
}

/// A message that has been read but not taken in, because only the CRDT can say whether it may be.
struct Blocked {
    job: JobId,
    message: Message,
    handed: Vec<Position>,
    /// In an upload: the changes that came along. In the slow lane: those to be judged.
    changes: Vec<Change>,
    /// In the slow lane: those that come after.
    rest: Vec<Change>,
    /// The archive has answered, during a burial: only the log that comes of it can be added to.
    answer: Option<ArchiveResult>,
}

impl Document {
    pub(crate) fn new(id: DocumentId) -> Self {
        Self {
            id,
            meta: None,
            history: History::default(),
            awake: false,
            peers: BTreeMap::new(),
            submitted: 0,
            importing: None,
            upkeep: Upkeep::default(),
            touched: Duration::ZERO,
            tell_at: None,
            rest_until: Duration::ZERO,
            acknowledge_at: BTreeSet::new(),
            alarm: None,
            last_made: None,
            expanding: None,
            taken_apart: BTreeMap::new(),
            gossip: BTreeMap::new(),
            abroad: Abroad::default(),
        }
    }

    /// Reads the log from the store if it is at rest. Positions are the same as before.
    pub(crate) fn wake(&mut self, ctx: &mut Context) -> Result<(), LoadError> {
        if self.awake {
            return Ok(());
        }
        if let Some(mesh) = &ctx.mesh {
            self.abroad.item = mesh.item(&*ctx.store, &self.id)?;
        }
        if let Some(loaded) = rows::load(&*ctx.store, &self.id)? {
            self.history = loaded.history;
            self.meta = Some(loaded.meta);
        }
        for dead in rows::dead(&*ctx.store, &self.id)? {
            // Whether the copy was made before the process ended is not known; making it twice is
            // making it once.
            self.abroad.copy_due |= ctx.mesh.is_some();
            // Who has to leave the log because of it is still there if the process ended too soon.
            match &dead.change {
                Some(change) => {
                    let why = refusal_of(&dead, change);
                    let occupant = self.history.bury(change, why, &mut |_, _| {});
                    if let Some(occupant) = occupant {
                        self.condemn_occupant(occupant, change);
                    }
                }
                None if self.history.doom(dead.hash, dead.reason.clone()).is_some() => {
                    let why = Refusal::Dead { hash: dead.hash, reason: dead.reason };
                    self.abroad.condemned.insert(dead.hash, why);
                }
                None => {}
            }
        }
        self.submitted = self.history.durable();
        self.upkeep.loaded(&self.history);
        self.awake = true;
        ctx.counters.documents_loaded += 1;
        if ctx.mesh.is_some() {
            self.offer_waiting(ctx);
        }
        Ok(())
    }

    /// A session has ended.
    pub(crate) fn leave(&mut self, ctx: &mut Context, session: SessionId) {
        if self.peers.remove(&session).is_some() && !self.has_clients(ctx) {
            ctx.open_documents -= 1;
            self.show_interest(ctx, false);
        }
    }

    /// Changes up to `end` are durable.
    pub(crate) fn committed(&mut self, ctx: &mut Context, end: Position, now: Now) {
        self.count_commit();
        self.history.settle(end);
        if let Some(meta) = self.importing.take() {
            self.history.compacted(meta.base, meta.raw_from);
        }
        self.carry_out_sentences(ctx);
        self.tell_at = Some(self.rest_until.max(now.running));
        if self.rest_until <= now.running {
            self.tell_at = None;
            self.tell(ctx, now);
        }
        self.tick(ctx, now);
    }

    /// Does what is due and sets the alarm for what is next.
    pub(crate) fn tick(&mut self, ctx: &mut Context, now: Now) {
        // What is on its way to the store, or goes now that the rest is over, is told with the rest.
        if self.tell_at.is_some_and(|at| at <= now.running)
            && self.history.durable() == self.history.len()
        {
            self.tell_at = None;
            self.tell(ctx, now);
        }
        while let Some((at, session)) = self.acknowledge_at.first().copied()
            && at <= now.running
        {
            self.acknowledge_at.pop_first();
            self.speak(ctx, session, now);
        }
        if now.running >= self.touched + ctx.limits.verify_after {
            self.forget_made();
        }
        if self.abroad.asking.as_ref().is_some_and(|asking| asking.until <= now.running) {
            self.stop_asking(ctx, now);
        }
        self.end_stale_repairs(ctx, now);
        self.keep_up(ctx, now);
        self.arm(ctx, now);
    }

    /// Sets the alarm for whatever is due first.
    pub(crate) fn arm(&mut self, ctx: &mut Context, now: Now) {
        self.forget_taken_apart(ctx);
        let acknowledge = self.acknowledge_at.first().map(|(at, _)| *at);
        let upkeep = self.upkeep_due(&ctx.limits);
        let due =
            [self.tell_at, acknowledge, upkeep, self.abroad_due()].into_iter().flatten().min();
        // What is overdue waits for something else; it is looked at again a little later. Later than
        // it was already set for it is not put off, or whoever says something each millisecond would
        // keep everybody waiting for ever.
        let soon = now.running + Duration::from_millis(1);
        let soon = self.alarm.map_or(soon, |set| set.min(soon));
        let due = due.map(|due| due.max(soon));
        if due != self.alarm {
            ctx.set_alarm(&self.id, self.alarm, due);
            self.alarm = due;
        }
    }

    /// Until when new changes may wait for others to share a commit with them: the end of the rest, or
    /// the end of the commit after which the next rest begins.
    pub(crate) fn may_gather_until(&self) -> Duration {
        if self.submitted > self.history.durable() { Duration::MAX } else { self.rest_until }
    }

    /// Whether its sessions are told something when its rest is over.
    pub(crate) fn waits_to_tell(&self) -> bool {
        self.tell_at.is_some()
    }

    /// Takes the alarm away, because the document leaves.
    pub(crate) fn disarm(&mut self, ctx: &mut Context) {
        self.forget_taken_apart(ctx);
        ctx.set_alarm(&self.id, self.alarm.take(), None);
    }

    /// The alarm has rung.
    pub(crate) fn alarm_rang(&mut self) {
        self.alarm = None;
    }

    /// Passes something on to everybody else who has the document open, in order, never stored.
    pub(crate) fn relay(
        &self,
        ctx: &mut Context,
        from: Option<SessionId>,
        tail: &Tail,
        author: &model::PeerId,
    ) {
        for session in self.peers.keys().filter(|session| Some(**session) != from) {
            if ctx.is_region(*session) {
                continue;
            }
            let Some(known) = ctx.sessions.get(session) else { continue };
            if known.in_flight >= ctx.limits.presence_bytes_in_flight {
                ctx.counters.presence_dropped += 1;
                continue;
            }
            let frame = tail.frame(author, &known.peer);
            ctx.counters.presence_out += 1;
            ctx.send(*session, frame);
        }
    }

    /// The archive has finished a job for a message.
    pub(crate) fn archived(
        &mut self,
        ctx: &mut Context,
        job: JobId,
        result: ArchiveResult,
        took: Duration,
        now: Now,
    ) {
        let blocked = self.peers.iter_mut().find_map(|(session, peer)| {
            let blocked = peer.blocked.as_mut().filter(|blocked| blocked.job == job)?;
            Some((*session, blocked))
        });
        match blocked {
            Some((session, blocked)) => {
                blocked.answer = Some(result);
                self.go_on(ctx, session, now);
            }
            None if self.expanding.is_some_and(|(of, _)| of == job) => {
                self.expanded(ctx, result, now)
            }
            None => self.upkeep_done(ctx, job, result, took, now),
        }
        self.tick(ctx, now);
    }

    /// Whether somebody is to be told later that something is durable, for which the log is needed.
    pub(crate) fn owes_acknowledgements(&self) -> bool {
        self.acknowledge_at.iter().any(|(_, session)| self.peers.contains_key(session))
    }

    /// Whether a message waits for the archive, so that the log is still needed.
    pub(crate) fn waits_for_archive(&self) -> bool {
        self.expanding.is_some() || self.peers.values().any(|peer| peer.blocked.is_some())
    }

    /// Positions have changed: everything that was made from them is void.
    pub(crate) fn start_over(&mut self) {
        for peer in self.peers.values_mut() {
            peer.held = None;
            peer.standing.restart(&self.history);
            if let Some(blocked) = &mut peer.blocked {
                blocked.handed.clear();
            }
        }
        self.expanding = None;
        self.forget_made();
    }

    /// What was made from the log is not good any more, or not worth its memory.
    pub(crate) fn forget_made(&mut self) {
        self.last_made = None;
    }

    pub(crate) fn unreadable(&self, ctx: &mut Context, error: LoadError) {
        let document = self.id.clone();
        for session in self.peers.keys() {
            self.close_or_report(
                ctx,
                *session,
                CloseReason::Unreadable { document: document.clone() },
            );
        }
        ctx.report(Report::Unreadable { document, error });
    }

    pub(crate) fn snapshot(&self, ctx: &Context) -> Result<Option<Vec<u8>>, LoadError> {
        // Before the rows are there, the history does not count on them.
        let base = self.history.base();
        rows::snapshot(&*ctx.store, &self.id, Meta { base, ..self.meta.unwrap_or_default() })
    }

    /// The writes that make the new changes durable.
    pub(crate) fn submit(&mut self, ctx: &mut Context, now: Now, writes: &mut Vec<Write>) {
        let (from, to) = (self.submitted, self.history.len());
        self.submitted = to;
        self.count_submission();
        if from == to {
            // It only wants to hear when this batch is durable.
            return;
        }
        if ctx.mesh.is_some() {
            for position in from..to {
                if (!self.abroad.foreign.remove(&position) || planted(Bug::NumbersAgain))
                    && let Some(change) = self.history.resident(position)
                {
                    let item = mesh::Item::Change(change.clone());
                    ctx.publish(mesh::Entry { document: self.id.clone(), item });
                }
            }
            ctx.item_changed(&self.id);
        }
        let new = Meta { created_ms: now.wall_ms, ..Meta::default() };
        if let Some(snapshot) = self.upkeep.take_whole(from, to)
            && self.history.resident_bytes() >= ctx.limits.compact_tail_bytes
            && let Some(directory) = self.history.directory()
        {
            // What came as one document is stored as one, not change by change.
            let snapshot_bytes = snapshot.len() as u64;
            let meta = Meta { base: to, raw_from: to, snapshot_bytes, ..new };
            let index = history::index::encode(self.history.graph(), 0, to);
            writes.push(rows::put_index(&self.id, 0, index));
            writes.push(rows::put_directory(&self.id, directory.encode()));
            writes.push(rows::put_snapshot(&self.id, snapshot));
            writes.push(rows::put_meta(&self.id, meta));
            self.meta = Some(meta);
            self.importing = Some(meta);
            return;
        }
        let changes = (from..to).filter_map(|position| self.history.resident(position));
        rows::put_log(&self.id, from, now.wall_ms, changes, writes);
        if self.meta.is_none() {
            writes.push(rows::put_meta(&self.id, new));
            self.meta = Some(new);
        }
    }

    pub(crate) fn stage(&mut self, ctx: &mut Context) {
        if self.history.len() > self.submitted {
            ctx.staged.insert(self.id.clone());
        }
    }
}
