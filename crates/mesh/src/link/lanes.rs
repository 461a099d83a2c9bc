//! The two sockets of a link: which of several is kept, whether the other side is still there.

use std::collections::VecDeque;
use std::time::Duration;

use model::DocumentId;

use super::receiving::Inbound;
use super::sending::Outbound;
use super::{Effect, Link, Phase, SocketId, index};
use crate::codec::CodecError;
use crate::exchange::{Lane, ToShard};
use crate::frame::{Ends, FRAME_BYTES_MAX, Frame};
use crate::handshake::Agreed;
use crate::origin::{LogId, Origin};

/// With so many bytes of repairs waiting nothing more to repair is looked for.
const MUCH_REPAIR_BYTES: usize = 1 << 20;
/// How many frames may wait for a socket, however small they are.
const WAITING_MAX: usize = 1 << 20;

/// Why a socket of a link is closed by us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// Nothing was heard for too long.
    #[error("nothing was heard for too long")]
    Silent,
    /// A ping was not answered, though other things were heard.
    #[error("a ping was not answered for too long")]
    Stalled,
    /// The peer does not say what it holds.
    #[error("it did not say in time what it holds")]
    NoVector,
    /// A batch that could not be read was not sent again.
    #[error("a batch that could not be read was not sent again in time")]
    NotAnew,
    /// The peer does not take in what it is sent.
    #[error("nothing of what was sent was taken in for too long")]
    NoCredit,
    /// The peer claims to hold more logs than anybody has.
    #[error("it claims to hold too many logs")]
    TooManyLogs,
    /// More waits to be sent than may.
    #[error("more waits to be sent than may")]
    Backlog,
    /// Another process uses the name of this region.
    #[error("the region name {region} is taken")]
    Taken {
        /// The name.
        region: model::RegionName,
    },
    /// Both sides dialled, and the other socket is kept.
    #[error("there are two sockets, and the other one is kept")]
    Double,
    /// A newer socket of the same lane takes its place.
    #[error("a newer socket takes its place")]
    Replaced,
    /// The live socket is gone, and everything begins anew.
    #[error("the link begins anew")]
    Anew,
    /// A frame that is none.
    #[error("a frame cannot be read")]
    Undecodable,
    /// A frame in pieces that together are more than any frame may be.
    #[error("a frame is larger than {} MiB", FRAME_BYTES_MAX >> 20)]
    TooLarge,
    /// A frame that may not come at this point, or on this lane.
    #[error("a {frame} is out of place")]
    OutOfPlace {
        /// What kind of frame.
        frame: &'static str,
    },
    /// A batch could not be read again, though it was sent whole, or this happens too often.
    #[error("a batch cannot be read: {0}")]
    Batch(CodecError),
    /// Entries are missing.
    #[error("entries of {log} are missing: {expected} was to come, {found} came")]
    Gap {
        /// Of which log.
        log: LogId,
        /// What was to come, at most.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// Entries of a log that the peer does not write and was not asked for.
    #[error("entries of {log}, which was not asked for")]
    Unasked {
        /// Of which log.
        log: LogId,
    },
    /// More was sent than there was credit for.
    #[error("more was sent than there is credit for")]
    CreditExceeded,
    /// More credit was given than there is.
    #[error("more credit was given than there is")]
    EndlessCredit,
    /// The peer claims to hold what we never wrote.
    #[error("it claims to hold entries of {log} that were never written")]
    FalseVector {
        /// In which log.
        log: LogId,
    },
    /// The audit was told what no honest peer says.
    #[error("{0}")]
    Audit(crate::audit::Wrong),
}

impl CloseReason {
    /// Whether the peer did what no honest one does.
    pub fn blames_peer(&self) -> bool {
        !matches!(
            self,
            Self::Silent
                | Self::Stalled
                | Self::NoVector
                | Self::NoCredit
                | Self::NotAnew
                | Self::Backlog
                | Self::Taken { .. }
                | Self::Double
                | Self::Replaced
                | Self::Anew
        )
    }

    /// A word for it, as the label of a metric.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Stalled => "stalled",
            Self::NoVector => "no_vector",
            Self::NoCredit => "no_credit",
            Self::NotAnew => "not_anew",
            Self::TooManyLogs => "too_many_logs",
            Self::Backlog => "backlog",
            Self::Taken { .. } => "taken",
            Self::Double => "double",
            Self::Replaced => "replaced",
            Self::Anew => "anew",
            Self::Undecodable => "undecodable",
            Self::TooLarge => "too_large",
            Self::OutOfPlace { .. } => "out_of_place",
            Self::Batch(_) => "batch",
            Self::Gap { .. } => "gap",
            Self::Unasked { .. } => "unasked",
            Self::CreditExceeded => "credit_exceeded",
            Self::EndlessCredit => "endless_credit",
            Self::FalseVector { .. } => "false_vector",
            Self::Audit(_) => "audit",
        }
    }
}

