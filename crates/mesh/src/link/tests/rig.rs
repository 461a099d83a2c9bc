//! Two regions with logs for shards, and sockets with latency between them. Time is a number.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use history::chunk::read_change;
use history::varint;
use model::{DocumentId, RegionName, StorageId};
use sha2::{Digest as _, Sha256};

use crate::exchange::{FromShard, Lane, ToShard};
use crate::frame::{Ends, Frame};
use crate::handshake::Agreed;
use crate::link::{CloseReason, Config, Effect, Event, Limits, Link, Report, SocketId, Status, To};
use crate::origin::{Entry, Item, LogId, Mark, Origin, STREAMS};

pub const SHARDS: usize = 2;
pub const LATENCY: Duration = Duration::from_millis(20);

pub fn name(text: &str) -> RegionName {
    RegionName::new(text).unwrap()
}

pub fn log(region: &str, epoch: u64, stream: u8) -> LogId {
    LogId { origin: Origin { region: name(region), epoch }, stream }
}

/// A document of a stream.
pub fn document(stream: u8) -> DocumentId {
    let id = |n: u32| DocumentId::from_bytes(&[&n.to_le_bytes()[..], &[3; 12]].concat()).unwrap();
    (0..).map(id).find(|id| id.stream() == stream).unwrap()
}

/// A change without operations, of about as many bytes as wanted.
pub fn entry(stream: u8, seq: u64, bytes: usize) -> Entry {
    let mut body = vec![0, 16];
    body.extend_from_slice(&[7; 16]);
    varint::put(&mut body, seq);
    varint::put(&mut body, seq);
    body.extend_from_slice(&[0, 0, 0, 0]);
    // Noise, which does not compress, in the place of what newer versions may put there.
    let mut noise = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while body.len() + 16 < bytes {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        body.extend_from_slice(&noise.to_le_bytes());
    }
    let mut head = vec![1];
    varint::put(&mut head, body.len() as u64);
    let hash = Sha256::new().chain_update(&head).chain_update(&body).finalize();
    let chunk = [&[0x85, 0x6f, 0x4a, 0x83][..], &hash[..4], &head, &body].concat();
    Entry { document: document(stream), item: Item::Change(read_change(&chunk).unwrap()) }
}

pub fn entries(stream: u8, seqs: std::ops::Range<u64>) -> Vec<Entry> {
    seqs.map(|seq| entry(stream, seq, 60)).collect()
}

/// A log as a fake shard keeps it.
#[derive(Clone, Default)]
pub struct Kept {
    /// What is before the first entry.
    pub start: Mark,
    pub entries: Vec<Entry>,
    pub end: Mark,
    ahead: BTreeMap<u64, Entry>,
}

impl Kept {
    pub fn push(&mut self, entry: Entry) {
        self.end = self.end.then(&entry);
        self.entries.push(entry);
    }

    fn digest_at(&self, sequence: u64) -> Mark {
        let count = (sequence - self.start.sequence) as usize;
        self.entries[..count].iter().fold(self.start, |mark, entry| mark.then(entry))
    }

    pub fn trim(&mut self, upto: u64) {
        let start = self.digest_at(upto);
        self.entries.drain(..(upto - self.start.sequence) as usize);
        self.start = start;
    }
}

/// A region: a link, and logs.
pub struct Region {
    pub name: RegionName,
    pub epoch: u64,
    pub link: Link,
    pub logs: BTreeMap<LogId, Kept>,
    pub forgotten: BTreeMap<LogId, Mark>,
    /// How often each entry was given to a shard by the link.
    pub came: BTreeMap<(LogId, u64), usize>,
    /// In which order entries came, over which lane.
    pub order: Vec<(Lane, LogId, u64)>,
    /// Everything else that shards were told.
    pub told: Vec<ToShard>,
    pub closed: Vec<CloseReason>,
    pub reports: Vec<Report>,
    /// Credit that is not given back yet, while shards are slow.
    pub owed: Vec<(usize, Lane, usize)>,
    pub slow: bool,
    /// Shards give what they read twice: the link asked for the first time for a socket that is gone.
    pub repeats: bool,
    /// Bytes that sockets have not taken, while they are.
    pub stuck: bool,
    unwritten: Vec<(SocketId, usize)>,
}

