//! One actor writes two histories in two regions: whatever the order in which a third region hears
//! of what, and however often it starts anew in between, it serves the same and holds the same dead.
//!
//! What that has to be is worked out here from the rule alone: a change is dead if one with a smaller
//! hash has its actor's slot, if it builds on a dead change, or if a region said that it is dead.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, ROOT};
use mesh::{Entry, Item, Lane, LogId, Origin, ToShard};
use model::{ChangeHash, DocumentId, PeerId, RegionName, StorageId};
use node::{
    ArchiveFailure, Effect, Event, Identity, Limits, MeshSetup, Now, Shard, mesh_rows, rows,
};
use store::{MemoryDisk, Store};

const REGIONS: [&str; 3] = ["ams", "iad", "gru"];

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

fn document() -> DocumentId {
    DocumentId::from_bytes(&[5; 16]).unwrap()
}

/// What the origin logs of three regions hold: each of them took in what fits behind what it has.
type Logs = Vec<Vec<Entry>>;

/// A person at a region, and the document as it is there.
struct Author {
    region: usize,
    doc: Automerge,
}

/// Makes up histories: people type at three regions, hear of each other now and then, and some of
/// them have taken the actor of somebody else.
fn make_logs(dice: &mut Dice, changes: usize) -> Logs {
    let actors = 2 + dice.below(3) as u8;
    let mut first = Automerge::new().with_actor(ActorId::from(vec![1]));
    write(&mut first, 0);
    let start = first.get_changes(&[])[0].raw_bytes().to_vec();
    let mut logs: Logs = vec![Vec::new(); REGIONS.len()];
    logs[0].push(entry(&start));
    let mut authors: Vec<Author> = (0..6)
        .map(|index| {
            // Two actors are used twice, each time in another region.
            let actor = ActorId::from(vec![1 + index as u8 % actors]);
            let mut doc = Automerge::new().with_actor(actor);
            doc.load_incremental(&start).unwrap();
            Author { region: index % REGIONS.len(), doc }
        })
        .collect();
    for number in 0..changes {
        let who = dice.below(authors.len());
        if dice.below(3) == 0 {
            hear(&mut authors, who, dice);
        }
        let author = &mut authors[who];
        let before = author.doc.get_heads();
        write(&mut author.doc, number as i64 + 1);
        for change in author.doc.get_changes(&before) {
            logs[author.region].push(entry(change.raw_bytes()));
        }
    }
    logs
}

/// Somebody takes in what somebody else has, unless their actors have two histories between them.
fn hear(authors: &mut [Author], who: usize, dice: &mut Dice) {
    let other = dice.below(authors.len());
    let mut theirs = authors[other].doc.clone();
    let mut mine = authors[who].doc.clone();
    // Automerge refuses when the same actor has two changes of one number.
    if mine.merge(&mut theirs).is_ok() {
        let actor = authors[who].doc.get_actor().clone();
        authors[who].doc = mine.with_actor(actor);
    }
}

fn write(doc: &mut Automerge, value: i64) {
    let mut tx = doc.transaction();
    tx.put(ROOT, format!("key-{}", value % 3), value).unwrap();
    tx.commit_with(CommitOptions::default().with_time(1_700_000_000));
}

fn entry(bytes: &[u8]) -> Entry {
    Entry { document: document(), item: Item::Change(history::read_change(bytes).unwrap()) }
}

/// What the rule says: which changes are dead, and which of the others nobody builds on.
fn by_the_rule(logs: &Logs) -> (BTreeSet<ChangeHash>, BTreeSet<ChangeHash>) {
    let mut changes = BTreeMap::new();
    let mut dead = BTreeSet::new();
    for entry in logs.iter().flatten() {
        match &entry.item {
            Item::Change(change) => {
                changes.insert(change.hash(), change.clone());
            }
            Item::Dead { hash, .. } => {
                dead.insert(*hash);
            }
        }
    }
    let mut slots: BTreeMap<_, ChangeHash> = BTreeMap::new();
    for (hash, change) in &changes {
        let least = slots.entry((change.actor().clone(), change.seq())).or_insert(*hash);
        *least = (*least).min(*hash);
    }
    dead.extend(changes.iter().filter_map(|(hash, change)| {
        (slots[&(change.actor().clone(), change.seq())] < *hash).then_some(*hash)
    }));
    loop {
        let heirs: Vec<ChangeHash> = (changes.iter())
            .filter(|(hash, change)| {
                !dead.contains(hash) && change.deps().iter().any(|dep| dead.contains(dep))
            })
            .map(|(hash, _)| *hash)
            .collect();
        if heirs.is_empty() {
            break;
        }
        dead.extend(heirs);
    }
    let living = || changes.iter().filter(|(hash, _)| !dead.contains(hash));
    let built_on: BTreeSet<ChangeHash> =
        living().flat_map(|(_, change)| change.deps().to_vec()).collect();
    let heads = living().map(|(hash, _)| *hash).filter(|hash| !built_on.contains(hash)).collect();
    (heads, dead)
}

