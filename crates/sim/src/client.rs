//! Honest clients: what automerge-repo does, with the real `automerge` inside.
//!
//! `join`; one sync state per connection and document; `request` when it has nothing; answers at
//! once to what it hears; local edits spoken of after a while; back after five seconds with the
//! sync state it kept, an older one, or none.

mod acts;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use automerge::sync::{State, SyncDoc};
use automerge::{ActorId, Automerge, ChangeHash};
use model::{PeerId, StorageId};
use wire::Message as Said;

use crate::judge::Law;
use crate::network::{Dialler, LinkId, Toward};
use crate::rng::Rng;
use crate::world::{Due, World};

/// Stock clients come back after this long, always.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// How long a client may wait for the first word about a document on a connection that works.
pub(crate) const ANSWERED_WITHIN: Duration = Duration::from_secs(20);

pub(crate) struct Client {
    pub(crate) index: usize,
    pub(crate) peer: PeerId,
    storage: Option<StorageId>,
    pub(crate) node: usize,
    pub(crate) link: Option<LinkId>,
    /// The node has answered `join`.
    pub(crate) server: Option<PeerId>,
    pub(crate) documents: BTreeMap<usize, Held>,
    pub(crate) read_only: bool,
    /// Somebody else writes under an actor that it has used, or it under somebody else's.
    pub(crate) forked: bool,
    /// It has met the other history of its actor: the library cannot go on, and it stays away.
    pub(crate) lost: bool,
    incarnations: u64,
    stream: u64,
    count: u64,
    /// The last count heard of each author's stream, per document.
    heard: BTreeMap<(PeerId, String), BTreeMap<model::DocumentId, u64>>,
    pub(crate) rng: Rng,
}

/// One document that a client has.
pub(crate) struct Held {
    pub(crate) doc: Automerge,
    /// What is known of the node on this connection; none before the document was spoken of.
    pub(crate) talk: Option<Talk>,
    /// On the client's disk.
    saved: Vec<u8>,
    state_saved: Option<Vec<u8>>,
    /// Changes made here that nobody has said they have.
    unacknowledged: BTreeSet<ChangeHash>,
    speaks: bool,
}

pub(crate) struct Talk {
    pub(crate) state: State,
    asked_at: Duration,
    pub(crate) answered: bool,
    pub(crate) unavailable: bool,
}

impl Client {
    pub(crate) fn new(index: usize, node: usize, rng: &mut Rng) -> Self {
        let mut rng = rng.fork();
        let storage = rng.percent(70).then(|| format!("storage-{index}"));
        Self {
            index,
            peer: PeerId::new(&format!("client-{index}")).expect("a short name"),
            storage: storage.map(|name| StorageId::new(&name).expect("a short name")),
            node,
            link: None,
            server: None,
            documents: BTreeMap::new(),
            read_only: false,
            forked: false,
            lost: false,
            incarnations: 0,
            stream: 0,
            count: 0,
            heard: BTreeMap::new(),
            rng,
        }
    }

    /// An actor that nobody has had before: two histories under one actor are not honest.
    fn actor(&mut self) -> ActorId {
        self.incarnations += 1;
        let mut bytes = vec![0xc0, self.index as u8];
        bytes.extend_from_slice(&self.incarnations.to_be_bytes());
        ActorId::from(bytes)
    }

    pub(crate) fn hold(&mut self, document: usize) {
        if !self.documents.contains_key(&document) {
            let doc = Automerge::new().with_actor(self.actor());
            let saved = doc.save();
            self.documents.insert(document, Held::new(doc, saved));
        }
    }

    /// Its connections lead to another region from now on.
    pub(crate) fn moves_to(&mut self, node: usize) {
        self.node = node;
        self.stream += 1;
        self.count = 0;
    }

    /// Takes one of somebody's documents over, and the actor too: which one, if there is any.
    pub(crate) fn takes_after(&mut self, original: &mut Client) -> Option<usize> {
        let (document, held) =
            original.documents.iter().find(|(_, held)| !held.doc.get_heads().is_empty())?;
        let doc = held.doc.fork().with_actor(held.doc.get_actor().clone());
        let saved = doc.save();
        let document = *document;
        self.documents.insert(document, Held::new(doc, saved));
        (self.forked, original.forked) = (true, true);
        Some(document)
    }

