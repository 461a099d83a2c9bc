//! Where the figures come from.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use node::rows::{self, META_KEYS, RowKind};
use store::Store;
use tokio::time::MissedTickBehavior;

use crate::board::Board;
use crate::machine::Machine;
use crate::metrics::Metrics;
use crate::regions::Regions;
use crate::regions::view::LinkView;
use crate::status::traffic::{self, Traffic};
use crate::status::{
    Commits, Documents, Lines, Link, Minute, Quarantine, Rates, Sessions, Status, Totals,
};

/// How many documents that changed last are named.
const RECENT_MAX: usize = 12;
/// Documents are counted again when somebody asks after this many times as long as it took, so that
/// counting is never a hundredth of the work, or after this long.
const COUNT_SELDOM: u32 = 100;
const COUNT_EVERY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// Counting ends after this many, or this long: it reads a row of each.
const COUNT_MAX: u64 = 1_000_000;
const COUNT_WITHIN: Duration = Duration::from_millis(300);
/// How often the figures are noted, of which rates are made.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// What the figures are taken from.
pub struct Parts {
    /// The name of the region.
    pub region: String,
    /// How many connections there may be.
    pub sessions_max: usize,
    /// The machine.
    pub machine: Arc<Machine>,
    /// The board that its shards write on.
    pub board: Arc<Board>,
    /// The store, to count in.
    pub store: Arc<dyn Store>,
    /// What happens outside of shards.
    pub metrics: Arc<Metrics>,
    /// The other regions, if there are any.
    pub regions: Option<Arc<Regions>>,
    /// The last lines of the log.
    pub lines: Arc<Lines>,
}

/// Gathers the figures when somebody asks.
pub struct Gather {
    parts: Parts,
    traffic: Traffic,
    count: Mutex<Count>,
}

/// How many documents the store has.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    at: Option<Instant>,
    took: Duration,
    documents: Option<u64>,
    more: bool,
}

