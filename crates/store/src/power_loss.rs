//! Takes the power away from a real process, again and again, and counts what is missing.
//!
//! A child process opens a store and commits batches, and says so after each. Under it lies a small C
//! library (`tests/power_loss.c`, compiled when the test runs) that keeps a second directory: what of the
//! store would be left after a loss of power. The child is killed in the middle of its work, and two
//! directories are looked at: the one that it wrote (a crash of the process alone) and the one that would
//! be left (a loss of power). The next child goes on from the second, so recovery is recovered from too.
//!
//! What batch `n` writes follows from the seed and `n`, and each batch writes `n` into a row. So the
//! checker knows exactly what the store must hold: everything of the first `n` batches and nothing else,
//! for one `n` that is not less than the last one that the child acknowledged.
//!
//! The witness beside the store loses what was not synced like any other file, and is looked at each
//! time: it may name fewer commits than are there, never one more. Each batch is one commit, so its numbers
//! are theirs. (The tests have it written after every commit if it can keep up, so that it is close.)
//!
//! The child is the test program itself: a backend's test file has an ignored test that calls [`writer`].

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::directory::witnessed;
use crate::seeded::Seeded;
use crate::{Store, StoreError, Write};

const SHIM: &str = include_str!("../tests/power_loss.c");
/// The row that says how many batches were written. No other key begins with it.
const COUNTER: &[u8] = b"\x00counter";
/// What the child is told, in the environment.
const TOLD: &str = "POWER_LOSS_WRITER";
/// A child that writes this many batches without a fault that was asked for is not going to see one.
const BATCHES_MAX: u64 = 100_000;

/// How large the values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// A changed key or two: 0 to 300 bytes.
    Small,
    /// Around the size at which stores begin to split: 2 to 20 KB.
    Medium,
    /// Snapshots: 50 KB to 2.5 MB.
    Large,
}

/// Opens the store that is tested; the second argument plants the bug of leaving out the sync.
pub type Open = fn(&Path, bool) -> Result<Box<dyn Store>, StoreError>;

/// One series of losses of power.
#[derive(Debug, Clone, Copy)]
pub struct Trial {
    /// Path of the ignored test that calls [`writer`].
    pub writer: &'static str,
    /// Opens the store, here and in the child.
    pub open: Open,
    /// How large the values are.
    pub sizes: Sizes,
    /// How often the power goes.
    pub cycles: u64,
    /// Batches and moments follow from it. (What the child gets done in that time does not.)
    pub seed: u64,
    /// Plants the bug of leaving out the sync.
    pub skip_sync: bool,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Batches that were acknowledged.
    pub acknowledged: u64,
    /// Acknowledged batches that were missing after a loss of power.
    pub lost: u64,
    /// Stores that did not open any more after a loss of power, or held something else than whole batches.
    pub broken: u64,
    /// The last commit that the witness of the store named when the power went.
    pub witnessed: u64,
}

/// A fault that the child is to meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFault {
    /// No space after this many bytes.
    FullAfterBytes(u64),
    /// Syncs fail after this many.
    SyncFailsAfter(u64),
}

/// Runs a trial. `None`, said loudly, when there is no C compiler and this is not CI.
///
/// # Panics
/// When the child fails otherwise than by being killed, or loses something without a loss of power.
#[must_use]
pub fn run(trial: &Trial) -> Option<Outcome> {
    let place = Place::new(trial)?;
    let mut generator = Seeded::new(trial.seed);
    let mut outcome = Outcome::default();
    let mut history = History::new(trial);
    let mut before = 0;
    for cycle in 0..trial.cycles {
        place.make_all_durable();
        // Now and then during the opening, else after some batches and in the middle of one.
        let wanted = if cycle % 8 == 7 { 0 } else { 1 + generator.below(place.batches_max) as u64 };
        let mut child = place.start(trial, None);
        child.acknowledged(wanted);
        let acknowledged = child.kill().unwrap_or(before).max(before);
        outcome.acknowledged += acknowledged - before;

        let survived = history.look(trial.open, &place.live, acknowledged);
        assert!(matches!(survived, Found::Batches(n) if n >= acknowledged), "kill: {survived:?}");

        place.lose_power();
        let named = witnessed(&place.live.join("store"));
        let named = named.expect("a witness that is whole").unwrap_or(0);
        assert!(named <= acknowledged + 1, "the witness names {named} of {acknowledged}");
        outcome.witnessed = named;
        before = match history.look(trial.open, &place.copy_of_live(), acknowledged) {
            Found::Batches(n) if n < named => {
                eprintln!("the witness names {named}, the store has {n} and was opened");
                outcome.broken += 1;
                return Some(outcome);
            }
            Found::Batches(n) if n >= acknowledged => n,
            Found::Batches(n) => {
                outcome.lost += acknowledged - n;
                n
            }
            Found::Broken(what) => {
                eprintln!("after loss of power {cycle}, {acknowledged} batches: {what}");
                outcome.broken += 1;
                return Some(outcome);
            }
        };
    }
    Some(outcome)
}

