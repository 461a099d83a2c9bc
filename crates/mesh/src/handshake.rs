//! The handshake: both sides of a new socket prove that they know the key of the mesh.
//!
//! ```text
//! dialler                              acceptor
//!   Hello: version, lane, nonce   ──►
//!                                 ◄──  Challenge: version, nonce
//!   Proof: MAC                    ──►
//!                                 ◄──  Welcome: MAC, region, epoch, store, MAC over them
//!   Name: region, epoch, store, MAC ─►
//! ```
//!
//! Each MAC is HMAC-SHA256 under the key over who makes it, the version, the lane and both nonces, so
//! that none can be used again, for another lane or by the other side. Names are said only to who has
//! proved to know the key, under a key that holds for this socket only. Every frame begins with the
//! version, so that whatever comes later, both sides can say which versions did not meet.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, Mac as _};
use model::{RegionName, StorageId};
use sha2::Sha256;

use crate::codec::{put_bytes, take_bytes};
use crate::exchange::Lane;
use history::varint::Reader;

/// The version of everything that regions say to each other.
pub const VERSION: u8 = 3;
/// The longest frame of a handshake, in bytes: what a socket may send before it has proved anything.
pub const FRAME_BYTES_MAX: usize = 512;

const HELLO: u8 = 1;
const CHALLENGE: u8 = 2;
const PROOF: u8 = 3;
const WELCOME: u8 = 4;
const NAME: u8 = 5;

/// Random bytes, drawn for one handshake.
pub type Nonce = [u8; 32];
type Code = [u8; 32];

/// The secret of a mesh, from a file that its operator gave to all regions.
#[derive(Clone)]
pub struct Key(Vec<u8>);

impl Key {
    /// The shortest key that is accepted, in bytes.
    pub const BYTES_MIN: usize = 16;
    /// The longest one.
    pub const BYTES_MAX: usize = 4096;

    /// What the items of the audit are salted with: the same in all regions, known to nobody else.
    pub fn salt(&self) -> u64 {
        let code = code(&self.0, &[b"tributary mesh audit"]);
        let mut salt = [0; 8];
        salt.copy_from_slice(&code[..8]);
        u64::from_le_bytes(salt)
    }
}

impl FromStr for Key {
    type Err = KeyError;

    /// Takes the text of a key file, without the space around it.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = text.trim().as_bytes();
        match bytes.len() {
            length if length < Self::BYTES_MIN => Err(KeyError::TooShort { bytes: length }),
            length if length > Self::BYTES_MAX => Err(KeyError::TooLong { bytes: length }),
            _ => Ok(Self(bytes.to_vec())),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Too few bytes.
    #[error("the key of the mesh has {bytes} bytes; it needs {} or more", Key::BYTES_MIN)]
    TooShort {
        /// How many.
        bytes: usize,
    },
    /// Too many.
    #[error("the key of the mesh has {bytes} bytes; at most {} are accepted", Key::BYTES_MAX)]
    TooLong {
        /// How many.
        bytes: usize,
    },
}

/// Who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Me {
    /// Our region.
    pub region: RegionName,
    /// Drawn when the process started.
    pub epoch: u64,
    /// Our store.
    pub storage: StorageId,
}

/// What both sides know when a handshake is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// The region at the other end.
    pub region: RegionName,
    /// Its process.
    pub epoch: u64,
    /// Its store.
    pub storage: StorageId,
    /// What the socket is for.
    pub lane: Lane,
}

/// What to do after a frame.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// Send this.
    pub send: Option<Vec<u8>>,
    /// The handshake is over: after `send`, everything belongs to the link.
    pub agreed: Option<Agreed>,
}

/// Why a socket was refused. The socket is to be closed; the text may be told to the other side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The other side speaks another version.
    #[error(
        "the other region speaks version {theirs} of the mesh protocol, this one version {ours}"
    )]
    Version {
        /// [`VERSION`].
        ours: u8,
        /// What it speaks.
        theirs: u8,
    },
    /// The other side does not know the key.
    #[error("the keys of the mesh differ")]
    WrongKey,
    /// The other side has our own name.
    #[error("the region name {region} is taken")]
    NameTaken {
        /// The name.
        region: RegionName,
    },
    /// A frame that is none, or not the one that comes next.
    #[error("that is not a handshake of the mesh")]
    Malformed,
}

