//! A client of the automerge-repo protocol, as the stock one behaves on the wire.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use automerge::Automerge;
use automerge::sync::{Message, State, SyncDoc};

use crate::envelope;
use crate::net::Output;
use crate::script::{AutomergeScript, automerge_text};
use crate::session::{Recent, Session, Standing, Start};
use crate::sync_message::{self, Chunk, Hash, Incoming, Sent};

/// What all Automerge clients of a run share.
pub struct Shared {
    /// What is typed.
    pub script: AutomergeScript,
    recent: RefCell<Recent<Carried>>,
    buffer: RefCell<Vec<u8>>,
}

impl Shared {
    /// Clients that type this script.
    pub fn new(script: AutomergeScript) -> Self {
        Self { script, recent: RefCell::new(Recent::new()), buffer: RefCell::default() }
    }
}

/// The changes of one message, by their places in the script.
struct Carried {
    ranges: Vec<Range<usize>>,
    document: bool,
}

/// One client.
pub struct AutomergeSession {
    shared: Rc<Shared>,
    name: String,
    document: String,
    start: Start,
    phase: Phase,
    standing: Standing,
    /// Received, but not yet what comes before it.
    ahead: Vec<Range<usize>>,
    /// The envelope of every later message up to its data.
    prefix: Vec<u8>,
    /// A writer owes the server an answer.
    owes: bool,
    real: Option<Box<(Automerge, State)>>,
}

#[derive(PartialEq)]
enum Phase {
    Joining,
    Opening,
    Open,
}

impl AutomergeSession {
    /// A client with the given peer id on the given document.
    pub fn new(shared: Rc<Shared>, name: String, document: String, start: Start) -> Self {
        let real =
            matches!(start, Start::Checker).then(|| Box::new((Automerge::new(), State::new())));
        Self {
            shared,
            name,
            document,
            start,
            phase: Phase::Joining,
            standing: Standing::default(),
            ahead: Vec::new(),
            prefix: Vec::new(),
            owes: false,
            real,
        }
    }

    /// The first message on the document: `request` with nothing, `sync` with what it has.
    fn open(&mut self, server: &str, out: &mut Output) {
        let kind = match self.start {
            Start::Reader | Start::Checker => "request",
            Start::Typist | Start::Holder(..) => "sync",
        };
        self.prefix = envelope::before_data("sync", &self.name, server, &self.document);
        let first = envelope::before_data(kind, &self.name, server, &self.document);
        self.standing.held = match self.start {
            Start::Reader | Start::Checker => 0,
            Start::Typist => 1,
            Start::Holder(length, _) => length,
        };
        self.phase = Phase::Opening;
        let prefix = std::mem::replace(&mut self.prefix, first);
        if let Some(real) = &mut self.real {
            let (document, state) = &mut **real;
            if let Some(message) = document.generate_sync_message(state) {
                self.send_bytes(&message.encode(), out);
            }
        } else {
            self.send(Sent::Nothing, &[], out);
        }
        self.prefix = prefix;
    }

    fn send(&mut self, sent: Sent<'_>, need: &[Hash], out: &mut Output) {
        let shared = Rc::clone(&self.shared);
        let hashes = &shared.script.hashes;
        let head = |count: usize| &hashes[count.saturating_sub(1)..count];
        // What both sides are known to have: a reader has all of it from the server.
        let common = match self.start {
            Start::Reader | Start::Checker => self.standing.held,
            Start::Typist | Start::Holder(..) => self.standing.acked,
        };
        let mut data = std::mem::take(&mut *shared.buffer.borrow_mut());
        data.clear();
        let held = self.standing.held;
        let have = &hashes[common.min(held)..held];
        sync_message::write(&mut data, head(held), need, head(common.min(held)), have, sent);
        self.send_bytes(&data, out);
        *shared.buffer.borrow_mut() = data;
        self.owes = false;
    }

    fn send_bytes(&self, data: &[u8], out: &mut Output) {
        let mut head = Vec::with_capacity(8);
        envelope::data_head(&mut head, data.len());
        out.message(&[&self.prefix, &head, data]);
    }

    fn sync(&mut self, data: &[u8], out: &mut Output) -> Result<(), String> {
        self.standing.ready = true;
        self.phase = Phase::Open;
        if self.real.is_some() {
            return self.sync_for_real(data, out);
        }
        let shared = Rc::clone(&self.shared);
        let incoming = Incoming::read(data)?;
        if incoming.has_changes() {
            let carried = shared
                .recent
                .borrow_mut()
                .get(incoming.changes, |bytes| carried(bytes, &shared.script))?;
            for range in &carried.ranges {
                self.take(range.clone());
            }
            if carried.document {
                let places = incoming.heads.iter().map(|head| shared.script.position(head));
                if let Some(last) = places.max().flatten() {
                    self.take(0..last + 1);
                }
            }
        }
        let theirs = incoming.heads.iter().filter_map(|head| shared.script.position(head)).max();
        let theirs = theirs.map_or(0, |last| last + 1);
        match self.start {
            Start::Reader | Start::Checker => {
                let same = theirs == self.standing.held;
                if incoming.has_changes() || !same {
                    let missing = shared.script.hashes[..theirs].last();
                    let need = missing.filter(|_| theirs > self.standing.held).copied();
                    self.send(Sent::Nothing, need.as_slice(), out);
                }
            }
            Start::Typist | Start::Holder(..) => {
                self.standing.acked = self.standing.acked.max(theirs.min(self.standing.sent));
                if incoming.reset {
                    let again = self.standing.acked..self.standing.sent;
                    self.send_changes(again, out);
                }
                self.owes = theirs != self.standing.held;
                self.hand_in(theirs, out);
            }
        }
        Ok(())
    }

