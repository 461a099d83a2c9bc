//! Sync messages inside a frame.

use bolero::check;
use sync::Message;
use tributary_fuzz::{Damage, damaged, sync_messages};

#[test]
fn any_bytes_are_a_message_or_refused() {
    check!().for_each(|bytes: &[u8]| {
        let _ = Message::decode(bytes);
    });
}

#[test]
fn damaged_messages_are_refused_or_read_within_their_bytes() {
    let messages = sync_messages();
    check!().with_type::<Damage>().for_each(|damage| {
        let bytes = damaged(&messages, damage);
        if let Ok(message) = Message::decode(&bytes) {
            assert!(message.items.iter().all(|item| item.end <= bytes.len()));
            let hashes = message.heads.len() + message.need.len();
            assert!(hashes * 32 <= bytes.len(), "nothing is read that is not there");
            for have in &message.have {
                for head in message.heads.iter() {
                    let _ = have.bloom.contains(head);
                }
            }
        }
    });
}
