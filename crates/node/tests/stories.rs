//! Stories of one shard: what it says to whom, with the store and the archive run by hand.

#[allow(dead_code, reason = "each file of stories uses a part of the rig")]
mod rig;

use std::time::Duration;

use model::DocumentId;
use rig::{Client, Rig, document, storage};
use tributary_node::{Limits, Report};
use wire::Message;

#[test]
fn what_one_client_makes_another_gets_once_it_is_durable() {
    let mut rig = Rig::new(Limits::default());
    let (mut ann, mut bob) = (Client::join(&mut rig, "ann"), Client::join(&mut rig, "bob"));
    ann.put("title", "first");
    ann.sync(&mut rig);
    rig.hold_commits = true;
    bob.sync(&mut rig);
    ann.put("title", "second");
    ann.say(&mut rig);
    rig.run();
    let before = bob.read(&mut rig).len();
    assert_eq!(before, 0, "nothing is told while it is not durable");
    rig.hold_commits = false;
    rig.run();
    rig.pass(Duration::from_millis(10));
    bob.sync(&mut rig);
    assert_eq!(bob.heads(), ann.heads());
}

/// Two with one document open, who have just heard of a change: it rests.
fn two_and_a_resting_document(rest: Duration, gather_max: Duration) -> (Rig, Client, Client) {
    let mut rig = Rig::new(Limits { rest_per_session: rest / 2, gather_max, ..Limits::default() });
    let (mut ann, mut bob) = (Client::join(&mut rig, "ann"), Client::join(&mut rig, "bob"));
    ann.put("title", "first");
    ann.sync(&mut rig);
    bob.sync(&mut rig);
    rig.pass(Duration::from_secs(1));
    ann.put("title", "second");
    ann.say(&mut rig);
    rig.run();
    rig.commits = 0;
    assert!(rig.waiting_for(&ann) > 0 && rig.waiting_for(&bob) > 0, "both have been told");
    bob.read(&mut rig);
    (rig, ann, bob)
}

#[test]
fn what_is_typed_while_a_document_rests_shares_one_commit_and_is_told_when_that_is_durable() {
    let rest = Duration::from_millis(20);
    let (mut rig, mut ann, mut bob) = two_and_a_resting_document(rest, Duration::from_secs(1));
    rig.hold_commits = true;
    for n in 0..15 {
        ann.read(&mut rig);
        ann.put("title", &n.to_string());
        ann.say(&mut rig);
        rig.pass(Duration::from_millis(1));
    }
    assert!(!rig.has_held(), "nothing is on its way to the store while it rests");
    rig.hold_commits = false;
    rig.pass(Duration::from_millis(6));
    assert_eq!(rig.commits, 1);
    assert_eq!(rig.waiting_for(&bob), 1, "all of it is told in one message");
    bob.read(&mut rig);
    bob.sync(&mut rig);
    ann.sync(&mut rig);
    assert_eq!(bob.heads(), ann.heads());
}

#[test]
fn what_is_typed_while_a_document_rests_is_stored_within_a_bound() {
    let (rest, bound) = (Duration::from_millis(200), Duration::from_millis(10));
    let (mut rig, mut ann, _bob) = two_and_a_resting_document(rest, bound);
    ann.put("title", "third");
    ann.say(&mut rig);
    rig.pass(bound - Duration::from_millis(1));
    assert_eq!(rig.commits, 0);
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.commits, 1);
}

#[test]
fn who_asks_for_a_document_that_is_nowhere_is_told_so_and_gets_it_when_it_turns_up() {
    let mut rig = Rig::new(Limits::default());
    let (mut ann, mut bob) = (Client::join(&mut rig, "ann"), Client::join(&mut rig, "bob"));
    bob.say(&mut rig);
    rig.run();
    let frames = bob.read(&mut rig);
    assert!(matches!(frames.as_slice(), [Message::DocUnavailable { .. }]), "{frames:?}");
    ann.put("title", "here now");
    ann.sync(&mut rig);
    rig.pass(Duration::from_millis(10));
    bob.sync(&mut rig);
    assert_eq!(bob.heads(), ann.heads());
}

