//! Peers that do not play by the rules.

use automerge::sync::{ChunkList, Message, MessageVersion};
use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, Change, ChangeHash, ROOT, legacy};
use model::PeerId;
use wire::Message as Said;

use crate::network::{Dialler, LinkId, Toward};
use crate::plan::Fault;
use crate::rng::Rng;
use crate::world::{Due, World};

pub(crate) struct Hostile {
    index: usize,
    pub(crate) peer: PeerId,
    pub(crate) link: Option<LinkId>,
    server: Option<PeerId>,
    actors: u64,
    /// Only asks for things and never reads the answers, so it is not sent away at once.
    greedy: bool,
    /// What it heard last, to send back broken.
    heard: Vec<u8>,
    rng: Rng,
}

impl Hostile {
    pub(crate) fn new(index: usize, rng: &mut Rng) -> Self {
        Self {
            index,
            peer: PeerId::new(&format!("hostile-{index}")).expect("a short name"),
            link: None,
            server: None,
            actors: 0,
            greedy: false,
            heard: Vec::new(),
            rng: rng.fork(),
        }
    }

    fn doc(&mut self) -> Automerge {
        self.actors += 1;
        let mut bytes = vec![0xee, self.index as u8];
        bytes.extend_from_slice(&self.actors.to_be_bytes());
        Automerge::new().with_actor(ActorId::from(bytes))
    }

    fn hashes(&mut self, count: usize) -> Vec<ChangeHash> {
        let mut hashes: Vec<_> = (0..count)
            .map(|_| ChangeHash(self.rng.bytes(32).try_into().expect("32 bytes")))
            .collect();
        hashes.sort_unstable();
        hashes
    }

    /// A sync message that can be read and is a lie, or carries one.
    fn lie(&mut self, forks: bool) -> Vec<u8> {
        let version = MessageVersion::V1;
        let none = ChunkList::from(Vec::<Vec<u8>>::new());
        let mut message = Message {
            heads: Vec::new(),
            need: Vec::new(),
            have: Vec::new(),
            changes: none,
            flags: None,
            version,
        };
        match self.rng.below(if forks { 6 } else { 5 }) {
            // Heads and needs that nobody knows.
            0 => {
                message.heads = self.hashes(2);
                message.need = self.hashes(3);
            }
            // Changes whose dependencies never come.
            1 => {
                let mut doc = self.doc();
                (0..3).for_each(|n| put(&mut doc, "late", n));
                let changes = doc.get_changes(&[]);
                message.heads = doc.get_heads();
                message.changes = ChunkList::from(vec![changes[2].raw_bytes().to_vec()]);
            }
            // A change of an object that does not exist: it makes automerge panic.
            2 => {
                let mut doc = self.doc();
                put(&mut doc, "nowhere", 1);
                message.changes = ChunkList::from(vec![misfit(&doc).raw_bytes().to_vec()]);
            }
            // A chunk that is cut short, with everything else in order.
            3 => {
                let mut doc = self.doc();
                put(&mut doc, "cut", 1);
                let mut bytes = doc.get_changes(&[])[0].raw_bytes().to_vec();
                bytes.truncate(bytes.len() - 1 - self.rng.below(8));
                message.changes = ChunkList::from(vec![bytes]);
            }
            // A document chunk with a wrong byte.
            4 => {
                let mut doc = self.doc();
                (0..5).for_each(|n| put(&mut doc, "doc", n));
                let mut bytes = doc.save();
                let at = self.rng.below(bytes.len());
                bytes[at] ^= 1 << self.rng.below(8);
                message.changes = ChunkList::from(vec![bytes]);
            }
            // Two histories under one actor.
            _ => {
                let mut one = self.doc();
                put(&mut one, "one", 0);
                let mut other = one.fork().with_actor(one.get_actor().clone());
                put(&mut one, "one", 1);
                put(&mut other, "other", 1);
                let mut chunks: Vec<Vec<u8>> =
                    one.get_changes(&[]).iter().map(|change| change.raw_bytes().to_vec()).collect();
                put(&mut other, "child", 2);
                let others = other.get_changes(
                    &one.get_changes(&[])[..1].iter().map(Change::hash).collect::<Vec<_>>(),
                );
                chunks.extend(others.iter().map(|change| change.raw_bytes().to_vec()));
                message.heads = other.get_heads();
                message.changes = ChunkList::from(chunks);
            }
        }
        message.encode()
    }
}

fn put(doc: &mut Automerge, key: &str, value: i64) {
    let mut tx = doc.transaction();
    tx.put(ROOT, key, value).expect("a put into a map");
    tx.commit_with(CommitOptions::default().with_time(1_700_000_000));
}

/// The first change of a document, moved into an object that is not there.
fn misfit(doc: &Automerge) -> Change {
    let mut change = doc.get_changes(&[])[0].decode();
    let nowhere = legacy::OpId::new(7, &ActorId::from(vec![1, 2, 3]));
    for op in &mut change.operations {
        op.obj = legacy::ObjectId::Id(nowhere.clone());
    }
    change.into()
}