/// A socket, and all that is gone when it is.
pub(super) struct Line {
    pub(super) socket: SocketId,
    agreed: Agreed,
    dialled: bool,
    /// It belongs to this life of the link: the live socket, or a bulk socket that was there with it.
    paired: bool,
    since: Duration,
    /// When the peer last took something in, or the socket took some of what waits; and how much of
    /// both there was by then.
    progress: (Duration, u64, u64),
    heard: Duration,
    ping_due: Duration,
    /// The oldest ping that was not answered.
    ping: Option<(u64, Duration)>,
    /// Frames, and pieces of larger ones, that are not with the socket yet.
    waiting: VecDeque<Vec<u8>>,
    /// How many bytes are with it and not written.
    at_socket: usize,
    /// How many bytes were sent and have not left our hands: those of both.
    pub(super) queued: usize,
    /// Bytes that were ever sent.
    sent: u64,
    /// What shards gave for repair and is among what is queued: up to where in what was sent.
    syncs: VecDeque<Sync>,
    /// How many bytes these are. They are bounded by the shards, each of which gives no more while it
    /// has some here.
    repair_bytes: usize,
    pub(super) out: Outbound,
    pub(super) inn: Inbound,
}

/// A part of a repair on its way to the socket.
struct Sync {
    end: u64,
    document: DocumentId,
    bytes: usize,
}

impl Line {
    /// Whether it takes a while until what waits of a repair has left.
    pub(super) fn repairs_much(&self) -> bool {
        self.repair_bytes >= MUCH_REPAIR_BYTES
    }
}

impl Link {
    pub(super) fn line(&mut self, lane: Lane) -> Option<&mut Line> {
        self.lines[index(lane)].as_mut()
    }

    pub(super) fn lane_of(&self, socket: SocketId) -> Option<Lane> {
        [Lane::Live, Lane::Bulk]
            .into_iter()
            .find(|lane| self.lines[index(*lane)].as_ref().is_some_and(|it| it.socket == socket))
    }

    /// The lane for what is much: the live one only while there is no other.
    pub(super) fn much(&self) -> Lane {
        if self.lines[1].is_some() { Lane::Bulk } else { Lane::Live }
    }

    pub(super) fn socket_up(
        &mut self,
        now: Duration,
        socket: SocketId,
        lane: Lane,
        agreed: Agreed,
        dialled: bool,
    ) {
        let recent = |line: &Line| now < line.heard + self.config.limits.taken_within;
        let process = |agreed: &Agreed| (agreed.epoch, agreed.storage.clone());
        let others: Vec<&Line> = (self.lines.iter().flatten())
            .filter(|line| process(&line.agreed) != process(&agreed))
            .collect();
        if others.iter().any(|line| recent(line)) {
            let reason = CloseReason::Taken { region: agreed.region };
            return self.refuse(socket, reason);
        }
        let stale = !others.is_empty();
        // Of two sockets between the same processes, both sides keep the one that the region with
        // the smaller name dialled.
        let by_smaller = |dialled: bool| dialled == (self.config.me < self.config.peer);
        if let Some(old) = &self.lines[index(lane)]
            && !stale
        {
            let (old_is_right, is_right) = (by_smaller(old.dialled), by_smaller(dialled));
            if old_is_right && !is_right && recent(old) {
                return self.refuse(socket, CloseReason::Double);
            }
            let double = is_right && !old_is_right;
            self.fail(lane, if double { CloseReason::Double } else { CloseReason::Replaced });
        }
        if stale {
            for lane in [Lane::Live, Lane::Bulk] {
                self.fail(lane, CloseReason::Replaced);
            }
        }
        let storage = agreed.storage.clone();
        let live_is_up = lane == Lane::Live || self.lines[0].is_some();
        let line = Line {
            socket,
            agreed,
            dialled,
            paired: live_is_up,
            since: now,
            progress: (now, 0, 0),
            heard: now,
            ping_due: now + self.config.limits.ping_every,
            ping: None,
            waiting: VecDeque::new(),
            at_socket: 0,
            queued: 0,
            sent: 0,
            syncs: VecDeque::new(),
            repair_bytes: 0,
            out: Outbound::new(),
            inn: Inbound::new(self.config.limits.changes.clone()),
        };
        self.lines[index(lane)] = Some(line);
        match lane {
            Lane::Live => {
                if let Some(bulk) = self.line(Lane::Bulk) {
                    bulk.paired = true;
                }
                self.phase = Phase::Asking;
                self.their_vector = None;
                if self.storage.as_ref().is_some_and(|before| *before != storage) {
                    self.goes_back();
                }
                self.storage = Some(storage);
                self.unanswered.iter_mut().for_each(|unanswered| *unanswered += 1);
                self.tell_all(ToShard::Up);
            }
            Lane::Bulk if self.phase == Phase::Running => {
                self.open_bulk_courses();
                self.fetch(now);
            }
            Lane::Bulk => {}
        }
    }

