//! One document: takes messages in, tells its peers what is durable.
//!
//! `receive` → `take` (parse) → `offer` (into the log) → `heard` (the peer's standing), and later,
//! when the log is durable, `tell` → `speak` (to each peer, as far as it has room).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use archive::{ExpandLimits, Job, Verdict};
use history::chunk::{Change, Chunk, read_change, read_chunks};
use history::graph::Position;
use history::{Door, History, Offer, Refusal};
use mesh::exchange::{FromShard, StoreHeads};
use model::{ChangeHash, DocumentId, Heads, StorageId};
use store::Write;
use sync::{Answer, Changes, Message, Standing, Urgency};
use wire::Tail;

use crate::abroad::{Abroad, SYNC, refusal_of};
use crate::context::Context;
use crate::planted::{Bug, planted};
use crate::rows::{self, Death, LoadError, Meta, RowError};
use crate::upkeep::Upkeep;
use crate::{ArchiveResult, CloseReason, JobId, Now, Report, SessionId};

/// How many changes are judged by the CRDT in one job.
const JUDGED_AT_ONCE: usize = 1_000;

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
    /// Taking the snapshot apart for peers that cannot read one.
    expanding: Option<JobId>,
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
    /// A message that waits for the archive; later ones wait behind it (rule R1).
    blocked: Option<Blocked>,
    waiting: VecDeque<Vec<u8>>,
    /// A message whose changes are being taken out of the snapshot, because the peer reads only
    /// single changes and these are not kept as such any more.
    held: Option<Answer>,
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
            self.abroad.copy_due |= dead.death == Death::LostItsSlot && ctx.mesh.is_some();
            match &dead.change {
                Some(change) => {
                    self.history.bury(change, refusal_of(&dead, change), &mut |_, _| {});
                }
                None => {
                    self.history.doom(dead.hash, dead.reason);
                }
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

    /// Takes in a sync message.
    pub(crate) fn receive(
        &mut self,
        ctx: &mut Context,
        session: SessionId,
        data: Vec<u8>,
        now: Now,
    ) {
        self.touched = now.running;
        if !self.peers.contains_key(&session) && !ctx.is_region(session) && !self.has_clients(ctx) {
            self.show_interest(ctx, true);
        }
        let peer = self.peers.entry(session).or_default();
        let blocked = peer.blocked.is_some() && !planted(Bug::Overtakes);
        if blocked || self.upkeep.is_burying() {
            let waiting: usize = peer.waiting.iter().map(Vec::len).sum();
            let limits = &ctx.limits;
            let over = if peer.waiting.len() >= limits.waiting_messages {
                Some(("waiting messages", limits.waiting_messages))
            } else if waiting > 0 && waiting + data.len() > limits.waiting_bytes {
                Some(("bytes of waiting messages", limits.waiting_bytes))
            } else {
                None
            };
            match over {
                Some((what, max)) => {
                    self.close_or_report(ctx, session, CloseReason::TooMany { what, max });
                }
                None => peer.waiting.push_back(data),
            }
            return;
        }
        self.take(ctx, session, &data, now);
    }

    /// A session has ended.
    pub(crate) fn leave(&mut self, ctx: &mut Context, session: SessionId) {
        if self.peers.remove(&session).is_some() && !self.has_clients(ctx) {
            self.show_interest(ctx, false);
        }
    }

    /// Changes up to `end` are durable.
    pub(crate) fn committed(&mut self, ctx: &mut Context, end: Position, now: Now) {
        self.history.settle(end);
        if let Some(meta) = self.importing.take() {
            self.history.compacted(meta.base, meta.raw_from);
        }
        self.carry_out_sentences(ctx);
        let at = self.rest_until.max(now.running);
        self.tell_at = Some(self.tell_at.map_or(at, |before| before.min(at)));
        self.tick(ctx, now);
    }

    /// Does what is due and sets the alarm for what is next.
    pub(crate) fn tick(&mut self, ctx: &mut Context, now: Now) {
        if self.tell_at.is_some_and(|at| at <= now.running) {
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
        self.end_stale_repairs(now);
        self.keep_up(ctx, now);
        self.arm(ctx, now);
    }

    /// Sets the alarm for whatever is due first.
    pub(crate) fn arm(&mut self, ctx: &mut Context, now: Now) {
        let acknowledge = self.acknowledge_at.first().map(|(at, _)| *at);
        let upkeep = self.upkeep_due(&ctx.limits);
        let due =
            [self.tell_at, acknowledge, upkeep, self.abroad_due()].into_iter().flatten().min();
        // What is overdue waits for something else; it is looked at again a little later.
        let due = due.map(|due| due.max(now.running + Duration::from_millis(1)));
        if due != self.alarm {
            ctx.set_alarm(&self.id, self.alarm, due);
            self.alarm = due;
        }
    }

    /// Takes the alarm away, because the document leaves.
    pub(crate) fn disarm(&mut self, ctx: &mut Context) {
        ctx.set_alarm(&self.id, self.alarm.take(), None);
    }

    /// The alarm has rung.
    pub(crate) fn alarm_rang(&mut self) {
        self.alarm = None;
    }

    /// Tells every peer what is new.
    pub(crate) fn tell(&mut self, ctx: &mut Context, now: Now) {
        if !self.history.is_empty() {
            self.abroad.asking = None;
        }
        let me = ctx.me.storage.clone();
        if ctx.mesh.is_some() {
            self.tell_regions_of_heads(ctx, &me, now);
        }
        let frames = ctx.counters.frames_out;
        for session in self.peers.keys().copied().collect::<Vec<_>>() {
            if ctx.subscribes(session, &me)
                && let Some(peer) = self.peers.get_mut(&session)
            {
                peer.gossip_due.insert(me.clone());
            }
            self.speak(ctx, session, now);
            self.conclude(ctx, session);
        }
        let told = (ctx.counters.frames_out - frames).min(u64::from(u32::MAX)) as u32;
        let rest = (ctx.limits.rest_per_session * told).min(ctx.limits.rest_max);
        self.rest_until = now.running + rest;
    }

    /// Tells one peer what it should know, if it has room.
    pub(crate) fn speak(&mut self, ctx: &mut Context, session: SessionId, now: Now) {
        // Two messages at most: a question, and what the peer lacks.
        while let Some(peer) = self.peers.get_mut(&session)
            // What is blocked may still change what there is to say.
            && (peer.blocked.is_none() || planted(Bug::Overtakes))
            && peer.held.is_none()
            && !peer.quiet
            && self.awake
            // Who waits for a document of another region is answered when that has spoken.
            && (self.abroad.asking.is_none() || peer.leaves_at.is_some() || peer.has_some())
        {
            match peer.standing.urgency(&self.history) {
                Urgency::Nothing => break,
                Urgency::Acknowledge if peer.quiet_until > now.running => {
                    self.acknowledge_at.insert((peer.quiet_until, session));
                    break;
                }
                Urgency::Acknowledge | Urgency::News => {
                    if !ctx.has_room(session, &self.id) {
                        return;
                    }
                    peer.quiet_until = now.running + ctx.limits.acknowledge_after;
                    let Some(answer) = peer.standing.answer(&self.history) else { break };
                    self.send(ctx, session, answer);
                }
            }
        }
        self.pass_on_heads(ctx, session, now);
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

    /// A peer wants to hear of these stores from now on.
    pub(crate) fn subscribed(
        &mut self,
        ctx: &mut Context,
        session: SessionId,
        add: &[StorageId],
        now: Now,
    ) {
        let me = &ctx.me.storage;
        if let Some(peer) = self.peers.get_mut(&session) {
            let known = add.iter().filter(|id| *id == me || self.gossip.contains_key(id));
            peer.gossip_due.extend(known.cloned());
            self.pass_on_heads(ctx, session, now);
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
            peer.blocked.take_if(|blocked| blocked.job == job).map(|blocked| (*session, blocked))
        });
        match blocked {
            Some((session, blocked)) => self.unblock(ctx, session, blocked, result, now),
            None if self.expanding == Some(job) => self.expanded(ctx, result, now),
            None => self.upkeep_done(ctx, job, result, took, now),
        }
        self.tick(ctx, now);
    }

    /// Takes in what waited, until something has to wait again.
    pub(crate) fn take_waiting(&mut self, ctx: &mut Context, session: SessionId, now: Now) {
        while let Some(peer) = self.peers.get_mut(&session)
            && peer.blocked.is_none()
            && !self.upkeep.is_burying()
            && let Some(data) = peer.waiting.pop_front()
        {
            self.take(ctx, session, &data, now);
        }
    }

    fn take(&mut self, ctx: &mut Context, session: SessionId, data: &[u8], now: Now) {
        let document = || self.id.clone();
        let message = match Message::decode(data) {
            Ok(message) => message,
            Err(error) => {
                let why = CloseReason::Message { document: document(), error };
                return self.close_or_report(ctx, session, why);
            }
        };
        let (mut changes, mut upload) = (Vec::new(), Vec::new());
        for item in &message.items {
            match read_chunks(&data[item.clone()], &ctx.limits.chunks) {
                Ok(chunks) => {
                    for chunk in chunks {
                        match chunk {
                            Chunk::Change(change) => changes.push(change),
                            Chunk::Document(bytes) | Chunk::Bundle(bytes) => {
                                upload.extend_from_slice(&bytes);
                            }
                        }
                    }
                }
                Err(error) => {
                    let why = CloseReason::Chunk { document: document(), error };
                    return self.close_or_report(ctx, session, why);
                }
            }
        }
        if upload.is_empty() {
            return self.offer(ctx, session, message, changes, Vec::new(), now);
        }
        let limits = ExpandLimits::default();
        let job = ctx.archive(&self.id, Job::Expand { chunks: upload, limits });
        let blocked = Blocked { job, message, handed: Vec::new(), changes, rest: Vec::new() };
        self.peers.entry(session).or_default().blocked = Some(blocked);
    }

    /// Puts changes into the log; those that only the CRDT can judge have to wait for it.
    fn offer(
        &mut self,
        ctx: &mut Context,
        session: SessionId,
        message: Message,
        changes: Vec<Change>,
        mut handed: Vec<Position>,
        now: Now,
    ) {
        if !changes.is_empty() && !self.can_write(ctx, session) {
            return;
        }
        let door = match ctx.is_region(session) {
            true => Door::Region,
            false if planted(Bug::SkipsSlowLane) => Door::Judged,
            false => Door::Client,
        };
        let mut changes = changes.into_iter();
        let (mut judge, mut refused) = (Vec::new(), Vec::new());
        let mut outcomes = Vec::new();
        while judge.is_empty()
            && let Some(change) = changes.next()
        {
            let offered = change.hash();
            self.history.offer(change, door, &mut |change, offer| {
                outcomes.push((change.clone(), offer));
            });
            for (change, offer) in outcomes.drain(..) {
                // What another region gave us and waited for this is not this session's.
                let waited =
                    change.hash() != offered && self.abroad.waiting.contains_key(&change.hash());
                if ctx.mesh.is_some() {
                    self.settle(ctx, Some(session), &change, &offer);
                }
                match offer {
                    Offer::Appended(_) if waited => {}
                    Offer::Appended(position) | Offer::Known(position) => handed.push(position),
                    Offer::Pending | Offer::Outranks(_) => {}
                    Offer::NeedsCrdt(_) => judge.push(change),
                    Offer::Refused(why) => refused.push(why),
                }
            }
        }
        self.log_refusals(ctx, session, refused);
        self.stage(ctx);
        self.carry_out_sentences(ctx);
        if judge.is_empty() {
            self.heard(ctx, session, &message, &handed, now);
        } else {
            let rest = self.judge_with(&mut judge, changes);
            let job = JobId(0);
            self.ask_the_crdt(ctx, session, Blocked { job, message, handed, changes: judge, rest });
        }
    }

    /// What directly follows a change that has to be judged is judged with it, so that a run of
    /// formatting costs one job and not one each. What is left waits.
    fn judge_with(
        &self,
        judge: &mut Vec<Change>,
        changes: impl Iterator<Item = Change>,
    ) -> Vec<Change> {
        let mut there: BTreeSet<ChangeHash> = judge.iter().map(Change::hash).collect();
        let mut rest = Vec::new();
        for change in changes {
            let known = |dep: &ChangeHash| {
                self.history.graph().position(dep).is_some() || there.contains(dep)
            };
            if judge.len() < JUDGED_AT_ONCE && change.deps().iter().all(known) {
                there.insert(change.hash());
                judge.push(change);
            } else {
                rest.push(change);
            }
        }
        rest
    }

    /// Sends what cannot be checked cheaply to the archive (the slow lane).
    fn ask_the_crdt(&mut self, ctx: &mut Context, session: SessionId, mut blocked: Blocked) {
        let snapshot = match self.snapshot(ctx) {
            Ok(snapshot) => snapshot,
            Err(error) => return self.unreadable(ctx, error),
        };
        let bytes = |change: &Change| change.bytes().to_vec();
        let tail = (self.history.base()..self.history.len())
            .filter_map(|position| self.history.resident(position).map(bytes))
            .collect();
        let candidates = blocked.changes.iter().map(bytes).collect();
        ctx.counters.slow_lane += blocked.changes.len() as u64;
        blocked.job = ctx.archive(&self.id, Job::Judge { snapshot, changes: tail, candidates });
        self.peers.entry(session).or_default().blocked = Some(blocked);
    }

    fn unblock(
        &mut self,
        ctx: &mut Context,
        session: SessionId,
        blocked: Blocked,
        result: ArchiveResult,
        now: Now,
    ) {
        match result {
            Ok(archive::Answer::Expanded(expanded)) => {
                let mut all = Vec::with_capacity(expanded.changes.len() + blocked.changes.len());
                for bytes in expanded.changes.iter().chain(&expanded.orphans) {
                    match read_change(bytes) {
                        Ok(change) => all.push(change),
                        Err(error) => {
                            let document = self.id.clone();
                            return self.close_or_report(
                                ctx,
                                session,
                                CloseReason::Chunk { document, error },
                            );
                        }
                    }
                }
                let whole = self.history.is_empty() && blocked.changes.is_empty();
                all.extend(blocked.changes);
                self.offer(ctx, session, blocked.message, all, blocked.handed, now);
                if whole && *self.history.graph().heads() == expanded.heads {
                    self.upkeep.uploaded(self.history.len(), expanded.snapshot);
                }
            }
            Ok(archive::Answer::Judged(verdicts)) => {
                self.judged(ctx, session, blocked, verdicts, now);
            }
            Ok(_) => unreachable!("the archive answers what it was asked"),
            Err(failure) => {
                let document = self.id.clone();
                let reason = failure.to_string();
                self.close_or_report(ctx, session, CloseReason::Upload { document, reason });
            }
        }
        self.take_waiting(ctx, session, now);
    }

    fn judged(
        &mut self,
        ctx: &mut Context,
        session: SessionId,
        blocked: Blocked,
        verdicts: Vec<Verdict>,
        now: Now,
    ) {
        if !self.can_write(ctx, session) {
            return;
        }
        let Blocked { message, mut handed, changes, mut rest, .. } = blocked;
        let fits: BTreeSet<ChangeHash> = (changes.iter().zip(&verdicts))
            .filter(|(_, verdict)| verdict.is_ok())
            .map(|(change, _)| change.hash())
            .collect();
        let mut refused = Vec::new();
        for (change, verdict) in changes.into_iter().zip(verdicts) {
            match verdict {
                Ok(()) => {
                    let mut outcomes = Vec::new();
                    self.history.offer(change, Door::Judged, &mut |change, offer| {
                        outcomes.push((change.clone(), offer));
                    });
                    for (change, offer) in outcomes {
                        if ctx.mesh.is_some() {
                            self.settle(ctx, Some(session), &change, &offer);
                        }
                        match offer {
                            Offer::Appended(position) | Offer::Known(position) => {
                                handed.push(position);
                            }
                            // What was judged with it gets its own turn; what somebody else sent
                            // earlier and waited for it is judged in the next round.
                            Offer::NeedsCrdt(_) if !fits.contains(&change.hash()) => {
                                rest.insert(0, change);
                            }
                            Offer::NeedsCrdt(_) | Offer::Pending | Offer::Outranks(_) => {}
                            Offer::Refused(why) => refused.push(why),
                        }
                    }
                }
                Err(reason) => {
                    let why = Refusal::Crdt { hash: change.hash(), reason: reason.to_string() };
                    self.history.refuse(&change, why.clone());
                    refused.push(why);
                }
            }
        }
        self.log_refusals(ctx, session, refused);
        self.stage(ctx);
        self.offer(ctx, session, message, rest, handed, now);
    }

    /// Everything in the message is where it belongs: the peer's standing can follow.
    fn heard(
        &mut self,
        ctx: &mut Context,
        session: SessionId,
        message: &Message,
        handed: &[Position],
        now: Now,
    ) {
        let Some(peer) = self.peers.get_mut(&session) else { return };
        peer.standing.receive(message, handed, &self.history);
        if self.history.is_empty() && message.heads.is_empty() && message.items.is_empty() {
            if ctx.is_region(session) {
                self.peers.remove(&session);
                return ctx
                    .tell_region(session, FromShard::Unavailable { document: self.id.clone() });
            }
            if self.ask_regions(ctx, now) {
                return;
            }
            self.decline(ctx, session);
        }
        self.note_heads(ctx, session, &message.heads, now);
        self.speak(ctx, session, now);
    }

    /// Says that the document is not here. Said once, and again news when it turns up (rule R3).
    pub(crate) fn decline(&mut self, ctx: &mut Context, session: SessionId) {
        let Some(peer) = self.peers.get_mut(&session) else { return };
        peer.standing.declined();
        if let Some(known) = ctx.sessions.get(&session) {
            let mut frame = Vec::new();
            wire::encode(
                &wire::Message::DocUnavailable {
                    sender: ctx.me.peer.clone(),
                    target: known.peer.clone(),
                    document: self.id.clone(),
                },
                &mut frame,
            );
            ctx.send(session, frame);
        }
    }

    /// The directory is needed before anything can be checked against it.
    fn can_write(&mut self, ctx: &mut Context, session: SessionId) -> bool {
        if self.history.directory().is_some() {
            return true;
        }
        match rows::directory(&*ctx.store, &self.id, self.meta.unwrap_or_default()) {
            Ok(directory) => {
                self.history.install_directory(directory);
                true
            }
            Err(error) => {
                ctx.close(session, CloseReason::Unreadable { document: self.id.clone() });
                self.unreadable(ctx, error);
                false
            }
        }
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
            ctx.close(*session, CloseReason::Unreadable { document: document.clone() });
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

    fn log_refusals(&mut self, ctx: &mut Context, session: SessionId, refused: Vec<Refusal>) {
        for why in refused {
            ctx.counters.refused += 1;
            let document = self.id.clone();
            if (why.is_hostile() || matches!(why, Refusal::Crdt { .. })) && !ctx.is_region(session)
            {
                let (document, why) = (document.clone(), why.clone());
                ctx.close(session, CloseReason::Refused { document, why });
            }
            ctx.report(Report::Refused { document, session, why });
        }
    }

    pub(crate) fn send(&mut self, ctx: &mut Context, session: SessionId, answer: Answer) {
        if ctx.is_region(session) {
            return match self.payload(ctx, &answer) {
                Ok(payload) => self.send_abroad(ctx, session, SYNC, &payload),
                Err(LoadError::Row(RowError::Missing(_))) if self.history.base() > 0 => {
                    self.expand_for(ctx, session, answer);
                }
                Err(error) => self.unreadable(ctx, error),
            };
        }
        let Some(target) = ctx.sessions.get(&session).map(|known| known.peer.clone()) else {
            return;
        };
        let cached = self.last_made.take_if(|(made, _)| *made == answer);
        let tail = match cached.map_or_else(|| self.encode(ctx, &answer), |(_, tail)| Ok(tail)) {
            Ok(tail) => tail,
            Err(LoadError::Row(RowError::Missing(_))) if self.history.base() > 0 => {
                return self.expand_for(ctx, session, answer);
            }
            Err(error) => return self.unreadable(ctx, error),
        };
        ctx.counters.changes_out += answer.changes.count() as u64;
        let frame = tail.frame(&ctx.me.peer, &target);
        self.last_made = Some((answer, tail));
        ctx.send(session, frame);
    }

    /// Puts the changes into the message: one by one where that is what the peer lacks, else the
    /// snapshot and all that follows it (rule R11), straight from the store.
    fn encode(&self, ctx: &mut Context, answer: &Answer) -> Result<Tail, LoadError> {
        Ok(Tail::sync(&self.id, &self.payload(ctx, answer)?))
    }

    fn payload(&self, ctx: &mut Context, answer: &Answer) -> Result<Vec<u8>, LoadError> {
        let Some(first) = answer.changes.first() else {
            return Ok(answer.reply.encode([].into_iter()));
        };
        let everything = answer.changes == Changes::Range(0..self.history.durable());
        let trimmed = first < self.history.raw_from();
        let changes = if everything || trimmed {
            None
        } else {
            match self.changes(ctx, &answer.changes.positions()) {
                // A compaction that is under way has just deleted them.
                Err(LoadError::Row(RowError::Missing(_))) => None,
                read => Some(read?),
            }
        };
        let changes = match changes {
            None if trimmed && !everything && planted(Bug::OmitsTrimmed) => {
                let kept = answer.changes.positions().into_iter();
                let kept = kept.filter(|position| *position >= self.history.raw_from());
                Some(self.changes(ctx, &kept.collect::<Vec<_>>())?)
            }
            changes => changes,
        };
        if let Some(changes) = changes {
            let chunks: Vec<&[u8]> = changes.iter().map(Change::bytes).collect();
            return Ok(answer.reply.encode(chunks.into_iter()));
        }
        let (base, durable) = (self.history.base(), self.history.durable());
        if base > 0 && answer.version_2 {
            let snapshot = self.snapshot(ctx)?.unwrap_or_default();
            let tail = self.changes(ctx, &(base..durable).collect::<Vec<_>>())?;
            let parts: Vec<&[u8]> = std::iter::once(snapshot.as_slice())
                .chain(tail.iter().map(Change::bytes))
                .collect();
            ctx.counters.snapshots_out += 1;
            return Ok(answer.reply.encode_joined(parts.into_iter()));
        }
        if trimmed {
            return Err(RowError::Missing("change kept by itself").into());
        }
        let changes = self.changes(ctx, &answer.changes.positions())?;
        let chunks: Vec<&[u8]> = changes.iter().map(Change::bytes).collect();
        Ok(answer.reply.encode(chunks.into_iter()))
    }

    /// A peer that reads only single changes lacks some that are not kept as such any more: the
    /// archive takes them out of the snapshot, and the message waits.
    fn expand_for(&mut self, ctx: &mut Context, session: SessionId, answer: Answer) {
        if self.expanding.is_none() {
            match self.snapshot(ctx) {
                Ok(snapshot) => {
                    let chunks = snapshot.unwrap_or_default();
                    let task = Job::Expand { chunks, limits: ExpandLimits::default() };
                    self.expanding = Some(ctx.archive(&self.id, task));
                }
                Err(error) => return self.unreadable(ctx, error),
            }
        }
        if let Some(peer) = self.peers.get_mut(&session) {
            peer.held = Some(answer);
        }
    }

    fn expanded(&mut self, ctx: &mut Context, result: ArchiveResult, now: Now) {
        self.expanding = None;
        let held: Vec<(SessionId, Answer)> = self
            .peers
            .iter_mut()
            .filter_map(|(session, peer)| Some((*session, peer.held.take()?)))
            .collect();
        let expanded: BTreeMap<ChangeHash, Change> = match result {
            Ok(archive::Answer::Expanded(expanded)) => (expanded.changes.iter())
                .filter_map(|bytes| read_change(bytes).ok())
                .map(|change| (change.hash(), change))
                .collect(),
            _ => BTreeMap::new(),
        };
        for (session, answer) in held {
            let positions = answer.changes.positions();
            let changes: Option<Vec<&Change>> = positions
                .iter()
                .map(|at| {
                    let resident = self.history.resident(*at);
                    resident.or_else(|| expanded.get(&self.history.graph().hash(*at)))
                })
                .collect();
            let target = ctx.sessions.get(&session).map(|known| known.peer.clone());
            match (changes, target) {
                (Some(changes), Some(target)) => {
                    ctx.counters.changes_out += changes.len() as u64;
                    let chunks: Vec<&[u8]> = changes.iter().map(|change| change.bytes()).collect();
                    let payload = answer.reply.encode(chunks.into_iter());
                    if ctx.is_region(session) {
                        self.send_abroad(ctx, session, SYNC, &payload);
                    } else {
                        let tail = Tail::sync(&self.id, &payload);
                        let frame = tail.frame(&ctx.me.peer, &target);
                        ctx.send(session, frame);
                    }
                }
                _ => ctx.close(session, CloseReason::Unreadable { document: self.id.clone() }),
            }
            self.speak(ctx, session, now);
        }
    }

    /// The changes at these ascending positions, from memory or from the log in the store.
    fn changes(&self, ctx: &Context, positions: &[Position]) -> Result<Vec<Change>, LoadError> {
        let resident = self.history.resident_from();
        let stored = positions.partition_point(|position| *position < resident);
        let (stored, here) = positions.split_at(stored);
        let mut changes = Vec::with_capacity(positions.len());
        if let (Some(first), Some(last)) = (stored.first(), stored.last()) {
            let kept_from = self.history.raw_from();
            let read = rows::changes(&*ctx.store, &self.id, kept_from, *first, last + 1)?;
            changes.extend(stored.iter().map(|at| read[(at - first) as usize].clone()));
        }
        changes.extend(here.iter().filter_map(|at| self.history.resident(*at)).cloned());
        Ok(changes)
    }

    /// Remembers what a store holds, and notes who wants to hear of it.
    fn note_heads(&mut self, ctx: &mut Context, from: SessionId, heads: &Heads, now: Now) {
        let storage = ctx.sessions.get(&from).and_then(|known| known.storage.clone());
        let Some(storage) = storage else { return };
        let full = self.gossip.len() >= ctx.limits.gossip_stores_per_document;
        let news = match self.gossip.get(&storage) {
            Some(known) => known.heads != *heads,
            None => !full,
        };
        if !news {
            return;
        }
        let (heads, timestamp_ms) = (heads.clone(), now.wall_ms);
        let entry = wire::RemoteHeads { storage: storage.clone(), heads, timestamp_ms };
        self.learn_heads(ctx, Some(from), entry, now);
    }

    /// What a store is known to hold, passed on to whoever wants to hear of it.
    fn learn_heads(
        &mut self,
        ctx: &mut Context,
        from: Option<SessionId>,
        entry: wire::RemoteHeads,
        now: Now,
    ) {
        let storage = entry.storage.clone();
        self.gossip.insert(storage.clone(), entry);
        if from.is_some() {
            self.tell_regions_of_heads(ctx, &storage, now);
        }
        let interested: Vec<SessionId> = (self.peers.keys().copied())
            .filter(|session| Some(*session) != from && ctx.subscribes(*session, &storage))
            .collect();
        for session in interested {
            if let Some(peer) = self.peers.get_mut(&session) {
                peer.gossip_due.insert(storage.clone());
            }
            self.pass_on_heads(ctx, session, now);
        }
    }

    /// What stores in another region hold.
    pub(crate) fn heads_from_region(
        &mut self,
        ctx: &mut Context,
        heads: Vec<StoreHeads>,
        now: Now,
    ) {
        for StoreHeads { storage, heads, timestamp_ms } in heads {
            let full = self.gossip.len() >= ctx.limits.gossip_stores_per_document;
            let news = match self.gossip.get(&storage) {
                Some(known) => known.timestamp_ms < timestamp_ms && known.heads != heads,
                None => !full,
            };
            if news && storage != ctx.me.storage {
                let entry = wire::RemoteHeads { storage, heads, timestamp_ms };
                self.learn_heads(ctx, None, entry, now);
            }
        }
    }

    /// Tells regions whose clients subscribe to a store what it holds now.
    fn tell_regions_of_heads(&self, ctx: &mut Context, storage: &StorageId, now: Now) {
        for session in ctx.subscribed_regions(&self.id, storage) {
            let heads = if *storage == ctx.me.storage {
                StoreHeads {
                    storage: storage.clone(),
                    heads: self.history.heads().clone(),
                    timestamp_ms: now.wall_ms,
                }
            } else if let Some(known) = self.gossip.get(storage) {
                let (heads, timestamp_ms) = (known.heads.clone(), known.timestamp_ms);
                StoreHeads { storage: storage.clone(), heads, timestamp_ms }
            } else {
                continue;
            };
            let (document, heads) = (self.id.clone(), vec![heads]);
            ctx.tell_region(session, FromShard::Heads { document, heads });
        }
    }

    fn pass_on_heads(&mut self, ctx: &mut Context, session: SessionId, now: Now) {
        let Some(peer) = self.peers.get_mut(&session) else { return };
        if peer.gossip_due.is_empty() || !ctx.has_room(session, &self.id) {
            return;
        }
        let Some(target) = ctx.sessions.get(&session).map(|known| known.peer.clone()) else {
            return;
        };
        let me = &ctx.me;
        let heads: Vec<wire::RemoteHeads> = std::mem::take(&mut peer.gossip_due)
            .into_iter()
            .filter_map(|storage| {
                if storage == me.storage {
                    let (heads, timestamp_ms) = (self.history.heads().clone(), now.wall_ms);
                    return Some(wire::RemoteHeads { storage, heads, timestamp_ms });
                }
                self.gossip.get(&storage).cloned()
            })
            .filter(|entry| !entry.heads.is_empty())
            .collect();
        if heads.is_empty() {
            return;
        }
        let mut frame = Vec::new();
        let message = wire::Message::RemoteHeadsChanged {
            sender: me.peer.clone(),
            target,
            document: self.id.clone(),
            heads,
        };
        wire::encode(&message, &mut frame);
        ctx.send(session, frame);
    }
}