impl Gather {
    /// Begins to note the figures of which rates are made; it ends with the runtime.
    pub fn start(parts: Parts) -> Arc<Self> {
        let (traffic, count) = (Traffic::default(), Mutex::default());
        let gather = Arc::new(Self { parts, traffic, count });
        let noting = gather.clone();
        tokio::spawn(async move {
            let mut every = tokio::time::interval(NOTE_EVERY);
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                every.tick().await;
                noting.traffic.note(noting.parts.machine.uptime(), noting.noted());
            }
        });
        gather
    }

    /// How the region is at this moment.
    pub async fn status(self: &Arc<Self>) -> Status {
        let parts = &self.parts;
        let (machine, metrics) = (&parts.machine, &parts.metrics);
        let mesh = Regions::view(parts.regions.as_deref(), &parts.region).await;
        let count = self.counted().await;
        let (counters, outside) = (machine.counters(), metrics.totals());
        let (minute, last) = (metrics.recent().minute, metrics.last_commit());
        let (errors_total, warnings_total) = parts.lines.counts();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            region: parts.region.clone(),
            peer: machine.me().peer.as_str().to_owned(),
            uptime_seconds: round(machine.uptime().as_secs_f64(), 10.0),
            now: now.as_millis() as u64,
            sessions: Sessions {
                connected: machine.sessions() as u64,
                max: parts.sessions_max as u64,
                opened: outside.sessions_opened,
                closed: outside.sessions_closed,
                closed_for_cause: outside.closed_for_cause,
            },
            documents: Documents {
                open: counters.documents,
                memory_bytes: counters.memory_bytes,
                stored: count.documents,
                stored_more: count.more,
                recent: parts.board.latest(RECENT_MAX).iter().map(ToString::to_string).collect(),
            },
            totals: Totals {
                changes_in: counters.changes_in,
                changes_out: counters.changes_out,
                bytes_in: outside.bytes_in,
                bytes_out: counters.bytes_out,
                presence_out: counters.presence_out,
            },
            per_second: self.traffic.now().into(),
            commits: Commits {
                count: minute.map_or(0, |minute| minute.count),
                p50_ms: minute.map(|minute| round(minute.p50_ms, 100.0)),
                p99_ms: minute.map(|minute| round(minute.p99_ms, 100.0)),
                last_ms: (!last.is_zero()).then(|| round(last.as_secs_f64() * 1e3, 100.0)),
            },
            links: mesh.links.into_iter().map(Link::from).collect(),
            quarantine: Quarantine {
                refused: counters.refused,
                set_aside: counters.died,
                unreadable: outside.unreadable,
                archive_failures: outside.archive_failures,
                archive_queue: counters.archive_queue,
            },
            errors: parts.lines.newest(),
            errors_total,
            warnings_total,
            minute: self.minute(),
        }
    }

    fn minute(&self) -> Minute {
        let each = self.traffic.each_second();
        let of = |rate: fn(&traffic::Rates) -> f64| each.iter().map(rate).collect();
        let commits = self.parts.metrics.recent().each_second;
        Minute {
            changes_in: of(|rates| rates.changes_in),
            changes_out: of(|rates| rates.changes_out),
            bytes_in: of(|rates| rates.bytes_in),
            bytes_out: of(|rates| rates.bytes_out),
            commit_p99_ms: commits.into_iter().map(|ms| ms.map(|ms| round(ms, 100.0))).collect(),
        }
    }

    fn noted(&self) -> traffic::Totals {
        let counters = self.parts.machine.counters();
        traffic::Totals {
            changes_in: counters.changes_in,
            changes_out: counters.changes_out,
            bytes_in: self.parts.metrics.totals().bytes_in,
            bytes_out: counters.bytes_out,
        }
    }

    /// How many documents there are. Whoever asks while it is counted gets the count before.
    async fn counted(self: &Arc<Self>) -> Count {
        let due = {
            let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
            let due = {
                let rest = (count.took * COUNT_SELDOM).clamp(COUNT_EVERY.0, COUNT_EVERY.1);
                count.at.is_none_or(|at| at.elapsed() >= rest)
            };
            if due {
                count.at = Some(Instant::now());
            }
            due
        };
        if due {
            let gather = self.clone();
            let counting = tokio::task::spawn_blocking(move || {
                let started = Instant::now();
                let (documents, more) = count(&*gather.parts.store);
                let mut count = gather.count.lock().unwrap_or_else(PoisonError::into_inner);
                (count.documents, count.more) = (documents, more);
                count.took = started.elapsed();
            });
            // It panics if the store does; then there is no count.
            let _ = counting.await;
        }
        *self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many documents a store has, and whether there are more. Nothing if it cannot be read.
fn count(store: &dyn Store) -> (Option<u64>, bool) {
    let (mut documents, mut more) = (0, false);
    let started = Instant::now();
    let scanned = store.scan(&[META_KEYS.0], &[META_KEYS.1], &mut |key, _| {
        if documents >= COUNT_MAX || (documents % 256 == 255 && started.elapsed() > COUNT_WITHIN) {
            more = true;
            return ControlFlow::Break(());
        }
        documents += u64::from(matches!(rows::read_key(key), Some((RowKind::Meta, _))));
        ControlFlow::Continue(())
    });
    (scanned.is_ok().then_some(documents), more)
}

fn round(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

impl From<traffic::Rates> for Rates {
    fn from(rates: traffic::Rates) -> Self {
        let traffic::Rates { changes_in, changes_out, bytes_in, bytes_out } = rates;
        Self { changes_in, changes_out, bytes_in, bytes_out }
    }
}

impl From<LinkView> for Link {
    fn from(link: LinkView) -> Self {
        Self {
            bytes_in: link.live.bytes_in + link.bulk.bytes_in,
            bytes_out: link.live.bytes_out + link.bulk.bytes_out,
            region: link.region,
            state: link.state,
            up_seconds: link.up_seconds.map(|seconds| round(seconds, 10.0)),
            round_trip_ms: link.round_trip_ms.map(|ms| round(ms, 100.0)),
            lag_changes: link.lag_changes,
            lag_seconds: round(link.lag_seconds, 100.0),
            last_error: link.last_error,
        }
    }
}

#[cfg(test)]
mod tests {
    use model::DocumentId;
    use node::rows::{Meta, put_meta};
    use store::MemoryDisk;

    use super::*;

    #[test]
    fn documents_are_counted_by_the_row_that_each_has() {
        let store = MemoryDisk::new().open();
        assert_eq!(count(&store), (Some(0), false));
        let writes: Vec<_> = (0..300_u32)
            .map(|n| put_meta(&DocumentId::from_bytes(&n.to_be_bytes()).unwrap(), Meta::default()))
            .collect();
        store.commit(&writes).unwrap();
        assert_eq!(count(&store), (Some(300), false));
    }
}
