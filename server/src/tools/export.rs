//! `tributary export`: documents as files that every Automerge tool reads.

use std::io::Write;
use std::path::{Path, PathBuf};

use archive::{Answer, Job};
use history::chunk::Change;
use model::{DocumentId, DocumentUrl, Heads};
use node::rows::{self, RowKind};
use store::Store;

use super::archive::Archive;
use super::files::{NewDirectory, write_whole};
use super::progress::Progress;
use super::scan::{Found, scan_all};
use super::{StoreFlags, nodefs, open_existing};
use crate::exit::Failure;

/// What to export, and where to.
#[derive(Debug, Clone, clap::Args)]
pub struct ExportArgs {
    #[command(flatten)]
    flags: StoreFlags,
    /// The document, as an id or a URL; without this, the whole store
    #[arg(long, value_name = "ID|URL")]
    document: Option<String>,
    /// The file to write ('-' for standard output), or the directory for a whole store
    #[arg(long, value_name = "PATH")]
    to: PathBuf,
}

/// Exports a document or a store.
///
/// # Errors
/// [`Failure::Found`] when a document is not there or cannot be opened, or the files cannot be written.
pub fn run(args: &ExportArgs) -> Result<(), Failure> {
    let config = args.flags.load()?;
    let document = args.document.as_deref().map(parse_document).transpose()?;
    let to_stdout = args.to.as_os_str() == "-";
    if document.is_none() && to_stdout {
        let text = "a whole store cannot go to standard output; name a directory with --to, or one \
                    document with --document";
        return Err(Failure::Usage(text.to_owned()));
    }
    let store = open_existing(&config)?;
    let archive = Archive::start(&config)?;
    let mut export = Export { store: &*store, archive };
    match document {
        Some(id) => export.one(&id, (!to_stdout).then_some(args.to.as_path())),
        None => export.all(&args.to),
    }
}

/// An id or a URL; of a URL that says more, only what can be exported.
fn parse_document(text: &str) -> Result<DocumentId, Failure> {
    let url: DocumentUrl = text
        .parse()
        .map_err(|error| Failure::Usage(format!("'{text}' names no document: {error}")))?;
    if url.heads.is_some() || !url.path.is_empty() {
        let id = url.id;
        return Err(Failure::Usage(format!(
            "'{text}' names a version or a part of a document; only all of it, as it is now, can be \
             exported: automerge:{id}"
        )));
    }
    Ok(url.id)
}

struct Export<'a> {
    store: &'a dyn Store,
    archive: Archive,
}

/// A document as one chunk.
struct Saved {
    bytes: Vec<u8>,
    heads: Heads,
    changes: u64,
}

impl Export<'_> {
    fn one(&mut self, id: &DocumentId, to: Option<&Path>) -> Result<(), Failure> {
        let failed = |why: String| Failure::Found(format!("automerge:{id}: {why}"));
        let saved = self.save(id).map_err(failed)?;
        let Some(path) = to else {
            let mut out = std::io::stdout().lock();
            return out
                .write_all(&saved.bytes)
                .and_then(|()| out.flush())
                .map_err(|error| Failure::Found(format!("standard output: {error}")));
        };
        if path.is_dir() {
            let path = path.display();
            return Err(Failure::Usage(format!("{path} is a directory; name a file with --to")));
        }
        write_whole(path, &saved.bytes).map_err(|error| {
            Failure::Found(format!("{} cannot be written: {error}", path.display()))
        })?;
        println!(
            "exported automerge:{id} to {}: {} changes, {} bytes",
            path.display(),
            saved.changes,
            saved.bytes.len()
        );
        Ok(())
    }

    fn all(&mut self, to: &Path) -> Result<(), Failure> {
        let unwritable = |error: std::io::Error| {
            Failure::Found(format!("{} cannot be written: {error}", to.display()))
        };
        let directory = NewDirectory::start(to).map_err(unwritable)?;
        let (documents, mut bad) = self.documents();
        let mut progress = Progress::start("exporting documents", Some(documents.len() as u64));
        let mut exported = 0_u64;
        for id in &documents {
            match self.save(id) {
                // Nothing but changes that were set aside: there is nothing to load.
                Ok(saved) if saved.changes == 0 => {}
                Ok(saved) => {
                    let path = nodefs::snapshot_path(id, &saved.heads);
                    directory.write(&path, &saved.bytes).map_err(unwritable)?;
                    exported += 1;
                }
                Err(why) => {
                    progress.warn(&format!("automerge:{id} is left out: {why}"));
                    bad += 1;
                }
            }
            progress.step();
        }
        directory.finish().map_err(unwritable)?;
        progress.say(&format!("exported {exported} documents to {}", to.display()));
        drop(progress);
        match bad {
            0 => Ok(()),
            bad => Err(Failure::Found(format!(
                "{bad} documents cannot be exported; 'tributary verify' says what is wrong"
            ))),
        }
    }

    /// Every document, and how many there are besides whose row cannot be read.
    fn documents(&self) -> (Vec<DocumentId>, u64) {
        let (mut documents, mut unreadable) = (Vec::new(), 0);
        let (from, to) = rows::META_KEYS;
        scan_all(self.store, &[from], &[to], &mut |found| match found {
            Found::Row(key, _) => match rows::read_key(key) {
                Some((RowKind::Meta, id)) => documents.push(id),
                _ => unreadable += 1,
            },
            Found::Unreadable(..) | Found::GaveUp(_) => unreadable += 1,
        });
        (documents, unreadable)
    }

    /// Opens a document with Automerge and saves it.
    fn save(&mut self, id: &DocumentId) -> Result<Saved, String> {
        let loaded = rows::load(self.store, id).map_err(|error| error.to_string())?;
        let loaded = loaded.ok_or("there is no such document in the store")?;
        let snapshot =
            rows::snapshot(self.store, id, loaded.meta).map_err(|error| error.to_string())?;
        let history = &loaded.history;
        let changes = (history.base()..history.len())
            .filter_map(|position| history.resident(position))
            .map(|change: &Change| change.bytes().to_vec())
            .collect();
        match self.archive.ask(Job::Compact { snapshot, changes }) {
            Ok(Answer::Compacted(compacted)) => {
                if compacted.heads != *history.heads()
                    || compacted.changes != u64::from(history.len())
                {
                    return Err("Automerge finds other changes in it than the graph".to_owned());
                }
                Ok(Saved {
                    bytes: compacted.snapshot,
                    heads: compacted.heads,
                    changes: compacted.changes,
                })
            }
            Ok(_) => unreachable!("the archive answers what it was asked"),
            Err(failure) => Err(format!("Automerge cannot open it: {failure}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "p3u5PhN9wrNpsGCwfkeef2LzF9";

    #[test]
    fn a_document_is_named_by_its_id_or_its_url() {
        for text in [ID.to_owned(), format!("automerge:{ID}")] {
            assert_eq!(parse_document(&text).unwrap().to_string(), ID);
        }
        for text in ["nonsense".to_owned(), format!("automerge:{ID}/part")] {
            assert!(matches!(parse_document(&text), Err(Failure::Usage(_))), "{text}");
        }
    }
}
