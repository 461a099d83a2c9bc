//! The two servers: ours on the change graph, and the crate.

use std::collections::{BTreeMap, BTreeSet};

use automerge::Automerge;
use automerge::sync::{Message as CrateMessage, State, SyncDoc};
use history::chunk::{Change, Chunk, Limits, read_change, read_chunks};
use history::directory::Directory;
use history::graph::Position;
use history::{History, Offer, Refusal};
use model::ChangeHash;
use rand::Rng;
use rand::rngs::SmallRng;
use tributary_sync::{Changes, Flags, Message, Standing};

pub trait Server {
    fn open(&mut self, session: u64);
    fn close(&mut self, session: u64);
    fn receive(&mut self, session: u64, bytes: &[u8], random: &mut SmallRng) -> Result<(), String>;
    fn answer(&mut self, session: u64) -> Option<Vec<u8>>;
    /// Whether this is a message that the server may send.
    fn judge(&self, message: &[u8]) -> Result<(), String>;
    /// Sometimes: commits, compacts, comes back from an older copy. Whether all connections are gone.
    fn upkeep(&mut self, random: &mut SmallRng, restore: bool) -> bool;
    /// Everything that is under way is finished.
    fn settle(&mut self);
    fn heads(&self) -> Vec<automerge::ChangeHash>;
    fn refused(&self) -> BTreeSet<automerge::ChangeHash>;
}

/// Ours: a history, a standing per session, and the raw changes that a store would hold.
pub struct Ours {
    history: History,
    standings: BTreeMap<u64, Standing>,
    refusals: bool,
    refused: BTreeSet<automerge::ChangeHash>,
    /// What the store holds one by one, by position.
    raw: Vec<Change>,
    version_1_seen: bool,
}

impl Ours {
    pub fn new(refusals: bool) -> Self {
        Self {
            history: empty(),
            standings: BTreeMap::new(),
            refusals,
            refused: BTreeSet::new(),
            raw: Vec::new(),
            version_1_seen: false,
        }
    }

    fn changes_of(&self, bytes: &[u8], message: &Message) -> Result<Vec<Change>, String> {
        let mut changes = Vec::new();
        for item in &message.items {
            for chunk in read_chunks(&bytes[item.clone()], &Limits::default())
                .map_err(|error| error.to_string())?
            {
                match chunk {
                    Chunk::Change(change) => changes.push(change),
                    Chunk::Document(chunk) | Chunk::Bundle(chunk) => {
                        let document =
                            Automerge::load(&chunk).map_err(|error| error.to_string())?;
                        let expanded = document.get_changes(&[]);
                        changes.extend(
                            expanded.iter().map(|change| read_change(change.raw_bytes()).unwrap()),
                        );
                    }
                }
            }
        }
        Ok(changes)
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut document = Automerge::new();
        let base = &self.raw[..self.history.base() as usize];
        let changes = base
            .iter()
            .map(|change| automerge::Change::from_bytes(change.bytes().to_vec()).unwrap());
        document.apply_changes(changes).unwrap();
        document.save()
    }
}

fn empty() -> History {
    let mut history = History::default();
    history.install_directory(Directory::default());
    history
}

impl Server for Ours {
    fn open(&mut self, session: u64) {
        self.standings.insert(session, Standing::default());
    }

    fn close(&mut self, session: u64) {
        self.standings.remove(&session);
    }

    fn receive(&mut self, session: u64, bytes: &[u8], random: &mut SmallRng) -> Result<(), String> {
        let message = Message::decode(bytes).map_err(|error| error.to_string())?;
        self.version_1_seen |= message.flags.is_none();
        let mut handed = Vec::new();
        for change in self.changes_of(bytes, &message)? {
            let known = self.history.graph().position(&change.hash()).is_some();
            if self.refusals && !known && random.random_range(0..10) == 0 {
                let why = Refusal::Crdt { hash: change.hash(), reason: "a dislike".to_owned() };
                self.history.refuse(&change, why);
            }
            let refused = &mut self.refused;
            self.history.offer(change, history::Door::Client, &mut |change, offer| match offer {
                Offer::Appended(position) | Offer::Known(position) => handed.push(position),
                Offer::Refused(_) => {
                    refused.insert(automerge::ChangeHash(change.hash().0));
                }
                Offer::Pending | Offer::NeedsCrdt(_) | Offer::Outranks(_) => {}
            });
        }
        while self.raw.len() < self.history.len() as usize {
            let position = self.raw.len() as Position;
            self.raw.push(self.history.resident(position).unwrap().clone());
        }
        let standing = self.standings.get_mut(&session).ok_or("no such session")?;
        standing.receive(&message, &handed, &self.history);
        Ok(())
    }

