//! What `server` does around the shards, here: sockets, committer, archive.

mod works;

use std::time::Duration;

use node::{ArchiveFailure, CloseReason, DocumentMessage, Effect, Event, Inbox, SessionId};
use wire::Message as Said;

use crate::judge::Law;
use crate::network::{Dialler, LinkId, Toward};
use crate::node_host::{BATCHES_UNDER_WAY_MAX, FRAMES_MAX, Outgoing, Seat, Submission};
use crate::planted::Planted;
use crate::world::{Due, PING_EVERY, World};

/// How long a write to a socket may take.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection may take to say `join`.
const JOIN_WITHIN: Duration = Duration::from_secs(10);
/// How long a turn of a shard takes that leaves something for the next one.
const TURN: Duration = Duration::from_micros(50);
/// How soon a session has to end after saying what no honest peer says.
const GUILTY_WITHIN: Duration = Duration::from_secs(30);

impl World {
    pub(crate) fn start_node(&mut self, node: usize) {
        let (shards, limits) = (self.plan.shards, self.plan.limits.clone());
        if self.regions.is_some() {
            let kept = self.nodes[node].epoch != 0 && self.planted.is(Planted::KeepsEpoch);
            self.nodes[node].epoch = if kept { self.nodes[node].epoch } else { self.rng.next() };
            self.judge.starts(node, self.nodes[node].epoch);
        }
        self.nodes[node].start(node, shards, &limits, self.regions.as_ref(), self.now);
        self.trace.note(self.now, "node starts", &[node as u64], &[], String::new);
        self.count("starts");
        self.dial_regions(node);
    }

    /// A connection has come in.
    pub(crate) fn seat(&mut self, node: usize, link: LinkId) {
        let (shards, now) = (self.plan.shards, self.now);
        if let Some(process) = &mut self.nodes[node].process {
            process.seats.insert(link, Seat::new(shards, now));
        }
    }

    /// A frame has come in: the envelope is decoded here, as a socket's task does.
    pub(crate) fn node_hears(&mut self, node: usize, link: LinkId, frame: &[u8]) {
        let Some(process) = &mut self.nodes[node].process else { return };
        let Some(seat) = process.seats.get_mut(&link) else { return };
        seat.heard_at = self.now;
        let message = match wire::decode(frame) {
            Ok(message) => message,
            Err(error) => {
                self.count("malformed frames");
                return self.end_session(node, link, &error.to_string(), true);
            }
        };
        let Some((session, peer)) = seat.session.clone() else {
            return self.node_hears_join(node, link, &message);
        };
        if message.sender().is_some_and(|sender| *sender != peer) {
            if matches!(message, Said::Join { .. }) {
                self.end_session(node, link, "this connection has joined under another name", true);
            }
            return;
        }
        let (document, message) = match message {
            Said::Sync { document, data, .. } | Said::Request { document, data, .. } => {
                // Held to the judge's own reader: what it cannot read, no honest client sent.
                if automerge::sync::Message::decode(&data).is_err() && seat.guilty_by.is_none() {
                    seat.guilty_by = Some(self.now + GUILTY_WITHIN);
                }
                (document, DocumentMessage::Sync { data: data.into_owned() })
            }
            Said::Ephemeral { sender, document, session: stream, count, data, .. } => {
                let data = data.into_owned();
                (document, DocumentMessage::Ephemeral { author: sender, stream, count, data })
            }
            Said::DocUnavailable { document, .. } => (document, DocumentMessage::Unavailable),
            Said::RemoteSubscriptionChange { add, remove, .. } => {
                for shard in 0..self.plan.shards {
                    let (add, remove) = (add.clone(), remove.clone());
                    self.tell_shard(node, shard, Event::Subscribed { session, add, remove });
                }
                return;
            }
            Said::Leave { .. } => return self.unseat(link),
            Said::Peer { .. } => {
                return self.end_session(node, link, "only a server says 'peer'", true);
            }
            Said::Join { .. }
            | Said::Error { .. }
            | Said::RemoteHeadsChanged { .. }
            | Said::Unknown { .. } => return,
        };
        if self.planted.strikes(Planted::LosesFrames, &mut self.rng, 5) {
            return;
        }
        let shard = document.shard(self.plan.shards);
        self.tell_shard(node, shard, Event::Message { session, document, message });
    }

