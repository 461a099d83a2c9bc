//! The rows of the table: what is asked of every server.

mod fan_out;
mod idle;
mod many;
mod mesh;
mod rest;
mod stored;
mod storm;
mod trace;

use crate::bench::Bench;
use crate::report::Measured;
use crate::server::Kind;
use fan_out::FanOut;

/// One row: a scenario and its numbers.
pub struct Row {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is done, with the numbers.
    pub title: String,
    work: Work,
}

enum Work {
    FanOut(FanOut),
    FanOutBesideRest(FanOut),
    RestUnchanged,
    RestCached,
    RestFirst { edits: usize },
    Many { documents: usize },
    Storm { clients: usize, documents: usize },
    Idle { sessions: usize },
    Stored { documents: usize },
    Trace { edits: usize },
    MeshKeystroke { edits: usize, rate: usize },
    MeshEgress { documents: usize, rate: usize },
    MeshCatchUp { documents: usize, edits: usize },
    MeshDiscovery { documents: usize },
    MeshAudit { documents: usize, differ: usize },
    MeshThree { documents: usize, rate: usize },
}

impl Row {
    /// All rows, in the order of the table, in the sizes of this run.
    pub fn all(bench: &Bench) -> Vec<Self> {
        let mut rows = Vec::new();
        for (name, rate) in [("fan-out-50", 50), ("fan-out-500", 500), ("fan-out-2000", 2_000)] {
            rows.push((name, Work::FanOut(FanOut { edits: 1_000, readers: 100, rate })));
        }
        let lengths = [
            ("length-1k", 1_000),
            ("length-10k", 10_000),
            ("length-100k", 100_000),
            ("length-250k", 250_000),
        ];
        let longest = bench.size(250_000, 10_000);
        for (name, edits) in lengths.into_iter().filter(|(_, edits)| *edits <= longest) {
            rows.push((name, Work::FanOut(FanOut { edits, readers: 20, rate: 20 })));
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
            ("rest-unchanged", Work::RestUnchanged),
            ("rest-cached", Work::RestCached),
            ("rest-first", Work::RestFirst { edits: bench.size(bench.edits(), 20_000) }),
        ]);
        for (name, rate) in [("rest-beside-50", 50), ("rest-beside-500", 500)] {
            rows.push((name, Work::FanOutBesideRest(FanOut { edits: 1_000, readers: 100, rate })));
        }
        rows.extend([
            ("mesh-keystroke", Work::MeshKeystroke { edits: 1_000, rate: 20 }),
            ("mesh-egress-1000", Work::MeshEgress { documents: 50, rate: 1_000 }),
            ("mesh-egress-10", Work::MeshEgress { documents: 50, rate: 10 }),
            ("mesh-catch-up", Work::MeshCatchUp { documents: bench.size(10_000, 300), edits: 100 }),
            ("mesh-discovery", Work::MeshDiscovery { documents: bench.size(10_000, 500) }),
            (
                "mesh-audit",
                Work::MeshAudit { documents: bench.size(1_000_000, 100_000), differ: 100 },
            ),
            ("mesh-three", Work::MeshThree { documents: 20, rate: 2_000 }),
        ]);
        rows.into_iter().map(|(name, work)| Self { name, title: title(&work), work }).collect()
    }

    /// Whether this row asks anything of a server: only this project's has REST and regions. Egress
    /// is put beside what the stock server sends.
    pub fn asks(&self, kind: Kind) -> bool {
        match self.work {
            Work::FanOut(_)
            | Work::Many { .. }
            | Work::Storm { .. }
            | Work::Idle { .. }
            | Work::Stored { .. }
            | Work::Trace { .. } => true,
            Work::MeshEgress { .. } => matches!(kind, Kind::Tributary | Kind::AutomergeRepo),
            Work::FanOutBesideRest(_)
            | Work::RestUnchanged
            | Work::RestCached
            | Work::RestFirst { .. }
            | Work::MeshKeystroke { .. }
            | Work::MeshCatchUp { .. }
            | Work::MeshDiscovery { .. }
            | Work::MeshAudit { .. }
            | Work::MeshThree { .. } => kind == Kind::Tributary,
        }
    }

    /// Measures one server.
    ///
    /// # Errors
    /// Says why there is no measurement: what the server did not do, and in which time.
    pub fn measure(&self, bench: &Bench, kind: Kind) -> Result<Measured, String> {
        match self.work {
            Work::FanOut(work) => fan_out::measure(bench, kind, work, None),
            Work::FanOutBesideRest(work) => {
                let alone = fan_out::measure(bench, kind, work, None)?;
                let mut measured = fan_out::measure(bench, kind, work, Some(rest::beside))?;
                measured.compare(&alone, "without REST");
                Ok(measured)
            }
            Work::RestUnchanged => rest::unchanged(bench, kind),
            Work::RestCached => rest::cached(bench, kind),
            Work::RestFirst { edits } => rest::first(bench, kind, edits),
            Work::Many { documents } => many::measure(bench, kind, documents),
            Work::Storm { clients, documents } => storm::measure(bench, kind, clients, documents),
            Work::Idle { sessions } => idle::measure(bench, kind, sessions),
            Work::Stored { documents } => stored::measure(bench, kind, documents),
            Work::Trace { edits } => trace::measure(bench, kind, edits),
            Work::MeshKeystroke { edits, rate } => {
                mesh::keystroke(bench, edits, rate, bench.size(60, 5))
            }
            Work::MeshEgress { documents, rate } => {
                let seconds = if rate < 100 { bench.size(60, 15) } else { bench.size(20, 4) };
                let work = mesh::Egress { documents, rate, seconds };
                match kind {
                    Kind::Tributary => mesh::egress(bench, work),
                    _ => mesh::egress_of_stock(bench, kind, work),
                }
            }
            Work::MeshCatchUp { documents, edits } => mesh::catch_up(bench, documents, edits),
            Work::MeshDiscovery { documents } => mesh::discovery(bench, documents),
            Work::MeshAudit { documents, differ } => mesh::audit(documents, differ),
            Work::MeshThree { documents, rate } => mesh::three(bench, documents, rate),
        }
    }
}

