//! How long commits took lately: the median and the 99th percentile of the last minute.
//!
//! A histogram for each second, so that what is older than a minute is forgotten by the second. The
//! bounds of its classes are 19 % apart, which is as exact as anybody reads such a figure.

use std::time::Duration;

/// How many seconds are remembered.
pub const SECONDS: usize = 60;
/// Classes for each doubling.
const PER_DOUBLING: f64 = 4.0;
/// Where the first class ends: 10 microseconds. The last begins at 140 seconds.
const FIRST_SECONDS: f64 = 1e-5;
const CLASSES: usize = 96;

/// The commits of the last minute.
pub struct Latency {
    seconds: Vec<Second>,
}

#[derive(Clone)]
struct Second {
    /// Which second since the start this is; another one's place is taken over.
    number: u64,
    count: u64,
    classes: [u32; CLASSES],
}

/// Some commits, summed up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentiles {
    /// How many.
    pub count: u64,
    /// Half of them took no longer, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 took no longer, in milliseconds.
    pub p99_ms: f64,
}

impl Default for Latency {
    fn default() -> Self {
        Self { seconds: vec![Second { number: 0, count: 0, classes: [0; CLASSES] }; SECONDS] }
    }
}

impl Latency {
    /// A commit has ended in this second and took so long.
    pub fn observe(&mut self, second: u64, took: Duration) {
        let slot = &mut self.seconds[second as usize % SECONDS];
        if slot.number != second {
            *slot = Second { number: second, count: 0, classes: [0; CLASSES] };
        }
        slot.count += 1;
        slot.classes[class(took)] += 1;
    }

    /// The minute that ends with this second; nothing if there were no commits.
    pub fn minute(&self, second: u64) -> Option<Percentiles> {
        let from = (second + 1).saturating_sub(SECONDS as u64);
        let mut classes = [0_u64; CLASSES];
        let mut count = 0;
        for slot in self.seconds.iter().filter(|slot| (from..=second).contains(&slot.number)) {
            count += slot.count;
            for (sum, n) in classes.iter_mut().zip(slot.classes) {
                *sum += u64::from(n);
            }
        }
        percentiles(count, &classes)
    }

    /// The 99th percentile of each of up to a minute's seconds before this one, in milliseconds, the
    /// oldest first; nothing where there were no commits.
    pub fn each_second(&self, second: u64) -> Vec<Option<f64>> {
        let from = second.saturating_sub(SECONDS as u64 - 1);
        let of = |number: u64| {
            let slot = &self.seconds[number as usize % SECONDS];
            let classes = slot.classes.map(u64::from);
            let count = if slot.number == number { slot.count } else { 0 };
            percentiles(count, &classes).map(|all| all.p99_ms)
        };
        (from..second).map(of).collect()
    }
}

fn percentiles(count: u64, classes: &[u64; CLASSES]) -> Option<Percentiles> {
    let at = |share: f64| {
        let rank = (count as f64 * share).ceil() as u64;
        let mut below = 0;
        let found = classes.iter().position(|n| {
            below += n;
            below >= rank
        });
        let class = found.unwrap_or(CLASSES - 1);
        // The middle of the class.
        FIRST_SECONDS * ((class as f64 - 0.5) / PER_DOUBLING).exp2() * 1e3
    };
    (count > 0).then(|| Percentiles { count, p50_ms: at(0.5), p99_ms: at(0.99) })
}

fn class(took: Duration) -> usize {
    let above = (took.as_secs_f64().max(FIRST_SECONDS) / FIRST_SECONDS).log2() * PER_DOUBLING;
    (above.ceil() as usize).min(CLASSES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(value: f64, expected: f64) -> bool {
        (value / expected - 1.0).abs() < 0.1
    }

    #[test]
    fn percentiles_are_within_a_tenth_of_what_was_observed() {
        let mut latency = Latency::default();
        for ms in 1..=200 {
            latency.observe(5, Duration::from_millis(ms));
        }
        let minute = latency.minute(5).unwrap();
        assert_eq!(minute.count, 200);
        assert!(near(minute.p50_ms, 100.0) && near(minute.p99_ms, 198.0), "{minute:?}");
    }

    #[test]
    fn what_is_older_than_a_minute_is_forgotten() {
        let mut latency = Latency::default();
        assert_eq!(latency.minute(0), None);
        latency.observe(0, Duration::from_millis(50));
        latency.observe(59, Duration::from_millis(2));
        assert_eq!(latency.minute(59).unwrap().count, 2);
        let later = latency.minute(60).unwrap();
        assert!(later.count == 1 && near(later.p99_ms, 2.0), "{later:?}");
        latency.observe(60, Duration::from_millis(1));
        assert_eq!(latency.minute(119).unwrap().count, 1);
        assert_eq!(latency.minute(500), None);
    }

    #[test]
    fn seconds_come_oldest_first_and_those_without_commits_are_empty() {
        let mut latency = Latency::default();
        latency.observe(1, Duration::from_millis(4));
        let seconds = latency.each_second(3);
        assert_eq!(seconds.len(), 3);
        assert!(seconds[0].is_none() && near(seconds[1].unwrap(), 4.0) && seconds[2].is_none());
        assert_eq!(latency.each_second(1_000), vec![None; SECONDS - 1]);
    }

    #[test]
    fn no_duration_falls_outside_of_the_classes() {
        for took in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            assert!(class(took) < CLASSES);
        }
    }
}
