//! The outside of a worker process.

use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, io};

use crate::bytes::{FRAME_BYTES_MAX, Said, Settings, Wire, read_frame, write_frame};
use crate::job::{Answer, Failure, Job, Progress};

/// How much of what a dying worker says on its standard error is kept, in bytes.
const LAST_WORDS_BYTES_MAX: u64 = 1_024;

/// How to start a worker, and what it may use.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// The program that calls [`crate::worker::serve`]; usually the server's own.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// The address space of the process in bytes, everything included: program, stacks, heap.
    /// Below some 128 MiB a worker may not even start.
    pub memory_bytes_max: u64,
    /// The stack of the thread that runs the jobs, in bytes. 16 MiB is ample for what
    /// [`crate::DEPTH_MAX`] lets through.
    pub stack_bytes: u64,
    /// After so many seconds on one job a worker is killed.
    pub job_seconds_max: u32,
    /// How much it yields the processor to others: 0, as any process, to 19, only what nobody wants.
    pub niceness: u8,
}

/// A worker process, and what is asked of it. One job at a time: a server has a pool of these, each
/// with a thread of its own, because [`Worker::ask`] blocks.
///
/// A process that died or was killed is replaced when the next job comes. Dropping this kills it.
#[derive(Debug)]
pub struct Worker {
    config: WorkerConfig,
    process: Option<Process>,
    spent: Spent,
}

/// What the last job took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// From the question to the answer.
    pub time: Duration,
    /// The address space the process had before its first job, in bytes; 0 if it died or cannot tell.
    pub memory_bytes_base: u64,
    /// The most address space the process has had so far, in bytes; 0 if it died or cannot tell.
    pub memory_bytes_peak: u64,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The worker is well; the input is bad.
    #[error(transparent)]
    Job(#[from] Failure),
    /// The process died, of the job as far as one can tell: no memory, no stack.
    #[error("the worker died ({status}){}{last_words}", if last_words.is_empty() { "" } else { ": " })]
    Died {
        /// What it was about to do.
        after: Option<Progress>,
        /// How it ended.
        status: ExitStatus,
        /// What it said last, on its standard error.
        last_words: String,
    },
    /// The job took too long, and the process was killed.
    #[error("the worker took more than {seconds} s")]
    TimedOut {
        /// What it was about to do.
        after: Option<Progress>,
        /// How long it had.
        seconds: u32,
    },
    /// The job is too long to be sent at all.
    #[error("a job of {bytes} bytes; at most {FRAME_BYTES_MAX} can be sent")]
    TooLong {
        /// How long.
        bytes: u64,
    },
    /// What came back is no answer. The process was killed.
    #[error("the worker does not speak as a worker does")]
    Protocol,
    /// The process could not be started.
    #[error("the worker does not start: {0}")]
    Spawn(#[source] io::Error),
}

impl Worker {
    /// Starts a worker process.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(config: &WorkerConfig) -> io::Result<Self> {
        let process = Process::spawn(config)?;
        Ok(Self { config: config.clone(), process: Some(process), spent: Spent::default() })
    }

    /// Has a job done, and waits for it.
    ///
    /// # Errors
    /// See [`WorkerError`]. After any of them the next job can be asked.
    pub fn ask(&mut self, job: &Job) -> Result<Answer, WorkerError> {
        self.ask_bytes(job.to_bytes())
    }

    /// What the last job took.
    pub fn spent(&self) -> Spent {
        self.spent
    }

    /// How it was configured.
    pub fn config(&self) -> &WorkerConfig {
        &self.config
    }

    /// Ends the process, and with it gives back all memory. The next job starts another.
    pub fn rest(&mut self) {
        self.process = None;
    }

    pub(crate) fn ask_bytes(&mut self, job: Vec<u8>) -> Result<Answer, WorkerError> {
        let bytes = job.len() as u64;
        if bytes > FRAME_BYTES_MAX {
            return Err(WorkerError::TooLong { bytes });
        }
        // On every way out but an answer the process is dropped, and so killed.
        let process = match self.process.take().and_then(Process::if_alive) {
            Some(process) => process,
            None => Process::spawn(&self.config).map_err(WorkerError::Spawn)?,
        };
        self.spent = Spent::default();
        let began = Instant::now();
        let seconds = self.config.job_seconds_max;
        let deadline = began + Duration::from_secs(seconds.into());
        process.send(job);
        let mut after = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let heard = process.heard.recv_timeout(left);
            self.spent.time = began.elapsed();
            match heard {
                Ok(Heard::Frame(frame)) => match Said::from_bytes(&frame) {
                    Ok(Said::Progress(progress)) => after = Some(progress),
                    Ok(Said::Done { memory, outcome }) => {
                        self.spent.memory_bytes_base = memory.bytes_base;
                        self.spent.memory_bytes_peak = memory.bytes_peak;
                        self.process = Some(process);
                        return outcome.map_err(WorkerError::Job);
                    }
                    Err(_) => return Err(WorkerError::Protocol),
                },
                Ok(Heard::NotAFrame) => return Err(WorkerError::Protocol),
                Ok(Heard::End) | Err(RecvTimeoutError::Disconnected) => {
                    let (status, last_words) = process.bury().map_err(WorkerError::Spawn)?;
                    return Err(WorkerError::Died { after, status, last_words });
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(WorkerError::TimedOut { after, seconds });
                }
            }
        }
    }
}

