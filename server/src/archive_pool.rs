//! A bounded pool of worker processes in which documents are opened with Automerge.
//!
//! Some do what a client waits for; others verify and compact, which nobody waits for. A region that
//! has caught up with a thousand documents verifies them for a while, with what the processors have
//! left, and no client's upload stands in line behind that.

use std::ffi::OsString;
use std::sync::mpsc::{Receiver, SendError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use archive::{
    Answer, Culprit, Failure, How, Job, Reason, Stage, Worker, WorkerConfig, WorkerError,
};
use node::{ArchiveFailure, ArchiveResult, Event, JobId};
use tokio::sync::mpsc::UnboundedSender;

use crate::config::ArchiveConfig;
use crate::metrics::Metrics;

/// The hidden subcommand that is a worker.
pub const WORKER_COMMAND: &str = "archive-worker";
/// The stack of a worker's job thread.
const STACK_BYTES: u64 = 16 << 20;
/// How many further jobs may be spent on finding out which change killed a worker.
const CULPRIT_ASKS_MAX: usize = 24;
/// How many changes of one message may kill a worker before the message is given up.
const KILLERS_MAX: usize = 4;
/// A worker that has had nothing to do for so long ends, and its memory with it.
const REST_AFTER: Duration = Duration::from_secs(30);

/// A job on its way, and whom to tell what came of it.
pub struct Request {
    /// Its name.
    pub job: JobId,
    /// The job.
    pub task: Box<Job>,
    /// The shard that asked.
    pub done: UnboundedSender<Event>,
}

/// Whoever types is not to notice that something is verified.
const UPKEEP_NICENESS: u8 = 19;

/// A way to the pool. How much waits here is bounded by the shards: one job per document, or per
/// message that waits for it.
#[derive(Clone)]
pub struct Submit {
    /// Jobs that a client waits for.
    waited_for: Sender<Request>,
    /// Jobs that nobody waits for.
    upkeep: Sender<Request>,
}

impl Submit {
    /// Sends a job to the workers of its kind. Should they be gone, it comes back.
    pub fn send(&self, request: Request) -> Result<(), SendError<Request>> {
        match *request.task {
            Job::Compact { .. } | Job::Verify { .. } => self.upkeep.send(request),
            Job::Expand { .. } | Job::Judge { .. } | Job::Ask { .. } => {
                self.waited_for.send(request)
            }
        }
    }
}

/// Starts the pool. It ends when every way to it is gone.
pub fn start(config: &ArchiveConfig, metrics: &Arc<Metrics>) -> std::io::Result<Submit> {
    Ok(Submit {
        waited_for: start_workers("archive", 0, config, metrics)?,
        upkeep: start_workers("upkeep", UPKEEP_NICENESS, config, metrics)?,
    })
}

fn start_workers(
    name: &str,
    niceness: u8,
    config: &ArchiveConfig,
    metrics: &Arc<Metrics>,
) -> std::io::Result<Sender<Request>> {
    let worker = WorkerConfig {
        program: std::env::current_exe()?,
        args: vec![OsString::from(WORKER_COMMAND)],
        memory_bytes_max: config.memory_mib << 20,
        stack_bytes: STACK_BYTES,
        job_seconds_max: config.job_seconds,
        niceness,
    };
    let (submit, requests) = channel();
    let requests = Arc::new(Mutex::new(requests));
    for n in 0..config.workers {
        let (requests, worker, metrics) = (requests.clone(), worker.clone(), metrics.clone());
        std::thread::Builder::new()
            .name(format!("{name}-{n}"))
            .spawn(move || work(&requests, &worker, &metrics))?;
    }
    Ok(submit)
}

fn work(requests: &Mutex<Receiver<Request>>, config: &WorkerConfig, metrics: &Metrics) {
    let mut worker: Option<Worker> = None;
    loop {
        let next = {
            let requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
            requests.recv_timeout(REST_AFTER)
        };
        let request = match next {
            Ok(request) => request,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                worker = None;
                continue;
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
        };
        let started = Instant::now();
        let result = match worker.take().map_or_else(|| Worker::spawn(config), Ok) {
            Ok(ready) => ask(worker.insert(ready), &request.task, KILLERS_MAX),
            Err(error) => Err(ArchiveFailure::Unavailable(error.to_string())),
        };
        let took = started.elapsed();
        metrics.archived(took, result.is_ok());
        let _ =
            request.done.send(Event::Archived { job: request.job, result: Box::new(result), took });
    }
}

fn ask(worker: &mut Worker, job: &Job, killers_max: usize) -> ArchiveResult {
    match worker.ask(job) {
        Ok(answer) => Ok(answer),
        Err(WorkerError::Job(failure)) => Err(failure.into()),
        Err(WorkerError::Died { after, status, .. }) => {
            tracing::warn!(%status, "an archive worker died of a job");
            blame(worker, job, after, killers_max)
        }
        Err(WorkerError::TimedOut { after, seconds }) => {
            tracing::warn!(seconds, "an archive worker was killed, its job took too long");
            blame(worker, job, after, killers_max)
        }
        Err(other) => Err(ArchiveFailure::Unavailable(other.to_string())),
    }
}

/// Finds the change that killed a worker, so that it is refused and not tried again and again.
fn blame(
    worker: &mut Worker,
    job: &Job,
    after: Option<archive::Progress>,
    killers_max: usize,
) -> ArchiveResult {
    let unavailable = |what: String| Err(ArchiveFailure::Unavailable(what));
    match worker.find_culprit(job, after, CULPRIT_ASKS_MAX) {
        Ok(Culprit::One { index, how }) => match job {
            Job::Judge { snapshot, changes, candidates } if killers_max > 0 => {
                // The others are judged without it; what builds on it lacks a dependency then.
                let mut others = candidates.clone();
                others.remove(index);
                let (snapshot, changes) = (snapshot.clone(), changes.clone());
                let without = Job::Judge { snapshot, changes, candidates: others };
                match ask(worker, &without, killers_max - 1)? {
                    Answer::Judged(mut verdicts) => {
                        verdicts.insert(index, Err(reason(&how)));
                        Ok(Answer::Judged(verdicts))
                    }
                    _ => unavailable("an answer to another question".to_owned()),
                }
            }
            Job::Judge { .. } => unavailable("too many changes that kill a worker".to_owned()),
            _ => Err(Failure::Change { index, hash: None, reason: reason(&how) }.into()),
        },
        Ok(Culprit::Base(how)) => match job {
            Job::Expand { .. } => Err(Failure::Chunk { at_bytes: 0, reason: reason(&how) }.into()),
            _ => unavailable(format!("without any of the changes it {}", reason(&how))),
        },
        Ok(Culprit::TooBig { .. }) => {
            unavailable("the document is too big for the limits of a worker".to_owned())
        }
        Ok(Culprit::Within(range)) => {
            unavailable(format!("something in changes {range:?} kills a worker"))
        }
        Ok(Culprit::None) => unavailable("a worker died, and not of this job".to_owned()),
        Err(error) => unavailable(error.to_string()),
    }
}

fn reason(how: &How) -> Reason {
    match how {
        How::Refused(reason) => reason.clone(),
        How::Kills(status) => Reason::Panicked {
            stage: Stage::Apply,
            message: format!("killed its process ({status})"),
        },
        How::TakesTooLong => {
            Reason::Panicked { stage: Stage::Apply, message: "takes too long".to_owned() }
        }
    }
}