/// Lets the child meet a fault, and returns what its commit said and what the commit after it said, as
/// one of `full`, `io`, `corrupt`, `stopped`. Then looks for what it had acknowledged.
///
/// # Panics
/// When an acknowledged batch is missing afterwards, or the fault was never met.
#[must_use]
pub fn run_with_fault(trial: &Trial, fault: DiskFault) -> Option<(String, String)> {
    let place = Place::new(trial)?;
    place.make_all_durable();
    let mut child = place.start(trial, Some(fault));
    child.acknowledged(u64::MAX);
    let first = child.line_after("failed ").expect("the child met the fault");
    let second = child.line_after("then ").expect("the child tried again");
    let acknowledged = child.kill().unwrap_or(0);
    place.lose_power();
    let found = History::new(trial).look(trial.open, &place.copy_of_live(), acknowledged);
    assert!(matches!(found, Found::Batches(n) if n >= acknowledged), "{fault:?}: {found:?}");
    Some((first, second))
}

/// The child's side: commits batches until it is killed or a commit fails. Does nothing when this process
/// is not such a child, so that running all ignored tests is harmless.
///
/// # Panics
/// When the store does not open.
pub fn writer(open: Open) {
    let Ok(told) = env::var(TOLD) else { return };
    let told: Vec<&str> = told.split(' ').collect();
    let [path, sizes, seed, skip_sync] = told[..] else { panic!("told {told:?}") };
    let sizes = [Sizes::Small, Sizes::Medium, Sizes::Large]
        .into_iter()
        .find(|s| format!("{s:?}") == sizes)
        .expect("a size");
    let seed = seed.parse().expect("a seed");
    say("opening");
    let store = open(Path::new(path), skip_sync == "true").expect("the store opens");
    let counter = store.get(COUNTER).expect("the counter is readable");
    let done = counter.map_or(0, |n| u64::from_be_bytes(n.try_into().expect("8 bytes")));
    say(&format!("ack {done}"));
    for n in done + 1..BATCHES_MAX {
        let batch = materialize(&planned_batch(seed, sizes, n), n);
        match store.commit(&batch) {
            Ok(()) => say(&format!("ack {n}")),
            Err(error) => {
                say(&format!("failed {}", kind(&error)));
                eprintln!("{error}");
                let again = store.commit(&batch).expect_err("after an error");
                say(&format!("then {}", kind(&again)));
                std::process::exit(1);
            }
        }
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // The parent may be gone; then nobody listens.
    let _ = writeln!(out, "\n{line}").and_then(|()| out.flush());
}

fn kind(error: &StoreError) -> &'static str {
    match error {
        StoreError::Full { .. } => "full",
        StoreError::Io { .. } => "io",
        StoreError::Corrupt { .. } => "corrupt",
        StoreError::Stopped => "stopped",
    }
}

/// A value by its recipe: so that large ones need not be kept to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Recipe {
    length: usize,
    seed: u64,
}

impl Recipe {
    fn bytes(self) -> Vec<u8> {
        let mut bytes = self.seed.to_le_bytes().repeat(self.length / 8 + 1);
        bytes.truncate(self.length);
        bytes
    }
}

/// What batch `n` does: `None` deletes.
fn planned_batch(seed: u64, sizes: Sizes, n: u64) -> Vec<(Vec<u8>, Option<Recipe>)> {
    let mut generator = Seeded::new(seed ^ n.wrapping_mul(0xd1b5_4a32_d192_ed03));
    let (keys, writes_max, shortest, longest) = match sizes {
        Sizes::Small => (400, 8, 0, 300),
        Sizes::Medium => (60, 4, 2_000, 20_000),
        Sizes::Large => (8, 2, 50_000, 2_500_000),
    };
    (0..=generator.below(writes_max))
        .map(|_| {
            let key = format!("key {:05}", generator.below(keys)).into_bytes();
            let length = shortest + generator.below(longest - shortest);
            let recipe = Recipe { length, seed: generator.next() };
            (key, (!generator.one_in(5)).then_some(recipe))
        })
        .collect()
}

