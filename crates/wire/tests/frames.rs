//! Frames as stock clients write them, and the shapes that are tolerated.

use std::borrow::Cow;

use minicbor::Encoder;
use minicbor::data::Tag;
use model::{ChangeHash, DocumentId, Heads, PeerId, StorageId};
use tributary_wire::{
    DecodeError, HEADS_MAX, Message, PeerMetadata, RemoteHeads, STORAGE_IDS_MAX, TEXT_BYTES_MAX,
    Tail, VERSIONS_MAX, decode, encode,
};

/// Written by `@automerge/automerge-repo` 2.5.6.
const JOIN: &str = "b900046474797065646a6f696e6873656e64657249646762726f777365726c706565724d65746164\
    617461b900026973746f726167654964f76b6973457068656d6572616cf57819737570706f7274656450726f746f636f\
    6c56657273696f6e73816131";
/// Likewise; the document is 16 bytes of 1, the data 43 00 01.
const SYNC: &str = "b9000564747970656473796e636873656e6465724964616168746172676574496461626a646f6375\
    6d656e744964781a7033753550684e3977724e7073474377666b656566324c7a4639646461746143430001";

fn hex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap() as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn peer(name: &str) -> PeerId {
    PeerId::new(name).unwrap()
}

fn store(name: &str) -> StorageId {
    StorageId::new(name).unwrap()
}

fn document() -> DocumentId {
    DocumentId::from_bytes(&[1; 16]).unwrap()
}

fn sync(data: &[u8]) -> Message<'_> {
    let (sender, target) = (peer("a"), peer("b"));
    Message::Sync { sender, target, document: document(), data: Cow::Borrowed(data) }
}

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(message, &mut bytes);
    bytes
}

/// A frame written entry by entry, for shapes that [`encode`] never writes.
fn frame(entries: u64, write: impl FnOnce(&mut Encoder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes);
    encoder.map(entries).unwrap();
    write(&mut encoder);
    bytes
}

#[test]
fn the_join_of_a_stock_client_is_read() {
    let join = Message::Join {
        sender: peer("browser"),
        metadata: PeerMetadata { storage_id: None, is_ephemeral: true },
        versions: vec!["1".to_owned()],
    };
    assert_eq!(decode(&hex(JOIN)), Ok(join));
}

#[test]
fn the_sync_of_a_stock_client_is_read_without_copying_its_data() {
    let bytes = hex(SYNC);
    let Ok(Message::Sync { sender, target, document: id, data: Cow::Borrowed(data) }) =
        decode(&bytes)
    else {
        panic!("not a sync message that borrows");
    };
    assert_eq!((sender, target, id, data), (peer("a"), peer("b"), document(), &[0x43, 0, 1][..]));
}

#[test]
fn a_sync_frame_is_the_stock_one_but_for_the_length_of_the_map() {
    assert_eq!(encoded(&sync(&[0x43, 0, 1])), [&[0xa5], &hex(SYNC)[3..]].concat());
}

#[test]
fn a_tail_gives_every_receiver_the_frame_that_encoding_would() {
    let tail = Tail::sync(&document(), &[7; 300]);
    for name in ["b", "peer-with-a-name-of-more-than-twenty-three-bytes"] {
        let message = Message::Sync {
            sender: peer("a"),
            target: peer(name),
            document: document(),
            data: Cow::Owned(vec![7; 300]),
        };
        let mut head = Vec::new();
        tail.head(&peer("a"), &peer(name), &mut head);
        assert_eq!(tail.frame(&peer("a"), &peer(name)), encoded(&message));
        assert_eq!([&head, tail.as_bytes()].concat(), encoded(&message));
    }
}

