//! The page of results: where and how they were measured, then the table.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::report::{Line, table};

/// The page `docs/benchmarks.md`.
pub fn page(lines: &[Line], peers: &Path) -> String {
    let mut dates: Vec<&str> = lines.iter().map(|line| line.date.as_str()).collect();
    dates.sort_unstable();
    dates.dedup();
    format!(
        "# Benchmarks\n\n\
         Written by `cargo xtask bench` together with [benchmarks.json](benchmarks.json), which has all \
         numbers and the day of each; do not edit. Measured {dates}, each server alone on the \
         machine but for the load generator, which shares its cores.\n\n\
         {machine}\n\
         ## How to read it\n\n{READING}\n\
         ## Results\n\n{table}",
        dates = dates.join(", "),
        machine = machine(peers, lines.first().map_or("unknown", |line| &line.processor)),
        table = table(lines),
    )
}

const READING: &str = "\
- A *delivery* is one change reaching one subscriber. Several changes in one message are several
  deliveries. Latency is from the writer's send to the subscriber's receipt, one value for each
  delivery. Changes sent in the first second are not counted.
- Subscribers behave as stock clients do: each answers every message that carries changes with its
  new heads. They do not keep the document; their heads come from hashing what they are sent. At the
  end of each row a client with the real library downloads a document, and its text must be what was
  typed.
- What is typed is a recording of a person writing a paper, one keystroke a change; a document of n
  edits is its first n keystrokes. Yjs clients type the same keystrokes as Yjs updates.
- Server CPU is the user and system time of the server and its children, as is RSS.
- Only tributary has a change on disk before it tells anybody of it. The others acknowledge from
  memory and write later: automerge-repo and samod soon after, without `fsync`; Hocuspocus after two
  to ten seconds.
- A server that is busy for longer than its keep-alive does not hear its clients' pongs, and cuts
  them off: that is how *under load: the connection was closed* comes about.
- *did not finish* names what had not happened when a time limit ended. \"> x\" says that some
  deliveries had not come when the clock was stopped; they are counted as having taken until then.
- The paper trace is timed from the connection to the last byte of the document; its CPU time is
  read in steps of 10 ms over ten downloads. The size on disk is taken when it has not changed for
  40 s. *Without retention* it is what stays after the changes that the snapshot covers are no longer
  kept one by one.
- REST: each connection has one request under way; where a rate is named, a latency is from when the
  request was due.
- Hocuspocus asks for Node 22 or newer; it is run with the Node named above.
";

/// `measured_on` is the processor of the first line of the table.
fn machine(peers: &Path, measured_on: &str) -> String {
    let memory = field("/proc/meminfo", "MemTotal:").unwrap_or_default();
    let gigabytes =
        memory.split(' ').next().and_then(|it| it.parse::<f64>().ok()).unwrap_or(0.0) / 1e6;
    let version = |name: &str| package_version(peers, name).unwrap_or_else(|| "?".to_owned());
    format!(
        "| | |\n|---|---|\n\
         | processor | {measured_on} |\n\
         | memory | {gigabytes:.0} GB |\n\
         | kernel | {} |\n\
         | Rust, Node | {}; {} |\n\
         | tributary | {}, release build |\n\
         | automerge-repo | {}, WebSocket adapter {}, NodeFS storage {}, automerge {} |\n\
         | samod | {}, release build, file storage |\n\
         | hocuspocus | {}, SQLite extension {}, yjs {} |\n\
         | command | `cargo xtask bench` |\n",
        fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        said_by("rustc", "--version"),
        said_by("node", "--version"),
        env!("CARGO_PKG_VERSION"),
        version("@automerge/automerge-repo"),
        version("@automerge/automerge-repo-network-websocket"),
        version("@automerge/automerge-repo-storage-nodefs"),
        version("@automerge/automerge"),
        SAMOD_VERSION,
        version("@hocuspocus/server"),
        version("@hocuspocus/extension-sqlite"),
        version("yjs"),
    )
}

/// The processor of this machine, and how many cores there are.
pub fn processor() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let name = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned());
    format!("{name}, {cores} cores")
}

/// As in this crate's manifest.
const SAMOD_VERSION: &str = "0.16";

fn package_version(peers: &Path, name: &str) -> Option<String> {
    let text = fs::read(peers.join("node_modules").join(name).join("package.json")).ok()?;
    let package: serde_json::Value = serde_json::from_slice(&text).ok()?;
    Some(package["version"].as_str()?.to_owned())
}

fn said_by(program: &str, argument: &str) -> String {
    match Command::new(program).arg(argument).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(_) => format!("{program} unknown"),
    }
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line[name.len()..].trim_matches([' ', '\t', ':']).to_owned())
}

/// Today in UTC, as 2026-01-31.
pub fn today() -> String {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (year, month, day) = civil((elapsed.as_secs() / 86_400) as i64);
    format!("{year}-{month:02}-{day:02}")
}

/// Year, month and day of a day counted from 1970-01-01, by the Gregorian rules: eras of 400 years
/// that begin in March, so that the leap day is the last of its year.
fn civil(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_named_as_the_calendar_names_them() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(19_723), (2024, 1, 1));
        assert_eq!(civil(20_818), (2026, 12, 31));
    }
}
