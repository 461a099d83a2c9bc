//! The task that hosts one link: sockets on one side of it, shards on the other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use mesh::link::{self, Effect, Event, Link, SocketId, To};
use mesh::{Lane, ToShard};
use model::RegionName;
use tokio::sync::{mpsc, oneshot, watch};

use crate::machine::{ShardDoor, ShardRoom};
use crate::regions::doors::FromShards;
use crate::regions::socket::{Closing, Ended, Out, SocketEvent, code, lane_name};
use crate::regions::view::Account;

/// How many messages of shards are taken in before what they led to is let go of.
const MESSAGES_AT_ONCE: usize = 256;

/// Which direct links are up, as all links are told.
pub type Reach = watch::Sender<BTreeMap<RegionName, bool>>;

/// How many sockets each lane of a link has, live and bulk.
pub type Lanes = watch::Sender<[usize; 2]>;

/// What a link's task is built from.
pub struct Parts {
    /// The link.
    pub link: Link,
    /// The region at its other end.
    pub region: RegionName,
    /// The ways to the shards.
    pub shards: Vec<ShardDoor>,
    /// What the shards say.
    pub from_shards: FromShards,
    /// Whether something that the shards said did not fit.
    pub overrun: Arc<AtomicBool>,
    /// What sockets of the live lane say.
    pub live: mpsc::Receiver<SocketEvent>,
    /// What sockets of the bulk lane say.
    pub bulk: mpsc::Receiver<SocketEvent>,
    /// Who asks how the link is.
    pub asked: mpsc::Receiver<oneshot::Sender<link::Status>>,
    /// Where it is said how many sockets there are.
    pub lanes: Lanes,
    /// Where it is said which links are up.
    pub reach: Reach,
    /// What is counted beside the link.
    pub account: Arc<Account>,
    /// Set when the link is to end.
    pub stop: watch::Receiver<bool>,
    /// When the process started.
    pub started: Instant,
}

/// One socket of the link.
struct Open {
    lane: Lane,
    out: Out,
}

/// The task.
pub struct Host {
    link: Link,
    region: RegionName,
    shards: Vec<ShardDoor>,
    /// What shards had no room for. While there is anything, sockets are not read, so it is bounded
    /// by what one event of a link can lead to.
    waiting: VecDeque<(usize, ToShard)>,
    sockets: BTreeMap<SocketId, Open>,
    overrun: Arc<AtomicBool>,
    lanes: Lanes,
    reach: Reach,
    /// What the link has been told of `reach`.
    told: BTreeMap<RegionName, bool>,
    account: Arc<Account>,
    was_up: bool,
    /// It was said that a region's name is taken, and the link was not up since.
    told_taken: bool,
    started: Instant,
}