    /// Goes back to an older copy of a document: the one on disk, or none.
    fn roll_back(&mut self, document: usize, to_nothing: bool) {
        let actor = self.actor();
        let Some(held) = self.documents.get_mut(&document) else { return };
        if to_nothing {
            held.saved = Automerge::new().save();
        }
        held.doc = Automerge::load(&held.saved).expect("what was saved loads").with_actor(actor);
        let known = hashes(&held.doc, &[]);
        held.unacknowledged.retain(|hash| known.contains(hash));
        held.talk = None;
    }
}

impl Held {
    fn new(doc: Automerge, saved: Vec<u8>) -> Self {
        Self {
            doc,
            talk: None,
            saved,
            state_saved: None,
            unacknowledged: BTreeSet::new(),
            speaks: false,
        }
    }

    /// Does something to the document, and notes what is new.
    fn edit(&mut self, work: impl FnOnce(&mut Automerge)) {
        let before = self.doc.get_heads();
        work(&mut self.doc);
        self.unacknowledged.extend(hashes(&self.doc, &before));
    }

    /// Whether a change is in the document that no region has.
    pub(crate) fn knows_more(&self, known: impl Fn(&ChangeHash) -> bool) -> bool {
        self.doc.get_changes_meta(&[]).iter().any(|change| !known(&change.hash))
    }

    /// Whether any of these changes is in the document.
    pub(crate) fn holds_any(&self, hashes: &BTreeSet<ChangeHash>) -> bool {
        hashes.iter().any(|hash| self.doc.get_change_meta_by_hash(hash).is_some())
    }

    /// What the changes are that the node has, by its own words.
    fn take_acknowledged(&mut self, heads: &[ChangeHash]) -> Vec<ChangeHash> {
        if self.unacknowledged.is_empty() {
            return Vec::new();
        }
        let known: Vec<ChangeHash> = heads
            .iter()
            .filter(|hash| self.doc.get_change_meta_by_hash(hash).is_some())
            .copied()
            .collect();
        let beyond = hashes(&self.doc, &known);
        let acknowledged: Vec<ChangeHash> =
            self.unacknowledged.iter().filter(|hash| !beyond.contains(hash)).copied().collect();
        for hash in &acknowledged {
            self.unacknowledged.remove(hash);
        }
        acknowledged
    }
}

impl World {
    pub(crate) fn client_dials(&mut self, index: usize) {
        if self.clients[index].link.is_some() || self.clients[index].lost {
            return;
        }
        let node = self.clients[index].node;
        let Some(link) = self.dial(Dialler::Client(index), node) else {
            return self.due(RETRY_AFTER, Due::Dials { client: index });
        };
        let client = &mut self.clients[index];
        client.link = Some(link);
        client.server = None;
        let metadata = wire::PeerMetadata {
            storage_id: client.storage.clone(),
            is_ephemeral: client.storage.is_none(),
        };
        let join = Said::Join {
            sender: client.peer.clone(),
            metadata,
            versions: vec![wire::PROTOCOL_VERSION.to_owned()],
        };
        self.client_sends(index, &join);
    }

    fn client_sends(&mut self, index: usize, message: &Said<'_>) {
        if let Some(link) = self.clients[index].link {
            let mut frame = Vec::new();
            wire::encode(message, &mut frame);
            self.transmit(link, Toward::Node, frame);
        }
    }

    /// The connection is gone.
    pub(crate) fn client_lost_link(&mut self, index: usize, link: LinkId) {
        let client = &mut self.clients[index];
        if client.link != Some(link) {
            return;
        }
        client.link = None;
        client.server = None;
        for held in client.documents.values_mut() {
            if let Some(talk) = held.talk.take() {
                // A store of its own outlives the connection, and so does the state in it.
                held.state_saved = client.storage.as_ref().map(|_| talk.state.encode());
            }
        }
        self.due(RETRY_AFTER, Due::Dials { client: index });
    }

