//! `verify`, `export` and `import`, as an operator runs them, on stores of both kinds.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ChangeHash, ObjType, ROOT, ReadDoc, ScalarValue};
use model::DocumentId;
use node::rows;
use store::{Store, Write};
use store_sled::{SledOptions, SledStore};
use store_sqlite::SqliteStore;
use tempfile::TempDir;

const KINDS: [&str; 2] = ["sled", "sqlite"];

/// A store in a directory of its own, and the program to run on it.
struct Region {
    temp: TempDir,
    kind: &'static str,
}

/// What a run of the program came to.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Region {
    fn new(kind: &'static str) -> Self {
        Self { temp: tempfile::tempdir().unwrap(), kind }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tributary"));
        command.arg(words[0]).arg("--data").arg(self.data()).args(["--store", self.kind]);
        command.args(&words[1..]).stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Ran {
        read(self.command(words).output().unwrap())
    }

    fn ok(&self, words: &[&str]) -> Ran {
        let ran = self.run(words);
        assert_eq!(ran.code, 0, "{words:?}: {ran:?}");
        ran
    }

    /// Writes a file beside the store and returns its name.
    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        text(&path)
    }

    fn import(&self, doc: &mut AutoCommit, id: &DocumentId) -> Ran {
        let file = self.file("import.automerge", &doc.save());
        self.ok(&["import", &file, "--id", &id.to_string()])
    }

    fn export(&self, id: &DocumentId) -> AutoCommit {
        let to = text(&self.path("export.automerge"));
        self.ok(&["export", "--document", &format!("automerge:{id}"), "--to", &to]);
        AutoCommit::load(&fs::read(to).unwrap()).unwrap()
    }

    /// A lock outlives its holder for a moment: a process that another test starts just then holds it
    /// too, between its fork and its exec.
    fn open(&self) -> Box<dyn Store> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let opened: Result<Box<dyn Store>, _> = match self.kind {
                "sled" => SledStore::open(self.data(), &SledOptions::default())
                    .map(|store| Box::new(store) as _),
                _ => SqliteStore::open(self.data()).map(|store| Box::new(store) as _),
            };
            match opened {
                Ok(store) => return store,
                Err(error) if error.to_string().contains("another process") => {
                    assert!(Instant::now() < end, "{error}");
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Changes the store behind the program's back.
    fn tamper(&self, writes: &[Write]) {
        self.open().commit(writes).unwrap();
    }

    fn main_file(&self) -> PathBuf {
        self.data().join(if self.kind == "sled" { "db" } else { "store.sqlite" })
    }
}

fn read(output: Output) -> Ran {
    Ran {
        code: output.status.code().expect("it was not killed"),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn id(n: u8) -> DocumentId {
    DocumentId::from_bytes(&[n; 16]).unwrap()
}

/// A document with a title and a text, typed one change at a time.
fn typed(actor: u8, edits: usize) -> AutoCommit {
    let mut doc = AutoCommit::new().with_actor(ActorId::from(vec![actor; 16]));
    doc.put(ROOT, "title", format!("document {actor}")).unwrap();
    doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    doc.commit();
    edit(&mut doc, edits);
    doc
}

fn edit(doc: &mut AutoCommit, edits: usize) {
    let (_, text) = doc.get(ROOT, "text").unwrap().unwrap();
    for n in 0..edits {
        let at = doc.length(&text) * (n % 3) / 3;
        doc.splice_text(&text, at, 0, "x").unwrap();
        doc.commit();
    }
}

fn count(doc: &mut AutoCommit) -> usize {
    doc.get_changes(&[]).len()
}

/// All documents in a NodeFS directory, read as the stock adapter does it.
fn nodefs(root: &Path) -> BTreeMap<String, Vec<ChangeHash>> {
    let mut documents = BTreeMap::new();
    for first in fs::read_dir(root).unwrap() {
        let first = first.unwrap();
        for rest in fs::read_dir(first.path()).unwrap() {
            let rest = rest.unwrap();
            let name =
                [first.file_name(), rest.file_name()].map(|name| name.into_string().unwrap());
            let mut doc = AutoCommit::new();
            for file in fs::read_dir(rest.path().join("snapshot")).unwrap() {
                doc.load_incremental(&fs::read(file.unwrap().path()).unwrap()).unwrap();
            }
            documents.insert(name.concat(), doc.get_heads());
        }
    }
    documents
}

#[test]
fn a_document_comes_out_as_it_went_in_whether_it_is_short_or_long() {
    for kind in KINDS {
        let region = Region::new(kind);
        // Some 100 bytes a change: the second one is stored as a snapshot.
        for (n, edits) in [(1, 3), (2, 1_500)] {
            let mut doc = typed(n, edits);
            let ran = region.import(&mut doc, &id(n));
            assert_eq!(ran.out.trim(), format!("automerge:{}", id(n)));
            let mut back = region.export(&id(n));
            assert_eq!(back.get_heads(), doc.get_heads());
            assert_eq!(count(&mut back), edits + 1);
        }
        let ran = region.ok(&["verify"]);
        assert!(ran.out.contains("verified 2 documents with 1505 changes"), "{ran:?}");
        assert!(ran.out.contains("all is well"), "{ran:?}");
    }
}

#[test]
fn a_whole_store_moves_from_one_kind_to_the_other_and_back() {
    let (first, second) = (Region::new("sled"), Region::new("sqlite"));
    let mut heads = BTreeMap::new();
    for (n, edits) in [(1, 2), (2, 900), (3, 40)] {
        let mut doc = typed(n, edits);
        first.import(&mut doc, &id(n));
        heads.insert(id(n).to_string(), doc.get_heads());
    }
    let export = text(&first.path("export"));
    let ran = first.ok(&["export", "--to", &export]);
    assert!(ran.out.contains("exported 3 documents"), "{ran:?}");
    assert_eq!(nodefs(Path::new(&export)), heads);

    let ran = second.ok(&["import", &export]);
    assert!(ran.out.contains("imported 3 documents: 945 changes are new"), "{ran:?}");
    second.ok(&["verify"]);
    let back = text(&second.path("back"));
    second.ok(&["export", "--to", &back]);
    assert_eq!(nodefs(Path::new(&back)), heads);
    first.ok(&["import", &back]);
    first.ok(&["verify"]);

    // It is there whole or not at all, and never on top of something else.
    let ran = first.run(&["export", "--to", &export]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("not empty"), "{ran:?}");
}

#[test]
fn importing_twice_is_importing_once() {
    for kind in KINDS {
        let region = Region::new(kind);
        for (n, edits) in [(1, 5), (2, 1_000)] {
            let mut doc = typed(n, edits);
            region.import(&mut doc, &id(n));
            let before = rows_of(&region);
            let ran = region.import(&mut doc, &id(n));
            assert!(ran.err.contains("0 changes are new"), "{ran:?}");
            assert_eq!(rows_of(&region), before);
        }
        region.ok(&["verify"]);
    }
}

fn rows_of(region: &Region) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let store = region.open();
    let visit = &mut |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        std::ops::ControlFlow::Continue(())
    };
    store.scan(&[], &[0xff; 8], visit).unwrap();
    rows
}

#[test]
fn an_import_into_a_document_that_is_here_adds_what_is_missing() {
    for kind in KINDS {
        for edits in [10, 1_200] {
            let region = Region::new(kind);
            let mut ours = typed(1, edits);
            let mut theirs = ours.fork().with_actor(ActorId::from(vec![2; 16]));
            edit(&mut ours, 7);
            edit(&mut theirs, 9);
            region.import(&mut ours, &id(1));
            let ran = region.import(&mut theirs, &id(1));
            let expected = format!("9 changes are new, {} were here already", edits + 1);
            assert!(ran.err.contains(&expected), "{ran:?}");
            ours.merge(&mut theirs).unwrap();
            assert_eq!(region.export(&id(1)).get_heads(), ours.get_heads());
            region.ok(&["verify"]);
        }
    }
}

#[test]
fn a_directory_of_the_stock_package_is_taken_in() {
    let region = Region::new("sled");
    // As its storage subsystem leaves it: a snapshot, an older one that it did not get to delete,
    // and increments, whose names say nothing about their order.
    let mut doc = typed(1, 20);
    let older = doc.save();
    edit(&mut doc, 20);
    let snapshot = doc.save();
    let mut increments = Vec::new();
    for _ in 0..12 {
        let heads = doc.get_heads();
        edit(&mut doc, 3);
        increments.push(doc.save_after(&heads));
    }
    let name = id(1).to_string();
    let root = format!("repo/{}/{}", &name[..2], &name[2..]);
    region.file(&format!("{root}/snapshot/1111"), &snapshot);
    region.file(&format!("{root}/snapshot/0000"), &older);
    for (n, increment) in increments.iter().enumerate() {
        region.file(&format!("{root}/incremental/{:02x}", 255 - n * 7 % 11 * 13 - n), increment);
    }
    region.file(&format!("{root}/sync-state/6ba7b810-9dad-11d1-80b4-00c04fd430c8"), b"state");
    region.file("repo/st/orage-adapter-id", b"6ba7b811-9dad-11d1-80b4-00c04fd430c8");
    // A document that has only increments, and one of which there is only a sync state.
    let mut young = typed(2, 0);
    let name = id(2).to_string();
    region.file(
        &format!("repo/{}/{}/incremental/aa", &name[..2], &name[2..]),
        &young.save_after(&[]),
    );
    let name = id(3).to_string();
    region.file(&format!("repo/{}/{}/sync-state/x", &name[..2], &name[2..]), b"state");

    let repo = text(&region.path("repo"));
    let ran = region.ok(&["import", &repo]);
    assert!(ran.out.contains("imported 2 documents"), "{ran:?}");
    assert_eq!(region.export(&id(1)).get_heads(), doc.get_heads());
    assert_eq!(region.export(&id(2)).get_heads(), young.get_heads());
    let ran = region.ok(&["import", &repo]);
    assert!(ran.out.contains("0 changes are new"), "{ran:?}");
    region.ok(&["verify"]);
}

#[test]
fn what_cannot_be_read_is_left_out_and_the_rest_goes_in() {
    let region = Region::new("sqlite");
    let mut doc = typed(1, 30);
    let snapshot = doc.save();
    let heads = doc.get_heads();
    edit(&mut doc, 1);
    let lost = doc.save_after(&heads);
    let later = doc.get_heads();
    edit(&mut doc, 1);
    let orphan = doc.save_after(&later);
    let name = id(1).to_string();
    let root = format!("repo/{}/{}", &name[..2], &name[2..]);
    region.file(&format!("{root}/snapshot/good"), &snapshot);
    region.file(&format!("{root}/incremental/torn"), &lost[..lost.len() - 3]);
    region.file(&format!("{root}/incremental/orphan"), &orphan);
    region.file(&format!("{root}/incremental/stranger"), b"notes to self");
    region.file("repo/no/document/snapshot/x", b"whatever");

    let ran = region.run(&["import", &text(&region.path("repo"))]);
    assert_eq!(ran.code, 1, "{ran:?}");
    for words in
        ["torn", "stranger: this is not an Automerge file", "which is nowhere", "no/document"]
    {
        assert!(ran.err.contains(words), "{words}: {ran:?}");
    }
    assert_eq!(region.export(&id(1)).get_heads(), heads);
    region.ok(&["verify"]);

    // What was missing comes later.
    region.file(&format!("{root}/incremental/torn"), &lost);
    region.run(&["import", &text(&region.path("repo"))]);
    assert_eq!(region.export(&id(1)).get_heads(), doc.get_heads());
}

#[test]
fn two_histories_under_one_actor_are_told_apart() {
    let region = Region::new("sled");
    let mut ours = typed(1, 3);
    let mut theirs = AutoCommit::load(&ours.save()).unwrap().with_actor(ours.get_actor().clone());
    edit(&mut ours, 1);
    theirs.put(ROOT, "title", "another history").unwrap();
    theirs.commit();
    region.import(&mut ours, &id(1));
    let file = region.file("theirs.automerge", &theirs.save());
    let ran = region.run(&["import", &file, "--id", &id(1).to_string()]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("has already made another change number 5"), "{ran:?}");
    assert_eq!(region.export(&id(1)).get_heads(), ours.get_heads());
}

#[test]
fn standard_input_and_output_carry_a_document() {
    let region = Region::new("sled");
    let mut doc = typed(1, 4);
    doc.put(ROOT, "counter", ScalarValue::counter(3)).unwrap();
    let mut child = region
        .command(&["import", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&doc.save()).unwrap();
    let ran = read(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 0, "{ran:?}");
    // Without an id it gets a fresh one, which is all that is printed.
    let url = ran.out.trim();
    assert!(url.strip_prefix("automerge:").unwrap().parse::<DocumentId>().is_ok(), "{url}");
    let output = region.command(&["export", "--document", url, "--to", "-"]).output().unwrap();
    assert_eq!(AutoCommit::load(&output.stdout).unwrap().get_heads(), doc.get_heads());
}

#[test]
fn damage_behind_sound_checksums_is_found_and_named() {
    for kind in KINDS {
        let garbage = || b"no such thing".to_vec();
        let meta = |region: &Region| rows::load(&*region.open(), &id(2)).unwrap().unwrap().meta;
        // Each is done to a fresh store with a document kept as a log, 1, and one as a snapshot, 2.
        type Damage<'a> = (&'a str, &'a dyn Fn(&Region) -> Vec<Write>, DocumentId);
        let damages: [Damage; 11] = [
            ("the log", &|_| vec![rows::delete_log(&id(1), 0)], id(1)),
            (
                "but not the one that says",
                &|_| vec![delete(rows::put_meta(&id(1), Default::default()))],
                id(1),
            ),
            (
                "which this program does not know",
                &|_| vec![put(rows::put_meta(&id(1), Default::default()), garbage())],
                id(1),
            ),
            ("in the log twice", &|region| vec![copy_of_log(region, 0, 9_999)], id(1)),
            ("the log has a row at 9999", &|region| last_log_moved(region, 9_999), id(1)),
            ("directory is missing", &|_| vec![delete(rows::put_directory(&id(2), vec![]))], id(2)),
            ("malformed", &|_| vec![rows::put_directory(&id(2), garbage())], id(2)),
            (
                "directory does not describe",
                &|_| vec![rows::put_directory(&id(2), other_directory())],
                id(2),
            ),
            ("index", &|_| vec![rows::put_index(&id(2), 0, garbage())], id(2)),
            ("snapshot has", &|_| vec![rows::put_snapshot(&id(2), typed(2, 20).save())], id(2)),
            (
                "Automerge finds",
                &|region| {
                    let snapshot = typed(2, 899).save();
                    let meta = rows::Meta { snapshot_bytes: snapshot.len() as u64, ..meta(region) };
                    vec![rows::put_snapshot(&id(2), snapshot), rows::put_meta(&id(2), meta)]
                },
                id(2),
            ),
        ];
        for (words, damage, document) in damages {
            let region = Region::new(kind);
            region.import(&mut typed(1, 80), &id(1));
            region.import(&mut typed(2, 950), &id(2));
            let writes = damage(&region);
            region.tamper(&writes);
            let ran = region.run(&["verify"]);
            assert_eq!(ran.code, 1, "{words}: {ran:?}");
            let named = format!("automerge:{document}: DAMAGED: ");
            assert!(
                ran.out.lines().any(|line| line.starts_with(&named) && line.contains(words)),
                "{kind} {words}: {ran:?}"
            );
            let other = if document == id(1) { id(2) } else { id(1) };
            assert!(!ran.out.contains(&other.to_string()), "{ran:?}");
            // The other document can still be saved.
            let ran = region.run(&["export", "--to", &text(&region.path("rescued"))]);
            let rescued = nodefs(&region.path("rescued"));
            assert!(rescued.contains_key(&other.to_string()), "{words}: {ran:?}");
        }
    }
}

fn put(write: Write, value: Vec<u8>) -> Write {
    Write::Put { key: write.key().to_vec(), value }
}

fn delete(write: Write) -> Write {
    Write::Delete { key: write.key().to_vec() }
}

/// The last log row of document 1, moved: its changes still follow what they depend on.
fn last_log_moved(region: &Region, to: u32) -> Vec<Write> {
    let rows = rows::log_rows(&*region.open(), &id(1), 0, 1_000).unwrap();
    let last = rows.last().unwrap().position;
    assert!(last > 0);
    vec![copy_of_log(region, last, to), rows::delete_log(&id(1), last)]
}

/// A log row of document 1 at another position.
fn copy_of_log(region: &Region, from: u32, to: u32) -> Write {
    let key = |position| rows::delete_log(&id(1), position).key().to_vec();
    let value = region.open().get(&key(from)).unwrap().unwrap();
    Write::Put { key: key(to), value }
}

/// A sound directory of a document that is not here.
fn other_directory() -> Vec<u8> {
    let mut directory = history::directory::Directory::default();
    for change in typed(7, 5).get_changes(&[]) {
        directory.record(&history::chunk::read_change(change.raw_bytes()).unwrap());
    }
    directory.encode()
}

#[test]
fn changes_that_were_set_aside_are_listed_and_are_no_damage() {
    let region = Region::new("sled");
    let mut doc = typed(1, 5);
    region.import(&mut doc, &id(1));
    edit(&mut doc, 1);
    let last = doc.get_changes(&[]).last().unwrap().raw_bytes().to_vec();
    let change = history::chunk::read_change(&last).unwrap();
    region.tamper(&[rows::put_dead(&id(1), rows::Death::Misfit, "it was too tall", &change)]);
    let ran = region.ok(&["verify"]);
    assert!(ran.out.contains(&format!("change {} is set aside: it was too tall", change.hash())));
    // It does not come back through the back door.
    let file = region.file("again.automerge", &doc.save());
    let ran = region.run(&["import", &file, "--id", &id(1).to_string()]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("it was too tall"), "{ran:?}");
}

#[test]
fn a_flipped_byte_of_a_stored_change_is_found() {
    for kind in KINDS {
        let region = Region::new(kind);
        let mut doc = typed(1, 60);
        region.import(&mut doc, &id(1));
        // More behind it, so that it is not the end of what was written: to sled that looks like the
        // end that a crash left.
        for n in 2..6 {
            region.import(&mut typed(n, 700), &id(n));
        }
        let mut needle = doc.get_changes(&[])[30].raw_bytes().to_vec();
        needle.truncate(40);
        let mut bytes = fs::read(region.main_file()).unwrap();
        let at = (0..bytes.len() - needle.len())
            .filter(|at| bytes[*at..].starts_with(&needle))
            .collect::<Vec<_>>();
        assert!(!at.is_empty(), "{kind}: the change is in the file");
        for at in at {
            bytes[at + 20] ^= 0x10;
        }
        fs::write(region.main_file(), bytes).unwrap();
        let ran = region.run(&["verify"]);
        assert!(matches!(ran.code, 1 | 3), "{kind}: {ran:?}");
    }
}

#[test]
fn no_flipped_byte_makes_verify_panic() {
    for kind in KINDS {
        let region = Region::new(kind);
        for n in 1..4 {
            region.import(&mut typed(n, 250), &id(n));
        }
        let sound = fs::read(region.main_file()).unwrap();
        let mut found = 0;
        for n in 0..24_usize {
            let copy = Region::new(kind);
            copy_directory(&region.data(), &copy.data());
            let mut bytes = sound.clone();
            // Where pages and segments begin, and in the middle of them.
            let at = n * sound.len() / 24 + n % 2 * 2_000 + n * 7;
            bytes[at] ^= 0x41;
            fs::write(copy.main_file(), bytes).unwrap();
            let ran = copy.run(&["verify"]);
            assert!(matches!(ran.code, 0 | 1 | 3), "byte {at}: {ran:?}");
            found += usize::from(ran.code != 0);
        }
        // The rest hit what is not in use.
        assert!(found > 0, "{kind}");
    }
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_store_that_is_in_use_is_left_alone() {
    for kind in KINDS {
        let region = Region::new(kind);
        region.import(&mut typed(1, 1), &id(1));
        let _server = region.open();
        let file = text(&region.path("import.automerge"));
        for words in [
            &["verify"][..],
            &["export", "--to", "-", "--document", &id(1).to_string()],
            &["import", &file],
        ] {
            let ran = region.run(words);
            assert_eq!(ran.code, 3, "{ran:?}");
            assert!(ran.err.contains("a running server"), "{ran:?}");
        }
    }
}

#[test]
fn mistakes_are_named_and_leave_nothing_behind() {
    let region = Region::new("sled");
    let file = region.file("notes.txt", b"notes to self");
    let nowhere = text(&region.path("nowhere"));
    let empty = text(&region.path("empty"));
    fs::create_dir(&empty).unwrap();
    for (words, code, says) in [
        (&["verify"][..], 3, "no such directory"),
        (&["export", "--to", "x"], 3, "no such directory"),
        (&["import", &nowhere], 1, "cannot be read"),
        (&["import", &empty], 1, "no documents"),
        (&["import", &file, "--id", "nonsense"], 2, "names no document"),
        (&["import", &empty, "--id", &id(1).to_string()], 2, "--id is for a single file"),
        (&["export", "--to", "-"], 2, "a whole store"),
        (&["export", "--document", "nonsense", "--to", "-"], 2, "names no document"),
    ] {
        let ran = region.run(words);
        assert_eq!(ran.code, code, "{words:?}: {ran:?}");
        assert!(ran.err.contains(says), "{words:?}: {ran:?}");
    }
    assert!(!region.data().exists());

    let ran = region.run(&["import", &file]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("not an Automerge file"), "{ran:?}");

    region.import(&mut typed(1, 1), &id(1));
    let ran = region.run(&["export", "--document", &id(2).to_string(), "--to", "-"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("no such document"), "{ran:?}");
    let other = Region { kind: "sqlite", ..region };
    for words in [&["verify"][..], &["import", &file]] {
        let ran = other.run(words);
        assert_eq!(ran.code, 3);
        assert!(ran.err.contains("--store sled"), "{ran:?}");
    }
}

#[test]
fn a_directory_that_is_no_store_is_refused() {
    for kind in KINDS {
        let region = Region::new(kind);
        region.file("data/photo.jpg", b"a photo");
        let file = region.file("a.automerge", &typed(1, 1).save());
        for words in [&["verify"][..], &["import", &file]] {
            let ran = region.run(words);
            assert_eq!(ran.code, 3, "{ran:?}");
        }
        assert_eq!(fs::read_dir(region.data()).unwrap().count(), 1);
    }
}