#[test]
fn a_whole_document_that_is_uploaded_becomes_the_snapshot_without_a_second_look() {
    let mut rig = Rig::new(rig::small());
    let mut ann = Client::join(&mut rig, "ann");
    (0..50).for_each(|n| ann.put(&format!("key{n}"), "value"));
    ann.sync(&mut rig);
    rig.pass(Duration::from_secs(5));
    assert_eq!(rig.archive_jobs, 1, "expanded and proven in one job");
    let mut bob = Client::join(&mut rig, "bob");
    bob.sync(&mut rig);
    assert_eq!(bob.heads(), ann.heads());
    assert_eq!(rig.shard.counters().snapshots_out, 1);
    // What is written next goes on from what was stored.
    rig.restart();
    ann.reconnect(&mut rig);
    ann.put("key1", "changed");
    ann.sync(&mut rig);
    let mut late = Client::join(&mut rig, "late");
    late.sync(&mut rig);
    assert_eq!(late.heads(), ann.heads());
}

#[test]
fn a_newcomer_gets_the_snapshot_and_the_tail_after_a_restart() {
    let mut rig = Rig::new(rig::small());
    let mut ann = Client::join(&mut rig, "ann");
    for n in 0..60 {
        ann.put("key", &n.to_string());
        ann.sync(&mut rig);
    }
    rig.pass(Duration::from_secs(5));
    assert!(rig.reports.iter().any(|report| matches!(report, Report::Compacted { .. })));
    ann.put("key", "after the snapshot");
    ann.sync(&mut rig);
    rig.restart();
    let mut bob = Client::join(&mut rig, "bob");
    bob.sync(&mut rig);
    assert_eq!(bob.heads(), ann.heads());
    assert_eq!(rig.shard.counters().snapshots_out, 1);
    // What the newcomer writes is checked against the directory that was stored.
    bob.put("key", "by the newcomer");
    bob.sync(&mut rig);
    ann.reconnect(&mut rig);
    ann.sync(&mut rig);
    assert_eq!(bob.heads(), ann.heads());
}

#[test]
fn a_peer_that_reads_only_version_1_gets_trimmed_changes_one_by_one() {
    let mut rig = Rig::new(rig::small());
    let mut ann = Client::join(&mut rig, "ann");
    for n in 0..60 {
        ann.put("key", &n.to_string());
        ann.sync(&mut rig);
    }
    rig.pass(Duration::from_secs(5));
    let mut old = Client::join(&mut rig, "old");
    old.version_1 = true;
    old.sync(&mut rig);
    assert_eq!(old.heads(), ann.heads());
    assert_eq!(rig.shard.counters().snapshots_out, 0);
}

#[test]
fn presence_is_passed_on_in_order_with_its_author_and_not_to_its_author() {
    let mut rig = Rig::new(Limits::default());
    let (mut ann, mut bob) = (Client::join(&mut rig, "ann"), Client::join(&mut rig, "bob"));
    ann.put("title", "shared");
    ann.sync(&mut rig);
    bob.sync(&mut rig);
    for count in 1..=20 {
        rig.presence(&ann, count, b"here");
    }
    let counts: Vec<u64> = bob
        .read(&mut rig)
        .into_iter()
        .filter_map(|frame| match frame {
            Message::Ephemeral { sender, count, .. } if sender.as_str() == "ann" => Some(count),
            _ => None,
        })
        .collect();
    assert_eq!(counts, (1..=20).collect::<Vec<_>>());
    assert!(ann.read(&mut rig).is_empty());
}

#[test]
fn a_subscriber_hears_what_our_store_and_other_stores_hold() {
    let mut rig = Rig::new(Limits::default());
    let mut ann = Client::join_with_storage(&mut rig, "ann", "store-of-ann");
    let mut bob = Client::join(&mut rig, "bob");
    ann.put("title", "shared");
    ann.sync(&mut rig);
    bob.sync(&mut rig);
    rig.subscribe(&bob, &["store-of-ann", storage().as_str()]);
    ann.put("title", "newer");
    ann.sync(&mut rig);
    rig.pass(Duration::from_secs(1));
    let mut heard: Vec<(String, bool)> = Vec::new();
    for frame in bob.read(&mut rig) {
        if let Message::RemoteHeadsChanged { heads, .. } = frame {
            heard.extend(
                heads
                    .into_iter()
                    .map(|entry| (entry.storage.to_string(), entry.heads == ann.heads())),
            );
        }
    }
    for store in ["store-of-ann", storage().as_str()] {
        let last = heard.iter().rev().find(|(name, _)| name == store);
        assert_eq!(last, Some(&(store.to_owned(), true)), "{heard:?}");
    }
}