impl Region {
    pub fn new(me: &str, peer: &str, epoch: u64, logs: BTreeMap<LogId, Kept>) -> Self {
        let config = Config {
            me: name(me),
            epoch,
            peer: name(peer),
            shards: SHARDS,
            salt: 5,
            limits: Limits::default(),
        };
        Self {
            name: name(me),
            epoch,
            link: Link::new(config),
            logs,
            forgotten: BTreeMap::new(),
            came: BTreeMap::new(),
            order: Vec::new(),
            told: Vec::new(),
            closed: Vec::new(),
            reports: Vec::new(),
            owed: Vec::new(),
            slow: false,
            repeats: false,
            stuck: false,
            unwritten: Vec::new(),
        }
    }

    /// What happens to a shard, and what it answers.
    fn shard(&mut self, shard: usize, message: ToShard, answers: &mut VecDeque<Event>) {
        let mut answer = |message| answers.push_back(Event::Shard { shard, message });
        let mine = |log: &LogId| usize::from(log.stream) % SHARDS == shard;
        match message {
            ToShard::Up => {
                let logs = self.logs.iter().filter(|(log, _)| mine(log));
                let held = logs.map(|(log, kept)| (log.clone(), kept.end)).collect();
                let forgotten = self.forgotten.iter().filter(|(log, _)| mine(log));
                let forgotten = forgotten.map(|(log, last)| (log.clone(), *last)).collect();
                answer(FromShard::Vector { held, forgotten });
            }
            ToShard::Take { lane, log, first, entries, credit } => {
                assert!(mine(&log), "{log} is not of shard {shard}");
                let kept = self.logs.entry(log.clone()).or_default();
                let before = kept.end;
                for (sequence, entry) in (first..).zip(entries) {
                    *self.came.entry((log.clone(), sequence)).or_default() += 1;
                    self.order.push((lane, log.clone(), sequence));
                    kept.ahead.insert(sequence, entry);
                }
                while let Some(entry) = kept.ahead.remove(&(kept.end.sequence + 1)) {
                    kept.push(entry);
                }
                let end = kept.end.sequence;
                kept.ahead.retain(|sequence, _| *sequence > end);
                if kept.end != before {
                    let mark = kept.end;
                    answer(FromShard::Held { log, mark });
                }
                if self.slow {
                    self.owed.push((shard, lane, credit));
                } else {
                    answer(FromShard::Taken { lane, credit });
                }
            }
            ToShard::Read { lane, log, from, bytes_max, digest } => {
                let kept = self.logs.get(&log).cloned().unwrap_or_default();
                if from <= kept.start.sequence {
                    if self.repeats {
                        let (log, to) = (log.clone(), kept.start);
                        answer(FromShard::Trimmed { lane, log, from, to });
                    }
                    return answer(FromShard::Trimmed { lane, log, from, to: kept.start });
                }
                let beyond = from > kept.end.sequence + 1;
                if digest.is_some_and(|digest| beyond || digest != kept.digest_at(from - 1).digest)
                {
                    return answer(FromShard::Diverged { log });
                }
                let at = (from - 1 - kept.start.sequence) as usize;
                let mut bytes = 0;
                let read = kept.entries.get(at..).unwrap_or_default().iter().take_while(|entry| {
                    let more = bytes < bytes_max;
                    bytes += entry.bytes();
                    more
                });
                let entries: Arc<[Entry]> = read.cloned().collect();
                if self.repeats {
                    let (log, entries) = (log.clone(), Arc::clone(&entries));
                    answer(FromShard::Entries { lane, log, first: from, entries });
                }
                answer(FromShard::Entries { lane, log, first: from, entries });
            }
            ToShard::Skip { log, to } => {
                let kept = self.logs.entry(log.clone()).or_default();
                if to.sequence > kept.end.sequence {
                    let ahead = kept.ahead.split_off(&(to.sequence + 1));
                    *kept = Kept { start: to, end: to, entries: Vec::new(), ahead };
                    answer(FromShard::Held { log, mark: to });
                }
            }
            ToShard::Forgotten { log, last } => {
                if self.logs.remove(&log).is_some() {
                    self.forgotten.insert(log.clone(), last);
                    answer(FromShard::Forgotten { log, last });
                }
            }
            ToShard::Root { round } => {
                answer(FromShard::Root { round, documents: 0, sum: 0 });
            }
            other => self.told.push(other),
        }
    }

    pub fn end(&self, log: &LogId) -> u64 {
        self.logs.get(log).map_or(0, |kept| kept.end.sequence)
    }
}

