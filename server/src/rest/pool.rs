//! Worker processes that open documents for REST.
//!
//! They are others than those of the archive: a question that takes long must not keep a client's
//! upload waiting. The number of workers and of questions that wait is bounded; what kills a worker
//! is remembered by the caller and not asked again.

use std::ffi::OsString;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use archive::{Answer, Job, Told, Worker, WorkerConfig, WorkerError};
use tokio::sync::oneshot;

use crate::archive_pool::WORKER_COMMAND;
use crate::metrics::Metrics;
use crate::rest::config::RestConfig;

/// The stack of a worker's job thread.
const STACK_BYTES: u64 = 16 << 20;
/// Whoever asks for a document can wait; whoever types cannot.
const NICENESS: u8 = 15;
/// A worker that has had nothing to do for so long ends, and its memory with it.
const REST_AFTER: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// Too many questions wait.
    #[error("too many questions wait")]
    Overloaded,
    /// The worker took too long, and was killed.
    #[error("the worker took too long")]
    TooSlow,
    /// The document cannot be opened, or killed the worker.
    #[error("{0}")]
    Failed(String),
}

/// A way to the workers.
#[derive(Clone)]
pub struct Pool {
    submit: SyncSender<Request>,
}

struct Request {
    job: Job,
    done: oneshot::Sender<Result<Told, Unanswered>>,
}

impl Pool {
    /// Starts the threads; a worker process starts when there is something to ask.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        config: &RestConfig,
        memory_mib: u64,
        metrics: &Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let worker = WorkerConfig {
            program: std::env::current_exe()?,
            args: vec![OsString::from(WORKER_COMMAND)],
            memory_bytes_max: memory_mib << 20,
            stack_bytes: STACK_BYTES,
            job_seconds_max: config.seconds,
            niceness: NICENESS,
        };
        let (submit, requests) = sync_channel(config.queue_max);
        let requests = Arc::new(Mutex::new(requests));
        for n in 0..config.workers {
            let (requests, worker, metrics) = (requests.clone(), worker.clone(), metrics.clone());
            std::thread::Builder::new()
                .name(format!("rest-{n}"))
                .spawn(move || work(&requests, &worker, &metrics))?;
        }
        Ok(Self { submit })
    }

    /// Asks, and waits for the answer. A question whose asker has gone is not asked.
    ///
    /// # Errors
    /// See [`Unanswered`].
    pub async fn ask(&self, job: Job) -> Result<Told, Unanswered> {
        let (done, answer) = oneshot::channel();
        self.submit.try_send(Request { job, done }).map_err(|error| match error {
            TrySendError::Full(_) => Unanswered::Overloaded,
            TrySendError::Disconnected(_) => Unanswered::Failed("the workers are gone".to_owned()),
        })?;
        answer
            .await
            .unwrap_or_else(|_| Err(Unanswered::Failed("a worker's thread died".to_owned())))
    }
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
            Err(RecvTimeoutError::Timeout) => {
                worker = None;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if request.done.is_closed() {
            continue;
        }
        let started = Instant::now();
        let answer = match worker.take().map_or_else(|| Worker::spawn(config), Ok) {
            Ok(ready) => ask(worker.insert(ready), &request.job),
            Err(error) => Err(Unanswered::Failed(error.to_string())),
        };
        metrics.archived(started.elapsed(), answer.is_ok());
        let _ = request.done.send(answer);
    }
}

fn ask(worker: &mut Worker, job: &Job) -> Result<Told, Unanswered> {
    match worker.ask(job) {
        Ok(Answer::Told(told)) => Ok(told),
        Ok(_) => Err(Unanswered::Failed("an answer to another question".to_owned())),
        Err(WorkerError::TimedOut { .. }) => Err(Unanswered::TooSlow),
        Err(error) => Err(Unanswered::Failed(error.to_string())),
    }
}
