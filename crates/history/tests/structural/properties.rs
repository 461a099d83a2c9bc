//! Both directions, on random histories.

use std::collections::BTreeMap;

use automerge::{Change, ExpandedChange, legacy};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tributary_history::check::{Misfit, Verdict};
use tributary_history::directory::{Directory, DirectoryError};

use crate::crdt::{self, OWN_PANIC, shuffled, survives};
use crate::graph::{Document, Refused};
use crate::honest::{Habits, history};

#[test]
fn whatever_honest_clients_do_is_accepted_in_any_causal_order() {
    let mut needs_crdt = 0;
    for seed in seeds(200) {
        let mut random = SmallRng::seed_from_u64(seed);
        let habits = Habits {
            clients: random.random_range(1..5),
            steps: random.random_range(10..80),
            marks: seed % 3 != 0,
        };
        let changes = history(seed, habits);
        for _ in 0..2 {
            let mut document = Document::default();
            for change in shuffled(&changes, &mut random) {
                match document.offer(change.raw_bytes(), true) {
                    Ok(Verdict::Fits) => {}
                    Ok(Verdict::NeedsCrdt(_)) => needs_crdt += 1,
                    Err(refused) => panic!("seed {seed}: {refused:?}\n{}", in_short(&change)),
                }
            }
            let encoded = document.directory.encode();
            assert_eq!(Directory::decode(&encoded).as_ref(), Ok(&document.directory));
        }
    }
    assert_eq!(needs_crdt, 0, "the order of marks is decided without the CRDT");
}

