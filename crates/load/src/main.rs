//! The load generator behind `cargo xtask bench`: starts each server in turn, drives it with
//! thousands of cheap clients of its own protocol, and writes one table.
//!
//! ```text
//! script     what is typed, encoded beforehand
//! net        sockets and WebSocket frames, one thread
//! http       REST clients, one thread
//! session    one client: automerge_session, yjs_session
//! world      all clients at once, and the meter
//! server     the processes under measurement
//! regions    several of them, linked through a network of our own
//! rows       the scenarios
//! report     the table
//! ```

mod automerge_session;
mod bench;
mod envelope;
mod histogram;
mod http;
mod machine;
mod net;
mod regions;
mod report;
mod rows;
mod script;
mod server;
mod session;
mod sync_message;
mod world;
mod yjs_session;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use bench::Bench;
use report::{Line, table};
use rows::Row;
use server::{Kind, Programs};

/// Measures sync servers, one after the other, on this machine.
#[derive(Parser)]
struct Options {
    /// The recording that is typed: a gzipped JSON of single-character edits.
    #[arg(long)]
    trace: PathBuf,
    /// The directory of the built servers.
    #[arg(long)]
    binaries: PathBuf,
    /// The directory of the Node servers.
    #[arg(long)]
    peers: PathBuf,
    /// Where caches, data, logs and raw results go.
    #[arg(long)]
    out: PathBuf,
    /// Where to write the table as a page; with `--only` or `--server` together with what earlier
    /// runs have measured, which lies beside the page as JSON.
    #[arg(long)]
    page: Option<PathBuf>,
    /// Only the rows whose names start so (may be repeated).
    #[arg(long)]
    only: Vec<String>,
    /// Only these servers (may be repeated).
    #[arg(long)]
    server: Vec<Kind>,
    /// Short and small, to see that all of it works. Not for comparison.
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("tributary-load: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    rlimit::increase_nofile_limit(20_000).map_err(|error| error.to_string())?;
    eprintln!("preparing the changes (the first time this takes a minute)");
    let programs = Programs { binaries: options.binaries.clone(), peers: options.peers.clone() };
    let bench = Bench::prepare(&options.trace, programs, options.out.clone(), options.quick)?;
    let rows = Row::all(&bench);
    let chosen = |row: &Row, only: &String| {
        let exact = rows.iter().any(|row| row.name == only);
        if exact { row.name == only } else { row.name.starts_with(only.as_str()) }
    };
    let wanted =
        |row: &&Row| options.only.is_empty() || options.only.iter().any(|only| chosen(row, only));
    let servers: &[Kind] = if options.server.is_empty() { &Kind::ALL } else { &options.server };
    let mut lines = Vec::new();
    for row in rows.iter().filter(wanted) {
        for kind in servers.iter().filter(|kind| row.asks(**kind)) {
            lines.push(measure(&bench, row, *kind, options.quick));
            save(&options.out.join("last.json"), &lines)?;
        }
    }
    if lines.is_empty() {
        let names: Vec<_> = rows.iter().map(|row| row.name).collect();
        return Err(format!("nothing to measure; the rows are {}", names.join(", ")));
    }
    println!("{}", table(&lines));
    if options.quick {
        return Ok(());
    }
    let Some(page) = &options.page else { return Ok(()) };
    let kept = keep(&page.with_extension("json"), &rows, lines)?;
    let text = machine::page(&kept, &options.peers);
    fs::write(page, text).map_err(|error| format!("{}: {error}", page.display()))
}

/// One cell of the benchmark. Whatever happens in it, the others are measured.
fn measure(bench: &Bench, row: &Row, kind: Kind, quick: bool) -> Line {
    eprintln!("{}: {}", row.name, kind.name());
    let outcome = catch_unwind(AssertUnwindSafe(|| row.measure(bench, kind)))
        .unwrap_or_else(|_| Err("the load generator panicked".to_owned()));
    match &outcome {
        Ok(measured) => {
            let latency = match (measured.p50_ms, measured.p99_ms) {
                (Some(half), Some(most)) => format!(", p50 {half:.2} ms, p99 {most:.2} ms"),
                _ => String::new(),
            };
            let remarks = measured.remarks.join("; ");
            eprintln!("    {}{latency}, {}, {remarks}", measured.result, measured.cpu);
        }
        Err(why) => eprintln!("    did not finish: {why}"),
    }
    let date = machine::today();
    let (row, title) = (row.name.to_owned(), row.title.clone());
    Line { row, title, server: kind, date, processor: machine::processor(), quick, outcome }
}

/// Replaces what was measured before by what was measured now, in the order of the table.
fn keep(path: &Path, rows: &[Row], now: Vec<Line>) -> Result<Vec<Line>, String> {
    let before: Vec<Line> = match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    let mut lines = now;
    for line in before {
        if !lines.iter().any(|newer| (&newer.row, newer.server) == (&line.row, line.server)) {
            lines.push(line);
        }
    }
    lines.retain(|line| rows.iter().any(|row| row.name == line.row));
    let place = |line: &Line| rows.iter().position(|row| row.name == line.row);
    lines.sort_by_key(|line| (place(line), line.server));
    save(path, &lines)?;
    Ok(lines)
}

fn save(path: &Path, lines: &[Line]) -> Result<(), String> {
    let text = serde_json::to_string_pretty(lines).map_err(|error| error.to_string())?;
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
