//! CBOR frames of the client protocol.

use bolero::check;
use tributary_fuzz::{Damage, damaged, sync_messages};

fn frames() -> Vec<Vec<u8>> {
    let golden = "b900046474797065646a6f696e6873656e64657249646762726f777365726c706565724d6574\
        6164617461b900026973746f726167654964f76b6973457068656d6572616cf57819737570706f727465645072\
        6f746f636f6c56657273696f6e73816131";
    let digits: Vec<u8> = golden.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let join = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    let mut frames = vec![join];
    for data in sync_messages() {
        let mut frame =
            b"\xa5\x64type\x64sync\x68senderId\x61a\x68targetId\x61b\x6adocumentId\x78\x1a\
            p3u5PhN9wrNpsGCwfkeef2LzF9\x64data"
                .to_vec();
        frame.push(0x59);
        frame.extend((data.len() as u16).to_be_bytes());
        frame.extend(data);
        frames.push(frame);
    }
    frames
}

#[test]
fn samples_are_frames() {
    for frame in frames() {
        assert!(wire::decode(&frame).is_ok(), "{:?}", wire::decode(&frame));
    }
}

#[test]
fn any_bytes_are_a_frame_or_refused() {
    check!().for_each(|bytes: &[u8]| {
        let _ = wire::decode(bytes);
    });
}

#[test]
fn damaged_frames_are_read_or_refused_and_what_is_read_can_be_written() {
    let frames = frames();
    check!().with_type::<Damage>().for_each(|damage| {
        let bytes = damaged(&frames, damage);
        if let Ok(message) = wire::decode(&bytes)
            && !matches!(message, wire::Message::Unknown { .. })
        {
            let mut again = Vec::new();
            wire::encode(&message, &mut again);
            assert_eq!(wire::decode(&again).as_ref(), Ok(&message));
        }
    });
}
