//! The inside of a worker process: limits, then jobs from the input, answers to the output, until
//! the input ends.

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use crate::bytes::{Memory, Said, Settings, Wire, read_frame, write_frame};
use crate::guard;
use crate::job::Job;

/// Why a worker stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The input ended, or nobody reads the output any more: the server is gone, or done with it.
    Orphaned,
    /// The input was no job. Only another program, or another version, says such a thing.
    NotAJob,
    /// The system did not grant the limits; without them a worker does not work.
    NoLimits,
    /// A job took more than twice its time and nobody killed this process for it.
    TooLong,
    /// The thread that does the jobs is gone.
    Crashed,
}

impl Stopped {
    /// What the process should exit with: 0 for [`Stopped::Orphaned`], 2 for [`Stopped::NotAJob`], 3
    /// for [`Stopped::NoLimits`], 4 for [`Stopped::TooLong`], 5 for [`Stopped::Crashed`].
    pub fn exit_code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Orphaned => 0,
            Self::NotAJob => 2,
            Self::NoLimits => 3,
            Self::TooLong => 4,
            Self::Crashed => 5,
        })
    }
}

/// Serves jobs until `input` ends. Meant to be all that a process does: it lowers the limits of the
/// process (address space, no core dumps), and after [`Stopped::TooLong`] a thread is still at work,
/// so exit with [`Stopped::exit_code`] when this returns.
///
/// The first frame carries the limits, each further one a [`Job`]. Jobs run in one thread whose stack
/// has a known size; what overflows it, or exhausts the memory, ends the process, which is the point.
pub fn serve<I, O>(mut input: I, output: O) -> Stopped
where
    I: Read + Send + 'static,
    O: Write + Send + 'static,
{
    let settings = match read_frame(&mut input) {
        Ok(Some(frame)) => match Settings::from_bytes(&frame) {
            Ok(settings) => settings,
            Err(_) => return Stopped::NotAJob,
        },
        Ok(None) => return Stopped::Orphaned,
        Err(error) => return stopped_by(&error),
    };
    if limit(settings).is_err() {
        return Stopped::NoLimits;
    }

    // Only a courtesy: what it may use is limited above.
    let _ = rustix::process::nice(settings.niceness.into());
    guard::die_of_exhausted_memory();

    let (marks, marked) = mpsc::channel();
    let stack_bytes = usize::try_from(settings.stack_bytes).unwrap_or(usize::MAX);
    let spawned = thread::Builder::new()
        .name("archive-job".into())
        .stack_size(stack_bytes)
        .spawn(move || work(input, output, &marks));
    if spawned.is_err() {
        return Stopped::NoLimits;
    }

    // The server kills a worker whose job takes too long. This watches for a server that died first.
    let patience = Duration::from_secs(u64::from(settings.job_seconds_max) * 2 + 1);
    let mut busy = false;
    loop {
        let mark = match busy {
            true => marked.recv_timeout(patience),
            false => marked.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match mark {
            Ok(Mark::Began) => busy = true,
            Ok(Mark::Ended) => busy = false,
            Ok(Mark::Stopped(stopped)) => return stopped,
            Err(RecvTimeoutError::Timeout) => return Stopped::TooLong,
            Err(RecvTimeoutError::Disconnected) => return Stopped::Crashed,
        }
    }
}

enum Mark {
    Began,
    Ended,
    Stopped(Stopped),
}

fn work(mut input: impl Read, mut output: impl Write, marks: &Sender<Mark>) {
    let bytes_base = memory_bytes_peak();
    // The other end of `marks` lives as long as the process, so sending cannot fail in earnest.
    let stopped = loop {
        let frame = match read_frame(&mut input) {
            Ok(Some(frame)) => frame,
            Ok(None) => break Stopped::Orphaned,
            Err(error) => break stopped_by(&error),
        };
        let Ok(job) = Job::from_bytes(&frame) else { break Stopped::NotAJob };
        drop(frame);
        let _ = marks.send(Mark::Began);
        // If the output is closed, the answer cannot be written either, and that is noticed there.
        let outcome = crate::run(job, &mut |progress| {
            let _ = write_frame(&mut output, &Said::Progress(progress).to_bytes());
        });
        let memory = Memory { bytes_base, bytes_peak: memory_bytes_peak() };
        let done = Said::Done { memory, outcome };
        let written = write_frame(&mut output, &done.to_bytes());
        let _ = marks.send(Mark::Ended);
        if written.is_err() {
            break Stopped::Orphaned;
        }
    };
    let _ = marks.send(Mark::Stopped(stopped));
}

fn stopped_by(error: &io::Error) -> Stopped {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Stopped::NotAJob,
        _ => Stopped::Orphaned,
    }
}

/// Limits this process. A limit of the system's own that is lower stays.
fn limit(settings: Settings) -> io::Result<()> {
    let lower = |resource: rlimit::Resource, to: u64| {
        let (_, hard) = resource.get()?;
        let to = to.min(hard);
        resource.set(to, to)
    };
    let outcome = lower(rlimit::Resource::CORE, 0)
        .and_then(|()| lower(rlimit::Resource::AS, settings.memory_bytes_max));
    // Elsewhere than on Linux the address space cannot always be limited. The depth bound and the
    // deadline hold there too; the memory of the machine is then the limit.
    if cfg!(target_os = "linux") { outcome } else { Ok(()) }
}

/// The most address space this process has had, in bytes; 0 where the system does not tell.
fn memory_bytes_peak() -> u64 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmPeak:"))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.map_or(0, |kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn settings() -> Vec<u8> {
        // No lower than this process has: the limits would hold for all its tests.
        let settings = Settings {
            memory_bytes_max: u64::MAX,
            stack_bytes: 8 << 20,
            job_seconds_max: 60,
            niceness: 0,
        };
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &settings.to_bytes()).unwrap();
        bytes
    }

    #[test]
    fn an_input_that_ends_ends_the_worker() {
        assert_eq!(serve(io::empty(), io::sink()), Stopped::Orphaned);
        assert_eq!(serve(io::Cursor::new(settings()), io::sink()), Stopped::Orphaned);
    }

    #[test]
    fn an_input_that_is_no_job_ends_the_worker_without_a_panic() {
        let mut random = SmallRng::seed_from_u64(5);
        for round in 0..300 {
            let mut input = if round % 2 == 0 { Vec::new() } else { settings() };
            let mut garbage = vec![0; random.random_range(1..400)];
            random.fill(&mut garbage[..]);
            // Half of the frames claim the length they have, so that their contents are looked at.
            if round % 4 < 2 {
                write_frame(&mut input, &garbage).unwrap();
            } else {
                input.extend(garbage);
            }
            let stopped = serve(io::Cursor::new(input), io::sink());
            assert!(matches!(stopped, Stopped::NotAJob | Stopped::Orphaned), "{stopped:?}");
        }
    }
}
