//! A small client: one connection, one document, Automerge's own sync.

use std::borrow::Cow;
use std::io;
use std::net::TcpStream;
use std::time::Instant;

use automerge::sync::{Message as SyncMessage, MessageVersion, State, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{AutoCommit, Change, ChangeHash, ROOT, ReadDoc};
use model::{DocumentId, PeerId};
use tokio_tungstenite::tungstenite::{Error, Message as Frame, WebSocket, client};
use tributary_tests::{PATIENCE, Server};
use wire::{Message, PROTOCOL_VERSION, PeerMetadata, decode, encode};

/// A client with one document, connected to one server.
pub struct Client {
    socket: WebSocket<TcpStream>,
    name: PeerId,
    server: PeerId,
    document: DocumentId,
    state: State,
    /// The server has said that nobody has anything.
    unavailable: bool,
    /// The client's copy.
    pub doc: AutoCommit,
}

impl Client {
    /// Connects, joins, and opens the document with an empty copy.
    pub fn join(server: &Server, name: &str, document: &DocumentId) -> Self {
        let stream = TcpStream::connect(server.address()).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout is not zero");
        stream.set_nodelay(true).expect("sockets have this option");
        let (socket, _) = client(server.url(), stream).expect("the server speaks WebSocket");
        let name = PeerId::new(name).expect("a short name");
        let mut client = Self {
            socket,
            server: name.clone(),
            name,
            document: document.clone(),
            state: State::new(),
            unavailable: false,
            doc: AutoCommit::new(),
        };
        client.say(&Message::Join {
            sender: client.name.clone(),
            metadata: PeerMetadata::default(),
            versions: vec![PROTOCOL_VERSION.to_owned()],
        });
        match decode(&client.frame().expect("an answer")).expect("a message") {
            Message::Peer { sender, .. } => client.server = sender,
            other => panic!("{other:?} instead of peer"),
        }
        client
    }

    /// Connects again, with the copy and what a client keeps of a sync, as one does that was connected
    /// when the server ended.
    #[allow(dead_code, reason = "not every test file ends servers")]
    pub fn come_back(&mut self, server: &Server) {
        let Self { socket, server: peer, .. } =
            Self::join(server, self.name.as_str(), &self.document);
        (self.socket, self.server, self.unavailable) = (socket, peer, false);
        self.state = State::decode(&self.state.encode()).expect("it was encoded");
    }

    /// Opens the document and waits until the copy is level with the server's.
    pub fn pull(&mut self) {
        // The first message of a client that has nothing must go out even when it looks needless.
        self.send();
        while !self.is_level() {
            self.receive();
            self.send();
        }
    }

    /// Writes one key, and sends the change without waiting for anything.
    pub fn put(&mut self, key: &str, value: i64) {
        self.doc.put(ROOT, key, value).expect("maps take numbers");
        self.send();
    }

    /// Sends what was written to the copy, without waiting for anything.
    #[allow(dead_code, reason = "most tests write with what is above")]
    pub fn push(&mut self) {
        self.send();
    }

    /// Sends a change that is not in this copy, by somebody else or by nobody honest.
    #[allow(dead_code, reason = "most test files are honest")]
    pub fn hand_in(&mut self, change: Vec<u8>) {
        let hash = Change::from_bytes(change.clone()).expect("it parses").hash();
        let message = SyncMessage {
            heads: vec![hash],
            need: Vec::new(),
            have: Vec::new(),
            changes: vec![change].into(),
            flags: None,
            version: MessageVersion::V1,
        };
        let (sender, target) = (self.name.clone(), self.server.clone());
        let (document, data) = (self.document.clone(), Cow::Owned(message.encode()));
        self.say(&Message::Sync { sender, target, document, data });
    }

    /// Reads until the server has said that it holds everything this copy holds.
    pub fn acknowledged(&mut self) {
        while !self.is_level() {
            self.receive();
            self.send();
        }
    }

    /// Reads until the copy has this value at a key.
    #[allow(dead_code, reason = "not every test file waits for others")]
    pub fn reads(&mut self, key: &str, value: i64) {
        while self.get(key) != Some(value) {
            self.receive();
            self.send();
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<i64> {
        self.doc.get(ROOT, key).expect("the root is a map").and_then(|(value, _)| value.as_i64())
    }

    /// Reads until the server ends the connection; the code of its close frame, if it sent one.
    #[allow(dead_code, reason = "not every test file closes")]
    pub fn closed(&mut self) -> Option<u16> {
        loop {
            match self.socket.read() {
                Ok(Frame::Close(frame)) => return frame.map(|frame| frame.code.into()),
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    panic!("the server does not close the connection")
                }
                Err(_) => return None,
            }
        }
    }

    fn is_level(&mut self) -> bool {
        let heads: Vec<ChangeHash> = self.doc.get_heads();
        match &self.state.their_heads {
            Some(theirs) => *theirs == heads,
            None => self.unavailable && heads.is_empty(),
        }
    }

    fn send(&mut self) {
        let Some(message) = self.doc.sync().generate_sync_message(&mut self.state) else { return };
        let data = Cow::Owned(message.encode());
        let (sender, target) = (self.name.clone(), self.server.clone());
        let document = self.document.clone();
        // A peer that has nothing asks; the answer may be that nobody has anything.
        let message = match self.doc.get_heads().is_empty() {
            true => Message::Request { sender, target, document, data },
            false => Message::Sync { sender, target, document, data },
        };
        self.say(&message);
    }

    fn receive(&mut self) {
        let frame = self.frame().expect("the server says something");
        match decode(&frame).expect("a message") {
            Message::Sync { data, .. } => {
                let message = SyncMessage::decode(&data).expect("a sync message");
                let mut sync = self.doc.sync();
                sync.receive_sync_message(&mut self.state, message).expect("it applies");
            }
            Message::DocUnavailable { .. } => self.unavailable = true,
            // Whoever shouts is not listened to.
            Message::Ephemeral { .. } => {}
            other => panic!("unexpected: {other:?}"),
        }
    }

    fn say(&mut self, message: &Message<'_>) {
        let mut bytes = Vec::new();
        encode(message, &mut bytes);
        // A server that was killed cannot take it; what was acknowledged before is what counts.
        let _ = self.socket.send(Frame::Binary(bytes.into()));
    }

    /// The next message. Pings do not count: a server that says nothing else is waited for no longer
    /// than one that is silent.
    fn frame(&mut self) -> Option<Vec<u8>> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            match self.socket.read() {
                Ok(Frame::Binary(bytes)) => return Some(bytes.to_vec()),
                Ok(Frame::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
        None
    }
}