#[test]
fn automerge_itself_survives_what_honest_clients_do() {
    for seed in seeds(60) {
        let mut random = SmallRng::seed_from_u64(seed);
        let habits = Habits {
            clients: random.random_range(1..5),
            steps: random.random_range(10..80),
            marks: seed % 3 != 0,
        };
        survives(&history(seed, habits), seed, 5).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
}

#[test]
fn a_merge_of_very_many_branches_is_accepted_and_lives_on_in_any_causal_order() {
    for seed in seeds(4) {
        let mut random = SmallRng::seed_from_u64(seed);
        // Forty people who hardly hear of each other, and then of everything at once.
        let habits = Habits { clients: 40, steps: 120, marks: seed % 2 == 0 };
        let changes = history(seed, habits);
        let widest = changes.iter().map(|change| change.deps().len()).max();
        assert!(widest > Some(15), "seed {seed}: {widest:?}");
        for _ in 0..3 {
            let mut document = Document::default();
            for change in shuffled(&changes, &mut random) {
                let verdict = document.offer(change.raw_bytes(), false);
                assert_eq!(verdict, Ok(Verdict::Fits), "seed {seed}:\n{}", in_short(&change));
            }
        }
        let survived = survives(&changes, seed, 3);
        assert!(
            survived.as_ref().err().is_none_or(|why| why.contains(OWN_PANIC)),
            "seed {seed}: {survived:?}"
        );
    }
}

#[test]
fn whatever_is_accepted_applies_saves_loads_and_reads_in_any_causal_order() {
    let (mut accepted, mut refused, mut needs_crdt) = (0, BTreeMap::<String, usize>::new(), 0);
    for seed in seeds(25) {
        let mut random = SmallRng::seed_from_u64(seed);
        let changes = history(seed, Habits { clients: 3, steps: 30, marks: seed % 3 != 0 });
        for _ in 0..12 {
            // Everything but one change and what came after it, and that one changed.
            let at = random.random_range(1..changes.len());
            let mut known = without_descendants(&changes, at);
            let mut document = Document::default();
            for change in &known {
                if let Err(refused) = document.offer(change.raw_bytes(), true) {
                    panic!("seed {seed}: {refused:?}\n{}", in_short(change));
                }
            }
            for _ in 0..8 {
                let mutated = mutate(&changes[at], &changes, &known, &mut random);
                let before = document.clone();
                match document.offer(mutated.raw_bytes(), false) {
                    Ok(Verdict::Fits) => {
                        accepted += 1;
                        known.push(mutated.clone());
                        if let Err(error) = survives(&known, seed, 4)
                            && !error.contains(OWN_PANIC)
                        {
                            let (bad, was) = (in_short(&mutated), in_short(&changes[at]));
                            let known: String = known.iter().map(in_short).collect();
                            panic!("seed {seed}: {error}\n{known}\nnow\n{bad}\nwas\n{was}");
                        }
                        known.pop();
                        document = before;
                    }
                    Ok(Verdict::NeedsCrdt(_)) => needs_crdt += 1,
                    Err(why) => {
                        let why = match why {
                            Refused::Misfit(Misfit::Operation { fault, .. }) => fault.to_string(),
                            other => format!("{other:?}"),
                        };
                        *refused.entry(why).or_default() += 1;
                    }
                }
            }
        }
    }
    println!("accepted {accepted}, to the CRDT {needs_crdt}, refused {refused:#?}");
    assert!(accepted > 100);
}

#[test]
fn damaged_directories_are_refused_or_read_but_never_panic() {
    let mut random = SmallRng::seed_from_u64(11);
    for seed in 0..20 {
        let mut document = Document::default();
        for change in history(seed, Habits { clients: 3, steps: 30, marks: true }) {
            document.offer(change.raw_bytes(), true).unwrap();
        }
        let encoded = document.directory.encode();
        assert_eq!(Directory::decode(&encoded).as_ref(), Ok(&document.directory));
        for _ in 0..300 {
            let mut damaged = encoded.clone();
            let at = random.random_range(0..damaged.len());
            match random.random_range(0..3) {
                0 => damaged.truncate(at),
                1 => damaged[at] ^= 1 << random.random_range(0..8),
                _ => damaged.insert(at, random.random()),
            }
            if let Ok(read) = Directory::decode(&damaged) {
                assert_eq!(Directory::decode(&read.encode()), Ok(read));
            }
        }
        assert_eq!(Directory::decode(&[9]), Err(DirectoryError::Version(9)));
    }
}

/// As many seeds as asked for in `TRIBUTARY_SEEDS`, or so many.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    let asked = std::env::var("TRIBUTARY_SEEDS").ok();
    let Some(asked) = asked else { return 0..usual };
    match asked.split_once("..") {
        Some((from, to)) => from.parse().unwrap()..to.parse().unwrap(),
        None => 0..asked.parse().unwrap(),
    }
}

/// The changes without one of them and what depends on it.
fn without_descendants(changes: &[Change], at: usize) -> Vec<Change> {
    let mut gone = vec![changes[at].hash()];
    let mut kept = Vec::new();
    for (index, change) in changes.iter().enumerate() {
        if index == at || change.deps().iter().any(|dep| gone.contains(dep)) {
            gone.push(change.hash());
        } else {
            kept.push(change.clone());
        }
    }
    kept
}

/// Operations that there are, from which a mutation picks.
fn operations(changes: &[Change]) -> Vec<(legacy::OpId, legacy::Op)> {
    let of = |change: &Change| {
        let expanded = change.decode();
        let (start, actor) = (expanded.start_op.get(), expanded.actor_id.clone());
        let ids = (start..).map(move |counter| legacy::OpId::new(counter, &actor));
        ids.zip(expanded.operations).collect::<Vec<_>>()
    };
    changes.iter().flat_map(of).collect()
}

fn mutate(change: &Change, changes: &[Change], known: &[Change], random: &mut SmallRng) -> Change {
    let mut expanded = change.decode();
    let ops = match random.random_range(0..4) {
        // Mostly what the change knows of, sometimes what it does not.
        0 => operations(changes),
        1 => operations(std::slice::from_ref(change)),
        _ => operations(known),
    };
    for _ in 0..random.random_range(1..3) {
        mutate_once(&mut expanded, &ops, known, random);
    }
    Change::from(expanded)
}

