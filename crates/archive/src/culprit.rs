use std::ops::Range;
use std::time::Duration;

use crate::job::{Failure, Job, Progress, Reason, Stage};
use crate::process::{Worker, WorkerError};

/// What made a job kill its worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Culprit {
    /// Nothing: this time all went well, or every part did.
    None,
    /// The job fails with none of its changes (or candidates): its snapshot is bad, or, when
    /// judging, something before the candidates; or it alone is too big. An upload ([`Job::Expand`]) is always this.
    Base(How),
    /// With the changes before this one (or candidates, when judging) all is well; with it, not.
    One {
        /// Its index among the changes, or among the candidates.
        index: usize,
        /// What it does.
        how: How,
    },
    /// The document is too big for the limits of a worker: with the changes before `index` it needs
    /// more than half of the memory or of the time already. No single change is to be blamed.
    TooBig {
        /// Where the limits were passed.
        index: usize,
        /// What happened there.
        how: How,
    },
    /// Somewhere in here; the questions ran out.
    Within(Range<usize>),
}

/// What a bad job does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// The worker survives it, and says why it is bad.
    Refused(Reason),
    /// It kills the process: how that ended, in words.
    Kills(String),
    /// It takes longer than a job may.
    TakesTooLong,
}

impl Worker {
    /// Finds which change (or, when judging, which candidate) makes `job` kill a worker, by asking
    /// ever shorter beginnings of it: about log₂ of their number questions, each of which may take as
    /// long as a job may, and `asks_max` at most. `after` is what the worker that died said last.
    ///
    /// The one that is named was seen to fail, and the job without it and what follows was seen to
    /// succeed.
    ///
    /// # Errors
    /// When a worker cannot be started or does not answer as one.
    pub fn find_culprit(
        &mut self,
        job: &Job,
        after: Option<Progress>,
        asks_max: usize,
    ) -> Result<Culprit, WorkerError> {
        // What other jobs have left in the memory of the process is not to be counted to this one.
        self.rest();
        let mut asks_left = asks_max;
        let count = match job {
            Job::Expand { .. } => 0,
            Job::Compact { changes, .. }
            | Job::Verify { changes, .. }
            | Job::Ask { changes, .. } => changes.len(),
            Job::Judge { candidates, .. } => candidates.len(),
        };
        let mut big = match self.try_prefix(job, 0, &mut asks_left)? {
            Tried::Well(half_used) => half_used,
            Tried::Bad(how) | Tried::BadAt(_, how) => return Ok(Culprit::Base(how)),
            Tried::NoAsksLeft => return Ok(Culprit::Within(0..count)),
        };

        // The first `well` changes are well; with the first `bad` something is wrong, or so it seems.
        let mut well = 0;
        let mut bad = first_guess(job, after).unwrap_or(count).clamp(1.min(count), count);
        while well < count {
            let middle = if bad - well > 1 { well + (bad - well) / 2 } else { bad };
            match self.try_prefix(job, middle, &mut asks_left)? {
                Tried::Well(half_used) => {
                    well = middle;
                    big = half_used;
                    if well == bad {
                        bad = count;
                    }
                }
                Tried::BadAt(index, how) => return Ok(Culprit::One { index, how }),
                Tried::Bad(how) if middle == well + 1 => {
                    return Ok(match big {
                        true => Culprit::TooBig { index: well, how },
                        false => Culprit::One { index: well, how },
                    });
                }
                Tried::Bad(_) => bad = middle,
                Tried::NoAsksLeft => return Ok(Culprit::Within(well..bad)),
            }
        }
        Ok(Culprit::None)
    }

    fn try_prefix(
        &mut self,
        job: &Job,
        length: usize,
        asks_left: &mut usize,
    ) -> Result<Tried, WorkerError> {
        let Some(left) = asks_left.checked_sub(1) else { return Ok(Tried::NoAsksLeft) };
        *asks_left = left;
        match self.ask_bytes(job.prefix_to_bytes(length)) {
            Ok(_) => Ok(Tried::Well(self.has_used_half())),
            // When judging, this is about the changes before the candidates.
            Err(WorkerError::Job(Failure::Change { index, reason, .. }))
                if !matches!(job, Job::Judge { .. }) =>
            {
                Ok(Tried::BadAt(index, How::Refused(reason)))
            }
            Err(WorkerError::Job(failure)) => {
                Ok(Tried::Bad(How::Refused(failure.reason().clone())))
            }
            Err(WorkerError::Died { status, last_words, .. }) => {
                let words = [status.to_string(), last_words];
                let words = words.into_iter().filter(|words| !words.is_empty());
                Ok(Tried::Bad(How::Kills(words.collect::<Vec<_>>().join(": "))))
            }
            Err(WorkerError::TimedOut { .. }) => Ok(Tried::Bad(How::TakesTooLong)),
            Err(error) => Err(error),
        }
    }

    fn has_used_half(&self) -> bool {
        let (spent, config) = (self.spent(), self.config());
        let grown = spent.memory_bytes_peak.saturating_sub(spent.memory_bytes_base);
        let room = config.memory_bytes_max.saturating_sub(spent.memory_bytes_base);
        spent.time * 2 > Duration::from_secs(config.job_seconds_max.into()) || grown > room / 2
    }
}

/// How one beginning of a job went.
enum Tried {
    /// Well; and whether it took more than half of the time or memory there is.
    Well(bool),
    Bad(How),
    /// Badly, and the worker said which change it was.
    BadAt(usize, How),
    NoAsksLeft,
}

/// A worker that died while applying died of what it was applying.
fn first_guess(job: &Job, after: Option<Progress>) -> Option<usize> {
    let applying = after.filter(|after| after.stage == Stage::Apply)?;
    match job {
        Job::Expand { .. } | Job::Ask { .. } => None,
        Job::Compact { .. } | Job::Verify { .. } => Some(applying.to),
        Job::Judge { changes, .. } => applying.to.checked_sub(changes.len()),
    }
}
