//! Three regions to which everything happens, for as long as one likes: `cargo xtask soak`.
//!
//! In the test command it runs for half a minute. `SOAK_MINUTES` and `SOAK_SEED` say otherwise; the
//! seed decides what happens, not how fast processes and kernels are, so a failure may need a few runs.

#[path = "support/regions.rs"]
#[allow(dead_code, reason = "not every test file uses all of it")]
mod regions;
mod support;
#[path = "support/tls.rs"]
#[allow(dead_code, reason = "here nobody listens in")]
mod tls;

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use model::DocumentId;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use regions::{World, until_within};
use support::Client;
use wan::{Conditions, Way};

const NAMES: [&str; 3] = ["eu", "us", "ap"];
/// How many documents there are. Few, so that regions write into the same ones.
const DOCUMENTS: u8 = 6;
/// How many keys each region has in a document; later values overwrite earlier ones.
const KEYS: i64 = 40;
/// After so many rounds everything is healed, and all has to be well.
const ROUNDS_PER_CHECK: u32 = 12;
/// How long regions may take to agree once everything is healed. Links are dialled with pauses of up
/// to 8 s, and 15 s if it looked as if an operator were needed.
const AGREE_WITHIN: Duration = Duration::from_secs(60);
const DEFAULT_SECONDS: u64 = 30;
/// From so long a run on, a region is cut off from all others once between two checks, for a minute.
const LONG_SECONDS: u64 = 120;
const CUT_OFF_FOR: Duration = Duration::from_secs(60);

/// What the test did, and what has to be true because of it.
struct Soak {
    world: World,
    random: SmallRng,
    /// What each region has acknowledged last: by document and key.
    acknowledged: BTreeMap<(u8, String), i64>,
    /// What was handed in and may or may not be there.
    doubtful: BTreeMap<(u8, String), Vec<i64>>,
    counter: i64,
}

#[test]
fn regions_survive_whatever_happens_to_them_and_agree_when_it_is_over() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let seconds = number("SOAK_MINUTES").map_or(DEFAULT_SECONDS, |minutes: u64| minutes * 60);
    let seed = number("SOAK_SEED").unwrap_or_else(rand::random::<u64>);
    println!("soak: {seconds} s, SOAK_SEED={seed}");
    let mut soak = Soak {
        world: World::start(&NAMES),
        random: SmallRng::seed_from_u64(seed),
        acknowledged: BTreeMap::new(),
        doubtful: BTreeMap::new(),
        counter: 0,
    };
    let started = Instant::now();
    let mut checks = 0;
    while started.elapsed() < Duration::from_secs(seconds) || checks == 0 {
        for _ in 0..ROUNDS_PER_CHECK {
            soak.round();
        }
        if seconds >= LONG_SECONDS {
            soak.cut_off_for_a_minute();
        }
        let took = soak.check();
        checks += 1;
        println!(
            "soak: after {:>5} s: {} changes, {checks} checks, agreed within {:.1} s",
            started.elapsed().as_secs(),
            soak.counter,
            took.as_secs_f64()
        );
    }
}

fn document(n: u8) -> DocumentId {
    DocumentId::from_bytes(&[n; 16]).expect("16 bytes")
}

impl Soak {
    /// One thing happens, and people write meanwhile.
    fn round(&mut self) {
        let region = *NAMES.choose(&mut self.random).expect("there are some");
        let other = *NAMES.choose(&mut self.random).expect("there are some");
        let wire = (region != other).then(|| self.world.wire(region, other));
        match (self.random.random_range(0..10), wire) {
            (0 | 1, Some(wire)) => wire.cut(),
            (2, Some(wire)) => wire.stall(),
            (3, Some(wire)) => wire.reset(),
            (4, Some(wire)) => {
                wire.cut();
                wire.reset();
            }
            (5 | 6, Some(wire)) => wire.heal(),
            (7, Some(wire)) => {
                let way = Way {
                    latency_ms: self.random.random_range(0..150),
                    jitter_ms: self.random.random_range(0..30),
                    bytes_per_second: NonZeroU64::new(self.random.random_range(20_000..2_000_000)),
                    ..Way::default()
                };
                wire.set(Conditions::both(way)).expect("that is possible");
            }
            (8, _) => {
                self.write_and_kill(region);
                self.world.region_mut(region).start_again();
            }
            (9, _) => {
                self.world.region_mut(region).stop();
                self.world.region_mut(region).start_again();
            }
            _ => {}
        }
        for region in NAMES {
            self.write(region);
        }
    }

    /// One region is alone, while people write in all of them.
    fn cut_off_for_a_minute(&mut self) {
        let region = *NAMES.choose(&mut self.random).expect("there are some");
        self.world.cut_off(region);
        let until = Instant::now() + CUT_OFF_FOR;
        while Instant::now() < until {
            for region in NAMES {
                self.write(region);
            }
            // The pace of people, not a wait for something.
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn client(&self, region: &str, n: u8) -> Client {
        let name = format!("client of {region}");
        let mut client = Client::join(self.world.region(region).server(), &name, &document(n));
        client.pull();
        client
    }

    /// Somebody writes a few things, and waits until they are safe.
    fn write(&mut self, region: &str) {
        let n = self.random.random_range(0..DOCUMENTS);
        let mut client = self.client(region, n);
        for _ in 0..self.random.random_range(1..20) {
            self.counter += 1;
            let key = format!("{region} {}", self.random.random_range(0..KEYS));
            client.put(&key, self.counter);
            self.doubtful.remove(&(n, key.clone()));
            self.acknowledged.insert((n, key), self.counter);
        }
        client.acknowledged();
    }

    /// Somebody writes, and the process dies before anything is certain.
    fn write_and_kill(&mut self, region: &str) {
        let n = self.random.random_range(0..DOCUMENTS);
        let mut client = self.client(region, n);
        for _ in 0..self.random.random_range(1..10) {
            self.counter += 1;
            let key = format!("{region} {}", self.random.random_range(0..KEYS));
            client.put(&key, self.counter);
            self.doubtful.entry((n, key)).or_default().push(self.counter);
        }
        self.world.region_mut(region).kill();
    }

    /// Everything is healed; soon all regions serve the same, and nothing acknowledged is missing.
    fn check(&mut self) -> Duration {
        for region in NAMES {
            self.world.heal(region);
        }
        let took = until_within(AGREE_WITHIN, "all regions to serve the same", || {
            (0..DOCUMENTS).all(|n| {
                let heads = NAMES.map(|region| self.client(region, n).doc.get_heads());
                heads.iter().all(|other| *other == heads[0])
            })
        });
        self.world.linked();
        for n in 0..DOCUMENTS {
            let reader = self.client(NAMES[0], n);
            for ((_, key), value) in
                self.acknowledged.range((n, String::new())..(n + 1, String::new()))
            {
                let found = reader.get(key);
                let doubtful = self.doubtful.get(&(n, key.clone()));
                let later = |found| doubtful.is_some_and(|values| values.contains(&found));
                assert!(
                    found == Some(*value) || found.is_some_and(later),
                    "document {n}, key {key}: {found:?} instead of {value}"
                );
            }
        }
        took
    }
}