fn materialize(planned: &[(Vec<u8>, Option<Recipe>)], n: u64) -> Vec<Write> {
    let mut batch: Vec<Write> = planned
        .iter()
        .map(|(key, recipe)| match recipe {
            Some(recipe) => Write::Put { key: key.clone(), value: recipe.bytes() },
            None => Write::Delete { key: key.clone() },
        })
        .collect();
    batch.push(Write::Put { key: COUNTER.to_vec(), value: n.to_be_bytes().to_vec() });
    batch
}

/// What a store turned out to hold.
#[derive(Debug)]
enum Found {
    /// Exactly the first so many batches.
    Batches(u64),
    Broken(String),
}

/// What a store must hold after each number of batches.
struct History {
    seed: u64,
    sizes: Sizes,
    skip_sync: bool,
    /// The last few states, by number of batches: a look at an earlier one need not begin at nothing.
    states: BTreeMap<u64, BTreeMap<Vec<u8>, Recipe>>,
}

impl History {
    fn new(trial: &Trial) -> Self {
        let states = BTreeMap::from([(0, BTreeMap::new())]);
        Self { seed: trial.seed, sizes: trial.sizes, skip_sync: trial.skip_sync, states }
    }

    fn state(&mut self, batches: u64) -> &BTreeMap<Vec<u8>, Recipe> {
        let (&from, nearest) = self.states.range(..=batches).next_back().expect("begins at 0");
        let mut state = nearest.clone();
        for n in from + 1..=batches {
            for (key, recipe) in planned_batch(self.seed, self.sizes, n) {
                match recipe {
                    Some(recipe) => state.insert(key, recipe),
                    None => state.remove(&key),
                };
            }
        }
        self.states.entry(batches).or_insert(state)
    }

    /// Opens a store and compares.
    fn look(&mut self, open: Open, root: &Path, acknowledged: u64) -> Found {
        let store = match open(&root.join("store"), self.skip_sync) {
            Ok(store) => store,
            Err(error) => return Found::Broken(error.to_string()),
        };
        let mut batches = 0;
        let mut rows = Vec::new();
        let scanned = store.scan(b"\x00", b"\xff", &mut |key, value| {
            if key == COUNTER {
                batches = u64::from_be_bytes(value.try_into().unwrap_or_default());
            } else {
                rows.push((key.to_vec(), value.to_vec()));
            }
            ControlFlow::Continue(())
        });
        if let Err(error) = scanned {
            return Found::Broken(error.to_string());
        }
        if batches > acknowledged + 1 {
            return Found::Broken(format!("{batches} batches, {acknowledged} acknowledged"));
        }
        let expected = self.state(batches);
        let same = rows.len() == expected.len()
            && rows.iter().zip(expected).all(|((key, value), (expected_key, recipe))| {
                key == expected_key && *value == recipe.bytes()
            });
        if same {
            Found::Batches(batches)
        } else {
            Found::Broken(format!("it is not what {batches} batches make"))
        }
    }
}

/// The directories of a trial.
struct Place {
    root: PathBuf,
    /// What the child writes.
    live: PathBuf,
    /// What would be left.
    shadow: PathBuf,
    /// What is synced under a name that is not durable yet.
    pending: PathBuf,
    library: PathBuf,
    batches_max: usize,
}

impl Place {
    fn new(trial: &Trial) -> Option<Self> {
        let name = format!(
            "tributary-power-loss-{}-{}-{:?}-{}-{}",
            std::process::id(),
            trial.writer,
            trial.sizes,
            trial.seed,
            trial.skip_sync
        );
        let root = env::temp_dir().join(name.replace(':', "-"));
        fs::create_dir_all(&root).expect("a temporary directory");
        let at = |name: &str| root.join(name);
        let batches_max = if trial.sizes == Sizes::Large { 6 } else { 40 };
        let place = Self {
            live: at("live"),
            shadow: at("shadow"),
            pending: at("pending"),
            library: at("power_loss.so"),
            batches_max,
            root,
        };
        fs::create_dir_all(&place.live).expect("a temporary directory");
        place.compile().then_some(place)
    }