/// What is on its way on one socket.
#[derive(Debug)]
enum Travelling {
    Frame(Vec<u8>),
    Close,
}

type Tamper = Box<dyn FnMut(usize, SocketId, &mut Vec<u8>) -> bool>;

/// Two regions and what is between them.
pub struct World {
    pub now: Duration,
    pub regions: [Region; 2],
    /// To which region, on which socket, when.
    travelling: VecDeque<(Duration, usize, SocketId, Travelling)>,
    /// Sockets that are open at each end.
    open: [Vec<(SocketId, Lane)>; 2],
    last_socket: u64,
    /// May change a frame that a region sends; whether it arrives.
    pub tamper: Option<Tamper>,
    /// Frames that went out, by region.
    pub sent: [Vec<(Duration, Vec<u8>)>; 2],
}

impl World {
    /// `here` and `there`, not connected, with logs of their own epochs 1 and 2.
    pub fn new() -> Self {
        Self::with(BTreeMap::new(), BTreeMap::new())
    }

    pub fn with(here: BTreeMap<LogId, Kept>, there: BTreeMap<LogId, Kept>) -> Self {
        Self {
            now: Duration::from_secs(1000),
            regions: [
                Region::new("here", "there", 1, here),
                Region::new("there", "here", 2, there),
            ],
            travelling: VecDeque::new(),
            open: [Vec::new(), Vec::new()],
            last_socket: 0,
            tamper: None,
            sent: [Vec::new(), Vec::new()],
        }
    }

    pub fn connected() -> Self {
        let mut world = Self::new();
        world.connect();
        world
    }

    /// Opens both lanes, dialled by the first region.
    pub fn connect(&mut self) {
        self.open(Lane::Live, 0);
        self.open(Lane::Bulk, 0);
        self.run_until("both links are up", |world| {
            world.regions.iter().all(|region| region.link.is_up())
        });
    }

    /// Opens a lane, dialled by a region, at both ends at once.
    pub fn open(&mut self, lane: Lane, dialler: usize) -> SocketId {
        self.last_socket += 1;
        let socket = SocketId(self.last_socket);
        for at in [0, 1] {
            let other = &self.regions[1 - at];
            let agreed = Agreed {
                region: other.name.clone(),
                epoch: other.epoch,
                storage: StorageId::new(other.name.as_str()).unwrap(),
                lane,
            };
            self.open[at].push((socket, lane));
            let dialled = at == dialler;
            self.tell(at, Event::Up { socket, lane, agreed, dialled });
        }
        socket
    }

    /// Cuts a lane: what is on its way is lost.
    pub fn cut(&mut self, lane: Lane) {
        let cut: Vec<SocketId> = (self.open.iter().flatten())
            .filter(|(_, of)| *of == lane)
            .map(|(socket, _)| *socket)
            .collect();
        self.travelling.retain(|(_, _, socket, _)| !cut.contains(socket));
        for at in [0, 1] {
            for socket in &cut {
                self.open[at].retain(|(open, _)| open != socket);
                self.tell(at, Event::Closed { socket: *socket });
            }
        }
    }

    pub fn cut_all(&mut self) {
        self.cut(Lane::Live);
        self.cut(Lane::Bulk);
        assert!(self.regions.iter().all(|region| !region.link.is_up()));
    }

    pub fn is_open(&self, lane: Lane) -> bool {
        self.open.iter().all(|open| open.iter().any(|(_, of)| *of == lane))
    }

    /// A client of a region hands in changes: they are durable at once.
    pub fn publish(&mut self, at: usize, stream: u8, new: Vec<Entry>) {
        let region = &mut self.regions[at];
        let log = log(region.name.as_str(), region.epoch, stream);
        let kept = region.logs.entry(log.clone()).or_default();
        let first = kept.end.sequence + 1;
        new.iter().for_each(|entry| kept.push(entry.clone()));
        let mark = kept.end;
        let shard = usize::from(stream) % SHARDS;
        let entries = Arc::from(new);
        let published = FromShard::Published { log: log.clone(), first, entries };
        for message in [published, FromShard::Held { log, mark }] {
            self.tell(at, Event::Shard { shard, message });
        }
    }

    /// A client types so many changes.
    pub fn type_in(&mut self, at: usize, stream: u8, count: u64) {
        let region = &self.regions[at];
        let first = region.end(&log(region.name.as_str(), region.epoch, stream)) + 1;
        self.publish(at, stream, entries(stream, first..first + count));
    }

