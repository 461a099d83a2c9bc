//! `cargo xtask test`: installs what the tests need and runs every one of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

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
    // The binary first: tests outside its package start it.
    done(cargo(root).args(["build", "--package", "tributary"]))?;
    done(cargo(root).args(["test", "--workspace", "--no-fail-fast"]))
}

fn rest(root: &Path) -> Result<(), String> {
    done(cargo(root).args(["build", "--package", "tributary"]))?;
    crate::rest::run(root)
}

fn interop(root: &Path) -> Result<(), String> {
    done(cargo(root).args(["build", "--package", "tributary"]))?;
    let folder = root.join("tests/interop");
    done(npm(&folder).args(["run", "setup"]))?;
    done(npm(&folder).args(["test"]))
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
/// # Errors
/// When it cannot be started, or does not end well.
pub fn done(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{name} ended with {status}")),
        Err(error) => Err(format!("{name} cannot be started: {error}")),
    }
}