/// One side of a handshake.
#[derive(Debug)]
pub struct Handshake {
    me: Me,
    key: Key,
    nonce: Nonce,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// The dialler, before the challenge.
    Dialled(Lane),
    /// The acceptor, before the hello.
    Accepted,
    /// The acceptor, before the proof.
    Challenged(Session),
    /// The dialler, before the welcome.
    Proved(Session),
    /// The acceptor, before the name.
    Welcomed(Session),
    Over,
}

/// What all codes of one handshake are made over.
#[derive(Debug, Clone, Copy)]
struct Session {
    lane: Lane,
    dialler: Nonce,
    acceptor: Nonce,
}

/// Whose code it is.
#[derive(Debug, Clone, Copy)]
enum Role {
    Dialler,
    Acceptor,
}

impl Handshake {
    /// The side that dialled. Its nonce must never have been used before.
    pub fn dial(me: &Me, key: &Key, lane: Lane, nonce: Nonce) -> Self {
        Self { me: me.clone(), key: key.clone(), nonce, state: State::Dialled(lane) }
    }

    /// The side that was dialled.
    pub fn accept(me: &Me, key: &Key, nonce: Nonce) -> Self {
        Self { me: me.clone(), key: key.clone(), nonce, state: State::Accepted }
    }

    /// What is to be sent before anything arrives: nothing for who was dialled.
    pub fn first(&self) -> Option<Vec<u8>> {
        let State::Dialled(lane) = self.state else { return None };
        let mut frame = vec![VERSION, HELLO, lane_byte(lane)];
        frame.extend_from_slice(&self.nonce);
        Some(frame)
    }

    /// The other side says this.
    ///
    /// # Errors
    /// When it does not belong here. Nothing of our names has been said then, unless it has proved
    /// to know the key.
    pub fn handle(&mut self, frame: &[u8]) -> Result<Step, HandshakeError> {
        let state = std::mem::replace(&mut self.state, State::Over);
        let mut reader = Reader::new(frame);
        let theirs = reader.byte().map_err(malformed)?;
        if theirs != VERSION {
            return Err(HandshakeError::Version { ours: VERSION, theirs });
        }
        let kind = reader.byte().map_err(malformed)?;
        let step = match (state, kind) {
            (State::Accepted, HELLO) => self.challenge(&mut reader)?,
            (State::Dialled(lane), CHALLENGE) => self.prove(lane, &mut reader)?,
            (State::Challenged(session), PROOF) => self.welcome(session, &mut reader)?,
            (State::Proved(session), WELCOME) => self.name(session, &mut reader)?,
            (State::Welcomed(session), NAME) => {
                let agreed = self.meet(session, Role::Dialler, &mut reader)?;
                Step { send: None, agreed: Some(agreed) }
            }
            _ => return Err(HandshakeError::Malformed),
        };
        if reader.is_empty() { Ok(step) } else { Err(HandshakeError::Malformed) }
    }

    fn challenge(&mut self, reader: &mut Reader<'_>) -> Result<Step, HandshakeError> {
        let lane = match reader.byte().map_err(malformed)? {
            0 => Lane::Live,
            1 => Lane::Bulk,
            _ => return Err(HandshakeError::Malformed),
        };
        let dialler = reader.array().map_err(malformed)?;
        self.state = State::Challenged(Session { lane, dialler, acceptor: self.nonce });
        let mut frame = vec![VERSION, CHALLENGE];
        frame.extend_from_slice(&self.nonce);
        Ok(Step { send: Some(frame), agreed: None })
    }

    fn prove(&mut self, lane: Lane, reader: &mut Reader<'_>) -> Result<Step, HandshakeError> {
        let acceptor = reader.array().map_err(malformed)?;
        if acceptor == self.nonce {
            // Our own hello, held up to us.
            return Err(HandshakeError::Malformed);
        }
        let session = Session { lane, dialler: self.nonce, acceptor };
        self.state = State::Proved(session);
        let mut frame = vec![VERSION, PROOF];
        frame.extend_from_slice(&session.code(&self.key, Role::Dialler));
        Ok(Step { send: Some(frame), agreed: None })
    }