    fn refuse(&mut self, socket: SocketId, reason: CloseReason) {
        self.account.closed(&reason);
        self.effects.push_back(Effect::Close { socket, reason });
    }

    /// Closes the socket of a lane, if there is one.
    pub(super) fn fail(&mut self, lane: Lane, reason: CloseReason) {
        if let Some(line) = &self.lines[index(lane)] {
            self.account.closed(&reason);
            self.effects.push_back(Effect::Close { socket: line.socket, reason });
            self.forget(lane);
        }
    }

    /// The socket of a lane is gone. Without the live one the other side has no vector of ours.
    pub(super) fn forget(&mut self, lane: Lane) {
        let line = self.lines[index(lane)].take();
        for sync in line.into_iter().flat_map(|line| line.syncs) {
            self.tell_document(&sync.document, ToShard::Written { bytes: sync.bytes });
        }
        if lane == Lane::Bulk {
            return;
        }
        if self.phase != Phase::Down {
            self.phase = Phase::Down;
            self.their_vector = None;
            self.doubts.clear();
            self.relay_due = None;
            self.holds_due.iter_mut().for_each(|due| due.clear());
            self.forgotten_due.clear();
            self.forgotten_at = None;
            self.audit.down();
            self.tell_all(ToShard::Down);
        }
        if self.line(Lane::Bulk).is_some_and(|bulk| bulk.paired) {
            self.fail(Lane::Bulk, CloseReason::Anew);
        }
    }

    /// How frames are to be read that we send, or that we receive.
    pub(super) fn ends(&self, lane: Lane, outbound: bool) -> Option<Ends> {
        let line = self.lines[index(lane)].as_ref()?;
        let here = Origin { region: self.config.me.clone(), epoch: self.config.epoch };
        let there = Origin { region: self.config.peer.clone(), epoch: line.agreed.epoch };
        let (sender, receiver) = if outbound { (here, there) } else { (there, here) };
        Some(Ends { sender, receiver })
    }

    /// Sends a frame, if the lane has a socket.
    ///
    /// A larger frame goes in pieces, which the socket is handed only as it writes them. What keeps the
    /// lane going need not wait for them, and no other frame minds being overtaken by it. What is sent
    /// for repair is not held against the lane: it is bounded by the shards.
    pub(super) fn send(&mut self, lane: Lane, frame: &Frame) {
        let Some(ends) = self.ends(lane, true) else { return };
        let bytes = frame.encode(&ends);
        let limits = &self.config.limits;
        let (max, piece) = (limits.socket_bytes_max, limits.piece_bytes);
        let Some(line) = self.lines[index(lane)].as_mut() else { return };
        if line.queued.saturating_sub(line.repair_bytes) > max || line.waiting.len() > WAITING_MAX {
            return self.fail(lane, CloseReason::Backlog);
        }
        let urgent =
            matches!(frame, Frame::Ping { .. } | Frame::Pong { .. } | Frame::Credit { .. });
        if bytes.len() <= piece {
            line.queued += bytes.len();
            line.sent += bytes.len() as u64;
            match urgent {
                true => line.waiting.push_front(bytes),
                false => line.waiting.push_back(bytes),
            }
        } else {
            let pieces = bytes.chunks(piece).len();
            for (at, data) in (1..).zip(bytes.chunks(piece)) {
                let piece = Frame::Piece { data: data.to_vec(), last: at == pieces };
                let bytes = piece.encode(&ends);
                line.queued += bytes.len();
                line.sent += bytes.len() as u64;
                line.waiting.push_back(bytes);
            }
        }
        self.hand_over(lane, urgent);
    }

    /// Hands the socket what waits, as much as it is to hold, and one urgent frame more.
    fn hand_over(&mut self, lane: Lane, mut urgent: bool) {
        let max = self.config.limits.at_socket_bytes;
        let Some(line) = self.lines[index(lane)].as_mut() else { return };
        while (line.at_socket < max || urgent)
            && let Some(frame) = line.waiting.pop_front()
        {
            urgent = false;
            line.at_socket += frame.len();
            self.account.bytes(lane).sent += frame.len() as u64;
            self.effects.push_back(Effect::Send { socket: line.socket, frame });
        }
    }

