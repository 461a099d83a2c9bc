//! The commands for a store that no server is running on: `verify`, `export`, `import`, `restore`; and
//! those that ask a running one.
//!
//! They read the store through the same rows as the server (`node::rows`), judge changes with the
//! same history, and open documents in the same kind of worker process.

mod archive;
mod ask;
mod backup;
mod export;
mod files;
mod filling;
mod import;
mod inspect;
mod links;
mod merge;
mod nodefs;
mod progress;
mod restore;
mod scan;
mod top;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;

use store::Store;

use crate::config::{Config, Flags, StoreKind};
use crate::exit::Failure;
use crate::stores;

pub use backup::{BackupArgs, run as backup};
pub use export::{ExportArgs, run as export};
pub use import::{ImportArgs, run as import};
pub use inspect::{InspectArgs, inspect};
pub use links::{LinksArgs, links};
pub use restore::{RestoreArgs, run as restore};
pub use top::{TopArgs, top};
pub use verify::run as verify;

/// Which store a command is about.
#[derive(Debug, Clone, clap::Args)]
pub struct StoreFlags {
    /// A TOML file with the configuration.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The directory that holds the store [default: ./tributary-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Which store keeps the documents [default: sled]
    #[arg(long, value_name = "KIND")]
    store: Option<StoreKind>,
}

impl StoreFlags {
    fn load(&self) -> Result<Config, Failure> {
        let flags = Flags {
            config: self.config.clone(),
            data: self.data.clone(),
            store: self.store,
            ..Flags::default()
        };
        Config::load(&flags).map_err(|error| Failure::Usage(error.to_string()))
    }
}

/// Opens a store that has to be there: looking must not create one.
fn open_existing(config: &Config) -> Result<Arc<dyn Store>, Failure> {
    let data = config.data.display();
    if !config.data.is_dir() {
        return Err(Failure::Store(format!("there is no store in {data}: no such directory")));
    }
    if !config.data.join(main_file(config.store)).exists() {
        refuse_other_kind(config)?;
        return Err(Failure::Store(format!(
            "there is no store in {data}: it has no file '{}'",
            main_file(config.store)
        )));
    }
    open(config)
}

/// Opens a store, and creates it where there is nothing.
fn open_or_create(config: &Config) -> Result<Arc<dyn Store>, Failure> {
    if config.data.exists() && !config.data.join(main_file(config.store)).exists() {
        refuse_other_kind(config)?;
    }
    open(config)
}

fn open(config: &Config) -> Result<Arc<dyn Store>, Failure> {
    stores::open(config).map_err(|failure| match failure {
        Failure::Store(text) if text.contains("another process has this store open") => {
            let data = config.data.display();
            Failure::Store(format!(
                "the store in {data} is locked: a running server (or another command) has it open. \
                 Stop that first, or work on a copy made while it was stopped."
            ))
        }
        other => other,
    })
}

fn refuse_other_kind(config: &Config) -> Result<(), Failure> {
    let (other, name) = match config.store {
        StoreKind::Sled => (StoreKind::Sqlite, "sqlite"),
        StoreKind::Sqlite => (StoreKind::Sled, "sled"),
    };
    if config.data.join(main_file(other)).exists() {
        return Err(Failure::Store(format!(
            "the store in {} is of another kind: say --store {name}",
            config.data.display()
        )));
    }
    Ok(())
}

/// The file by which a store's directory is known.
fn main_file(kind: StoreKind) -> &'static str {
    match kind {
        StoreKind::Sled => "db",
        StoreKind::Sqlite => "store.sqlite",
    }
}
