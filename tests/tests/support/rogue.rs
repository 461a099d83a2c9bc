//! A client that keeps to the handshake and to nothing else: it reads only when it is told to.
//!
//! The system keeps some megabytes for it unread, at both ends of the socket, whatever is asked for.

use std::borrow::Cow;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use automerge::ChangeHash;
use automerge::sync::{Have, Message as SyncMessage, MessageFlags, MessageVersion};
use model::{DocumentId, PeerId};
use tokio_tungstenite::tungstenite::{Message as Frame, WebSocket, client};
use tributary_tests::{PATIENCE, Server};
use wire::{Message, PROTOCOL_VERSION, PeerMetadata, decode, encode};

/// How long to wait when the server takes nothing more in.
const PAUSE: Duration = Duration::from_millis(1);
/// How somebody reads who has a slow link: 5 MB/s at most.
const SIP_BYTES: usize = 256 << 10;
const SIP_EVERY: Duration = Duration::from_millis(50);
/// The first byte of a message in one frame.
const WHOLE: u8 = 0x82;

/// A connection that has joined.
pub struct Rogue {
    socket: WebSocket<TcpStream>,
    name: PeerId,
    server: PeerId,
}

/// How sending went.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    /// It went, or a part of it.
    Some(usize),
    /// The server takes nothing more in at the moment.
    HeldUp,
    /// The connection is no more.
    Gone,
}

impl Rogue {
    /// Connects and joins.
    pub fn join(server: &Server, name: &str) -> Self {
        let stream = TcpStream::connect(server.address()).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout is not zero");
        let (socket, _) = client(server.url(), stream).expect("the server speaks WebSocket");
        let name = PeerId::new(name).expect("a short name");
        let mut rogue = Self { socket, server: name.clone(), name };
        let join = Message::Join {
            sender: rogue.name.clone(),
            metadata: PeerMetadata::default(),
            versions: vec![PROTOCOL_VERSION.to_owned()],
        };
        rogue.pour_all(&framed(&join));
        match rogue.socket.read() {
            Ok(Frame::Binary(bytes)) => match decode(&bytes).expect("a message") {
                Message::Peer { sender, .. } => rogue.server = sender,
                other => panic!("{other:?} instead of peer"),
            },
            other => panic!("{other:?} instead of peer"),
        }
        rogue
    }

    /// The bytes that say of a document: these heads are what I have.
    pub fn has(&self, document: &DocumentId, heads: &[ChangeHash]) -> Vec<u8> {
        let message = SyncMessage {
            heads: heads.to_vec(),
            need: Vec::new(),
            have: vec![Have::default()],
            changes: Vec::<Vec<u8>>::new().into(),
            flags: Some(MessageFlags::new()),
            version: MessageVersion::V2,
        };
        let (sender, target) = (self.name.clone(), self.server.clone());
        let (document, data) = (document.clone(), Cow::Owned(message.encode()));
        framed(&match heads.is_empty() {
            true => Message::Request { sender, target, document, data },
            false => Message::Sync { sender, target, document, data },
        })
    }

    /// The bytes that say something about a document that nobody keeps.
    pub fn presence(&self, document: &DocumentId, count: u64, bytes: usize) -> Vec<u8> {
        framed(&Message::Ephemeral {
            sender: self.name.clone(),
            target: self.server.clone(),
            document: document.clone(),
            session: "shouting".to_owned(),
            count,
            data: Cow::Owned(vec![0x40; bytes]),
        })
    }

    /// Sends as much of these bytes as the server takes in at once.
    pub fn pour(&mut self, bytes: &[u8]) -> Sent {
        let stream = self.socket.get_mut();
        stream.set_nonblocking(true).expect("sockets have this option");
        let written = stream.write(bytes);
        stream.set_nonblocking(false).expect("sockets have this option");
        match written {
            Ok(count) => Sent::Some(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Sent::HeldUp,
            Err(_) => Sent::Gone,
        }
    }

    /// Sends all of these bytes, with as much patience as the server may need for them. Says whether
    /// the connection was there until the end of them.
    pub fn pour_all(&mut self, bytes: &[u8]) -> bool {
        let (end, mut at) = (Instant::now() + PATIENCE, 0);
        while at < bytes.len() {
            match self.pour(&bytes[at..]) {
                Sent::Some(count) => at += count,
                Sent::HeldUp => thread::sleep(PAUSE),
                Sent::Gone => return false,
            }
            assert!(Instant::now() < end, "the server takes nothing in");
        }
        true
    }

    /// Reads until so many answers have come that nobody has a document.
    pub fn is_declined(&mut self, times: usize) {
        let (end, mut declined) = (Instant::now() + PATIENCE, 0);
        while declined < times {
            assert!(Instant::now() < end, "{declined} answers of {times} came");
            let frame = self.socket.read().expect("there are answers to come");
            if let Frame::Binary(bytes) = frame
                && let Message::DocUnavailable { .. } = decode(&bytes).expect("a message")
            {
                declined += 1;
            }
        }
    }

    /// Takes in so many bytes a little at a time, and says nothing meanwhile; how many came.
    pub fn takes_slowly(&mut self, bytes: usize) -> usize {
        let (mut taken, mut chunk) = (0, vec![0; SIP_BYTES]);
        while taken < bytes {
            match self.socket.get_mut().read(&mut chunk) {
                Ok(0) | Err(_) => break,
                Ok(count) => taken += count,
            }
            thread::sleep(SIP_EVERY);
        }
        taken
    }

    /// Reads what there is, up to the end of the connection; the code of the close frame, if it came.
    pub fn reads_to_the_end(&mut self) -> Option<u16> {
        let end = Instant::now() + PATIENCE;
        loop {
            // Pings come all the time, so there is always something to read.
            assert!(Instant::now() < end, "the server does not close the connection");
            match self.socket.read() {
                Ok(Frame::Close(frame)) => return frame.map(|frame| frame.code.into()),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }
}

/// The bytes of a message in one frame, as they are on the wire.
fn framed(message: &Message<'_>) -> Vec<u8> {
    let mut payload = Vec::new();
    encode(message, &mut payload);
    frame(WHOLE, &payload)
}

/// A frame with this first byte. Its mask is all zeros, so that it may be sent many times over.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        bytes @ ..=125 => frame.push(0x80 | bytes as u8),
        bytes @ 126..=0xffff => {
            frame.push(0xfe);
            frame.extend((bytes as u16).to_be_bytes());
        }
        bytes => {
            frame.push(0xff);
            frame.extend((bytes as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}