    /// Sends a part of a repair. The shard is told when it has left our hands, and gives no more until
    /// then.
    pub(super) fn send_sync(&mut self, document: DocumentId, data: Vec<u8>) {
        let (lane, bytes) = (self.much(), data.len());
        self.send(lane, &Frame::Sync { document: document.clone(), data });
        match self.line(lane) {
            Some(line) => {
                line.repair_bytes += bytes;
                line.syncs.push_back(Sync { end: line.sent, document, bytes });
            }
            None => self.tell_document(&document, ToShard::Written { bytes }),
        }
    }

    /// So much of what was sent has left our hands.
    pub(super) fn written(&mut self, lane: Lane, bytes: usize) {
        let Some(line) = self.line(lane) else { return };
        line.queued = line.queued.saturating_sub(bytes);
        line.at_socket = line.at_socket.saturating_sub(bytes);
        let left = line.sent - line.queued as u64;
        let gone = line.syncs.iter().take_while(|sync| sync.end <= left).count();
        let gone: Vec<Sync> = line.syncs.drain(..gone).collect();
        line.repair_bytes -= gone.iter().map(|sync| sync.bytes).sum::<usize>();
        for sync in gone {
            self.tell_document(&sync.document, ToShard::Written { bytes: sync.bytes });
        }
        self.hand_over(lane, false);
    }

    /// Whether the live socket has room for what nobody misses for long.
    pub(super) fn has_room_for_passing(&self) -> bool {
        let max = self.config.limits.passing_bytes_max;
        self.lines[0].as_ref().is_some_and(|line| line.queued < max)
    }

    /// Something was heard on a lane.
    pub(super) fn heard(&mut self, now: Duration, lane: Lane, bytes: usize) {
        self.account.bytes(lane).received += bytes as u64;
        if let Some(line) = self.line(lane) {
            line.heard = now;
        }
    }

    pub(super) fn pong(&mut self, now: Duration, lane: Lane, id: u64) {
        let Some(line) = self.line(lane) else { return };
        if let Some((_, at)) = line.ping.take_if(|(expected, _)| *expected == id) {
            self.account.round_trip[index(lane)] = Some(now.saturating_sub(at));
        }
    }

    pub(super) fn heartbeat(&mut self, now: Duration) {
        let limits = self.config.limits.clone();
        let waits_for_vector = self.phase == Phase::Told;
        let waits_for_answer = self.phase == Phase::Running && !self.answered;
        let answer_late = waits_for_answer && now >= self.running_since + limits.vector_within;
        for lane in [Lane::Live, Lane::Bulk] {
            let Some(line) = self.line(lane) else { continue };
            let (freed, left) = (line.out.freed(), line.sent - line.queued as u64);
            let (_, freed_before, left_before) = line.progress;
            // Pings leave all the time: only while more waits does it say that the wire is slow.
            let leaves = left != left_before && !line.waiting.is_empty();
            if freed != freed_before || leaves || !line.out.is_under_way() {
                line.progress = (now, freed, left);
            }
            let silent = now.saturating_sub(line.heard);
            let asked = line.ping.map_or(Duration::ZERO, |(_, at)| now.saturating_sub(at));
            if silent >= limits.silent_after {
                self.fail(lane, CloseReason::Silent);
            } else if asked >= limits.stalled_after {
                self.fail(lane, CloseReason::Stalled);
            } else if lane == Lane::Live
                && (answer_late || waits_for_vector && now >= line.since + limits.vector_within)
            {
                self.fail(lane, CloseReason::NoVector);
            } else if now >= line.progress.0 + limits.credit_within {
                self.fail(lane, CloseReason::NoCredit);
            } else if line.inn.waits_since().is_some_and(|at| now >= at + limits.anew_within) {
                self.fail(lane, CloseReason::NotAnew);
            } else if line.ping_due <= now {
                line.ping_due = now + limits.ping_every;
                let id = now.as_micros() as u64;
                line.ping.get_or_insert((id, now));
                self.send(lane, &Frame::Ping { id });
            }
        }
    }

    pub(super) fn heartbeat_due(&self) -> Option<Duration> {
        let limits = &self.config.limits;
        let due = |line: &Line| {
            let stalled = line.ping.map(|(_, at)| at + limits.stalled_after);
            let silent = line.heard + limits.silent_after;
            line.ping_due.min(silent).min(stalled.unwrap_or(silent))
        };
        self.lines.iter().flatten().map(due).min()
    }
}
