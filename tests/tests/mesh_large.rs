//! Large documents between regions, over wires that carry little.

#[path = "support/regions.rs"]
#[allow(dead_code, reason = "not every test file uses all of it")]
mod regions;
mod support;
#[path = "support/tls.rs"]
#[allow(dead_code, reason = "here nobody listens in")]
mod tls;

use std::num::NonZeroU64;
use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{ROOT, ReadDoc, ScalarValue};
use model::DocumentId;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use regions::{KEY, Region, World, until_within};
use support::Client;
use wan::{Conditions, Way};

/// How long a region may take until it has everything.
const WITHIN: Duration = Duration::from_secs(120);

fn document() -> DocumentId {
    DocumentId::from_bytes(&[7; 16]).expect("16 bytes")
}

/// A region that was alone so far, with a document of so many values that do not get smaller.
fn alone_with(world: &mut World, values: usize, bytes_each: usize) -> Client {
    let eu = Region::start("eu", KEY, &[], "");
    world.add(eu);
    let mut client = Client::join(world.region("eu").server(), "ann", &document());
    client.pull();
    let mut noise = SmallRng::seed_from_u64(values as u64);
    for value in 0..values {
        let mut bytes = vec![0; bytes_each];
        noise.fill_bytes(&mut bytes);
        client.doc.put(ROOT, format!("value {value}"), ScalarValue::Bytes(bytes)).expect("bytes");
        client.push();
        client.acknowledged();
    }
    client
}

/// A second region joins, over a wire under such conditions.
fn another_joins(world: &mut World, conditions: Conditions) {
    let wires = world.wires_to("us", &["eu"]);
    world.wire("us", "eu").set(conditions).expect("they are possible");
    world.add(Region::start("us", KEY, &wires, ""));
}

/// Waits until the second region has all of it.
fn has_everything(world: &World, ann: &mut Client) {
    let heads = ann.doc.get_heads();
    let path = format!("/v1/documents/{}/heads", document());
    until_within(WITHIN, "the other region to have it", || {
        let answer = regions::http(world.region("us").address(), &path);
        heads.iter().all(|head| answer.contains(&head.to_string()))
    });
}

#[test]
fn a_document_that_is_larger_than_any_frame_gets_to_a_region_that_lacks_it() {
    let mut world = World::unlinked();
    let mut ann = alone_with(&mut world, 80, 1 << 20);
    another_joins(&mut world, Conditions::default());
    has_everything(&world, &mut ann);
}

#[test]
fn a_document_that_a_slow_wire_takes_long_for_gets_to_the_other_side_and_the_link_stays() {
    let mut world = World::unlinked();
    // This takes 12 s. Who hears nothing on a link for 9 s closes it.
    let mut ann = alone_with(&mut world, 3, 1 << 20);
    let slow =
        Way { latency_ms: 10, bytes_per_second: NonZeroU64::new(256 << 10), ..Way::default() };
    another_joins(&mut world, Conditions::both(slow));
    has_everything(&world, &mut ann);
    let mut bob = Client::join(world.region("us").server(), "bob", &document());
    bob.pull();
    assert_eq!(bob.doc.get_heads(), ann.doc.get_heads());
    assert_eq!(bob.doc.keys(ROOT).count(), 3);
    bob.put("after that", 1);
    bob.acknowledged();
    let mut cas = Client::join(world.region("eu").server(), "cas", &document());
    cas.pull();
    cas.reads("after that", 1);
    for (region, other) in [("eu", "us"), ("us", "eu")] {
        let log = world.region(region).server().log();
        assert!(!log.contains("WARN we closed"), "{log}");
        assert!(world.region(region).reaches(other));
    }
}
