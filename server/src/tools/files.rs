//! Files that are there whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Writes a file whole, replacing what is there: `Ok` means that it survives a loss of power, and at
/// no time is there half of it under this name.
///
/// # Errors
/// When the system refuses. What was there before is still there then.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = partial_name(path)?;
    let written = write_synced(&partial, bytes)
        .and_then(|()| fs::rename(&partial, path))
        .and_then(|()| sync_directory(parent_of(path)));
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written
}

/// A directory that is being filled under another name and gets its own when it is whole. Dropped
/// before that, it disappears.
pub struct NewDirectory {
    path: PathBuf,
    partial: PathBuf,
    finished: bool,
}

impl NewDirectory {
    /// Starts one. Its place must be free, or an empty directory.
    ///
    /// # Errors
    /// When something is there already, or the system refuses.
    pub fn start(path: &Path) -> io::Result<Self> {
        match fs::read_dir(path) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(io::Error::new(
                        io::ErrorKind::DirectoryNotEmpty,
                        "the directory is not empty; name one that is new or empty",
                    ));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let partial = partial_name(path)?;
        fs::create_dir_all(parent_of(path))?;
        // Left over from an export that was killed.
        match fs::remove_dir_all(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir(&partial)?;
        Ok(Self { path: path.to_owned(), partial, finished: false })
    }

    /// Writes a file into it, with the directories above.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write(&self, name: &Path, bytes: &[u8]) -> io::Result<()> {
        let path = self.partial.join(name);
        fs::create_dir_all(parent_of(&path))?;
        write_synced(&path, bytes)
    }

    /// Makes everything durable and gives the directory its name.
    ///
    /// # Errors
    /// When the system refuses; then there is no directory of that name.
    pub fn finish(mut self) -> io::Result<()> {
        sync_tree(&self.partial)?;
        fs::rename(&self.partial, &self.path)?;
        self.finished = true;
        sync_directory(parent_of(&self.path))
    }
}

impl Drop for NewDirectory {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_dir_all(&self.partial);
        }
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_tree(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        }
    }
    sync_directory(directory)
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A hidden name beside the real one, so that renaming stays within one file system.
fn partial_name(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "the path does not end in a name")
    })?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".partial");
    Ok(path.with_file_name(hidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &Path) -> Vec<OsString> {
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left_behind() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a.automerge");
        write_whole(&path, b"old").unwrap();
        write_whole(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(temp.path()), ["a.automerge"]);
    }

    #[test]
    fn a_directory_that_is_not_finished_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("deep/export");
        let new = NewDirectory::start(&path).unwrap();
        new.write(Path::new("ab/cd/file"), b"bytes").unwrap();
        assert!(!path.exists());
        drop(new);
        assert!(names(&temp.path().join("deep")).is_empty());

        let new = NewDirectory::start(&path).unwrap();
        new.write(Path::new("ab/cd/file"), b"bytes").unwrap();
        new.finish().unwrap();
        assert_eq!(fs::read(path.join("ab/cd/file")).unwrap(), b"bytes");
        assert!(NewDirectory::start(&path).is_err());
    }
}
