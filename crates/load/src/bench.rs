//! What all rows share: the script, the servers' data directories, and how documents get into a
//! server.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::net::ConnId;
use crate::script::{AutomergeScript, Edit, YjsScript, actor, elsewhere, read_trace, text_after};
use crate::server::{Kind, Programs, Server, Settings};
use crate::session::{Session, Start};
use crate::world::{Duty, World};
use crate::{automerge_session, yjs_session};

/// How long a server may take to start on an empty directory, or to stop.
const SERVER_LIMIT: Duration = Duration::from_secs(60);

/// The bench.
pub struct Bench {
    /// Fewer and shorter, to see that all of it works.
    pub quick: bool,
    edits: Vec<Edit>,
    programs: Programs,
    directory: PathBuf,
    automerge: Rc<automerge_session::Shared>,
    yjs: Rc<yjs_session::Shared>,
    whole: RefCell<HashMap<Saved, Rc<Vec<u8>>>>,
}

/// Whether it is in the format of Yjs, and of how many edits.
type Saved = (bool, usize);

/// What one typist types, shared by all clients of that document.
pub type Typist = Rc<automerge_session::Shared>;

/// How a document gets into a server.
#[derive(Clone, Copy)]
pub enum Upload {
    /// As its single changes, many a message: the way of a document that was typed here.
    Typed,
    /// As one chunk: the way of a document that comes from elsewhere.
    Whole,
}

impl Bench {
    /// Reads the recording and prepares the changes; `directory` takes caches, data and logs.
    ///
    /// # Errors
    /// If the recording is missing or the directory cannot be written.
    pub fn prepare(
        trace: &Path,
        programs: Programs,
        directory: PathBuf,
        quick: bool,
    ) -> Result<Self, String> {
        let edits = read_trace(trace)?;
        let cache = directory.join("scripts");
        let automerge = AutomergeScript::prepare(&edits, &cache)?;
        let yjs = YjsScript::prepare(&edits, &cache)?;
        fs::create_dir_all(directory.join("logs")).map_err(|error| error.to_string())?;
        Ok(Self {
            quick,
            edits,
            programs,
            directory,
            automerge: Rc::new(automerge_session::Shared::new(automerge)),
            yjs: Rc::new(yjs_session::Shared::new(yjs)),
            whole: RefCell::default(),
        })
    }

    /// Edits in the recording.
    pub fn edits(&self) -> usize {
        self.edits.len()
    }

    /// One number of two: the full one, or the one of a quick run.
    pub fn size(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }

    /// Starts a server on an empty directory.
    ///
    /// # Errors
    /// If it does not start.
    pub fn fresh(&self, kind: Kind) -> Result<Server, String> {
        let data = self.data(kind);
        if data.exists() {
            fs::remove_dir_all(&data).map_err(|error| error.to_string())?;
        }
        fs::create_dir_all(&data).map_err(|error| error.to_string())?;
        self.restart(kind, SERVER_LIMIT)
    }

    /// Starts a server on the directory that it had before.
    ///
    /// # Errors
    /// If it does not start within `limit`.
    pub fn restart(&self, kind: Kind, limit: Duration) -> Result<Server, String> {
        self.restart_with(kind, &[], limit)
    }

    /// The same with settings in its environment.
    ///
    /// # Errors
    /// If it does not start within `limit`.
    pub fn restart_with(
        &self,
        kind: Kind,
        environment: &[(&str, &str)],
        limit: Duration,
    ) -> Result<Server, String> {
        let settings = Settings { environment, ..Settings::default() };
        Server::start(
            &self.programs,
            kind,
            &self.data(kind),
            &self.log(kind.name()),
            settings,
            limit,
        )
    }

    /// Starts a region of this project's server on an empty directory. `config` is what its file
    /// says beside its name.
    ///
    /// # Errors
    /// If it does not start.
    pub fn region(&self, name: &str, config: &str) -> Result<Server, String> {
        let data = self.directory.join("data").join(format!("region-{name}"));
        if data.exists() {
            fs::remove_dir_all(&data).map_err(|error| error.to_string())?;
        }
        fs::create_dir_all(&data).map_err(|error| error.to_string())?;
        let file = data.with_extension("toml");
        fs::write(&file, config).map_err(|error| format!("{}: {error}", file.display()))?;
        let file = file.to_str().ok_or("a path that is not text")?;
        let settings =
            Settings { arguments: &["--region", name, "--config", file], ..Settings::default() };
        let log = self.log(&format!("region-{name}"));
        Server::start(&self.programs, Kind::Tributary, &data, &log, settings, SERVER_LIMIT)
    }

