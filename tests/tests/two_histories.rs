//! One actor writes two histories in two regions that do not hear of each other, with real processes.
//!
//! Which branch wins, and what the copy of the other one is called and holds, follows from the two
//! histories alone (`docs/mesh.md`): the story is told with the regions in either part.

#[path = "support/regions.rs"]
#[allow(dead_code, reason = "not every test file uses all of it")]
mod regions;
mod support;
#[path = "support/tls.rs"]
#[allow(dead_code, reason = "here nobody listens in")]
mod tls;

use std::collections::BTreeSet;

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, AutoCommit, ChangeHash, ROOT};
use model::DocumentId;
use regions::{World, http, until};
use serde_json::{Value, json};
use support::Client;

const THREE: [&str; 3] = ["eu", "us", "ap"];
/// Hashes are about times as well, and have to be the same in each telling.
const WRITTEN_AT: i64 = 1_700_000_000;

fn document() -> DocumentId {
    DocumentId::from_bytes(&[9; 16]).expect("16 bytes")
}

/// What there is at the end, in every region.
#[derive(Debug, Clone, PartialEq, Eq)]
struct End {
    heads: Vec<String>,
    value: Value,
    copy: String,
    copy_heads: Vec<String>,
    copy_value: Value,
}

/// Somebody who is called eve here and there, and goes on from what both have seen.
fn eve(world: &World, region: &str) -> Client {
    let mut client = Client::join(world.region(region).server(), "eve", &document());
    client.doc.set_actor(ActorId::from(b"eve"));
    client.pull();
    client
}

/// Writes under a fixed time; gives the hash of the change.
fn write(doc: &mut AutoCommit, key: &str, value: i64) -> ChangeHash {
    doc.put(ROOT, key, value).expect("maps take numbers");
    let options = CommitOptions::default().with_time(WRITTEN_AT);
    doc.commit_with(options).expect("there is something to commit")
}

