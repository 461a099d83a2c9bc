//! The command line. Its words are a contract: scripts depend on them.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::archive_pool::WORKER_COMMAND;
use crate::config::{Config, Flags, LogFormat};
use crate::exit::Failure;
use crate::serve;
use crate::status::Lines;
use crate::tools::{
    self, BackupArgs, ExportArgs, ImportArgs, InspectArgs, LinksArgs, RestoreArgs, StoreFlags,
    TopArgs,
};

/// A CRDT document sync server: Automerge documents, kept durably, for stock automerge-repo clients.
///
/// Exit codes: 0 all is well; 1 something was found (damage, nothing to import, no region that
/// answers); 2 the command line or the configuration makes no sense; 3 the store cannot be opened; 4 the
/// store failed while the server ran, or a copy cannot be written; 5 the address cannot be listened on.
#[derive(Parser)]
#[command(name = "tributary", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a region; what plain `tributary` does
    Serve {
        #[command(flatten)]
        flags: Flags,
    },
    /// Prints the configuration that is in force, as a config file
    CheckConfig {
        #[command(flatten)]
        flags: Flags,
    },
    /// Reads everything in a store, applies every document with Automerge, and says what is wrong
    Verify {
        #[command(flatten)]
        flags: StoreFlags,
    },
    /// Writes one document as an Automerge file, or a whole store as an automerge-repo directory
    Export(ExportArgs),
    /// Takes in an Automerge file, an export, or an automerge-repo (NodeFS) directory
    Import(ImportArgs),
    /// Copies a whole store, of a running region or of a directory, so that the copy is of one moment
    Backup(BackupArgs),
    /// Fills a new data directory from a backup, and verifies it
    Restore(RestoreArgs),
    /// Prints what a running region has of one document: heads, history, who is connected, value
    Inspect(InspectArgs),
    /// Shows how a running region is, live on a terminal
    Top(TopArgs),
    /// Asks a running region how its links to other regions are
    Links(LinksArgs),
    /// Opens documents for the server, in a process with limits of its own
    #[command(name = WORKER_COMMAND, hide = true)]
    ArchiveWorker,
}

/// Does what the command line says.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // clap exits with 2 for mistakes and 0 for --help, as ours would.
        Err(error) => error.exit(),
    };
    let result = match cli.command.unwrap_or(Command::Serve { flags: cli.flags }) {
        Command::ArchiveWorker => {
            return archive::worker::serve(std::io::stdin(), std::io::stdout()).exit_code();
        }
        Command::Serve { flags } => {
            load(&flags).and_then(|config| serve::run(&config, start_log(&config)))
        }
        Command::Verify { flags } => tools::verify(&flags),
        Command::Export(args) => tools::export(&args),
        Command::Import(args) => tools::import(&args),
        Command::Backup(args) => tools::backup(&args),
        Command::Restore(args) => tools::restore(&args),
        Command::Inspect(args) => tools::inspect(&args),
        Command::Top(args) => tools::top(&args),
        Command::Links(args) => tools::links(&args),
        Command::CheckConfig { flags } => load(&flags).map(|config| print!("{}", config.to_toml())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("tributary: {failure}");
            failure.code()
        }
    }
}

fn load(flags: &Flags) -> Result<Config, Failure> {
    Config::load(flags).map_err(|error| Failure::Usage(error.to_string()))
}

/// Begins to log to standard error; the last warnings and errors are also kept, to be shown.
fn start_log(config: &Config) -> Arc<Lines> {
    let kept = Arc::new(Lines::default());
    let filter = EnvFilter::new(&config.log.filter);
    // Colours are for people: a file or a journal gets plain lines.
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_writer(std::io::stderr);
    let lines = match config.log.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // Whatever the filter says of standard error, what went wrong is kept.
    let layers =
        [lines.with_filter(filter).boxed(), kept.layer().with_filter(LevelFilter::WARN).boxed()];
    tracing_subscriber::registry().with(Vec::from(layers)).init();
    kept
}
