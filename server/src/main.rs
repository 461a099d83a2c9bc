//! `tributary`: a sync server for Automerge documents.

mod archive_pool;
mod cli;
mod committer;
mod config;
mod exit;
mod http;
mod machine;
mod metrics;
mod serve;
mod socket;
mod stores;
mod tools;

fn main() -> std::process::ExitCode {
    cli::run()
}