    pub fn tell(&mut self, at: usize, event: Event) {
        self.regions[at].link.handle(self.now, event);
        self.perform(at);
    }

    fn perform(&mut self, at: usize) {
        let mut events = VecDeque::new();
        loop {
            while let Some(effect) = self.regions[at].link.poll_effect() {
                match effect {
                    Effect::Send { socket, frame } => self.transmit(at, socket, frame, &mut events),
                    Effect::Close { socket, reason } => {
                        self.regions[at].closed.push(reason);
                        self.open[at].retain(|(open, _)| *open != socket);
                        let arrives = self.now + LATENCY;
                        self.travelling.push_back((arrives, 1 - at, socket, Travelling::Close));
                    }
                    Effect::ToShard { to, message } => {
                        let shards = match to {
                            To::Every => 0..SHARDS,
                            To::Shard(shard) => shard..shard + 1,
                        };
                        for shard in shards {
                            self.regions[at].shard(shard, message.clone(), &mut events);
                        }
                    }
                    Effect::Report(report) => self.regions[at].reports.push(report),
                }
            }
            match events.pop_front() {
                Some(event) => self.regions[at].link.handle(self.now, event),
                None => return,
            }
        }
    }

    fn transmit(
        &mut self,
        at: usize,
        socket: SocketId,
        mut frame: Vec<u8>,
        events: &mut VecDeque<Event>,
    ) {
        let bytes = frame.len();
        if self.regions[at].stuck {
            self.regions[at].unwritten.push((socket, bytes));
        } else {
            events.push_back(Event::Written { socket, bytes });
        }
        self.sent[at].push((self.now, frame.clone()));
        let arrives = self.tamper.as_mut().is_none_or(|tamper| tamper(at, socket, &mut frame));
        let is_open = self.open[at].iter().any(|(open, _)| *open == socket);
        if arrives && is_open {
            let travelling = Travelling::Frame(frame);
            self.travelling.push_back((self.now + LATENCY, 1 - at, socket, travelling));
        }
    }

    /// Shards that were slow give everything back.
    pub fn give_back(&mut self, at: usize) {
        for (shard, lane, credit) in std::mem::take(&mut self.regions[at].owed) {
            let message = FromShard::Taken { lane, credit };
            self.tell(at, Event::Shard { shard, message });
        }
    }

    /// Sockets that were stuck take everything.
    pub fn write(&mut self, at: usize) {
        self.regions[at].stuck = false;
        for (socket, bytes) in std::mem::take(&mut self.regions[at].unwritten) {
            self.tell(at, Event::Written { socket, bytes });
        }
    }

    /// Does the next thing that is due before `until`; whether there was one.
    fn step(&mut self, until: Duration) -> bool {
        let timeouts = self.regions.iter().map(|region| region.link.poll_timeout());
        let timeout = timeouts.flatten().min();
        let arrival = self.travelling.front().map(|(at, ..)| *at);
        let Some(next) = timeout.into_iter().chain(arrival).min().filter(|at| *at <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(next);
        if arrival == Some(next) {
            let (_, at, socket, what) = self.travelling.pop_front().unwrap();
            if self.open[at].iter().any(|(open, _)| *open == socket) {
                match what {
                    Travelling::Frame(bytes) => self.tell(at, Event::Frame { socket, bytes }),
                    Travelling::Close => {
                        self.open[at].retain(|(open, _)| *open != socket);
                        self.tell(at, Event::Closed { socket });
                    }
                }
            }
            return true;
        }
        for at in [0, 1] {
            self.regions[at].link.tick(self.now);
            self.perform(at);
        }
        true
    }

    pub fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
    }

    /// Runs until something is so, for two minutes at most.
    pub fn run_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let until = self.now + Duration::from_secs(120);
        while !is_so(self) {
            assert!(self.step(until), "never: {what}; {:?}", self.regions[0].closed);
        }
    }

    pub fn status(&self, at: usize) -> Status {
        self.regions[at].link.status(self.now)
    }

    /// Whether both regions hold the same entries of all logs.
    pub fn is_level(&self) -> bool {
        let ends = |region: &Region| -> BTreeMap<LogId, Mark> {
            let ends = region.logs.iter().map(|(log, kept)| (log.clone(), kept.end));
            ends.filter(|(_, end)| end.sequence > 0).collect()
        };
        ends(&self.regions[0]) == ends(&self.regions[1])
    }

    /// The most often that an entry came to a region.
    pub fn most_often(&self, at: usize) -> usize {
        self.regions[at].came.values().copied().max().unwrap_or(0)
    }

    /// How many entries came to a region that it had been given before.
    pub fn again(&self, at: usize) -> usize {
        self.regions[at].came.values().map(|count| count - 1).sum()
    }
}

