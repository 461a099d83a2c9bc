//! The step `rest`: Schemathesis, from PyPI, tries what the server's OpenAPI description allows, and
//! what it does not.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::test::target;

/// The document that exists before anything is tried. Also in `known-document.toml`.
const KNOWN: &str = "p3u5PhN9wrNpsGCwfkeef2LzF9";
/// What has to hold of every answer.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance";
/// How many requests each operation gets in each of the two rounds.
const EXAMPLES: &str = "60";

/// Runs the step; the server has been built.
///
/// # Errors
/// What could not be installed or started, or that an answer was wrong.
pub fn run(root: &Path) -> Result<(), String> {
    let tools = install(root)?;
    let server = Server::start(root)?;
    // Ids made up by the tool are nearly never those of documents, so a round on one that exists.
    let known = root.join("tests/schemathesis/known-document.toml");
    for config in [Some(known), None] {
        let mut command = Command::new(tools.join("bin/st"));
        if let Some(config) = config {
            command.arg("--config-file").arg(config);
        }
        command
            .arg("run")
            .arg(format!("{}/v1/openapi.json", server.url))
            .args(["--checks", CHECKS, "--max-examples", EXAMPLES, "--workers", "2"])
            .args(["--phases", "examples,coverage,fuzzing", "--seed", "1"])
            .args(["--continue-on-failure", "--warnings", "off", "--no-color"])
            // Streams have no end; they are tested in tests/tests/rest.rs.
            .args(["--exclude-path-regex", "events$", "--request-timeout", "60"])
            .env("SCHEMATHESIS_HOOKS", root.join("tests/schemathesis/hooks.py"))
            .env("TRIBUTARY_DOCUMENT", format!("{}/v1/documents/{KNOWN}", server.url))
            // It keeps its examples beside where it runs.
            .current_dir(&tools);
        crate::test::done(&mut command)?;
    }
    Ok(())
}

/// A Python environment of our own below the target folder, made once.
fn install(root: &Path) -> Result<PathBuf, String> {
    let folder = target(root).join("schemathesis");
    let requirements = root.join("tests/schemathesis/requirements.txt");
    if !folder.join("bin/pip").is_file() {
        let made = crate::test::done(Command::new("python3").args(["-m", "venv"]).arg(&folder));
        made.map_err(|why| format!("{why}: this step needs Python 3.10 or newer, with venv"))?;
    }
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "-r"]).arg(requirements);
    crate::test::done(&mut pip)?;
    Ok(folder)
}

/// A server on an empty store; it ends with this.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(root: &Path) -> Result<Self, String> {
        let data = target(root).join("schemathesis-data");
        if data.exists() {
            std::fs::remove_dir_all(&data).map_err(|why| format!("{}: {why}", data.display()))?;
        }
        let child = Command::new(target(root).join("debug/tributary"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(&data)
            .env("TRIBUTARY_LOG__FILTER", "error")
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|why| format!("the server does not start: {why}"))?;
        let mut server = Self { child, url: String::new() };
        let mut line = String::new();
        if let Some(output) = server.child.stdout.take() {
            let read = BufReader::new(output).read_line(&mut line);
            read.map_err(|why| format!("the server does not speak: {why}"))?;
        }
        let (_, address) = line.split_once("ws://").ok_or("the server does not listen")?;
        server.url = format!("http://{}", address.trim());
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
