//! `tributary`: a sync server for Automerge documents.

mod archive_pool;
mod backup;
mod board;
mod cli;
mod committer;
mod config;
mod exit;
mod http;
mod machine;
mod metrics;
mod page;
mod progress;
mod regions;
mod rest;
mod serve;
mod socket;
mod status;
mod stores;
mod tools;

/// The system's allocator keeps what a large document needed for a moment; this one gives it back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::run()
}
