//! The tables that operators read, held against what the program says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The first two cells of each row of the tables of a page, without backquotes, if the first cell is
/// in backquotes and `wanted`.
fn table(page: &str, wanted: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
    let text = self::page(page);
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

/// A page of the documentation.
fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)).unwrap()
}

#[test]
fn whoever_operates_a_region_reads_of_every_key() {
    let output = tributary().arg("check-config").output().unwrap();
    let mut keys = BTreeMap::new();
    flatten("", &String::from_utf8(output.stdout).unwrap().parse().unwrap(), &mut keys);
    let page = page("operations.md");
    let (_, limits) = page.split_once("\n## Limits\n").unwrap();
    let limits = limits.split("\n## ").next().unwrap();
    let missing: Vec<_> = keys.keys().filter(|key| !limits.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // And of none that there is not: a section's name, a dot, a word.
    let sections: BTreeSet<_> =
        keys.keys().filter_map(|key| key.split_once('.')).map(|k| k.0).collect();
    for quoted in page.split('`').skip(1).step_by(2) {
        let is_key = quoted.split_once('.').is_some_and(|(section, key)| {
            sections.contains(section)
                && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
                && key != "json"
        });
        assert!(!is_key || keys.contains_key(quoted), "there is no key {quoted}");
    }
}

#[test]
fn the_exit_codes_of_the_page_are_those_of_the_program() {
    let help = String::from_utf8(tributary().arg("--help").output().unwrap().stdout).unwrap();
    let (_, said) = help.split_once("Exit codes: ").unwrap();
    let said = said.split("\n\n").next().unwrap();
    let said: Vec<_> = said.split(';').filter_map(|code| code.trim().chars().next()).collect();
    let page = page("operations.md");
    let (_, table) = page.split_once("\n## Exit codes\n").unwrap();
    let table = table.split("\n## ").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.chars().next());
    let written: Vec<_> = rows.filter(char::is_ascii_digit).collect();
    assert_eq!(written, said);
}

#[test]
fn every_command_and_flag_that_a_page_tells_to_type_is_there() {
    let help = |command: &str| {
        let output = tributary().args([command, "--help"]).output().unwrap();
        assert!(output.status.success(), "there is no command {command}");
        String::from_utf8(output.stdout).unwrap()
    };
    let mut commands = BTreeMap::new();
    for name in ["operations.md", "configuration.md", "mesh.md", "rest.md", "testing.md"] {
        let page = page(name);
        // What is to be typed: in blocks of shell, and in quotes.
        let blocks = page.split("```").skip(1).step_by(2).filter(|block| block.starts_with("sh\n"));
        let typed = blocks.flat_map(str::lines).filter(|line| !line.contains("systemctl"));
        let quoted = page.lines().filter(|line| !line.starts_with("```"));
        let quoted = quoted.flat_map(|line| line.split('`').skip(1).step_by(2));
        for line in typed.chain(quoted.filter(|quoted| quoted.starts_with("tributary "))) {
            let line = line.trim_start_matches("nice ").trim_start_matches("./");
            let Some(rest) =
                line.strip_prefix("tributary ").or(line.strip_prefix("tributary-new "))
            else {
                continue;
            };
            let mut words = rest.split_whitespace();
            let command = words.next().unwrap();
            if command.starts_with('-') || command == "archive-worker" {
                continue;
            }
            let known = commands.entry(command.to_owned()).or_insert_with(|| help(command));
            for flag in words.filter(|word| word.starts_with("--")) {
                assert!(known.contains(&format!("{flag} ")), "{name}: {line}: {flag}");
            }
        }
    }
    assert!(["backup", "restore", "verify", "serve"].iter().all(|c| commands.contains_key(*c)));
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
