//! `tributary import`: Automerge files and automerge-repo directories into a store.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use history::chunk::Limits;
use model::{DocumentId, DocumentUrl};
use store::{Store, Write};

use super::archive::Archive;
use super::merge::{Merged, Source, Writing, merge};
use super::progress::Progress;
use super::{StoreFlags, nodefs, open_or_create};
use crate::config::Config;
use crate::exit::Failure;

/// So many writes, of several documents, are made durable at once.
const BATCH_WRITES: usize = 512;
/// Or so many bytes.
const BATCH_BYTES: usize = 8 << 20;

/// What to import, and as what.
#[derive(Debug, Clone, clap::Args)]
pub struct ImportArgs {
    #[command(flatten)]
    flags: StoreFlags,
    /// An Automerge file ('-' for standard input), or a directory: an export, or one of
    /// automerge-repo's NodeFS storage
    #[arg(value_name = "FROM")]
    from: PathBuf,
    /// The document that a file goes into, as an id or a URL [default: a new one]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
}

/// Imports a file or a directory.
///
/// # Errors
/// [`Failure::Found`] when there is nothing to import or something was left out;
/// [`Failure::StoreFailed`] when the store cannot write.
pub fn run(args: &ImportArgs) -> Result<(), Failure> {
    let config = args.flags.load()?;
    let from = &args.from;
    let id = args.id.as_deref().map(parse_id).transpose()?;
    let is_directory = from.is_dir();
    let stdin = from.as_os_str() == "-";
    if is_directory && id.is_some() {
        let text = "--id is for a single file; the documents of a directory have their ids";
        return Err(Failure::Usage(text.to_owned()));
    }
    // Before a store is created for nothing.
    let unreadable = |error: std::io::Error| {
        Failure::Found(format!("{} cannot be read: {error}", from.display()))
    };
    if is_directory {
        let listing = nodefs::list(from).map_err(unreadable)?;
        if listing.documents.is_empty() {
            return Err(Failure::Found(format!(
                "there are no documents in {}: it is neither an export nor a NodeFS directory of \
                 automerge-repo",
                from.display()
            )));
        }
        Import::start(&config)?.directory(listing)
    } else {
        let mut bytes = Vec::new();
        if stdin {
            std::io::stdin().lock().read_to_end(&mut bytes).map_err(unreadable)?;
        } else {
            bytes = std::fs::read(from).map_err(unreadable)?;
        }
        let id = id.unwrap_or_else(fresh_id);
        Import::start(&config)?.file(from, &bytes, &id)
    }
}

fn parse_id(text: &str) -> Result<DocumentId, Failure> {
    let url: Result<DocumentUrl, _> = text.parse();
    match url {
        Ok(url) if url.path.is_empty() && url.heads.is_none() => Ok(url.id),
        Ok(_) => Err(Failure::Usage(format!("'{text}' names more than a document"))),
        Err(error) => Err(Failure::Usage(format!("'{text}' names no document: {error}"))),
    }
}

/// As stock clients make them: a random UUID.
fn fresh_id() -> DocumentId {
    DocumentId::from_bytes(uuid::Uuid::new_v4().as_bytes()).expect("16 bytes make an id")
}

struct Import {
    config: Config,
    store: std::sync::Arc<dyn Store>,
    archive: Archive,
    limits: Limits,
    /// Writes that are not durable yet, whole documents at a time, and whose.
    writes: Vec<Write>,
    writes_bytes: usize,
    unwritten: BTreeSet<DocumentId>,
}

impl Import {
    fn start(config: &Config) -> Result<Self, Failure> {
        Ok(Self {
            store: open_or_create(config)?,
            archive: Archive::start(config)?,
            limits: config.node_limits(1).chunks,
            config: config.clone(),
            writes: Vec::new(),
            writes_bytes: 0,
            unwritten: BTreeSet::new(),
        })
    }

