//! The one thread that writes: it gathers what all shards want written and makes it durable at once.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use node::{BatchId, Event};
use store::{Store, StoreError, Write};
use tokio::sync::mpsc::UnboundedSender;

use crate::backup::tap::Tap;
use crate::metrics::Metrics;

/// How many batches may wait for the committer. Each shard has few under way, see
/// [`crate::machine::BATCHES_UNDER_WAY_MAX`], so this is never reached.
const BATCHES_MAX: usize = 4096;
/// How many writes are gathered into one commit, unless a single batch has more.
const WRITES_MAX: usize = 512;

/// A batch on its way, and whom to tell that it is durable.
pub struct Submission {
    /// Its name.
    pub batch: BatchId,
    /// The writes.
    pub writes: Vec<Write>,
    /// The shard that asked.
    pub done: UnboundedSender<Event>,
}

/// A way to the committer. When all of these are gone it finishes and ends.
pub type Submit = SyncSender<Submission>;

/// Starts the committer.
///
/// `failed` is called once if the store fails. After that nothing is committed any more: what was
/// acknowledged is safe, and everything else was never acknowledged. `tap` hears of every commit.
pub fn start(
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    tap: Arc<Tap>,
    failed: impl FnOnce(StoreError) + Send + 'static,
) -> (Submit, JoinHandle<()>) {
    let (submit, submissions) = sync_channel(BATCHES_MAX);
    let run = move || {
        if let Err(error) = commit_all(&*store, &submissions, &metrics, &tap) {
            failed(error);
        }
    };
    let thread = std::thread::Builder::new().name("committer".to_owned()).spawn(run);
    (submit, thread.expect("a thread can be started"))
}

fn commit_all(
    store: &dyn Store,
    submissions: &Receiver<Submission>,
    metrics: &Metrics,
    tap: &Tap,
) -> Result<(), StoreError> {
    let mut waiting = Vec::new();
    while let Ok(first) = submissions.recv() {
        let mut writes = first.writes;
        waiting.push((first.batch, first.done));
        // Whatever came while the last commit was under way goes with this one.
        while writes.len() < WRITES_MAX
            && let Ok(next) = submissions.try_recv()
        {
            writes.extend(next.writes);
            waiting.push((next.batch, next.done));
        }
        let started = Instant::now();
        let under_way = tap.begin();
        store.commit(&writes)?;
        metrics.committed(started.elapsed(), writes.len());
        under_way.done(writes);
        for (batch, done) in waiting.drain(..) {
            // A shard that is gone does not need to know.
            let _ = done.send(Event::Committed { batch });
        }
    }
    Ok(())
}