    pub(crate) fn client_hears(&mut self, index: usize, frame: &[u8]) {
        let message = match wire::decode(frame) {
            Ok(message) => message,
            Err(error) => {
                return self
                    .broken(Law::HonestClientsNeverFail, format!("client {index}: {error}"));
            }
        };
        match message {
            Said::Peer { sender, .. } => {
                self.clients[index].server = Some(sender);
                let habits = self.plan.habits.clone();
                let client = &mut self.clients[index];
                for held in client.documents.values_mut() {
                    held.talk = None;
                }
                if habits.remote_heads {
                    self.client_subscribes(index);
                }
                for document in self.clients[index].documents.keys().copied().collect::<Vec<_>>() {
                    self.client_opens(index, document);
                }
            }
            Said::Sync { document, data, .. } => self.client_hears_sync(index, &document, &data),
            Said::DocUnavailable { document, .. } => {
                if let Some(talk) = self.talk(index, &document) {
                    talk.answered = true;
                    talk.unavailable = true;
                }
            }
            Said::Ephemeral { sender, document, session, count, .. } => {
                self.client_hears_presence(index, sender, &document, session, count);
            }
            Said::Error { message, .. } if !self.plan.has(crate::plan::Fault::ArchiveAway) => {
                let what = format!("client {index} was told: {message}");
                self.broken(Law::OnlyItsOwnSession, what);
            }
            _ => {}
        }
    }

    fn talk(&mut self, index: usize, id: &model::DocumentId) -> Option<&mut Talk> {
        let document = self.documents.iter().position(|known| known == id)?;
        self.clients[index].documents.get_mut(&document)?.talk.as_mut()
    }

    fn client_hears_sync(&mut self, index: usize, id: &model::DocumentId, data: &[u8]) {
        let (node, now) = (self.clients[index].node, self.now);
        let document = self.documents.iter().position(|known| known == id);
        let held = document.and_then(|at| self.clients[index].documents.get_mut(&at));
        let Some((document, held)) = document.zip(held) else {
            return self.broken(Law::NothingUnasked, format!("client {index} was sent {id}"));
        };
        let Some(talk) = held.talk.as_mut() else {
            return self.broken(Law::NothingUnasked, format!("client {index} was sent {id}"));
        };
        let message = match automerge::sync::Message::decode(data) {
            Ok(message) => message,
            Err(error) => {
                return self
                    .broken(Law::HonestClientsNeverFail, format!("client {index}: {error}"));
            }
        };
        talk.answered = true;
        talk.unavailable &= message.heads.is_empty();
        let (before, heads) = (held.doc.get_heads(), message.heads.clone());
        let taken = held.doc.receive_sync_message(&mut talk.state, message);
        let news = hashes(&held.doc, &before);
        let acknowledged = held.take_acknowledged(&heads);
        self.trace.note(now, "client takes", &[index as u64, document as u64], &[], || {
            format!("{} news, {} acknowledged", news.len(), acknowledged.len())
        });
        if taken.is_err() && (self.clients[index].forked || self.judge.forgotten_deaths) {
            self.count("met the other history");
            self.clients[index].lost = true;
            if let Some(link) = self.clients[index].link {
                self.hang_up(link);
            }
            return;
        }
        if let Err(error) = taken {
            let what = format!("client {index} cannot take what it was sent about {id}: {error}");
            return self.broken(Law::HonestClientsNeverFail, what);
        }
        self.judge.received(node, id, news, index);
        self.judge.acknowledged(node, id, acknowledged, index);
        if self.clients[index].rng.percent(10) {
            self.client_saves(index, document);
        }
        self.client_says(index, document);
    }