    fn file(mut self, from: &Path, bytes: &[u8], id: &DocumentId) -> Result<(), Failure> {
        let mut source = Source::default();
        source.read(&from.display().to_string(), bytes, &self.limits, &mut self.archive);
        if let Some(problem) = source.problems.pop() {
            return Err(Failure::Found(problem));
        }
        if source.changes.is_empty() {
            return Err(Failure::Found(format!("{} holds no changes", from.display())));
        }
        let Merged { appended, known, refused, .. } = self
            .document(id, &source)?
            .map_err(|why| Failure::Found(format!("{}: {why}", from.display())))?;
        self.flush()?;
        if appended + known > 0 {
            println!("automerge:{id}");
        }
        eprintln!("{appended} changes are new, {known} were here already");
        for why in &refused {
            eprintln!("left out: {why}");
        }
        match refused.len() {
            0 => Ok(()),
            count => Err(Failure::Found(format!("{count} changes were left out"))),
        }
    }

    fn directory(mut self, listing: nodefs::Listing) -> Result<(), Failure> {
        let count = listing.documents.len();
        let mut progress = Progress::start("importing documents", Some(count as u64));
        for stranger in &listing.strangers {
            progress.warn(&format!("{} is no document, and left alone", stranger.display()));
        }
        let (mut documents, mut appended, mut known, mut left_out) = (0_u64, 0, 0, 0_u64);
        for entry in listing.documents {
            let id = &entry.id;
            let mut problems = Vec::new();
            let mut source = Source::default();
            for file in &entry.files {
                let name = file.display().to_string();
                match std::fs::read(file) {
                    Ok(bytes) => source.read(&name, &bytes, &self.limits, &mut self.archive),
                    Err(error) => problems.push(format!("{name} cannot be read: {error}")),
                }
            }
            problems.append(&mut source.problems);
            if !source.changes.is_empty() {
                match self.document(id, &source)? {
                    Ok(merged) => {
                        documents += 1;
                        appended += merged.appended;
                        known += merged.known;
                        problems.extend(merged.refused);
                    }
                    Err(why) => problems.push(why),
                }
            }
            for problem in &problems {
                progress.warn(&format!("automerge:{id}: left out: {problem}"));
            }
            left_out += problems.len() as u64;
            progress.step();
        }
        self.flush()?;
        progress.say(&format!(
            "imported {documents} documents: {appended} changes are new, {known} were here already"
        ));
        drop(progress);
        match left_out {
            0 => Ok(()),
            count => Err(Failure::Found(format!("{count} things were left out, the rest is in"))),
        }
    }

    /// Merges what was found of one document. Durable after [`Import::flush`].
    fn document(
        &mut self,
        id: &DocumentId,
        source: &Source,
    ) -> Result<Result<Merged, String>, Failure> {
        // The same document under two spellings of its id.
        if self.unwritten.contains(id) {
            self.flush()?;
        }
        let writing =
            Writing { compact_bytes: self.config.archive.compact_tail_kib << 10, now_ms: now_ms() };
        let merged = merge(&*self.store, &mut self.archive, id, &source.changes, writing);
        Ok(match merged {
            Ok(mut merged) => {
                let writes = std::mem::take(&mut merged.writes);
                self.writes_bytes += writes.iter().map(size).sum::<usize>();
                self.writes.extend(writes);
                self.unwritten.insert(id.clone());
                if self.writes.len() >= BATCH_WRITES || self.writes_bytes >= BATCH_BYTES {
                    self.flush()?;
                }
                Ok(merged)
            }
            Err(why) => Err(why),
        })
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let writes = std::mem::take(&mut self.writes);
        self.writes_bytes = 0;
        self.unwritten.clear();
        if writes.is_empty() {
            return Ok(());
        }
        self.store.commit(&writes).map_err(|error| {
            let data = self.config.data.display();
            Failure::StoreFailed(format!(
                "the store in {data} failed: {error}. What was written before is safe; import again \
                 when that is mended."
            ))
        })
    }
}

fn size(write: &Write) -> usize {
    match write {
        Write::Put { key, value } => key.len() + value.len(),
        Write::Delete { key } => key.len(),
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