    fn compile(&self) -> bool {
        let source = self.root.join("power_loss.c");
        fs::write(&source, SHIM).expect("a temporary file");
        let compiled = ["cc", "gcc", "clang"].iter().find_map(|compiler| {
            Command::new(compiler)
                .args(["-shared", "-fPIC", "-O1", "-o"])
                .args([&self.library, &source])
                .args(["-ldl", "-lpthread"])
                .status()
                .ok()
        });
        if let Some(status) = compiled {
            assert!(status.success(), "the power-loss library does not compile");
            return true;
        }
        assert!(env::var_os("CI").is_none(), "the power-loss tests need a C compiler");
        eprintln!(
            "\n*** SKIPPED: no C compiler (cc), so no power-loss test. Durability is UNTESTED. ***\n"
        );
        false
    }

    /// The state at a start: all that is there is durable.
    fn make_all_durable(&self) {
        replace_with_copy(&self.live, &self.shadow);
        remove(&self.pending);
        fs::create_dir_all(&self.pending).expect("a temporary directory");
    }

    /// What was not durable is gone.
    fn lose_power(&self) {
        remove(&self.live);
        fs::rename(&self.shadow, &self.live).expect("the shadow takes its place");
    }

    /// Something to open that the next child does not see.
    fn copy_of_live(&self) -> PathBuf {
        let copy = self.root.join("copy");
        replace_with_copy(&self.live, &copy);
        copy
    }

    fn start(&self, trial: &Trial, fault: Option<DiskFault>) -> Running {
        let told = format!(
            "{} {:?} {} {}",
            self.live.join("store").display(),
            trial.sizes,
            trial.seed,
            trial.skip_sync
        );
        let mut command = Command::new(env::current_exe().expect("this program"));
        command
            .args(["--exact", trial.writer, "--ignored", "--nocapture", "--test-threads=1"])
            .env(TOLD, told)
            .env("LD_PRELOAD", &self.library)
            .env("POWER_LOSS_LIVE", &self.live)
            .env("POWER_LOSS_SHADOW", &self.shadow)
            .env("POWER_LOSS_PENDING", &self.pending)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        match fault {
            Some(DiskFault::FullAfterBytes(n)) => command.env("POWER_LOSS_SPACE", n.to_string()),
            Some(DiskFault::SyncFailsAfter(n)) => command.env("POWER_LOSS_SYNCS", n.to_string()),
            None => &mut command,
        };
        let mut child = command.spawn().expect("this program starts");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        Running { child, lines, last: String::new(), acknowledged: None }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A failed test leaves everything for whoever looks into it.
        if !std::thread::panicking() {
            remove(&self.root);
        }
    }
}

/// A child at work.
struct Running {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    last: String,
    /// The last batch of which it has said that it is durable.
    acknowledged: Option<u64>,
}

impl Running {
    /// Waits until the child has acknowledged `wanted` batches, or fails. (Opening a store acknowledges what
    /// is in it; 0 waits for the beginning of that.)
    fn acknowledged(&mut self, wanted: u64) {
        let mut first = None;
        while self.next_line() {
            let enough = match self.acknowledged {
                Some(n) => n - *first.get_or_insert(n) >= wanted,
                None => wanted == 0 && self.last == "opening",
            };
            if enough || self.last.starts_with("failed ") {
                return;
            }
        }
        panic!("the child ended by itself");
    }

    /// What follows the prefix in the current line or a later one.
    fn line_after(&mut self, prefix: &str) -> Option<String> {
        loop {
            if let Some(rest) = self.last.strip_prefix(prefix) {
                return Some(rest.to_owned());
            }
            if !self.next_line() {
                return None;
            }
        }
    }

    /// Whether there was a next line; afterwards `last` is it.
    fn next_line(&mut self) -> bool {
        self.last.clear();
        let read = self.lines.read_line(&mut self.last).expect("the child's words");
        self.last.truncate(self.last.trim_end().len());
        if let Some(n) = self.last.strip_prefix("ack ") {
            self.acknowledged = Some(n.parse().expect("a number"));
        }
        // The test framework's own lines and empty ones do not matter, but they are not the end.
        if read > 0 && self.last.is_empty() {
            return self.next_line();
        }
        read > 0
    }

    /// Kills it; the last batch that it acknowledged. What it had said by then counts, also when nobody had
    /// read it yet.
    fn kill(mut self) -> Option<u64> {
        self.child.kill().expect("the child is killed");
        self.child.wait().expect("the child is dead");
        while self.next_line() {}
        self.acknowledged
    }
}

fn remove(directory: &Path) {
    match fs::remove_dir_all(directory) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => panic!("{directory:?}: {e}"),
        _ => {}
    }
}

fn replace_with_copy(from: &Path, to: &Path) {
    remove(to);
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            replace_with_copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}
