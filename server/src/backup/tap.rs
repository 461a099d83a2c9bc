//! How a copy hears of what is committed while it is being made.
//!
//! A store has no snapshots, so it is read in pieces while the committer goes on, and everything that is
//! committed meanwhile is written over the copy afterwards, in order. A row that no commit touched was
//! the same all the time, whenever it was read; a row that one did touch ends as the last commit left
//! it. So the copy is, row for row, the store as it was at one moment: the end. That moment has to lie
//! between two commits, and this is what sees to it. The committer itself never waits for a copy.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use store::Write;

/// How many bytes of commits are kept for a copy that is behind; with more it is given up. A single
/// batch may be larger.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// Where the committer says what it has committed.
#[derive(Debug, Default)]
pub struct Tap {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// A commit is under way: readers may see a part of it.
    committing: bool,
    /// A commit has failed, so what the store shows means nothing any more.
    failed: bool,
    copy: Option<Kept>,
}

/// What is kept for the copy that is being made.
#[derive(Debug, Default)]
struct Kept {
    batches: Vec<Vec<Write>>,
    bytes: usize,
    overrun: bool,
    phase: Phase,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// The commit that is under way is the last one that counts.
    Ending,
    Ended,
}

/// Why a copy cannot be finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// More was written than the copy could take in.
    #[error(
        "clients write faster than the copy is taken in; make it to a faster disk, or at a quieter time"
    )]
    Overrun,
    /// A commit has failed.
    #[error("the store of the server has failed")]
    Failed,
    /// A commit has been under way for longer than was to be waited.
    #[error("a commit has been under way for too long")]
    Stuck,
}

impl Tap {
    /// To be called before each commit.
    pub fn begin(&self) -> Commit<'_> {
        let mut state = self.lock();
        state.committing = true;
        Commit { tap: self, done: false }
    }

    /// Keeps from now on what is committed; `None` while another copy is being made.
    pub fn open(self: &Arc<Self>) -> Option<Follower> {
        let mut state = self.lock();
        if state.copy.is_some() {
            return None;
        }
        state.copy = Some(Kept::default());
        Some(Follower(self.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A commit that is under way. Dropped without [`done`](Self::done), it has failed.
#[derive(Debug)]
pub struct Commit<'a> {
    tap: &'a Tap,
    done: bool,
}

impl Commit<'_> {
    /// It is durable.
    pub fn done(mut self, writes: Vec<Write>) {
        self.done = true;
        let mut state = self.tap.lock();
        state.committing = false;
        let Some(copy) = &mut state.copy else { return };
        if copy.phase != Phase::Ended && !copy.overrun {
            copy.keep(writes);
        }
        if copy.phase == Phase::Ending {
            copy.phase = Phase::Ended;
            self.tap.changed.notify_all();
        }
    }
}

impl Drop for Commit<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.tap.lock().failed = true;
            self.tap.changed.notify_all();
        }
    }
}

impl Kept {
    fn keep(&mut self, writes: Vec<Write>) {
        let bytes = writes.iter().map(bytes_of).sum::<usize>();
        if self.bytes > 0 && self.bytes + bytes > KEPT_BYTES_MAX {
            self.overrun = true;
            self.batches = Vec::new();
            return;
        }
        self.bytes += bytes;
        self.batches.push(writes);
    }
}

fn bytes_of(write: &Write) -> usize {
    let value = match write {
        Write::Put { value, .. } => value.len(),
        Write::Delete { .. } => 0,
    };
    write.key().len() + value
}

/// What was committed since [`Tap::open`]. When it is dropped, nothing is kept any more.
#[derive(Debug)]
pub struct Follower(Arc<Tap>);

impl Follower {
    /// What has come since the last time.
    ///
    /// # Errors
    /// When the copy cannot be finished any more.
    pub fn take(&self) -> Result<Vec<Vec<Write>>, Lost> {
        taken(&mut self.0.lock())
    }

    /// Ends it between two commits and gives the rest. All that was read of the store before, and all
    /// that was taken, is what it was at this moment.
    ///
    /// # Errors
    /// When the copy cannot be finished, among others because a commit takes longer than this.
    pub fn finish(self, within: Duration) -> Result<Vec<Vec<Write>>, Lost> {
        let mut state = self.0.lock();
        let phase = if state.committing { Phase::Ending } else { Phase::Ended };
        if let Some(copy) = &mut state.copy {
            copy.phase = phase;
        }
        let under_way = |state: &mut State| {
            let ending = state.copy.as_ref().is_some_and(|copy| copy.phase == Phase::Ending);
            ending && !state.failed
        };
        let waited = self.0.changed.wait_timeout_while(state, within, under_way);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return Err(Lost::Stuck);
        }
        taken(&mut state)
    }
}

fn taken(state: &mut State) -> Result<Vec<Vec<Write>>, Lost> {
    if state.failed {
        return Err(Lost::Failed);
    }
    let Some(copy) = &mut state.copy else { return Ok(Vec::new()) };
    if copy.overrun {
        return Err(Lost::Overrun);
    }
    copy.bytes = 0;
    Ok(std::mem::take(&mut copy.batches))
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.lock().copy = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    fn put(n: u8) -> Vec<Write> {
        vec![Write::Put { key: vec![n], value: vec![n] }]
    }

    #[test]
    fn a_copy_hears_of_every_commit_between_its_beginning_and_its_end() {
        let tap = Arc::new(Tap::default());
        tap.begin().done(put(1));
        // Under way when it begins: the store may show it or not, so it is told.
        let commit = tap.begin();
        let follower = tap.open().unwrap();
        assert!(tap.open().is_none());
        commit.done(put(2));
        tap.begin().done(put(3));
        assert_eq!(follower.take(), Ok(vec![put(2), put(3)]));
        assert_eq!(follower.take(), Ok(vec![]));
        tap.begin().done(put(4));
        assert_eq!(follower.finish(SOON), Ok(vec![put(4)]));
        assert!(tap.open().is_some());
    }

    #[test]
    fn the_end_waits_for_the_commit_that_is_under_way_and_takes_no_later_one() {
        let tap = Arc::new(Tap::default());
        let follower = tap.open().unwrap();
        let commit = tap.begin();
        let ending = std::thread::spawn(move || follower.finish(SOON));
        while !tap.lock().copy.as_ref().is_some_and(|copy| copy.phase == Phase::Ending) {
            std::thread::yield_now();
        }
        commit.done(put(1));
        tap.begin().done(put(2));
        assert_eq!(ending.join().unwrap(), Ok(vec![put(1)]));
    }

    #[test]
    fn a_commit_that_fails_or_does_not_end_leaves_no_copy() {
        let tap = Arc::new(Tap::default());
        let commit = tap.begin();
        let stuck = tap.open().unwrap().finish(Duration::from_millis(1));
        assert_eq!(stuck, Err(Lost::Stuck));
        let follower = tap.open().unwrap();
        drop(commit);
        assert_eq!(follower.take(), Err(Lost::Failed));
        assert_eq!(follower.finish(SOON), Err(Lost::Failed));
    }

    #[test]
    fn what_is_kept_is_bounded_and_a_single_large_batch_is_taken() {
        let large = || vec![Write::Put { key: vec![1], value: vec![0; KEPT_BYTES_MAX + 1] }];
        let tap = Arc::new(Tap::default());
        let follower = tap.open().unwrap();
        tap.begin().done(large());
        assert_eq!(follower.take().unwrap().len(), 1);
        tap.begin().done(large());
        tap.begin().done(put(1));
        assert_eq!(follower.take(), Err(Lost::Overrun));
    }
}