#[test]
fn a_join_that_says_nothing_of_versions_speaks_version_one() {
    let bytes = frame(2, |e| {
        e.str("senderId").unwrap().str("a").unwrap().str("type").unwrap().str("join").unwrap();
    });
    let metadata = PeerMetadata::default();
    let versions = vec!["1".to_owned()];
    assert_eq!(decode(&bytes), Ok(Message::Join { sender: peer("a"), metadata, versions }));
}

#[test]
fn metadata_is_another_name_for_peer_metadata() {
    let bytes = frame(3, |e| {
        e.str("metadata").unwrap().map(3).unwrap();
        e.str("storageId").unwrap().str("disk").unwrap();
        e.str("later").unwrap().array(1).unwrap().null().unwrap();
        e.str("isEphemeral").unwrap().undefined().unwrap();
        e.str("type").unwrap().str("join").unwrap().str("senderId").unwrap().str("a").unwrap();
    });
    let Ok(Message::Join { metadata, .. }) = decode(&bytes) else { panic!("no join") };
    assert_eq!(metadata, PeerMetadata { storage_id: Some(store("disk")), is_ephemeral: false });
}

#[test]
fn every_tolerated_shape_at_once_is_read() {
    let mut bytes = Vec::new();
    let mut e = Encoder::new(&mut bytes);
    e.tag(Tag::new(55799)).unwrap().begin_map().unwrap();
    e.u8(1).unwrap().str("a key that is no text").unwrap();
    e.str("count").unwrap().f32(3.0).unwrap();
    e.str("unknown")
        .unwrap()
        .begin_array()
        .unwrap()
        .map(1)
        .unwrap()
        .u8(0)
        .unwrap()
        .f16(1.0)
        .unwrap();
    e.end().unwrap();
    e.str("data").unwrap().tag(Tag::new(64)).unwrap().begin_bytes().unwrap();
    e.bytes(&[1]).unwrap().bytes(&[2, 3]).unwrap().end().unwrap();
    e.str("add").unwrap().u8(9).unwrap();
    e.str("message").unwrap().null().unwrap();
    e.begin_str().unwrap().str("sess").unwrap().str("ionId").unwrap().end().unwrap();
    e.str("s").unwrap();
    e.str("documentId").unwrap().str("01010101-0101-0101-0101-010101010101").unwrap();
    e.str("targetId").unwrap().str("b").unwrap().str("senderId").unwrap().str("a").unwrap();
    e.str("type")
        .unwrap()
        .str("overwritten")
        .unwrap()
        .str("type")
        .unwrap()
        .str("ephemeral")
        .unwrap();
    e.end().unwrap();
    let message = Message::Ephemeral {
        sender: peer("a"),
        target: peer("b"),
        document: document(),
        session: "s".to_owned(),
        count: 3,
        data: Cow::Borrowed(&[1, 2, 3]),
    };
    assert_eq!(decode(&bytes), Ok(message));
}

#[test]
fn numbers_above_32_bits_are_written_as_floats_and_read_back() {
    for (count, initial) in [
        (23, 0x17),
        (0xffff_ffff, 0x1a),
        (0x1_0000_0000, 0xfb),
        (1_700_000_000_000, 0xfb),
        (1 << 53, 0xfb),
        ((1 << 53) + 1, 0x1b),
        (u64::MAX, 0x1b),
    ] {
        let message = Message::Ephemeral {
            sender: peer("a"),
            target: peer("b"),
            document: document(),
            session: "s".to_owned(),
            count,
            data: Cow::Borrowed(&[1]),
        };
        let bytes = encoded(&message);
        let key = bytes.windows(6).position(|bytes| bytes == b"\x65count").unwrap();
        assert_eq!((bytes[key + 6], decode(&bytes)), (initial, Ok(message)));
    }
}

