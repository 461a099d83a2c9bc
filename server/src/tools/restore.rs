//! `tributary restore`: a new data directory from a backup.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::filling::{Place, belongs_to_somebody_else, kind_of, read_about};
use super::{StoreFlags, backup, open_existing, verify};
use crate::config::Config;
use crate::exit::Failure;

/// What to restore, and where to.
#[derive(Debug, Clone, clap::Args)]
pub struct RestoreArgs {
    /// The backup: a directory that 'backup' made, or another copy of a data directory
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    #[command(flatten)]
    flags: StoreFlags,
}

/// Fills a data directory from a backup, and verifies it.
///
/// # Errors
/// [`Failure::Usage`] when the data directory is taken, [`Failure::Store`] when the backup cannot be
/// opened, [`Failure::Found`] when there is damage in it, [`Failure::StoreFailed`] when the data directory
/// cannot be written. In each case the data directory is as it was.
pub fn run(args: &RestoreArgs) -> Result<(), Failure> {
    let config = args.flags.load()?;
    let place = Place::free(&config.data, "--data")?;
    if place.is_within(&args.from) {
        return Err(Failure::Usage(format!(
            "{} lies in the backup {}; name a directory outside of it with --data",
            config.data.display(),
            args.from.display()
        )));
    }
    let began = Instant::now();
    let source = open_backup(&config, &args.from)?;
    let mut filling = place.begin(config.store)?;
    let rows = backup::copy(&*source, &mut filling, "restoring rows")?;
    drop(source);
    verify::check(filling.store()?, &config).map_err(|failure| match failure {
        Failure::Found(text) => Failure::Found(format!(
            "{text}\nThe backup is damaged and nothing was restored. Take an older one; or 'tributary \
             export --data {} --to DIR' writes out the documents that are whole, and 'tributary import' \
             takes them in.",
            args.from.display()
        )),
        other => other,
    })?;
    filling.finish(None)?;
    say_what_next(&config, &args.from, rows, began);
    Ok(())
}

fn open_backup(config: &Config, from: &Path) -> Result<std::sync::Arc<dyn store::Store>, Failure> {
    let shown = from.display();
    let refused = |text: String| Failure::Store(format!("{shown} is not restored: {text}"));
    if !from.is_dir() {
        return Err(refused("there is no such directory; name one that 'backup' made".to_owned()));
    }
    let kind = kind_of(from).ok_or_else(|| {
        refused(
            "it holds no store. --from is a directory that 'backup' made, or a copy of a data \
             directory; what 'export' wrote is taken in by 'tributary import'"
                .to_owned(),
        )
    })?;
    let config = Config { data: from.to_owned(), store: kind, ..config.clone() };
    open_existing(&config).map_err(|failure| match failure {
        // The advice in these words is for a data directory.
        Failure::Store(text) if text.contains("corrupt") => {
            let what = text.lines().next().unwrap_or_default();
            refused(format!("{what}\nThis backup is damaged; take another one"))
        }
        other => other,
    })
}

/// What whoever did this at night needs to know.
fn say_what_next(config: &Config, from: &Path, rows: u64, began: Instant) {
    let data = config.data.display();
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "restored {rows} rows from {} to {data} in {seconds:.1} s, and verified",
        from.display()
    );
    // Of a copy that no server made it is not known whose it is.
    if let Some(about) = read_about(from).filter(|about| !about.region.is_empty()) {
        println!("it is region {} as it was {}", about.region, ago(about.taken));
        if about.region != config.region {
            println!(
                "NOTE: the configuration here names the region '{}', and this is the data of '{}'. If \
                 that one still runs, do not start this beside it with links.",
                config.region, about.region
            );
        }
    }
    if let Some(owner) = belongs_to_somebody_else(&config.data, config.store) {
        println!(
            "NOTE: the files do not belong to the owner of {data}: chown -R {owner} {data} before the \
             server starts"
        );
    }
    println!(
        "next: start the server with its own configuration, name and address (store = \"{}\", data = \
         \"{data}\").\nClients bring back what is newer when they connect, other regions what they hold; \
         nothing else is to be done.",
        config.store.name()
    );
}

fn ago(taken: u64) -> String {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let seconds = now.as_secs().saturating_sub(taken);
    match seconds {
        0..120 => format!("{seconds} seconds ago"),
        120..7_200 => format!("{} minutes ago", seconds / 60),
        7_200..172_800 => format!("{} hours ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}
