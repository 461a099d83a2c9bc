//! The measurements as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::histogram::Histogram;
use crate::server::{Kind, Usage};

/// What one server did in one row.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Measured {
    /// The main figure, with its unit.
    pub result: String,
    /// Median latency in milliseconds.
    pub p50_ms: Option<f64>,
    /// 99th percentile in milliseconds.
    pub p99_ms: Option<f64>,
    /// The latencies are lower bounds: some things had not happened when the clock was stopped.
    pub at_least: bool,
    /// What the server's processor time came to, with its unit.
    pub cpu: String,
    /// Resident memory of the server and its children, in bytes.
    pub rss_bytes: u64,
    /// What else a reader should know.
    pub remarks: Vec<String>,
    /// All numbers by name, for the JSON.
    pub numbers: BTreeMap<String, f64>,
}

impl Measured {
    /// Takes the latencies from a histogram.
    pub fn latency(&mut self, histogram: &Histogram) {
        let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
        self.p50_ms = Some(millis(histogram.quantile(0.5)));
        self.p99_ms = Some(millis(histogram.quantile(0.99)));
        self.number("p90_ms", millis(histogram.quantile(0.9)));
        self.number("p999_ms", millis(histogram.quantile(0.999)));
        self.number("longest_ms", millis(histogram.longest()));
        self.number("latencies", histogram.total() as f64);
    }

    /// Takes the memory from what the server uses.
    pub fn memory(&mut self, usage: &Usage) {
        self.rss_bytes = usage.rss;
        self.number("children_rss_bytes", usage.children_rss as f64);
        if usage.children_rss > 0 {
            let megabytes = short(usage.children_rss as f64 / 1e6);
            self.remark(format!("{megabytes} MB of the memory are worker processes"));
        }
    }

    /// Adds the latencies of another measurement, of the same work under other conditions.
    pub fn compare(&mut self, other: &Self, conditions: &str) {
        let millis = |value: Option<f64>| value.map(short).unwrap_or_default();
        let (half, most) = (millis(other.p50_ms), millis(other.p99_ms));
        self.remark(format!("{conditions} p50 is {half} ms and p99 {most} ms"));
        for (name, value) in [("other_p50_ms", other.p50_ms), ("other_p99_ms", other.p99_ms)] {
            self.numbers.extend(value.map(|value| (name.to_owned(), value)));
        }
    }

    /// Adds a number for the JSON.
    pub fn number(&mut self, name: &str, value: f64) {
        self.numbers.insert(name.to_owned(), value);
    }

    /// Adds a remark.
    pub fn remark(&mut self, remark: impl Into<String>) {
        self.remarks.push(remark.into());
    }
}

/// One line of the table.
#[derive(Clone, Serialize, Deserialize)]
pub struct Line {
    /// The row's name on the command line.
    pub row: String,
    /// What was done.
    pub title: String,
    /// Which server.
    pub server: Kind,
    /// The day of the measurement.
    pub date: String,
    /// The processor that it was measured on.
    #[serde(default)]
    pub processor: String,
    /// Whether it was a quick run: not for comparison.
    pub quick: bool,
    /// The measurement, or why there is none.
    pub outcome: Result<Measured, String>,
}

/// The table in Markdown, also fit for a terminal.
///
/// Lines that were measured on another processor than the first say so.
pub fn table(lines: &[Line]) -> String {
    let mut cells = vec![[
        "work".to_owned(),
        "server".to_owned(),
        "result".to_owned(),
        "p50 ms".to_owned(),
        "p99 ms".to_owned(),
        "server CPU".to_owned(),
        "RSS MB".to_owned(),
        "remarks".to_owned(),
    ]];
    let mut last = "";
    for line in lines {
        let title = if last == line.title { String::new() } else { line.title.clone() };
        last = &line.title;
        let server = line.server.name().to_owned();
        cells.push(match &line.outcome {
            Ok(measured) => {
                let bound = if measured.at_least { "> " } else { "" };
                // What runs in the load generator itself has no memory of its own.
                let memory = match measured.rss_bytes {
                    0 => String::new(),
                    bytes => short(bytes as f64 / 1e6),
                };
                let mut remarks = measured.remarks.clone();
                if line.processor != lines[0].processor {
                    remarks.push(format!("on another machine: {}", line.processor));
                }
                let millis = |value: Option<f64>| {
                    value.map(|value| format!("{bound}{}", short(value))).unwrap_or_default()
                };
                [
                    title,
                    server,
                    measured.result.clone(),
                    millis(measured.p50_ms),
                    millis(measured.p99_ms),
                    measured.cpu.clone(),
                    memory,
                    remarks.join("; "),
                ]
            }
            Err(why) => {
                let none = String::new;
                let result = "did not finish".to_owned();
                [title, server, result, none(), none(), none(), none(), why.replace('|', "/")]
            }
        });
    }
    aligned(&cells)
}

fn aligned(cells: &[[String; 8]]) -> String {
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..8).map(|column| width(column).unwrap_or(0).max(3)).collect();
    let mut out = String::new();
    for (number, row) in cells.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(out, "| {cell:width$} ");
        }
        out.push_str("|\n");
        if number == 0 {
            for width in &widths {
                let _ = write!(out, "|{}", "-".repeat(width + 2));
            }
            out.push_str("|\n");
        }
    }
    out
}

/// Three figures are all that a benchmark on a shared machine can say.
pub fn short(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => crate::rows::grouped(value.round() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_a_piece_of_work_once_and_says_why_a_server_is_missing() {
        let line = |server, outcome| Line {
            row: "storm".to_owned(),
            title: "a storm".to_owned(),
            server,
            date: "2026-01-31".to_owned(),
            processor: format!("that of {server:?}"),
            quick: false,
            outcome,
        };
        let measured = Measured {
            result: "2,570 opens/s".to_owned(),
            p99_ms: Some(1234.5),
            at_least: true,
            ..Measured::default()
        };
        let text = table(&[
            line(Kind::Hocuspocus, Ok(Measured::default())),
            line(Kind::Tributary, Ok(measured)),
            line(Kind::Samod, Err("it fell".into())),
        ]);
        assert_eq!(text.matches("a storm").count(), 1);
        assert!(text.contains("> 1,235"));
        assert!(text.contains("that of Tributary") && !text.contains("that of Hocuspocus"));
        assert!(text.lines().last().is_some_and(|it| it.contains("did not finish")));
        assert!(text.contains("it fell"));
    }
}