impl Host {
    /// Runs the link until it is told to stop.
    pub async fn run(parts: Parts) {
        let Parts { mut from_shards, mut live, mut bulk, mut asked, mut stop, .. } = parts;
        let mut reached = parts.reach.subscribe();
        let mut host = Self {
            link: parts.link,
            region: parts.region,
            shards: parts.shards,
            waiting: VecDeque::new(),
            sockets: BTreeMap::new(),
            overrun: parts.overrun,
            lanes: parts.lanes,
            reach: parts.reach,
            told: BTreeMap::new(),
            account: parts.account,
            was_up: false,
            told_taken: false,
            started: parts.started,
        };
        let mut messages = Vec::with_capacity(MESSAGES_AT_ONCE);
        loop {
            host.tell_reach(&reached.borrow_and_update().clone());
            host.settle();
            let timeout = host.link.poll_timeout().map(|at| host.started + at);
            let reads = host.waiting.is_empty();
            // In this order: what makes room, then keystrokes, then what is much.
            tokio::select! {
                biased;
                room = room(&host.shards, &host.waiting), if !reads => host.push(room),
                count = from_shards.recv_many(&mut messages, MESSAGES_AT_ONCE) => {
                    if count == 0 { return; }
                    for (shard, message) in messages.drain(..) {
                        host.tell(Event::Shard { shard, message });
                    }
                }
                Some(event) = live.recv(), if reads => host.socket(Lane::Live, event),
                Some(event) = bulk.recv(), if reads => host.socket(Lane::Bulk, event),
                Some(question) = asked.recv() => {
                    let _ = question.send(host.link.status(host.now()));
                }
                Ok(()) = reached.changed() => {}
                () = sleep_until(timeout) => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
            if host.overrun.swap(false, Ordering::Relaxed) {
                host.start_over();
            }
            host.link.tick(host.now());
        }
        // The shards have ended: what they said last still goes out.
        while let Ok((shard, message)) = from_shards.try_recv() {
            host.tell(Event::Shard { shard, message });
            host.settle();
        }
        for open in host.sockets.values_mut() {
            open.out.close(Closing::stop());
        }
        // What they still bring is not taken in any more; it comes again after the next start.
        while !host.sockets.is_empty() {
            let event = tokio::select! {
                event = live.recv() => event,
                event = bulk.recv() => event,
            };
            if let Some(SocketEvent::Closed(socket, _)) = event {
                host.sockets.remove(&socket);
                host.count_sockets();
            }
        }
    }

    fn now(&self) -> std::time::Duration {
        self.started.elapsed()
    }

    fn tell(&mut self, event: Event) {
        self.link.handle(self.now(), event);
    }

    /// Does what the link wants, and says whether it is up.
    fn settle(&mut self) {
        while let Some(effect) = self.link.poll_effect() {
            self.perform(effect);
        }
        let up = self.link.is_up();
        if up != self.was_up {
            self.was_up = up;
            self.account.up(up);
            if up {
                self.told_taken = false;
                tracing::info!(region = %self.region, "the link is up");
            } else {
                tracing::warn!(region = %self.region, "the link is down");
            }
            self.reach.send_modify(|reach| {
                reach.insert(self.region.clone(), up);
            });
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send { socket, frame } => {
                let Some(open) = self.sockets.get_mut(&socket) else { return };
                if !open.out.send(frame) {
                    let reason = "too many frames wait for the other side".to_owned();
                    open.out.close(Closing::broken("stalled", reason));
                }
            }
            Effect::Close { socket, reason } => {
                if let Some(open) = self.sockets.get_mut(&socket) {
                    open.out.close(closing(&reason));
                }
            }
            Effect::ToShard { to: To::Shard(shard), message } => self.pass(shard, message),
            Effect::ToShard { to: To::Every, message } => {
                for shard in 1..self.shards.len() {
                    self.pass(shard, message.clone());
                }
                self.pass(0, message);
            }
            Effect::Report(report) => {
                tracing::warn!(region = %self.region, "{report}");
            }
        }
    }

    fn pass(&mut self, shard: usize, message: ToShard) {
        if !self.waiting.is_empty() {
            return self.waiting.push_back((shard, message));
        }
        if let Err(message) = self.shards[shard].pass(&self.region, message) {
            self.waiting.push_back((shard, message));
        }
    }

    /// Gives shards what waits for them, in order, as far as they have room.
    fn push(&mut self, room: Option<ShardRoom>) {
        // Without taking the room that was waited for, others would always be faster.
        let first = self.waiting.pop_front();
        if let (Some(room), Some((_, message))) = (room, first) {
            room.pass(&self.region, message);
        }
        while let Some((shard, message)) = self.waiting.pop_front() {
            if let Err(message) = self.shards[shard].pass(&self.region, message) {
                return self.waiting.push_front((shard, message));
            }
        }
    }

    fn socket(&mut self, lane: Lane, event: SocketEvent) {
        match event {
            SocketEvent::Up { socket, agreed, dialled, out } => {
                self.sockets.insert(socket, Open { lane, out });
                self.count_sockets();
                tracing::debug!(region = %self.region, lane = lane_name(lane), dialled, "a socket");
                self.tell(Event::Up { socket, lane, agreed, dialled });
            }
            SocketEvent::Frame(socket, bytes) => self.tell(Event::Frame { socket, bytes }),
            SocketEvent::Written(socket, bytes) => self.tell(Event::Written { socket, bytes }),
            SocketEvent::Closed(socket, ended) => {
                self.sockets.remove(&socket);
                self.count_sockets();
                self.log_end(lane, &ended);
                self.account.ended(&ended);
                self.tell(Event::Closed { socket });
            }
        }
    }

    fn count_sockets(&self) {
        let count = |lane| self.sockets.values().filter(|open| open.lane == lane).count();
        self.lanes.send_replace([count(Lane::Live), count(Lane::Bulk)]);
    }

    fn log_end(&mut self, lane: Lane, ended: &Ended) {
        let (region, lane) = (&self.region, lane_name(lane));
        let taken = matches!(
            ended,
            Ended::Ours(Closing { code: code::TAKEN, .. }) | Ended::Told { code: code::TAKEN, .. }
        );
        // It is tried again every few seconds, with the same end until somebody does something.
        let known = taken && std::mem::replace(&mut self.told_taken, true);
        match ended {
            Ended::Ours(Closing { reason, .. }) | Ended::Told { reason, .. } if known => {
                tracing::debug!(%region, lane, reason, "a socket of the link was closed again");
            }
            Ended::Ours(Closing { code: code::SPARE, reason, .. })
            | Ended::Told { code: code::SPARE, reason } => {
                tracing::debug!(%region, lane, reason, "a socket is not needed");
            }
            Ended::Ours(Closing { code: code::RESTART, .. }) => {}
            Ended::Ours(Closing { reason, .. }) => {
                tracing::warn!(%region, lane, reason, "we closed a socket of the link");
            }
            Ended::Told { code: code::RESTART, reason } => {
                tracing::info!(%region, lane, reason, "the other side closed a socket of the link");
            }
            Ended::Told { reason, .. } => {
                tracing::warn!(%region, lane, reason, "the other side closed a socket of the link");
            }
            Ended::Lost(error) => {
                tracing::warn!(%region, lane, error, "a socket of the link was lost");
            }
        }
    }

    /// Tells the link which other regions we reach ourselves, as far as that is news.
    fn tell_reach(&mut self, reach: &BTreeMap<RegionName, bool>) {
        for (region, up) in reach {
            if *region != self.region && self.told.insert(region.clone(), *up) != Some(*up) {
                self.tell(Event::Reachable { region: region.clone(), up: *up });
            }
        }
    }

    /// The link has missed something that a shard said. What it is about is found out anew: the
    /// sockets are closed, and vectors exchanged when they are there again.
    fn start_over(&mut self) {
        tracing::warn!(region = %self.region, "the link was overrun by its shards and starts over");
        for open in self.sockets.values_mut() {
            let reason = "overrun, starting over".to_owned();
            open.out.close(Closing::broken("overrun", reason));
        }
    }
}

/// Resolves when the shard that the first of the waiting is for has room.
async fn room(shards: &[ShardDoor], waiting: &VecDeque<(usize, ToShard)>) -> Option<ShardRoom> {
    match waiting.front() {
        Some((shard, _)) => shards[*shard].room().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn closing(reason: &link::CloseReason) -> Closing {
    use link::CloseReason::{Anew, Double, Replaced, Taken};
    let code = match reason {
        Double | Replaced | Anew => code::SPARE,
        Taken { .. } => code::TAKEN,
        _ => code::BROKEN,
    };
    Closing { code, kind: reason.label(), reason: reason.to_string() }
}