    /// Where files may be put that are not data of a server.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn log(&self, name: &str) -> PathBuf {
        self.directory.join("logs").join(format!("{name}.log"))
    }

    /// Stops a server as an operator does.
    ///
    /// # Errors
    /// If it does not stop.
    pub fn stop(&self, server: Server) -> Result<(), String> {
        server.stop(SERVER_LIMIT)
    }

    /// Where a server keeps its data.
    pub fn data(&self, kind: Kind) -> PathBuf {
        self.directory.join("data").join(kind.name())
    }

    /// A client of a server, on document number `document`.
    pub fn session(
        &self,
        kind: Kind,
        document: usize,
        client: usize,
        start: Start,
    ) -> Box<dyn Session> {
        let id = document_id(document);
        if kind.is_yjs() {
            Box::new(yjs_session::YjsSession::new(Rc::clone(&self.yjs), &id, start))
        } else {
            let name = format!("peer-load{client:06}");
            let shared = Rc::clone(&self.automerge);
            Box::new(automerge_session::AutomergeSession::new(shared, name, id, start))
        }
    }

    /// What one of many typists types, each of them something else, so that nothing is gained by
    /// having seen the others: `count` keystrokes from another place of the recording, by an actor
    /// of its own, so many a second.
    ///
    /// # Errors
    /// Only if the library refuses them.
    pub fn typist(&self, number: usize, count: usize, per_second: f64) -> Result<Typist, String> {
        let edits = elsewhere(&self.edits, number, count);
        let script = AutomergeScript::typed(&edits, &actor(number), per_second)?;
        Ok(Rc::new(automerge_session::Shared::new(script)))
    }

    /// A client with a script of its own on document number `document`. Two clients of one name push
    /// each other out, so their numbers differ.
    pub fn client(
        &self,
        typist: &Typist,
        document: usize,
        client: usize,
        start: Start,
    ) -> Box<dyn Session> {
        let (name, id) = (format!("peer-load{client:06}"), document_id(document));
        Box::new(automerge_session::AutomergeSession::new(Rc::clone(typist), name, id, start))
    }

    /// The document of the first `length` edits as one chunk, in the server's own format.
    ///
    /// # Errors
    /// Only if the script is damaged.
    pub fn whole(&self, kind: Kind, length: usize) -> Result<Rc<Vec<u8>>, String> {
        if let Some(known) = self.whole.borrow().get(&(kind.is_yjs(), length)) {
            return Ok(Rc::clone(known));
        }
        let made = if kind.is_yjs() {
            self.yjs.script.state(length)?
        } else {
            self.automerge.script.document(length)?
        };
        let made = Rc::new(made);
        self.whole.borrow_mut().insert((kind.is_yjs(), length), Rc::clone(&made));
        Ok(made)
    }

    /// Connects a writer that hands in the first `length` edits of a document.
    ///
    /// # Errors
    /// If there is no socket to be had.
    pub fn upload(
        &self,
        world: &mut World,
        kind: Kind,
        document: usize,
        length: usize,
        upload: Upload,
    ) -> Result<ConnId, String> {
        let (start, duty) = match upload {
            Upload::Typed => (Start::Typist, Duty::Write { to: length, batch: 250, window: 4_000 }),
            Upload::Whole => (Start::Holder(length, self.whole(kind, length)?), Duty::Paced),
        };
        // Writers are numbered apart from readers: two clients of one name push each other out.
        let session = self.session(kind, document, 900_000 - document, start);
        world.connect(session, document, duty, length)
    }

    /// Hands in documents `0..count`, each over its own connection, some at a time. Returns how
    /// many the server had acknowledged by the deadline; all connections are closed then.
    ///
    /// # Errors
    /// If a client failed.
    pub fn upload_all(
        &self,
        world: &mut World,
        kind: Kind,
        count: usize,
        length: usize,
        upload: Upload,
        deadline: Instant,
    ) -> Result<usize, String> {
        const AT_ONCE: usize = 16;
        let mut open: Vec<ConnId> = Vec::new();
        let (mut next, mut done) = (0, 0);
        while done < count && Instant::now() < deadline {
            while next < count && open.len() < AT_ONCE {
                open.push(self.upload(world, kind, next, length, upload)?);
                next += 1;
            }
            world.turn(deadline)?;
            for at in (0..open.len()).rev() {
                if world.done(open[at]) {
                    world.close(open.swap_remove(at));
                    done += 1;
                }
            }
        }
        for id in open {
            world.close(id);
        }
        Ok(done)
    }

    /// Lets a real client, with the real library, download a document, and compares its text with
    /// what was typed.
    ///
    /// # Errors
    /// If it is another text, or does not come within `limit`.
    pub fn check(
        &self,
        world: &mut World,
        kind: Kind,
        document: usize,
        length: usize,
        limit: Duration,
    ) -> Result<(), String> {
        let session = self.session(kind, document, 999_999, Start::Checker);
        let id = world.connect(session, document, Duty::Read, length)?;
        if !world.run_until_all_done(Instant::now() + limit)? {
            return Err(format!(
                "a real client had {} of {length} edits after {} s",
                world.standing(id).held,
                limit.as_secs()
            ));
        }
        world.check(id, &text_after(&self.edits[..length]))?;
        world.close(id);
        Ok(())
    }
}

/// The id of a document: the text form of a UUID that says which one it is.
pub fn document_id(document: usize) -> String {
    let mut uuid = [0x5A; 16];
    uuid[..8].copy_from_slice(&(document as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    uuid[12..].copy_from_slice(&(document as u32).to_be_bytes());
    uuid[6] = 0x40 | (uuid[6] & 0x0F);
    uuid[8] = 0x80 | (uuid[8] & 0x3F);
    bs58::encode(uuid).with_check().into_string()
}
