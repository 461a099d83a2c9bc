//! Figures for Prometheus. Never labelled by document or peer: their number has no bound.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use node::{Counters, Report};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::regions;
use crate::regions::view::MeshView;
use crate::status::latency::{Latency, Percentiles};

/// What happens outside the shards; what happens inside is in [`Counters`].
pub struct Metrics {
    commits: Histogram,
    commit_writes: Counter,
    archive_jobs: Histogram,
    archive_failures: Counter,
    sessions_opened: Counter,
    sessions_closed: Counter,
    closed_for_cause: Counter,
    frames_in: Counter,
    bytes_in: Counter,
    foreign_senders: Counter,
    unreadable: Counter,
    last_commit_micros: AtomicU64,
    started: Instant,
    /// Locked by the one thread that commits, and by whoever looks.
    latency: Mutex<Latency>,
}

/// Some of what was counted since the start.
#[derive(Debug, Clone, Copy)]
pub struct Totals {
    /// Peers that joined.
    pub sessions_opened: u64,
    /// Sessions that ended.
    pub sessions_closed: u64,
    /// Connections that we closed because of what the peer did.
    pub closed_for_cause: u64,
    /// Bytes of frames received.
    pub bytes_in: u64,
    /// Reads of documents that failed.
    pub unreadable: u64,
    /// Jobs of the archive that failed.
    pub archive_failures: u64,
}

/// The commits of the last minute.
#[derive(Debug, Clone)]
pub struct Recent {
    /// All of them; nothing if there were none.
    pub minute: Option<Percentiles>,
    /// Their 99th percentile in each second, in milliseconds, the oldest first.
    pub each_second: Vec<Option<f64>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            // 0.1 ms to 3.3 s.
            commits: Histogram::new(exponential_buckets(0.0001, 2.0, 16)),
            commit_writes: Counter::default(),
            // 1 ms to 65 s.
            archive_jobs: Histogram::new(exponential_buckets(0.001, 4.0, 9)),
            archive_failures: Counter::default(),
            sessions_opened: Counter::default(),
            sessions_closed: Counter::default(),
            closed_for_cause: Counter::default(),
            frames_in: Counter::default(),
            bytes_in: Counter::default(),
            foreign_senders: Counter::default(),
            unreadable: Counter::default(),
            last_commit_micros: AtomicU64::new(0),
            started: Instant::now(),
            latency: Mutex::default(),
        }
    }
}

impl Metrics {
    /// A commit has become durable.
    pub fn committed(&self, took: Duration, writes: usize) {
        self.commits.observe(took.as_secs_f64());
        self.commit_writes.inc_by(writes as u64);
        self.last_commit_micros.store(took.as_micros() as u64, Ordering::Relaxed);
        let second = self.started.elapsed().as_secs();
        self.latency.lock().unwrap_or_else(PoisonError::into_inner).observe(second, took);
    }

    /// The commits of the last minute.
    pub fn recent(&self) -> Recent {
        let second = self.started.elapsed().as_secs();
        let latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        Recent { minute: latency.minute(second), each_second: latency.each_second(second) }
    }

    /// What was counted since the start.
    pub fn totals(&self) -> Totals {
        Totals {
            sessions_opened: self.sessions_opened.get(),
            sessions_closed: self.sessions_closed.get(),
            closed_for_cause: self.closed_for_cause.get(),
            bytes_in: self.bytes_in.get(),
            unreadable: self.unreadable.get(),
            archive_failures: self.archive_failures.get(),
        }
    }

    /// How long the last commit took.
    pub fn last_commit(&self) -> Duration {
        Duration::from_micros(self.last_commit_micros.load(Ordering::Relaxed))
    }

    /// The archive has finished a job.
    pub fn archived(&self, took: Duration, well: bool) {
        self.archive_jobs.observe(took.as_secs_f64());
        if !well {
            self.archive_failures.inc();
        }
    }

    /// A peer has joined.
    pub fn session_opened(&self) {
        self.sessions_opened.inc();
    }

    /// A session has ended.
    pub fn session_closed(&self) {
        self.sessions_closed.inc();
    }

