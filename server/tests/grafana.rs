//! The dashboard in `docs/grafana.json`, held against the metrics of a running server.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// How long the server may take to listen and to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// What Prometheus adds to everything that it scrapes.
const SCRAPED: [&str; 2] = ["instance", "job"];
/// What stands before the labels that a query keeps.
const BY: &str = "by (";

/// Every series with its labels, as `tributary_link_bytes_in_total` and `{lane, region}`.
type Series = BTreeMap<String, BTreeSet<String>>;

/// What a panel asks, and how it names what comes.
struct Asked {
    panel: String,
    query: String,
    legend: String,
}

fn asked() -> Vec<Asked> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/grafana.json");
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let panels = dashboard["panels"].as_array().expect("panels");
    let panels = panels.iter().filter(|panel| panel["type"] != "row");
    panels
        .flat_map(|panel| {
            let targets = panel["targets"].as_array().expect("every panel asks something");
            assert!(!targets.is_empty() && !text(&panel["description"]).is_empty(), "{panel}");
            targets.iter().map(move |target| Asked {
                panel: text(&panel["title"]),
                query: text(&target["expr"]),
                legend: text(&target["legendFormat"]),
            })
        })
        .collect()
}

/// A name as metrics and labels have them, at the start of this text.
fn name(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}

fn metrics_in(query: &str) -> Vec<&str> {
    query.match_indices("tributary_").map(|(at, _)| name(&query[at..])).collect()
}

/// The labels that a query groups by or selects by.
fn labels_in(query: &str) -> BTreeSet<&str> {
    let lists = query.match_indices(BY).map(|(at, _)| &query[at + BY.len()..]);
    let grouped = lists.flat_map(|list| list.split(')').next().unwrap_or_default().split(','));
    let selectors = query.match_indices('{').map(|(at, _)| &query[at + 1..]);
    let selected = selectors.flat_map(|list| list.split('}').next().unwrap_or_default().split(','));
    grouped.chain(selected).map(|label| name(label.trim())).collect()
}

fn labels_of_legend(legend: &str) -> BTreeSet<&str> {
    legend.match_indices("{{").map(|(at, _)| name(&legend[at + 2..])).collect()
}

#[test]
fn the_dashboard_asks_for_nothing_that_there_is_not() {
    let series = series();
    for Asked { panel, query, legend } in asked() {
        let labels = labels_in(&query);
        for metric in metrics_in(&query) {
            let own = series.get(metric);
            let own = own.unwrap_or_else(|| panic!("'{panel}': there is no {metric}"));
            let known =
                |label: &&str| SCRAPED.contains(label) || own.contains(&(*label).to_owned());
            let strange: Vec<_> = labels.iter().filter(|label| !known(label)).collect();
            assert!(strange.is_empty(), "'{panel}': {metric} has no labels {strange:?}");
            // A legend can only name what the query leaves.
            let left: BTreeSet<&str> = if query.contains(BY) {
                labels.clone()
            } else {
                own.iter().map(|l| &**l).collect()
            };
            for label in labels_of_legend(&legend) {
                let there = left.contains(label) || SCRAPED.contains(&label);
                assert!(there, "'{panel}': the legend names {label}, which {query} does not leave");
            }
        }
        // Counters are only ever looked at as rates.
        if query.contains("_total") {
            assert!(query.contains("rate(") || query.contains("increase("), "'{panel}': {query}");
        }
    }
}

#[test]
fn every_metric_can_be_seen_on_the_dashboard() {
    let asked = asked();
    let queries: Vec<_> = asked.iter().flat_map(|asked| metrics_in(&asked.query)).collect();
    let of_histogram = |name: &str| {
        let parts = ["_bucket", "_count", "_sum"];
        parts.iter().find_map(|part| name.strip_suffix(part)).map(str::to_owned)
    };
    let seen: BTreeSet<String> = (queries.iter())
        .map(|name| of_histogram(name).unwrap_or_else(|| (*name).to_owned()))
        .collect();
    let there: BTreeSet<String> =
        series().keys().map(|name| of_histogram(name).unwrap_or_else(|| name.clone())).collect();
    let unseen: Vec<_> = there.difference(&seen).collect();
    assert!(unseen.is_empty(), "no panel shows {unseen:?}");
}

/// What a server with a link says of itself.
fn series() -> Series {
    let temp = tempfile::tempdir().unwrap();
    let (config, key) = (temp.path().join("config.toml"), temp.path().join("key"));
    fs::write(&key, "a secret of more than sixteen bytes").unwrap();
    fs::write(&config, format!("mesh.key_file = {key:?}\n[[link]]\nname = 'us'\n")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tributary"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TRIBUTARY_") {
            command.env_remove(name);
        }
    }
    command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(temp.path().join("data"));
    command.arg("--config").arg(&config).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = Running(command.spawn().unwrap());
    let mut stdout = BufReader::new(server.0.stdout.take().unwrap());
    let (said, line) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let _ = stdout.read_line(&mut line);
        let _ = said.send(line);
    });
    let line = line.recv_timeout(PATIENCE).expect("it listens");
    let (_, address) = line.trim().split_once("ws://").expect("the line has the address");

    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(socket, "GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let mut series = Series::new();
    for line in answer.lines().filter(|line| line.starts_with("tributary_")) {
        let metric = name(line);
        let labels =
            line[metric.len()..].strip_prefix('{').map(|rest| &rest[..rest.find('}').unwrap()]);
        let labels = labels.unwrap_or_default().split(',').filter(|label| !label.is_empty());
        let labels = labels.map(|label| name(label).to_owned());
        series.entry(metric.to_owned()).or_default().extend(labels);
    }
    // A counter that has nothing to count yet has a type and no series.
    for kind in answer.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (metric, kind) = kind.split_once(' ').unwrap();
        let suffix = if kind == "counter" { "_total" } else { "" };
        if kind != "histogram" {
            series.entry(format!("{metric}{suffix}")).or_default();
        }
    }
    series
}

/// A server that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