/// One link, `here`, with a peer that is played by hand.
pub struct Lone {
    pub now: Duration,
    pub region: Region,
    pub sent: Vec<(SocketId, Frame)>,
}

pub const LIVE: SocketId = SocketId(1);
pub const BULK: SocketId = SocketId(2);

impl Lone {
    /// Both sockets are open, vectors are told: the peer's says `rows`.
    pub fn new(logs: BTreeMap<LogId, Kept>, rows: Vec<crate::frame::Row>) -> Self {
        let mut lone = Self::with(logs);
        lone.say(LIVE, &Frame::Vector(rows));
        lone.say(LIVE, &Frame::Forgotten(Vec::new()));
        lone
    }

    /// Both sockets are open, and the peer has said nothing.
    pub fn silent() -> Self {
        Self::with(BTreeMap::new())
    }

    /// The peer answers every ping that it has not answered.
    pub fn answer_pings(&mut self) {
        let pings: Vec<_> = (std::mem::take(&mut self.sent).into_iter())
            .filter_map(|(socket, frame)| match frame {
                Frame::Ping { id } => Some((socket, id)),
                _ => None,
            })
            .collect();
        for (socket, id) in pings {
            self.say(socket, &Frame::Pong { id });
        }
    }

    fn with(logs: BTreeMap<LogId, Kept>) -> Self {
        let mut lone = Self {
            now: Duration::from_secs(1000),
            region: Region::new("here", "there", 1, logs),
            sent: Vec::new(),
        };
        for (socket, lane) in [(LIVE, Lane::Live), (BULK, Lane::Bulk)] {
            lone.tell(Event::Up { socket, lane, agreed: lone.peer(2, lane), dialled: true });
        }
        lone
    }

    pub fn peer(&self, epoch: u64, lane: Lane) -> Agreed {
        Agreed {
            region: name("there"),
            epoch,
            storage: StorageId::new(&format!("store {epoch}")).unwrap(),
            lane,
        }
    }

    pub fn ends() -> Ends {
        let origin = |region, epoch| Origin { region: name(region), epoch };
        Ends { sender: origin("there", 2), receiver: origin("here", 1) }
    }

    /// The peer says a frame.
    pub fn say(&mut self, socket: SocketId, frame: &Frame) {
        let bytes = frame.encode(&Self::ends());
        self.tell(Event::Frame { socket, bytes });
    }

    pub fn tell(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            self.region.link.handle(self.now, event);
            self.perform(&mut events);
        }
    }

    pub fn wait(&mut self, time: Duration) {
        self.now += time;
        self.region.link.tick(self.now);
        let mut events = VecDeque::new();
        self.perform(&mut events);
        events.into_iter().for_each(|event| self.tell(event));
    }

    fn perform(&mut self, events: &mut VecDeque<Event>) {
        let Ends { sender, receiver } = Self::ends();
        let ends = Ends { sender: receiver, receiver: sender };
        while let Some(effect) = self.region.link.poll_effect() {
            match effect {
                Effect::Send { socket, frame } => {
                    events.push_back(Event::Written { socket, bytes: frame.len() });
                    self.sent.push((socket, Frame::decode(&frame, &ends).unwrap()));
                }
                Effect::Close { reason, .. } => self.region.closed.push(reason),
                Effect::ToShard { to, message } => {
                    let shards = match to {
                        To::Every => 0..SHARDS,
                        To::Shard(shard) => shard..shard + 1,
                    };
                    for shard in shards {
                        self.region.shard(shard, message.clone(), events);
                    }
                }
                Effect::Report(report) => self.region.reports.push(report),
            }
        }
    }
}

/// A log that holds entries 1 to `count` of a stream.
pub fn kept(stream: u8, count: u64) -> Kept {
    let mut kept = Kept::default();
    entries(stream, 1..count + 1).into_iter().for_each(|entry| kept.push(entry));
    kept
}

/// All streams there are.
pub fn streams() -> std::ops::Range<u8> {
    0..STREAMS
}
