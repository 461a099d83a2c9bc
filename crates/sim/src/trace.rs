//! What happened, as one number, and in words for whoever wants to read it.

use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

/// Every event and effect of a run goes through here. Two runs are the same if their digests are.
#[derive(Debug)]
pub(crate) struct Trace {
    hasher: DefaultHasher,
    pub(crate) log: bool,
    pub(crate) events: u64,
}

impl Trace {
    pub(crate) fn new(log: bool) -> Self {
        Self { hasher: DefaultHasher::new(), log, events: 0 }
    }

    /// Something happened. `words` are only made when somebody reads them.
    pub(crate) fn note(
        &mut self,
        at: Duration,
        what: &'static str,
        numbers: &[u64],
        bytes: &[u8],
        words: impl FnOnce() -> String,
    ) {
        self.events += 1;
        self.hasher.write_u128(at.as_nanos());
        self.hasher.write(what.as_bytes());
        for number in numbers {
            self.hasher.write_u64(*number);
        }
        self.hasher.write(bytes);
        if self.log {
            println!("{:>11.6} {what} {numbers:?} {}", at.as_secs_f64(), words());
        }
    }

    pub(crate) fn digest(&self) -> u64 {
        self.hasher.finish()
    }
}

/// A frame between two regions in words: what is in it is told where links and shards speak.
pub(crate) fn describe_lane(frame: &[u8]) -> String {
    format!("{} bytes, kind {}", frame.len(), frame.first().copied().unwrap_or(0))
}

/// A frame in words.
pub(crate) fn describe(frame: &[u8]) -> String {
    let message = match wire::decode(frame) {
        Ok(message) => message,
        Err(error) => return format!("{} bytes, not a message: {error}", frame.len()),
    };
    let name = |document: Option<&model::DocumentId>| {
        document.map_or(String::new(), |id| format!("{:02x}", id.as_bytes()[0]))
    };
    let document = name(message.document());
    match &message {
        wire::Message::Sync { data, .. } => format!("sync {document} {}", describe_sync(data)),
        wire::Message::Request { data, .. } => {
            format!("request {document} {}", describe_sync(data))
        }
        wire::Message::DocUnavailable { .. } => format!("doc-unavailable {document}"),
        wire::Message::Ephemeral { sender, session, count, .. } => {
            format!("ephemeral {document} {sender} {session} {count}")
        }
        wire::Message::RemoteHeadsChanged { heads, .. } => {
            format!("remote-heads {document} of {} stores", heads.len())
        }
        wire::Message::Error { message, .. } => format!("error: {message}"),
        wire::Message::Join { sender, .. } => format!("join {sender}"),
        wire::Message::Peer { sender, .. } => format!("peer {sender}"),
        wire::Message::RemoteSubscriptionChange { add, .. } => {
            format!("subscribe to {}", add.len())
        }
        wire::Message::Leave { .. } => "leave".to_owned(),
        wire::Message::Unknown { kind } => format!("unknown {kind}"),
    }
}

fn describe_sync(data: &[u8]) -> String {
    let message = match automerge::sync::Message::decode(data) {
        Ok(message) => message,
        Err(error) => return format!("{} bytes, not a sync message: {error}", data.len()),
    };
    let short = |hashes: &[automerge::ChangeHash]| -> Vec<String> {
        hashes.iter().map(|hash| hash.to_string()[..6].to_owned()).collect()
    };
    let have: Vec<_> = message.have.iter().map(|have| short(&have.last_sync)).collect();
    let chunks: Vec<usize> = message.changes.iter().map(<[u8]>::len).collect();
    format!(
        "heads {:?} need {:?} have {have:?} chunks {chunks:?} flags {:?}",
        short(&message.heads),
        short(&message.need),
        message.flags
    )
}
