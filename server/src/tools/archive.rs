//! The archive, asked one thing at a time.

use std::sync::Arc;

use archive::Job;
use node::{ArchiveFailure, ArchiveResult, Event, JobId};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::archive_pool::{self, Request, Submit};
use crate::config::{ArchiveConfig, Config};
use crate::exit::Failure;
use crate::metrics::Metrics;

/// One worker process, with the limits that the server would give it: a document that kills it does
/// not take this process along.
pub struct Archive {
    submit: Submit,
    reply: UnboundedSender<Event>,
    answers: UnboundedReceiver<Event>,
    asked: u64,
}

impl Archive {
    /// Starts it.
    ///
    /// # Errors
    /// When this program cannot be started a second time.
    pub fn start(config: &Config) -> Result<Self, Failure> {
        let config = ArchiveConfig { workers: 1, ..config.archive.clone() };
        let submit = archive_pool::start(&config, &Arc::new(Metrics::default()))
            .map_err(|error| Failure::Found(format!("the archive cannot be started: {error}")))?;
        let (reply, answers) = unbounded_channel();
        Ok(Self { submit, reply, answers, asked: 0 })
    }

    /// Has a job done, and waits for it.
    ///
    /// # Errors
    /// What is bad about the job, or that the archive could not do it.
    pub fn ask(&mut self, task: Job) -> ArchiveResult {
        self.asked += 1;
        let request =
            Request { job: JobId(self.asked), task: Box::new(task), done: self.reply.clone() };
        let answer = match self.submit.send(request) {
            Ok(()) => self.answers.blocking_recv(),
            Err(_) => None,
        };
        match answer {
            Some(Event::Archived { result, .. }) => *result,
            _ => Err(ArchiveFailure::Unavailable("its thread has ended".to_owned())),
        }
    }
}