    /// A session was closed because of what the peer did.
    pub fn closed_for_cause(&self) {
        self.closed_for_cause.inc();
    }

    /// A frame has come in.
    pub fn frame_in(&self, bytes: usize) {
        self.frames_in.inc();
        self.bytes_in.inc_by(bytes as u64);
    }

    /// A message claimed to be from someone else.
    pub fn foreign_sender(&self) {
        self.foreign_senders.inc();
    }

    /// A shard has reported something.
    pub fn reported(&self, report: &Report) {
        if matches!(report, Report::Unreadable { .. }) {
            self.unreadable.inc();
        }
    }

    /// Everything, in the text format of Prometheus.
    pub fn encode(
        &self,
        counters: &Counters,
        sessions: usize,
        uptime: Duration,
        mesh: &MeshView,
    ) -> String {
        let mut registry = Registry::with_prefix("tributary");
        let counter = |registry: &mut Registry, name: &str, help: &str, value: u64| {
            let counter: Counter = Counter::default();
            counter.inc_by(value);
            registry.register(name, help, counter);
        };
        let gauge = |registry: &mut Registry, name: &str, help: &str, value: u64| {
            let gauge: Gauge = Gauge::default();
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            registry.register(name, help, gauge);
        };
        let r = &mut registry;
        gauge(r, "sessions", "Connections at the moment", sessions as u64);
        gauge(r, "documents", "Documents in memory or with sessions", counters.documents);
        gauge(r, "documents_memory_bytes", "About what their logs take", counters.memory_bytes);
        gauge(r, "archive_queue", "Jobs that the archive has not finished", counters.archive_queue);
        gauge(r, "uptime_seconds", "Since the process started", uptime.as_secs());
        counter(r, "messages_in", "Messages about documents", counters.messages_in);
        counter(r, "changes_in", "Changes appended to a log", counters.changes_in);
        counter(r, "changes_out", "Changes sent, once per receiver", counters.changes_out);
        counter(r, "snapshots_out", "Messages with a snapshot", counters.snapshots_out);
        counter(r, "frames_out", "Frames sent", counters.frames_out);
        counter(r, "bytes_out", "Bytes of frames sent", counters.bytes_out);
        counter(r, "presence_out", "Presence passed on, once per receiver", counters.presence_out);
        counter(
            r,
            "presence_dropped",
            "Presence dropped, receiver behind",
            counters.presence_dropped,
        );
        counter(r, "changes_refused", "Changes refused", counters.refused);
        counter(
            r,
            "changes_quarantined",
            "Changes set aside after they were stored",
            counters.died,
        );
        counter(r, "changes_slow_lane", "Changes only the CRDT could judge", counters.slow_lane);
        counter(r, "documents_loaded", "Logs read from the store", counters.documents_loaded);
        counter(
            r,
            "documents_left_unverified",
            "Logs that left memory before they were verified, because it was short",
            counters.left_unverified,
        );
        let copy = |registry: &mut Registry, name: &str, help: &str, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        copy(r, "sessions_opened", "Peers that joined", &self.sessions_opened);
        copy(r, "sessions_closed", "Sessions that ended", &self.sessions_closed);
        copy(r, "sessions_closed_for_cause", "Sessions closed by us", &self.closed_for_cause);
        copy(r, "frames_in", "Frames received", &self.frames_in);
        copy(r, "bytes_in", "Bytes of frames received", &self.bytes_in);
        copy(r, "foreign_senders", "Messages in another peer's name", &self.foreign_senders);
        copy(r, "documents_unreadable", "Reads of documents that failed", &self.unreadable);
        copy(r, "commit_writes", "Rows written", &self.commit_writes);
        copy(r, "archive_failures", "Jobs of the archive that failed", &self.archive_failures);
        let (commits, jobs) = (self.commits.clone(), self.archive_jobs.clone());
        r.register_with_unit("commit", "Until a batch was durable", Unit::Seconds, commits);
        r.register_with_unit("archive_job", "Jobs of the archive", Unit::Seconds, jobs);
        regions::figures::register(r, mesh);
        let mut text = String::new();
        encode(&mut text, &registry).expect("writing to a string cannot fail");
        text
    }
}