#[test]
fn logs_leave_memory_when_there_is_too_much_and_come_back_when_they_are_needed() {
    // Room for what an open document takes, and not for this log.
    let mut rig = Rig::new(Limits { memory_bytes: 10_000, ..Limits::default() });
    let mut ann = Client::join(&mut rig, "ann");
    (0..300).for_each(|n| ann.put("key", &n.to_string()));
    ann.sync(&mut rig);
    rig.pass(Duration::from_secs(10));
    let (memory, loaded) =
        (rig.shard.counters().memory_bytes, rig.shard.counters().documents_loaded);
    assert!(memory <= 10_000, "{memory} bytes");
    ann.put("key", "again");
    ann.sync(&mut rig);
    assert_eq!(rig.shard.counters().documents_loaded, loaded + 1);
    let mut bob = Client::join(&mut rig, "bob");
    bob.sync(&mut rig);
    assert_eq!(bob.heads(), ann.heads());
}

#[test]
fn a_log_that_the_archive_has_no_time_for_leaves_memory_when_that_is_short_and_not_before() {
    for (memory_bytes, left) in [(10_000, 1), (128 << 20, 0)] {
        let limits = Limits { memory_bytes, verify_jobs_max: 0, ..Limits::default() };
        let mut rig = Rig::new(limits);
        let mut ann = Client::join(&mut rig, "ann");
        for n in 0..100 {
            ann.put("key", &n.to_string());
            ann.sync(&mut rig);
        }
        rig.pass(Duration::from_secs(10));
        let counters = rig.shard.counters();
        assert!(counters.memory_bytes <= memory_bytes as u64);
        assert_eq!(counters.left_unverified, left);
        let mut bob = Client::join(&mut rig, "bob");
        bob.sync(&mut rig);
        assert_eq!(bob.heads(), ann.heads());
        assert_eq!(rig.shard.counters().documents_loaded, 1 + left);
    }
}

#[test]
fn a_log_that_is_large_for_its_memory_is_put_into_a_snapshot_all_the_same() {
    // It is verified in a pause, and then not for half a minute, so as not to do only that.
    let limits = Limits { memory_bytes: 25_000, verify_share: 6_000, ..rig::small() };
    let mut rig = Rig::new(limits);
    let mut ann = Client::join(&mut rig, "ann");
    for n in 0..100 {
        ann.put("key", &n.to_string());
        ann.sync(&mut rig);
        if n == 50 {
            rig.pass(Duration::from_secs(3));
        }
    }
    rig.leave(&ann);
    rig.pass(Duration::from_secs(60));
    let mut compacted = rig.reports.iter();
    assert!(compacted.any(|it| matches!(it, Report::Compacted { changes: 100, .. })));
    assert_eq!(rig.shard.counters().left_unverified, 0);
}

#[test]
fn a_document_that_nobody_has_open_is_forgotten_and_not_lost() {
    let mut rig = Rig::new(Limits::default());
    let mut ann = Client::join(&mut rig, "ann");
    ann.put("key", "value");
    ann.sync(&mut rig);
    rig.leave(&ann);
    rig.pass(Duration::from_secs(60));
    assert_eq!(rig.shard.counters().documents, 0);
    let mut bob = Client::join(&mut rig, "bob");
    bob.sync(&mut rig);
    assert_eq!(bob.heads(), ann.heads());
}

#[test]
fn what_is_kept_for_too_long_is_trimmed_and_the_document_is_the_same() {
    let retained = Limits { retain_bytes: 1 << 20, ..rig::small() };
    let mut rig = Rig::new(retained);
    let mut ann = Client::join(&mut rig, "ann");
    for n in 0..60 {
        ann.put("key", &n.to_string());
        ann.sync(&mut rig);
    }
    rig.pass(Duration::from_secs(5));
    let before = rig.disk_bytes();
    rig.later(Duration::from_secs(8 * 24 * 3600));
    rig.trim(document());
    rig.pass(Duration::from_secs(1));
    assert!(rig.disk_bytes() < before);
    let mut bob = Client::join(&mut rig, "bob");
    bob.sync(&mut rig);
    assert_eq!(bob.heads(), ann.heads());
}