    fn node_hears_join(&mut self, node: usize, link: LinkId, message: &Said<'_>) {
        let Some(process) = &mut self.nodes[node].process else { return };
        process.last_session += 1;
        let session = SessionId(process.last_session);
        let me = process.me.clone();
        let joined = match process.lobby.join(&me, session, message) {
            Ok(joined) => joined,
            Err(refused) => return self.end_session(node, link, &refused.to_string(), true),
        };
        let Said::Join { sender, metadata, .. } = message else { return };
        let replaced = joined.replaces.and_then(|session| process.links.get(&session).copied());
        process.links.insert(session, link);
        if let Some(seat) = process.seats.get_mut(&link) {
            seat.session = Some((session, sender.clone()));
        }
        let storage = metadata.storage_id.clone().filter(|_| !metadata.is_ephemeral);
        for shard in 0..self.plan.shards {
            let (peer, storage) = (sender.clone(), storage.clone());
            self.tell_shard(node, shard, Event::Opened { session, peer, storage });
        }
        if let Some(replaced) = replaced {
            self.end_session(node, replaced, "the same peer has joined again", false);
        }
        self.transmit(link, Toward::Dialler, joined.answer);
    }

    /// Gives an event to a shard, which takes it in a little later.
    pub(crate) fn tell_shard(&mut self, node: usize, shard: usize, event: Event) {
        if let Some(process) = &mut self.nodes[node].process {
            process.shards[shard].inbox.push(event);
            let after = Duration::from_micros(self.rng.next() % 800);
            self.wake_shard(node, shard, self.now + after);
        }
    }

    fn answer_shard(&mut self, node: usize, shard: usize, event: Event) {
        if let Some(process) = &mut self.nodes[node].process {
            process.shards[shard].answered.push_back(event);
            self.wake_shard(node, shard, self.now);
        }
    }

    /// Lets a shard look around although nothing has come in.
    pub(crate) fn nudge(&mut self, node: usize, shard: usize) {
        self.wake_shard(node, shard, self.now);
    }

    fn wake_shard(&mut self, node: usize, shard: usize, at: Duration) {
        let life = self.nodes[node].life;
        let Some(process) = &mut self.nodes[node].process else { return };
        let host = &mut process.shards[shard];
        if host.wakes_at.is_none_or(|before| at < before) {
            host.wakes_at = Some(at);
            self.due_at(at, Due::ShardRuns { node, life, shard });
        }
    }

    /// One turn of a shard's task: answers, then what has come in, then what all of it led to.
    pub(crate) fn run_shard(&mut self, node: usize, shard: usize) {
        let clock = self.nodes[node].clock(self.now);
        let Some(process) = &mut self.nodes[node].process else { return };
        let host = &mut process.shards[shard];
        if host.wakes_at != Some(self.now) {
            return;
        }
        host.wakes_at = None;
        while let Some(event) = host.answered.pop_front() {
            host.shard.handle(clock, event);
        }
        if host.under_way < BATCHES_UNDER_WAY_MAX {
            let mut bulk_bytes = Inbox::bulk_bytes(&self.plan.limits, host.under_way);
            while let Some(event) = host.inbox.next(&mut bulk_bytes) {
                host.shard.handle(clock, event);
            }
        }
        host.shard.tick(clock);
        host.shard.flush(clock);
        let mut effects = Vec::new();
        while let Some(effect) = host.shard.poll_effect() {
            effects.push(effect);
        }
        let next = host.shard.poll_timeout().map(|at| process.started + at);
        for effect in effects {
            self.perform(node, shard, effect);
        }
        self.take_more_bulk(node, shard);
        if let Some(next) = next {
            self.wake_shard(node, shard, next.max(self.now + Duration::from_micros(1)));
        }
        self.end_drain(node);
    }

    /// A shard that left something of a bulk lane for later goes on with it.
    fn take_more_bulk(&mut self, node: usize, shard: usize) {
        let Some(process) = &self.nodes[node].process else { return };
        let host = &process.shards[shard];
        if host.inbox.has_bulk() && Inbox::bulk_bytes(&self.plan.limits, host.under_way) > 0 {
            self.wake_shard(node, shard, self.now + TURN);
        }
    }

