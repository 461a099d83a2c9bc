//! What peers are told: made from the log when one of them has room for it, never queued.
//!
//! `tell` → `speak` (to each peer, as far as it has room) → `send`.

use std::collections::BTreeMap;

use archive::{ExpandLimits, Job};
use history::chunk::{Change, read_change};
use history::graph::Position;
use model::ChangeHash;
use sync::{Answer, Changes, Urgency};
use wire::Tail;

use super::Document;
use crate::abroad::SYNC;
use crate::context::Context;
use crate::planted::{Bug, planted};
use crate::rows::{self, LoadError, RowError};
use crate::{ArchiveResult, CloseReason, Now, SessionId};

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

    pub(super) fn expanded(&mut self, ctx: &mut Context, result: ArchiveResult, now: Now) {
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
}
