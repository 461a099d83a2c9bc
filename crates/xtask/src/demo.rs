//! `cargo xtask demo`: three regions on this machine, the network between them, and a page to see it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::test::{cargo, done};

/// Options of the command.
#[derive(clap::Args)]
pub struct Options {
    /// Where the page and the regions listen.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    host: String,
    /// The page's port; 0 for one that is free.
    #[arg(long, value_name = "PORT", default_value_t = 4460)]
    port: u16,
    /// With binaries for tests: built sooner, slower.
    #[arg(long)]
    debug: bool,
    /// The recording that is replayed when everyone types, as in github.com/josephg/editing-traces;
    /// the default is used if it is there, and else what was written down for the demo.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

/// Where recordings are beside this repository, for those who have them.
const TRACE: &str = "../shared/data/automerge-paper.json.gz";

/// Runs the command; it ends with ctrl-C.
///
/// # Errors
/// If something does not build or install, or the supervisor ends by itself.
pub fn run(options: &Options) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = root.canonicalize().map_err(|error| error.to_string())?;
    build_binaries(&root, !options.debug)?;
    build_page(&root)?;
    let profile = if options.debug { "debug" } else { "release" };
    let mut supervisor = Command::new("node");
    supervisor.current_dir(root.join("web-demo")).arg("server/demo.mjs");
    supervisor.arg("--binaries").arg(binaries(&root, profile));
    supervisor.args(["--host", &options.host, "--port", &options.port.to_string()]);
    let given = options.trace.as_ref().map(|path| path.canonicalize().unwrap_or(path.clone()));
    let default = root.join(TRACE);
    if let Some(trace) = given.or_else(|| default.exists().then_some(default)) {
        supervisor.arg("--trace").arg(trace);
    }
    match supervisor.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the demo ended with {status}")),
        Err(error) => {
            Err(format!("node cannot be started ({error}); the demo needs Node 20 or newer"))
        }
    }
}

/// Builds the server and the network's proxy.
///
/// # Errors
/// When one does not build.
pub fn build_binaries(root: &Path, release: bool) -> Result<(), String> {
    let mut cargo = cargo(root);
    cargo.args(["build", "--package", "tributary", "--package", "tributary-wan"]);
    if release {
        cargo.arg("--release");
    }
    done(&mut cargo)
}

/// Installs what the page needs as its lock file says, checks its types and builds it.
///
/// # Errors
/// When npm is not there, or says that something is wrong.
pub fn build_page(root: &Path) -> Result<(), String> {
    let folder = root.join("web-demo");
    for arguments in [&["ci"][..], &["run", "check"], &["run", "build"]] {
        done(Command::new("npm").args(arguments).current_dir(&folder))?;
    }
    Ok(())
}

/// The directory of the binaries of a profile.
pub fn binaries(root: &Path, profile: &str) -> PathBuf {
    crate::test::target(root).join(profile)
}

/// The path of Chromium; installs Debian's package where that is allowed.
///
/// # Errors
/// What to install, when it is not there and cannot be installed from here.
pub fn chromium() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("CHROMIUM") {
        return Ok(path.into());
    }
    let find = || {
        ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
            .into_iter()
            .map(PathBuf::from)
            .find(|path| path.exists())
    };
    if let Some(path) = find() {
        return Ok(path);
    }
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
    if is_root && Path::new("/usr/bin/apt-get").exists() {
        let apt = |arguments: &[&str]| {
            done(
                Command::new("timeout")
                    .args(["600", "apt-get", "-qq"])
                    .args(arguments)
                    .env("DEBIAN_FRONTEND", "noninteractive"),
            )
        };
        // One of several package sources that does not answer need not be the one with Chromium; and
        // what counts is whether it is there afterwards.
        let _ = apt(&["update"]);
        let _ = apt(&["install", "--yes", "--no-install-recommends", "chromium"]);
    }
    find().ok_or_else(|| {
        "the demo's test needs Chromium: install the package `chromium` (apt-get install chromium), or \
         set CHROMIUM to its path"
            .to_owned()
    })
}

/// Runs the demo in Chromium; screenshots are in `target/demo-screenshots` afterwards.
///
/// # Errors
/// When something is not to be had, or the demo does not do what it should.
pub fn test(root: &Path) -> Result<(), String> {
    let chromium = chromium()?;
    crate::test::build(root)?;
    build_page(root)?;
    let folder = root.join("tests/demo");
    done(Command::new("npm").arg("ci").current_dir(&folder))?;
    // The test has a limit of its own; this one is for a test that cannot keep it.
    done(
        Command::new("timeout")
            .args(["--kill-after=10", "100", "npm", "test"])
            .current_dir(&folder)
            .env("CHROMIUM", chromium)
            .env("BINARIES", binaries(root, "debug"))
            .env("SCREENSHOTS", binaries(root, "demo-screenshots")),
    )
}