impl World {
    pub(crate) fn hostile_dials(&mut self, index: usize) {
        if !self.chaos || self.hostiles[index].link.is_some() {
            return;
        }
        let Some(link) = self.dial(Dialler::Hostile(index), 0) else {
            return self
                .due(std::time::Duration::from_secs(1), Due::HostileDials { hostile: index });
        };
        let impostor = self.plan.has(Fault::Impostor) && self.hostiles[index].rng.percent(20);
        let hostile = &mut self.hostiles[index];
        hostile.link = Some(link);
        hostile.server = None;
        let name = if impostor { "client-0".to_owned() } else { format!("hostile-{index}") };
        hostile.peer = PeerId::new(&name).expect("a short name");
        hostile.greedy = hostile.rng.percent(35);
        let first = if hostile.greedy { 9 } else { hostile.rng.below(10) };
        let mute = hostile.greedy || hostile.rng.percent(10);
        let join = Said::Join {
            sender: hostile.peer.clone(),
            metadata: wire::PeerMetadata::default(),
            versions: vec![wire::PROTOCOL_VERSION.to_owned()],
        };
        let mut frame = Vec::new();
        wire::encode(&join, &mut frame);
        match first {
            // Not even that.
            0 => frame = hostile.rng.bytes(40),
            1 => frame.truncate(20),
            _ => hostile.server = Some(PeerId::new("node-0").expect("a short name")),
        }
        if mute && let Some(link) = self.links.get_mut(&link) {
            link.to_dialler.hold(self.now + std::time::Duration::from_secs(3600));
        }
        self.transmit(link, Toward::Node, frame);
        self.due(std::time::Duration::from_millis(100), Due::HostileActs { hostile: index, link });
    }

    pub(crate) fn hostile_lost_link(&mut self, index: usize, link: LinkId) {
        if self.hostiles[index].link == Some(link) {
            self.hostiles[index].link = None;
            let after = self.hostiles[index].rng.millis(200, 4000);
            self.due(after, Due::HostileDials { hostile: index });
        }
    }

    pub(crate) fn hostile_hears(&mut self, index: usize, frame: &[u8]) {
        self.hostiles[index].heard = frame.to_vec();
    }

    pub(crate) fn hostile_acts(&mut self, index: usize, link: LinkId) {
        if !self.chaos || self.hostiles[index].link != Some(link) {
            return;
        }
        // After a restore nobody could tell which of two branches came first.
        let forks = !self.plan.has(Fault::Restore);
        let many = self.documents.len();
        let documents = self.documents.clone();
        let hostile = &mut self.hostiles[index];
        let (sender, target) = (hostile.peer.clone(), PeerId::new("node-0").expect("a short name"));
        let document = documents[hostile.rng.below(many)].clone();
        let mut frame = Vec::new();
        let message =
            match if hostile.greedy { 3 + hostile.rng.below(3) } else { hostile.rng.below(10) } {
                0 => {
                    frame = hostile.rng.bytes(30);
                    None
                }
                1 if !hostile.heard.is_empty() => {
                    frame = hostile.heard.clone();
                    let at = hostile.rng.below(frame.len());
                    frame[at] ^= 1 << hostile.rng.below(8);
                    None
                }
                2 => {
                    let size = 1 + hostile.rng.below(50);
                    let data = hostile.rng.bytes(size).into();
                    Some(Said::Sync { sender, target, document, data })
                }
                // Asks for everything, and for what is not there.
                3 | 4 => {
                    let mut state = automerge::sync::State::new();
                    let doc = Automerge::new();
                    let message = automerge::sync::SyncDoc::generate_sync_message(&doc, &mut state);
                    let data = message.map(Message::encode).unwrap_or_default().into();
                    let other =
                        model::DocumentId::from_bytes(&hostile.rng.bytes(16)).expect("16 bytes");
                    let document = if hostile.rng.percent(30) { other } else { document };
                    Some(Said::Request { sender, target, document, data })
                }
                5 => Some(Said::Ephemeral {
                    sender,
                    target,
                    document,
                    session: "noise".to_owned(),
                    count: hostile.rng.next() >> 12,
                    data: vec![0; 1 + hostile.rng.below(2000)].into(),
                }),
                6 => Some(Said::Join {
                    sender: PeerId::new("client-1").expect("a short name"),
                    metadata: wire::PeerMetadata::default(),
                    versions: vec!["1".to_owned()],
                }),
                _ => {
                    let data = hostile.lie(forks).into();
                    Some(Said::Sync { sender, target, document, data })
                }
            };
        let wait = hostile.rng.millis(20, 1500);
        if let Some(message) = message {
            wire::encode(&message, &mut frame);
        }
        self.transmit(link, Toward::Node, frame);
        self.due(wait, Due::HostileActs { hostile: index, link });
    }
}