fn mutate_once(
    change: &mut ExpandedChange,
    ops: &[(legacy::OpId, legacy::Op)],
    known: &[Change],
    random: &mut SmallRng,
) {
    let count = change.operations.len();
    let Some((id, other)) = ops.choose(random).cloned() else { return };
    if count == 0 {
        change.operations.push(other);
        return;
    }
    let at = random.random_range(0..count);
    match random.random_range(0..16) {
        0 => change.operations[at].obj = legacy::ObjectId::Id(id),
        1 => change.operations[at].obj = other.obj,
        2 => change.operations[at].key = legacy::Key::Seq(legacy::ElementId::Id(id)),
        3 => change.operations[at].key = other.key,
        4 => change.operations[at].insert ^= true,
        5 => change.operations[at].pred = vec![id].into(),
        6 => change.operations[at].pred = Vec::new().into(),
        7 => {
            let mut preds: Vec<legacy::OpId> = change.operations[at].pred.iter().cloned().collect();
            preds.push(id);
            change.operations[at].pred = preds.into();
        }
        8 => change.operations[at].action = other.action,
        9 => change.operations[at] = other,
        10 => {
            // An update of an element or key that exists.
            change.operations[at] = legacy::Op {
                obj: other.obj,
                key: if other.insert {
                    legacy::Key::Seq(legacy::ElementId::Id(id.clone()))
                } else {
                    other.key
                },
                insert: false,
                pred: vec![id].into(),
                action: change.operations[at].action.clone(),
            };
        }
        11 => drop(change.operations.remove(at)),
        12 => {
            let same = change.operations[at].clone();
            change.operations.insert(random.random_range(0..=count), same);
        }
        13 => change.operations.swap(at, random.random_range(0..count)),
        14 => {
            let by = random.random_range(0..5);
            change.start_op = change.start_op.saturating_add(by);
        }
        _ if random.random_bool(0.5) => {
            // Two marks anywhere in the object of an insert that exists.
            let name = legacy::MarkData { name: "m".into(), value: 1.into(), expand: false };
            let elements: Vec<_> =
                ops.iter().filter(|(_, op)| op.insert && op.obj == other.obj).collect();
            for action in [legacy::OpType::MarkBegin(name), legacy::OpType::MarkEnd(true)] {
                let Some((element, _)) = elements.choose(random) else { return };
                change.operations.push(legacy::Op {
                    action,
                    obj: other.obj.clone(),
                    key: legacy::Key::Seq(legacy::ElementId::Id(element.clone())),
                    insert: true,
                    pred: Vec::new().into(),
                });
            }
        }
        _ => {
            change.deps = crdt::document(known).get_heads();
        }
    }
}

/// A change for the eye: an operation a line.
fn in_short(change: &Change) -> String {
    let expanded = change.decode();
    let id = |op: &legacy::OpId| format!("{}@{}", op.counter(), &op.actor().to_hex_string()[..4]);
    let line = |(at, op): (usize, &legacy::Op)| {
        let object = match &op.obj {
            legacy::ObjectId::Root => "root".into(),
            legacy::ObjectId::Id(object) => id(object),
        };
        let key = match &op.key {
            legacy::Key::Map(key) => key.to_string(),
            legacy::Key::Seq(legacy::ElementId::Head) => "head".into(),
            legacy::Key::Seq(legacy::ElementId::Id(element)) => id(element),
        };
        let insert = if op.insert { "insert after" } else { "at" };
        let preds: Vec<String> = op.pred.iter().map(id).collect();
        let counter = expanded.start_op.get() + at as u64;
        format!("  {counter}: {:?} in {object} {insert} {key} for {preds:?}\n", op.action)
    };
    let lines: String = expanded.operations.iter().enumerate().map(line).collect();
    let actor = &expanded.actor_id.to_hex_string()[..4];
    let (seq, start, deps) = (expanded.seq, expanded.start_op, expanded.deps.len());
    format!("{seq} of {actor}, from {start}, on {deps} deps\n{lines}")
}
