//! The directory of automerge-repo's NodeFS storage adapter.
//!
//! A key `[id, kind, name]` is the file `<first two characters of id>/<rest of id>/<kind>/<name>`.
//! Kinds are `snapshot` (named after the heads), `incremental` (named after the bytes, or the change)
//! and `sync-state`, which is of no use to anybody else. The adapter's own id is the file
//! `st/orage-adapter-id`. samod writes the same.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use model::{DocumentId, Heads};
use sha2::{Digest, Sha256};

const SNAPSHOT: &str = "snapshot";
const INCREMENTAL: &str = "incremental";

/// One document of a directory.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The document.
    pub id: DocumentId,
    /// Its files: snapshots, then what was added since.
    pub files: Vec<PathBuf>,
}

/// What a directory holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The documents, by path.
    pub documents: Vec<Entry>,
    /// Directories that stand where a document's would, but whose name is no id.
    pub strangers: Vec<PathBuf>,
}

/// Lists the documents of a directory.
///
/// # Errors
/// When a directory cannot be read.
pub fn list(root: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for first in directories(root)? {
        for second in directories(&first)? {
            let id = name(&first)
                .zip(name(&second))
                .and_then(|(first, second)| format!("{first}{second}").parse::<DocumentId>().ok());
            let Some(id) = id else {
                listing.strangers.push(second);
                continue;
            };
            let mut files = files(&second.join(SNAPSHOT))?;
            files.extend(self::files(&second.join(INCREMENTAL))?);
            if !files.is_empty() {
                listing.documents.push(Entry { id, files });
            }
        }
    }
    Ok(listing)
}

/// Where the snapshot with these heads belongs, below the root.
pub fn snapshot_path(id: &DocumentId, heads: &Heads) -> PathBuf {
    let id = id.to_string();
    // Base58: each character is a byte.
    let (first, rest) = id.split_at(2);
    let joined: String = heads.iter().map(ToString::to_string).collect();
    let digest = Sha256::digest(joined.as_bytes());
    let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Path::new(first).join(rest).join(SNAPSHOT).join(name)
}

fn name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

fn directories(path: &Path) -> io::Result<Vec<PathBuf>> {
    entries(path, |kind| kind.is_dir())
}

/// The files in a directory that need not be there.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    match entries(path, |kind| kind.is_file()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

fn entries(path: &Path, wanted: impl Fn(&fs::FileType) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if wanted(&entry.file_type()?) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ChangeHash;

    #[test]
    fn a_snapshot_is_where_the_stock_adapter_looks_for_it() {
        let id = DocumentId::from_bytes(&[1; 16]).unwrap();
        let heads = Heads::from(vec![ChangeHash([0; 32])]);
        let path = snapshot_path(&id, &heads);
        // SHA-256 of sixty-four zeros.
        let name = "60e05bd1b195af2f94112fa7197a5c88289058840ce7c6df9693756bc6250f55";
        assert_eq!(path, Path::new("p3/u5PhN9wrNpsGCwfkeef2LzF9/snapshot").join(name));
    }

    #[test]
    fn documents_are_found_and_the_rest_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let document = temp.path().join("p3/u5PhN9wrNpsGCwfkeef2LzF9");
        for (directory, file) in [
            (document.join("snapshot"), "s"),
            (document.join("incremental"), "b"),
            (document.join("incremental"), "a"),
            (document.join("sync-state"), "peer"),
            (temp.path().join("st"), "orage-adapter-id"),
            (temp.path().join("no/id"), "file"),
        ] {
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join(file), b"x").unwrap();
        }
        let listing = list(temp.path()).unwrap();
        let files = ["snapshot/s", "incremental/a", "incremental/b"]
            .map(|file| document.join(file))
            .to_vec();
        let id = DocumentId::from_bytes(&[1; 16]).unwrap();
        assert_eq!(listing.documents, [Entry { id, files }]);
        assert_eq!(listing.strangers, [temp.path().join("no/id")]);
    }
}
