//! What peers say, on its way into the log.
//!
//! `receive` → `take` (parse) → `offer` (into the log) → `heard` (the peer's standing). What only the
//! CRDT can judge makes the steps after `take` wait for the archive.

use std::collections::BTreeSet;

use archive::{ExpandLimits, Job, Verdict};
use history::chunk::{Change, Chunk, read_change, read_chunks};
use history::graph::Position;
use history::{Door, Offer, Refusal};
use mesh::exchange::FromShard;
use model::ChangeHash;
use sync::Message;

use super::{Blocked, Document};
use crate::context::Context;
use crate::planted::{Bug, planted};
use crate::{ArchiveResult, CloseReason, JobId, Now, Report, SessionId};

/// How many changes are judged by the CRDT in one job.
const JUDGED_AT_ONCE: usize = 1_000;

impl Document {
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
            ctx.open_documents += 1;
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

    /// Goes on with what a session has sent, unless the log is about to be another one.
    pub(crate) fn go_on(&mut self, ctx: &mut Context, session: SessionId, now: Now) {
        if self.upkeep.is_burying() {
            return;
        }
        let Some(peer) = self.peers.get_mut(&session) else { return };
        let answered = peer.blocked.take_if(|blocked| blocked.answer.is_some());
        if let Some(mut blocked) = answered
            && let Some(answer) = blocked.answer.take()
        {
            self.unblock(ctx, session, *blocked, answer, now);
        }
        self.take_waiting(ctx, session, now);
    }

    /// Goes on with what all sessions have sent.
    pub(crate) fn go_on_with_all(&mut self, ctx: &mut Context, now: Now) {
        for session in self.peers.keys().copied().collect::<Vec<_>>() {
            self.go_on(ctx, session, now);
        }
    }

    /// Takes in what waited, until something has to wait again.
    fn take_waiting(&mut self, ctx: &mut Context, session: SessionId, now: Now) {
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
        let blocked =
            Blocked { job, message, handed: Vec::new(), changes, rest: Vec::new(), answer: None };
        self.peers.entry(session).or_default().blocked = Some(Box::new(blocked));
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
        if !changes.is_empty() && !self.has_directory(ctx) {
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
            self.ask_the_crdt(
                ctx,
                session,
                Blocked { job, message, handed, changes: judge, rest, answer: None },
            );
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
        self.peers.entry(session).or_default().blocked = Some(Box::new(blocked));
    }

    pub(super) fn unblock(
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
    }

    fn judged(
        &mut self,
        ctx: &mut Context,
        session: SessionId,
        blocked: Blocked,
        verdicts: Vec<Verdict>,
        now: Now,
    ) {
        if !self.has_directory(ctx) {
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
        // While the document rests, what there is to say goes with what all are told next. Else every
        // acknowledgement would be answered with the news that have come since, to one session each.
        if self.tell_at.is_none_or(|at| at <= now.running) || ctx.is_region(session) {
            self.speak(ctx, session, now);
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
}
