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
    Step { name: PROCESSES.step, what: "real processes, disks and wires", run: processes },
    Step { name: SEEDS.step, what: "thousands of runs in which everything goes wrong", run: seeds },
];

/// Tests that are a step of their own. They begin before others, run beside them, and are waited for
/// at their own turn.
struct Beside {
    step: &'static str,
    niceness: &'static str,
    tests: &'static [&'static str],
}

/// These wait for sockets, disks and clocks most of the time.
const PROCESSES: Beside = Beside {
    step: "processes",
    niceness: "0",
    tests: &[
        "backup",
        "clients_in_bad_faith",
        "disk",
        "hostile_regions",
        "mesh",
        "mesh_large",
        "process",
        "soak",
    ],
};
/// These need nothing but a processor, and get what others leave of it.
const SEEDS: Beside =
    Beside { step: "seeds", niceness: "19", tests: &["seeds", "planted_between"] };
/// Before which step they begin: what is compiled is compiled by then.
const BESIDE_FROM: &str = "rust";

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
    let mut beside: Vec<Running> = Vec::new();
    for step in STEPS.iter().filter(wanted) {
        println!("\n=== {}: {} ===", step.name, step.what);
        let started = Instant::now();
        // At a terminal ctrl-C would not reach what is beside, so nothing is.
        if step.name == BESIDE_FROM && options.only.is_empty() && !is_watched() {
            beside = begin(&root, [&PROCESSES, &SEEDS])?;
        }
        let result = match beside.iter().position(|running| running.name == step.name) {
            Some(at) => beside.remove(at).end_beside(&root),
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

fn processes(root: &Path) -> Result<(), String> {
    build(root)?;
    done(cargo(root).args(PROCESSES.arguments()))
}

fn seeds(root: &Path) -> Result<(), String> {
    build(root)?;
    done(cargo(root).args(SEEDS.arguments()))
}

impl Beside {
    /// For cargo.
    fn arguments(&self) -> Vec<&'static str> {
        let tests = self.tests.iter().flat_map(|test| ["--test", *test]);
        ["test", "--workspace", "--no-fail-fast"].into_iter().chain(tests).collect()
    }
}

/// Where a step beside others says meanwhile what it does.
fn output(root: &Path, step: &str) -> PathBuf {
    target(root).join(format!("{step}.log"))
}

/// Builds all of these tests, and then begins them.
fn begin<'a>(
    root: &Path,
    all: impl IntoIterator<Item = &'a Beside> + Clone,
) -> Result<Vec<Running>, String> {
    build(root)?;
    for beside in all.clone() {
        done(cargo(root).args(beside.arguments()).args(["--no-run", "--quiet"]))?;
    }
    let begin = |beside: &Beside| {
        let output = output(root, beside.step);
        let file = File::create(&output).map_err(|error| format!("{output:?}: {error}"))?;
        let errors = file.try_clone().map_err(|error| format!("{output:?}: {error}"))?;
        let mut command = with_cargo(Command::new("nice"), root);
        command.args(["-n", beside.niceness]).arg(program()).args(beside.arguments());
        command.stdout(file).stderr(errors);
        let mut running = Running::start(&mut command)?;
        running.name = beside.step.to_owned();
        Ok(running)
    };
    all.into_iter().map(begin).collect()
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

impl Running {
    /// Waits for what ran beside other steps, and shows what it said.
    fn end_beside(mut self, root: &Path) -> Result<(), String> {
        let output = output(root, &self.name);
        // So far it had what others left.
        self.started = Instant::now();
        let result = self.end();
        print!("{}", std::fs::read_to_string(output).unwrap_or_default());
        result
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
