//! `cargo xtask bench`.

/// Options of the command.
#[derive(clap::Args)]
pub struct Options {}

/// Runs the command.
pub fn run(_options: &Options) -> Result<(), String> {
    Err("not there yet".to_owned())
}
