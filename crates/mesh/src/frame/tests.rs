use proptest::prelude::*;

use super::*;

fn origin(region: &str, epoch: u64) -> Origin {
    Origin { region: RegionName::new(region).unwrap(), epoch }
}

fn ends() -> Ends {
    Ends { sender: origin("a", 1), receiver: origin("b", 2) }
}

fn document() -> DocumentId {
    DocumentId::from_bytes(&[4; 16]).unwrap()
}

fn rows() -> Vec<Row> {
    let logs = ["a", "b", "c"].into_iter().flat_map(|region| {
        [1, 2].into_iter().flat_map(move |epoch| {
            [0, 3, 15]
                .into_iter()
                .map(move |stream| LogId { origin: origin(region, epoch), stream })
        })
    });
    let digest = |log: &LogId| (log.origin.region.as_str() == "b").then_some([log.stream; 16]);
    logs.map(|log| Row { digest: digest(&log), sequence: 1 << log.stream, log }).collect()
}

fn one_of_each() -> Vec<Frame> {
    let log = LogId { origin: origin("c", 77), stream: 5 };
    let storage = |name| StorageId::new(name).unwrap();
    vec![
        Frame::Vector(rows()),
        Frame::Vector(Vec::new()),
        Frame::Entries(vec![1, 2, 3]),
        Frame::Resend { generation: 3, received: 1 << 40, logs: rows() },
        Frame::Anew { generation: 4 },
        Frame::Holds(rows()),
        Frame::Credit { bytes: 1 << 20 },
        Frame::Fetch { log: log.clone(), from: 7, digest: Some([1; 16]) },
        Frame::Fetch { log: log.clone(), from: 1, digest: None },
        Frame::Served { log: log.clone(), through: 9 },
        Frame::Skip { log: log.clone(), to: Mark { sequence: 8, digest: [3; 16] } },
        Frame::Diverged { log },
        Frame::Sync { document: document(), data: vec![9; 300] },
        Frame::Repaired { document: document() },
        Frame::Unavailable { document: document() },
        Frame::Presence {
            document: document(),
            presence: Presence {
                author: PeerId::new("somebody").unwrap(),
                stream: "s".to_owned(),
                count: 300,
                data: vec![1],
            },
        },
        Frame::Heads {
            document: document(),
            heads: vec![StoreHeads {
                storage: storage("store"),
                heads: [ChangeHash([1; 32]), ChangeHash([2; 32])].into_iter().collect(),
                timestamp_ms: 1_700_000_000_000,
            }],
        },
        Frame::Interest { document: document(), open: true },
        Frame::Subscribe { add: vec![storage("x"), storage("y")], remove: vec![storage("z")] },
        Frame::Audit(audit::Message::RootSame { round: 4, as_expected: false }),
        Frame::Piece { data: vec![1, 2], last: false },
        Frame::Piece { data: vec![3], last: true },
        Frame::Ping { id: 5 },
        Frame::Pong { id: u64::MAX },
    ]
}

#[test]
fn every_frame_reads_back() {
    for frame in one_of_each() {
        let bytes = frame.encode(&ends());
        assert_eq!(Frame::decode(&bytes, &ends()), Ok(frame));
    }
}

#[test]
fn a_frame_that_is_cut_off_is_none_and_neither_is_one_with_more_behind_it() {
    let open_ended = |frame: &Frame| {
        matches!(
            frame,
            Frame::Entries(_) | Frame::Sync { .. } | Frame::Presence { .. } | Frame::Piece { .. }
        )
    };
    for frame in one_of_each().iter().filter(|frame| !open_ended(frame)) {
        let bytes = frame.encode(&ends());
        for end in 0..bytes.len() {
            assert_ne!(Frame::decode(&bytes[..end], &ends()).as_ref(), Ok(frame));
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Frame::decode(&longer, &ends()), Err(FrameError), "{frame:?}");
    }
}

#[test]
fn the_vector_of_three_regions_takes_less_than_a_kilobyte() {
    let logs = ["a", "b", "c"].into_iter().flat_map(|region| {
        let epoch = if region == "b" { 2 } else { 1 };
        (0..STREAMS).map(move |stream| LogId { origin: origin(region, epoch), stream })
    });
    let digest = |log: &LogId| (log.origin == ends().receiver).then_some([7; 16]);
    let rows = logs.map(|log| Row { digest: digest(&log), sequence: 3_000_000, log });
    let bytes = Frame::Vector(rows.collect()).encode(&ends()).len();
    assert!(bytes < 512, "{bytes}");
}

proptest! {
    #[test]
    fn any_bytes_are_a_frame_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Frame::decode(&bytes, &ends());
    }

    #[test]
    fn a_frame_with_any_byte_changed_is_a_frame_or_an_error(
        which in 0..22_usize, at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = one_of_each()[which].encode(&ends());
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(frame) = Frame::decode(&bytes, &ends()) {
            prop_assert_eq!(Frame::decode(&frame.encode(&ends()), &ends()), Ok(frame));
        }
    }
}
