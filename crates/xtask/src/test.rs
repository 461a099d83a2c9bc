//! `cargo xtask test`: installs what the tests need and runs every one of them.

use std::ffi::OsString;
use std::fs::File;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
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
    Step { name: SEEDS, what: "thousands of runs in which everything goes wrong", run: seeds },
];
/// The step that needs nothing but a processor. The others wait for sockets, disks and clocks half of
/// the time, so it begins before them, gets what they leave, and is waited for at the end.
const SEEDS: &str = "seeds";
/// Before which step it begins: what is compiled is compiled by then.
const SEEDS_BEGIN_AT: &str = "rust";

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
    let wanted =
        |step: &&Step| options.only.is_empty() || options.only.iter().any(|name| name == step.name);
    let mut report = Vec::new();
    let mut behind = None;
    for step in STEPS.iter().filter(wanted) {
        println!("\n=== {}: {} ===", step.name, step.what);
        let started = Instant::now();
        // At a terminal ctrl-C would not reach what is behind, so nothing is.
        if step.name == SEEDS_BEGIN_AT && options.only.is_empty() && !is_watched() {
            behind = Some(Behind::begin(&root)?);
        }
        let result = match behind.take_if(|_| step.name == SEEDS) {
            Some(behind) => behind.end(),
            None => (step.run)(&root),
        };
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
    // With the examples, because then dependencies have the features that they have in tests, and what
    // clippy has checked of them is not checked once more.
    let arguments = ["doc", "--workspace", "--no-deps", "--lib", "--bins", "--examples", "--quiet"];
    done(cargo(root).args(arguments).env("RUSTDOCFLAGS", "-D warnings"))
}

fn rust(root: &Path) -> Result<(), String> {
    build(root)?;
    done(cargo(root).args(["test", "--workspace", "--no-fail-fast"]))
}

fn seeds(root: &Path) -> Result<(), String> {
    build(root)?;
    done(cargo(root).args(SEED_TESTS))
}

const SEED_TESTS: [&str; 6] =
    ["test", "--workspace", "--test", "seeds", "--test", "planted_between"];

/// The seeds, while other steps run.
struct Behind {
    running: Running,
    output: PathBuf,
}

impl Behind {
    fn begin(root: &Path) -> Result<Self, String> {
        build(root)?;
        done(cargo(root).args(SEED_TESTS).args(["--no-run", "--quiet"]))?;
        let output = target(root).join("seeds.log");
        let file = File::create(&output).map_err(|error| format!("{output:?}: {error}"))?;
        let errors = file.try_clone().map_err(|error| format!("{output:?}: {error}"))?;
        let mut command = with_cargo(Command::new("nice"), root);
        command.args(["-n", "19"]).arg(program()).args(SEED_TESTS);
        command.stdout(file).stderr(errors);
        Ok(Self { running: Running::start(&mut command)?, output })
    }

    fn end(mut self) -> Result<(), String> {
        // So far it had what others left.
        self.running.started = Instant::now();
        let result = self.running.end();
        print!("{}", std::fs::read_to_string(&self.output).unwrap_or_default());
        result
    }
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

/// Cargo, in the root of the workspace.
pub fn cargo(root: &Path) -> Command {
    with_cargo(Command::new(program()), root)
}

/// A command that is cargo, or starts it, in the root of the workspace.
///
/// What cargo tells of the package that it runs, here this one, is kept from it: the build of `ring`
/// depends on those variables, and it and all that is above it would be built once more.
fn with_cargo(mut command: Command, root: &Path) -> Command {
    command.current_dir(root);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

fn program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
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
    Running::start(command)?.end()
}

/// Whether somebody sits in front of it.
fn is_watched() -> bool {
    std::io::stdin().is_terminal()
}

/// A command that runs.
struct Running {
    name: String,
    child: Child,
    started: Instant,
    /// It has a group of its own, and an end.
    apart: bool,
}

impl Running {
    fn start(command: &mut Command) -> Result<Self, String> {
        let apart = !is_watched();
        if apart {
            command.process_group(0);
        }
        let name = command.get_program().to_string_lossy().into_owned();
        let child =
            command.spawn().map_err(|error| format!("{name} cannot be started: {error}"))?;
        Ok(Self { name, child, started: Instant::now(), apart })
    }

    fn end(mut self) -> Result<(), String> {
        loop {
            let name = &self.name;
            match self.child.try_wait().map_err(|error| format!("{name} is lost: {error}"))? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("{name} ended with {status}")),
                None if self.apart && self.started.elapsed() > COMMAND_MAX => {
                    return Err(format!("{name} did not end within {} s", COMMAND_MAX.as_secs()));
                }
                None => thread::sleep(LOOK_EVERY),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.apart && matches!(self.child.try_wait(), Ok(None)) {
            let group = format!("-{}", self.child.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            let _ = self.child.wait();
        }
    }
}
