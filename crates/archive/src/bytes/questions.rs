//! Questions and what is told, as bytes.

use model::{ActorId, Heads};

use super::{NotAMessage, Wire, put_bytes, put_list, take_list};
use crate::question::{Declined, Edit, Form, Made, Question, Signature, Told};

impl Wire for Question {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Json { heads, pointer, form } => {
                out.push(0);
                heads.put(out);
                pointer.put(out);
                form.put(out);
            }
            Self::Text { heads, pointer } => {
                out.push(1);
                heads.put(out);
                pointer.put(out);
            }
            Self::File { heads } => {
                out.push(2);
                heads.put(out);
            }
            Self::Changes { since } => {
                out.push(3);
                since.put(out);
            }
            Self::History { hashes } => {
                out.push(4);
                put_list(hashes, out);
            }
            Self::Diff { from, to, form } => {
                out.push(5);
                from.put(out);
                to.put(out);
                form.put(out);
            }
            Self::Conflicts { heads, form } => {
                out.push(6);
                heads.put(out);
                form.put(out);
            }
            Self::Edit { heads, edit, form, by } => {
                out.push(7);
                heads.put(out);
                edit.put(out);
                form.put(out);
                by.put(out);
            }
        }
    }

    fn take(input: &mut &[u8]) -> Result<Self, NotAMessage> {
        Ok(match u8::take(input)? {
            0 => Self::Json {
                heads: Wire::take(input)?,
                pointer: Wire::take(input)?,
                form: Wire::take(input)?,
            },
            1 => Self::Text { heads: Wire::take(input)?, pointer: Wire::take(input)? },
            2 => Self::File { heads: Wire::take(input)? },
            3 => Self::Changes { since: Wire::take(input)? },
            4 => Self::History { hashes: take_list(input)? },
            5 => Self::Diff {
                from: Wire::take(input)?,
                to: Wire::take(input)?,
                form: Wire::take(input)?,
            },
            6 => Self::Conflicts { heads: Wire::take(input)?, form: Wire::take(input)? },
            7 => Self::Edit {
                heads: Wire::take(input)?,
                edit: Wire::take(input)?,
                form: Wire::take(input)?,
                by: Wire::take(input)?,
            },
            _ => return Err(NotAMessage),
        })
    }
}

impl Wire for Edit {
    fn put(&self, out: &mut Vec<u8>) {
        let (tag, json) = match self {
            Self::Create(json) => (0, json),
            Self::JsonPatch(json) => (1, json),
            Self::MergePatch(json) => (2, json),
        };
        out.push(tag);
        put_bytes(json, out);
    }

    fn take(input: &mut &[u8]) -> Result<Self, NotAMessage> {
        let tag = u8::take(input)?;
        let json = Wire::take(input)?;
        match tag {
            0 => Ok(Self::Create(json)),
            1 => Ok(Self::JsonPatch(json)),
            2 => Ok(Self::MergePatch(json)),
            _ => Err(NotAMessage),
        }
    }
}

impl Wire for Signature {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self.actor.as_bytes(), out);
        (self.time_seconds as u64).put(out);
        self.message.put(out);
    }

    fn take(input: &mut &[u8]) -> Result<Self, NotAMessage> {
        Ok(Self {
            actor: ActorId::new(&Vec::take(input)?).map_err(|_| NotAMessage)?,
            time_seconds: u64::take(input)? as i64,
            message: Wire::take(input)?,
        })
    }
}

impl Wire for Form {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Plain => 0,
            Self::Typed => 1,
        });
    }

    fn take(input: &mut &[u8]) -> Result<Self, NotAMessage> {
        match u8::take(input)? {
            0 => Ok(Self::Plain),
            1 => Ok(Self::Typed),
            _ => Err(NotAMessage),
        }
    }
}

impl Wire for Heads {
    fn put(&self, out: &mut Vec<u8>) {
        put_list(self.as_slice(), out);
    }

    fn take(input: &mut &[u8]) -> Result<Self, NotAMessage> {
        Ok(Self::from(take_list(input)?))
    }
}

impl Wire for Told {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bytes(bytes) => {
                out.push(0);
                put_bytes(bytes, out);
            }
            Self::Edited(made) => {
                out.push(1);
                made.put(out);
            }
            Self::Declined(why) => {
                out.push(2);
                why.put(out);
            }
        }
    }

    fn take(input: &mut &[u8]) -> Result<Self, NotAMessage> {
        Ok(match u8::take(input)? {
            0 => Self::Bytes(Wire::take(input)?),
            1 => Self::Edited(Wire::take(input)?),
            2 => Self::Declined(Wire::take(input)?),
            _ => return Err(NotAMessage),
        })
    }
}

impl Wire for Made {
    fn put(&self, out: &mut Vec<u8>) {
        self.hash.put(out);
        put_bytes(&self.change, out);
    }

    fn take(input: &mut &[u8]) -> Result<Self, NotAMessage> {
        Ok(Self { hash: Wire::take(input)?, change: Wire::take(input)? })
    }
}

impl Wire for Declined {
    fn put(&self, out: &mut Vec<u8>) {
        let (tag, text) = match self {
            Self::NoSuchHead(hash) => {
                out.push(0);
                return hash.put(out);
            }
            Self::NoSuchPlace(text) => (1, text),
            Self::NotText(text) => (2, text),
            Self::NotAPointer(text) => (3, text),
            Self::NotJson(text) => (4, text),
            Self::TestFailed(text) => (5, text),
            Self::CannotApply(text) => (6, text),
        };
        out.push(tag);
        text.put(out);
    }

    fn take(input: &mut &[u8]) -> Result<Self, NotAMessage> {
        Ok(match u8::take(input)? {
            0 => Self::NoSuchHead(Wire::take(input)?),
            1 => Self::NoSuchPlace(Wire::take(input)?),
            2 => Self::NotText(Wire::take(input)?),
            3 => Self::NotAPointer(Wire::take(input)?),
            4 => Self::NotJson(Wire::take(input)?),
            5 => Self::TestFailed(Wire::take(input)?),
            6 => Self::CannotApply(Wire::take(input)?),
            _ => return Err(NotAMessage),
        })
    }
}
