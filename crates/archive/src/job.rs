use model::{ChangeHash, Heads};

use crate::question::{Question, Told};

/// What the archive can be asked. Chunks, snapshots and changes are bytes of the Automerge format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Every change inside an upload, as raw changes.
    Expand {
        /// Chunks one after the other: documents, bundles, changes, compressed changes.
        chunks: Vec<u8>,
        /// When to stop.
        limits: ExpandLimits,
    },
    /// One proven snapshot out of a snapshot and the changes after it.
    Compact {
        /// A document chunk; none for a document that has never been compacted.
        snapshot: Option<Vec<u8>>,
        /// Raw changes in causal order. Those that the snapshot holds already are passed over.
        changes: Vec<Vec<u8>>,
    },
    /// Whether each candidate, put on top of the document in this order, leaves it sound.
    Judge {
        /// As in [`Job::Compact`].
        snapshot: Option<Vec<u8>>,
        /// As in [`Job::Compact`]; held to be good, and proven if a candidate seems bad.
        changes: Vec<Vec<u8>>,
        /// Raw changes, each after what it depends on.
        candidates: Vec<Vec<u8>>,
    },
    /// What [`Job::Compact`] proves, without sending the snapshot back.
    Verify {
        /// As in [`Job::Compact`].
        snapshot: Option<Vec<u8>>,
        /// As in [`Job::Compact`].
        changes: Vec<Vec<u8>>,
    },
    /// An answer about a document, or a change of it. Nothing is proven here: what is asked about has
    /// been taken in, and what is made goes through the same door as everybody's.
    Ask {
        /// As in [`Job::Compact`].
        snapshot: Option<Vec<u8>>,
        /// As in [`Job::Compact`].
        changes: Vec<Vec<u8>>,
        /// What.
        question: Question,
    },
}

/// Bounds on what an upload may expand to. They hold for what is counted before it is built; what a
/// column inflates to inside Automerge is bounded by the memory of the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpandLimits {
    /// How many changes, over all chunks.
    pub changes_max: u64,
    /// How many operations a document chunk may hold.
    pub operations_max: u64,
    /// How many bytes one compressed change may inflate to.
    pub change_bytes_max: u64,
    /// How many bytes all raw changes together may have.
    pub total_bytes_max: u64,
}

impl Default for ExpandLimits {
    /// Ten million changes, fifty million operations, 64 MiB a change, 2 GiB in total.
    fn default() -> Self {
        Self {
            changes_max: 10_000_000,
            operations_max: 50_000_000,
            change_bytes_max: 64 << 20,
            total_bytes_max: 2 << 30,
        }
    }
}

/// What a job gives when nothing is wrong with its input as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Job::Expand`].
    Expanded(Expanded),
    /// To [`Job::Compact`].
    Compacted(Compacted),
    /// To [`Job::Judge`]: one verdict per candidate, in order.
    Judged(Vec<Verdict>),
    /// To [`Job::Verify`].
    Verified(Verified),
    /// To [`Job::Ask`].
    Told(Told),
}

/// An upload, opened and proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expanded {
    /// All of `changes` as one document chunk, freshly saved.
    pub snapshot: Vec<u8>,
    /// Raw, uncompressed change chunks in causal order.
    pub changes: Vec<Vec<u8>>,
    /// The heads of `changes`.
    pub heads: Heads,
    /// Raw changes that lack a dependency, or an ancestor that lacks one: parsed, not proven.
    pub orphans: Vec<Vec<u8>>,
}

/// A snapshot, proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compacted {
    /// One document chunk with compressed columns.
    pub snapshot: Vec<u8>,
    /// Its heads.
    pub heads: Heads,
    /// How many changes it holds.
    pub changes: u64,
}

/// A document that held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Its heads.
    pub heads: Heads,
    /// How many changes it holds.
    pub changes: u64,
}

/// What is thought of one candidate.
pub type Verdict = Result<(), Reason>;