    fn welcome(
        &mut self,
        session: Session,
        reader: &mut Reader<'_>,
    ) -> Result<Step, HandshakeError> {
        session.verify(&self.key, Role::Dialler, reader)?;
        self.state = State::Welcomed(session);
        let mut frame = vec![VERSION, WELCOME];
        frame.extend_from_slice(&session.code(&self.key, Role::Acceptor));
        self.put_name(session, Role::Acceptor, &mut frame);
        Ok(Step { send: Some(frame), agreed: None })
    }

    fn name(&mut self, session: Session, reader: &mut Reader<'_>) -> Result<Step, HandshakeError> {
        session.verify(&self.key, Role::Acceptor, reader)?;
        let agreed = self.meet(session, Role::Acceptor, reader)?;
        let mut frame = vec![VERSION, NAME];
        self.put_name(session, Role::Dialler, &mut frame);
        Ok(Step { send: Some(frame), agreed: Some(agreed) })
    }

    fn put_name(&self, session: Session, role: Role, frame: &mut Vec<u8>) {
        let mut name = Vec::new();
        put_bytes(&mut name, self.me.region.as_str().as_bytes());
        name.extend_from_slice(&self.me.epoch.to_le_bytes());
        put_bytes(&mut name, self.me.storage.as_str().as_bytes());
        put_bytes(frame, &name);
        frame.extend_from_slice(&session.code_of_name(&self.key, role, &name));
    }

    fn meet(
        &self,
        session: Session,
        role: Role,
        reader: &mut Reader<'_>,
    ) -> Result<Agreed, HandshakeError> {
        let name = take_bytes(reader).map_err(malformed)?;
        let code: Code = reader.array().map_err(malformed)?;
        let own = session.own_key(&self.key);
        verify(&own, &[role.name(), name], &code)?;

        let mut reader = Reader::new(name);
        let region = text(&mut reader)?;
        let region = RegionName::new(region).map_err(|_| HandshakeError::Malformed)?;
        let epoch = u64::from_le_bytes(reader.array().map_err(malformed)?);
        let storage = text(&mut reader)?;
        let storage = StorageId::new(storage).map_err(|_| HandshakeError::Malformed)?;
        if region == self.me.region {
            return Err(HandshakeError::NameTaken { region });
        }
        Ok(Agreed { region, epoch, storage, lane: session.lane })
    }
}

impl Session {
    /// What a side proves to know the key with.
    fn code(&self, key: &Key, role: Role) -> Code {
        code(&key.0, &self.parts(role.name(), &[VERSION, lane_byte(self.lane)]))
    }

    fn verify(&self, key: &Key, role: Role, reader: &mut Reader<'_>) -> Result<(), HandshakeError> {
        let said: Code = reader.array().map_err(malformed)?;
        verify(&key.0, &self.parts(role.name(), &[VERSION, lane_byte(self.lane)]), &said)
    }

    /// The key that holds for this socket only.
    fn own_key(&self, key: &Key) -> Code {
        code(&key.0, &self.parts(b"tributary mesh socket", &[VERSION, lane_byte(self.lane)]))
    }

    fn code_of_name(&self, key: &Key, role: Role, name: &[u8]) -> Code {
        code(&self.own_key(key), &[role.name(), name])
    }

    fn parts<'a>(&'a self, role: &'a [u8], what: &'a [u8]) -> [&'a [u8]; 4] {
        [role, what, &self.dialler, &self.acceptor]
    }
}

impl Role {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Dialler => b"tributary mesh dialler",
            Self::Acceptor => b"tributary mesh acceptor",
        }
    }
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(&(part.len() as u64).to_le_bytes());
        mac.update(part);
    }
    mac
}

fn code(key: &[u8], parts: &[&[u8]]) -> Code {
    mac(key, parts).finalize().into_bytes().into()
}

/// Takes the same time whatever was said.
fn verify(key: &[u8], parts: &[&[u8]], said: &Code) -> Result<(), HandshakeError> {
    mac(key, parts).verify_slice(said).map_err(|_| HandshakeError::WrongKey)
}

fn lane_byte(lane: Lane) -> u8 {
    match lane {
        Lane::Live => 0,
        Lane::Bulk => 1,
    }
}

fn text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, HandshakeError> {
    let bytes = take_bytes(reader).map_err(malformed)?;
    std::str::from_utf8(bytes).map_err(|_| HandshakeError::Malformed)
}

fn malformed(_: history::varint::Malformed) -> HandshakeError {
    HandshakeError::Malformed
}

#[cfg(test)]
mod tests;
