//! Logs of which the bound is reached while a region is cut off: what they let go of before it came, the
//! audit finds and repairs.

use mesh::planted::{Bug, plant};
use tributary_sim::{Law, Mishap, Options, run};

const SEEDS: u64 = 60;
const OPTIONS: Options =
    Options { regions: true, log: false, planted: None, mishap: Some(Mishap::ShortLogs) };

#[test]
fn what_a_log_let_go_of_while_a_region_was_away_is_brought_by_the_audit() {
    let mut reached = 0;
    for seed in 1..=SEEDS {
        let outcome = run(seed, OPTIONS);
        assert_eq!(outcome.violation, None, "seed {seed}");
        reached += u64::from(outcome.tally.contains_key("entries let go of before they came"));
    }
    assert!(reached > SEEDS / 2, "the bound was reached in {reached} of {SEEDS} seeds only");
}

#[test]
fn without_the_audit_what_a_log_let_go_of_is_never_there() {
    plant(Some(Bug::NeverAudits));
    let caught = (1..=SEEDS).find_map(|seed| Some((seed, run(seed, OPTIONS).violation?.law)));
    plant(None);
    println!("{caught:?}");
    assert!(matches!(caught, Some((_, Law::HealedConverges))), "{caught:?}");
}