    /// A holder gives its document to a server that has nothing of it.
    fn hand_in(&mut self, theirs: usize, out: &mut Output) {
        let Start::Holder(length, document) = &self.start else { return };
        if theirs == 0 && self.standing.sent == 0 {
            let document = Rc::clone(document);
            self.standing.sent = *length;
            self.send(Sent::Document(&document), &[], out);
        }
    }

    fn send_changes(&mut self, range: Range<usize>, out: &mut Output) {
        let shared = Rc::clone(&self.shared);
        if let [only] = *range.clone().collect::<Vec<_>>() {
            return self.send(Sent::Changes(&[shared.script.chunk(only)]), &[], out);
        }
        let chunks: Vec<&[u8]> = range.map(|at| shared.script.chunk(at)).collect();
        self.send(Sent::Changes(&chunks), &[], out);
    }

    fn take(&mut self, range: Range<usize>) {
        let held = &mut self.standing.held;
        if range.start > *held {
            self.ahead.push(range);
            return;
        }
        *held = (*held).max(range.end);
        while let Some(at) = self.ahead.iter().position(|range| range.start <= *held) {
            *held = (*held).max(self.ahead.swap_remove(at).end);
        }
    }

    fn sync_for_real(&mut self, data: &[u8], out: &mut Output) -> Result<(), String> {
        let real = self.real.as_mut().expect("a checker");
        let (document, state) = &mut **real;
        let message = Message::decode(data).map_err(|error| error.to_string())?;
        document.receive_sync_message(state, message).map_err(|error| error.to_string())?;
        let heads = document.get_heads();
        let places = heads.iter().filter_map(|head| self.shared.script.position(&head.0));
        self.standing.held = places.max().map_or(0, |last| last + 1);
        if let Some(answer) = document.generate_sync_message(state) {
            self.send_bytes(&answer.encode(), out);
        }
        Ok(())
    }
}

impl Session for AutomergeSession {
    fn opened(&mut self, out: &mut Output) {
        out.message(&[&envelope::join(&self.name)]);
    }

    fn message(&mut self, data: &[u8], out: &mut Output) -> Result<(), String> {
        let envelope = envelope::read(data)?;
        match envelope.kind {
            "peer" if self.phase == Phase::Joining => {
                self.open(envelope.sender, out);
                Ok(())
            }
            "sync" | "request" if envelope.document == self.document => {
                self.sync(envelope.data, out)
            }
            // Of a document that is only now being handed in this is no bad news.
            "doc-unavailable" if matches!(self.start, Start::Reader | Start::Checker) => {
                Err("the server says that the document is unavailable".to_owned())
            }
            "error" => Err(format!("the server says: {}", envelope.text)),
            _ => Ok(()),
        }
    }

    fn write_up_to(&mut self, to: usize, batch: usize, out: &mut Output) {
        while self.standing.sent < to {
            let start = self.standing.sent;
            let end = to.min(start + batch);
            self.standing.held = self.standing.held.max(end);
            self.standing.sent = end;
            self.send_changes(start..end, out);
        }
    }

    fn settle(&mut self, out: &mut Output) {
        if self.owes {
            self.send(Sent::Nothing, &[], out);
        }
    }

    fn standing(&self) -> Standing {
        self.standing
    }

    fn check(&self, text: &str) -> Result<(), String> {
        let (document, _) = &**self.real.as_ref().ok_or("only a checker can check")?;
        match automerge_text(document)? == text {
            true => Ok(()),
            false => Err("a client downloaded another text than was typed".to_owned()),
        }
    }
}

fn carried(changes: &[u8], script: &AutomergeScript) -> Result<Carried, String> {
    let mut carried = Carried { ranges: Vec::new(), document: false };
    sync_message::each_chunk(changes, |chunk| match chunk {
        Chunk::Document => carried.document = true,
        Chunk::Change(hash) => {
            // A change of somebody else cannot be: the script is all that anybody types.
            let Some(at) = script.position(&hash) else { return };
            match carried.ranges.last_mut() {
                Some(last) if last.end == at => last.end = at + 1,
                _ => carried.ranges.push(at..at + 1),
            }
        }
    })?;
    Ok(carried)
}
