//! Fuzz targets for everything that reads bytes from a peer.
//!
//! The targets are in `tests/`. `cargo test -p tributary-fuzz` runs each for a moment; with
//! `cargo bolero test TARGET -p tributary-fuzz` (from the `cargo-bolero` package) they run under a
//! coverage-guided engine for as long as one likes.
//!
//! Here are the samples that they start from, and how they are damaged: bytes that are almost right
//! reach further into a parser than bytes that are not.

use automerge::sync::{State, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{Automerge, ObjType, ROOT, ScalarValue};
use sha2::{Digest, Sha256};

/// What is done to a sample: which one, and bytes to overwrite, insert or cut.
pub type Damage = (u8, Vec<(u16, u8, u8)>);

/// The sample that the damage names, damaged.
pub fn damaged(samples: &[Vec<u8>], damage: &Damage) -> Vec<u8> {
    let mut bytes = samples[usize::from(damage.0) % samples.len()].clone();
    for (at, how, value) in &damage.1 {
        let at = usize::from(*at) % (bytes.len() + 1);
        match how % 4 {
            0 | 1 if at < bytes.len() => bytes[at] = *value,
            2 => bytes.insert(at, *value),
            3 if at < bytes.len() => {
                bytes.remove(at);
            }
            _ => bytes.truncate(at.max(1)),
        }
    }
    bytes
}

/// A document with everything in it that Automerge has.
pub fn document() -> Automerge {
    let mut document = Automerge::new().with_actor([7; 16].into());
    for round in 0..6_i64 {
        let mut tx = document.transaction();
        tx.put(ROOT, format!("key{round}"), round).unwrap();
        if round == 0 {
            tx.put(ROOT, "count", ScalarValue::counter(1)).unwrap();
            let text = tx.put_object(ROOT, "text", ObjType::Text).unwrap();
            tx.splice_text(&text, 0, 0, "some words to begin with").unwrap();
            let list = tx.put_object(ROOT, "list", ObjType::List).unwrap();
            tx.insert(&list, 0, "an item").unwrap();
            let map = tx.insert_object(&list, 1, ObjType::Map).unwrap();
            tx.put(&map, "deep", ScalarValue::Bytes(vec![0; 300])).unwrap();
        } else {
            tx.increment(ROOT, "count", round).unwrap();
        }
        tx.commit();
    }
    document
}

/// Its changes and the whole of it, as chunks; some of them deflated.
pub fn chunks() -> Vec<Vec<u8>> {
    let document = document();
    let mut chunks: Vec<Vec<u8>> =
        document.get_changes(&[]).iter().map(|change| change.raw_bytes().to_vec()).collect();
    chunks.extend(document.get_changes(&[]).into_iter().map(|mut change| change.bytes().to_vec()));
    chunks.push(document.save());
    chunks.push(document.save_nocompress());
    chunks.push(chunks.concat());
    chunks
}

/// The sync messages of a conversation about it.
pub fn sync_messages() -> Vec<Vec<u8>> {
    let (mut here, mut there) = (document(), Automerge::new());
    let (mut ours, mut theirs) = (State::new(), State::new());
    let mut messages = Vec::new();
    for _ in 0..6 {
        if let Some(message) = here.generate_sync_message(&mut ours) {
            messages.push(message.clone().encode());
            there.receive_sync_message(&mut theirs, message).unwrap();
        }
        if let Some(message) = there.generate_sync_message(&mut theirs) {
            messages.push(message.clone().encode());
            here.receive_sync_message(&mut ours, message).unwrap();
        }
    }
    messages
}

/// Makes the checksum of the first chunk right again, so that damage behind it is looked at.
pub fn repair_checksum(chunk: &mut [u8]) {
    if chunk.len() > 10 {
        // The length that stands before the body is part of what is hashed.
        let digest = Sha256::digest(&chunk[8..]);
        chunk[4..8].copy_from_slice(&digest[..4]);
    }
}