    fn perform(&mut self, node: usize, shard: usize, effect: Effect) {
        let life = self.nodes[node].life;
        match effect {
            Effect::Send { session, frame } => self.send(node, shard, session, frame),
            Effect::Close { session, reason } => self.close(node, session, &reason),
            Effect::Commit { batch, writes } => {
                let Some(process) = &mut self.nodes[node].process else { return };
                self.trace.note(
                    self.now,
                    "commit",
                    &[node as u64, shard as u64, batch.0],
                    &[],
                    || format!("{} writes", writes.len()),
                );
                process.shards[shard].under_way += 1;
                process.committer.waiting.push_back(Submission { shard, batch, writes });
                if self.planted.strikes(Planted::SpeaksBeforeCommit, &mut self.rng, 30) {
                    self.answer_shard(node, shard, Event::Committed { batch });
                }
                self.commit_next(node);
            }
            Effect::Archive { job, task } => {
                let away = self.now < self.nodes[node].archive_away_until;
                let (from, to) = self.plan.archive_ms;
                let took = self.rng.millis(from, to);
                let result = if away {
                    Err(ArchiveFailure::Unavailable("it is away".to_owned()))
                } else {
                    archive::run(*task, &mut |_| {}).map_err(ArchiveFailure::from)
                };
                self.count("archive jobs");
                self.trace.note(self.now, "archive", &[shard as u64, job.0], &[], || {
                    format!("{:?}", result.as_ref().map(|_| "done"))
                });
                let result = Box::new(result);
                self.due(took, Due::ArchiveIsDone { node, life, shard, job, result, took });
            }
            Effect::Region { to, message } => self.shard_says(node, shard, to, message),
            Effect::Adopt(branch) => {
                let shard = branch.copy.shard(self.plan.shards);
                self.tell_shard(node, shard, Event::Adopt(branch));
            }
            Effect::Report(report) => self.reported(node, &report),
        }
    }

    fn send(&mut self, node: usize, shard: usize, session: SessionId, mut frame: Vec<u8>) {
        let Some(process) = &mut self.nodes[node].process else { return };
        let Some(link) = process.links.get(&session).copied() else { return };
        let storage = process.me.storage.clone();
        let Some(seat) = process.seats.get_mut(&link) else { return };
        let max = match wire::decode(&frame) {
            Ok(Said::Ephemeral { .. }) => self.plan.limits.presence_bytes_in_flight,
            // The answer to a request has no place to wait; what a peer may ask for is bounded.
            Ok(Said::DocUnavailable { .. }) => usize::MAX,
            _ => self.plan.limits.session_bytes_in_flight,
        };
        if seat.in_flight[shard] >= max {
            let what =
                format!("{} bytes wait for {link:?}, and more is made", seat.in_flight[shard]);
            return self.broken(Law::MemoryIsBounded, what);
        }
        if self.planted.is(Planted::SwallowsDenials) && max == usize::MAX {
            return;
        }
        seat.in_flight[shard] += frame.len();
        self.judge.spoken(node, &storage, &frame);
        if self.planted.strikes(Planted::FlipsBits, &mut self.rng, 5)
            && let Some(last) = frame.last_mut()
        {
            *last ^= 1;
        }
        let twice = self.planted.strikes(Planted::PresenceTwice, &mut self.rng, 10)
            && matches!(wire::decode(&frame), Ok(Said::Ephemeral { .. }));
        seat.outbox.push_back(Outgoing::Frame { shard, frame: frame.clone() });
        if twice {
            seat.outbox.push_back(Outgoing::Frame { shard, frame: frame.clone() });
        }
        let waiting = seat.outbox.len();
        if self.planted.is(Planted::ForgetsRoom) {
            // The shard believes that it is written while it waits here.
            self.tell_shard(node, shard, Event::Written { session, bytes: frame.len() });
        }
        if waiting > FRAMES_MAX {
            return self.unseat(link);
        }
        self.pump(link);
    }

    fn close(&mut self, node: usize, session: SessionId, reason: &CloseReason) {
        let Some(process) = &self.nodes[node].process else { return };
        let Some(mut link) = process.links.get(&session).copied() else { return };
        if self.planted.is(Planted::ClosesAnother)
            && let Some((other, _)) = process.seats.iter().find(|(other, _)| **other != link)
        {
            link = *other;
        }
        let away = matches!(reason, CloseReason::Upload { .. })
            && self.plan.has(crate::plan::Fault::ArchiveAway);
        self.count("sessions closed for cause");
        if !away && self.is_honest(link) {
            let what = format!("an honest client's session was closed: {reason}");
            return self.broken(Law::OnlyItsOwnSession, what);
        }
        self.end_session(node, link, &reason.to_string(), true);
    }

    /// Ends a connection from this side, after what waits for it.
    fn end_session(&mut self, node: usize, link: LinkId, reason: &str, peers_fault: bool) {
        if peers_fault && self.is_honest(link) && !self.plan.has(crate::plan::Fault::ArchiveAway) {
            let what = format!("an honest client was told off: {reason}");
            return self.broken(Law::OnlyItsOwnSession, what);
        }
        self.trace.note(self.now, "closes", &[link.0], &[], || reason.to_owned());
        let Some(process) = &mut self.nodes[node].process else { return };
        let Some(seat) = process.seats.get_mut(&link) else { return };
        seat.outbox.push_back(Outgoing::Close { reason: reason.to_owned(), peers_fault });
        self.pump(link);
    }