    /// One author's messages about one document keep their order. About several documents they may
    /// not when these are on different shards: one shard may be waiting for the disk. Clients up to
    /// 2.5 number a stream over all documents and lose what is overtaken; that is counted here.
    fn client_hears_presence(
        &mut self,
        index: usize,
        author: PeerId,
        document: &model::DocumentId,
        stream: String,
        count: u64,
    ) {
        // What is said under an honest name by somebody else proves nothing.
        if !author.as_str().starts_with("client-") || !stream.starts_with("stream-") {
            return;
        }
        if author == self.clients[index].peer {
            if stream != format!("stream-{}", self.clients[index].stream) {
                // It has moved since, and is told as any other client of that region.
                return;
            }
            let what = format!("client {index} hears itself");
            return self.broken(Law::PresenceInOrder, what);
        }
        let heard = self.clients[index].heard.entry((author.clone(), stream.clone())).or_default();
        let last = heard.insert(document.clone(), count).unwrap_or(0);
        let overtaken = heard.values().any(|other| *other > count);
        if count <= last {
            let what = format!("client {index} hears {count} after {last} of {author}, {stream}");
            return self.broken(Law::PresenceInOrder, what);
        }
        self.count(if overtaken { "presence overtaken on another shard" } else { "presence" });
    }

    /// Speaks of a document for the first time on this connection.
    pub(crate) fn client_opens(&mut self, index: usize, document: usize) {
        let stale = self.plan.habits.stale_state && self.chaos;
        let now = self.now;
        let client = &mut self.clients[index];
        if client.server.is_none() {
            return;
        }
        let read_only = client.read_only;
        let Some(held) = client.documents.get_mut(&document) else { return };
        let kept = held.state_saved.as_ref().filter(|_| !(stale && client.rng.percent(30)));
        let mut state = match kept {
            Some(kept) => State::decode(kept).expect("what was encoded decodes"),
            None => State::new(),
        };
        state.read_only = read_only;
        held.talk = Some(Talk { state, asked_at: now, answered: false, unavailable: false });
        self.client_says(index, document);
    }

    /// Sends the next sync message about a document, if there is one.
    pub(crate) fn client_says(&mut self, index: usize, document: usize) {
        let id = self.documents[document].clone();
        let client = &mut self.clients[index];
        let Some(server) = client.server.clone() else { return };
        let Some(held) = client.documents.get_mut(&document) else { return };
        let Some(talk) = held.talk.as_mut() else { return };
        let nothing = held.doc.get_heads().is_empty()
            && talk.state.shared_heads.is_empty()
            && talk.state.their_heads.is_none();
        let Some(message) = held.doc.generate_sync_message(&mut talk.state) else { return };
        let data = message.encode().into();
        let (sender, target) = (client.peer.clone(), server);
        let message = if nothing {
            Said::Request { sender, target, document: id, data }
        } else {
            Said::Sync { sender, target, document: id, data }
        };
        self.client_sends(index, &message);
    }

    pub(crate) fn client_speaks(&mut self, index: usize, document: usize) {
        if let Some(held) = self.clients[index].documents.get_mut(&document) {
            held.speaks = false;
        }
        self.client_says(index, document);
    }

    /// Whoever has asked on a connection that works has been answered by now.
    pub(crate) fn judge_answers(&mut self) {
        for index in 0..self.clients.len() {
            let client = &self.clients[index];
            let Some(link) = client.link.and_then(|id| self.links.get(&id)) else { continue };
            let held = link.to_node.held_until().max(link.to_dialler.held_until());
            let late = client.documents.iter().find(|(_, document)| {
                document.talk.as_ref().is_some_and(|talk| {
                    !talk.answered && self.now > talk.asked_at.max(held) + ANSWERED_WITHIN
                })
            });
            if client.server.is_some()
                && link.node_open
                && let Some((document, _)) = late
            {
                let what = format!("client {index} has heard nothing of document {document}");
                self.judge.broken(Law::EveryRequestIsAnswered, what);
            }
        }
    }
}

/// The changes that are not ancestors of these heads.
fn hashes(doc: &Automerge, heads: &[ChangeHash]) -> BTreeSet<ChangeHash> {
    doc.get_changes_meta(heads).into_iter().map(|change| change.hash).collect()
}
