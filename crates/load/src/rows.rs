//! The rows of the table: what is asked of every server.

mod fan_out;
mod idle;
mod many;
mod stored;
mod storm;
mod trace;

use crate::bench::Bench;
use crate::report::Measured;
use crate::server::Kind;

/// One row: a scenario and its numbers.
pub struct Row {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is done, with the numbers.
    pub title: String,
    work: Work,
}

enum Work {
    FanOut { edits: usize, readers: usize, rate: usize },
    Many { documents: usize },
    Storm { clients: usize, documents: usize },
    Idle { sessions: usize },
    Stored { documents: usize },
    Trace { edits: usize },
}

impl Row {
    /// All rows, in the order of the table, in the sizes of this run.
    pub fn all(bench: &Bench) -> Vec<Self> {
        let mut rows = Vec::new();
        for (name, rate) in [("fan-out-50", 50), ("fan-out-500", 500), ("fan-out-2000", 2_000)] {
            rows.push((name, Work::FanOut { edits: 1_000, readers: 100, rate }));
        }
        let lengths = [
            ("length-1k", 1_000),
            ("length-10k", 10_000),
            ("length-100k", 100_000),
            ("length-250k", 250_000),
        ];
        let longest = bench.size(250_000, 10_000);
        for (name, edits) in lengths.into_iter().filter(|(_, edits)| *edits <= longest) {
            rows.push((name, Work::FanOut { edits, readers: 20, rate: 20 }));
        }
        rows.extend([
            ("many-documents", Work::Many { documents: 50 }),
            (
                "storm",
                Work::Storm { clients: bench.size(2_000, 400), documents: bench.size(200, 40) },
            ),
            ("idle", Work::Idle { sessions: bench.size(10_000, 1_000) }),
            ("stored", Work::Stored { documents: bench.size(10_000, 500) }),
            ("trace", Work::Trace { edits: bench.size(bench.edits(), 20_000) }),
        ]);
        rows.into_iter().map(|(name, work)| Self { name, title: title(&work), work }).collect()
    }

    /// Measures one server.
    ///
    /// # Errors
    /// Says why there is no measurement: what the server did not do, and in which time.
    pub fn measure(&self, bench: &Bench, kind: Kind) -> Result<Measured, String> {
        match self.work {
            Work::FanOut { edits, readers, rate } => {
                fan_out::measure(bench, kind, edits, readers, rate)
            }
            Work::Many { documents } => many::measure(bench, kind, documents),
            Work::Storm { clients, documents } => storm::measure(bench, kind, clients, documents),
            Work::Idle { sessions } => idle::measure(bench, kind, sessions),
            Work::Stored { documents } => stored::measure(bench, kind, documents),
            Work::Trace { edits } => trace::measure(bench, kind, edits),
        }
    }
}

fn title(work: &Work) -> String {
    match work {
        Work::FanOut { edits, readers, rate } => format!(
            "1 document of {} edits, {readers} subscribers, {} changes/s",
            grouped(*edits as u64),
            grouped(*rate as u64)
        ),
        Work::Many { documents } => {
            format!("{documents} documents, one writer and one reader each, 64 changes in flight")
        }
        Work::Storm { clients, documents } => format!(
            "opening storm after a restart: {} clients, {documents} documents of 1,000 edits",
            grouped(*clients as u64)
        ),
        Work::Idle { sessions } => {
            format!(
                "{} idle sessions, each with one of 100 documents open",
                grouped(*sessions as u64)
            )
        }
        Work::Stored { documents } => {
            format!("{} stored documents of 1,000 edits, none in use", grouped(*documents as u64))
        }
        Work::Trace { edits } => {
            format!("the paper trace, {} edits, typed in and stored", grouped(*edits as u64))
        }
    }
}

/// 1234567 as 1,234,567.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