#[test]
fn a_slow_reader_gets_one_message_for_many_changes() {
    let mut rig = Rig::new(Limits { session_bytes_in_flight: 1, ..Limits::default() });
    let (mut ann, mut bob) = (Client::join(&mut rig, "ann"), Client::join(&mut rig, "bob"));
    ann.put("key", "first");
    ann.sync(&mut rig);
    bob.sync(&mut rig);
    rig.slow(&bob);
    for n in 0..50 {
        ann.put("key", &n.to_string());
        ann.sync(&mut rig);
        rig.pass(Duration::from_millis(10));
    }
    let waiting = rig.waiting_for(&bob);
    assert!(waiting <= 2, "{waiting} frames wait");
    rig.fast(&bob);
    bob.sync(&mut rig);
    assert_eq!(bob.heads(), ann.heads());
}

#[test]
fn a_slow_reader_is_told_of_each_document_that_nobody_has_when_it_reads() {
    let mut rig = Rig::new(Limits { session_bytes_in_flight: 1, ..Limits::default() });
    let mut bob = Client::join(&mut rig, "bob");
    rig.slow(&bob);
    for n in 0..50 {
        rig.ask_for(&bob, DocumentId::from_bytes(&[n; 16]).unwrap());
    }
    assert_eq!(rig.waiting_for(&bob), 1);
    rig.fast(&bob);
    let told = bob.read(&mut rig);
    assert!(told.iter().all(|frame| matches!(frame, Message::DocUnavailable { .. })));
    assert_eq!(told.len(), 50);
}

#[test]
fn whoever_says_something_all_the_time_keeps_nobody_from_being_acknowledged() {
    let mut rig = Rig::new(Limits::default());
    let (mut ann, eve) = (Client::join(&mut rig, "ann"), Client::join(&mut rig, "eve"));
    for value in ["first", "second", "third"] {
        ann.read(&mut rig);
        ann.put("key", value);
        ann.say(&mut rig);
    }
    // So soon after the others that the acknowledgement waits.
    assert_eq!(rig.waiting_for(&ann), 0);
    for _ in 0..1_000 {
        rig.ask_for(&eve, document());
        rig.pass(Duration::from_micros(500));
    }
    assert_eq!(rig.waiting_for(&ann), 1);
}

#[test]
fn when_open_documents_use_up_the_memory_the_session_with_the_most_has_to_go() {
    let mut rig = Rig::new(Limits { open_bytes: 200_000, ..Limits::default() });
    let document = |n: u8, m: u8| {
        let mut bytes = [n; 16];
        bytes[0] = m;
        model::DocumentId::from_bytes(&bytes).unwrap()
    };
    let [ann, bob, greedy] = ["ann", "bob", "greedy"].map(|name| Client::join(&mut rig, name));
    for n in 0..5 {
        rig.ask_for(&ann, document(n, 1));
        rig.ask_for(&bob, document(n, 2));
    }
    let mut opened = 0;
    while rig.closed.is_empty() && opened < 200 {
        rig.ask_for(&greedy, document(opened, 3));
        opened += 1;
    }
    assert!((20..200).contains(&opened), "it is let in, and not without end: {opened}");
    let used = rig.shard.counters().memory_bytes;
    assert!(used <= 200_000, "{used} bytes");
    rig.leave(&greedy);
    assert_eq!(rig.shard.counters().documents, 10, "what it had open went with it");
    // The others are not asked to go, and have room again.
    for n in 5..15 {
        rig.ask_for(&ann, document(n, 1));
    }
    let gone: Vec<_> = rig.closed.iter().map(|(session, _)| *session).collect();
    assert_eq!(gone, [greedy.session]);
}

#[test]
fn documents_that_nobody_has_open_send_nobody_away() {
    let mut rig = Rig::new(Limits { open_bytes: 20_000, ..Limits::default() });
    for n in 0..100 {
        rig.trim(model::DocumentId::from_bytes(&[n; 16]).unwrap());
    }
    assert!(rig.shard.counters().documents >= 100);
    let ann = Client::join(&mut rig, "ann");
    rig.ask_for(&ann, document());
    assert!(rig.closed.is_empty(), "{:?}", rig.closed);
}

#[test]
fn a_session_may_have_only_so_many_documents_open() {
    let mut rig = Rig::new(Limits { documents_per_session: 3, ..Limits::default() });
    let ann = Client::join(&mut rig, "ann");
    for n in 0..4_u8 {
        rig.ask_for(&ann, model::DocumentId::from_bytes(&[n; 16]).unwrap());
    }
    assert!(matches!(rig.closed.as_slice(), [(session, _)] if *session == ann.session));
}
