//! What is written is read back, and nothing that a stranger sends does harm.

use std::borrow::Cow;

use model::{ChangeHash, DocumentId, Heads, PeerId, StorageId};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tributary_wire::{DecodeError, Message, PeerMetadata, RemoteHeads, decode, encode};

fn peer() -> impl Strategy<Value = PeerId> {
    "\\PC{1,60}".prop_map(|text| PeerId::new(&text).expect("at most 240 bytes"))
}

fn store() -> impl Strategy<Value = StorageId> {
    "\\PC{1,60}".prop_map(|text| StorageId::new(&text).expect("at most 240 bytes"))
}

fn document() -> impl Strategy<Value = DocumentId> {
    vec(any::<u8>(), 1..=DocumentId::BYTES_MAX)
        .prop_map(|bytes| DocumentId::from_bytes(&bytes).expect("a length in range"))
}

fn data() -> impl Strategy<Value = Cow<'static, [u8]>> {
    vec(any::<u8>(), 1..400).prop_map(Cow::Owned)
}

fn metadata() -> impl Strategy<Value = PeerMetadata> {
    (option::of(store()), any::<bool>())
        .prop_map(|(storage_id, is_ephemeral)| PeerMetadata { storage_id, is_ephemeral })
}

fn remote_heads() -> impl Strategy<Value = RemoteHeads> {
    let heads = vec(any::<[u8; 32]>(), 0..4)
        .prop_map(|hashes| hashes.into_iter().map(ChangeHash).collect::<Heads>());
    (store(), heads, any::<u64>()).prop_map(|(storage, heads, timestamp_ms)| RemoteHeads {
        storage,
        heads,
        timestamp_ms,
    })
}

fn message() -> impl Strategy<Value = Message<'static>> {
    let stores = || vec(store(), 0..4);
    let between = || (peer(), peer());
    prop_oneof![
        (peer(), metadata(), vec("\\PC{0,9}", 0..4))
            .prop_map(|(sender, metadata, versions)| Message::Join { sender, metadata, versions }),
        (between(), metadata(), "\\PC{0,9}").prop_map(|((sender, target), metadata, version)| {
            Message::Peer { sender, target, metadata, version }
        }),
        (between(), document(), data()).prop_map(|((sender, target), document, data)| {
            Message::Sync { sender, target, document, data }
        }),
        (between(), document(), data()).prop_map(|((sender, target), document, data)| {
            Message::Request { sender, target, document, data }
        }),
        (between(), document()).prop_map(|((sender, target), document)| {
            Message::DocUnavailable { sender, target, document }
        }),
        (between(), document(), "\\PC{0,40}", any::<u64>(), data()).prop_map(
            |((sender, target), document, session, count, data)| {
                Message::Ephemeral { sender, target, document, session, count, data }
            }
        ),
        (between(), stores(), stores()).prop_map(|((sender, target), add, remove)| {
            Message::RemoteSubscriptionChange { sender, target, add, remove }
        }),
        (between(), document(), vec(remote_heads(), 0..4)).prop_map(
            |((sender, target), document, heads)| {
                Message::RemoteHeadsChanged { sender, target, document, heads }
            }
        ),
        (option::of(peer()), option::of(peer()), "\\PC{0,90}")
            .prop_map(|(sender, target, message)| Message::Error { sender, target, message }),
        peer().prop_map(|sender| Message::Leave { sender }),
        "x-[a-z]{1,20}".prop_map(|kind| Message::Unknown { kind }),
    ]
}

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(message, &mut bytes);
    bytes
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(message in message()) {
        let bytes = encoded(&message);
        let read = decode(&bytes);
        prop_assert_eq!(read.as_ref(), Ok(&message));
        prop_assert_eq!(read.unwrap().into_owned(), message);
    }

    #[test]
    fn a_frame_cut_anywhere_is_refused(message in message()) {
        let bytes = encoded(&message);
        for length in 0..bytes.len() {
            prop_assert!(decode(&bytes[..length]).is_err(), "cut to {} bytes", length);
        }
    }

    #[test]
    fn a_frame_with_bytes_after_it_is_refused(message in message(), more in vec(any::<u8>(), 1..9)) {
        let bytes = [encoded(&message), more].concat();
        prop_assert_eq!(decode(&bytes), Err(DecodeError::TrailingBytes));
    }

    #[test]
    fn random_bytes_are_survived(bytes in vec(any::<u8>(), 0..600)) {
        let _ = decode(&bytes);
        let _ = decode(&[&[0xbf], &bytes[..]].concat());
    }

    #[test]
    fn a_frame_with_damaged_bytes_is_survived_and_what_is_read_can_be_written(
        message in message(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = encoded(&message);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(message) = decode(&bytes) {
            encoded(&message);
        }
    }
}

/// Reserving what such a length claims would abort the process.
#[test]
fn lengths_that_claim_more_than_there_is_cost_nothing() {
    for claimed in [1_u64 << 32, 1 << 60, 1 << 63, u64::MAX] {
        for major in [0x40, 0x60, 0x80, 0xa0] {
            let claim = [&[major | 0x1b][..], &claimed.to_be_bytes()].concat();
            assert!(decode(&claim).is_err());
            for key in ["type", "data", "add", "newHeads", "supportedProtocolVersions", "other"] {
                let mut bytes = Vec::new();
                let mut encoder = minicbor::Encoder::new(&mut bytes);
                encoder.map(2).unwrap().str("type").unwrap().str("sync").unwrap();
                encoder.str(key).unwrap();
                bytes.extend(&claim);
                bytes.extend([0; 64]);
                assert_eq!(decode(&bytes), Err(DecodeError::NotCbor), "{key} {claimed}");
            }
        }
    }
}

#[test]
fn nesting_of_every_kind_is_refused_without_using_up_the_stack() {
    let openings: [&[u8]; 6] = [&[0x81], &[0x9f], &[0xa1, 0x00], &[0xbf, 0x00], &[0xa1], &[0xc1]];
    for opening in openings {
        let bytes = [&b"\xa1\x61x"[..], &opening.repeat(100_000)].concat();
        assert!(decode(&bytes).is_err());
        assert!(decode(&opening.repeat(100_000)).is_err());
    }
}
