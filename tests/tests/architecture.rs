//! The directions between the crates are a table in `docs/architecture.md`; this holds them to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use serde_json::Value;
use tributary_tests::workspace;

type Table = BTreeMap<String, BTreeSet<String>>;

/// Crates that one part of the workspace keeps from all others: `(crate, who may use it)`.
///
/// The load generator is a program of its own that drives several servers, and the network between
/// processes is another; nothing of the server depends on them.
const KEPT: [(&str, &[&str]); 8] = [
    ("minicbor", &["tributary-wire"]),
    ("sled", &["tributary-store-sled"]),
    ("rusqlite", &["tributary-store-sqlite"]),
    ("tokio", &["tributary", "tributary-load", "tributary-wan"]),
    ("axum", &["tributary", "tributary-load", "tributary-wan"]),
    ("hyper", &["tributary", "tributary-load"]),
    ("tracing", &["tributary"]),
    ("figment", &["tributary"]),
];

/// What the sans-IO crates must not name in their sources: a clock, a socket, a file, a thread,
/// chance, or a map whose order differs from run to run.
const ABSENT: [&str; 8] = [
    "Instant::now",
    "SystemTime",
    "std::net",
    "std::fs",
    "std::thread",
    "std::process",
    "rand::",
    "RandomState",
];
const SANS_IO: [&str; 6] = ["model", "wire", "history", "sync", "mesh", "node"];

/// Every package of the workspace, and what `wanted` finds among its normal dependencies.
fn dependencies(mut wanted: impl FnMut(&Value) -> bool) -> Table {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(workspace())
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let name = |value: &Value| value["name"].as_str().expect("everything has a name").to_owned();
    let packages = metadata["packages"].as_array().expect("a list of packages");
    packages
        .iter()
        .map(|package| {
            let used = package["dependencies"].as_array().expect("a list of dependencies");
            // Tests and build scripts may use anything: `kind` is null for the rest.
            let used = used.iter().filter(|used| used["kind"].is_null() && wanted(used));
            (name(package), used.map(name).collect())
        })
        .collect()
}

/// The table between the markers: `| crate | may use |`.
fn documented() -> Table {
    let path = workspace().join("docs/architecture.md");
    let text = fs::read_to_string(path).expect("the architecture is written down");
    let (_, table) = text.split_once("<!-- dependencies -->").expect("the table has a marker");
    let (table, _) = table.split_once("<!-- /dependencies -->").unwrap_or((table, ""));
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        let mut cells = row.trim_matches('|').split('|').map(|cell| cell.replace('`', ""));
        let name = cells.next().expect("a row has cells").trim().to_owned();
        let uses = cells.next().unwrap_or_default();
        let uses = uses.split(',').map(str::trim).filter(|name| !name.is_empty());
        (name, uses.map(str::to_owned).collect())
    })
    .collect()
}

#[test]
fn every_crate_uses_what_the_table_says_and_nothing_else() {
    let documented = documented();
    let actual = dependencies(|used| !used["path"].is_null());
    for (name, used) in &actual {
        let allowed = documented.get(name).unwrap_or_else(|| panic!("{name} has no row"));
        let more: Vec<_> = used.difference(allowed).collect();
        let fewer: Vec<_> = allowed.difference(used).collect();
        assert!(more.is_empty(), "{name} uses {more:?}, against the table");
        assert!(fewer.is_empty(), "{name} no longer uses {fewer:?}: the table is stale");
    }
    for name in documented.keys() {
        assert!(actual.contains_key(name), "the table has a row for {name}, which does not exist");
    }
}

#[test]
fn what_one_crate_keeps_to_itself_no_other_uses() {
    let actual = dependencies(|_| true);
    for (kept, allowed) in KEPT {
        let users = actual.iter().filter(|(_, used)| used.contains(kept));
        let users: Vec<_> = users.map(|(name, _)| name.as_str()).collect();
        assert!(!users.is_empty(), "nobody uses {kept}: this list is stale");
        let strangers: Vec<_> = users.iter().filter(|name| !allowed.contains(name)).collect();
        assert!(strangers.is_empty(), "{kept} is used by {strangers:?}");
    }
}

#[test]
fn the_sans_io_crates_have_no_clock_no_socket_no_file_no_thread_and_no_chance() {
    let mut found = Vec::new();
    for name in SANS_IO {
        let mut folders = vec![workspace().join("crates").join(name).join("src")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("the crate has sources") {
                let path = entry.expect("it can be listed").path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = fs::read_to_string(&path).expect("sources are text");
                // Tests are at the bottom of a file, and may do what they like.
                let code = text.split("#[cfg(test)]").next().unwrap_or_default();
                let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
                for absent in ABSENT {
                    if lines.clone().any(|line| line.contains(absent)) {
                        found.push(format!("{} names {absent}", path.display()));
                    }
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