    fn is_honest(&self, link: LinkId) -> bool {
        self.links.get(&link).is_some_and(|link| matches!(link.dialler, Dialler::Client(_)))
    }

    /// Writes what waits for a socket, as far as the network takes it, and gives room back.
    pub(crate) fn pump(&mut self, link: LinkId) {
        let Some(node) = self.links.get(&link).map(|link| link.node) else { return };
        loop {
            let Some(process) = &mut self.nodes[node].process else { return };
            let me = process.me.peer.clone();
            let Some(seat) = process.seats.get_mut(&link) else { return };
            if seat.outbox.is_empty()
                || self
                    .links
                    .get(&link)
                    .is_none_or(|l| l.to_dialler.bytes() >= self.plan.kernel_bytes)
            {
                break;
            }
            seat.wrote_at = self.now;
            let target = seat.session.as_ref().map(|(_, peer)| peer.clone());
            match seat.outbox.pop_front() {
                Some(Outgoing::Frame { shard, frame }) => {
                    seat.written[shard] += frame.len();
                    self.transmit(link, Toward::Dialler, frame);
                }
                Some(Outgoing::Close { reason, peers_fault }) => {
                    if peers_fault {
                        let mut frame = Vec::new();
                        let error = Said::Error { sender: Some(me), target, message: reason };
                        wire::encode(&error, &mut frame);
                        self.transmit(link, Toward::Dialler, frame);
                    }
                    return self.unseat(link);
                }
                None => break,
            }
        }
        let Some(process) = &mut self.nodes[node].process else { return };
        let Some(seat) = process.seats.get_mut(&link) else { return };
        let Some((session, _)) = seat.session.clone() else { return };
        let mut told = Vec::new();
        for (shard, bytes) in seat.written.iter_mut().enumerate() {
            if *bytes > 0 && *bytes >= self.plan.written_bytes {
                told.push((shard, std::mem::take(bytes)));
            }
        }
        for (shard, bytes) in told {
            if self.planted.is(Planted::NeverGivesRoom) {
                continue;
            }
            if let Some(process) = &mut self.nodes[node].process
                && let Some(seat) = process.seats.get_mut(&link)
            {
                seat.in_flight[shard] = seat.in_flight[shard].saturating_sub(bytes);
            }
            self.tell_shard(node, shard, Event::Written { session, bytes });
        }
    }

    /// A connection has ended for the node.
    pub(crate) fn unseat(&mut self, link: LinkId) {
        let Some(node) = self.links.get(&link).map(|link| link.node) else { return };
        if let Some(process) = &mut self.nodes[node].process
            && let Some(seat) = process.seats.remove(&link)
            && let Some((session, peer)) = seat.session
        {
            process.lobby.left(&peer, session);
            process.links.remove(&session);
            for shard in 0..self.plan.shards {
                self.tell_shard(node, shard, Event::Closed { session });
            }
        }
        self.let_go(link, true);
    }

    pub(crate) fn ping(&mut self, id: LinkId) {
        let now = self.now;
        let Some(link) = self.links.get(&id) else { return };
        let node = link.node;
        // The answer to a ping counts as a sign of life.
        let answers = link.dialler_open
            && !link.broken
            && !link.to_node.is_held(now)
            && !link.to_dialler.is_held(now);
        let Some(process) = &mut self.nodes[node].process else { return };
        let Some(seat) = process.seats.get_mut(&id) else { return };
        if answers {
            seat.heard_at = now;
        }
        let silent = now > seat.heard_at + PING_EVERY * 2;
        let stuck = !seat.outbox.is_empty() && now > seat.wrote_at + WRITE_WITHIN;
        let nameless =
            seat.session.is_none() && now > seat.heard_at.min(seat.wrote_at) + JOIN_WITHIN;
        if seat.outbox.is_empty() {
            seat.wrote_at = now;
        }
        if seat.guilty_by.is_some_and(|by| by < now) && !self.plan.has(crate::plan::Fault::SlowDisk)
        {
            let what = format!("{id:?} said what nobody can read and is still connected");
            return self.broken(Law::OnlyItsOwnSession, what);
        }
        if silent || stuck || nameless {
            self.count("sessions given up");
            return self.unseat(id);
        }
        self.due(PING_EVERY, Due::Pings { link: id });
    }
}
