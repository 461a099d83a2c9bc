//! Laws that catch nothing are worth nothing: each bug that is put in breaks one of them.
//!
//! The table of what is caught by what is in `docs/testing.md`.

use sync::planted::{Bug, plant};
use tributary_sim::{Law, Options, Planted, run};

/// The first seed that catches a bug, and the law that it breaks.
fn caught(within: u64, options: Options, laws: &[Law]) -> Option<(u64, Law)> {
    (1..=within).find_map(|seed| {
        let law = run(seed, options).violation?.law;
        laws.contains(&law).then_some((seed, law))
    })
}

#[test]
fn every_bug_put_in_around_the_shards_is_caught() {
    // The first law is the one that the bug breaks; the others are what may be seen of it before.
    let bugs: [(Planted, u64, &[Law]); 11] = [
        (Planted::DiskLies, 20, &[Law::NothingBeforeItIsDurable, Law::AcknowledgedIsDurable]),
        (Planted::SpeaksBeforeCommit, 20, &[Law::NothingBeforeItIsDurable]),
        (Planted::LosesTail, 40, &[Law::AcknowledgedIsDurable, Law::TheStoreIsWhole]),
        (
            Planted::LosesFrames,
            40,
            &[Law::HealedConverges, Law::EveryRequestIsAnswered, Law::ConvergedIsSilent],
        ),
        (Planted::PresenceTwice, 20, &[Law::PresenceInOrder]),
        (Planted::ForgetsRoom, 60, &[Law::MemoryIsBounded]),
        (Planted::NeverGivesRoom, 20, &[Law::HealedConverges, Law::EveryRequestIsAnswered]),
        (Planted::ClosesAnother, 40, &[Law::OnlyItsOwnSession]),
        (Planted::StartsEmpty, 20, &[Law::AcknowledgedIsDurable, Law::TheStoreIsWhole]),
        (Planted::SwallowsDenials, 20, &[Law::EveryRequestIsAnswered]),
        (Planted::FlipsBits, 40, &[Law::HonestClientsNeverFail, Law::HealedConverges]),
    ];
    assert_eq!(bugs.len(), Planted::ALL.len(), "every bug is in the table");
    for (bug, within, laws) in bugs {
        let options = Options { planted: Some(bug), ..Options::default() };
        let caught = caught(within, options, laws);
        println!("{bug:?}: {caught:?}");
        assert!(caught.is_some(), "{bug:?} is not caught within {within} seeds");
    }
}

/// The rules that matter to clients as they are in this world. The other rules of the protocol have
/// tests of their own beside them (`docs/testing.md`).
#[test]
fn bugs_put_into_the_sync_protocol_are_caught() {
    for bug in [Bug::AlwaysAnswer, Bug::PresumeAlways] {
        plant(Some(bug));
        let caught = caught(20, Options::default(), &[Law::ConvergedIsSilent]);
        plant(None);
        println!("{bug:?}: {caught:?}");
        assert!(caught.is_some(), "{bug:?} is not caught within 20 seeds");
    }
}