    fn answer(&mut self, session: u64) -> Option<Vec<u8>> {
        let answer = self.standings.get_mut(&session)?.answer(&self.history)?;
        let durable = self.history.durable();
        assert!(
            answer.changes.positions().iter().all(|position| *position < durable),
            "nothing is told before it is durable"
        );
        let (base, raw_from) = (self.history.base(), self.history.raw_from());
        let everything = answer.changes == Changes::Range(0..durable);
        let trimmed = answer.changes.first().is_some_and(|first| first < raw_from);
        if base > 0 && answer.version_2 && (everything || trimmed) {
            let snapshot = self.snapshot();
            let tail = self.raw[base as usize..durable as usize].iter().map(Change::bytes);
            let parts: Vec<&[u8]> = std::iter::once(snapshot.as_slice()).chain(tail).collect();
            return Some(answer.reply.encode_joined(parts.into_iter()));
        }
        let positions = answer.changes.positions();
        let chunks: Vec<&[u8]> =
            positions.iter().map(|position| self.raw[*position as usize].bytes()).collect();
        Some(answer.reply.encode(chunks.into_iter()))
    }

    fn judge(&self, bytes: &[u8]) -> Result<(), String> {
        let message = Message::decode(bytes).map_err(|error| error.to_string())?;
        if message.is_reset() || message.flags.is_some_and(|it| it.contains(Flags::SYNC_RESET)) {
            return Err("the server sends a reset".to_owned());
        }
        let as_listed = CrateMessage::decode(bytes).map_err(|error| error.to_string())?.heads;
        if !as_listed.is_sorted() {
            return Err(format!("the server sends heads out of order: {as_listed:?}"));
        }
        if as_listed.iter().any(|head| self.history.graph().position(&ChangeHash(head.0)).is_none())
        {
            return Err("the server names heads that it does not hold".to_owned());
        }
        Ok(())
    }

    fn upkeep(&mut self, random: &mut SmallRng, restore: bool) -> bool {
        if random.random_range(0..2) == 0 {
            let (from, to) = (self.history.durable(), self.history.len());
            self.history.settle(random.random_range(from..=to));
        }
        if random.random_range(0..20) == 0 {
            let base = self.history.durable().max(self.history.base());
            // Version 1 peers would need the pool to expand what is trimmed; the store keeps it.
            let keep = if self.version_1_seen { 0 } else { random.random_range(0..=3) };
            let raw_from = base.checked_div(keep).map_or(0, |trimmed| base - trimmed);
            self.history.compacted(base, raw_from.max(self.history.raw_from()));
        }
        if restore && random.random_range(0..40) == 0 {
            let keep = random.random_range(0..=self.history.durable());
            self.raw.truncate(keep as usize);
            self.history = empty();
            for change in self.raw.clone() {
                self.history.offer(change, history::Door::Client, &mut |_, _| {});
            }
            self.history.settle(keep);
            self.standings.clear();
            return true;
        }
        false
    }

    fn settle(&mut self) {
        self.history.settle(self.history.len());
    }

    fn heads(&self) -> Vec<automerge::ChangeHash> {
        self.history.heads().iter().map(|hash| automerge::ChangeHash(hash.0)).collect()
    }

    fn refused(&self) -> BTreeSet<automerge::ChangeHash> {
        self.refused.clone()
    }
}

/// The crate, as today's servers use it.
#[derive(Default)]
pub struct TheCrate {
    document: Automerge,
    states: BTreeMap<u64, State>,
}

impl Server for TheCrate {
    fn open(&mut self, session: u64) {
        self.states.insert(session, State::new());
    }

    fn close(&mut self, session: u64) {
        self.states.remove(&session);
    }

    fn receive(&mut self, session: u64, bytes: &[u8], _: &mut SmallRng) -> Result<(), String> {
        let message = CrateMessage::decode(bytes).map_err(|error| error.to_string())?;
        let state = self.states.get_mut(&session).ok_or("no such session")?;
        self.document.receive_sync_message(state, message).map_err(|error| error.to_string())
    }

    fn answer(&mut self, session: u64) -> Option<Vec<u8>> {
        let state = self.states.get_mut(&session)?;
        self.document.generate_sync_message(state).map(CrateMessage::encode)
    }

    fn judge(&self, _: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn upkeep(&mut self, random: &mut SmallRng, _: bool) -> bool {
        // As many draws as ours makes, so that the scripts stay alike.
        let _: (u32, u32) = (random.random_range(0..2), random.random_range(0..20));
        false
    }

    fn settle(&mut self) {}

    fn heads(&self) -> Vec<automerge::ChangeHash> {
        self.document.get_heads()
    }

    fn refused(&self) -> BTreeSet<automerge::ChangeHash> {
        BTreeSet::new()
    }
}