fn get(world: &World, region: &str, path: &str) -> Value {
    let answer = http(world.region(region).address(), &format!("/v1/documents{path}"));
    let (_, body) = answer.split_once("\r\n\r\n").expect("an answer has a body");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

/// What every region tells under this path, once they all tell the same and it is as expected.
fn all_tell(world: &World, path: &str, expected: impl Fn(&Value) -> bool) -> Value {
    let mut told = Vec::new();
    until(&format!("all regions to tell the same of {path}"), || {
        told = THREE.map(|region| get(world, region, path)).to_vec();
        told.iter().all(|it| *it == told[0]) && expected(&told[0])
    });
    told.swap_remove(0)
}

/// The ids of all documents of a region.
fn listed(world: &World, region: &str) -> BTreeSet<String> {
    let told = get(world, region, "");
    let documents = told["documents"].as_array().unwrap_or_else(|| panic!("no list in {told}"));
    documents.iter().map(|it| it["id"].as_str().expect("text").to_owned()).collect()
}

fn heads_of(told: &Value) -> Vec<String> {
    let heads = told["heads"].as_array().unwrap_or_else(|| panic!("no heads in {told}"));
    heads.iter().map(|head| head.as_str().expect("text").to_owned()).collect()
}

/// The ids of the copies of which a region's log tells.
fn copies_named(world: &World, region: &str) -> BTreeSet<String> {
    let log = world.region(region).server().log();
    let lines = log.lines().filter(|line| line.contains("one actor wrote two histories"));
    let named = lines.filter_map(|line| line.split("copy=").nth(1)?.split_whitespace().next());
    named.map(str::to_owned).collect()
}

/// Eve writes `first` in one region, and then `second` in another, which is cut off from all others.
fn told_with(first: (&str, i64), second: (&str, i64)) -> End {
    let world = World::start(&THREE);
    let mut ann = Client::join(world.region("ap").server(), "ann", &document());
    ann.doc.set_actor(ActorId::from(b"ann"));
    ann.pull();
    write(&mut ann.doc, "title", 1);
    ann.push();
    ann.acknowledged();
    let mut eves = [first, second].map(|(region, _)| eve(&world, region));
    for eve in &mut eves {
        eve.reads("title", 1);
    }

    // One of the two is alone; the third region hears of the other one's history only.
    world.cut_off("eu");
    until("all to notice", || {
        let eu = world.region("eu");
        ["us", "ap"].iter().all(|it| !eu.reaches(it) && !world.region(it).reaches("eu"))
    });
    let mut begins = Vec::new();
    for (eve, (_, branch)) in eves.iter_mut().zip([first, second]) {
        begins.push(write(&mut eve.doc, "branch", branch));
        eve.push();
        eve.acknowledged();
        // What follows is by somebody of whom there is one. Were it by eve, each of her numbers would
        // have a winner of its own.
        eve.doc.set_actor(ActorId::from(format!("friend of {branch}").as_bytes()));
        for n in 0..3 {
            write(&mut eve.doc, &format!("only in {branch}"), n);
            eve.push();
            eve.acknowledged();
        }
    }
    assert_ne!(begins[0], begins[1]);
    world.heal("eu");
    world.linked();
    world.level();

    // The smaller hash wins.
    let (winner, loser) = if begins[0] < begins[1] { (0, 1) } else { (1, 0) };
    let branches = [first.1, second.1];
    let value = json!({
        "title": 1, "branch": branches[winner], (format!("only in {}", branches[winner])): 2,
    });
    let path = format!("/{}", document());
    all_tell(&world, &path, |told| *told == value);
    let heads = heads_of(&all_tell(&world, &format!("{path}/heads"), |_| true));
    let hex = |client: &mut Client| -> Vec<String> {
        client.doc.get_heads().iter().map(ToString::to_string).collect()
    };
    assert_eq!(heads, hex(&mut eves[winner]));

    // Each region keeps the other branch, under one name, and says so.
    until("all to list the document and one other", || {
        THREE.iter().all(|region| listed(&world, region) == listed(&world, "eu"))
            && listed(&world, "eu").len() == 2
    });
    let mut listed_there = listed(&world, "eu");
    assert!(listed_there.remove(&document().to_string()));
    let copy = listed_there.pop_first().expect("there is the other one");
    for region in THREE {
        until("the log to name the copy", || !copies_named(&world, region).is_empty());
        assert_eq!(copies_named(&world, region), BTreeSet::from([copy.clone()]), "{region}");
        let figures = http(world.region(region).address(), "/metrics");
        let set_aside = "tributary_changes_quarantined_total 4";
        assert!(figures.lines().any(|line| line == set_aside), "{region}: {figures}");
    }
    let path = format!("/{copy}");
    let lost = format!("only in {}", branches[loser]);
    let copy_value = json!({ "title": 1, "branch": branches[loser], (lost): 2 });
    all_tell(&world, &path, |told| *told == copy_value);
    let copy_heads = heads_of(&all_tell(&world, &format!("{path}/heads"), |_| true));
    assert_eq!(copy_heads, hex(&mut eves[loser]));
    let end = End { heads, value, copy: copy.clone(), copy_heads, copy_value };

    // Whoever holds the branch that won goes on: eve, and those who never heard of the other one.
    eves[winner].put("eve goes on", 1);
    eves[winner].acknowledged();
    let mut others = THREE.map(|region| {
        let mut client = Client::join(world.region(region).server(), "other", &document());
        client.pull();
        client
    });
    for (n, other) in (0..).zip(&mut others) {
        other.reads("eve goes on", 1);
        other.put(THREE[n as usize], n);
    }
    for other in &mut others {
        for (n, key) in (0..).zip(THREE) {
            other.reads(key, n);
        }
    }
    // Whoever holds the other one goes on in the copy.
    write(&mut eves[loser].doc, "goes on with what lost", 1);
    eves[loser].push();
    all_tell(&world, &path, |told| told["goes on with what lost"] == 1);
    let path = format!("/{}", document());
    all_tell(&world, &path, |told| told["ap"] == 2 && told["branch"] == branches[winner]);
    for region in THREE {
        assert_eq!(listed(&world, region).len(), 2, "{region}");
    }
    end
}

#[test]
fn of_two_histories_of_one_actor_one_is_served_and_one_is_kept_whichever_region_had_which() {
    let ends = [
        told_with(("eu", 10), ("us", 20)),
        told_with(("us", 10), ("eu", 20)),
        told_with(("us", 20), ("eu", 10)),
    ];
    assert!(ends.iter().all(|end| *end == ends[0]), "{ends:#?}");
}
