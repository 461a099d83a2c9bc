//! The CRDT: verify, compact, expand, ask. The only user of Automerge documents.
//!
//! A sync server on the change graph needs the value of a document for few things, none of them on
//! the path of a socket: to compact a log into a snapshot, to prove that changes apply and that what
//! they make can be saved, loaded and read again, to see the changes inside a document that a
//! client uploads whole, and to answer those who ask for the value itself ([`Question`]). Each is a [`Job`]: bytes in, bytes out, no clock, no disk, no socket, so a
//! simulator calls [`run`] where it stands.
//!
//! Some changes make automerge 0.12 panic; [`run`] catches that and names the change. Some exhaust the
//! memory or the stack, which nothing inside a process can catch: so a server runs jobs in a process
//! of its own, with limits ([`worker::serve`] inside it, [`Worker`] outside), and what kills a worker
//! is found by halving ([`Worker::find_culprit`]).
//!
//! **What proof means here.** Applying is not proof: some changes apply everywhere and then no saved
//! copy of the document loads any more. A document is *proven* when its changes applied, it was
//! saved, those bytes loaded, heads and number of changes came back equal, every object was read, and
//! one more edit was possible. Every answer of this crate
//! but those to questions is about proven documents.

mod ask;
mod bytes;
mod chunks;
mod conflicts;
mod culprit;
mod diff;
mod edit;
mod expand;
mod glance;
mod guard;
mod job;
mod json;
mod judge;
mod patch;
mod process;
mod proof;
mod question;
mod read;
mod settle;
mod value;
pub mod worker;

pub use culprit::{Culprit, How};
pub use job::{
    Answer, Compacted, ExpandLimits, Expanded, Failure, Job, Limit, Progress, Reason, Stage,
    Verdict, Verified,
};
pub use process::{Spent, Worker, WorkerConfig, WorkerError};
pub use question::{Declined, Edit, Form, Made, Question, Signature, Told};
pub use read::DEPTH_MAX;

/// Does one job, here and now.
///
/// `progress` hears what is about to be tried, before it is tried: when a worker process dies, the
/// last thing heard is what killed it. Panics of Automerge are caught and become a [`Reason`]; an
/// exhausted memory or stack is not (see [`Worker`]).
///
/// # Errors
/// A [`Failure`] names what is bad, and says why.
pub fn run(job: Job, progress: &mut dyn FnMut(Progress)) -> Result<Answer, Failure> {
    match job {
        Job::Expand { chunks, limits } => {
            expand::expand(&chunks, &limits, progress).map(Answer::Expanded)
        }
        Job::Compact { snapshot, changes } => {
            let proven = settle::settle(snapshot.as_deref(), &changes, progress)?;
            Ok(Answer::Compacted(Compacted {
                heads: proven.heads(),
                changes: proven.changes,
                snapshot: proven.bytes,
            }))
        }
        Job::Verify { snapshot, changes } => {
            let proven = settle::settle(snapshot.as_deref(), &changes, progress)?;
            Ok(Answer::Verified(Verified { heads: proven.heads(), changes: proven.changes }))
        }
        Job::Judge { snapshot, changes, candidates } => {
            judge::judge(snapshot.as_deref(), &changes, &candidates, progress).map(Answer::Judged)
        }
        Job::Ask { snapshot, changes, question } => {
            ask::ask(snapshot, &changes, question, progress).map(Answer::Told)
        }
    }
}
