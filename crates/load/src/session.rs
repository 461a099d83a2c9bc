//! What every client of a benchmark is, whichever protocol it speaks: one connection with one
//! document, whose history is a prefix of the script.

use std::rc::Rc;

use crate::net::Output;

/// How a client begins.
#[derive(Clone)]
pub enum Start {
    /// It has nothing and wants the document.
    Reader,
    /// It has nothing and is about to type.
    Typist,
    /// It holds the first so many edits and hands them in as one whole document.
    Holder(usize, Rc<Vec<u8>>),
    /// A reader that keeps the document with the real library, to check what the server sends.
    Checker,
}

/// How far a client is. The numbers count edits of the script from its start.
#[derive(Clone, Copy, Default)]
pub struct Standing {
    /// It holds these.
    pub held: usize,
    /// It has handed in these.
    pub sent: usize,
    /// The server has said that it has these.
    pub acked: usize,
    /// The server has answered its opening.
    pub ready: bool,
}

/// One client's side of a protocol.
pub trait Session {
    /// The WebSocket is open: says what a client says first.
    fn opened(&mut self, out: &mut Output);

    /// Takes in one message. What a stock client answers at once is sent at once, except that a
    /// writer's answer waits for [`Session::settle`].
    ///
    /// # Errors
    /// If the server says something that ends a stock client's hopes, or that is not true.
    fn message(&mut self, data: &[u8], out: &mut Output) -> Result<(), String>;

    /// Types on up to edit `to`, in messages of at most `batch` edits.
    fn write_up_to(&mut self, to: usize, batch: usize, out: &mut Output);

    /// Sends the answer that [`Session::message`] left, unless typing has overtaken it.
    fn settle(&mut self, out: &mut Output);

    /// How far it is.
    fn standing(&self) -> Standing;

    /// Of a checker: whether its document says `text`.
    ///
    /// # Errors
    /// If it says something else.
    fn check(&self, text: &str) -> Result<(), String>;
}

/// What is known of the last few payloads. Subscribers are sent the same bytes one after the
/// other, and comparing them is ten times cheaper than reading them again.
pub struct Recent<T> {
    entries: Vec<(Vec<u8>, Rc<T>)>,
    next: usize,
}

impl<T> Recent<T> {
    const KEPT: usize = 8;

    /// Nothing known.
    pub fn new() -> Self {
        Self { entries: Vec::new(), next: 0 }
    }

    /// What is known of the payload, or what `read` makes of it.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn get(
        &mut self,
        payload: &[u8],
        read: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<Rc<T>, String> {
        if let Some((_, known)) = self.entries.iter().find(|(bytes, _)| bytes == payload) {
            return Ok(Rc::clone(known));
        }
        let known = Rc::new(read(payload)?);
        if self.entries.len() < Self::KEPT {
            self.entries.push((payload.to_vec(), Rc::clone(&known)));
        } else {
            let (bytes, value) = &mut self.entries[self.next];
            bytes.clear();
            bytes.extend_from_slice(payload);
            *value = Rc::clone(&known);
            self.next = (self.next + 1) % Self::KEPT;
        }
        Ok(known)
    }
}