/// What is bad about the input of a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The snapshot does not hold by itself.
    #[error("the snapshot: {reason}")]
    Snapshot {
        /// Why.
        reason: Reason,
    },
    /// The document held with every change before this one, and does not with it.
    #[error("change {index}: {reason}")]
    Change {
        /// Where it stands in `changes` of the job, or, for [`Job::Expand`], among the changes of the
        /// upload in causal order.
        index: usize,
        /// Its hash, when it could be read.
        hash: Option<ChangeHash>,
        /// Why.
        reason: Reason,
    },
    /// A chunk of an upload is no chunk.
    #[error("the chunk at byte {at_bytes}: {reason}")]
    Chunk {
        /// Where it begins in the upload.
        at_bytes: usize,
        /// Why.
        reason: Reason,
    },
}

impl Failure {
    /// Why, whatever it is about.
    pub fn reason(&self) -> &Reason {
        match self {
            Self::Snapshot { reason }
            | Self::Change { reason, .. }
            | Self::Chunk { reason, .. } => reason,
        }
    }
}

/// Why something was not accepted. Texts are Automerge's own words, cut to a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The bytes are not what they should be.
    #[error("cannot be read: {0}")]
    Malformed(String),
    /// Neither the document nor what came before holds this dependency.
    #[error("depends on {0}, which is not there")]
    MissingDependency(ChangeHash),
    /// Automerge returned an error.
    #[error("refused ({stage}): {message}")]
    Refused {
        /// While doing what.
        stage: Stage,
        /// What it said.
        message: String,
    },
    /// Automerge panicked.
    #[error("panicked ({stage}): {message}")]
    Panicked {
        /// While doing what.
        stage: Stage,
        /// What it said, and where.
        message: String,
    },
    /// The saved document loads, but as another one.
    #[error("comes back from its own saved bytes with other heads or another number of changes")]
    ComesBackDifferent,
    /// Objects within objects, deeper than [`crate::DEPTH_MAX`].
    #[error("objects are nested deeper than {}", crate::DEPTH_MAX)]
    TooDeep,
    /// So many numbers of operations are used up that no more than 2³¹ are left for edits.
    #[error("leaves too few numbers for further operations")]
    NoRoomToEdit,
    /// More than a job's limit.
    #[error("more than the limit of {0}")]
    OverLimit(Limit),
}

/// Which limit of [`ExpandLimits`] was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// [`ExpandLimits::changes_max`]
    #[error("changes")]
    Changes,
    /// [`ExpandLimits::operations_max`]
    #[error("operations")]
    Operations,
    /// [`ExpandLimits::change_bytes_max`]
    #[error("bytes of one change")]
    ChangeBytes,
    /// [`ExpandLimits::total_bytes_max`]
    #[error("bytes in total")]
    TotalBytes,
}

/// A step of proving a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stage {
    /// Parsing changes and chunks.
    #[error("parsing")]
    Parse,
    /// Loading the snapshot.
    #[error("loading")]
    Load,
    /// Applying changes.
    #[error("applying")]
    Apply,
    /// Saving the document.
    #[error("saving")]
    Save,
    /// Loading what was saved.
    #[error("loading the saved bytes")]
    Reload,
    /// Reading every object.
    #[error("reading")]
    Read,
    /// Describing what was applied as patches.
    #[error("making patches")]
    Patch,
    /// Making one more edit.
    #[error("editing")]
    Edit,
    /// Taking the document apart into changes.
    #[error("taking apart")]
    TakeApart,
    /// Answering a question.
    #[error("answering")]
    Ask,
}

/// What is about to be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The step.
    pub stage: Stage,
    /// The first change it is about (an index as in [`Failure::Change`]; in [`Job::Judge`], counted
    /// through `changes` and on through `candidates`).
    pub from: usize,
    /// One past the last change it is about.
    pub to: usize,
}