/// A child with a thread for each of its pipes, because a pipe cannot be waited for with a deadline:
/// neither one that is read nor, if the child hangs, one that is written.
struct Process {
    child: Child,
    /// Empty once the process is being ended: then the writer stops, and closes the pipe.
    to_send: Option<Sender<Vec<u8>>>,
    heard: Receiver<Heard>,
    errors: Option<JoinHandle<String>>,
    others: Vec<JoinHandle<()>>,
}

enum Heard {
    Frame(Vec<u8>),
    NotAFrame,
    End,
}

impl Process {
    fn spawn(config: &WorkerConfig) -> io::Result<Self> {
        let mut child = Command::new(&config.program)
            .args(&config.args)
            // A second arena of glibc reserves 128 MiB of the address space that is to be limited.
            .env("MALLOC_ARENA_MAX", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (Some(mut stdin), Some(mut stdout), Some(mut stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            unreachable!("all three pipes were asked for");
        };

        let (to_send, sending) = mpsc::channel::<Vec<u8>>();
        let writer = thread::spawn(move || {
            for frame in sending {
                // A process that does not listen is noticed by its silence.
                if write_frame(&mut stdin, &frame).is_err() {
                    break;
                }
            }
        });
        let (hearing, heard) = mpsc::channel();
        let reader = thread::spawn(move || {
            loop {
                let (said, more) = match read_frame(&mut stdout) {
                    Ok(Some(frame)) => (Heard::Frame(frame), true),
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                        (Heard::NotAFrame, false)
                    }
                    // In the middle of a frame or between two: it died.
                    Ok(None) | Err(_) => (Heard::End, false),
                };
                if hearing.send(said).is_err() || !more {
                    break;
                }
            }
        });
        let errors = thread::spawn(move || {
            let mut last = Vec::new();
            let _ = stderr.by_ref().take(LAST_WORDS_BYTES_MAX).read_to_end(&mut last);
            let _ = io::copy(&mut stderr, &mut io::sink());
            String::from_utf8_lossy(&last).trim().replace('\n', "; ")
        });

        let process = Self {
            child,
            to_send: Some(to_send),
            heard,
            errors: Some(errors),
            others: vec![writer, reader],
        };
        let settings = Settings {
            memory_bytes_max: config.memory_bytes_max,
            stack_bytes: config.stack_bytes,
            job_seconds_max: config.job_seconds_max,
            niceness: config.niceness,
        };
        process.send(settings.to_bytes());
        Ok(process)
    }

    fn send(&self, frame: Vec<u8>) {
        if let Some(to_send) = &self.to_send {
            // Fails when the writer is gone, which it is when the process is: see there.
            let _ = to_send.send(frame);
        }
    }

    /// Itself if it is still there, so that one which was killed while idle is replaced and not blamed
    /// on the next job.
    fn if_alive(mut self) -> Option<Self> {
        matches!(self.child.try_wait(), Ok(None)).then_some(self)
    }

    /// How it ended, and what it said last. A process that has closed its output has ended or is
    /// about to; the kill is for one that only closed its output.
    fn bury(mut self) -> io::Result<(ExitStatus, String)> {
        let _ = self.child.kill();
        let status = self.child.wait()?;
        let last_words = self.errors.take().and_then(|errors| errors.join().ok());
        Ok((status, last_words.unwrap_or_default()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // No zombie and no thread outlives this: the pipes end with the process, the threads with
        // the pipes.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.to_send = None;
        for thread in self.others.drain(..) {
            let _ = thread.join();
        }
        if let Some(errors) = self.errors.take() {
            let _ = errors.join();
        }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Process({})", self.child.id())
    }
}
