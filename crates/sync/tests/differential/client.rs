//! A stock client: the crate's document and sync state, as automerge-repo uses them.

use automerge::marks::{ExpandMark, Mark};
use automerge::sync::{Message, State, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{ActorId, Automerge, ObjType, ROOT, ReadDoc, ScalarValue};
use rand::Rng;
use rand::rngs::SmallRng;

pub struct Client {
    number: u64,
    incarnation: u64,
    pub doc: Automerge,
    pub state: State,
    /// What a restart of the application would find on its disk.
    saved_state: Vec<u8>,
    older: Vec<Vec<u8>>,
    pub read_only: bool,
    version_1: bool,
}

impl Client {
    pub fn new(number: u64, version_1: bool) -> Self {
        let mut client = Self {
            number,
            incarnation: 0,
            doc: Automerge::new(),
            state: State::new(),
            saved_state: State::new().encode(),
            older: Vec::new(),
            read_only: false,
            version_1,
        };
        client.take_new_actor();
        client
    }

    /// An honest client never writes on under an actor whose changes it may have lost.
    fn take_new_actor(&mut self) {
        self.incarnation += 1;
        let mut actor = [0; 16];
        actor[..8].copy_from_slice(&self.number.to_be_bytes());
        actor[8..].copy_from_slice(&self.incarnation.to_be_bytes());
        self.doc.set_actor(ActorId::from(actor));
    }

    pub fn edit(&mut self, random: &mut SmallRng) {
        let mut tx = self.doc.transaction();
        // Now and then somebody pastes, or comes back after hours.
        let many = if random.random_range(0..40) == 0 { 150 } else { 3 };
        for _ in 0..random.random_range(1..=many) {
            match random.random_range(0..9) {
                0 => {
                    let key = format!("k{}", random.random_range(0..4));
                    tx.put(ROOT, key, random.random_range(0..100_i64)).unwrap();
                }
                1 => {
                    let value = tx.get(ROOT, "count").unwrap();
                    if value.is_some() {
                        tx.increment(ROOT, "count", 1).unwrap();
                    } else {
                        tx.put(ROOT, "count", ScalarValue::counter(0)).unwrap();
                    }
                }
                2 => {
                    let board = match tx.get(ROOT, "board").unwrap() {
                        Some((_, id)) => id,
                        None => tx.put_object(ROOT, "board", ObjType::List).unwrap(),
                    };
                    let length = tx.length(&board);
                    let at = random.random_range(0..=length);
                    if length > at && random.random_range(0..3) == 0 {
                        tx.delete(&board, at).unwrap();
                    } else {
                        let card = tx.insert_object(&board, at, ObjType::Map).unwrap();
                        tx.put(&card, "title", "card").unwrap();
                    }
                }
                3 => {
                    let Some((_, text)) = tx.get(ROOT, "text").unwrap() else { continue };
                    let length = tx.length(&text);
                    if length > 1 {
                        let start = random.random_range(0..length - 1);
                        let end = random.random_range(start + 1..=length);
                        let value = match random.random_range(0..3) {
                            0 => ScalarValue::Null,
                            _ => true.into(),
                        };
                        let mark = Mark::new("bold".to_owned(), value, start, end);
                        tx.mark(&text, mark, ExpandMark::Both).unwrap();
                    }
                }
                _ => {
                    let text = match tx.get(ROOT, "text").unwrap() {
                        Some((_, id)) => id,
                        None => tx.put_object(ROOT, "text", ObjType::Text).unwrap(),
                    };
                    let length = tx.length(&text);
                    let at = random.random_range(0..=length);
                    if length > at && random.random_range(0..3) == 0 {
                        tx.splice_text(&text, at, 1, "").unwrap();
                    } else {
                        tx.splice_text(&text, at, 0, "abc").unwrap();
                    }
                }
            }
        }
        tx.commit();
    }

    pub fn generate(&mut self) -> Option<Vec<u8>> {
        let mut message = self.doc.generate_sync_message(&mut self.state)?;
        if self.version_1 {
            message.flags = None;
        }
        Some(message.encode())
    }

    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut message = Message::decode(bytes).map_err(|error| error.to_string())?;
        if self.version_1 {
            if bytes[0] == 0x43 {
                return Err("version 2 to a peer that reads version 1".to_owned());
            }
            message.flags = None;
        }
        self.doc.receive_sync_message(&mut self.state, message).map_err(|error| error.to_string())
    }

    pub fn save_state(&mut self) {
        self.saved_state = self.state.encode();
    }

    pub fn remember_document(&mut self) {
        self.older.push(self.doc.save());
    }

    /// A new connection: the state as it would be read from disk, or an older one, or none.
    pub fn reconnect(&mut self, stale: bool, random: &mut SmallRng) {
        let bytes = if stale { self.saved_state.clone() } else { self.state.encode() };
        self.state = if stale && random.random_range(0..3) == 0 {
            State::new()
        } else {
            State::decode(&bytes).unwrap()
        };
        if self.read_only {
            self.state.set_read_only(true);
        }
    }

    /// The document is lost, or comes back from an older copy.
    pub fn lose_document(&mut self, random: &mut SmallRng) {
        let copy = random.random_range(0..=self.older.len());
        self.doc = match self.older.get(copy) {
            Some(bytes) => Automerge::load(bytes).unwrap(),
            None => Automerge::new(),
        };
        self.take_new_actor();
    }

    /// The application closes the document and finds it again: a fresh state.
    pub fn open_again(&mut self) {
        self.state = State::new();
        if self.read_only {
            self.state.set_read_only(true);
        }
    }

    pub fn toggle_read_only(&mut self) {
        self.read_only = !self.read_only;
        self.state.set_read_only(self.read_only);
    }

    pub fn heads(&self) -> Vec<automerge::ChangeHash> {
        self.doc.get_heads()
    }
}