/// A region that only listens, with nothing around it that takes time.
struct Listener {
    disk: MemoryDisk,
    store: Arc<dyn Store>,
    shard: Shard,
    now: Now,
    epoch: u64,
}

impl Listener {
    fn new() -> Self {
        let disk = MemoryDisk::new();
        let store: Arc<dyn Store> = Arc::new(disk.open());
        let shard = start(&store, 1);
        Self { disk, store, shard, now: Now::default(), epoch: 1 }
    }

    fn restart(&mut self) {
        self.disk.crash();
        self.epoch += 1;
        self.store = Arc::new(self.disk.open());
        self.shard = start(&self.store, self.epoch);
        self.now = Now::default();
    }

    fn take(&mut self, region: usize, first: u64, entry: Entry) {
        let region = RegionName::new(REGIONS[region]).unwrap();
        let origin = Origin { region: region.clone(), epoch: 7 };
        let log = LogId { origin, stream: document().stream() };
        let message =
            ToShard::Take { lane: Lane::Live, log, first, entries: vec![entry], credit: 10 };
        self.shard.handle(self.now, Event::Region { region, message });
        self.run();
    }

    fn run(&mut self) {
        self.shard.tick(self.now);
        self.shard.flush(self.now);
        let mut effects = VecDeque::new();
        loop {
            while let Some(effect) = self.shard.poll_effect() {
                effects.push_back(effect);
            }
            let Some(effect) = effects.pop_front() else { return };
            let event = match effect {
                Effect::Commit { batch, writes } => {
                    self.store.commit(&writes).unwrap();
                    Event::Committed { batch }
                }
                Effect::Archive { job, task } => {
                    let result = archive::run(*task, &mut |_| {}).map_err(ArchiveFailure::from);
                    Event::Archived { job, result: Box::new(result), took: Duration::ZERO }
                }
                Effect::Adopt(branch) => Event::Adopt(branch),
                _ => continue,
            };
            self.shard.handle(self.now, event);
            self.shard.flush(self.now);
        }
    }

    /// Lets everything happen that only takes time. A document that nobody has opened since the start
    /// is looked at by the sweep that the server makes now and then.
    fn settle(&mut self) {
        self.shard.handle(self.now, Event::Tend { document: document() });
        self.run();
        let end = self.now.running + Duration::from_secs(60);
        while let Some(at) = self.shard.poll_timeout().filter(|at| *at <= end) {
            self.now.running = self.now.running.max(at) + Duration::from_millis(1);
            self.run();
        }
    }

    /// Everything that is served, with what is dead in it; the document of the test and all copies.
    fn outcome(&self) -> BTreeMap<DocumentId, (BTreeSet<ChangeHash>, BTreeSet<ChangeHash>)> {
        let mut outcome = BTreeMap::new();
        rows::documents(&*self.store, &mut |id, _| {
            let loaded = rows::load(&*self.store, &id).unwrap().unwrap();
            let dead = rows::dead(&*self.store, &id).unwrap();
            let heads = loaded.history.heads().iter().copied().collect();
            let dead = dead.iter().map(|dead| dead.hash).collect();
            outcome.insert(id, (heads, dead));
            ControlFlow::Continue(())
        })
        .unwrap();
        outcome
    }
}

