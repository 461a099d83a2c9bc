//! Acknowledged means present after everything that was not synced is gone.

use std::path::Path;
use std::time::Duration;

use store::power_loss::{self, DiskFault, Sizes, Trial};
use store::{Store, StoreError};
use tributary_store_sqlite::{SqliteOptions, SqliteStore};

fn open(path: &Path, skip_sync: bool) -> Result<Box<dyn Store>, StoreError> {
    // As close behind the commits as it can be, where it would be ahead first.
    let options = SqliteOptions { skip_sync, witness_interval: Duration::ZERO };
    Ok(Box::new(SqliteStore::open_with(path, &options)?))
}

const TRIAL: Trial =
    Trial { writer: "writer", open, sizes: Sizes::Small, cycles: 0, seed: 0, skip_sync: false };

#[test]
#[ignore = "the process that the power-loss tests kill; alone it does nothing"]
fn writer() {
    power_loss::writer(open);
}

fn nothing_is_lost(sizes: Sizes, cycles: u64) {
    for seed in [1, 2] {
        let Some(outcome) = power_loss::run(&Trial { sizes, cycles, seed, ..TRIAL }) else {
            return;
        };
        println!("{sizes:?} values, seed {seed}, {cycles} losses of power: {outcome:?}");
        assert_eq!((outcome.lost, outcome.broken), (0, 0), "{outcome:?}");
        assert!(outcome.acknowledged >= cycles, "{outcome:?}");
        assert!(outcome.witnessed > 0, "{outcome:?}");
    }
}

#[test]
fn small_values_survive_a_loss_of_power() {
    nothing_is_lost(Sizes::Small, 25);
}

#[test]
fn medium_values_survive_a_loss_of_power() {
    nothing_is_lost(Sizes::Medium, 15);
}

#[test]
fn large_values_survive_a_loss_of_power() {
    nothing_is_lost(Sizes::Large, 6);
}

#[test]
fn without_the_sync_the_same_test_finds_losses() {
    // By chance something else may just have synced the file; not five times.
    for seed in 0..5 {
        let trial = Trial { cycles: 4, seed, skip_sync: true, ..TRIAL };
        let Some(outcome) = power_loss::run(&trial) else { return };
        println!("without sync, seed {seed}: {outcome:?}");
        // Lost, or refused because the witness noticed.
        if outcome.lost + outcome.broken > 0 {
            return;
        }
    }
    panic!("a store that never syncs lost nothing: the test cannot fail");
}

#[test]
fn a_full_disk_is_told_apart_and_stops_the_store() {
    for bytes in [1_500_000, 4_321_000] {
        let trial = Trial { sizes: Sizes::Medium, seed: bytes, ..TRIAL };
        let met = power_loss::run_with_fault(&trial, DiskFault::FullAfterBytes(bytes));
        let Some((first, second)) = met else { return };
        assert_eq!((first.as_str(), second.as_str()), ("full", "stopped"), "{bytes}");
    }
}

#[test]
fn a_sync_that_fails_is_never_tried_again() {
    for syncs in [20, 41] {
        let trial = Trial { seed: syncs, ..TRIAL };
        let met = power_loss::run_with_fault(&trial, DiskFault::SyncFailsAfter(syncs));
        let Some((first, second)) = met else { return };
        assert_eq!((first.as_str(), second.as_str()), ("io", "stopped"), "{syncs}");
    }
}
