//! What peers are told: made from the log when one of them has room for it, never queued.
//!
//! `tell` → `speak` (to each peer, as far as it has room) → `send`.

use std::collections::BTreeMap;

use archive::{ExpandLimits, Job};
use history::chunk::{Change, read_change};
use history::graph::Position;
use sync::{Answer, Changes, Urgency};
use wire::Tail;

use super::Document;
use crate::abroad::{PART, SYNC};
use crate::context::Context;
use crate::planted::{Bug, planted};
use crate::rows::{self, LoadError, RowError};
use crate::{ArchiveResult, CloseReason, Limits, Now, SessionId};

impl Document {
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
        if let Some(peer) = self.peers.get_mut(&session)
            && std::mem::take(&mut peer.declined)
            && self.history.is_empty()
        {
            self.decline(ctx, session);
        }
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
                // A repair does not wait: its next part is due then.
                Urgency::Acknowledge
                    if peer.quiet_until > now.running && peer.leaves_at.is_none() =>
                {
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

    /// Says that the document is not here, when there is room to say it. Said once, and again news when
    /// it turns up (rule R3).
    pub(crate) fn decline(&mut self, ctx: &mut Context, session: SessionId) {
        let Some(peer) = self.peers.get_mut(&session) else { return };
        peer.standing.declined();
        if !ctx.has_room(session, &self.id) {
            peer.declined = true;
            return;
        }
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

    pub(crate) fn send(&mut self, ctx: &mut Context, session: SessionId, answer: Answer) {
        if !ctx.is_region(session)
            && let Some((_, tail)) = self.last_made.take_if(|(made, _)| *made == answer)
        {
            return self.send_made(ctx, session, answer, tail);
        }
        match self.try_send(ctx, session, answer.clone()) {
            Err(LoadError::Row(RowError::Missing(_))) if self.history.base() > 0 => {
                self.expand_for(ctx, session, answer);
            }
            Err(error) => self.unreadable(ctx, error),
            Ok(()) => {}
        }
    }

    fn try_send(
        &mut self,
        ctx: &mut Context,
        session: SessionId,
        mut answer: Answer,
    ) -> Result<(), LoadError> {
        if ctx.is_region(session) {
            let contents = self.contents(ctx, &answer, Room::of_region(&ctx.limits))?;
            let mut kind = SYNC;
            if let Some(from) = contents.kept_back
                && let Some(peer) = self.peers.get_mut(&session)
                && (planted(Bug::ForgetsTheRest) || peer.standing.keep_back(&mut answer, from))
            {
                kind = PART;
            }
            self.send_abroad(ctx, session, kind, &contents.encode(&answer));
            return Ok(());
        }
        let contents = self.contents(ctx, &answer, Room::ENDLESS)?;
        let tail = Tail::sync(&self.id, &contents.encode(&answer));
        self.send_made(ctx, session, answer, tail);
        Ok(())
    }

    /// Sends a client a message, and keeps it: the next one may get the same.
    fn send_made(&mut self, ctx: &mut Context, session: SessionId, answer: Answer, tail: Tail) {
        if let Some(target) = ctx.sessions.get(&session).map(|known| known.peer.clone()) {
            ctx.counters.changes_out += answer.changes.count() as u64;
            ctx.send(session, tail.frame(&ctx.me.peer, &target));
        }
        self.last_made = Some((answer, tail));
    }

    /// What goes into the message: changes one by one where that is what the peer lacks, else the
    /// snapshot and all that follows it (rule R11), straight from the store.
    fn contents(
        &self,
        ctx: &mut Context,
        answer: &Answer,
        room: Room,
    ) -> Result<Contents, LoadError> {
        let Some(first) = answer.changes.first() else { return Ok(Contents::default()) };
        let positions = answer.changes.positions();
        let everything = answer.changes == Changes::Range(0..self.history.durable());
        let trimmed = first < self.history.raw_from();
        if !everything && !trimmed {
            match self.changes(ctx, &positions, room.changes) {
                // A compaction that is under way has just deleted them.
                Err(LoadError::Row(RowError::Missing(_))) => {}
                read => return read,
            }
        }
        if trimmed && !everything && planted(Bug::OmitsTrimmed) {
            let kept = positions.partition_point(|position| *position < self.history.raw_from());
            return self.changes(ctx, &positions[kept..], room.changes);
        }
        let (base, durable) = (self.history.base(), self.history.durable());
        // Looked at first, because reading it in vain for each part would be dear.
        let snapshot_bytes = self.meta.map_or(0, |meta| meta.snapshot_bytes);
        if base > 0
            && answer.version_2
            && snapshot_bytes <= room.snapshot as u64
            && let Some(snapshot) = self.snapshot(ctx)?
            && snapshot.len() <= room.snapshot
        {
            let tail: Vec<Position> = (base..durable).collect();
            let mut contents = self.changes(ctx, &tail, room.changes)?;
            if contents.kept_back.is_some() {
                // What comes after it goes by itself, or a large change would make it too large.
                contents = Contents { kept_back: Some(base), ..Contents::default() };
            }
            ctx.counters.snapshots_out += 1;
            return Ok(Contents { snapshot: Some(snapshot), ..contents });
        }
        self.changes(ctx, &positions, room.changes)
    }

    /// A peer lacks changes that are not kept by themselves any more, and reads only such, or the
    /// snapshot is too large for it: the archive takes them out of that, and the message waits.
    fn expand_for(&mut self, ctx: &mut Context, session: SessionId, answer: Answer) {
        if ctx.is_region(session)
            && *ctx.taken_apart.get_or_insert_with(|| self.id.clone()) != self.id
        {
            // One after the other, because what comes of it stays for as long as the repair takes. The
            // audit comes back to this one.
            self.peers.remove(&session);
            return;
        }
        if self.expanding.is_none() {
            match self.snapshot(ctx) {
                Ok(snapshot) => {
                    let chunks = snapshot.unwrap_or_default();
                    let task = Job::Expand { chunks, limits: ExpandLimits::default() };
                    self.expanding = Some((ctx.archive(&self.id, task), self.history.base()));
                }
                Err(error) => return self.unreadable(ctx, error),
            }
        }
        if let Some(peer) = self.peers.get_mut(&session) {
            peer.held = Some(Box::new(answer));
        }
    }

    pub(super) fn expanded(&mut self, ctx: &mut Context, result: ArchiveResult, now: Now) {
        let Some((_, base)) = self.expanding.take() else { return };
        if let Ok(archive::Answer::Expanded(expanded)) = result {
            let changes = expanded.changes.iter().filter_map(|bytes| read_change(bytes).ok());
            self.taken_apart = changes.map(|change| (change.hash(), change)).collect();
        }
        let held: Vec<(SessionId, Box<Answer>)> = self
            .peers
            .iter_mut()
            .filter_map(|(session, peer)| Some((*session, peer.held.take()?)))
            .collect();
        for (session, answer) in held {
            if self.history.base() > base {
                // There is a new snapshot meanwhile, which may have taken in more of what is lacking.
                self.send(ctx, session, *answer);
            } else if self.try_send(ctx, session, *answer).is_err() {
                let why = CloseReason::Unreadable { document: self.id.clone() };
                self.close_or_report(ctx, session, why);
            }
            self.speak(ctx, session, now);
        }
    }

    /// What was taken out of the snapshot is kept for repairs that it is sent to part by part.
    pub(super) fn forget_taken_apart(&mut self, ctx: &mut Context) {
        let is_ours = ctx.taken_apart.as_ref() == Some(&self.id);
        if (is_ours || !self.taken_apart.is_empty())
            && self.expanding.is_none()
            && self.peers.values().all(|peer| peer.leaves_at.is_none())
        {
            self.taken_apart = BTreeMap::new();
            ctx.taken_apart.take_if(|document| *document == self.id);
        }
    }

    /// The changes at these ascending positions, as many as there is room for: out of the snapshot, if
    /// it has been taken apart, from the log in the store, and from memory.
    fn changes(
        &self,
        ctx: &Context,
        positions: &[Position],
        bytes_max: usize,
    ) -> Result<Contents, LoadError> {
        let apart = match self.taken_apart.is_empty() {
            true => self.history.raw_from(),
            false => self.history.base(),
        };
        let (trimmed, kept) = positions.split_at(positions.partition_point(|at| *at < apart));
        let stored = kept.partition_point(|at| *at < self.history.resident_from());
        let (stored, here) = kept.split_at(stored);
        let mut gathered = Gathered { changes: Vec::new(), left: bytes_max };
        for at in trimmed {
            if gathered.left == 0 {
                break;
            }
            let change = self.taken_apart.get(&self.history.graph().hash(*at));
            gathered.take(change.ok_or(RowError::Missing("change kept by itself"))?);
        }
        if gathered.left > 0
            && let (Some(first), Some(last)) = (stored.first(), stored.last())
        {
            let (kept_from, to) = (self.history.raw_from(), last + 1);
            let read = rows::changes(&*ctx.store, &self.id, kept_from, *first, to, gathered.left)?;
            let there = stored.iter().map_while(|at| read.get((at - first) as usize));
            there.for_each(|change| gathered.take(change));
            if read.len() < (to - first) as usize {
                gathered.left = 0;
            }
        }
        for change in here.iter().filter_map(|at| self.history.resident(*at)) {
            gathered.take(change);
        }
        let kept_back = positions.get(gathered.changes.len()).copied();
        Ok(Contents { snapshot: None, changes: gathered.changes, kept_back })
    }
}

/// How much may go into one message.
#[derive(Clone, Copy)]
struct Room {
    /// Of snapshot, in bytes: a larger one is taken apart.
    snapshot: usize,
    /// Of changes, in bytes. One change may be larger.
    changes: usize,
}

impl Room {
    /// Clients get everything in one message.
    const ENDLESS: Self = Self { snapshot: usize::MAX, changes: usize::MAX };

    /// What another region lacks may be more than a link carries in one piece, and than either side
    /// wants to hold at once.
    fn of_region(limits: &Limits) -> Self {
        Self { snapshot: limits.repair_snapshot_bytes, changes: limits.repair_part_bytes }
    }
}

/// The changes of a message.
#[derive(Default)]
struct Contents {
    snapshot: Option<Vec<u8>>,
    changes: Vec<Change>,
    /// There was no room for what comes from this position on.
    kept_back: Option<Position>,
}

impl Contents {
    fn encode(&self, answer: &Answer) -> Vec<u8> {
        let changes = self.changes.iter().map(Change::bytes);
        match &self.snapshot {
            None => answer.reply.encode(changes),
            Some(snapshot) => {
                let parts: Vec<&[u8]> =
                    std::iter::once(snapshot.as_slice()).chain(changes).collect();
                answer.reply.encode_joined(parts.into_iter())
            }
        }
    }
}

/// Changes, until there is no room left.
struct Gathered {
    changes: Vec<Change>,
    left: usize,
}

impl Gathered {
    fn take(&mut self, change: &Change) {
        if self.left > 0 {
            self.left = self.left.saturating_sub(change.bytes().len());
            self.changes.push(change.clone());
        }
    }
}