fn start(store: &Arc<dyn Store>, epoch: u64) -> Shard {
    let me = Identity {
        peer: PeerId::new("listener").unwrap(),
        storage: StorageId::new("store-of-the-listener").unwrap(),
    };
    let setup = MeshSetup {
        region: RegionName::new("nrt").unwrap(),
        epoch,
        regions: REGIONS.iter().map(|name| RegionName::new(name).unwrap()).collect(),
        salt: 1,
        shard: 0,
        shards: 1,
    };
    let limits = Limits { compact_tail_bytes: 300, ..Limits::default() };
    Shard::in_mesh(me, limits, store.clone(), setup).unwrap()
}

/// Plays the logs into a new region, each in its order and all of them mixed.
fn play(logs: &Logs, dice: &mut Dice, restarts: bool) -> Listener {
    let mut listener = Listener::new();
    let mut next = vec![0; logs.len()];
    loop {
        let open: Vec<usize> =
            (0..logs.len()).filter(|log| next[*log] < logs[*log].len()).collect();
        if open.is_empty() {
            break;
        }
        let log = open[dice.below(open.len())];
        let entry = logs[log][next[log]].clone();
        next[log] += 1;
        listener.take(log, next[log] as u64, entry);
        match dice.below(10) {
            0 if restarts => listener.restart(),
            1 => listener.settle(),
            _ => {}
        }
    }
    listener.settle();
    listener
}

/// The logs in words.
fn describe(logs: &Logs) -> String {
    let mut text = String::new();
    for (region, log) in logs.iter().enumerate() {
        for entry in log {
            text += &match &entry.item {
                Item::Change(change) => format!(
                    "{} {} is {}:{} on {:?}\n",
                    REGIONS[region],
                    change.hash(),
                    change.actor(),
                    change.seq(),
                    change.deps()
                ),
                Item::Dead { hash, .. } => format!("{} {hash} is dead\n", REGIONS[region]),
            };
        }
    }
    text
}

#[test]
fn whatever_the_order_two_histories_of_one_actor_end_as_the_rule_says() {
    let (mut forked, mut copies) = (0, 0);
    for seed in 1..=150 {
        let mut dice = Dice(seed * 0x9e37_79b9);
        let mut logs = make_logs(&mut dice, 6 + seed as usize % 9);
        if seed % 5 == 0 {
            // One region found that a change of another does not fit.
            let hash = logs[1].first().map(Entry::hash);
            let reason = "says the test".to_owned();
            logs[2].extend(
                hash.map(|hash| Entry { document: document(), item: Item::Dead { hash, reason } }),
            );
        }
        let (heads, dead) = by_the_rule(&logs);
        forked += usize::from(!dead.is_empty());
        let mut all = None;
        for _ in 0..8 {
            let restarts = dice.below(2) == 0;
            let outcome = play(&logs, &mut dice, restarts).outcome();
            let of_document = outcome.get(&document()).cloned().unwrap_or_default();
            assert_eq!(
                of_document,
                (heads.clone(), dead.clone()),
                "seed {seed}, restarts {restarts}: not as the rule says\n{}",
                describe(&logs)
            );
            copies = copies.max(outcome.len() - 1);
            let before = all.get_or_insert_with(|| outcome.clone());
            assert_eq!(
                *before,
                outcome,
                "seed {seed}: another order, another outcome\n{}",
                describe(&logs)
            );
        }
    }
    assert!(forked >= 75, "only {forked} seeds have forks");
    assert!(copies >= 1, "no conflict copy was ever made");
}

#[test]
fn what_has_come_is_in_the_log_rows_whatever_became_of_it() {
    let mut dice = Dice(77);
    let logs = make_logs(&mut dice, 12);
    let listener = play(&logs, &mut dice, true);
    let held: BTreeMap<_, _> = mesh_rows::logs(&*listener.store).unwrap().into_iter().collect();
    for (region, log) in logs.iter().enumerate().filter(|(_, log)| !log.is_empty()) {
        let held = held.iter().find(|(id, _)| id.origin.region.as_str() == REGIONS[region]);
        let (_, held) = held.expect("a mark for every log");
        assert_eq!(held.end.sequence, log.len() as u64);
        let mark = log.iter().fold(mesh::Mark::default(), mesh::Mark::then);
        assert_eq!(held.end, mark, "the digest of {}", REGIONS[region]);
    }
}
