//! `cargo xtask soak`: three regions to which everything happens, for as long as one likes.

use std::path::Path;
use std::process::Command;

use crate::test::cargo;

/// Options of the command.
#[derive(clap::Args)]
pub struct Options {
    /// For how long.
    #[arg(long, value_name = "N", default_value_t = 10)]
    minutes: u64,
    /// What happens is drawn from it; a run says which one it had.
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// With the binary as it is run, and not the one for tests.
    #[arg(long)]
    release: bool,
}

/// Runs the command.
///
/// # Errors
/// When regions lost something or did not agree; the run has said what.
pub fn run(options: &Options) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut test = cargo(&root);
    if options.release {
        succeed(cargo(&root).args(["build", "--release", "--package", "tributary"]))?;
        let target = crate::test::target(&root);
        test.env("TRIBUTARY_BIN", target.join("release/tributary"));
    }
    test.args(["test", "--workspace", "--test", "soak", "--", "--nocapture"]);
    test.env("SOAK_MINUTES", options.minutes.to_string());
    if let Some(seed) = options.seed {
        test.env("SOAK_SEED", seed.to_string());
    }
    succeed(&mut test)
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{name} ended with {status}")),
        Err(error) => Err(format!("{name} does not run: {error}")),
    }
}
