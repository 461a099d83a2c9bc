//! The project's own commands: `cargo xtask test`, `cargo xtask bench`, `cargo xtask soak`,
//! `cargo xtask demo`.

mod bench;
mod demo;
mod rest;
mod soak;
mod test;

use std::process::ExitCode;

use clap::Parser;

/// The project's own commands.
#[derive(Parser)]
enum Command {
    /// Installs what the tests need and runs every one of them.
    Test(test::Options),
    /// Starts this server and its peers one after the other, and prints one table.
    Bench(bench::Options),
    /// Runs three regions for a while to which everything happens, and sees whether they agree.
    Soak(soak::Options),
    /// Runs three regions on this machine and a page on which to see them; ends with ctrl-C.
    Demo(demo::Options),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Test(options) => test::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Demo(options) => demo::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("xtask: {reason}");
            ExitCode::FAILURE
        }
    }
}
