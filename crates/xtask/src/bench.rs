//! `cargo xtask bench`: builds the servers and the load generator, then lets it measure.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::test::cargo;

/// Options of the command.
#[derive(clap::Args)]
pub struct Options {
    /// Only this row, or all whose names start so (may be repeated): fan-out, length,
    /// many-documents, storm, idle, stored, trace, rest, and between regions mesh-keystroke, mesh-egress,
    /// mesh-catch-up, mesh-discovery, mesh-audit, mesh-three.
    #[arg(long, value_name = "ROW")]
    only: Vec<String>,
    /// Only this server (may be repeated): tributary, automerge-repo, samod, hocuspocus.
    #[arg(long, value_name = "NAME")]
    server: Vec<String>,
    /// Short and small, to see that all of it works. Writes no page.
    #[arg(long)]
    quick: bool,
    /// Write `docs/benchmarks.md` also after a run of some rows or servers, with what earlier runs
    /// have measured of the others. A full run always writes it.
    #[arg(long)]
    write: bool,
    /// The recording that is typed.
    #[arg(long, value_name = "FILE", default_value = "../shared/data/automerge-paper.json.gz")]
    trace: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// If something does not build or install, or the load generator cannot run. A server that fails
/// under load is a result, not an error.
pub fn run(options: &Options) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = root.canonicalize().map_err(|error| error.to_string())?;
    let wanted =
        |name: &str| options.server.is_empty() || options.server.iter().any(|it| it == name);
    let peers = root.join("crates/load/peers");

    if wanted("automerge-repo") || wanted("hocuspocus") {
        install(&peers)?;
    }
    // The whole workspace, like `cargo build --release`: other packages would want their dependencies
    // with other features, and all of them would be built once more.
    let mut build = vec!["build", "--release", "--workspace"];
    if wanted("samod") {
        build.extend(["--features", "tributary-load/samod-peer"]);
    }
    succeed(cargo(&root).args(build))?;

    let target = crate::test::target(&root);
    let mut load = Command::new(target.join("release/tributary-load"));
    load.current_dir(&root).arg("--trace").arg(&options.trace);
    load.arg("--binaries").arg(target.join("release"));
    load.arg("--peers").arg(&peers);
    load.arg("--out").arg(target.join("bench"));
    load.args(options.only.iter().flat_map(|row| ["--only", row]));
    load.args(options.server.iter().flat_map(|name| ["--server", name]));
    if options.quick {
        load.arg("--quick");
    }
    if options.write || (options.only.is_empty() && options.server.is_empty()) {
        load.arg("--page").arg(root.join("docs/benchmarks.md"));
    }
    succeed(&mut load)
}

/// Installs the Node servers as the lock file says, unless that was done.
fn install(peers: &Path) -> Result<(), String> {
    let installed = peers.join("node_modules/.installed");
    let lock = fs::read(peers.join("package-lock.json")).map_err(|error| error.to_string())?;
    if fs::read(&installed).is_ok_and(|of| of == lock) {
        return Ok(());
    }
    succeed(Command::new("npm").arg("ci").current_dir(peers))?;
    fs::write(installed, lock).map_err(|error| error.to_string())
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{name} ended with {status}")),
        Err(error) => Err(format!("{name} does not run: {error}")),
    }
}
