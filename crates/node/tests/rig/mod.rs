//! A shard with everything around it done by hand: a memory store that commits at once, an archive
//! that works in place, and clients that are the crate itself.

pub mod world;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use automerge::sync::{Message as SyncMessage, State, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ROOT};
use mesh::{FromShard, ToShard};
use model::{ChangeHash, DocumentId, Heads, PeerId, RegionName, StorageId};
use store::{MemoryDisk, Store};
use tributary_node::{
    ArchiveFailure, CloseReason, DocumentMessage, Effect, Event, Identity, Limits, MeshSetup, Now,
    Report, SessionId, Shard,
};
use wire::Message;

pub fn document() -> DocumentId {
    DocumentId::from_bytes(&[5; 16]).unwrap()
}

/// A snapshot as soon as there is a little, and nothing kept besides.
pub fn small() -> Limits {
    Limits { compact_tail_bytes: 500, retain_bytes: 0, ..Limits::default() }
}

pub fn region(name: &str) -> RegionName {
    RegionName::new(name).unwrap()
}

pub fn storage() -> StorageId {
    StorageId::new("store-of-the-server").unwrap()
}

fn me() -> Identity {
    Identity { peer: PeerId::new("server").unwrap(), storage: storage() }
}

pub struct Rig {
    pub shard: Shard,
    pub closed: Vec<(SessionId, CloseReason)>,
    pub reports: Vec<Report>,
    pub archive_jobs: usize,
    pub commits: usize,
    /// Commits wait while this is set.
    pub hold_commits: bool,
    /// Jobs of the archive wait while this is set.
    pub hold_archive: bool,
    /// The archive says that this change does not fit.
    pub blame: Option<ChangeHash>,
    /// What was said to other regions.
    pub said: VecDeque<(Option<RegionName>, FromShard)>,
    /// The copies that were made of losing branches.
    pub copies: BTreeSet<DocumentId>,
    setup: Option<MeshSetup>,
    limits: Limits,
    disk: MemoryDisk,
    pub store: Arc<dyn Store>,
    held: VecDeque<Effect>,
    pub now: Now,
    inboxes: BTreeMap<SessionId, VecDeque<Vec<u8>>>,
    slow: BTreeSet<SessionId>,
    last_session: u64,
}

impl Rig {
    pub fn new(limits: Limits) -> Self {
        let disk = MemoryDisk::new();
        let store: Arc<dyn Store> = Arc::new(disk.open());
        Self {
            shard: Shard::new(me(), limits.clone(), store.clone()),
            closed: Vec::new(),
            reports: Vec::new(),
            archive_jobs: 0,
            commits: 0,
            hold_commits: false,
            hold_archive: false,
            blame: None,
            said: VecDeque::new(),
            copies: BTreeSet::new(),
            setup: None,
            limits,
            disk,
            store,
            held: VecDeque::new(),
            now: Now { running: Duration::ZERO, wall_ms: 1_000_000_000_000 },
            inboxes: BTreeMap::new(),
            slow: BTreeSet::new(),
            last_session: 0,
        }
    }

    /// A shard of a node in a mesh with these other regions.
    pub fn in_region(name: &str, others: &[&str], limits: Limits) -> Self {
        let mut rig = Self::new(limits);
        rig.setup = Some(MeshSetup {
            region: region(name),
            epoch: 1,
            regions: others.iter().map(|name| region(name)).collect(),
            salt: 7,
            shard: 0,
            shards: 1,
        });
        rig.start();
        rig
    }

    /// What the disk holds, to be put back later.
    pub fn backup(&self) -> store::DiskImage {
        self.disk.snapshot()
    }

    /// The disk is as it was once; the process starts on it.
    pub fn restore(&mut self, image: &store::DiskImage) {
        self.disk.restore(image);
        self.restart();
    }

    /// A link says something.
    pub fn hear(&mut self, from: &str, message: ToShard) {
        self.shard.handle(self.now, Event::Region { region: region(from), message });
        self.run();
    }

    fn start(&mut self) {
        self.shard = match &mut self.setup {
            None => Shard::new(me(), self.limits.clone(), self.store.clone()),
            Some(setup) => {
                setup.epoch += 1;
                let (limits, store) = (self.limits.clone(), self.store.clone());
                Shard::in_mesh(me(), limits, store, setup.clone()).unwrap()
            }
        };
    }

    /// The process ends and starts again on the same disk; all connections are gone.
    pub fn restart(&mut self) {
        self.disk.crash();
        self.store = Arc::new(self.disk.open());
        self.said.clear();
        self.start();
        self.inboxes.clear();
        self.held.clear();
    }

    /// Does everything that there is to do at this moment.
    pub fn run(&mut self) {
        for effect in std::mem::take(&mut self.held) {
            self.perform(effect);
        }
        loop {
            self.shard.flush(self.now);
            let Some(effect) = self.shard.poll_effect() else { return };
            self.perform(effect);
        }
    }

