//! `cargo xtask test`: installs what the tests need and runs every one of them.

use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// The longest that one command of a step may take where nobody watches. The longest takes a third of
/// it on two cores, with everything still to build.
const COMMAND_MAX: Duration = Duration::from_secs(45 * 60);
/// How often it is looked whether a command has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Options of the command.
#[derive(clap::Args)]
pub struct Options {
    /// Runs only the step with this name (may be repeated)
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
}

/// One thing that has to hold.
struct Step {
    name: &'static str,
    what: &'static str,
    run: fn(&Path) -> Result<(), String>,
}

/// In the order in which a mistake costs least time to find.
const STEPS: &[Step] = &[
    Step { name: "format", what: "the code is formatted", run: format },
    Step { name: "clippy", what: "no lint complains", run: clippy },
    Step { name: "docs", what: "the documentation builds without warnings", run: docs },
    Step { name: "rust", what: "unit, property, simulation and process tests", run: rust },
    Step { name: "rest", what: "Schemathesis against the description of REST", run: rest },
    Step { name: "interop", what: "stock JavaScript clients against the server", run: interop },
    Step { name: "demo", what: "the demo in Chromium", run: crate::demo::test },
];

/// Runs the command.
///
/// # Errors
/// The name of the first step that fails.
pub fn run(options: &Options) -> Result<(), String> {
    if let Some(unknown) =
        options.only.iter().find(|name| STEPS.iter().all(|step| step.name != **name))
    {
        let names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        return Err(format!("no step is called '{unknown}'; there are {}", names.join(", ")));
    }
    let root = root();
    let mut report = Vec::new();
    for step in STEPS {
        if !options.only.is_empty() && !options.only.iter().any(|name| name == step.name) {
            continue;
        }
        println!("\n=== {}: {} ===", step.name, step.what);
        let started = Instant::now();
        let result = (step.run)(&root);
        let seconds = started.elapsed().as_secs();
        match result {
            Ok(()) => report.push(format!("{:>8}  {:>4} s", step.name, seconds)),
            Err(why) => {
                return Err(format!("step '{}' failed after {seconds} s: {why}", step.name));
            }
        }
    }
    println!("\n{}\nall steps passed", report.join("\n"));
    Ok(())
}

fn root() -> PathBuf {
    // crates/xtask is two levels below the workspace.
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("a workspace").to_owned()
}

fn format(root: &Path) -> Result<(), String> {
    done(cargo(root).args(["fmt", "--all", "--check"]))
}

fn clippy(root: &Path) -> Result<(), String> {
    let arguments = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
    done(cargo(root).args(arguments))
}

fn docs(root: &Path) -> Result<(), String> {
    let mut command = cargo(root);
    done(
        command
            .args(["doc", "--workspace", "--no-deps", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}

fn rust(root: &Path) -> Result<(), String> {
    build(root)?;
    done(cargo(root).args(["test", "--workspace", "--no-fail-fast"]))
}

fn rest(root: &Path) -> Result<(), String> {
    build(root)?;
    crate::rest::run(root)
}

fn interop(root: &Path) -> Result<(), String> {
    build(root)?;
    let folder = root.join("tests/interop");
    done(npm(&folder).args(["run", "setup"]))?;
    done(npm(&folder).args(["test"]))
}

/// Where cargo, which runs in the root of the workspace, puts what it builds.
pub fn target(root: &Path) -> PathBuf {
    // An absolute path replaces the root.
    root.join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// Builds the tests, and the binaries that they and other steps start, before any of them runs.
///
/// Always all of the workspace: with only some packages named, what these share with the others has
/// fewer features, and half of all there is would be built once more.
///
/// # Errors
/// When something does not build.
pub fn build(root: &Path) -> Result<(), String> {
    done(cargo(root).args(["test", "--workspace", "--no-run", "--quiet"]))
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

fn npm(folder: &Path) -> Command {
    let mut command = Command::new("npm");
    command.current_dir(folder);
    command
}

/// Runs a command to its end.
///
/// Where nobody sits in front of it, one that takes longer than [`COMMAND_MAX`] is ended with all it
/// has started: a test that hangs is to fail by name, and not by the patience of whoever runs this.
/// At a terminal it is left alone, and stays in the terminal's group, so that ctrl-C reaches it.
///
/// # Errors
/// When it cannot be started, does not end well, or does not end.
pub fn done(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let unwatched = !std::io::stdin().is_terminal();
    if unwatched {
        command.process_group(0);
    }
    let started = Instant::now();
    let mut child =
        command.spawn().map_err(|error| format!("{name} cannot be started: {error}"))?;
    loop {
        match child.try_wait().map_err(|error| format!("{name} is lost: {error}"))? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("{name} ended with {status}")),
            None if unwatched && started.elapsed() > COMMAND_MAX => {
                let group = format!("-{}", child.id());
                let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
                let _ = child.wait();
                return Err(format!("{name} did not end within {} s", COMMAND_MAX.as_secs()));
            }
            None => thread::sleep(LOOK_EVERY),
        }
    }
}