#[test]
fn numbers_that_are_not_whole_or_below_zero_are_the_wrong_type() {
    for number in [1.5, -1.0, f64::NAN, f64::INFINITY, 1e300] {
        let bytes = frame(7, |e| {
            e.str("type").unwrap().str("ephemeral").unwrap();
            e.str("senderId").unwrap().str("a").unwrap().str("targetId").unwrap().str("b").unwrap();
            e.str("documentId").unwrap().str(&document().to_string()).unwrap();
            e.str("sessionId").unwrap().str("s").unwrap();
            e.str("count").unwrap().f64(number).unwrap();
            e.str("data").unwrap().bytes(&[1]).unwrap();
        });
        assert_eq!(decode(&bytes), Err(DecodeError::WrongType { field: "count" }), "{number}");
    }
}

#[test]
fn subscription_lists_that_are_undefined_are_empty_and_are_left_out_when_written() {
    let stock = frame(5, |e| {
        e.str("type").unwrap().str("remote-subscription-change").unwrap();
        e.str("senderId").unwrap().str("a").unwrap().str("targetId").unwrap().str("b").unwrap();
        e.str("add").unwrap().array(1).unwrap().str("disk").unwrap();
        e.str("remove").unwrap().undefined().unwrap();
    });
    let message = decode(&stock).unwrap();
    let Message::RemoteSubscriptionChange { add, remove, .. } = &message else {
        panic!("{message:?}")
    };
    assert_eq!((add.as_slice(), remove.as_slice()), (&[store("disk")][..], &[][..]));
    let bytes = encoded(&message);
    assert_eq!((bytes[0], decode(&bytes)), (0xa4, Ok(message)));
}

#[test]
fn a_frame_that_is_no_message_says_what_is_wrong() {
    let id = document().to_string();
    let field = |name: &'static str| DecodeError::WrongType { field: name };
    let cases: [(Vec<u8>, DecodeError); 10] = [
        (Vec::new(), DecodeError::NotCbor),
        (b"{\"type\":\"join\"}".to_vec(), DecodeError::NotAMap),
        (vec![0x80], DecodeError::NotAMap),
        (vec![0xa0], DecodeError::MissingField("type")),
        ([encoded(&sync(&[1])), vec![0]].concat(), DecodeError::TrailingBytes),
        (
            frame(1, |e| {
                e.str("type").unwrap().u8(1).unwrap();
            }),
            field("type"),
        ),
        (
            frame(2, |e| {
                e.str("type").unwrap().str("leave").unwrap();
                e.str("senderId").unwrap().null().unwrap();
            }),
            DecodeError::MissingField("senderId"),
        ),
        (
            frame(5, |e| {
                e.str("type")
                    .unwrap()
                    .str("sync")
                    .unwrap()
                    .str("documentId")
                    .unwrap()
                    .str(&id)
                    .unwrap();
                e.str("senderId")
                    .unwrap()
                    .str("a")
                    .unwrap()
                    .str("targetId")
                    .unwrap()
                    .str("b")
                    .unwrap();
                e.str("data").unwrap().str("text").unwrap();
            }),
            field("data"),
        ),
        (
            frame(5, |e| {
                e.str("type")
                    .unwrap()
                    .str("sync")
                    .unwrap()
                    .str("documentId")
                    .unwrap()
                    .str(&id)
                    .unwrap();
                e.str("senderId")
                    .unwrap()
                    .str("a")
                    .unwrap()
                    .str("targetId")
                    .unwrap()
                    .str("b")
                    .unwrap();
                e.str("data").unwrap().bytes(&[]).unwrap();
            }),
            DecodeError::EmptyData,
        ),
        (
            frame(2, |e| {
                e.str("type").unwrap().str("join").unwrap();
                e.str("deep").unwrap();
                for _ in 0..100_000 {
                    e.array(1).unwrap();
                }
                e.u8(0).unwrap();
            }),
            DecodeError::TooDeep,
        ),
    ];
    for (bytes, error) in cases {
        assert_eq!(decode(&bytes), Err(error));
    }
}

