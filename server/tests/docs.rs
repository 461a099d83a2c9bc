//! The tables that operators read, held against what the program says of itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The first two cells of each row of the tables of a page, without backquotes, if the first cell is
/// in backquotes and `wanted`.
fn table(page: &str, wanted: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    let text = fs::read_to_string(path).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| {
        let mut cells = row.split('|').map(|cell| cell.trim().replace('`', ""));
        let (name, value) = (cells.next()?, cells.next()?);
        wanted(&name).then_some((name, value))
    })
    .collect()
}

/// The program, without any configuration of whoever runs the tests.
fn tributary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tributary"));
    let inherited = std::env::vars_os().map(|(name, _)| name);
    for name in inherited.filter(|name| name.to_string_lossy().starts_with("TRIBUTARY_")) {
        command.env_remove(name);
    }
    command
}

/// Every key with its value, as `archive.workers` and `1`.
fn flatten(prefix: &str, table: &toml::Table, out: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        let name = format!("{prefix}{key}");
        match value {
            toml::Value::Table(inner) => flatten(&format!("{name}."), inner, out),
            value => drop(out.insert(name, value.to_string())),
        }
    }
}

#[test]
fn every_key_is_documented_with_its_default_and_no_other() {
    let output = tributary().arg("check-config").output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let mut actual = BTreeMap::new();
    flatten("", &printed.parse().unwrap(), &mut actual);
    assert_eq!(table("configuration.md", |_| true), actual);
}

#[test]
fn every_metric_is_documented_with_its_kind_and_no_other() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    // The figures of links are only there if there is one.
    let config = temp.path().join("config.toml");
    let key = temp.path().join("key");
    fs::write(&key, "a secret of more than sixteen bytes").unwrap();
    fs::write(&config, format!("mesh.key_file = {key:?}\n[[link]]\nname = 'us'\n")).unwrap();
    let mut server = Running(
        tributary()
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(&data)
            .arg("--config")
            .arg(&config)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let (_, address) = line.trim().split_once("ws://").expect("the line has the address");

    let mut socket = TcpStream::connect(address).unwrap();
    write!(socket, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let actual: BTreeMap<String, String> = answer
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| {
            // A counter's family goes by its name, its figure by this one.
            let suffix = if kind == "counter" { "_total" } else { "" };
            (format!("{name}{suffix}"), kind.to_owned())
        })
        .collect();
    assert!(!actual.is_empty(), "{answer}");
    assert_eq!(table("operations.md", |name| name.starts_with("tributary_")), actual);
}

/// A server that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
