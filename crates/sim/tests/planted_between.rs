//! Bugs between regions, each put in and caught. The table in `docs/testing.md` says by which seed.

use std::collections::BTreeMap;

use mesh::planted as in_mesh;
use node::planted as in_node;
use tributary_sim::{Law, Mishap, Options, Planted, run};

/// The first seed that catches a bug and the law that it breaks, or what else was broken, how often.
fn caught(
    within: u64,
    options: Options,
    laws: &[Law],
) -> Result<(u64, Law), BTreeMap<Option<Law>, u64>> {
    let mut others = BTreeMap::new();
    for seed in 1..=within {
        let law = run(seed, Options { regions: true, ..options }).violation.map(|it| it.law);
        match law {
            Some(law) if laws.contains(&law) => return Ok((seed, law)),
            other => *others.entry(other).or_default() += 1,
        }
    }
    Err(others)
}

fn suffering(mishap: Mishap) -> Options {
    Options { mishap: Some(mishap), ..Options::default() }
}

/// Without the bug, the same seeds break no law.
fn is_sound(within: u64, mishap: Mishap) {
    if let Ok((seed, law)) = caught(within, suffering(mishap), &EVERY_LAW) {
        panic!("seed {seed} with {mishap:?} breaks {law:?} without a bug");
    }
}

const EVERY_LAW: [Law; 17] = [
    Law::AcknowledgedIsDurable,
    Law::NothingBeforeItIsDurable,
    Law::HealedConverges,
    Law::ConvergedIsSilent,
    Law::MemoryIsBounded,
    Law::OnlyItsOwnSession,
    Law::EveryRequestIsAnswered,
    Law::PresenceInOrder,
    Law::HonestClientsNeverFail,
    Law::HonestChangesAreTaken,
    Law::NothingUnasked,
    Law::TheStoreIsWhole,
    Law::LogsNeverChange,
    Law::LogsAreKept,
    Law::VectorsStaySmall,
    Law::EachChangeCrossesOnce,
    Law::RegionsUnderstand,
];

#[test]
fn what_bugs_are_sought_with_breaks_no_law_by_itself() {
    let all = [
        Mishap::None,
        Mishap::Crashes,
        Mishap::Cuts,
        Mishap::Resets,
        Mishap::Wipes,
        Mishap::Forks,
        Mishap::ForksAndWipes,
        Mishap::Garbles,
    ];
    for mishap in all {
        is_sound(8, mishap);
    }
}

#[test]
fn every_bug_put_in_around_links_is_caught() {
    let bugs: [(Planted, &[Law]); 3] = [
        (Planted::KeepsEpoch, &[Law::LogsNeverChange]),
        (Planted::LosesEntries, &[Law::HealedConverges]),
        (Planted::ShufflesPresence, &[Law::PresenceInOrder]),
    ];
    assert_eq!(bugs.len(), Planted::BETWEEN.len(), "every bug is in the table");
    for (bug, laws) in bugs {
        let caught = caught(60, Options { planted: Some(bug), ..Options::default() }, laws);
        println!("{bug:?}: {caught:?}");
        assert!(caught.is_ok(), "{bug:?} is not caught within 60 seeds");
    }
}

#[test]
fn bugs_of_one_node_are_caught_between_regions_too() {
    let bugs: [(Planted, &[Law]); 2] = [
        (Planted::DiskLies, &[Law::NothingBeforeItIsDurable, Law::AcknowledgedIsDurable]),
        (Planted::SpeaksBeforeCommit, &[Law::NothingBeforeItIsDurable]),
    ];
    for (bug, laws) in bugs {
        let caught = caught(20, Options { planted: Some(bug), ..Options::default() }, laws);
        println!("{bug:?}: {caught:?}");
        assert!(caught.is_ok(), "{bug:?} is not caught within 20 seeds");
    }
}

#[test]
fn every_bug_put_into_links_is_caught() {
    use in_mesh::Bug;
    let bugs: [(Bug, Mishap, &[Law]); 7] = [
        (Bug::SkipsOne, Mishap::None, &[Law::NothingBeforeItIsDurable]),
        (Bug::SendsTwice, Mishap::None, &[Law::EachChangeCrossesOnce, Law::RegionsUnderstand]),
        (Bug::IgnoresVector, Mishap::Cuts, &[Law::EachChangeCrossesOnce, Law::RegionsUnderstand]),
        (Bug::HoldsEarly, Mishap::None, &[Law::NothingBeforeItIsDurable]),
        (Bug::DigestOff, Mishap::Garbles, &[Law::LogsNeverChange]),
        (Bug::NeverAudits, Mishap::Wipes, &[Law::HealedConverges]),
        (Bug::DropsFetch, Mishap::Wipes, &[Law::HealedConverges]),
    ];
    assert_eq!(bugs.len(), Bug::ALL.len(), "every bug is in the table");
    for (bug, mishap, laws) in bugs {
        in_mesh::plant(Some(bug));
        let caught = caught(60, suffering(mishap), laws);
        in_mesh::plant(None);
        println!("{bug:?} with {mishap:?}: {caught:?}");
        assert!(caught.is_ok(), "{bug:?} is not caught within 60 seeds");
    }
}

#[test]
fn every_bug_put_into_shards_is_caught() {
    use in_node::Bug;
    let bugs: [(Bug, Mishap, &[Law]); 11] = [
        (Bug::PublishesEarly, Mishap::None, &[Law::NothingBeforeItIsDurable]),
        (Bug::MarkFirst, Mishap::None, &[Law::NothingBeforeItIsDurable, Law::TheStoreIsWhole]),
        (
            Bug::MarkGoesBack,
            Mishap::None,
            &[Law::NothingBeforeItIsDurable, Law::EachChangeCrossesOnce],
        ),
        (Bug::FirstWins, Mishap::Forks, &[Law::TheStoreIsWhole, Law::HealedConverges]),
        (Bug::DropsWaiting, Mishap::Crashes, &[Law::TheStoreIsWhole, Law::HealedConverges]),
        (Bug::NumbersAgain, Mishap::None, &[Law::EachChangeCrossesOnce]),
        (Bug::TrimsEarly, Mishap::Cuts, &[Law::LogsAreKept]),
        (Bug::ForgetsDead, Mishap::ForksAndWipes, &[Law::HealedConverges]),
        (Bug::ForgetsTheRest, Mishap::ShortLogs, &[Law::HealedConverges]),
        (Bug::ForgetsEarly, Mishap::Crashes, &[Law::LogsAreKept]),
        (Bug::NeverForgets, Mishap::Restarts, &[Law::HealedConverges, Law::VectorsStaySmall]),
    ];
    assert_eq!(bugs.len(), Bug::BETWEEN.len(), "every bug is in the table");
    for (bug, mishap, laws) in bugs {
        in_node::plant(Some(bug));
        let caught = caught(120, suffering(mishap), laws);
        in_node::plant(None);
        println!("{bug:?} with {mishap:?}: {caught:?}");
        assert!(caught.is_ok(), "{bug:?} is not caught within 120 seeds");
    }
}