#[test]
fn names_and_document_ids_are_checked() {
    let leave = |name: &str| {
        frame(2, |e| {
            e.str("type")
                .unwrap()
                .str("leave")
                .unwrap()
                .str("senderId")
                .unwrap()
                .str(name)
                .unwrap();
        })
    };
    for name in ["", "x".repeat(PeerId::BYTES_MAX + 1).as_str()] {
        let error = decode(&leave(name)).unwrap_err();
        assert!(matches!(error, DecodeError::BadName { field: "senderId", .. }), "{error}");
    }
    let bytes = frame(4, |e| {
        e.str("type").unwrap().str("doc-unavailable").unwrap();
        e.str("senderId").unwrap().str("a").unwrap().str("targetId").unwrap().str("b").unwrap();
        e.str("documentId").unwrap().str("../../etc/passwd").unwrap();
    });
    assert!(matches!(decode(&bytes), Err(DecodeError::BadDocumentId(_))));
}

#[test]
fn lists_are_bounded() {
    let versions = |count| {
        encoded(&Message::Join {
            sender: peer("a"),
            metadata: PeerMetadata::default(),
            versions: vec!["1".to_owned(); count],
        })
    };
    let subscription = |count| {
        let (sender, target, remove) = (peer("a"), peer("b"), vec![]);
        let add = vec![store("disk"); count];
        encoded(&Message::RemoteSubscriptionChange { sender, target, add, remove })
    };
    let gossip = |count: usize| {
        let hash = |i: usize| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&i.to_be_bytes());
            ChangeHash(hash)
        };
        let heads: Heads = (0..count).map(hash).collect();
        let heads = vec![RemoteHeads { storage: store("disk"), heads, timestamp_ms: 1 }];
        let (sender, target) = (peer("a"), peer("b"));
        encoded(&Message::RemoteHeadsChanged { sender, target, document: document(), heads })
    };
    let too_many = |field, max| Err(DecodeError::TooMany { field, max });
    assert!(decode(&versions(VERSIONS_MAX)).is_ok());
    assert!(decode(&subscription(STORAGE_IDS_MAX)).is_ok());
    let field = "supportedProtocolVersions";
    assert_eq!(decode(&versions(VERSIONS_MAX + 1)), too_many(field, VERSIONS_MAX));
    assert_eq!(decode(&subscription(STORAGE_IDS_MAX + 1)), too_many("add", STORAGE_IDS_MAX));
    assert_eq!(decode(&gossip(HEADS_MAX + 1)), too_many("heads", HEADS_MAX));
}

#[test]
fn long_texts_that_only_people_read_are_cut_between_characters() {
    let message = "ä".repeat(TEXT_BYTES_MAX);
    let (sender, target) = (None, None);
    let Ok(Message::Error { message, .. }) =
        decode(&encoded(&Message::Error { sender, target, message }))
    else {
        panic!("no error message");
    };
    assert_eq!(message, "ä".repeat(TEXT_BYTES_MAX / 2));
}

#[test]
fn types_that_the_protocol_does_not_have_are_unknown_whatever_their_fields_are() {
    let bytes = frame(3, |e| {
        e.str("type").unwrap().str("subduction-connection").unwrap();
        e.str("senderId").unwrap().u8(5).unwrap().str("data").unwrap().bool(true).unwrap();
    });
    let kind = "subduction-connection".to_owned();
    assert_eq!(decode(&bytes), Ok(Message::Unknown { kind }));
}

#[test]
fn an_ephemeral_message_without_data_is_to_be_ignored() {
    let bytes = frame(4, |e| {
        e.str("type")
            .unwrap()
            .str("ephemeral")
            .unwrap()
            .str("sessionId")
            .unwrap()
            .str("s")
            .unwrap();
        e.str("count").unwrap().u8(1).unwrap().str("data").unwrap().bytes(&[]).unwrap();
    });
    assert_eq!(decode(&bytes), Ok(Message::Unknown { kind: "ephemeral".to_owned() }));
}
