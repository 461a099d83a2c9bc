//! A client of Hocuspocus: y-protocols behind the document's name.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use yrs::updates::decoder::Decode;
use yrs::{Doc, Transact, Update};

use crate::net::Output;
use crate::script::{Coverage, YjsScript, yjs_text};
use crate::session::{Recent, Session, Standing, Start};

/// What all Yjs clients of a run share.
pub struct Shared {
    /// What is typed.
    pub script: YjsScript,
    recent: RefCell<Recent<Coverage>>,
}

impl Shared {
    /// Clients that type this script.
    pub fn new(script: YjsScript) -> Self {
        Self { script, recent: RefCell::new(Recent::new()) }
    }
}

// Message types of Hocuspocus, then those of y-protocols' sync.
const SYNC: u8 = 0;
const AUTH: u8 = 2;
const SYNC_REPLY: u8 = 4;
const CLOSE: u8 = 7;
const SYNC_STATUS: u8 = 8;
const STEP_1: u8 = 0;
const STEP_2: u8 = 1;
const UPDATE: u8 = 2;
/// An update with no structs and no deletions.
const NOTHING: [u8; 2] = [0, 0];

/// One client.
pub struct YjsSession {
    shared: Rc<Shared>,
    /// The document's name, as every message begins with it.
    address: Vec<u8>,
    start: Start,
    standing: Standing,
    /// How far each update that the server has not confirmed went.
    unconfirmed: VecDeque<usize>,
    real: Option<Doc>,
}

impl YjsSession {
    /// A client on the given document.
    pub fn new(shared: Rc<Shared>, document: &str, start: Start) -> Self {
        let mut address = Vec::new();
        bytes(&mut address, document.as_bytes());
        let real = matches!(start, Start::Checker).then(Doc::new);
        let held = if let Start::Holder(length, _) = start { length } else { 0 };
        let standing = Standing { held, ..Standing::default() };
        Self { shared, address, start, standing, unconfirmed: VecDeque::new(), real }
    }

    fn sync(&mut self, body: &[u8], out: &mut Output) -> Result<(), String> {
        let (kind, rest) = body.split_first().ok_or("an empty sync message")?;
        let (payload, _) = take_bytes(rest)?;
        match *kind {
            STEP_1 => {
                // The server asks for what it lacks; whoever has nothing new says so.
                let update: &[u8] = match &self.start {
                    Start::Holder(_, document) if self.standing.sent == 0 => document,
                    _ => &NOTHING,
                };
                let mut length = Vec::new();
                number(&mut length, update.len());
                out.message(&[&self.address, &[SYNC, STEP_2], &length, update]);
                if let Start::Holder(held, _) = self.start {
                    self.standing.sent = self.standing.sent.max(held);
                }
                self.unconfirmed.push_back(self.standing.sent);
                self.standing.ready = true;
            }
            STEP_2 | UPDATE => {
                let coverage = self.shared.recent.borrow_mut().get(payload, Coverage::of)?;
                self.standing.held = self.shared.script.advance(self.standing.held, &coverage);
                if let Some(document) = &self.real {
                    let update = Update::decode_v1(payload).map_err(|error| error.to_string())?;
                    document
                        .transact_mut()
                        .apply_update(update)
                        .map_err(|error| error.to_string())?;
                }
            }
            _ => return Err(format!("a sync message of kind {kind}")),
        }
        Ok(())
    }
}

impl Session for YjsSession {
    fn opened(&mut self, out: &mut Output) {
        // An empty token and the provider's version.
        out.message(&[&self.address, &[AUTH, 0, 0], &[5], b"4.7.0"]);
    }

    fn message(&mut self, data: &[u8], out: &mut Output) -> Result<(), String> {
        let body = data.strip_prefix(&self.address[..]).ok_or("a message on another document")?;
        let (kind, rest) = body.split_first().ok_or("an empty message")?;
        match *kind {
            SYNC | SYNC_REPLY => self.sync(rest, out),
            AUTH if rest.first() == Some(&2) => {
                let vector = self.shared.script.state_vector(self.standing.held);
                let mut length = Vec::new();
                number(&mut length, vector.len());
                out.message(&[&self.address, &[SYNC, STEP_1], &length, &vector]);
                Ok(())
            }
            AUTH => Err("the server refuses the client".to_owned()),
            CLOSE => Err("the server closed the document".to_owned()),
            SYNC_STATUS => {
                if rest.first() != Some(&1) {
                    return Err("the server refused an update".to_owned());
                }
                self.standing.acked = self.unconfirmed.pop_front().unwrap_or(self.standing.acked);
                Ok(())
            }
            // Presence and what else there is.
            _ => Ok(()),
        }
    }

    fn write_up_to(&mut self, to: usize, batch: usize, out: &mut Output) {
        while self.standing.sent < to {
            let start = self.standing.sent;
            let end = to.min(start + batch);
            let script = &self.shared.script;
            let update = if end - start == 1 {
                script.update(start).to_vec()
            } else {
                let part: Vec<&[u8]> = (start..end).map(|at| script.update(at)).collect();
                yrs::merge_updates_v1(part).expect("the script's own updates merge")
            };
            let mut length = Vec::new();
            number(&mut length, update.len());
            out.message(&[&self.address, &[SYNC, UPDATE], &length, &update]);
            self.standing.sent = end;
            self.standing.held = self.standing.held.max(end);
            self.unconfirmed.push_back(end);
        }
    }

    fn settle(&mut self, _out: &mut Output) {}

    fn standing(&self) -> Standing {
        self.standing
    }

    fn check(&self, text: &str) -> Result<(), String> {
        let document = self.real.as_ref().ok_or("only a checker can check")?;
        match yjs_text(document) == text {
            true => Ok(()),
            false => Err("a client downloaded another text than was typed".to_owned()),
        }
    }
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn number(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_bytes(bytes: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let mut length = 0;
    for (at, byte) in bytes.iter().enumerate().take(8) {
        length |= ((byte & 0x7F) as usize) << (7 * at);
        if byte & 0x80 == 0 {
            return bytes[at + 1..]
                .split_at_checked(length)
                .ok_or("a message cut short".to_owned());
        }
    }
    Err("a length that does not end".to_owned())
}