    /// Lets time pass, and everything that becomes due happen when it does.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now.running + time;
        self.run();
        while let Some(at) = self.shard.poll_timeout().filter(|at| *at <= end) {
            self.advance_to(at.max(self.now.running));
            self.shard.tick(self.now);
            self.run();
        }
        self.advance_to(end);
    }

    /// The wall clock goes on, without anything happening.
    pub fn later(&mut self, time: Duration) {
        self.now.wall_ms += time.as_millis() as u64;
    }

    pub fn trim(&mut self, document: DocumentId) {
        self.shard.handle(self.now, Event::Tend { document });
        self.run();
    }

    pub fn leave(&mut self, client: &Client) {
        self.inboxes.remove(&client.session);
        self.shard.handle(self.now, Event::Closed { session: client.session });
        self.run();
    }

    pub fn presence(&mut self, from: &Client, count: u64, data: &[u8]) {
        let message = DocumentMessage::Ephemeral {
            author: PeerId::new(from.name).unwrap(),
            stream: "stream".to_owned(),
            count,
            data: data.to_vec(),
        };
        self.message(from.session, message);
    }

    pub fn subscribe(&mut self, client: &Client, stores: &[&str]) {
        let add = stores.iter().map(|store| StorageId::new(store).unwrap()).collect();
        let event = Event::Subscribed { session: client.session, add, remove: Vec::new() };
        self.shard.handle(self.now, event);
        self.run();
    }

    /// A message with these changes in it, as a hostile or confused client might put it together.
    pub fn upload(&mut self, client: &Client, changes: &[&[u8]]) {
        let heads = changes.iter().filter_map(|bytes| history::read_change(bytes).ok());
        let heads = heads.map(|change| change.hash()).collect();
        self.upload_with_heads(client, &heads, changes);
    }

    /// The same, and the sync message that comes back.
    pub fn upload_and_read(
        &mut self,
        client: &Client,
        heads: &Heads,
        changes: &[&[u8]],
    ) -> sync::Message {
        self.upload_with_heads(client, heads, changes);
        let frame = self.inboxes.get_mut(&client.session).and_then(VecDeque::pop_front);
        match wire::decode(&frame.expect("an answer")).unwrap() {
            Message::Sync { data, .. } => sync::Message::decode(&data).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn upload_with_heads(&mut self, client: &Client, heads: &Heads, changes: &[&[u8]]) {
        let reply = sync::Reply {
            heads: heads.clone(),
            need: Vec::new(),
            have: Some(sync::Have::nothing()),
            flags: sync::Flags::default(),
        };
        let data = reply.encode(changes.iter().copied());
        self.message(client.session, DocumentMessage::Sync { data });
    }

    /// Asks for a document that is not the one of the story.
    pub fn ask_for(&mut self, client: &Client, document: DocumentId) {
        let reply = sync::Reply {
            heads: Heads::none(),
            need: Vec::new(),
            have: Some(sync::Have::nothing()),
            flags: sync::Flags::default(),
        };
        let message = DocumentMessage::Sync { data: reply.encode([].into_iter()) };
        let event = Event::Message { session: client.session, document, message };
        self.shard.handle(self.now, event);
        self.run();
    }

    pub fn disk_bytes(&self) -> usize {
        self.disk.durable_bytes() as usize
    }

    /// From now on nothing of what is sent to the client reaches its socket.
    pub fn slow(&mut self, client: &Client) {
        self.slow.insert(client.session);
    }

    pub fn fast(&mut self, client: &Client) {
        self.slow.remove(&client.session);
        let bytes = self.inboxes[&client.session].iter().map(Vec::len).sum();
        self.shard.handle(self.now, Event::Written { session: client.session, bytes });
        self.run();
    }

    pub fn waiting_for(&self, client: &Client) -> usize {
        self.inboxes[&client.session].len()
    }

    /// Whether a commit or a job waits because it is held.
    pub fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    fn message(&mut self, session: SessionId, message: DocumentMessage) {
        self.shard.handle(self.now, Event::Message { session, document: document(), message });
        self.run();
    }

    fn advance_to(&mut self, at: Duration) {
        self.now.wall_ms += (at - self.now.running).as_millis() as u64;
        self.now.running = at;
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send { session, frame } => {
                let bytes = frame.len();
                if let Some(inbox) = self.inboxes.get_mut(&session) {
                    inbox.push_back(frame);
                }
                if !self.slow.contains(&session) {
                    self.shard.handle(self.now, Event::Written { session, bytes });
                }
            }
            Effect::Close { session, reason } => self.closed.push((session, reason)),
            Effect::Commit { .. } if self.hold_commits => self.held.push_back(effect),
            Effect::Archive { .. } if self.hold_archive => self.held.push_back(effect),
            Effect::Commit { batch, writes } => {
                self.store.commit(&writes).unwrap();
                self.commits += 1;
                self.shard.handle(self.now, Event::Committed { batch });
            }
            Effect::Archive { job, task } => {
                self.archive_jobs += 1;
                let result = self.archive(*task);
                let (result, took) = (Box::new(result), Duration::from_millis(5));
                self.shard.handle(self.now, Event::Archived { job, result, took });
            }
            Effect::Region { to, message } => self.said.push_back((to, message)),
            Effect::Adopt(branch) => {
                self.copies.insert(branch.copy.clone());
                self.shard.handle(self.now, Event::Adopt(branch));
            }
            Effect::Report(report) => self.reports.push(report),
        }
    }

    fn archive(&self, task: archive::Job) -> tributary_node::ArchiveResult {
        if let (Some(blamed), archive::Job::Compact { changes, .. }) = (self.blame, &task) {
            let index = changes.iter().position(|bytes| {
                history::read_change(bytes).is_ok_and(|change| change.hash() == blamed)
            });
            if let Some(index) = index {
                let reason = archive::Reason::Malformed("says the test".to_owned());
                let failure = archive::Failure::Change { index, hash: Some(blamed), reason };
                return Err(ArchiveFailure::Job(failure));
            }
        }
        archive::run(task, &mut |_| {}).map_err(ArchiveFailure::from)
    }
}

