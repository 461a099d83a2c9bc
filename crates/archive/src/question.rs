//! What a document can be asked, and what it can be told to become: the vocabulary of REST.

use model::{ActorId, ChangeHash, Heads};

/// A question about one document. Places are JSON Pointers (RFC 6901) over its value; the empty one is
/// the root. `heads` of `None` are the heads that the document has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// The value at a place, as JSON: [`Told::Bytes`].
    Json {
        /// As of these.
        heads: Option<Heads>,
        /// Where.
        pointer: String,
        /// How values are written.
        form: Form,
    },
    /// The text or string at a place, in UTF-8: [`Told::Bytes`].
    Text {
        /// As of these.
        heads: Option<Heads>,
        /// Where.
        pointer: String,
    },
    /// The document as it was, with its history up to there, as one document chunk: [`Told::Bytes`].
    File {
        /// As of these.
        heads: Heads,
    },
    /// Everything that is neither in `since` nor an ancestor of it, as change chunks one after the
    /// other in causal order: [`Told::Bytes`].
    Changes {
        /// What is there already.
        since: Heads,
    },
    /// What only the changes themselves say, as a JSON array with one object per hash, in order:
    /// `time` (seconds since 1970, as the writer's clock had it), `message` and `author` (hexadecimal),
    /// either of them null if there is none: [`Told::Bytes`].
    History {
        /// The changes.
        hashes: Vec<ChangeHash>,
    },
    /// What happened between two points, as a JSON array of patches as Automerge's own clients have
    /// them. `to` may lie before `from`: [`Told::Bytes`].
    Diff {
        /// The one.
        from: Heads,
        /// The other.
        to: Heads,
        /// How values are written.
        form: Form,
    },
    /// Every place where more than one value is kept, as a JSON array: [`Told::Bytes`].
    Conflicts {
        /// As of these.
        heads: Option<Heads>,
        /// How values are written.
        form: Form,
    },
    /// One change that does what is asked for: [`Told::Edited`].
    Edit {
        /// What the change builds on, and what places mean; nothing else that the document holds is
        /// looked at.
        heads: Option<Heads>,
        /// What to do.
        edit: Edit,
        /// How values are written.
        form: Form,
        /// Whose change it is.
        by: Signature,
    },
}

/// What a change is to do. The bytes are JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Put this object into an empty document.
    Create(Vec<u8>),
    /// The operations of a JSON Patch (RFC 6902).
    JsonPatch(Vec<u8>),
    /// A merge patch (RFC 7396).
    MergePatch(Vec<u8>),
}

/// Who makes a change, and what is said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The actor. The document must hold every change that it has made there.
    pub actor: ActorId,
    /// Seconds since 1970.
    pub time_seconds: i64,
    /// A message for people.
    pub message: Option<String>,
}

/// How values are written that JSON has no word for. `docs/decisions/0014-values-as-json.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Form {
    /// As what comes closest: readable, and not always reversible.
    #[default]
    Plain,
    /// As an object with one key that begins with `$`: reversible.
    Typed,
}

/// The answer to a [`Question`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// What was asked for.
    Bytes(Vec<u8>),
    /// To [`Question::Edit`]: the change, or `None` if there was nothing to do.
    Edited(Option<Made>),
    /// The document is well, but this cannot be answered.
    Declined(Declined),
}

/// A change that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Its hash.
    pub hash: ChangeHash,
    /// A raw change chunk.
    pub change: Vec<u8>,
}

/// Why a question has no answer: always the fault of who asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Declined {
    /// The document does not hold a head that was named.
    #[error("the document does not hold the change {0}")]
    NoSuchHead(ChangeHash),
    /// Nothing is at that place.
    #[error("there is nothing at '{0}'")]
    NoSuchPlace(String),
    /// What is at that place is no text.
    #[error("what is at '{0}' is not a text")]
    NotText(String),
    /// A pointer is not as RFC 6901 has it.
    #[error("'{0}' is not a JSON Pointer")]
    NotAPointer(String),
    /// The bytes are not the JSON that was announced.
    #[error("{0}")]
    NotJson(String),
    /// A `test` of a patch does not hold.
    #[error("the test of '{0}' does not hold")]
    TestFailed(String),
    /// An operation makes no sense on this document.
    #[error("{0}")]
    CannotApply(String),
}