fn title(work: &Work) -> String {
    match work {
        Work::FanOut(FanOut { edits, readers, rate }) => format!(
            "1 document of {} edits, {readers} subscribers, {} changes/s",
            grouped(*edits as u64),
            grouped(*rate as u64)
        ),
        Work::FanOutBesideRest(work) => {
            format!("beside REST: {}", title(&Work::FanOut(*work)))
        }
        Work::RestUnchanged => {
            format!("REST: an unchanged document (304), {} connections", rest::CONNECTIONS)
        }
        Work::RestCached => {
            format!("REST: JSON of 10 KB, read before, {} connections", rest::CONNECTIONS)
        }
        Work::RestFirst { edits } => format!(
            "REST: the first JSON of the paper trace, {} edits, after a restart",
            grouped(*edits as u64)
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
        Work::MeshKeystroke { rate, .. } => format!(
            "two regions, {} ms one way: from a typist in one to a subscriber in the other, \
             {rate} changes/s",
            mesh::LATENCY.as_millis()
        ),
        Work::MeshEgress { documents, rate } => format!(
            "two regions: what one sends the other, {documents} documents in turns, {} changes/s",
            grouped(*rate as u64)
        ),
        Work::MeshCatchUp { documents, edits } => format!(
            "two regions: {} missed changes in {} documents are caught up with",
            grouped((documents * edits) as u64),
            grouped(*documents as u64)
        ),
        Work::MeshDiscovery { documents } => format!(
            "two regions with {} documents find out what they missed of each other",
            grouped(*documents as u64)
        ),
        Work::MeshAudit { documents, differ } => format!(
            "two regions find out which {differ} of {} documents they do not hold alike",
            grouped(*documents as u64)
        ),
        Work::MeshThree { rate, .. } => {
            format!("three regions, {} changes/s handed in at each", grouped(*rate as u64))
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