pub struct Client {
    pub doc: AutoCommit,
    pub version_1: bool,
    /// Whether it may be unable to take in what it is sent, and how often it was.
    pub may_fail: bool,
    pub failures: usize,
    pub session: SessionId,
    name: &'static str,
    storage: Option<StorageId>,
    state: State,
}

impl Client {
    pub fn join(rig: &mut Rig, name: &'static str) -> Self {
        Self::connect(rig, name, None)
    }

    pub fn join_with_storage(rig: &mut Rig, name: &'static str, storage: &str) -> Self {
        Self::connect(rig, name, Some(StorageId::new(storage).unwrap()))
    }

    fn connect(rig: &mut Rig, name: &'static str, storage: Option<StorageId>) -> Self {
        let doc = AutoCommit::new().with_actor(ActorId::from(name.as_bytes()));
        let session = SessionId(0);
        let mut client = Self {
            doc,
            version_1: false,
            may_fail: false,
            failures: 0,
            session,
            name,
            storage,
            state: State::new(),
        };
        client.reconnect(rig);
        client
    }

    /// A new connection; the sync state is as it would be read back from the client's disk.
    pub fn reconnect(&mut self, rig: &mut Rig) {
        rig.last_session += 1;
        self.session = SessionId(rig.last_session);
        self.state = State::decode(&self.state.encode()).unwrap();
        rig.inboxes.insert(self.session, VecDeque::new());
        let peer = PeerId::new(self.name).unwrap();
        let event = Event::Opened { session: self.session, peer, storage: self.storage.clone() };
        rig.shard.handle(rig.now, event);
    }

    pub fn put(&mut self, key: &str, value: &str) {
        self.doc.put(ROOT, key, value).unwrap();
        self.doc.commit();
    }

    pub fn heads(&mut self) -> Heads {
        self.doc.get_heads().iter().map(|hash| ChangeHash(hash.0)).collect()
    }

    /// Says what there is to say, if anything.
    pub fn say(&mut self, rig: &mut Rig) -> bool {
        let Some(mut message) = self.doc.sync().generate_sync_message(&mut self.state) else {
            return false;
        };
        if self.version_1 {
            message.flags = None;
        }
        rig.message(self.session, DocumentMessage::Sync { data: message.encode() });
        true
    }

    /// Everything that has come and is no sync message; sync messages are taken in.
    pub fn read(&mut self, rig: &mut Rig) -> Vec<Message<'static>> {
        let mut others = Vec::new();
        let frames = rig.inboxes.get_mut(&self.session).map(std::mem::take).unwrap_or_default();
        for frame in frames {
            match wire::decode(&frame).unwrap().into_owned() {
                Message::Sync { data, .. } => {
                    let mut message = SyncMessage::decode(&data).unwrap();
                    if self.version_1 {
                        assert_eq!(data[0], 0x42, "only version 1");
                        message.flags = None;
                    }
                    let taken = self.doc.sync().receive_sync_message(&mut self.state, message);
                    match taken {
                        Ok(()) => {}
                        // As automerge-repo does: it is logged, and the client goes on.
                        Err(_) if self.may_fail => self.failures += 1,
                        Err(error) => panic!("{}: {error}", self.name),
                    }
                }
                other => others.push(other),
            }
        }
        others
    }

    /// Talks until both fall silent; how many messages that took.
    pub fn sync(&mut self, rig: &mut Rig) -> usize {
        let mut messages = 0;
        for _ in 0..100 {
            let said = self.say(rig);
            rig.pass(Duration::from_millis(100));
            let heard = rig.inboxes.get(&self.session).map_or(0, VecDeque::len);
            let others = self.read(rig);
            // What is not about the document's content stays for the story to look at.
            let inbox = rig.inboxes.entry(self.session).or_default();
            for other in others {
                let mut frame = Vec::new();
                wire::encode(&other, &mut frame);
                inbox.push_back(frame);
            }
            if !said && heard == inbox.len() {
                return messages;
            }
            messages += heard + usize::from(said);
        }
        panic!("{} and the server do not fall silent", self.name);
    }
}
